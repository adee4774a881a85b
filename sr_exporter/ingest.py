"""The one door: observation to state to commit to readers.

Everything that is observed comes through here, in one order, on the loop's thread. What it
alters is handed to the store as one batch together with the notifications it owes; the call
resolves when that is kept.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Protocol

import structlog

from sr_exporter.errors import ItemFault, NotKept, PushRefused
from sr_exporter.model import Statement, Tick
from sr_exporter.store.contract import Batch

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from sr_exporter.model import Observation
    from sr_exporter.outcome import Outcome
    from sr_exporter.state import State
    from sr_exporter.store.contract import Owed, Store

log = structlog.get_logger(__name__)

#: The longest time between two looks at what is due: our clock may have jumped.
LONGEST_WAIT_SECONDS = 10.0
#: How many refused items of a push are named: the answer must not grow with the body.
MOST_FAULTS = 100


class Planner(Protocol):
    """Says which notifications an outcome owes."""

    def plan(self, outcome: Outcome, now: float) -> dict[str, Owed | None]:
        """Give the rows of the outbox to write (None deletes), by id."""

    def kept(self, ids: Sequence[str]) -> None:
        """Be told that these rows are kept, or cannot be: they may be delivered now."""


class Ingest:
    """Applies observations, has them kept, and wakes the readers."""

    def __init__(
        self,
        state: State,
        store: Store,
        planner: Planner,
        clock: Callable[[], float],
    ) -> None:
        self._state = state
        self._store = store
        self._planner = planner
        self._clock = clock
        self._readers: list[Callable[[Outcome], None]] = []
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at: float | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._last: asyncio.Future[None] | None = None
        #: False once the store must be left alone: pushes are refused.
        self.open = True

    @property
    def revision(self) -> int:
        """The state's revision: ask before a poll, to say as of when it speaks."""
        return self._state.revision

    def groups(self, source: str) -> list[str]:
        """Give the groups that are held of a source, as they are spelled."""
        held = self._state.sources.get(source)
        return [group.name for group in held.groups.values()] if held else []

    def start_time(self, source: str) -> float | None:
        """Give when a source started, as far as its up time told (rule 13)."""
        held = self._state.sources.get(source)
        return held.start_time if held else None

    def subscribe(self, reader: Callable[[Outcome], None]) -> None:
        """Have `reader` called with every outcome, at once; it must not block."""
        self._readers.append(reader)

    async def observe(self, observation: Observation) -> Outcome:
        """Apply what was seen; resolves when it is kept, or when that failed.

        What was seen stays true though it cannot be kept: the store goes on trying, and says
        so in its own status.
        """
        outcome, batch = self._apply([observation])
        await _in_passing(self._keep(batch))
        return outcome[0]

    def hear(self, events: Sequence[Statement]) -> Awaitable[None]:
        """Apply events at once, in order; what is given resolves when they are kept.

        What was heard stays true though it cannot be kept, which is raised as `NotKept`.
        """
        _, batch = self._apply(events)
        return self._keep(batch)

    async def push(self, statements: Sequence[Statement]) -> int:
        """Apply a push, all of it or nothing; resolves when it is kept.

        Returns how many statements altered a status or details.

        Raises:
            PushRefused: some statement must not be applied; nothing was.
            NotKept: it could not be kept; pushing it again does no harm.
        """
        if not self.open:
            raise NotKept("the exporter is stopping")
        if (error := self._store.figures().error) is not None:
            raise NotKept(error)
        if faults := self._state.faults(statements, self._clock()):
            wrong = f"{len(faults)} of {len(statements)} items are refused; nothing was taken"
            raise PushRefused(wrong, [ItemFault(*fault) for fault in faults[:MOST_FAULTS]])
        outcomes, batch = self._apply(statements)
        await self._keep(batch)
        return sum(outcome.altered() for outcome in outcomes)

    async def forget(self, observation: Observation) -> int:
        """Apply a `Forget`; resolves when it is kept. Returns how many keys were removed.

        Raises:
            NotKept: it could not be kept.
        """
        if not self.open:
            raise NotKept("the exporter is stopping")
        outcomes, batch = self._apply([observation])
        await self._keep(batch)
        return len(outcomes[0].removed)

    def advance(self) -> None:
        """Let expire and withhold what is due now; what that alters is kept in passing."""
        deadline = self._state.next_deadline()
        if deadline is None or deadline > self._clock():
            return
        _, batch = self._apply([Tick()])
        task = asyncio.ensure_future(_in_passing(self._keep(batch)))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def kept(self, within_seconds: float) -> None:
        """Wait until all that is applied by now is kept, or cannot be, or time is up.

        What is shown and then lost to a `kill -9` would be a counter that fell.
        """
        if self._last is not None and not self._last.done():
            await asyncio.wait({self._last}, timeout=within_seconds)

    async def settle(self) -> None:
        """Wait for what `advance` began; stop looking at the clock."""
        self.open = False
        if self._timer is not None:
            self._timer.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    def _apply(self, observations: Sequence[Observation]) -> tuple[list[Outcome], Batch]:
        now = self._clock()
        batch = Batch()
        outcomes = []
        for observation in observations:
            outcome = self._state.apply(observation, now)
            batch.outbox.update(self._planner.plan(outcome, now))
            _gather(batch, outcome)
            outcomes.append(outcome)
        for outcome in outcomes:
            for reader in self._readers:
                reader(outcome)
        self._arm(now)
        return outcomes, batch

    def _keep(self, batch: Batch) -> Awaitable[None]:
        """Hand a batch over; what is given resolves when it is kept.

        It is handed over before this returns: the store sees batches in the order of `_apply`.
        """
        if not batch:
            return _nothing()
        owed = list(batch.outbox)
        kept = self._last = self._store.commit(batch)
        if owed:
            kept.add_done_callback(lambda _: self._planner.kept(owed))
        return asyncio.shield(kept)

    def _arm(self, now: float) -> None:
        """Set the timer for the next expiry, if there is one."""
        deadline = self._state.next_deadline()
        if deadline is None or not self.open:
            return
        at = min(deadline, now + LONGEST_WAIT_SECONDS)
        if self._timer is not None and self._timer_at is not None and self._timer_at <= at:
            return
        if self._timer is not None:
            self._timer.cancel()
        loop = asyncio.get_running_loop()
        self._timer_at = at
        self._timer = loop.call_later(max(0.0, at - now), self._ring)

    def _ring(self) -> None:
        self._timer = self._timer_at = None
        self.advance()
        self._arm(self._clock())


async def _nothing() -> None:
    """Resolve at once: there was nothing to keep."""


async def _in_passing(kept: Awaitable[None]) -> None:
    try:
        await kept
    except NotKept as error:
        log.debug("observation not kept yet", error=str(error))


def _gather(batch: Batch, outcome: Outcome) -> None:
    """Add to a batch what an outcome must keep, as it is now."""
    later = Batch(
        keys={key: entry.record() for key, entry in outcome.entries.items()},
        keys_removed=dict(outcome.removed),
        sources={name: source.record() for name, source in outcome.sources.items()},
        sources_removed=dict(outcome.sources_removed),
        changes=outcome.changes,
        tombstones=outcome.tombstones,
    )
    batch.merge(later)
