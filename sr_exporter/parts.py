"""A large poll is applied in parts, so that others have their turn in between.

All parts speak as of the same moment, so what is said between them outranks those that follow
(rule 5). Nothing is removed before the last status is known (rule 6), and what is not listed then
may be much, and is removed in parts too; only after that is the source taken for up. A poll that
breaks off before is one that did not come; one that breaks off among its removals has done part of
what the next will do.
"""

from __future__ import annotations

import enum
from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sr_exporter.model import Snapshot

T = TypeVar("T")


class Part(enum.Flag):
    """Which part of a poll's answer a snapshot is."""

    BETWEEN = 0
    BEGINS = enum.auto()
    #: All statuses were given: this one removes some of what is not among them.
    PRUNES = enum.auto()
    #: With this one, too. It removes all that is left, and makes the source be up.
    LISTS = enum.auto()
    ENDS = enum.auto()
    WHOLE = BEGINS | LISTS | ENDS


def in_parts(
    poll: Snapshot, size: Callable[[], int], beside: int, prunes: Callable[[], bool]
) -> Iterator[Snapshot]:
    """Give a poll in parts of so many statuses, or rings, at most, to be applied in this order.

    `size` is asked for each part once the one before is applied. `beside` is by how many keys more
    are held than it lists; `prunes` says, all statuses being applied, whether anything is left to
    be removed.
    """
    statuses, rings = poll.statuses, poll.reports or ()
    if len(statuses) + len(rings) + beside <= size():
        yield poll
        return
    part = Part.BEGINS
    for some in _slices(statuses, size) if statuses else ((),):
        yield replace(poll, statuses=some, reports=None, part=part)
        part = Part.BETWEEN
    while prunes():
        yield replace(poll, statuses=(), reports=None, part=Part.PRUNES)
    last = Part.LISTS if rings else Part.LISTS | Part.ENDS
    yield replace(poll, statuses=(), reports=None, part=last)
    left = len(rings)
    for listed in _slices(rings, size):
        left -= len(listed)
        part = Part.BETWEEN if left else Part.ENDS
        yield replace(poll, statuses=(), reports=listed, part=part)


def _slices(items: tuple[T, ...], size: Callable[[], int]) -> Iterator[tuple[T, ...]]:
    start = 0
    while start < len(items):
        end = start + size()
        yield items[start:end]
        start = end
