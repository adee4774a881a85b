"""The store in an SQLite database, written by one thread.

The thread takes whatever has gathered while it wrote and commits it all at once: under load
many pushes share one `fdatasync`. WAL with `synchronous=FULL` syncs the log in every commit,
before `COMMIT` returns (SQLite documentation, pragma synchronous).
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
import sqlite3
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from sr_exporter.errors import Interrupted, NotKept, StoreFault, StoreUnusable
from sr_exporter.store import examine, journal, rows, schema
from sr_exporter.store.contract import (
    JOURNAL_BACKLOG,
    Batch,
    Keeping,
    Kept,
    Start,
    StoreFigures,
)
from sr_exporter.store.files import DatabaseMoved, Files, LogMoved
from sr_exporter.store.trimming import Trimming

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence
    from pathlib import Path

    from sr_exporter.model import Change, Key
    from sr_exporter.store.contract import Age, DeadLetter, Owed, Past

F = TypeVar("F", bound="asyncio.Future[Any]")

#: How long after a failed commit the next is tried when nothing new asks for one.
RETRY_SECONDS = 1.0
#: Errors in opening a database for writing that a disk gives which takes nothing.
_DISK_TAKES_NOTHING = frozenset(
    {sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN}
)


@dataclass(slots=True)
class _Work:
    """Something for the thread: a batch to keep, or a question."""

    future: asyncio.Future[Any]
    batch: Batch | None = None
    question: Callable[[], Any] | None = None


@dataclass(slots=True)
class _Figures:
    commits: int = 0
    failures: int = 0
    seconds: float = 0.0
    batches: int = 0
    given_up: int = 0
    #: Works: by the loop, and by the thread.
    handed_over: int = 0
    served: int = 0
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
        self._files = None if directory is None else Files(directory)
        #: None while the disk takes nothing since the start; the thread alone uses it.
        self._database: sqlite3.Connection | None = None
        self._trimming = Trimming(retention_seconds, clock)
        #: What was handed over in this turn of the loop: it goes to the thread together.
        self._handed: list[_Work] = []
        self._queue: queue.SimpleQueue[list[_Work] | None] = queue.SimpleQueue()
        self._figures = _Figures()
        self._backlog = _Backlog()
        self._thread: threading.Thread | None = None
        self._opened: queue.SimpleQueue[Kept | Exception] = queue.SimpleQueue()
        self._closed = False

    def load(self, start: Start | None = None) -> Kept:
        """Read the database, making it when there is none, and start the thread.

        Raises:
            StoreUnusable: see its fault. Nothing of the store was altered.
            Interrupted: it is not wanted any more.
        """
        if self._files is not None:
            self._files.hold()
        self._thread = threading.Thread(
            target=self._run, args=[start or Start()], name="store", daemon=True
        )
        self._thread.start()
        kept = self._opened.get()
        if isinstance(kept, Exception):
            self._thread.join()
            self._let_go()
            raise kept
        return kept

    def commit(self, batch: Batch) -> Keeping:
        return self._hand_over(Keeping(), batch=batch)

    def changes(self, since: int, limit: int) -> asyncio.Future[list[Change]]:
        question = lambda: rows.changes(self._connected(), since, limit)  # noqa: E731
        return self._hand_over(_future(), question=question)

    def past(self, keys: Collection[Key], *, before: int | None, rows: int) -> asyncio.Future[Past]:
        question = lambda: journal.past(self._connected(), keys, before, rows)  # noqa: E731
        return self._hand_over(_future(), question=question)

    def bodies(self, row_ids: Sequence[str]) -> asyncio.Future[dict[str, bytes]]:
        return self._hand_over(_future(), question=lambda: self._read_bodies(row_ids))

    def dead_letters(
        self, *, notifier: str | None, after: Age | None, limit: int
    ) -> asyncio.Future[list[Owed]]:
        question = lambda: rows.dead_letters(self._connected(), notifier, after, limit)  # noqa: E731
        return self._hand_over(_future(), question=question)

    def dead_letter(self, row_id: str) -> asyncio.Future[DeadLetter | None]:
        question = lambda: rows.dead_letter(self._connected(), row_id)  # noqa: E731
        return self._hand_over(_future(), question=question)

    def figures(self) -> StoreFigures:
        known = self._figures
        return StoreFigures(
            commits_total=known.commits,
            commit_failures_total=known.failures,
            commit_seconds_total=known.seconds,
            batches_total=known.batches,
            changes_given_up_total=known.given_up,
            waiting=known.handed_over - known.served,
            size_bytes=known.size,
            error=known.error,
        )

    def retain(self, seconds: float) -> None:
        self._trimming.retain(seconds)
        self._queue.put([])

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        if self._thread is not None:
            self._pass_on()
            self._queue.put(None)
            self._thread.join()
        self._let_go()

    def _hand_over(
        self,
        future: F,
        *,
        batch: Batch | None = None,
        question: Callable[[], Any] | None = None,
    ) -> F:
        if self._closed:
            future.set_exception(NotKept("the store is closed"))
            return future
        if not self._handed:
            future.get_loop().call_soon(self._pass_on)
        self._handed.append(_Work(future, batch, question))
        self._figures.handed_over += 1
        return future

    def _pass_on(self) -> None:
        """Give the thread what this turn of the loop handed over: it wakes once."""
        if self._handed:
            self._queue.put(self._handed)
            self._handed = []

    def _let_go(self) -> None:
        if self._files is not None:
            self._files.let_go()

    # --- the thread ------------------------------------------------------------------------

    def _run(self, start: Start) -> None:
        try:
            self._opened.put(self._begin(start))
        except (Interrupted, StoreUnusable) as error:
            self._opened.put(error)
            return
        except Exception as error:  # noqa: BLE001 - whatever it is, `load` must not wait for ever
            what = str(error) or type(error).__name__
            self._opened.put(StoreUnusable(StoreFault.UNUSABLE, f"{self._name()}: {what}"))
            return
        while (works := self._gather()) is not None:
            self._trim(self._serve(works))
        if self._backlog.batch:
            self._write(self._backlog.batch)
        self._disconnect()

    def _begin(self, start: Start) -> Kept:
        if self._files is None:
            return rows.everything(self._connected(), schema.SCHEMA_VERSION, start)
        kept = self._files.read(start)
        try:
            self._connected()
        except (sqlite3.Error, NotKept) as error:
            code = examine.cause(error) if isinstance(error, sqlite3.Error) else 0
            if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
                raise examine.locked(self._files.path) from error
            if code not in _DISK_TAKES_NOTHING:
                raise examine.unusable(self._files.path, str(error)) from error
            self._failed(error)  # it is read all the same, and tried again
        return kept

    def _gather(self) -> list[_Work] | None:
        """Wait for work, or for the time to try again; None when the store closes."""
        now = time.monotonic()
        timeout = self._trimming.wait_seconds(now)
        if self._backlog.batch or self._figures.error is not None:
            timeout = max(0.0, self._backlog.retry_at - now)
        works: list[_Work] = []
        try:
            handed = self._queue.get(timeout=timeout)
            while handed is not None:
                works += handed
                handed = self._queue.get_nowait()
        except queue.Empty:
            return works
        if works:
            self._queue.put(None)
            return works
        return None

    def _serve(self, works: list[_Work]) -> int:
        """Keep what was handed over and answer what was asked; give how many changes were kept."""
        batch = self._backlog.batch
        self._backlog.batch = Batch()
        keeping = [work for work in works if work.batch is not None]
        for work in keeping:
            batch.merge(work.batch or Batch())
        # A database that could not be opened is tried though there is nothing to keep.
        error = self._write(batch) if batch or self._database is None else None
        if error is not None:
            self._keep_for_later(batch)
        self._figures.batches += len(keeping)
        self._figures.served += len(works)
        _settle([work.future for work in keeping], error)
        for work in works:
            if work.question is not None:
                self._answer(work.future, work.question)
        return 0 if error is not None else len(batch.changes)

    def _write(self, batch: Batch) -> NotKept | None:
        began = time.perf_counter()
        try:
            database = self._connected()
            if batch:
                database.execute("BEGIN IMMEDIATE")
                rows.write(database, batch)
                database.execute("COMMIT")
            size = self._files.size() if self._files is not None else 0
        except Exception as error:  # noqa: BLE001 - whatever it is, the thread must live on
            self._failed(error)
            return NotKept(f"{self._name()}: {error}")
        self._figures.commits += bool(batch)
        self._figures.seconds += time.perf_counter() - began
        self._figures.error = None
        self._figures.size = size
        return None

    def _failed(self, error: Exception) -> None:
        self._figures.failures += 1
        self._figures.error = str(error)
        self._backlog.retry_at = time.monotonic() + RETRY_SECONDS
        if self._database is not None:
            with contextlib.suppress(sqlite3.Error):
                self._database.execute("ROLLBACK")
        if isinstance(error, LogMoved):
            self._disconnect()  # which brings the log home; the next try makes a new one
        elif isinstance(error, DatabaseMoved) and self._database is not None:
            # The log must not be taken for that of what is there now.
            with contextlib.suppress(sqlite3.Error):
                self._database.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def _connected(self) -> sqlite3.Connection:
        if self._database is None:
            self._database = _in_memory() if self._files is None else self._files.connect()
        return self._database

    def _disconnect(self) -> None:
        if self._database is not None:
            with contextlib.suppress(sqlite3.Error):
                # Closing does it too, but not while another program looks in.
                self._database.execute("PRAGMA wal_checkpoint")
            with contextlib.suppress(sqlite3.Error):
                self._database.close()
            self._database = None

    def _keep_for_later(self, batch: Batch) -> None:
        surplus = len(batch.changes) - JOURNAL_BACKLOG
        if surplus > 0:
            del batch.changes[:surplus]
            self._figures.given_up += surplus
        self._backlog.batch = batch

    def _trim(self, written: int) -> None:
        if self._backlog.batch or self._database is None:
            return
        try:
            self._trimming.step(self._database, time.monotonic(), written)
        except Exception as error:  # noqa: BLE001 - whatever it is, the thread must live on
            self._figures.error = str(error)
            self._backlog.retry_at = time.monotonic() + RETRY_SECONDS
            return
        self._figures.error = None

    def _read_bodies(self, row_ids: Sequence[str]) -> dict[str, bytes]:
        waiting = self._backlog.batch.outbox
        said = {row_id: waiting[row_id] for row_id in row_ids if row_id in waiting}
        found = {
            row_id: owed.body for row_id, owed in said.items() if owed and owed.body is not None
        }
        left = [row_id for row_id in row_ids if row_id not in found and said.get(row_id, True)]
        return found | self._read_kept_bodies(left) if left else found

    def _read_kept_bodies(self, row_ids: Sequence[str]) -> dict[str, bytes]:
        try:
            return rows.bodies(self._connected(), row_ids)
        except sqlite3.Error:
            if self._files is None or self._database is not None:
                raise
        # The disk has taken nothing since the start: it can be read all the same.
        with examine.looking(self._files.path) as database:
            return rows.bodies(database, row_ids)

    def _answer(self, future: asyncio.Future[Any], question: Callable[[], Any]) -> None:
        try:
            _settle([future], None, question())
        except Exception as error:  # noqa: BLE001 - whatever it is, the thread must live on
            _settle([future], NotKept(str(error)))

    def _name(self) -> str:
        return ":memory:" if self._files is None else str(self._files.path)


def _in_memory() -> sqlite3.Connection:
    database = sqlite3.connect(":memory:", isolation_level=None)
    schema.create(database)
    return database


def _future() -> asyncio.Future[Any]:
    return asyncio.get_running_loop().create_future()


def _settle(
    futures: Sequence[asyncio.Future[Any]], error: Exception | None, value: object = None
) -> None:
    """Resolve futures of another thread's loop, which may be gone: all of one by one call."""
    by_loop: dict[asyncio.AbstractEventLoop, list[asyncio.Future[Any]]] = {}
    for future in futures:
        by_loop.setdefault(future.get_loop(), []).append(future)

    def settle(those: list[asyncio.Future[Any]]) -> None:
        for future in those:
            if future.done():
                continue
            if error is None:
                future.set_result(value)
            else:
                future.set_exception(error)

    for loop, those in by_loop.items():
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            loop.call_soon_threadsafe(settle, those)
