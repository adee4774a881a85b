"""How many changes a second are taken in bulk: pushed as NDJSON, and sent by event_stream."""

from __future__ import annotations

import json
import socket
import sqlite3
import threading
import time
from contextlib import ExitStack, closing
from typing import TYPE_CHECKING

from tests.bench.figures import FLOOR, OURS, at_least, rounds, timed
from tests.bench.floor import PUT_CHANGE, database
from tests.bench.held import AT_ONCE, GROUP, Held
from tests.bench.load import Load, request
from tests.bench.processes import LONG_SECONDS, Exporter, cpu_seconds
from tests.bench.push import item, spread
from tests.harness import eventually, free_port

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.bench.setting import Setting

#: How many servers send at once: event_stream has one connection each, and so have the pushes.
SENDERS = 4
#: So many keys change at most, each again and again.
CHANGING = 10_000
#: What is sent in a round, for each second that a round of a rate is to last.
CHANGES_PER_SECOND = 20_000
#: What the project dreams of.
DREAM = 100_000
_EVENT = "E_CORE_SR_STATUS_CHANGED"


def run(setting: Setting) -> None:
    """Send by each way in every round, and write the bare rows of as many changes."""
    figures = setting.figures
    port = free_port()
    events = {
        "stream": {"listen": f"127.0.0.1:{port}"},
        "peers": {f"127.0.0.{number + 1}": _node(number) for number in range(SENDERS)},
    }
    held = Held(setting.identifiers, setting.name_bytes)
    changing = spread(held, CHANGING)
    count = _even(CHANGES_PER_SECOND * setting.seconds / len(changing)) * len(changing)
    with ExitStack() as running:
        ours = running.enter_context(Exporter(setting.folder / "ours", {"events": events}))
        ours.push(held.bodies())
        load = running.enter_context(Load())
        floor = running.enter_context(closing(database(setting.folder / "floor")))
        batches = _batches(held, changing)
        sender = _Sender(port, held, changing, ours)
        sender.send(len(changing))
        bare = _Bare(floor, held, changing, count)
        pushing, sending = _Costs(ours), _Costs(ours)
        lines = 2 * len(changing) / sum(map(len, batches))

        def push() -> float:
            with pushing:
                loaded = load.go_on(ours.port, batches, setting.seconds)
            pushing.changes += round(len(loaded.answers) * lines)
            return loaded.rate * lines

        def send() -> float:
            with sending:
                took = timed(lambda: sender.send(count))
            sending.changes += count
            return count / took

        acts = {FLOOR: bare.write, "NDJSON": push, "event_stream": send}
        found = rounds(setting.rounds, acts)
    bare_rate = figures.measured("bare executemany", FLOOR, found[FLOOR], "1/s")
    for name, costs, least in (("NDJSON", pushing, 0.5), ("event_stream", sending, 0.33)):
        rate = figures.measured(f"{name}, changes", OURS, found[name], "1/s")
        costs.say(setting, name)
        figures.judged(f"{name}: share of the bare rows'", rate / bare_rate, at_least(least))
        figures.judged(f"{name}: share of {DREAM:,} a second", rate / DREAM)


class _Costs:
    """What one way of sending cost the exporter: `with` counts what is done in it."""

    def __init__(self, ours: Exporter) -> None:
        self._ours = ours
        self._computed = self._committing = 0.0
        self.changes = 0

    def __enter__(self) -> None:
        self._committing -= self._committed()
        self._computed -= cpu_seconds(self._ours.process.pid)

    def __exit__(self, *failed: object) -> None:
        self._computed += cpu_seconds(self._ours.process.pid)
        self._committing += self._committed()

    def say(self, setting: Setting, name: str) -> None:
        """Note how much of it each change took."""
        for what, seconds in (("CPU", self._computed), ("commits", self._committing)):
            each = [1e6 * seconds / self.changes]
            setting.figures.measured(f"{name}, {what} a change", OURS, each, "us")

    def _committed(self) -> float:
        return self._ours.value("sr_exporter_store_commit_seconds_total")


def _node(number: int) -> str:
    return f"node-{number}"


def _even(number: float) -> int:
    return 2 * max(1, round(number / 2))


def _batches(held: Held, changing: Sequence[int]) -> list[list[bytes]]:
    """Give for each connection its bodies: all of its keys turn not ready, then all ready."""
    return [
        [
            request("/api/v1/push", "\n".join(lines[first : first + AT_ONCE]).encode())
            for status in (-1, 1)
            for lines in [[json.dumps(item(held, key, status)) for key in changing[own::SENDERS]]]
            for first in range(0, len(lines), AT_ONCE)
        ]
        for own in range(SENDERS)
    ]


class _Sender:
    """Sends as event_stream does, one object after the other, and sees them kept."""

    def __init__(self, port: int, held: Held, changing: Sequence[int], ours: Exporter) -> None:
        self._port = port
        self._store = ours.storage / "sr-exporter.sqlite3"
        self._keys = len(changing)
        #: By sender, and by whether the status is ready.
        self._events = [
            [
                b"".join(
                    _event(number, held.names[key], status) for key in changing[number::SENDERS]
                )
                for status in (-1, 1)
            ]
            for number in range(SENDERS)
        ]
        self._passes = 0

    def send(self, count: int) -> None:
        """Send so many changes; return when all are in the journal."""
        until = self._journal() + count
        threads = [
            threading.Thread(target=self._send, args=[number, count // self._keys])
            for number in range(SENDERS)
        ]
        for thread in threads:
            thread.start()
        eventually(lambda: self._journal() >= until, within=LONG_SECONDS, every=0.01)
        for thread in threads:
            thread.join()
        self._passes += count // self._keys

    def _send(self, number: int, passes: int) -> None:
        with socket.create_connection(("127.0.0.1", self._port)) as connection:
            for turn in range(passes):
                connection.sendall(self._events[number][(self._passes + turn) % 2])

    def _journal(self) -> int:
        uri = f"file:{self._store}?mode=ro"
        with closing(sqlite3.connect(uri, uri=True)) as database:
            (newest,) = database.execute("SELECT max(seq) FROM changes").fetchone()
        return int(newest or 0)


def _event(number: int, name: str, status: int) -> bytes:
    said = {"group": GROUP, "identifier": name, "status": status, "old_status": -status}
    event = {"jsonrpc": "2.0", "method": _node(number), "params": said}
    return json.dumps(event, separators=(",", ":")).encode()


class _Bare:
    """Writes the journal's rows, and nothing else, in transactions of a thousand."""

    def __init__(
        self, floor: sqlite3.Connection, held: Held, changing: Sequence[int], count: int
    ) -> None:
        self._floor = floor
        self._count = count
        self._keys = [(held.source(key), GROUP, held.names[key]) for key in changing]
        self._seq = 0

    def write(self) -> float:
        """Write as many rows as changes are sent; give how many a second."""
        now, keys, seq = time.time(), self._keys, self._seq
        self._seq += self._count
        rows = [
            (number, now, "status", *keys[number % len(keys)], -1, 1, None, False, True)
            for number in range(seq + 1, self._seq + 1)
        ]
        began = time.perf_counter()
        for first in range(0, self._count, AT_ONCE):
            self._floor.execute("BEGIN IMMEDIATE")
            self._floor.executemany(PUT_CHANGE, rows[first : first + AT_ONCE])
            self._floor.execute("COMMIT")
        return self._count / (time.perf_counter() - began)
