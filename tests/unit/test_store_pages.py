"""What SQLite's files say of their pages, held against files that SQLite wrote."""

from __future__ import annotations

import os
import random
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from sr_exporter.store import pages
from sr_exporter.store.pages import Log, lacking, page_bytes, read_log

if TYPE_CHECKING:
    from pathlib import Path

MIB = 2**20


def header(size: int = 4096, count: int = 10, *, valid: bool = True) -> bytes:
    """Give the header of a database of so many pages."""
    data = bytearray(100)
    data[:16] = pages.MAGIC
    data[16:18] = (1 if size == 65536 else size).to_bytes(2)
    data[24:28] = (7).to_bytes(4)
    data[28:32] = count.to_bytes(4)
    data[92:96] = (7 if valid else 6).to_bytes(4)
    return bytes(data)


@pytest.mark.parametrize("size", [512, 1024, 4096, 65536])
def test_the_page_size_is_what_sqlite_says(tmp_path, size):
    """65536 does not fit, and is written as 1."""
    path = tmp_path / "db"
    with closing(sqlite3.connect(path)) as database:
        database.execute(f"PRAGMA page_size = {size}")
        database.execute("CREATE TABLE t (x)")
    data = path.read_bytes()
    assert page_bytes(data[:100]) == size
    assert lacking(data[:100], len(data), None) == 0
    assert lacking(data[:100], len(data) - 1, None) == 1


@pytest.mark.parametrize("data", [b"", b"x" * 200, header()[:99], header(1000), header(256)])
def test_what_is_no_header_says_nothing(data):
    """SQLite may say what it is instead."""
    assert page_bytes(data) is None
    assert lacking(data, 0, None) == 0


def test_a_header_whose_count_is_not_valid_says_nothing_of_it():
    """Very old programs leave it behind; SQLite goes by the size of the file then."""
    assert lacking(header(count=10), 4096, None) == 9
    assert lacking(header(count=10, valid=False), 4096, None) == 0


def test_what_a_log_brings_is_not_lacking():
    """And how many pages there are is what its last commit says."""
    assert lacking(header(count=10), 8 * 4096, Log(4096, {9, 10}, 10)) == 0
    assert lacking(header(count=10), 8 * 4096 + 4095, Log(4096, {10}, 10)) == 1
    assert lacking(header(count=10), 8 * 4096, Log(4096, {9}, 9)) == 0
    assert lacking(header(count=4), 4 * 4096, Log(4096, {1}, 6)) == 2
    assert lacking(header(count=10), 8 * 4096, Log(512, {9, 10}, 10)) == 2


def test_the_page_that_locks_are_taken_in_is_never_written():
    """A log of a database of more than a gibibyte does not hold it."""
    locks = 2**30 // 4096 + 1
    brought = set(range(locks - 1, locks + 5)) - {locks}
    assert lacking(header(), (locks - 2) * 4096, Log(4096, brought, locks + 4)) == 0
    assert lacking(header(), (locks - 2) * 4096, Log(4096, brought - {locks + 1}, locks + 4)) == 1


def logged(path: Path, commits: int = 3) -> sqlite3.Connection:
    """Give a connection that has committed to a log, and holds it open."""
    database = sqlite3.connect(path, isolation_level=None)
    database.execute("PRAGMA journal_mode=WAL")
    database.execute("PRAGMA wal_autocheckpoint=0")
    database.execute("CREATE TABLE t (x)")
    for _ in range(commits):
        database.execute("INSERT INTO t VALUES (?)", (os.urandom(20_000),))
    return database


def test_a_log_is_read_as_sqlite_reads_it(tmp_path):
    """Its last commit tells how many pages there are; every page past the file is in it."""
    path, log = tmp_path / "db", tmp_path / "db-wal"
    with closing(logged(path)) as database:
        found = read_log(log)
        assert found is not None
        (count,) = database.execute("PRAGMA page_count").fetchone()
        assert (found.page_bytes, found.size) == (4096, count)
        assert {1, count} <= found.pages <= set(range(1, count + 1))
        data = log.read_bytes()
        for cut in (0, 31, 32, 55, 56, 4151, len(data) - 1):
            log.write_bytes(data[:cut])
            shorter = read_log(log)
            assert shorter is None or shorter.size < count
        log.write_bytes(data)
    assert read_log(tmp_path / "none") is None


def test_frames_of_a_log_before_are_not_of_this_one(tmp_path):
    """A log that is begun anew leaves them behind its own; salts tell them apart."""
    path, log = tmp_path / "db", tmp_path / "db-wal"
    with closing(logged(path, 30)) as database:
        long = log.stat().st_size
        database.execute("PRAGMA wal_checkpoint(RESTART)")
        database.execute("UPDATE t SET x = 1 WHERE rowid = 1")
        found = read_log(log)
        assert log.stat().st_size == long
        assert found is not None
        assert len(found.pages) < 10


@pytest.mark.parametrize("summed", [10**9, 2])
def test_damage_ends_a_log_where_it_is(tmp_path, monkeypatch, summed):
    """As for SQLite; beyond the frames that are summed only the headers are looked at."""
    monkeypatch.setattr(pages, "_FRAMES_SUMMED", summed)
    path, log = tmp_path / "db", tmp_path / "db-wal"
    with closing(logged(path, 5)):
        data = log.read_bytes()
        whole = read_log(log)
        assert whole is not None
        for where in (3, 10, 20, 26, 36, 42, 50, 500):
            damaged = bytearray(data)
            damaged[where] ^= 0x55
            log.write_bytes(damaged)
            assert read_log(log) is None, where
        damaged = bytearray(data)
        damaged[-500] ^= 0x55
        log.write_bytes(damaged)
        found = read_log(log)
        assert found is not None
        assert (found.size < whole.size) == (summed > 2)
        log.write_bytes(data)


def test_a_database_with_its_log_never_lacks_a_page(tmp_path):
    """Whatever is written, deleted, rolled back and checkpointed: else good stores were refused."""
    rng = random.Random(7)
    path, log = tmp_path / "db", tmp_path / "db-wal"
    looked = 0
    with closing(sqlite3.connect(path, isolation_level=None)) as database:
        database.execute("PRAGMA journal_mode=WAL")
        database.execute("PRAGMA synchronous=OFF")
        database.execute("PRAGMA wal_autocheckpoint=60")
        database.execute("PRAGMA cache_size=10")
        database.execute("CREATE TABLE t (k TEXT PRIMARY KEY, v BLOB) WITHOUT ROWID")
        for _ in range(300):
            database.execute("BEGIN IMMEDIATE")
            for _ in range(rng.choice([1, 3, 60])):
                key = str(rng.randrange(150))
                if rng.random() < 0.6:
                    value = rng.randbytes(rng.choice([10, 500, 20_000]))
                    database.execute("INSERT OR REPLACE INTO t VALUES (?, ?)", (key, value))
                else:
                    database.execute("DELETE FROM t WHERE k <= ?", (key[:2],))
            database.execute(rng.choice(["COMMIT", "COMMIT", "ROLLBACK"]))
            if rng.random() < 0.1:
                how = rng.choice(["PASSIVE", "RESTART", "TRUNCATE"])
                database.execute(f"PRAGMA wal_checkpoint({how})")
            found = read_log(log)
            data = path.read_bytes()
            assert lacking(data[:100], len(data), found) == 0
            looked += found is not None
    assert looked > 100


def test_reading_a_long_log_takes_no_time_worth_telling(tmp_path):
    """Of a log of 50 megabytes the first frames are summed, and of the rest headers read."""
    path, log = tmp_path / "db", tmp_path / "db-wal"
    with closing(logged(path, 0)) as database:
        database.execute("PRAGMA synchronous=OFF")
        database.execute("INSERT INTO t VALUES (zeroblob(?))", (50 * MIB,))
        found = read_log(log)
        assert found is not None
        assert len(found.pages) > 12_000
        assert found.size == database.execute("PRAGMA page_count").fetchone()[0]
