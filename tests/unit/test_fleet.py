"""Sources that come and go: one connection each, also while one is cut off and another begins."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from sr_exporter.config import Source
from sr_exporter.sources.fleet import Fleet
from sr_exporter.tasks import Tasks

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable


class FakeTransport:
    """Is asked, and never answers; cut off, it keeps its connection until it is let go."""

    name = "http"

    def __init__(self, asked: list[FakeTransport]) -> None:
        self._asked = asked
        self.let_go = asyncio.Event()

    async def ask(self, _: bytes) -> bytes:
        self._asked.append(self)
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            await self.let_go.wait()
        raise AssertionError

    def rest(self) -> None:
        """Keep what there is."""


class FakeTransports:
    def __init__(self) -> None:
        self.asked: list[FakeTransport] = []

    def to(self, *_: object, **__: object) -> FakeTransport:
        return FakeTransport(self.asked)

    def close(self) -> None:
        for transport in self.asked:
            transport.let_go.set()


class Nobody:
    """Observes, and cares for nothing; is asked for a revision, and observed at."""

    revision = 0

    def __getattr__(self, _: str) -> Callable[..., None]:
        return lambda *_, **__: None


def run(act: Callable[[Fleet, FakeTransports], Awaitable[None]]) -> None:
    async def main() -> None:
        tasks = Tasks()
        nobody = Nobody()
        fleet = Fleet(nobody, nobody, tasks, lambda: 0.0)  # type: ignore[arg-type]
        transports = fleet._transports = FakeTransports()  # type: ignore[assignment]
        await act(fleet, transports)
        transports.close()
        await fleet.stop()
        await tasks.stop()

    asyncio.run(main())


async def _a_while() -> None:
    """Let everything go on that can."""
    await asyncio.sleep(0.05)


@pytest.mark.parametrize("between", [[], [()], [(), ()]], ids=["changed", "left", "left for long"])
def test_a_source_is_asked_anew_when_its_connection_is_gone(between):
    """Changed, or removed and back again: OpenSIPS never sees two connections of ours."""

    async def act(fleet: Fleet, transports: FakeTransports) -> None:
        fleet.configure([Source("sip-1", "http://h/mi")])
        await _a_while()
        (first,) = transports.asked
        for sources in between:
            fleet.configure(sources)
            await _a_while()
        fleet.configure([Source("sip-1", "http://other/mi")])
        await _a_while()
        assert transports.asked == [first]
        first.let_go.set()
        await _a_while()
        assert len(transports.asked) == 2

    run(act)


def test_who_waits_for_a_connection_to_go_is_changed_again():
    """The one in between never asked; the last one waits for the first all the same."""

    async def act(fleet: Fleet, transports: FakeTransports) -> None:
        for host in ("a", "b", "c"):
            fleet.configure([Source("sip-1", f"http://{host}/mi")])
            await _a_while()
        (first,) = transports.asked
        first.let_go.set()
        await _a_while()
        assert len(transports.asked) == 2

    run(act)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ([("sip-1", "a")], [("renamed", "a")]),
        ([("sip-1", "a"), ("sip-2", "b")], [("sip-1", "b"), ("sip-2", "a")]),
        ([("sip-1", "a"), ("sip-2", "b")], [("sip-2", "a")]),
    ],
    ids=["renamed", "swapped", "taken over"],
)
def test_a_connection_is_its_addresss_whatever_the_name(before, after):
    """Who asks where another asked before waits until that one is gone."""

    async def act(fleet: Fleet, transports: FakeTransports) -> None:
        def sources(named: list[tuple[str, str]]) -> list[Source]:
            return [Source(name, f"http://{host}/mi", max_share=1.0) for name, host in named]

        fleet.configure(sources(before))
        await asyncio.sleep(0.2)
        first = list(transports.asked)
        fleet.configure(sources(after))
        await _a_while()
        assert transports.asked == first
        for transport in first:
            transport.let_go.set()
        await asyncio.sleep(0.6)
        assert len(transports.asked) == len(first) + len(after)

    run(act)


def test_others_are_not_kept_waiting():
    """A connection that does not go is its source's own."""

    async def act(fleet: Fleet, transports: FakeTransports) -> None:
        fleet.configure([Source("sip-1", "http://a/mi"), Source("sip-2", "http://b/mi")])
        await asyncio.sleep(0.2)
        assert len(transports.asked) == 2
        fleet.configure([Source("sip-1", "http://c/mi"), Source("sip-3", "http://d/mi")])
        await asyncio.sleep(0.2)
        assert len(transports.asked) == 3

    run(act)
