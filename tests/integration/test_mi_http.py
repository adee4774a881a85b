"""MI over HTTP against servers that misbehave on the wire: bounded, and told by what they did."""

from __future__ import annotations

import asyncio
import socket
import ssl
import threading
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest
import trustme
import uvloop

from sr_exporter import tls
from sr_exporter.errors import MiError
from sr_exporter.mi.http import HttpTransport
from sr_exporter.model import PollFailure
from sr_exporter.names import Names
from sr_exporter.simulator.judge import is_open
from tests.harness import eventually
from tests.peer import OK, Peer, closes, many_peers, resets, says, says_and_closes, trickles
from tests.recorded_mi import RECORDINGS, TIMEOUT, Exchange

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

SECRET = "s3cret-path"
#: Long enough that an answer judged at once cannot be taken for one judged at the deadline.
LONG = 20.0
SHORT = 0.5
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"

Loop = type[asyncio.AbstractEventLoop]


@pytest.fixture(params=[asyncio.SelectorEventLoop, uvloop.Loop], ids=["asyncio", "uvloop"])
def loop(request) -> Loop:
    """Give both loops: the command runs on uvloop."""
    return request.param


@pytest.fixture
def peers() -> Iterator[Callable[..., Peer]]:
    with many_peers() as make:
        yield make


def run(
    act: Callable[[HttpTransport], Awaitable[None]],
    url: str,
    *,
    loop: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop,
    **more: object,
) -> None:
    """Have `act` ask over a transport."""

    async def main() -> None:
        names = Names()
        transport = HttpTransport(url, names, **{"timeout_seconds": LONG, **more})  # type: ignore[arg-type]
        try:
            await act(transport)
        finally:
            transport.rest()
            names.close()

    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(main())


def url_of(peer: Peer) -> str:
    return f"http://127.0.0.1:{peer.port}/{SECRET}"


def asked(url: str, **more: object) -> bytes:
    answers = []

    async def ask(transport: HttpTransport) -> None:
        answers.append(await transport.ask(b'{"a":1}'))

    run(ask, url, **more)
    return answers[0]


def failed(url: str, **more: object) -> MiError:
    with pytest.raises(MiError) as caught:
        asked(url, **more)
    assert SECRET not in str(caught.value)
    assert "http:" not in str(caught.value)
    return caught.value


# --- the request ----------------------------------------------------------------------------


def test_a_request_is_one_write_of_json_with_its_length(peers, loop):
    """Up to 3.4 the body must come in one read; nothing that was not asked for is sent."""
    got = []

    def script(_: Peer, connection: socket.socket) -> None:
        got.append(connection.recv(65536))
        connection.sendall(OK)

    peer = peers(script)
    assert asked(f"{url_of(peer)}?key={SECRET}", loop=loop) == b"fine"
    head, _, body = got[0].partition(b"\r\n\r\n")
    lines = head.decode().split("\r\n")
    assert body == b'{"a":1}'
    assert lines[0] == f"POST /{SECRET}?key={SECRET} HTTP/1.1"
    headers = dict(line.lower().split(": ") for line in lines[1:])
    assert headers.pop("user-agent").startswith("sr-exporter/")
    assert headers == {
        "host": f"127.0.0.1:{peer.port}",
        "content-type": "application/json",
        "content-length": "7",
    }


def test_basic_authentication_is_sent_at_once(peers):
    """User and password go out with the request, not after a 401."""
    peer = peers(says(OK))
    asked(url_of(peer), basic_auth=("u", "p"))
    assert b"Authorization: Basic dTpw\r\n" in peer.requests[0]


def test_the_environment_is_ignored(peers, monkeypatch, tmp_path):
    """Proxies and .netrc of the environment change nothing."""
    proxy = peers(says(OK))
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY", "https_proxy"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.port}")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login u password p\ndefault login u password p\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    peer = peers(says(OK))
    assert asked(url_of(peer)) == b"fine"
    assert proxy.connections == 0
    assert b"authorization" not in peer.requests[0].lower()


def test_cookies_are_not_sent_back(peers):
    """A peer cannot make our next request to it longer."""
    wants = b"HTTP/1.1 200 OK\r\nSet-Cookie: a=%s\r\nContent-Length: 0\r\n\r\n" % (b"x" * 2000)
    peer = peers(says(wants, wants))

    async def twice(transport: HttpTransport) -> None:
        for _ in range(2):
            await transport.ask(b"{}")
            transport.rest()

    run(twice, url_of(peer))
    first, second = peer.requests
    assert first == second


def test_ipv6_is_spoken(peers):
    """Its address is in brackets, in the request too."""
    try:
        peer = peers(says(OK), "::1")
    except OSError:
        pytest.skip("no IPv6 on this machine")
    assert asked(f"http://[::1]:{peer.port}/mi") == b"fine"
    assert b"\r\nHost: [::1]:%d\r\n" % peer.port in peer.requests[0]


# --- the answer -----------------------------------------------------------------------------


def test_the_body_of_a_recorded_answer_is_given_as_it_came(peers, loop):
    """The bytes of an answer are passed on as they are."""
    exchange = Exchange("4.0", "status-noparams")
    assert asked(url_of(peers(says(exchange.answer))), loop=loop) == exchange.answer_body


@pytest.mark.parametrize(
    ("answer", "body"),
    [
        (CHUNKED + b"2\r\nfi\r\n2;x=y\r\nne\r\n0\r\nA: b\r\n\r\n", b"fine"),
        (CHUNKED + b"0\r\n\r\n", b""),
        (b"HTTP/1.1 100 Continue\r\n\r\n" * 3 + OK, b"fine"),
        (b"HTTP/1.1 200\r\nContent-Length: 4\r\n\r\nfine", b"fine"),
        (b"HTTP/1.1 200 OK\r\nContent-Encoding: identity\r\nContent-Length: 1\r\n\r\nx", b"x"),
    ],
)
def test_answers_of_every_form_are_read(peers, answer, body):
    """Chunks, interim answers, a status without words."""
    assert asked(url_of(peers(says(answer)))) == body


@pytest.mark.parametrize("head", [b"HTTP/1.1 200 OK\r\n\r\n", b"HTTP/1.0 200 OK\r\nA: b\r\n\r\n"])
def test_a_body_may_end_with_its_connection(peers, head, loop):
    """Where neither a length nor chunks say where it ends."""
    assert asked(url_of(peers(says_and_closes(head + b"fine"))), loop=loop) == b"fine"


HANGING = [
    ("4.0/big/N30000-sr_list_status.res", PollFailure.HTTP_STATUS),
    ("4.0/http/http-GET.res", PollFailure.HTTP_STATUS),
    ("4.0/http/id-object.res", PollFailure.HTTP_STATUS),
    ("4.0/http/notification.res", PollFailure.HTTP_STATUS),
]


def _hanging() -> Iterator[tuple[bytes, PollFailure]]:
    for name, reason in HANGING:
        answer = (RECORDINGS / name).read_bytes()
        assert answer.endswith(TIMEOUT)
        yield answer.removesuffix(TIMEOUT), reason
    yield b"HTTP/1.1 401 No\r\nContent-Length: 9\r\n\r\n", PollFailure.AUTH
    yield b"HTTP/1.1 500 No\r\n", PollFailure.HTTP_STATUS
    yield b"HTTP/1.1 101 Up\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\nx", PollFailure.HTTP_STATUS


@pytest.mark.parametrize(("answer", "reason"), list(_hanging()))
def test_an_answer_that_never_ends_is_judged_by_its_status(peers, loop, answer, reason):
    """At once, and its connection is closed: the next request has one of its own."""
    peer = peers(says(answer))

    async def twice(transport: HttpTransport) -> None:
        for number in (1, 2):
            began = time.monotonic()
            with pytest.raises(MiError, match=r"HTTP \d{3}") as raised:
                await transport.ask(b"{}")
            assert raised.value.reason is reason
            assert time.monotonic() - began < LONG / 4
            # Without any further word of ours: a source may rest for long.
            assert await asyncio.to_thread(peer.hung_up.wait, 10)
            peer.hung_up.clear()
            assert peer.connections == number

    run(twice, url_of(peer), loop=loop)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_not_followed(peers, status):
    """What a redirect points to is never asked."""
    target = peers(says(OK))
    where = f"http://127.0.0.1:{target.port}/"
    peer = peers(says(f"HTTP/1.1 {status} Moved\r\nLocation: {where}\r\n\r\n".encode()))
    error = failed(url_of(peer))
    assert (error.reason, str(error)) == (PollFailure.HTTP_STATUS, f"HTTP {status}")
    assert (len(peer.requests), target.connections) == (1, 0)


@pytest.mark.parametrize(
    ("start", "drop"),
    [
        (b"", b""),
        (b"HTTP/1.1 200 OK\r\nX: ", b"x"),
        (b"", b"H"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n", b"x"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n", b""),
        (CHUNKED, b"1\r\nx\r\n"),
        (CHUNKED, b""),
        (CHUNKED + b"0\r\n", b"X: x\r\n"),
        (b"HTTP/1.1 200 OK\r\n\r\n", b"x"),
        (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
    ],
    ids=[
        "silence", "header", "status-line", "body", "cut-body", "chunks", "no-chunk", "trailers",
        "body-to-the-end", "continue",
    ],
)  # fmt: skip
def test_a_trickling_peer_is_left_at_the_deadline(peers, loop, start, drop):
    """However a peer spreads its answer, the deadline is for the whole of it."""
    # A status line that goes on as `HHHH` is none.
    reason = PollFailure.MALFORMED if drop == b"H" else PollFailure.TIMEOUT
    peer = peers(trickles(start, drop))
    began = time.monotonic()
    error = failed(url_of(peer), timeout_seconds=SHORT, loop=loop)
    assert time.monotonic() - began < SHORT + 5
    assert error.reason is reason
    if reason is PollFailure.TIMEOUT:
        assert time.monotonic() - began >= SHORT * 0.9
        assert str(error) == "no whole answer within 0.5 s"


def test_a_server_that_takes_no_connection_is_left_at_the_deadline(loop):
    """Its backlog is full, as of a host that drops what it is sent."""
    with (
        socket.create_server(("127.0.0.1", 0), backlog=0) as full,
        socket.create_connection(full.getsockname()),
    ):
        url = f"http://127.0.0.1:{full.getsockname()[1]}/"
        error = failed(url, timeout_seconds=SHORT, loop=loop)
    assert error.reason is PollFailure.TIMEOUT


@pytest.mark.parametrize(
    ("script", "reason", "message"),
    [
        (resets, PollFailure.CONNECT, "connection reset by peer"),
        (closes, PollFailure.CONNECT, "the connection was closed without an answer"),
        (says_and_closes(OK[:-1]), PollFailure.MALFORMED, "the answer ends before its end"),
        (says_and_closes(OK[:30]), PollFailure.MALFORMED, "the answer ends before its end"),
        (says_and_closes(CHUNKED), PollFailure.MALFORMED, "the answer ends before its end"),
        (
            says_and_closes(CHUNKED + b"5\r\nab"),
            PollFailure.MALFORMED,
            "the answer ends before its end",
        ),
        (says(b"400 Parse_error"), PollFailure.MALFORMED, "not HTTP: "),
        (says(b"\xff" * 100 + b"\r\n\r\n"), PollFailure.MALFORMED, "not HTTP: "),
        (says(CHUNKED + b"zz\r\n"), PollFailure.MALFORMED, "not HTTP: "),
        (
            says(b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n"),
            PollFailure.MALFORMED,
            "not HTTP: ",
        ),
        (
            says(b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 1\r\n\r\nx"),
            PollFailure.MALFORMED,
            "the answer is packed, unasked: gzip",
        ),
    ],
)
def test_a_broken_answer_is_told_by_what_is_wrong(peers, loop, script, reason, message):
    """Resets and closed connections are told from what is no HTTP or ends before its end."""
    peer = peers(script)
    error = failed(url_of(peer), loop=loop)
    assert error.reason is reason
    assert str(error).startswith(message)


def test_nobody_listening_is_a_failure_to_connect(loop):
    """A refused connection is told at once."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    error = failed(f"http://127.0.0.1:{port}/{SECRET}", loop=loop)
    assert (error.reason, str(error)) == (PollFailure.CONNECT, "connection refused")


# --- limits ---------------------------------------------------------------------------------


@pytest.mark.parametrize("length", [1000, 1001])
@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_over_the_limit_is_not_taken(peers, monkeypatch, length, chunked):
    """The limit is on the bytes taken, whatever the headers say."""
    monkeypatch.setattr("sr_exporter.mi.http.LIMIT_BYTES", 1000)
    if chunked:
        answer = CHUNKED + b"%x\r\n" % length + b"x" * length + b"\r\n0\r\n\r\n"
    else:
        answer = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % length + b"x" * length
    peer = peers(says(answer))
    if length <= 1000:
        assert len(asked(url_of(peer))) == length
        return
    error = failed(url_of(peer))
    assert error.reason is PollFailure.TOO_BIG
    assert str(error) == "the answer is longer than 1000 bytes"
    assert peer.hung_up.wait(10)


@pytest.mark.parametrize(
    ("start", "drop", "reason"),
    [
        (b"HTTP/1.1 200 OK\r\n\r\n", b"x" * 500_000, PollFailure.TOO_BIG),
        (CHUNKED, b"1\r\nx\r\n" * 50_000, PollFailure.TOO_BIG),
        (CHUNKED + b"1;", b"x" * 500_000, PollFailure.TOO_BIG),
        (CHUNKED + b"0\r\nX: ", b"x" * 500_000, PollFailure.TOO_BIG),
        (b"HTTP/1.1 200 OK\r\n", b"X: x\r\n" * 5000, PollFailure.MALFORMED),
        (b"HTTP/1.1 200 OK\r\nX: ", b"x" * 50_000, PollFailure.MALFORMED),
        (b"HTTP/1.1 ", b"1" * 50_000, PollFailure.MALFORMED),
        (b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 5000, PollFailure.MALFORMED),
    ],
    ids=[
        "body", "chunks", "chunk-extension", "trailers", "headers", "header", "status-line",
        "continue",
    ],
)  # fmt: skip
def test_what_does_not_end_is_left_at_the_limit(peers, monkeypatch, start, drop, reason):
    """A peer that never stops sending is left long before the deadline."""
    monkeypatch.setattr("sr_exporter.mi.http.LIMIT_BYTES", 1_000_000)
    peer = peers(trickles(start, drop))
    began = time.monotonic()
    assert failed(url_of(peer)).reason is reason
    assert time.monotonic() - began < LONG / 2
    assert peer.hung_up.wait(10)


# --- connections ----------------------------------------------------------------------------


def test_a_connection_is_used_again_until_it_rests(peers, loop):
    """The requests of a poll share one; after it there is none."""

    def script(peer: Peer, connection: socket.socket) -> None:
        for _ in range(3):
            peer.read_request(connection)
            connection.sendall(OK)
        peer.wait_for_hang_up(connection)

    peer = peers(script)

    async def poll(transport: HttpTransport) -> None:
        for _ in range(3):
            assert await transport.ask(b"{}") == b"fine"
        assert not peer.hung_up.is_set()
        transport.rest()
        assert await asyncio.to_thread(peer.hung_up.wait, 10)

    run(poll, url_of(peer), loop=loop)
    assert peer.connections == 1


@pytest.mark.parametrize(
    ("answer", "says_more"),
    [
        (OK, False),
        (OK.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"), True),
        (OK + b"more", True),
        (OK + OK, True),
    ],
    ids=["closed", "close announced", "more than asked", "two answers"],
)
def test_a_connection_that_is_over_is_not_used_again(peers, loop, answer, says_more):
    """Closed by the peer between two requests, or not to be trusted: the next has a new one."""

    def script(peer: Peer, connection: socket.socket) -> None:
        peer.read_request(connection)
        connection.sendall(answer)
        if says_more:
            peer.wait_for_hang_up(connection)
        else:
            connection.close()

    peer = peers(script)

    async def twice(transport: HttpTransport) -> None:
        for _ in range(2):
            assert await transport.ask(b"{}") == b"fine"
            # The peer has closed it by now; whether our loop has seen that is another matter.
            peer.answered.wait(0 if says_more else 10)
            peer.answered.clear()

    run(twice, url_of(peer), loop=loop)
    assert peer.connections == 2


def test_a_new_connection_is_made_when_the_old_one_is_closed(peers, loop):
    """Not a moment before, however fast: OpenSIPS never sees two of ours."""
    seen = []

    def script(peer: Peer, connection: socket.socket) -> None:
        seen.append(sum(map(is_open, [one.fileno() for one in accepted])))
        accepted.append(connection)
        peer.read_request(connection)
        connection.sendall(OK)
        peer.wait_for_hang_up(connection)

    accepted: list[socket.socket] = []
    peer = peers(script)

    async def poll(transport: HttpTransport) -> None:
        for _ in range(100):
            await transport.ask(b"{}")
            transport.rest()

    run(poll, url_of(peer), loop=loop)
    assert seen == [0] * 100


def test_one_request_is_in_flight(peers):
    """Two that ask at once are answered one after the other, over one connection."""

    def script(peer: Peer, connection: socket.socket) -> None:
        for number in (1, 2):
            peer.read_request(connection)
            assert len(peer.requests) == number
            connection.sendall(OK)
        peer.wait_for_hang_up(connection)

    peer = peers(script)

    async def both(transport: HttpTransport) -> None:
        assert await asyncio.gather(transport.ask(b"{}"), transport.ask(b"{}")) == [b"fine"] * 2

    run(both, url_of(peer))
    assert peer.connections == 1


def test_a_request_that_is_cancelled_closes_its_connection_at_once(peers, loop):
    """And the next one is answered."""
    calls = []

    def script(peer: Peer, connection: socket.socket) -> None:
        peer.read_request(connection)
        calls.append(1)
        if len(calls) > 1:
            connection.sendall(OK)
        peer.wait_for_hang_up(connection)

    peer = peers(script)

    async def leave(transport: HttpTransport) -> None:
        asking = asyncio.create_task(transport.ask(b"{}"))
        await asyncio.to_thread(eventually, lambda: calls)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        assert await asyncio.to_thread(peer.hung_up.wait, 5)
        assert await transport.ask(b"{}") == b"fine"

    run(leave, url_of(peer), loop=loop)


def test_every_answer_after_a_failure_is_heard(peers):
    """What befell one request has no bearing on the next."""

    def script(peer: Peer, connection: socket.socket) -> None:
        while True:
            peer.read_request(connection)
            if len(peer.requests) % 2 == 0:
                connection.sendall(OK)

    async def ask(transport: HttpTransport) -> None:
        for _ in range(2):
            with pytest.raises(MiError, match="no whole answer"):
                await transport.ask(b"{}")
            assert await transport.ask(b"{}") == b"fine"

    run(ask, url_of(peers(script)), timeout_seconds=SHORT)


@pytest.mark.parametrize("first", ["refuses", "is silent"])
def test_a_host_of_two_addresses_is_asked_at_the_second(peers, monkeypatch, first):
    """One after the other, never at once; the first may take its share of the time only."""
    peer = peers(says(OK))
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full:
        waiting = socket.create_connection(full.getsockname())
        port = full.getsockname()[1]
        if first == "refuses":
            full.close()

        def two(host: str, _: int, *, type: int, flags: int = 0) -> list:  # noqa: A002
            if flags:
                raise socket.gaierror(socket.EAI_NONAME, "a name")
            kind = (socket.AF_INET, type, 0, "")
            return [(*kind, ("127.0.0.1", port)), (*kind, ("127.0.0.1", peer.port))]

        monkeypatch.setattr(socket, "getaddrinfo", two)
        with waiting:
            assert asked("http://sip.example/mi", timeout_seconds=4.0) == b"fine"
    assert b"\r\nHost: sip.example\r\n" in peer.requests[0]


# --- https ----------------------------------------------------------------------------------

CA = trustme.CA()
PEM = CA.cert_pem.bytes().decode()


def over_tls(
    certificate: trustme.LeafCert, script: Callable[[Peer, socket.socket], None]
) -> Callable[[Peer, socket.socket], None]:
    """Have a script speak over TLS; what fails before is the client's affair."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate.configure_cert(context)

    def wrapped(peer: Peer, connection: socket.socket) -> None:
        with context.wrap_socket(connection, server_side=True) as secured:
            script(peer, secured)

    return wrapped


def secure(peer: Peer, host: str = "localhost") -> str:
    return f"https://{host}:{peer.port}/{SECRET}"


@pytest.fixture
def to_loopback(monkeypatch):
    """Have every name lead to 127.0.0.1."""
    real = socket.getaddrinfo

    def look_up(host: str, port: int, **more: int) -> list:
        if host != "127.0.0.1" and more.get("flags"):
            raise socket.gaierror(socket.EAI_NONAME, "a name")
        return real("127.0.0.1", port, **more)

    monkeypatch.setattr(socket, "getaddrinfo", look_up)


def test_a_server_with_a_certificate_of_the_given_ca_is_asked(peers, loop, to_loopback):
    """By its name, and by its address; over one connection as long as a poll lasts."""
    for host in ("localhost", "127.0.0.1"):

        def script(peer: Peer, connection: socket.socket) -> None:
            for _ in range(2):
                peer.read_request(connection)
                connection.sendall(OK)
            peer.wait_for_hang_up(connection)

        peer = peers(over_tls(CA.issue_cert(host), script))

        async def twice(transport: HttpTransport) -> None:
            for _ in range(2):
                assert await transport.ask(b"{}") == b"fine"

        run(twice, secure(peer, host), ca=PEM, loop=loop)
        assert peer.connections == 1


def _refused(peer: Peer, loop: Loop, ca: str | None = PEM, host: str = "localhost") -> str:
    error = failed(secure(peer, host), ca=ca, loop=loop)
    assert error.reason is PollFailure.CONNECT
    assert peer.requests == []
    return str(error)


def test_whoever_is_not_to_be_trusted_is_told_by_what_is_wrong(peers, loop, to_loopback):
    """The message says what to mend, and nothing was sent."""
    good = over_tls(CA.issue_cert("localhost"), says(OK))
    other = trustme.CA().cert_pem.bytes().decode()
    assert _refused(peers(good), loop, other).startswith("TLS: the certificate is not trusted: ")
    assert _refused(peers(good), loop, None).startswith("TLS: the certificate is not trusted: ")
    assert _refused(peers(good), loop, host="sip.example").startswith(
        "TLS: the certificate is for another host: "
    )
    expired = CA.issue_cert("localhost", not_after=datetime(2020, 1, 1, tzinfo=UTC))
    assert _refused(peers(over_tls(expired, says(OK))), loop) == "TLS: the certificate has expired"

    def says_plainly(peer: Peer, connection: socket.socket) -> None:
        connection.recv(65536)
        connection.sendall(b"HTTP/1.1 400 No\r\n\r\n")

    assert _refused(peers(says_plainly), loop).startswith("TLS: ")
    assert _refused(peers(good), loop, "no certificate").startswith("TLS: ")


def test_the_system_s_certificates_are_trusted_where_none_are_given(
    peers, to_loopback, monkeypatch, tmp_path
):
    """OpenSSL is told by its own variable where they are."""
    file = tmp_path / "ca.pem"
    file.write_text(PEM)
    monkeypatch.setenv("SSL_CERT_FILE", str(file))
    tls.context.cache_clear()
    peer = peers(over_tls(CA.issue_cert("localhost"), says(OK)))
    try:
        assert asked(secure(peer)) == b"fine"
    finally:
        tls.context.cache_clear()


def test_certificates_are_read_once():
    """A thousand sources share one context; another CA has another."""
    assert tls.context(PEM) is tls.context(str(PEM))
    assert tls.context(PEM) is not tls.context(trustme.CA().cert_pem.bytes().decode())
    assert tls.context(PEM).minimum_version is ssl.TLSVersion.TLSv1_2


@pytest.mark.parametrize("how", ["cancelled", "late", "judged"])
def test_over_tls_too_a_connection_is_closed_at_once(peers, loop, to_loopback, how):
    """Though the peer does not take part in ending TLS."""
    came = threading.Event()
    ended = threading.Event()

    def script(peer: Peer, connection: socket.socket) -> None:
        peer.read_request(connection)
        raw = socket.socket(fileno=socket.dup(connection.fileno()))
        raw.settimeout(10)
        with raw:
            if how == "judged":
                connection.sendall(b"HTTP/1.1 500 No\r\n")
            came.set()
            while raw.recv(65536):
                pass
        ended.set()

    peer = peers(over_tls(CA.issue_cert("localhost"), script))

    async def leave(transport: HttpTransport) -> None:
        asking = asyncio.create_task(transport.ask(b"{}"))
        if how == "cancelled":
            await asyncio.to_thread(came.wait, 10)
            asking.cancel()
        await asyncio.wait({asking})
        assert await asyncio.to_thread(ended.wait, 5)
        if how != "cancelled":
            assert isinstance(asking.exception(), MiError)

    timeout = SHORT if how == "late" else LONG
    run(leave, secure(peer), ca=PEM, loop=loop, timeout_seconds=timeout)


def test_a_server_silent_during_the_handshake_is_left_at_the_deadline(peers, loop, to_loopback):
    """TLS has no time of its own; the connection is closed at once."""

    def script(peer: Peer, connection: socket.socket) -> None:
        peer.wait_for_hang_up(connection)

    peer = peers(script)
    error = failed(secure(peer), ca=PEM, loop=loop, timeout_seconds=SHORT)
    assert error.reason is PollFailure.TIMEOUT
    assert peer.hung_up.wait(5)
