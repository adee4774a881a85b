"""Servers that send SR events over TCP in `reliable_mode`, and remember every answer."""

from __future__ import annotations

import json
import socket
from typing import TYPE_CHECKING

from tests.crowd import Crowd, Key, Teller

if TYPE_CHECKING:
    from tests.harness import Samples

#: How long an answer is waited for.
ANSWER_SECONDS = 30.0


class EventSender(Teller):
    """Tells of one of its keys after the other, on one connection."""

    _crowd: EventSenders

    def __init__(self, crowd: EventSenders, keys: list[Key]) -> None:
        super().__init__(crowd, keys)
        self._connection: socket.socket | None = None
        self._input = b""

    def tell(self, key: Key) -> bool:
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
            self.hang_up()
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

    def hang_up(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


class EventSenders(Crowd):
    """A crowd of them, all of one source; `begin` has them wait at a shut gate."""

    def member(self, keys: list[Key]) -> EventSender:
        return EventSender(self, keys)

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

    def miscounted(self, found: Samples) -> list[str]:
        """Say which counters are not what was told; ask after `finish`."""
        wrong = []
        for key in self.keys:
            changes = found.get(("opensips_sr_status_changes_total", self.labels(key)), 0)
            if changes != max(0, key.acknowledged - 1):
                wrong.append(f"{key.identifier}: {changes} changes, n={key.acknowledged}")
        labels = (("source", self.source),)
        if missed := found.get(("opensips_sr_status_changes_missed_total", labels), 0):
            wrong.append(f"{missed} changes of {self.source} are said to be missed")
        return wrong
