"""What is long is done in parts: others have their turn in between, and the end is the same."""

from __future__ import annotations

import asyncio
import itertools
from typing import TYPE_CHECKING

import pytest

from sr_exporter import checks, ingest, state
from sr_exporter.errors import NotKept, PushRefused
from sr_exporter.model import (
    PUSH_SOURCE,
    Configured,
    Forget,
    ListedStatus,
    Origin,
    PolledSource,
    PollFailed,
    PollFailure,
    Snapshot,
    Statement,
)
from tests.unit.test_ingest import Door, run, said
from tests.unit.test_known import held

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from sr_exporter.outcome import Outcome


@pytest.fixture(autouse=True)
def _small_parts(monkeypatch):
    monkeypatch.setattr(ingest, "PART", 2)
    monkeypatch.setattr(ingest, "PART_OWED", 2)
    monkeypatch.setattr(ingest, "PART_FORGOTTEN", 2)
    monkeypatch.setattr(ingest, "AT_ONCE", 4)
    monkeypatch.setattr(ingest, "OWED_COST", 0)


def many(count: int = 7, status: int = 1, **more) -> list[Statement]:
    return [said(f"g{number}", status, **more) for number in range(count)]


async def between(
    door: Door, work: Coroutine[None, None, int], act: Callable[[], object], parts: int
) -> int:
    """Do work, and act when so many of its batches were handed over, and no more."""
    before = len(door.store.batches)
    task = asyncio.create_task(work)
    while len(door.store.batches) < before + parts:
        assert not task.done()
        await asyncio.sleep(0)
    assert len(door.store.batches) == before + parts
    act()
    return await task


# --- pushes ---------------------------------------------------------------------------------


def test_a_long_push_is_several_batches():
    """In its order; it resolves when all of them are kept, and tells what all of it altered."""

    async def act(door: Door) -> None:
        door.store.waiting = True
        pushing = asyncio.ensure_future(door.ingest.push([*many(), said("g6", 2), said("g6", 2)]))
        await asyncio.sleep(1.0)
        sizes = [len(batch.changes) for batch in door.store.batches]
        assert sizes == [2, 2, 2, 2, 0]
        numbers = [change.seq for batch in door.store.batches for change in batch.changes]
        assert numbers == list(range(1, 9))
        assert not pushing.done()
        door.store.release()
        assert await pushing == 8

    run(act)


def test_a_push_that_is_not_long_is_one_batch():
    """It is kept whole, or not at all, whatever happens."""

    async def act(door: Door) -> None:
        await door.ingest.push(many(4))
        assert len(door.store.batches) == 1

    run(act)


def test_a_push_that_owes_much_is_several_batches(monkeypatch):
    """To make a notification takes longer than all else."""
    monkeypatch.setattr(ingest, "OWED_COST", 1)

    async def act(door: Door) -> None:
        assert await door.ingest.push(many(4)) == 4
        assert [len(batch.outbox) for batch in door.store.batches] == [2, 2]

    run(act)


def test_others_have_their_turn_within_a_long_push():
    """Between any two of its parts."""

    async def act(door: Door) -> None:
        seen = []

        async def watch() -> None:
            while True:
                seen.append(door.state.identifiers)
                await asyncio.sleep(0)

        watching = asyncio.create_task(watch())
        await door.ingest.push(many())
        watching.cancel()
        assert {2, 4, 6} <= set(seen)

    run(act)


def test_a_long_push_with_a_fault_is_refused_whole():
    """Wherever it is; every item is told by its number, and nothing is applied."""

    async def act(door: Door) -> None:
        ahead = door.clock() + 61.0
        with pytest.raises(PushRefused, match="2 of 7 items") as refused:
            await door.ingest.push([*many(4), said("a", at=ahead), said("b"), said("c", at=ahead)])
        assert [item.index for item in refused.value.items] == [4, 6]
        assert (door.state.identifiers, door.state.revision, door.log) == (0, 0, [])

    run(act)


def test_of_a_long_push_so_many_faults_are_named(monkeypatch):
    """All are counted."""
    monkeypatch.setattr(checks, "MOST_FAULTS", 6)

    async def act(door: Door) -> None:
        with pytest.raises(PushRefused, match="9 of 9 items") as refused:
            await door.ingest.push(many(9, at=door.clock() + 61.0))
        assert [item.index for item in refused.value.items] == list(range(6))

    run(act)


def test_a_long_push_finds_room_for_all_of_it_or_none():
    """Though any part of it would find room by itself; a key takes room once."""

    async def act(door: Door) -> None:
        with pytest.raises(PushRefused) as refused:
            await door.ingest.push(many(7))
        assert [item.index for item in refused.value.items] == [6]
        assert door.state.identifiers == 0
        twice = [*many(5), *many(5, -1)]
        assert await door.ingest.push(twice) == 10
        assert await door.ingest.push([*twice, said("one more")]) == 11

    run(act, limit_identifiers=6)


def test_a_long_push_that_others_leave_no_room_for_says_so():
    """What was taken stays; the same again is refused as any other."""

    async def act(door: Door) -> None:
        def take_room() -> None:
            door.state.apply(said("x"), door.clock())
            door.state.apply(said("y"), door.clock())

        pushing = between(door, door.ingest.push(many()), take_room, 2)
        with pytest.raises(NotKept, match=r"6 of 7 items .* push all again: limits\.identifiers"):
            await pushing
        assert door.state.identifiers == 8
        with pytest.raises(PushRefused, match="1 of 7 items"):
            await door.ingest.push(many())

    run(act, limit_identifiers=8)


def test_a_long_push_to_a_source_that_becomes_a_polled_one_ends():
    """What it says from then on is no event."""

    async def act(door: Door) -> None:
        def configure() -> None:
            door.state.apply(Configured((PolledSource(PUSH_SOURCE, 60.0),)), door.clock())

        with pytest.raises(NotKept, match=r"2 of 7 items .* is polled"):
            await between(door, door.ingest.push(many()), configure, 1)

    run(act)


@pytest.mark.parametrize("wrong", ["stopping", "the disk is full"])
def test_a_long_push_ends_when_nothing_can_be_kept_any_more(wrong):
    """It does not go on filling what waits to be kept."""

    async def act(door: Door) -> None:
        def spoil() -> None:
            if wrong == "stopping":
                door.ingest.open = False
            else:
                door.store.error = wrong

        with pytest.raises(NotKept, match=f"4 of 7 items .* {wrong}"):
            await between(door, door.ingest.push(many()), spoil, 2)
        assert len(door.store.batches) == 2

    run(act)


def test_a_long_push_of_which_a_part_is_not_kept_says_so():
    """Once it is known of every part; none of them fails unheard."""
    unheard = []

    async def act(door: Door) -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: unheard.append(context["message"]))
        door.store.waiting = door.store.failing = True
        pushing = asyncio.ensure_future(door.ingest.push(many()))
        await asyncio.sleep(1.0)
        door.store.release()
        with pytest.raises(NotKept, match="the disk is full"):
            await pushing

    run(act)
    assert unheard == []


# --- forgetting -----------------------------------------------------------------------------


def test_much_is_forgotten_in_parts():
    """All that was named, and nothing else; it resolves when that is kept."""

    async def act(door: Door) -> None:
        await door.ingest.push([*many(7), Statement("other", "g0", status=1)])
        door.store.batches.clear()
        door.store.waiting = True
        forgetting = asyncio.ensure_future(door.ingest.forget(Forget(PUSH_SOURCE)))
        await asyncio.sleep(1.0)
        assert [len(batch.keys_removed) for batch in door.store.batches] == [2, 2, 2, 1]
        assert not forgetting.done()
        door.store.release()
        assert await forgetting == 7
        assert [entry.key.source for entry in door.state.sources["other"].entries()] == ["other"]

    run(act)


@pytest.mark.parametrize("count", [0, 1, 2, 3, 4])
def test_what_is_forgotten_is_counted(count):
    """Whether the last part is a whole one or not."""

    async def act(door: Door) -> None:
        await door.ingest.push(
            [said("kept"), *(said("g", identifier=f"{n}") for n in range(count))]
        )
        assert await door.ingest.forget(Forget(PUSH_SOURCE, "G")) == count
        assert door.state.identifiers == 1

    run(act)


def test_forgetting_ends_though_others_push_meanwhile():
    """As many as there were are removed, and not for ever what comes."""

    async def act(door: Door) -> None:
        await door.ingest.push(many(6))
        number = itertools.count()

        def refill(outcome: Outcome) -> None:
            for _ in outcome.removed:
                door.state.apply(said(f"new{next(number)}"), door.clock())

        door.ingest.subscribe(refill)
        assert await door.ingest.forget(Forget(PUSH_SOURCE)) == 6
        assert door.state.identifiers == 6

    run(act)


def test_forgetting_ends_when_the_exporter_stops():
    """Whoever asked is told that it is not done."""

    async def act(door: Door) -> None:
        await door.ingest.push(many(7))

        def stop() -> None:
            door.ingest.open = False

        with pytest.raises(NotKept, match="stopping"):
            await between(door, door.ingest.forget(Forget(PUSH_SOURCE)), stop, 1)
        assert door.state.identifiers == 5

    run(act)


# --- sources that leave ---------------------------------------------------------------------

SIP = "sip-1"
POLLED = Configured((PolledSource(SIP, 60.0),))


def poll(door: Door, count: int = 7) -> Snapshot:
    listed = tuple(
        ListedStatus(f"g{number % 3}", f"i{number}", number - 3, number > 3, None)
        for number in range(count)
    )
    return Snapshot(SIP, door.state.revision, door.clock(), listed)


async def left(door: Door, configured: Configured) -> dict[str, object]:
    """Give what is journalled and held when a source that was polled is no more."""
    await door.ingest.observe(POLLED)
    await door.ingest.observe(poll(door))
    await door.ingest.observe(PollFailed(SIP, door.clock(), PollFailure.TIMEOUT, "no answer"))
    await door.ingest.push([said("other")])
    door.outcomes.clear()
    await door.ingest.observe(configured)
    removed = [key for outcome in door.outcomes for key in outcome.removed]
    assert len(removed) == 7
    return {
        "changes": [change for outcome in door.outcomes for change in outcome.changes],
        "removed": removed,
        "held": held(door.state),
    }


@pytest.mark.parametrize("configured", [Configured(()), Configured((), event_sources=(SIP,))])
def test_a_source_that_leaves_in_parts_leaves_as_at_once(monkeypatch, configured):
    """The same is journalled, and the same is left."""
    in_parts = run(lambda door: left(door, configured))
    monkeypatch.setattr(ingest, "PART_FORGOTTEN", 100)
    at_once = run(lambda door: left(door, configured))
    assert in_parts == at_once


def test_a_source_that_leaves_lets_others_have_their_turn():
    """Also a source that was never polled."""

    async def act(door: Door) -> None:
        await door.ingest.observe(Configured((), event_sources=(SIP,)))
        await door.ingest.hear(
            [
                Statement(SIP, "g", f"i{number}", 1, old_status=-1, origin=Origin.EVENT)
                for number in range(7)
            ]
        )
        door.outcomes.clear()
        await door.ingest.observe(Configured(()))
        assert [len(outcome.removed) for outcome in door.outcomes] == [2, 2, 2, 1, 0]
        assert SIP not in door.state.sources

    run(act)


def test_what_is_heard_of_a_source_that_leaves_does_not_bring_it_back():
    """Not by a poll that was under way, and not by one that was begun meanwhile."""

    async def act(door: Door) -> None:
        await door.ingest.observe(POLLED)
        await door.ingest.observe(poll(door))
        early = poll(door, 20)

        async def leave() -> int:
            await door.ingest.observe(Configured(()))
            return 0

        def answer() -> None:
            for snapshot in (early, poll(door, 20)):
                door.state.apply(snapshot, door.clock())

        await between(door, leave(), answer, 2)
        assert door.state.identifiers == 0
        assert sum(len(outcome.removed) for outcome in door.outcomes) == 7
        await door.ingest.observe(POLLED)
        await door.ingest.observe(poll(door))
        assert door.state.identifiers == 7

    run(act)


def test_what_leaves_goes_though_its_end_cannot_be_kept():
    """A configuration is put in force whatever the disk does."""

    async def act(door: Door) -> None:
        await door.ingest.observe(POLLED)
        await door.ingest.observe(poll(door))
        door.store.failing = True
        await door.ingest.observe(Configured(()))
        assert (door.state.identifiers, list(door.state.sources)) == (0, [])

    run(act)


# --- what falls due -------------------------------------------------------------------------


async def expiring(door: Door, monkeypatch) -> None:
    """Have seven keys whose time is up, and of which two expire at once."""
    monkeypatch.setattr(state, "MOST_DUE", 2)
    await door.ingest.push(many(ttl_seconds=5.0))
    door.outcomes.clear()
    door.jumped += 5.0


def test_what_falls_due_at_once_expires_in_parts(monkeypatch):
    """By itself, and with no pause in between but for the others' turns."""

    async def act(door: Door) -> None:
        await expiring(door, monkeypatch)
        door.jumped -= 5.0
        times = []
        door.ingest.subscribe(lambda _: times.append(door.clock()))
        due = door.clock() + 5.0
        await asyncio.sleep(9.0)
        assert times == [due] * 4
        assert [len(outcome.changes) for outcome in door.outcomes] == [2, 2, 2, 1]

    run(act)


def test_who_shows_what_is_held_has_all_expire_first(monkeypatch):
    """In parts, and there is an end of it though ever more falls due meanwhile."""

    async def act(door: Door) -> None:
        await expiring(door, monkeypatch)
        number = itertools.count()

        def another(_: Outcome) -> None:
            door.state.apply(said(f"new{next(number)}", ttl_seconds=1.0), door.clock())
            door.jumped += 1.0

        door.ingest.subscribe(another)
        await door.ingest.catch_up()
        assert [len(outcome.changes) for outcome in door.outcomes] == [2, 2, 2, 2]
        assert {entry.key.group[0] for entry in door.state.not_ready} == {"g", "n"}
        assert len(door.state.not_ready) == 8

    run(act)


def test_catching_up_ends_when_the_clock_goes_back(monkeypatch):
    """What was due is due later."""

    async def act(door: Door) -> None:
        await expiring(door, monkeypatch)
        door.ingest.subscribe(lambda _: setattr(door, "jumped", -100.0))
        await door.ingest.catch_up()
        assert [len(outcome.changes) for outcome in door.outcomes] == [2]

    run(act)
