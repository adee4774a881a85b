"""Puts the parts together, starts them in order of dependency, and stops them in reverse.

`_start` is one straight function on purpose: who needs whom is read from top to bottom.
"""

from __future__ import annotations

import asyncio
import uuid
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import structlog

from sr_exporter import __version__
from sr_exporter.clock import Clock
from sr_exporter.config.addresses import is_loopback
from sr_exporter.configurable import Configurable
from sr_exporter.errors import ConfigError, Interrupted, ListenError
from sr_exporter.heap import Frost
from sr_exporter.ingest import Ingest
from sr_exporter.journal import Journal
from sr_exporter.metrics.own import OwnMetrics
from sr_exporter.metrics.scrape import Exposition
from sr_exporter.model import Kind
from sr_exporter.notify.alerts import Links
from sr_exporter.notify.book import AlertBook
from sr_exporter.notify.letters import Letters
from sr_exporter.notify.notifiers import Notifiers
from sr_exporter.notify.outbox import Outbox
from sr_exporter.notify.rows import Holding
from sr_exporter.notify.rules import Rules
from sr_exporter.order import Order
from sr_exporter.own import NotifierTeller, OwnState
from sr_exporter.progress import Progress
from sr_exporter.reload import Reloader
from sr_exporter.sources.fleet import Fleet
from sr_exporter.sources.listeners import Listeners
from sr_exporter.state import State
from sr_exporter.store.contract import Start
from sr_exporter.store.sqlite import SqliteStore
from sr_exporter.tasks import Tasks, end
from sr_exporter.threads import Pool, elsewhere
from sr_exporter.web.access import Access
from sr_exporter.web.alerts import AlertsRoutes
from sr_exporter.web.changes import ChangesRoute, written
from sr_exporter.web.check import CheckRoutes
from sr_exporter.web.gate import web_server
from sr_exporter.web.health import HealthRoutes
from sr_exporter.web.mi import MiRoute
from sr_exporter.web.notifications import NotificationsRoutes
from sr_exporter.web.page import PageRoutes
from sr_exporter.web.push import PushRoutes
from sr_exporter.web.reload import ReloadRoute
from sr_exporter.web.routes import application
from sr_exporter.web.scrape import ScrapeRoute
from sr_exporter.web.server import listen
from sr_exporter.web.sources import SourcesRoute
from sr_exporter.web.starting import Door, Starting
from sr_exporter.web.status import StatusRoutes

if TYPE_CHECKING:
    import socket
    from collections.abc import Awaitable, Callable, Iterator, Sequence
    from pathlib import Path

    from sr_exporter.config import Config
    from sr_exporter.model import KeyRecord
    from sr_exporter.store.contract import Kept
    from sr_exporter.web.config_file import WebConfigFile
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
    #: How requests are served; None: to everybody, without TLS.
    web: WebConfigFile | None = None


@dataclass(slots=True)
class App:
    """One running exporter."""

    options: Options
    clock: Callable[[], float] = field(default_factory=Clock)
    #: Called when requests are answered, with the addresses listened on.
    on_ready: Callable[[Sequence[socket.socket]], None] = lambda _: None
    #: What is held, once started.
    state: State = field(default_factory=State)
    #: What changed in it, once started.
    journal: Journal | None = None
    #: What answers requests, once started.
    door: Door | None = None
    _reloader: Reloader | None = None
    _reload_asked: bool = False
    _stops: list[tuple[str, Callable[[], Awaitable[None]]]] = field(default_factory=list)

    async def run(self, stop: asyncio.Event) -> None:
        """Start, serve until `stop` is set, and stop.

        Raises:
            ListenError: an address cannot be listened on, for requests or for events.
            StoreUnusable: the store cannot be opened.
        """
        asyncio.get_running_loop().set_default_executor(Pool(thread_name_prefix="asyncio"))
        tasks = Tasks()
        progress = Progress()
        stopping = asyncio.ensure_future(_until(stop, progress))
        try:
            await self._start(tasks, progress)
            await asyncio.wait({stopping, tasks.failed}, return_when=asyncio.FIRST_COMPLETED)
            if tasks.failed.done():
                tasks.failed.result()  # none of them ends by itself: raise what ended it
        except Interrupted as error:
            log.info("asked to stop while it starts", was=str(error))
        finally:
            stopping.cancel()
            await self._stop(tasks)
        log.info("stopped")

    def reload(self) -> None:
        """Have the configuration read again; how that goes is in the log."""
        if self._reloader is None:
            self._reload_asked = True  # while it starts: as soon as it has
        else:
            self._reloader.ask()

    async def _start(self, tasks: Tasks, progress: Progress) -> None:  # noqa: PLR0915 - one list
        config = self.options.config
        sockets = [listen(address) for address in self.options.listen]
        self._on_stop("sockets", lambda: _close_sockets(sockets))

        metrics, access = OwnMetrics(), Access(config.tokens)
        door = self.door = Door(Starting(progress))
        web = web_server(door, sockets, self.options.web, access, metrics, config.limits)
        serving = tasks.start("web", web.run())
        self._on_stop("starting page", lambda: web.end(serving))

        frost = Frost()
        frost.wait()
        self._on_stop("frost", lambda: _thaw(frost))
        state = self.state
        store = SqliteStore(
            self.options.storage_path, retention_seconds=config.storage.retention_seconds
        )
        exposition = Exposition(state, metrics, store)

        def restore(kept: Kept, keys: Iterator[KeyRecord]) -> None:
            """Take up the keys, on the store's thread: nobody else looks at them yet."""
            state.last_seq = kept.last_seq
            state.restore(
                kept.sources, keys, self.clock(), kept.tombstones, each=exposition.restored
            )

        kept = await asyncio.to_thread(store.load, Start(Holding(), restore, progress))
        self._on_stop("store", lambda: elsewhere(store.close))
        frost.begin()

        links = Links(self.options.external_url)
        book = AlertBook(state, links)
        # What a crash lost is numbered again: no other run may make the same ids.
        run_id = uuid.uuid5(uuid.UUID(kept.store_id), str(uuid.uuid4()))
        outbox = Outbox(book, links, run_id)
        ingest = Ingest(state, store, outbox, self.clock, metrics.limited)
        self._on_stop("ingest", ingest.settle)

        own = OwnState(ingest, state)
        self._on_stop("own state", own.settle)
        ingest.subscribe(own.observe)
        teller = NotifierTeller(metrics, own)
        notifiers = Notifiers(state, store, book, outbox, links, teller, tasks, self.clock)
        notifiers.restore(kept, config.notifiers, Rules(config.rules, watchdog=config.watchdog))
        ingest.subscribe(notifiers.observe)
        ingest.subscribe(exposition.observe)
        journal = self.journal = Journal(store, kept.last_seq, written)
        ingest.subscribe(journal.observe)
        order = Order(state)
        ingest.subscribe(order.observe)

        push = PushRoutes(ingest, state, access, metrics)
        fleet = Fleet(ingest, metrics, tasks, self.clock)
        ingest.subscribe(fleet.observe)
        metrics.events.watch_subscriptions(fleet.subscriptions, self.clock)

        listeners = Listeners(ingest, metrics.events, metrics.limited)
        self._on_stop("listeners", listeners.stop)

        configurable = Configurable(
            ingest, outbox, notifiers, own, access, push, store, fleet, listeners, web.connected
        )
        metrics.watch_connections(lambda: len(web.connected), listeners.connections)

        # All of this is settled before anybody is answered by it: nothing is shown half.
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
        door.application = application(
            scrape=ScrapeRoute(exposition, ingest),
            push=push,
            page=PageRoutes(
                state,
                ingest,
                store,
                book,
                fleet,
                self.clock,
                catch_up=notifiers.catch_up,
                external_url=self.options.external_url,
                heard_before=_heard_before(kept),
            ),
            health=HealthRoutes(ingest),
            reload=ReloadRoute(reloader.reload, access),
            sources=SourcesRoute(state, fleet.subscriptions, order),
            notifications=NotificationsRoutes(
                Letters(store, outbox, book, links, self.clock), access
            ),
            alerts=AlertsRoutes(book, notifiers.names, self.clock, catch_up=notifiers.catch_up),
            check=CheckRoutes(state, ingest),
            changes=ChangesRoute(journal, store, metrics.limited),
            status=StatusRoutes(state, ingest, order),
            mi=MiRoute(ingest, state, access, metrics, self.clock),
        )
        # Earlier than the starting page: what requests use is still there when they end.
        self._on_stop("web", lambda: web.end(serving))
        tasks.start("journal", journal.run())
        self._on_stop("streams", lambda: _end_streams(journal))
        self._on_stop("polls", fleet.stop)
        tasks.start("loop lag", metrics.lag.run())
        if isinstance(self.clock, Clock):
            tasks.start("clock", self.clock.run(ingest.set_clock, notifiers.set_clock))
        tasks.start("store watch", own.watch_store(store))
        tasks.start("owed watch", teller.watch_owed())
        reloading = tasks.start("reload", reloader.run())
        if self._reload_asked:
            reloader.ask()
        self._on_stop("reload", lambda: _stop_reloading(reloader, reloading))
        self._on_stop("pushes", lambda: _refuse(ingest))
        self._say_started(config, state, progress.seconds)
        self.on_ready(sockets)

    def _say_started(self, config: Config, state: State, seconds: float) -> None:
        log.info(
            "started",
            version=__version__,
            listening=", ".join(str(address) for address in self.options.listen),
            identifiers=state.identifiers,
            sources=len(config.sources),
            notifiers=len(config.notifiers),
            seconds=round(seconds, 2),
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


async def _begin(configurable: Configurable, config: Config) -> None:
    """Put the first configuration in force.

    Raises:
        ListenError: events cannot be listened for.
    """
    try:
        await configurable.apply(config)
    except ConfigError as error:
        raise ListenError("; ".join(map(str, error.faults))) from None


def _heard_before(kept: Kept) -> dict[str, float]:
    """Give when polled sources were last heard by who ran before us."""
    return {
        source.name: source.last_seen
        for source in kept.sources
        if source.kind is Kind.POLLED and source.last_seen is not None
    }


async def _until(stop: asyncio.Event, progress: Progress) -> None:
    await stop.wait()
    progress.interrupt()


async def _thaw(frost: Frost) -> None:
    frost.end()


async def _refuse(ingest: Ingest) -> None:
    """Refuse new pushes: what is accepted from here on might not be kept."""
    ingest.open = False


async def _close_sockets(sockets: Sequence[socket.socket]) -> None:
    for one in sockets:
        one.close()


async def _end_streams(journal: Journal) -> None:
    journal.stop()


async def _stop_reloading(reloader: Reloader, reloading: asyncio.Task[None]) -> None:
    await end([reloading])
    await reloader.stop()
