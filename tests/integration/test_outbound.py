"""Requests to neighbours that misbehave on the wire: bounded, and told by what they did."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from sr_exporter import connections
from sr_exporter.outbound import Answer, Failure, Outbound, OutboundError, Post
from tests.harness import eventually
from tests.peer import OK, Peer, closes, many_peers, resets, says, says_and_closes, trickles
from tests.recorded_mi import RECORDINGS, TIMEOUT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SECRET = "s3cret-path"
#: Long enough that an answer judged at once cannot be taken for one judged at the deadline.
LONG = 20.0
SHORT = 0.5


@pytest.fixture
def peers() -> Iterator[Callable[..., Peer]]:
    with many_peers() as make:
        yield make


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    """Give a pool of one thread, so that a thread that is not freed is missed."""
    with ThreadPoolExecutor(1) as made:
        yield made


def to(peer: Peer, *, timeout: float = LONG, limit: int = 1000) -> Post:
    return Post(
        url=f"http://127.0.0.1:{peer.port}/{SECRET}?key={SECRET}",
        body=b'{"a":1}',
        timeout_seconds=timeout,
        limit_bytes=limit,
        headers={"X-SR-Delivery": "7"},
    )


def posted(pool: ThreadPoolExecutor, post: Post, *, wants: bool = True) -> Answer:
    async def run() -> Answer:
        outbound = Outbound(pool)
        try:
            return await outbound.post(post, wants_body=lambda status: wants and status == 200)
        finally:
            outbound.hang_up()

    return asyncio.run(run())


def failed(pool: ThreadPoolExecutor, post: Post) -> OutboundError:
    with pytest.raises(OutboundError) as caught:
        posted(pool, post)
    assert SECRET not in str(caught.value)
    assert "http" not in str(caught.value)
    return caught.value


def thread_is_free(pool: ThreadPoolExecutor) -> bool:
    """Whether the pool's one thread takes other work."""
    try:
        return pool.submit(lambda: True).result(timeout=5)
    except TimeoutError:
        return False


def test_a_good_answer_is_given_whole(peers, pool):
    """Status, headers and body come back; the request is one write of JSON with its length."""
    peer = peers(says(OK))
    answer = posted(pool, to(peer))
    assert (answer.status, answer.body) == (200, b"fine")
    assert answer.headers["Content-Type"] == "application/json"
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


def test_a_connection_is_used_again(peers, pool):
    """A good answer's connection serves the next request, and ends when it is let go of."""

    def script(peer: Peer, connection: socket.socket) -> None:
        for _ in range(3):
            peer.read_request(connection)
            connection.sendall(OK)
        peer.wait_for_hang_up(connection)

    peer = peers(script)

    async def run() -> None:
        outbound = Outbound(pool)
        for _ in range(3):
            assert (await outbound.post(to(peer), wants_body=lambda _: True)).body == b"fine"
        outbound.hang_up()

    asyncio.run(run())
    assert peer.connections == 1
    assert peer.hung_up.wait(10)


HANGING = [
    ("4.0/big/N30000-sr_list_status.res", 500),
    ("4.0/http/http-GET.res", 405),
    ("4.0/http/id-object.res", 500),
    ("4.0/http/notification.res", 202),
]


@pytest.mark.parametrize(("recording", "status"), HANGING)
def test_an_answer_that_never_ends_is_judged_by_its_status(peers, pool, recording, status):
    """A recorded answer whose body never comes is judged at once, and its connection closed."""
    answer = (RECORDINGS / recording).read_bytes()
    assert answer.endswith(TIMEOUT)
    peer = peers(says(answer.removesuffix(TIMEOUT)))

    async def run() -> None:
        outbound = Outbound(pool)
        began = time.monotonic()
        got = await outbound.post(to(peer), wants_body=lambda status: status == 200)
        assert time.monotonic() - began < LONG / 4
        assert (got.status, got.body) == (status, b"")
        # Without any further word of ours: a lane may rest for hours.
        assert peer.hung_up.wait(10)

    asyncio.run(run())
    assert thread_is_free(pool)


def test_the_next_request_has_a_connection_of_its_own(peers, pool):
    """After an answer whose body was not read the connection is never used again."""
    peer = peers(says(b"HTTP/1.1 500 No\r\nTransfer-Encoding: chunked\r\n\r\n"))

    async def run() -> None:
        outbound = Outbound(pool)
        for _ in range(3):
            got = await outbound.post(to(peer), wants_body=lambda status: status == 200)
            assert got.status == 500

    asyncio.run(run())
    assert peer.connections == 3


@pytest.mark.parametrize(
    ("start", "drop"),
    [
        (b"", b""),
        (b"HTTP/1.1 200 OK\r\nX: ", b"x"),
        (b"", b"H"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n", b"x"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b""),
        (b"HTTP/1.1 200 OK\r\n\r\n", b"x"),
    ],
    ids=["silence", "header", "status-line", "body", "chunks", "no-chunk", "body-to-the-end"],
)
def test_a_trickling_peer_is_left_at_the_deadline(peers, pool, start, drop):
    """However a peer spreads its answer, the deadline is for the whole of it."""
    peer = peers(trickles(start, drop))
    began = time.monotonic()
    error = failed(pool, to(peer, timeout=SHORT, limit=10**9))
    assert SHORT * 0.9 <= time.monotonic() - began < SHORT + 5
    assert error.failure is Failure.TIMEOUT
    assert str(error) == "no whole answer within 0.5 s"
    assert thread_is_free(pool)


@pytest.mark.parametrize(
    ("script", "failure", "message"),
    [
        (resets, Failure.CONNECT, "connection reset by peer"),
        (closes, Failure.CONNECT, "Remote end closed connection without response"),
        (says_and_closes(OK[:-1]), Failure.BROKEN, "the answer ends before its end"),
        (says_and_closes(b"400 Parse_error"), Failure.BROKEN, "not HTTP: BadStatusLine"),
        (says_and_closes(b"\xff" * 100 + b"\r\n\r\n"), Failure.BROKEN, "not HTTP: BadStatusLine"),
        (
            says_and_closes(b"HTTP/1.1 200 OK\r\nX: " + b"x" * 70_000 + b"\r\n\r\n"),
            Failure.BROKEN,
            "not HTTP: LineTooLong",
        ),
        (
            says_and_closes(b"HTTP/1.1 200 OK\r\n" + b"X: x\r\n" * 200 + b"\r\n"),
            Failure.BROKEN,
            "not HTTP: HTTPException",
        ),
        (
            says_and_closes(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"),
            Failure.BROKEN,
            None,
        ),
        (
            says_and_closes(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab"),
            Failure.BROKEN,
            None,
        ),
        (
            says_and_closes(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"),
            Failure.BROKEN,
            None,
        ),
    ],
)
def test_a_broken_answer_is_told_by_what_is_wrong(peers, pool, script, failure, message):
    """Resets and closed connections are told from what is no HTTP or ends before its end."""
    error = failed(pool, to(peers(script)))
    assert error.failure is failure
    assert message is None or str(error) == message
    assert thread_is_free(pool)


def test_nobody_listening_is_a_failure_to_connect(pool):
    """A refused connection is told at once."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    error = failed(pool, Post(f"http://127.0.0.1:{port}/{SECRET}", b"", LONG, 10, {}))
    assert (error.failure, str(error)) == (Failure.CONNECT, "connection refused")


def test_a_name_that_does_not_exist_is_a_failure_to_connect(pool, monkeypatch):
    """A name that is not resolved is told without the URL."""

    def no_name(*args: object, **kwargs: object) -> object:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", no_name)
    error = failed(pool, Post(f"http://{SECRET}.invalid/", b"", LONG, 10, {}))
    assert error.failure is Failure.CONNECT
    assert str(error) == "name not resolved: Name or service not known"


@pytest.mark.parametrize("length", [1000, 1001])
@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_over_the_limit_is_not_taken(peers, pool, length, chunked):
    """The limit is on the bytes taken, whatever the headers say."""
    if chunked:
        start = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n" % length
        answer = start + b"x" * length + b"\r\n0\r\n\r\n"
    else:
        answer = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % length + b"x" * length
    peer = peers(says(answer))
    if length <= 1000:
        assert len(posted(pool, to(peer)).body) == length
        return
    error = failed(pool, to(peer))
    assert error.failure is Failure.TOO_BIG
    assert str(error) == "the answer is longer than 1000 bytes"
    assert peer.hung_up.wait(10)


def test_a_body_without_end_is_left_at_the_limit(peers, pool):
    """A peer that never stops sending is left long before the deadline."""
    peer = peers(trickles(b"HTTP/1.1 200 OK\r\n\r\n", b"x" * 500_000))
    began = time.monotonic()
    assert failed(pool, to(peer, limit=1_000_000)).failure is Failure.TOO_BIG
    assert time.monotonic() - began < LONG / 2
    assert peer.hung_up.wait(10)


CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    ("start", "drop", "message"),
    [
        (
            b"",
            b"HTTP/1.1 100 Continue\r\n\r\n" * 9,
            "more than 16 interim responses, and no answer",
        ),
        (
            b"",
            b"HTTP/1.1 103 So\r\nLink: </a>\r\n\r\n" * 9,
            "more than 16 interim responses, and no answer",
        ),
        (
            CHUNKED + b"0\r\n",
            b"X: x\r\n" * 10_000,
            "the answer is longer than 263144 bytes, headers and all",
        ),
        (
            CHUNKED + b"0\r\nX: ",
            b"x" * 50_000,
            None,  # which limit comes first is the library's affair
        ),
        (CHUNKED, b"1\r\nx\r\n" * 10_000, "the answer is longer than 1000 bytes"),
    ],
    ids=["continue", "early hints", "trailers", "a long trailer", "small chunks"],
)
def test_whoever_talks_without_end_is_left_long_before_the_deadline(
    peers, pool, start, drop, message
):
    """Else it would keep the processor busy, and us from everybody else."""
    peer = peers(trickles(start, drop))
    began = time.monotonic()
    error = failed(pool, to(peer))
    assert time.monotonic() - began < LONG / 2
    if message is not None:
        assert (error.failure, str(error)) == (Failure.TOO_BIG, message)
    assert error.failure is not Failure.TIMEOUT
    assert peer.hung_up.wait(10)
    assert thread_is_free(pool)


def test_what_is_said_on_a_connection_is_counted_for_each_answer(peers, pool):
    """Not for all of them together: a connection may live for months."""
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\nX: %s\r\n\r\nfine" % (b"x" * 50_000)
    peer = peers(lambda peer, connection: _answers_on(peer, connection, answer))

    async def run() -> None:
        outbound = Outbound(pool)
        for _ in range(10):
            assert (await outbound.post(to(peer), wants_body=lambda _: True)).body == b"fine"
        outbound.hang_up()

    asyncio.run(run())
    assert peer.connections == 1


def _answers_on(peer: Peer, connection: socket.socket, answer: bytes) -> None:
    while True:
        peer.read_request(connection)
        connection.sendall(answer)


def test_a_compressed_body_is_not_unpacked(peers, pool):
    """What comes is given as it came: nothing grows in memory past the limit."""
    head = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 3\r\n\r\n"
    assert posted(pool, to(peers(says(head + b"abc")))).body == b"abc"


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_an_answer_and_is_not_followed(peers, pool, status):
    """What a redirect points to is never asked."""
    target = peers(says(OK))
    where = f"http://127.0.0.1:{target.port}/"
    peer = peers(says(f"HTTP/1.1 {status} Moved\r\nLocation: {where}\r\n\r\n".encode()))
    assert posted(pool, to(peer)).status == status
    assert (len(peer.requests), target.connections) == (1, 0)
    assert peer.hung_up.wait(10)


def test_the_environment_is_ignored(peers, pool, monkeypatch, tmp_path):
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
    assert posted(pool, to(peer)).body == b"fine"
    assert proxy.connections == 0
    assert b"authorization" not in peer.requests[0].lower()


def test_one_request_is_in_flight(peers, pool):
    """A second request is refused while one is under way; after it all is as before."""
    release = threading.Event()

    def script(peer: Peer, connection: socket.socket) -> None:
        peer.read_request(connection)
        peer.answered.set()
        release.wait(30)
        connection.sendall(OK)
        peer.wait_for_hang_up(connection)

    peer = peers(script)

    async def run() -> None:
        outbound = Outbound(pool)
        first = asyncio.create_task(outbound.post(to(peer), wants_body=lambda _: True))
        assert await asyncio.to_thread(peer.answered.wait, 10)
        with pytest.raises(OutboundError, match="still under way") as caught:
            await outbound.post(to(peer), wants_body=lambda _: True)
        assert caught.value.failure is Failure.TIMEOUT
        outbound.hang_up()  # of a request under way it takes nothing
        release.set()
        assert (await first).body == b"fine"
        outbound.hang_up()

    asyncio.run(run())
    assert len(peer.requests) == 1


def test_cancellation_frees_the_thread(peers, pool):
    """A cancelled request gives its thread back at once, and the connection ends."""
    peer = peers(says())

    async def run() -> None:
        outbound = Outbound(pool)
        asked = asyncio.create_task(outbound.post(to(peer), wants_body=lambda _: True))
        assert await asyncio.to_thread(peer.answered.wait, 10)
        asked.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asked

    began = time.monotonic()
    asyncio.run(run())
    assert thread_is_free(pool)
    assert peer.hung_up.wait(10)
    assert time.monotonic() - began < LONG / 2


def test_a_connection_made_after_the_deadline_is_of_no_use(peers, pool, monkeypatch):
    """A host whose second address answers too late is held to the deadline all the same."""
    peer = peers(trickles(b"HTTP/1.1 200 OK\r\nX: ", b"x"))
    over = threading.Event()
    connect = connections.Sockets.connect

    def slow(*args: object) -> object:
        assert over.wait(30)
        return connect(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(connections.Sockets, "connect", slow)

    async def run() -> None:
        outbound = Outbound(pool)
        with pytest.raises(OutboundError) as caught:
            await outbound.post(to(peer, timeout=SHORT), wants_body=lambda _: True)
        assert caught.value.failure is Failure.TIMEOUT

    asyncio.run(run())
    over.set()
    assert thread_is_free(pool)


def test_an_address_that_takes_no_connection_does_not_use_up_the_time(peers, pool, monkeypatch):
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

        async def run() -> list[float]:
            outbound, took = Outbound(pool), []
            for _ in range(2):
                began = time.monotonic()
                answer = await outbound.post(to(peer, timeout=2.0), wants_body=lambda _: True)
                took.append(time.monotonic() - began)
                assert answer.body == b"fine"
            outbound.hang_up()
            return took

        with socket.create_connection(("127.0.0.1", port)):
            first, second = asyncio.run(run())
    assert first >= 1.0 > second
    assert peer.connections == 2


def test_an_address_of_ipv6_is_asked(pool):
    """By its number in brackets."""
    with many_peers() as make:
        peer = make(says(OK), "::1")
        post = Post(f"http://[::1]:{peer.port}/", b"{}", LONG, 10, {})
        assert posted(pool, post).body == b"fine"


def test_every_answer_after_a_failure_is_heard(peers, pool):
    """What befell one request has no bearing on the next."""

    def script(peer: Peer, connection: socket.socket) -> None:
        while True:
            peer.read_request(connection)
            if len(peer.requests) % 2 == 0:
                connection.sendall(OK)

    peer = peers(script)

    async def run() -> None:
        outbound = Outbound(pool)
        for _ in range(2):
            with pytest.raises(OutboundError):
                await outbound.post(to(peer, timeout=SHORT), wants_body=lambda _: True)
            answer = await outbound.post(to(peer), wants_body=lambda _: True)
            assert answer.body == b"fine"
        outbound.hang_up()

    asyncio.run(run())


def test_cookies_are_not_sent_back(peers, pool):
    """A peer cannot make our next request to it longer."""
    wants = b"HTTP/1.1 200 OK\r\nSet-Cookie: a=%s\r\nContent-Length: 4\r\n\r\nfine" % (b"x" * 2000)
    peer = peers(says(wants, wants))

    async def twice() -> None:
        outbound = Outbound(pool)
        for _ in range(2):
            await outbound.post(to(peer), wants_body=lambda _: True)
            outbound.hang_up()

    asyncio.run(twice())
    first, second = peer.requests
    assert len(first) == len(second)
    assert b"cookie" not in second.lower()


def test_hanging_up_while_a_peer_trickles_frees_the_thread(peers, pool):
    """Cancelled and hung up at once, in whatever order: nobody waits for such a peer."""
    peer = peers(trickles(b"HTTP/1.1 200 OK\r\n", b"x"))

    async def leave() -> None:
        outbound = Outbound(pool)
        task = asyncio.create_task(outbound.post(to(peer), wants_body=lambda _: True))
        await asyncio.to_thread(eventually, lambda: peer.requests)
        task.cancel()
        outbound.hang_up()
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(leave())
    assert thread_is_free(pool)


def test_a_request_after_a_cancelled_one_is_sent(peers, pool):
    """The last round at a stop follows a request that was cancelled a moment ago."""
    slow = peers(trickles(b"HTTP/1.1 200 OK\r\n", b"x"))
    good = peers(says(OK))

    async def again() -> Answer:
        outbound = Outbound(pool)
        task = asyncio.create_task(outbound.post(to(slow), wants_body=lambda _: True))
        await asyncio.to_thread(eventually, lambda: slow.requests)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        answer = await outbound.post(to(good), wants_body=lambda _: True)
        outbound.hang_up()
        return answer

    assert asyncio.run(again()).body == b"fine"


def test_a_request_that_never_began_leaves_no_connection_behind(peers):
    """A pool shut down at a stop drops what waits in it; its connection is closed all the same."""
    peer = peers(says(OK))
    release = threading.Event()
    pool = ThreadPoolExecutor(1)

    async def leave() -> None:
        outbound = Outbound(pool)
        await outbound.post(to(peer), wants_body=lambda _: True)
        pool.submit(release.wait, 10)
        task = asyncio.create_task(outbound.post(to(peer), wants_body=lambda _: True))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        outbound.hang_up()
        pool.shutdown(wait=False, cancel_futures=True)
        assert await asyncio.to_thread(peer.hung_up.wait, 5)

    try:
        asyncio.run(leave())
    finally:
        release.set()
        pool.shutdown()
