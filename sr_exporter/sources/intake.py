"""What all ways events come in share: the one door, and how those that are refused are told."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Protocol

import structlog

from sr_exporter.errors import NotKept
from sr_exporter.model import Rejection

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from sr_exporter.ingest import Ingest
    from sr_exporter.model import Statement, Way

log = structlog.get_logger(__name__)

#: One refusal of a kind is told of in so many seconds; the others are counted.
TELL_SECONDS = 60.0
#: How long what was taken may take to be kept, and answered, at an end.
STOP_SECONDS = 3.0
#: As much of a stranger's words as is shown.
_SHOWN = 100
#: So many senders are known apart in what was logged of them.
MOST_KINDS = 1000


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


class Seldom:
    """Lets one log line of a kind through in a while: who is refused does not write our log.

    A kind is told by what it is of, such as its sender; of so many senders at a time that all
    cannot be known the rest are one.
    """

    def __init__(self) -> None:
        #: When a kind was last told of, and how many came since.
        self._told: dict[tuple[object, str], tuple[float, int]] = {}

    def tell(self, kind: object, of: str, what: str, **more: object) -> None:
        """Log a warning, unless one of its kind was logged a moment ago."""
        now = asyncio.get_running_loop().time()
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
        log.warning(what, **more, **({"more_like_it": untold} if untold else {}))

    def _forget(self, now: float) -> None:
        self._told = {
            key: (told_at, untold)
            for key, (told_at, untold) in self._told.items()
            if now < told_at + TELL_SECONDS
        }


class Intake:
    """Passes events on, and counts them."""

    def __init__(self, ingest: Ingest, observer: EventObserver) -> None:
        self._ingest = ingest
        self._observer = observer
        self.seldom = Seldom()

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
