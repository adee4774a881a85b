"""The files of a store: refused and untouched, made whole or not at all, watched while used."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import sqlite3
import stat
import subprocess
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from msgspec.structs import replace

from sr_exporter.errors import NotKept, StoreFault, StoreUnusable
from sr_exporter.model import Key, Kind, SourceRecord
from sr_exporter.signals import SubjectRecord
from sr_exporter.store import examine, files, schema, sqlite
from sr_exporter.store.contract import Batch, Kept, Standing, Store
from sr_exporter.store.schema import SCHEMA_VERSION
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
    from collections.abc import Callable, Iterator

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    """Wait for nobody's lock for long, and try again soon."""
    monkeypatch.setattr(examine, "BUSY_SECONDS", 0.2)
    monkeypatch.setattr(files, "BUSY_SECONDS", 0.2)
    monkeypatch.setattr(sqlite, "RETRY_SECONDS", 0.01)


def picture(directory: Path) -> dict[str, tuple[bytes, int]]:
    """Everything of a directory that must not alter when its store is refused."""
    return {
        path.name: (path.read_bytes(), path.stat().st_mtime_ns)
        for path in directory.iterdir()
        if path.name != "lock" and path.is_file()
    }


def refused(directory: Path, fault: StoreFault, match: str = FILE) -> str:
    """Check that a store is refused and untouched, and that nothing stays locked."""
    before = picture(directory)
    said = ""
    for _ in range(2):
        with pytest.raises(StoreUnusable, match=match) as refusal:
            SqliteStore(directory).load()  # and without a `close`
        said = str(refusal.value)
        assert refusal.value.fault is fault, said
        assert "\n" not in said
        assert FILE in said or str(directory) in said
        assert picture(directory) == before
    return said


def alter(directory: Path, *statements: str) -> None:
    with closing(sqlite3.connect(directory / FILE, isolation_level=None)) as database:
        for statement in statements:
            database.execute(statement)


def ask(directory: Path, statement: str) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(directory / FILE, isolation_level=None)) as database:
        return database.execute(statement).fetchall()


def run(program: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", program, *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )


def killed(directory: Path, statements: str = "") -> None:
    """Leave a store as `kill -9` does, its last commits in the log only."""
    program = f"""
import os, signal, sqlite3, sys
database = sqlite3.connect(sys.argv[1], isolation_level=None)
database.execute("PRAGMA wal_autocheckpoint=0")
{statements}
os.kill(os.getpid(), signal.SIGKILL)
"""
    done = run(program, directory / FILE)
    assert done.returncode == -signal.SIGKILL, done.stderr


#: 400 rows of 2000 bytes, as a store writes them.
GROW = """
database.execute("BEGIN")
for number in range(400):
    database.execute(
        "INSERT INTO outbox VALUES (?, 1, 'n', 's', 'owed', 1e12, 1, 1, ?, NULL)",
        (f"{number:03}", b"x" * 9000),
    )
database.execute("COMMIT")
"""


# --- what is in the way ---------------------------------------------------------------------


def test_a_directory_is_used_by_one_store_at_a_time(tmp_path):
    """The second is told so and harms nothing; when the first is closed there is room."""

    async def act(store: Store) -> None:
        with pytest.raises(StoreUnusable, match="another sr-exporter") as refusal:
            load(SqliteStore(tmp_path))
        assert refusal.value.fault is StoreFault.UNUSABLE
        await store.commit(holding(a_key()))

    use(SqliteStore(tmp_path), act)
    assert statuses(load(SqliteStore(tmp_path))) == {"g": 1}


def test_a_directory_is_made_where_there_is_none(tmp_path):
    """With its parents; the operator names it, and that is enough."""
    load(SqliteStore(tmp_path / "a" / "b"))
    assert (tmp_path / "a" / "b" / FILE).exists()


@pytest.mark.parametrize("mode", [None, 0o640], ids=["new", "there already"])
def test_nobody_else_reads_a_new_store_and_one_that_is_there_keeps_its_mode(tmp_path, mode):
    """Database, log and index: they hold what notifications say."""
    if mode is not None:
        keep(SqliteStore(tmp_path), holding(a_key()))
        (tmp_path / FILE).chmod(mode)

    async def modes(store: Store) -> dict[str, int]:
        await store.commit(holding(a_key()))
        return {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.glob(f"{FILE}*")}

    before = os.umask(0o022)
    try:
        found = use(SqliteStore(tmp_path), modes)
    finally:
        os.umask(before)
    assert found == dict.fromkeys((FILE, f"{FILE}-wal", f"{FILE}-shm"), mode or 0o600)


def test_a_path_that_is_no_directory_is_refused(tmp_path):
    """And left as it is."""
    path = tmp_path / "file"
    path.write_text("mine")
    with pytest.raises(StoreUnusable, match=str(path)) as refusal:
        load(SqliteStore(path))
    assert refusal.value.fault is StoreFault.UNUSABLE
    assert path.read_text() == "mine"


def test_a_database_that_is_no_file_is_refused(tmp_path):
    """A directory of that name is somebody's."""
    (tmp_path / FILE).mkdir()
    refused(tmp_path, StoreFault.UNUSABLE, "not a file")


@contextlib.contextmanager
def nobody() -> Iterator[None]:
    """Be a user whom permissions bind."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.mark.parametrize(
    ("mode", "of"),
    [(0o500, "."), (0o000, "."), (0o400, FILE), (0o000, FILE), (0o000, "lock")],
)
def test_what_may_not_be_written_is_refused(mode, of):
    """The message names what, and says that it is a matter of permission."""
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name) / "data"
        keep(SqliteStore(directory), holding(a_key()))
        if os.geteuid() == 0:
            for path in (Path(name), directory, *directory.iterdir()):
                os.chown(path, 65534, -1)
        (directory / of).chmod(mode)
        with nobody(), pytest.raises(StoreUnusable, match=str(directory)) as refusal:
            SqliteStore(directory).load()
        assert refusal.value.fault is StoreFault.UNUSABLE
        assert "Permission denied" in str(refusal.value) or "written" in str(refusal.value)
        directory.chmod(0o700)
        (directory / of).chmod(0o700)
        assert statuses(load(SqliteStore(directory))) == {"g": 1}


@pytest.fixture
def small_disk(tmp_path):
    """Give a file system of two megabytes, which is told to be read-only by `remount`."""
    path = tmp_path / "disk"
    path.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=2m", "none", str(path)]
    if shutil.which("mount") is None or subprocess.run(command, check=False).returncode:
        pytest.skip("file systems may not be mounted here")
    yield path
    subprocess.run(["umount", str(path)], check=True)


def test_a_read_only_file_system_is_refused(small_disk):
    """It says so, and leaves all as it is."""
    keep(SqliteStore(small_disk), holding(a_key()))
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    refused(small_disk, StoreFault.UNUSABLE, "Read-only file system")


class Other:
    """Another program that has the database open."""

    def __init__(self, directory: Path, *statements: str) -> None:
        program = """
import sqlite3, sys
database = sqlite3.connect(sys.argv[1], isolation_level=None)
for statement in sys.argv[2:]:
    database.execute(statement).fetchall()
print("ready", flush=True)
sys.stdin.read()
"""
        self._process = subprocess.Popen(
            [sys.executable, "-c", program, str(directory / FILE), *statements],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == b"ready\n"

    def __enter__(self) -> None:
        pass

    def __exit__(self, *_: object) -> None:
        self._process.communicate(timeout=20)


@pytest.mark.parametrize(
    "statements",
    [
        ("BEGIN IMMEDIATE",),
        ("BEGIN IMMEDIATE", "DELETE FROM keys"),
        ("PRAGMA locking_mode=EXCLUSIVE", "BEGIN IMMEDIATE", "ROLLBACK"),
    ],
    ids=["about to write", "writing", "alone"],
)
def test_a_database_that_another_program_locks_is_refused(tmp_path, statements, monkeypatch):
    """It is not even looked at, and usable as soon as the other is done."""
    keep(SqliteStore(tmp_path), holding(a_key()))
    with monkeypatch.context() as patched, Other(tmp_path, *statements):
        patched.setattr(examine, "_look", None)
        refused(tmp_path, StoreFault.UNUSABLE, "locked by another program")
    assert statuses(load(SqliteStore(tmp_path))) == {"g": 1}


def test_a_database_that_is_locked_after_it_was_looked_at_is_refused(tmp_path):
    """By a program that was quick."""
    keep(SqliteStore(tmp_path), holding(a_key()))
    with closing(sqlite3.connect(tmp_path / FILE, isolation_level=None)) as other:
        # Of our own process: its locks are not seen before SQLite asks for them.
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreUnusable, match="locked by another program") as refusal:
            SqliteStore(tmp_path).load()
        assert refusal.value.fault is StoreFault.UNUSABLE


def test_another_program_that_only_looks_is_in_nobodys_way(tmp_path):
    """An operator may have a look while the exporter starts."""
    keep(SqliteStore(tmp_path), holding(a_key()))
    for statements in (("SELECT * FROM keys",), ("BEGIN", "SELECT * FROM keys")):
        with Other(tmp_path, *statements):
            keep(SqliteStore(tmp_path), holding(a_key("h")))
    assert statuses(load(SqliteStore(tmp_path))) == {"g": 1, "h": 1}


# --- truncated ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """A store of some megabytes; tests work on copies of it."""
    directory = tmp_path_factory.mktemp("large")
    keep(SqliteStore(directory), holding(*(a_key(str(number) * 50) for number in range(5000))))
    return directory


@pytest.mark.parametrize("left", [0, 1, 16, 50, 99, 100, 1000, 4096, 10_000, 0.5, -4096, -100, -1])
def test_a_truncated_store_is_refused_untouched(tmp_path, large, left):
    """However much of it is left, it is not made anew over what may be mended."""
    data = (large / FILE).read_bytes()
    cut = int(len(data) * left) if isinstance(left, float) else left
    (tmp_path / FILE).write_bytes(data[:cut])
    said = refused(tmp_path, StoreFault.TRUNCATED, "truncated")
    assert "restore a backup" in said
    assert f"move {FILE}* away" in said


@pytest.mark.parametrize("main", [None, b"", b"S", b"SQLite format 3\0"])
def test_a_log_without_its_database_is_refused_untouched(tmp_path, main):
    """The last commits are in it: SQLite would delete it, and begin anew."""
    keep(SqliteStore(tmp_path), holding(a_key()))
    killed(tmp_path, GROW)
    (tmp_path / FILE).unlink()
    if main is not None:
        (tmp_path / FILE).write_bytes(main)
    refused(tmp_path, StoreFault.TRUNCATED, "truncated")


def test_an_empty_log_without_a_database_is_no_store(tmp_path):
    """Nothing was in it."""
    (tmp_path / f"{FILE}-wal").touch()
    keep(SqliteStore(tmp_path), holding(a_key()))
    assert statuses(load(SqliteStore(tmp_path))) == {"g": 1}


def half_checkpointed(directory: Path, written: Callable[[int, int], bool]) -> None:
    """Leave a store as a crash in the middle of a checkpoint does.

    `written` says which pages, of how many, had reached the database.
    """
    keep(SqliteStore(directory), holding(a_key()))
    killed(directory, GROW)
    whole = directory / "whole"
    shutil.copytree(directory, whole, ignore=shutil.ignore_patterns("whole", "lock"))
    alter(whole, "PRAGMA wal_checkpoint(TRUNCATE)")
    after = (whole / FILE).read_bytes()
    shutil.rmtree(whole)
    pages = len(after) // 4096
    with (directory / FILE).open("r+b") as file:
        for page in range(pages):
            if written(page, pages):
                file.seek(page * 4096)
                file.write(after[page * 4096 : (page + 1) * 4096])


@pytest.mark.parametrize(
    "written",
    [
        lambda page, _: page == 0,
        lambda page, pages: page < pages // 2,
        lambda page, pages: page % 3 == 0 and page < pages - 40,
    ],
    ids=["the header", "half", "some"],
)
def test_a_crash_in_a_checkpoint_is_no_truncation(tmp_path, written):
    """The database is shorter than its header says, and whole with its log."""
    half_checkpointed(tmp_path, written)
    kept = load(SqliteStore(tmp_path))
    assert statuses(kept) == {"g": 1}
    assert [len(owed.body) for owed in kept.outbox] == [9000] * 400


def test_a_crash_in_a_checkpoint_without_its_log_is_a_truncation(tmp_path):
    """What the log held is lost then."""
    half_checkpointed(tmp_path, lambda page, pages: page < pages // 2)
    (tmp_path / f"{FILE}-wal").unlink()
    refused(tmp_path, StoreFault.TRUNCATED)


@pytest.mark.parametrize("cut", [1, 4000, 4096, 9000, 400_000])
def test_a_log_that_does_not_bring_what_is_missing_does_not_hide_it(tmp_path, cut):
    """SQLite reads what is past the end of a file as zeros, and may call that good."""
    keep(SqliteStore(tmp_path), holding(a_key()))
    killed(tmp_path, GROW)
    alter(tmp_path, "PRAGMA wal_checkpoint(TRUNCATE)")
    killed(tmp_path, "database.execute(\"DELETE FROM keys WHERE group_fold = 'g'\")")
    assert (tmp_path / f"{FILE}-wal").stat().st_size
    with (tmp_path / FILE).open("r+b") as file:
        file.truncate(file.seek(0, os.SEEK_END) - cut)
    refused(tmp_path, StoreFault.TRUNCATED)


# --- garbled, or somebody else's ------------------------------------------------------------


@pytest.mark.parametrize(
    "garbage",
    [b"garbage", b"garbage" * 1000, bytes(4096), b"SQLite format 3\0" + b"x" * 5000],
    ids=["a little", "garbage", "zeros", "a header"],
)
def test_garbage_is_refused_untouched(tmp_path, garbage):
    """A file that is no database may be somebody's."""
    (tmp_path / FILE).write_bytes(garbage)
    said = refused(tmp_path, StoreFault.GARBLED, "damaged, or not a store of sr-exporter")
    assert f"move {FILE}* away" in said


def test_damage_where_a_start_reads_nothing_is_found(tmp_path):
    """The journal is not loaded, and would fail its readers one day."""
    journal = [replace(a_change(seq), details="a line of the journal") for seq in range(1, 2000)]
    keep(SqliteStore(tmp_path), Batch(changes=journal))
    path = tmp_path / FILE
    data = bytearray(path.read_bytes())
    page = data.index(b"a line of the journal", len(data) // 2) // 4096 * 4096
    data[page : page + 8] = b"\xff" * 8
    path.write_bytes(data)
    refused(tmp_path, StoreFault.GARBLED, "damaged")


def test_a_schema_that_is_no_text_is_refused_untouched(tmp_path):
    """Found by fuzzing: SQLite quotes the name of a table whose definition it cannot read."""
    keep(SqliteStore(tmp_path), holding(a_key()))
    path = tmp_path / FILE
    data = path.read_bytes()
    assert data.count(b"tablekeyskeys") == data.count(b"CREATE TABLE keys") == 1
    data = data.replace(b"tablekeyskeys", b"table\xc0\x80yskeys")
    path.write_bytes(data.replace(b"CREATE TABLE keys", b"CREATE TABLE k(ys"))
    refused(tmp_path, StoreFault.GARBLED, "its schema is no text")


def test_damage_under_a_log_is_refused_untouched(tmp_path, large):
    """The log is not brought into a database that is damaged."""
    shutil.copy(large / FILE, tmp_path / FILE)
    killed(tmp_path, "database.execute(\"UPDATE meta SET value = 'x' WHERE name = 'other'\")")
    killed(tmp_path, GROW)
    with (tmp_path / FILE).open("r+b") as file:
        file.seek(40 * 4096)
        file.write(b"\xff" * 4096)
    refused(tmp_path, StoreFault.GARBLED, "damaged")


@pytest.mark.parametrize("version", [0, 1, SCHEMA_VERSION, SCHEMA_VERSION + 1])
@pytest.mark.parametrize(
    "statements", [(), ("CREATE TABLE other (x)",), ("CREATE TABLE meta (name, value)",)]
)
def test_a_database_of_another_program_is_refused_untouched(tmp_path, version, statements):
    """Whatever version it says it has."""
    alter(tmp_path, *statements, f"PRAGMA user_version = {version}", "VACUUM")
    refused(tmp_path, StoreFault.GARBLED, "not a store of sr-exporter")


@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM meta",
        "UPDATE meta SET value = 'x' WHERE name = 'store_id'",
        "PRAGMA user_version = 0",
        "PRAGMA user_version = -1",
        "UPDATE meta SET value = 'x' WHERE name = 'last_seq'",
        "UPDATE keys SET reports = '[[null]]'",
        "UPDATE keys SET on_expiry = 'never'",
        "UPDATE sources SET poll_failures_total = '{\"weather\": 1}'",
        *(f"DROP TABLE {table}" for table in ("keys", "changes", "outbox", "tombstones")),
    ],
)
def test_a_store_that_cannot_be_read_is_refused_untouched(tmp_path, statement):
    """A value that no version wrote is an error to tell, and nothing to wait for."""
    batch = holding(a_key(), changes=(a_change(1),))
    batch.sources["push"] = SourceRecord("push", Kind.PUSHED)
    keep(SqliteStore(tmp_path), batch)
    alter(tmp_path, statement)
    refused(tmp_path, StoreFault.GARBLED)


def test_too_little_memory_is_no_damage(tmp_path, monkeypatch):
    """An operator who believed that would throw away a good store."""

    def everything(_database: sqlite3.Connection, _version: int, _hold: object) -> Kept:
        raise MemoryError

    keep(SqliteStore(tmp_path), holding(a_key()))
    monkeypatch.setattr(examine.rows, "everything", everything)
    refused(tmp_path, StoreFault.UNUSABLE, "MemoryError")


# --- newer ----------------------------------------------------------------------------------


def test_a_store_of_a_newer_program_is_refused_untouched(tmp_path):
    """The message says what to do: run the newer one."""
    keep(SqliteStore(tmp_path), holding(a_key()))
    alter(tmp_path, f"PRAGMA user_version = {SCHEMA_VERSION + 1}", "DROP TABLE keys")
    said = refused(tmp_path, StoreFault.NEWER, "written by a newer sr-exporter")
    assert f"schema {SCHEMA_VERSION + 1}" in said


@pytest.mark.parametrize("index", [True, False], ids=["with its index", "without"])
@pytest.mark.parametrize("more", ["", GROW], ids=["little", "much"])
def test_a_newer_store_that_was_killed_is_refused_untouched(tmp_path, index, more):
    """That it is newer is only in its log, which is not brought into the database."""
    keep(SqliteStore(tmp_path), holding(a_key()))
    killed(tmp_path, f'{more}\ndatabase.execute("PRAGMA user_version = {SCHEMA_VERSION + 1}")')
    if not index:
        (tmp_path / f"{FILE}-shm").unlink()
    refused(tmp_path, StoreFault.NEWER, "written by a newer sr-exporter")
    assert set(picture(tmp_path)) == {FILE, f"{FILE}-wal", *([f"{FILE}-shm"] * index)}


@pytest.mark.parametrize("log", [bytes(5000), b"x" * 5000, b"", None])
def test_a_log_that_holds_nothing_is_left_too(tmp_path, log):
    """SQLite would delete it, or make one."""
    keep(SqliteStore(tmp_path), holding(a_key()))
    alter(tmp_path, f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
    if log is not None:
        (tmp_path / f"{FILE}-wal").write_bytes(log)
    refused(tmp_path, StoreFault.NEWER)
    assert (tmp_path / f"{FILE}-wal").exists() == (log is not None)


@pytest.mark.parametrize("where", [20, 60, 3000])
def test_a_log_whose_first_commit_is_damaged_is_left_too(tmp_path, where):
    """In its own header, in that of a page, or in a page: SQLite finds nothing in it then."""
    keep(SqliteStore(tmp_path), holding(a_key()))
    alter(tmp_path, f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
    killed(tmp_path, GROW)
    with (tmp_path / f"{FILE}-wal").open("r+b") as file:
        file.seek(where)
        file.write(b"\xff\xfe\xfd")
    refused(tmp_path, StoreFault.NEWER)


# --- what a kill leaves ---------------------------------------------------------------------


def test_what_was_killed_is_read_whole(tmp_path):
    """With the commits that are in its log only."""
    keep(SqliteStore(tmp_path), holding(a_key()))
    killed(tmp_path, GROW)
    kept = load(SqliteStore(tmp_path))
    assert statuses(kept) == {"g": 1}
    assert len(kept.outbox) == 400
    assert set(picture(tmp_path)) == {FILE}


@pytest.mark.lengthy
def test_a_kill_in_the_first_start_leaves_no_ruin(tmp_path):
    """At whatever call it comes, the next start finds a store, or makes one."""
    program = """
import os, shutil, signal, sqlite3, sys, threading
from pathlib import Path
from sr_exporter.store import sqlite, files
from sr_exporter.store.sqlite import SqliteStore

class StepByStep(sqlite3.Connection):
    def executescript(self, script):
        statement = ""
        for line in script.splitlines():
            statement += line + "\\n"
            if sqlite3.complete_statement(statement):
                self.execute(statement)
                statement = ""

connect = sqlite3.connect
sqlite3.connect = lambda *given, **named: connect(*given, factory=StepByStep, **named)

def die_at(number):
    calls = 0
    def count(frame, event, argument):
        nonlocal calls
        name = frame.f_code.co_filename
        if event == "c_call" and ("/store/" in name or frame.f_code.co_name == "executescript"):
            calls += 1
            if calls == number:
                os.kill(os.getpid(), signal.SIGKILL)
    threading.setprofile(count)

path = Path(sys.argv[1])
number, died, ruins = 0, True, set()
while died:
    number += 1
    child = os.fork()
    if child == 0:
        die_at(number)
        store = SqliteStore(path)
        store.load()
        os._exit(0)
    died = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) != 0
    ruins |= {file.name for file in path.iterdir()}
    # In a process of its own: this one must stay without threads.
    child = os.fork()
    if child == 0:
        store = SqliteStore(path)
        kept = store.load()
        store.close()
        left = {file.name for file in path.iterdir()}
        os._exit(0 if kept.store_id and left == {"lock", files.NAME} else 1)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert code == 0, f"killed at call {number}: {sorted(ruins)}"
    shutil.rmtree(path)
print(number, *sorted(ruins))
"""
    done = run(program, tmp_path / "data")
    assert done.returncode == 0, done.stderr
    number, *ruins = done.stdout.split()
    assert int(number) > 100
    assert {FILE, f"{FILE}.new", f"{FILE}.new-journal"} <= set(ruins)


def test_a_start_that_has_nothing_to_say_writes_nothing(tmp_path):
    """Looking whether the database takes something is no reason to write."""
    keep(SqliteStore(tmp_path), holding(a_key()))
    before = picture(tmp_path)
    load(SqliteStore(tmp_path))
    assert picture(tmp_path) == before


def test_a_store_is_never_there_in_part(tmp_path):
    """It has its log from its first day: nothing has to be turned over later."""
    load(SqliteStore(tmp_path))
    assert set(picture(tmp_path)) == {FILE}
    assert (tmp_path / FILE).read_bytes()[18:20] == b"\2\2"


def test_what_an_unfinished_start_left_is_removed(tmp_path):
    """Beside a store, and before one is made; nothing else is."""
    left = [f"{FILE}.new", f"{FILE}.new-journal", f"{FILE}.new-wal"]
    for _ in range(2):
        for name in left:
            (tmp_path / name).write_bytes(b"x" * 100)
        (tmp_path / "mine.new").touch()
        load(SqliteStore(tmp_path))
        assert set(picture(tmp_path)) == {FILE, "mine.new"}


def test_what_an_unfinished_start_left_stays_where_a_store_is_refused(tmp_path):
    """All is left as it is then."""
    (tmp_path / FILE).write_bytes(b"mine")
    (tmp_path / f"{FILE}.new").write_bytes(b"left")
    refused(tmp_path, StoreFault.GARBLED)


def test_a_database_that_is_a_link_is_used_where_it_is(tmp_path):
    """SQLite keeps its log beside what the link points to."""
    there = tmp_path / "there"
    there.mkdir()
    here = tmp_path / "here"
    here.mkdir()
    (here / FILE).symlink_to(there / "db")
    keep(SqliteStore(here), holding(a_key()))
    assert statuses(load(SqliteStore(here))) == {"g": 1}
    assert set(picture(there)) == {"db"}


# --- older ----------------------------------------------------------------------------------

#: The schema of version 1, as it was released. Never altered.
VERSION_1 = """
CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE sources (
  name TEXT PRIMARY KEY, kind TEXT NOT NULL, version TEXT NOT NULL, transport TEXT NOT NULL,
  last_seen REAL, start_time REAL, down_since REAL, last_error TEXT,
  changes_missed_total INTEGER NOT NULL, report_overruns_total INTEGER NOT NULL,
  poll_failures_total TEXT NOT NULL
) WITHOUT ROWID;
CREATE TABLE keys (
  source TEXT NOT NULL, group_fold TEXT NOT NULL, identifier_fold TEXT NOT NULL,
  group_name TEXT NOT NULL, identifier TEXT NOT NULL, status INTEGER NOT NULL,
  ready INTEGER NOT NULL, details TEXT, changed_at REAL NOT NULL, ready_changed_at REAL NOT NULL,
  stated_at REAL NOT NULL, changes_total INTEGER NOT NULL, reports_total INTEGER NOT NULL,
  reports TEXT NOT NULL, early INTEGER NOT NULL, ttl_seconds REAL, on_expiry TEXT NOT NULL,
  expired INTEGER NOT NULL, PRIMARY KEY (source, group_fold, identifier_fold)
) WITHOUT ROWID;
CREATE TABLE changes (
  seq INTEGER PRIMARY KEY, at REAL NOT NULL, kind TEXT NOT NULL, source TEXT NOT NULL,
  group_name TEXT, identifier TEXT, status INTEGER, old_status INTEGER, details TEXT,
  ready INTEGER, was_ready INTEGER
);
CREATE TABLE outbox (
  id TEXT PRIMARY KEY, seq INTEGER NOT NULL, notifier TEXT NOT NULL, subject TEXT NOT NULL,
  standing TEXT NOT NULL, created_at REAL NOT NULL, due_at REAL NOT NULL,
  attempts INTEGER NOT NULL, body BLOB NOT NULL, reason TEXT
) WITHOUT ROWID;
CREATE TABLE alerts (
  fingerprint TEXT PRIMARY KEY, labels TEXT NOT NULL, annotations TEXT NOT NULL,
  starts_at REAL NOT NULL, resolved_at REAL, generator_url TEXT NOT NULL
) WITHOUT ROWID;
INSERT INTO meta VALUES ('store_id', '6f4bd3c2-2c3e-4f0a-9d43-4a8b1f0c9d11');
INSERT INTO meta VALUES ('last_seq', '7');
INSERT INTO sources VALUES
  ('sip-1', 'polled', '4.0.1', 'http', 9.5, 1.5, NULL, NULL, 1, 2, '{"timeout":3}');
INSERT INTO keys VALUES
  ('push', 'gate', 'main', 'Gate', 'main', -1, 0, 'd', 1.5, 1.5, 1.5, 4, 1, '[[1.0,"a"]]', 0,
   90.0, 'remove', 0);
INSERT INTO changes VALUES
  (7, 1e12, 'status', 'push', 'Gate', 'main', -1, 1, 'd', 0, 1);
INSERT INTO outbox VALUES ('id', 7, 'n', 's', 'owed', 1e12, 1.0, 1, x'7b7d', NULL);
INSERT INTO outbox VALUES ('dead', 6, 'n', 's', 'dead', 1e12, 1.0, 1, x'7b7d', 'gone');
INSERT INTO alerts VALUES ('f', '{"a":"b"}', '{}', 1.0, NULL, 'http://x');
PRAGMA user_version = 1;
PRAGMA journal_mode = WAL;
"""


def an_old_store(directory: Path) -> None:
    directory.mkdir(exist_ok=True)
    with closing(sqlite3.connect(directory / FILE, isolation_level=None)) as database:
        database.executescript(VERSION_1)


def shape(directory: Path) -> dict[str, object]:
    """The tables and indexes, whatever their text."""
    found = {}
    for kind, name in ask(directory, "SELECT type, name FROM sqlite_master ORDER BY name"):
        pragma = "table_xinfo" if kind == "table" else "index_xinfo"
        found[str(name)] = ask(directory, f"PRAGMA {pragma}('{name}')")
        if kind == "table":
            found[f"{name}: indexes"] = sorted(ask(directory, f"PRAGMA index_list('{name}')"))
    return found


def test_an_older_store_is_brought_to_this_version(tmp_path):
    """With all it holds; it is then as one that was made by this version."""
    an_old_store(tmp_path / "old")
    kept = load(SqliteStore(tmp_path / "old"))
    assert kept.store_id == "6f4bd3c2-2c3e-4f0a-9d43-4a8b1f0c9d11"
    assert (kept.last_seq, kept.tombstones) == (7, {})
    assert [record.key for record in kept.keys] == [Key("push", "Gate", "main")]
    assert [source.name for source in kept.sources] == ["sip-1"]
    assert ([owed.id for owed in kept.outbox], len(kept.alerts)) == (["id"], 1)
    load(SqliteStore(tmp_path / "new"))
    for directory in ("old", "new"):
        assert ask(tmp_path / directory, "PRAGMA user_version") == [(SCHEMA_VERSION,)]
    assert shape(tmp_path / "old") == shape(tmp_path / "new")
    again = load(SqliteStore(tmp_path / "old"))
    assert again == kept
    keep(SqliteStore(tmp_path / "old"), Batch(tombstones={Key("push", "a", "b"): 1e12}))
    assert load(SqliteStore(tmp_path / "old")).tombstones == {Key("push", "a", "b"): 1e12}


def test_a_store_of_version_2_is_read_and_brought_to_this_version(tmp_path):
    """It knows nothing of report rules; what they say from then on is kept."""
    an_old_store(tmp_path)
    alter(tmp_path, *schema._MIGRATIONS[1], "PRAGMA user_version = 2")
    (record,) = load(SqliteStore(tmp_path)).keys
    assert (record.matches, record.subjects) == ({}, {})
    assert ask(tmp_path, "PRAGMA user_version") == [(SCHEMA_VERSION,)]
    said = SubjectRecord("rule", 1.0, 2.0, 3.0, "text")
    record = replace(record, matches={"rule": 2}, subjects={"gw0": said})
    keep(SqliteStore(tmp_path), Batch(keys={record.key.folded(): record}))
    assert load(SqliteStore(tmp_path)).keys == [record]


def test_an_older_store_that_was_killed_is_brought_to_this_version(tmp_path):
    """Its log is part of it."""
    an_old_store(tmp_path)
    killed(tmp_path, GROW)
    assert len(load(SqliteStore(tmp_path)).outbox) == 401
    assert ask(tmp_path, "PRAGMA user_version") == [(SCHEMA_VERSION,)]


def test_an_older_store_that_is_refused_stays_of_its_version(tmp_path):
    """The older program may be what can still use it."""
    an_old_store(tmp_path)
    alter(tmp_path, "UPDATE keys SET reports = 'x'")
    refused(tmp_path, StoreFault.GARBLED)
    assert ask(tmp_path, "PRAGMA user_version") == [(1,)]


def test_a_migration_that_fails_leaves_the_older_version(tmp_path, monkeypatch):
    """All of it is one transaction."""
    an_old_store(tmp_path)
    before = shape(tmp_path)
    steps = (*schema._MIGRATIONS[1], "DROP TABLE alerts", "CREATE TABLE keys (x)")
    monkeypatch.setattr(schema, "_MIGRATIONS", {1: steps})
    with pytest.raises(StoreUnusable, match="already exists"):
        load(SqliteStore(tmp_path))
    assert shape(tmp_path) == before
    assert ask(tmp_path, "PRAGMA user_version") == [(1,)]
    monkeypatch.undo()
    assert load(SqliteStore(tmp_path)).last_seq == 7


# --- a disk that is full --------------------------------------------------------------------

_FULL = """
import asyncio, resource, sys, time
from pathlib import Path
from sr_exporter.errors import NotKept
from sr_exporter.store import sqlite
from sr_exporter.store.contract import Batch
from sr_exporter.store.sqlite import SqliteStore
from tests.stores import a_change, a_key, holding

sqlite.RETRY_SECONDS = 0.02
soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)

def full(yes):
    resource.setrlimit(resource.RLIMIT_FSIZE, (0 if yes else soft, hard))

async def until(condition):
    for _ in range(1000):
        if condition():
            return
        await asyncio.sleep(0.02)
    raise AssertionError("never")

async def main():
    full(True)
    store = SqliteStore(Path(sys.argv[1]))
    kept = store.load()
    assert store.figures().error is not None
    if sys.argv[2] == "idle":
        full(False)
        await until(lambda: store.figures().error is None)
        full(True)
    assert [record.status for record in kept.keys] == [-1], kept
    assert kept.last_seq == 7
    # What is owed can be delivered: its text is read though nothing can be written.
    assert await store.bodies(["id", "none"]) == {"id": b"{}"}
    try:
        await store.commit(holding(a_key("lost?"), changes=(a_change(8),)))
    except NotKept as error:
        assert "sr-exporter.sqlite3" in str(error), error
    else:
        raise AssertionError("kept on a full disk")
    try:
        await store.changes(0, 10)
    except NotKept:
        pass
    assert store.figures().error is not None
    await asyncio.sleep(0.1)
    full(False)
    await until(lambda: store.figures().error is None)
    await store.commit(holding(a_key("later")))
    assert [change.seq for change in await store.changes(0, 10)] == [7, 8]
    full(True)
    try:
        await store.commit(holding(*(a_key("x" * 100000 + str(n)) for n in range(100))))
    except NotKept:
        pass
    else:
        raise AssertionError("kept on a full disk")
    full(False)
    await until(lambda: store.figures().error is None)
    store.close()

asyncio.run(main())
again = SqliteStore(Path(sys.argv[1]))
print(len(again.load().keys))
again.close()
"""


@pytest.mark.parametrize("how", ["stopped", "killed", "idle"])
def test_a_full_disk_does_not_prevent_a_start(tmp_path, how):
    """What is kept is shown; nothing more is until there is room, and then it is again.

    The older version must be brought to this one besides, which waits too.
    """
    an_old_store(tmp_path)
    if how == "killed":
        killed(tmp_path, GROW)
    done = run(_FULL, tmp_path, how)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "103\n"
    assert ask(tmp_path, "PRAGMA user_version") == [(SCHEMA_VERSION,)]


def test_a_disk_that_is_really_full_does_not_prevent_a_start(small_disk):
    """As above, with a file system that has no room."""
    keep(SqliteStore(small_disk), holding(a_key(), changes=(a_change(1),)))
    filler = small_disk / "filler"
    with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(4096))

    async def act(store: Store) -> None:
        with pytest.raises(NotKept):
            await store.commit(holding(a_key("h")))
        assert store.figures().error is not None
        filler.unlink()
        await until(lambda: store.figures().error is None)

    store = SqliteStore(small_disk)
    use(store, act)
    assert statuses(load(SqliteStore(small_disk))) == {"g": 1, "h": 1}


def test_a_new_store_on_a_full_disk_is_refused(small_disk):
    """There is nothing to show, and nothing could be kept; nothing is left behind."""
    with (small_disk / "filler").open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(4096))
    (small_disk / "lock").touch()
    refused(small_disk, StoreFault.UNUSABLE)
    assert set(picture(small_disk)) == {"filler"}


# --- while it is used -----------------------------------------------------------------------


def test_a_database_that_another_program_locks_is_tried_again(tmp_path):
    """Pushes fail meanwhile, after a short wait; then all is kept."""

    async def act(store: Store) -> None:
        await store.commit(holding(a_key("a")))
        with closing(sqlite3.connect(tmp_path / FILE, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            began = time.monotonic()
            with pytest.raises(NotKept, match="locked"):
                await store.commit(holding(a_key("b")))
            assert time.monotonic() - began < 2.0
            assert "locked" in str(store.figures().error)
            other.execute("ROLLBACK")
        await until(lambda: store.figures().error is None)

    use(SqliteStore(tmp_path), act)
    assert statuses(load(SqliteStore(tmp_path))) == {"a": 1, "b": 1}


def test_two_seconds_are_waited_for_a_lock(monkeypatch, tmp_path):
    """As long as a pusher may wait for its answer."""
    monkeypatch.undo()
    assert examine.BUSY_SECONDS == files.BUSY_SECONDS == 2.0


@pytest.mark.parametrize("replaced", [False, True])
def test_what_is_written_to_a_database_that_is_gone_is_not_kept(tmp_path, replaced):
    """It would be lost with the process; put back, it takes all again."""
    path, away = tmp_path / FILE, tmp_path / "away"

    async def act(store: Store) -> None:
        await store.commit(holding(a_key("a")))
        path.rename(away)
        if replaced:
            shutil.copy(away, path)
        with pytest.raises(NotKept, match="removed or replaced") as failure:
            await store.commit(holding(a_key("b"), changes=(a_change(1),)))
        assert str(path) in str(failure.value)
        assert "removed or replaced" in str(store.figures().error)
        away.rename(path)
        await until(lambda: store.figures().error is None)
        await store.commit(holding(a_key("c")))

    use(SqliteStore(tmp_path), act)
    kept = load(SqliteStore(tmp_path))
    assert statuses(kept) == {"a": 1, "b": 1, "c": 1}
    assert kept.last_seq == 1


def test_the_log_is_not_taken_for_that_of_a_database_that_was_put_in_place(tmp_path, monkeypatch):
    """A backup that is restored under a running exporter is itself, though all is killed then."""
    monkeypatch.setattr(sqlite, "RETRY_SECONDS", 3600.0)
    path, away, copy = tmp_path / FILE, tmp_path / "away", tmp_path / "copy"
    keep(SqliteStore(tmp_path / "backup"), holding(a_key("of the backup", 7)))

    async def act(store: Store) -> None:
        await store.commit(holding(a_key("a")))
        path.rename(away)
        shutil.copy(tmp_path / "backup" / FILE, path)
        with pytest.raises(NotKept):
            await store.commit(holding(a_key("b")))
        await until(lambda: (tmp_path / f"{FILE}-wal").stat().st_size == 0)
        copy.mkdir()
        for name in (FILE, f"{FILE}-wal"):
            shutil.copy(tmp_path / name, copy / name)

    use(SqliteStore(tmp_path), act)
    for directory in (copy, tmp_path):
        assert statuses(load(SqliteStore(directory))) == {"of the backup": 7}
    away.rename(path)
    assert statuses(load(SqliteStore(tmp_path))) == {"a": 1, "b": 1}


def test_closing_does_not_write_into_a_database_that_was_replaced(tmp_path):
    """What the operator put there is left as it is."""
    path = tmp_path / FILE

    async def act(store: Store) -> None:
        await store.commit(holding(a_key("a")))
        path.rename(tmp_path / "away")
        path.write_bytes(b"mine")
        with pytest.raises(NotKept):
            await store.commit(holding(a_key("b")))

    use(SqliteStore(tmp_path), act)
    assert path.read_bytes() == b"mine"


def test_a_log_that_is_gone_is_made_again(tmp_path):
    """What was in it goes into the database, which is still there."""

    async def act(store: Store) -> None:
        await store.commit(holding(a_key("a")))
        (tmp_path / f"{FILE}-wal").unlink()
        (tmp_path / f"{FILE}-shm").unlink()
        with pytest.raises(NotKept, match="removed or replaced"):
            await store.commit(holding(a_key("b")))
        await until(lambda: store.figures().error is None)
        await store.commit(holding(a_key("c")))
        shutil.copytree(tmp_path, tmp_path / "copy", ignore=shutil.ignore_patterns("copy", "lock"))

    use(SqliteStore(tmp_path), act)
    for directory in (tmp_path / "copy", tmp_path):
        assert statuses(load(SqliteStore(directory))) == {"a": 1, "b": 1, "c": 1}


def test_the_size_told_is_that_of_both_files(tmp_path):
    """Database and log."""

    async def act(store: Store) -> int:
        await store.commit(holding(*(a_key(str(number)) for number in range(1000))))
        await asyncio.sleep(0)
        assert store.figures().size_bytes == sum(
            len(data) for name, (data, _) in picture(tmp_path).items() if not name.endswith("-shm")
        )

    use(SqliteStore(tmp_path), act)


def test_the_dead_are_not_read_at_a_start(tmp_path):
    """They stay where they are."""
    keep(SqliteStore(tmp_path), Batch(outbox={"1": an_owed("1", 1, Standing.DEAD)}))
    assert load(SqliteStore(tmp_path)).outbox == []
    assert ask(tmp_path, "SELECT count(*) FROM outbox") == [(1,)]
