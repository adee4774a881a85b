"""Work that goes on: that one ends by itself is seen, and what is cancelled is over."""

from __future__ import annotations

import asyncio

import pytest

from sr_exporter.tasks import Tasks, end


async def _for_ever() -> None:
    await asyncio.get_running_loop().create_future()


async def _breaks() -> None:
    await asyncio.sleep(0)
    raise OSError("broken")


async def _ends() -> None:
    await asyncio.sleep(0)


def test_the_first_error_is_told():
    """Of all that goes on; what is cancelled is no error."""

    async def run() -> None:
        tasks = Tasks()
        going_on = tasks.start("going on", _for_ever())
        cancelled = tasks.start("cancelled", _for_ever())
        await end([cancelled])
        assert cancelled.cancelled()
        assert not tasks.failed.done()
        tasks.start("breaks", _breaks())
        with pytest.raises(OSError, match="broken"):
            await tasks.failed
        assert not going_on.done()
        tasks.start("breaks too", _breaks())
        await asyncio.sleep(0.01)
        await tasks.stop()
        assert going_on.cancelled()

    asyncio.run(run())


def test_what_ends_by_itself_is_a_fault():
    """It was to go on for ever: something it should do is not done any more."""

    async def run() -> None:
        tasks = Tasks()
        tasks.start("poll sip-1", _ends())
        with pytest.raises(RuntimeError, match="poll sip-1 ended by itself"):
            await tasks.failed

    asyncio.run(run())


def test_stopping_ends_all():
    """And leaves nothing to be waited for."""

    async def run() -> None:
        tasks = Tasks()
        started = [tasks.start(str(number), _for_ever()) for number in range(3)]
        await tasks.stop()
        assert all(task.cancelled() for task in started)
        assert tasks.failed.cancelled()

    asyncio.run(run())
