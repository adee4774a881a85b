"""Whether a delivery is settled, worth another try, or dead. Pure.

2xx settles. 408, 429, 5xx and transport errors are tried again, with exponential backoff and
jitter, not before what Retry-After asks for. Every other code is final: the receiver has
understood, and does not want it.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

FIRST_BACKOFF_SECONDS = 1.0
LONGEST_BACKOFF_SECONDS = 300.0
#: What a receiver may ask for at most; a typo must not silence it for a year.
LONGEST_RETRY_AFTER_SECONDS = 3600.0


@dataclass(frozen=True, slots=True)
class Settled:
    pass


@dataclass(frozen=True, slots=True)
class Retry:
    delay_seconds: float
    reason: str


@dataclass(frozen=True, slots=True)
class Dead:
    reason: str


Decision = Settled | Retry | Dead


def decide(
    *,
    status: int | None,
    error: str = "",
    headers: Mapping[str, str] | None = None,
    attempts: int,
    age_seconds: float,
    max_age_seconds: float,
    now: float,
    random: float,
) -> Decision:
    """Decide what becomes of a delivery after an attempt.

    Args:
        status: the HTTP status code; None when no answer came, `error` says why.
        attempts: how many were made, this one counted.
        random: a number in [0, 1).
    """
    if status is not None and 200 <= status < 300:
        return Settled()
    reason = error if status is None else f"HTTP {status}"
    if status is not None and not is_retryable(status):
        return Dead(reason)
    if age_seconds > max_age_seconds:
        return Dead(f"{reason}; given up after {age_seconds:.0f} s")
    backoff = min(LONGEST_BACKOFF_SECONDS, FIRST_BACKOFF_SECONDS * 2.0 ** min(attempts - 1, 16))
    delay = backoff * (0.5 + 0.5 * random)
    asked = retry_after(headers or {}, now)
    return Retry(max(delay, asked), reason)


def is_retryable(status: int) -> bool:
    return status in (408, 429) or 500 <= status < 600


def retry_after(headers: Mapping[str, str], now: float) -> float:
    """Give the seconds a Retry-After header asks for (RFC 9110, 10.2.3); 0 without one."""
    said = next((v for k, v in headers.items() if k.lower() == "retry-after"), "").strip()
    if said.isascii() and said.isdigit():
        return min(float(said[:9]), LONGEST_RETRY_AFTER_SECONDS)
    try:
        date = parsedate_to_datetime(said)
        # An asctime date names no zone, and means UTC.
        asked = date.replace(tzinfo=date.tzinfo or UTC).timestamp() - now
    except (ValueError, OverflowError, TypeError):
        return 0.0
    return min(max(0.0, asked), LONGEST_RETRY_AFTER_SECONDS)
