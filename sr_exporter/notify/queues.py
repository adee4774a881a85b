"""What one notifier is owed: each subject's notifications in order, one at a time."""

from __future__ import annotations

import heapq
from collections import deque
from dataclasses import replace
from typing import TYPE_CHECKING

from sr_exporter.store.contract import Owed, Standing

if TYPE_CHECKING:
    from collections.abc import Callable, Container


class Queue:
    """The rows of one notifier."""

    def __init__(self) -> None:
        self._rows: dict[str, Owed] = {}
        self._subjects: dict[str, deque[str]] = {}
        self._in_flight: set[str] = set()
        #: Rows whose commit is under way: a receiver must not hear what may be lost.
        self._unkept: set[str] = set()
        self._due: list[tuple[float, int, str]] = []
        self._wake: Callable[[], None] = lambda: None

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def in_flight(self) -> int:
        return len(self._in_flight)

    def __contains__(self, row_id: object) -> bool:
        return row_id in self._rows

    def rows(self) -> list[Owed]:
        return list(self._rows.values())

    def on_change(self, wake: Callable[[], None]) -> None:
        self._wake = wake

    def add(self, owed: Owed, *, kept: bool) -> None:
        """Put a row at the end of its subject, or replace it where it stands."""
        before = self._rows.get(owed.id)
        if before is None:
            self._subjects.setdefault(owed.subject, deque()).append(owed.id)
        if before is None or before.due_at != owed.due_at:
            heapq.heappush(self._due, (owed.due_at, owed.seq, owed.id))
        self._rows[owed.id] = owed
        if not kept:
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
        self._rows[owed.id] = owed
        self._unkept.add(owed.id)
        heapq.heappush(self._due, (owed.due_at, owed.seq, owed.id))
        return owed

    def withdraw(self, owed: Owed) -> None:
        del self._rows[owed.id]
        self._unkept.discard(owed.id)
        self._subjects[owed.subject].remove(owed.id)
        if not self._subjects[owed.subject]:
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
        for row_id, owed in self._rows.items():
            self._rows[row_id] = replace(owed, notifier=notifier)
        return self.rows()

    def mark_kept(self, row_id: str) -> None:
        self._unkept.discard(row_id)
        self._wake()

    def take(self, now: float) -> Owed | None:
        """Give the next row that may be sent; its subject is in flight until `settle`."""
        while self._due and self._due[0][0] <= now:
            due_at, _, row_id = self._due[0]
            owed = self._rows.get(row_id)
            if owed is not None and row_id in self._unkept:
                # Its commit is under way, and so is that of everything after it.
                return None
            heapq.heappop(self._due)
            # Of a row that is due at another time now this is no word any more.
            if owed is None or owed.due_at != due_at or owed.subject in self._in_flight:
                continue
            if self._subjects[owed.subject][0] == row_id:
                self._in_flight.add(owed.subject)
                return owed
        return None

    def settle(self, owed: Owed, retry_at: float | None = None) -> None:
        """End an attempt: the row is gone, or stays and is due again at `retry_at`."""
        self._in_flight.discard(owed.subject)
        if retry_at is None:
            self.withdraw(owed)
        else:
            # What was attempted may have been heard: it is not held back any more.
            # Whose it is tells the row here: its notifier may have another name by now.
            self._rows[owed.id] = replace(
                self._rows[owed.id],
                attempts=owed.attempts,
                due_at=retry_at,
                standing=Standing.OWED,
            )
        waiting = self._subjects.get(owed.subject)
        if waiting:
            head = self._rows[waiting[0]]
            heapq.heappush(self._due, (head.due_at, head.seq, head.id))

    def retry_now(self, now: float, *, but: Container[str] = ()) -> None:
        """Have what waits for another attempt be due at once, but for some."""
        for row_id, owed in self._rows.items():
            if owed.standing is Standing.OWED and owed.due_at > now and row_id not in but:
                self._rows[row_id] = replace(owed, due_at=now)
                heapq.heappush(self._due, (now, owed.seq, row_id))
        self._wake()

    def next_due(self) -> float | None:
        """Give when to look again, or None when nothing waits for the time."""
        return self._due[0][0] if self._due else None
