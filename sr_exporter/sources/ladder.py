"""What asking in pieces has in common for statuses and reports (rule 11).

What is refused for its size is asked by group, and what of that is refused too, by identifier. How
far down to go is remembered until the server restarts, or for a day.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from sr_exporter.errors import MiError, NotFound
from sr_exporter.model import PollFailure, fold
from sr_exporter.sources.firsts import Asked
from sr_exporter.sources.refusals import Allowance, Refusals, told

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Iterable

    from sr_exporter.mi.client import Command, MiClient

T = TypeVar("T")

#: How an answer fails that may be too big: refused, left out, or cut (facts, section 7).
OF_SIZE = frozenset(
    {PollFailure.HTTP_STATUS, PollFailure.TOO_BIG, PollFailure.TIMEOUT, PollFailure.MALFORMED}
)
#: How whatever else is asked fails, too.
_OF_THE_PEER = frozenset({PollFailure.CONNECT, PollFailure.AUTH, PollFailure.UNSUPPORTED})
#: How many questions of one poll, in each of its parts, may end in silence.
TIMEOUTS = 4


class Ladder:
    """Asks one source, and remembers what it refused and where it stopped.

    `alive` asks something small: after a refusal it tells whether the peer is still there.
    `clock` is monotonic.
    """

    def __init__(
        self, client: MiClient, alive: Callable[[], Awaitable[object]], clock: Callable[[], float]
    ) -> None:
        self.refusals = Refusals(clock)
        #: The groups there are, as spelled; None: to be found out.
        self.groups: tuple[str, ...] | None = None
        self._client = client
        self._alive = alive
        self._clock = clock
        self._left: dict[tuple[Command, str], list[str]] = {}
        #: How many there were in a group when the first of them was asked for.
        self._of: dict[tuple[Command, str], int] = {}
        self._turns: dict[tuple[Command, str], int] = {}
        self._turn = 0

    def forget(self) -> None:
        """Begin anew: what was learned is of another life, or too old."""
        self.refusals.forget()
        self.groups = None
        self._left.clear()
        self._of.clear()
        self._turns.clear()

    def allowance(self, seconds: float) -> Allowance:
        return Allowance(seconds, TIMEOUTS, self._clock)

    async def whole(self, ask: Callable[[], Awaitable[T]], command: Command) -> T | None:
        """Give what is asked of the whole server; None where that is refused for its size.

        Raises:
            MiError: it is refused for something else, or nothing at all is answered.
        """
        if self.refusals.of(command):
            return None
        try:
            return await ask()
        except MiError as error:
            if error.reason not in OF_SIZE:
                raise
            await self._survive(error)
            self.refusals.add(error, command)
            return None

    async def piece(
        self,
        ask: Callable[..., Awaitable[T]],
        allowance: Allowance,
        command: Command,
        *names: str,
    ) -> T | None:
        """Give what is asked by these names; None where it is refused, now or before.

        Raises:
            NotFound: there is none of that name.
            MiError: the peer is gone.
        """
        if self.refusals.of(command, *names):
            return None
        began = self._clock()
        try:
            return await ask(*names)
        except NotFound:
            raise
        except MiError as error:
            if error.reason in _OF_THE_PEER:
                raise
            if error.reason is PollFailure.TIMEOUT:
                allowance.timed_out(began)
                await self._survive(error)
            self.refusals.add(error, command, *names)
            return None

    async def _survive(self, error: MiError) -> None:
        """Find the peer alive, or raise what it was refused with."""
        try:
            await self._alive()
        except MiError:
            raise error from None

    def why(self, error: MiError) -> str:
        return told(error, self._client.transport_name)

    # --- whose turn it is

    def left(self, command: Command, group: str) -> list[str]:
        """Give what of a group is yet to be asked by identifier, the next one last; to be kept."""
        return self._left.setdefault((command, fold(group)), [])

    def begin(self, command: Command, group: str, identifiers: Collection[str]) -> None:
        """Have these asked for, the first of them first."""
        self.left(command, group).extend(reversed([*identifiers]))
        self._of[command, fold(group)] = len(identifiers)

    def asked(self, command: Command) -> Asked | None:
        """Tell how far the groups are that are asked by identifier; None: all were, once."""
        left = sum(
            len(names)
            for what, names in self._left.items()
            if what[0] is command and what not in self._turns
        )
        of = sum(many for what, many in self._of.items() if what[0] is command)
        return Asked(of - left, of) if left else None

    def in_turn(self, command: Command, groups: Iterable[str]) -> list[str]:
        """Put those first that waited longest for being asked to their end."""
        return sorted(groups, key=lambda group: self._turns.get((command, fold(group)), 0))

    def done(self, command: Command, group: str) -> None:
        self._turn += 1
        self._turns[command, fold(group)] = self._turn
