"""Receivers that come and go: they take, refuse, hang, and are not there, by turns."""

from __future__ import annotations

import itertools
import random
import threading
from datetime import datetime
from typing import TYPE_CHECKING, NamedTuple

from tests.receiver import Received, Receiver

if TYPE_CHECKING:
    from collections.abc import Callable

TURNS = ("taking", "refusing", "taking", "hanging", "taking", "away")
#: How long a turn lasts at most.
LONGEST_TAKING_SECONDS, LONGEST_OTHER_SECONDS = 3.0, 0.6


class Fickle(Receiver):
    """`on_request` is told of what comes, and `on_answer` of what was taken, on their threads."""

    def __init__(
        self,
        on_request: Callable[[Received], None] = lambda _: None,
        on_answer: Callable[[Received], None] = lambda _: None,
        *,
        longest_taking_seconds: float = LONGEST_TAKING_SECONDS,
    ) -> None:
        super().__init__(200)
        self._on_request = on_request
        self._on_answer = on_answer
        self._longest = longest_taking_seconds
        self._steady = threading.Event()
        self._answers_at_all = threading.Event()
        self._answers_at_all.set()
        self._turning = threading.Thread(target=self._turn, daemon=True)

    def begin(self) -> None:
        self._turning.start()

    def _turn(self) -> None:
        for how in itertools.cycle(TURNS):
            self._be(how)
            longest = self._longest if how == "taking" else LONGEST_OTHER_SECONDS
            if self._steady.wait(random.uniform(0.05, longest)):
                break

    def _be(self, how: str) -> None:
        self.answer(503 if how == "refusing" else 200)
        if how == "hanging":
            self._answers_at_all.clear()
        else:
            self._answers_at_all.set()
        if how == "away":
            self.refuse()
        else:
            self.listen()

    def be_steady(self) -> None:
        """Take everything from now on."""
        self._steady.set()
        if self._turning.ident is not None:
            self._turning.join()
        self._be("taking")

    def take(self, received: Received) -> int:
        self._on_request(received)
        if not self._answers_at_all.is_set():
            # Who hung takes nothing of what it was sent meanwhile.
            self._answers_at_all.wait(LONGEST_OTHER_SECONDS)
            raise ConnectionResetError
        return super().take(received)

    def answered(self, received: Received, code: int) -> None:
        super().answered(received, code)
        if code == 200:
            self._on_answer(received)


class Level(NamedTuple):
    """What an Alertmanager holds of one alert."""

    fires: bool
    starts_at: float


class Board(Fickle):
    """In the place of an Alertmanager: what it was told last of each alert."""

    #: Only what was taken last counts: a long run would hold all it was ever sent.
    def __init__(self, on_answer: Callable[[Received], None] = lambda _: None, **more) -> None:
        super().__init__(on_answer=on_answer, **more)
        self._levels: dict[tuple[str, str, str], Level] = {}
        self.posts = 0

    def answered(self, received: Received, code: int) -> None:
        if code == 200:
            with self.changed:
                self.posts += 1
                self.received.remove(received)
                for alert in received.body:
                    self._take(alert)
        self._on_answer(received)

    def _take(self, alert: dict) -> None:
        labels = alert["labels"]
        key = (labels["source"], labels.get("group", ""), labels.get("identifier", ""))
        fires = _moment(alert["endsAt"]) > datetime.now().astimezone().timestamp()
        self._levels[key] = Level(fires, _moment(alert["startsAt"]))

    def levels(self) -> dict[tuple[str, str, str], Level]:
        with self.changed:
            return dict(self._levels)


def _moment(said: str) -> float:
    return datetime.fromisoformat(said).timestamp()
