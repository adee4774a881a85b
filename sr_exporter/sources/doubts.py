"""Which keys of one source to ask for before the next poll (rule 8), and when. Pure.

Two events close together may have come in the wrong order, and one that does not fit what is
held tells that another was missed: OpenSIPS is asked what is so.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sr_exporter.model import fold

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sr_exporter.model import ListedStatus

#: At most one question in this time.
BETWEEN_SECONDS = 1.0
#: Of more than so many the next poll tells.
MOST_DOUBTS = 1000


class Doubts:
    """The keys of one source that are in doubt. Times are of one monotonic clock."""

    def __init__(self, max_share: float, soonest: float = 0.0) -> None:
        self._max_share = max_share
        self._keys: dict[tuple[str, str], tuple[str, str]] = {}
        self._asked_by_poll: set[tuple[str, str]] = set()
        self._soonest = soonest

    @property
    def due(self) -> float | None:
        """When to ask; None: for nothing."""
        return self._soonest if self._keys else None

    def add(self, group: str, identifier: str) -> None:
        key = fold(group), fold(identifier)
        self._asked_by_poll.discard(key)  # the poll under way may have been told before
        if key in self._keys or len(self._keys) < MOST_DOUBTS:
            self._keys[key] = group, identifier

    def take(self) -> tuple[str, str] | None:
        """Give the group and identifier to ask for now: the one that waits for longest."""
        key = next(iter(self._keys), None)
        return None if key is None else self._keys.pop(key)

    def asked(self, began: float, ended: float) -> None:
        """Be told how long a question took."""
        self._soonest = began + max(BETWEEN_SECONDS, (ended - began) / self._max_share)

    def poll_begins(self) -> None:
        self._asked_by_poll = set(self._keys)

    def poll_ended(self, heard: Iterable[ListedStatus]) -> None:
        """Be told what a poll heard: what was in doubt when it began is not any more."""
        if not self._asked_by_poll:
            return
        for item in heard:
            key = fold(item.group), fold(item.identifier)
            if key in self._asked_by_poll:
                self._keys.pop(key, None)
        self._asked_by_poll.clear()

    def give_up(self) -> None:
        """Be told that the source does not answer: the next good poll tells all."""
        self._keys.clear()
