"""What goes wrong at night as a matter of course pages nobody; a core that is stuck does.

The start, and the stop, are the recorded ones (startstop.py), at every moment between two polls and
in each of the recorded milliseconds of an end, over both transports that were recorded.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest
import structlog.testing

from sr_exporter.model import ChangeKind, PollFailure
from sr_exporter.simulator.node import Planned, SimulatedNode
from sr_exporter.simulator.releases import OPENSIPS_4_0
from sr_exporter.wire import events
from tests import startstop, virtual_time
from tests.at_night import BEGAN, INTERVAL, Exporter, Receivers, Told

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from sr_exporter.outcome import Outcome
    from tests.startstop import Listed

TRANSPORTS = ("http", "dgram")
#: When the recorded server was asked to stop, and until when its life is told.
STOPPING, RUNNING = 7.719, 3.707
#: Until when it only initializes.
INITIALIZING = 1.0
#: From the end of one life to the beginning of the next.
GAP_SECONDS = 0.5
STUCK_SECONDS = 120.0
#: Every half second of an interval, and every few milliseconds as a poll begins.
MOMENTS = [*(half / 2 for half in range(20)), *(9.96 + ms / 1000 for ms in range(0, 41, 4))]
CHECKED_SECONDS = 300.0


@dataclass
class Recorded:
    """A server that starts, runs and stops as the recorded one did."""

    transport: str
    #: How its events reach the exporter: by its script, by our subscription, or not at all; and
    #: "alone" without polls.
    heard: str
    exporter: Exporter = field(init=False)

    def __post_init__(self) -> None:
        self.story = startstop.answers(self.transport)
        items = next(listed.items for listed in self.story if listed.items)
        plan = [Planned(*item[:2]) for item in reversed(items) if item[0] != "core"]
        self.node = SimulatedNode(OPENSIPS_4_0, plan)

    def now(self) -> float:
        return asyncio.get_running_loop().time()

    def running(self) -> None:
        """Have it run for an hour already."""
        (listed,) = (one for one in self.story if one.second == RUNNING)
        self.node.start(BEGAN - 3600)
        self.show(listed)

    def show(self, listed: Listed) -> None:
        if listed.failure is not None:
            self.node.stop()
            return
        if not self.node.up:
            self.node.start(BEGAN + self.now())
        for group, identifier, status, details in listed.items:
            self.node.set_status(group, identifier, status, details)

    async def start(self, until: float = RUNNING) -> None:
        """Play the recorded start, as far as it goes."""
        acts: list[tuple[float, Callable[[], None]]] = [
            (one.second, lambda one=one: self.show(one))
            for one in self.story
            if one.second <= until
        ]
        acts += [
            (second, lambda data=data: self.send(data))
            for second, data in startstop.sent()
            if second <= until
        ]
        await self.play(acts, 0.0)

    async def stop(self) -> None:
        """Play the recorded end; a subscription ends with it."""
        acts = [
            (one.second, lambda one=one: self.show(one))
            for one in self.story
            if one.second >= STOPPING
        ]
        await self.play(acts, STOPPING)
        self.exporter.subscribed_until = -1.0

    async def play(self, acts: list[tuple[float, Callable[[], None]]], began: float) -> None:
        offset = self.now() - began
        for second, act in sorted(acts, key=lambda one: one[0]):
            await asyncio.sleep(second + offset - self.now())
            act()

    def send(self, data: bytes) -> None:
        """Have a recorded event be so, and told; the answers were only seen to differ later."""
        said = events.event(data).params
        self.node.set_status(said.group, said.identifier, said.status, said.details)
        if self.heard in ("script", "alone") or (
            self.heard == "subscription" and self.exporter.clock() < self.exporter.subscribed_until
        ):
            self.exporter.hear(data)

    def tell_all(self) -> None:
        """Have each table be known to be ready, by its events."""
        for data in (data for _, data in startstop.sent()):
            self.exporter.hear(data)

    async def restart(self, until: float = RUNNING) -> None:
        await self.stop()
        await asyncio.sleep(GAP_SECONDS)
        await self.start(until)


def play(
    monkeypatch: pytest.MonkeyPatch,
    story: Callable[[Recorded], Awaitable[None]],
    *,
    transport: str = "http",
    heard: str = "none",
    until: float = CHECKED_SECONDS,
    running: bool = True,
    interval: float = INTERVAL,
) -> Receivers:
    receivers = Receivers()
    receivers.connect(monkeypatch)

    async def night() -> None:
        server = Recorded(transport, heard)
        if running:
            server.running()
        server.exporter = Exporter(
            server.node,
            receivers,
            polled=heard != "alone",
            subscribes=heard == "subscription",
            interval=interval,
        )
        await server.exporter.start()
        await story(server)
        await server.exporter.until(until)
        await server.exporter.stop()

    with structlog.testing.capture_logs():
        virtual_time.run(night())
    return receivers


def pages(*args, **kwargs) -> list[Told]:
    """Play, and give every page, but of the cluster capability that never finds a donor."""
    return [one for one in play(*args, **kwargs).pages() if one.group != "clusterer"]


@pytest.mark.parametrize("heard", ["none", "subscription", "script", "alone"])
@pytest.mark.parametrize("transport", TRANSPORTS)
def test_a_start_pages_nobody(monkeypatch, transport, heard):
    """The exporter is there first; it may ask at any moment of the start."""
    for moment in MOMENTS[:20]:

        async def starts(server: Recorded, moment: float = moment) -> None:
            await asyncio.sleep(moment)
            await server.start()

        assert not pages(monkeypatch, starts, transport=transport, heard=heard, running=False), (
            moment
        )


@pytest.mark.parametrize("heard", ["none", "subscription", "script", "alone"])
@pytest.mark.parametrize("transport", TRANSPORTS)
def test_a_planned_restart_pages_nobody(monkeypatch, transport, heard):
    """It stops and starts at any moment between two polls."""
    for moment in MOMENTS:

        async def restarts(server: Recorded, moment: float = moment) -> None:
            if heard == "alone":
                server.tell_all()
            await asyncio.sleep(4 * INTERVAL + moment)
            await server.restart()

        assert not pages(monkeypatch, restarts, transport=transport, heard=heard), moment


@pytest.mark.parametrize("heard", ["none", "script"])
def test_reloads_page_nobody_good_or_failed(monkeypatch, heard):
    """Status 2 is ready, and a failed reload keeps the old data (facts on OpenSIPS, section 3).

    The longest is seen by several polls; most last for milliseconds (recordings/4.0/POLLRELOAD).
    """

    async def reloads(server: Recorded) -> None:
        node, exporter = server.node, server.exporter
        if heard == "script":
            node.on_change = exporter.send
        for seconds in (0.002, 0.1, 25.0):
            for ending in (node.finish_load, node.fail_load):
                await asyncio.sleep(9.9)
                node.begin_load("drouting", "us", exporter.clock())
                await asyncio.sleep(seconds)
                said = ["3 gateways loaded (0 discarded)"] * (ending == node.finish_load)
                ending("drouting", "us", *said, exporter.clock())

    assert not pages(monkeypatch, reloads, heard=heard)


@pytest.mark.parametrize("interval", [1.0, 10.0, 30.0, 60.0, 300.0])
@pytest.mark.parametrize("failure", PollFailure)
def test_a_lost_poll_pages_nobody(monkeypatch, failure, interval):
    """One that fails, in whatever way, between good ones: nobody is told before it is asked again.

    Of silence a poll fails only when its next question is not answered either.
    """

    async def loses(server: Recorded) -> None:
        exporter = server.exporter

        def see(outcome: Outcome) -> None:
            if any(change.kind is ChangeKind.SOURCE_DOWN for change in outcome.changes):
                exporter.fails = None

        exporter.ingest.subscribe(see)
        if failure is PollFailure.TIMEOUT:
            exporter.fails_for = 1
        await exporter.until(interval * 1.5)
        exporter.fails = failure

    told = pages(monkeypatch, loses, interval=interval, until=interval * 4 + 100)
    assert not told


@pytest.mark.parametrize(
    ("failure", "within"), [(PollFailure.CONNECT, 31.0), (PollFailure.TIMEOUT, 41.0)]
)
def test_a_source_that_answers_no_more_pages(monkeypatch, failure, within):
    """After 30 s; one that is silent was asked twice, for 5 s each, before it is down."""

    async def fails(server: Recorded) -> None:
        await server.exporter.until(49.0)
        server.exporter.fails = failure

    for told in play(monkeypatch, fails).all():
        ((name, at),) = ((one.name, one.at) for one in told)
        assert name == "OpenSIPSSourceDown"
        assert 30.0 <= at - 50.0 < within


@pytest.mark.parametrize("away", [29.0, 45.0])
def test_a_source_that_stays_away_pages(monkeypatch, away):
    """Once it was not there for 30 s; a restart that takes longer is told, and its end."""

    async def goes(server: Recorded) -> None:
        await server.exporter.until(44.0)
        await server.stop()
        await asyncio.sleep(away)
        await server.start()

    receivers = play(monkeypatch, goes)
    for told in receivers.all():
        said = [(one.name, one.status) for one in told if one.group != "clusterer"]
        source_down = [("OpenSIPSSourceDown", word) for word in ("firing", "resolved")]
        assert said == (source_down if away > 30 else [])


@pytest.mark.parametrize("running", [True, False])
@pytest.mark.parametrize("heard", ["none", "subscription", "script"])
@pytest.mark.parametrize("transport", TRANSPORTS)
def test_a_core_that_is_stuck_pages(monkeypatch, transport, heard, running):
    """It answers that it is initializing, and goes on to: after two minutes that is critical."""
    began = 4 * INTERVAL + 4.0

    async def sticks(server: Recorded) -> None:
        await server.exporter.until(began)
        await (server.restart(INITIALIZING) if running else server.start(INITIALIZING))

    receivers = play(
        monkeypatch,
        sticks,
        transport=transport,
        heard=heard,
        running=running,
        until=began + STUCK_SECONDS + 60,
    )
    for told in receivers.all():
        (core,) = (one for one in told if one.group == "core")
        assert (core.name, core.status, core.severity) == ("OpenSIPSNotReady", "firing", "critical")
        # Since it was first seen so.
        assert began + STUCK_SECONDS < core.at < began + STUCK_SECONDS + 2.5 * INTERVAL
        first = min(one.at for one in told if one.name == "OpenSIPSNotReady")
        assert first > began + STUCK_SECONDS
