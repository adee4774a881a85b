"""The datagram server of the simulated OpenSIPS, against the recorded bytes of real ones."""

from __future__ import annotations

import asyncio
import functools
import gc
import json
import socket
import time
from pathlib import Path
from typing import Self

import pytest

from sr_exporter.simulator.datagram import PARSE_ERROR, SOCKET_BUF_SIZE, WMEM_DEFAULT, MiDatagram
from sr_exporter.simulator.httpd import MiHttpd
from sr_exporter.simulator.node import SimulatedNode
from sr_exporter.simulator.releases import OPENSIPS_3_6, OPENSIPS_4_0
from sr_exporter.simulator.servers import (
    INTERNAL_ERROR,
    MiServer,
    MiThread,
    cut_over,
    error_over,
    silent_over,
)
from tests.harness import eventually
from tests.mi_asking import ask
from tests.recorded_mi import TIMEOUT, Exchange, asked_at, exchanges, recorded_node

#: Real servers' faults are only seen by who provokes them.
pytestmark = pytest.mark.harmful

#: How long nothing must come for a server to count as silent.
SILENCE_SECONDS = 0.05
FLAVOURS = ["udp", "unix"]

#: Recorded requests that kill the server: nothing comes, and nothing is there any more.
KILLS = {"4.0/batch": "a batch, which is valid JSON without a method"}

#: Recorded after the script had changed a status that the other recordings show before.
LATER = {"4.0/new-status_report-status": ("alarms", "main", -1, "trunk down")}

CORE = b'{"jsonrpc": "2.0", "method": "sr_get_status", "params": ["core"], "id": 1}'
RUNNING = b'{"jsonrpc":"2.0","result":{"Readiness":true,"Status":1,"Details":"running"},"id":1}'
INVALID = b'{"jsonrpc":"2.0","error":{"code":-32600,"message":"Invalid Request"},"id":%s}'

#: Valid JSON without a usable method.
FATAL = {
    "batch": b"[%s]" % CORE,
    "empty-batch": b"[]",
    "empty": b"{}",
    "number": b"42",
    "null": b"null",
    "text": b'"sr_get_status"',
    "number-as-method": b'{"jsonrpc": "2.0", "method": 5, "id": 1}',
    "no-method": b'{"jsonrpc": "2.0", "id": 1}',
    "trailing-garbage": b'{"id": 1} and more',
    "big-number": b"9" * 5000,
    "not-utf8": b'{"id": "\xff"}',
    "control-character": b'{"id": "\x7f\t"}',
}

recorded = functools.cache(recorded_node)


@pytest.fixture(autouse=True)
def _many_clients(monkeypatch):
    """Here a server has several clients, who do not wait for each other's answers."""
    monkeypatch.setattr(MiServer, "one_client", False)


def running_node(release=OPENSIPS_4_0) -> SimulatedNode:
    node = SimulatedNode(release)
    node.start(0)
    node.initialized(0)
    return node


def call(method: str, *params: str, request_id: int = 1) -> bytes:
    said = {"jsonrpc": "2.0", "method": method, "id": request_id}
    return json.dumps(said | ({"params": params} if params else {})).encode()


def open_files() -> int:
    gc.collect()
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


@pytest.fixture(params=FLAVOURS)
def address(request, tmp_path):
    """Where a server listens: at a port of the kernel's choice, or at a path."""
    return ("127.0.0.1", 0) if request.param == "udp" else tmp_path / "mi"


class Client:
    """One socket, with a path of its own where answers need one."""

    _made = 0

    def __init__(self, server: MiDatagram, *, named: bool = True, connect: bool = False) -> None:
        unix = isinstance(server.address, Path)
        self.socket = socket.socket(socket.AF_UNIX if unix else socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.settimeout(5)
        self._to = str(server.address) if unix else server.address
        if unix and named:
            Client._made += 1
            self.socket.bind(str(server.address.with_name(f"client{Client._made}")))
        if connect:
            self.socket.connect(self._to)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.socket.close()

    def send(self, request: bytes) -> None:
        self.socket.sendto(request, self._to)

    def ask(self, request: bytes) -> bytes:
        self.send(request)
        return self.hear()

    def hear(self) -> bytes:
        return self.socket.recv(2**20)

    def hears_nothing(self) -> None:
        self.socket.settimeout(SILENCE_SECONDS)
        with pytest.raises(TimeoutError):
            self.hear()
        self.socket.settimeout(5)

    def is_refused(self) -> None:
        """Nobody listens: a Unix socket tells at once, a port when it was connected to."""
        self.socket.connect(self._to)
        self.send(CORE)
        self.hear()


# --- against the recordings -----------------------------------------------------------------


@pytest.mark.parametrize("exchange", exchanges(service="dgram"), ids=str)
def test_datagrams_are_those_of_a_real_server(exchange, address):
    """Every recorded request is answered with the recorded bytes, or as recorded not at all."""
    node = recorded(exchange.version, "dgram")
    if str(exchange) in LATER:
        node = recorded_node(exchange.version, "dgram")
        assert node.set_status(*LATER[str(exchange)])
    server = MiDatagram(node, address, clock=lambda: asked_at(exchange.version))
    with MiThread(server), Client(server) as client:
        client.send(exchange.request)
        if str(exchange) in KILLS:
            assert exchange.answer == TIMEOUT
            eventually(lambda: server.killed_by)
            client.hears_nothing()
            return
        if exchange.answer != TIMEOUT:
            assert client.hear() == exchange.answer
        # What is heard next is the answer to the next.
        assert client.ask(CORE) == RUNNING
        assert server.killed_by is None


def test_no_recording_is_left_out():
    """Three versions; the batch was sent to one that died of it, notifications to all."""
    replayed = {str(exchange): exchange.answer for exchange in exchanges(service="dgram")}
    assert len(replayed) == 14 + 15 + 14
    assert {name for name, answer in replayed.items() if answer == TIMEOUT} == {
        *KILLS, "3.6/notification", "4.0/notification", "master/notification",
    }  # fmt: skip


# --- what kills it --------------------------------------------------------------------------


@pytest.mark.parametrize("request_bytes", FATAL.values(), ids=FATAL)
def test_valid_json_without_a_method_kills_from_4_0_on(request_bytes, address):
    """The server is gone with all that waited, and says of what (facts, section 9)."""
    server = MiDatagram(running_node(), address)
    with MiThread(server) as running, Client(server) as client:
        running.call(lambda: (client.send(request_bytes), client.send(CORE)))
        eventually(lambda: server.killed_by)
        client.hears_nothing()
        assert server.killed_by == f"no usable method: {request_bytes!r}"
        assert server.violations != []
        assert not server.listening
        assert not isinstance(server.address, Path) or server.address.exists()
        with pytest.raises(ConnectionRefusedError):
            client.is_refused()
    assert not isinstance(server.address, Path) or not server.address.exists()


@pytest.mark.parametrize("request_bytes", FATAL.values(), ids=FATAL)
def test_3_6_refuses_it(request_bytes, address):
    """Up to 3.6 it is an invalid request."""
    server = MiDatagram(running_node(OPENSIPS_3_6), address)
    with MiThread(server), Client(server) as client:
        answer = client.ask(request_bytes)
        assert answer in {INVALID % shown for shown in (b"null", b"1", b'"\xff"', b'"\x7f\\t"')}
        assert client.ask(CORE) == RUNNING
    assert server.killed_by is None
    assert server.violations != []


@pytest.mark.parametrize(
    ("request_bytes", "answer"),
    [
        (CORE[:-1], PARSE_ERROR),
        (b"\x16\x03\x01", PARSE_ERROR),
        (b"[" * 60_000, PARSE_ERROR),
        (CORE.replace(b'"id": 1', b'"id": {}'), INTERNAL_ERROR),
        (CORE.replace(b'"2.0"', b'"1.0"'), INVALID % b"1"),
        (b'{"method": ""}', INVALID % b"null"),
        (CORE + b"}", RUNNING),
    ],
    ids=["cut", "noise", "deep", "id-object", "other-version", "empty-method", "garbage-behind"],
)
def test_other_nonsense_is_survived(request_bytes, answer, address):
    """What is no JSON, or has a method, kills nothing; each is a violation."""
    server = MiDatagram(running_node(), address)
    with MiThread(server), Client(server) as client:
        assert client.ask(request_bytes) == answer
        assert client.ask(CORE) == RUNNING
    assert server.killed_by is None
    assert server.violations != []


def test_an_empty_datagram_is_passed_over(address):
    """It is not even malformed."""
    server = MiDatagram(running_node(), address)
    with MiThread(server), Client(server) as client:
        client.send(b"")
        assert client.ask(CORE) == RUNNING
    assert server.violations == []


def test_a_dead_server_can_be_started_again(address):
    """As a service manager does; at the same place."""
    server = MiDatagram(running_node(), address)
    with MiThread(server) as running, Client(server) as client:
        running.call(lambda: (client.send(b"[]"), client.send(CORE)))
        eventually(lambda: server.killed_by)
        running.listen()
        assert server.killed_by is None
        assert server.in_flight.total() == 0
        assert client.ask(CORE) == RUNNING


# --- sizes ----------------------------------------------------------------------------------


def big_node(details: int) -> tuple[SimulatedNode, int]:
    """Build a node, and tell how long the answer is that shows a status of such details."""
    node = running_node()
    node.register("big", "main", 1, "x" * details)
    return node, len(RUNNING) - len("running") + details


def test_an_answer_over_the_buffer_is_an_error(address):
    """The longest answer of all fits; one byte more, and a text says so."""
    node, length = big_node(SOCKET_BUF_SIZE - (len(RUNNING) - len("running")))
    assert length == SOCKET_BUF_SIZE
    server = MiDatagram(node, address)
    with MiThread(server) as running, Client(server) as client:
        assert len(client.ask(call("sr_get_status", "big"))) == SOCKET_BUF_SIZE
        running.call(lambda: node.set_status("big", "main", 1, "x" * (length - 75)))
        assert client.ask(call("sr_get_status", "big")) == INTERNAL_ERROR


@pytest.mark.parametrize(
    ("flavour", "wmem", "longest"),
    [("unix", WMEM_DEFAULT, 212_960), ("unix", 100_000, 99_968), ("udp", WMEM_DEFAULT, 65_507)],
)
def test_what_the_kernel_does_not_take_is_not_sent(flavour, wmem, longest, tmp_path):
    """With `socket_buf_size` raised, a longer datagram than it takes is silence."""
    node, length = big_node(longest - (len(RUNNING) - len("running")))
    place = tmp_path / "mi" if flavour == "unix" else ("127.0.0.1", 0)
    server = MiDatagram(node, place, socket_buf_size=2**20, wmem=wmem)
    with MiThread(server) as running, Client(server) as client:
        assert len(client.ask(call("sr_get_status", "big"))) == length == longest
        assert server.failures == []
        running.call(lambda: node.set_status("big", "main", 1, "x" * (length - 75)))
        client.send(call("sr_get_status", "big"))
        client.hears_nothing()
        assert client.ask(CORE) == RUNNING
    assert [failure.rpartition(": ")[2] for failure in server.failures] == ["Message too long"]


# --- refusals -------------------------------------------------------------------------------


def test_it_can_be_silent_cut_or_wrong_over_a_size(address):
    """Each way to refuse spares answers that are no longer, and can be changed while it runs."""
    server = MiDatagram(running_node(), address, spoil=silent_over(len(RUNNING)))
    with MiThread(server), Client(server) as client:
        client.send(call("sr_list_status"))
        client.hears_nothing()
        assert client.ask(CORE) == RUNNING
        server.spoil = silent_over(len(RUNNING) - 1)
        client.send(CORE)
        client.hears_nothing()
        server.spoil = cut_over(len(RUNNING) - 1)
        assert client.ask(CORE) == RUNNING[:-1]
        server.spoil = cut_over(len(RUNNING))
        assert client.ask(CORE) == RUNNING
        server.spoil = error_over(len(RUNNING))
        assert client.ask(CORE) == RUNNING
        server.spoil = error_over(len(RUNNING) - 1)
        assert client.ask(CORE) == INTERNAL_ERROR
    assert server.violations == []
    assert server.in_flight.total() == 0


def test_a_late_answer_tells_of_the_time_it_was_asked(address):
    """An answer that is late is old."""
    node = running_node()
    server = MiDatagram(node, address, delay=0.2)
    with MiThread(server) as running, Client(server) as client:
        began = time.monotonic()
        client.send(CORE)
        eventually(lambda: server.asked)
        running.call(lambda: node.set_status("core", "main", -2, "shutting down"))
        assert client.hear() == RUNNING
        assert time.monotonic() - began >= 0.2


# --- what it tells of its clients -----------------------------------------------------------


@pytest.mark.parametrize(
    ("request_bytes", "violation"),
    [
        (CORE.ljust(1025), "a body of 1025 bytes"),
        (CORE[:-1], "not JSON"),
        (b"[%s]" % CORE, "a batch, or no object"),
        (b'{"id": 1}', "no string method"),
        (CORE.replace(b'"2.0"', b"2"), "not JSON-RPC 2.0"),
        (CORE.replace(b', "id": 1', b""), "a notification"),
        (CORE.replace(b'"id": 1', b'"id": "1"'), "no small integer id"),
        (CORE.replace(b'"id": 1', b'"id": 0'), "no small integer id"),
        (CORE.replace(b'"id": 1', b'"id": true'), "no small integer id"),
        (CORE.replace(b'"id": 1', b'"id": 2147483648'), "no small integer id"),
        (CORE.replace(b'["core"]', b"[]"), "params that hold nothing"),
        (CORE.replace(b'["core"]', b"null"), "params that hold nothing"),
        (CORE.replace(b'["core"]', b'"core"'), "params that hold nothing"),
        (call("subscribers_list"), "subscribers_list was asked"),
        (call("which"), "which was asked"),
    ],
)
def test_violations_are_written_down(request_bytes, violation, address):
    """Whatever a real server should not be sent is told, once."""
    server = MiDatagram(running_node(OPENSIPS_3_6), address)
    with MiThread(server), Client(server) as client, Client(server) as other:
        client.send(request_bytes)
        assert other.ask(CORE) == RUNNING
    assert [said for said in server.violations if not said.startswith(violation)] == []
    assert len(server.violations) == 1


@pytest.mark.parametrize(
    "request_bytes",
    [
        CORE,
        CORE.ljust(1024),
        CORE + b"\n",
        call("version", request_id=2**31 - 1),
        CORE.replace(b'["core"]', b'{"group": "core"}'),
    ],
)
def test_a_good_request_is_no_violation(request_bytes, address):
    """The rules leave room for what a client has to say."""
    server = MiDatagram(running_node(), address)
    with MiThread(server), Client(server) as client:
        assert b'"result":' in client.ask(request_bytes)
    assert server.violations == []


def test_two_requests_in_flight_are_seen(address):
    """Of one client they are a violation; those of two are counted."""
    server = MiDatagram(running_node(), address)
    with MiThread(server) as running, Client(server) as one, Client(server) as other:
        for _ in range(3):
            assert one.ask(CORE) == other.ask(CORE) == RUNNING
        assert server.most_in_flight == 1
        running.call(lambda: (one.send(CORE), other.send(CORE)))
        assert one.hear() == other.hear() == RUNNING
        assert server.most_in_flight == 2
        assert server.violations == []
        running.call(lambda: (one.send(CORE), one.send(CORE)))
        assert one.hear() == one.hear() == RUNNING
        assert server.violations == ["a second request in flight"]
        eventually(lambda: server.in_flight.total() == 0)


def test_requests_are_counted(address):
    """By their method, and by whoever watches."""
    seen = []
    server = MiDatagram(running_node(), address, on_request=seen.append)
    with MiThread(server), Client(server) as client:
        for request in (CORE, CORE, call("version")):
            client.ask(request)
    assert server.asked == {"sr_get_status": 2, "version": 1}
    assert seen == [CORE, CORE, call("version")]


def test_a_watcher_that_fails_is_heard(address):
    """An error in the server's thread is not lost: it comes with the stop."""

    def fail(request: bytes) -> None:
        raise LookupError(request)

    running = MiThread(MiDatagram(running_node(), address, on_request=fail))
    with running, Client(running.server) as client:
        client.send(CORE)
        client.hears_nothing()
        with pytest.raises(LookupError):
            running.refuse()


# --- sockets --------------------------------------------------------------------------------


def test_a_connected_unix_client_is_sent_nothing(tmp_path):
    """Answers come from another socket, which the kernel keeps from a client so connected."""
    server = MiDatagram(running_node(), tmp_path / "mi")
    with MiThread(server), Client(server, connect=True) as client:
        client.socket.send(CORE)
        client.hears_nothing()
        [failure] = server.failures
        assert failure.endswith(": Operation not permitted")


def test_a_unix_client_without_a_path_is_sent_nothing(tmp_path):
    """There is nowhere to send an answer to."""
    server = MiDatagram(running_node(), tmp_path / "mi")
    with MiThread(server), Client(server, named=False) as client, Client(server) as other:
        client.send(CORE)
        assert other.ask(CORE) == RUNNING
        client.hears_nothing()
    assert len(server.failures) == 1


def test_a_unix_client_that_left_harms_nobody(tmp_path):
    """Its answer is dropped."""
    server = MiDatagram(running_node(), tmp_path / "mi")
    with MiThread(server) as running, Client(server) as client, Client(server) as other:
        running.call(lambda: (client.send(CORE), client.socket.close()))
        assert other.ask(CORE) == RUNNING
    assert len(server.failures) == 1


def test_udp_answers_come_from_where_was_asked():
    """A client may connect its socket, and take nobody else's."""
    server = MiDatagram(running_node())
    with MiThread(server), Client(server, connect=True) as client:
        client.socket.send(CORE)
        assert client.hear() == RUNNING


def test_a_server_goes_down_and_comes_back(address):
    """At the same place; in between nobody is there, and nobody else gets the port."""
    server = MiDatagram(running_node(), address)
    with MiThread(server) as running:
        url = server.url
        running.refuse()
        with Client(server) as client, pytest.raises((ConnectionRefusedError, FileNotFoundError)):
            client.is_refused()
        running.listen()
        with Client(server) as client:
            assert client.ask(CORE) == RUNNING
        assert running.url == url
        running.refuse()


def test_a_port_is_nobody_elses_while_its_server_is_down():
    """Whoever asks for it is refused it; after the end it is free."""
    server = MiDatagram(running_node())
    with MiThread(server) as running:
        running.refuse()
        other = MiDatagram(running_node(), server.address)
        with pytest.raises(OSError, match="in use"), MiThread(other):
            pass
    with MiThread(other), Client(other) as client:
        assert client.ask(CORE) == RUNNING


def test_urls_are_those_of_the_configuration(tmp_path):
    """They can be written down as they are."""
    with MiThread(MiDatagram(running_node())) as running:
        assert running.url == f"udp://127.0.0.1:{running.server.address[1]}"
        assert running.server.address[1] != 0
    assert MiDatagram(running_node(), Path("/run/mi")).url == "unix:///run/mi"


def test_a_stale_path_is_taken_over(tmp_path):
    """What a killed server left is removed by the next."""
    path = tmp_path / "mi"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as stale:
        stale.bind(str(path))
    with MiThread(MiDatagram(running_node(), path)) as running, Client(running.server) as client:
        assert client.ask(CORE) == RUNNING
    assert not path.exists()


def test_nothing_is_left_open(address):
    """Neither by a stop, nor by a death, nor by both."""
    before = open_files()
    server = MiDatagram(running_node(), address)
    with MiThread(server) as running, Client(server) as client:
        client.send(b"[]")
        eventually(lambda: server.killed_by)
        running.listen()
        running.refuse()
        running.refuse()
    assert open_files() == before


def test_it_runs_in_the_loop_of_its_client(address):
    """A thread is for clients that block."""

    async def run() -> None:
        async with MiDatagram(running_node(), address) as server:
            with Client(server) as client:
                client.socket.setblocking(False)
                client.send(CORE)
                async with asyncio.timeout(5):
                    heard = await asyncio.get_running_loop().sock_recv(client.socket, 65536)
                assert heard == RUNNING
        assert not server.listening

    asyncio.run(run())


def test_the_http_server_runs_in_such_a_thread_too():
    """One helper for all."""
    with MiThread(MiHttpd(running_node())) as running:
        assert ask(running.url, "sr_get_status", "core")["Details"] == "running"


def test_recordings_of_the_services_differ():
    """Each is compared with its own state: they were recorded minutes apart."""
    ours = Exchange("4.0", "get-pos-group", "dgram").answer_body
    assert ours != Exchange("4.0", "get-pos-group", "fifo").answer_body
