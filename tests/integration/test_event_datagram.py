"""Events in datagrams, on real sockets; and what the kernel drops is what it says it dropped."""

from __future__ import annotations

import asyncio
import socket
import stat
import threading
from typing import TYPE_CHECKING

import pytest
import uvloop

from sr_exporter.config import Events
from sr_exporter.errors import ConfigError
from sr_exporter.sources import datagram, listeners
from sr_exporter.wire.text import loads, name, text
from tests.hearing import Ears, ears, endpoint, event, until
from tests.recorded_events import logs, reads

if TYPE_CHECKING:
    from pathlib import Path

LOOPS = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}
MALFORMED, STRANGER, TOO_BIG = "malformed", "unknown_peer", "too_big"


def on(loop, act):
    """Run a test's coroutine on one of the loops."""
    with asyncio.Runner(loop_factory=LOOPS[loop]) as runner:
        return runner.run(act)


@pytest.fixture(params=LOOPS)
def run(request):
    """Run a test's coroutine, on each loop."""
    return lambda act: on(request.param, act)


@pytest.fixture(params=["udp", "unix"])
def way(request, tmp_path):
    """Give a way in whose sender is sip-1, and what sends a datagram there."""
    if request.param == "udp":
        events = Events(datagram=endpoint(), peers=(("127.0.0.1", "sip-1"),))
        family, to = socket.AF_INET, tuple(events.datagram)
    else:
        path = str(tmp_path / "s")
        events = Events(unix=((path, "sip-1"),))
        family, to = socket.AF_UNIX, path
    with socket.socket(family, socket.SOCK_DGRAM) as own:
        own.setblocking(False)

        async def send(data: bytes) -> None:
            while True:
                try:
                    own.sendto(data, to)
                except BlockingIOError:  # its queue is full: a real one would be told, too
                    await asyncio.sleep(0)
                else:
                    return

        yield request.param, events, send


def test_what_real_servers_sent_is_held(run, way):
    """Each datagram is an event; the last word on each key is what is held."""
    kind, events, send = way

    async def act() -> None:
        for path in logs(kind):
            said = [loads(data)["params"] for data in reads(path)]
            async with ears(events) as heard:
                for data in reads(path):
                    await send(data)
                await until(lambda: heard.accepted("sip-1", kind) == len(said))  # noqa: B023 - now
                assert heard.statuses("sip-1") == {
                    (name(one["group"]), name(one["identifier"])): (
                        one["status"],
                        text(one["details"]) if "details" in one else None,
                    )
                    for one in said
                }
                assert not any(heard.samples("events_rejected").values())

    run(act())


def test_what_is_no_event_is_refused_and_counted(run, way, monkeypatch):
    """Each by its reason; what follows is heard."""
    kind, events, send = way
    monkeypatch.setattr(datagram, "LIMIT_BYTES", 1000)

    async def act() -> None:
        async with ears(events) as heard:
            await send(event(-1, 1, identifier="x" * 1000))
            for wrong in (b"", b"400 Parse_error", event(2, 1) + b"x", event(2, 1, method="sip-1")):
                await send(wrong)
            await send(event(5, 1))
            await until(lambda: heard.accepted("sip-1", kind) == 1)
            assert heard.statuses("sip-1") == {("g", "i"): (5, None)}
            assert heard.rejected(kind, MALFORMED) == 4
            assert heard.rejected(kind, TOO_BIG) == 1

    run(act())


def test_a_stranger_over_udp_is_refused(run):
    """Whatever name it gives: over UDP it is the address that tells."""

    async def act() -> None:
        events = Events(datagram=endpoint(), peers=(("192.0.2.1", "sip-1"),))
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as own:
            async with ears(events, "sip-2") as heard:
                own.sendto(event(2, 1, method="sip-2"), tuple(events.datagram))
                await until(lambda: heard.rejected("udp", STRANGER) == 1)
                assert not heard.statuses("sip-1")
                assert not heard.statuses("sip-2")

    run(act())


def test_a_peer_is_known_over_a_socket_of_both_families(run):
    """The kernel writes an IPv4 sender as IPv6 there."""

    async def act() -> None:
        place = endpoint()._replace(host="")
        events = Events(datagram=place, peers=(("127.0.0.1", "sip-1"), ("::1", "sip-2")))
        async with ears(events) as heard:
            for family, host in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
                with socket.socket(family, socket.SOCK_DGRAM) as own:
                    own.sendto(event(2, 1), (host, place.port))
            await until(lambda: heard.statuses("sip-1") and heard.statuses("sip-2"))

    run(act())


def test_while_too_much_waits_to_be_kept_the_kernel_holds_what_comes(run, monkeypatch):
    """Nothing of it is lost as long as it has room."""
    monkeypatch.setattr(datagram, "MOST_WAITING", 10)

    async def act() -> None:
        events = Events(datagram=endpoint(), peers=(("127.0.0.1", "sip-1"),))
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as own:
            async with ears(events) as heard:
                heard.store.held = True
                for n in range(2, 502):
                    own.sendto(event(n, n - 1), tuple(events.datagram))
                await until(lambda: heard.accepted("sip-1", "udp") >= 10)
                for _ in range(20):
                    await asyncio.sleep(0)
                assert heard.accepted("sip-1", "udp") <= datagram.MOST_AT_ONCE
                heard.store.held = False
                heard.store.release()
                await until(lambda: heard.accepted("sip-1", "udp") == 500)
                assert [one.status for one in heard.changes] == list(range(2, 502))

    run(act())


def _flood(to: tuple[str, int], count: int) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as own:
        own.connect(to)
        for n in range(2, count + 2):
            own.send(event(n, n - 1))


@pytest.mark.parametrize("wanted", [datagram.BUFFER_BYTES, 20_000], ids=["8 MiB", "20 kB"])
def test_fifty_thousand_datagrams_are_received_or_counted(wanted, monkeypatch, figure):
    """From a sender that does not wait, into a large buffer, and into one that is too small."""
    monkeypatch.setattr(
        listeners, "enlarge", lambda bound, name: datagram.enlarge(bound, name, wanted)
    )
    count = 50_000

    async def act() -> None:
        events = Events(datagram=endpoint(), peers=(("127.0.0.1", "sip-1"),))
        async with ears(events) as heard:
            loop = asyncio.get_running_loop()
            began = loop.time()
            sender = threading.Thread(target=_flood, args=(tuple(events.datagram), count))
            sender.start()

            def known() -> float:
                dropped = heard.samples("events_dropped")[("udp",)]
                return heard.accepted("sip-1", "udp") + dropped

            await until(lambda: known() == count)
            took = loop.time() - began
            sender.join()
            received = heard.accepted("sip-1", "udp")
            dropped = heard.samples("events_dropped")[("udp",)]
            figure(
                f"events: {count} over UDP, buffer {wanted} bytes:"
                f" {received:.0f} received + {dropped:.0f} dropped by the kernel and counted"
                f" = {received + dropped:.0f}, {count / took:,.0f} a second"
            )
            assert received + dropped == count
            assert received == len(heard.changes)
            assert [one.status for one in heard.changes] == sorted(
                one.status for one in heard.changes
            )
            if wanted < datagram.BUFFER_BYTES:
                assert dropped > 0

    on("uvloop", act())


def test_drops_are_counted_over_a_reload_and_after_the_last_that_was_read(run, monkeypatch):
    """A counter that fell would be a restart; and nothing need come for it to be seen."""
    monkeypatch.setattr(
        listeners, "enlarge", lambda bound, name: datagram.enlarge(bound, name, 4096)
    )

    async def act() -> None:
        peers = (("127.0.0.1", "sip-1"),)
        events = Events(datagram=endpoint(), peers=peers)
        async with ears(events) as heard:
            _flood(tuple(events.datagram), 1000)  # the loop does not run meanwhile
            dropped = heard.samples("events_dropped")[("udp",)]
            assert 900 < dropped < 1000
            await until(lambda: heard.accepted("sip-1", "udp") == 1000 - dropped)
            elsewhere = Events(datagram=endpoint(), peers=peers)
            await heard.configure(elsewhere)
            assert heard.samples("events_dropped")[("udp",)] == dropped
            _flood(tuple(elsewhere.datagram), 1000)
            assert heard.samples("events_dropped")[("udp",)] > dropped
            await heard.configure(Events())
            assert heard.samples("events_dropped") == {}

    run(act())


def test_at_a_stop_what_has_come_is_taken(run, monkeypatch):
    """Whatever the kernel holds by then; though the disk hangs, it takes no longer than it may."""
    monkeypatch.setattr(datagram, "STOP_SECONDS", 0.05)

    async def act() -> None:
        events = Events(datagram=endpoint(), peers=(("127.0.0.1", "sip-1"),))
        heard = Ears()
        await heard.configure(events)
        heard.store.held = True
        count = 3 * datagram.MOST_AT_ONCE + 1
        _flood(tuple(events.datagram), count)  # the loop does not run meanwhile
        await asyncio.wait_for(heard.listeners.stop(), 10)
        assert heard.accepted("sip-1", "udp") == count

    run(act())


def test_the_kernels_counter_goes_round(run):
    """It has 32 bits."""

    async def act() -> None:
        bound = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        bound.bind(("127.0.0.1", 0))
        intake = Ears().listeners._intake
        heard = datagram.EventDatagrams(intake, bound)
        told = iter([2**32 - 5, 2**32 - 1, 3, None, 3])
        heard._drops_now = lambda: next(told)
        assert [heard.dropped() for _ in range(5)] == [2**32 - 5, 2**32 - 1, 2**32 + 3] + [
            2**32 + 3
        ] * 2
        bound.close()

    run(act())


# --- Unix sockets ----------------------------------------------------------------------------


def test_a_unix_socket_is_open_to_all_and_goes_with_us(run, tmp_path):
    """Its folder decides who may write; what is there in its stead by then stays."""
    path = tmp_path / "s"

    async def act() -> None:
        async with ears(Events(unix=((str(path), "sip-1"),))) as heard:
            assert stat.S_IMODE(path.stat().st_mode) == 0o666
            assert heard.samples("events") == {("sip-1", "unix"): 0}
        assert not path.exists()
        async with ears(Events(unix=((str(path), "sip-1"),))):
            path.unlink()
            path.write_text("another's")
        assert path.read_text() == "another's"

    run(act())


def test_a_socket_that_was_removed_comes_back_with_a_reload(run, tmp_path):
    """Nobody can reach a socket whose file is gone."""

    async def act() -> None:
        path = tmp_path / "events"
        events = Events(unix=((str(path), "sip-1"),))
        async with ears(events) as heard:
            path.unlink()
            await heard.configure(events)
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
                sender.sendto(event(2, 1), str(path))
            await until(lambda: heard.state.sources["sip-1"].last_seen)

    run(act())


def test_a_left_over_socket_is_replaced(run, tmp_path):
    """Of a process that was killed, say."""
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as before:
        before.bind(str(path))

    async def act() -> None:
        async with ears(Events(unix=((str(path), "sip-1"),))) as heard:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as own:
                own.sendto(event(2, 1), str(path))
            await until(lambda: heard.accepted("sip-1", "unix") == 1)

    run(act())


def _somebody(path: Path, kind: socket.SocketKind) -> socket.socket:
    listening = socket.socket(socket.AF_UNIX, kind)
    listening.bind(str(path))
    if kind == socket.SOCK_STREAM:
        listening.listen()
    return listening


@pytest.mark.parametrize(
    ("what", "why"),
    [
        ("file", "it is there, and is no socket"),
        ("folder", "it is there, and is no socket"),
        ("link", "it is there, and is no socket"),
        ("datagram", "somebody listens there"),
        ("stream", "somebody listens there"),
        ("nowhere", "no such file or directory"),
    ],
)
def test_what_is_not_ours_is_left_alone(run, tmp_path, what, why):
    """It is said, and nothing is changed."""
    path = tmp_path / "s"
    opened = []
    match what:
        case "file":
            path.write_text("x")
        case "folder":
            path.mkdir()
        case "link":
            path.symlink_to(tmp_path / "other")
        case "datagram":
            opened.append(_somebody(path, socket.SOCK_DGRAM))
        case "stream":
            opened.append(_somebody(path, socket.SOCK_STREAM))
        case "nowhere":
            path = tmp_path / "no" / "s"
    before = path.lstat() if what != "nowhere" else None

    async def act() -> None:
        with pytest.raises(ConfigError) as caught:
            await Ears().configure(Events(unix=((str(path), "sip-1"),)))
        assert str(caught.value) == f"events.datagram.unix.{path}: cannot listen on it: {why}"

    run(act())
    if before is not None:
        assert path.lstat().st_ino == before.st_ino
    for one in opened:
        one.close()
