"""The limits that hold off what others could do without end: each is counted when it is met, and
told in the log once in a while (docs/limits.md has them all).
"""

from __future__ import annotations

import time

import structlog

from sr_exporter import cutting
from sr_exporter.limits import Limit
from sr_exporter.seldom import Seldom

log = structlog.get_logger(__name__)


class Limited:
    """Counts how often each limit was met, and tells of it."""

    def __init__(self) -> None:
        self._counts = dict.fromkeys(Limit, 0)
        self._cut = dict(cutting.counts)
        self._seldom = Seldom(log, time.monotonic)

    @property
    def counts(self) -> dict[Limit, int]:
        """Give how often each was met."""
        self.look()
        return self._counts

    def look(self) -> None:
        """Look whether anything was cut."""
        for limit, cut in cutting.counts.items():
            if times := cut - self._cut[limit]:
                self._cut[limit] = cut
                self.met(limit, "cut: it was too long", times=times)

    def met(self, limit: Limit, what: str, *, times: int = 1, **more: object) -> None:
        """Count that a limit was met; say what was done about it, unless that was said lately."""
        self._counts[limit] += times
        self._seldom.tell(limit, what, what, limit=limit.value, **more)
