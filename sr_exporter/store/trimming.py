"""Keeps what a store holds within its bounds, a little at a time.

Whatever is out of bounds is removed in slices, each a commit of its own, so that whoever waits
for a commit waits milliseconds. While something is left to remove the next slice comes soon;
when nothing is, after `TRIM_SECONDS`, or when the journal grew by a slice.

What is old is told by this machine's clock, and that may be wrong. One that leaps ahead by more
than a day, while we run or since the youngest change that is kept, is believed once it has stood
for an hour: whoever sets it right within that time has lost nothing. A change from a time that is
still to come was written by a clock that was ahead, and is as old as those around it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sr_exporter.model import TOMBSTONE_SECONDS, TOMBSTONES
from sr_exporter.store.contract import DEAD_ROWS, JOURNAL_ROWS

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable

#: How often what is past its retention is looked for.
TRIM_SECONDS = 600.0
#: How many rows one slice removes.
TRIM_ROWS = 1_000
#: How long the next slice waits when nobody asks for a commit meanwhile.
TRIM_PAUSE_SECONDS = 0.01

#: From which distance on a clock has leapt ahead, and when it is believed all the same.
LEAP_SECONDS = 86_400.0
TRUST_SECONDS = 3_600.0

_OLD_CHANGES = (
    "DELETE FROM changes WHERE seq IN"
    " (SELECT seq FROM changes WHERE at < :oldest ORDER BY at LIMIT :slice) RETURNING seq"
)
_CHANGES_FROM_THE_FUTURE = (
    "DELETE FROM changes WHERE seq IN"
    " (SELECT seq FROM changes WHERE at > :ahead AND seq < :gone ORDER BY at DESC LIMIT :slice)"
)
_YOUNGEST_CHANGE = "SELECT max(at) FROM changes"
_SURPLUS_CHANGES = (
    "DELETE FROM changes WHERE seq IN"
    " (SELECT seq FROM changes WHERE seq <= (SELECT max(seq) FROM changes) - :journal_rows"
    " ORDER BY seq LIMIT :slice)"
)
_OLD_DEAD = (
    "DELETE FROM outbox WHERE id IN"
    " (SELECT id FROM outbox WHERE standing = 'dead' AND created_at < :oldest LIMIT :slice)"
)
_SURPLUS_DEAD = (
    "DELETE FROM outbox WHERE id IN"
    " (SELECT id FROM outbox WHERE standing = 'dead' ORDER BY created_at DESC, id DESC"
    " LIMIT :slice OFFSET :dead_rows)"
)
_OLD_TOMBSTONES = (
    "DELETE FROM tombstones WHERE (source, group_fold, identifier_fold) IN"
    " (SELECT source, group_fold, identifier_fold FROM tombstones WHERE at < :forgotten"
    " LIMIT :slice)"
)
_SURPLUS_TOMBSTONES = (
    "DELETE FROM tombstones WHERE (source, group_fold, identifier_fold) IN"
    " (SELECT source, group_fold, identifier_fold FROM tombstones ORDER BY at DESC"
    " LIMIT :slice OFFSET :tombstones)"
)
_JOURNAL = [_OLD_CHANGES, _CHANGES_FROM_THE_FUTURE, _SURPLUS_CHANGES]
_EVERYTHING = [*_JOURNAL, _OLD_DEAD, _SURPLUS_DEAD, _OLD_TOMBSTONES, _SURPLUS_TOMBSTONES]


class Trimming:
    """Says when to trim, and does it."""

    def __init__(self, retention_seconds: float, clock: Callable[[], float]) -> None:
        self._retention_seconds = retention_seconds
        self._clock = clock
        #: What is still to be removed from, in order.
        self._left = list(_EVERYTHING)
        #: When all of it is looked through again.
        self._due_at = 0.0
        #: How many changes were written since the journal was last looked through.
        self._grown = 0
        self._asked = False
        #: What the time was when it was believed last, and when that was by the monotonic clock.
        self._believed: tuple[float, float] | None = None
        #: Since when, by that, this machine's clock is not believed.
        self._doubted_since: float | None = None
        #: The newest change that went for its age.
        self._gone = 0

    def retain(self, seconds: float) -> None:
        """Have another retention from now on; called on any thread."""
        self._retention_seconds = seconds
        self._asked = True

    def wait_seconds(self, now: float) -> float:
        """Give how long there is nothing to do, `now` by the monotonic clock."""
        return TRIM_PAUSE_SECONDS if self._left else max(0.0, self._due_at - now)

    def step(self, database: sqlite3.Connection, now: float, written: int) -> None:
        """Remove a slice of what is out of bounds, if it is time to look for it.

        A slice is as large as the commit before it wrote changes, and more: the journal is
        trimmed as fast as it grows.
        """
        self._grown += written
        if self._asked or now >= self._due_at:
            self._asked = False
            self._due_at = now + TRIM_SECONDS
            self._left = list(_EVERYTHING)
        elif self._grown >= TRIM_ROWS and not self._left:
            self._left = list(_JOURNAL)
        if not self._left:
            return
        self._grown = 0
        wall = self._time(database, now)
        bounds = {
            "oldest": wall - self._retention_seconds,
            "ahead": wall + LEAP_SECONDS,
            "gone": self._gone,
            "forgotten": wall - TOMBSTONE_SECONDS,
            "journal_rows": JOURNAL_ROWS,
            "dead_rows": DEAD_ROWS,
            "tombstones": TOMBSTONES,
            "slice": TRIM_ROWS + written,
        }
        while self._left:
            done = database.execute(self._left[0], bounds)
            found = done.fetchall()
            removed = len(found) or done.rowcount
            bounds["gone"] = self._gone = max(self._gone, *(seq for (seq,) in found), 0)
            if removed >= bounds["slice"]:
                return  # there may be more: soon
            del self._left[0]

    def _time(self, database: sqlite3.Connection, now: float) -> float:
        """Give the time that ages are told by."""
        wall = self._clock()
        if self._believed is None:
            (youngest,) = database.execute(_YOUNGEST_CHANGE).fetchone()
            self._believed = (wall if youngest is None else youngest, now)
        then, seen_at = self._believed
        expected = then + now - seen_at
        if wall - expected > LEAP_SECONDS:
            if self._doubted_since is None:
                self._doubted_since = now
            if now - self._doubted_since < TRUST_SECONDS:
                return expected
        self._doubted_since = None
        self._believed = (wall, now)
        return wall
