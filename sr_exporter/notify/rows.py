"""The rows of what one notifier is owed, in little memory.

A row that the store keeps needs no body here: beyond `BODY_BYTES` bodies are left to the store,
those of the youngest first, and read when there is room again. What is left of a row is small:
what rows of one subject say alike is held once.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from sr_exporter.notify import payload
from sr_exporter.store.contract import Standing

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from sr_exporter.store.contract import Owed

#: How much of bodies is in memory, those that are not kept yet not counted.
BODY_BYTES = 4 * 2**20
#: How many rows of a subject are looked at for what they say alike: an alert and its end.
ALIKE = 2


class Rows:
    """By id, the oldest first but for what came back."""

    def __init__(self) -> None:
        self._rows: dict[str, Owed] = {}
        self._body_bytes = 0
        #: How many bodies are left to the store.
        self._left = 0
        #: Rows that were held back when they were put here.
        self._held: set[str] = set()

    def __len__(self) -> int:
        return len(self._rows)

    def __contains__(self, row_id: object) -> bool:
        return row_id in self._rows

    def __getitem__(self, row_id: str) -> Owed:
        return self._rows[row_id]

    def get(self, row_id: str) -> Owed | None:
        return self._rows.get(row_id)

    def values(self) -> Collection[Owed]:
        return self._rows.values()

    def owed(self, now: float) -> int:
        """Count those that nothing holds back."""
        return len(self._rows) - sum(self._rows[row_id].is_held(now) for row_id in self._held)

    def put(self, owed: Owed) -> None:
        """Add a row, or replace it in its place."""
        self._count(self._rows.get(owed.id), -1)
        self._count(owed, 1)
        self._rows[owed.id] = owed
        if owed.standing is Standing.HELD:
            self._held.add(owed.id)
        else:
            self._held.discard(owed.id)

    def remove(self, row_id: str) -> None:
        self._count(self._rows.pop(row_id), -1)
        self._held.discard(row_id)

    def leave_body(self, row_id: str) -> None:
        """Leave the body of a row to the store, which keeps it, where there are too many."""
        owed = self._rows.get(row_id)
        if owed is not None and self._body_bytes > BODY_BYTES:
            self.put(payload.without_body(owed))

    def unread(self) -> list[Owed]:
        """Give the rows whose bodies are to be read, once there is room for many."""
        room = BODY_BYTES - self._body_bytes
        found: list[Owed] = []
        if not self._left or room < BODY_BYTES / 2:
            return found
        for owed in self._rows.values():
            if owed.body is None:
                room -= owed.size
                if found and room < 0:
                    break
                found.append(owed)
        return found

    def fill(self, unread: Iterable[Owed], bodies: Mapping[str, bytes]) -> None:
        """Give rows their bodies, unless they were altered since they were given."""
        for owed in unread:
            if owed.id in bodies and self._rows.get(owed.id) is owed:
                self.put(replace(owed, body=bodies[owed.id]))

    def _count(self, owed: Owed | None, sign: int) -> None:
        if owed is not None:
            self._left += sign * (owed.body is None)
            self._body_bytes += sign * len(owed.body or b"")


class Holding:
    """Makes of rows, as they are read from a store, what is held of them: no bodies."""

    def __init__(self) -> None:
        self._last: dict[tuple[str, str], tuple[Owed, ...]] = {}

    def __call__(self, owed: Owed) -> Owed:
        whose = owed.notifier, owed.subject
        others = self._last.get(whose, ())
        owed = sharing(payload.without_body(owed), others)
        self._last[whose] = (owed, *others)[:ALIKE]
        return owed


def sharing(owed: Owed, others: Sequence[Owed]) -> Owed:
    """Give a row with what others of its subject say too, as the same objects."""
    if not others:
        return owed
    gist = next((one.gist for one in others if one.gist == owed.gist), owed.gist)
    return replace(owed, subject=others[0].subject, notifier=others[0].notifier, gist=gist)
