"""Our own subscription at one OpenSIPS: it sends us its events over TCP (rules 4 and 15)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog

from sr_exporter.errors import MiError
from sr_exporter.model import PollFailure, Subscribed

if TYPE_CHECKING:
    from collections.abc import Callable

    from sr_exporter.mi.client import MiClient

log = structlog.get_logger(__name__)

#: For how long we subscribe: an OpenSIPS that cannot reach us any more blocks all its
#: subscribers while it tries (facts on OpenSIPS, section 12).
EXPIRE_SECONDS = 120
#: After how long we renew, or try anew what OpenSIPS refused.
RENEW_SECONDS = EXPIRE_SECONDS / 2

#: What tells that nobody answered, so that the next good poll is the time to try.
_UNANSWERED = (PollFailure.CONNECT, PollFailure.TIMEOUT)
#: What tells that it was not taken.
_NOT_TAKEN = (
    PollFailure.CONNECT,
    PollFailure.AUTH,
    PollFailure.RPC_ERROR,
    PollFailure.UNSUPPORTED,
)


class Subscription:
    """One subscription. `monotonic` is the clock that `due` is of, `clock` gives Unix seconds."""

    def __init__(
        self,
        source: str,
        socket: str,
        *,
        monotonic: Callable[[], float],
        clock: Callable[[], float],
    ) -> None:
        self._source = source
        #: Where events are to be sent, as OpenSIPS is told: `tcp:host:port/SOURCE`.
        self.socket = socket
        #: When to ask next; None: after the next good poll.
        self.due: float | None = None
        self._monotonic = monotonic
        self._clock = clock
        #: When the source started that we subscribed at.
        self._life: float | None = None
        self._expires: float | None = None
        #: Until when OpenSIPS may know us, though it was not heard to say so.
        self._known_until: float | None = None
        self._error: str | None = None

    @property
    def shown(self) -> Subscribed:
        return Subscribed(self.socket, self._expires, self._error)

    def not_polled(self, reason: PollFailure) -> None:
        """Be told of a poll that failed: who is away may come back as another."""
        if reason in _UNANSWERED:
            self.due = None

    def polled(self, start_time: float | None) -> None:
        """Be told of a good poll: who has restarted since knows no subscription."""
        if self.due is None or start_time != self._life:
            self.due = self._monotonic()
            self._life = start_time

    async def ask(self, client: MiClient) -> None:
        """Subscribe, or renew; what comes of it is in `shown`."""
        self.due = self._monotonic() + RENEW_SECONDS
        expires, before = self._clock() + EXPIRE_SECONDS, self._known_until
        # What is cut off, or answered too late, may have been taken.
        self._known_until = expires
        try:
            await client.subscribe(self.socket, EXPIRE_SECONDS)
        except MiError as error:
            if error.reason in _NOT_TAKEN:
                self._known_until = before
            if error.reason in _UNANSWERED:
                self.due = None
            if self._error is None:
                log.warning("not subscribed", source=self._source, error=str(error))
            self._error = str(error)
            return
        if self._expires is None or self._error is not None:
            log.info("subscribed", source=self._source, socket=self.socket)
        self._expires, self._error = expires, None

    async def end(self, client: MiClient) -> None:
        """Have OpenSIPS forget us, if it knows us still."""
        if self._known_until is None or self._known_until <= self._clock():
            return
        try:
            await client.subscribe(self.socket, 0)
        except MiError as error:
            log.warning("subscription not ended", source=self._source, error=str(error))
        self._expires = self._known_until = None
