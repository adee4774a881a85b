"""The versions of the schema: making the newest, and getting there from an older one."""

from __future__ import annotations

import uuid
from importlib import resources
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import sqlite3

SCHEMA_VERSION = 3

#: What leads from each version to the next. Never altered once released: stores of that version
#: are somewhere.
_MIGRATIONS: dict[int, tuple[str, ...]] = {
    1: (
        (
            "CREATE TABLE tombstones ("
            " source TEXT NOT NULL, group_fold TEXT NOT NULL, identifier_fold TEXT NOT NULL,"
            " at REAL NOT NULL, PRIMARY KEY (source, group_fold, identifier_fold)"
            ") WITHOUT ROWID"
        ),
        "CREATE INDEX tombstones_at ON tombstones (at)",
        "CREATE INDEX changes_at ON changes (at)",
        "CREATE INDEX outbox_dead ON outbox (created_at) WHERE standing = 'dead'",
    ),
    2: (
        "ALTER TABLE keys ADD COLUMN matches TEXT NOT NULL DEFAULT '{}'",
        "ALTER TABLE keys ADD COLUMN subjects TEXT NOT NULL DEFAULT '{}'",
    ),
}


def version(database: sqlite3.Connection) -> int:
    found: int = database.execute("PRAGMA user_version").fetchone()[0]
    return found


def create(database: sqlite3.Connection) -> None:
    """Make the tables of an empty database, and give the store its identity."""
    schema = resources.files("sr_exporter.store").joinpath("schema.sql").read_text("utf-8")
    database.executescript(
        f"BEGIN;\n{schema}\n"
        f"INSERT INTO meta VALUES ('store_id', '{uuid.uuid4()}');\n"
        f"PRAGMA user_version = {SCHEMA_VERSION};\nCOMMIT;"
    )


def migrate(database: sqlite3.Connection) -> None:
    """Bring an older schema to the newest version, in the transaction that is open."""
    for step in range(version(database), SCHEMA_VERSION):
        for statement in _MIGRATIONS[step]:
            database.execute(statement)
    database.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
