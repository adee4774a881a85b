"""The barest programs that do the same work: `python -m tests.bench.floor send|keep WHAT PORT`.

`send` answers with the bytes of a file, from memory; `keep` takes single statuses and commits the
rows that an exporter would, those that came meanwhile together, before it answers.
"""

from __future__ import annotations

import asyncio
import queue
import sqlite3
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import uvicorn

from sr_exporter.store import schema

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    Receive = Callable[[], Awaitable[dict[str, Any]]]
    Send = Callable[[dict[str, Any]], Awaitable[None]]

PUT_KEY = f"INSERT OR REPLACE INTO keys VALUES ({', '.join('?' * 20)})"
PUT_CHANGE = f"INSERT OR REPLACE INTO changes VALUES ({', '.join('?' * 11)})"

Row = tuple[object, ...]


class Item(msgspec.Struct):
    source: str
    group: str
    identifier: str
    status: int

    def key_row(self, now: float) -> Row:
        folds = (self.group.lower(), self.identifier.lower())
        said = (self.status, self.status > 0, None, now, now, now, 1, 0, "[]", 0, None)
        return (
            *(self.source, *folds, self.group, self.identifier),
            *(*said, "not_ready", 0, "{}", "{}"),
        )

    def change_row(self, seq: int, now: float) -> Row:
        key = (self.source, self.group, self.identifier)
        return (seq, now, "status", *key, self.status, -self.status, None, self.status > 0, False)


def database(folder: Path) -> sqlite3.Connection:
    """Make an empty store that commits as ours does."""
    folder.mkdir(parents=True, exist_ok=True)
    made = sqlite3.connect(folder / "floor.sqlite3", isolation_level=None, check_same_thread=False)
    made.execute("PRAGMA journal_mode=WAL")
    made.execute("PRAGMA synchronous=FULL")
    schema.create(made)
    return made


class Sending:
    """Has the answer in memory."""

    def __init__(self, file: Path) -> None:
        self._body = file.read_bytes()

    async def __call__(self, scope: dict[str, Any], receive: Receive, send: Send) -> None:
        body = b"" if scope["path"] == "/ready" else self._body
        await _answer(send, body, (b"content-encoding", b"gzip"))


class Keeping:
    """Commits each status before it answers."""

    def __init__(self, folder: Path) -> None:
        self._database = database(folder)
        self._decode = msgspec.json.Decoder(Item).decode
        self._queue: queue.SimpleQueue[tuple[Item, asyncio.Future[None]]] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._seq = 0

    async def __call__(self, scope: dict[str, Any], receive: Receive, send: Send) -> None:
        if scope["path"] == "/ready":
            await _answer(send, b"")
            return
        loop = asyncio.get_running_loop()
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, args=[loop], daemon=True)
            self._thread.start()
        message = await receive()
        body = message["body"]
        while message["more_body"]:
            message = await receive()
            body += message["body"]
        kept = loop.create_future()
        self._queue.put((self._decode(body), kept))
        await kept
        await _answer(send, b'{"accepted":1,"changed":1}')

    def _run(self, loop: asyncio.AbstractEventLoop) -> None:
        while True:
            came = [self._queue.get()]
            while not self._queue.empty():
                came.append(self._queue.get())
            self._commit([item for item, _ in came])
            loop.call_soon_threadsafe(_settle, [kept for _, kept in came])

    def _commit(self, items: list[Item]) -> None:
        now, first = time.time(), self._seq + 1
        self._seq += len(items)
        self._database.execute("BEGIN IMMEDIATE")
        self._database.executemany(PUT_KEY, [item.key_row(now) for item in items])
        rows = [item.change_row(seq, now) for seq, item in enumerate(items, first)]
        self._database.executemany(PUT_CHANGE, rows)
        self._database.execute("COMMIT")


def _settle(kept: list[asyncio.Future[None]]) -> None:
    for one in kept:
        if not one.done():
            one.set_result(None)


async def _answer(send: Send, body: bytes, *headers: tuple[bytes, bytes]) -> None:
    length = (b"content-length", str(len(body)).encode())
    start = {"type": "http.response.start", "status": 200, "headers": [length, *headers]}
    await send(start)
    await send({"type": "http.response.body", "body": body})


def main(work: str, what: Path, port: int) -> None:
    """Serve until a signal ends it."""
    application = Sending(what) if work == "send" else Keeping(what)
    uvicorn.run(
        application,
        host="127.0.0.1",
        port=port,
        http="httptools",
        loop="uvloop",
        lifespan="off",
        access_log=False,
        log_level="warning",
    )


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]))
