"""What one notifier is owed: each subject's notifications in order, one at a time.

What is sent is a parcel: one row, or, with `gather`, all that is due of a source. A parcel that
was attempted may have been heard: it stays together until it is settled, so that its receiver
knows it again.
"""

from __future__ import annotations

import heapq
import math
from collections import deque
from dataclasses import replace
from itertools import islice
from typing import TYPE_CHECKING

from sr_exporter.notify.parcels import Parcel, Windows, fill
from sr_exporter.notify.rows import ALIKE, Rows, sharing
from sr_exporter.store.contract import Owed, Standing

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Iterable, Mapping

#: How many rows are made due at once in one go: 5 ms.
_HURRIED = 500


class Queue:
    """The rows of one notifier."""

    def __init__(self) -> None:
        self._rows = Rows()
        self._subjects: dict[str, deque[str]] = {}
        self._in_flight: set[str] = set()
        #: Rows whose commit is under way: a receiver must not hear what may be lost.
        self._unkept: set[str] = set()
        #: Given up since somebody asked, there being too many.
        self._given_up: list[str] = []
        self._due: list[tuple[float, int, str]] = []
        #: How long what is due waits for more of its source; None: it does not.
        self._gather_seconds: float | None = None
        self._windows = Windows()
        #: What leaves of each source, its window being over, the oldest first, and when that was.
        self._leaving: deque[tuple[float, deque[str]]] = deque()
        #: Rows that were attempted together, by the id of each.
        self._together: dict[str, tuple[str, ...]] = {}
        #: What is still to be looked through for what is due at once, the oldest last; since when,
        #: and but for which.
        self._hurried: list[Owed] = []
        self._hurried_at = -math.inf
        self._unhurried: Container[str] = ()
        #: The time when it was last looked at.
        self._looked_at = -math.inf
        #: By how much our clock was set since we began.
        self.clock_set_by = 0.0
        self._wake: Callable[[], None] = lambda: None

    def __len__(self) -> int:
        return len(self._rows)

    def owed(self, now: float) -> int:
        """Count what is owed; what a rule's time holds back is not, yet."""
        return self._rows.owed(now)

    @property
    def in_flight(self) -> int:
        return len(self._in_flight)

    def __contains__(self, row_id: object) -> bool:
        return row_id in self._rows

    def get(self, row_id: str) -> Owed | None:
        return self._rows.get(row_id)

    def rows(self) -> list[Owed]:
        return list(self._rows.values())

    def on_change(self, wake: Callable[[], None]) -> None:
        self._wake = wake

    def add(self, owed: Owed, *, kept: bool) -> None:
        """Put a row at the end of its subject, or replace it where it stands."""
        before = self._rows.get(owed.id)
        if before is None:
            waiting = self._subjects.setdefault(owed.subject, deque())
            others = [self._rows[row_id] for row_id in islice(reversed(waiting), ALIKE)]
            owed = sharing(owed, others)
            waiting.append(owed.id)
        if before is None or before.due_at != owed.due_at:
            self._push(owed)
        self._rows.put(owed)
        if kept:
            self._rows.leave_body(owed.id)
        else:
            self._unkept.add(owed.id)

    def insert(self, owed: Owed, *, after: str | None = None) -> Owed:
        """Put a row in its place among those of its subject: before all that are younger.

        Or right behind the row `after`. Never before one that is under way. Gives it with the
        number by which it stands there after a restart, too.
        """
        waiting = self._subjects.setdefault(owed.subject, deque())
        if after is None:
            first = int(owed.subject in self._in_flight)
            younger = (
                at
                for at, row_id in enumerate(waiting)
                if at >= first and self._rows[row_id].age > owed.age
            )
            place = next(younger, len(waiting))
        else:
            place = waiting.index(after) + 1
        seq = owed.seq
        if place < len(waiting):
            seq = min(seq, self._rows[waiting[place]].seq)
        if place:
            seq = max(seq, self._rows[waiting[place - 1]].seq)
        owed = replace(owed, seq=seq)
        waiting.insert(place, owed.id)
        self._rows.put(owed)
        self._unkept.add(owed.id)
        self._push(owed)
        return owed

    def withdraw(self, owed: Owed) -> None:
        self._rows.remove(owed.id)
        self._unkept.discard(owed.id)
        for other in self._together.get(owed.id, ()):
            self._together.pop(other, None)
            if other != owed.id:
                # It may have waited for this one.
                self._push(self._rows[other])
        waiting = self._subjects[owed.subject]
        waiting.remove(owed.id)
        if waiting:
            self._push(self._rows[waiting[0]])
        else:
            del self._subjects[owed.subject]

    def held(self, subject: str, now: float) -> Owed | None:
        """Give the row of this subject that is still held back, if there is one."""
        ids = self._subjects.get(subject)
        last = self._rows[ids[-1]] if ids else None
        if last is None or last.standing is not Standing.HELD or last.due_at <= now:
            return None
        # Under way already, though our clock went back since.
        under_way = subject in self._in_flight and self._subjects[subject][0] == last.id
        return None if under_way else last

    def last(self, subject: str, now: float) -> Owed | None:
        """Give the last row of this subject that will be sent, come what may."""
        ids = self._subjects.get(subject)
        if not ids:
            return None
        if self.held(subject, now) is None:
            return self._rows[ids[-1]]
        return self._rows[ids[-2]] if len(ids) > 1 else None

    def rename(self, notifier: str) -> list[Owed]:
        """Have all rows be another notifier's; gives them."""
        for owed in self._rows.values():
            self._rows.put(replace(owed, notifier=notifier))
        return self.rows()

    def withdraw_oldest(self, most: int) -> list[Owed]:
        """Take out the oldest rows beyond so many, but for what is under way or not kept yet."""
        surplus = len(self._rows) - most
        if surplus <= 0:
            return []
        free = (
            owed
            for owed in self._rows.values()
            if owed.id not in self._unkept
            and not (owed.subject in self._in_flight and self._is_first(owed))
        )
        oldest = list(islice(free, surplus))
        for owed in oldest:
            self.withdraw(owed)
        self._given_up += [owed.id for owed in oldest]
        return oldest

    def given_up(self) -> list[str]:
        """Give which rows were taken out since this was last asked, there being too many."""
        found, self._given_up = self._given_up, []
        return found

    def mark_kept(self, row_id: str) -> None:
        self._unkept.discard(row_id)
        self._rows.leave_body(row_id)
        self._wake()

    def unread(self) -> list[Owed]:
        """Give the rows whose bodies are to be read from the store now, for `fill`."""
        return self._rows.unread()

    def fill(self, unread: Iterable[Owed], bodies: Mapping[str, bytes]) -> None:
        """Take bodies that were read."""
        self._rows.fill(unread, bodies)

    def gather(self, seconds: float | None) -> None:
        """Have what is due of a source wait so long for more, and leave together; None: alone."""
        if seconds == self._gather_seconds:
            return
        self._gather_seconds = seconds
        leaving = [row_id for _, left in self._leaving for row_id in left]
        self._leaving.clear()
        for row_id in (*leaving, *self._windows.abandon()):
            if row_id in self._rows:
                self._push(self._rows[row_id])
        self._wake()

    def leave_now(self) -> None:
        """Have nothing wait for more of its source."""
        if self._gather_seconds is not None:
            self.gather(0.0)

    def take(self, now: float) -> Parcel | None:
        """Give what may be sent next; its subjects are in flight until `settle`."""
        if now < self._looked_at:
            self._go_back(now)
        self._looked_at = now
        self._hurry()
        while self._due and self._due[0][0] <= now:
            due_at, _, row_id = self._due[0]
            owed = self._rows.get(row_id)
            if owed is not None and row_id in self._unkept:
                # Its commit is under way, and so is that of everything after it.
                break
            heapq.heappop(self._due)
            # Of a row that is due at another time now this is no word any more.
            if owed is None or owed.due_at != due_at or not self._may_go(owed):
                continue
            if row_id in self._together:
                rows = [self._rows[other] for other in self._together[row_id]]
                # Else one of them waits for an older one of its subject that came back: when
                # that is settled this is looked at again.
                if all(map(self._may_go, rows)):
                    return self._send(rows, grouped=True)
            elif self._gather_seconds is None:
                return self._send([owed], grouped=False)
            else:
                self._windows.join(owed, due_at + self._gather_seconds)
        return self._take_gathered(now)

    def set_clock(self, by_seconds: float) -> None:
        """Be told that our clock was set: what waits goes on waiting as long as it would have."""
        self.clock_set_by += by_seconds
        self._looked_at += by_seconds
        self._hurried_at += by_seconds
        self._due.clear()
        self._windows.abandon()
        for owed in list(self._rows.values()):
            created_at, due_at = owed.created_at + by_seconds, owed.due_at + by_seconds
            again = replace(owed, created_at=created_at, due_at=due_at)
            self._rows.put(again)
            self._push(again)
        self._wake()

    def _go_back(self, now: float) -> None:
        """Have what waits not wait for the clock to come back to where it was."""
        step = self._looked_at - now
        for owed in self._rows.values():
            due_at = owed.due_at
            if owed.standing is Standing.OWED:
                due_at = max(min(due_at, now), due_at - step)
            elif owed.created_at > now:
                # As in the book: what begins in the future begins now.
                due_at = min(due_at, now + due_at - owed.created_at)
            if due_at != owed.due_at:
                again = replace(owed, due_at=due_at)
                self._rows.put(again)
                self._push(again)
        for row_id in self._windows.abandon():
            if row_id in self._rows:
                self._push(self._rows[row_id])

    def _take_gathered(self, now: float) -> Parcel | None:
        """Give what gathered of a source whose window is over, each source in its turn."""
        while (closed := self._windows.close(now)) is not None:
            rows = [self._rows[row_id] for row_id in closed if row_id in self._rows]
            in_order = sorted(rows, key=lambda owed: owed.age)
            self._leaving.append((now, deque(owed.id for owed in in_order)))
        while self._leaving:
            over_at, left = self._leaving.popleft()
            parcel = fill(left, lambda row_id: self._ready(row_id, now))
            if left:
                self._leaving.append((over_at, left))
            if parcel:
                return self._send(parcel, grouped=True)
        return None

    def _ready(self, row_id: str, now: float) -> Owed | None:
        """Give a row that gathered, if it may leave now."""
        owed = self._rows.get(row_id)
        if owed is None:
            return None
        if row_id in self._unkept or owed.due_at > now:
            self._push(owed)  # our clock went back, and it may have been altered since
            return None
        return owed if self._may_go(owed) else None

    def _may_go(self, owed: Owed) -> bool:
        """Whether no other of its subject is before it, or under way."""
        return owed.subject not in self._in_flight and self._is_first(owed)

    def _is_first(self, owed: Owed) -> bool:
        return self._subjects[owed.subject][0] == owed.id

    def _send(self, rows: Iterable[Owed], *, grouped: bool) -> Parcel:
        parcel = Parcel(tuple(rows), grouped)
        self._in_flight.update(owed.subject for owed in parcel.rows)
        return parcel

    def settle(self, parcel: Parcel, retry_at: float | None = None) -> None:
        """End an attempt: the rows are gone, or stay and are due again at `retry_at`."""
        self._in_flight.difference_update(owed.subject for owed in parcel.rows)
        for owed in parcel.rows:
            if retry_at is None:
                self.withdraw(owed)
                continue
            # What was attempted may have been heard: it is not held back any more.
            # Whose it is tells the row here: its notifier may have another name by now.
            again = replace(
                self._rows[owed.id],
                attempts=owed.attempts,
                due_at=retry_at,
                standing=Standing.OWED,
            )
            self._rows.put(again)
            self._push(again)
        if retry_at is not None and parcel.grouped:
            ids = tuple(owed.id for owed in parcel.rows)
            self._together.update(dict.fromkeys(ids, ids))

    def halve(self, parcel: Parcel, now: float) -> None:
        """End an attempt of more than a receiver takes at once: it goes on as two."""
        self.settle(parcel, retry_at=now)
        middle = len(parcel.rows) // 2
        for half in (parcel.rows[:middle], parcel.rows[middle:]):
            ids = tuple(owed.id for owed in half)
            self._together.update(dict.fromkeys(ids, ids))

    def _push(self, owed: Owed) -> None:
        """Have a row be looked at when it is due."""
        heapq.heappush(self._due, (owed.due_at, owed.seq, owed.id))

    def retry_now(self, now: float, *, but: Container[str] = ()) -> None:
        """Have what waits for another attempt be due at once, but for some.

        Much of it in slices, the oldest first: the others when there is room to send them.
        """
        self._hurried = list(self._rows.values())
        self._hurried.reverse()
        self._hurried_at, self._unhurried = now, but
        self._hurry()
        self._wake()

    def _hurry(self) -> None:
        now = self._hurried_at
        for _ in range(min(_HURRIED, len(self._hurried))):
            before = self._hurried.pop()
            owed = self._rows.get(before.id)
            # One that was attempted since has its time by that.
            if owed is None or owed.attempts != before.attempts or owed.id in self._unhurried:
                continue
            if owed.standing is Standing.OWED and owed.due_at > now:
                again = replace(owed, due_at=now)
                self._rows.put(again)
                self._push(again)

    def next_due(self) -> float | None:
        """Give when to look again, or None when nothing waits for the time."""
        ends = self._windows.next_end()
        dues = [due for due, _, _ in self._due[:1]] + [due for due, _ in islice(self._leaving, 1)]
        if self._hurried:
            dues.append(self._hurried_at)
        return min(dues if ends is None else [*dues, ends], default=None)
