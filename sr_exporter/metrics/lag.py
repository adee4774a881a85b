"""How late the event loop is: whatever holds it up holds up everybody."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

#: How often it is looked, and over how long a time the worst is told: over that of a scrape
#: interval, so that no scraper misses it.
LOOK_SECONDS = 0.05
WINDOW_SECONDS = 60.0


class LoopLag:
    """Sees how much later than asked for the loop comes back, by a monotonic clock in seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        #: When it was how late; what is followed by as late or later is left out.
        self._seen: deque[tuple[float, float]] = deque()

    async def run(self) -> None:
        """Look for ever."""
        while True:
            due = self._clock() + LOOK_SECONDS
            await asyncio.sleep(LOOK_SECONDS)
            now = self._clock()
            self.saw(max(0.0, now - due), now)

    def saw(self, late_seconds: float, now: float) -> None:
        while self._seen and self._seen[-1][1] <= late_seconds:
            self._seen.pop()
        self._seen.append((now, late_seconds))
        self._forget(now)

    def worst(self) -> float:
        """Give the longest that it was late within the window; 0 before the first look."""
        self._forget(self._clock())
        return self._seen[0][1] if self._seen else 0.0

    def _forget(self, now: float) -> None:
        while self._seen and self._seen[0][0] < now - WINDOW_SECONDS:
            self._seen.popleft()
