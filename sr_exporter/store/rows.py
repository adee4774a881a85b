"""Records to rows of schema.sql and back, and the statements that write them."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING

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
    fold,
)
from sr_exporter.signals import SubjectRecord
from sr_exporter.store.contract import AlertRecord, DeadLetter, Kept, Owed, Standing
from sr_exporter.store.put import Put, Row

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterator, Mapping, Sequence

    from sr_exporter.store.contract import Age, Batch, Start

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
#: As it is read: by what it is matched need not be known.
_KEY_READ = _KEY.replace("group_fold, identifier_fold, ", "")
#: As it is read from a store of an older schema.
_KEY_BEFORE_SUBJECTS = _KEY_READ.replace("matches, subjects", "'{}', '{}'")
CHANGE = (
    "seq, at, kind, source, group_name, identifier, status, old_status, details, ready, was_ready"
)
_OWED = "id, seq, notifier, subject, standing, created_at, due_at, attempts, body, reason"
_TOMBSTONE = "source, group_fold, identifier_fold, at"
_ALERT = "fingerprint, labels, annotations, starts_at, resolved_at, generator_url"
#: What is held or owed.
_OUTBOX = "outbox WHERE standing != 'dead'"
#: Older than any notification.
_BEFORE_ALL: Age = (float("-inf"), 0, "")


_put_sources = Put("sources", _SOURCE)
_put_keys = Put("keys", _KEY)
_put_changes = Put("changes", CHANGE)
_put_owed = Put("outbox", _OWED)
#: All but the body.
_ALTERED = "seq, notifier, subject, standing, created_at, due_at, attempts, reason"
_ALTER_OWED = (
    f"UPDATE outbox SET {', '.join(f'{column} = ?' for column in _ALTERED.split(', '))}"  # noqa: S608
    " WHERE id = ?"
)
_put_alerts = Put("alerts", _ALERT)
_put_tombstones = Put("tombstones", _TOMBSTONE)


def write(database: sqlite3.Connection, batch: Batch) -> None:
    """Write a batch inside the transaction that is open."""
    each = database.executemany
    if batch.keys_removed:
        each(
            "DELETE FROM keys WHERE source = ? AND group_fold = ? AND identifier_fold = ?",
            [key.folded() for key in batch.keys_removed],
        )
    if batch.sources_removed:
        gone = [(name,) for name in batch.sources_removed]
        each("DELETE FROM sources WHERE name = ?", gone)
    if batch.tombstones:
        _write_tombstones(database, batch.tombstones)
    _put_keys(database, [_key_row(record) for record in batch.keys.values()])
    _put_sources(database, [_source_row(record) for record in batch.sources.values()])
    if batch.changes:
        _put_changes(database, [_change_row(change) for change in batch.changes])
        # The journal is trimmed; its numbers never repeat all the same.
        last = str(batch.changes[-1].seq)
        database.execute("INSERT OR REPLACE INTO meta VALUES ('last_seq', ?)", (last,))
    if batch.outbox:
        _write_owed(database, batch.outbox)
    if batch.alerts:
        gone = [(mark,) for mark, alert in batch.alerts.items() if alert is None]
        each("DELETE FROM alerts WHERE fingerprint = ?", gone)
        _put_alerts(database, [_alert_row(alert) for alert in batch.alerts.values() if alert])


def _write_tombstones(database: sqlite3.Connection, tombstones: Mapping[Key, float | None]) -> None:
    database.executemany(
        "DELETE FROM tombstones WHERE source = ? AND group_fold = ? AND identifier_fold = ?",
        [key for key, at in tombstones.items() if at is None],
    )
    _put_tombstones(database, [(*key, at) for key, at in tombstones.items() if at is not None])


def _write_owed(database: sqlite3.Connection, outbox: Mapping[str, Owed | None]) -> None:
    gone = [(row_id,) for row_id, owed in outbox.items() if owed is None]
    database.executemany("DELETE FROM outbox WHERE id = ?", gone)
    held = [owed for owed in outbox.values() if owed]
    _put_owed(database, [_owed_row(owed) for owed in held if owed.body is not None])
    altered = [_altered_row(owed) for owed in held if owed.body is None]
    database.executemany(_ALTER_OWED, altered)


def everything(database: sqlite3.Connection, version: int, start: Start) -> Kept:
    """Give all that a start needs, also of a store of an older schema."""
    (store_id,) = database.execute("SELECT value FROM meta WHERE name = 'store_id'").fetchone()
    last_seq = database.execute("SELECT value FROM meta WHERE name = 'last_seq'").fetchone()
    changes(database, 0, 1)  # the journal is not loaded; its table must be there
    kept = Kept(
        store_id=str(uuid.UUID(store_id)),
        last_seq=int(last_seq[0]) if last_seq else 0,
        sources=sources(database),
        keys=[],
        outbox=[],
        alerts=alerts(database),
        tombstones=tombstones(database) if version >= _TOMBSTONES_SINCE else {},
    )
    watched = start.progress.watched
    found = watched(keys(database, version), "identifiers", lambda: _count(database, "keys"))
    if start.restore is None:
        kept.keys.extend(found)
    else:
        start.restore(kept, found)
    owed = watched(outbox(database), "notifications", lambda: _count(database, _OUTBOX))
    kept.outbox.extend(map(start.hold, owed))
    return kept


def tombstones(database: sqlite3.Connection) -> dict[Key, float]:
    """Give when keys were removed, the oldest first."""
    rows = database.execute(f"SELECT {_TOMBSTONE} FROM tombstones ORDER BY at")  # noqa: S608
    return {Key(*row[:3]): row[3] for row in rows}


def sources(database: sqlite3.Connection) -> list[SourceRecord]:
    return [_source(row) for row in database.execute(f"SELECT {_SOURCE} FROM sources")]  # noqa: S608


def keys(database: sqlite3.Connection, version: int) -> Iterator[KeyRecord]:
    columns = _KEY_READ if version >= _SUBJECTS_SINCE else _KEY_BEFORE_SUBJECTS
    rows = database.execute(f"SELECT {columns} FROM keys")  # noqa: S608
    return map(_key, rows)


def _count(database: sqlite3.Connection, rows: str) -> int:
    count: int = database.execute(f"SELECT count(*) FROM {rows}").fetchone()[0]  # noqa: S608
    return count


def changes(database: sqlite3.Connection, since: int, limit: int) -> list[Change]:
    rows = database.execute(
        f"SELECT {CHANGE} FROM changes WHERE seq > ? ORDER BY seq LIMIT ?",  # noqa: S608
        (min(since, _LAST_ROWID), limit),
    )
    return [change(row) for row in rows]


def outbox(database: sqlite3.Connection) -> Iterator[Owed]:
    """Give what is held or owed, in order; the dead stay where they are."""
    rows = database.execute(f"SELECT {_OWED} FROM {_OUTBOX} ORDER BY seq, created_at")  # noqa: S608
    return map(_owed, rows)


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
        str(record.kind),
        record.version,
        record.transport,
        record.last_seen,
        record.start_time,
        record.down_since,
        record.last_error,
        record.changes_missed_total,
        record.report_overruns_total,
        _json(record.poll_failures_total) if record.poll_failures_total else "{}",
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
    source, group, identifier = record.key
    return (
        source,
        fold(group),
        fold(identifier),
        group,
        identifier,
        record.status,
        record.ready,
        record.details,
        record.changed_at,
        record.ready_changed_at,
        record.stated_at,
        record.changes_total,
        record.reports_total,
        _json(record.reports) if record.reports else "[]",
        record.early,
        record.ttl_seconds,
        str(record.on_expiry),
        record.expired,
        _json(record.matches) if record.matches else "{}",
        _json(record.subjects) if record.subjects else "{}",
    )


_ON_EXPIRY: dict[str, OnExpiry] = {on_expiry.value: on_expiry for on_expiry in OnExpiry}
_decode_reports = msgspec.json.Decoder(tuple[Report, ...]).decode
_decode_matches = msgspec.json.Decoder(dict[str, int]).decode
_decode_subjects = msgspec.json.Decoder(dict[str, SubjectRecord]).decode


def _key(row: Row) -> KeyRecord:
    reports, on_expiry, matches, subjects = row[11], row[14], row[16], row[17]
    return KeyRecord(
        Key(row[0], row[1], row[2]),
        row[3],
        bool(row[4]),
        row[5],
        row[6],
        row[7],
        row[8],
        row[9],
        # Most keys have none of these: a million decoders' calls are seconds.
        () if reports == "[]" else _decode_reports(reports),
        row[10],
        bool(row[12]),
        row[13],
        _ON_EXPIRY.get(on_expiry) or OnExpiry(on_expiry),
        bool(row[15]),
        {} if matches == "{}" else _decode_matches(matches),
        {} if subjects == "{}" else _decode_subjects(subjects),
    )


def _change_row(change: Change) -> Row:
    return (
        change.seq,
        change.at,
        str(change.kind),
        change.source,
        change.group,
        change.identifier,
        change.status,
        change.old_status,
        change.details,
        change.ready,
        change.was_ready,
    )


def change(row: Row) -> Change:
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
