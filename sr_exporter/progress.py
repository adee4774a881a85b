"""How far a start is: counted by who does it, on any thread; told in the log and to who asks."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, NamedTuple, TypeVar

import structlog

from sr_exporter.errors import Interrupted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

T = TypeVar("T")

log = structlog.get_logger(__name__)

#: How often the log tells.
SECONDS = 2.0
#: How many things are done between two looks at the clock: some 20 ms.
AT_ONCE = 2048


class Step(NamedTuple):
    """What is done now, and how much of it."""

    #: In the plural: "identifiers".
    what: str
    done: int
    of: int

    def __str__(self) -> str:
        return f"restoring {self.done:,} of {self.of:,} {self.what}"


class Progress:
    """What a start has done, and whether anybody still wants it."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._began = self._said_at = clock()
        self._interrupted = False
        #: Replaced, never altered: other threads read it. None while nothing is counted.
        self.step: Step | None = None

    def __str__(self) -> str:
        return str(self.step or "restoring what was kept")

    @property
    def seconds(self) -> float:
        """For how long it has been going on."""
        return self._clock() - self._began

    def interrupt(self) -> None:
        """Have what is under way end soon, by `Interrupted`. Called on any thread."""
        self._interrupted = True

    def watched(self, things: Iterable[T], what: str, total: Callable[[], int]) -> Iterator[T]:
        """Give these things, and count them. `total` is asked once, where there are many.

        Raises:
            Interrupted: it is not wanted any more.
        """
        of = 0
        for done, thing in enumerate(things):
            if not done % AT_ONCE:
                if self._interrupted:
                    raise Interrupted(str(self))
                of = of or (total() if done else 0)
                self._tell(Step(what, done, of) if of else None)
            yield thing
        self._tell(None)

    def _tell(self, step: Step | None) -> None:
        self.step = step
        now = self._clock()
        if step is not None and now - self._said_at >= SECONDS:
            self._said_at = now
            log.info(
                "restoring",
                what=step.what,
                done=step.done,
                of=step.of,
                seconds=round(self.seconds, 1),
            )
