"""The one door: observation to state to commit to readers.

Everything that is observed comes through here, in one order, on the loop's thread. What it
alters is handed to the store as one batch together with the notifications it owes; the call
resolves when that is kept.
"""

from __future__ import annotations

import asyncio
import math
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple, Protocol

from sr_exporter.checks import refusal, refusal_in_slices
from sr_exporter.errors import NotKept
from sr_exporter.gathering import gather
from sr_exporter.keeping import all_kept, in_passing
from sr_exporter.limited import Limited
from sr_exporter.limits import Limit
from sr_exporter.model import Configured, Forget, Snapshot, Statement, Tick
from sr_exporter.outcome import Outcome
from sr_exporter.parts import in_parts
from sr_exporter.turns import in_turns

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from sr_exporter.model import Observation
    from sr_exporter.state import State
    from sr_exporter.store.contract import Batch, Owed, Store

#: The longest time between two looks at what is due: our clock may have jumped.
LONGEST_WAIT_SECONDS = 10.0
#: How many statuses, or rings, of a poll, or items of a long push, are applied at once: all of
#: them new take some 5 ms, and 15 on a slow machine.
PART = 200
#: So many they are while notifications are owed of them, of which each takes 0.2 ms.
PART_OWED = 20
#: How many keys are forgotten at once: 20 ms where a webhook is owed the end of an alert on each.
PART_FORGOTTEN = 100
#: A push of so many items is applied at once, and kept whole or not at all.
AT_ONCE = 500
#: What it costs to owe a notification, in items.
OWED_COST = 10
_NO_ROOM = {
    Limit.IDENTIFIERS: "identifiers refused: there is no room for more",
    Limit.IDENTIFIERS_PER_SOURCE: "identifiers refused: there is no room for more of the source",
    Limit.SUBJECTS: "subjects of report texts refused: there is no room for more",
}


class Planner(Protocol):
    """Says which notifications an outcome owes."""

    def plan(self, outcome: Outcome, now: float) -> dict[str, Owed | None]:
        """Give the rows of the outbox to write (None deletes), by id."""

    def kept(self, ids: Sequence[str]) -> None:
        """Be told that these rows are kept, or cannot be: they may be delivered now."""


class Known(NamedTuple):
    """Says whether listings of a source would alter nothing that is held."""

    state: State
    source: str

    def statuses(self, mark: bytes | None) -> bool:
        return self.state.knows_statuses(self.source, mark)

    def reports(self, mark: bytes | None) -> bool:
        return self.state.knows_reports(self.source, mark)


class Ingest:
    """Applies observations, has them kept, and wakes the readers."""

    def __init__(
        self,
        state: State,
        store: Store,
        planner: Planner,
        clock: Callable[[], float],
        limited: Limited | None = None,
    ) -> None:
        self._state = state
        self._limited = limited or Limited()
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

    def known(self, source: str) -> Known:
        """Say what of a source's listings stands (known.py)."""
        return Known(self._state, source)

    def identifiers(self, source: str) -> int:
        """Say how many identifiers are held of a source."""
        held = self._state.sources.get(source)
        return held.identifiers if held else 0

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
        if isinstance(observation, Snapshot):
            return await self._listing(observation)
        if isinstance(observation, Configured):
            await self._let_leave(observation)
        outcome, batch = self._apply([observation])
        await in_passing(self._keep(batch))
        return outcome[0]

    async def _listing(self, poll: Snapshot) -> Outcome:
        """Apply a poll, a large one in parts: others have their turn in between."""
        keeping = []
        outcome = None
        size = PART
        parts = in_parts(
            poll,
            lambda: size,
            self._state.held_beside(poll),
            lambda: self._state.prunes(poll),
        )
        for part in parts:
            if outcome is not None:
                await asyncio.sleep(0)
            (outcome,), batch = self._apply([part])
            size = PART_OWED if batch.outbox else PART
            if batch:
                keeping.append(self._keep(batch))
        for kept in keeping:
            await in_passing(kept)
        return outcome or Outcome()

    def hear(self, events: Sequence[Statement]) -> Awaitable[None]:
        """Apply events at once, in order; what is given resolves when they are kept.

        What was heard stays true though it cannot be kept, which is raised as `NotKept`.
        """
        _, batch = self._apply(events)
        return self._keep(batch)

    async def push(self, statements: Sequence[Statement]) -> int:
        """Apply a push; resolves when all of it is kept.

        Nothing of it is applied if some of it is wrong. A long one is applied in parts, of which
        some may be kept when it fails between them: `NotKept` says how many.

        Returns how many statements altered a status or details.

        Raises:
            PushRefused: some statement must not be applied; nothing was.
            NotKept: it could not be kept; pushing it again does no harm.
        """
        self._must_take()
        if len(statements) <= AT_ONCE:
            refused = refusal(self._state, statements, self._clock())
        else:
            checking = refusal_in_slices(self._state, statements, self._clock, AT_ONCE)
            refused = await in_turns(checking)
        if refused is not None:
            self._tell_of_the_limits()
            raise refused
        if len(statements) > AT_ONCE:
            return await self._push_in_parts(statements)
        outcomes, batch = self._apply(statements, AT_ONCE)
        if len(outcomes) < len(statements):
            return await self._push_in_parts(statements, outcomes, batch)
        await self._keep(batch)
        return sum(outcome.altered() for outcome in outcomes)

    async def _push_in_parts(
        self,
        statements: Sequence[Statement],
        outcomes: Sequence[Outcome] = (),
        batch: Batch | None = None,
    ) -> int:
        """Apply what is left of a push that was checked; others have their turn in between.

        What they do may leave no room for the rest of it.
        """
        keeping = [] if batch is None else [self._keep(batch)]
        changed, taken = sum(outcome.altered() for outcome in outcomes), len(outcomes)
        try:
            while taken < len(statements):
                await asyncio.sleep(0)
                part = statements[taken : taken + PART]
                self._must_take(part)
                outcomes, batch = self._apply(part, AT_ONCE)
                keeping.append(self._keep(batch))
                changed += sum(outcome.altered() for outcome in outcomes)
                taken += len(outcomes)
        except NotKept as error:
            why = f"{taken} of {len(statements)} items were taken, push all again: {error}"
            raise NotKept(why) from None
        finally:
            await all_kept(keeping)
        return changed

    def _must_take(self, statements: Sequence[Statement] = ()) -> None:
        """Refuse a push while nothing can be kept, or while these must not be applied.

        Raises:
            NotKept: with the reason.
        """
        if not self.open:
            raise NotKept("the exporter is stopping")
        if (error := self._store.figures().error) is not None:
            raise NotKept(error)
        if statements and (faults := self._state.faults(statements, self._clock())):
            raise NotKept(faults[0][1])

    async def forget(self, what: Forget) -> int:
        """Remove keys, many in parts; resolves when it is kept. Returns how many were removed.

        Raises:
            NotKept: it could not be kept, or not all of it.
        """
        removed, bound = 0, self._state.identifiers
        keeping: list[Awaitable[None]] = []
        try:
            while self.open:
                (outcome,), batch = self._apply([replace(what, most=PART_FORGOTTEN)])
                keeping.append(self._keep(batch))
                removed += len(outcome.removed)
                # What is pushed meanwhile need not go: there might be no end of it.
                if len(outcome.removed) < PART_FORGOTTEN or removed >= bound:
                    break
                await asyncio.sleep(0)
            else:
                raise NotKept("the exporter is stopping")
        finally:
            await all_kept(keeping)
        return removed

    async def _let_leave(self, configured: Configured) -> None:
        """Remove the many keys of sources that leave with a configuration; the few go with it."""
        for source in self._state.leaving(configured):
            if source.identifiers > PART_FORGOTTEN:
                await in_passing(self.forget(Forget(source.name, leaves=True)))

    def advance(self, until: float = math.inf) -> bool:
        """Let expire and withhold of what is due by now, or until then, as much as takes no time.

        What that alters is kept in passing. Gives whether there was anything.
        """
        deadline = self._state.next_deadline()
        if deadline is None or deadline > min(until, self._clock()):
            return False
        _, batch = self._apply([Tick()])
        self._keep_in_passing(batch)
        return True

    def set_clock(self, by_seconds: float) -> None:
        """Be told that our clock was set."""
        outcome = self._state.set_clock(by_seconds)
        self._keep_in_passing(self._publish([outcome], {}, self._clock()))

    def _keep_in_passing(self, batch: Batch) -> None:
        task = asyncio.ensure_future(in_passing(self._keep(batch)))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def catch_up(self) -> None:
        """Let expire and withhold all that is due now; others have their turn in between."""
        now = self._clock()
        more = self.advance(until=now)
        while more:
            await asyncio.sleep(0)
            more = self.advance(until=now)

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

    def _apply(
        self, observations: Sequence[Observation], most: int | None = None
    ) -> tuple[list[Outcome], Batch]:
        """Apply what was observed, until that cost `most`; gives the outcomes of what was."""
        now = self._clock()
        apply, plan = self._state.apply, self._planner.plan
        outbox: dict[str, Owed | None] = {}
        outcomes = []
        for observation in observations:
            outcome = apply(observation, now)
            if owed := plan(outcome, now):
                outbox.update(owed)
            outcomes.append(outcome)
            if outbox and most is not None and len(outcomes) + OWED_COST * len(outbox) >= most:
                break
        return outcomes, self._publish(outcomes, outbox, now)

    def _publish(
        self, outcomes: Sequence[Outcome], outbox: dict[str, Owed | None], now: float
    ) -> Batch:
        if self._state.turned_away:
            self._tell_of_the_limits()
        batch = gather(outcomes, outbox)
        for outcome in outcomes:
            for reader in self._readers:
                reader(outcome)
        self._arm(now)
        return batch

    def _tell_of_the_limits(self) -> None:
        away, self._state.turned_away = self._state.turned_away, {}
        for (limit, source), times in away.items():
            self._limited.met(limit, _NO_ROOM[limit], times=times, source=source)

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
        return kept

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
