"""The report texts of real servers, from their recorded rings to a real Alertmanager.

Three gateways of two partitions and four destinations were recorded as they went `[inactive]`,
after good loads; the ends are told in the same words, and by a load and a restart.
"""

from __future__ import annotations

import re
from collections import Counter
from contextlib import ExitStack
from itertools import product

import pytest

from sr_exporter.config import Alertmanager, Config, Source
from sr_exporter.model import Report
from sr_exporter.simulator.httpd import MiHttpd
from sr_exporter.simulator.servers import MiThread
from tests.harness import RunningApp, eventually, series
from tests.integration.test_alerting import RealAlertmanager, alertmanager
from tests.integration.test_polled import Clock
from tests.recorded_mi import asked_at, recorded_node

pytestmark = pytest.mark.real

NAME = "OpenSIPSReportedNotReady"
Subject = tuple[str, str, str]
GATEWAYS = set(product(["drouting"], ["us;events", "eu;events"], ["gw0", "gw1", "gw2"]))
DESTINATIONS = {
    ("dispatcher", "default;events", f"sip:127.0.0.1:{5070 + number}, set {1 + number // 3}")
    for number in (1, 2, 3, 4)
}
ALL = GATEWAYS | DESTINATIONS
#: How often each rule fits what was recorded; six tables were loaded.
RECORDED = {
    "data_load_succeeded": 6,
    "data_load_failed": 0,
    "gateway_inactive": 6,
    "gateway_active": 0,
    "destination_inactive": 4,
    "destination_active": 0,
    "flood": 0,
}


class World:
    """A recorded server, an exporter that polls it, and an Alertmanager that is told."""

    def __init__(self, stack: ExitStack, folder, version: str, running: RealAlertmanager) -> None:
        self.source = f"sip-{version}"
        self.running = running
        self.clock = Clock()
        # What is put forward must not be of the future to an Alertmanager.
        self.clock.ahead = -120.0
        self.node = recorded_node(version)
        self.move(int(self.clock() - asked_at(version)))
        self.mi = stack.enter_context(MiThread(MiHttpd(self.node, clock=self.clock)))
        source = Source(self.source, self.mi.url, poll_interval_seconds=0.1, max_share=1.0)
        config = Config(sources=(source,), notifiers=(Alertmanager("am", (running.url,)),))
        self.app = stack.enter_context(RunningApp(folder, config, clock=self.clock))

    def move(self, seconds: int) -> None:
        """Have all that was recorded be so much later."""
        self.node.started_at += seconds
        for group in self.node.groups():
            for identifier in group.identifiers():
                for _ in range(len(identifier.reports)):
                    at, log = identifier.reports.popleft()
                    identifier.reports.append(Report(at + seconds, log))

    def act(self, act: str, *arguments: object) -> None:
        """Have something happen on the server, in another second than what was before.

        A few of these within one poll must stay below what tells of a restart (5 s).
        """
        self.clock.ahead += 1.0
        self.mi.call(lambda: getattr(self.node, act)(*arguments, self.clock()))

    def restart(self) -> None:
        """Have the server begin anew, with the same identifiers."""
        held = [(group.name, one) for group in self.node.groups() for one in group.identifiers()]
        self.node.start(self.clock())
        for group, one in reversed(held):
            if group != "core":
                self.node.register(group, one.name, one.status, one.details)

    def shown(self) -> set[Subject]:
        """Give whom the metrics show."""
        found = series(self.app.client.metrics(), "opensips_sr_reported_ready", source=self.source)
        assert set(found.values()) <= {0.0}
        return {
            (labels["group"], labels["identifier"], labels["subject"])
            for labels in map(dict, found)
        }

    def fires(self) -> set[Subject]:
        """Give whose alerts fire at Alertmanager."""
        found = [one["labels"] for one in self.running.alerts(f'source="{self.source}"')]
        return {
            (labels["group"], labels["identifier"], labels["subject"])
            for labels in found
            if labels["alertname"] == NAME
        }

    def matches(self) -> dict[str, int]:
        found = series(
            self.app.client.metrics(), "opensips_sr_report_matches_total", source=self.source
        )
        counts: Counter[str] = Counter()
        for labels, value in found.items():
            counts[dict(labels)["rule"]] += int(value)
        return {rule: counts[rule] for rule in RECORDED}

    def until(self, wanted: set[Subject]) -> None:
        """Wait until these, and no others, are down, here and there."""
        eventually(lambda: self.shown() == wanted and self.fires() == wanted)


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    with alertmanager(tmp_path_factory.mktemp("am")) as running:
        yield running


@pytest.fixture(params=["3.6", "4.0", "master"])
def world(request, tmp_path, running):
    with ExitStack() as stack:
        yield World(stack, tmp_path, request.param, running)


def test_recorded_texts_are_told_by_name_and_so_are_their_ends(world):
    """Dead, revived, loaded anew or not, flooded, restarted: right signals, alerts and ends."""
    world.until(ALL)
    assert world.matches() == RECORDED
    for one in world.running.alerts(f'source="{world.source}"', f'alertname="{NAME}"'):
        name = re.escape(one["labels"]["subject"].partition(",")[0])
        assert re.search(f"<{name}>", one["annotations"]["reports"])
        assert "due to negative probing reply" in one["annotations"]["description"]

    # Back in the same words: one gateway of one partition, one destination.
    world.act("gateway", "us", "<gw0>/127.0.0.1:5080", "active", "probing reply")
    world.act("destination", "default", "<sip:127.0.0.1:5073>, set 2", "active", "MI command")
    left = ALL - {("drouting", "us;events", "gw0"), _destination(5073, 2)}
    world.until(left)

    # A load that fails, of any table, ends nothing; nor does a flood concern anybody.
    world.act("begin_load", "drouting", "eu")
    world.act("fail_load", "drouting", "eu")
    world.act("add_report", "pike", "main", "IP 127.0.0.1 detected as flooding")
    eventually(lambda: world.matches()["flood"] == 1)
    assert world.matches()["data_load_failed"] == 1
    assert world.shown() == left

    # A good one ends those of its own table, but whom a text names again.
    world.act("begin_load", "drouting", "us")
    world.act("finish_load", "drouting", "us", "3 gateways loaded (0 discarded)")
    left -= {("drouting", "us;events", "gw1"), ("drouting", "us;events", "gw2")}
    world.until(left)
    world.act("gateway", "us", "<gw2>/127.0.0.1:5082", "inactive", "negative probing reply")
    left |= {("drouting", "us;events", "gw2")}
    world.until(left)
    assert world.matches() == RECORDED | {
        "data_load_succeeded": 7,
        "data_load_failed": 1,
        "gateway_inactive": 7,
        "gateway_active": 1,
        "destination_active": 1,
        "flood": 1,
    }

    # The server begins anew, and knows nothing of what it said.
    world.clock.ahead += 20.0
    world.mi.call(world.restart)
    world.until(set())
    assert world.matches()["flood"] == 1


def _destination(port: int, number: int) -> Subject:
    return ("dispatcher", "default;events", f"sip:127.0.0.1:{port}, set {number}")
