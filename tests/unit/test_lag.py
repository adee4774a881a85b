"""The loop's lateness: the worst of the last minute."""

from __future__ import annotations

import asyncio
import time

from hypothesis import given
from hypothesis import strategies as st

from sr_exporter.metrics.lag import WINDOW_SECONDS, LoopLag


@given(st.lists(st.tuples(st.floats(0, 50), st.floats(0, 5)), max_size=40))
def test_the_worst_of_the_window(looks: list[tuple[float, float]]):
    """At any time it is the largest that was seen within the last minute."""
    now = 0.0
    lag = LoopLag(lambda: now)
    seen: list[tuple[float, float]] = []
    for pause, late in looks:
        now += pause
        lag.saw(late, now)
        seen.append((now, late))
        within = [late for at, late in seen if at >= now - WINDOW_SECONDS]
        assert lag.worst() == max(within)
    now += 61.0
    assert lag.worst() == 0.0


def test_what_holds_up_the_loop_is_seen():
    """A call that does not come back for 80 ms shows; an idle loop is hardly late."""

    async def hold_up() -> float:
        lag = LoopLag()
        looking = asyncio.create_task(lag.run())
        await asyncio.sleep(0)
        until = time.monotonic() + 0.13
        while time.monotonic() < until:
            pass
        while not lag.worst():  # noqa: ASYNC110 - there is nothing else to wait for
            await asyncio.sleep(0)
        looking.cancel()
        return lag.worst()

    assert 0.07 < asyncio.run(hold_up()) < 5
