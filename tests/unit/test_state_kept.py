"""What the state holds, over restarts: through the one door, into a store with files, and back."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from sr_exporter.ingest import Ingest
from sr_exporter.model import (
    PUSH_SOURCE,
    Configured,
    Forget,
    Key,
    ListedStatus,
    OnExpiry,
    PolledSource,
    Report,
    Snapshot,
    Statement,
)
from sr_exporter.state import State
from sr_exporter.store.sqlite import SqliteStore

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from sr_exporter.outcome import Outcome
    from sr_exporter.store.contract import Owed

JOB = Key(PUSH_SOURCE, "job", "main")
SIP = "sip-1"


class NobodyOwes:
    """Implements `Planner` where there are no notifiers."""

    def plan(self, outcome: Outcome, now: float) -> dict[str, Owed | None]:
        return {}

    def kept(self, ids: Sequence[str]) -> None:
        pass


class Life:
    """One life of an exporter's state: what a start makes of the store, and what is done then."""

    def __init__(self, store: SqliteStore, now: float) -> None:
        self.now = now
        kept = store.load()
        self.state = State(last_seq=kept.last_seq)
        self.state.restore(kept.sources, kept.keys, now, kept.tombstones)
        self.ingest = Ingest(self.state, store, NobodyOwes(), lambda: self.now)

    def entry(self, key: Key = JOB):
        entry = self.state.entry(key)
        assert entry is not None
        return entry

    async def push(self, key: Key = JOB, **said) -> int:
        return await self.ingest.push([Statement(*key, **said)])

    async def tick(self, now: float) -> None:
        self.now = now
        self.ingest.advance()
        await asyncio.gather(*self.ingest._tasks)


@pytest.fixture
def live(tmp_path):
    """Live from a time on, do something, and stop."""

    def live(now: float, act: Callable[[Life], Awaitable[None]]) -> None:
        async def run() -> None:
            store = SqliteStore(tmp_path, clock=lambda: now)
            try:
                life = Life(store, now)
                try:
                    await act(life)
                finally:
                    await life.ingest.settle()
            finally:
                store.close()

        asyncio.run(run())

    return live


def test_the_ttl_starts_anew_at_a_restart(live):
    """However long we were away: pushers could not reach us."""

    async def before(life: Life) -> None:
        await life.push(status=1, ttl_seconds=90.0)

    async def after(life: Life) -> None:
        assert life.state.next_deadline() == 5090.0
        await life.tick(5089.0)
        assert life.entry().status == 1
        await life.tick(5090.0)
        assert (life.entry().status, life.entry().changed_at) == (-1, 5090.0)
        assert life.entry().details == "expired: nothing heard for 90s"

    live(1000.0, before)
    live(5000.0, after)


def test_a_ttl_of_a_heartbeat_without_status_outlives_a_restart(live):
    """Renewed by reports alone, it is still the one that was said with the status."""

    async def before(life: Life) -> None:
        await life.push(status=1, ttl_seconds=90.0, on_expiry=OnExpiry.REMOVE)
        life.now = 1050.0
        await life.push(reports=("alive",))

    async def after(life: Life) -> None:
        assert life.state.next_deadline() == 1150.0

    live(1000.0, before)
    live(1060.0, after)


def test_an_expired_key_stays_expired_with_its_counters(live):
    """Nothing is due, nothing changes again, and counters go on where they were."""

    async def before(life: Life) -> None:
        await life.push(status=1, ttl_seconds=90.0, reports=("a", "b"))
        await life.push(status=2, ttl_seconds=90.0)
        await life.tick(1090.0)
        assert life.entry().status == -1

    async def after(life: Life) -> None:
        entry = life.entry()
        assert (entry.status, entry.ready, entry.expired) == (-1, False, True)
        assert entry.details == "expired: nothing heard for 90s"
        assert (entry.changes_total, entry.reports_total, entry.changed_at) == (2, 2, 1090.0)
        assert entry in life.state.not_ready
        assert life.state.next_deadline() is None
        await life.tick(99_000.0)
        assert life.state.last_seq == 3
        assert await life.push(status=1, ttl_seconds=10.0) == 1
        assert (entry.changes_total, entry.reports_total) == (3, 2)
        assert life.state.next_deadline() == 99_010.0

    live(1000.0, before)
    live(5000.0, after)


def test_a_key_that_expired_is_told_of_once_though_we_restart_again_and_again(live):
    """The expiry is kept with what it altered."""

    async def before(life: Life) -> None:
        await life.push(status=1, ttl_seconds=90.0)
        await life.tick(1090.0)

    async def after(life: Life) -> None:
        await life.tick(life.now + 500.0)
        assert life.state.last_seq == 2

    live(1000.0, before)
    for start in (2000.0, 3000.0):
        live(start, after)


def test_a_key_is_removed_at_its_expiry_after_a_restart_too(live):
    """What shall become of it is kept with its time to live; and it stays removed."""

    async def before(life: Life) -> None:
        await life.push(status=1, ttl_seconds=90.0, on_expiry=OnExpiry.REMOVE)

    async def after(life: Life) -> None:
        await life.tick(5090.0)
        assert life.state.entry(JOB) is None
        assert life.state.sources == {}

    async def later(life: Life) -> None:
        assert (life.state.identifiers, life.state.sources) == (0, {})
        assert await life.push(status=1, at=5089.0) == 0
        assert life.state.identifiers == 0
        assert await life.push(status=1, at=5091.0) == 1

    live(1000.0, before)
    live(5000.0, after)
    live(6000.0, later)


def test_a_key_that_is_removed_past_its_expiry_is_not_brought_back_by_a_restart(live):
    """Not even where its removal was the last thing that happened."""

    async def before(life: Life) -> None:
        await life.push(status=1, ttl_seconds=90.0, on_expiry=OnExpiry.REMOVE)
        await life.tick(1090.0)

    async def after(life: Life) -> None:
        assert life.state.identifiers == 0
        assert life.state.next_deadline() is None

    live(1000.0, before)
    live(1100.0, after)


def test_a_late_word_is_ignored_after_a_restart_too(live):
    """When what is held was said is kept with it; also where that is not when it changed."""

    async def before(life: Life) -> None:
        await life.push(status=1, at=900.0)
        await life.push(status=1, at=950.0)
        assert life.entry().changed_at == 900.0

    async def after(life: Life) -> None:
        assert await life.push(status=-1, details="late", at=949.0, ttl_seconds=5.0) == 0
        assert (life.entry().status, life.entry().details) == (1, None)
        assert life.state.next_deadline() is None
        assert await life.push(status=-1, at=950.0) == 1

    live(1000.0, before)
    live(2000.0, after)


def test_what_an_expiry_said_is_not_undone_by_an_older_word(live):
    """It is of the moment the time ran out, before and after a restart."""

    async def before(life: Life) -> None:
        await life.push(status=1, ttl_seconds=90.0)
        await life.tick(1200.0)
        assert await life.push(status=1, at=1089.0) == 0

    async def after(life: Life) -> None:
        assert await life.push(status=1, at=1089.0) == 0
        assert life.entry().status == -1
        assert await life.push(status=1, at=1091.0) == 1

    live(1000.0, before)
    live(2000.0, after)


def test_a_ttl_that_was_ended_does_not_return(live):
    """A later push without one ended it."""

    async def before(life: Life) -> None:
        await life.push(status=1, ttl_seconds=90.0)
        await life.push(status=1)

    async def after(life: Life) -> None:
        assert life.state.next_deadline() is None

    live(1000.0, before)
    live(2000.0, after)


def test_a_deleted_key_stays_deleted_over_restarts(live):
    """Until something that is not older speaks of it; then that holds over restarts."""

    async def begin(life: Life) -> None:
        await life.push(status=-1, reports=(Report(1.0, "a"),), at=995.0)
        assert await life.ingest.forget(Forget(PUSH_SOURCE, "JOB")) == 1

    async def late(life: Life) -> None:
        assert await life.push(status=1, at=999.0) == 0
        assert await life.push(Key(PUSH_SOURCE, "Job", "MAIN"), reports=("x",), at=999.0) == 0
        assert (life.state.identifiers, life.state.sources) == (0, {})

    async def again(life: Life) -> None:
        await late(life)
        assert await life.push(status=1) == 1

    async def after(life: Life) -> None:
        assert life.state.tombstones == {}
        assert life.entry().reports_total == 0
        assert await life.push(status=-1, at=2999.0) == 0
        assert life.entry().status == 1

    live(1000.0, begin)
    live(2000.0, late)
    live(3000.0, again)
    live(4000.0, after)


def test_a_source_that_left_stays_away_over_restarts(live):
    """Each of its keys; so does a key that a poll listed no more."""
    core, gone = Key(SIP, "core", "main"), Key(SIP, "gone", "main")

    async def polled(life: Life) -> None:
        await life.ingest.observe(Configured((PolledSource(SIP, 60.0),)))
        for groups in (("core", "gone"), ("core",)):
            listed = tuple(ListedStatus(group, "main", 1, True, None) for group in groups)
            await life.ingest.observe(Snapshot(SIP, life.ingest.revision, life.now, listed))
            life.now += 10.0
        await life.ingest.observe(Configured(()))

    async def after(life: Life) -> None:
        assert life.state.tombstones == {gone: 1010.0, core: 1020.0}
        assert await life.push(gone, status=1, at=1009.0) == 0
        assert await life.push(core, status=1, at=1019.0) == 0
        assert life.state.sources == {}
        assert await life.push(gone, status=1, at=1010.0) == 1

    live(1000.0, polled)
    live(2000.0, after)


def test_a_deletion_is_forgotten_after_a_day(live):
    """In the store too."""

    async def begin(life: Life) -> None:
        await life.push(status=1)
        await life.ingest.forget(Forget(PUSH_SOURCE))

    async def after(life: Life) -> None:
        assert life.state.tombstones == {}
        assert await life.push(status=1, at=999.0) == 1

    live(1000.0, begin)
    live(1000.5 + 86_400.0, after)
