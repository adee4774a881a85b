"""Keeps the book of levels up to date, has it kept, and wakes who sends it."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

from sr_exporter.errors import NotKept
from sr_exporter.store.contract import Batch

if TYPE_CHECKING:
    from collections.abc import Callable

    from sr_exporter.notify.book import AlertBook
    from sr_exporter.outcome import Outcome
    from sr_exporter.store.contract import Owed, Store

#: The longest time between two looks: our clock may have jumped.
LONGEST_WAIT_SECONDS = 5.0


class Levels:
    """Follows outcomes and the time."""

    def __init__(
        self,
        book: AlertBook,
        store: Store,
        wake: Callable[[], None],
        clock: Callable[[], float],
    ) -> None:
        self._book = book
        self._store = store
        self._wake = wake
        self._clock = clock
        self._changed = asyncio.Event()
        self._tasks: set[asyncio.Future[None]] = set()

    def observe(self, outcome: Outcome) -> None:
        self._book.observe(outcome, self._clock())
        self._changed.set()

    def refresh(
        self, owed: dict[str, Owed | None] | None = None, *, now: float | None = None
    ) -> asyncio.Future[None] | None:
        """Bring the book up to date. What changed is kept, by one commit with what is owed.

        Gives what resolves when that is over; None when there was nothing to keep.
        """
        changed = self._book.refresh(self._clock() if now is None else now)
        if not changed and not owed:
            return None
        if changed:
            self._wake()
        # Handed over before this returns: the store sees rows in the order they were made.
        kept = self._store.commit(Batch(alerts=changed, outbox=owed or {}))
        keeping = asyncio.ensure_future(_tolerate(kept))
        self._tasks.add(keeping)
        keeping.add_done_callback(self._tasks.discard)
        return keeping

    async def run(self) -> None:
        """Follow for ever."""
        while True:
            self._changed.clear()
            self.refresh()
            due = self._book.next_due()
            wait = LONGEST_WAIT_SECONDS
            if due is not None:
                wait = min(wait, max(0.001, due - self._clock()))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait):
                    await self._changed.wait()

    async def settle(self) -> None:
        """Wait until what changed is kept."""
        while self._tasks:
            await asyncio.wait(self._tasks)


async def _tolerate(kept: asyncio.Future[None]) -> None:
    # A level that could not be kept is made again from the state after a restart.
    with contextlib.suppress(NotKept):
        await kept
