"""How events come in, as metrics."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from sr_exporter.metrics.exposition import Family, Kind, Sample
from sr_exporter.model import Rejection, Way

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from sr_exporter.model import Subscribed


class EventMetrics:
    """Counts; implements `EventObserver`."""

    def __init__(self) -> None:
        self._accepted: dict[tuple[str, Way], int] = {}
        # What is wrong with an event in a push is told to the pusher.
        self._rejected = {
            (way, reason): 0 for way in (Way.TCP, Way.UDP, Way.UNIX) for reason in Rejection
        }
        self._dropped: dict[Way, Callable[[], int]] = {}
        self._known: frozenset[str] = frozenset()
        self._subscriptions: Callable[[], Mapping[str, Subscribed]] = dict
        self._clock: Callable[[], float] = time.time

    def configure_events(self, known: frozenset[str], expected: Iterable[tuple[str, Way]]) -> None:
        gone = self._known - known
        self._known = known
        self._accepted = {
            (source, way): count
            for (source, way), count in self._accepted.items()
            if source not in gone
        }
        for source, way in expected:
            self._accepted.setdefault((source, way), 0)

    def event_accepted(self, source: str, way: Way) -> None:
        self._accepted[source, way] = self._accepted.get((source, way), 0) + 1

    def event_rejected(self, way: Way, reason: Rejection) -> None:
        self._rejected[way, reason] += 1

    def watch_drops(self, way: Way, dropped: Callable[[], int] | None) -> None:
        if dropped is None:
            self._dropped.pop(way, None)
        else:
            self._dropped[way] = dropped

    def watch_subscriptions(
        self, subscriptions: Callable[[], Mapping[str, Subscribed]], clock: Callable[[], float]
    ) -> None:
        """Ask at each scrape how our own subscriptions stand, by source."""
        self._subscriptions = subscriptions
        self._clock = clock

    def families(self) -> Iterator[Family]:
        now = self._clock()
        yield Family(
            "opensips_sr_source_subscribed",
            Kind.GAUGE,
            "Whether our subscription to the events of the source is in force (1) or not (0).",
            [
                Sample("", (("source", source),), int(subscribed.holds(now)))
                for source, subscribed in self._subscriptions().items()
            ],
        )
        yield Family(
            "opensips_sr_events_total",
            Kind.COUNTER,
            "Events that were taken.",
            [
                Sample("", (("source", source), ("transport", way.value)), count)
                for (source, way), count in self._accepted.items()
            ],
        )
        yield Family(
            "opensips_sr_events_rejected_total",
            Kind.COUNTER,
            "Events that were not taken, by the reason.",
            [
                Sample("", (("transport", way.value), ("reason", reason.value)), count)
                for (way, reason), count in self._rejected.items()
            ],
        )
        yield Family(
            "opensips_sr_events_dropped_total",
            Kind.COUNTER,
            "Datagrams for which the kernel had no room.",
            [
                Sample("", (("transport", way.value),), dropped())
                for way, dropped in self._dropped.items()
            ],
        )
