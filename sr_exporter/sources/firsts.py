"""What the log tells of sources that are heard for the first time.

Of a few each has its line. A thousand that answer within seconds of a start would drown what
matters: of many it is told now and then how many have answered, and of one by itself only where
that took long.
"""

from __future__ import annotations

import asyncio
from typing import NamedTuple

import structlog

log = structlog.get_logger(__name__)

#: So many at once are few.
FEW = 20
#: How often the log tells how far the first polls are, of many or of one in pieces.
SECONDS = 5.0
#: A first poll that takes longer has a line of its own.
LONG_SECONDS = 5.0


class Asked(NamedTuple):
    """How many identifiers, of how many, were asked for one by one (rule 11)."""

    asked: int
    of: int


class Firsts:
    """Waits for each source's first poll that tells all of it. In the running loop."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._waiting: set[str] = set()
        #: Of those that were waited for since there were none.
        self._answered = self._identifiers = 0
        self._began = 0.0
        #: When those that are asked in pieces answered first, and when the log told of them last;
        #: where there are many, of all of them.
        self._in_pieces_since: dict[str, float] = {}
        self._told_at: dict[str, float] = {}
        self._telling: asyncio.TimerHandle | None = None

    def __contains__(self, source: str) -> bool:
        return source in self._waiting

    def expect(self, source: str) -> None:
        """Wait for a source."""
        if not self._waiting:
            self._answered = self._identifiers = 0
            self._began = self._loop.time()
            self._told_at.clear()
        self._waiting.add(source)

    def forget(self, source: str) -> None:
        """Wait for it no more."""
        self._waiting.discard(source)
        self._in_pieces_since.pop(source, None)

    def polled(
        self, source: str, identifiers: int, seconds: float, asked: Asked | None = None
    ) -> None:
        """Take notice of a good poll of one of them; where it `asked`, it told not all there is."""
        if asked is not None:
            self._tell_pieces(source, asked)
            return
        if (since := self._in_pieces_since.get(source)) is not None:
            seconds += self._loop.time() - since
        few = self._few
        self.forget(source)
        self._answered += 1
        self._identifiers += identifiers
        if few or seconds >= LONG_SECONDS:
            log.info("source answers", source=source, identifiers=identifiers, **_taken(seconds))
        if not few and self._telling is None:
            self._telling = self._loop.call_later(SECONDS, self._tell)
        if not self._waiting:
            self.stop()

    def stop(self) -> None:
        """Tell what is left to tell."""
        if self._telling is not None:
            self._telling.cancel()
            self._tell()

    @property
    def _few(self) -> bool:
        return self._answered + len(self._waiting) <= FEW

    def _tell_pieces(self, source: str, asked: Asked) -> None:
        now = self._loop.time()
        self._in_pieces_since.setdefault(source, now)
        who = source if self._few else ""
        if who not in self._told_at or self._told_at[who] + SECONDS <= now:
            self._told_at[who] = now
            log.info("source is asked piece by piece", source=source, **asked._asdict())

    def _tell(self) -> None:
        self._telling = None
        log.info(
            "sources answer",
            answered=self._answered,
            of=self._answered + len(self._waiting),
            identifiers=self._identifiers,
            **_taken(self._loop.time() - self._began),
        )


def _taken(seconds: float) -> dict[str, float]:
    return {"seconds": round(seconds, 2)}
