"""Slow clients, and those that vanished, hold nobody up."""

from __future__ import annotations

import contextlib
import os
import statistics
import subprocess
import sys
import time
from typing import TYPE_CHECKING

from tests.harness import Command, eventually, free_port

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SLOW, HALF_OPEN = 2000, 500
SCRAPES = 60
#: As long as a scrape may take, and how long it is looked on; by hand it may be longer.
MOST_SECONDS = 0.1
WATCHED_SECONDS = float(os.environ.get("SR_SLOW_SECONDS", "3"))
#: So much more memory they may cost all together, each with what the protocol keeps for it.
MOST_GROWTH_BYTES = 150 * 2**20
_MEMORY = "process_resident_memory_bytes", ()


@contextlib.contextmanager
def slow_clients(*numbers: int) -> Iterator[subprocess.Popen[str]]:
    """Have them connected; they go at the end."""
    with subprocess.Popen(
        [sys.executable, "-m", "tests.slow_clients", *map(str, numbers)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as running:
        assert running.stdout is not None
        assert running.stdin is not None
        try:
            assert running.stdout.readline() == "ready\n"
            yield running
        finally:
            running.stdin.close()


def took(what: object) -> float:
    """Give how long a call took."""
    assert callable(what)
    began = time.perf_counter()
    assert what().ok
    return time.perf_counter() - began


def connected(exporter: Command) -> tuple[int, int]:
    """Give how many connections there are, to the HTTP server and to the listener of events."""
    found = exporter.client.metrics()
    http, events = (
        int(found["sr_exporter_connections", (("listener", listener),)])
        for listener in ("http", "events")
    )
    return http, events


def test_a_scrape_is_answered_among_slow_clients(tmp_path: Path, figure) -> None:
    """2,000 that send or take a byte a second, and 500 that are gone without a word."""
    events = free_port()
    config = tmp_path / "sr.yml"
    config.write_text(
        f"events: {{stream: {{listen: 127.0.0.1:{events}}}, peers: {{127.0.0.1: sip-1}}}}\n"
    )
    with Command(f"--config.file={config}", f"--storage.path={tmp_path / 'data'}") as exporter:
        exporter.wait_ready()
        items = [{"group": "g", "identifier": f"i{n}", "status": 1} for n in range(1000)]
        assert exporter.client.push(*items).ok
        before = exporter.client.metrics()[_MEMORY]
        with slow_clients(exporter.port, events, SLOW, HALF_OPEN) as clients:
            # A third of them asks for a scrape first, and takes none of it: that is work. As many
            # as may wait so stay; of the others all.
            wanted = SLOW * 3 // 5 + HALF_OPEN
            eventually(lambda: sum(connected(exporter)) >= wanted, within=60, every=0.2)
            there = connected(exporter)
            scrapes, pushes = [], []
            number = 0
            until = time.monotonic() + WATCHED_SECONDS
            while number < SCRAPES or time.monotonic() < until:
                number += 1
                exporter.client.close()  # each comes over a connection of its own
                scrapes.append(
                    took(lambda: exporter.client.session.get(f"{exporter.base}/metrics"))
                )
                item = {"group": "g", "identifier": "i1", "status": number}
                pushes.append(took(lambda item=item: exporter.client.push(item)))
            after = exporter.client.metrics()
            assert clients.poll() is None
        grown = after[_MEMORY] - before
        p95 = statistics.quantiles(scrapes, n=20)[-1]
        figure(
            f"slow clients: {SLOW} slow, {HALF_OPEN} half-open"
            f" ({there[0]} http, {there[1]} events connected):"
            f" {len(scrapes)} scrapes, median {statistics.median(scrapes) * 1000:.1f} ms,"
            f" p95 {p95 * 1000:.1f} ms, max {max(scrapes) * 1000:.1f} ms;"
            f" pushes median {statistics.median(pushes) * 1000:.1f} ms,"
            f" max {max(pushes) * 1000:.1f} ms; memory +{grown / 2**20:.0f} MiB"
        )
        assert p95 < MOST_SECONDS
        assert grown < MOST_GROWTH_BYTES
        assert exporter.client.push({"group": "g", "status": 1}).ok
