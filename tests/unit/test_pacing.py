"""When the next poll is: harmless to the peer, spread over the interval, never drifting."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sr_exporter.sources.pacing import (
    FIRST_STEP_SECONDS,
    LONGEST_BACKOFF_SECONDS,
    Pace,
    first_delay,
    phase,
)

shares = st.floats(0.001, 1.0)
intervals = st.floats(0.1, 300.0)
polls = st.tuples(
    st.floats(0.0, 120.0),  # how long it took
    st.booleans(),  # whether it was good
    st.floats(0.0, 60.0),  # how much later than planned it began
    st.floats(0.0, 1.0, exclude_max=True),  # the jitter
)


def schedule(
    pace_of: tuple[float, float, float], asked: list[tuple[float, bool, float, float]]
) -> list[tuple[float, float, bool, float]]:
    """Run polls: each with its beginning, its end, whether it was good, and the next's time."""
    interval, share, at = pace_of
    jitter = 0.0
    pace = Pace(interval, share, at, lambda: jitter)
    now, ran = at, []
    for took, good, late, jitter in asked:  # noqa: B007 - the pace reads it
        began = now + late
        ended = began + took
        now = pace.next_poll(began, ended, good=good)
        ran.append((began, ended, good, now))
    return ran


paces = st.tuples(intervals, shares, st.floats(0.0, 10_000.0))


@given(paces, st.lists(polls, min_size=1, max_size=30))
def test_requests_take_at_most_their_share(pace, asked):
    """Over any number of polls in a row, good or not, requests take at most `max_share`."""
    ran = schedule(pace, asked)
    for first in range(len(ran)):
        busy = 0.0
        for began, ended, _, following in ran[first:]:
            busy += ended - began
            elapsed = following - ran[first][0]
            assert busy <= pace[1] * elapsed * (1 + 1e-9) + 1e-6


@given(paces, st.lists(polls, min_size=1, max_size=30))
def test_the_next_poll_is_after_this_one(pace, asked):
    """No poll follows another at once, however late or long the one before was."""
    for began, ended, good, following in schedule(pace, asked):
        assert following > began
        if good:
            assert following - began >= pace[0] / 2 * (1 - 1e-6)
        else:
            assert following >= ended + min(pace[0], LONGEST_BACKOFF_SECONDS) * 0.75 * (1 - 1e-9)


@given(
    intervals,
    st.floats(0.0, 10_000.0),
    st.lists(st.tuples(st.floats(0, 1), st.floats(0, 0.9)), min_size=1, max_size=200),
)
def test_the_grid_never_drifts(interval, at, lateness):
    """Good polls stay on their grid, though every one begins a little late."""
    pace = Pace(interval, 1.0, at, lambda: 0.0)
    now = at
    for late, took in lateness:
        began = now + late * interval * 0.4
        now = pace.next_poll(began, began + took * interval * 0.4, good=True)
        turns = (now - at) / interval
        assert abs(turns - round(turns)) < 1e-6


@given(intervals, st.floats(0.0, 10_000.0), st.floats(0.0, 1.0))
def test_a_good_poll_in_time_is_followed_by_the_next_place(interval, at, late):
    """The places are one interval apart; who is later than half of one misses a turn."""
    pace = Pace(interval, 1.0, at, lambda: 0.0)
    began = at + late * interval * 0.49
    following = pace.next_poll(began, began, good=True)
    assert following == pytest.approx(at + interval, abs=1e-6)
    began = at + interval * (0.51 + late * 0.48)
    following = pace.next_poll(began, began, good=True)
    assert following == pytest.approx(at + 2 * interval, abs=1e-6)


@pytest.mark.parametrize(
    ("interval", "waits"),
    [
        (10.0, [10.0, 20.0, 40.0, 60.0, 60.0, 60.0]),
        (1.0, [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0]),
        (300.0, [300.0, 300.0]),
    ],
)
@pytest.mark.parametrize("jitter", [0.0, 0.5, 0.999])
def test_failures_back_off_to_a_minute(interval, waits, jitter):
    """Waits double up to a minute, less some jitter; an interval above that is kept."""
    pace = Pace(interval, 0.05, 0.0, lambda: jitter)
    now = 0.0
    for wait in waits:
        following = pace.next_poll(now, now + 0.001, good=False)
        assert following - now - 0.001 == pytest.approx(wait * (0.75 + 0.25 * jitter))
        now = following


def test_a_very_long_night_of_failures_stays_at_a_minute():
    """Thousands of failures neither overflow nor wait longer."""
    pace = Pace(10.0, 0.05, 0.0, lambda: 0.999)
    for _ in range(5_000):
        assert pace.next_poll(0.0, 0.0, good=False) <= LONGEST_BACKOFF_SECONDS


def test_the_share_outweighs_the_backoff():
    """Time-outs of 5 s at a share of 5 % are asked for every 100 s, not every minute."""
    pace = Pace(10.0, 0.05, 0.0, lambda: 0.0)
    for _ in range(10):
        assert pace.next_poll(1000.0, 1005.0, good=False) >= 1100.0


def test_a_huge_listing_is_asked_for_less_often():
    """One that takes 0.6 s is asked for every 12 s at a share of 5 %; the first counts double."""
    pace = Pace(1.0, 0.05, 0.0, lambda: 0.0)
    assert pace.next_poll(100.0, 100.6, good=True) == pytest.approx(123.4)
    assert pace.next_poll(123.4, 124.0, good=True) == pytest.approx(135.4)
    assert pace.next_poll(135.4, 136.0, good=True) == pytest.approx(147.4)


@given(shares, st.lists(st.tuples(st.floats(0.0, 9.0), st.floats(0.0, 50.0)), max_size=50))
def test_what_is_asked_between_polls_is_paid_for_by_the_next(share, asked):
    """Questions do not wait, and polls wait for them: both together keep the share."""
    pace = Pace(10.0, share, 0.0, lambda: 0.0)
    now = busy = 0.0
    for took, later in asked:
        pace.took(now, now + took)
        busy += took
        now += took + later
    began = max(now, pace.soonest)
    assert busy <= share * began * (1 + 1e-9) + 1e-6


def test_one_good_poll_ends_the_backoff():
    """After a success the next failure waits as the first one did."""
    pace = Pace(10.0, 1.0, 0.0, lambda: 0.0)
    for _ in range(4):
        pace.next_poll(0.0, 0.0, good=False)
    assert pace.next_poll(0.0, 0.0, good=True) == 10.0
    assert pace.next_poll(0.0, 0.0, good=False) == 7.5


@given(st.integers(1, 500), intervals)
def test_sources_are_spread_over_the_interval(count, interval):
    """Each source has a place of its own, all equally far apart, within one interval."""
    places = [phase(index, interval, count) for index in range(count)]
    assert places[0] == 0.0
    assert places[-1] < interval
    for earlier, later in pairwise(places):
        assert later - earlier == pytest.approx(interval / count)


@given(st.integers(1, 500), intervals)
def test_sources_are_first_polled_soon_and_not_at_once(count, interval):
    """A start asks all sources within an interval, some apart, a few of them nearly at once."""
    delays = [first_delay(index, interval, count) for index in range(count)]
    assert delays[0] == 0.0
    assert delays[-1] < interval
    for earlier, later in pairwise(delays):
        assert 0.0 < later - earlier <= FIRST_STEP_SECONDS * (1 + 1e-6)


def test_no_sources_need_no_place():
    """Without sources there is nothing to divide by."""
    assert (first_delay(0, 10.0, 0), phase(0, 10.0, 0)) == (0.0, 0.0)
