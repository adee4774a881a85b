"""What an exporter is given to hold, and what it must show of it."""

from __future__ import annotations

import json
import random
import time
from array import array
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from prometheus_client import Metric

GROUP = "carriers"
SOURCES = 10
#: How many statuses are pushed in one body.
AT_ONCE = 1000
#: Has no divisor in common with a power of ten: no two numbers become one.
_SCATTER = 2_654_435_761
#: When what is held first happened, all of it within so many milliseconds.
_WITHIN_MS = 3_600_000
_LABELS = ("source", "group", "identifier")


def identifier(number: int, name_bytes: int) -> str:
    """Name one: as uac_registrant does, by the address it registers, and in no order."""
    padding = name_bytes - 40
    label = ("registrar-" * padding)[: padding - 1] + "." if padding else ""
    return f"sip:+49{number * _SCATTER % 10**10:010d}@carrier-{number % 20:02d}.{label}example.net"


class Held:
    """So many keys of one group in each of several sources; knows what was pushed of each."""

    def __init__(self, count: int, name_bytes: int = 40) -> None:
        self.count = count
        self.names = [identifier(number, name_bytes) for number in range(count)]
        self._each = -(-count // SOURCES)
        #: Pushes say when what they tell happened: what must be shown is known in full.
        began = int(time.time()) - 86_400
        self._now = float(began + _WITHIN_MS // 1000)
        self._statuses = array("b", [1]) * count
        self._changes = array("l", [0]) * count
        self._changed_at = array(
            "d", (began + number * 7919 % _WITHIN_MS / 1000 for number in range(count))
        )
        self._random = random.Random(count)

    def source(self, number: int) -> str:
        return f"sip-{number // self._each}"

    def bodies(self, numbers: Sequence[int] | None = None) -> Iterator[bytes]:
        """Give the pushes, in NDJSON, that tell the statuses of these, or of all."""
        chosen = range(self.count) if numbers is None else numbers
        for first in range(0, len(chosen), AT_ONCE):
            lines = [json.dumps(self._item(number)) for number in chosen[first : first + AT_ONCE]]
            yield "\n".join(lines).encode()

    def flip(self, numbers: Sequence[int]) -> Iterator[bytes]:
        """Have these change their status; give the pushes that tell it."""
        self._now += 1
        for number in numbers:
            self._statuses[number] = -self._statuses[number]
            self._changes[number] += 1
            self._changed_at[number] = self._now
        return self.bodies(numbers)

    def some(self, share: float) -> list[int]:
        """Choose a share of all at random."""
        return self._random.sample(range(self.count), max(1, round(self.count * share)))

    def some_of_one_source(self, share: float) -> list[int]:
        """Choose, at random within one source, as many as are that share of all."""
        first = self._random.randrange(self.count // self._each) * self._each
        among = range(first, min(self.count, first + self._each))
        return self._random.sample(among, max(1, round(self.count * share)))

    def registries(self) -> Iterator[CollectorRegistry]:
        """Give each family that must be shown in a registry of prometheus_client's."""
        for family in self._families():
            registry = CollectorRegistry()
            registry.register(_Ready(family))
            yield registry

    def one_series_each(self) -> Iterator[tuple[str, bytes]]:
        """Give for each source its name and the text of its `opensips_sr_status`."""
        for first in range(0, self.count, self._each):
            lines = [
                f'opensips_sr_status{{group="{GROUP}",identifier="{name}"}} 1\n'
                for name in self.names[first : first + self._each]
            ]
            head = "# TYPE opensips_sr_status gauge\n"
            yield self.source(first), (head + "".join(lines)).encode()

    def _item(self, number: int) -> dict[str, object]:
        return {
            "source": self.source(number),
            "group": GROUP,
            "identifier": self.names[number],
            "status": self._statuses[number],
            "at": self._changed_at[number],
        }

    def _families(self) -> Iterator[Metric]:
        yield self._gauge("opensips_sr_status", self._statuses)
        yield self._gauge("opensips_sr_ready", (int(status > 0) for status in self._statuses))
        yield self._counter("opensips_sr_status_changes_total", self._changes)
        name = "opensips_sr_status_change_timestamp_seconds"
        yield self._gauge(name, self._changed_at)
        yield self._counter("opensips_sr_reports_total", (0 for _ in range(self.count)))
        groups = GaugeMetricFamily("opensips_sr_group_ready", "", labels=_LABELS[:2])
        counts = GaugeMetricFamily("opensips_sr_identifiers", "", labels=(*_LABELS[:2], "ready"))
        for first in range(0, self.count, self._each):
            statuses = self._statuses[first : first + self._each]
            group, ready = (self.source(first), GROUP), statuses.count(1)
            groups.add_metric(group, int(ready == len(statuses)))
            counts.add_metric((*group, "true"), ready)
            counts.add_metric((*group, "false"), len(statuses) - ready)
        yield from (groups, counts)

    def _gauge(self, name: str, values: Iterable[float]) -> Metric:
        return self._filled(GaugeMetricFamily(name, "", labels=_LABELS), values)

    def _counter(self, name: str, values: Iterable[float]) -> Metric:
        return self._filled(CounterMetricFamily(name, "", labels=_LABELS), values)

    def _filled(
        self, family: GaugeMetricFamily | CounterMetricFamily, values: Iterable[float]
    ) -> Metric:
        for number, value in enumerate(values):
            family.add_metric((self.source(number), GROUP, self.names[number]), value)
        return family


class _Ready:
    """A collector of what is there already."""

    def __init__(self, family: Metric) -> None:
        self._family = family

    def collect(self) -> Iterator[Metric]:
        yield self._family
