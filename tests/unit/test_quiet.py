"""Two quiet hours: 300 registrants register anew, as they do all day, and one is truly down.

Every routine re-registration passes through -1 (facts on OpenSIPS, section 3): 1, -1, 1 within a
second, two events and two reports. Polls sometimes see the -1, events always tell of it; nobody is
to be woken. `QUIET_SECONDS` sets how often each registers, in the recording every 16 s, and
`QUIET_REGISTRANTS` how many there are.
"""

from __future__ import annotations

import asyncio
import os
import random
from typing import NamedTuple

import pytest
import structlog.testing

from sr_exporter.config import AlertRule, Send
from sr_exporter.model import ListedStatus, Snapshot, Statement
from sr_exporter.simulator.node import (
    REGISTER_TIMEOUT,
    REGISTERED,
    REGISTERING,
    REGISTRANT,
    Planned,
    SimulatedNode,
)
from sr_exporter.simulator.releases import OPENSIPS_4_0
from sr_exporter.simulator.scenario import aor
from tests import virtual_time
from tests.at_night import BEGAN, INTERVAL, Exporter, Receivers, Told

REGISTERS_EVERY = float(os.environ.get("QUIET_SECONDS", "400"))
HOURS_SECONDS = 7200.0
REGISTRANTS = int(os.environ.get("QUIET_REGISTRANTS", "120"))
#: Longer than an answer takes on any network, shorter than the second of the promise.
LONGEST_FLAP_SECONDS = 0.9
FOR_SECONDS = 30.0
DOWN_AT, UP_AT = 3000.0, 6000.0
LINES = tuple(aor(number) for number in range(REGISTRANTS))
VICTIM = LINES[7]


class Means(NamedTuple):
    """How the exporter hears of a server."""

    polled: bool
    #: It subscribes itself; else the server's script sends events, or nobody does.
    subscribes: bool
    events: bool


MEANS = {
    "polls": Means(polled=True, subscribes=False, events=False),
    "polls and events": Means(polled=True, subscribes=True, events=True),
    "events": Means(polled=False, subscribes=False, events=True),
}


class Registrants:
    """A server that has run for an hour, and whose registrants register again and again."""

    def __init__(self) -> None:
        self.random = random.Random(5)
        self.node = SimulatedNode(OPENSIPS_4_0, [Planned(REGISTRANT, line) for line in LINES])
        self.node.start(BEGAN - 3600)
        self.node.initialized(BEGAN - 3599)
        for line in LINES:
            self.state(line, REGISTERED)
        self.flaps = 0

    def state(self, line: str, state: str) -> None:
        """Move one to a state; without the report of it, which nobody reads and all would list."""
        self.node.set_status(REGISTRANT, line, 1 if state == REGISTERED else -1, state)

    async def register(self, line: str) -> None:
        """Have one register for ever; the victim is not answered while it is down."""
        loop = asyncio.get_running_loop()
        await asyncio.sleep(self.random.uniform(0, REGISTERS_EVERY))
        while True:
            self.state(line, REGISTERING)
            if line == VICTIM and DOWN_AT <= loop.time() < UP_AT:
                await asyncio.sleep(2.0)
                self.state(line, REGISTER_TIMEOUT)
                await asyncio.sleep(30.0)
                continue
            await asyncio.sleep(self.random.uniform(0.001, LONGEST_FLAP_SECONDS))
            self.state(line, REGISTERED)
            self.flaps += 1
            await asyncio.sleep(REGISTERS_EVERY * self.random.uniform(0.8, 1.2))


class Seen:
    """What reached the exporter of it."""

    def __init__(self, exporter: Exporter) -> None:
        self.by_polls = self.by_events = 0
        self._apply, exporter.state.apply = exporter.state.apply, self.apply  # type: ignore[method-assign]

    def apply(self, observation, now):
        if isinstance(observation, Snapshot):
            self.by_polls += sum(map(_is_flap, observation.statuses))
        elif isinstance(observation, Statement):
            self.by_events += observation.status == -1 and observation.identifier != VICTIM
        return self._apply(observation, now)


def _is_flap(item: ListedStatus) -> bool:
    return item.status == -1 and item.identifier != VICTIM


def play(monkeypatch, means: Means, lines=LINES, until=HOURS_SECONDS, rules=()):
    """Play the hours. Gives who was told what, and how often somebody was seen at -1."""
    receivers = Receivers()
    receivers.connect(monkeypatch)

    async def night() -> Seen:
        server = Registrants()
        exporter = Exporter(
            server.node,
            receivers,
            polled=means.polled,
            subscribes=means.subscribes,
            rules=rules,
        )
        if means.events:
            server.node.on_change = (
                exporter.send_if_subscribed if means.subscribes else exporter.send
            )
        seen = Seen(exporter)
        await exporter.start()
        for line in lines:
            exporter.tasks.start(line, server.register(line))
        await exporter.until(until)
        await exporter.stop()
        assert server.flaps > len(lines) * until / REGISTERS_EVERY / 2
        return seen

    with structlog.testing.capture_logs():
        seen = virtual_time.run(night())
    return receivers, seen


def times(told: list[Told]) -> list[tuple[str, float]]:
    assert {(one.name, one.group, one.identifier) for one in told} <= {
        ("OpenSIPSNotReady", REGISTRANT, VICTIM)
    }
    return [(one.status, one.at) for one in told]


@pytest.mark.lengthy
@pytest.mark.parametrize("means", MEANS.values(), ids=MEANS)
def test_two_hours_of_flapping_page_nobody_and_one_that_is_down_pages_once(
    monkeypatch, figure, means
):
    """No alert and no webhook; then one of each, after its `for`, and one end of each."""
    receivers, seen = play(monkeypatch, means)
    figure(f"quiet hours: -1 seen {seen.by_polls} times by polls, {seen.by_events} times by events")
    assert (seen.by_polls > REGISTRANTS / 3) is means.polled
    assert (seen.by_events > 13 * REGISTRANTS) is means.events
    for told in receivers.all():
        (fired, fired_at), (resolved, resolved_at) = times(told)
        assert (fired, resolved) == ("firing", "resolved")
        # It goes down when it next registers, which polls see a little later.
        assert DOWN_AT + FOR_SECONDS <= fired_at < DOWN_AT + FOR_SECONDS + 1.3 * REGISTERS_EVERY
        assert UP_AT <= resolved_at < UP_AT + 40 + INTERVAL


@pytest.mark.parametrize("means", MEANS.values(), ids=MEANS)
def test_without_its_for_it_would_not_be_quiet(monkeypatch, means):
    """The proof can fail: with `for: 0s` a few registrants alert within minutes."""
    hurried = [AlertRule(group=REGISTRANT, for_seconds=0.0)]
    receivers, _ = play(monkeypatch, means, LINES[:100], 900.0, hurried)
    for told in receivers.all():
        assert any(one.status == "firing" for one in told)
    assert set(receivers.hooks) == set(Send)


@pytest.mark.parametrize("means", MEANS.values(), ids=MEANS)
def test_it_is_told_when_its_for_is_over_and_not_before(monkeypatch, means):
    """From the moment at which it was seen not to be ready, to the second."""
    receivers = Receivers()
    receivers.connect(monkeypatch)

    async def night() -> float:
        server = Registrants()
        exporter = Exporter(server.node, receivers, polled=means.polled)
        if means.events:
            server.node.on_change = exporter.send
        await exporter.start()
        await exporter.until(95.0)
        server.state(VICTIM, REGISTERING)
        server.state(VICTIM, REGISTERED)
        server.state(VICTIM, REGISTERING)
        await exporter.until(97.0)
        server.state(VICTIM, REGISTER_TIMEOUT)
        seen_at = 95.0 if means.events else 100.0
        await exporter.until(seen_at + FOR_SECONDS - 0.01)
        assert receivers.pages() == []
        await exporter.until(seen_at + FOR_SECONDS + 600)
        await exporter.stop()
        return seen_at

    with structlog.testing.capture_logs():
        seen_at = virtual_time.run(night())
    for told in receivers.all():
        ((status, at),) = times(told)
        assert status == "firing"
        assert 0 <= at - seen_at - FOR_SECONDS < 0.1
