"""Every notifier at work: what feeds them, who sends, and how they change while they run."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import structlog

from sr_exporter.config import Alertmanager, Webhook
from sr_exporter.errors import NotKept
from sr_exporter.notify import alerts
from sr_exporter.notify.alertmanager import AlertmanagerSender
from sr_exporter.notify.edges import EdgeNotifier
from sr_exporter.notify.levels import Levels
from sr_exporter.notify.watchdog import Watchdog
from sr_exporter.notify.webhook import WebhookSender
from sr_exporter.store.contract import Batch, Standing

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence

    from sr_exporter.held import Entry, Reported, Source
    from sr_exporter.notify.alertmanager import Instance
    from sr_exporter.notify.alerts import Links
    from sr_exporter.notify.book import AlertBook
    from sr_exporter.notify.figures import NotifierObserver
    from sr_exporter.notify.outbox import Outbox
    from sr_exporter.notify.rules import Rules
    from sr_exporter.outcome import Outcome
    from sr_exporter.state import State
    from sr_exporter.store.contract import Kept, Owed, Store
    from sr_exporter.tasks import Tasks

log = structlog.get_logger(__name__)

Config = Alertmanager | Webhook
Sender = AlertmanagerSender | WebhookSender

#: How long the last words to notifiers may take: at a stop, and to those that leave.
LAST_WORDS_SECONDS = 5.0
_GONE = "the notifier is no longer configured"
_UNKNOWN = "it is not known why"


class Notifiers:
    """All of them, by name. `configure` makes them those of a configuration."""

    def __init__(
        self,
        state: State,
        store: Store,
        book: AlertBook,
        outbox: Outbox,
        links: Links,
        observer: NotifierObserver,
        tasks: Tasks,
        clock: Callable[[], float],
    ) -> None:
        self._state = state
        self._store = store
        self._observer = observer
        self._tasks = tasks
        self._clock = clock
        self._book = book
        self._outbox = outbox
        self._levels = Levels(book, store, self._wake, clock, followed=lambda: bool(self._senders))
        self._watchdog = Watchdog(links, clock)
        self._senders: dict[str, Sender] = {}
        self._following = False
        self._parting: _Parting | None = None

    def names(self) -> list[str]:
        """Give the names of those that are told."""
        return list(self._senders)

    def observe(self, outcome: Outcome) -> None:
        """Follow what is observed."""
        self._levels.observe(outcome)

    async def catch_up(self) -> None:
        """Bring the book of alerts up to date: where nobody is told it waits for its readers."""
        await self._levels.catch_up()

    def set_clock(self, by_seconds: float) -> None:
        """Be told that our clock was set: what is owed is not late, or early, for that."""
        for queue in self._outbox.queues.values():
            queue.set_clock(by_seconds)

    def restore(self, kept: Kept, configured: Iterable[Config], rules: Rules) -> None:
        """Take up what was owed and given out before; `configure` with the same follows."""
        self._book.restore(kept.alerts, self._clock())
        self._outbox.restore(kept.outbox, _edges(configured), rules)

    def configure(self, configured: Sequence[Config], rules: Rules, *, beat_seconds: float) -> None:
        """Notify these, by these rules, from now on; `part` follows.

        `beat_seconds` is how often webhooks are told of the watchdog, if there is one. Nothing
        else happens meanwhile: no change falls between two rules.
        """
        now = self._clock()
        wanted = {one.name: one for one in configured}
        owed = self._rename(wanted)
        if self._senders:
            self._levels.refresh(now=now)  # by the rules of before, as the outbox stands
        gone = [name for name, sender in self._senders.items() if not _fits(sender, wanted, name)]
        urls = {one.url.reveal() for one in configured if isinstance(one, Webhook)}
        owed |= self._outbox.configure(
            _edges(configured),
            rules,
            self._unwell(),
            now,
            # A receiver that another notifier goes on with is told nothing: it goes on.
            quiet={name for name in gone if _url_of(self._senders[name]) in urls},
        )
        self._book.change_rules(rules)
        # Where nobody is told, the book waits for its readers.
        kept = self._levels.refresh(owed, now=now, most=None if configured else 0)
        if kept is not None:
            kept.add_done_callback(lambda _: self._outbox.kept(list(owed)))
        leaving = [self._senders.pop(name) for name in gone]
        self._watchdog.configure(
            [one for one in configured if isinstance(one, Webhook)],
            self._book.told(alerts.NOBODY),
            beat_seconds,
        )
        left = self._reconfigure(wanted, leaving)
        self._parting = _Parting(configured, leaving, left, self._watchdog, kept)

    async def part(self) -> None:
        """Give those that leave their last words, for a while; then start whoever is new."""
        parting, self._parting = self._parting, None
        if parting is None:
            return
        try:
            await parting.last_words()
        finally:
            parting.close()
        await self._give_up(self._outbox.part())
        if len(parting.configured) == 1:
            log.warning(
                "there is one notifier only: when it takes nothing, nobody is told;"
                " configure a second one",
                notifier=parting.configured[0].name,
            )
        for sender in parting.senders:
            self._observer.left(sender.name)
        self._begin(parting.configured)

    async def stop(self) -> None:
        """Make one last round of deliveries, within a time limit; what is left stays owed."""
        if self._senders:
            self._levels.refresh()
        await self._watchdog.stop()
        senders = list(self._senders.values())
        if not await _within(sender.drain() for sender in senders):
            left = sum(sender.backlog for sender in senders)
            log.warning("stopping with notifications owed", owed=left)
        for sender in senders:
            sender.close()
        await self._levels.settle()

    # --- changing -----------------------------------------------------------------------------

    def _rename(self, wanted: Mapping[str, Config]) -> dict[str, Owed | None]:
        """Have webhooks that only their name is new of go on. Gives the rows to write."""
        owed: dict[str, Owed | None] = {}
        heirs = {
            one.url.reveal(): name
            for name, one in wanted.items()
            if isinstance(one, Webhook) and name not in self._senders
        }
        for old, sender in list(self._senders.items()):
            if not isinstance(sender, WebhookSender) or _fits(sender, wanted, old):
                continue
            new = heirs.pop(sender.url, None)
            if new is None:
                continue
            owed |= self._outbox.rename(old, new)
            self._senders[new] = self._senders.pop(old)
            sender.name = new
            self._observer.left(old)
            self._observer.joined(new, _backlog_of(sender), sender.error)
        return owed

    def _unwell(self) -> list[Entry | Reported | Source]:
        down = [one for one in self._state.sources.values() if one.down_since is not None]
        return [*self._state.not_ready, *self._state.reported(), *down]

    def _reconfigure(
        self, wanted: Mapping[str, Config], leaving: Iterable[Sender]
    ) -> list[Instance]:
        """Give those that stay their configuration. Gives every Alertmanager that left."""
        left: list[Instance] = []
        for name, sender in self._senders.items():
            config = wanted[name]
            if isinstance(sender, WebhookSender) and isinstance(config, Webhook):
                sender.configure(config)
            elif isinstance(sender, AlertmanagerSender) and isinstance(config, Alertmanager):
                left += sender.configure(config)
        for sender in leaving:
            if isinstance(sender, AlertmanagerSender):
                left += sender.leave()
        return left

    def _begin(self, configured: Iterable[Config]) -> None:
        """Start whoever is new."""
        held, self._senders = self._senders, {}
        for config in configured:
            sender = held.get(config.name)
            if sender is None:
                # At a start: that it is said to take nothing has not ended with that.
                error = None if self._following else self._last_error(config.name)
                sender = self._new(config, error)
                owes = isinstance(sender, WebhookSender)
                self._observer.joined(sender.name, _backlog_of(sender), error, owes=owes)
            self._senders[config.name] = sender
            sender.start(self._tasks)
        self._watchdog.start(self._tasks)
        if not self._following:
            self._following = True
            self._tasks.start("levels", self._levels.run())

    def _last_error(self, name: str) -> str | None:
        """Give why a notifier took nothing when the exporter stopped; None: it took it."""
        entry = self._state.entry(alerts.key_of_notifier(name))
        return None if entry is None or entry.ready else entry.details or _UNKNOWN

    def _new(self, config: Config, error: str | None) -> Sender:
        if isinstance(config, Alertmanager):
            return AlertmanagerSender(
                config, self._book, self._observer, clock=self._clock, doubted=error is not None
            )
        queue = self._outbox.queues[config.name]
        return WebhookSender(
            config, queue, self._store, self._observer, clock=self._clock, error=error
        )

    async def _give_up(self, owed: Sequence[Owed]) -> None:
        """Move what is owed to notifiers that are gone to the dead letters."""
        if not owed:
            return
        for name in sorted({one.notifier for one in owed}):
            count = sum(one.notifier == name for one in owed)
            log.warning("notifications given up", notifier=name, count=count, reason=_GONE)
        dead = {one.id: replace(one, standing=Standing.DEAD, reason=_GONE) for one in owed}
        # What cannot be noted now is found, and given up, again at the next start.
        with contextlib.suppress(NotKept):
            await self._store.commit(Batch(outbox=dict(dead)))

    def _wake(self) -> None:
        for sender in self._senders.values():
            if isinstance(sender, AlertmanagerSender):
                sender.wake()


@dataclass(frozen=True, slots=True)
class _Parting:
    """Who leaves with a configuration."""

    #: Who stays, or is new.
    configured: Sequence[Config]
    senders: Sequence[Sender]
    #: Every Alertmanager, of those senders and of others, that is not told any more.
    instances: Sequence[Instance]
    watchdog: Watchdog
    #: Resolves when the last words are kept.
    kept: asyncio.Future[None] | None

    async def last_words(self) -> None:
        """Have them hear that what they know of has ended."""
        if self.kept is not None:
            await self.kept
        for instance in self.instances:
            await instance.stop()
        staying = {
            url for one in self.configured if isinstance(one, Alertmanager) for url in one.urls
        }
        words = [one.drain() for one in self.senders if isinstance(one, WebhookSender)]
        # An Alertmanager that another notifier goes on with is told by that one.
        words += [one.part() for one in self.instances if one.url not in staying]
        words.append(self.watchdog.part())
        await _within(words)

    def close(self) -> None:
        for sender in self.senders:
            sender.close()
        for instance in self.instances:
            instance.close()


async def _within(last_words: Iterable[Awaitable[None]]) -> bool:
    """Wait for last words, for a while; say whether all were spoken."""
    try:
        async with asyncio.timeout(LAST_WORDS_SECONDS):
            spoken = await asyncio.gather(*last_words, return_exceptions=True)
    except TimeoutError:
        return False
    for error in spoken:
        if isinstance(error, BaseException):
            log.error("last words failed", exc_info=error)
    return True


def _edges(configured: Iterable[Config]) -> list[EdgeNotifier]:
    return [EdgeNotifier(one.name, one.send) for one in configured if isinstance(one, Webhook)]


def _fits(sender: Sender, wanted: Mapping[str, Config], name: str) -> bool:
    """Whether a sender can go on with what is configured under its name."""
    kind = Webhook if isinstance(sender, WebhookSender) else Alertmanager
    return isinstance(wanted.get(name), kind)


def _url_of(sender: Sender) -> str | None:
    return sender.url if isinstance(sender, WebhookSender) else None


def _backlog_of(sender: Sender) -> Callable[[], int]:
    return lambda: sender.backlog
