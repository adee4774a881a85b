"""Puts the parts together, starts them in order of dependency, and stops them in reverse.

`_start` is one straight function on purpose: who needs whom is read from top to bottom.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import structlog

from sr_exporter import __version__
from sr_exporter.config.addresses import is_loopback
from sr_exporter.errors import ConfigError, ListenError
from sr_exporter.ingest import Ingest
from sr_exporter.metrics.own import OwnMetrics
from sr_exporter.metrics.scrape import Exposition
from sr_exporter.mi.transports import name_of
from sr_exporter.model import Configured, PolledSource
from sr_exporter.notify.alerts import Links
from sr_exporter.notify.book import AlertBook
from sr_exporter.notify.letters import Letters
from sr_exporter.notify.notifiers import Notifiers
from sr_exporter.notify.outbox import Outbox
from sr_exporter.notify.rows import Holding
from sr_exporter.notify.rules import Rules
from sr_exporter.own import NotifierTeller, OwnState
from sr_exporter.reload import Reloader
from sr_exporter.report_rules import ReportRules
from sr_exporter.sources.fleet import Fleet
from sr_exporter.sources.listeners import Listeners
from sr_exporter.state import State
from sr_exporter.store.sqlite import SqliteStore
from sr_exporter.tasks import Tasks, end
from sr_exporter.web.access import Access
from sr_exporter.web.alerts import AlertsRoutes
from sr_exporter.web.health import HealthRoutes
from sr_exporter.web.notifications import NotificationsRoutes
from sr_exporter.web.page import PageRoutes
from sr_exporter.web.push import PushRoutes
from sr_exporter.web.reload import ReloadRoute
from sr_exporter.web.routes import application
from sr_exporter.web.scrape import ScrapeRoute
from sr_exporter.web.server import WebServer, listen
from sr_exporter.web.sources import SourcesRoute

if TYPE_CHECKING:
    import socket
    from collections.abc import Awaitable, Callable, Sequence
    from pathlib import Path

    from sr_exporter.config import Config
    from sr_exporter.store.contract import Store
    from sr_exporter.web.server import Address

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Options:
    """What the command line says."""

    listen: Sequence[Address]
    storage_path: Path
    external_url: str
    config: Config
    #: Reads the configuration again, for a reload; None: there is no file to read.
    read_config: Callable[[], Config] | None = None


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
    _reloader: Reloader | None = None
    _reload_asked: bool = False
    _stops: list[tuple[str, Callable[[], Awaitable[None]]]] = field(default_factory=list)

    async def run(self, stop: asyncio.Event) -> None:
        """Start, serve until `stop` is set, and stop.

        Raises:
            ListenError: an address cannot be listened on, for requests or for events.
            StoreUnusable: the store cannot be opened.
        """
        tasks = Tasks()
        try:
            await self._start(tasks)
            stopping = asyncio.ensure_future(_until(stop))
            await asyncio.wait({stopping, tasks.failed}, return_when=asyncio.FIRST_COMPLETED)
            stopping.cancel()
            if tasks.failed.done():
                tasks.failed.result()  # none of them ends by itself: raise what ended it
        finally:
            await self._stop(tasks)

    def reload(self) -> None:
        """Have the configuration read again; how that goes is in the log."""
        if self._reloader is None:
            self._reload_asked = True  # while it starts: as soon as it has
        else:
            self._reloader.ask()

    async def _start(self, tasks: Tasks) -> None:
        config = self.options.config
        sockets = [listen(address) for address in self.options.listen]
        self._on_stop("sockets", lambda: _close_sockets(sockets))

        store = SqliteStore(
            self.options.storage_path, retention_seconds=config.storage.retention_seconds
        )
        kept = store.load(Holding())
        self._on_stop("store", lambda: asyncio.to_thread(store.close))

        state = self.state = State(last_seq=kept.last_seq)
        state.restore(kept.sources, kept.keys, self.clock(), kept.tombstones)
        links = Links(self.options.external_url)
        book = AlertBook(state, links)
        # What a crash lost is numbered again: no other run may make the same ids.
        run_id = uuid.uuid5(uuid.UUID(kept.store_id), str(uuid.uuid4()))
        outbox = Outbox(book, links, run_id)
        ingest = Ingest(state, store, outbox, self.clock)
        self._on_stop("ingest", ingest.settle)

        metrics = OwnMetrics()
        own = OwnState(ingest, state)
        self._on_stop("own state", own.settle)
        ingest.subscribe(own.observe)
        teller = NotifierTeller(metrics, own)
        notifiers = Notifiers(state, store, book, outbox, links, teller, tasks, self.clock)
        notifiers.restore(kept, config.notifiers, Rules(config.rules, watchdog=config.watchdog))
        ingest.subscribe(notifiers.observe)

        access = Access()
        push = PushRoutes(ingest, state, access, metrics)
        fleet = Fleet(ingest, metrics, tasks, self.clock)
        ingest.subscribe(fleet.observe)
        metrics.events.watch_subscriptions(fleet.subscriptions, self.clock)

        listeners = Listeners(ingest, metrics.events)
        self._on_stop("listeners", listeners.stop)

        configurable = _Configurable(
            ingest, outbox, notifiers, own, access, push, store, fleet, listeners
        )

        # All of this is settled before anybody is answered: nothing is shown half.
        self._on_stop("notifiers", notifiers.stop)
        await _begin(configurable, config)
        await own.settle()
        metrics.configured(self.clock())

        reloader = self._reloader = Reloader(
            self.options.read_config or (lambda: config),
            configurable.apply,
            metrics,
            self.clock,
        )
        web = WebServer(
            application(
                scrape=ScrapeRoute(Exposition(state, metrics, store), ingest),
                push=push,
                page=PageRoutes(
                    state,
                    ingest,
                    self.clock,
                    fleet.subscriptions,
                    external_url=self.options.external_url,
                ),
                health=HealthRoutes(ingest),
                reload=ReloadRoute(reloader.reload, access),
                sources=SourcesRoute(state, fleet.subscriptions),
                notifications=NotificationsRoutes(
                    Letters(store, outbox, book, links, self.clock), access
                ),
                alerts=AlertsRoutes(book, notifiers.names, self.clock),
            ),
            sockets,
        )
        serving = tasks.start("web", web.run())
        self._on_stop("web", lambda: _stop_web(web, serving))
        self._on_stop("polls", fleet.stop)
        tasks.start("store watch", own.watch_store(store))
        tasks.start("owed watch", teller.watch_owed())
        reloading = tasks.start("reload", reloader.run())
        if self._reload_asked:
            reloader.ask()
        self._on_stop("reload", lambda: _stop_reloading(reloader, reloading))
        self._on_stop("pushes", lambda: _refuse(ingest))
        self._say_started(config, state)
        self._started = True
        self.on_ready(sockets)

    def _say_started(self, config: Config, state: State) -> None:
        log.info(
            "started",
            version=__version__,
            listening=", ".join(str(address) for address in self.options.listen),
            identifiers=state.identifiers,
            sources=len(config.sources),
            notifiers=len(config.notifiers),
        )
        if config.notifiers and is_loopback(urlsplit(self.options.external_url).hostname or ""):
            log.warning(
                "links in alerts lead nowhere from other machines: say with --web.external-url"
                " where people reach this exporter",
                external_url=self.options.external_url,
            )

    def _on_stop(self, name: str, stop: Callable[[], Awaitable[None]]) -> None:
        self._stops.append((name, stop))

    async def _stop(self, tasks: Tasks) -> None:
        for name, stop in reversed(self._stops):
            try:
                await stop()
            except Exception:
                log.exception("not stopped cleanly", part=name)
        self._stops.clear()
        await tasks.stop()
        if self._started:
            log.info("stopped")


@dataclass(frozen=True, slots=True)
class _Configurable:
    """Everything a configuration is put in force at: at the start, and at each reload."""

    ingest: Ingest
    outbox: Outbox
    notifiers: Notifiers
    own: OwnState
    access: Access
    push: PushRoutes
    store: Store
    fleet: Fleet
    listeners: Listeners

    async def apply(self, config: Config) -> None:
        """Put it in force.

        Raises:
            ConfigError: events cannot be listened for; nothing was changed.
        """
        prepared = await self.listeners.prepare(config.events, config.sources)
        polled = tuple(
            PolledSource(
                source.name, source.stale_after_seconds, name_of(source.mi), address=source.mi
            )
            for source in config.sources
        )
        only_events = config.events.sources() - {source.name for source in config.sources}
        # At once, both: no event may bring back a source that leaves.
        self.listeners.apply(prepared)
        # Alerts of sources and notifiers that leave end by the rules of before.
        await self.ingest.observe(
            Configured(
                polled,
                config.limits.identifiers,
                tuple(sorted(only_events)),
                ReportRules(config.reports.rules, config.reports.switched_off),
                config.limits.subjects,
                config.reports.subject_ttl_seconds,
            )
        )
        self.outbox.most = config.limits.notifications
        self.own.forget("notifier", but=[one.name for one in config.notifiers])
        await self.own.settle()
        self.notifiers.configure(
            config.notifiers,
            Rules(config.rules, watchdog=config.watchdog),
            beat_seconds=config.watchdog_interval_seconds,
        )
        self.access.configure(config.tokens)
        self.push.limit_bytes = config.limits.body_bytes
        self.store.retain(config.storage.retention_seconds)
        self.fleet.configure(config.sources, str(config.events.advertise or ""))
        await self.notifiers.part()
        self.own.configure(
            [source.name for source in config.sources],
            [notifier.name for notifier in config.notifiers],
        )


async def _begin(configurable: _Configurable, config: Config) -> None:
    """Put the first configuration in force.

    Raises:
        ListenError: events cannot be listened for.
    """
    try:
        await configurable.apply(config)
    except ConfigError as error:
        raise ListenError("; ".join(map(str, error.faults))) from None


async def _until(stop: asyncio.Event) -> None:
    await stop.wait()


async def _refuse(ingest: Ingest) -> None:
    """Refuse new pushes: what is accepted from here on might not be kept."""
    ingest.open = False


async def _close_sockets(sockets: Sequence[socket.socket]) -> None:
    for one in sockets:
        one.close()


async def _stop_web(web: WebServer, serving: asyncio.Task[None]) -> None:
    web.stop()
    await asyncio.gather(serving, return_exceptions=True)


async def _stop_reloading(reloader: Reloader, reloading: asyncio.Task[None]) -> None:
    await end([reloading])
    await reloader.stop()
