"""Counting changes from polls and events: never more than happened, exact when nothing is lost."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sr_exporter.model import Way
from sr_exporter.tally import CLOSE_SECONDS, LATE_SECONDS, Tally

LONG = LATE_SECONDS + 1


def quiet(tally: Tally, status: int, now: float) -> int:
    """Let it be polled, and polled again when nothing late can come; give the total."""
    tally.poll(status, now)
    tally.settle(now + LONG)
    tally.poll(status, now + LONG)
    return tally.total


def test_polls_alone_count_what_differs_at_once():
    tally = Tally(7, 1)
    for now, (status, total) in enumerate([(1, 7), (2, 8), (2, 8), (-1, 9), (1, 10)]):
        tally.poll(status, now)
        assert tally.total == total


def test_events_alone_count_each():
    tally = Tally(0, 1)
    for now in range(3):
        tally.event(Way.TCP, 1, -1, now)
        tally.event(Way.TCP, -1, 1, now)
    assert tally.total == 6


def test_an_event_that_a_poll_overtook_counts_once():
    tally = Tally(0, 1)
    tally.poll(3, 0)
    assert tally.total == 1
    tally.event(Way.TCP, 1, 2, 1)
    assert tally.total == 1
    tally.event(Way.TCP, 2, 3, 1)
    assert tally.total == 2, "the poll did not see the status in between"
    assert quiet(tally, 3, 2) == 2


@pytest.mark.parametrize("way", list(Way))
def test_an_inverted_pair_counts_two(way):
    tally = Tally(0, 1)
    tally.event(way, -1, 1, 0)
    tally.event(way, 1, -1, 0)
    tally.poll(1, 1)
    assert tally.total == 2
    assert quiet(tally, 1, 2) == 2


def test_a_lost_event_is_missed_when_nothing_late_can_come():
    tally = Tally(0, 1)
    tally.event(Way.TCP, 1, -1, 0)
    tally.poll(1, 1)
    assert tally.total == 1
    assert not tally.settle(1 + LATE_SECONDS - 0.1)
    assert tally.settle(1 + LATE_SECONDS)
    assert tally.total == 2


def test_two_lost_in_between_are_one_step():
    """What is missing is a bound: the way from 2 to 3 may have been any."""
    tally = Tally(0, 1)
    tally.event(Way.UDP, 1, 2, 0)
    tally.event(Way.UDP, 3, 1, 0)
    assert quiet(tally, 1, 1) == 3


def test_what_follows_a_quiet_time_is_counted_from_there():
    tally = Tally(0, 1)
    tally.poll(2, 0)
    tally.poll(1, 10)
    assert not tally.settle(LATE_SECONDS), "the second may still be told of by an event"
    assert tally.total == 2
    tally.event(Way.TCP, 2, 1, 61)
    assert tally.total == 2
    tally.event(Way.TCP, 1, -1, 62)
    assert tally.total == 3


def test_events_that_stop_do_not_stop_the_count():
    tally = Tally(0, 1)
    for now in range(100):
        tally.event(Way.TCP, *((1, -1) if now % 2 == 0 else (-1, 1)), now)
    total = tally.total
    for now in range(100, 200, 10):
        tally.settle(now)
        tally.poll(-1 if now % 20 == 0 else 1, now)
    assert total == 100
    assert tally.total > 105


def test_the_same_over_two_ways_counts_once():
    tally = Tally(0, 1)
    for old, new in ((1, -1), (-1, 1)):
        for way in (Way.TCP, Way.UDP):
            tally.event(way, old, new, 0)
    assert tally.total == 2
    assert quiet(tally, 1, 1) == 2


@pytest.mark.parametrize("way", list(Way))
def test_one_that_comes_again_counts_once(way):
    """A push is repeated; a named TCP socket that was renewed is sent each event twice."""
    tally = Tally(0, 1)
    assert not tally.repeats(way, 1, -1)
    for old, new in ((1, -1), (-1, 1)):
        for _ in range(3):
            tally.event(way, old, new, 0)
            assert tally.repeats(way, old, new)
    assert tally.total == 2
    assert quiet(tally, 1, 1) == 2


def test_what_came_before_the_first_word_is_not_known_to_be_missing():
    tally = Tally.of_first(Way.TCP, -1, 1, 0.0)
    tally.event(Way.TCP, -1, 1, 0.0)
    assert tally.total == 0, "it is the first event once more"
    tally.event(Way.TCP, -1, 2, 1)
    assert quiet(tally, 2, 2) == 1


def test_statuses_that_polls_cut_are_not_missed():
    tally = Tally(0, 1)
    tally.event(Way.TCP, 1, 70_000, 0, comparable=False)
    assert quiet(tally, 4464, 1) == 1


def test_an_event_without_a_change_is_none():
    tally = Tally(0, 1)
    tally.event(Way.TCP, 1, 1, 0)
    assert tally.total == 0


def test_close_is_what_comes_within_five_seconds():
    tally = Tally(0, 1)
    assert not tally.is_close(0)
    tally.event(Way.TCP, 1, 2, 10)
    assert tally.is_close(10 + CLOSE_SECONDS - 0.1)
    assert not tally.is_close(10 + CLOSE_SECONDS)
    assert not tally.is_close(9), "the clock was set back"


# --- any life of an identifier -------------------------------------------------------------


@dataclass
class Life:
    """What happened, and what of it was told: each step is one second."""

    statuses: list[int]
    #: Of each change: after how many seconds it is told, None: never.
    delays: list[int | None]
    #: At which seconds it is polled.
    polled: set[int]


@st.composite
def lives(draw: st.DrawFn, *, lossless: bool) -> Life:
    statuses = [draw(st.sampled_from([-1, 1, 2, 3]))]
    for _ in range(draw(st.integers(1, 12))):
        statuses.append(draw(st.sampled_from([-1, 1, 2, 3, statuses[-1]])))
    delay = st.integers(0, 20)
    delays = st.lists(
        delay if lossless else st.none() | delay, min_size=len(statuses), max_size=len(statuses)
    )
    return Life(statuses, draw(delays), draw(st.sets(st.integers(1, 40))))


def live(life: Life, copies: int = 1) -> tuple[int, list[int], bool]:
    """Give how many changes there were, and the count after each second and in the end.

    And whether two equal events came in a row, the second of which may be the first once more.
    """
    happened, last, ambiguous = 0, (0, 0), False
    tally = Tally(0, life.statuses[0])
    told: dict[int, list[tuple[int, int]]] = {}
    counts = []
    for second in range(1, 41):
        before = life.statuses[min(second, len(life.statuses)) - 1]
        now = life.statuses[min(second, len(life.statuses) - 1)]
        if now != before:
            happened += 1
            delay = life.delays[second]
            if delay is not None:
                told.setdefault(second + delay, []).insert(0, (before, now))
        for old, new in told.pop(second, []):
            ambiguous |= (old, new) == last
            last = (old, new)
            for _ in range(copies):
                tally.event(Way.TCP, old, new, second)
        if second in life.polled:
            tally.settle(second)
            tally.poll(now, second)
        assert tally.total <= happened
        counts.append(tally.total)
    for second in (41, 41 + LONG, 42 + 2 * LONG):
        tally.settle(second)
        tally.poll(life.statuses[-1], second)
        counts.append(tally.total)
    return happened, counts, ambiguous


@given(lives(lossless=False))
@settings(max_examples=500)
def test_a_count_never_falls_and_never_exceeds_what_happened(life):
    happened, counts, _ = live(life)
    assert counts == sorted(counts)
    assert counts[-1] <= happened


@given(lives(lossless=True), st.integers(1, 3))
@settings(max_examples=300)
def test_a_count_is_exact_however_often_each_event_comes_in_order(life, copies):
    life.delays = [0] * len(life.delays)
    happened, counts, _ = live(life, copies)
    assert counts[-1] == happened


@given(lives(lossless=True))
@settings(max_examples=500)
def test_a_count_is_exact_when_nothing_is_lost_however_late_and_out_of_order(life):
    happened, counts, ambiguous = live(life)
    if not ambiguous:
        assert counts[-1] == happened
    assert counts[-1] <= happened
