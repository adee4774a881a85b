"""Looks back through the journal for some keys.

It has no index by key: each change would pay for it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sr_exporter.model import Change, Key
from sr_exporter.store import rows as table
from sr_exporter.store.contract import Past

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Collection


def past(
    database: sqlite3.Connection, keys: Collection[Key], before: int | None, rows: int
) -> Past:
    """Give one stretch, as the contract says."""
    oldest, newest = database.execute(
        # Of both at once SQLite would look at every row (its documentation, min/max optimization).
        "SELECT (SELECT min(seq) FROM changes), (SELECT max(seq) FROM changes)"
    ).fetchone()
    if oldest is None:
        return Past([], None, None)
    end = newest + 1 if before is None else min(before, newest + 1)
    begin = end - rows
    (youngest_at,) = database.execute(
        # The sign keeps it from going down the whole index of `at`.
        "SELECT max(+at) FROM changes WHERE seq >= ? AND seq < ?",
        (begin, end),
    ).fetchone()
    sources = {key.source for key in keys}
    identifiers = {key.identifier for key in keys}
    found = database.execute(
        # `lower` knows ASCII only, as `fold` does.
        f"SELECT {table.CHANGE} FROM changes WHERE seq >= ? AND seq < ?"  # noqa: S608
        f" AND source IN ({_places(sources)})"
        f" AND (identifier IS NULL OR lower(identifier) IN ({_places(identifiers)}))"
        " ORDER BY seq DESC",
        (begin, end, *sources, *identifiers),
    )
    changes = [change for row in found if _is_of(change := table.change(row), keys)]
    return Past(changes, youngest_at, begin if begin > oldest else None)


def _is_of(change: Change, keys: Collection[Key]) -> bool:
    if change.group is None or change.identifier is None:
        return True  # of a source
    return Key(change.source, change.group, change.identifier).folded() in keys


def _places(values: Collection[str]) -> str:
    return ", ".join("?" * len(values))
