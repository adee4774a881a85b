"""Every source that is polled, and how they come and go while the exporter runs."""

from __future__ import annotations

import asyncio
import random
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from sr_exporter.mi.client import MiClient
from sr_exporter.mi.transports import Transports
from sr_exporter.sources.pacing import Pace, first_delay, phase
from sr_exporter.sources.poll import Poller, PollObserver
from sr_exporter.tasks import end

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sr_exporter.config import Source
    from sr_exporter.ingest import Ingest
    from sr_exporter.mi.transport import Transport
    from sr_exporter.tasks import Tasks

#: How many polls are under way at once: each holds a thread while its OpenSIPS answers.
POLLS_AT_ONCE = 128


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
    transport: Transport
    poller: Poller
    polling: asyncio.Task[None]


class Fleet:
    """The pollers, by the names of their sources."""

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
        #: Connections that were cut off, and may still be on their way out.
        self._former: dict[str, list[Transport]] = {}
        # Threads are made when they are needed; a fleet of two has two.
        self._pool = ThreadPoolExecutor(POLLS_AT_ONCE, thread_name_prefix="mi")
        self._transports = Transports(self._pool)
        self._slots = asyncio.Semaphore(POLLS_AT_ONCE)

    def configure(self, sources: Sequence[Source]) -> None:
        """Poll these, and no others. Who is configured as before is not disturbed."""
        wanted = {source.name: source for source in sources}
        self._former = {
            name: busy
            for name, former in self._former.items()
            if (busy := [transport for transport in former if transport.busy])
        }
        now = asyncio.get_running_loop().time()
        self._soonest = {mi: at for mi, at in self._soonest.items() if at > now}
        for name in [name for name in self._members if name not in wanted]:
            self._cut_off(self._members.pop(name))
            self._observer.remove_source(name)
        changed = [
            (index, source)
            for index, source in enumerate(sources)
            if source.name not in self._members or self._members[source.name].config != source
        ]
        for order, (index, source) in enumerate(changed):
            before = self._members.get(source.name)
            delay = first_delay(order, source.poll_interval_seconds, len(changed))
            place = phase(index, source.poll_interval_seconds, len(sources))
            self._members[source.name] = self._begin(source, place, delay, before)

    async def stop(self) -> None:
        """Poll no more."""
        await end(member.polling for member in self._members.values())
        self._members.clear()
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _cut_off(self, member: _Member) -> None:
        self._soonest[member.config.mi] = member.poller.soonest()
        member.polling.cancel()
        self._former.setdefault(member.config.name, []).append(member.transport)

    def _begin(self, source: Source, place: float, delay: float, before: _Member | None) -> _Member:
        interval = source.poll_interval_seconds
        now = asyncio.get_running_loop().time()
        pace = Pace(interval, source.max_share, now + place, random.random)
        if before is not None:
            self._cut_off(before)
        pace.soonest = self._soonest.pop(source.mi, 0.0)
        auth = source.basic_auth
        transport = self._transports.to(
            source.mi,
            timeout_seconds=source.timeout_seconds,
            basic_auth=(auth.username, auth.password.reveal()) if auth else None,
        )
        poller = Poller(
            source.name, MiClient(transport), self._ingest, pace, self._observer, clock=self._clock
        )
        self._observer.add_source(source.name, interval)
        delay = max(delay, pace.soonest - now)
        former = self._former.get(source.name, [])
        polling = self._tasks.start(f"poll {source.name}", self._poll(poller, delay, former))
        return _Member(source, transport, poller, polling)

    async def _poll(self, poller: Poller, delay: float, former: Sequence[Transport]) -> None:
        for transport in tuple(former):
            await transport.gone()  # one connection per source, also over a reload
        await poller.run(delay, self._slots)
