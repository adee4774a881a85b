"""What of a source's last poll still stands: the same bytes again alter nothing. Pure.

A listing is told from another by its mark, a digest of its bytes. Of one that differs from what
was applied last only the differences need be compared with what is held, and of one with the same
mark nothing, unless something else spoke of a key of the source since: an event, a check, a removal
(`stirred`). It is no shortcut to another end: only a listing is remembered that was applied whole,
each identifier once, none of them left out or outranked.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from sr_exporter.held import Entry
    from sr_exporter.model import Report, Snapshot


class _Seal(NamedTuple):
    mark: bytes
    #: `State.revision` when it was applied.
    revision: int


@dataclass(slots=True)
class UnderWay:
    """A poll that is being applied, in one part or several."""

    #: The entries that were listed, and how many statuses that took.
    seen: set[Entry] = field(default_factory=set)
    listed: int = 0
    #: What is still to be looked through for what is not listed, the last first; None: all of it.
    unchecked: list[Entry] | None = None
    #: Entries whose changes are still being counted (tally.py).
    open: list[Entry] = field(default_factory=list)
    #: New reports that somebody reads, by ring.
    fresh: list[tuple[Entry, tuple[Report, ...]]] = field(default_factory=list)
    #: The entries whose rings were listed, and how many rings that took.
    rings: set[Entry] = field(default_factory=set)
    rings_listed: int = 0


@dataclass(slots=True)
class Known:
    """What was applied last of one source, and when something else spoke of it last."""

    #: `State.revision` at which another than a poll's listing last altered any of its keys, or
    #: any was removed.
    stirred: int = 0
    under_way: UnderWay | None = None
    #: Of what the last poll listed, those whose changes are still being counted.
    open: list[Entry] = field(default_factory=list)
    _statuses: _Seal | None = None
    _reports: _Seal | None = None
    #: What the poll that is under way tells the difference from.
    _base: _Seal | None = None

    def begin(self, poll: Snapshot) -> None:
        """Be told that a poll is applied from now on. It may be broken off between its parts."""
        self.under_way = UnderWay()
        stands = self._stands(self._statuses, poll.statuses_since)
        self._base, self._statuses = self._statuses if stands else None, None
        if not poll.reports_stand:
            self._reports = None

    def has_statuses(self, mark: bytes | None) -> bool:
        """Whether statuses of this mark would alter nothing but what is `open`."""
        return self._stands(self._statuses, mark)

    def has_base(self) -> bool:
        """Whether what the poll that is under way does not list is as the last one listed it."""
        return self._base is not None and self.stirred <= self._base.revision

    def has_reports(self, mark: bytes | None) -> bool:
        """Whether reports of this mark would alter nothing."""
        return self._stands(self._reports, mark)

    def keep_statuses(self, mark: bytes | None, as_of: int, revision: int) -> None:
        """Remember the statuses that were applied, if they stand."""
        done = self.under_way
        whole = done is not None and len(done.seen) == done.listed and self.stirred <= as_of
        self._statuses = _Seal(mark, revision) if whole and mark is not None else None
        self.open = done.open if whole and done is not None else []

    def keep_reports(self, mark: bytes | None, as_of: int, revision: int) -> None:
        """Remember the reports that were applied, if they stand."""
        done = self.under_way
        whole = done is not None and len(done.rings) == done.rings_listed and self.stirred <= as_of
        self._reports = _Seal(mark, revision) if whole and mark is not None else None

    def _stands(self, seal: _Seal | None, mark: bytes | None) -> bool:
        return seal is not None and seal.mark == mark and self.stirred <= seal.revision

    def forget_reports(self) -> None:
        self._reports = None
