"""What one observation altered: for the journal, the store and the readers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec

from sr_exporter.model import ChangeKind

if TYPE_CHECKING:
    from sr_exporter.held import Entry, Reported, Source
    from sr_exporter.model import Change, Key
    from sr_exporter.signals import Ending, SubjectRecord

_ALTERING = frozenset({ChangeKind.STATUS, ChangeKind.APPEARED, ChangeKind.DETAILS})


@dataclass(frozen=True, slots=True)
class SubjectTurn:
    """A subject began, or ceased, to be called not ready. Not journalled."""

    at: float
    #: It may be held no more.
    entry: Entry
    subject: str
    #: As it is, or as it was.
    record: SubjectRecord
    #: None: it began.
    ending: Ending | None = None

    @property
    def ended(self) -> bool:
        return self.ending is not None

    @property
    def who(self) -> tuple[str, ...]:
        return (*self.entry.key.folded(), self.subject)


class Outcome(msgspec.Struct, eq=False):
    """The effects of one `State.apply`; a key or source is in one of its two places only."""

    changes: list[Change] = []
    #: Entries of which something that is kept changed.
    entries: dict[Key, Entry] = {}
    #: Entries that are held no more.
    removed: dict[Key, Entry] = {}
    sources: dict[str, Source] = {}
    sources_removed: dict[str, None] = {}
    #: Subjects that report texts began, or ceased, to call not ready, in order.
    subjects: list[SubjectTurn] = []
    #: Subjects that were called so already, of which there is a newer text.
    named: list[Reported] = []
    #: Sources that were down by their polls, and sent something.
    alive: list[str] = []
    #: Sources that are down, and were asked once more sooner than was to be expected.
    asked_again: list[Source] = []
    #: Keys of polled sources of which the last word may not be the latest (rule 8).
    doubtful: list[Key] = []
    #: Keys that are not ready and were taken for starting, which they are not.
    not_starting: list[Entry] = []
    #: When keys were removed, by folded key; None where that no longer matters.
    tombstones: dict[Key, float | None] = {}

    def keep(self, entry: Entry) -> None:
        key = entry.key
        if self.removed:
            self.removed.pop(key, None)
        self.entries[key] = entry

    def keep_source(self, source: Source) -> None:
        if self.sources_removed:
            self.sources_removed.pop(source.name, None)
        self.sources[source.name] = source

    def drop(self, entry: Entry) -> None:
        key = entry.key
        self.entries.pop(key, None)
        self.removed[key] = entry

    def drop_source(self, source: Source) -> None:
        self.sources.pop(source.name, None)
        self.sources_removed[source.name] = None

    def altered(self) -> bool:
        """Whether a status or details changed, or a key appeared."""
        return not _ALTERING.isdisjoint([change.kind for change in self.changes])
