"""What was measured: kept in lines of JSON, and printed as tables."""

from __future__ import annotations

import json
import statistics
import subprocess
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from pathlib import Path

#: Who was measured.
OURS, GATEWAY, CLIENT, NGINX, FLOOR = (
    "ours",
    "pushgateway",
    "prometheus_client",
    "nginx",
    "floor",
)


@dataclass(frozen=True, slots=True)
class Asked:
    """What a ratio must be."""

    bound: float
    at_least: bool = True

    def __str__(self) -> str:
        return f"{'>=' if self.at_least else '<='} {self.bound:g}"

    def met(self, ratio: float) -> bool:
        return ratio >= self.bound if self.at_least else ratio <= self.bound


def at_least(bound: float) -> Asked:
    return Asked(bound)


def at_most(bound: float) -> Asked:
    return Asked(bound, at_least=False)


def commit() -> str:
    """Name the commit that is checked out; `+` follows where files differ from it."""
    try:
        said = subprocess.run(
            ["git", "describe", "--always", "--abbrev=9", "--dirty=+"],
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return said.stdout.strip()


@dataclass(slots=True)
class Figures:
    """The figures of one command."""

    command: str
    identifiers: int
    name_bytes: int
    out: Path
    _measured: list[tuple[str, ...]] = field(default_factory=list)
    _judged: list[tuple[str, ...]] = field(default_factory=list)
    _commit: str = field(default_factory=commit)

    def measured(self, what: str, who: str, values: Sequence[float], unit: str) -> float:
        """Note what was measured in each round; give the median."""
        middle = statistics.median(values)
        low, high = min(values), max(values)
        shown = (shortly(middle), shortly(low), shortly(high), unit, str(len(values)))
        self._measured.append((what, who, *shown))
        spread = {"median": middle, "min": low, "max": high, "rounds": len(values)}
        self._write({"figure": what, "who": who, "unit": unit, **spread})
        return middle

    def judged(self, what: str, ratio: float, asked: Asked | None = None) -> None:
        """Note a ratio, and what the project asks of it, if anything."""
        met = None if asked is None else asked.met(ratio)
        verdict = "" if met is None else "met" if met else "NOT MET"
        self._judged.append((what, shortly(ratio), str(asked or ""), verdict))
        self._write({"ratio": what, "value": ratio, "asked": str(asked or ""), "met": met})

    def show(self) -> None:
        """Print both tables."""
        title = f"{self.command}: {self.identifiers:,} identifiers, names of {self.name_bytes} B"
        print(f"\n{title}, commit {self._commit}\n")  # noqa: T201
        heads = ("what", "who", "median", "min", "max", "unit", "rounds")
        print(table(heads, self._measured))  # noqa: T201
        if self._judged:
            print()  # noqa: T201
            print(table(("ratio", "is", "asked", ""), self._judged))  # noqa: T201

    def _write(self, line: dict[str, object]) -> None:
        of = {"command": self.command, "identifiers": self.identifiers}
        when = {"commit": self._commit, "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())}
        self.out.parent.mkdir(parents=True, exist_ok=True)
        with self.out.open("a", encoding="utf-8") as out:
            out.write(json.dumps({**of, "name_bytes": self.name_bytes, **line, **when}) + "\n")


def rounds(count: int, acts: Mapping[str, Callable[[], float]]) -> dict[str, list[float]]:
    """Have each act done once in every round, in turn: a noisy minute is everybody's."""
    found: dict[str, list[float]] = {name: [] for name in acts}
    for _ in range(count):
        for name, act in acts.items():
            found[name].append(act())
    return found


def timed(act: Callable[[], object]) -> float:
    """Give how many seconds something takes."""
    began = time.perf_counter()
    act()
    return time.perf_counter() - began


def p99(values: Iterable[float]) -> float:
    """Give what 99 of 100 are not above."""
    ordered = sorted(values)
    return ordered[-(-len(ordered) * 99 // 100) - 1]


def table(heads: tuple[str, ...], lines: Sequence[tuple[str, ...]]) -> str:
    """Lay lines out as a table of Markdown."""
    widths = [max(map(len, column)) for column in zip(heads, *lines, strict=True)]
    rule = tuple("-" * width for width in widths)
    return "\n".join(
        "| " + " | ".join(map(str.ljust, line, widths)) + " |" for line in (heads, rule, *lines)
    )


def shortly(value: float) -> str:
    """Write a value with three digits that count."""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}" if abs(value) >= 0.001 or value == 0 else f"{value:.2e}"
