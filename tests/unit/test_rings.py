"""Counting reports by where two listings of one ring overlap."""

from __future__ import annotations

from collections import deque

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sr_exporter.model import Report
from sr_exporter.rings import Continuation, continues


def ring(texts: str) -> tuple[Report, ...]:
    """Give a ring with one report per letter, all of the same second."""
    return tuple(Report(1.0, letter) for letter in texts)


def naive_overlap(held: tuple[Report, ...], listed: tuple[Report, ...]) -> int:
    """Try every length, the longest first."""
    for length in range(min(len(held), len(listed)), 0, -1):
        if held[-length:] == listed[:length]:
            return length
    return 0


@pytest.mark.parametrize(
    ("held", "listed", "expected"),
    [
        ("", "", Continuation(0, overrun=False)),
        ("", "abc", Continuation(3, overrun=False)),
        ("abc", "abc", Continuation(0, overrun=False)),
        ("abc", "abcd", Continuation(1, overrun=False)),
        ("abc", "bcd", Continuation(1, overrun=False)),
        ("abc", "cde", Continuation(2, overrun=False)),
        ("abc", "def", Continuation(3, overrun=True)),
        ("abc", "defg", Continuation(4, overrun=True)),
        ("abc", "de", Continuation(2, overrun=False)),
        ("abc", "", Continuation(0, overrun=False)),
        ("abc", "ab", Continuation(2, overrun=False)),
        ("aab", "aabaab", Continuation(3, overrun=False)),
        ("abab", "ababab", Continuation(2, overrun=False)),
        ("ababa", "babab", Continuation(1, overrun=False)),
        ("xaa", "aaa", Continuation(1, overrun=False)),
        ("aabaaab", "aabaaac", Continuation(4, overrun=False)),
    ],
)
def test_the_later_window_continues_the_earlier_at_the_longest_match(held, listed, expected):
    """What follows the longest suffix/prefix match is new; without one all of it is."""
    assert continues(ring(held), ring(listed), restarted=False) == expected


def test_no_match_after_a_restart_is_no_overrun():
    """A restart empties the ring: nothing was lost unseen, and all that is listed is new."""
    assert continues(ring("abc"), ring("def"), restarted=True) == Continuation(3, overrun=False)


def test_an_equal_text_of_another_second_is_another_report():
    """Reports are told apart by their time as well as by their text."""
    held = (Report(1.0, "down"),)
    listed = (Report(2.0, "down"),)
    assert continues(held, listed, restarted=False) == Continuation(1, overrun=True)


def test_a_window_as_deep_as_any_ring_is_matched():
    """Two hundred equal reports, the worst case of a naive search, overlap entirely but for one."""
    held = ring("b" + "a" * 199)
    listed = ring("a" * 199 + "b")
    assert continues(held, listed, restarted=False) == Continuation(1, overrun=False)


windows = st.lists(st.sampled_from("ab"), max_size=12).map("".join).map(ring)


@given(held=windows, listed=windows, restarted=st.booleans())
def test_the_overlap_is_that_of_a_naive_search(held, listed, restarted):
    """Over any two windows the count agrees with one that tries every length."""
    overlap = naive_overlap(held, listed)
    found = continues(held, listed, restarted=restarted)
    assert found.new == len(listed) - overlap
    shrunk = len(listed) < len(held)
    lost = bool(held) and not overlap and not shrunk and not restarted
    assert found.overrun == lost


@given(stream=st.text("ab", max_size=30), cuts=st.tuples(*[st.integers(0, 30)] * 3))
def test_the_longest_of_many_overlaps_counts(stream, cuts):
    """Windows cut from one stream, full of borders, overlap as a naive search finds."""
    start, middle, end = sorted(cuts)
    held, listed = ring(stream[:end]), ring(stream[start:] + stream[:middle])
    found = continues(held, listed, restarted=False)
    assert found.new == len(listed) - naive_overlap(held, listed)


def polls(
    depth: int, batches: list[list[str]]
) -> list[tuple[int, tuple[Report, ...], tuple[Report, ...]]]:
    """Fill a ring batch by batch; give, per poll, what was added, held and listed."""
    kept: deque[Report] = deque(maxlen=depth)
    seen: list[tuple[int, tuple[Report, ...], tuple[Report, ...]]] = []
    held: tuple[Report, ...] = ()
    for batch in batches:
        kept.extend(Report(1.0, text) for text in batch)
        listed = tuple(kept)
        seen.append((len(batch), held, listed))
        held = listed
    return seen


@given(
    depth=st.integers(1, 8),
    batches=st.lists(st.lists(st.sampled_from("ab"), max_size=12), max_size=8),
)
def test_never_more_are_counted_than_were_added(depth, batches):
    """However alike the texts are, the count is a lower bound of the truth."""
    for added, held, listed in polls(depth, batches):
        assert continues(held, listed, restarted=False).new <= added


@given(depth=st.integers(1, 8), sizes=st.lists(st.integers(0, 12), max_size=8))
def test_distinct_reports_are_counted_exactly(depth, sizes):
    """With distinct texts the count is what was added, as far as the ring still shows it.

    Where it turned over the overrun is flagged; a ring refilled to the brim, with nothing lost,
    cannot be told from that and is flagged too.
    """
    texts = iter(range(1000))
    batches = [[str(next(texts)) for _ in range(size)] for size in sizes]
    for added, held, listed in polls(depth, batches):
        found = continues(held, listed, restarted=False)
        assert found.new == min(added, depth)
        assert found.overrun == (bool(held) and added >= depth)
