"""Servers that send SR events over TCP in `reliable_mode`, and remember every answer."""

from __future__ import annotations

import itertools
import json
import socket
import threading
from typing import TYPE_CHECKING

from tests.pushers import Gate, Key

if TYPE_CHECKING:
    from tests.harness import Samples

#: How long an answer is waited for.
ANSWER_SECONDS = 30.0


class EventSender(threading.Thread):
    """Tells of one of its keys after the other; again what is not acknowledged."""

    def __init__(self, crowd: EventSenders, keys: list[Key]) -> None:
        super().__init__(daemon=True)
        self._crowd = crowd
        self._connection: socket.socket | None = None
        self._input = b""
        self.keys = keys
        self.cut = 0

    def run(self) -> None:
        for key in itertools.cycle(self.keys):
            if self._crowd.over.is_set():
                break
            key.sent += 1
            self._crowd.gate()
            while not self._tell(key):
                if self._crowd.given_up:
                    return
                self._crowd.pause.wait(self._crowd.retry_seconds)
                self._crowd.gate()
            key.acknowledged += 1
            self._crowd.acknowledged()
        self._hang_up()

    def _tell(self, key: Key) -> bool:
        try:
            if self._connection is None:
                self._connection = socket.create_connection(
                    ("127.0.0.1", self._crowd.port), ANSWER_SECONDS
                )
                self._input = b""
        except OSError:
            return False
        try:
            self._connection.sendall(self._crowd.event(key, key.sent))
            return self._answer() == {"jsonrpc": "2.0", "result": "OK", "id": key.sent}
        except OSError:
            self.cut += 1
            self._hang_up()
            return False

    def _answer(self) -> object:
        assert self._connection is not None
        while True:
            more = self._connection.recv(65536)
            if not more:
                raise ConnectionResetError
            self._input += more
            try:
                found, end = json.JSONDecoder().raw_decode(self._input.decode())
            except ValueError:
                continue
            self._input = self._input[end:]
            return found

    def _hang_up(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


class EventSenders:
    """A crowd of them, all of one source; `begin` has them wait at a shut gate."""

    group = "kept"

    def __init__(self, source: str, port: int, keys: list[list[Key]]) -> None:
        self.source = source
        self.port = port
        self.retry_seconds = 0.02
        self.gate = Gate()
        self.over = threading.Event()
        self.given_up = False
        self.pause = threading.Event()
        self._all = [EventSender(self, own) for own in keys]
        self.keys = [key for own in keys for key in own]

    def begin(self) -> None:
        for sender in self._all:
            sender.start()

    def event(self, key: Key, number: int) -> bytes:
        """Write the n-th event of a key, as OpenSIPS does."""
        params = {
            "group": self.group,
            "identifier": key.identifier,
            "status": key.status(number),
            "old_status": key.status(number - 1) or 1,
            "details": f"n={number}",
        }
        said = {"id": number, "jsonrpc": "2.0", "method": self.source, "params": params}
        return json.dumps(said, separators=(",", ":")).encode()

    def hello(self) -> None:
        """Have the source heard, and say nothing new of it."""
        key = Key("hello", turns=False)
        with socket.create_connection(("127.0.0.1", self.port), ANSWER_SECONDS) as connection:
            connection.sendall(self.event(key, 1))
            assert connection.recv(65536)

    def finish(self, within: float = 30.0) -> None:
        """Have everything that was begun acknowledged, and nothing begun any more."""
        self.over.set()
        self.gate.open()
        for sender in self._all:
            sender.join(within)
            assert not sender.is_alive(), f"an event was not acknowledged within {within} s"

    def give_up(self) -> None:
        """End without waiting for what is not acknowledged."""
        self.given_up = True
        self.finish()

    def park(self) -> None:
        """Shut the gate, and wait until all have come to it."""
        self.gate.shut()
        self.gate.wait_for(len(self._all))

    def acknowledged(self) -> None:
        """Be told of each acknowledgement, on its sender's thread."""

    @property
    def total(self) -> int:
        return sum(key.acknowledged for key in self.keys)

    @property
    def cut(self) -> int:
        return sum(sender.cut for sender in self._all)

    def lost(self, found: Samples) -> list[str]:
        """Say which keys do not hold what was acknowledged last, or else what was sent last."""
        wrong = []
        for key in self.keys:
            held = found.get(("opensips_sr_status", self._labels(key)))
            allowed = [
                key.status(number) if number else None for number in {key.acknowledged, key.sent}
            ]
            if held not in allowed:
                wrong.append(f"{key.identifier}: {held}, not one of {allowed}")
        return wrong

    def miscounted(self, found: Samples) -> list[str]:
        """Say which counters are not what was told; ask after `finish`."""
        wrong = []
        for key in self.keys:
            changes = found.get(("opensips_sr_status_changes_total", self._labels(key)), 0)
            if changes != max(0, key.acknowledged - 1):
                wrong.append(f"{key.identifier}: {changes} changes, n={key.acknowledged}")
        labels = (("source", self.source),)
        if missed := found.get(("opensips_sr_status_changes_missed_total", labels), 0):
            wrong.append(f"{missed} changes of {self.source} are said to be missed")
        return wrong

    def _labels(self, key: Key) -> tuple[tuple[str, str], ...]:
        return (("group", self.group), ("identifier", key.identifier), ("source", self.source))
