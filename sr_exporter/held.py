"""What is held: entries in groups in sources. Data and its reading side, no decisions.

`State` (state.py) is the only writer. Everybody else reads these objects, on the loop that
owns them, and keeps none of them across an await.
"""

from __future__ import annotations

import math
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from sr_exporter.known import Known
from sr_exporter.model import (
    Key,
    KeyRecord,
    Kind,
    OnExpiry,
    SourceRecord,
    fold,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from sr_exporter.model import PollFailure, Report
    from sr_exporter.signals import SubjectRecord
    from sr_exporter.tally import Tally

#: Shared by all that have none: most keys have none.
_NONE: Mapping[str, Any] = MappingProxyType({})
#: How far what is kept of when a source was heard last may be behind.
SEEN_SECONDS = 1.0


class Entry(msgspec.Struct, eq=False, gc=False):
    """What is held of one key. For the fields that are kept see `KeyRecord`.

    A million of them are nothing to the garbage collector: none is ever part of a cycle that is
    not taken apart when it is removed.
    """

    group: Group
    identifier: str
    status: int
    ready: bool
    details: str | None = None
    changed_at: float = 0.0
    ready_changed_at: float = 0.0
    stated_at: float = 0.0
    changes_total: int = 0
    reports: tuple[Report, ...] = ()
    reports_total: int = 0
    early: bool = False
    ttl_seconds: float | None = None
    on_expiry: OnExpiry = OnExpiry.NOT_READY
    expired: bool = False
    #: When the time to live runs out, by a clock that was never set; None when nothing is due.
    expires_at: float | None = None
    #: `State.revision` at which an event or push last spoke of it: later than a poll's
    #: question, it outranks that poll's answer.
    touched: int = 0
    #: How its changes are counted while polls and events may not both have told of them.
    tally: Tally | None = None
    #: Replaced when they change, never altered: a record of them may be on its way to disk.
    matches: Mapping[str, int] = _NONE
    subjects: Mapping[str, SubjectRecord] = _NONE
    #: Where the exposition has it: its page, and its place there.
    page: Any = None
    place: int = 0

    @property
    def key(self) -> Key:
        return Key(self.group.source.name, self.group.name, self.identifier)

    def record(self) -> KeyRecord:
        return KeyRecord(
            key=self.key,
            status=self.status,
            ready=self.ready,
            details=self.details,
            changed_at=self.changed_at,
            ready_changed_at=self.ready_changed_at,
            stated_at=self.stated_at,
            changes_total=self.changes_total,
            reports=self.reports,
            reports_total=self.reports_total,
            early=self.early,
            ttl_seconds=self.ttl_seconds,
            on_expiry=self.on_expiry,
            expired=self.expired,
            matches=self.matches,
            subjects=self.subjects,
        )

    @classmethod
    def restored(cls, group: Group, record: KeyRecord, now: float) -> Entry:
        """Make the entry a record tells of; its time to live starts anew."""
        due = record.ttl_seconds is not None and not record.expired
        return cls(
            group,
            record.key.identifier,
            record.status,
            record.ready,
            record.details,
            record.changed_at,
            record.ready_changed_at,
            record.stated_at,
            record.changes_total,
            record.reports,
            record.reports_total,
            record.early,
            record.ttl_seconds,
            record.on_expiry,
            record.expired,
            now + (record.ttl_seconds or 0.0) if due else None,
            matches=record.matches or _NONE,
            subjects=record.subjects or _NONE,
        )


class Reported(NamedTuple):
    """A subject of an entry: what its report texts tell of somebody."""

    entry: Entry
    subject: str

    @property
    def who(self) -> tuple[str, ...]:
        return (*self.entry.key.folded(), self.subject)

    @property
    def record(self) -> SubjectRecord | None:
        """What is held of it; None once it has ended."""
        return self.entry.subjects.get(self.subject)

    @property
    def ends_at(self) -> float | None:
        return None if self.record is None else self.record.ends_at


class Group:
    """A group of one source, with its entries by folded identifier, as first heard."""

    __slots__ = ("complete", "entries", "name", "not_ready", "source")

    def __init__(self, source: Source, name: str) -> None:
        self.source = source
        self.name = name
        self.entries: dict[str, Entry] = {}
        #: How many of them are not ready.
        self.not_ready = 0
        #: False while the last poll could not read all of it.
        self.complete = True


class Source:
    """What is held of one source. For the fields that are kept see `SourceRecord`."""

    __slots__ = (
        "address",
        "again_by",
        "begun",
        "changes_missed_total",
        "clock_set_by",
        "down_since",
        "groups",
        "guessed",
        "heard",
        "identifiers",
        "kind",
        "known",
        "last_error",
        "last_seen",
        "last_seen_kept",
        "name",
        "not_ready",
        "poll_failures_total",
        "polls_since_restart",
        "refused",
        "report_overruns_total",
        "reporting",
        "stale_after_seconds",
        "start_time",
        "subjects",
        "subjects_refused_total",
        "transport",
        "uptime_seconds",
        "version",
        "withheld",
    )

    def __init__(self, name: str, kind: Kind) -> None:
        self.name = name
        self.kind = kind
        self.groups: dict[str, Group] = {}
        #: How many entries its groups have together, and how many of these are not ready.
        self.identifiers = 0
        self.not_ready = 0
        self.version = ""
        self.transport = "push"
        #: Where it is asked; not kept, the configuration knows.
        self.address = ""
        #: `State.revision` at which it became a polled source: an answer to a question from
        #: before that is of another life.
        self.begun = 0
        self.last_seen: float | None = None
        #: What of that is kept, or on its way.
        self.last_seen_kept = -math.inf
        self.start_time: float | None = None
        self.uptime_seconds: float | None = None
        #: How many polls ago a restart was seen; rings were emptied by it.
        self.polls_since_restart = 2
        self.stale_after_seconds = 60.0
        #: It answered a poll, or sent an event where it is not polled, since we started.
        self.heard = False
        self.down_since: float | None = None
        #: By how much our clock had been set by then.
        self.clock_set_by = 0.0
        #: By when it will have been asked again since that poll failed; None: not known. Not kept.
        self.again_by: float | None = None
        #: Its keys are kept, and not shown.
        self.withheld = False
        self.last_error: str | None = None
        self.changes_missed_total = 0
        self.report_overruns_total = 0
        self.poll_failures_total: dict[PollFailure, int] = {}
        #: How many identifiers found no room under the limit: of the last poll; where it is not
        #: polled, how many events of such identifiers there were.
        self.refused = 0
        #: Its entries that have subjects, and how many these are together.
        self.reporting: dict[Entry, None] = {}
        self.subjects = 0
        #: How many subjects found no room under theirs; not kept.
        self.subjects_refused_total = 0
        #: Its entries that are taken for starting until a poll tells since when it runs; not kept.
        self.guessed: dict[Entry, None] = {}
        #: What of its last poll still stands; not kept.
        self.known = Known()

    @property
    def polled(self) -> bool:
        return self.kind is Kind.POLLED

    @property
    def up(self) -> bool:
        """Whether the last poll was good; meaningful for polled sources only."""
        return self.heard and self.down_since is None

    @property
    def withheld_from(self) -> float | None:
        """When its keys will be withheld unless it is heard, by a clock that was never set.

        None when nothing is due.
        """
        if self.withheld or self.down_since is None:
            return None
        return self.down_since - self.clock_set_by + self.stale_after_seconds

    @property
    def asked_twice_after(self) -> float:
        """Give how long after it was first down it will have been asked once more."""
        if self.down_since is None or self.again_by is None:
            return 0.0
        return max(0.0, self.again_by - self.down_since)

    def entries(self) -> Iterator[Entry]:
        for group in self.groups.values():
            yield from group.entries.values()

    def reported(self) -> Iterator[Reported]:
        """Give every subject that report texts call not ready."""
        for entry in self.reporting:
            for subject in entry.subjects:
                yield Reported(entry, subject)

    def entry(self, group: str, identifier: str) -> Entry | None:
        held = self.groups.get(fold(group))
        return held.entries.get(fold(identifier)) if held else None

    def seen(self, now: float) -> bool:
        """Note that it was heard; say whether that is to be kept: not of each of many pushes."""
        self.last_seen = now
        if abs(now - self.last_seen_kept) < SEEN_SECONDS:
            return False
        self.last_seen_kept = now
        return True

    def record(self) -> SourceRecord:
        return SourceRecord(
            name=self.name,
            kind=self.kind,
            version=self.version,
            transport=self.transport,
            last_seen=self.last_seen,
            start_time=self.start_time,
            down_since=self.down_since,
            last_error=self.last_error,
            changes_missed_total=self.changes_missed_total,
            report_overruns_total=self.report_overruns_total,
            poll_failures_total=dict(self.poll_failures_total),
        )

    @classmethod
    def restored(cls, record: SourceRecord) -> Source:
        """Make the source a record tells of; one that is not pushed is withheld until heard."""
        source = cls(record.name, record.kind)
        source.version = record.version
        source.transport = record.transport
        source.last_seen = record.last_seen
        source.start_time = record.start_time
        source.down_since = record.down_since
        source.last_error = record.last_error
        source.changes_missed_total = record.changes_missed_total
        source.report_overruns_total = record.report_overruns_total
        source.poll_failures_total = dict(record.poll_failures_total)
        source.withheld = source.kind is not Kind.PUSHED
        return source
