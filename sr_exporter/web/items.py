"""The items of the API's lists, as they are written: names and units are a promise (design,
section 5). Times are Unix seconds.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import msgspec

from sr_exporter.model import ChangeKind, Kind  # noqa: TC001 - a struct's types are looked up
from sr_exporter.readiness import is_stale
from sr_exporter.store.contract import Standing  # noqa: TC001 - the same

if TYPE_CHECKING:
    from sr_exporter.held import Entry, Source
    from sr_exporter.model import Change, Subscribed
    from sr_exporter.store.contract import Owed


class Accepted(msgspec.Struct, frozen=True):
    """What a push did."""

    #: How many items were taken.
    accepted: int
    #: How many of them altered a status or details.
    changed: int


class Removed(msgspec.Struct, frozen=True):
    """What a deletion did."""

    #: How many keys.
    removed: int


class SubscriptionItem(msgspec.Struct, frozen=True):
    """Our own subscription to the events of a source."""

    #: Where events are sent, as the source was told.
    socket: str
    #: When it ends unless it is renewed; null: there is none.
    expires: float | None
    #: Why the last attempt failed; null: it did not.
    error: str | None


class SourceItem(msgspec.Struct, frozen=True):
    """How one source is heard."""

    source: str
    kind: Kind
    transport: str
    #: Where it is asked; null: it is not.
    address: str | None
    #: Of OpenSIPS, as far as it said.
    version: str | None
    #: The last poll was good; null: it is not polled.
    up: bool | None
    #: What is held of it is not on `/metrics`.
    stale: bool
    last_seen: float | None
    start_time: float | None
    down_since: float | None
    last_error: str | None
    identifiers: int
    not_ready: int
    status_changes_missed_total: int
    report_overruns_total: int
    subscription: SubscriptionItem | None


class NotificationItem(msgspec.Struct, frozen=True):
    """What one webhook is owed, or was."""

    #: The receiver has seen it, or will see it, as X-SR-Delivery.
    id: str
    notifier: str
    state: Standing
    created_at: float
    due_at: float
    attempts: int
    #: Why it is dead; null: it is not.
    reason: str | None
    #: As it was sent, or will be.
    notification: msgspec.Raw


class StatusItem(msgspec.Struct, frozen=True, gc=False):
    """What is held of one key."""

    source: str
    group: str
    identifier: str
    #: Above 0 ready, below 0 not.
    status: int
    #: What its source says of it, which need not follow from the status.
    ready: bool
    #: Null: there are none, which is not the same as empty ones.
    details: str | None
    #: When the status last changed, or the key appeared.
    since: float
    #: How many reports were seen.
    reports_total: int
    #: When the newest of them was written; null: there is none.
    last_report: float | None
    #: Its source is down, or not heard yet: this is what it said before.
    stale: bool


class ReportItem(msgspec.Struct, frozen=True, gc=False):
    """One line of a ring."""

    timestamp: float
    log: str


class ReportsItem(msgspec.Struct, frozen=True, gc=False):
    """The ring of one key."""

    source: str
    group: str
    identifier: str
    #: The oldest first.
    reports: list[ReportItem]
    #: How many were seen, those that are held no more included.
    reports_total: int
    stale: bool


class ChangeItem(msgspec.Struct, frozen=True, gc=False):
    """One line of the journal."""

    #: Without gaps, and never used again.
    seq: int
    at: float
    #: As are identifier and status, null where a whole source is told of.
    source: str
    group: str | None
    identifier: str | None
    kind: ChangeKind
    #: Null where it was removed.
    status: int | None
    #: Null where it appeared.
    old_status: int | None
    #: Null: there are none. Of a source that is down they are the error.
    details: str | None


def source_item(source: Source, subscribed: Subscribed | None) -> SourceItem:
    return SourceItem(
        source=source.name,
        kind=source.kind,
        transport=source.transport,
        address=source.address or None,
        version=source.version or None,
        # What is not polled is neither up nor down.
        up=source.up if source.polled else None,
        stale=source.withheld,
        last_seen=source.last_seen,
        start_time=source.start_time,
        down_since=source.down_since,
        last_error=source.last_error,
        identifiers=source.identifiers,
        not_ready=source.not_ready,
        status_changes_missed_total=source.changes_missed_total,
        report_overruns_total=source.report_overruns_total,
        subscription=None if subscribed is None else SubscriptionItem(*subscribed),
    )


def notification_item(owed: Owed) -> NotificationItem:
    return NotificationItem(
        id=owed.id,
        notifier=owed.notifier,
        state=owed.standing,
        created_at=owed.created_at,
        due_at=owed.due_at,
        attempts=owed.attempts,
        reason=owed.reason,
        notification=msgspec.Raw(owed.whole),
    )


def status_item(entry: Entry) -> StatusItem:
    source = entry.group.source
    return StatusItem(
        source=source.name,
        group=entry.group.name,
        identifier=entry.identifier,
        status=entry.status,
        ready=entry.ready,
        details=entry.details,
        since=entry.changed_at,
        reports_total=entry.reports_total,
        last_report=entry.reports[-1].timestamp if entry.reports else None,
        stale=is_stale(source),
    )


def reports_item(entry: Entry) -> ReportsItem:
    source = entry.group.source
    return ReportsItem(
        source=source.name,
        group=entry.group.name,
        identifier=entry.identifier,
        reports=[ReportItem(report.timestamp, report.log) for report in entry.reports],
        reports_total=entry.reports_total,
        stale=is_stale(source),
    )


def change_item(change: Change) -> ChangeItem:
    return ChangeItem(
        seq=change.seq,
        at=change.at,
        source=change.source,
        group=change.group,
        identifier=change.identifier,
        kind=change.kind,
        status=change.status,
        old_status=change.old_status,
        details=change.details,
    )


class MiRequest(msgspec.Struct, frozen=True):
    """A request as an OpenSIPS takes it (facts on OpenSIPS, section 1)."""

    jsonrpc: Literal["2.0"]
    method: str
    params: list[Any] | dict[str, Any] = []
    #: Absent: a notification, which is not answered.
    id: str | int | None = None


class MiFault(msgspec.Struct, frozen=True):
    code: int
    message: str
    data: str | None = None


class MiAnswer(msgspec.Struct, frozen=True):
    """The answer to one: it has either a result or an error."""

    jsonrpc: Literal["2.0"]
    id: str | float | None
    result: Any = None
    error: MiFault | None = None
