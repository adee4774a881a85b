"""What a store promises, asked of every implementation.

Where a promise is about outliving a process, or about the files, only those that have files
are asked. Failures are made by `Disk`, which stands in for the one function that writes.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sr_exporter.errors import NotKept
from sr_exporter.model import (
    INT32_MAX,
    INT32_MIN,
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
from sr_exporter.store import rows, schema, sqlite
from sr_exporter.store.contract import (
    AlertRecord,
    Batch,
    DeadLetter,
    Owed,
    Standing,
    Start,
    Store,
)
from sr_exporter.store.sqlite import SqliteStore
from tests.stores import (
    FILE,
    a_change,
    a_key,
    an_owed,
    holding,
    keep,
    load,
    statuses,
    until,
    use,
)

if TYPE_CHECKING:
    from collections.abc import Callable

#: Every implementation of the contract, made for a directory.
MAKERS: dict[str, Callable[[Path], Store]] = {
    "sqlite": SqliteStore,
    "sqlite in memory": lambda _directory: SqliteStore(None),
}
#: Those that outlive their process.
LASTING = {"sqlite": MAKERS["sqlite"]}


@pytest.fixture(params=MAKERS)
def make(request, tmp_path):
    return lambda: MAKERS[request.param](tmp_path / "data")


@pytest.fixture(params=LASTING)
def make_lasting(request, tmp_path):
    return lambda: LASTING[request.param](tmp_path / "data")


class Disk:
    """Stands in for `rows.write`: breaks after writing, or waits, on command.

    It says nothing of how a disk fails underneath SQLite; that is SQLite's own promise, and a
    trigger that raises shows one case of it below.
    """

    def __init__(self, write) -> None:
        self._write = write
        self.broken = False
        self.entered = threading.Event()
        self.gate = threading.Event()
        self.gate.set()

    def write(self, database: sqlite3.Connection, batch: Batch) -> None:
        self.entered.set()
        assert self.gate.wait(20.0)
        self._write(database, batch)
        if self.broken:
            raise sqlite3.OperationalError("the disk is full")


@pytest.fixture
def disk(monkeypatch):
    disk = Disk(rows.write)
    monkeypatch.setattr(rows, "write", disk.write)
    return disk


@pytest.fixture
def soon(monkeypatch):
    """Let a store that failed try again at once."""
    monkeypatch.setattr(sqlite, "RETRY_SECONDS", 0.01)


@pytest.fixture
def never(monkeypatch):
    """Let a store that failed not try again by itself."""
    monkeypatch.setattr(sqlite, "RETRY_SECONDS", 3600.0)


# --- records --------------------------------------------------------------------------------

texts = st.text(max_size=20)
odd_texts = texts | st.sampled_from(
    ["\0", "a\0b", "\ufffd", "\U0010ffff", "\u2028", "e\u0301", "'"]
)
numbers = st.sampled_from([INT32_MIN, -1, 1, INT32_MAX]) | st.integers(INT32_MIN, INT32_MAX)
counts = st.integers(0, 2**53)
times = st.floats(allow_nan=False, allow_infinity=False)
subject_records = st.builds(
    SubjectRecord,
    rule=odd_texts,
    since=times,
    reported_at=times,
    ends_at=times,
    log=odd_texts,
)
key_records = st.builds(
    KeyRecord,
    key=st.builds(Key, odd_texts, odd_texts, odd_texts),
    status=numbers,
    ready=st.booleans(),
    details=st.none() | odd_texts,
    changed_at=times,
    ready_changed_at=times,
    stated_at=times,
    changes_total=counts,
    reports=st.lists(st.builds(Report, times, odd_texts), max_size=4).map(tuple),
    reports_total=counts,
    early=st.booleans(),
    ttl_seconds=st.none() | times,
    on_expiry=st.sampled_from(OnExpiry),
    expired=st.booleans(),
    matches=st.dictionaries(odd_texts, counts, max_size=3),
    subjects=st.dictionaries(odd_texts, subject_records, max_size=3),
)
source_records = st.builds(
    SourceRecord,
    name=odd_texts,
    kind=st.sampled_from(Kind),
    version=odd_texts,
    transport=odd_texts,
    last_seen=st.none() | times,
    start_time=st.none() | times,
    down_since=st.none() | times,
    last_error=st.none() | odd_texts,
    changes_missed_total=counts,
    report_overruns_total=counts,
    poll_failures_total=st.dictionaries(st.sampled_from(PollFailure), counts),
)
changes = st.builds(
    Change,
    # Never past its retention, by number or by time.
    seq=st.integers(2**53 - 1_000_000, 2**53),
    at=st.floats(1e12, 1e300),
    kind=st.sampled_from(ChangeKind),
    source=odd_texts,
    group=st.none() | odd_texts,
    identifier=st.none() | odd_texts,
    status=st.none() | numbers,
    old_status=st.none() | numbers,
    details=st.none() | odd_texts,
    ready=st.none() | st.booleans(),
    was_ready=st.none() | st.booleans(),
)
owed_rows = st.builds(
    Owed,
    id=odd_texts,
    seq=st.integers(0, 2**53),
    notifier=odd_texts,
    subject=odd_texts,
    standing=st.sampled_from([Standing.HELD, Standing.OWED]),
    created_at=times,
    due_at=times,
    attempts=counts,
    body=st.binary(max_size=50),
    reason=st.none() | odd_texts,
)
alert_records = st.builds(
    AlertRecord,
    fingerprint=odd_texts,
    labels=st.dictionaries(odd_texts, odd_texts, max_size=3),
    annotations=st.dictionaries(odd_texts, odd_texts, max_size=3),
    starts_at=times,
    resolved_at=st.none() | times,
    generator_url=odd_texts,
)


def unique(records, by):
    return st.lists(records, max_size=4, unique_by=by)


# --- what is kept ---------------------------------------------------------------------------


@pytest.mark.parametrize("maker", LASTING.values(), ids=LASTING)
@settings(max_examples=60)
@given(
    keys=unique(key_records, lambda record: record.key.folded()),
    sources=unique(source_records, lambda record: record.name),
    journal=unique(changes, lambda change: change.seq),
    outbox=unique(owed_rows, lambda owed: owed.id),
    alerts=unique(alert_records, lambda alert: alert.fingerprint),
    # Never past the time they are remembered for.
    tombstones=st.dictionaries(
        st.builds(Key, odd_texts, odd_texts, odd_texts), st.floats(1e12, 1e300), max_size=4
    ),
)
def test_every_record_comes_back_as_it_was(
    maker, keys, sources, journal, outbox, alerts, tombstones
):
    """Whatever text, number or time it holds, a record that was kept is loaded unaltered."""
    journal.sort(key=lambda change: change.seq)
    batch = Batch(
        keys={record.key: record for record in keys},
        sources={record.name: record for record in sources},
        changes=list(journal),
        outbox={owed.id: owed for owed in outbox},
        alerts={alert.fingerprint: alert for alert in alerts},
        tombstones=dict(tombstones),
    )

    async def journalled(store: Store) -> list[Change]:
        await store.commit(batch)
        return await store.changes(0, 10)

    with tempfile.TemporaryDirectory() as name:
        assert use(maker(Path(name)), journalled) == journal
        kept = load(maker(Path(name)))
    assert sorted(kept.keys, key=lambda record: record.key) == sorted(
        keys, key=lambda record: record.key
    )
    assert sorted(kept.sources, key=lambda record: record.name) == sorted(
        sources, key=lambda record: record.name
    )
    assert [owed.seq for owed in kept.outbox] == sorted(owed.seq for owed in outbox)
    assert {owed.id: owed for owed in kept.outbox} == {owed.id: owed for owed in outbox}
    assert {alert.fingerprint: alert for alert in kept.alerts} == {
        alert.fingerprint: alert for alert in alerts
    }
    assert kept.tombstones == tombstones
    assert list(kept.tombstones.values()) == sorted(tombstones.values())
    assert kept.last_seq == (journal[-1].seq if journal else 0)


def test_a_new_store_is_empty(make):
    """It has an identity of its own, and nothing else."""
    kept = load(make())
    assert kept.store_id
    assert kept.last_seq == 0
    assert (kept.keys, kept.sources, kept.outbox, kept.alerts) == ([], [], [], [])
    assert kept.tombstones == {}


def test_a_store_keeps_its_identity(make_lasting, tmp_path):
    """Delivery ids are made of it, so it never changes, and no two stores share one."""
    first = load(make_lasting())
    assert load(make_lasting()).store_id == first.store_id
    assert load(SqliteStore(tmp_path / "other")).store_id != first.store_id


def test_batches_are_kept_in_the_order_they_were_handed_over(make_lasting):
    """The last word on a key is the last one said, also when none was waited for."""

    async def act(store: Store) -> None:
        handed = [store.commit(holding(a_key("g", status))) for status in range(1, 101)]
        await asyncio.gather(*handed)

    use(make_lasting(), act)
    assert statuses(load(make_lasting())) == {"g": 100}


def test_a_later_batch_removes_and_brings_back(make_lasting):
    """Each thing that can be kept can be removed, and kept once more."""
    key, source = a_key(), SourceRecord("push", Kind.PUSHED)
    alert = AlertRecord("f", {}, {}, 1.0, None, "")
    put = Batch(
        keys={key.key: key},
        sources={"push": source},
        outbox={"1": an_owed("1")},
        alerts={"f": alert},
        tombstones={key.key: None},
    )
    drop = Batch(
        keys_removed={key.key: None},
        sources_removed={"push": None},
        outbox={"1": None},
        alerts={"f": None},
        tombstones={key.key: 1e12},
    )
    keep(make_lasting(), put, drop)
    kept = load(make_lasting())
    assert (kept.keys, kept.sources, kept.outbox, kept.alerts) == ([], [], [], [])
    assert kept.tombstones == {key.key: 1e12}
    keep(make_lasting(), drop, put)
    kept = load(make_lasting())
    assert (kept.keys, kept.sources, kept.alerts) == ([key], [source], [alert])
    assert (kept.outbox, kept.tombstones) == ([an_owed("1")], {})


def test_a_key_that_returns_in_another_spelling_is_one_key(make_lasting):
    """Keys are matched as the state matches them; the new spelling is the one shown."""
    old, new = a_key("Gateways"), a_key("gateways", -1)
    keep(make_lasting(), holding(old))
    keep(make_lasting(), Batch(keys={new.key: new}, keys_removed={old.key: None}))
    assert load(make_lasting()).keys == [new]


def test_the_outbox_is_loaded_in_order_and_without_the_dead(make_lasting):
    """What is held back or owed goes on where it stood."""
    owed = [an_owed("b", 1), an_owed("a", 2, Standing.HELD), an_owed("c", 3, Standing.DEAD)]
    keep(make_lasting(), Batch(outbox={row.id: row for row in reversed(owed)}))
    assert load(make_lasting()).outbox == owed[:2]


def test_what_was_kept_outlives_a_process_that_is_killed(tmp_path):
    """A future that resolved means that the data is there, whatever happens next."""
    program = """
import asyncio, os, signal, sys
from pathlib import Path
from sr_exporter.model import Change, ChangeKind
from sr_exporter.store.contract import Batch
from sr_exporter.store.sqlite import SqliteStore

async def run():
    store = SqliteStore(Path(sys.argv[1]))
    store.load()
    await store.commit(Batch(changes=[Change(7, 1e12, ChangeKind.SOURCE_UP, "sip-1")]))
    os.kill(os.getpid(), signal.SIGKILL)

asyncio.run(run())
"""
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)],
        env={**os.environ, "PYTHONPATH": str(root)},
        check=False,
        timeout=50,
    )
    assert done.returncode == -signal.SIGKILL
    assert load(SqliteStore(tmp_path)).last_seq == 7


def test_every_commit_is_synced(tmp_path):
    """Only `FULL` syncs the write-ahead log in each commit, before it returns."""

    async def act(store: SqliteStore) -> list[object]:
        question = lambda database: [  # noqa: E731
            database.execute(f"PRAGMA {name}").fetchone()[0]
            for name in ("journal_mode", "synchronous")
        ]
        future = asyncio.get_running_loop().create_future()
        return await store._hand_over(future, question=lambda: question(store._connected()))

    assert use(SqliteStore(tmp_path), act) == ["wal", 2]


def test_batches_that_wait_share_a_commit(make, disk):
    """While one commit is under way any number of batches gather, and cost one more."""
    disk.gate.clear()

    async def act(store: Store) -> None:
        handed = [store.commit(holding(a_key("0")))]
        await asyncio.sleep(0)
        assert disk.entered.wait(20.0)
        handed += [store.commit(holding(a_key(str(number)))) for number in range(1, 500)]
        assert store.figures().waiting == 500
        disk.gate.set()
        await asyncio.gather(*handed)
        figures = store.figures()
        assert (figures.commits_total, figures.batches_total, figures.waiting) == (2, 500, 0)
        assert figures.commit_seconds_total > 0

    use(make(), act)


def test_what_one_turn_hands_over_is_one_commit(make, disk):
    """The thread is not woken before the turn is over: the first would be committed alone."""

    async def act(store: Store) -> None:
        handed = [store.commit(holding(a_key(str(number)))) for number in range(100)]
        await asyncio.gather(*handed)
        assert store.figures().commits_total == 1

    use(make(), act)


def test_what_waits_for_a_commit_cannot_undo_it(make, disk):
    """A pusher that goes away hears of that when the commit is over, and others wait on."""
    disk.gate.clear()

    async def act(store: Store) -> None:
        kept = store.commit(holding(a_key("0")))
        gone = asyncio.ensure_future(asyncio.wait_for(kept, 20.0))
        await asyncio.sleep(0)
        gone.cancel()
        await asyncio.sleep(0)
        assert not kept.done()
        disk.gate.set()
        await kept
        assert store.figures().commits_total == 1

    use(make(), act)


# --- merging --------------------------------------------------------------------------------


def test_the_later_word_wins_a_merge():
    """Of what is kept and removed by turns only the last is left, in one place."""
    key, source = a_key(), SourceRecord("push", Kind.PUSHED)
    put = Batch(
        keys={key.key: key},
        sources={"push": source},
        changes=[a_change(1)],
        outbox={"1": an_owed("1"), "2": an_owed("2")},
    )
    drop = Batch(
        keys_removed={key.key: None},
        sources_removed={"push": None},
        changes=[a_change(2)],
        outbox={"1": None},
        tombstones={key.key: 7.0},
    )
    merged = Batch()
    assert not merged
    merged.merge(put)
    merged.merge(drop)
    assert merged
    assert (merged.keys, merged.sources) == ({}, {})
    assert (merged.keys_removed, merged.sources_removed) == ({key.key: None}, {"push": None})
    assert [change.seq for change in merged.changes] == [1, 2]
    assert merged.outbox == {"1": None, "2": an_owed("2")}
    moved = replace(an_owed("2"), due_at=99.0)
    merged.merge(Batch(outbox={name: replace(moved, id=name, body=None) for name in "123"}))
    assert merged.outbox == {"1": None, "2": moved, "3": replace(moved, id="3", body=None)}
    assert merged.tombstones == {key.key: 7.0}
    merged.merge(put)
    merged.merge(Batch(tombstones={key.key: None}))
    assert (merged.keys, merged.keys_removed) == ({key.key: key}, {})
    assert (merged.sources, merged.sources_removed) == ({"push": source}, {})
    assert merged.tombstones == {key.key: None}
    assert Batch(tombstones={key.key: None})


@st.composite
def histories(draw):
    """Give batches as a state makes them: a key is removed in the spelling it was held in."""
    held: dict[str, KeyRecord] = {}
    batches = []
    for _ in range(draw(st.integers(0, 6))):
        batch = Batch()
        for fold in draw(st.sets(st.sampled_from("ab"))):
            before = held.pop(fold, None)
            removed = before is not None and draw(st.booleans())
            if before is not None and removed:
                batch.keys_removed[before.key] = None
                batch.tombstones[before.key.folded()] = draw(st.sampled_from([1.0, 2.0]))
            if before is None or not removed or draw(st.booleans()):
                spellings = st.sampled_from([fold, fold.upper()])
                name = before.key.group if before and not removed else draw(spellings)
                record = held[fold] = a_key(name, draw(st.sampled_from([-1, 1])))
                batch.keys[record.key] = record
                batch.keys_removed.pop(record.key, None)
                batch.tombstones[record.key.folded()] = None
        for name in draw(st.sets(st.sampled_from("xy"))):
            if draw(st.booleans()):
                version = draw(st.sampled_from("12"))
                batch.sources[name] = SourceRecord(name, Kind.POLLED, version=version)
            else:
                batch.sources_removed[name] = None
            row = replace(an_owed(name), body=draw(st.sampled_from([None, b"", b"{}"])))
            batch.outbox[name] = draw(st.none() | st.just(replace(row, attempts=len(batches))))
        batches.append(batch)
    return batches


@given(batches=histories())
def test_a_merge_keeps_what_its_parts_would_have_kept(batches):
    """Batches written one by one, and merged and written once, leave the same rows."""

    def written(*several: Batch) -> list[str]:
        with closing(sqlite3.connect(":memory:", isolation_level=None)) as database:
            schema.create(database)
            for batch in several:
                rows.write(database, batch)
            database.execute("DELETE FROM meta WHERE name = 'store_id'")
            return list(database.iterdump())

    merged = Batch()
    for batch in batches:
        merged.merge(batch)
    assert written(merged) == written(*batches)


# --- the journal ----------------------------------------------------------------------------


def test_changes_are_given_from_a_number_on(make):
    """The number asked from is exclusive; at most so many are given, the oldest first."""

    async def act(store: Store) -> None:
        await store.commit(Batch(changes=[a_change(seq) for seq in range(1, 11)]))
        for since, limit, expected in [
            (0, 100, range(1, 11)),
            (0, 3, range(1, 4)),
            (7, 2, range(8, 10)),
            (9, 10, range(10, 11)),
            (10, 10, range(0)),
            (-5, 2, range(1, 3)),
            (5, 0, range(0)),
            (2**70, 10, range(0)),
        ]:
            given = await store.changes(since, limit)
            assert [change.seq for change in given] == list(expected)

    use(make(), act)


def test_a_question_sees_what_was_handed_over_before_it(make):
    """Nothing handed over is overtaken by a question."""

    async def act(store: Store) -> None:
        committed = store.commit(Batch(changes=[a_change(1)]))
        assert len(await store.changes(0, 10)) == 1
        await committed

    use(make(), act)


def test_a_question_that_fails_harms_nobody_else(make):
    """It fails alone; the store goes on."""

    async def act(store: Store) -> None:
        with pytest.raises(NotKept):
            await store.changes(0, 2**70)
        await store.commit(Batch(changes=[a_change(1)]))
        assert len(await store.changes(0, 10)) == 1

    use(make(), act)


def test_the_past_of_some_keys_is_looked_for_backwards(make):
    """Stretch by stretch, whosever changes they are; of keys in any spelling, and their sources."""
    kinds = {"down": ChangeKind.SOURCE_DOWN, "up": ChangeKind.SOURCE_UP}

    def change(seq: int, source: str, what: str, at: float | None = None) -> Change:
        if what in kinds:
            return Change(seq, seq if at is None else at, kinds[what], source)
        return Change(seq, seq if at is None else at, ChangeKind.STATUS, source, "Grp", what)

    journal = [
        change(3, "a", "one"),
        change(4, "b", "ONE"),
        change(5, "a", "OnE", at=90.0),
        change(6, "a", "down"),
        change(7, "a", "two"),
        change(8, "b", "up"),
        change(9, "a", "Ünë"),
        change(10, "c", "one"),
    ]

    async def act(store: Store) -> None:
        keys = {Key("a", "grp", "one"), Key("a", "grp", "Ünë".lower()), Key("b", "grp", "ünë")}
        assert await store.past(keys, before=None, rows=10) == ([], None, None)
        await store.commit(Batch(changes=journal))

        async def look(before: int | None, rows: int) -> tuple[list[int], float | None, int | None]:
            past = await store.past(keys, before=before, rows=rows)
            return [change.seq for change in past.changes], past.youngest_at, past.before

        # Only ASCII case does not count: of Ünë there is none.
        assert await look(None, 100) == ([8, 6, 5, 3], 90.0, None)
        assert await look(None, 3) == ([8], 10.0, 8)
        assert await look(8, 3) == ([6, 5], 90.0, 5)
        assert await look(5, 2) == ([3], 4.0, None)
        assert await look(3, 2) == ([], None, None)
        assert await look(2**60, 1) == ([], 10.0, 10)
        given = await store.past({Key("a", "grp", "Ünë")}, before=None, rows=100)
        assert given.changes[0] == journal[6]

    use(make(), act)


# --- bodies of the outbox ------------------------------------------------------------------------


def test_bodies_are_given_by_id(make):
    """Of rows of any standing; those of rows that are not there are left out."""

    async def act(store: Store) -> None:
        rows = {
            "1": replace(an_owed("1"), body=b"one"),
            "2": replace(an_owed("2", standing=Standing.HELD), body=b""),
            "3": replace(an_owed("3", standing=Standing.DEAD), body=b"\0three"),
        }
        handed = store.commit(Batch(outbox=dict(rows)))
        assert await store.bodies(["3", "none", "1", "2"]) == {
            "1": b"one",
            "2": b"",
            "3": b"\0three",
        }
        assert await store.bodies([]) == {}
        await handed
        many = {str(n): an_owed(str(n)) for n in range(5000)}
        await store.commit(Batch(outbox=dict(many)))
        assert len(await store.bodies(list(many))) == 5000

    use(make(), act)


def test_a_row_without_its_body_keeps_the_one_it_has(make):
    """All else of it is as it is handed over; a row that is not there is not made."""

    async def act(store: Store) -> None:
        await store.commit(Batch(outbox={"1": replace(an_owed("1"), body=b"one")}))
        altered = replace(
            an_owed("1", 7, Standing.DEAD),
            notifier="other",
            subject="else",
            created_at=2e12,
            due_at=5.0,
            attempts=9,
            reason="HTTP 400",
            body=None,
        )
        nobody = replace(altered, id="2")
        await store.commit(Batch(outbox={"1": altered, "2": nobody}))
        letters = await store.dead_letters(notifier=None, after=None, limit=9)
        assert letters == [replace(altered, body=b"one")]
        assert await store.bodies(["1", "2"]) == {"1": b"one"}

    use(make(), act)


def test_what_is_loaded_is_what_its_holder_makes_of_it(make_lasting):
    """One row at a time; what was left to the store is given by it."""
    rows = {name: replace(an_owed(name, seq), body=name.encode()) for seq, name in enumerate("ab")}
    keep(make_lasting(), Batch(outbox=dict(rows)))

    async def act(store: Store) -> None:
        assert await store.bodies(["a", "b"]) == {"a": b"a", "b": b"b"}

    store = make_lasting()
    with closing(store):
        kept = store.load(Start(hold=lambda row: replace(row, body=None)))
        assert kept.outbox == [replace(row, body=None) for row in rows.values()]
        asyncio.run(act(store))


def test_bodies_are_given_while_the_disk_takes_nothing(make, disk, never):
    """What was handed over last, and what is there from before."""

    async def act(store: Store) -> None:
        old = {name: replace(an_owed(name), body=b"old") for name in "abc"}
        await store.commit(Batch(outbox=dict(old)))
        disk.broken = True
        later = {
            "a": None,
            "b": replace(an_owed("b"), body=None, attempts=7),
            "c": replace(an_owed("c"), body=b""),
            "d": replace(an_owed("d"), body=b"new"),
        }
        with pytest.raises(NotKept):
            await store.commit(Batch(outbox=dict(later)))
        assert await store.bodies(["a", "b", "c", "d"]) == {"b": b"old", "c": b"", "d": b"new"}
        disk.broken = False
        await store.commit(holding(a_key()))
        assert await store.bodies(["a", "b", "c", "d"]) == {"b": b"old", "c": b"", "d": b"new"}

    use(make(), act)


def test_bodies_are_not_given_by_a_store_that_is_closed(make):
    """As of every question."""

    async def act(store: Store) -> None:
        store.close()
        with pytest.raises(NotKept, match="closed"):
            await store.bodies(["a"])

    use(make(), act)


# --- failure --------------------------------------------------------------------------------


def test_a_commit_that_fails_fails_its_futures(make, disk, never):
    """All batches that shared it hear of it, and the figures tell why."""

    async def act(store: Store) -> None:
        disk.broken = True
        disk.gate.clear()
        handed = [store.commit(holding(a_key(name))) for name in "abc"]
        disk.gate.set()
        for future in handed:
            with pytest.raises(NotKept, match="the disk is full"):
                await future
        figures = store.figures()
        assert figures.error == "the disk is full"
        assert figures.commit_failures_total >= 1
        assert figures.commits_total == 0

    use(make(), act)


def test_what_failed_is_tried_again_by_itself(make_lasting, disk, soon):
    """Once the disk takes it, it is kept, without anybody asking, and the error is gone."""

    async def act(store: Store) -> None:
        disk.broken = True
        with pytest.raises(NotKept):
            await store.commit(holding(a_key("a"), changes=(a_change(1),)))
        await until(lambda: store.figures().commit_failures_total > 2)
        assert await store.changes(0, 10) == []
        disk.broken = False
        await until(lambda: store.figures().error is None)
        assert len(await store.changes(0, 10)) == 1
        store.close()
        assert statuses(load(make_lasting())) == {"a": 1}

    use(make_lasting(), act)


def test_a_later_success_keeps_what_failed_before(make_lasting, disk, never):
    """Both are there, and of what was said twice the later word."""

    async def act(store: Store) -> None:
        disk.broken = True
        gone = a_key("gone")
        with pytest.raises(NotKept):
            await store.commit(holding(a_key("a"), a_key("b"), gone, changes=(a_change(1),)))
        with pytest.raises(NotKept):
            await store.commit(Batch(keys_removed={gone.key: None}, changes=[a_change(2)]))
        disk.broken = False
        await store.commit(holding(a_key("b", 2), a_key("c"), changes=(a_change(3),)))
        assert store.figures().error is None
        assert [change.seq for change in await store.changes(0, 10)] == [1, 2, 3]

    use(make_lasting(), act)
    assert statuses(load(make_lasting())) == {"a": 1, "b": 2, "c": 1}


def test_of_a_commit_that_fails_nothing_is_kept(make_lasting, tmp_path, soon):
    """A database that refuses one row has none of the batch, until it takes the row."""

    async def act(store: Store) -> None:
        with closing(sqlite3.connect(tmp_path / "data" / FILE, isolation_level=None)) as other:
            other.execute(
                "CREATE TRIGGER refuse BEFORE INSERT ON alerts"
                " BEGIN SELECT RAISE(ABORT, 'refused'); END"
            )
            batch = holding(a_key("a"), changes=(a_change(1),))
            batch.alerts["f"] = AlertRecord("f", {}, {}, 1.0, None, "")
            with pytest.raises(NotKept, match="refused"):
                await store.commit(batch)
            assert other.execute("SELECT count(*) FROM keys").fetchone() == (0,)
            assert await store.changes(0, 10) == []
            other.execute("DROP TRIGGER refuse")
            await until(lambda: store.figures().error is None)
            assert other.execute("SELECT count(*) FROM keys").fetchone() == (1,)

    use(make_lasting(), act)
    assert len(load(make_lasting()).alerts) == 1


def test_a_backlog_that_grows_too_long_loses_its_oldest_changes(make, disk, never, monkeypatch):
    """They are counted; the newest, and the numbering, are kept."""
    monkeypatch.setattr(sqlite, "JOURNAL_BACKLOG", 3)

    async def act(store: Store) -> None:
        disk.broken = True
        for seq in range(1, 6):
            with pytest.raises(NotKept):
                await store.commit(Batch(changes=[a_change(seq)]))
        assert store.figures().changes_given_up_total == 2
        disk.broken = False
        await store.commit(holding(a_key()))
        assert [change.seq for change in await store.changes(0, 10)] == [3, 4, 5]

    use(make(), act)


# --- closing --------------------------------------------------------------------------------


def test_closing_keeps_what_was_handed_over(make_lasting):
    """Also what nobody waited for."""

    async def act(store: Store) -> None:
        handed = [store.commit(holding(a_key(str(number)))) for number in range(100)]
        store.close()
        await asyncio.gather(*handed)

    use(make_lasting(), act)
    assert len(load(make_lasting()).keys) == 100


def test_closing_tries_once_more_to_keep_what_failed(make_lasting, disk, never):
    """It is the last occasion."""

    async def act(store: Store) -> None:
        disk.broken = True
        with pytest.raises(NotKept):
            await store.commit(holding(a_key()))
        disk.broken = False

    use(make_lasting(), act)
    assert statuses(load(make_lasting())) == {"g": 1}


def test_closing_a_store_that_fails_ends(make, disk, never):
    """What cannot be kept has failed, and `close` returns."""

    async def act(store: Store) -> None:
        disk.broken = True
        future = store.commit(holding(a_key()))
        store.close()
        with pytest.raises(NotKept):
            await future

    use(make(), act)


def test_after_closing_nothing_is_taken(make):
    """Batches and questions fail at once; closing twice, or before loading, does no harm."""

    async def act(store: Store) -> None:
        store.close()
        store.close()
        with pytest.raises(NotKept, match="closed"):
            await store.commit(holding(a_key()))
        with pytest.raises(NotKept, match="closed"):
            await store.changes(0, 10)

    use(make(), act)
    make().close()


def test_a_loop_that_is_gone_does_not_stop_the_store(make):
    """Who handed over a batch need not live until it is kept."""
    store = make()
    store.load()

    async def hand_over(name: str) -> asyncio.Future[None]:
        return store.commit(holding(a_key(name)))

    async def wait() -> None:
        await store.commit(holding(a_key("b")))

    asyncio.run(hand_over("a"))
    asyncio.run(wait())
    store.close()
    assert store.figures().batches_total == 2


# --- bounds ---------------------------------------------------------------------------------


async def until_left(store: Store, *seqs: int) -> None:
    """Wait until the journal holds these changes."""
    deadline = time.monotonic() + 20.0
    while [change.seq for change in await store.changes(0, 10)] != list(seqs):
        assert time.monotonic() < deadline


def test_a_store_that_is_in_use_takes_another_retention(make):
    """What is older is gone soon, though nobody asks for anything."""

    async def act(store: Store) -> None:
        now = time.time()
        await store.commit(
            Batch(changes=[a_change(1, now - 7200), a_change(2, now - 5400), a_change(3, now)])
        )
        await until_left(store, 1, 2, 3)
        asker = threading.Thread(target=store.retain, args=(6000.0,))
        asker.start()
        asker.join()
        await until_left(store, 2, 3)
        store.retain(1e9)
        await store.commit(Batch(changes=[a_change(4, now - 7200)]))
        store.retain(1e9)
        await until_left(store, 2, 3, 4)

    use(make(), act)


def test_a_retention_may_be_told_before_and_after(make_lasting):
    """Before the store is loaded it is the first; after it is closed it does no harm."""
    keep(make_lasting(), Batch(changes=[a_change(1, time.time() - 3600.0), a_change(2)]))
    store = make_lasting()
    store.retain(10.0)
    use(store, lambda store: until_left(store, 2))
    store.retain(20.0)


# --- dead letters ------------------------------------------------------------------------------


def a_letter(row_id: str, at: float, seq: int = 1, **said: object) -> Owed:
    given = {"created_at": at, "reason": "HTTP 400", **said}
    return replace(an_owed(row_id, seq, Standing.DEAD), **given)


def test_dead_letters_are_given_oldest_first_and_page_by_page(make):
    """By age and not by number, which another run may have used too."""
    letters = [
        a_letter("d", 2e12, seq=1),
        a_letter("b", 1e12, seq=8),
        a_letter("c", 1e12, seq=9, notifier="chat"),
        a_letter("a", 1e12, seq=9),
        replace(an_owed("owed"), created_at=1e12),
    ]

    async def act(store):
        await store.commit(Batch(outbox={one.id: one for one in letters}))
        found: list[Owed] = []
        after = None
        while page := await store.dead_letters(notifier=None, after=after, limit=3):
            found += page
            after = page[-1].age
        of_one = await store.dead_letters(notifier="chat", after=None, limit=9)
        of_none = await store.dead_letters(notifier="nobody", after=None, limit=9)
        return found, of_one, of_none

    found, of_one, of_none = use(make(), act)
    assert [one.id for one in found] == ["b", "a", "c", "d"]
    assert found[0] == letters[1]
    assert of_one == [letters[2]]
    assert of_none == []


def test_one_dead_letter_is_found_by_its_id(make):
    """It knows whether a younger one, of its notifier and subject, is dead as well."""
    letters = [
        a_letter("first", 1e12),
        a_letter("second", 1e12, seq=2),
        a_letter("other notifier", 2e12, notifier="chat"),
        a_letter("other subject", 2e12, subject="x"),
        an_owed("owed"),
    ]

    async def act(store):
        await store.commit(Batch(outbox={one.id: one for one in letters}))
        return [
            await store.dead_letter(row_id) for row_id in ("first", "second", "owed", "nothing")
        ]

    assert use(make(), act) == [
        DeadLetter(letters[0], newest=False),
        DeadLetter(letters[1], newest=True),
        None,
        None,
    ]


def test_a_dead_letter_that_is_owed_again_is_loaded_in_its_place(make_lasting):
    """Where two bear the same number, the older is first."""
    younger = replace(an_owed("a", seq=5), created_at=2e12)
    keep(make_lasting(), Batch(outbox={"a": younger, "b": a_letter("b", 1e12, seq=5)}))
    revived = replace(an_owed("b", seq=5), created_at=1e12)
    keep(make_lasting(), Batch(outbox={"b": revived}))
    assert load(make_lasting()).outbox == [revived, younger]
