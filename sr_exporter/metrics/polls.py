"""How polling goes, as metrics: a histogram and a gauge for each of thousands of sources."""

from __future__ import annotations

from bisect import bisect_left
from itertools import accumulate

from sr_exporter.metrics.exposition import Kind, Sample, number
from sr_exporter.metrics.faces import FaceFamily

_BOUNDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_LE = tuple(map(number, (*_BOUNDS, float("inf"))))


class _Polls:
    """What is counted of one source."""

    __slots__ = ("counts", "interval_seconds", "sum_seconds")

    def __init__(self, interval_seconds: float) -> None:
        self.interval_seconds = interval_seconds
        self.counts = [0] * len(_LE)
        self.sum_seconds = 0.0


class PollMetrics:
    """Counts the polls of each polled source."""

    def __init__(self) -> None:
        self.sources: dict[str, _Polls] = {}

    def add(self, source: str, interval_seconds: float) -> None:
        known = self.sources.setdefault(source, _Polls(interval_seconds))
        known.interval_seconds = interval_seconds

    def remove(self, source: str) -> None:
        del self.sources[source]

    def took(self, source: str, seconds: float) -> None:
        if (polls := self.sources.get(source)) is not None:  # else it left meanwhile
            polls.counts[bisect_left(_BOUNDS, seconds)] += 1
            polls.sum_seconds += seconds

    def paced(self, source: str, interval_seconds: float) -> None:
        if (polls := self.sources.get(source)) is not None:
            polls.interval_seconds = interval_seconds


def _durations(source: str, look: tuple[tuple[int, ...], float]) -> list[Sample]:
    counts, total = look
    label = ("source", source)
    running = list(accumulate(counts))
    return [
        *(
            Sample("_bucket", (label, ("le", le)), count)
            for le, count in zip(_LE, running, strict=True)
        ),
        Sample("_count", (label,), running[-1]),
        Sample("_sum", (label,), total),
    ]


POLL_FAMILIES = (
    FaceFamily(
        "opensips_sr_poll_duration_seconds",
        Kind.HISTOGRAM,
        "How long polls took, good or not.",
        lambda polls: (tuple(polls.counts), polls.sum_seconds),
        _durations,
    ),
    FaceFamily(
        "opensips_sr_poll_interval_seconds",
        Kind.GAUGE,
        "From the beginning of the last poll to the next.",
        lambda polls: polls.interval_seconds,
        lambda source, seconds: [Sample("", (("source", source),), seconds)],
    ),
)
