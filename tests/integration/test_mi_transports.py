"""Every way to a Management Interface does the same, whatever befalls it: one suite for all."""

from __future__ import annotations

import asyncio
import os
import socket
import stat
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import pytest
import uvloop

from sr_exporter.config import Config, Source
from sr_exporter.errors import MiError
from sr_exporter.mi import places
from sr_exporter.mi.client import MiClient
from sr_exporter.mi.places import Place
from sr_exporter.mi.transports import Transports, name_of
from sr_exporter.model import PollFailure
from sr_exporter.simulator.fifo import MiFifo
from sr_exporter.simulator.servers import MiThread, cut_over, error_over, silent_over
from sr_exporter.wire import jsonrpc, sr
from tests.harness import RunningApp, eventually, series
from tests.recorded_mi import VERSIONS, asked_at, recorded_node, result
from tests.simulated import KINDS, mi_server

# It opens descriptors of its own once, and keeps them.
uvloop.new_event_loop().close()

OWN = ("udp", "unix", "fifo")


class World:
    """A server of one kind, what speaks to it, and the folders both use."""

    def __init__(self, kind: str, folder: Path, version: str = "4.0", **more: object) -> None:
        self.kind = kind
        self.asked = threading.Event()
        more["on_request"] = lambda _: self.asked.set()
        #: One more while what was given up is still being answered.
        self.most_in_flight = 1
        self.replies = folder / "replies"
        self.replies.mkdir()
        node = self.node = recorded_node(version)
        clock = lambda: asked_at(version)  # noqa: E731
        if kind == "fifo":
            self.server = MiFifo(node, folder / "mi", self.replies, clock=clock, **more)
        else:
            short = Path(places.gettempdir())
            self.server = mi_server(kind, node, short, clock=clock, **more)

    def run(self, act, *, timeout: float = 5.0, loop_factory=None) -> None:
        """Serve, and have `act` ask over a transport; nothing of ours is left afterwards."""

        async def main(url: str) -> None:
            transports = Transports()
            transport = transports.to(url, timeout_seconds=timeout)
            assert transport.name == name_of(url) == self.kind
            await act(transport)
            transport.rest()
            transports.close()

        before = len(list(Path("/proc/self/fd").iterdir()))
        with MiThread(self.server) as running, asyncio.Runner(loop_factory=loop_factory) as runner:
            runner.run(main(running.url))
        if self.kind in OWN:
            assert self.server.violations == []
            assert self.server.most_in_flight <= self.most_in_flight
            assert self.server.killed_by is None
        assert len(list(Path("/proc/self/fd").iterdir())) <= before
        assert list(self.replies.iterdir()) == []


@pytest.fixture(autouse=True)
def own_folder(monkeypatch):
    """Keep what is ours for Unix sockets in a folder of the test, with a short name."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        monkeypatch.setattr(places, "gettempdir", lambda: name)
        yield folder
        assert not [path for path in folder.rglob("*") if path.is_socket() or path.is_fifo()]


@pytest.mark.parametrize("loop_factory", [None, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("kind", KINDS)
def test_what_is_recorded_is_heard_whole(kind, version, loop_factory, tmp_path):
    """Statuses, identifiers, version and up time, by whichever names the server knows."""
    world = World(kind, tmp_path, version)

    async def act(transport) -> None:
        client = MiClient(transport)
        heard = await client.statuses()
        assert heard.complete
        assert not heard.faults
        listed = {
            (group["Name"], identifier["Name"]): (identifier["Status"], identifier.get("Details"))
            for group in result(version, "status-noparams")
            for identifier in group["Identifiers"]
        }
        assert {(s.group, s.identifier): (s.status, s.details) for s in heard.statuses} == listed
        assert (await client.status("core", "main")).status == 1
        names = await client.identifiers()
        assert sum(len(found) for _, found in names.groups) == len(listed)
        assert await client.version() in result(version, "version")["Server"]
        assert await client.uptime_seconds() > 0

    world.run(act, loop_factory=loop_factory)


@pytest.mark.parametrize("kind", KINDS)
def test_an_unknown_method_is_an_error_of_the_peer(kind, tmp_path):
    """The code and words are those of OpenSIPS."""

    async def act(transport) -> None:
        answer = await transport.ask(jsonrpc.request("nosuch", request_id=7))
        with pytest.raises(jsonrpc.RpcError, match=r"Method not found \(-32601\)"):
            jsonrpc.result(answer, request_id=7)

    World(kind, tmp_path).run(act)


def _failure(error: MiError) -> PollFailure:
    return error.reason


@pytest.mark.parametrize("kind", OWN)
def test_silence_ends_with_the_time_out(kind, tmp_path):
    """And the next request is answered; a late answer is not taken for its."""
    world = World(kind, tmp_path)

    async def act(transport) -> None:
        client = MiClient(transport)
        world.server.spoil = silent_over(100)
        with pytest.raises(MiError, match=r"no (whole )?answer within 0.3 s") as raised:
            await client.statuses()
        assert raised.value.reason is PollFailure.TIMEOUT
        world.server.spoil = silent_over(10**9)
        assert (await client.statuses()).statuses

    world.run(act, timeout=0.3)


@pytest.mark.parametrize("kind", ["udp", "unix"])
def test_a_late_answer_comes_to_nobody(kind, tmp_path):
    """What was given up is answered at last, while the next request waits for its own."""
    world = World(kind, tmp_path)
    world.most_in_flight = 2

    async def act(transport) -> None:
        world.server.delay = 0.4
        with pytest.raises(MiError, match="no answer within"):
            await transport.ask(jsonrpc.request("sr_list_status", request_id=1))
        world.server.delay = 0.0
        answer = await transport.ask(jsonrpc.request("version", request_id=2))
        assert sr.version(jsonrpc.result(answer, request_id=2))

    world.run(act, timeout=0.3)


@pytest.mark.parametrize("kind", OWN)
def test_a_cut_answer_is_malformed(kind, tmp_path):
    """Half a listing is no listing."""
    world = World(kind, tmp_path)

    async def act(transport) -> None:
        world.server.spoil = cut_over(200)
        with pytest.raises(MiError) as raised:
            await MiClient(transport).statuses()
        assert raised.value.reason is PollFailure.MALFORMED

    world.run(act)


@pytest.mark.parametrize("kind", ["udp", "unix"])
def test_an_answer_too_big_for_a_datagram_says_what_to_do(kind, tmp_path):
    """`500 Internal error` is no JSON: the message names the ways out."""
    world = World(kind, tmp_path)

    async def act(transport) -> None:
        world.server.spoil = error_over(500)
        with pytest.raises(MiError, match=r"fifo or http.*socket_buf_size") as raised:
            await MiClient(transport).statuses()
        assert raised.value.reason is PollFailure.TOO_BIG
        assert await MiClient(transport).version()

    world.run(act)


@pytest.mark.parametrize("kind", OWN)
def test_nobody_there_is_told_at_once(kind, tmp_path):
    """Not after the time-out: refused, no such file, nobody reads."""
    world = World(kind, tmp_path)

    async def act(transport) -> None:
        await MiClient(transport).version()
        thread.refuse()
        with pytest.raises(MiError) as raised:
            async with asyncio.timeout(5):
                await MiClient(transport).version()
        assert raised.value.reason is PollFailure.CONNECT
        thread.listen()
        assert await MiClient(transport).version()

    async def main(url: str) -> None:
        await act(Transports().to(url, timeout_seconds=60))

    with MiThread(world.server) as thread:
        asyncio.run(main(thread.url))


@pytest.mark.parametrize("kind", OWN)
def test_a_request_that_is_cancelled_leaves_nothing(kind, tmp_path):
    """No file, no descriptor: it is over before anybody notices."""
    world = World(kind, tmp_path)

    async def act(transport) -> None:
        world.server.spoil = silent_over(0)
        asking = asyncio.ensure_future(MiClient(transport).statuses())
        await asyncio.to_thread(world.asked.wait, 5)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking

    world.run(act, timeout=60)


def test_a_fifo_carries_what_no_datagram_does(tmp_path):
    """Answers of any size come whole."""
    world = World("fifo", tmp_path)
    for number in range(20_000):
        world.node.register("uac_registrant", f"aor=sip:{number}@example.org;x={'y' * 60}")

    async def act(transport) -> None:
        heard = await MiClient(transport).statuses()
        assert len(heard.statuses) > 20_000

    world.run(act, timeout=30)


def test_what_is_no_fifo_is_not_written_to(tmp_path):
    """A wrong path must not have a request appended to somebody's file."""
    path = tmp_path / "file"
    path.write_text("mine")

    async def ask() -> None:
        transport = Transports().to(f"fifo://{path}?reply_dir={tmp_path}", timeout_seconds=5)
        with pytest.raises(MiError, match="is no fifo") as raised:
            await transport.ask(jsonrpc.request("version"))
        assert raised.value.reason is PollFailure.CONNECT

    asyncio.run(ask())
    assert path.read_text() == "mine"
    assert {one.name for one in tmp_path.iterdir()} == {"file"}


# --- our own end ----------------------------------------------------------------------------


def test_what_a_crash_left_behind_is_removed(tmp_path):
    """What is ours and of a process that is gone; nobody else's, and no file."""
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    folder = tmp_path / "replies"
    folder.mkdir()
    left = folder / f"sr-exporter-{gone.pid}-{'0' * 16}"
    os.mkfifo(left)
    alive = folder / f"sr-exporter-{os.getppid()}-{'1' * 16}"
    os.mkfifo(alive)
    file = folder / f"sr-exporter-{gone.pid}-{'2' * 16}"
    file.write_text("a file is nothing that we make")
    other = folder / "opensips_fifo"
    os.mkfifo(other)
    with Place(folder).name() as path:
        assert not path.exists()
    assert {one.name for one in folder.iterdir()} == {alive.name, file.name, other.name}


def test_who_needs_no_temporary_folder_asks_for_none(monkeypatch):
    """On a read-only file system there may be none, and no source over a Unix socket."""

    def none() -> str:
        raise FileNotFoundError("no usable temporary directory")

    monkeypatch.setattr(places, "gettempdir", none)
    Transports().close()
    with pytest.raises(OSError, match="temporary"), places.OwnFolder().name():
        raise AssertionError


def test_a_folder_of_somebody_else_is_not_used(own_folder):
    """In a folder that anybody may write to, another may have been faster."""
    mine = places.OwnFolder()
    target = own_folder / "elsewhere"
    target.mkdir()
    (own_folder / f"sr-exporter-{os.geteuid()}").symlink_to(target)
    with pytest.raises(PermissionError), mine.name():
        pass


def test_our_folder_can_be_passed_through_and_not_listed(own_folder):
    """OpenSIPS, another user, finds the socket it was told of, and nobody finds another."""
    mine = places.OwnFolder()
    with mine.name() as path:
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o711
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as made:
            made.bind(str(path))
    assert not path.exists()


# --- the whole exporter ---------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_a_source_is_polled_by_every_way(kind, tmp_path):
    """Its transport is shown; lost it is down, and back it is up again."""
    world = World(kind, tmp_path)
    with MiThread(world.server) as server:
        source = Source("sip-1", server.url, poll_interval_seconds=0.1, max_share=1.0)
        with RunningApp(tmp_path / "data", Config(sources=(source,))) as app:

            def up() -> float | None:
                found = app.client.metrics()
                return found.get(("opensips_sr_source_up", (("source", "sip-1"),)))

            eventually(lambda: up() == 1)
            found = app.client.metrics()
            (info,) = series(found, "opensips_sr_source_info", source="sip-1")
            assert dict(info)["transport"] == kind
            shown = series(found, "opensips_sr_status", source="sip-1")
            assert len(shown) == sum(
                len(group["Identifiers"]) for group in result("4.0", "status-noparams")
            )
            server.refuse()
            eventually(lambda: up() == 0)
            server.listen()
            eventually(lambda: up() == 1)
    if kind in OWN:
        assert world.server.violations == []
        assert world.server.most_in_flight == 1
    assert list(world.replies.iterdir()) == []
