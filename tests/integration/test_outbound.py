"""Requests to neighbours that misbehave on the wire: bounded, and told by what they did."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
import time
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
import uvloop

from sr_exporter.names import Names
from sr_exporter.outbound import Answer, Failure, Outbound, OutboundError, Post
from tests.harness import eventually
from tests.peer import OK, Peer, closes, many_peers, resets, says, says_and_closes, trickles
from tests.recorded_mi import RECORDINGS, TIMEOUT

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

SECRET = "s3cret-path"
#: Long enough that an answer judged at once cannot be taken for one judged at the deadline.
LONG = 20.0
SHORT = 0.5


@pytest.fixture
def peers() -> Iterator[Callable[..., Peer]]:
    with many_peers() as make:
        yield make


def to(peer: Peer, *, timeout: float = LONG) -> Post:
    return Post(
        url=f"http://127.0.0.1:{peer.port}/{SECRET}?key={SECRET}",
        body=b'{"a":1}',
        timeout_seconds=timeout,
        headers={"X-SR-Delivery": "7"},
    )


def run(act: Callable[[Outbound], Awaitable[object]]) -> None:
    """Have `act` post, in a loop like the exporter's; nothing of ours is left open after it."""

    async def main() -> None:
        names = Names()
        outbound = Outbound(names)
        try:
            await act(outbound)
        finally:
            outbound.hang_up()
            names.close()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())


def posted(post: Post) -> Answer:
    answers = []

    async def act(outbound: Outbound) -> None:
        answers.append(await outbound.post(post))

    run(act)
    return answers[0]


def failed(post: Post) -> OutboundError:
    with pytest.raises(OutboundError) as caught:
        posted(post)
    assert SECRET not in str(caught.value)
    assert "http:" not in str(caught.value)
    return caught.value


def test_a_good_answer_is_given_whole(peers):
    """Status and headers come back; the request is one write of JSON with its length."""
    peer = peers(says(OK))
    answer = posted(to(peer))
    assert answer.status == 200
    assert answer.headers["content-type"] == "application/json"
    head, _, body = peer.requests[0].partition(b"\r\n\r\n")
    lines = head.decode().split("\r\n")
    assert lines[0] == f"POST /{SECRET}?key={SECRET} HTTP/1.1"
    headers = dict(line.lower().split(": ") for line in lines[1:])
    assert headers["content-type"] == "application/json"
    assert headers["content-length"] == "7"
    assert headers["accept-encoding"] == "identity"
    assert headers["user-agent"].startswith("sr-exporter/")
    assert headers["x-sr-delivery"] == "7"
    assert "transfer-encoding" not in headers
    assert "expect" not in headers
    assert body == b'{"a":1}'


def test_a_connection_is_used_again(peers):
    """A good answer's connection serves the next request, and ends when it is let go of."""

    def script(peer: Peer, connection: socket.socket) -> None:
        for _ in range(3):
            peer.read_request(connection)
            connection.sendall(OK)
        peer.wait_for_hang_up(connection)

    peer = peers(script)

    async def act(outbound: Outbound) -> None:
        for _ in range(3):
            assert (await outbound.post(to(peer))).status == 200

    run(act)
    assert peer.connections == 1
    assert peer.hung_up.wait(10)


HANGING = [
    ("4.0/big/N30000-sr_list_status.res", 500),
    ("4.0/http/http-GET.res", 405),
    ("4.0/http/id-object.res", 500),
    ("4.0/http/notification.res", 202),
]


@pytest.mark.parametrize(("recording", "status"), HANGING)
def test_an_answer_that_never_ends_is_judged_by_its_status(peers, recording, status):
    """A recorded answer whose body never comes is judged at once, and its connection closed."""
    answer = (RECORDINGS / recording).read_bytes()
    assert answer.endswith(TIMEOUT)
    peer = peers(says(answer.removesuffix(TIMEOUT)))

    async def act(outbound: Outbound) -> None:
        began = time.monotonic()
        got = await outbound.post(to(peer))
        assert time.monotonic() - began < LONG / 4
        assert got.status == status
        # Without any further word of ours: a lane may rest for hours.
        assert await asyncio.to_thread(peer.hung_up.wait, 10)

    run(act)


def test_the_next_request_has_a_connection_of_its_own(peers):
    """After an answer whose body has not ended the connection is never used again."""
    peer = peers(says(b"HTTP/1.1 500 No\r\nTransfer-Encoding: chunked\r\n\r\n"))

    async def act(outbound: Outbound) -> None:
        for _ in range(3):
            got = await outbound.post(to(peer))
            assert got.status == 500

    run(act)
    assert peer.connections == 3


@pytest.mark.parametrize(
    ("start", "drop"),
    [
        (b"", b""),
        (b"HTTP/1.1 200 OK\r\nX: ", b"x"),
        (b"HTTP/1.1 200 ", b"O"),
    ],
    ids=["silence", "header", "status-line"],
)
def test_a_trickling_peer_is_left_at_the_deadline(peers, start, drop):
    """However a peer spreads its answer, the deadline is for all of its head."""
    peer = peers(trickles(start, drop))
    began = time.monotonic()
    error = failed(to(peer, timeout=SHORT))
    assert SHORT * 0.9 <= time.monotonic() - began < SHORT + 5
    assert error.failure is Failure.TIMEOUT
    assert str(error) == "no whole answer within 0.5 s"


@pytest.mark.parametrize(
    ("head", "drop"),
    [
        (b"Content-Length: 1000000\r\n\r\n", b"x"),
        (b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n"),
        (b"\r\n", b"x"),
    ],
    ids=["body", "chunks", "body-to-the-end"],
)
def test_a_trickling_body_is_no_reason_to_wait(peers, head, drop):
    """What was taken was taken: the answer is its status, and the rest has a second."""
    peer = peers(trickles(b"HTTP/1.1 200 OK\r\n" + head, drop))

    async def act(outbound: Outbound) -> None:
        assert (await outbound.post(to(peer, timeout=SHORT))).status == 200
        assert await asyncio.to_thread(peer.hung_up.wait, 10)

    run(act)


@pytest.mark.parametrize(
    ("script", "failure", "message"),
    [
        (resets, Failure.CONNECT, "connection reset by peer"),
        (closes, Failure.CONNECT, "the connection was closed without an answer"),
        (
            says_and_closes(b"HTTP/1.1 200 OK\r\nX: x\r\n"),
            Failure.BROKEN,
            "the answer ends before its end",
        ),
        (
            says_and_closes(b"HTTP/1.1 100 Continue\r\n\r\n"),
            Failure.BROKEN,
            "the answer ends before its end",
        ),
        (
            says_and_closes(b"400 Parse_error"),
            Failure.BROKEN,
            "not HTTP: Expected HTTP/, RTSP/ or ICE/",
        ),
        (
            says_and_closes(b"\xff" * 100 + b"\r\n\r\n"),
            Failure.BROKEN,
            "not HTTP: Expected HTTP/, RTSP/ or ICE/",
        ),
        (
            says_and_closes(b"HTTP/1.1 200 OK\r\nX: " + b"x" * 900_000 + b"\r\n\r\n"),
            Failure.BROKEN,
            "not HTTP: over 65536 bytes of headers",
        ),
        (
            says_and_closes(b"HTTP/1.1 200 OK\r\n" + b"X: x\r\n" * 200_000 + b"\r\n"),
            Failure.BROKEN,
            "not HTTP: over 65536 bytes of headers",
        ),
    ],
)
def test_a_broken_answer_is_told_by_what_is_wrong(peers, script, failure, message):
    """Resets and closed connections are told from what is no HTTP or ends before its end."""
    error = failed(to(peers(script)))
    assert error.failure is failure
    assert message is None or str(error) == message


def test_nobody_listening_is_a_failure_to_connect():
    """A refused connection is told at once."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    error = failed(Post(f"http://127.0.0.1:{port}/{SECRET}", b"", LONG, {}))
    assert (error.failure, str(error)) == (Failure.CONNECT, "connection refused")


def test_a_name_that_does_not_exist_is_a_failure_to_connect(monkeypatch):
    """A name that is not resolved is told without the URL."""

    def no_name(*args: object, **kwargs: object) -> object:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", no_name)
    error = failed(Post(f"http://{SECRET}.invalid/", b"", LONG, {}))
    assert error.failure is Failure.CONNECT
    assert str(error) == "name not resolved: Name or service not known"


CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    "drop", [b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 103 So\r\nA: a\r\n\r\n"]
)
def test_whoever_says_that_it_will_answer_without_end_is_left(peers, drop):
    """Else it would keep the processor busy until the deadline."""
    peer = peers(trickles(b"", drop * 9))
    began = time.monotonic()
    error = failed(to(peer))
    assert time.monotonic() - began < LONG / 2
    said = "more than 16 interim responses, and no answer"
    assert (error.failure, str(error)) == (Failure.TOO_BIG, said)
    assert peer.hung_up.wait(10)


def test_an_answer_comes_after_interim_ones(peers):
    """Theirs are no headers of its."""
    peer = peers(says(b"HTTP/1.1 103 So\r\nA: a\r\nB: b\r\n\r\n" * 16 + OK))
    answer = posted(to(peer))
    assert answer.status == 200
    assert not {"a", "b"} & set(answer.headers)


@pytest.mark.parametrize(
    ("start", "drop"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 65537\r\n\r\n", b"x" * 70_000),
        (b"HTTP/1.1 200 OK\r\n\r\n", b"x" * 70_000),
        (CHUNKED, b"1\r\nx\r\n" * 10_000),
        (CHUNKED + b"0\r\n", b"X: x\r\n" * 10_000),
        (CHUNKED + b"0\r\nX: ", b"x" * 50_000),
        (CHUNKED, b"zz"),
        (OK, OK),
    ],
    ids=["long", "endless", "small chunks", "trailers", "a long trailer", "no chunk", "twice"],
)
def test_whoever_says_too_much_has_answered_and_is_left(monkeypatch, peers, start, drop):
    """Long before it is let go of for its time."""
    monkeypatch.setattr("sr_exporter.outbound.KEPT_SECONDS", 60.0)
    peer = peers(trickles(start, drop))

    async def act(outbound: Outbound) -> None:
        assert (await outbound.post(to(peer))).status == 200
        assert await asyncio.to_thread(peer.hung_up.wait, 10)

    run(act)


@pytest.mark.parametrize("value", ["a\r\nX-Forged: 1", "a\0", "\u20ac"])
def test_a_header_that_would_be_more_than_one_is_not_sent(peers, value):
    """The configuration refuses such credentials; this is the last door."""
    peer = peers(says(OK))
    post = Post(f"http://127.0.0.1:{peer.port}/", b"{}", LONG, {"X-Given": value})
    error = failed(post)
    assert (error.failure, str(error)) == (Failure.BROKEN, "the header X-Given cannot be written")
    assert peer.connections == 0


def test_what_is_said_on_a_connection_is_counted_for_each_answer(peers):
    """Not for all of them together: a connection may live for months."""
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\nX: %s\r\n\r\nfine" % (b"x" * 50_000)
    peer = peers(lambda peer, connection: _answers_on(peer, connection, answer))

    async def act(outbound: Outbound) -> None:
        for _ in range(10):
            assert (await outbound.post(to(peer))).status == 200

    run(act)
    assert peer.connections == 1


def _answers_on(peer: Peer, connection: socket.socket, answer: bytes) -> None:
    while True:
        peer.read_request(connection)
        connection.sendall(answer)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_an_answer_and_is_not_followed(peers, status):
    """What a redirect points to is never asked."""
    target = peers(says(OK))
    where = f"http://127.0.0.1:{target.port}/"
    peer = peers(says(f"HTTP/1.1 {status} Moved\r\nLocation: {where}\r\n\r\n".encode()))
    assert posted(to(peer)).status == status
    assert (len(peer.requests), target.connections) == (1, 0)
    assert peer.hung_up.wait(10)


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
    assert posted(to(peer)).status == 200
    assert proxy.connections == 0
    assert b"authorization" not in peer.requests[0].lower()


def test_one_request_is_in_flight(peers):
    """A second one waits for its turn, and has a connection of its own, for we had hung up."""
    release = threading.Event()

    def script(peer: Peer, connection: socket.socket) -> None:
        peer.read_request(connection)
        peer.answered.set()
        release.wait(30)
        connection.sendall(OK)
        peer.wait_for_hang_up(connection)

    peer = peers(script)

    async def act(outbound: Outbound) -> None:
        first = asyncio.create_task(outbound.post(to(peer)))
        assert await asyncio.to_thread(peer.answered.wait, 10)
        second = asyncio.create_task(outbound.post(to(peer)))
        outbound.hang_up()  # of a request under way it takes nothing
        await asyncio.sleep(0)
        assert (len(peer.requests), peer.connections) == (1, 1)
        release.set()
        assert (await first).status == 200
        assert (await second).status == 200

    run(act)
    assert (len(peer.requests), peer.connections) == (2, 2)


def test_cancellation_ends_the_connection(peers):
    """At once, whatever it waits for."""
    peer = peers(says())

    async def act(outbound: Outbound) -> None:
        asked = asyncio.create_task(outbound.post(to(peer)))
        assert await asyncio.to_thread(peer.answered.wait, 10)
        asked.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asked

    began = time.monotonic()
    run(act)
    assert peer.hung_up.wait(10)
    assert time.monotonic() - began < LONG / 2


def test_a_name_that_nobody_looks_up_is_given_up_at_the_deadline(peers, monkeypatch):
    """Where DNS hangs. What it says too late is of use to the next request."""
    peer = peers(says(OK))
    over = threading.Event()

    def slow(host: str, port: int, *_: object, flags: int = 0, **__: object) -> list[object]:
        if flags:
            raise socket.gaierror(socket.EAI_NONAME, "it is a name")
        assert over.wait(30)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))]

    monkeypatch.setattr(socket, "getaddrinfo", slow)
    post = Post(f"http://{SECRET}.example:{peer.port}/", b"{}", SHORT, {})

    async def act(outbound: Outbound) -> None:
        with pytest.raises(OutboundError) as caught:
            await outbound.post(post)
        assert caught.value.failure is Failure.TIMEOUT
        over.set()
        assert (await outbound.post(post)).status == 200

    run(act)
    assert peer.connections == 1


def test_an_address_that_takes_no_connection_does_not_use_up_the_time(peers, monkeypatch):
    """Half of a pair is down, and its packets dropped: the other half is asked, and then first."""
    closing = says(OK.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
    peer = peers(closing)
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full:
        port = full.getsockname()[1]
        found = [
            (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", one))
            for one in (port, peer.port)
        ]
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: list(found))

        took = []

        async def act(outbound: Outbound) -> None:
            for _ in range(2):
                began = time.monotonic()
                answer = await outbound.post(to(peer, timeout=2.0))
                took.append(time.monotonic() - began)
                assert answer.status == 200

        with socket.create_connection(("127.0.0.1", port)):
            run(act)
    first, second = took
    assert first >= 1.0 > second
    assert peer.connections == 2


def test_an_address_of_ipv6_is_asked():
    """By its number in brackets."""
    with many_peers() as make:
        peer = make(says(OK), "::1")
        post = Post(f"http://[::1]:{peer.port}/", b"{}", LONG, {})
        assert posted(post).status == 200


def test_every_answer_after_a_failure_is_heard(peers):
    """What befell one request has no bearing on the next."""

    def script(peer: Peer, connection: socket.socket) -> None:
        while True:
            peer.read_request(connection)
            if len(peer.requests) % 2 == 0:
                connection.sendall(OK)

    peer = peers(script)

    async def act(outbound: Outbound) -> None:
        for _ in range(2):
            with pytest.raises(OutboundError):
                await outbound.post(to(peer, timeout=SHORT))
            answer = await outbound.post(to(peer))
            assert answer.status == 200

    run(act)


def test_cookies_are_not_sent_back(peers):
    """A peer cannot make our next request to it longer."""
    wants = b"HTTP/1.1 200 OK\r\nSet-Cookie: a=%s\r\nContent-Length: 4\r\n\r\nfine" % (b"x" * 2000)
    peer = peers(says(wants, wants))

    async def twice(outbound: Outbound) -> None:
        for _ in range(2):
            await outbound.post(to(peer))
            outbound.hang_up()

    run(twice)
    first, second = peer.requests
    assert len(first) == len(second)
    assert b"cookie" not in second.lower()


def test_hanging_up_while_a_peer_trickles_ends_the_connection(peers):
    """Cancelled and hung up at once, in whatever order: nobody waits for such a peer."""
    peer = peers(trickles(b"HTTP/1.1 200 OK\r\n", b"x"))

    async def leave(outbound: Outbound) -> None:
        task = asyncio.create_task(outbound.post(to(peer)))
        await asyncio.to_thread(eventually, lambda: peer.requests)
        task.cancel()
        outbound.hang_up()
        await asyncio.gather(task, return_exceptions=True)
        assert await asyncio.to_thread(peer.hung_up.wait, 10)

    run(leave)


def test_a_request_after_a_cancelled_one_is_sent(peers):
    """The last round at a stop follows a request that was cancelled a moment ago."""
    slow = peers(trickles(b"HTTP/1.1 200 OK\r\n", b"x"))
    good = peers(says(OK))

    async def again(outbound: Outbound) -> None:
        task = asyncio.create_task(outbound.post(to(slow)))
        await asyncio.to_thread(eventually, lambda: slow.requests)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert (await outbound.post(to(good))).status == 200

    run(again)


@pytest.mark.parametrize(
    ("answer", "seconds", "connections_made"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", 60.0, 1),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", -1.0, 3),  # too long ago by then
        (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: Close\r\n\r\n", 60.0, 3),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n", 60.0, 3),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", 60.0, 1),
        (CHUNKED + b"2\r\nok\r\n0\r\n\r\n", 60.0, 1),
        (b"HTTP/1.1 503 No\r\nContent-Length: 2\r\n\r\nno", 60.0, 1),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\no", 60.0, 3),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok!", 60.0, 3),
        (b"HTTP/1.1 200 OK\r\n\r\n", 60.0, 3),
    ],
)
def test_a_connection_bears_more_once_its_answer_is_whole(
    monkeypatch, peers, answer, seconds, connections_made
):
    """To connect anew for each of many webhooks took half of what they cost."""
    monkeypatch.setattr("sr_exporter.outbound.KEPT_SECONDS", seconds)
    made = []

    def answers_all(peer: Peer, connection: socket.socket) -> None:
        made.append(connection)
        with contextlib.suppress(ConnectionError):
            while peer.read_request(connection):
                connection.sendall(answer)

    peer = peers(answers_all)

    async def act(outbound: Outbound) -> None:
        for _ in range(3):
            assert (await outbound.post(to(peer))).status in (200, 503)

    run(act)
    assert len(made) == connections_made


def test_a_connection_that_waits_in_vain_for_another_request_is_closed(monkeypatch, peers):
    """What fell silent costs its peer nothing, and us no descriptor."""
    monkeypatch.setattr("sr_exporter.outbound.KEPT_SECONDS", 0.05)

    def answers(peer: Peer, connection: socket.socket) -> None:
        peer.read_request(connection)
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        peer.wait_for_hang_up(connection)

    peer = peers(answers)

    async def act(outbound: Outbound) -> None:
        assert (await outbound.post(to(peer))).status == 200
        assert await asyncio.to_thread(peer.hung_up.wait, 10)

    run(act)


def test_a_connection_whose_peer_has_not_taken_all_is_not_used_again(peers):
    """Another request would wait behind what nobody reads, until its deadline."""

    def answers_early(peer: Peer, connection: socket.socket) -> None:
        connection.recv(1000)
        connection.sendall(b"HTTP/1.1 413 No\r\nContent-Length: 0\r\n\r\n")
        peer.over.wait(30)

    peer = peers(answers_early)

    async def act(outbound: Outbound) -> None:
        post = replace(to(peer), body=b"x" * 2**24)
        for _ in range(2):
            assert (await outbound.post(post)).status == 413

    run(act)
    assert peer.connections == 2


def test_a_body_that_comes_after_its_head_ends_before_the_next_request(peers):
    """Python's own server, for one, writes them apart."""
    rest = threading.Event()

    def answers(peer: Peer, connection: socket.socket) -> None:
        while peer.read_request(connection):
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n")
            assert rest.wait(10)
            connection.sendall(b"ok")

    peer = peers(answers)

    async def act(outbound: Outbound) -> None:
        assert (await outbound.post(to(peer))).status == 200
        rest.set()
        line = outbound._idle
        await asyncio.to_thread(eventually, line.usable)
        assert (await outbound.post(to(peer))).status == 200

    run(act)
    assert peer.connections == 1
