"""Threads for what blocks, on a machine that may have none left.

A pool of the standard library that cannot start a thread raises, and keeps what it was given all
the same: the next thread it has does it, when whoever asked has long done something else.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, ParamSpec, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")
P = ParamSpec("P")


#: What the interpreter says then.
NONE_LEFT = "can't start new thread"


class NoThread(RuntimeError):  # noqa: N818 - named for what befell the caller
    """No thread can be had for it; it is not done."""

    def __init__(self) -> None:
        super().__init__("no thread can be had: this machine, or its limit for us, has none left")


class Pool(ThreadPoolExecutor):
    """Does what it takes, and nothing that it refused."""

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """As any pool does.

        Raises:
            NoThread: none could be started.
            RuntimeError: it is shut down.
        """
        given: Future[T] = Future()

        def run() -> None:
            if not given.set_running_or_notify_cancel():
                return
            try:
                given.set_result(fn(*args, **kwargs))
            except BaseException as error:  # noqa: BLE001 - whoever asked is told
                given.set_exception(error)

        try:
            taken = super().submit(run)
        except RuntimeError as error:
            if not given.cancel():
                return given  # one that was there has taken it meanwhile
            if NONE_LEFT in str(error):
                raise NoThread from None
            raise
        taken.add_done_callback(lambda done: done.cancelled() and given.cancel())
        return given


async def elsewhere(work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Do what takes long on a thread; where none can be had, here and now: late is not never.

    The loop's own pool is a `Pool` in an exporter that runs: what it refused is not done twice.
    """
    try:
        return await asyncio.to_thread(work, *args, **kwargs)
    except RuntimeError as error:
        if not isinstance(error, NoThread) and NONE_LEFT not in str(error):
            raise
        return work(*args, **kwargs)
