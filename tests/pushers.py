"""Clients that push without pause, over many lives of one exporter, and remember every answer."""

from __future__ import annotations

import http.client
import json
from collections import Counter
from typing import TYPE_CHECKING, Self

from tests.crowd import Crowd, Key, Teller

if TYPE_CHECKING:
    from types import TracebackType

    from tests.harness import Samples

#: The n-th report is from n seconds after this.
BEGAN = 1_700_000_000


class Pusher(Teller):
    """Pushes to one of its keys after the other."""

    def __init__(self, crowd: Pushers, keys: list[Key]) -> None:
        super().__init__(crowd, keys)
        self._connection = http.client.HTTPConnection("127.0.0.1", crowd.port, timeout=30)
        self.answers: Counter[int] = Counter()

    def tell(self, key: Key) -> bool:
        said = f"n={key.sent}"
        body = json.dumps(
            {
                "source": self._crowd.source,
                "group": self._crowd.group,
                "identifier": key.identifier,
                "status": key.status(key.sent),
                "details": said,
                "reports": [
                    {"log": said.ljust(key.report_bytes, "."), "timestamp": BEGAN + key.sent}
                ],
            }
        )
        connection = self._connection
        try:
            if connection.sock is None:
                connection.connect()
        except OSError:
            connection.close()
            return False
        try:
            connection.request("POST", "/api/v1/push", body)
            answer = connection.getresponse()
            answer.read()
        except (OSError, http.client.HTTPException):
            connection.close()
            self.cut += 1
            return False
        self.answers[answer.status] += 1
        if answer.status == 503:
            assert answer.headers["Retry-After"], "a 503 says when to come again"
        return answer.status == 200

    def hang_up(self) -> None:
        self._connection.close()


class Pushers(Crowd):
    """A crowd of clients; `with` starts them, waiting at a shut gate, and has them end."""

    source = "crowd"

    def __init__(self, port: int, keys: list[list[Key]], *, retry_seconds: float = 0.02) -> None:
        super().__init__(self.source, port, keys, retry_seconds=retry_seconds)

    def member(self, keys: list[Key]) -> Pusher:
        return Pusher(self, keys)

    def __enter__(self) -> Self:
        self.begin()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.given_up = error is not None
        self.finish()

    @property
    def answers(self) -> Counter[int]:
        """How many answers there were of each status code."""
        return sum((pusher.answers for pusher in self.all), Counter())

    def held(self, found: Samples, key: Key) -> tuple[float | None, float]:
        reported = found.get(("opensips_sr_last_report_timestamp_seconds", self.labels(key)), BEGAN)
        return super().held(found, key), reported - BEGAN

    def holding(self, key: Key, number: int) -> tuple[int | None, int]:
        return super().holding(key, number), number

    def miscounted(self, found: Samples) -> list[str]:
        """Say which counters are not what was pushed; ask after `finish`."""
        wrong = []
        for key in self.keys:
            number, labels = key.acknowledged, self.labels(key)
            changes = found.get(("opensips_sr_status_changes_total", labels), 0)
            reports = found.get(("opensips_sr_reports_total", labels), 0)
            if (changes, reports) != (max(0, number - 1) if key.turns else 0, number):
                wrong.append(f"{key.identifier}: {changes} changes, {reports} reports, n={number}")
        return wrong
