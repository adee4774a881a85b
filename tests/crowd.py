"""A crowd that tells one exporter things without pause, over many of its lives, and remembers.

Each of the crowd is a thread with keys of its own: it tells of one after the other, and tells
again what was not acknowledged. How a thing is told is its client's (`tests/pushers.py`,
`tests/event_senders.py`).
"""

from __future__ import annotations

import itertools
import threading
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.harness import Samples


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
    """What one client tells of: n = 1, 2, 3, ..., each a thing of its own."""

    identifier: str
    #: The status is -n for an odd n, else n, so that each of them is an edge; otherwise always 1.
    turns: bool = True
    #: How long its reports are: a long one makes a long commit.
    report_bytes: int = 0
    #: The newest n that was sent, and that was acknowledged.
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


class Teller(threading.Thread, ABC):
    """One of a crowd."""

    def __init__(self, crowd: Crowd, keys: list[Key]) -> None:
        super().__init__(daemon=True)
        self._crowd = crowd
        self.keys = keys
        #: Things that were sent and never answered.
        self.cut = 0

    @abstractmethod
    def tell(self, key: Key) -> bool:
        """Send the newest n of a key; say whether it was acknowledged."""

    @abstractmethod
    def hang_up(self) -> None:
        """Close the connection, if there is one."""

    def run(self) -> None:
        for key in itertools.cycle(self.keys):
            if self._crowd.over.is_set():
                break
            key.sent += 1
            self._crowd.gate()
            while not self.tell(key):
                if self._crowd.given_up:
                    return
                self._crowd.pause.wait(self._crowd.retry_seconds)
                self._crowd.gate()
            key.acknowledged += 1
            self._crowd.acknowledged()
        self.hang_up()


class Crowd(ABC):
    """All who tell one exporter of one group of one source."""

    group = "kept"

    def __init__(
        self, source: str, port: int, keys: list[list[Key]], *, retry_seconds: float = 0.02
    ) -> None:
        """Make one for each list of keys."""
        self.source = source
        self.port = port
        self.retry_seconds = retry_seconds
        self.gate = Gate()
        self.over = threading.Event()
        self.given_up = False
        #: Never set: to wait for it is to wait.
        self.pause = threading.Event()
        self.all = [self.member(own) for own in keys]
        self.keys = [key for own in keys for key in own]

    @abstractmethod
    def member(self, keys: list[Key]) -> Teller:
        """Make one of them, who tells of these keys."""

    def begin(self) -> None:
        """Start them all; they wait at the gate, which is shut."""
        for one in self.all:
            one.start()

    def finish(self, within: float = 30.0) -> None:
        """Have everything that was begun acknowledged, and nothing begun any more."""
        self.over.set()
        self.gate.open()
        for one in self.all:
            one.join(within)
            assert not one.is_alive(), f"{self.source}: not acknowledged within {within} s"

    def give_up(self) -> None:
        """End without waiting for what is not acknowledged."""
        self.given_up = True
        self.finish()

    def park(self) -> None:
        """Shut the gate, and wait until all have come to it."""
        self.gate.shut()
        self.gate.wait_for(len(self.all))

    def acknowledged(self) -> None:  # noqa: B027 - nobody need know
        """Be told of each acknowledgement, on its client's thread."""

    @property
    def total(self) -> int:
        """How many things were acknowledged."""
        return sum(key.acknowledged for key in self.keys)

    @property
    def cut(self) -> int:
        """How many were sent and never answered."""
        return sum(one.cut for one in self.all)

    def lost(self, found: Samples) -> list[str]:
        """Say which keys do not hold what was acknowledged last, or else what was sent last.

        Ask while all wait at the gate, or after `finish`.
        """
        wrong = []
        for key in self.keys:
            held = self.held(found, key)
            allowed = [self.holding(key, number) for number in {key.acknowledged, key.sent}]
            if held not in allowed:
                wrong.append(f"{key.identifier}: {held}, not one of {allowed}")
        return wrong

    def held(self, found: Samples, key: Key) -> object:
        """Give what a scrape says that a key holds."""
        return found.get(("opensips_sr_status", self.labels(key)))

    def holding(self, key: Key, number: int) -> object:
        """Give what a scrape is to say when n was the last that came."""
        return key.status(number) if number else None

    def labels(self, key: Key) -> tuple[tuple[str, str], ...]:
        return (("group", self.group), ("identifier", key.identifier), ("source", self.source))
