"""The demo's servers, listening and playing their story."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sr_exporter.errors import MiError
from sr_exporter.simulator.demo import DemoNodes, start_demo_nodes
from sr_exporter.simulator.scenario import CAST, LINES, OPENING_SECONDS
from sr_exporter.wire.events import EVENT, event
from tests.harness import eventually
from tests.listeners import Stream
from tests.mi_asking import ask


class Clock:
    """A clock that stands still until it is set."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_the_demo_serves_its_nodes():
    """Four nodes answer under their addresses, and a stop ends all of them at once."""

    async def run() -> list[tuple[str, str]]:
        nodes = DemoNodes(clock=Clock())
        await nodes.start()
        try:
            for name, url in nodes.sources:
                version = await asyncio.to_thread(ask, url, "version")
                assert CAST[name][0].version in version["Server"]
                core = await asyncio.to_thread(ask, url, "sr_get_status", "core")
                assert core == {"Readiness": False, "Status": -1, "Details": "initializing"}
        finally:
            async with asyncio.timeout(1):
                await nodes.stop()
        return nodes.sources

    sources = asyncio.run(run())
    assert [name for name, _ in sources] == ["sip-1", "sip-2", "edge-1", "reg-1"]
    for _, url in sources:
        with pytest.raises(MiError, match="refused"):
            ask(url, "version")


def test_the_demo_sends_events_to_who_subscribed():
    """Until a node restarts; nothing that it was sent would have hurt a real one."""

    async def run(listener: Stream) -> None:
        clock = Clock()
        async with DemoNodes(clock=clock, only="sip-1") as nodes:
            [(_, url)] = nodes.sources
            subscription = ("event_subscribe", EVENT, f"{listener.address}/sip-1")
            assert await asyncio.to_thread(ask, url, *subscription) == "OK"
            clock.now = OPENING_SECONDS
            await nodes.catch_up()
            await asyncio.to_thread(eventually, listener.objects)
            said = event(listener.objects()[0])
            assert said.method == "sip-1"
            assert said.params.old_status != said.params.status
            assert nodes.violations == []

    with Stream() as listener:
        asyncio.run(run(listener))


@pytest.mark.harmful
def test_the_demo_tells_of_what_would_have_hurt_a_server():
    """By the name of the node, for the demo to say."""

    async def run() -> None:
        async with DemoNodes(clock=Clock(), only="sip-1") as nodes:
            [(_, url)] = nodes.sources
            await asyncio.to_thread(ask, url, "which")
            assert nodes.violations == ["sip-1: which was asked"]

    asyncio.run(run())


def test_the_demo_tells_its_story():
    """Whoever starts the demo is told each beat, the first ones at once."""

    async def run() -> None:
        told = []
        async with await start_demo_nodes(told.append) as nodes:
            assert [beat.node for beat in told[:4]] == [name for name, _ in nodes.sources]
            assert all(beat.line.startswith("starts") for beat in told[:4])

    asyncio.run(run())


def test_the_demo_refuses_connections_while_a_node_is_down():
    """A restart closes the port and opens the same one again, as the story goes."""

    async def run() -> None:
        clock, told = Clock(), []
        nodes = DemoNodes(tell=told.append, clock=clock, only="sip-2")
        async with nodes:
            [(name, url)] = nodes.sources
            assert name == "sip-2"
            assert await asyncio.to_thread(ask, url, "uptime")
            clock.now = OPENING_SECONDS + 35
            await nodes.catch_up()
            assert told[-1].line.startswith("goes down")
            with pytest.raises(MiError, match="refused"):
                await asyncio.to_thread(ask, url, "uptime")
            clock.now = OPENING_SECONDS + 38
            await nodes.catch_up()
            assert nodes.sources == [(name, url)]
            uptime = await asyncio.to_thread(ask, url, "uptime")
            assert uptime["Up time"] == "0 [sec]"

    asyncio.run(run())


def test_one_node_alone_can_be_started_by_hand():
    """`python -m sr_exporter.simulator` says where it listens, tells its story and can be ended."""
    with subprocess.Popen(
        [sys.executable, "-m", "sr_exporter.simulator", "--port", "0", "--node", "reg-1"],
        cwd=Path(__file__).parents[2],
        stdout=subprocess.PIPE,
        text=True,
    ) as program:
        try:
            assert "reg-1 starts" in program.stdout.readline()
            url = program.stdout.readline().partition(": ")[2].strip()
            assert len(ask(url, "sr_list_status", "uac_registrant")) == len(LINES)
        finally:
            started = time.monotonic()
            program.terminate()
            program.wait(5)
            assert time.monotonic() - started < 5
