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
from sr_exporter.metrics.events import EventMetrics
from sr_exporter.metrics.exposition import Family, Kind, Sample, families_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sr_exporter.store.contract import StoreFigures

#: Every code the push route answers with, so that each counter exists at 0.
PUSH_CODES = (200, 400, 401, 403, 413, 415, 503)
RESULTS = ("accepted", "retried", "dead")
_LATENCIES = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)
_DURATIONS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)


class OwnMetrics:
    """Counts; implements `PollObserver`, and most of `NotifierObserver`."""

    def __init__(self) -> None:
        self.events = EventMetrics()
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
        for code in PUSH_CODES:
            self._push_requests.labels(str(code))
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
        self._poll_duration = Histogram(
            "opensips_sr_poll_duration_seconds",
            "How long polls took, good or not.",
            ["source"],
            buckets=_DURATIONS,
            registry=self._registry,
        )
        self._poll_interval = Gauge(
            "opensips_sr_poll_interval_seconds",
            "From the beginning of the last poll to the next.",
            ["source"],
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

    def add_source(self, source: str, interval_seconds: float) -> None:
        self._poll_duration.labels(source)
        self._poll_interval.labels(source).set(interval_seconds)

    def remove_source(self, source: str) -> None:
        self._poll_duration.remove(source)
        self._poll_interval.remove(source)

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
        self._push_requests.labels(str(code)).inc()

    def polled(self, source: str, duration_seconds: float) -> None:
        self._poll_duration.labels(source).observe(duration_seconds)

    def paced(self, source: str, interval_seconds: float) -> None:
        self._poll_interval.labels(source).set(interval_seconds)

    def delivered(self, notifier: str, result: str) -> None:
        self._notifications.labels(notifier, result).inc()

    def latency(self, notifier: str, seconds: float) -> None:
        self._latency.labels(notifier).observe(seconds)

    # --- at a scrape -----------------------------------------------------------------------

    def families(self, store: StoreFigures) -> Iterator[Family]:
        yield from self.events.families()
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
