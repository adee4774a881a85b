"""Turns: who waits, for how long, and in which order."""

from __future__ import annotations

import asyncio
from itertools import pairwise

from sr_exporter.turns import Turnstile


def test_a_turnstile_lets_a_few_through_at_a_time():
    """In the order in which they came, and others have their turn in between."""

    async def check() -> None:
        turnstile, passed = Turnstile(3), []

        async def passing(number: int) -> None:
            await turnstile.turn()
            passed.append(number)

        for _ in range(2):  # it may be used again once nobody waits
            tasks = [asyncio.create_task(passing(number)) for number in range(10)]
            await asyncio.sleep(0)
            tasks[4].cancel()
            seen = []
            while not all(task.done() for task in tasks):
                await asyncio.sleep(0)
                seen.append(len(passed))
            assert passed == [0, 1, 2, 3, 5, 6, 7, 8, 9]
            assert all(after - before <= 3 for before, after in pairwise(seen))
            passed.clear()

    asyncio.run(check())
