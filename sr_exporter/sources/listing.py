"""What one poll asks of an OpenSIPS: statuses, reports, up time, and the version if it may be new.

A poll is as good as its statuses. What else fails is a fault of a good poll: counted, shown as
the last error, and asked for again next time. What does not come whole is asked in pieces (rule
11, statuses.py and reports.py); the up time is then asked first and last, for pieces of two lives
must not be mixed.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Protocol, TypeVar

from sr_exporter.errors import MiError
from sr_exporter.mi.client import Command
from sr_exporter.model import PollFailure, Snapshot, is_another_life
from sr_exporter.sources.ladder import Ladder
from sr_exporter.sources.reports import Heard, ReportPieces
from sr_exporter.sources.statuses import Pieces, StatusPieces

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Sequence

    from sr_exporter.mi.client import MiClient
    from sr_exporter.sources.firsts import Asked

T = TypeVar("T")

#: How many lesser faults of one poll are counted; a peer could make millions.
FAULTS_PER_POLL = 1000


class Knows(Protocol):
    """Says whether listings that are marked so would alter nothing that is held."""

    def statuses(self, mark: bytes | None) -> bool:
        """Whether statuses would."""

    def reports(self, mark: bytes | None) -> bool:
        """Whether reports would."""


class _Nothing:
    """Implements `Knows`: everything is read."""

    def statuses(self, _mark: bytes | None) -> bool:
        return False

    def reports(self, _mark: bytes | None) -> bool:
        return False


class Listing:
    """Asks one source for all it has, and remembers between polls what it need not ask again.

    `clock` gives Unix seconds; `monotonic` measures how long asking takes.
    """

    def __init__(
        self,
        source: str,
        client: MiClient,
        *,
        clock: Callable[[], float],
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._source = source
        self._client = client
        self._clock = clock
        self._ladder = Ladder(client, self._uptime, monotonic)
        self._statuses = StatusPieces(client, self._ladder)
        self._reports = ReportPieces(client, self._ladder)
        self._version_known = False
        self._life = _Life()
        #: The last poll ended in silence: whether the peer is there is asked first.
        self._silent = False

    async def snapshot(
        self, as_of: int, groups: Collection[str], knows: Knows | None = None
    ) -> Snapshot:
        """Ask; `as_of` is the state's revision, and `groups` those that are held of the source.

        What `knows` at the very end is not read.

        Raises:
            MiError: the statuses could not be had.
        """
        try:
            snapshot = await self._ask(as_of, self._clock(), groups, knows or _Nothing())
        except MiError as error:
            self._version_known = False
            self._silent = error.reason is PollFailure.TIMEOUT
            raise
        self._silent = False
        self._ladder.refusals.worked()
        return snapshot

    async def _ask(
        self, as_of: int, requested_at: float, groups: Collection[str], knows: Knows
    ) -> Snapshot:
        if self._ladder.refusals.stale:
            self._ladder.forget()
        if self._silent or self._ladder.refusals.of(Command.LIST_STATUS):
            await self._uptime()
        whole = await self._ladder.whole(self._client.statuses, Command.LIST_STATUS)
        lives = self._life.number
        listed = await self._statuses.ask(groups) if whole is None else Pieces.of(whole)
        rings = await self._reports.ask(partial(listed.read, self._client))
        faults = [*listed.faults, *rings.faults]
        uptime_asked_at = self._clock()
        uptime = version = None
        lost = False
        if not rings.gone:
            uptime = await _tolerate(self._uptime(), faults)
        if self._life.number != lives:
            if whole is None:
                self._ladder.forget()
                raise MiError(PollFailure.CONNECT, "it restarted while it was asked")
            lost = rings.in_pieces
        if not self._version_known and (uptime is not None or _is_there(faults[-1:])):
            version = await _tolerate(self._client.version(), faults)
            self._version_known = version is not None
        await self._read_unknown(listed, rings, knows)
        return Snapshot(
            source=self._source,
            as_of=as_of,
            requested_at=requested_at,
            statuses=tuple(listed.statuses),
            partial_groups=frozenset(listed.partial_groups),
            complete=listed.complete,
            reports=None if lost else rings.all,
            uptime_seconds=uptime,
            uptime_asked_at=uptime_asked_at,
            version=version,
            transport=self._client.transport_name,
            faults=tuple(faults[:FAULTS_PER_POLL]),
            statuses_mark=listed.mark,
            reports_mark=rings.mark,
            statuses_since=listed.since,
            reports_stand=rings.unread is not None,
        )

    @property
    def asked(self) -> Asked | None:
        """How far the statuses are that are asked one by one; None: all were, once."""
        return self._ladder.asked(Command.LIST_STATUS)

    async def _read_unknown(self, listed: Pieces, rings: Heard, knows: Knows) -> None:
        """Read what was left unread and is not known: something may have spoken meanwhile."""
        while True:
            # While one is read, the other may become unknown; after the last look nothing waits.
            if listed.unread is not None and not knows.statuses(listed.since):
                await listed.read(self._client)
            elif rings.unread is not None and not knows.reports(rings.mark):
                await rings.read(self._client)
            else:
                return

    async def _uptime(self) -> float:
        """Ask for the up time; in another life all that was learned is to be learned anew."""
        asked_at = self._clock()
        uptime = await self._client.uptime_seconds()
        if self._life.began_anew(uptime, asked_at):
            self._version_known = False
            self._ladder.forget()
        return uptime


@dataclass(slots=True)
class _Life:
    """One life of the peer, from its start to its end."""

    number: int = 0
    _uptime: float | None = None
    _started: float | None = None

    def began_anew(self, uptime: float, asked_at: float) -> bool:
        """Whether the peer has restarted, as this up time tells (rule 13)."""
        before, self._uptime = self._uptime, uptime
        started, held = asked_at - uptime, self._started
        if held is not None and not is_another_life(uptime, started, before, held):
            return False
        self._started = started
        self.number += held is not None
        return held is not None


async def _tolerate(asked: Awaitable[T], faults: list[tuple[PollFailure, str]]) -> T | None:
    try:
        return await asked
    except MiError as error:
        faults.append((error.reason, str(error)))
        return None


def _is_there(faults: Sequence[tuple[PollFailure, str]]) -> bool:
    """Whether the peer still answers: what was heard must not wait for another time-out."""
    return not any(reason in (PollFailure.CONNECT, PollFailure.TIMEOUT) for reason, _ in faults)
