"""Timelines as lines of SVG. Pure.

Each standing has a shape of its own: colour alone would tell some people nothing. What is not ready
fills the height and is never too short to be seen, what is ready runs along the foot, what nobody
knows is broken, and while a key was not held there is nothing.
"""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING, NamedTuple

from sr_exporter.web.past import Span, Standing

if TYPE_CHECKING:
    from collections.abc import Sequence

HEIGHT = 12


class Drawing(NamedTuple):
    """The paths of one timeline, `width` wide and HEIGHT high."""

    width: int
    ready: str
    not_ready: str
    unknown: str


def draw(spans: Sequence[Span], begin: float, end: float, width: int) -> Drawing:
    """Draw what was from `begin` to `end`, in so many columns."""
    columns = [Standing.ABSENT] * width
    scale = width / max(end - begin, 1e-9)
    for span in sorted(spans, key=_as_drawn):
        first = min(width - 1, max(0, int((span.begin - begin) * scale)))
        last = min(width, max(first + 1, int((span.end - begin) * scale)))
        columns[first:last] = [_as_drawn(span)] * (last - first)
    paths: dict[Standing, list[str]] = {standing: [] for standing in Standing}
    at = 0
    for standing, run in groupby(columns):
        length = sum(1 for _ in run)
        paths[standing].append(_piece(standing, at, length))
        at += length
    ready, unknown, not_ready = ("".join(paths[one]) for one in _DRAWN)
    return Drawing(width, ready=ready, not_ready=not_ready, unknown=unknown)


_DRAWN = (Standing.READY, Standing.UNKNOWN, Standing.NOT_READY)


def _as_drawn(span: Span) -> Standing:
    return Standing.UNKNOWN if span.standing is Standing.UNREAD else span.standing


def _piece(standing: Standing, at: int, length: int) -> str:
    if standing is Standing.NOT_READY:
        return f"M{at} 0h{length}v{HEIGHT}h-{length}z"
    if standing is Standing.READY:
        return f"M{at} {HEIGHT - 4}h{length}v4h-{length}z"
    return f"M{at} {HEIGHT // 2}h{length}" if standing is Standing.UNKNOWN else ""
