"""Who asks for a reload, what they are told, and how often the file is read."""

from __future__ import annotations

import asyncio
import contextlib
import threading

import pytest

from sr_exporter.config import Config
from sr_exporter.errors import ConfigError, Fault, NotReloaded
from sr_exporter.metrics.own import OwnMetrics
from sr_exporter.reload import Reloader


class Bench:
    """A reloader whose file, and whose exporter, do as they are told."""

    def __init__(self) -> None:
        self.reads = 0
        self.applied = 0
        self.error: Exception | None = None
        self.apply_error: Exception | None = None
        #: While it is clear, reading waits.
        self.readable = threading.Event()
        self.readable.set()
        self.reading = threading.Event()
        self.metrics = OwnMetrics()
        self.metrics.configured(1.0)
        self.reloader = Reloader(self.read, self.apply, self.metrics, lambda: 2.0)

    def read(self) -> Config:
        self.reads += 1
        self.reading.set()
        assert self.readable.wait(10)
        if self.error is not None:
            raise self.error
        return Config()

    async def apply(self, _: Config) -> None:
        if self.apply_error is not None:
            raise self.apply_error
        self.applied += 1

    def gauge(self, name: str) -> float:
        value = self.metrics._registry.get_sample_value(f"sr_exporter_config_last_reload_{name}")
        assert value is not None
        return value


def bench(script) -> None:
    async def run() -> None:
        b = Bench()
        running = asyncio.create_task(b.reloader.run())
        try:
            await script(b)
        finally:
            running.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await running
            await b.reloader.stop()

    asyncio.run(run())


def test_a_good_file_is_applied():
    """And the gauges say when."""

    async def script(b: Bench) -> None:
        await b.reloader.reload()
        assert (b.reads, b.applied) == (1, 1)
        assert (b.gauge("successful"), b.gauge("success_timestamp_seconds")) == (1, 2)

    bench(script)


def test_a_faulty_file_is_told_to_who_asked():
    """Nothing is applied; the next good one is."""

    async def script(b: Bench) -> None:
        b.error = ConfigError([Fault("a", "wrong"), Fault("b", "wrong too")])
        with pytest.raises(ConfigError, match="b: wrong too"):
            await b.reloader.reload()
        assert b.applied == 0
        assert (b.gauge("successful"), b.gauge("success_timestamp_seconds")) == (0, 1)
        b.error = None
        await b.reloader.reload()
        assert b.gauge("successful") == 1

    bench(script)


@pytest.mark.parametrize("where", ["error", "apply_error"])
def test_a_fault_of_ours_is_told_and_ends_nothing(where):
    """Whatever broke, the next reload is tried like the first."""

    async def script(b: Bench) -> None:
        setattr(b, where, RuntimeError("a fault of ours"))
        with pytest.raises(NotReloaded, match="internal error: RuntimeError"):
            await b.reloader.reload()
        assert b.gauge("successful") == 0
        setattr(b, where, None)
        await b.reloader.reload()
        assert b.gauge("successful") == 1

    bench(script)


def test_who_asks_while_one_is_under_way_has_the_file_read_again():
    """Once for all of them: what they wrote may have come after the reading began."""

    async def script(b: Bench) -> None:
        b.readable.clear()
        first = asyncio.ensure_future(b.reloader.reload())
        await asyncio.to_thread(b.reading.wait, 10)
        later = [asyncio.ensure_future(b.reloader.reload()) for _ in range(5)]
        for _ in range(5):
            b.reloader.ask()
        await asyncio.sleep(0)
        b.readable.set()
        await asyncio.gather(first, *later)
        assert b.reads == 2

    bench(script)


def test_who_goes_away_is_not_missed():
    """The reload goes on."""

    async def script(b: Bench) -> None:
        b.readable.clear()
        gone = asyncio.ensure_future(b.reloader.reload())
        await asyncio.to_thread(b.reading.wait, 10)
        gone.cancel()
        b.readable.set()
        await b.reloader.reload()
        assert b.applied == 2

    bench(script)


def test_stopping_answers_whoever_waits():
    """A file on a disk that hangs holds up no stop."""

    async def run() -> None:
        b = Bench()
        b.readable.clear()
        running = asyncio.create_task(b.reloader.run())
        waiting = asyncio.ensure_future(b.reloader.reload())
        await asyncio.to_thread(b.reading.wait, 10)
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running
        await b.reloader.stop()
        with pytest.raises(NotReloaded, match="stopping"):
            await waiting
        with pytest.raises(NotReloaded, match="stopping"):
            await b.reloader.reload()
        b.readable.set()

    asyncio.run(run())
