"""Ask one OpenSIPS again and again, and say what it said."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import structlog

from sr_exporter.errors import MiError
from sr_exporter.model import PollFailed, PollFailure
from sr_exporter.sources.listing import Listing

if TYPE_CHECKING:
    from collections.abc import Callable

    from sr_exporter.ingest import Ingest
    from sr_exporter.mi.client import MiClient
    from sr_exporter.model import Snapshot
    from sr_exporter.sources.firsts import Asked

log = structlog.get_logger(__name__)


class Poller:
    """Polls one source."""

    def __init__(
        self,
        source: str,
        client: MiClient,
        ingest: Ingest,
        *,
        clock: Callable[[], float],
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.source = source
        self._ingest = ingest
        self._clock = clock
        self._listing = Listing(source, client, clock=clock, monotonic=monotonic)
        self._said: str | None = None

    @property
    def asked(self) -> Asked | None:
        """How far the source is asked piece by piece; None: all of it was, once."""
        return self._listing.asked

    async def ask(self) -> Snapshot | PollFailed:
        """Ask once, and give what was heard."""
        as_of, requested_at = self._ingest.revision, self._clock()
        try:
            snapshot = await self._listing.snapshot(
                as_of, self._ingest.groups(self.source), self._ingest.known(self.source)
            )
        except MiError as error:
            self._tell(str(error), error.reason)
            return PollFailed(self.source, requested_at, error.reason, str(error))
        except Exception as error:
            # A fault of ours in reading one source must not blind the others, nor let this
            # one look ready: it is down, and the log has the traceback.
            log.exception("poll failed", source=self.source)
            said = f"internal error: {type(error).__name__}"
            return PollFailed(self.source, requested_at, PollFailure.MALFORMED, said)
        self._tell(snapshot.faults[0][1] if snapshot.faults else None)
        return snapshot

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
