"""What one server did not answer for its size: remembered, so that it is not asked in vain.

Times are of one monotonic clock.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sr_exporter.mi.client import Command
from sr_exporter.model import PollFailure, fold

if TYPE_CHECKING:
    from collections.abc import Callable

    from sr_exporter.errors import MiError

#: After this all is tried anew, whole.
FORGOTTEN_AFTER_SECONDS = 86_400.0
#: Silence and broken answers may have had another cause, which has passed: after this at first,
#: and each time after twice as long.
DOUBTED_AFTER_SECONDS = 60.0

_AMONG_DATAGRAMS = (
    "ask over fifo or http, or raise mi_datagram's socket_buf_size (4.0 and later) and, for a Unix"
    " socket, net.core.wmem_default"
)
#: What to do about an answer that is too big, by transport.
_REMEDIES = {
    "http": "raise httpd's buf_size, or ask over fifo",
    "udp": _AMONG_DATAGRAMS,
    "unix": _AMONG_DATAGRAMS,
    "fifo": "raise the source's timeout, or ask over http",
}
#: Failures that do not tell by themselves what to do.
_MUTE = frozenset({PollFailure.TIMEOUT, PollFailure.MALFORMED})


def told(error: MiError, transport: str) -> str:
    """Put a refusal in words, with what can be done about it."""
    if error.reason in _MUTE:
        return f"{error}; if the answer is too big, {_REMEDIES[transport]}"
    return str(error)


class Refusals:
    """Which questions were refused, each by its command and the names it was asked with."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._errors: dict[tuple[Command, tuple[str, ...]], MiError] = {}
        self._forget_at = 0.0
        #: When what may have had another cause is old; None: there is nothing of the kind.
        self._doubted_at: float | None = None
        self._doubted_after = DOUBTED_AFTER_SECONDS

    def of(self, command: Command, *names: str) -> MiError | None:
        """Give how this question was refused; None: it may be asked."""
        return self._errors.get((command, tuple(map(fold, names))))

    def add(self, error: MiError, command: Command, *names: str) -> None:
        if not self._errors:
            self._forget_at = self._clock() + FORGOTTEN_AFTER_SECONDS
        # Without the names of the groups there may be some that are never heard of.
        unnamed = command is Command.LIST_IDENTIFIERS and not names
        # The status of one identifier is never too big: something else went wrong, and while it
        # is not asked, what is shown of it may be so no more.
        if error.reason in _MUTE or unnamed or command is Command.GET_STATUS:
            # From the last one on: to learn what is refused may take several polls.
            self._doubted_at = self._clock() + self._doubted_after
        self._errors[command, tuple(map(fold, names))] = error

    def worked(self) -> None:
        """Note that a poll is over; one in which nothing was refused ends all doubts."""
        if not self._errors:
            self._doubted_after = DOUBTED_AFTER_SECONDS

    @property
    def stale(self) -> bool:
        """Whether it is time to try again what was refused."""
        now = self._clock()
        doubted = self._doubted_at is not None and now >= self._doubted_at
        return doubted or (bool(self._errors) and now >= self._forget_at)

    def forget(self) -> None:
        """Try all anew."""
        if self._doubted_at is not None:
            self._doubted_after = min(2 * self._doubted_after, FORGOTTEN_AFTER_SECONDS)
            self._doubted_at = None
        self._errors.clear()


class Allowance:
    """How long one poll may go on asking piece by piece.

    Silences do not count, for each is paid for once; but a poll has room for so many only.
    """

    def __init__(self, seconds: float, timeouts: int, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._ends = clock() + seconds
        self._timeouts = timeouts

    @property
    def spent(self) -> bool:
        return self._timeouts <= 0 or self._clock() >= self._ends

    def timed_out(self, since: float) -> None:
        """Note that what was asked `since` then was answered with silence."""
        self._timeouts -= 1
        self._ends += self._clock() - since
