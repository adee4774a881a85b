"""Names in order: as if all were sorted at each question."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sr_exporter import order as module
from sr_exporter.model import Forget, Statement
from sr_exporter.order import Names, Order, in_order
from sr_exporter.state import State
from sr_exporter.wire.slices import at_once

if TYPE_CHECKING:
    from collections.abc import Collection

NAMES = st.text("aAbé\U0001f600", max_size=3)


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    """Have few be many."""
    monkeypatch.setattr(module, "CHUNK", 3)
    monkeypatch.setattr(module, "FEW", 4)
    monkeypatch.setattr(module, "_AT_ONCE", 2)


@given(
    st.sets(NAMES),
    st.lists(st.tuples(st.booleans(), NAMES)),
    st.none() | NAMES,
    st.integers(0, 20),
)
def test_names_are_a_sorted_set(names, steps, name, most):
    """However they were found and whatever came and went."""
    ordered = at_once(in_order(names))
    for here, one in steps:
        (ordered.add if here else ordered.discard)(one)
        (names.add if here else names.discard)(one)
        assert bool(ordered) is bool(names)
    expected = [one for one in sorted(names) if name is None or one > name]
    assert ordered.after(name, most) == expected[:most]
    assert ordered.after(None, 1000) == sorted(names)
    assert all(0 < len(chunk) <= 2 * module.CHUNK + 1 for chunk in ordered._chunks)


def test_an_empty_one_begins():
    """Nothing is after anything, until something is added."""
    names = Names()
    assert names.after(None, 5) == names.after("a", 5) == []
    names.discard("a")
    names.add("a")
    assert names.after("", 5) == ["a"]


class Held:
    """A state, its order, and what is asked of it."""

    def __init__(self) -> None:
        self.state = State()
        self.order = Order(self.state)

    def apply(self, *observations: Statement | Forget) -> None:
        for one in observations:
            self.order.observe(self.state.apply(one, 1000.0))

    def say(self, names: str, group: str = "G", source: str = "s") -> None:
        self.apply(*(Statement(source, group, name, 1) for name in names))

    def forget(self, names: str, group: str = "G", source: str = "s") -> None:
        self.apply(*(Forget(source, group, name) for name in names))

    async def identifiers(self, after: str | None = None, most: int = 99) -> str:
        return "".join(await self.order.after(("s", "g"), self.entries, after, most))

    def entries(self, group: str = "g") -> Collection[str]:
        return self.state.sources["s"].groups[group].entries

    async def groups(self) -> str:
        groups = await self.order.after(("s",), lambda: self.state.sources["s"].groups, None, 99)
        return "".join(groups)

    async def sources(self) -> str:
        return "".join(await self.order.after((), lambda: self.state.sources, None, 99))


def test_few_are_sorted_and_many_followed():
    """Each as they come and go, folded; once they are few again nothing is held of them."""

    async def check() -> None:
        held = Held()
        held.say("dBc")
        assert await held.identifiers() == "bcd"
        assert not held.order._names
        held.say("AkJhgf")
        assert await held.identifiers() == "abcdfghjk"
        assert set(held.order._names) == {("s", "g")}
        held.say("ZbB")
        held.forget("ADX")
        held.apply(Statement("s", "G", "c", -1), Statement("s", "other", "e", 1))
        held.say("e", source="t")
        assert await held.identifiers("b", 4) == "cfgh"
        assert await held.identifiers() == "bcfghjkz"
        held.forget("hjkzf")
        assert await held.identifiers() == "bcg"
        assert not held.order._names

    asyncio.run(check())


def test_what_leaves_and_comes_back_while_another_is_put_in_order_is_followed():
    """Its names are then in another collection than they were when it was asked for."""

    async def check() -> None:
        held = Held()
        held.say("abcdefghijklmnopqrstuvwxyz", group="other")
        held.say("abcdef")
        other = held.order.after(("s", "other"), lambda: held.entries("other"), None, 99)
        finding = asyncio.create_task(other)
        await asyncio.sleep(0)
        asked = asyncio.create_task(held.identifiers())
        await asyncio.sleep(0)
        held.apply(Forget("s", "G", None))
        held.say("uvwxyz")
        await finding
        assert await asked == "uvwxyz"
        held.say("a")
        assert await held.identifiers() == "auvwxyz"

    asyncio.run(check())


def test_groups_and_sources_are_followed_too():
    """A group leaves with its last identifier, and a source that is pushed with its last group."""

    async def check() -> None:
        held = Held()
        for name in "fEdcba":
            held.say("xy", group=name)
            held.say("x", source=name)
        assert await held.groups() == "abcdef"
        assert await held.sources() == "Eabcdfs"
        held.forget("x", group="A")
        assert await held.groups() == "abcdef"
        held.forget("y", group="A")
        held.say("x", group="Q")
        held.forget("x", source="b")
        held.say("x", source="r")
        assert await held.groups() == "bcdefq"
        assert await held.sources() == "Eacdfrs"
        assert set(held.order._names) == {(), ("s",)}

    asyncio.run(check())


def test_what_comes_and_goes_while_the_order_is_found():
    """It takes many turns of the loop, and others have theirs."""

    async def check() -> None:
        held = Held()
        held.say("abcdefghij")
        finding = [asyncio.create_task(held.identifiers()) for _ in range(2)]
        for come, go in (("k", "a"), ("lm", "kj"), ("a", "b"), ("n", "n"), ("b", "")):
            await asyncio.sleep(0)
            assert not any(task.done() for task in finding)
            held.say(come)
            held.forget(go)
        assert await asyncio.gather(*finding) == ["abcdefghilm"] * 2
        assert not held.order._meanwhile

    asyncio.run(check())


def test_all_of_many_may_go():
    """And come again: nothing is held of what is not there."""

    async def check() -> None:
        held = Held()
        held.say("abcdef")
        assert await held.identifiers() == "abcdef"
        held.apply(Forget("s"))
        assert not held.order._names
        held.say("fedcba")
        assert await held.identifiers() == "abcdef"

    asyncio.run(check())
