"""The one clock: Unix time that goes on evenly, and is told when the machine's is set.

A machine's clock is set by hand, by NTP after a boot without a battery, or by a host that resumes
a guest: by hours, forwards or back. What lasts (a time to live, a back-off, a rule's `for`) lasts
as long as it does, whatever the clock says meanwhile. So time is told by the monotonic clock, and
the distance of that to the machine's is looked at twice a second: a small one is followed, a large
one is a step, which everybody who holds a time to come is told of.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

import structlog

if TYPE_CHECKING:
    from collections.abc import Callable

log = structlog.get_logger(__name__)

#: How often the machine's clock is looked at, and from which distance on it was set.
LOOK_SECONDS = 0.5
STEP_SECONDS = 2.0


class Clock:
    """Called, it gives Unix seconds."""

    def __init__(
        self,
        wall: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._wall = wall
        self._monotonic = monotonic
        self._ahead = wall() - monotonic()

    def __call__(self) -> float:
        return self._monotonic() + self._ahead

    def follow(self) -> float:
        """Tell the machine's time from now on. Gives by how many seconds that was set, or 0."""
        before, self._ahead = self._ahead, self._wall() - self._monotonic()
        by = self._ahead - before
        return by if abs(by) >= STEP_SECONDS else 0.0

    async def run(self, *when_set: Callable[[float], None]) -> None:
        """Follow the machine's for ever, and tell of each step, one after the other."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            if by := self.follow():
                log.warning("this machine's clock was set", by_seconds=round(by, 1))
                for tell in when_set:
                    tell(by)
