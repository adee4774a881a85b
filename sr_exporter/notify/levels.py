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
#: How many alerts are looked at before others have their turn: in some 10 ms.
LOOKS = 100


class Levels:
    """Follows outcomes and the time."""

    def __init__(
        self,
        book: AlertBook,
        store: Store,
        wake: Callable[[], None],
        clock: Callable[[], float],
        *,
        followed: Callable[[], bool] = lambda: True,
    ) -> None:
        """`followed` says whether anybody is told of alerts; if not, the book waits for readers.

        Each look costs as much as a few changes, and a key that flaps takes one every time.
        """
        self._book = book
        self._store = store
        self._wake = wake
        self._followed = followed
        #: More was not looked at than the book notes, for nobody is told.
        self._missed = False
        self._clock = clock
        self._changed = asyncio.Event()
        self._tasks: set[asyncio.Future[None]] = set()

    def observe(self, outcome: Outcome) -> None:
        if self._followed():
            self._book.observe(outcome, self._clock())
            self._changed.set()
        elif not self._missed:
            self._missed = not self._book.note(outcome, self._clock())

    def refresh(
        self,
        owed: dict[str, Owed | None] | None = None,
        *,
        now: float | None = None,
        most: int | None = None,
    ) -> asyncio.Future[None] | None:
        """Bring the book up to date. What changed is kept, by one commit with what is owed.

        Gives what resolves when that is over; None when there was nothing to keep.
        """
        if most is None:
            self._look_again()
        changed = self._book.refresh(self._clock() if now is None else now, most)
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
            due = None
            if self._followed():
                await self.catch_up()
                due = self._book.next_due()
            wait = LONGEST_WAIT_SECONDS
            if due is not None:
                wait = min(wait, max(0.001, due - self._clock()))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait):
                    await self._changed.wait()

    async def catch_up(self) -> None:
        """Bring the book up to date in turns: whoever reads it then sees what is so now."""
        self._look_again()
        # What is observed meanwhile is for the next time: there might be no end of it.
        left = self._book.behind
        self.refresh(most=LOOKS)
        while (left := left - LOOKS) > 0:
            await asyncio.sleep(0)
            self.refresh(most=LOOKS)

    def _look_again(self) -> None:
        if self._missed:
            self._missed = False
            self._book.look_at_everything()

    async def settle(self) -> None:
        """Wait until what changed is kept."""
        while self._tasks:
            await asyncio.wait(self._tasks)


async def _tolerate(kept: asyncio.Future[None]) -> None:
    # A level that could not be kept is made again from the state after a restart.
    with contextlib.suppress(NotKept):
        await kept
