"""What leaves together, and how long it waits for more. Pure.

A parcel is what one request carries. Rows stay what they are, one change each: what is kept,
withdrawn, ordered and given up is always a row.
"""

from __future__ import annotations

import heapq
import uuid
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from collections import deque
    from collections.abc import Callable

    from sr_exporter.store.contract import Owed

#: The most rows, and bytes of their bodies, of one parcel; a single row may be larger.
MOST_ROWS = 1_000
MOST_BYTES = 2**20

_decode_subject = msgspec.json.Decoder(list[str]).decode
_NAMESPACE = uuid.UUID("5b0f3c2e-9a43-4f0d-8d0e-3a1b7f6f2c11")


@dataclass(frozen=True, slots=True)
class Parcel:
    #: The oldest first; each of another subject.
    rows: tuple[Owed, ...]
    #: It is written as a notification of its source, though it may hold one row only.
    grouped: bool = False

    @property
    def id(self) -> str:
        """What the receiver sees as `X-SR-Delivery`; the same for the same rows.

        Made of all of them, not of one: after a crash other rows may leave together, and a
        receiver that drops what it knows by its id must not drop one that it never heard.
        """
        if len(self.rows) == 1:
            return self.rows[0].id
        return str(uuid.uuid5(_NAMESPACE, " ".join(row.id for row in self.rows)))

    @property
    def attempts(self) -> int:
        return max(row.attempts for row in self.rows)

    def attempted(self) -> Parcel:
        """Give it with one attempt more."""
        rows = tuple(replace(row, attempts=row.attempts + 1) for row in self.rows)
        return replace(self, rows=rows)


def fill(left: deque[str], ready: Callable[[str], Owed | None]) -> list[Owed]:
    """Take as many of these as one parcel takes, in their order, and leave the rest.

    Whoever is not `ready` is taken out, too. What is left is not looked at: there may be very many.
    """
    rows: list[Owed] = []
    size = 0
    while left and len(rows) < MOST_ROWS:
        row = ready(left[0])
        if row is not None:
            size += row.size if row.body is None else len(row.body)
            if rows and size > MOST_BYTES:
                break
            rows.append(row)
        left.popleft()
    return rows


class Windows:
    """The rows that wait for others of their source, and until when.

    The first of a source opens a window; when that is over all that joined it are given.
    """

    def __init__(self) -> None:
        self._rows: dict[str, dict[str, None]] = {}
        #: When each window is over; each is in here once.
        self._ends: list[tuple[float, str]] = []

    def join(self, owed: Owed, ends_at: float) -> None:
        """Have a row wait in its source's window, or open one that ends at `ends_at`."""
        source = _source_of(owed)
        if source not in self._rows:
            heapq.heappush(self._ends, (ends_at, source))
        self._rows.setdefault(source, {})[owed.id] = None

    def close(self, now: float) -> list[str] | None:
        """Give the rows of a window that is over, if one is."""
        if not self._ends or self._ends[0][0] > now:
            return None
        _, source = heapq.heappop(self._ends)
        return list(self._rows.pop(source))

    def abandon(self) -> list[str]:
        """Close all of them, whatever the time; gives all rows."""
        found = [row_id for rows in self._rows.values() for row_id in rows]
        self._rows.clear()
        self._ends.clear()
        return found

    def next_end(self) -> float | None:
        return self._ends[0][0] if self._ends else None


def _source_of(owed: Owed) -> str:
    # The watchdog is of none.
    return next(iter(_decode_subject(owed.subject)), "")
