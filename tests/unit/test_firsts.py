"""What the log tells of sources that answer for the first time: what is worth it, and no flood."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import structlog

from sr_exporter.sources.firsts import FEW, LONG_SECONDS, SECONDS, Asked, Firsts
from tests.virtual_time import run

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

Line = dict[str, object]


def told(act: Callable[[Firsts], Awaitable[None]]) -> list[Line]:
    """Give what is logged, without what every line has."""

    async def acted() -> None:
        firsts = Firsts()
        await act(firsts)
        firsts.stop()

    with structlog.testing.capture_logs() as logs:
        run(acted())
    assert {line.pop("log_level") for line in logs} <= {"info"}
    return [dict(line) for line in logs]


def test_of_a_few_each_is_told():
    """How much it has, and how long that took; once."""

    async def act(firsts: Firsts) -> None:
        for number in range(FEW):
            firsts.expect(f"sip-{number}")
        for _ in range(2):
            for number in range(FEW):
                if f"sip-{number}" in firsts:
                    firsts.polled(f"sip-{number}", number, 0.123)

    lines = told(act)
    assert lines[3] == {
        "event": "source answers",
        "source": "sip-3",
        "identifiers": 3,
        "seconds": 0.12,
    }
    assert [line["source"] for line in lines] == [f"sip-{number}" for number in range(FEW)]


def test_of_many_it_is_told_now_and_then_how_many():
    """To the last of those that answer, and a slow one by itself."""

    async def act(firsts: Firsts) -> None:
        for number in range(1000):
            firsts.expect(f"sip-{number}")
        for number in range(990):
            await asyncio.sleep(0.01)
            firsts.polled(f"sip-{number}", 10, LONG_SECONDS if number == 500 else 0.1)
        await asyncio.sleep(SECONDS)
        for number in range(990, 1000):
            firsts.polled(f"sip-{number}", 10, 0.1)
            firsts.forget(f"sip-{number}")

    lines = told(act)
    (slow,) = [line for line in lines if line["event"] == "source answers"]
    assert (slow["source"], slow["seconds"]) == ("sip-500", LONG_SECONDS)
    lines.remove(slow)
    assert {line["event"] for line in lines} == {"sources answer"}
    assert [(line["answered"], line["of"]) for line in lines][1:] == [(990, 1000), (1000, 1000)]
    assert lines[-1]["identifiers"] == 10_000
    assert len(lines) == 3


def test_one_that_is_asked_piece_by_piece_says_how_far_it_is():
    """Now and then, until it was asked for all; then how long that took in all."""

    async def act(firsts: Firsts) -> None:
        firsts.expect("sip-1")
        for done in range(0, 100, 10):
            firsts.polled("sip-1", done, 1.0, Asked(done, 100))
            await asyncio.sleep(SECONDS / 2)
        firsts.polled("sip-1", 100, 1.0)

    lines = told(act)
    assert [line.get("asked") for line in lines] == [0, 20, 40, 60, 80, None]
    assert lines[0] == {
        "event": "source is asked piece by piece",
        "source": "sip-1",
        "asked": 0,
        "of": 100,
    }
    assert lines[-1]["identifiers"] == 100
    assert lines[-1]["seconds"] == 10 * SECONDS / 2 + 1


def test_many_that_are_asked_piece_by_piece_do_not_flood_the_log():
    async def act(firsts: Firsts) -> None:
        for number in range(1000):
            firsts.expect(f"sip-{number}")
        for _ in range(10):
            for number in range(1000):
                firsts.polled(f"sip-{number}", 1, 1.0, Asked(1, 9))
            await asyncio.sleep(SECONDS / 2)

    assert len(told(act)) == 5


def test_who_leaves_is_waited_for_no_more():
    async def act(firsts: Firsts) -> None:
        for number in range(FEW + 1):
            firsts.expect(f"sip-{number}")
        firsts.polled("sip-0", 1, 0.1)
        for number in range(FEW + 1):
            firsts.forget(f"sip-{number}")
            assert f"sip-{number}" not in firsts
        await asyncio.sleep(2 * SECONDS)

    (line,) = told(act)
    assert (line["answered"], line["of"]) == (1, 1)
