"""Long work in short turns: what is heard, polled or scraped meanwhile is not kept waiting."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Sequence

T = TypeVar("T")

#: How much of what costs next to nothing by itself is done in one turn.
MANY = 5_000


async def in_turns(work: Generator[None, None, T]) -> T:
    """Do work that pauses, and let others on the loop have their turn at every pause."""
    while True:
        try:
            next(work)
        except StopIteration as end:
            result: T = end.value
            return result
        await asyncio.sleep(0)


class Turnstile:
    """Lets so many through in one turn of the loop, however many wait, in the order they came."""

    def __init__(self, many: int) -> None:
        self._many = many
        self._waiting: deque[asyncio.Future[None]] = deque()

    async def turn(self) -> None:
        loop = asyncio.get_running_loop()
        if not self._waiting:  # else it is under way
            loop.call_soon(self._open)
        waiter = loop.create_future()
        self._waiting.append(waiter)
        await waiter

    def _open(self) -> None:
        for _ in range(min(self._many, len(self._waiting))):
            waiter = self._waiting.popleft()
            if not waiter.done():  # else nobody waits for it any more
                waiter.set_result(None)
        if self._waiting:
            asyncio.get_running_loop().call_soon(self._open)


def slices(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    """Give so many at a time."""
    for start in range(0, len(items), size):
        yield items[start : start + size]
