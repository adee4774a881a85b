"""Statuses in pieces: by group, and of a group too big for that by identifier (rule 11).

OpenSIPS registers groups at its start only, and identifiers are never taken back while it lives
(facts on OpenSIPS, section 12). So the names of groups are asked for once a life, and those of
identifiers each time that all of their group have been asked.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from sr_exporter.errors import MiError, NotFound
from sr_exporter.mi.client import Command
from sr_exporter.model import PollFailure, fold
from sr_exporter.wire.text import may_be_escaped

if TYPE_CHECKING:
    from collections.abc import Collection
    from typing import Self

    from sr_exporter.mi.client import MiClient
    from sr_exporter.model import ListedStatus
    from sr_exporter.sources.ladder import Ladder
    from sr_exporter.sources.refusals import Allowance
    from sr_exporter.wire import sr
    from sr_exporter.wire.jsonrpc import Reply

#: How long one poll may ask by group, and as long again by identifier; time-outs do not count.
SECONDS = 3.0

#: The groups of OpenSIPS' core and modules, tried where no names can be had. A script's own
#: groups may have any name.
MODULE_GROUPS = (
    "core",
    "clusterer",
    "config",
    "dialplan",
    "dispatcher",
    "drouting",
    "pike",
    "sql_cacher",
    "uac_registrant",
)


@dataclass(slots=True)
class Pieces:
    """What was heard."""

    statuses: list[ListedStatus] = field(default_factory=list)
    partial_groups: set[str] = field(default_factory=set)
    faults: list[tuple[PollFailure, str]] = field(default_factory=list)
    complete: bool = True
    #: There was not the time for all.
    unfinished: bool = False
    #: As with `sr.Statuses`.
    mark: bytes | None = None
    since: bytes | None = None
    unread: Reply | None = None

    @classmethod
    def of(cls, whole: sr.Statuses) -> Self:
        pieces = cls(mark=whole.mark, since=whole.since, unread=whole.unread)
        pieces.take(whole)
        return pieces

    async def read(self, client: MiClient) -> list[ListedStatus]:
        """Give all statuses, reading now what was left unread."""
        if self.unread is not None:
            reply, self.unread = self.unread, None
            self.statuses = []
            self.take(await client.read_statuses(reply))
            self.since = None
        return self.statuses

    def take(self, listed: sr.Statuses) -> None:
        self.complete &= listed.complete
        self.statuses += listed.statuses
        self.partial_groups |= listed.partial_groups
        self.faults += [(PollFailure.MALFORMED, fault) for fault in listed.faults]

    def lacks(self, group: str, reason: PollFailure, why: str) -> None:
        """Note that this group is known in part only."""
        self.partial_groups.add(group)
        self.faults.append((reason, f"group {group!r} is known in part: {why}"))


class StatusPieces:
    """Asks one source for its statuses in pieces."""

    def __init__(self, client: MiClient, ladder: Ladder) -> None:
        self._client = client
        self._ladder = ladder

    async def ask(self, held: Collection[str]) -> Pieces:
        """Ask for everything; `held` are the groups known so far.

        Raises:
            MiError: the peer is gone, or nothing at all could be had: then it is how all of it
                was refused.
        """
        pieces = Pieces()
        first = self._ladder.refusals.of(Command.LIST_STATUS)
        await self._by_group(held, pieces)
        if not pieces.statuses and first is not None:
            if not pieces.unfinished:
                self._ladder.forget()  # it may have been something else than their size
            raise first
        return pieces

    async def _by_group(self, held: Collection[str], pieces: Pieces) -> None:
        ladder = self._ladder
        allowance = ladder.allowance(SECONDS)
        names = await self._names(held, pieces, allowance)
        sure = {fold(name) for name in (*held, *(ladder.groups or ()))}
        there: list[str] = []
        big: list[str] = []
        for group in ladder.in_turn(Command.LIST_STATUS, names):
            if allowance.spent and not ladder.refusals.of(Command.LIST_STATUS, group):
                pieces.unfinished = True
                if fold(group) in sure:
                    pieces.partial_groups.add(group)
                continue
            try:
                listed = await ladder.piece(
                    self._client.group_statuses, allowance, Command.LIST_STATUS, group
                )
            except NotFound as error:
                ladder.done(Command.LIST_STATUS, group)
                if _is_missed(group, error, pieces):
                    there.append(group)
                continue
            there.append(group)
            if listed is None:
                big.append(group)
            else:
                pieces.take(listed)
                ladder.done(Command.LIST_STATUS, group)
        if not pieces.unfinished:
            ladder.groups = tuple(there)
        allowance = ladder.allowance(SECONDS)
        for group in big:
            await self._by_identifier(group, pieces, allowance)

    async def _names(
        self, held: Collection[str], pieces: Pieces, allowance: Allowance
    ) -> Collection[str]:
        """Give the names of the groups to ask for."""
        ladder = self._ladder
        if ladder.groups is None:
            listed = await ladder.piece(
                self._client.identifiers, allowance, Command.LIST_IDENTIFIERS
            )
            if listed is not None:
                ladder.groups = tuple(group for group, _ in listed.groups)
        if (refusal := ladder.refusals.of(Command.LIST_IDENTIFIERS)) is not None:
            said = "names of groups cannot be listed, and a script's own may be missing"
            pieces.faults.append((refusal.reason, f"{said}: {ladder.why(refusal)}"))
        known = MODULE_GROUPS if ladder.groups is None else ladder.groups
        return {fold(group): group for group in (*held, *known)}.values()

    async def _by_identifier(self, group: str, pieces: Pieces, allowance: Allowance) -> None:
        """Ask for each identifier of a group, from where the last poll stopped."""
        left = self._ladder.left(Command.LIST_STATUS, group)
        resumed = bool(left)
        if not left:
            if allowance.spent:
                self._postpone(group, pieces)
                return
            listed = await self._identifiers(group, pieces, allowance)
            if listed is None:
                return
            self._ladder.begin(Command.LIST_STATUS, group, listed)
        lost: MiError | None = None
        while left and not allowance.spent:
            lost = await self._identifier(group, left.pop(), pieces, allowance) or lost
        if lost is not None:
            pieces.lacks(group, lost.reason, self._ladder.why(lost))
        if left or resumed:
            self._postpone(group, pieces)
        if not left:
            self._ladder.done(Command.LIST_STATUS, group)

    async def _identifiers(
        self, group: str, pieces: Pieces, allowance: Allowance
    ) -> list[str] | None:
        """Give the names in a group; None when it is gone, or too big even for that."""
        what = (Command.LIST_IDENTIFIERS, group)
        try:
            listed = await self._ladder.piece(self._client.identifiers, allowance, *what)
        except NotFound as error:
            _is_missed(group, error, pieces)
            return None
        if listed is not None:
            return [name for _, names in listed.groups for name in names]
        if (refusal := self._ladder.refusals.of(*what)) is not None:
            why = self._ladder.why(refusal)
            pieces.lacks(group, refusal.reason, f"not even its names can be listed: {why}")
        return None

    async def _identifier(
        self, group: str, identifier: str, pieces: Pieces, allowance: Allowance
    ) -> MiError | None:
        """Ask for one; give why it could not be had, if that is a fault."""
        what = (Command.GET_STATUS, group, identifier)
        try:
            status = await self._ladder.piece(self._client.status, allowance, *what)
        except NotFound as error:
            return error if may_be_escaped(identifier) else None
        if status is None:
            return self._ladder.refusals.of(*what)
        pieces.statuses.append(status)
        return None

    def _postpone(self, group: str, pieces: Pieces) -> None:
        pieces.unfinished = True
        refusal = self._ladder.refusals.of(Command.LIST_STATUS, group)
        if refusal is not None:
            said = "its identifiers, asked one by one, take more than one poll"
            pieces.lacks(group, refusal.reason, f"{said}: {self._ladder.why(refusal)}")


def _is_missed(group: str, error: NotFound, pieces: Pieces) -> bool:
    """Whether a group is there though nothing is found by its name, which then is a fault."""
    if may_be_escaped(group):
        pieces.lacks(group, error.reason, "its name is not UTF-8, and it cannot be asked for by it")
        return True
    return False
