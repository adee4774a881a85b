"""What all ways events come in share: the one door, and how those that are refused are told."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Protocol

import structlog

from sr_exporter.errors import NotKept
from sr_exporter.limited import Limited
from sr_exporter.model import Rejection
from sr_exporter.seldom import Seldom

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from sr_exporter.ingest import Ingest
    from sr_exporter.model import Statement, Way

log = structlog.get_logger(__name__)

#: How long what was taken may take to be kept, and answered, at an end.
STOP_SECONDS = 3.0
#: As much of a stranger's words as is shown.
_SHOWN = 100


class EventObserver(Protocol):
    """Sees how events come in."""

    def configure_events(self, known: frozenset[str], expected: Iterable[tuple[str, Way]]) -> None:
        """These sources there are, and of them these send events, and how."""

    def event_accepted(self, source: str, way: Way) -> None:
        """An event was taken."""

    def event_rejected(self, way: Way, reason: Rejection) -> None:
        """An event was not taken."""

    def watch_drops(self, way: Way, dropped: Callable[[], int] | None) -> None:
        """Ask at each scrape how many the kernel dropped; None: nobody can tell any more."""


class Intake:
    """Passes events on, and counts them."""

    def __init__(
        self, ingest: Ingest, observer: EventObserver, limited: Limited | None = None
    ) -> None:
        self._ingest = ingest
        self.limited = limited or Limited()
        self._observer = observer
        self.seldom = Seldom(log)

    def take(self, events: Sequence[Statement]) -> asyncio.Future[None]:
        """Apply events at once, in order; what is given resolves when they are kept.

        What was heard stays true though it cannot be kept, which is raised as `NotKept`.
        """
        kept = asyncio.ensure_future(self._ingest.hear(events))
        for said in events:
            if said.way is not None:
                self._observer.event_accepted(said.source, said.way)
        return kept

    def refuse(self, way: Way, reason: Rejection, sender: str, said: str) -> None:
        """Count what was not taken, and tell of it once in a while."""
        self._observer.event_rejected(way, reason)
        self.seldom.tell(
            (way, reason),
            sender.partition(" ")[0] + said[:_SHOWN] * (reason is Rejection.UNKNOWN_PEER),
            "event refused",
            transport=way,
            reason=reason,
            sender=sender,
            said=said[:_SHOWN],
        )


def not_kept(kept: asyncio.Future[None]) -> str | None:
    """Say why what is done with was not kept; None: it was."""
    if kept.cancelled():
        return "the exporter is stopping"
    error = kept.exception()
    if error is None:
        return None
    if not isinstance(error, NotKept):
        log.error("events not kept", error=repr(error))
        return "internal error"
    return str(error) or "it cannot be kept now"
