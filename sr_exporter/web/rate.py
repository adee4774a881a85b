"""How often requests may come: a bucket of tokens, as Go's `rate.Limiter` is one."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from sr_exporter.config.web import RateLimit


class Bucket:
    """Begins full, gets a token each interval, and holds no more than the burst."""

    def __init__(self, limit: RateLimit, clock: Callable[[], float] = time.monotonic) -> None:
        self.limit = limit
        self._clock = clock
        self._tokens = float(limit.burst)
        self._at = clock()

    def take(self) -> bool:
        """Take a token; False when there is none."""
        now = self._clock()
        earned = (now - self._at) / self.limit.interval_seconds
        self._tokens, self._at = min(self.limit.burst, self._tokens + earned), now
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True

    @property
    def retry_after_seconds(self) -> int:
        """When there is a token again, for a header."""
        return max(1, math.ceil((1 - self._tokens) * self.limit.interval_seconds))
