"""The exporter's metrics about itself: pushes, polls, notifiers, the store, the process."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    GCCollector,
    Histogram,
    PlatformCollector,
    ProcessCollector,
)

from sr_exporter import __version__
from sr_exporter.limited import Limited
from sr_exporter.metrics import faces
from sr_exporter.metrics.events import EventMetrics
from sr_exporter.metrics.exposition import Family, Kind, Sample, families_of
from sr_exporter.metrics.lag import LoopLag
from sr_exporter.metrics.polls import POLL_FAMILIES, PollMetrics

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sr_exporter.store.contract import StoreFigures

#: Every code the push route answers with, so that each counter exists at 0.
PUSH_CODES = (200, 400, 401, 403, 413, 415, 503)
#: Why the web configuration has requests turned away.
WEB_REASONS = ("credentials", "busy", "rate_limit", "connection")
RESULTS = ("accepted", "retried", "dead")
#: What connections are made to.
LISTENERS = ("http", "events")
_LATENCIES = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)


class OwnMetrics:
    """Counts; implements `PollObserver`, and most of `NotifierObserver`."""

    def __init__(self) -> None:
        self.events = EventMetrics()
        self.polls = PollMetrics()
        self.lag = LoopLag()
        self.limited = Limited()
        self._connections: dict[str, Callable[[], int]] = dict.fromkeys(LISTENERS, lambda: 0)
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        PlatformCollector(registry=self._registry)
        GCCollector(registry=self._registry)
        self._push_requests = Counter(
            "sr_exporter_push_requests",
            "Pushes, by the code of the answer.",
            ["code"],
            registry=self._registry,
        )
        #: To look one up costs more than to count.
        self._pushed = {code: self._push_requests.labels(str(code)) for code in PUSH_CODES}
        self._notifications = Counter(
            "sr_exporter_notifications",
            "Deliveries to notifiers, by how they ended.",
            ["notifier", "result"],
            registry=self._registry,
        )
        self._latency = Histogram(
            "sr_exporter_notification_latency_seconds",
            "From a change being seen to its notification being accepted.",
            ["notifier"],
            buckets=_LATENCIES,
            registry=self._registry,
        )
        self._backlog = Gauge(
            "sr_exporter_notifier_backlog",
            "Notifications that are owed.",
            ["notifier"],
            registry=self._registry,
        )
        self._reload_good = Gauge(
            "sr_exporter_config_last_reload_successful",
            "Whether the configuration was last read without a fault.",
            registry=self._registry,
        )
        self._reload_time = Gauge(
            "sr_exporter_config_last_reload_success_timestamp_seconds",
            "When the configuration was last read without a fault.",
            registry=self._registry,
        )
        self._web_good = Gauge(
            "sr_exporter_web_config_last_reload_successful",
            "Whether the web configuration file is in force as it is; 1 without one.",
            registry=self._registry,
        )
        self._web_good.set(1)
        self._web_refused = Counter(
            "sr_exporter_web_requests_refused",
            "Requests, and connections, that the web configuration had turned away.",
            ["reason"],
            registry=self._registry,
        )
        for reason in WEB_REASONS:
            self._web_refused.labels(reason)
        Gauge(
            "sr_exporter_event_loop_lag_seconds",
            "The longest that the event loop was late within the last minute.",
            registry=self._registry,
        ).set_function(self.lag.worst)
        build = Gauge(
            "sr_exporter_build_info",
            "Version of this exporter; always 1.",
            ["version"],
            registry=self._registry,
        )
        build.labels(__version__).set(1)

    # --- the configuration -----------------------------------------------------------------

    def configured(self, now: float) -> None:
        self._reload_good.set(1)
        self._reload_time.set(now)

    def not_configured(self) -> None:
        self._reload_good.set(0)

    def watch_connections(self, http: Callable[[], int], events: Callable[[], int]) -> None:
        """Ask at each scrape how many connections there are."""
        self._connections = dict(zip(LISTENERS, (http, events), strict=True))

    def web_configured(self) -> None:
        self._web_good.set(1)

    def web_not_configured(self) -> None:
        self._web_good.set(0)

    def web_refused(self, reason: str) -> None:
        self._web_refused.labels(reason).inc()

    def add_source(self, source: str, interval_seconds: float) -> None:
        self.polls.add(source, interval_seconds)

    def remove_source(self, source: str) -> None:
        self.polls.remove(source)

    def add_notifier(self, notifier: str, backlog: Callable[[], int]) -> None:
        for result in RESULTS:
            self._notifications.labels(notifier, result)
        self._latency.labels(notifier)
        self._backlog.labels(notifier).set_function(backlog)

    def remove_notifier(self, notifier: str) -> None:
        for result in RESULTS:
            self._notifications.remove(notifier, result)
        self._latency.remove(notifier)
        self._backlog.remove(notifier)

    # --- what happens ----------------------------------------------------------------------

    def pushed(self, code: int) -> None:
        counted = self._pushed.get(code) or self._push_requests.labels(str(code))
        counted.inc()

    def polled(self, source: str, duration_seconds: float) -> None:
        self.polls.took(source, duration_seconds)

    def paced(self, source: str, interval_seconds: float) -> None:
        self.polls.paced(source, interval_seconds)

    def delivered(self, notifier: str, result: str) -> None:
        self._notifications.labels(notifier, result).inc()

    def latency(self, notifier: str, seconds: float) -> None:
        self._latency.labels(notifier).observe(seconds)

    # --- at a scrape -----------------------------------------------------------------------

    def families(self, store: StoreFigures) -> Iterator[Family]:
        """Give every family of the exporter itself, from scratch."""
        yield from faces.anew(POLL_FAMILIES, self.polls.sources.items())
        yield from self.small_families(store)

    def small_families(self, store: StoreFigures) -> Iterator[Family]:
        """Give those that do not grow with the number of polled sources."""
        yield from self.events.families()
        yield Family(
            "sr_exporter_limited_total",
            Kind.COUNTER,
            "How often a limit was met.",
            [
                Sample("", (("limit", limit.value),), count)
                for limit, count in self.limited.counts.items()
            ],
        )
        yield Family(
            "sr_exporter_connections",
            Kind.GAUGE,
            "Connections that are open, by what listens.",
            [
                Sample("", (("listener", listener),), count())
                for listener, count in self._connections.items()
            ],
        )
        yield from _of_store(store)
        yield from families_of(self._registry.collect())


def _of_store(figures: StoreFigures) -> Iterator[Family]:
    rows = (
        ("commits_total", Kind.COUNTER, "Commits.", figures.commits_total),
        (
            "commit_failures_total",
            Kind.COUNTER,
            "Commits that failed.",
            figures.commit_failures_total,
        ),
        (
            "commit_seconds_total",
            Kind.COUNTER,
            "Time spent in commits.",
            figures.commit_seconds_total,
        ),
        ("batches_total", Kind.COUNTER, "Batches that commits kept.", figures.batches_total),
        (
            "changes_given_up_total",
            Kind.COUNTER,
            "Changes that no commit could keep, and for which no room was left in memory.",
            figures.changes_given_up_total,
        ),
        ("waiting_batches", Kind.GAUGE, "Batches that wait for a commit.", figures.waiting),
        ("size_bytes", Kind.GAUGE, "Size of the database's files.", figures.size_bytes),
        ("up", Kind.GAUGE, "Whether the last commit succeeded.", int(figures.error is None)),
    )
    for name, kind, text, value in rows:
        yield Family(f"sr_exporter_store_{name}", kind, text, [Sample("", (), value)])
