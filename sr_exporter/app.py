"""Puts the parts together, starts them in order of dependency, and stops them in reverse.

`_start` is one straight function on purpose: who needs whom is read from top to bottom.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Protocol

import structlog

from sr_exporter import __version__
from sr_exporter.config import Alertmanager, Webhook
from sr_exporter.errors import NotKept
from sr_exporter.ingest import Ingest
from sr_exporter.metrics.own import OwnMetrics
from sr_exporter.metrics.scrape import Exposition
from sr_exporter.mi.client import MiClient
from sr_exporter.mi.http import HttpTransport
from sr_exporter.model import Configured, PolledSource
from sr_exporter.notify.alertmanager import AlertmanagerSender
from sr_exporter.notify.alerts import Links
from sr_exporter.notify.book import AlertBook
from sr_exporter.notify.levels import Levels
from sr_exporter.notify.outbox import EdgeNotifier, Outbox
from sr_exporter.notify.webhook import WebhookSender
from sr_exporter.own import NotifierTeller, OwnState
from sr_exporter.sources.pacing import Pace, first_delay, phase
from sr_exporter.sources.poll import Poller
from sr_exporter.state import State
from sr_exporter.store.contract import Batch, Standing
from sr_exporter.store.sqlite import SqliteStore
from sr_exporter.web.access import Access
from sr_exporter.web.health import HealthRoutes
from sr_exporter.web.page import PageRoutes
from sr_exporter.web.push import PushRoutes
from sr_exporter.web.routes import application
from sr_exporter.web.scrape import ScrapeRoute
from sr_exporter.web.server import WebServer, listen

if TYPE_CHECKING:
    import socket
    from collections.abc import Awaitable, Callable, Coroutine, Sequence
    from pathlib import Path

    from sr_exporter.config import Config
    from sr_exporter.config import Source as SourceConfig
    from sr_exporter.store.contract import Kept, Owed, Store
    from sr_exporter.web.server import Address

log = structlog.get_logger(__name__)

#: How many polls are under way at once: each holds a thread while its OpenSIPS answers.
POLLS_AT_ONCE = 128
#: How long the last round of deliveries may take.
DRAIN_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Options:
    """What the command line says."""

    listen: Sequence[Address]
    storage_path: Path
    external_url: str
    config: Config


class Sender(Protocol):
    """A notifier at work."""

    name: str

    @property
    def backlog(self) -> int:
        """How many notifications are owed."""

    async def run(self) -> None:
        """Send for ever."""

    async def drain(self) -> None:
        """Attempt once more what is due."""

    def close(self) -> None:
        """End what is under way."""


@dataclass(slots=True)
class App:
    """One running exporter."""

    options: Options
    clock: Callable[[], float] = time.time
    #: Called when requests are answered, with the addresses listened on.
    on_ready: Callable[[Sequence[socket.socket]], None] = lambda _: None
    #: What is held, once started.
    state: State = field(default_factory=State)
    _started: bool = False
    _tasks: list[asyncio.Task[None]] = field(default_factory=list)
    _stops: list[tuple[str, Callable[[], Awaitable[None]]]] = field(default_factory=list)

    async def run(self, stop: asyncio.Event) -> None:
        """Start, serve until `stop` is set, and stop.

        Raises:
            ListenError: an address cannot be listened on.
            StoreUnusable: the store cannot be opened.
        """
        try:
            await self._start()
            stopping = asyncio.create_task(stop.wait())
            done, _ = await asyncio.wait(
                [stopping, *self._tasks], return_when=asyncio.FIRST_COMPLETED
            )
            stopping.cancel()
            for task in done - {stopping}:
                task.result()  # none of them ends by itself: raise what ended it
        finally:
            await self._stop()

    async def _start(self) -> None:
        config = self.options.config
        sockets = [listen(address) for address in self.options.listen]
        self._on_stop("sockets", lambda: _close_sockets(sockets))

        store = SqliteStore(
            self.options.storage_path, retention_seconds=config.storage.retention_seconds
        )
        kept = store.load()
        self._on_stop("store", lambda: asyncio.to_thread(store.close))

        state = self.state = State(
            limit_identifiers=config.limits.identifiers, last_seq=kept.last_seq
        )
        state.restore(kept.sources, kept.keys, self.clock())
        links = Links(self.options.external_url)
        outbox = _outbox(config, kept, links)
        homeless = outbox.restore(kept.outbox)
        ingest = Ingest(state, store, outbox, self.clock)
        self._on_stop("ingest", ingest.settle)

        metrics = OwnMetrics()
        metrics.configured(self.clock())
        own = OwnState(ingest, state)
        self._on_stop("own state", own.settle)
        ingest.subscribe(own.observe)

        book = AlertBook(state, links)
        teller = NotifierTeller(metrics, own)
        senders = self._senders(config, outbox, book, store, teller)
        wakes = [sender.wake for sender in senders if isinstance(sender, AlertmanagerSender)]
        levels = Levels(book, store, wakes, self.clock)
        ingest.subscribe(levels.observe)

        # All of these are settled before anybody is answered: nothing is shown half.
        await _give_up(store, homeless)
        polled = tuple(
            PolledSource(source.name, source.stale_after_seconds, address=source.mi)
            for source in config.sources
        )
        await ingest.observe(Configured(polled))
        await own.begin(
            [source.name for source in config.sources], [sender.name for sender in senders]
        )
        levels.begin(kept.alerts)
        self._run("levels", levels.run())
        for sender in senders:
            metrics.add_notifier(sender.name, _backlog_of(sender))
            own.say("notifier", sender.name, 1, None)
        sending = [self._run(f"notifier {sender.name}", sender.run()) for sender in senders]
        self._on_stop("notifiers", lambda: _stop_sending(sending, senders, levels))

        web = WebServer(
            application(
                scrape=ScrapeRoute(Exposition(state, metrics, store), ingest),
                push=PushRoutes(
                    ingest,
                    state,
                    Access(config.tokens),
                    metrics,
                    limit_bytes=config.limits.body_bytes,
                ),
                page=PageRoutes(state, ingest, self.clock, external_url=self.options.external_url),
                health=HealthRoutes(ingest),
            ),
            sockets,
        )
        serving = self._run("web", web.run())
        self._on_stop("web", lambda: _stop_web(web, serving))
        self._run("store watch", own.watch_store(store))
        self._start_polling(config.sources, ingest, metrics)
        self._on_stop("pushes", lambda: _refuse(ingest))
        log.info(
            "started",
            version=__version__,
            listening=", ".join(str(address) for address in self.options.listen),
            identifiers=state.identifiers,
            sources=len(config.sources),
            notifiers=len(senders),
        )
        self._started = True
        self.on_ready(sockets)

    def _senders(
        self,
        config: Config,
        outbox: Outbox,
        book: AlertBook,
        store: Store,
        teller: NotifierTeller,
    ) -> list[Sender]:
        senders: list[Sender] = []
        for notifier in config.notifiers:
            if isinstance(notifier, Alertmanager):
                senders.append(AlertmanagerSender(notifier, book, teller, clock=self.clock))
            else:
                queue = outbox.queues[notifier.name]
                senders.append(WebhookSender(notifier, queue, store, teller, clock=self.clock))
        return senders

    def _start_polling(
        self, sources: Sequence[SourceConfig], ingest: Ingest, metrics: OwnMetrics
    ) -> None:
        if not sources:
            return
        at_once = min(POLLS_AT_ONCE, len(sources))
        pool = ThreadPoolExecutor(at_once, thread_name_prefix="mi")
        slots = asyncio.Semaphore(at_once)
        began = asyncio.get_running_loop().time()
        pollers: list[asyncio.Task[None]] = []
        for index, source in enumerate(sources):
            auth = source.basic_auth
            transport = HttpTransport(
                source.mi,
                pool,
                timeout_seconds=source.timeout_seconds,
                basic_auth=(auth.username, auth.password.reveal()) if auth else None,
            )
            interval = source.poll_interval_seconds
            pace = Pace(
                interval,
                source.max_share,
                began + phase(index, interval, len(sources)),
                random.random,
            )
            poller = Poller(
                source.name, MiClient(transport), ingest, pace, metrics, clock=self.clock
            )
            metrics.add_source(source.name, interval)
            delay = first_delay(index, interval, len(sources))
            pollers.append(self._run(f"poll {source.name}", poller.run(delay, slots)))
        self._on_stop("pollers", lambda: _stop_polling(pollers, pool))

    def _run(self, name: str, what: Coroutine[object, object, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(what, name=name)
        self._tasks.append(task)
        return task

    def _on_stop(self, name: str, stop: Callable[[], Awaitable[None]]) -> None:
        self._stops.append((name, stop))

    async def _stop(self) -> None:
        for name, stop in reversed(self._stops):
            try:
                await stop()
            except Exception:
                log.exception("not stopped cleanly", part=name)
        self._stops.clear()
        await _cancel(self._tasks)
        self._tasks.clear()
        if self._started:
            log.info("stopped")


def _outbox(config: Config, kept: Kept, links: Links) -> Outbox:
    edges = [
        EdgeNotifier(notifier.name, notifier.send)
        for notifier in config.notifiers
        if isinstance(notifier, Webhook)
    ]
    run_id = uuid.uuid5(uuid.UUID(kept.store_id), str(uuid.uuid4()))
    return Outbox(edges, links, run_id)


async def _give_up(store: Store, homeless: Sequence[Owed]) -> None:
    """Move what is owed to notifiers that are gone to the dead letters."""
    if not homeless:
        return
    reason = "the notifier is no longer configured"
    for name in sorted({owed.notifier for owed in homeless}):
        count = sum(owed.notifier == name for owed in homeless)
        log.warning("notifications given up", notifier=name, count=count, reason=reason)
    dead = {owed.id: replace(owed, standing=Standing.DEAD, reason=reason) for owed in homeless}
    # What cannot be noted now is found, and given up, again at the next start.
    with contextlib.suppress(NotKept):
        await store.commit(Batch(outbox=dict(dead)))


async def _refuse(ingest: Ingest) -> None:
    """Refuse new pushes: what is accepted from here on might not be kept."""
    ingest.open = False


async def _close_sockets(sockets: Sequence[socket.socket]) -> None:
    for one in sockets:
        one.close()


async def _cancel(tasks: Sequence[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def _stop_polling(pollers: Sequence[asyncio.Task[None]], pool: ThreadPoolExecutor) -> None:
    await _cancel(pollers)
    pool.shutdown(wait=False, cancel_futures=True)


async def _stop_web(web: WebServer, serving: asyncio.Task[None]) -> None:
    web.stop()
    await asyncio.gather(serving, return_exceptions=True)


def _backlog_of(sender: Sender) -> Callable[[], int]:
    return lambda: sender.backlog


async def _stop_sending(
    sending: Sequence[asyncio.Task[None]], senders: Sequence[Sender], levels: Levels
) -> None:
    """Make one last round of deliveries, within a time limit; what is left stays owed."""
    await _cancel(sending)
    levels.refresh()
    try:
        async with asyncio.timeout(DRAIN_SECONDS):
            await asyncio.gather(*(sender.drain() for sender in senders))
    except TimeoutError:
        log.warning(
            "stopping with notifications owed", owed=sum(sender.backlog for sender in senders)
        )
    for sender in senders:
        sender.close()
    await levels.settle()
