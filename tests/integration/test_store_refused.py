"""A store that cannot be used: the command says why in one line, and by its exit status."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from sr_exporter.store.schema import SCHEMA_VERSION
from sr_exporter.store.sqlite import SqliteStore
from tests.harness import free_port
from tests.stores import FILE, a_key, holding, keep

if TYPE_CHECKING:
    from pathlib import Path


def _alone(path: Path) -> None:
    path.unlink()
    path.mkdir()


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def _garble(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[:-4096] + b"\xff" * 100 + data[-3996:])


def _renew(path: Path) -> None:
    with closing(sqlite3.connect(path)) as database:
        database.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")


@pytest.mark.parametrize(
    ("harm", "status", "said"),
    [
        (_alone, 3, "cannot be used: it is not a file"),
        (_cut, 4, "is truncated"),
        (lambda path: path.write_bytes(b""), 4, "is truncated"),
        (_garble, 5, "is damaged"),
        (lambda path: path.write_text("a letter to a friend"), 5, "not a store of sr-exporter"),
        (_renew, 6, "was written by a newer sr-exporter"),
    ],
    ids=["in the way", "cut", "empty", "garbled", "foreign", "newer"],
)
def test_each_fault_has_its_exit_status(tmp_path, harm, status, said):
    """With one line that names the file, and nothing altered."""
    path = tmp_path / FILE
    keep(SqliteStore(tmp_path), holding(*(a_key(str(number)) for number in range(500))))
    harm(path)
    before = path.read_bytes() if path.is_file() else None
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "sr_exporter",
            f"--storage.path={tmp_path}",
            f"--web.listen-address=127.0.0.1:{free_port()}",
        ],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == status, done.stderr
    assert done.stderr.count("\n") == 1
    assert str(path) in done.stderr
    assert said in done.stderr
    assert (path.read_bytes() if path.is_file() else None) == before
    assert {one.name for one in tmp_path.iterdir()} == {FILE, "lock"}


def test_the_help_names_each_exit_status():
    """Who writes a unit file reads it there."""
    done = subprocess.run(
        [sys.executable, "-m", "sr_exporter", "--help"],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    statuses = " ".join(done.stdout.partition("exit status:")[2].split())
    for status in ("3 the store cannot be used", "4 it is truncated", "5 it is", "6 a newer"):
        assert status in statuses
