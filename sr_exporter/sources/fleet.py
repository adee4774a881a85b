"""Every source that is polled, and how they come and go while the exporter runs."""

from __future__ import annotations

import asyncio
import random
import resource
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from sr_exporter.config import Subscribe
from sr_exporter.mi.client import MiClient
from sr_exporter.mi.transports import Transports
from sr_exporter.sources.conversation import Conversation, PollObserver
from sr_exporter.sources.doubts import Doubts
from sr_exporter.sources.firsts import Firsts
from sr_exporter.sources.pacing import Pace, first_delay, phase
from sr_exporter.sources.poll import Poller
from sr_exporter.sources.subscription import Subscription
from sr_exporter.tasks import end

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from sr_exporter.config import Source
    from sr_exporter.ingest import Ingest
    from sr_exporter.model import Subscribed
    from sr_exporter.outcome import Outcome
    from sr_exporter.tasks import Tasks

#: How many polls are under way at once, where there are descriptors for as many.
POLLS_AT_ONCE = 4096
#: For how long a stop waits for sources to take the end of our subscriptions.
END_SECONDS = 3.0


class FleetObserver(PollObserver, Protocol):
    """Sees how polling goes, and of which sources."""

    def add_source(self, source: str, interval_seconds: float) -> None:
        """A source is polled from now on."""

    def remove_source(self, source: str) -> None:
        """A source is polled no more."""


@dataclass(frozen=True, slots=True)
class _Member:
    """A source that is polled."""

    config: Source
    #: Where it is to send events; "" where it is not subscribed by us.
    socket: str
    conversation: Conversation
    talking: asyncio.Task[None]


class Fleet:
    """The conversations with sources, by the names of these."""

    def __init__(
        self, ingest: Ingest, observer: FleetObserver, tasks: Tasks, clock: Callable[[], float]
    ) -> None:
        self._ingest = ingest
        self._observer = observer
        self._tasks = tasks
        self._clock = clock
        self._members: dict[str, _Member] = {}
        #: When those that left may be asked again, by address: a name costs nobody anything.
        self._soonest: dict[str, float] = {}
        #: Conversations that were cut off, and may still be on their way out, by the names and
        #: the addresses of their sources.
        self._leaving: dict[str, list[asyncio.Task[None]]] = {}
        self._transports = Transports()
        self._slots = asyncio.Semaphore(_polls_at_once())
        self._firsts = Firsts()

    def configure(self, sources: Sequence[Source], listening: str = "") -> None:
        """Poll these, and no others. Who is configured as before is not disturbed.

        `listening` is the `host:port` at which sources reach our listener for events.
        """
        wanted = {source.name: source for source in sources}
        self._leaving = {
            name: leaving
            for name, tasks in self._leaving.items()
            if (leaving := [task for task in tasks if not task.done()])
        }
        now = asyncio.get_running_loop().time()
        self._soonest = {mi: at for mi, at in self._soonest.items() if at > now}
        for name in [name for name in self._members if name not in wanted]:
            self._cut_off(self._members.pop(name), ends=True)
            self._observer.remove_source(name)
            self._firsts.forget(name)
        changed = [
            (index, source, socket)
            for index, source in enumerate(sources)
            if self._is_new(source, socket := _socket(source, listening))
        ]
        # All are cut off before any begins: one may take over another's address.
        for _, source, socket in changed:
            if (before := self._members.pop(source.name, None)) is not None:
                same = (before.config.mi, before.socket) == (source.mi, socket)
                self._cut_off(before, ends=not same)
        for order, (index, source, socket) in enumerate(changed):
            delay = first_delay(order, source.poll_interval_seconds, len(changed))
            place = phase(index, source.poll_interval_seconds, len(sources))
            self._members[source.name] = self._begin(source, socket, place, delay)

    def observe(self, outcome: Outcome) -> None:
        """Have asked for what an outcome leaves in doubt (rule 8), and who is alive again."""
        for name in outcome.alive:
            if (member := self._members.get(name)) is not None:
                member.conversation.hear()
        for key in outcome.doubtful:
            member = self._members.get(key.source)
            if member is not None:
                member.conversation.doubt(key.group, key.identifier)

    def subscriptions(self) -> dict[str, Subscribed]:
        """Tell how our subscriptions stand, by source."""
        return {
            name: subscription.shown
            for name, member in self._members.items()
            if (subscription := member.conversation.subscription) is not None
        }

    def asking(self) -> dict[str, float]:
        """Tell since when polls are under way, by source."""
        return {
            name: since
            for name, member in self._members.items()
            if (since := member.conversation.polling_since) is not None
        }

    async def stop(self) -> None:
        """Poll no more, and have the sources forget us as far as they answer in time."""
        for member in self._members.values():
            self._cut_off(member, ends=True)
        self._members.clear()
        leaving = {task for tasks in self._leaving.values() for task in tasks}
        if leaving:
            await asyncio.wait(leaving, timeout=END_SECONDS)
            await end(leaving)
        self._transports.close()
        self._firsts.stop()

    def _is_new(self, source: Source, socket: str) -> bool:
        member = self._members.get(source.name)
        return member is None or (member.config, member.socket) != (source, socket)

    def _cut_off(self, member: _Member, *, ends: bool) -> None:
        """End a conversation; `ends` tells whether the subscription does, too."""
        self._soonest[member.config.mi] = member.conversation.soonest()
        member.talking.cancel()
        leaving = asyncio.create_task(_leave(member, ends=ends))
        for one in (member.config.name, member.config.mi):
            self._leaving.setdefault(one, []).append(leaving)

    def _begin(self, source: Source, socket: str, place: float, delay: float) -> _Member:
        interval = source.poll_interval_seconds
        now = asyncio.get_running_loop().time()
        pace = Pace(interval, source.max_share, now + place, random.random)
        pace.soonest = self._soonest.pop(source.mi, 0.0)
        auth, tls = source.basic_auth, source.tls
        transport = self._transports.to(
            source.mi,
            timeout_seconds=source.timeout_seconds,
            basic_auth=(auth.username, auth.password.reveal()) if auth else None,
            ca=tls.ca if tls else None,
        )
        client = MiClient(transport)
        loop = asyncio.get_running_loop()
        conversation = Conversation(
            Poller(source.name, client, self._ingest, clock=self._clock),
            client,
            self._ingest,
            pace,
            Doubts(source.max_share, pace.soonest),
            Subscription(source.name, socket, monotonic=loop.time, clock=self._clock)
            if socket
            else None,
            self._observer,
            self._firsts,
            clock=self._clock,
        )
        self._observer.add_source(source.name, interval)
        self._firsts.expect(source.name)
        delay = max(delay, pace.soonest - now)
        leaving = {task for one in (source.name, source.mi) for task in self._leaving.get(one, ())}
        talking = self._tasks.start(f"poll {source.name}", self._talk(conversation, delay, leaving))
        return _Member(source, socket, conversation, talking)

    async def _talk(
        self, conversation: Conversation, delay: float, leaving: Collection[asyncio.Task[None]]
    ) -> None:
        if leaving:
            await asyncio.wait(leaving)  # one connection per source, also over a reload
        await conversation.run(delay, self._slots)


async def _leave(member: _Member, *, ends: bool) -> None:
    await asyncio.wait({member.talking})
    if ends:
        await member.conversation.end()


def _socket(source: Source, listening: str) -> str:
    """Give where a source is to send events, as OpenSIPS is told (rule 4)."""
    if source.subscribe is not Subscribe.TCP or not listening:
        return ""
    return f"tcp:{listening}/{source.name}"


def _polls_at_once() -> int:
    """Leave half of the descriptors to others: each poll under way has one."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return POLLS_AT_ONCE if soft == resource.RLIM_INFINITY else min(POLLS_AT_ONCE, soft // 2)
