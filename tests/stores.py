"""Stores in tests: records to keep, and the ways to keep and load them."""

from __future__ import annotations

import asyncio
import time
from contextlib import closing
from typing import TYPE_CHECKING, TypeVar

from sr_exporter.model import Change, ChangeKind, Key, KeyRecord
from sr_exporter.store.contract import Batch, Owed, Standing

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from sr_exporter.store.contract import Kept, Store

T = TypeVar("T")

FILE = "sr-exporter.sqlite3"


def use(store: Store, act: Callable[[Store], Awaitable[T]]) -> T:
    """Load a store, act on it in a loop, and close it."""

    async def run() -> T:
        try:
            store.load()
            return await act(store)
        finally:
            store.close()

    return asyncio.run(run())


def load(store: Store) -> Kept:
    with closing(store):
        return store.load()


def keep(store: Store, *batches: Batch) -> None:
    """Load a store, have the batches kept one after another, and close it."""

    async def act(store: Store) -> None:
        for batch in batches:
            await store.commit(batch)

    use(store, act)


async def until(condition: Callable[[], bool]) -> None:
    """Wait for what the store does by itself, and tells nobody."""
    deadline = time.monotonic() + 20.0
    while not condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.002)


def a_key(name: str = "g", status: int = 1, source: str = "push") -> KeyRecord:
    return KeyRecord(
        key=Key(source, name, "main"),
        status=status,
        ready=status > 0,
        details=None,
        changed_at=1.0,
        ready_changed_at=1.0,
        stated_at=1.0,
        changes_total=0,
        reports=(),
        reports_total=0,
        early=False,
    )


def a_change(seq: int, at: float = 1e12) -> Change:
    return Change(seq, at, ChangeKind.STATUS, "push", "g", "main", status=1, old_status=-1)


def an_owed(row_id: str, seq: int = 1, standing: Standing = Standing.OWED) -> Owed:
    return Owed(
        id=row_id,
        seq=seq,
        notifier="oncall",
        subject="push/g/main",
        standing=standing,
        created_at=1e12,  # never past its retention
        due_at=2.0,
        attempts=3,
        body=b"{}",
    )


def holding(*keys: KeyRecord, changes: tuple[Change, ...] = ()) -> Batch:
    return Batch(keys={record.key: record for record in keys}, changes=list(changes))


def statuses(kept: Kept) -> dict[str, int]:
    return {record.key.group: record.status for record in kept.keys}
