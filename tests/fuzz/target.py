"""What a target is: something that reads bytes of strangers, and what it may say to them."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from contextlib import AbstractContextManager


class Answered5xx(Exception):  # noqa: N818 - named for what befell the caller
    """The exporter answered with a fault of its own, or with a 503 that its API does not name."""


def _see_nothing() -> None:
    """See that a target which holds nothing holds together."""


class Opened(NamedTuple):
    """What is fed."""

    take: Callable[[bytes], object]
    #: Sees once in a while, and at the end, that what is held holds together.
    look: Callable[[], None] = _see_nothing


@dataclass(frozen=True, slots=True)
class Target:
    name: str
    #: What it needs ends with the context.
    open: Callable[[], AbstractContextManager[Opened]]
    seeds: Sequence[bytes]
    #: The errors it may refuse an input with.
    declared: tuple[type[Exception], ...] = ()
    #: Words of its format.
    words: Sequence[bytes] = ()
    longest: int = 2048
    #: Its share of the inputs of a run of all targets.
    weight: float = 1.0
    #: Whether inputs leave something behind: it is opened anew from time to time.
    holds: bool = False

    def accepts(self, opened: Opened, data: bytes) -> bool:
        """Feed one input; say whether it was taken. Raises what it must not raise."""
        try:
            opened.take(data)
        except self.declared:
            return False
        return True


def pure(
    name: str,
    take: Callable[[bytes], object],
    seeds: Sequence[bytes],
    *,
    declared: tuple[type[Exception], ...] = (),
    words: Sequence[bytes] = (),
    longest: int = 2048,
    weight: float = 1.0,
) -> Target:
    """Make a target of a function that holds nothing."""

    @contextlib.contextmanager
    def open_() -> Iterator[Opened]:
        yield Opened(take)

    return Target(name, open_, seeds, declared, words, longest, weight)
