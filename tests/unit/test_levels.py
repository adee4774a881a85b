"""Who follows the levels: at once where somebody is told of alerts, else when they are read."""

from __future__ import annotations

import asyncio
import itertools
from typing import TYPE_CHECKING

import pytest

from sr_exporter.model import Statement
from sr_exporter.notify.alerts import Links
from sr_exporter.notify.book import AlertBook
from sr_exporter.notify.levels import LOOKS, Levels
from sr_exporter.state import State
from tests.hearing import HeldStore

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

MANY = 3 * LOOKS + 1


class Followed:
    """Levels that are followed or not, and the state they are of."""

    def __init__(self, *, followed: bool) -> None:
        self.state = State()
        self.book = AlertBook(self.state, Links("http://sr"))
        self.store = HeldStore()
        self.woken = asyncio.Event()
        self.now = 1000.0
        self.levels = Levels(
            self.book, self.store, self.woken.set, lambda: self.now, followed=lambda: followed
        )

    def push(self, count: int, status: int = -1) -> None:
        for number in range(count):
            said = Statement("push", "g", str(number), status=status)
            self.levels.observe(self.state.apply(said, self.now))

    @property
    def firing(self) -> int:
        return len(list(self.book.firing()))


def run(act: Callable[[Followed], Awaitable[None]], *, followed: bool) -> None:
    async def main() -> None:
        followed_or_not = Followed(followed=followed)
        running = asyncio.ensure_future(followed_or_not.levels.run())
        await asyncio.sleep(0)
        try:
            async with asyncio.timeout(20.0):
                await act(followed_or_not)
        finally:
            running.cancel()

    asyncio.run(main())


def test_who_is_told_is_told_at_once():
    async def act(one: Followed) -> None:
        one.push(1)
        await one.woken.wait()
        assert one.firing == 1

    run(act, followed=True)


def test_where_nobody_is_told_the_book_is_written_when_it_is_read():
    async def act(one: Followed) -> None:
        one.push(1)
        for _ in range(10):
            await asyncio.sleep(0)
        assert one.firing == 0
        await one.levels.catch_up()
        assert one.firing == 1

    run(act, followed=False)


def test_others_have_their_turn_between_many_looks():
    async def act(one: Followed) -> None:
        one.push(MANY)
        catching_up = asyncio.ensure_future(one.levels.catch_up())
        seen = [one.firing]
        while not catching_up.done():
            await asyncio.sleep(0)
            seen.append(one.firing)
        looked_at = [after - before for before, after in itertools.pairwise(seen)]
        assert sum(looked_at) == MANY
        assert max(looked_at) <= LOOKS
        # Each look is kept, and nothing twice.
        kept = [mark for batch in one.store.batches for mark in batch.alerts]
        assert len(kept) == len(set(kept)) == MANY

    run(act, followed=False)


def test_a_reader_is_answered_however_much_goes_on():
    """What is observed meanwhile is for the next reader: else there was no end of it."""

    async def act(one: Followed) -> None:
        one.push(MANY)
        catching_up = asyncio.ensure_future(one.levels.catch_up())
        turns = 0
        while not catching_up.done():
            one.push(10)
            await asyncio.sleep(0)
            turns += 1
        assert turns <= MANY // LOOKS + 2
        assert one.firing == MANY

    run(act, followed=False)


def test_much_that_nobody_read_is_found_all_the_same(monkeypatch):
    monkeypatch.setattr("sr_exporter.notify.book.MOST_NOTED", 10)

    async def act(one: Followed) -> None:
        one.push(25)
        assert one.book.behind <= 10
        await one.levels.catch_up()
        assert one.firing == 25
        one.push(20, status=1)
        assert one.book.behind <= 10
        await one.levels.catch_up()
        assert one.firing == 5

    run(act, followed=False)


def test_what_is_ready_and_never_was_otherwise_is_not_noted():
    """Of a million keys that come and are well nothing is to be looked at."""

    async def act(one: Followed) -> None:
        one.push(MANY, status=1)
        assert one.book.behind <= 2  # their source, and the watchdog

    run(act, followed=False)


@pytest.mark.parametrize("noted", [0, 100])
def test_what_ended_and_began_again_unseen_began_again(monkeypatch, noted):
    """Who asked on Monday and asks on Friday is not told "since Monday" of what flapped."""
    monkeypatch.setattr("sr_exporter.notify.book.MOST_NOTED", noted)

    async def act(one: Followed) -> None:
        one.push(2)
        await one.levels.catch_up()
        one.now += 10.0
        one.push(1, status=1)
        one.now += 10.0
        one.push(1)
        one.now += 10.0
        await one.levels.catch_up()
        assert [alert.starts_at for alert in one.book.firing()] == [1000.0, 1020.0]
        await one.levels.catch_up()
        assert [alert.starts_at for alert in one.book.firing()] == [1000.0, 1020.0]

    run(act, followed=False)
