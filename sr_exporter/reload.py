"""Reading the configuration again, and putting it in force, while everything goes on."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import structlog

from sr_exporter.errors import ConfigError, NotReloaded
from sr_exporter.threads import NoThread, Pool

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from sr_exporter.config import Config
    from sr_exporter.metrics.own import OwnMetrics

log = structlog.get_logger(__name__)

#: How long reading may take: a FIFO, or a disk that hangs, must not end all reloading.
READ_SECONDS = 30.0
#: How many faults are named in the log.
MOST_FAULTS = 100


class Reloader:
    """Reloads when asked to: one at a time, and once for all who asked before it began."""

    def __init__(
        self,
        read: Callable[[], Config],
        apply: Callable[[Config], Awaitable[None]],
        metrics: OwnMetrics,
        clock: Callable[[], float],
    ) -> None:
        self._read = read
        self._apply = apply
        self._metrics = metrics
        self._clock = clock
        self._pool = _one_thread()
        self._asked = asyncio.Event()
        self._waiting: list[asyncio.Future[None]] = []
        self._over = False

    async def reload(self) -> None:
        """Read the configuration and put it in force; returns when that is done.

        Raises:
            ConfigError: something is wrong in it; nothing was changed.
            NotReloaded: the exporter is stopping, or it failed at it.
        """
        if self._over:
            raise NotReloaded("the exporter is stopping")
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(done)
        self._asked.set()
        await done

    def ask(self) -> None:
        """Have it reloaded soon; how that goes is in the log."""
        self._asked.set()

    async def run(self) -> None:
        """Reload whenever it is asked for, for ever."""
        while True:
            await self._asked.wait()
            self._asked.clear()
            waiting, self._waiting = self._waiting, []
            try:
                error = await self._reload()
            except asyncio.CancelledError:
                self._waiting += waiting
                raise
            _answer(waiting, error)

    async def stop(self) -> None:
        """Take no more; whoever waits is told so."""
        self._over = True
        _answer(self._waiting, NotReloaded("the exporter is stopping"))
        self._pool.shutdown(wait=False, cancel_futures=True)

    async def _read_in_time(self) -> Config:
        try:
            reading = asyncio.get_running_loop().run_in_executor(self._pool, self._read)
        except NoThread as error:
            raise NotReloaded(str(error)) from None
        reading.add_done_callback(lambda done: done.cancelled() or done.exception())
        await asyncio.wait({reading}, timeout=READ_SECONDS)
        if not reading.done():
            self._pool.shutdown(wait=False)
            self._pool = _one_thread()
            raise NotReloaded(f"the configuration could not be read within {READ_SECONDS:g} s")
        return reading.result()

    async def _reload(self) -> ConfigError | NotReloaded | None:
        try:
            config = await self._read_in_time()
            await self._apply(config)
        except ConfigError as error:
            self._metrics.not_configured()
            for fault in error.faults[:MOST_FAULTS]:
                # The faults are all there is to tell: no traceback.
                log.error("configuration not reloaded", fault=str(fault))  # noqa: TRY400
            if (more := len(error.faults) - MOST_FAULTS) > 0:
                log.error("configuration not reloaded", more_faults=more)  # noqa: TRY400
            return error
        except NotReloaded as error:
            self._metrics.not_configured()
            log.error("configuration not reloaded", error=str(error))  # noqa: TRY400
            return error
        except Exception as error:
            # Half of it may be in force: that must be seen, and must not end what works.
            self._metrics.not_configured()
            log.exception("reload failed")
            return NotReloaded(f"internal error: {type(error).__name__}; the log tells more")
        self._metrics.configured(self._clock())
        log.info(
            "configuration reloaded",
            sources=len(config.sources),
            rules=len(config.rules),
            notifiers=len(config.notifiers),
        )
        return None


def _one_thread() -> Pool:
    """Make a thread of its own: a file on a disk that hangs must hold up nothing else."""
    return Pool(1, thread_name_prefix="reload")


def _answer(waiting: list[asyncio.Future[None]], error: Exception | None) -> None:
    for one in waiting:
        if one.done():
            continue  # whoever asked went away
        if error is None:
            one.set_result(None)
        else:
            one.set_exception(error)
