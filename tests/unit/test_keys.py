"""Pages of what is held: in order, each key once, whatever comes and goes between them."""

from __future__ import annotations

import asyncio
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sr_exporter import order as order_module
from sr_exporter.model import Forget, Key, Statement
from sr_exporter.order import Order
from sr_exporter.state import State
from sr_exporter.web import keys as module
from sr_exporter.web.keys import Keys, Where

ALL = Where(None, None, None, None)
KEYS = st.builds(
    Key,
    st.sampled_from(["a", "B", "b"]),
    st.sampled_from(["g", "G", "h", "i"]),
    st.sampled_from("abcdefGH"),
)
SAID = st.lists(st.tuples(KEYS, st.sampled_from([1, -1, 0])), max_size=60)
WHERE = st.builds(
    Where,
    st.none() | st.sampled_from(["a", "b", "x"]),
    st.none() | st.sampled_from(["g", "x"]),
    st.none() | st.sampled_from(["a", "g", "x"]),
    st.none() | st.booleans(),
)


@pytest.fixture(autouse=True, params=[0, 10_000])
def _small(request, monkeypatch):
    """Have few be many, and look for what is not ready among all, or among those alone."""
    monkeypatch.setattr(order_module, "FEW", 2)
    monkeypatch.setattr(order_module, "CHUNK", 2)
    monkeypatch.setattr(module, "_NAMES", 2)
    monkeypatch.setattr(module, "_FEW_NOT_READY", request.param)


def _name(entry) -> str:
    return entry.identifier


class Held:
    def __init__(self) -> None:
        self.state = State()
        self.order = Order(self.state)
        self.keys = Keys(self.state, self.order)

    def say(self, said: list[tuple[Key, int]]) -> None:
        """Take statuses; 0 is a key that goes."""
        for key, status in said:
            what = Statement(*key, status) if status else Forget(*key)
            self.order.observe(self.state.apply(what, 1000.0))

    def fitting(self, where: Where) -> list[Key]:
        entries = [entry for source in self.state.sources.values() for entry in source.entries()]
        return sorted(entry.key.folded() for entry in entries if where.fits(entry))


@given(SAID, st.lists(SAID, min_size=1, max_size=5), WHERE, st.integers(1, 7))
def test_each_key_that_stays_is_told_once(said, meanwhile, where, limit):
    """In order, and none that does not fit; those that come or go may be told or not."""

    async def check() -> None:
        held = Held()
        held.say(said)
        stayed = always = set(held.fitting(where))
        told: list[Key] = []
        after, more = None, True
        while more:
            page = await held.keys.page(where, after, limit, lambda entry: entry.key.folded())
            assert len(page.items) <= limit
            assert page.items or page.next is None
            told += page.items
            always = always | set(held.fitting(where))
            if meanwhile:
                held.say(meanwhile.pop())
            stayed = stayed & set(held.fitting(where))
            more = page.next is not None
            after = module._key(page.next) if page.next is not None else None
        assert all(one < another for one, another in pairwise(told))
        assert stayed <= set(told) <= always

    asyncio.run(check())


@given(SAID, WHERE, st.integers(1, 7))
def test_pages_are_the_whole_in_pieces(said, where, limit):
    """With nothing in between each is full but the last, which says that it is."""

    async def check() -> None:
        held = Held()
        held.say(said)
        expected = held.fitting(where)
        for start in range(0, max(len(expected), 1), limit):
            after = expected[start - 1] if start else None
            page = await held.keys.page(where, after, limit, lambda entry: entry.key.folded())
            assert page.items == expected[start : start + limit]
            assert (page.next is not None) is (len(expected) > start + limit)

    asyncio.run(check())


def test_what_changes_while_a_page_is_written():
    """It is written in turns: what goes meanwhile is left out, and a page says if there is more."""

    async def check() -> None:
        held = Held()
        held.say([(Key("s", "g", name), -1) for name in "abcdefghij"])
        not_ready = Where(None, None, None, False)
        writing = asyncio.create_task(
            held.keys.page(not_ready, None, 2, lambda one: one.identifier)
        )
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        held.say([(Key("s", "g", "a"), 0), (Key("s", "g", "b"), 1), (Key("s", "g", "c"), 0)])
        page = await writing
        assert page.items == ["d", "e"]
        assert page.next is not None

    asyncio.run(check())


def test_a_page_may_be_full_before_its_limit():
    """As its items say, but never without any."""

    async def check() -> None:
        held = Held()
        held.say([(Key("s", "g", name), 1) for name in "abc"])
        page = await held.keys.page(ALL, None, 9, _name, full=lambda: True)
        assert page.items == ["a"]
        assert page.next is not None
        after = module._key(page.next)
        page = await held.keys.page(ALL, after, 9, _name)
        assert (page.items, page.next) == (["b", "c"], None)

    asyncio.run(check())
