"""The HTTP server of the simulated OpenSIPS, against the recorded bytes of real ones."""

from __future__ import annotations

import asyncio
import base64
import functools
from contextlib import asynccontextmanager, suppress

import pytest

from sr_exporter.errors import MiError
from sr_exporter.simulator.httpd import MiHttpd
from sr_exporter.simulator.node import SimulatedNode
from sr_exporter.simulator.releases import OPENSIPS_4_0
from sr_exporter.simulator.replies import BasicAuth
from sr_exporter.simulator.servers import MiThread, cut_over, silent_over, unspoiled
from tests.mi_asking import ask
from tests.recorded_mi import (
    CLOSED,
    OTHER_METHODS,
    OTHER_SERVICES,
    RECORDINGS,
    SECOND,
    SPLIT,
    TIMEOUT,
    Exchange,
    asked_at,
    exchanges,
    recorded_node,
    without_date,
)

#: Real servers' faults are only seen by who provokes them.
pytestmark = pytest.mark.harmful

#: How long nothing must come for an answer to count as hanging.
SILENCE_SECONDS = 0.05

unchanged_node = functools.cache(recorded_node)


def post(body: bytes, *headers: str) -> bytes:
    head = ["POST /mi HTTP/1.1", "Content-Type: application/json", *headers]
    return "\r\n".join([*head, f"Content-Length: {len(body)}", "", ""]).encode() + body


CORE = b'{"jsonrpc": "2.0", "method": "sr_get_status", "params": ["core"], "id": 1}'
#: Answered with 202 and no end.
NOTIFICATION = b'{"jsonrpc": "2.0", "method": "sr_get_status", "params": ["core"]}'
RUNNING = b'{"jsonrpc":"2.0","result":{"Readiness":true,"Status":1,"Details":"running"},"id":1}'


def running_node() -> SimulatedNode:
    node = SimulatedNode(OPENSIPS_4_0)
    node.start(0)
    node.initialized(0)
    return node


class Client:
    """One connection, and what is expected of it."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def send(self, data: bytes) -> None:
        """Send, in as many parts as a recording says."""
        for number, part in enumerate(data.split(SPLIT)):
            if number:
                await self.hangs()
            self._writer.write(part)
            await self._writer.drain()

    async def receives(self, expected: bytes) -> None:
        """The next bytes are these, but for the date."""
        try:
            async with asyncio.timeout(5):
                received = await self._reader.readexactly(len(expected))
        except asyncio.IncompleteReadError as error:
            received = error.partial
        assert without_date(received) == without_date(expected)

    async def head(self) -> bytes:
        async with asyncio.timeout(5):
            return await self._reader.readuntil(b"\r\n\r\n")

    async def hangs(self) -> None:
        """Nothing more comes, and the connection stays open."""
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(SILENCE_SECONDS):
                await self._reader.read(1)

    async def is_closed(self) -> None:
        """The server has closed the connection, and sent nothing before."""
        async with asyncio.timeout(5):
            with suppress(ConnectionResetError):
                assert await self._reader.read() == b""


@asynccontextmanager
async def connected(httpd: MiHttpd):
    reader, writer = await asyncio.open_connection(httpd.host, httpd.port)
    try:
        yield Client(reader, writer)
    finally:
        writer.close()
        with suppress(ConnectionError):  # the server was faster
            await writer.wait_closed()


# --- against the recordings -----------------------------------------------------------------


async def replay(exchange: Exchange) -> None:
    node = unchanged_node(exchange.version)
    httpd = MiHttpd(node, clock=lambda: asked_at(exchange.version))
    answer = exchange.answer
    async with httpd, connected(httpd) as client:
        if SECOND in answer:
            await replay_two(exchange, client)
            return
        await client.send(exchange.request)
        if answer == CLOSED:
            await client.is_closed()
            return
        await client.receives(answer.removesuffix(TIMEOUT))
        if answer.endswith(TIMEOUT):
            await client.hangs()
        elif b"\r\nConnection: close\r\n" in answer:
            await client.is_closed()


async def replay_two(exchange: Exchange, client: Client) -> None:
    half = len(exchange.request) // 2
    first, second = exchange.answer.split(SECOND)
    await client.send(exchange.request[:half])
    await client.receives(first)
    await client.send(exchange.request[half:])
    await client.receives(second)


@pytest.mark.parametrize("exchange", exchanges(without=OTHER_METHODS | OTHER_SERVICES), ids=str)
def test_http_is_that_of_a_real_server(exchange):
    """Every recorded request is answered with the recorded bytes, and ends as the recorded did."""
    asyncio.run(replay(exchange))


def test_few_recordings_are_left_out():
    """Only methods and services of other modules are not compared."""
    assert sorted(OTHER_METHODS | OTHER_SERVICES) == [
        "events_list", "get_statistics-all", "get_statistics-load", "get_statistics-pos",
        "get_statistics-sr", "help-sr", "help-sr-new", "list_statistics", "metrics",
        "metrics-POST", "ps",
    ]  # fmt: skip


def test_pipelined_requests_are_answered_in_order():
    """The recording shows the first of two answers; the other follows it."""

    async def run() -> None:
        exchange = Exchange("4.0", "http-pipelined-2")
        async with MiHttpd(unchanged_node("4.0")) as httpd, connected(httpd) as client:
            await client.send(exchange.request)
            await client.receives(exchange.answer * 2)

    asyncio.run(run())


@pytest.mark.parametrize(
    ("length", "status"), [(1024, b"200"), (1025, b"400"), (15_000, b"400"), (30_000, None)]
)
def test_long_bodies_are_refused_then_ignored(length, status):
    """Over 1024 bytes a body gets an endless 400, a much longer one silence (REQSIZE.txt)."""

    async def run() -> None:
        async with MiHttpd(running_node()) as httpd, connected(httpd) as client:
            await client.send(post(CORE.ljust(length)))
            if status is not None:
                assert (await client.head()).startswith(b"HTTP/1.1 " + status)
            if status == b"200":
                await client.receives(RUNNING)
            await client.hangs()

    asyncio.run(run())


def test_password_is_asked_for_and_taken():
    """With credentials set, a request without them gets 401 and its connection closed."""
    auth = BasicAuth("user", "secret")
    credentials = base64.b64encode(b"user:secret").decode()

    async def run() -> None:
        async with MiHttpd(running_node(), auth=auth) as httpd:
            async with connected(httpd) as client:
                await client.send(post(CORE))
                await client.receives(
                    b"HTTP/1.1 401 Unauthorized\r\n"
                    b"Date: Sun, 22 Nov 2026 20:25:22 GMT\r\n"
                    b"Connection: close\r\n"
                    b'WWW-Authenticate: Basic realm="opensips"\r\n'
                    b"Content-Length: 38\r\n\r\n"
                    b"<html><body>Unauthorized</body></html>"
                )
                await client.is_closed()
            async with connected(httpd) as client:
                await client.send(post(CORE, f"Authorization: Basic {credentials}"))
                assert (await client.head()).startswith(b"HTTP/1.1 200 OK\r\n")
                await client.receives(RUNNING)

    asyncio.run(run())


def test_answer_over_the_buffer_is_an_endless_500():
    """What does not fit `buf_size` is not sent at all."""

    async def run() -> None:
        for size, status in ((len(RUNNING), b"200"), (len(RUNNING) - 1, b"500")):
            httpd = MiHttpd(running_node(), buf_size=size)
            async with httpd, connected(httpd) as client:
                await client.send(post(CORE))
                head = await client.head()
                assert head.startswith(b"HTTP/1.1 " + status)
                if status == b"500":
                    assert b"Transfer-Encoding: chunked" in head
                    await client.hangs()

    asyncio.run(run())


def test_what_is_sent_over_the_buffer_is_what_was_recorded():
    """The listing of 30,000 registrants ended so, byte for byte."""
    recorded = (RECORDINGS / "4.0" / "big" / "N30000-sr_list_status.res").read_bytes()

    async def run() -> None:
        httpd = MiHttpd(running_node(), buf_size=10)
        async with httpd, connected(httpd) as client:
            await client.send(post(CORE))
            await client.receives(recorded.removesuffix(TIMEOUT))
            await client.hangs()

    assert recorded.endswith(TIMEOUT)
    asyncio.run(run())


def test_an_answer_can_be_cut_or_left_out():
    """The connection of one that is left out stays open, and nothing more is answered on it."""

    async def run() -> None:
        httpd = MiHttpd(running_node(), spoil=cut_over(20))
        async with httpd, connected(httpd) as client:
            await client.send(post(CORE))
            assert b"Content-Length: 20\r\n" in await client.head()
            await client.receives(RUNNING[:20])
            httpd.spoil = silent_over(20)
            await client.send(post(CORE))
            await client.hangs()
            httpd.spoil = unspoiled
            async with connected(httpd) as other:
                await other.send(post(CORE))
                assert (await other.head()).startswith(b"HTTP/1.1 200")
                await other.receives(RUNNING)
            await client.hangs()

    asyncio.run(run())


def test_a_hanging_answer_ends_when_somebody_else_comes():
    """The last chunk is sent when another connection reaches the server; keep-alive goes on."""

    async def run() -> None:
        async with MiHttpd(running_node()) as httpd, connected(httpd) as client:
            await client.send(post(NOTIFICATION))
            assert (await client.head()).startswith(b"HTTP/1.1 202")
            await client.hangs()
            async with connected(httpd):
                await client.receives(b"0\r\n\r\n")
            await client.send(post(CORE))
            assert (await client.head()).startswith(b"HTTP/1.1 200")
            await client.receives(RUNNING)

    asyncio.run(run())


def test_a_hanging_answer_ends_before_the_next_request_is_answered():
    """The same connection may wake it as well."""

    async def run() -> None:
        async with MiHttpd(running_node()) as httpd, connected(httpd) as client:
            await client.send(post(NOTIFICATION))
            await client.head()
            await client.send(post(CORE))
            await client.receives(b"0\r\n\r\n")
            assert (await client.head()).startswith(b"HTTP/1.1 200")

    asyncio.run(run())


@pytest.mark.parametrize(
    "data",
    [
        b"\x16\x03\x01\r\n\r\n",
        b"POST /mi HTTP/1.1\r\nno header\r\n\r\n",
        b"POST /mi HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
        b"POST /mi HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"POST /mi HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nabc",
    ],
)
def test_what_is_no_http_has_its_connection_closed(data):
    """Strange bytes end their own connection, not the server."""

    async def run() -> None:
        async with MiHttpd(running_node()) as httpd:
            async with connected(httpd) as client:
                await client.send(data)
                await client.is_closed()
            async with connected(httpd) as client:
                await client.send(post(CORE))
                assert (await client.head()).startswith(b"HTTP/1.1 200")

    asyncio.run(run())


@pytest.mark.parametrize(
    "request_bytes",
    [post(CORE), post(NOTIFICATION), post(CORE)[:-1], b"POST", b""],
    ids=["answered", "hanging", "cut", "begun", "idle"],
)
def test_stop_does_not_wait_for_clients(request_bytes):
    """Open connections are cut, whatever their state, and the port refuses at once."""

    async def run() -> None:
        httpd = MiHttpd(running_node())
        await httpd.start()
        async with connected(httpd) as client:
            await client.send(request_bytes)
            async with asyncio.timeout(1):
                await httpd.stop()
            with pytest.raises(ConnectionRefusedError):
                await asyncio.open_connection(httpd.host, httpd.port)

    asyncio.run(run())


def test_requests_can_be_watched():
    """A test that asks what a client sent sees each request."""
    seen = []

    async def run() -> None:
        httpd = MiHttpd(running_node(), on_request=seen.append)
        async with httpd, connected(httpd) as client:
            await client.send(post(CORE))
            await client.head()

    asyncio.run(run())
    assert [(request.method, request.path, request.body) for request in seen] == [
        ("POST", "/mi", CORE)
    ]


def test_a_server_in_a_thread_serves_blocking_clients():
    """Its node is changed between requests, and it goes down and up on one port."""
    node = running_node()
    with MiThread(MiHttpd(node)) as server:
        assert ask(server.url, "sr_get_status", "core")["Details"] == "running"
        assert server.call(lambda: node.set_status("core", "main", -2, "shutting down"))
        assert ask(server.url, "sr_get_status", "core")["Status"] == -2
        url = server.url
        server.refuse()
        with pytest.raises(MiError, match="refused"):
            ask(url, "version")
        server.listen()
        assert ask(url, "version") == {"Server": "OpenSIPS (4.0.1 (x86_64/linux))"}


def test_a_thread_ends_when_its_server_cannot_start():
    """A taken port is an error at the start, not a thread that stays."""
    with MiThread(MiHttpd(running_node())) as server:
        taken = int(server.url.rpartition(":")[2].removesuffix("/mi"))
        with (
            pytest.raises(OSError, match="in use"),
            MiThread(MiHttpd(running_node(), port=taken)),
        ):
            pass
