"""Log lines that somebody else could have us write without end, told once in a while."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable

#: One of a kind is told of in so many seconds; the others are counted.
TELL_SECONDS = 60.0
#: So many of a kind are known apart in what was logged of them.
MOST_KINDS = 1000


class Log(Protocol):
    """What warnings are written to."""

    def warning(self, event: str, /, **more: object) -> object:
        """Write one."""


def _loop_time() -> float:
    return asyncio.get_running_loop().time()


class Seldom:
    """Lets one log line of a kind through in a while: who is refused does not write our log.

    A kind is told by what it is of, such as its sender; of so many senders at a time that all
    cannot be known the rest are one.
    """

    def __init__(self, log: Log, clock: Callable[[], float] = _loop_time) -> None:
        self._log = log
        self._clock = clock
        #: When a kind was last told of, and how many came since.
        self._told: dict[tuple[object, str], tuple[float, int]] = {}

    def tell(self, kind: object, of: str, what: str, **more: object) -> None:
        """Log a warning, unless one of its kind was logged a moment ago."""
        now = self._clock()
        key = kind, of
        if key not in self._told and len(self._told) >= MOST_KINDS:
            self._forget(now)
            if len(self._told) >= MOST_KINDS:
                key = kind, ""
        told_at, untold = self._told.get(key, (-TELL_SECONDS, 0))
        if now < told_at + TELL_SECONDS:
            self._told[key] = (told_at, untold + 1)
            return
        self._told[key] = (now, 0)
        self._log.warning(what, **more, **({"more_like_it": untold} if untold else {}))

    def _forget(self, now: float) -> None:
        self._told = {
            key: (told_at, untold)
            for key, (told_at, untold) in self._told.items()
            if now < told_at + TELL_SECONDS
        }
