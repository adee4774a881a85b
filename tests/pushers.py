"""Clients that push without pause, over many lives of one exporter, and remember every answer."""

from __future__ import annotations

import http.client
import itertools
import json
import threading
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from types import TracebackType

    from tests.harness import Samples

#: The n-th report is from n seconds after this.
BEGAN = 1_700_000_000


class Gate:
    """Lets through while it is open. Who finds it shut waits, and can be seen to wait."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._open = False
        self._waiting = 0

    def __call__(self) -> None:
        with self._changed:
            self._waiting += 1
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._open)
            self._waiting -= 1

    def open(self) -> None:
        with self._changed:
            self._open = True
            self._changed.notify_all()

    def shut(self) -> None:
        with self._changed:
            self._open = False

    def wait_for(self, count: int, within: float = 20.0) -> None:
        """Wait until so many wait at the gate."""
        with self._changed:
            enough = self._changed.wait_for(lambda: self._waiting >= count, within)
            assert enough, f"{self._waiting} of {count} came to the gate within {within} s"


@dataclass(slots=True)
class Key:
    """What one client pushes to: n = 1, 2, 3, ..., each with a report of its own."""

    identifier: str
    #: The status is -n for an odd n, else n, so that each push is an edge; otherwise always 1.
    turns: bool = True
    #: How long its reports are: a long one makes a long commit.
    report_bytes: int = 0
    #: The newest n that was sent, and that was answered by 200.
    sent: int = 0
    acknowledged: int = 0

    @property
    def numbers(self) -> range:
        """Every n that was acknowledged."""
        return range(1, self.acknowledged + 1)

    def status(self, number: int) -> int:
        if not self.turns:
            return 1
        return -number if number % 2 else number


class Pusher(threading.Thread):
    """Pushes to one of its keys after the other; again what is not acknowledged."""

    def __init__(self, crowd: Pushers, keys: list[Key]) -> None:
        super().__init__(daemon=True)
        self._crowd = crowd
        self._connection = http.client.HTTPConnection("127.0.0.1", crowd.port, timeout=30)
        self.keys = keys
        self.answers: Counter[int] = Counter()
        #: Pushes that were sent and never answered.
        self.cut = 0

    def run(self) -> None:
        for key in itertools.cycle(self.keys):
            if self._crowd.over.is_set():
                break
            key.sent += 1
            self._crowd.gate()
            while self._push(key) != 200:
                if self._crowd.given_up:
                    return
                self._crowd.pause.wait(self._crowd.retry_seconds)
                self._crowd.gate()
            key.acknowledged += 1
            self._crowd.acknowledged()
        self._connection.close()

    def _push(self, key: Key) -> int | None:
        said = f"n={key.sent}"
        body = json.dumps(
            {
                "source": self._crowd.source,
                "group": self._crowd.group,
                "identifier": key.identifier,
                "status": key.status(key.sent),
                "details": said,
                "reports": [
                    {"log": said.ljust(key.report_bytes, "."), "timestamp": BEGAN + key.sent}
                ],
            }
        )
        connection = self._connection
        try:
            if connection.sock is None:
                connection.connect()
        except OSError:
            connection.close()
            return None
        try:
            connection.request("POST", "/api/v1/push", body)
            answer = connection.getresponse()
            answer.read()
        except (OSError, http.client.HTTPException):
            connection.close()
            self.cut += 1
            return None
        self.answers[answer.status] += 1
        if answer.status == 503:
            assert answer.headers["Retry-After"], "a 503 says when to come again"
        return answer.status


class Pushers:
    """A crowd of clients; `with` starts them, waiting at a shut gate, and has them end."""

    source, group = "crowd", "kept"

    def __init__(self, port: int, keys: list[list[Key]], *, retry_seconds: float = 0.02) -> None:
        """Make a client for each list of keys."""
        self.port = port
        self.retry_seconds = retry_seconds
        self.gate = Gate()
        self.over = threading.Event()
        self.given_up = False
        #: Never set: to wait for it is to wait.
        self.pause = threading.Event()
        self._all = [Pusher(self, own) for own in keys]
        self.keys = [key for own in keys for key in own]

    def __enter__(self) -> Self:
        for pusher in self._all:
            pusher.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.given_up = error is not None
        self.finish()

    def finish(self, within: float = 30.0) -> None:
        """Have everything that was begun acknowledged, and nothing begun any more."""
        self.over.set()
        self.gate.open()
        for pusher in self._all:
            pusher.join(within)
            assert not pusher.is_alive(), f"a push was not acknowledged within {within} s"

    def park(self) -> None:
        """Shut the gate, and wait until all have come to it."""
        self.gate.shut()
        self.gate.wait_for(len(self._all))

    def acknowledged(self) -> None:
        """Be told of each acknowledgement, on its client's thread."""

    @property
    def total(self) -> int:
        """How many pushes were acknowledged."""
        return sum(key.acknowledged for key in self.keys)

    @property
    def cut(self) -> int:
        return sum(pusher.cut for pusher in self._all)

    @property
    def answers(self) -> Counter[int]:
        return sum((pusher.answers for pusher in self._all), Counter())

    def lost(self, found: Samples) -> list[str]:
        """Say which keys do not hold what was acknowledged last, or else what was sent last.

        Ask while all wait at the gate, or after `finish`.
        """
        wrong = []
        for key in self.keys:
            reported = found.get(
                ("opensips_sr_last_report_timestamp_seconds", self._labels(key)), BEGAN
            )
            held = (found.get(("opensips_sr_status", self._labels(key))), reported - BEGAN)
            allowed = [
                (key.status(number) if number else None, number)
                for number in {key.acknowledged, key.sent}
            ]
            if held not in allowed:
                wrong.append(f"{key.identifier}: {held}, not one of {allowed}")
        return wrong

    def miscounted(self, found: Samples) -> list[str]:
        """Say which counters are not what was pushed; ask after `finish`."""
        wrong = []
        for key in self.keys:
            number, labels = key.acknowledged, self._labels(key)
            changes = found.get(("opensips_sr_status_changes_total", labels), 0)
            reports = found.get(("opensips_sr_reports_total", labels), 0)
            if (changes, reports) != (max(0, number - 1) if key.turns else 0, number):
                wrong.append(f"{key.identifier}: {changes} changes, {reports} reports, n={number}")
        return wrong

    def _labels(self, key: Key) -> tuple[tuple[str, str], ...]:
        return (("group", self.group), ("identifier", key.identifier), ("source", self.source))
