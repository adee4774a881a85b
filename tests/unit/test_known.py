"""A listing that stands is not read; the end is the same as if it were."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from hypothesis import given, settings
from hypothesis import strategies as st

from sr_exporter.model import (
    Checked,
    Configured,
    Forget,
    Key,
    ListedReports,
    ListedStatus,
    OnExpiry,
    Origin,
    PolledSource,
    PollFailed,
    PollFailure,
    Report,
    Snapshot,
    Statement,
    Tick,
    Way,
)
from sr_exporter.parts import Part
from sr_exporter.state import State

if TYPE_CHECKING:
    from sr_exporter.outcome import Outcome

NAME = "sip-1"
START = 1_000_000.0
GROUPS = ("core", "uac")
SPELLED = ("a", "A", "b", "c")
STATUSES = (-1, 1, 2)

#: Few listings, so that they come again and again.
LISTINGS: tuple[tuple[ListedStatus, ...], ...] = (
    (),
    tuple(ListedStatus("core", name, 1, True, None) for name in "abc"),
    tuple(ListedStatus("core", name, -1, False, "gone") for name in "abc"),
    tuple(ListedStatus("core", name, 2 if name == "b" else 1, True, None) for name in "abc"),
    (ListedStatus("Core", "A", 1, True, "x"), ListedStatus("uac", "b", 2, True, None)),
    # Twice the same identifier: what holds is the first, and the second is not listed anew.
    (ListedStatus("core", "a", 1, True, None), ListedStatus("core", "A", -1, False, None)),
    tuple(ListedStatus(group, "a", 1, True, None) for group in GROUPS),
)
RINGS: tuple[tuple[ListedReports, ...] | None, ...] = (
    None,
    (),
    (ListedReports("core", "a", (Report(1, "one"),)),),
    (ListedReports("core", "a", (Report(1, "one"), Report(2, "two"))),),
    (ListedReports("core", "a", (Report(5, "x"),)), ListedReports("CORE", "A", ())),
    (ListedReports("uac", "b", (Report(1, "one"),)), ListedReports("core", "c", ())),
)

polls = st.fixed_dictionaries(
    {
        "statuses": st.sampled_from(range(len(LISTINGS))),
        "rings": st.sampled_from(range(len(RINGS))),
        "uptime": st.sampled_from((None, "up", "anew")),
        "broken": st.sampled_from((False, False, False, False, True)),
        "faults": st.booleans(),
        # What is heard while it is under way.
        "late": st.booleans(),
    }
)
events = st.builds(
    lambda group, name, old, new, way: Statement(
        NAME, group, name, new, old_status=old, origin=Origin.EVENT, way=way
    ),
    st.sampled_from(GROUPS),
    st.sampled_from(SPELLED),
    st.sampled_from(STATUSES),
    st.sampled_from(STATUSES),
    st.sampled_from((Way.TCP, Way.UDP)),
)
pushes = st.builds(
    lambda name, ttl: Statement(
        "push", "core", name, 1, ttl_seconds=ttl, on_expiry=OnExpiry.REMOVE
    ),
    st.sampled_from(SPELLED),
    st.sampled_from((None, 5.0)),
)
steps = st.one_of(
    polls,
    polls,
    polls,
    # The same bytes again.
    st.just("again"),
    st.just("again"),
    events,
    pushes,
    st.builds(
        lambda name, status: ListedStatus("core", name, status, status > 0, None),
        st.sampled_from(SPELLED),
        st.sampled_from(STATUSES),
    ),
    st.builds(Forget, st.just(NAME), st.sampled_from((None, "core")), st.sampled_from((None, "a"))),
    st.just("failed"),
    st.sampled_from((2, 100)).map(lambda limit: Configured((PolledSource(NAME, 30.0),), limit)),
    st.just(Configured(())),
    st.sampled_from((1.0, 10.0, 61.0)),
)


def name_of(listed: ListedStatus) -> tuple[str, str]:
    return listed.group, listed.identifier


def said(outcome: Outcome) -> dict[str, Any]:
    """Give all that an outcome says, in values."""
    return {
        "changes": outcome.changes,
        "entries": {key: entry.record() for key, entry in outcome.entries.items()},
        "removed": list(outcome.removed),
        "sources": {name: source.record() for name, source in outcome.sources.items()},
        "sources_removed": outcome.sources_removed,
        "alive": outcome.alive,
        "doubtful": outcome.doubtful,
        "not_starting": [entry.key for entry in outcome.not_starting],
        "tombstones": outcome.tombstones,
    }


def held(state: State) -> dict[str, Any]:
    """Give all that is held, in values."""
    return {
        "sources": {
            name: (
                source.record(),
                source.heard,
                source.withheld,
                source.refused,
                source.polls_since_restart,
                source.uptime_seconds,
                [entry.key for entry in source.guessed],
                [(group.name, group.complete) for group in source.groups.values()],
                [(entry.record(), entry.expires_at) for entry in source.entries()],
                [
                    None if entry.tally is None else (entry.tally.total, tally_of(entry.tally))
                    for entry in source.entries()
                ],
            )
            for name, source in state.sources.items()
        },
        "not_ready": [entry.key for entry in state.not_ready],
        "seq": state.last_seq,
        "due": state.next_deadline(),
        "tombstones": state.tombstones,
        "identifiers": state.identifiers,
    }


def tally_of(tally: object) -> dict[str, object]:
    return {name: getattr(tally, name) for name in type(tally).__slots__}  # type: ignore[attr-defined]


class Twins:
    """Two states that hear the same; the first does not read what stands."""

    def __init__(self) -> None:
        self.states = (State(), State())
        self.now = START
        self.started = START - 500.0
        self.stood = 0
        self.differed = 0
        #: The listing that was asked for last and had no fault.
        self.before: int | None = None
        self.last: dict[str, Any] | None = None
        self.apply(Configured((PolledSource(NAME, 30.0),)))

    def apply(self, observation: Any, brief: Any = None) -> None:
        first, second = self.states
        ours = first.apply(observation if brief is None else brief, self.now)
        theirs = second.apply(observation, self.now)
        assert said(ours) == said(theirs)
        assert held(first) == held(second)

    def poll(self, how: dict[str, Any], event: Statement | None) -> None:
        as_of, requested_at = self.states[0].revision, self.now
        if how["uptime"] == "anew":
            self.started = self.now
        self.now += 1.0
        if event is not None and how["late"]:
            self.apply(event)
        rings = RINGS[how["rings"]]
        poll = Snapshot(
            NAME,
            as_of,
            requested_at,
            LISTINGS[how["statuses"]],
            complete=not how["broken"],
            reports=rings,
            uptime_seconds=None if how["uptime"] is None else requested_at - self.started,
            version="4.0.1",
            faults=((PollFailure.MALFORMED, "bad"),) if how["faults"] else (),
        )
        marks = b"%d" % how["statuses"], None if rings is None else b"%d" % how["rings"]
        brief = replace(poll, statuses_mark=marks[0], reports_mark=marks[1])
        state = self.states[0]
        # A mark is of a listing without a fault: one that broke has another, which is none.
        before, self.before = self.before, None if how["broken"] else how["statuses"]
        if how["broken"]:
            brief = replace(brief, statuses_mark=None)
        elif before is not None and state.knows_statuses(NAME, b"%d" % before):
            listed = LISTINGS[before]
            if list(map(name_of, listed)) == list(map(name_of, poll.statuses)):
                pairs = zip(poll.statuses, listed, strict=True)
                others = tuple(new for new, old in pairs if new != old)
                self.stood += not others
                self.differed += bool(others)
                brief = replace(brief, statuses=others, statuses_since=b"%d" % before)
        if marks[1] is not None and state.knows_reports(NAME, marks[1]):
            brief = replace(brief, reports=(), reports_stand=True)
        self.apply(poll, brief)

    def step(self, step: Any) -> None:
        if isinstance(step, float):
            self.now += step
            self.apply(Tick())
        elif step == "again" or isinstance(step, dict):
            self.last = self.last if step == "again" else step
            if self.last is not None:
                event = Statement(NAME, "core", "a", 1, old_status=-1, origin=Origin.EVENT)
                self.poll(self.last, event)
            self.now += 9.0
        elif step == "failed":
            self.apply(PollFailed(NAME, self.now, PollFailure.TIMEOUT, "no answer"))
        elif isinstance(step, ListedStatus):
            self.apply(Checked(NAME, self.states[0].revision, self.now, step))
        elif not (isinstance(step, Statement) and NAME not in self.states[0].sources):
            self.apply(step)


@settings(max_examples=800)
@given(st.lists(steps, max_size=25))
def test_what_stands_need_not_be_read(script: list[Any]) -> None:
    """With and without it, every outcome and all that is held are the same."""
    twins = Twins()
    for step in script:
        twins.step(step)


QUIET = {
    "statuses": 1,
    "rings": 3,
    "uptime": "up",
    "broken": False,
    "faults": False,
    "late": False,
}


def test_the_same_listing_stands_from_its_second_time_on():
    """And while changes of some of its keys are still being counted."""
    twins = Twins()
    for statuses in (1, 1, 2, 2, 2):
        twins.step({**QUIET, "statuses": statuses})
    assert (twins.stood, twins.differed) == (3, 1)
    state = twins.states[0]
    assert state.knows_statuses(NAME, b"2")
    assert not state.knows_statuses(NAME, b"1")
    assert not state.knows_statuses(NAME, None)
    assert state.knows_reports(NAME, b"3")
    for _ in range(7):  # until nothing late is to be expected
        twins.step("again")
    entry = state.entry(Key(NAME, "core", "a"))
    assert entry is not None
    assert (entry.changes_total, entry.tally) == (1, None)
    assert twins.stood == 10


def test_of_a_listing_that_differs_in_little_the_rest_stands():
    """Once that is applied, it is the listing which the next one is told the difference from."""
    twins = Twins()
    for statuses in (1, 3, 1, 3, 3, 2, 1):
        twins.step({**QUIET, "statuses": statuses})
    assert (twins.stood, twins.differed) == (1, 5)
    twins.step({**QUIET, "statuses": 4})  # other identifiers: all is read
    assert twins.differed == 5


def test_what_is_said_to_stand_and_does_not_removes_nothing():
    """It is not to be; but if so, the next listing is read."""
    twins = Twins()
    twins.step(QUIET)
    state = twins.states[0]
    poll = Snapshot(NAME, state.revision, twins.now, (), statuses_mark=b"9", statuses_since=b"9")
    outcome = state.apply(replace(poll, reports=(), reports_stand=True), twins.now)
    assert not outcome.changes
    assert not state.knows_statuses(NAME, b"1")
    assert not state.knows_statuses(NAME, b"9")
    assert not state.knows_reports(NAME, b"3")


def test_what_is_heard_while_a_difference_is_applied_is_not_polled_over():
    """The poll was asked before it: what stood then need not be so (rule 5)."""
    heard = Statement(NAME, "core", "a", 1, old_status=-1, origin=Origin.EVENT, way=Way.TCP)
    found = []
    for polled in (True, False):
        twins = Twins()
        for statuses in (1, 2):
            twins.step({**QUIET, "statuses": statuses})
        state = twins.states[0]
        as_of, asked_at = state.revision, twins.now
        poll = Snapshot(NAME, as_of, asked_at, (), statuses_mark=b"2", statuses_since=b"2")
        if polled:
            state.apply(replace(poll, part=Part.BEGINS), twins.now)
        state.apply(heard, twins.now + 1)
        if polled:
            state.apply(replace(poll, part=Part.LISTS | Part.ENDS), twins.now + 2)
            assert not state.knows_statuses(NAME, b"2")
        entry = state.entry(Key(NAME, "core", "a"))
        assert entry is not None
        found.append((entry.status, entry.changes_total, entry.tally and tally_of(entry.tally)))
    assert found[0] == found[1]
