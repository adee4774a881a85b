"""Listeners come and go while the exporter runs: what is new is bound before anything changes."""

from __future__ import annotations

import asyncio
import socket

import pytest
import uvloop

from sr_exporter.config import Endpoint, Events, Source, Subscribe
from sr_exporter.errors import ConfigError
from sr_exporter.model import Way
from tests.hearing import Ears, ears, endpoint, event, objects, until


@pytest.fixture(params=["asyncio", "uvloop"])
def run(request):
    """Run a test's coroutine, on each loop."""
    made = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}[request.param]

    def run_it(act):
        with asyncio.Runner(loop_factory=made) as runner:
            return runner.run(act)

    return run_it


PEERS = (("127.0.0.1", "sip-1"),)


def _refuses(place: Endpoint) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(tuple(place)) != 0


def test_what_cannot_be_listened_on_is_said_all_at_once_and_nothing_is_left(run, tmp_path):
    """And what could be is free again."""

    async def act() -> None:
        with (
            socket.create_server(("127.0.0.1", 0)) as tcp,
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp,
        ):
            udp.bind(("127.0.0.1", 0))
            taken = [Endpoint(*one.getsockname()) for one in (tcp, udp)]
            good, bad = tmp_path / "good", tmp_path / "bad"
            bad.mkdir()
            unix = ((str(good), "a"), (str(bad), "b"))
            with pytest.raises(ConfigError) as caught:
                await Ears().configure(Events(stream=taken[0], datagram=taken[1], unix=unix))
            assert str(caught.value).splitlines() == [
                f"events.stream.listen: cannot listen on {taken[0]}: address already in use",
                f"events.datagram.listen: cannot listen on {taken[1]}: address already in use",
                f"events.datagram.unix.{bad}: cannot listen on it: it is there, and is no socket",
            ]
            assert not good.exists()
        unknown = Endpoint("no-such-host.invalid", 1)
        with pytest.raises(ConfigError, match=r"cannot listen on no-such-host\.invalid:1: name"):
            await Ears().configure(Events(stream=unknown))
        async with ears(Events(stream=taken[0], datagram=taken[1])):
            assert not _refuses(taken[0])

    run(act())


def test_a_reload_that_fails_changes_nothing(run):
    """Who is connected goes on; so it is when what was prepared is not wanted after all."""

    async def act() -> None:
        place, other = endpoint(), endpoint()
        async with ears(Events(stream=place, peers=PEERS)) as heard:
            reader, writer = await asyncio.open_connection(*place)
            with socket.create_server(("127.0.0.1", 0)) as taken:
                faulty = Events(stream=other, datagram=other, peers=())
                fine = await heard.listeners.prepare(faulty, [])
                heard.listeners.discard(fine)
                with pytest.raises(ConfigError):
                    await heard.configure(Events(stream=Endpoint(*taken.getsockname())))
            writer.write(event(2, 1, request_id=1))
            assert (await objects(reader, 1))[0]["id"] == 1
            assert _refuses(other)
            writer.close()

    run(act())


def test_only_what_changed_is_disturbed(run, tmp_path):
    """A new peer takes effect on a connection that stands; another address ends it."""

    async def act() -> None:
        place, path = endpoint(), str(tmp_path / "s")
        first = Events(stream=place, peers=PEERS)
        async with ears(first) as heard:
            reader, writer = await asyncio.open_connection(*place)
            both = Events(stream=place, unix=((path, "sip-3"),), peers=(("127.0.0.1", "sip-2"),))
            await heard.configure(both)
            writer.write(event(2, 1, request_id=1))
            assert (await objects(reader, 1))[0]["id"] == 1
            assert heard.statuses("sip-2")
            moved = Events(stream=endpoint(), unix=((path, "sip-4"),), peers=PEERS)
            await heard.configure(moved)
            assert await asyncio.wait_for(reader.read(), 10) == b""
            assert _refuses(place)
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as own:
                own.sendto(event(2, 1), path)
            await until(lambda: heard.statuses("sip-4"))
            writer.close()

    run(act())


def test_who_connects_between_binding_and_applying_is_served_then(run):
    """The kernel holds it meanwhile."""

    async def act() -> None:
        place = endpoint()
        heard = Ears()
        prepared = await heard.listeners.prepare(Events(stream=place, peers=PEERS), [])
        reader, writer = await asyncio.open_connection(*place)
        writer.write(event(2, 1, request_id=1))
        await asyncio.sleep(0)
        assert not heard.changes
        heard.listeners.apply(prepared)
        assert (await objects(reader, 1))[0]["id"] == 1
        writer.close()
        await heard.listeners.stop()

    run(act())


def test_counters_are_there_from_the_start_and_go_with_their_source(run, tmp_path):
    """At 0, for each way an event may come; nobody's over HTTP before the first."""
    path = str(tmp_path / "s")
    polled = [
        Source("sip-1", "http://127.0.0.1:1/mi", subscribe=Subscribe.TCP),
        Source("sip-2", "http://127.0.0.1:1/mi"),
    ]
    events = Events(
        stream=endpoint(),
        datagram=endpoint(),
        unix=((path, "sip-4"),),
        peers=(("10.0.0.3", "sip-3"),),
    )

    async def act() -> None:
        heard = Ears()
        assert heard.samples("events") == {}
        assert heard.samples("events_dropped") == {}
        assert set(heard.samples("events_rejected")) == {
            (way, reason)
            for way in ("tcp", "udp", "unix")
            for reason in ("malformed", "unknown_peer", "too_big")
        }
        heard.listeners.apply(await heard.listeners.prepare(events, polled))
        assert heard.samples("events") == dict.fromkeys(
            [("sip-1", "tcp"), ("sip-3", "tcp"), ("sip-3", "udp"), ("sip-4", "unix")], 0
        )
        assert heard.samples("events_dropped") == {("udp",): 0}
        heard.metrics.event_accepted("pushed", Way.HTTP)
        heard.listeners.apply(await heard.listeners.prepare(Events(), polled[:1]))
        assert heard.samples("events") == {("sip-1", "tcp"): 0, ("pushed", "http"): 1}
        assert heard.samples("events_dropped") == {}
        await heard.listeners.stop()

    run(act())
