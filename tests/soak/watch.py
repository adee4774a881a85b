"""What a soaked exporter takes, as time goes by, and whether that stays the same."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass, fields
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

from sr_exporter.store.files import NAME
from tests.bench.processes import cpu_seconds, rss_bytes
from tests.harness import Client

if TYPE_CHECKING:
    from collections.abc import Sequence

#: How many bytes make a megabyte here.
MB = 2**20


@dataclass(frozen=True, slots=True)
class Look:
    """What it takes at one time. The name of each field is that of its column."""

    minutes: float
    rss_mb: float
    files: int
    threads: int
    keys: int
    series: int
    journal: int
    outbox: int
    graves: int
    disk_mb: float
    backlog: int
    lag_ms: float
    scrape_p99_ms: float
    cpu_s: float

    def line(self) -> str:
        return "  ".join(
            f"{getattr(self, field.name):>{max(8, len(field.name))}.{_places(field.type)}f}"
            for field in fields(self)
        )


HEADER = "  ".join(f"{field.name:>8}" for field in fields(Look))


def _places(kind: object) -> int:
    return 1 if kind == "float" else 0


@dataclass(frozen=True, slots=True)
class Bound:
    """How far the median of the last third may be above that of the middle one."""

    name: str
    share: float
    more: float

    def judge(self, middle: Sequence[Look], end: Sequence[Look]) -> tuple[bool, str]:
        before = median(getattr(look, self.name) for look in middle)
        after = median(getattr(look, self.name) for look in end)
        most = before * (1 + self.share) + self.more
        said = f"{self.name}: {before:.1f}, then {after:.1f}; {most:.1f} is allowed"
        return after <= most, said


#: A process that grew by 3 % in ten minutes would have doubled by the evening.
BOUNDS = (
    Bound("rss_mb", 0.03, 1.0),
    Bound("files", 0.0, 6),
    Bound("threads", 0.0, 2),
    Bound("keys", 0.1, 20),
    Bound("series", 0.1, 200),
    Bound("journal", 0.25, 1500),
    Bound("outbox", 0.25, 1500),
    Bound("graves", 0.05, 1200),
    Bound("disk_mb", 0.15, 4.0),
)


class Watch:
    """Looks at one process and its store."""

    def __init__(self, pid: int, base: str, folder: Path) -> None:
        self._pid = pid
        self._client = Client(base)
        self._store = folder / NAME
        self.looks: list[Look] = []

    def look(self, minutes: float, scrapes: Sequence[float]) -> Look:
        """Look once; `scrapes` is how long they took since, in order."""
        found = self._client.metrics()
        backlog = [value for key, value in found.items() if key[0].endswith("notifier_backlog")]
        rows = self._rows()
        proc = Path(f"/proc/{self._pid}")
        seen = Look(
            minutes,
            rss_bytes(self._pid) / MB,
            len(list((proc / "fd").iterdir())),
            len(list((proc / "task").iterdir())),
            rows["keys"],
            len(found),
            rows["changes"],
            rows["outbox"],
            rows["tombstones"],
            sum(one.stat().st_size for one in self._store.parent.iterdir() if one.is_file()) / MB,
            int(sum(backlog)),
            1000 * found["sr_exporter_event_loop_lag_seconds", ()],
            1000 * scrapes[int(0.99 * (len(scrapes) - 1))] if scrapes else 0.0,
            cpu_seconds(self._pid),
        )
        self.looks.append(seen)
        return seen

    def _rows(self) -> dict[str, int]:
        database = sqlite3.connect(f"file:{self._store}?mode=ro", uri=True, timeout=10)
        try:
            return {
                table: database.execute(f"SELECT count(*) FROM {table}").fetchone()[0]
                for table in ("keys", "changes", "outbox", "tombstones")
            }
        finally:
            database.close()

    def close(self) -> None:
        self._client.close()

    def table(self) -> list[str]:
        """Write what it took at the start, in the middle, and at the end."""
        looks = self.looks
        return [HEADER] + [one.line() for one in (looks[0], looks[len(looks) // 2], looks[-1])]

    def verdicts(self) -> list[tuple[bool, str]]:
        """Say of each bound whether it held, and how far it was away."""
        third = max(1, len(self.looks) // 3)
        middle, end = self.looks[third : 2 * third], self.looks[-third:]
        return [bound.judge(middle, end) for bound in BOUNDS]
