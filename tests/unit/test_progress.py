"""What is told of a start that takes long, and that it ends when nobody wants it any more."""

from __future__ import annotations

import itertools

import pytest
import structlog

from sr_exporter.errors import Interrupted
from sr_exporter.progress import AT_ONCE, SECONDS, Progress, Step

MANY = 50_000


def told(seconds_per_look: float) -> tuple[list[dict[str, object]], list[str]]:
    """Give what is logged while many things are given, and how often their number was asked."""
    looks = itertools.count()
    asked: list[str] = []

    def total() -> int:
        asked.append("total")
        return MANY

    with structlog.testing.capture_logs() as logs:
        progress = Progress(lambda: next(looks) * seconds_per_look)
        assert list(progress.watched(range(MANY), "keys", total)) == list(range(MANY))
    return logs, asked


def test_what_is_quick_is_not_spoken_of():
    """Nor is it counted twice how many there are."""
    assert told(0.0) == ([], ["total"])


def test_of_few_it_is_not_asked_how_many_they_are():
    progress = Progress()
    assert list(progress.watched(range(AT_ONCE), "keys", lambda: pytest.fail("asked"))) == [
        *range(AT_ONCE)
    ]


def test_what_takes_long_says_how_far_it_is():
    logs, _ = told(SECONDS)
    assert {line["event"] for line in logs} == {"restoring"}
    assert {(line["what"], line["of"]) for line in logs} == {("keys", MANY)}
    done = [line["done"] for line in logs]
    assert done == sorted(set(done))
    assert 0 < done[0] <= done[-1] <= MANY


def test_it_is_said_now_and_then_only():
    often, seldom = told(SECONDS)[0], told(SECONDS / 4)[0]
    assert 0 < len(seldom) < len(often) / 2


def test_who_asks_is_told_of_what_is_under_way():
    progress = Progress()
    assert str(progress) == "restoring what was kept"
    for thing in progress.watched(range(1_000_000), "identifiers", lambda: 1_000_000):
        if thing == 300_000:
            done = 300_000 // AT_ONCE * AT_ONCE
            assert progress.step == Step("identifiers", done, 1_000_000)
            assert str(progress) == f"restoring {done:,} of 1,000,000 identifiers"
    assert progress.step is None


def test_what_is_not_wanted_any_more_ends_soon():
    """Also what has not begun, and what is short."""
    progress = Progress()
    things = progress.watched(itertools.count(), "things", lambda: 9)
    assert next(itertools.islice(things, AT_ONCE + 5, None)) == AT_ONCE + 5
    progress.interrupt()
    assert next(itertools.islice(things, AT_ONCE - 7, None)) == 2 * AT_ONCE - 1
    with pytest.raises(Interrupted, match="restoring 2,048 of 9 things"):
        next(things)
    with pytest.raises(Interrupted):
        next(progress.watched([1], "things", lambda: 1))
