"""The store in an SQLite database, written by one thread.

The thread takes whatever has gathered while it wrote and commits it all at once: under load
many pushes share one `fdatasync`. WAL with `synchronous=FULL` syncs the log in every commit,
before `COMMIT` returns (SQLite documentation, pragma synchronous).
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import queue
import sqlite3
import threading
import time
import uuid
from dataclasses import dataclass, field
from importlib import resources
from typing import TYPE_CHECKING, Any

from sr_exporter.errors import NotKept, StoreUnusable
from sr_exporter.store import rows
from sr_exporter.store.contract import JOURNAL_BACKLOG, Batch, Kept, StoreFigures

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from sr_exporter.model import Change

SCHEMA_VERSION = 1
#: How long after a failed commit the next is tried when nothing new asks for one.
RETRY_SECONDS = 1.0
#: How often the journal is trimmed to its retention.
TRIM_SECONDS = 600.0
#: How many rows one trimming removes, so that commits wait milliseconds only.
TRIM_ROWS = 10_000
_FILE = "sr-exporter.sqlite3"


@dataclass(slots=True)
class _Work:
    """Something for the thread: a batch to keep, or a question."""

    future: asyncio.Future[Any]
    batch: Batch | None = None
    question: Callable[[sqlite3.Connection], Any] | None = None


@dataclass(slots=True)
class _Figures:
    commits: int = 0
    failures: int = 0
    seconds: float = 0.0
    batches: int = 0
    given_up: int = 0
    waiting: int = 0
    size: int = 0
    error: str | None = None


@dataclass(slots=True)
class _Backlog:
    """What failed commits could not keep, newest word per key."""

    batch: Batch = field(default_factory=Batch)
    retry_at: float = 0.0


class SqliteStore:
    """Implements `Store` in one file under `directory`; None keeps it in memory, for tests."""

    def __init__(
        self,
        directory: Path | None,
        *,
        retention_seconds: float = 30 * 86400.0,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._directory = directory
        self._retention_seconds = retention_seconds
        self._clock = clock
        self._lock_file: int | None = None
        self._queue: queue.SimpleQueue[_Work | None] = queue.SimpleQueue()
        self._figures = _Figures()
        self._backlog = _Backlog()
        self._trimmed_at = 0.0
        self._thread: threading.Thread | None = None
        self._opened: queue.SimpleQueue[Kept | Exception] = queue.SimpleQueue()
        self._closed = False

    def load(self) -> Kept:
        """Open the database, making it when there is none, and start the thread.

        Raises:
            StoreUnusable: it is damaged, newer than this program, locked by another process,
                or the directory cannot be used. Nothing of it was changed.
        """
        self._lock_directory()
        self._thread = threading.Thread(target=self._run, name="store", daemon=True)
        self._thread.start()
        kept = self._opened.get()
        if isinstance(kept, Exception):
            self._unlock_directory()
            raise kept
        return kept

    def commit(self, batch: Batch) -> asyncio.Future[None]:
        return self._hand_over(_Work(_future(), batch=batch))

    def changes(self, since: int, limit: int) -> asyncio.Future[list[Change]]:
        question = lambda database: rows.changes(database, since, limit)  # noqa: E731
        return self._hand_over(_Work(_future(), question=question))

    def figures(self) -> StoreFigures:
        known = self._figures
        return StoreFigures(
            commits_total=known.commits,
            commit_failures_total=known.failures,
            commit_seconds_total=known.seconds,
            batches_total=known.batches,
            changes_given_up_total=known.given_up,
            waiting=self._queue.qsize() + known.waiting,
            size_bytes=known.size,
            error=known.error,
        )

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        if self._thread is not None:
            self._queue.put(None)
            self._thread.join()
        self._unlock_directory()

    def _hand_over(self, work: _Work) -> asyncio.Future[Any]:
        if self._closed:
            work.future.set_exception(NotKept("the store is closed"))
        else:
            self._queue.put(work)
        return work.future

    # --- the directory: one process at a time ----------------------------------------------

    def _lock_directory(self) -> None:
        """Hold the directory for this process; the kernel lets go when the process dies."""
        if self._directory is None:
            return
        try:
            self._directory.mkdir(parents=True, exist_ok=True)
            self._lock_file = os.open(
                self._directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600
            )
            fcntl.flock(self._lock_file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._unlock_directory()
            raise StoreUnusable(
                f"{self._directory}: another sr-exporter is using this --storage.path"
            ) from None
        except OSError as error:
            self._unlock_directory()
            raise StoreUnusable(
                f"--storage.path {self._directory} cannot be used: {error.strerror}"
            ) from error

    def _unlock_directory(self) -> None:
        if self._lock_file is not None:
            os.close(self._lock_file)
            self._lock_file = None

    # --- the thread ------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            database = self._open()
        except StoreUnusable as error:
            self._opened.put(error)
            return
        except Exception as error:  # noqa: BLE001 - whatever it is, `load` must not wait for ever
            self._opened.put(StoreUnusable(f"{self._name()}: {error}"))
            return
        with contextlib.closing(database):
            while (works := self._gather()) is not None:
                self._serve(database, works)
                self._trim(database)
            if self._backlog.batch:
                self._write(database, self._backlog.batch)

    def _gather(self) -> list[_Work] | None:
        """Wait for work, or for the time to try again; None when the store closes."""
        timeout = TRIM_SECONDS
        if self._backlog.batch or self._figures.error is not None:
            timeout = max(0.0, self._backlog.retry_at - time.monotonic())
        works: list[_Work] = []
        try:
            first = self._queue.get(timeout=timeout)
            while first is not None:
                works.append(first)
                self._figures.waiting = len(works)
                first = self._queue.get_nowait()
        except queue.Empty:
            return works
        if works:
            self._queue.put(None)
            return works
        return None

    def _serve(self, database: sqlite3.Connection, works: list[_Work]) -> None:
        batch = self._backlog.batch
        self._backlog.batch = Batch()
        keeping = [work for work in works if work.batch is not None]
        for work in keeping:
            batch.merge(work.batch or Batch())
        error = self._write(database, batch) if batch else None
        if error is not None:
            self._keep_for_later(batch)
        self._figures.batches += len(keeping)
        self._figures.waiting = 0
        for work in keeping:
            _settle(work.future, error)
        for work in works:
            if work.question is not None:
                _answer(work, database)

    def _write(self, database: sqlite3.Connection, batch: Batch) -> NotKept | None:
        began = time.perf_counter()
        try:
            database.execute("BEGIN IMMEDIATE")
            rows.write(database, batch)
            database.execute("COMMIT")
        except Exception as error:  # noqa: BLE001 - whatever it is, the thread must live on
            with contextlib.suppress(sqlite3.Error):
                database.execute("ROLLBACK")
            self._figures.failures += 1
            self._figures.error = str(error)
            return NotKept(f"{self._name()}: {error}")
        self._figures.commits += 1
        self._figures.seconds += time.perf_counter() - began
        self._figures.error = None
        self._figures.size = self._size()
        return None

    def _keep_for_later(self, batch: Batch) -> None:
        surplus = len(batch.changes) - JOURNAL_BACKLOG
        if surplus > 0:
            del batch.changes[:surplus]
            self._figures.given_up += surplus
        self._backlog.batch = batch
        self._backlog.retry_at = time.monotonic() + RETRY_SECONDS

    def _trim(self, database: sqlite3.Connection) -> None:
        now = time.monotonic()
        if self._backlog.batch or (self._trimmed_at and now - self._trimmed_at < TRIM_SECONDS):
            return
        oldest = self._clock() - self._retention_seconds
        try:
            gone = database.execute(
                "DELETE FROM changes WHERE seq IN"
                " (SELECT seq FROM changes WHERE at < ? ORDER BY seq LIMIT ?)",
                (oldest, TRIM_ROWS),
            ).rowcount
            database.execute(
                "DELETE FROM outbox WHERE standing = 'dead' AND created_at < ?", (oldest,)
            )
        except sqlite3.Error as error:
            self._figures.error = str(error)
            self._backlog.retry_at = time.monotonic() + RETRY_SECONDS
            return
        self._figures.error = None
        if gone < TRIM_ROWS:
            self._trimmed_at = now

    def _open(self) -> sqlite3.Connection:
        database = sqlite3.connect(self._name(), isolation_level=None, cached_statements=64)
        try:
            version = database.execute("PRAGMA user_version").fetchone()[0]
            fresh = version == 0 and not database.execute("SELECT 1 FROM sqlite_master").fetchone()
            kept = None
            if not fresh:
                self._check(database, version)
                kept = _everything(database)  # before anything is written
            database.execute("PRAGMA journal_mode=WAL")
            database.execute("PRAGMA synchronous=FULL")
            if fresh:
                _create(database)
            self._opened.put(kept or _everything(database))
        except BaseException:
            database.close()
            raise
        return database

    def _check(self, database: sqlite3.Connection, version: int) -> None:
        if version != SCHEMA_VERSION:
            raise StoreUnusable(_version_message(self._name(), version))
        found = [row[0] for row in database.execute("PRAGMA quick_check(1)")]
        if found != ["ok"]:
            raise StoreUnusable(f"{self._name()}: the database is damaged: {found[0]}")

    def _name(self) -> str:
        return ":memory:" if self._directory is None else str(self._directory / _FILE)

    def _size(self) -> int:
        total = 0
        for suffix in ("", "-wal"):
            with contextlib.suppress(OSError):
                total += os.stat(self._name() + suffix).st_size  # noqa: PTH116 - twice a commit
        return total


def _create(database: sqlite3.Connection) -> None:
    schema = resources.files("sr_exporter.store").joinpath("schema.sql").read_text("utf-8")
    database.executescript(
        f"BEGIN;\n{schema}\n"
        f"INSERT INTO meta VALUES ('store_id', '{uuid.uuid4()}');\n"
        f"PRAGMA user_version = {SCHEMA_VERSION};\nCOMMIT;"
    )


def _everything(database: sqlite3.Connection) -> Kept:
    (store_id,) = database.execute("SELECT value FROM meta WHERE name = 'store_id'").fetchone()
    last_seq = database.execute("SELECT value FROM meta WHERE name = 'last_seq'").fetchone()
    return Kept(
        store_id=store_id,
        last_seq=int(last_seq[0]) if last_seq else 0,
        sources=rows.sources(database),
        keys=rows.keys(database),
        outbox=rows.outbox(database),
        alerts=rows.alerts(database),
    )


def _version_message(name: str, version: int) -> str:
    if version > SCHEMA_VERSION:
        return (
            f"{name}: written by a newer sr-exporter (schema {version}; this one knows"
            f" {SCHEMA_VERSION}). Run the newer one, or name another --storage.path"
        )
    return f"{name}: not a store of sr-exporter (schema {version})"


def _future() -> asyncio.Future[Any]:
    return asyncio.get_running_loop().create_future()


def _settle(future: asyncio.Future[Any], error: Exception | None, value: object = None) -> None:
    """Resolve a future of another thread's loop, which may be gone."""

    def settle() -> None:
        if future.done():
            return
        if error is None:
            future.set_result(value)
        else:
            future.set_exception(error)

    with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
        future.get_loop().call_soon_threadsafe(settle)


def _answer(work: _Work, database: sqlite3.Connection) -> None:
    if work.question is None:
        return
    try:
        _settle(work.future, None, work.question(database))
    except Exception as error:  # noqa: BLE001 - whatever it is, the thread must live on
        _settle(work.future, NotKept(str(error)))
