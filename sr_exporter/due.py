"""What falls due, and when it is to be looked at.

There is one place for each: what is put off, as every heartbeat does, is looked at when its old
time comes, and put where it belongs by then. Nothing here takes long, however much there is:
what need not be looked at any more is swept out a little at a time.
"""

from __future__ import annotations

import heapq
import itertools
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterator

T = TypeVar("T", bound="Hashable")

#: How many places that are void may there be before they are swept out, beside one of two.
_ROOM = 1024
#: How many places are looked at for the next time, in 0.2 ms.
_LOOKS = 100
#: How many places are swept at every change, and whenever the next time is asked for.
_SWEPT = 2


class Due(Generic[T]):
    """Times to look at things. `due_time` says when one is due by now, or None."""

    def __init__(self, due_time: Callable[[T], float | None]) -> None:
        self._due_time = due_time
        self._heap: list[tuple[float, int, T]] = []
        #: As the other, and of what is swept: what is valid goes over.
        self._old: list[tuple[float, int, T]] = []
        #: Where each has its valid place.
        self._at: dict[T, float] = {}
        self._tie = itertools.count()

    def __len__(self) -> int:
        """Count the places, void ones too."""
        return len(self._heap) + len(self._old)

    def put(self, at: float, what: T) -> None:
        """Have something looked at by then, at the latest."""
        held = self._at.get(what)
        if held is not None and held <= at:
            return
        self._at[what] = at
        heapq.heappush(self._heap, (at, next(self._tie), what))
        self._sweep()

    def drop(self, what: T) -> None:
        """Look at something no more."""
        if self._at.pop(what, None) is not None:
            self._sweep()

    def next(self) -> float | None:
        """Give the time to look next, when something is due or could be; None: never."""
        if not self._heap and not self._old:
            return None
        self._sweep()
        for _ in range(_LOOKS):
            heap = self._first()
            if not heap:
                return None
            at, _, what = heap[0]
            if self._at.get(what) == at == self._due_time(what):
                return at
            heapq.heappop(heap)
            self._put_off(at, what)
        heap = self._first()
        return heap[0][0] if heap else None

    def take(self, now: float, looks: int) -> Iterator[tuple[float, T]]:
        """Take out what is due by now, in its order; after so many looks the rest is left."""
        for _ in range(looks):
            heap = self._first()
            if not heap or heap[0][0] > now:
                return
            at, _, what = heapq.heappop(heap)
            if self._at.get(what) == at == self._due_time(what):
                del self._at[what]
                yield at, what
            else:
                self._put_off(at, what)

    def _put_off(self, at: float, what: T) -> None:
        """Put something where it belongs, its place of that time being gone."""
        if self._at.get(what) == at:
            del self._at[what]
            due = self._due_time(what)
            if due is not None:
                self.put(due, what)

    def _first(self) -> list[tuple[float, int, T]]:
        """Give the one of the two in which the first place is."""
        if self._old and (not self._heap or self._old[0] < self._heap[0]):
            return self._old
        return self._heap

    def _sweep(self) -> None:
        if not self._old and len(self._heap) > 2 * len(self._at) + _ROOM:
            self._old, self._heap = self._heap, []
        for _ in range(min(_SWEPT, len(self._old))):
            place = self._old.pop()  # what is left of a heap without its last is one
            if self._at.get(place[2]) == place[0]:
                heapq.heappush(self._heap, place)
