"""Every recorded request and its answer, through our own transports or our decoder: none is left.

A request that obeys rule 1 is sent as it was recorded, over real sockets and FIFOs, and its
recorded answer comes back; what no exporter would send has its answer decoded only.
"""

from __future__ import annotations

import asyncio
import json
import tempfile
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from sr_exporter.errors import MiError
from sr_exporter.mi.transports import Transports
from sr_exporter.model import PollFailure
from sr_exporter.simulator.datagram import MiDatagram
from sr_exporter.simulator.fifo import MiFifo
from sr_exporter.simulator.judge import violations_of, violations_of_head
from sr_exporter.simulator.node import SimulatedNode
from sr_exporter.simulator.requests import RequestReader
from sr_exporter.simulator.servers import MiThread
from sr_exporter.wire import jsonrpc
from sr_exporter.wire.text import Undecodable, loads
from tests.recorded_mi import CLOSED, RECORDINGS, SPLIT, TOO_BIG, Exchange, exchanges, release
from tests.replay import ReplayMi

if TYPE_CHECKING:
    from collections.abc import Iterator

SERVICES = ("http", "dgram", "fifo")
ALL = [exchange for service in SERVICES for exchange in exchanges(service=service)]


def body_of(exchange: Exchange) -> bytes:
    """Give the JSON of a request, without what carries it."""
    if exchange.service == "http":
        return exchange.request.partition(b"\r\n\r\n")[2]
    if exchange.service == "fifo":
        return exchange.request.split(b":", 2)[2].removesuffix(b"\n")
    return exchange.request


def obeys_rule_1(exchange: Exchange) -> bool:
    if exchange.service == "http":
        if SPLIT in exchange.request:
            return False
        reader = RequestReader(limit=100_000)
        reader.feed(exchange.request)
        said = reader.next_request()
        if said is None or reader.begun or [*violations_of_head(said.method, said.headers)]:
            return False
    return not [*violations_of(body_of(exchange))]


REPLAYED = [exchange for exchange in ALL if obeys_rule_1(exchange)]
DECODED = [exchange for exchange in ALL if not obeys_rule_1(exchange)]


def name_of(exchange: Exchange) -> str:
    return f"{exchange.service}/{exchange}"


def test_no_pair_is_left_out():
    """What is on disk is replayed or decoded, and so many are each."""
    on_disk = {
        (path.parts[-3], path.stem, path.parts[-2])
        for service in SERVICES
        for path in RECORDINGS.glob(f"*/{service}/*.re[qs]")
    }
    taken = [(one.version, one.name, one.service) for one in (*REPLAYED, *DECODED)]
    assert sorted(taken) == sorted(on_disk)
    assert Counter(one.service for one in REPLAYED) == {"http": 261, "dgram": 30, "fifo": 21}
    assert Counter(one.service for one in DECODED) == {"http": 132, "dgram": 13, "fifo": 6}


# --- what is to be heard, read without any code of ours -------------------------------------


def expected(body: bytes) -> tuple[str, Any]:
    """Give what an answer to the request 1 says: a result, an error, or nothing of use."""
    try:
        said = json.loads(body.decode("utf-8", "surrogateescape"))
    except ValueError:
        return "nothing", None
    if not isinstance(said, dict):
        return "nothing", None
    if "error" in said:
        data = said["error"].get("data")
        message = said["error"]["message"] + (f": {data}" if data else "")
        return "error", (said["error"]["code"], message)
    if said.get("id") != 1 or "result" not in said:
        return "nothing", None
    return "result", said["result"]


def heard(answer: bytes) -> tuple[str, Any]:
    """Give the same by our decoder."""
    try:
        return "result", loads(jsonrpc.result(answer))
    except jsonrpc.RpcError as error:
        return "error", (error.code, error.message)
    except Undecodable:
        return "nothing", None


# --- through the real code paths ------------------------------------------------------------


class _Recorded:
    """Answers with recorded bytes, in the place of a simulated server's own."""

    answer: bytes

    def _reply(self, body: bytes) -> bytes:
        return self.answer


class Datagram(_Recorded, MiDatagram):
    pass


class Fifo(_Recorded, MiFifo):
    pass


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder whose name leaves room for that of a socket."""
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


def ask(url: str, request: bytes) -> bytes:
    async def answer() -> bytes:
        transports = Transports()
        transport = transports.to(url, timeout_seconds=10.0)
        try:
            return await transport.ask(request)
        finally:
            transport.rest()
            transports.close()

    return asyncio.run(answer())


def replayed(exchange: Exchange, transport: str, folder: Path) -> bytes:
    """Send the recorded request, be sent the recorded answer, and give what came."""
    request = body_of(exchange)
    if transport == "http":
        with ReplayMi(exchange.version, to_all=exchange.answer) as mi:
            return ask(mi.url, request)
    node = SimulatedNode(release(exchange.version))
    if transport == "fifo":
        server = Fifo(node, folder / "mi", folder)
    else:
        server = Datagram(node, folder / "mi" if transport == "unix" else ("127.0.0.1", 0))
    server.answer = exchange.answer
    with MiThread(server):
        return ask(server.url, request)


@pytest.mark.parametrize(
    ("exchange", "transport"),
    [
        pytest.param(exchange, transport, id=f"{transport}-{name_of(exchange)}")
        for exchange in REPLAYED
        for transport in {"http": ("http",), "dgram": ("udp", "unix"), "fifo": ("fifo",)}[
            exchange.service
        ]
    ],
)
def test_what_obeys_rule_1_is_replayed(exchange, transport, folder):
    """The answer comes whole, and says what was recorded; what is no answer is a failure."""
    assert exchange.answer != CLOSED
    if exchange.answer == TOO_BIG or exchange.status not in (None, 200):
        with pytest.raises(MiError) as raised:
            replayed(exchange, transport, folder)
        big = exchange.answer == TOO_BIG
        assert raised.value.reason is (PollFailure.TOO_BIG if big else PollFailure.HTTP_STATUS)
        return
    answer = replayed(exchange, transport, folder)
    assert answer == exchange.answer_body
    kind, said = expected(exchange.answer_body)
    assert heard(answer) == (kind, said)
    assert kind in ("result", "error")


@pytest.mark.parametrize("exchange", DECODED, ids=name_of)
def test_what_does_not_is_decoded_only(exchange):
    """Whatever it is: a result, an error, or refused as neither."""
    assert heard(exchange.answer_body) == expected(exchange.answer_body)
