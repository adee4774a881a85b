"""Ask one OpenSIPS again and again, and say what it said."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Protocol

import structlog

from sr_exporter.errors import MiError
from sr_exporter.model import PollFailed, PollFailure
from sr_exporter.sources.listing import Listing

if TYPE_CHECKING:
    from collections.abc import Callable

    from sr_exporter.ingest import Ingest
    from sr_exporter.mi.client import MiClient
    from sr_exporter.sources.pacing import Pace

log = structlog.get_logger(__name__)


class PollObserver(Protocol):
    """Sees how polling itself goes."""

    def polled(self, source: str, duration_seconds: float) -> None:
        """A poll took so long, good or not."""

    def paced(self, source: str, interval_seconds: float) -> None:
        """The next poll is so long after the last."""


class Poller:
    """Polls one source."""

    def __init__(
        self,
        source: str,
        client: MiClient,
        ingest: Ingest,
        pace: Pace,
        observer: PollObserver,
        *,
        clock: Callable[[], float],
    ) -> None:
        self.source = source
        self._client = client
        self._ingest = ingest
        self._pace = pace
        self._observer = observer
        self._clock = clock
        self._listing = Listing(source, client, clock=clock)
        self._said: str | None = None
        #: When the poll under way began; None while there is none.
        self._began: float | None = None

    def soonest(self) -> float:
        """Give the time of the loop before which its share leaves no room for another poll."""
        if self._began is not None:  # it is about to be cut off; what it took counts
            self._pace.next_poll(self._began, asyncio.get_running_loop().time(), good=True)
        return self._pace.soonest

    async def run(self, first_delay_seconds: float, slots: asyncio.Semaphore) -> None:
        """Poll for ever, at most as many at once as there are slots."""
        loop = asyncio.get_running_loop()
        await asyncio.sleep(first_delay_seconds)
        while True:
            async with slots:
                began = self._began = loop.time()
                good = await self.poll()
                ended = loop.time()
                self._began = None
            following = self._pace.next_poll(began, ended, good=good)
            self._observer.polled(self.source, ended - began)
            self._observer.paced(self.source, following - began)
            await asyncio.sleep(following - loop.time())

    async def poll(self) -> bool:
        """Poll once and pass on what was heard. Says whether the poll was good."""
        as_of, requested_at = self._ingest.revision, self._clock()
        try:
            snapshot = await self._listing.snapshot(as_of, self._ingest.groups(self.source))
        except MiError as error:
            self._tell(str(error), error.reason)
            failed = PollFailed(self.source, requested_at, error.reason, str(error))
            await self._ingest.observe(failed)
            return False
        except Exception as error:
            # A fault of ours in reading one source must not blind the others, nor let this
            # one look ready: it is down, and the log has the traceback.
            log.exception("poll failed", source=self.source)
            said = f"internal error: {type(error).__name__}"
            failed = PollFailed(self.source, requested_at, PollFailure.MALFORMED, said)
            await self._ingest.observe(failed)
            return False
        finally:
            self._client.rest()
        self._tell(snapshot.faults[0][1] if snapshot.faults else None)
        await self._ingest.observe(snapshot)
        return True

    def _tell(self, error: str | None, reason: PollFailure | None = None) -> None:
        """Log a failure once, and its end once; not every poll of a night."""
        if error == self._said:
            return
        if error is None:
            log.info("source answers again", source=self.source)
        elif reason is not None:
            log.warning("source is down", source=self.source, reason=reason, error=error)
        else:
            log.warning("source answers in part", source=self.source, error=error)
        self._said = error
