"""A machine that has no thread left: what is refused is not done, later, by another."""

from __future__ import annotations

import asyncio
import threading

import pytest

from sr_exporter.threads import NONE_LEFT, NoThread, Pool, elsewhere


@pytest.fixture
def none_left(monkeypatch):
    """Have no thread start, as long as the event that is given is set."""
    out, start = threading.Event(), threading.Thread.start

    def begin(thread: threading.Thread) -> None:
        if out.is_set():
            raise RuntimeError(NONE_LEFT)
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", begin)
    return out


def test_what_was_refused_is_not_done_by_the_next_thread(none_left):
    """A pool of the standard library would: what it tells to be failed it does in the end."""
    done: list[str] = []
    with Pool(2) as pool:
        none_left.set()
        for _ in range(3):
            with pytest.raises(NoThread, match="no thread can be had"):
                pool.submit(done.append, "refused")
        none_left.clear()
        pool.submit(done.append, "taken").result(10)
    assert done == ["taken"]


def test_what_found_no_thread_is_done_once(none_left):
    """An exporter's loop has such a pool: else a later thread would do it again."""
    done: list[str] = []

    async def twice() -> None:
        asyncio.get_running_loop().set_default_executor(Pool())
        none_left.set()
        await elsewhere(done.append, "first")
        none_left.clear()
        await elsewhere(done.append, "second")

    asyncio.run(twice())
    assert done == ["first", "second"]


def test_a_pool_gives_what_came_of_it():
    """As any does: results, errors, and that it is over."""
    with Pool(1) as pool:
        assert pool.submit(lambda: 1).result(10) == 1
        with pytest.raises(ZeroDivisionError):
            pool.submit(lambda: 1 // 0).result(10)
    with pytest.raises(RuntimeError, match="shutdown"):
        pool.submit(lambda: 1)


def test_what_waits_when_a_pool_ends_is_cancelled():
    """Nobody waits for ever for what is never done."""
    begun, over = threading.Event(), threading.Event()
    pool = Pool(1)
    running = pool.submit(lambda: (begun.set(), over.wait(10)))
    begun.wait(10)
    waiting = pool.submit(lambda: 1)
    pool.shutdown(wait=False, cancel_futures=True)
    assert waiting.cancelled()
    over.set()
    assert running.result(10)


def test_what_finds_no_thread_is_done_where_it_is_asked_for(none_left):
    """Late is not never; an error of the work itself is its own."""

    async def where() -> int:
        try:
            return await elsewhere(threading.get_ident)
        finally:
            none_left.clear()

    none_left.set()
    assert asyncio.run(where()) == threading.get_ident()
    assert asyncio.run(where()) != threading.get_ident()

    def fails() -> None:
        raise RuntimeError("of the work")

    with pytest.raises(RuntimeError, match="of the work"):
        asyncio.run(elsewhere(fails))
