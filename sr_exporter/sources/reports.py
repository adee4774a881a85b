"""Reports in pieces: by group, and of a group too big for that by identifier (rule 11).

They are larger than the statuses they belong to: what refused those is not asked for these. What
cannot be had, or not in time, is left out, and its turn comes with a later poll.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from sr_exporter.errors import MiError, NotFound
from sr_exporter.mi.client import Command
from sr_exporter.model import PollFailure

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence

    from sr_exporter.mi.client import MiClient
    from sr_exporter.model import ListedReports, ListedStatus
    from sr_exporter.sources.ladder import Ladder
    from sr_exporter.sources.refusals import Allowance
    from sr_exporter.wire import sr
    from sr_exporter.wire.jsonrpc import Reply

#: How long one poll may ask by group, and as long again by identifier; time-outs do not count.
SECONDS = 2.0


@dataclass(slots=True)
class Heard:
    """What was heard."""

    reports: list[ListedReports] = field(default_factory=list)
    faults: list[tuple[PollFailure, str]] = field(default_factory=list)
    #: The peer no longer answers.
    gone: bool = False
    #: They came one after the other, between which the peer can have restarted.
    in_pieces: bool = False
    #: As with `sr.Reports`.
    mark: bytes | None = None
    unread: Reply | None = None

    @property
    def all(self) -> tuple[ListedReports, ...] | None:
        """All of them; None when there was nothing but faults."""
        return tuple(self.reports) if self.reports or not self.faults else None

    async def read(self, client: MiClient) -> None:
        """Read them now if they were left unread."""
        if self.unread is not None:
            self.take(await client.read_reports(self.unread))
            self.unread = None

    def take(self, listed: sr.Reports) -> None:
        self.reports += listed.reports
        self.faults += [(PollFailure.MALFORMED, fault) for fault in listed.faults]


class ReportPieces:
    """Asks one source for its reports, whole where it can."""

    def __init__(self, client: MiClient, ladder: Ladder) -> None:
        self._client = client
        self._ladder = ladder

    async def ask(self, statuses: Callable[[], Awaitable[Iterable[ListedStatus]]]) -> Heard:
        """Ask for the reports of what has these statuses. Raises nothing.

        `statuses` gives them: they are needed only for what does not come whole.
        """
        heard = Heard()
        try:
            if not await self._whole(heard):
                heard.in_pieces = True
                names: dict[str, list[str]] = defaultdict(list)
                for status in await statuses():
                    names[status.group].append(status.identifier)
                big = await self._by_group(names, heard)
                await self._by_identifier(big, names, heard)
        except MiError as error:
            heard.faults.append((error.reason, str(error)))
            heard.gone = error.reason in (PollFailure.CONNECT, PollFailure.TIMEOUT)
        return heard

    async def _whole(self, heard: Heard) -> bool:
        ladder = self._ladder
        if ladder.refusals.of(Command.LIST_STATUS):
            return False
        listed = await ladder.whole(self._client.reports, Command.LIST_REPORTS)
        if listed is not None:
            heard.take(listed)
            heard.mark, heard.unread = listed.mark, listed.unread
        return listed is not None

    async def _by_group(self, names: Mapping[str, Sequence[str]], heard: Heard) -> list[str]:
        """Ask by group; give the groups that are too big for that."""
        ladder = self._ladder
        allowance = ladder.allowance(SECONDS)
        big = []
        for group in ladder.in_turn(Command.LIST_REPORTS, names):
            what = (Command.LIST_REPORTS, group)
            if ladder.refusals.of(Command.LIST_STATUS, group) or ladder.refusals.of(*what):
                big.append(group)
            elif not allowance.spent:
                try:
                    listed = await ladder.piece(self._client.group_reports, allowance, *what)
                except NotFound:
                    continue
                if listed is None:
                    big.append(group)
                else:
                    heard.take(listed)
                    ladder.done(*what)
        return big

    async def _by_identifier(
        self, groups: Sequence[str], names: Mapping[str, Sequence[str]], heard: Heard
    ) -> None:
        allowance = self._ladder.allowance(SECONDS)
        for group in groups:
            left = self._ladder.left(Command.LIST_REPORTS, group)
            if not left:
                self._ladder.begin(Command.LIST_REPORTS, group, names[group])
            refusal: MiError | None = None
            while left and not allowance.spent:
                refusal = await self._ring(group, left.pop(), heard, allowance) or refusal
            if refusal is not None:
                why = self._ladder.why(refusal)
                heard.faults.append((refusal.reason, f"reports of group {group!r}: {why}"))
            if not left:
                self._ladder.done(Command.LIST_REPORTS, group)

    async def _ring(
        self, group: str, identifier: str, heard: Heard, allowance: Allowance
    ) -> MiError | None:
        """Ask for one ring; give why it is refused."""
        what = (Command.LIST_REPORTS, group, identifier)
        try:
            listed = await self._ladder.piece(self._client.identifier_reports, allowance, *what)
        except NotFound:
            return None
        if listed is None:
            return self._ladder.refusals.of(*what)
        heard.take(listed)
        return None
