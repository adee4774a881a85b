"""The files of a store: held by one process, made whole or not at all, and watched."""

from __future__ import annotations

import contextlib
import fcntl
import os
import sqlite3
from pathlib import Path
from typing import TYPE_CHECKING

from sr_exporter.errors import NotKept, StoreFault, StoreUnusable
from sr_exporter.store import examine, schema
from sr_exporter.store.examine import BUSY_SECONDS, beside

if TYPE_CHECKING:
    from sr_exporter.store.contract import Kept, Start

NAME = "sr-exporter.sqlite3"
#: To what size the log is cut once it is brought into the database: one huge commit must not
#: leave a huge file for ever.
LOG_BYTES = 64 * 2**20
#: How much of the database is held in memory: keys change anywhere in a million of them.
CACHE_BYTES = 8 * 2**20
#: After how many pages in the log the database is brought up to date: a page that changes often
#: is written home once.
CHECKPOINT_PAGES = 2048

#: A file, whatever its name: device and number.
_Identity = tuple[int, int]


class DatabaseMoved(NotKept):
    """The database is not the file it was."""


class LogMoved(NotKept):
    """The log is not the file it was; the database is."""


class Files:
    """The database and its log in the directory of a store."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        # SQLite keeps its other files beside what a link points to, and so must we find them.
        self.path = Path(os.path.realpath(directory / NAME))
        self._log = beside(self.path, "-wal")
        self._database_is: _Identity | None = None
        self._log_is: _Identity | None = None
        self._lock: int | None = None

    # --- one process at a time -------------------------------------------------------------

    def hold(self) -> None:
        """Hold the directory for this process; the kernel lets go when the process dies.

        Raises:
            StoreUnusable: another process holds it, or it cannot be written to.
        """
        try:
            self._directory.mkdir(parents=True, exist_ok=True)
            self._lock = os.open(
                self._directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600
            )
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self.let_go()
            raise StoreUnusable(
                StoreFault.UNUSABLE,
                f"{self._directory}: another sr-exporter is using this --storage.path; stop it,"
                " or name another",
            ) from None
        except OSError as error:
            self.let_go()
            raise StoreUnusable(
                StoreFault.UNUSABLE,
                f"--storage.path {self._directory} cannot be used: {error.strerror}; let this"
                " user write to it, or name another",
            ) from error

    def let_go(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    # --- at a start ------------------------------------------------------------------------

    def read(self, start: Start) -> Kept:
        """Give what the store holds; where there is no store, make one.

        Raises:
            StoreUnusable: it cannot be used, or not made. Nothing of it was altered.
            Interrupted: it is not wanted any more.
        """
        try:
            if not os.access(self.path.parent, os.W_OK | os.X_OK, effective_ids=True):
                raise examine.unusable(self.path.parent, "it cannot be written to")
            if examine.is_missing(self.path):
                self._make()
            kept = examine.read(self.path, start)
            self._database_is = _identity(self.path.stat())
            self._remove_unfinished()
        except (OSError, sqlite3.Error) as error:
            what = error.strerror if isinstance(error, OSError) else str(error)
            raise examine.unusable(self.path, what or str(error)) from error
        return kept

    def _make(self) -> None:
        """Make an empty store under another name, and give it its own once it is whole."""
        new = beside(self.path, ".new")
        self._remove_unfinished()
        try:
            # Of details and texts nobody else need know; SQLite gives its other files this mode.
            os.close(os.open(new, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
            with contextlib.closing(sqlite3.connect(new, isolation_level=None)) as database:
                schema.create(database)
                # The last step: it has its log from its first day, and never a journal.
                database.execute("PRAGMA journal_mode=WAL")
            _sync(new)
            new.rename(self.path)
            _sync(self.path.parent)
            for parent in self.path.parent.parents:
                with contextlib.suppress(PermissionError):
                    _sync(parent)  # the directory may be as new as the store
        except BaseException:
            self._remove_unfinished()
            raise

    def _remove_unfinished(self) -> None:
        """Remove what a start that was killed left of a store it was making."""
        for suffix in (".new", ".new-journal", ".new-wal", ".new-shm"):
            beside(self.path, suffix).unlink(missing_ok=True)

    # --- while it is used ------------------------------------------------------------------

    def connect(self) -> sqlite3.Connection:
        """Open the database for writing, bringing it to the newest schema.

        Raises:
            sqlite3.Error: it cannot be written to now.
            DatabaseMoved: it is not the database that was read.
        """
        database = sqlite3.connect(
            f"{examine.uri(self.path)}?mode=rw",  # it is never made here
            uri=True,
            isolation_level=None,
            timeout=BUSY_SECONDS,
            cached_statements=128,
        )
        try:
            self._database_size()
            database.execute("PRAGMA journal_mode=WAL")
            database.execute("PRAGMA synchronous=FULL")
            database.execute(f"PRAGMA journal_size_limit={LOG_BYTES}")
            database.execute("PRAGMA temp_store=MEMORY")
            database.execute(f"PRAGMA cache_size=-{CACHE_BYTES // 1024}")
            database.execute(f"PRAGMA wal_autocheckpoint={CHECKPOINT_PAGES}")
            database.execute("BEGIN IMMEDIATE")
            if schema.version(database) == schema.SCHEMA_VERSION:
                # Nothing but the right to write: a full disk must not prevent a start.
                database.execute("ROLLBACK")
            else:
                schema.migrate(database)
                database.execute("COMMIT")
            self._log_is = _identity(self._log.stat())
        except BaseException:
            database.close()
            raise
        return database

    def size(self) -> int:
        """Give the size of the files.

        Raises:
            DatabaseMoved, LogMoved: it is not what is written to; what was, is not kept.
        """
        total = self._database_size()
        log = self._stat(self._log)
        if log is None or _identity(log) != self._log_is:
            raise LogMoved(f"{self._log.name} was removed or replaced while it was used")
        return total + log.st_size

    def _database_size(self) -> int:
        database = self._stat(self.path)
        if database is None or _identity(database) != self._database_is:
            raise DatabaseMoved(
                f"{self.path.name} was removed or replaced while it was used: put it back, or"
                " restart sr-exporter"
            )
        return database.st_size

    @staticmethod
    def _stat(path: Path) -> os.stat_result | None:
        try:
            return path.stat()
        except OSError:
            return None


def _identity(found: os.stat_result) -> _Identity:
    return found.st_dev, found.st_ino


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
