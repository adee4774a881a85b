"""Puts rows into a table, many by one statement.

Each statement lets go of the interpreter and waits for it again; while the loop is busy that
takes milliseconds, and row by row a large commit would crawl.
"""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Sequence

Row = tuple[Any, ...]

#: How many rows go into one statement: the most first. SQLite takes 32,766 values in one, and
#: Python's cache of statements has room for these of all tables (`cached_statements`).
AT_ONCE = (64, 32, 16, 8, 4, 2, 1)


class Put:
    """Puts rows of these columns into a table, each in the place of one with its primary key."""

    def __init__(self, table: str, columns: str) -> None:
        row = f"({', '.join('?' * len(columns.split(',')))})"
        put = f"INSERT OR REPLACE INTO {table} ({columns}) VALUES "  # noqa: S608 - names of ours
        self._by_size = [(size, put + ", ".join([row] * size)) for size in AT_ONCE]

    def __call__(self, database: sqlite3.Connection, rows: Sequence[Row]) -> None:
        """Put rows in their order, inside the transaction that is open."""
        first = 0
        for size, put in self._by_size:
            while len(rows) - first >= size:
                values = tuple(chain.from_iterable(rows[first : first + size]))
                database.execute(put, values)
                first += size
