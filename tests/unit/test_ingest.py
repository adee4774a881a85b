"""The one door: what was observed is applied, handed to the store, and told to the readers."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from sr_exporter.errors import NotKept, PushRefused
from sr_exporter.ingest import LONGEST_WAIT_SECONDS, Ingest
from sr_exporter.model import (
    PUSH_SOURCE,
    Change,
    ChangeKind,
    Configured,
    Forget,
    Key,
    OnExpiry,
    PolledSource,
    PollFailed,
    PollFailure,
    Snapshot,
    Statement,
)
from sr_exporter.state import State
from sr_exporter.store.contract import Batch, Keeping, Kept, Owed, Past, Standing, StoreFigures
from sr_exporter.store.sqlite import SqliteStore

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence
    from pathlib import Path

    from sr_exporter.outcome import Outcome

JOB = Key(PUSH_SOURCE, "job", "main")


class FakeStore:
    """Implements `Store` without keeping anything: it shows what it was handed, in order.

    A commit resolves at once, fails while `failing` is set, and waits for `release` while
    `waiting` is. That what is kept comes back is tested with the contract.
    """

    def __init__(self, log: list[str]) -> None:
        self.log = log
        self.batches: list[Batch] = []
        self.error: str | None = None
        self.failing = False
        self.waiting = False
        self._futures: list[asyncio.Future[None]] = []

    def load(self) -> Kept:
        return Kept("fake", 0, [], [], [], [])

    def commit(self, batch: Batch) -> Keeping:
        future = Keeping()
        self.log.append("handed over")
        self.batches.append(batch)
        self._futures.append(future)
        if not self.waiting:
            future.get_loop().call_soon(self.release)
        return future

    def release(self) -> None:
        for future in self._futures:
            if self.failing:
                self.log.append("failed")
                future.set_exception(NotKept("the disk is full"))
            else:
                self.log.append("kept")
                future.set_result(None)
        self._futures.clear()

    def changes(self, since: int, limit: int) -> asyncio.Future[list[Change]]:
        future: asyncio.Future[list[Change]] = asyncio.get_running_loop().create_future()
        journal = [change for batch in self.batches for change in batch.changes]
        future.set_result([change for change in journal if change.seq > since][:limit])
        return future

    def past(self, keys: Collection[Key], *, before: int | None, rows: int) -> asyncio.Future[Past]:
        future: asyncio.Future[Past] = asyncio.get_running_loop().create_future()
        future.set_result(Past([], None, None))
        return future

    def figures(self) -> StoreFigures:
        return StoreFigures(0, 0, 0.0, 0, 0, len(self._futures), 0, self.error)

    def retain(self, seconds: float) -> None:
        pass

    def close(self) -> None:
        self.release()


class FakePlanner:
    """Implements `Planner`: owes one notification per change, named for its number."""

    def __init__(self, log: list[str]) -> None:
        self.log = log

    def plan(self, outcome: Outcome, now: float) -> dict[str, Owed | None]:
        return {
            f"#{change.seq}": Owed(
                id=f"#{change.seq}",
                seq=change.seq,
                notifier="oncall",
                subject=change.source,
                standing=Standing.OWED,
                created_at=now,
                due_at=now,
                attempts=0,
                body=b"{}",
            )
            for change in outcome.changes
        }

    def kept(self, ids: Sequence[str]) -> None:
        self.log.append("deliver " + " ".join(ids))


class JumpingLoop(asyncio.SelectorEventLoop):
    """A loop whose time stands still, but jumps to the next timer when there is nothing to do."""

    def __init__(self) -> None:
        self.now = 1000.0
        super().__init__()
        select = self._selector.select

        def jump(timeout: float | None) -> list[object]:
            self.now += timeout or 0.0
            return select(None if timeout is None else 0)

        self._selector.select = jump

    def time(self) -> float:
        return self.now


class Door:
    """An ingest with a state, a fake store and planner, and a clock that may jump."""

    def __init__(self, *, limit_identifiers: int = 1000) -> None:
        self.log: list[str] = []
        self.state = State(limit_identifiers=limit_identifiers)
        self.store = FakeStore(self.log)
        self.jumped = 0.0
        self.ingest = Ingest(self.state, self.store, FakePlanner(self.log), self.clock)
        self.outcomes: list[Outcome] = []
        self.ingest.subscribe(self.read)

    def clock(self) -> float:
        return asyncio.get_running_loop().time() + self.jumped

    def read(self, outcome: Outcome) -> None:
        self.log.append("read")
        self.outcomes.append(outcome)

    def changes(self) -> list[tuple[ChangeKind, float]]:
        return [(change.kind, change.at) for seen in self.outcomes for change in seen.changes]


def run(act, **settings):
    """Act on a door, within a loop whose time jumps."""

    async def acted():
        return await act(Door(**settings))

    with asyncio.Runner(loop_factory=JumpingLoop) as runner:
        return runner.run(acted())


def said(group: str = "job", status: int | None = 1, **more) -> Statement:
    return Statement(PUSH_SOURCE, group, status=status, **more)


# --- pushes ---------------------------------------------------------------------------------


def test_a_push_is_one_batch():
    """All of its items, what they altered and what that owes are kept by one commit."""

    async def act(door: Door) -> None:
        await door.ingest.push([said("a"), said("b", -1), said("a", 2)])
        (batch,) = door.store.batches
        assert {key.group: record.status for key, record in batch.keys.items()} == {"a": 2, "b": -1}
        assert [change.seq for change in batch.changes] == [1, 2, 3]
        assert list(batch.outbox) == ["#1", "#2", "#3"]
        assert list(batch.sources) == [PUSH_SOURCE]

    run(act)


def test_a_push_tells_how_many_items_altered_something():
    """A status, details or an appearance counts; the same again and reports alone do not."""

    async def act(door: Door) -> None:
        first = [said("a"), said("a"), said("b", None, reports=("x",)), said("a", details="d")]
        assert await door.ingest.push(first) == 3
        again = [said("a", details="d"), said("b", None, reports=("y",)), said("a", -1)]
        assert await door.ingest.push(again) == 1
        assert await door.ingest.push([]) == 0

    run(act)


def test_a_push_with_a_fault_is_refused_whole():
    """Every item that is wrong is named, and nothing of the others is applied or told."""

    async def act(door: Door) -> None:
        ahead = door.clock() + 61.0
        items = [said("a"), said("b", at=ahead), said("c"), Statement("sr_exporter", "g", status=1)]
        with pytest.raises(PushRefused, match="2 of 4 items") as refused:
            await door.ingest.push(items)
        assert [item.index for item in refused.value.items] == [1, 3]
        assert "61 s ahead" in refused.value.items[0].error
        assert (door.state.identifiers, door.state.revision, door.log) == (0, 0, [])

    run(act)


def test_a_push_beyond_the_limit_of_identifiers_is_refused():
    """The items that find no room are named."""

    async def act(door: Door) -> None:
        with pytest.raises(PushRefused) as refused:
            await door.ingest.push([said("a"), said("b"), said("c")])
        assert [item.index for item in refused.value.items] == [2]
        assert "limits.identifiers" in refused.value.items[0].error
        assert await door.ingest.push([said("a"), said("b")]) == 2

    run(act, limit_identifiers=2)


def test_a_push_resolves_when_it_is_kept():
    """Readers hear of it at once; the pusher, and who delivers, when the commit is through."""

    async def act(door: Door) -> None:
        door.store.waiting = True
        pushing = asyncio.ensure_future(door.ingest.push([said()]))
        await asyncio.sleep(1.0)
        assert door.log == ["read", "handed over"]
        assert not pushing.done()
        door.store.release()
        assert await pushing == 1
        assert door.log == ["read", "handed over", "kept", "deliver #1"]

    run(act)


def test_while_the_store_is_in_trouble_pushes_are_not_taken():
    """An answer of 2xx means kept: nothing is applied that surely cannot be."""

    async def act(door: Door) -> None:
        door.store.error = "the disk is full"
        with pytest.raises(NotKept, match="the disk is full"):
            await door.ingest.push([said()])
        assert door.state.identifiers == 0
        door.store.error = None
        assert await door.ingest.push([said()]) == 1

    run(act)


def test_a_push_that_cannot_be_kept_says_so():
    """It is applied already, and its notifications go out; pushed again it does no harm."""

    async def act(door: Door) -> None:
        door.store.failing = True
        with pytest.raises(NotKept, match="the disk is full"):
            await door.ingest.push([said("job", -1)])
        assert door.state.entry(JOB)
        assert door.log == ["read", "handed over", "failed", "deliver #1"]
        door.store.failing = False
        assert await door.ingest.push([said("job", -1)]) == 0

    run(act)


def test_a_pusher_that_goes_away_stops_nothing():
    """The commit goes on, and what it owes is delivered once it is kept, not before."""

    async def act(door: Door) -> None:
        door.store.waiting = True
        pushing = asyncio.ensure_future(door.ingest.push([said()]))
        await asyncio.sleep(0)
        pushing.cancel()
        await asyncio.sleep(0)
        assert door.log == ["read", "handed over"]
        door.store.release()
        with pytest.raises(asyncio.CancelledError):
            await pushing
        assert door.log == ["read", "handed over", "kept", "deliver #1"]

    run(act)


def test_what_is_shown_waits_until_it_is_kept():
    """A counter shown and then lost to a crash would have fallen; a disk that hangs is not
    waited for for ever.
    """

    async def act(door: Door) -> None:
        await door.ingest.kept(5.0)  # nothing was applied yet: nothing to wait for
        door.store.waiting = True
        pushing = asyncio.ensure_future(door.ingest.push([said()]))
        await asyncio.sleep(0)
        began = door.clock()
        showing = asyncio.ensure_future(door.ingest.kept(5.0))
        await asyncio.sleep(1.0)
        assert not showing.done()
        door.store.release()
        await showing
        assert door.clock() - began == pytest.approx(1.0)
        await pushing
        late = asyncio.ensure_future(door.ingest.push([said(status=-1)]))
        await asyncio.sleep(0)
        began = door.clock()
        await door.ingest.kept(5.0)
        assert door.clock() - began == pytest.approx(5.0)
        door.store.release()
        await late

    run(act)


def test_pushes_at_the_same_time_keep_their_order():
    """They are applied and handed over in one order."""

    async def act(door: Door) -> None:
        await asyncio.gather(*(door.ingest.push([said("job", n)]) for n in range(1, 50)))
        numbers = [change.seq for batch in door.store.batches for change in batch.changes]
        assert numbers == list(range(1, 50))
        assert door.store.batches[-1].keys[JOB].status == 49

    run(act)


# --- other observations ---------------------------------------------------------------------


def test_what_was_seen_stays_true_though_it_cannot_be_kept():
    """An observation has nobody to answer to: it is applied, and told, all the same."""

    async def act(door: Door) -> None:
        door.store.failing = True
        outcome = await door.ingest.observe(Configured((PolledSource("sip-1", 60.0),)))
        assert list(outcome.sources) == ["sip-1"]
        failed = PollFailed("sip-1", door.clock(), PollFailure.CONNECT, "no route")
        outcome = await door.ingest.observe(failed)
        assert [change.kind for change in outcome.changes] == [ChangeKind.SOURCE_DOWN]
        assert door.log[-1] == "deliver #1"
        assert not door.state.sources["sip-1"].up

    run(act)


def test_what_alters_nothing_is_not_handed_to_the_store():
    """A quiet poll costs no commit; its readers hear of it."""

    async def act(door: Door) -> None:
        await door.ingest.observe(Configured((PolledSource("sip-1", 60.0),)))
        for _ in range(3):
            asked = Snapshot("sip-1", door.ingest.revision, door.clock(), ())
            await door.ingest.observe(asked)
        assert len(door.store.batches) == 2
        assert len(door.outcomes) == 4

    run(act)


def test_every_reader_hears_every_outcome_in_order():
    """One outcome per item of a push, each before the call that brought it resolves."""

    async def act(door: Door) -> None:
        others: list[Outcome] = []
        door.ingest.subscribe(others.append)
        await door.ingest.push([said("a"), said("b")])
        await door.ingest.observe(said("c"))
        groups = [change.group for outcome in others for change in outcome.changes]
        assert groups == ["a", "b", "c"]
        assert others == door.outcomes

    run(act)


def test_the_revision_is_that_of_the_state():
    """A poll asks for it before its question, to be outranked by what comes after."""

    async def act(door: Door) -> None:
        before = door.ingest.revision
        await door.ingest.observe(said())
        assert door.ingest.revision == door.state.revision > before

    run(act)


def test_forgetting_tells_how_many_keys_went():
    """It is kept like a push, and refused like one."""

    async def act(door: Door) -> None:
        await door.ingest.push([said("a"), said("b"), said("c")])
        assert await door.ingest.forget(Forget(PUSH_SOURCE, "a")) == 1
        assert await door.ingest.forget(Forget(PUSH_SOURCE, "a")) == 0
        assert door.store.batches[-1].keys_removed == {Key(PUSH_SOURCE, "a", "main"): None}
        door.store.failing = True
        with pytest.raises(NotKept):
            await door.ingest.forget(Forget(PUSH_SOURCE))
        assert door.state.identifiers == 0

    run(act)


def test_a_key_removed_and_brought_back_by_one_push_is_kept():
    """Only the last word on a key is in the batch."""

    async def act(door: Door) -> None:
        _, batch = door.ingest._apply([said(), Forget(PUSH_SOURCE), said("JOB", -1)])
        assert {key.group for key in batch.keys} == {"JOB"}
        assert list(batch.keys_removed) == [JOB]
        assert (list(batch.sources), list(batch.sources_removed)) == ([PUSH_SOURCE], [])

    run(act)


# --- time -----------------------------------------------------------------------------------


def test_what_is_due_happens_by_itself():
    """A time to live runs out on the second, is kept, and the next one is waited for."""

    async def act(door: Door) -> None:
        await door.ingest.push([said("a", ttl_seconds=5.0), said("b", ttl_seconds=90.0)])
        door.outcomes.clear()
        await asyncio.sleep(200.0)
        assert door.changes() == [
            (ChangeKind.STATUS, pytest.approx(1005.0)),
            (ChangeKind.STATUS, pytest.approx(1090.0)),
        ]
        statuses = {
            key.group: record.status
            for batch in door.store.batches[1:]
            for key, record in batch.keys.items()
        }
        assert statuses == {"a": -1, "b": -1}
        assert door.log[-2:] == ["kept", "deliver #4"]

    run(act)


def test_an_earlier_deadline_is_not_kept_waiting_by_a_later():
    """The alarm is set for whatever is due first."""

    async def act(door: Door) -> None:
        await door.ingest.push([said("late", ttl_seconds=8.0)])
        await door.ingest.push([said("soon", ttl_seconds=0.25)])
        await asyncio.sleep(0.5)
        assert [entry.key.group for entry in door.state.not_ready] == ["soon"]

    run(act)


def test_a_lost_source_is_withheld_by_itself():
    """Nobody needs to ask."""

    async def act(door: Door) -> None:
        await door.ingest.observe(Configured((PolledSource("sip-1", 3.0),)))
        await door.ingest.observe(Snapshot("sip-1", door.ingest.revision, door.clock(), ()))
        await door.ingest.observe(PollFailed("sip-1", door.clock(), PollFailure.AUTH, "401"))
        await asyncio.sleep(2.5)
        assert not door.state.sources["sip-1"].withheld
        await asyncio.sleep(1.0)
        assert door.state.sources["sip-1"].withheld

    run(act)


def test_a_clock_that_jumps_ahead_is_noticed():
    """The loop's time knows nothing of it, so the clock is looked at every few seconds."""

    async def act(door: Door) -> None:
        await door.ingest.push([said(ttl_seconds=3600.0)])
        door.jumped = 3600.0
        await asyncio.sleep(LONGEST_WAIT_SECONDS + 0.5)
        assert len(door.state.not_ready) == 1

    run(act)


def test_a_clock_that_jumps_back_delays_and_loses_nothing():
    """What was due is due when the clock says so."""

    async def act(door: Door) -> None:
        await door.ingest.push([said(ttl_seconds=5.0)])
        door.jumped = -100.0
        await asyncio.sleep(50.0)
        assert not door.state.not_ready
        await asyncio.sleep(60.0)
        assert len(door.state.not_ready) == 1

    run(act)


def test_advancing_applies_what_is_due_at_once():
    """Who shows the state now does not show what has expired by now."""

    async def act(door: Door) -> None:
        await door.ingest.push([said(ttl_seconds=5.0)])
        applied = door.state.revision
        door.ingest.advance()
        assert door.state.revision == applied
        door.jumped = 5.0
        door.ingest.advance()
        assert len(door.state.not_ready) == 1
        door.ingest.advance()
        assert door.state.revision == applied + 1

    run(act)


def test_what_time_altered_is_kept_before_what_comes_after_it():
    """A key that expired and was pushed again at once must not be removed on the disk."""

    async def act(door: Door) -> None:
        await door.ingest.push([said(ttl_seconds=5.0, on_expiry=OnExpiry.REMOVE)])
        door.jumped = 5.0
        door.ingest.advance()
        await door.ingest.push([said("job", 2)])
        _, removal, push = door.store.batches
        assert list(removal.keys_removed) == [JOB]
        assert push.keys[JOB].status == 2
        assert [change.seq for change in (*removal.changes, *push.changes)] == [2, 3]

    run(act)


def test_an_expiry_that_cannot_be_kept_is_an_expiry():
    """The store goes on trying; nobody else hears of its trouble here."""

    async def act(door: Door) -> None:
        await door.ingest.push([said(ttl_seconds=5.0)])
        door.store.failing = True
        await asyncio.sleep(6.0)
        assert len(door.state.not_ready) == 1
        assert door.log[-2:] == ["failed", "deliver #2"]

    run(act)


# --- stopping -------------------------------------------------------------------------------


def test_once_settled_nothing_is_taken_from_outside():
    """Pushes and removals are refused; what was seen is still applied."""

    async def act(door: Door) -> None:
        await door.ingest.push([said()])
        await door.ingest.settle()
        with pytest.raises(NotKept, match="stopping"):
            await door.ingest.push([said("b")])
        with pytest.raises(NotKept, match="stopping"):
            await door.ingest.forget(Forget(PUSH_SOURCE))
        assert door.state.identifiers == 1
        await door.ingest.observe(said("job", -1))
        assert len(door.state.not_ready) == 1

    run(act)


def test_settling_waits_for_what_time_altered():
    """An expiry under way is kept before the store is closed."""

    async def act(door: Door) -> None:
        await door.ingest.push([said(ttl_seconds=5.0)])
        door.store.waiting = True
        door.jumped = 5.0
        door.ingest.advance()
        settling = asyncio.ensure_future(door.ingest.settle())
        await asyncio.sleep(1.0)
        assert not settling.done()
        door.store.release()
        await settling
        assert door.log[-2:] == ["kept", "deliver #2"]

    run(act)


@pytest.mark.parametrize("due", [True, False], ids=["something due", "nothing due"])
def test_once_settled_the_clock_is_not_looked_at(due):
    """Nothing expires behind the back of a store that closes."""

    async def act(door: Door) -> None:
        await door.ingest.push([said(ttl_seconds=5.0 if due else None)])
        await door.ingest.settle()
        await door.ingest.observe(said("b", ttl_seconds=5.0))
        await asyncio.sleep(60.0)
        assert not door.state.not_ready

    run(act)


# --- with a real store ----------------------------------------------------------------------


def test_what_was_accepted_is_there_after_a_restart(tmp_path: Path):
    """State, numbering and counters are taken up where they were left."""

    async def live(state: State, act) -> None:
        store = SqliteStore(tmp_path)
        kept = store.load()
        state.last_seq = kept.last_seq
        state.restore(kept.sources, kept.keys, 1000.0)
        ingest = Ingest(state, store, FakePlanner([]), lambda: 1000.0)
        await act(ingest)
        await ingest.settle()
        store.close()

    async def first(ingest: Ingest) -> None:
        await ingest.push([said("a", -1, details="x"), said("b", reports=("r",)), said("gone")])
        await ingest.push([said("a", -2)])
        await ingest.forget(Forget(PUSH_SOURCE, "gone"))

    async def second(ingest: Ingest) -> None:
        assert await ingest.push([said("a", -2)]) == 0

    before, after = State(), State()
    asyncio.run(live(before, first))
    asyncio.run(live(after, second))
    held = [
        {entry.key: entry.record() for entry in state.sources[PUSH_SOURCE].entries()}
        for state in (before, after)
    ]
    assert held[0] == held[1]
    assert before.last_seq == after.last_seq == 5
    assert [entry.key.group for entry in after.not_ready] == ["a"]
