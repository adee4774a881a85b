"""When to poll next. Pure: times go in, times come out.

* A good poll is followed by the next on a grid of its own, so that many sources are spread
  over the interval and stay so.
* Over time all requests to a source take at most `max_share` of its time (rule 3): a listing
  that takes 0.6 s is asked for every 12 s at a share of 5 %.
* Failures back off, doubling to a minute, with jitter, so that a fleet that fell together
  does not rise together.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

LONGEST_BACKOFF_SECONDS = 60.0
#: How close together sources are polled for the first time.
FIRST_STEP_SECONDS = 0.05


@dataclass(slots=True)
class Pace:
    """The rhythm of one source. Times are of one monotonic clock."""

    interval_seconds: float
    max_share: float
    #: Where in the interval this source has its place.
    phase_seconds: float
    #: Gives a number in [0, 1).
    random: Callable[[], float]
    failures: int = 0
    #: Before this no poll may begin, whatever asks for it: `max_share` is used up.
    soonest: float = 0.0
    #: Until when the source's time pays for what was asked; None: nothing was.
    _paid: float | None = None
    #: What the next poll will take, as the last good one did.
    _expected: float = 0.0

    def took(self, began: float, ended: float) -> None:
        """Charge what a request took; polls wait for it to be paid for."""
        spent = ended - began
        # Time in which nothing was asked pays for what is asked after it: this, or a poll.
        saved = max(spent, self._expected) * (1 / self.max_share - 1)
        paid = began if self._paid is None else max(self._paid, began - saved)
        self._paid = paid + spent / self.max_share
        # The next poll is paid for before it begins: that holds the share at its end, too.
        ahead = self._paid + self._expected * (1 / self.max_share - 1)
        self.soonest = max(ahead, began + spent / self.max_share)

    def next_poll(self, began: float, ended: float, *, good: bool) -> float:
        """Give when to poll after a poll that ran from `began` to `ended`."""
        if good:
            self._expected = ended - began
            self.failures = 0
        self.took(began, ended)
        if good:
            return max(self.soonest, self._next_place(began))
        self.failures += 1
        longest = max(LONGEST_BACKOFF_SECONDS, self.interval_seconds)
        backoff = min(longest, self.interval_seconds * 2.0 ** min(self.failures - 1, 16))
        return max(self.soonest, ended + backoff * (0.75 + 0.25 * self.random()))

    def _next_place(self, began: float) -> float:
        """Give the first place on the grid that is well after `began`."""
        turns = (began - self.phase_seconds) // self.interval_seconds + 1
        place = self.phase_seconds + turns * self.interval_seconds
        # A poll that ran late must not be followed at once by the one that is on time.
        return place if place - began > self.interval_seconds / 2 else place + self.interval_seconds


def first_delay(index: int, interval_seconds: float, count: int) -> float:
    """Give how long after the start the source of this index is first polled."""
    return index * min(FIRST_STEP_SECONDS, interval_seconds / max(count, 1))


def phase(index: int, interval_seconds: float, count: int) -> float:
    """Give the place of the source of this index in its interval."""
    return index * interval_seconds / max(count, 1)
