"""Ask one OpenSIPS again and again, and say what it said."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Protocol, TypeVar

import structlog

from sr_exporter.errors import MiError
from sr_exporter.model import PollFailed, PollFailure, Snapshot

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from sr_exporter.ingest import Ingest
    from sr_exporter.mi.client import MiClient
    from sr_exporter.sources.pacing import Pace
    from sr_exporter.wire import sr

T = TypeVar("T")

log = structlog.get_logger(__name__)

#: How many lesser faults of one poll are counted; a peer could make millions.
FAULTS_PER_POLL = 1000


class PollObserver(Protocol):
    """Sees how polling itself goes."""

    def polled(self, source: str, duration_seconds: float) -> None:
        """A poll took so long, good or not."""

    def paced(self, source: str, interval_seconds: float) -> None:
        """The next poll is so long after the last."""


class Poller:
    """Polls one source: statuses, reports, up time, and the version when it may be new.

    A poll is as good as its statuses. What else fails is a fault of a good poll: counted,
    shown as the last error, and asked for again next time.
    """

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
        self._version_known = False
        self._uptime: float | None = None
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
            snapshot = await self._ask(as_of, requested_at)
        except MiError as error:
            self._version_known = False
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

    async def _ask(self, as_of: int, requested_at: float) -> Snapshot:
        statuses = await self._client.statuses()
        faults = [(PollFailure.MALFORMED, fault) for fault in statuses.faults]
        reports = await self._reports(faults)
        uptime_asked_at = self._clock()
        uptime = await self._ask_uptime(faults)
        version = None
        if not self._version_known and _worth_asking(faults):
            version = await _tolerate(self._client.version(), faults)
            self._version_known = version is not None
        return Snapshot(
            source=self.source,
            as_of=as_of,
            requested_at=requested_at,
            statuses=statuses.statuses,
            partial_groups=statuses.partial_groups,
            complete=statuses.complete,
            reports=None if reports is None else reports.reports,
            uptime_seconds=uptime,
            uptime_asked_at=uptime_asked_at,
            version=version,
            transport=self._client.transport_name,
            faults=tuple(faults[:FAULTS_PER_POLL]),
        )

    async def _reports(self, faults: list[tuple[PollFailure, str]]) -> sr.Reports | None:
        reports = await _tolerate(self._client.reports(), faults)
        if reports is not None:
            faults += [(PollFailure.MALFORMED, fault) for fault in reports.faults]
        return reports

    async def _ask_uptime(self, faults: list[tuple[PollFailure, str]]) -> float | None:
        """Ask for the up time; where it fell, the version may be another."""
        if not _worth_asking(faults):
            return None
        uptime = await _tolerate(self._client.uptime_seconds(), faults)
        if uptime is not None:
            self._version_known &= self._uptime is not None and uptime >= self._uptime
            self._uptime = uptime
        return uptime

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


async def _tolerate(asked: Awaitable[T], faults: list[tuple[PollFailure, str]]) -> T | None:
    try:
        return await asked
    except MiError as error:
        faults.append((error.reason, str(error)))
        return None


def _worth_asking(faults: list[tuple[PollFailure, str]]) -> bool:
    """Whether the peer still answers: what was heard must not wait for another time-out."""
    return not any(reason in (PollFailure.CONNECT, PollFailure.TIMEOUT) for reason, _ in faults)
