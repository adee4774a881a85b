"""Puts a configuration in force: at the start, and at each reload."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sr_exporter.mi.transports import name_of
from sr_exporter.model import Configured, PolledSource
from sr_exporter.notify.rules import Rules
from sr_exporter.report_rules import ReportRules

if TYPE_CHECKING:
    from sr_exporter.config import Config
    from sr_exporter.ingest import Ingest
    from sr_exporter.notify.notifiers import Notifiers
    from sr_exporter.notify.outbox import Outbox
    from sr_exporter.own import OwnState
    from sr_exporter.sources.fleet import Fleet
    from sr_exporter.sources.listeners import Listeners
    from sr_exporter.store.contract import Store
    from sr_exporter.web.access import Access
    from sr_exporter.web.connected import Connected
    from sr_exporter.web.push import PushRoutes


@dataclass(frozen=True, slots=True)
class Configurable:
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
    connected: Connected

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
        # First: no event may bring back a source that leaves.
        self.listeners.apply(prepared)
        # Alerts of sources and notifiers that leave end by the rules of before.
        await self.ingest.observe(
            Configured(
                polled,
                config.limits.identifiers,
                tuple(sorted(only_events)),
                ReportRules(config.reports.rules, config.reports.switched_off),
                config.limits.subjects,
                config.limits.identifiers_per_source,
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
        self.connected.most = config.limits.connections
        self.store.retain(config.storage.retention_seconds)
        self.fleet.configure(config.sources, str(config.events.advertise or ""))
        await self.notifiers.part()
        self.own.configure(
            [source.name for source in config.sources],
            [notifier.name for notifier in config.notifiers],
        )
