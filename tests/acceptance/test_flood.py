"""A flood of changes while the receiver is down: kept, in bounded memory, and delivered in order.

`SR_FLOOD_CHANGES=100000` makes it as large as the design has it.
"""

from __future__ import annotations

import json
import os
import re
import time
from collections import defaultdict
from typing import TYPE_CHECKING

import pytest

from tests.fast_receiver import FastReceiver
from tests.harness import Command, eventually, series

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.once

CHANGES = int(os.environ.get("SR_FLOOD_CHANGES", "5000"))
KEYS = 500
#: What every change says besides its number: its notification is some 5 kB.
WORDS = " and so on" * 60
#: What one owed notification may take of the exporter's memory, and what a flood may take besides:
#: the bodies that are held, SQLite's cache, requests. Its text is not in there.
ROW_BYTES = 640
BASE_BYTES = 34 * 2**20


class FloodReceiver(FastReceiver):
    """Notes of each key what it was told."""

    keeps_alive = False

    def __init__(self) -> None:
        super().__init__()
        #: The numbers that each key's changes bear, as they came.
        self.told: dict[str, list[int]] = defaultdict(list)
        self.deliveries: set[str] = set()
        self.count = 0

    def take(self, head: bytes, body: bytes) -> None:
        alert = json.loads(body)["alerts"][0]
        (delivery,) = re.findall(r"X-SR-Delivery: (\S+)", head.decode())
        self.told[alert["labels"]["identifier"]].append(
            int(alert["annotations"]["details"].partition(" ")[0])
        )
        self.deliveries.add(delivery)
        self.count += 1


def resident(pid: int, what: str = "VmRSS") -> int:
    """Give a process' memory in bytes; `VmHWM` is the most it ever had."""
    with open(f"/proc/{pid}/status", encoding="ascii") as file:  # noqa: PTH123 - no path of ours
        (kilobytes,) = re.findall(rf"{what}:\s+(\d+) kB", file.read())
    return int(kilobytes) * 1024


@pytest.mark.timeout(120 + CHANGES // 50)
def test_a_flood_is_kept_and_delivered_in_order(tmp_path: Path, figure) -> None:
    """Every change is told once, each key's in their order; what it says is not in memory."""
    receiver = FloodReceiver()
    file = tmp_path / "sr.yml"
    hook = {"name": "hook", "webhook": {"url": f"http://127.0.0.1:{receiver.port}/"}}
    file.write_text(json.dumps({"notifiers": [hook]}))
    with Command(f"--config.file={file}", f"--storage.path={tmp_path / 'data'}") as running:
        running.wait_ready()
        quiet = resident(running.process.pid)
        rounds = CHANGES // KEYS
        began = time.monotonic()
        for number in range(rounds):
            answer = running.client.push(
                *(
                    {
                        "source": "flood",
                        "group": "g",
                        "identifier": f"k{key}",
                        "status": -1 - number % 2,
                        "details": f"{number}{WORDS}",
                    }
                    for key in range(KEYS)
                )
            )
            assert answer.json() == {"accepted": KEYS, "changed": KEYS}
        pushed = time.monotonic() - began
        owed = rounds * KEYS
        (backlog,) = series(running.client.metrics(), "sr_exporter_notifier_backlog").values()
        assert backlog == owed
        with receiver:
            began = time.monotonic()
            eventually(lambda: receiver.count >= owed, within=60 + owed / 100, every=0.05)
            delivered = time.monotonic() - began
            eventually(
                lambda: (
                    not any(
                        series(running.client.metrics(), "sr_exporter_notifier_backlog").values()
                    )
                )
            )
        most = resident(running.process.pid, "VmHWM")
        after = resident(running.process.pid)
    figure(
        f"flood of {owed} changes: pushed in {pushed:.1f} s ({owed / pushed:.0f}/s),"
        f" delivered in {delivered:.1f} s ({owed / delivered:.0f}/s);"
        f" memory {quiet / 2**20:.0f} MB before, {most / 2**20:.0f} MB at most,"
        f" {after / 2**20:.0f} MB after; {(most - quiet) / owed:.0f} bytes for each that was owed"
    )
    assert receiver.told == {f"k{key}": list(range(rounds)) for key in range(KEYS)}
    assert len(receiver.deliveries) == receiver.count == owed
    assert most - quiet < BASE_BYTES + ROW_BYTES * owed
