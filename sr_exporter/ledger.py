"""The few ways in which what is held changes, each leaving its line in the journal.

Which of them an observation calls for is decided in state.py.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import replace
from itertools import groupby, islice
from typing import TYPE_CHECKING

from sr_exporter.due import Due
from sr_exporter.held import Entry, Group, Reported, Source
from sr_exporter.model import (
    MAIN,
    TOMBSTONE_SECONDS,
    TOMBSTONES,
    Change,
    ChangeKind,
    Kind,
    fold,
)
from sr_exporter.outcome import Outcome, SubjectTurn
from sr_exporter.room import Room
from sr_exporter.signals import End, Ending
from sr_exporter.tally import Tally

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from sr_exporter.model import Key, KeyRecord, ListedStatus

#: For how long after a start "not ready" is part of starting.
STARTING_SECONDS = 120.0
#: How many keys are taken up at once: many are quicker than one after the other.
TAKEN_UP = 1_000
#: What core/main says for a few milliseconds before it is gone (facts on OpenSIPS, section 4).
SHUTTING_DOWN = -2


class Ledger(Room):
    """What is held, its journal's numbering, and what falls due."""

    def __init__(self, *, limit_identifiers: int = 1_000_000, last_seq: int = 0) -> None:
        super().__init__(limit_identifiers)
        self.sources: dict[str, Source] = {}
        #: Raised by every `apply`; tells which of two moments is later.
        self.revision = 0
        #: The number of the newest change.
        self.last_seq = last_seq
        #: Every entry that is not ready: alerts cost what is wrong, not what exists.
        self.not_ready: dict[Entry, None] = {}
        #: When keys that are held no more were removed, by folded key, in order of removal.
        #: Of a dict it takes ever longer to find the oldest, the more of the oldest are gone.
        self.tombstones: OrderedDict[Key, float] = OrderedDict()
        #: By how much our clock was set since we began. What falls due does so by a time that
        #: it was not set in.
        self.clock_set_by = 0.0
        #: The revision at which that was told last.
        self.clock_set_at = 0
        self._due: Due[Entry | Source | Reported] = Due(self._due_time)

    def entry(self, key: Key) -> Entry | None:
        source = self.sources.get(key.source)
        return source.entry(key.group, key.identifier) if source else None

    def next_deadline(self) -> float | None:
        """Give when to look for expiries and withholdings next, or None."""
        deadline = self._due.next()
        return None if deadline is None else deadline + self.clock_set_by

    def set_clock(self, by_seconds: float) -> Outcome:
        """Be told that our clock was set: what lasts is not over sooner or later for that.

        Nor has any source restarted: when it started is told by our clock.
        """
        self.revision += 1
        self.clock_set_at = self.revision
        self.clock_set_by += by_seconds
        out = Outcome()
        for source in self.sources.values():
            if source.start_time is not None:
                source.start_time += by_seconds
                out.keep_source(source)
            for entry, subject in list(source.reported()):
                record = entry.subjects[subject]
                ends_at = record.ends_at + by_seconds
                entry.subjects = {**entry.subjects, subject: replace(record, ends_at=ends_at)}
                out.keep(entry)
        return out

    # --- the few ways an entry changes -----------------------------------------------------

    def appear(self, out: Outcome, item: ListedStatus, source: Source, at: float) -> Entry:
        group = self.group(source, item.group)
        entry = Entry(group, item.identifier, item.status, ready=item.ready, details=item.details)
        entry.changed_at = entry.ready_changed_at = entry.stated_at = at
        entry.early = source.polled and not item.ready
        self.hold(entry.group, [entry])
        if self.tombstones.pop(entry.key.folded(), None) is not None:
            out.tombstones[entry.key.folded()] = None
        self._log_entry(out, ChangeKind.APPEARED, entry, at)
        out.keep(entry)
        return entry

    def set(
        self,
        out: Outcome,
        entry: Entry,
        status: int,
        ready: bool,
        details: str | None,
        at: float,
        *,
        counts: bool = True,
    ) -> None:
        """Take a status; `counts` is False where a tally counts the changes."""
        old_status, was_ready = entry.status, entry.ready
        if (status, ready) == (old_status, was_ready):
            if details != entry.details:
                entry.details = details
                entry.stated_at = max(entry.stated_at, at)
                self._log_entry(out, ChangeKind.DETAILS, entry, at, old_status, was_ready=ready)
                out.keep(entry)
            return
        entry.status, entry.ready, entry.details = status, ready, details
        entry.stated_at = max(entry.stated_at, at)
        since = entry.ready_changed_at if not was_ready else at
        if status != old_status:
            if counts:
                entry.changes_total += 1
                entry.tally = None
            entry.changed_at = at
        if ready != was_ready:
            entry.ready_changed_at = at
            entry.early = not ready and (_starting(entry.group.source, at) or _ending(entry))
            self._index(entry)
        self._log_entry(
            out, ChangeKind.STATUS, entry, at, old_status, was_ready=was_ready, since=since
        )
        out.keep(entry)

    def guess_early(self, entry: Entry) -> None:
        """Take a key for one that is starting, until a poll knows (`settle_guesses`).

        Of a source that only sends events nobody knows better, and pushers do not start.
        """
        source = entry.group.source
        if entry.ready or entry.early or source.kind is Kind.PUSHED:
            return
        entry.early = True
        if source.polled:
            source.guessed[entry] = None

    def settle_guesses(self, out: Outcome, source: Source, as_of: int) -> None:
        """Say of what was taken for starting whether it is: since when the source runs is known.

        `as_of` is the revision of which that is known.
        """
        for entry in [one for one in source.guessed if one.touched <= as_of]:
            del source.guessed[entry]
            if entry.early and not _starting(source, entry.ready_changed_at):
                entry.early = False
                out.keep(entry)
                out.not_starting.append(entry)

    def _settle(self, entry: Entry, now: float) -> None:
        """Close the account of an entry's changes when it can be closed."""
        if entry.tally is not None and entry.tally.settle(now):
            entry.changes_total = entry.tally.total
            entry.tally = None

    def _tally(self, entry: Entry) -> Tally:
        """Give the account of an entry's changes that is open, or open one."""
        if entry.tally is None:
            entry.tally = Tally(entry.changes_total, entry.status)
        return entry.tally

    def take_up(self, keys: Iterable[KeyRecord], now: float) -> Iterator[list[Entry]]:
        """Hold what was kept, and give it, some keys of one group at a time."""
        for (source, name), records in groupby(keys, lambda kept: kept.key[:2]):
            group = self.group(self.source(source), name)
            while entries := [
                Entry.restored(group, kept, now) for kept in islice(records, TAKEN_UP)
            ]:
                self.hold(group, entries)
                yield entries

    def hold(self, group: Group, entries: Sequence[Entry]) -> None:
        """Take up entries of a group that it does not have."""
        group.entries.update([(fold(entry.identifier), entry) for entry in entries])
        self.identifiers += len(entries)
        group.source.identifiers += len(entries)
        for entry in entries:
            if not entry.ready:
                self._index(entry)
            if entry.expires_at is not None:
                self.schedule(entry.expires_at, entry)
            if entry.subjects:
                self._hold_subjects(entry)

    def _hold_subjects(self, entry: Entry) -> None:
        entry.group.source.reporting[entry] = None
        entry.group.source.subjects += len(entry.subjects)
        for subject, record in entry.subjects.items():
            self.schedule(record.ends_at - self.clock_set_by, Reported(entry, subject))

    def _index(self, entry: Entry) -> None:
        if entry.ready:
            self._unindex(entry)
        elif entry not in self.not_ready:
            self.not_ready[entry] = None
            entry.group.not_ready += 1
            entry.group.source.not_ready += 1

    def _unindex(self, entry: Entry) -> None:
        if entry in self.not_ready:
            del self.not_ready[entry]
            entry.group.not_ready -= 1
            entry.group.source.not_ready -= 1

    def remove(self, out: Outcome, entry: Entry, at: float) -> None:
        group = entry.group
        del group.entries[fold(entry.identifier)]
        self.identifiers -= 1
        group.source.identifiers -= 1
        self._unindex(entry)
        group.source.guessed.pop(entry, None)
        group.source.known.stirred = self.revision
        entry.expires_at = None
        self._due.drop(entry)
        for subject in list(entry.subjects):
            self.end_subject(out, Reported(entry, subject), at, Ending(End.FORGOTTEN))
        self._log_entry(
            out,
            ChangeKind.REMOVED,
            entry,
            at,
            entry.status,
            was_ready=entry.ready,
            since=entry.ready_changed_at,
            gone=True,
        )
        out.drop(entry)
        self._bury(out, entry, at)
        if not group.entries:
            del group.source.groups[fold(group.name)]
            if not group.source.groups and group.source.kind is Kind.PUSHED:
                self._drop_source(out, group.source)

    def end_subject(self, out: Outcome, reported: Reported, at: float, ending: Ending) -> None:
        """Have a subject be called not ready no more."""
        entry, subject = reported
        left = dict(entry.subjects)
        record = left.pop(subject)
        entry.subjects = left
        source = entry.group.source
        source.subjects -= 1
        self._due.drop(reported)
        if not left:
            del source.reporting[entry]
        out.subjects.append(SubjectTurn(at, entry, subject, record, ending))
        out.keep(entry)

    def _bury(self, out: Outcome, entry: Entry, at: float) -> None:
        """Remember when a key was removed: nothing older may bring it back."""
        key, gone_at = entry.key.folded(), max(at, entry.stated_at)
        self.tombstones[key] = out.tombstones[key] = gone_at
        while (
            len(self.tombstones) > TOMBSTONES
            or next(iter(self.tombstones.values())) < at - TOMBSTONE_SECONDS
        ):
            forgotten, _ = self.tombstones.popitem(last=False)
            out.tombstones.pop(forgotten, None)

    def remove_source(self, out: Outcome, source: Source, at: float) -> None:
        for entry in list(source.entries()):
            self.remove(out, entry, at)
        if source.down_since is not None:
            self.log(
                out,
                ChangeKind.REMOVED,
                at,
                source,
                "no longer configured",
                since=source.down_since,
            )
        self._drop_source(out, source)

    def _drop_source(self, out: Outcome, source: Source) -> None:
        del self.sources[source.name]
        source.down_since = None
        self._due.drop(source)
        out.drop_source(source)

    # --- small parts -----------------------------------------------------------------------

    def source(self, name: str) -> Source:
        source = self.sources.get(name)
        if source is None:
            source = self.sources[name] = Source(name, Kind.PUSHED)
        return source

    def group(self, source: Source, name: str) -> Group:
        group = source.groups.get(fold(name))
        if group is None:
            group = source.groups[fold(name)] = Group(source, name)
        return group

    def schedule(self, at: float, what: Entry | Source | Reported) -> None:
        """Have something looked at by then, by a clock that was not set since we began."""
        self._due.put(at, what)

    def _due_time(self, what: Entry | Source | Reported) -> float | None:
        if isinstance(what, Reported):
            return None if what.ends_at is None else what.ends_at - self.clock_set_by
        return what.withheld_from if isinstance(what, Source) else what.expires_at

    def log(
        self,
        out: Outcome,
        kind: ChangeKind,
        at: float,
        source: Source,
        details: str | None = None,
        *,
        since: float,
    ) -> None:
        self.last_seq += 1
        out.changes.append(
            Change(self.last_seq, at, kind, source.name, details=details, not_ready_since=since)
        )

    def _log_entry(
        self,
        out: Outcome,
        kind: ChangeKind,
        entry: Entry,
        at: float,
        old_status: int | None = None,
        *,
        was_ready: bool | None = None,
        since: float | None = None,
        gone: bool = False,
    ) -> None:
        self.last_seq += 1
        out.changes.append(
            Change(
                seq=self.last_seq,
                at=at,
                kind=kind,
                source=entry.group.source.name,
                group=entry.group.name,
                identifier=entry.identifier,
                status=None if gone else entry.status,
                old_status=old_status,
                details=None if gone else entry.details,
                ready=None if gone else entry.ready,
                was_ready=was_ready,
                not_ready_since=entry.ready_changed_at if since is None else since,
            )
        )


def _ending(entry: Entry) -> bool:
    """Whether a server says that it shuts down; what is after that, its polls tell."""
    if entry.status != SHUTTING_DOWN or not entry.group.source.polled:
        return False
    return (fold(entry.group.name), fold(entry.identifier)) == ("core", MAIN)


def _starting(source: Source, at: float) -> bool:
    return (
        source.polled
        and source.start_time is not None
        and at - source.start_time <= STARTING_SECONDS
    )
