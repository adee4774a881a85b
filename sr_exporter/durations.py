"""Durations as Prometheus writes them: `1h30m`, `90s`, `500ms`, `2w`."""

from __future__ import annotations

import math
import re

#: Milliseconds of each unit, in the order in which they are written.
_UNITS = {
    "y": 365 * 86_400_000,
    "w": 7 * 86_400_000,
    "d": 86_400_000,
    "h": 3_600_000,
    "m": 60_000,
    "s": 1_000,
    "ms": 1,
}
_DURATION = re.compile("".join(rf"(?:([0-9]+){unit})?" for unit in _UNITS))
#: Written only when nothing is left over: `90d` reads better than `12w6d`.
_WHOLE_ONLY = frozenset({"y", "w"})
#: Where Prometheus stops too: 2^63 nanoseconds, some 292 years.
_LONGEST_MS = 2**63 // 1_000_000
_LONGEST_TEXT = 64


def parse_duration(text: str) -> float:
    """Read a duration, in seconds; ValueError says what a duration looks like."""
    if text == "0":
        return 0.0
    match = _DURATION.fullmatch(text) if 0 < len(text) <= _LONGEST_TEXT else None
    if match is None:
        raise ValueError(
            "not a duration: write a number and a unit, as in 90s, 1h30m or 500ms "
            "(units y w d h m s ms, in this order, each once)"
        )
    total = sum(
        int(digits) * milliseconds
        for digits, milliseconds in zip(match.groups(), _UNITS.values(), strict=True)
        if digits is not None
    )
    if total > _LONGEST_MS:
        raise ValueError("too long: a duration is at most 292y")
    return total / 1000


def format_duration(seconds: float) -> str:
    """Write seconds, rounded to milliseconds, as `parse_duration` reads them."""
    if not math.isfinite(seconds) or seconds < 0:
        raise ValueError(f"not a duration: {seconds}")
    left = round(seconds * 1000)
    written = ""
    for unit, milliseconds in _UNITS.items():
        if unit in _WHOLE_ONLY and left % milliseconds:
            continue
        count, left = divmod(left, milliseconds)
        if count:
            written += f"{count}{unit}"
    return written or "0s"
