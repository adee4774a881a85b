"""Truth under disorder: a simulated OpenSIPS, and everything between it and us going wrong.

A script of what happens is played in virtual time: statuses change, reports are made, the server
restarts; events are lost, late and out of order; questions fail, are answered late, or in part.
The real conversation asks, with real bytes, and events are read from theirs. Then (rules 5, 8, 9):

* after one good poll what is held is what the server holds;
* counts never fall, never exceed what happened, and are exact when nothing was lost;
* no key is shown ready that the last word called not ready.

`DISORDERS` sets how many scripts are played; the hundred thousand are run by hand.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
import structlog.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from sr_exporter.errors import MiError
from sr_exporter.ingest import Ingest
from sr_exporter.mi.client import MiClient
from sr_exporter.model import Checked, Configured, PolledSource, PollFailure, Snapshot, Way
from sr_exporter.simulator.node import Planned, SimulatedNode, ring_depth
from sr_exporter.simulator.releases import OPENSIPS_3_6, OPENSIPS_4_0
from sr_exporter.sources.conversation import Conversation
from sr_exporter.sources.doubts import Doubts
from sr_exporter.sources.firsts import Firsts
from sr_exporter.sources.pacing import Pace
from sr_exporter.sources.poll import Poller
from sr_exporter.sources.subscription import Subscription
from sr_exporter.state import State
from sr_exporter.tally import LATE_SECONDS
from sr_exporter.wire import events
from sr_exporter.wire.answers import answer
from tests import virtual_time
from tests.unit.test_conversation import Observed
from tests.unit.test_poller import MemoryStore, NoPlans

if TYPE_CHECKING:
    from sr_exporter.held import Entry
    from sr_exporter.model import Observation, PollFailed
    from sr_exporter.outcome import Outcome
    from sr_exporter.wire.events import EventParams

EXAMPLES = int(os.environ.get("DISORDERS", "2000"))

NAME = "sip-1"
BEGAN = 1_000_000.0
INTERVAL = 10.0
TIMEOUT = 5.0
KEYS = (("core", "main"), ("drouting", "us"), ("Alarms", "trunk"))
PLAN = tuple(Planned(*key) for key in KEYS[1:])
#: How late events come.
DELAYS = (0.0, 0.0, 0.2, 3.0, 12.0)

# --- what happens --------------------------------------------------------------------------


class Sets(NamedTuple):
    key: int
    status: int
    details: str | None


class Reports(NamedTuple):
    key: int
    count: int


class Restarts(NamedTuple):
    away: float


class Gets(NamedTuple):
    """What becomes of a question."""

    #: Seconds from its answer being made to its arrival.
    late: float = 0.0
    fails: str | None = None


class Script(NamedTuple):
    #: What happens, after how many seconds.
    acts: list[tuple[float, Sets | Reports | Restarts]]
    #: Of each event in turn: how late it comes, None: never. Then all come at once.
    events: list[float | None]
    #: Of each question in turn. Then all are answered.
    questions: list[Gets]
    way: Way
    #: How often each event is sent.
    copies: int
    old: bool


_statuses = st.sampled_from([1, -1, 2, -2])
_acts = st.one_of(
    st.builds(Sets, st.integers(0, 2), _statuses, st.sampled_from([None, "x"])),
    st.builds(Sets, st.integers(0, 2), _statuses, st.none()),
    st.builds(Reports, st.integers(0, 2), st.integers(1, 12)),
)
_restarts = st.builds(Restarts, st.sampled_from([0.0, 3.0, 30.0]))
_steps = st.sampled_from([0.0, 0.0, 0.3, 2.0, 9.0])
_delays = st.sampled_from(DELAYS)
_questions = st.one_of(
    st.builds(Gets, st.sampled_from([0.0, 0.5, 4.0])),
    st.builds(Gets, st.just(0.0), st.sampled_from(["timeout", "refused", "cut", "500", "bad"])),
)


@st.composite
def scripts(draw: st.DrawFn, *, lossless: bool) -> Script:
    acts = _acts if lossless else _acts | _restarts
    fate = _delays if lossless else st.none() | _delays
    return Script(
        draw(st.lists(st.tuples(_steps, acts), min_size=5, max_size=16)),
        draw(st.lists(fate, max_size=14)),
        draw(st.lists(_questions, max_size=24)),
        draw(st.sampled_from(Way)),
        draw(st.sampled_from([1, 1, 2])),
        draw(st.booleans()),
    )


# --- the world it happens in ---------------------------------------------------------------


@dataclass
class Truth:
    """What is so of one key, and what was said of it."""

    status: int
    changes: int = 0
    reports: int = 0
    #: When the last word on it was said, counted in events, and whether that was "ready".
    word: tuple[int, bool] = (0, True)
    #: How many events there were when it was last asked for.
    asked: int = 0
    #: The last event, and whether one came twice in a row: as if it were one, repeated.
    step: tuple[int, int] = (0, 0)
    ambiguous: bool = False

    def say(self, at: int, *, ready: bool) -> None:
        if self.word[0] <= at:
            self.word = at, ready


class Node(SimulatedNode):
    """Counts the reports that were made."""

    made: Counter[tuple[str, str]]

    def add_report(self, group: str, identifier: str, log: str, now: float) -> None:
        self.made[group, identifier] += 1
        super().add_report(group, identifier, log, now)


class World:
    """The server, the way to it and from it, and the exporter."""

    def __init__(self, script: Script) -> None:
        self.script = script
        self.fates: list[float | None] = []
        self.questions: list[Gets] = []
        self.subscribed_until = -1.0
        #: Whether a change could have been told of by nobody.
        self.lossless = True
        self.on_their_way = 0
        self.heard = 0
        self.truth: dict[tuple[str, str], Truth] = {}
        self.floors: dict[int, tuple[Entry, int, int]] = {}
        self.loop = asyncio.get_running_loop()
        self.node = Node(OPENSIPS_3_6 if script.old else OPENSIPS_4_0, PLAN)
        self.node.made = Counter()
        self.node.on_change = self.changed
        self.state = State()
        self.ingest = Ingest(self.state, MemoryStore(), NoPlans(), self.clock)
        self.ingest.subscribe(self.look)
        client = MiClient(Questions(self))
        self.poller = Poller(NAME, client, self.ingest, clock=self.clock, monotonic=self.loop.time)
        self.subscription = Subscription(
            NAME, f"tcp:h:1/{NAME}", monotonic=self.loop.time, clock=self.clock
        )
        self.conversation = Conversation(
            self.poller,
            client,
            self.ingest,
            Pace(INTERVAL, 1.0, 0.0, lambda: 0.0),
            Doubts(1.0),
            self.subscription,
            Observed(),
            Firsts(),
            clock=self.clock,
        )
        self._ask, self.poller.ask = self.poller.ask, self.ask  # type: ignore[method-assign]
        self._observe = self.ingest.observe
        self.ingest.observe = self.observe  # type: ignore[method-assign]

    def clock(self) -> float:
        return BEGAN + self.loop.time()

    # --- what happens

    def start(self) -> None:
        self.node.start(self.clock())
        self.subscribed_until = -1.0
        self.node.initialized(self.clock())
        for key in KEYS:
            group = self.node.group(key[0])
            held = group.identifier(key[1]) if group else None
            assert held is not None
            truth = self.truth.setdefault(key, Truth(held.status))
            truth.changes += held.status != truth.status
            truth.status = held.status

    async def act(self, act: Sets | Reports | Restarts) -> None:
        if isinstance(act, Restarts):
            self.lossless = False
            self.node.stop()
            await asyncio.sleep(act.away)
            self.start()
        elif isinstance(act, Sets):
            self.node.set_status(*KEYS[act.key], act.status, act.details)
        else:
            for _ in range(act.count):
                self.node.add_report(*KEYS[act.key], f"{sum(self.node.made.values())}", BEGAN)

    def changed(self, change: EventParams) -> None:
        truth = self.truth.get((change.group, change.identifier))
        if truth is None or not self.node.up:
            return
        truth.changes += 1
        truth.status = change.status
        fate = self.fates.pop(0) if self.fates else 0.0
        if fate is None or self.subscribed_until <= self.clock():
            self.lossless = False
            return
        self.on_their_way += 1
        self.loop.call_later(fate, self.deliver, events.notification(change, method=NAME))

    def deliver(self, data: bytes) -> None:
        said = events.event(data)
        self.on_their_way -= 1
        self.heard += 1
        truth = self.truth[said.params.group, said.params.identifier]
        truth.say(self.heard, ready=said.params.status > 0)
        step = said.params.old_status, said.params.status
        truth.ambiguous |= step == truth.step
        truth.step = step
        for _ in range(self.script.copies):
            self.ingest.hear([said.params.statement(said.method, self.script.way)])

    # --- what is heard

    async def ask(self) -> Snapshot | PollFailed:
        """Poll; what is said is of the moment at which it begins (rule 5)."""
        asked = self.heard
        heard = await self._ask()
        if isinstance(heard, Snapshot):
            for item in heard.statuses:
                self.truth[item.group, item.identifier].say(asked, ready=item.ready)
        return heard

    async def observe(self, observation: Observation) -> Outcome:
        if isinstance(observation, Checked):
            said = observation.status
            truth = self.truth[said.group, said.identifier]
            truth.say(truth.asked, ready=said.ready)
        return await self._observe(observation)

    def look(self, outcome: Outcome) -> None:
        for key in outcome.doubtful:
            self.conversation.doubt(key.group, key.identifier)
        for entry in self.state.sources[NAME].entries():
            key = entry.group.name, entry.identifier
            truth = self.truth[key]
            assert entry.changes_total <= truth.changes, "more changes than happened"
            assert entry.reports_total <= self.node.made[key], "more reports than were made"
            before = self.floors.get(id(entry), (entry, 0, 0))
            assert before[0] is entry, "what was held is held"
            assert before[1] <= entry.changes_total, "a count fell"
            assert before[2] <= entry.reports_total, "a count fell"
            self.floors[id(entry)] = entry, entry.changes_total, entry.reports_total
            assert truth.word[1] or not entry.ready, "the last word called it not ready"

    # --- from beginning to end

    async def play(self) -> None:
        await self.ingest.observe(Configured((PolledSource(NAME, 60.0),)))
        self.start()
        talking = asyncio.create_task(self.conversation.run(0.0, asyncio.Semaphore(1)))
        await asyncio.sleep(1.0)
        assert self.subscription.shown.expires is not None
        self.fates = list(self.script.events)
        self.questions = list(self.script.questions)
        for after, act in self.script.acts:
            await asyncio.sleep(after)
            await self.act(act)
        await asyncio.sleep(INTERVAL)
        talking.cancel()
        self.questions.clear()
        self.fates.clear()
        await asyncio.sleep(max(DELAYS))
        assert not self.on_their_way
        await self.one_good_poll()
        self.compare()
        await asyncio.sleep(LATE_SECONDS)
        await self.one_good_poll()
        self.compare_counts()
        await self.ingest.settle()

    async def one_good_poll(self) -> None:
        """Poll until all is read: what seemed too big is tried again after a while (rule 11)."""
        for _ in range(20):
            heard = await self.poller.ask()
            await self.ingest.observe(heard)
            if isinstance(heard, Snapshot) and _is_good(heard):
                return
            await asyncio.sleep(LATE_SECONDS)
        raise AssertionError(f"no poll is good: {heard}")

    def compare(self) -> None:
        source = self.state.sources[NAME]
        held = {
            (entry.group.name, entry.identifier): (
                *(entry.status, entry.ready, entry.details),
                list(entry.reports),
            )
            for entry in source.entries()
        }
        assert held == {
            (group.name, one.name): (one.status, one.ready, one.details, list(one.reports))
            for group in self.node.groups()
            for one in group.identifiers()
        }
        assert source.up
        assert not source.withheld
        assert all(group.complete for group in source.groups.values())

    def compare_counts(self) -> None:
        source = self.state.sources[NAME]
        for entry in source.entries():
            key = entry.group.name, entry.identifier
            if self.lossless and not self.truth[key].ambiguous:
                assert entry.changes_total == self.truth[key].changes
            if self.lossless and self.node.made[key] <= ring_depth(*key):
                assert entry.reports_total == self.node.made[key]
        PLAYED["all"] += 1
        PLAYED["lossless"] += self.lossless
        PLAYED["events"] += self.heard
        PLAYED["missed"] += source.changes_missed_total
        PLAYED["failed"] += sum(source.poll_failures_total.values())


class Questions:
    """Implements `Transport`: the way to the server."""

    name = "http"

    def __init__(self, world: World) -> None:
        self._world = world

    async def ask(self, request: bytes) -> bytes:
        world = self._world
        gets = world.questions.pop(0) if world.questions else Gets()
        if not world.node.up or gets.fails == "refused":
            raise MiError(PollFailure.CONNECT, "connection refused")
        if gets.fails == "timeout":
            await asyncio.sleep(TIMEOUT)
            raise MiError(PollFailure.TIMEOUT, "no answer")
        if gets.fails == "500" and b"params" not in request:  # it tells of a size
            raise MiError(PollFailure.HTTP_STATUS, "HTTP 500")
        said = self._answer(request)
        await asyncio.sleep(gets.late)
        if gets.fails == "cut":
            return said[: len(said) // 2]
        return _spoiled(said) if gets.fails == "bad" else said

    def _answer(self, request: bytes) -> bytes:
        world, call = self._world, json.loads(request)
        if call["method"] == "event_subscribe":
            assert call["params"][:2] == [events.EVENT, f"tcp:h:1/{NAME}"]
            world.subscribed_until = world.clock() + int(call["params"][2])
            return json.dumps({"jsonrpc": "2.0", "result": "OK", "id": call["id"]}).encode()
        if call["method"] == "sr_get_status":
            world.truth[call["params"][0], call["params"][1]].asked = world.heard
        said = answer(request, world.node, world.clock())
        assert said is not None
        return said

    def rest(self) -> None:
        pass


def _is_good(heard: Snapshot) -> bool:
    return heard.complete and not heard.faults and heard.reports is not None


def _spoiled(said: bytes) -> bytes:
    """Make one item of a listing wrong."""
    document: dict[str, Any] = json.loads(said)
    groups = document.get("result")
    if isinstance(groups, list) and groups and groups[0].get("Identifiers"):
        for item in groups[0]["Identifiers"]:
            if isinstance(item, dict) and "Status" in item:
                item["Status"] = "one"
    return json.dumps(document).encode()


PLAYED: Counter[str] = Counter()


@pytest.mark.lengthy
@given(scripts(lossless=False))
@settings(max_examples=EXAMPLES * 3 // 4)
def test_what_is_shown_is_true_whatever_is_lost_late_or_out_of_order(script):
    virtual_time.run(_played(script))


@pytest.mark.lengthy
@given(scripts(lossless=True))
@settings(max_examples=EXAMPLES // 4)
def test_counts_are_exact_when_no_event_is_lost(script):
    virtual_time.run(_played(script))


async def _played(script: Script) -> None:
    with structlog.testing.capture_logs():
        await World(script).play()


@pytest.mark.lengthy
def test_the_scripts_are_worth_playing(figure):
    """Most of what can go wrong did, many times over; runs after the two above."""
    figure(
        f"disorder: {PLAYED['all']} scripts, {PLAYED['lossless']} of them lossless;"
        f" {PLAYED['events']} events heard, {PLAYED['missed']} changes missed,"
        f" {PLAYED['failed']} questions failed"
    )
    assert PLAYED["all"] >= EXAMPLES
    for what in ("lossless", "events", "missed", "failed"):
        assert PLAYED[what] > PLAYED["all"] // 50
