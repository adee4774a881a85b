"""Bounds what has come of objects that are not whole yet: in all, and in time."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

#: All that is unfinished together: many connections must not come to much memory.
MOST_BYTES = 32 * 2**20
#: For so long an object may be unfinished.
EVENT_SECONDS = 60.0


class Pool:
    """What all connections share."""

    def __init__(self) -> None:
        self.taken_bytes = 0


class Unfinished:
    """What one connection has brought of an object."""

    def __init__(self, pool: Pool, late: Callable[[], None]) -> None:
        """`late` is called when an object takes too long."""
        self._pool = pool
        self._late = late
        self._bytes = 0
        #: When the one before was whole, or its own first byte came.
        self._since = 0.0
        self._timer: asyncio.TimerHandle | None = None

    def holds(self, size: int, *, anew: bool) -> bool:
        """Note how much there is, `anew` after one that was whole; say whether there is room."""
        self._pool.taken_bytes += size - self._bytes
        if size and (anew or not self._bytes):
            loop = asyncio.get_running_loop()
            self._since = loop.time()
            if self._timer is None:
                self._timer = loop.call_later(EVENT_SECONDS, self._look)
        self._bytes = size
        return not size or self._pool.taken_bytes <= MOST_BYTES

    def end(self) -> None:
        """Let go of all of it."""
        self._pool.taken_bytes -= self._bytes
        self._bytes = 0
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self) -> None:
        self._timer = None
        if not self._bytes:
            return
        loop = asyncio.get_running_loop()
        left = self._since + EVENT_SECONDS - loop.time()
        if left > 0:
            self._timer = loop.call_later(left, self._look)
        else:
            self._late()
