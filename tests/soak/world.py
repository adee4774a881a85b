"""Whom a soaked exporter watches and tells: servers that are restarted, receivers that come and go.

Each time a server starts it has other identifiers than before, and its texts name other gateways:
of what was, nothing may be left.
"""

from __future__ import annotations

import contextlib
import random
import threading
import time
import uuid
from typing import TYPE_CHECKING, Self

from sr_exporter.simulator.events import Events
from sr_exporter.simulator.instance import Instance
from sr_exporter.simulator.node import Planned, SimulatedNode
from sr_exporter.simulator.releases import OPENSIPS_4_0
from sr_exporter.simulator.servers import MiThread
from tests.fickle import Board, Fickle
from tests.simulated import KINDS, mi_server

if TYPE_CHECKING:
    from pathlib import Path

    from tests.receiver import Received

#: How many identifiers a server has for each of its lives.
NEW_NAMES = 20
#: How long a server runs, and how long it is away.
LIFE_SECONDS, AWAY_SECONDS = (6.0, 25.0), (0.2, 4.0)
#: From one change of a server to the next.
CHANGE_SECONDS = 0.1


def new_name() -> str:
    """Give a name that nobody had before."""
    return uuid.uuid4().hex


class Server:
    """One simulated OpenSIPS of a kind, with events, that lives again and again."""

    def __init__(self, kind: str, folder: Path) -> None:
        self.name = f"sip-{kind}"
        self._node = SimulatedNode(OPENSIPS_4_0, [Planned("drouting", "us;events")])
        self._names: list[str] = []
        self._gateways: list[str] = []
        events = Events(self._node)
        folder.mkdir()
        server = mi_server(kind, self._node, folder, commands=events.commands)
        self._thread = MiThread(Instance(self._node, server, events, boot=self._boot))
        self._over = threading.Event()
        self._living = threading.Thread(target=self._live, daemon=True)
        self.restarts = 0

    def __enter__(self) -> Self:
        self._thread.__enter__()
        self.url = self._thread.url
        self._living.start()
        return self

    def __exit__(self, *failed: object) -> None:
        self._over.set()
        self._living.join()
        self._thread.__exit__(None, None, None)

    def _boot(self, node: SimulatedNode, now: float) -> None:
        node.initialized(now)
        self._names = [new_name() for _ in range(NEW_NAMES)]
        self._gateways = [f"<{new_name()[:8]}>/192.0.2.1:5060" for _ in range(3)]
        for name in self._names:
            node.register("script", name)
        node.register("script", "flaps")

    def _live(self) -> None:
        while not self._over.is_set():
            until = time.monotonic() + random.uniform(*LIFE_SECONDS)
            while time.monotonic() < until and not self._over.wait(CHANGE_SECONDS):
                self._thread.call(self._change)
            if self._over.is_set():
                return
            self._thread.refuse()
            self._over.wait(random.uniform(*AWAY_SECONDS))
            self._thread.listen()
            self.restarts += 1

    def _change(self) -> None:
        node, now = self._node, time.time()
        for name in ("flaps", random.choice(self._names)):
            node.set_status("script", name, random.choice((-2, -1, 1, 2)), new_name())
            node.add_report("script", name, f"turned at {now}", now)
        if random.random() < 0.1:
            state = random.choice(("active", "inactive"))
            node.gateway("us", random.choice(self._gateways), state, "probing", now)


class Sink(Fickle):
    """A webhook's receiver that keeps nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.taken = 0

    def take(self, received: Received) -> int:
        code = super().take(received)
        with self.changed:
            self.received.clear()
        return code

    def answered(self, received: Received, code: int) -> None:
        self.taken += 200 <= code < 300


class SinkBoard(Board):
    """An Alertmanager that keeps nothing but how much it was sent."""

    def answered(self, received: Received, code: int) -> None:
        self.posts += 200 <= code < 300

    def take(self, received: Received) -> int:
        code = super().take(received)
        with self.changed:
            self.received.clear()
        return code


class World:
    """All of them; `with` has them run."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Self:
        with self._stack as stack:
            self.servers = [
                stack.enter_context(Server(kind, self._folder / kind)) for kind in KINDS
            ]
            self.sinks = [stack.enter_context(Sink()) for _ in range(2)]
            self.boards = [stack.enter_context(SinkBoard()) for _ in range(2)]
            for receiver in (*self.sinks, *self.boards):
                receiver.begin()
                stack.callback(receiver.be_steady)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *failed: object) -> None:
        self._stack.close()

    def config(self, *, stream: int, datagram: int, retention: str, odd: bool) -> str:
        """Write one of two configurations: of every other one a server and a receiver are gone."""
        servers = [one for one in self.servers if not (odd and one.name == "sip-unix")]
        sinks = self.sinks[: 1 if odd else 2]
        lines = ["sources:"]
        for one in servers:
            way = "{subscribe: tcp}" if one.name in ("sip-http", "sip-udp") else "{}"
            lines.append(
                f"- {{name: {one.name}, mi: '{one.url}', poll_interval: 300ms, max_share: 1,"
                f" timeout: 1s, stale_after: {'3s' if odd else '2s'}"
                + (f", events: {way}}}" if way != "{}" else "}")
            )
        lines += [
            (
                f"events: {{stream: {{listen: '127.0.0.1:{stream}'}},"
                f" datagram: {{listen: '127.0.0.1:{datagram}'}}, peers: {{127.0.0.1: ears}}}}"
            ),
            f"storage: {{retention: {retention}}}",
            "limits: {notifications: 2000}",
            "alerts: {watchdog: true, watchdog_interval: 10s}",
            "notifiers:",
        ]
        for number, sink in enumerate(sinks):
            lines.append(
                f"- {{name: hook-{number}, webhook: {{url: '{sink.url}', timeout: 1s,"
                f" max_age: 1m, group_wait: {number}s}}}}"
            )
        urls = ", ".join(f"'{board.base}'" for board in self.boards)
        lines.append(f"- {{name: board, alertmanager: {{urls: [{urls}], timeout: 1s}}}}")
        return "\n".join(lines) + "\n"
