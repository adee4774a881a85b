from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sr_exporter.durations import format_duration, parse_duration

NO_DURATION = (
    "not a duration: write a number and a unit, as in 90s, 1h30m or 500ms "
    "(units y w d h m s ms, in this order, each once)"
)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0", 0),
        ("0s", 0),
        ("0ms", 0),
        ("500ms", 0.5),
        ("90s", 90),
        ("1m30s", 90),
        ("1h30m", 5400),
        ("10s5ms", 10.005),
        ("007s", 7),
        ("1d", 86_400),
        ("2w", 1_209_600),
        ("1y", 31_536_000),
        ("1y2w3d4h5m6s7ms", 31_536_000 + 1_209_600 + 3 * 86_400 + 4 * 3600 + 306.007),
        ("292y", 292 * 31_536_000),
    ],
)
def test_reads_what_prometheus_reads(text: str, seconds: float) -> None:
    """A duration is a sum of numbers with units."""
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    "text",
    [
        *("", " ", "1", "00", "-1s", "+1s", "1.5s", "s", "1 s", " 1s", "1s ", "1s\n"),
        *("1s1m", "1s1s", "1S", "1min", "1µs", "1ns", "1e3s", "\u0661s", "9" * 5000 + "s"),
    ],
)
def test_refuses_what_is_no_duration(text: str) -> None:
    """The message shows what a duration looks like, and not what was given."""
    with pytest.raises(ValueError) as caught:
        parse_duration(text)
    assert str(caught.value) == NO_DURATION


def test_refuses_what_prometheus_cannot_hold() -> None:
    """Beyond 292 years Prometheus' durations overflow."""
    with pytest.raises(ValueError, match=r"^too long: a duration is at most 292y$"):
        parse_duration("293y")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0, "0s"),
        (0.0004, "0s"),
        (0.001, "1ms"),
        (90.0, "1m30s"),
        (5400.0, "1h30m"),
        (86_400.0, "1d"),
        (90 * 86_400.0, "90d"),
        (14 * 86_400.0, "2w"),
        (36 * 3600.0, "1d12h"),
        (365 * 86_400.0, "1y"),
        (2 * 365 * 86_400.0 + 0.25, "730d250ms"),
        (59.9996, "1m"),
    ],
)
def test_writes_as_prometheus_does(seconds: float, text: str) -> None:
    """Years and weeks are written only when nothing is left over."""
    assert format_duration(seconds) == text


@pytest.mark.parametrize("seconds", [-0.001, -1.0, math.nan, math.inf, -math.inf])
def test_does_not_write_what_it_could_not_read(seconds: float) -> None:
    """There is no negative, endless or undefined duration."""
    with pytest.raises(ValueError, match=r"^not a duration: "):
        format_duration(seconds)


@given(st.integers(min_value=0, max_value=292 * 365 * 86_400_000))
def test_comes_back_as_it_was(milliseconds: int) -> None:
    """Whole milliseconds survive being written and read."""
    seconds = milliseconds / 1000
    assert parse_duration(format_duration(seconds)) == seconds


@given(st.text(alphabet="0123456789ywdhms .-", max_size=12) | st.text(max_size=8))
def test_reads_or_refuses(text: str) -> None:
    """Whatever the text, the answer is a duration or a ValueError."""
    try:
        seconds = parse_duration(text)
    except ValueError:
        return
    assert seconds >= 0
    assert parse_duration(format_duration(seconds)) == seconds
