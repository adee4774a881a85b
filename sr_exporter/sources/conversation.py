"""All that is asked of one OpenSIPS, one thing after the other (rule 1).

It is polled in its pace, our subscription is kept up, and keys in doubt are asked for in between.
All of it together takes its share of the source's time, and no more (rule 3).
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol

import structlog

from sr_exporter.errors import MiError
from sr_exporter.model import Checked, PollFailed, PollFailure

if TYPE_CHECKING:
    from collections.abc import Callable

    from sr_exporter.ingest import Ingest
    from sr_exporter.mi.client import MiClient
    from sr_exporter.sources.doubts import Doubts
    from sr_exporter.sources.firsts import Firsts
    from sr_exporter.sources.pacing import Pace
    from sr_exporter.sources.poll import Poller
    from sr_exporter.sources.subscription import Subscription

log = structlog.get_logger(__name__)

#: Failures that are not of the one key that was asked for.
_OF_THE_SOURCE = frozenset(
    {PollFailure.CONNECT, PollFailure.TIMEOUT, PollFailure.AUTH, PollFailure.UNSUPPORTED}
)
#: What the answer to the next poll is given before nobody is taken to be there.
_ANSWER_SECONDS = 5.0


class PollObserver(Protocol):
    """Sees how polling itself goes."""

    def polled(self, source: str, duration_seconds: float) -> None:
        """A poll took so long, good or not."""

    def paced(self, source: str, interval_seconds: float) -> None:
        """The next poll is so long after the last."""


class Conversation:
    """Talks to one source, in the running loop."""

    def __init__(
        self,
        poller: Poller,
        client: MiClient,
        ingest: Ingest,
        pace: Pace,
        doubts: Doubts,
        subscription: Subscription | None,
        observer: PollObserver,
        firsts: Firsts,
        *,
        clock: Callable[[], float],
    ) -> None:
        self.source = poller.source
        self.subscription = subscription
        self._poller = poller
        self._client = client
        self._ingest = ingest
        self._pace = pace
        self._doubts = doubts
        self._observer = observer
        self._firsts = firsts
        self._clock = clock
        self._loop = asyncio.get_running_loop()
        #: When the next poll is planned, and when there is room for it.
        self._planned = self._next_poll = 0.0
        #: When the last poll began; None: there was none.
        self._polled_at: float | None = None
        self._woken = asyncio.Event()
        #: Since when a poll is under way, until what it heard is held; None: none is. Unix seconds.
        self.polling_since: float | None = None
        #: When the request under way began; None while there is none.
        self._began: float | None = None

    def doubt(self, group: str, identifier: str) -> None:
        """Ask for this key soon."""
        self._doubts.add(group, identifier)
        self._woken.set()

    def hear(self) -> None:
        """Poll it soon: it does not answer polls, and is heard all the same."""
        if self._polled_at is None or self._began is not None:
            return
        soonest = max(self._pace.soonest, self._polled_at + self._pace.interval_seconds)
        if soonest < self._next_poll:
            self._planned = self._next_poll = soonest
            self._woken.set()

    def soonest(self) -> float:
        """Give the time of the loop before which its share leaves no room for another poll."""
        if self._began is not None:  # it is about to be cut off; what it took counts
            self._pace.took(self._began, self._loop.time())
        return self._pace.soonest

    async def run(self, first_delay_seconds: float, slots: asyncio.Semaphore) -> None:
        """Talk for ever, as one of as many at once as there are slots."""
        self._planned = self._next_poll = self._loop.time() + first_delay_seconds
        while True:
            await self._until_due()
            async with slots:
                try:
                    await self._turn()
                finally:
                    self._client.rest()

    async def end(self) -> None:
        """Have the source forget us. Only when `run` is over: it has one connection."""
        if self.subscription is not None:
            try:
                await self.subscription.end(self._client)
            finally:
                self._client.rest()

    async def _until_due(self) -> None:
        while (wait := self._due() - self._loop.time()) > 0:
            self._woken.clear()
            try:
                async with asyncio.timeout(wait):
                    await self._woken.wait()
            except TimeoutError:
                return

    def _due(self) -> float:
        dues = [self._next_poll]
        if (doubts_due := self._doubts_due()) is not None:
            dues.append(doubts_due)
        if self.subscription is not None and self.subscription.due is not None:
            dues.append(self.subscription.due)
        return min(dues)

    def _doubts_due(self) -> float | None:
        """Give when to ask for what is in doubt; None: not before the next poll.

        When a poll is due and has to wait, it is not put off for single keys: it tells of all.
        """
        due = self._doubts.due
        if due is None or self._polled_at is None or max(due, self._loop.time()) >= self._planned:
            return None
        return due

    async def _turn(self) -> None:
        """Ask what is due."""
        if self._is_due(self._next_poll):
            self.polling_since = self._clock()
            try:
                await self._poll()
            finally:
                self.polling_since = None
        if self.subscription is not None and self._is_due(self.subscription.due):
            await self._subscribe(self.subscription)
        if self._is_due(self._doubts_due()) and (key := self._doubts.take()):
            await self._ask(*key)

    def _is_due(self, at: float | None) -> bool:
        return at is not None and at <= self._loop.time()

    async def _poll(self) -> None:
        began = self._began = self._polled_at = self._loop.time()
        self._doubts.poll_begins()
        heard = await self._poller.ask()
        ended = self._loop.time()
        self._began = None
        good = not isinstance(heard, PollFailed)
        self._planned = self._next_poll = self._pace.next_poll(began, ended, good=good)
        if isinstance(heard, PollFailed) and heard.reason is not PollFailure.TIMEOUT:
            # One that timed out has asked twice (ladder.py), and its share puts off the next.
            again_by = self._clock() + self._next_poll - ended + _ANSWER_SECONDS
            heard = replace(heard, again_by=again_by)
        self._observer.polled(self.source, ended - began)
        self._observer.paced(self.source, self._next_poll - began)
        await self._ingest.observe(heard)
        if isinstance(heard, PollFailed):
            self._doubts.give_up()
            if self.subscription is not None:
                self.subscription.not_polled(heard.reason)
            return
        if self.source in self._firsts:
            took = self._loop.time() - began
            identifiers = self._ingest.identifiers(self.source)
            self._firsts.polled(self.source, identifiers, took, self._poller.asked)
        self._doubts.poll_ended(heard.statuses)
        if self.subscription is not None:
            self.subscription.polled(self._ingest.start_time(self.source))

    async def _subscribe(self, subscription: Subscription) -> None:
        began = self._began = self._loop.time()
        try:
            await subscription.ask(self._client)
        except Exception:
            # A fault of ours must not end what works; it is asked again at the next turn.
            log.exception("not subscribed", source=self.source)
        finally:
            self._took(began)

    async def _ask(self, group: str, identifier: str) -> None:
        as_of, requested_at = self._ingest.revision, self._clock()
        began = self._began = self._loop.time()
        try:
            status = await self._client.status(group, identifier)
        except MiError as error:
            log.debug("not asked", source=self.source, group=group, error=str(error))
            if error.reason in _OF_THE_SOURCE:
                self._doubts.give_up()
            return
        except Exception:
            log.exception("not asked", source=self.source)
            return
        finally:
            self._doubts.asked(began, self._took(began))
        await self._ingest.observe(Checked(self.source, as_of, requested_at, status))

    def _took(self, began: float) -> float:
        """Charge a request between polls; it puts the next poll off. Gives when it ended."""
        ended = self._loop.time()
        self._began = None
        self._pace.took(began, ended)
        self._next_poll = max(self._planned, self._pace.soonest)
        if self._polled_at is not None:
            self._observer.paced(self.source, self._next_poll - self._polled_at)
        return ended
