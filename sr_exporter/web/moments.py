"""Times as people read them: how long ago first, and when."""

from __future__ import annotations

from datetime import UTC, datetime

_MINUTE, _HOUR, _DAY = 60, 3600, 86_400


def moment(seconds: float) -> str:
    """Write a time, to the second."""
    return _written(seconds, "%Y-%m-%d %H:%M:%S UTC")


def when(seconds: float, now: float) -> str:
    """Write a time, without its day where that is today."""
    day = "%Y-%m-%d"
    today = _written(seconds, day) == _written(now, day)
    return _written(seconds, "%H:%M:%S UTC") if today else moment(seconds)


def clock(seconds: float, now: float) -> str:
    """Write a time where there is little room."""
    day = "%Y-%m-%d"
    today = _written(seconds, day) == _written(now, day)
    return _written(seconds, "%H:%M:%S" if today else "%m-%d %H:%M:%S")


def lasting(seconds: float) -> str:
    """Write how long something took, or takes: two units at most. The past has no end before it."""
    whole = max(0, int(seconds))
    if whole < _MINUTE:
        return f"{whole} s"
    if whole < _HOUR:
        return f"{whole // _MINUTE} min"
    if whole < _DAY:
        hours, minutes = whole // _HOUR, whole % _HOUR // _MINUTE
        return f"{hours} h {minutes} min" if minutes else f"{hours} h"
    days, hours = whole // _DAY, whole % _DAY // _HOUR
    return f"{days} d {hours} h" if hours and days < 10 else f"{days} d"


def machine(seconds: float) -> str:
    """Write a time as HTML's `datetime` has it; "" where it is none of the calendar's."""
    return _written(seconds, "%Y-%m-%dT%H:%M:%SZ", otherwise="")


def _written(seconds: float, form: str, otherwise: str | None = None) -> str:
    try:
        return datetime.fromtimestamp(seconds, UTC).strftime(form)
    except (ValueError, OverflowError, OSError):
        return f"{seconds:.0f} s after 1970" if otherwise is None else otherwise
