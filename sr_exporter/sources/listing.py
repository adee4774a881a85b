"""What one poll asks of an OpenSIPS: statuses, reports, up time, and the version if it may be new.

A poll is as good as its statuses. What else fails is a fault of a good poll: counted, shown as
the last error, and asked for again next time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from sr_exporter.errors import MiError
from sr_exporter.model import PollFailure, Snapshot

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection

    from sr_exporter.mi.client import MiClient
    from sr_exporter.wire import sr

T = TypeVar("T")

#: How many lesser faults of one poll are counted; a peer could make millions.
FAULTS_PER_POLL = 1000


class Listing:
    """Asks one source for all it has, and remembers between polls what it need not ask again."""

    def __init__(self, source: str, client: MiClient, *, clock: Callable[[], float]) -> None:
        self._source = source
        self._client = client
        self._clock = clock
        self._version_known = False
        self._uptime: float | None = None

    async def snapshot(self, as_of: int, groups: Collection[str]) -> Snapshot:  # noqa: ARG002
        """Ask; `as_of` is the state's revision, and `groups` those that are held of the source.

        Raises:
            MiError: the statuses could not be had.
        """
        try:
            return await self._ask(as_of, self._clock())
        except MiError:
            self._version_known = False
            raise

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
            source=self._source,
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


async def _tolerate(asked: Awaitable[T], faults: list[tuple[PollFailure, str]]) -> T | None:
    try:
        return await asked
    except MiError as error:
        faults.append((error.reason, str(error)))
        return None


def _worth_asking(faults: list[tuple[PollFailure, str]]) -> bool:
    """Whether the peer still answers: what was heard must not wait for another time-out."""
    return not any(reason in (PollFailure.CONNECT, PollFailure.TIMEOUT) for reason, _ in faults)
