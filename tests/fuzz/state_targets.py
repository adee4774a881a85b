"""Targets: one state that is fed whatever comes; and stores whose rows somebody has altered."""

from __future__ import annotations

import contextlib
import json
import math
import shutil
import sqlite3
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from sr_exporter.errors import PushRefused, StoreUnusable
from sr_exporter.metrics.pages import Pages
from sr_exporter.model import Forget, Key, PollFailed, PollFailure, Snapshot, Tick, Way
from sr_exporter.notify.rows import Holding
from sr_exporter.state import State
from sr_exporter.store import examine, rows
from sr_exporter.store.contract import AlertRecord, Batch, Start
from sr_exporter.store.sqlite import SqliteStore
from sr_exporter.web.items import reports_item, status_item
from sr_exporter.wire import events, push, sr
from sr_exporter.wire.text import Undecodable
from tests.fuzz import corpora
from tests.fuzz.held import CONFIGURED, NOW, Watched, a_state
from tests.fuzz.target import Opened, Target
from tests.stores import FILE, a_change, an_owed, keep

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sr_exporter.model import Observation

_LISTINGS = corpora.results("status")
_RINGS = corpora.results("reports")
_HOSTILE = (
    b'[{"Name":"TRUNKS","Identifiers":'
    b'[{"Name":"Carrier-A","Readiness":false,"Status":0,"Details":"\\n"}]}]'
)


class _Fed:
    """A state, and a clock that goes where inputs send it."""

    def __init__(self) -> None:
        self.state = a_state()
        self._now = NOW
        self.watched = Watched(self.state)

    def take(self, data: bytes) -> None:
        """Feed what the first letter says: a push, an event, a poll, a failure, or time."""
        act = _ACTS.get(data[:1], _pushed)
        for observation in act(self.state, data[1:], self._now):
            self.state.apply(observation, self._now)
        deadline = self.state.next_deadline()
        assert deadline is None or math.isfinite(deadline)
        if data[:1] == b"T":
            self._now += len(data) ** 3 / 10 - (50 if len(data) % 5 == 0 else 0)


def _pushed(state: State, data: bytes, now: float) -> list[Observation]:
    statements = push.statements(data)
    if state.faults(statements, now):
        return []
    return [*statements]


def _event(_: State, data: bytes, __: float) -> list[Observation]:
    found = events.event(data)
    source = "sip-3" if len(data) % 3 else "sip-1"
    return [found.params.statement(source, Way.TCP if len(data) % 2 else Way.UDP)]


def _polled(state: State, data: bytes, now: float) -> list[Observation]:
    listing, _, rings = data.partition(b"\n")
    listed = sr.statuses(listing)
    reports = sr.reports(rings).reports if rings else None
    size = len(data)
    return [
        Snapshot(
            "sip-1" if size % 4 else "sip-2",
            as_of=state.revision - size % 3,
            requested_at=now - size % 7,
            statuses=listed.statuses,
            partial_groups=listed.partial_groups,
            complete=listed.complete,
            reports=reports,
            uptime_seconds=float(size % 90) if size % 5 else None,
            version="4.0.1",
        )
    ]


def _failed(_: State, data: bytes, now: float) -> list[Observation]:
    reason = list(PollFailure)[len(data) % len(PollFailure)]
    return [PollFailed("sip-1", now, reason, data.decode("utf-8", "replace"))]


def _passed(_: State, data: bytes, __: float) -> list[Observation]:
    if len(data) % 11 == 0:
        return [CONFIGURED]
    if len(data) % 7 == 0:
        return [Forget("push", "trunks")]
    return [Tick()]


_ACTS: dict[bytes, Callable[[State, bytes, float], list[Observation]]] = {
    b"P": _pushed,
    b"E": _event,
    b"L": _polled,
    b"F": _failed,
    b"T": _passed,
}


@contextlib.contextmanager
def _state() -> Iterator[Opened]:
    fed = _Fed()
    yield Opened(fed.take, fed.watched.look)


# --- stores -----------------------------------------------------------------------------------


def _a_store(folder: Path) -> Path:
    """Have a store hold a row of everything."""
    path, state = folder / FILE, a_state()
    entries = [entry for source in state.sources.values() for entry in source.entries()]
    body = (
        b'{"status":"firing","receiver":"oncall","externalURL":"http://x","notification_reason":"r","alerts":'
        b'[{"status":"firing","labels":{"alertname":"a"},"annotations":{},"startsAt":'
        b'"2026-11-23T00:00:00Z","generatorURL":"http://x"}]}'
    )
    owed = [an_owed("one"), an_owed("two", 2)]
    for row in owed:
        object.__setattr__(row, "body", body)
    keep(
        SqliteStore(folder),
        Batch(
            keys={entry.key: entry.record() for entry in entries},
            sources={name: source.record() for name, source in state.sources.items()},
            changes=[a_change(1), a_change(2)],
            outbox={row.id: row for row in owed},
            alerts={"f": AlertRecord("f", {"alertname": "a"}, {}, 1.0, None, "http://x")},
            tombstones={Key("push", "gone", "main"): NOW},
        ),
    )
    return path


def _read(path: Path) -> None:
    """Start from a store as the exporter does, and go on: what it takes must not break it later."""
    state = State()
    pages = Pages(state)

    def restore(kept: Any, keys: Any) -> None:
        state.last_seq = kept.last_seq
        state.restore(kept.sources, keys, NOW, kept.tombstones, each=pages.restored)

    kept = examine.read(path, Start(Holding(), restore))
    state.apply(CONFIGURED, NOW)
    for _ in range(3):
        state.apply(Tick(), NOW + 1e6)
    assert kept.store_id
    for source in state.sources.values():
        rows._source_row(source.record())
        for entry in source.entries():
            rows._key_row(entry.record())
            msgspec.json.encode([status_item(entry), reports_item(entry)])


@contextlib.contextmanager
def _store_bytes() -> Iterator[Opened]:
    """Alter bytes of the file: each line of an input is where, in three bytes, and what."""
    with tempfile.TemporaryDirectory(prefix="sr-fuzz-") as folder:
        whole = _a_store(Path(folder)).read_bytes()
        path = Path(folder) / "altered.sqlite3"

        def take(data: bytes) -> None:
            size = len(whole)
            altered = bytearray(whole)
            for part in data.split(b"\n"):
                at = int.from_bytes(part[:3]) % size
                altered[at : at + len(part[3:])] = part[3:]
            path.write_bytes(altered[: size - (len(data) * 97 if len(data) % 9 == 0 else 0)])
            for suffix in ("-wal", "-shm", "-journal"):
                Path(f"{path}{suffix}").unlink(missing_ok=True)
            _read(path)

        yield Opened(take)


_CELLS = (
    *(
        b'["keys","reports","[[1.5,\\"x\\"]]"]',
        b'["keys","matches","{\\"gateway_inactive\\":1}"]',
        b'["keys","status",1]',
    ),
    *(
        b'["keys","subjects","{}"]',
        b'["keys","on_expiry","remove"]',
        b'["keys","ttl_seconds",1e999]',
        b'["keys","details",null]',
    ),
    *(
        b'["sources","kind","polled"]',
        b'["sources","poll_failures_total","{}"]',
        b'["sources","down_since",0.5]',
    ),
    *(
        b'["alerts","labels","{}"]',
        b'["alerts","starts_at",1]',
        b'["outbox","body","{}"]',
        b'["outbox","standing","dead"]',
    ),
    *(
        b'["outbox","due_at",-1e308]',
        b'["outbox","subject","[]"]',
        b'["tombstones","at",9e99]',
        b'["meta","value","x"]',
    ),
    *(
        b'["keys","changes_total",-5]',
        b'["keys","group_name","\\u0000"]',
        b'["keys","identifier",""]',
        b'["changes","at","x"]',
    ),
)


class _NoCell(Exception):  # noqa: N818 - named for what befell the caller
    """No cell can hold that."""


def _alter(path: Path, table: str, column: str, value: Any) -> None:
    if not (table.isidentifier() and column.isidentifier()):
        raise ValueError("names are expected")
    if isinstance(value, list | dict):
        value = json.dumps(value)
    with contextlib.closing(sqlite3.connect(path)) as database, database:
        database.execute(f'UPDATE OR IGNORE "{table}" SET "{column}" = ?', (value,))


@contextlib.contextmanager
def _store_cells() -> Iterator[Opened]:
    """Alter values in tables: an input is a JSON array of table, column and value."""
    with tempfile.TemporaryDirectory(prefix="sr-fuzz-") as folder:
        whole = _a_store(Path(folder))
        path = Path(folder) / "altered.sqlite3"

        def take(data: bytes) -> None:
            shutil.copyfile(whole, path)
            try:
                _alter(path, *json.loads(data.decode("utf-8", "surrogateescape")))
            except (
                ValueError,
                TypeError,
                AttributeError,
                RecursionError,
                OverflowError,
                sqlite3.Error,
            ):
                raise _NoCell from None
            _read(path)

        yield Opened(take)


def targets() -> list[Target]:
    """Give them all."""
    fed = [
        *(b"P" + body for body in corpora.PUSHES),
        *(b"E" + body for body in corpora.events()[:20]),
        *(b"L" + listing for listing in (*_LISTINGS, _HOSTILE)),
        *(b"L" + listing + b"\n" + rings for listing in _LISTINGS[:1] for rings in _RINGS[:4]),
        *(b"F" + reason for reason in (b"no route", b"\xff\n")),
        *(b"T" + b"t" * size for size in (0, 1, 3, 5, 11)),
    ]
    return [
        Target(
            "state",
            _state,
            fed,
            (Undecodable, PushRefused),
            (b'"trunks"', b'"sip-1"', b'"main"', b'"carrier-a"'),
            weight=4,
            holds=True,
        ),
        Target(
            "store-bytes",
            _store_bytes,
            (b"\0\0\x10x", b"\0\x10\0SQLite", b"\x01\0\0\0\0\n\0\x20\0abc"),
            (StoreUnusable,),
            weight=0.3,
        ),
        Target("store-cells", _store_cells, _CELLS, (StoreUnusable, _NoCell), weight=0.3),
    ]
