"""A large poll is applied in parts, and what happens between them is as if it came after."""

from __future__ import annotations

import asyncio
import random
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from sr_exporter import asked, ingest
from sr_exporter.model import (
    ChangeKind,
    Configured,
    Forget,
    Key,
    ListedReports,
    ListedStatus,
    Origin,
    PolledSource,
    PollFailed,
    PollFailure,
    Report,
    Snapshot,
    Statement,
)
from sr_exporter.parts import Part, in_parts
from sr_exporter.state import State
from tests.unit.test_ingest import Door, run
from tests.unit.test_known import held

if TYPE_CHECKING:
    from collections.abc import Callable

    from sr_exporter.outcome import Outcome

NAME = "sip-1"
NAMES = [f"i{number}" for number in range(7)]


@pytest.fixture(autouse=True)
def _small_parts(monkeypatch):
    monkeypatch.setattr(ingest, "PART", 2)
    monkeypatch.setattr(ingest, "PART_OWED", 2)
    monkeypatch.setattr(ingest, "PART_FORGOTTEN", 2)
    monkeypatch.setattr(asked, "PRUNED", 2)


def key(identifier: str) -> Key:
    return Key(NAME, "uac", identifier)


def poll(door: Door, names: list[str] = NAMES, status: int = 1, **more) -> Snapshot:
    listed = tuple(ListedStatus("uac", name, status, status > 0, None) for name in names)
    return Snapshot(NAME, door.state.revision, door.clock(), listed, **more)


def event(identifier: str, status: int = -1) -> Statement:
    return Statement(NAME, "uac", identifier, status, old_status=1, origin=Origin.EVENT)


async def configured(door: Door) -> None:
    await door.ingest.observe(Configured((PolledSource(NAME, 60.0),)))
    door.outcomes.clear()
    door.store.batches.clear()


async def begun(door: Door, snapshot: Snapshot, parts: int) -> asyncio.Task[Outcome]:
    """Apply a poll; gives it when so many of its parts are applied, and no more."""
    applied = len(door.outcomes) + parts
    there = asyncio.Event()
    door.ingest.subscribe(lambda _: there.set() if len(door.outcomes) == applied else None)
    observing = asyncio.create_task(door.ingest.observe(snapshot))
    await there.wait()
    assert len(door.outcomes) == applied
    return observing


async def between(door: Door, snapshot: Snapshot, act: Callable[[], object], parts: int) -> None:
    """Apply a poll, and act when so many of its parts are applied."""
    observing = await begun(door, snapshot, parts)
    act()
    await observing


async def broken_off(door: Door, snapshot: Snapshot, parts: int) -> None:
    """Apply so many parts of a poll."""
    observing = await begun(door, snapshot, parts)
    observing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await observing


def test_a_large_poll_is_several_batches_and_one_end():
    """Of a few keys each; what it does not list is gone after the last statuses only."""

    async def act(door: Door) -> None:
        await configured(door)
        rings = tuple(ListedReports("uac", name, (Report(5, "up"),)) for name in NAMES)
        await door.ingest.observe(poll(door, reports=rings))
        assert [len(batch.keys) for batch in door.store.batches] == [2, 2, 2, 1, 0, 2, 2, 2, 1]
        assert all(entry.reports for entry in door.state.sources[NAME].entries())
        door.outcomes.clear()
        await door.ingest.observe(poll(door, NAMES[:5]))
        removed = [[key.identifier for key in outcome.removed] for outcome in door.outcomes]
        assert removed == [[], [], [], NAMES[5:], []]

    run(act)


def test_parts_are_small_while_notifications_are_owed(monkeypatch):
    """Each takes longer than all else; what nothing is owed of is not kept waiting."""
    monkeypatch.setattr(ingest, "PART", 4)
    monkeypatch.setattr(ingest, "PART_OWED", 1)

    async def act(door: Door) -> None:
        await configured(door)
        await door.ingest.observe(poll(door))
        assert [len(batch.keys) for batch in door.store.batches] == [4, 1, 1, 1, 0]
        door.outcomes.clear()
        await door.ingest.observe(poll(door))
        assert len(door.outcomes) == 2 + 1 + 1
        door.outcomes.clear()
        door.state.apply(event("i0"), door.clock())
        await door.ingest.observe(poll(door))
        assert len(door.outcomes) == 3 + 1 + 1  # of 4, of 1, and of the other 2

    run(act)


def test_the_parts_of_a_poll_are_all_of_it():
    """In their order, none twice; a small one is left whole."""
    rings = tuple(ListedReports("uac", name, ()) for name in NAMES)
    listed = tuple(ListedStatus("uac", name, 1, True, None) for name in NAMES)
    for statuses in range(6):
        for reports in (None, *range(6)):
            told = None if reports is None else rings[:reports]
            whole = Snapshot(NAME, 1, 0.0, listed[:statuses], reports=told)
            parts = list(in_parts(whole, lambda: 2, 0, lambda: False))
            assert sum((part.statuses for part in parts), ()) == whole.statuses
            assert sum((part.reports or () for part in parts), ()) == (told or ())
            flags = [part.part for part in parts]
            for flag in (Part.BEGINS, Part.LISTS, Part.ENDS):
                assert sum(flag in one for one in flags) == 1
            assert Part.BEGINS in flags[0]
            assert Part.ENDS in flags[-1]
            assert (flags == [Part.WHOLE]) == (statuses + (reports or 0) <= 2)


@pytest.mark.parametrize("parts", [1, 2, 3])
def test_an_event_between_two_parts_is_not_overwritten(parts):
    """It outranks the parts that follow, and comes after those before (rule 5)."""

    async def act(door: Door) -> None:
        await configured(door)
        await door.ingest.observe(poll(door))
        await between(door, poll(door), lambda: door.ingest.hear([event("i4")]), parts)
        entry = door.state.entry(key("i4"))
        assert entry is not None
        assert entry.status == -1
        assert entry.changes_total == 1

    run(act)


def test_a_key_that_appears_between_two_parts_is_not_removed():
    """It was not there when the source was asked."""

    async def act(door: Door) -> None:
        await configured(door)
        await between(door, poll(door), lambda: door.ingest.hear([event("new")]), 2)
        assert door.state.entry(key("new")) is not None
        await door.ingest.observe(poll(door))
        assert door.state.entry(key("new")) is None

    run(act)


def test_a_poll_that_breaks_off_removes_nothing():
    """Not of the keys it did not come to; and the next one is as good as any."""

    async def act(door: Door) -> None:
        await configured(door)
        await door.ingest.observe(poll(door))
        await broken_off(door, poll(door, NAMES[:5], -1), 2)
        failed = PollFailed(NAME, door.clock(), PollFailure.TIMEOUT, "no answer")
        await door.ingest.observe(failed)
        held = {entry.identifier: entry.status for entry in door.state.sources[NAME].entries()}
        assert held == {name: -1 if name in NAMES[:4] else 1 for name in NAMES}
        await door.ingest.observe(poll(door, NAMES[:5], -1))
        assert [entry.identifier for entry in door.state.sources[NAME].entries()] == NAMES[:5]

    run(act)


def test_what_broke_off_does_not_stand():
    """Part of the keys have another status by then: the listing of before is read anew."""

    async def act(door: Door) -> None:
        await configured(door)
        await door.ingest.observe(poll(door, statuses_mark=b"ready", reports=(), reports_mark=b"r"))
        known = door.ingest.known(NAME)
        assert known.statuses(b"ready")
        assert known.reports(b"r")
        rings = (ListedReports("uac", "i0", (Report(5, "up"),)),)
        await broken_off(door, poll(door, status=-1, reports=rings), 2)
        assert not known.statuses(b"ready")
        assert not known.reports(b"r")

    run(act)


@pytest.mark.parametrize("spoken", [event("i0"), Forget(NAME, "uac", "i0")])
def test_what_was_spoken_of_between_two_parts_does_not_stand(spoken):
    """Its next listing is compared, though it is the same."""

    async def act(door: Door) -> None:
        await configured(door)
        snapshot = poll(door, statuses_mark=b"ready")
        await between(door, snapshot, lambda: door.state.apply(spoken, door.clock()), 2)
        known = door.ingest.known(NAME)
        assert not known.statuses(b"ready")
        await door.ingest.observe(poll(door, statuses_mark=b"ready"))
        await door.ingest.observe(poll(door, statuses_mark=b"ready"))
        assert known.statuses(b"ready")

    run(act)


def test_nothing_is_shown_of_a_source_before_all_of_it_is_known():
    """After a restart of ours, its keys come back with the last of its statuses (rule 7)."""

    async def act(door: Door) -> None:
        await configured(door)
        seen = []
        door.ingest.subscribe(
            lambda _: seen.append((source.withheld, source.up, len(list(source.entries()))))
        )
        source = door.state.sources[NAME]
        await door.ingest.observe(poll(door))
        assert seen[:4] == [(True, False, held) for held in (2, 4, 6, 7)]
        assert seen[-2:] == [(True, False, 7), (False, True, 7)]

    run(act)


def test_a_source_that_was_down_is_up_with_the_last_of_its_statuses():
    """And the journal says so once."""

    async def act(door: Door) -> None:
        await configured(door)
        await door.ingest.observe(poll(door))
        await door.ingest.observe(PollFailed(NAME, door.clock(), PollFailure.CONNECT, "refused"))
        door.outcomes.clear()
        await door.ingest.observe(poll(door, status=2))
        kinds = [[change.kind for change in outcome.changes] for outcome in door.outcomes]
        ups = [kind.count(ChangeKind.SOURCE_UP) for kind in kinds]
        assert ups[-1] == sum(ups) == 1

    run(act)


def test_a_source_that_is_configured_anew_between_two_parts_is_not_of_that_poll():
    """What follows is an answer to a question from before."""

    async def act(door: Door) -> None:
        await configured(door)

        def reconfigure() -> None:
            door.state.apply(Configured(()), door.clock())
            door.state.apply(Configured((PolledSource(NAME, 60.0),)), door.clock())

        await between(door, poll(door), reconfigure, 2)
        assert not list(door.state.sources[NAME].entries())
        assert not door.state.sources[NAME].up

    run(act)


# --- removals -------------------------------------------------------------------------------


def test_what_is_not_listed_is_removed_in_parts():
    """After the last status; and the source is up with the last of them."""

    async def act(door: Door) -> None:
        await configured(door)
        await door.ingest.observe(poll(door))
        await door.ingest.observe(PollFailed(NAME, door.clock(), PollFailure.CONNECT, "refused"))
        door.outcomes.clear()
        await door.ingest.observe(poll(door, ["i3"]))
        removed = [[key.identifier for key in outcome.removed] for outcome in door.outcomes]
        assert removed == [[], ["i0", "i1"], ["i2", "i4"], ["i5", "i6"], []]
        assert door.outcomes[-1].changes[-1].kind is ChangeKind.SOURCE_UP

    run(act)


def test_a_small_poll_that_removes_little_is_left_whole():
    """As nearly all are."""

    async def act(door: Door) -> None:
        await configured(door)
        await door.ingest.observe(poll(door, NAMES[:2]))
        door.outcomes.clear()
        await door.ingest.observe(poll(door, NAMES[:1]))
        assert len(door.outcomes) == 1

    run(act)


def test_a_poll_that_was_not_read_is_left_whole_and_removes_nothing():
    """What stands is held, though it lists nothing; also when rings are to be read."""

    async def act(door: Door) -> None:
        await configured(door)
        await door.ingest.observe(poll(door, statuses_mark=b"m", reports=()))
        stands = {"statuses_mark": b"m", "statuses_since": b"m"}
        door.outcomes.clear()
        await door.ingest.observe(poll(door, [], **stands))
        assert len(door.outcomes) == 1
        rings = tuple(ListedReports("uac", name, (Report(5, "up"),)) for name in NAMES)
        await door.ingest.observe(poll(door, [], reports=rings, **stands))
        assert all(entry.reports for entry in door.state.sources[NAME].entries())
        assert door.state.identifiers == 7

    run(act)


def test_a_group_of_which_nothing_is_known_is_known():
    """Until it is read whole, and has no keys."""

    async def act(door: Door) -> None:
        await configured(door)
        await door.ingest.observe(poll(door, partial_groups=frozenset({"dr"})))
        assert door.ingest.groups(NAME) == ["uac", "dr"]
        await door.ingest.observe(poll(door))
        assert door.ingest.groups(NAME) == ["uac"]

    run(act)


def test_many_keys_are_looked_through_in_parts(monkeypatch):
    """Though all of them are listed."""
    monkeypatch.setattr(asked, "PRUNED_OF", 3)

    async def act(door: Door) -> None:
        await configured(door)
        await door.ingest.observe(poll(door))
        door.outcomes.clear()
        await door.ingest.observe(poll(door))
        assert len(door.outcomes) == 4 + 3 + 1

    run(act)


@pytest.mark.parametrize(
    "spoken", [event("i5"), Forget(NAME, "uac", "i5"), event("i0"), event("x")]
)
def test_what_is_spoken_of_between_two_removals_stands(spoken):
    """It came after the question; whoever is gone by then is removed once."""

    async def act(door: Door) -> None:
        await configured(door)
        await door.ingest.observe(poll(door))
        door.outcomes.clear()
        snapshot = poll(door, ["i3"])
        await between(door, snapshot, lambda: door.state.apply(spoken, door.clock()), 2)
        left = [entry.identifier for entry in door.state.sources[NAME].entries()]
        heard = [spoken.identifier] if isinstance(spoken, Statement) else []
        assert sorted(left) == sorted(["i3", *heard])
        removed = [key.identifier for outcome in door.outcomes for key in outcome.removed]
        assert len(removed) == len(set(removed))

    run(act)


def test_a_poll_that_breaks_off_among_its_removals_is_made_up_for_by_the_next():
    """And is not what the source is up by."""

    async def act(door: Door) -> None:
        await configured(door)
        await door.ingest.observe(poll(door))
        await door.ingest.observe(PollFailed(NAME, door.clock(), PollFailure.CONNECT, "refused"))
        await broken_off(door, poll(door, ["i3"]), 2)
        assert not door.state.sources[NAME].up
        assert len(list(door.state.sources[NAME].entries())) == 5
        await door.ingest.observe(poll(door, ["i3"]))
        assert [entry.identifier for entry in door.state.sources[NAME].entries()] == ["i3"]
        assert door.state.sources[NAME].up

    run(act)


@pytest.mark.parametrize("leave", [Forget(NAME, leaves=True, most=0), Configured(())])
def test_a_source_that_leaves_among_the_removals_of_a_poll_ends_it(leave):
    """It is not asked for ever what is left."""

    async def act(door: Door) -> None:
        await configured(door)
        await door.ingest.observe(poll(door))
        await between(door, poll(door, ["i3"]), lambda: door.state.apply(leave, 1.0), 2)
        source = door.state.sources.get(NAME)
        assert source is None or len(list(source.entries())) == 5

    run(act)


def random_poll(chance: random.Random, as_of: int) -> Snapshot:
    """Make a poll that leaves out much, sometimes of partial groups."""
    groups = ("core", "uac", "Uac", "dr")
    listed = tuple(
        ListedStatus(chance.choice(groups), f"i{chance.randrange(9)}", status, status > 0, None)
        for status in chance.choices((-1, 1, 2), k=chance.randrange(12))
    )
    rings = tuple(
        ListedReports(one.group, one.identifier, (Report(chance.randrange(5), "up"),))
        for one in listed[: chance.randrange(4)]
    )
    return Snapshot(
        NAME,
        as_of,
        1000.0 + as_of,
        listed,
        partial_groups=frozenset(chance.sample(groups, chance.choice((0, 0, 1)))),
        complete=chance.random() < 0.8,
        reports=rings,
        statuses_mark=chance.choice((None, b"mark")),
    )


def test_parts_do_what_the_whole_does():
    """The same is journalled in the same order, and the same is held in the end."""
    chance = random.Random(7)
    whole, parted = State(), State()
    for state in (whole, parted):
        state.apply(Configured((PolledSource(NAME, 60.0),)), 1000.0)
    removals = 0
    for turn in range(300):
        now = 2000.0 + turn
        if turn % 3 == 0:
            said = event(f"i{chance.randrange(12)}", chance.choice((-1, 2)))
            assert whole.apply(said, now).changes == parted.apply(said, now).changes
        seed = chance.random()
        poll = random_poll(random.Random(seed), whole.revision)
        at_once = whole.apply(poll, now)
        poll = replace(poll, as_of=parted.revision)
        parts = in_parts(
            poll,
            lambda: chance.randrange(1, 5),
            parted.held_beside(poll),
            lambda said=poll: parted.prunes(said),
        )
        outcomes = [parted.apply(part, now) for part in parts]
        changes = [change for outcome in outcomes for change in outcome.changes]
        ups = [change for change in changes if change.kind is ChangeKind.SOURCE_UP]
        assert changes == at_once.changes
        assert not ups
        removed = [key for outcome in outcomes for key in outcome.removed]
        assert removed == list(at_once.removed)
        assert held(parted) == held(whole)
        assert parted.knows_statuses(NAME, b"mark") == whole.knows_statuses(NAME, b"mark")
        removals += len(removed) > 2
    assert removals > 20
