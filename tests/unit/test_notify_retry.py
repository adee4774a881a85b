"""What becomes of a delivery: settled, tried again, or dead."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sr_exporter.notify.retry import (
    Dead,
    Decision,
    Retry,
    Settled,
    decide,
    is_retryable,
    retry_after,
)

NOW = 784111777.0  # Sun, 06 Nov 1994 08:49:37 GMT


def decided(
    status: int | None,
    *,
    error: str = "",
    headers: dict[str, str] | None = None,
    attempts: int = 1,
    age: float = 0.0,
    random: float = 0.0,
) -> Decision:
    return decide(
        status=status,
        error=error,
        headers=headers,
        attempts=attempts,
        age_seconds=age,
        max_age_seconds=86_400.0,
        now=NOW,
        random=random,
    )


@pytest.mark.parametrize("status", range(100, 600))
def test_every_status_code(status):
    """2xx settles; 408, 429 and 5xx are tried again; every other code is final."""
    if status // 100 == 2:
        assert decided(status) == Settled()
    elif status in {408, 429} or status // 100 == 5:
        assert decided(status) == Retry(0.5, f"HTTP {status}")
        assert decided(status, age=86_401.0) == Dead(f"HTTP {status}; given up after 86401 s")
    else:
        assert decided(status) == Dead(f"HTTP {status}")
    assert is_retryable(status) == isinstance(decided(status), Retry)


@pytest.mark.parametrize("status", range(100, 600))
def test_retry_after_makes_no_final_code_retryable(status):
    """A header changes when, never whether."""
    headers = {"Retry-After": "7"}
    with_header, without = decided(status, headers=headers), decided(status)
    assert type(with_header) is type(without)
    if isinstance(with_header, Retry):
        assert with_header.delay_seconds == 7.0


def test_no_answer_is_tried_again_until_it_is_too_old():
    """Transport errors are retried with their own words."""
    assert decided(None, error="connection refused") == Retry(0.5, "connection refused")
    assert decided(None, error="timeout", age=86_400.0) == Retry(0.5, "timeout")
    assert decided(None, error="timeout", age=90_000.0) == Dead("timeout; given up after 90000 s")


@pytest.mark.parametrize("attempts", [*range(1, 20), 1000, 10**9])
@pytest.mark.parametrize("random", [0.0, 0.5, 0.999])
def test_backoff_doubles_to_five_minutes(attempts, random):
    """From a second on, twice as long each time, and somewhat less by jitter."""
    backoff = min(300.0, 2.0 ** min(attempts - 1, 30))
    decision = decided(503, attempts=attempts, random=random)
    assert decision == Retry(pytest.approx(backoff * (0.5 + 0.5 * random)), "HTTP 503")


@given(st.integers(1, 50), st.floats(0, 1, exclude_max=True), st.integers(0, 10_000))
def test_a_delay_is_never_shorter_than_asked(attempts, random, asked):
    """Retry-After goes before the backoff where it is longer, for an hour at most."""
    decision = decided(429, headers={"retry-after": str(asked)}, attempts=attempts, random=random)
    plain = decided(429, attempts=attempts, random=random)
    assert isinstance(decision, Retry)
    assert isinstance(plain, Retry)
    assert decision.delay_seconds == max(plain.delay_seconds, min(asked, 3600))


@pytest.mark.parametrize("zone", ["UTC", "America/New_York", "Asia/Tokyo"])
@pytest.mark.parametrize(
    ("said", "seconds"),
    [
        ("0", 0.0),
        ("7", 7.0),
        (" 120 ", 120.0),
        ("3600", 3600.0),
        ("3601", 3600.0),
        ("9" * 400, 3600.0),
        ("Sun, 06 Nov 1994 08:51:37 GMT", 120.0),
        ("Sunday, 06-Nov-94 08:51:37 GMT", 120.0),
        ("Sun Nov  6 08:51:37 1994", 120.0),
        ("Sun, 06 Nov 1994 08:51:37 -0000", 120.0),
        ("Sun, 06 Nov 1994 03:51:37 -0500", 120.0),
        ("Sun, 06 Nov 1994 08:40:00 GMT", 0.0),
        ("Sun, 06 Nov 2094 08:49:37 GMT", 3600.0),
        ("", 0.0),
        ("soon", 0.0),
        ("-1", 0.0),
        ("1.5", 0.0),
        ("٣", 0.0),
        ("Sun, 99 Nov 1994 08:51:37 GMT", 0.0),
        ("Sun, 06 Nov 99999 08:51:37 GMT", 0.0),
        ("\x00", 0.0),
    ],
)  # fmt: skip
def test_every_form_of_retry_after(monkeypatch, zone, said, seconds):
    """Seconds and all three forms of HTTP dates, wherever this machine stands."""
    monkeypatch.setenv("TZ", zone)
    time.tzset()
    try:
        assert retry_after({"Retry-After": said}, NOW) == seconds
    finally:
        monkeypatch.undo()
        time.tzset()


@pytest.mark.parametrize("name", ["Retry-After", "retry-after", "RETRY-AFTER"])
def test_header_names_have_no_case(name):
    """Receivers spell it as they like."""
    assert retry_after({"X": "1", name: "5"}, NOW) == 5.0
    assert retry_after({}, NOW) == 0.0


@given(st.integers(0, 3600))
def test_dates_count_from_now(ahead):
    """A date is as long as it is ahead."""
    date = format_datetime(datetime.fromtimestamp(NOW + ahead, UTC), usegmt=True)
    assert retry_after({"Retry-After": date}, NOW) == ahead


@given(st.text(max_size=40))
def test_no_header_breaks_a_delivery(said):
    """Whatever a receiver writes, it is a number of seconds up to an hour."""
    assert 0.0 <= retry_after({"Retry-After": said}, NOW) <= 3600.0
