"""What scrapes, pushes and webhooks cost each other when all happen at once."""

from __future__ import annotations

import json
import threading
import time
from collections import defaultdict
from contextlib import ExitStack
from typing import TYPE_CHECKING

from tests.bench import raw
from tests.bench.figures import OURS, at_most, p99
from tests.bench.held import Held
from tests.bench.load import Load
from tests.bench.processes import Exporter
from tests.bench.push import CONNECTIONS, PUSHED, requests_of, spread
from tests.fast_receiver import FastReceiver
from tests.harness import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tests.bench.load import Loaded
    from tests.bench.setting import Setting

#: So many statuses are pushed a second, each of them one webhook.
PUSHES_PER_SECOND = 200
#: From one scrape to the next: far more often than any Prometheus asks.
PAUSE_SECONDS = 1.0
#: The load lasts so many times as long as a round of a rate does.
LONGER = 5
#: Of these nobody is told: a scrape after their changes is alone.
_SILENT = "*@carrier-19.*"


class Receiver(FastReceiver):
    """Notes when each identifier was told of."""

    def __init__(self) -> None:
        super().__init__()
        self.told: dict[str, list[float]] = defaultdict(list)

    def take(self, head: bytes, body: bytes) -> None:
        at = time.perf_counter()
        for alert in json.loads(body)["alerts"]:
            self.told[alert["labels"]["identifier"]].append(at)

    @property
    def count(self) -> int:
        return sum(map(len, self.told.values()))


def run(setting: Setting) -> None:
    """Scrape after as many changes as will come in a second, and then while they come."""
    held = Held(setting.identifiers, setting.name_bytes)
    chosen = [number for number in spread(held, PUSHED) if number % 20 != 19]
    silent = range(19, held.count, 20)
    with ExitStack() as running:
        receiver = running.enter_context(Receiver())
        hook = {"url": f"http://127.0.0.1:{receiver.port}/hook"}
        settings = {
            "notifiers": [{"name": "hook", "webhook": hook}],
            "alerts": {"rules": [{"identifier": _SILENT, "silence": True}]},
        }
        ours = running.enter_context(Exporter(setting.folder / "ours", settings))
        load = running.enter_context(Load())
        ours.push(held.bodies())
        raw.get(ours.port)
        alone: list[float] = []
        for turn in range(setting.rounds):
            count = min(PUSHES_PER_SECOND, len(silent))
            ours.push(held.flip([silent[(turn + 37 * n) % len(silent)] for n in range(count)]))
            alone.append(raw.get(ours.port).seconds)

        lasting = LONGER * setting.seconds
        requests = requests_of(held, chosen, "/api/v1/push")
        loading = load.begin(ours.port, requests, lasting, per_second=PUSHES_PER_SECOND)
        pause, together = threading.Event(), []
        while not loading.done():
            pause.wait(PAUSE_SECONDS)
            together.append(raw.get(ours.port).seconds)
        loaded = loading.result()
        eventually(lambda: receiver.count >= len(loaded.took), within=60)
        lag_ms = 1000 * ours.value("sr_exporter_event_loop_lag_seconds")
        told = list(_told(loaded, receiver, held, chosen))
    _say(setting, alone, together, loaded, told)
    setting.figures.judged("event loop lag, the longest of a minute, ms", lag_ms, at_most(50))


def _told(loaded: Loaded, receiver: Receiver, held: Held, chosen: Sequence[int]) -> Iterator[float]:
    """Give how long after each push its webhook was there."""
    sent: dict[str, list[float]] = defaultdict(list)
    for connection, number, at, _ in loaded.answers:
        own = chosen[connection::CONNECTIONS]
        sent[held.names[own[number % len(own)]]].append(at)
    for name, times in sent.items():
        if len(receiver.told[name]) != len(times):
            raise RuntimeError(f"{name}: {len(times)} pushes, {len(receiver.told[name])} webhooks")
        yield from (at - began for began, at in zip(times, receiver.told[name], strict=True))


def _say(
    setting: Setting,
    alone: list[float],
    together: list[float],
    loaded: Loaded,
    told: list[float],
) -> None:
    figures = setting.figures
    by_itself = figures.measured("scrape alone", OURS, alone, "s")
    among = figures.measured("scrape together", OURS, together, "s")
    figures.measured("pushes together", OURS, [loaded.rate], "1/s")
    figures.measured("push together", OURS, [1000 * one for one in loaded.took], "ms")
    figures.measured("webhook together", OURS, [1000 * one for one in told], "ms")
    figures.judged("scrape together by scrape alone", among / by_itself, at_most(3))
    figures.judged("push p99, ms", 1000 * p99(loaded.took), at_most(50))
    figures.judged("webhook p99, ms", 1000 * p99(told), at_most(250))
