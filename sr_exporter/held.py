"""What is held: entries in groups in sources. Data and its reading side, no decisions.

`State` (state.py) is the only writer. Everybody else reads these objects, on the loop that
owns them, and keeps none of them across an await.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

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


class Entry:
    """What is held of one key. For the fields that are kept see `KeyRecord`."""

    __slots__ = (
        "changed_at",
        "changes_total",
        "details",
        "early",
        "expired",
        "expires_at",
        "group",
        "identifier",
        "matches",
        "on_expiry",
        "ready",
        "ready_changed_at",
        "reports",
        "reports_total",
        "stated_at",
        "status",
        "subjects",
        "tally",
        "touched",
        "ttl_seconds",
    )

    def __init__(
        self, group: Group, identifier: str, status: int, *, ready: bool, details: str | None
    ) -> None:
        self.group = group
        self.identifier = identifier
        self.status = status
        self.ready = ready
        self.details = details
        self.changed_at = 0.0
        self.ready_changed_at = 0.0
        self.stated_at = 0.0
        self.changes_total = 0
        self.reports: tuple[Report, ...] = ()
        self.reports_total = 0
        self.early = False
        self.ttl_seconds: float | None = None
        self.on_expiry = OnExpiry.NOT_READY
        self.expired = False
        #: When the time to live runs out; None when nothing is due.
        self.expires_at: float | None = None
        #: `State.revision` at which an event or push last spoke of it: later than a poll's
        #: question, it outranks that poll's answer.
        self.touched = 0
        #: How its changes are counted while polls and events may not both have told of them.
        self.tally: Tally | None = None
        #: Replaced when they change, never altered: a record of them may be on its way to disk.
        self.matches: Mapping[str, int] = _NONE
        self.subjects: Mapping[str, SubjectRecord] = _NONE

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
            matches=dict(self.matches),
            subjects=dict(self.subjects),
        )

    @classmethod
    def restored(cls, group: Group, record: KeyRecord, now: float) -> Entry:
        """Make the entry a record tells of; its time to live starts anew."""
        entry = cls(
            group,
            record.key.identifier,
            record.status,
            ready=record.ready,
            details=record.details,
        )
        entry.changed_at = record.changed_at
        entry.ready_changed_at = record.ready_changed_at
        entry.stated_at = record.stated_at
        entry.changes_total = record.changes_total
        entry.reports = record.reports
        entry.reports_total = record.reports_total
        entry.early = record.early
        entry.ttl_seconds = record.ttl_seconds
        entry.on_expiry = record.on_expiry
        entry.expired = record.expired
        entry.matches = record.matches or _NONE
        entry.subjects = record.subjects or _NONE
        if record.ttl_seconds is not None and not record.expired:
            entry.expires_at = now + record.ttl_seconds
        return entry


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

    __slots__ = ("complete", "entries", "name", "source")

    def __init__(self, source: Source, name: str) -> None:
        self.source = source
        self.name = name
        self.entries: dict[str, Entry] = {}
        #: False while the last poll could not read all of it.
        self.complete = True


class Source:
    """What is held of one source. For the fields that are kept see `SourceRecord`."""

    __slots__ = (
        "address",
        "again_by",
        "begun",
        "changes_missed_total",
        "down_since",
        "groups",
        "guessed",
        "heard",
        "kind",
        "last_error",
        "last_seen",
        "name",
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
        self.version = ""
        self.transport = "push"
        #: Where it is asked; not kept, the configuration knows.
        self.address = ""
        #: `State.revision` at which it became a polled source: an answer to a question from
        #: before that is of another life.
        self.begun = 0
        self.last_seen: float | None = None
        self.start_time: float | None = None
        self.uptime_seconds: float | None = None
        #: How many polls ago a restart was seen; rings were emptied by it.
        self.polls_since_restart = 2
        self.stale_after_seconds = 60.0
        #: It answered a poll, or sent an event where it is not polled, since we started.
        self.heard = False
        self.down_since: float | None = None
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

    @property
    def polled(self) -> bool:
        return self.kind is Kind.POLLED

    @property
    def up(self) -> bool:
        """Whether the last poll was good; meaningful for polled sources only."""
        return self.heard and self.down_since is None

    @property
    def withheld_from(self) -> float | None:
        """When its keys will be withheld unless it is heard; None when nothing is due."""
        if self.withheld or self.down_since is None:
            return None
        return self.down_since + self.stale_after_seconds

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
