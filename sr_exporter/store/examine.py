"""Looks at a store before anything of it is written, and says why one cannot be used.

Nothing here alters, makes or removes a file, not even one of SQLite's own: a store that is
refused must be left to whoever can use it. So

* while it is looked at, others are kept from writing by the locks that SQLite itself would take,
  taken by hand (sqlite.org/fileformat2.html, section 4; lockingv3.html);
* a database whose log holds nothing is opened as immutable, so that SQLite makes no log;
* one whose log holds something is opened without SQLite's own locks and in exclusive mode, so
  that the index of the log is made in memory. When it is closed SQLite would bring the log into
  the database, and fails at the first page: it may only read.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import sqlite3
import stat
import time
from typing import TYPE_CHECKING
from urllib.parse import quote

from sr_exporter.errors import Interrupted, StoreFault, StoreUnusable
from sr_exporter.store import pages, rows, schema

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from sr_exporter.store.contract import Kept, Start

#: How long somebody else's lock is waited for.
BUSY_SECONDS = 2.0
#: Where SQLite locks a database (first byte, length), and the two bytes of the index of its log
#: that whoever writes, or brings the log into the database, holds.
_SHARED = (0x40000002, 510)
_LOG_WRITERS = (120, 2)
#: Errors that tell of the file's surroundings, and of nothing in it.
_SURROUNDINGS = frozenset(
    {
        sqlite3.SQLITE_PERM,
        sqlite3.SQLITE_READONLY,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_AUTH,
    }
)


def beside(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)


def uri(path: Path) -> str:
    return "file://" + quote(os.fsencode(path.absolute()))


def cause(error: sqlite3.Error) -> int:
    """Give the primary result code of an error, or 0 where SQLite gave none."""
    code: int = getattr(error, "sqlite_errorcode", 0)
    return code & 0xFF


def is_missing(path: Path) -> bool:
    """Say whether there is no store here, and nothing that one left behind.

    Raises:
        StoreUnusable: the database is missing, and something else of the store is not.
    """
    with contextlib.suppress(FileNotFoundError):
        if not stat.S_ISREG(path.stat().st_mode):
            raise unusable(path, "it is not a file")
        return False
    for suffix in ("-wal", "-journal"):
        left = beside(path, suffix)
        if _size(left):
            raise _truncated(path, f"it is missing, and {left.name} beside it is not")
    return True


def read(path: Path, start: Start) -> Kept:
    """Give everything that a store holds, once it is known to be whole.

    Raises:
        StoreUnusable: it cannot be used. Nothing of it was altered.
        Interrupted: it is not wanted any more.
    """
    with looking(path) as database:
        return _read(path, database, start)


@contextlib.contextmanager
def looking(path: Path) -> Iterator[sqlite3.Connection]:
    """Open a store to be read only, by a disk that takes nothing too.

    Raises:
        StoreUnusable: it cannot be used, or what was done with it failed.
    """
    file_bytes = path.stat().st_size
    with path.open("rb") as file:
        header = file.read(pages.HEADER_BYTES)
    if len(header) < pages.HEADER_BYTES and pages.MAGIC.startswith(header[: len(pages.MAGIC)]):
        raise _truncated(path, f"it has {file_bytes} bytes")
    with _nobody_writes(path):
        log = pages.read_log(beside(path, "-wal"))
        if missing := pages.lacking(header, file_bytes, log):
            raise _truncated(path, f"{missing} of its pages are missing")
        try:
            with contextlib.closing(_look(path, log)) as database:
                yield database
        except sqlite3.Error as error:
            raise _refusal(path, error) from error
        except UnicodeDecodeError as error:  # in SQLite's own words for what is wrong
            raise _garbled(path, "its schema is no text") from error


def unusable(path: Path, what: str) -> StoreUnusable:
    return StoreUnusable(
        StoreFault.UNUSABLE,
        f"{path} cannot be used: {what}; let this user read and write it, or name another"
        " --storage.path",
    )


def locked(path: Path) -> StoreUnusable:
    return StoreUnusable(
        StoreFault.UNUSABLE,
        f"{path} cannot be used: it is locked by another program; end that one and start again",
    )


def _look(path: Path, log: pages.Log | None) -> sqlite3.Connection:
    manner = "immutable=1" if log is None else "vfs=unix-none"
    database = sqlite3.connect(f"{uri(path)}?mode=ro&{manner}", uri=True, isolation_level=None)
    database.execute("PRAGMA locking_mode=EXCLUSIVE")
    database.execute("PRAGMA temp_store=MEMORY")  # sorting needs no room on a full disk
    return database


def _read(path: Path, database: sqlite3.Connection, start: Start) -> Kept:
    found = schema.version(database)
    if not _is_ours(database):
        raise _garbled(path, "it has no identity")
    if found > schema.SCHEMA_VERSION:
        raise StoreUnusable(
            StoreFault.NEWER,
            f"{path} was written by a newer sr-exporter (schema {found}; this one knows"
            f" {schema.SCHEMA_VERSION}): run the newer one, or name another --storage.path",
        )
    if found < 1:
        raise _garbled(path, f"its schema is {found}")
    fault = database.execute("PRAGMA quick_check(1)").fetchone()[0]
    if fault != "ok":
        raise _garbled(path, fault)
    try:
        return rows.everything(database, found, start)
    except (Interrupted, MemoryError, sqlite3.Error):
        raise
    except Exception as error:
        raise _garbled(path, f"a row cannot be read: {error}") from error


def _is_ours(database: sqlite3.Connection) -> bool:
    if not database.execute("SELECT 1 FROM sqlite_master WHERE name = 'meta'").fetchone():
        return False
    return bool(database.execute("SELECT 1 FROM meta WHERE name = 'store_id'").fetchone())


def _refusal(path: Path, error: sqlite3.Error) -> StoreUnusable:
    if cause(error) in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return locked(path)
    if cause(error) in _SURROUNDINGS:
        return unusable(path, str(error))
    return _garbled(path, str(error))


def _truncated(path: Path, what: str) -> StoreUnusable:
    return StoreUnusable(StoreFault.TRUNCATED, f"{path} is truncated: {what}; {_remedy(path)}")


def _garbled(path: Path, what: str) -> StoreUnusable:
    return StoreUnusable(
        StoreFault.GARBLED,
        f"{path} is damaged, or not a store of sr-exporter: {' '.join(what.split())};"
        f" {_remedy(path)}",
    )


def _remedy(path: Path) -> str:
    return f"restore a backup, or move {path.name}* away to start anew, which loses what was kept"


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


@contextlib.contextmanager
def _nobody_writes(path: Path) -> Iterator[None]:
    """Keep every other program from writing to a database while it is looked at."""
    deadline = time.monotonic() + BUSY_SECONDS
    with contextlib.ExitStack() as held:
        while not _hold(held, path):
            held.close()
            if time.monotonic() > deadline:
                raise locked(path)
            time.sleep(0.02)
        yield


def _hold(held: contextlib.ExitStack, path: Path) -> bool:
    database = _open(held, path)
    if _lock(database, fcntl.LOCK_EX, _SHARED):
        return True  # nobody else has it open, and nobody can open it now
    if not _lock(database, fcntl.LOCK_SH, _SHARED):
        return False  # somebody has it for himself
    try:
        return _lock(_open(held, beside(path, "-shm")), fcntl.LOCK_EX, _LOG_WRITERS)
    except FileNotFoundError:
        return True


def _open(held: contextlib.ExitStack, path: Path) -> int:
    descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    held.callback(os.close, descriptor)
    return descriptor


def _lock(descriptor: int, manner: int, where: tuple[int, int]) -> bool:
    first, length = where
    try:
        fcntl.lockf(descriptor, manner | fcntl.LOCK_NB, length, first)
    except (BlockingIOError, PermissionError):  # either, says POSIX
        return False
    return True
