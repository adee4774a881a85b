"""Records to rows of schema.sql and back, and the statements that write them."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Any

import msgspec

from sr_exporter.model import (
    Change,
    ChangeKind,
    Key,
    KeyRecord,
    Kind,
    OnExpiry,
    PollFailure,
    Report,
    SourceRecord,
)
from sr_exporter.signals import SubjectRecord
from sr_exporter.store.contract import AlertRecord, DeadLetter, Kept, Owed, Standing

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Sequence

    from sr_exporter.store.contract import Age, Batch

Row = tuple[Any, ...]

#: SQLite takes no larger integer; no change has a larger number.
_LAST_ROWID = 2**63 - 1
#: The versions of the schema that brought them.
_TOMBSTONES_SINCE = 2
_SUBJECTS_SINCE = 3

_SOURCE = (
    "name, kind, version, transport, last_seen, start_time, down_since, last_error,"
    " changes_missed_total, report_overruns_total, poll_failures_total"
)
_KEY = (
    "source, group_fold, identifier_fold, group_name, identifier, status, ready, details,"
    " changed_at, ready_changed_at, stated_at, changes_total, reports_total, reports, early,"
    " ttl_seconds, on_expiry, expired, matches, subjects"
)
#: As it is read from a store of an older schema.
_KEY_BEFORE_SUBJECTS = _KEY.replace("matches, subjects", "'{}', '{}'")
_CHANGE = (
    "seq, at, kind, source, group_name, identifier, status, old_status, details, ready, was_ready"
)
_OWED = "id, seq, notifier, subject, standing, created_at, due_at, attempts, body, reason"
_TOMBSTONE = "source, group_fold, identifier_fold, at"
_ALERT = "fingerprint, labels, annotations, starts_at, resolved_at, generator_url"


#: Older than any notification.
_BEFORE_ALL: Age = (float("-inf"), 0, "")


def _insert(table: str, columns: str) -> str:
    places = ", ".join("?" * len(columns.split(",")))
    return f"INSERT OR REPLACE INTO {table} ({columns}) VALUES ({places})"  # noqa: S608


_PUT_SOURCE = _insert("sources", _SOURCE)
_PUT_KEY = _insert("keys", _KEY)
_PUT_CHANGE = _insert("changes", _CHANGE)
_PUT_OWED = _insert("outbox", _OWED)
#: All but the body.
_ALTERED = "seq, notifier, subject, standing, created_at, due_at, attempts, reason"
_ALTER_OWED = (
    f"UPDATE outbox SET {', '.join(f'{column} = ?' for column in _ALTERED.split(', '))}"  # noqa: S608
    " WHERE id = ?"
)
_PUT_ALERT = _insert("alerts", _ALERT)
_PUT_TOMBSTONE = _insert("tombstones", _TOMBSTONE)


def write(database: sqlite3.Connection, batch: Batch) -> None:
    """Write a batch inside the transaction that is open."""
    put = database.executemany
    put(
        "DELETE FROM keys WHERE source = ? AND group_fold = ? AND identifier_fold = ?",
        [key.folded() for key in batch.keys_removed],
    )
    put("DELETE FROM sources WHERE name = ?", [(name,) for name in batch.sources_removed])
    put(
        "DELETE FROM tombstones WHERE source = ? AND group_fold = ? AND identifier_fold = ?",
        [key for key, at in batch.tombstones.items() if at is None],
    )
    put(_PUT_TOMBSTONE, [(*key, at) for key, at in batch.tombstones.items() if at is not None])
    put(_PUT_KEY, [_key_row(record) for record in batch.keys.values()])
    put(_PUT_SOURCE, [_source_row(record) for record in batch.sources.values()])
    put(_PUT_CHANGE, [_change_row(change) for change in batch.changes])
    if batch.changes:
        # The journal is trimmed; its numbers never repeat all the same.
        last = str(batch.changes[-1].seq)
        database.execute("INSERT OR REPLACE INTO meta VALUES ('last_seq', ?)", (last,))
    gone = [(row_id,) for row_id, owed in batch.outbox.items() if owed is None]
    put("DELETE FROM outbox WHERE id = ?", gone)
    owed_rows = [owed for owed in batch.outbox.values() if owed]
    put(_PUT_OWED, [_owed_row(owed) for owed in owed_rows if owed.body is not None])
    put(_ALTER_OWED, [_altered_row(owed) for owed in owed_rows if owed.body is None])
    gone = [(mark,) for mark, alert in batch.alerts.items() if alert is None]
    put("DELETE FROM alerts WHERE fingerprint = ?", gone)
    put(_PUT_ALERT, [_alert_row(alert) for alert in batch.alerts.values() if alert])


def everything(
    database: sqlite3.Connection, version: int, hold: Callable[[Owed], Owed] | None = None
) -> Kept:
    """Give all that a start needs, also of a store of an older schema."""
    (store_id,) = database.execute("SELECT value FROM meta WHERE name = 'store_id'").fetchone()
    last_seq = database.execute("SELECT value FROM meta WHERE name = 'last_seq'").fetchone()
    changes(database, 0, 1)  # the journal is not loaded; its table must be there
    return Kept(
        store_id=str(uuid.UUID(store_id)),
        last_seq=int(last_seq[0]) if last_seq else 0,
        sources=sources(database),
        keys=keys(database, version),
        outbox=outbox(database, hold),
        alerts=alerts(database),
        tombstones=tombstones(database) if version >= _TOMBSTONES_SINCE else {},
    )


def tombstones(database: sqlite3.Connection) -> dict[Key, float]:
    """Give when keys were removed, the oldest first."""
    rows = database.execute(f"SELECT {_TOMBSTONE} FROM tombstones ORDER BY at")  # noqa: S608
    return {Key(*row[:3]): row[3] for row in rows}


def sources(database: sqlite3.Connection) -> list[SourceRecord]:
    return [_source(row) for row in database.execute(f"SELECT {_SOURCE} FROM sources")]  # noqa: S608


def keys(database: sqlite3.Connection, version: int) -> list[KeyRecord]:
    columns = _KEY if version >= _SUBJECTS_SINCE else _KEY_BEFORE_SUBJECTS
    return [_key(row) for row in database.execute(f"SELECT {columns} FROM keys")]  # noqa: S608


def changes(database: sqlite3.Connection, since: int, limit: int) -> list[Change]:
    rows = database.execute(
        f"SELECT {_CHANGE} FROM changes WHERE seq > ? ORDER BY seq LIMIT ?",  # noqa: S608
        (min(since, _LAST_ROWID), limit),
    )
    return [_change(row) for row in rows]


def outbox(database: sqlite3.Connection, hold: Callable[[Owed], Owed] | None = None) -> list[Owed]:
    """Give what is held or owed, in order; the dead stay where they are."""
    rows = database.execute(
        f"SELECT {_OWED} FROM outbox WHERE standing != 'dead' ORDER BY seq, created_at"  # noqa: S608
    )
    return [_owed(row) if hold is None else hold(_owed(row)) for row in rows]


def bodies(database: sqlite3.Connection, row_ids: Sequence[str]) -> dict[str, bytes]:
    """Give the bodies of rows, of those that are there."""
    found = {}
    for row_id in row_ids:
        for (body,) in database.execute("SELECT body FROM outbox WHERE id = ?", (row_id,)):
            found[row_id] = body
    return found


def dead_letters(
    database: sqlite3.Connection, notifier: str | None, after: Age | None, limit: int
) -> list[Owed]:
    rows = database.execute(
        f"SELECT {_OWED} FROM outbox"  # noqa: S608
        " WHERE standing = 'dead' AND (created_at, seq, id) > (?, ?, ?)"
        " AND notifier = coalesce(?, notifier)"
        " ORDER BY created_at, seq, id LIMIT ?",
        (*(after or _BEFORE_ALL), notifier, limit),
    )
    return [_owed(row) for row in rows]


def dead_letter(database: sqlite3.Connection, row_id: str) -> DeadLetter | None:
    row = database.execute(
        f"SELECT {_OWED} FROM outbox WHERE standing = 'dead' AND id = ?",  # noqa: S608
        (row_id,),
    ).fetchone()
    if row is None:
        return None
    owed = _owed(row)
    younger = database.execute(
        "SELECT 1 FROM outbox WHERE standing = 'dead' AND (created_at, seq, id) > (?, ?, ?)"
        " AND notifier = ? AND subject = ? LIMIT 1",
        (*owed.age, owed.notifier, owed.subject),
    ).fetchone()
    return DeadLetter(owed, newest=younger is None)


def alerts(database: sqlite3.Connection) -> list[AlertRecord]:
    return [_alert(row) for row in database.execute(f"SELECT {_ALERT} FROM alerts")]  # noqa: S608


def _json(value: object) -> str:
    return msgspec.json.encode(value).decode()


def _source_row(record: SourceRecord) -> Row:
    return (
        record.name,
        record.kind.value,
        record.version,
        record.transport,
        record.last_seen,
        record.start_time,
        record.down_since,
        record.last_error,
        record.changes_missed_total,
        record.report_overruns_total,
        _json(record.poll_failures_total),
    )


def _source(row: Row) -> SourceRecord:
    failures = msgspec.json.decode(row[10], type=dict[PollFailure, int])
    return SourceRecord(
        name=row[0],
        kind=Kind(row[1]),
        version=row[2],
        transport=row[3],
        last_seen=row[4],
        start_time=row[5],
        down_since=row[6],
        last_error=row[7],
        changes_missed_total=row[8],
        report_overruns_total=row[9],
        poll_failures_total=failures,
    )


def _key_row(record: KeyRecord) -> Row:
    key, folded = record.key, record.key.folded()
    return (
        key.source,
        folded.group,
        folded.identifier,
        key.group,
        key.identifier,
        record.status,
        record.ready,
        record.details,
        record.changed_at,
        record.ready_changed_at,
        record.stated_at,
        record.changes_total,
        record.reports_total,
        _json(record.reports),
        record.early,
        record.ttl_seconds,
        record.on_expiry.value,
        record.expired,
        _json(record.matches),
        _json(record.subjects),
    )


_decode_reports = msgspec.json.Decoder(tuple[Report, ...]).decode
_decode_matches = msgspec.json.Decoder(dict[str, int]).decode
_decode_subjects = msgspec.json.Decoder(dict[str, SubjectRecord]).decode


def _key(row: Row) -> KeyRecord:
    return KeyRecord(
        key=Key(row[0], row[3], row[4]),
        status=row[5],
        ready=bool(row[6]),
        details=row[7],
        changed_at=row[8],
        ready_changed_at=row[9],
        stated_at=row[10],
        changes_total=row[11],
        reports_total=row[12],
        reports=_decode_reports(row[13]),
        early=bool(row[14]),
        ttl_seconds=row[15],
        on_expiry=OnExpiry(row[16]),
        expired=bool(row[17]),
        matches=_decode_matches(row[18]),
        subjects=_decode_subjects(row[19]),
    )


def _change_row(change: Change) -> Row:
    return (
        change.seq,
        change.at,
        change.kind.value,
        change.source,
        change.group,
        change.identifier,
        change.status,
        change.old_status,
        change.details,
        change.ready,
        change.was_ready,
    )


def _change(row: Row) -> Change:
    ready, was_ready = (None if flag is None else bool(flag) for flag in row[9:11])
    return Change(
        seq=row[0],
        at=row[1],
        kind=ChangeKind(row[2]),
        source=row[3],
        group=row[4],
        identifier=row[5],
        status=row[6],
        old_status=row[7],
        details=row[8],
        ready=ready,
        was_ready=was_ready,
    )


def _owed_row(owed: Owed) -> Row:
    return (
        owed.id,
        owed.seq,
        owed.notifier,
        owed.subject,
        owed.standing.value,
        owed.created_at,
        owed.due_at,
        owed.attempts,
        owed.body,
        owed.reason,
    )


def _altered_row(owed: Owed) -> Row:
    row = _owed_row(owed)
    return (*row[1:8], row[9], row[0])


def _owed(row: Row) -> Owed:
    return Owed(
        id=row[0],
        seq=row[1],
        notifier=row[2],
        subject=row[3],
        standing=Standing(row[4]),
        created_at=row[5],
        due_at=row[6],
        attempts=row[7],
        body=row[8],
        reason=row[9],
    )


def _alert_row(alert: AlertRecord) -> Row:
    return (
        alert.fingerprint,
        _json(alert.labels),
        _json(alert.annotations),
        alert.starts_at,
        alert.resolved_at,
        alert.generator_url,
    )


_decode_texts = msgspec.json.Decoder(dict[str, str]).decode


def _alert(row: Row) -> AlertRecord:
    return AlertRecord(row[0], _decode_texts(row[1]), _decode_texts(row[2]), *row[3:])
