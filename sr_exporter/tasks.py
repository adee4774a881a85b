"""Work that goes on until it is stopped. That one ends by itself is a fault, and is not hidden."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterable


class Tasks:
    """What is under way; `failed` resolves with the first error of any of it."""

    def __init__(self) -> None:
        self._running: set[asyncio.Task[None]] = set()
        self.failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def start(self, name: str, what: Coroutine[object, object, None]) -> asyncio.Task[None]:
        """Have it done, until it is cancelled."""
        task = asyncio.create_task(what, name=name)
        self._running.add(task)
        task.add_done_callback(self._ended)
        return task

    async def stop(self) -> None:
        """Cancel whatever is left."""
        await end(self._running)
        self.failed.cancel()

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        if task.cancelled() or self.failed.done():
            return
        error = task.exception() or RuntimeError(f"{task.get_name()} ended by itself")
        self.failed.set_exception(error)


async def end(tasks: Iterable[asyncio.Task[None]]) -> None:
    """Cancel tasks and wait until they are over."""
    ending = list(tasks)
    for task in ending:
        task.cancel()
    await asyncio.gather(*ending, return_exceptions=True)
