"""What is out of bounds goes, a little at a time, and nobody waits for it."""

from __future__ import annotations

import asyncio
import math
import sqlite3
import time
from contextlib import closing
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from sr_exporter.model import Key
from sr_exporter.store import schema, sqlite, trimming
from sr_exporter.store.contract import Batch, Standing, Store
from sr_exporter.store.sqlite import SqliteStore
from sr_exporter.store.trimming import Trimming
from tests.stores import FILE, a_change, a_key, an_owed, holding, keep, load, until, use

if TYPE_CHECKING:
    from pathlib import Path

NOW = 1_000_000.0


@pytest.fixture
def often(monkeypatch):
    """Look for what is out of bounds all the time."""
    monkeypatch.setattr(trimming, "TRIM_SECONDS", 0.002)
    believe(monkeypatch)


def believe(monkeypatch) -> None:
    """Have a clock be believed that is far ahead of what is kept."""
    monkeypatch.setattr(trimming, "LEAP_SECONDS", math.inf)


def a_store(path: Path) -> SqliteStore:
    return SqliteStore(path, retention_seconds=100.0, clock=lambda: NOW)


async def left(store: Store, *seqs: int) -> None:
    """Wait until the journal holds these changes."""
    deadline = time.monotonic() + 20.0
    while (held := [change.seq for change in await store.changes(0, 1000)]) != list(seqs):
        assert time.monotonic() < deadline, held


def rows_of(path: Path, query: str) -> list[object]:
    with closing(sqlite3.connect(path / FILE)) as database:
        return [row[0] for row in database.execute(query)]


def test_numbers_of_changes_do_not_repeat_after_a_trimming(tmp_path, often):
    """The journal forgets what is past its retention, and never how far it counted."""
    ages = {1: 100.0, 2: 100.5, 3: NOW - 1}

    async def act(store: Store) -> None:
        await store.commit(Batch(changes=[a_change(seq, NOW - age) for seq, age in ages.items()]))
        await left(store, 1)

    use(a_store(tmp_path), act)
    assert load(a_store(tmp_path)).last_seq == 3


def test_the_journal_is_bounded_by_number_too(tmp_path, often, monkeypatch):
    """The oldest go, however young they are."""
    monkeypatch.setattr(trimming, "JOURNAL_ROWS", 10)

    async def act(store: Store) -> None:
        for start in range(1, 100, 7):
            await store.commit(Batch(changes=[a_change(seq) for seq in range(start, start + 7)]))
        await left(store, *range(96, 106))

    use(a_store(tmp_path), act)


def test_the_dead_go_past_their_retention(tmp_path, often):
    """What is owed or held back stays however old it is."""
    fate = [
        an_owed("owed", 1),
        an_owed("held", 2, Standing.HELD),
        an_owed("dead", 3, Standing.DEAD),
    ]
    outbox = {row.id: replace(row, created_at=1.0) for row in fate}
    outbox["young"] = an_owed("young", 4, Standing.DEAD)

    async def act(store: Store) -> None:
        await store.commit(Batch(outbox=outbox, changes=[a_change(1), a_change(2, 1.0)]))
        await left(store, 1)

    use(a_store(tmp_path), act)
    query = "SELECT id FROM outbox ORDER BY seq"
    assert rows_of(tmp_path, query) == ["owed", "held", "young"]


def test_the_newest_of_the_dead_stay(tmp_path, often, monkeypatch):
    """However young the others are; what is owed does not count."""
    monkeypatch.setattr(trimming, "DEAD_ROWS", 5)
    dead = {
        f"{number:02}": replace(an_owed(f"{number:02}", number, Standing.DEAD), created_at=NOW + t)
        for number, t in enumerate([5, 3, 3, 3, 9, 1, 8, 7])
    }
    owed = {f"owed {number}": an_owed(f"owed {number}") for number in range(9)}

    async def act(store: Store) -> None:
        await store.commit(Batch(outbox=dead | owed, changes=[a_change(1), a_change(2, 1.0)]))
        await left(store, 1)

    use(a_store(tmp_path), act)
    query = "SELECT id FROM outbox WHERE standing = 'dead' ORDER BY id"
    assert rows_of(tmp_path, query) == ["00", "03", "04", "06", "07"]
    assert len(rows_of(tmp_path, "SELECT id FROM outbox WHERE standing = 'owed'")) == 9


def test_tombstones_are_forgotten(tmp_path, often, monkeypatch):
    """After a day, and the oldest of too many."""
    monkeypatch.setattr(trimming, "TOMBSTONES", 3)
    ages = {"a": 90_000.0, "b": 86_401.0, "c": 4.0, "d": 2.0, "e": 3.0, "f": 1.0}
    tombs = {Key("push", name, "main"): NOW - age for name, age in ages.items()}

    async def act(store: Store) -> None:
        await store.commit(Batch(tombstones=dict(tombs), changes=[a_change(1, 1.0)]))
        await left(store)

    use(a_store(tmp_path), act)
    assert rows_of(tmp_path, "SELECT group_fold FROM tombstones ORDER BY at") == ["e", "d", "f"]


def test_a_long_trimming_goes_on_while_nothing_else_is_asked(tmp_path, monkeypatch):
    """Slice after slice, though the next look round is ten minutes away."""
    monkeypatch.setattr(trimming, "TRIM_ROWS", 10)
    slices: list[int] = []

    class Counting(Trimming):
        def step(self, database, now, written) -> None:
            before = database.total_changes
            super().step(database, now, written)
            slices.append(database.total_changes - before)

    monkeypatch.setattr(sqlite, "Trimming", Counting)
    patient = SqliteStore(tmp_path, retention_seconds=1e9, clock=lambda: NOW)
    journal = [a_change(seq, 1.0 if seq <= 500 else NOW) for seq in range(1, 512)]
    dead = {str(n): replace(an_owed(str(n), n, Standing.DEAD), created_at=1.0) for n in range(55)}
    keep(patient, Batch(changes=journal, outbox=dead))
    slices.clear()

    async def act(store: Store) -> None:
        await until(lambda: sum(slices) == 555)
        await left(store, *range(501, 512))

    use(a_store(tmp_path), act)
    assert max(slices) <= 20  # the last of one kind, and a slice of the next
    assert rows_of(tmp_path, "SELECT id FROM outbox") == []


def test_a_trimming_that_is_over_waits_for_its_time():
    """What is within bounds costs nothing until then, or until the journal grew."""
    database = sqlite3.connect(":memory:", isolation_level=None)
    schema.create(database)
    asked: list[str] = []
    database.set_trace_callback(asked.append)
    trim = Trimming(100.0, lambda: NOW)
    with closing(database):
        trim.step(database, 5.0, 0)
        assert len(asked) == 8
        assert trim.wait_seconds(5.0) == trimming.TRIM_SECONDS
        trim.step(database, 5.0 + trimming.TRIM_SECONDS - 1, trimming.TRIM_ROWS - 1)
        assert len(asked) == 8
        trim.step(database, 5.0 + trimming.TRIM_SECONDS - 1, 1)
        assert len(asked) == 11
        trim.step(database, 5.0 + trimming.TRIM_SECONDS - 1, 1)
        assert len(asked) == 11
        trim.step(database, 5.0 + trimming.TRIM_SECONDS, 0)
        assert len(asked) == 18
        trim.retain(1.0)
        trim.step(database, 5.0 + trimming.TRIM_SECONDS, 0)
        assert len(asked) == 25


class Kept:
    """A journal in memory, of a day's changes an hour apart, and a machine whose clock may leap."""

    def __init__(self) -> None:
        self.database = sqlite3.connect(":memory:", isolation_level=None)
        schema.create(self.database)
        self.ahead, self.up = NOW, 0.0
        self.trim = Trimming(30 * DAY, lambda: self.ahead + self.up)
        self.seq = 0

    def write(self, count: int = 24, *, every: float = 3600.0) -> None:
        for _ in range(count):
            self.seq += 1
            self.up += every
            row = (self.seq, self.ahead + self.up)
            self.database.execute(
                "INSERT INTO changes (seq, at, kind, source) VALUES (?, ?, 'status', 's')", row
            )
            self.look()

    def look(self) -> None:
        self.trim.step(self.database, self.up, trimming.TRIM_ROWS)

    @property
    def held(self) -> list[int]:
        return [row[0] for row in self.database.execute("SELECT seq FROM changes ORDER BY seq")]


DAY = 86_400.0


@pytest.mark.parametrize("leap", [40 * DAY, 12_000 * DAY])
@pytest.mark.parametrize("while_off", [False, True], ids=["running", "while off"])
def test_a_clock_that_leaps_ahead_and_is_set_right_costs_no_history(leap, while_off):
    """By 40 days, or to the end of time: for an hour it is not believed; then it is."""
    kept = Kept()
    kept.write()
    everything = kept.held
    if while_off:
        kept.trim = Trimming(30 * DAY, lambda: kept.ahead + kept.up)
    kept.ahead += leap
    for _ in range(50):
        kept.look()
        kept.up += 60.0
    assert kept.held == everything
    kept.ahead -= leap
    kept.look()
    kept.up += DAY
    kept.look()
    assert kept.held == everything
    kept.ahead += leap
    kept.look()
    kept.up += trimming.TRUST_SECONDS
    kept.look()
    assert kept.held == []


def test_what_a_clock_wrote_that_was_ahead_goes_with_what_is_around_it():
    """Else it would be kept until that time comes; and nothing else goes for it."""
    kept = Kept()
    kept.write(10)
    kept.ahead += 20_000 * DAY
    kept.write(3, every=600.0)
    kept.ahead -= 20_000 * DAY
    kept.write(10)
    assert kept.held == list(range(1, 24))
    for _ in range(30):
        kept.up += DAY - 8 * 120.0
        kept.look()
    first = kept.held[0]
    assert 13 < first < 23
    assert kept.held == list(range(first, 24))


def test_a_clock_that_is_set_to_1970_takes_no_history_with_it():
    """What is from a time to come, by such a clock, is nearly all there is."""
    kept = Kept()
    kept.write()
    everything = kept.held
    kept.ahead = 0.0
    kept.write(5)
    kept.ahead = NOW
    kept.look()
    assert kept.held[: len(everything)] == everything


def test_no_trimming_reads_whole_tables():
    """Each finds what it removes by an index: looking costs what is found, not what is kept."""
    database = sqlite3.connect(":memory:", isolation_level=None)
    schema.create(database)
    with closing(database):
        for statement in trimming._EVERYTHING:
            names = dict.fromkeys(("oldest", "forgotten", "journal_rows"), 1)
            names |= dict.fromkeys(("dead_rows", "tombstones", "slice", "ahead", "gone"), 1)
            plan = [row[3] for row in database.execute(f"EXPLAIN QUERY PLAN {statement}", names)]
            scans = [step for step in plan if step.startswith("SCAN") and "INDEX" not in step]
            assert not scans, (statement, plan)
            assert not [step for step in plan if "TEMP B-TREE" in step], (statement, plan)


def test_a_journal_that_grows_fast_is_trimmed_as_fast(monkeypatch):
    """Every look removes as much as was written, however little a slice is."""
    monkeypatch.setattr(trimming, "TRIM_ROWS", 10)
    monkeypatch.setattr(trimming, "JOURNAL_ROWS", 1000)
    database = sqlite3.connect(":memory:", isolation_level=None)
    schema.create(database)
    trim = Trimming(1e9, lambda: NOW)
    most = 0
    with closing(database):
        for commit in range(50):
            rows = [(commit * 300 + n, NOW, "status", "s") for n in range(300)]
            database.executemany(
                "INSERT INTO changes (seq, at, kind, source) VALUES (?, ?, ?, ?)", rows
            )
            trim.step(database, 1.0, 300)
            (held,) = database.execute("SELECT count(*) FROM changes").fetchone()
            most = max(most, held)
    assert held == 1000
    assert most <= 1300


def test_a_trimming_that_fails_is_tried_again_by_itself(tmp_path, monkeypatch):
    """It refuses no push for ever: the error goes though nothing more is handed over."""
    monkeypatch.setattr(sqlite, "RETRY_SECONDS", 0.01)
    believe(monkeypatch)

    async def act(store: Store) -> None:
        await until(lambda: store.figures().error is not None)
        with closing(sqlite3.connect(tmp_path / FILE, isolation_level=None)) as other:
            other.execute("DROP TRIGGER refuse")
        await until(lambda: store.figures().error is None)
        await left(store)

    keep(SqliteStore(tmp_path, clock=lambda: NOW), Batch(changes=[a_change(1, at=NOW)]))
    with closing(sqlite3.connect(tmp_path / FILE, isolation_level=None)) as database:
        database.execute(
            "CREATE TRIGGER refuse BEFORE DELETE ON changes BEGIN SELECT RAISE(ABORT, 'no'); END"
        )
    use(SqliteStore(tmp_path), act)


def test_another_retention_holds_though_nobody_asks_for_anything(tmp_path):
    """The store is woken for it."""

    async def act(store: Store) -> None:
        ages = {1: 90.0, 2: 50.0, 3: 10.0}
        await store.commit(Batch(changes=[a_change(n, NOW - age) for n, age in ages.items()]))
        await asyncio.sleep(0.1)  # whatever is to be done at a start is done
        store.retain(20.0)
        await until(lambda: rows_of(tmp_path, "SELECT seq FROM changes") == [3])

    use(a_store(tmp_path), act)


def test_one_huge_commit_does_not_leave_a_huge_log(tmp_path, monkeypatch):
    """Once what it wrote is in the database, the next commit cuts the log."""
    monkeypatch.setattr("sr_exporter.store.files.LOG_BYTES", 2**20)
    log = tmp_path / f"{FILE}-wal"

    async def act(store: Store) -> None:
        await store.commit(holding(*(a_key(f"{n:05}" * 40) for n in range(20_000))))
        assert log.stat().st_size > 4 * 2**20
        for status in range(3):
            await store.commit(holding(a_key("small", status)))
        assert log.stat().st_size <= 2**20

    use(SqliteStore(tmp_path), act)
