"""Reading what is long in slices: a generator that pauses after each, and returns what it read.

Who has a loop to keep going gives others their turn at every pause (turns.py).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Generator

T = TypeVar("T")


def at_once(reading: Generator[None, None, T]) -> T:
    """Read without a pause."""
    while True:
        try:
            next(reading)
        except StopIteration as end:
            result: T = end.value
            return result
