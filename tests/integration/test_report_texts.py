"""What only report texts tell, from a server's ring to the metrics and the receiver."""

from __future__ import annotations

import re
from contextlib import ExitStack
from pathlib import Path

import pytest

from sr_exporter.config import Config, Limits, Reports, SecretUrl, Source, Webhook
from sr_exporter.simulator.httpd import MiHttpd
from sr_exporter.simulator.node import Planned, SimulatedNode
from sr_exporter.simulator.releases import OPENSIPS_4_0
from sr_exporter.simulator.servers import MiThread
from tests.harness import RunningApp, eventually, series
from tests.integration.test_polled import Clock
from tests.receiver import Receiver

PLAN = (
    Planned("drouting", "us"),
    Planned("drouting", "us;events"),
    Planned("dispatcher", "default"),
    Planned("dispatcher", "default;events"),
    Planned("dialplan", "default"),
    Planned("pike"),
)
GATEWAY, DESTINATION = "<gw1>/192.0.2.1:5060", "<sip:192.0.2.9>, set 1"
PROBING = "negative probing reply"


class World:
    """A server that has run for an hour, an exporter that polls it, and a receiver."""

    def __init__(self, stack: ExitStack, folder) -> None:
        self.clock = Clock()
        self.node = SimulatedNode(OPENSIPS_4_0, PLAN)
        self.begin(self.clock() - 3600)
        self.httpd = stack.enter_context(MiThread(MiHttpd(self.node, clock=self.clock)))
        self.receiver = stack.enter_context(Receiver())
        self.config = self.configured()
        self.folder = folder
        self.app = RunningApp(folder, self.config, clock=self.clock, read_config=self.read)

    def begin(self, at: float) -> None:
        self.node.start(at)
        for place in (("drouting", "us"), ("dispatcher", "default"), ("dialplan", "default")):
            self.node.begin_load(*place, at + 1)
            self.node.finish_load(*place, "1 rules loaded (0 discarded)", at + 2)
        self.node.initialized(at + 3)

    def configured(self, *off: str) -> Config:
        mi = Source("sip-1", self.httpd.url, poll_interval_seconds=0.1, max_share=1.0)
        return Config(
            sources=(mi,),
            reports=Reports(switched_off=frozenset(off)),
            limits=Limits(subjects=3),
            notifiers=(Webhook("hook", SecretUrl(self.receiver.url)),),
        )

    def read(self) -> Config:
        return self.config

    def gateway(self, state: str, gateway: str = GATEWAY) -> None:
        self.httpd.call(
            lambda: self.node.gateway("us", gateway, state, PROBING, self.clock()),
        )

    def down(self) -> set[str]:
        shown = series(self.app.client.metrics(), "opensips_sr_reported_ready", source="sip-1")
        assert set(shown.values()) <= {0.0}
        return {dict(labels)["subject"] for labels in shown}

    def matches(self, rule: str) -> float:
        found = series(self.app.client.metrics(), "opensips_sr_report_matches_total", rule=rule)
        return sum(found.values())

    def told(self) -> list[tuple[str, str, str]]:
        bodies = [one.body for one in self.receiver.received]
        return [
            (body["commonLabels"]["alertname"], body["commonLabels"]["subject"], body["status"])
            for body in bodies
        ]


@pytest.fixture
def world(tmp_path):
    with ExitStack() as stack:
        world = World(stack, tmp_path)
        with world.app:
            eventually(lambda: world.matches("data_load_succeeded") == 3)
            yield world


NAME = "OpenSIPSReportedNotReady"


def test_a_dead_gateway_is_told_by_its_name_and_so_is_its_return(world):
    """The page carries the reason; a restart of the exporter alters nothing."""
    world.gateway("inactive")
    (fired,) = world.receiver.wait_for(1)
    labels = fired.body["alerts"][0]["labels"]
    assert (labels["alertname"], labels["subject"], labels["identifier"]) == (
        NAME,
        "gw1",
        "us;events",
    )
    assert PROBING in fired.body["alerts"][0]["annotations"]["reports"]
    assert world.down() == {"gw1"}
    world.app.__exit__(None, None, None)
    world.app.__enter__()
    eventually(lambda: world.down() == {"gw1"})
    world.gateway("active")
    eventually(lambda: world.down() == set())
    world.receiver.wait_for(2)
    assert world.told() == [(NAME, "gw1", "firing"), (NAME, "gw1", "resolved")]
    assert (world.matches("gateway_inactive"), world.matches("gateway_active")) == (1, 1)


def test_a_dead_destination_a_failed_load_and_a_flood(world):
    """Each has its signal; only the destination is somebody who alerts."""
    clock, node = world.clock, world.node

    def misfortune() -> None:
        node.destination("default", DESTINATION, "inactive", PROBING, clock())
        node.begin_load("dialplan", "default", clock())
        node.fail_load("dialplan", "default", clock())
        node.add_report("pike", "main", "IP 203.0.113.9 detected as flooding", clock())

    world.httpd.call(misfortune)
    eventually(lambda: world.down() == {"sip:192.0.2.9, set 1"})
    rules = ("destination_inactive", "data_load_failed", "flood")
    assert [world.matches(rule) for rule in rules] == [1, 1, 1]
    world.receiver.wait_for(1)
    clock.ahead += 2
    world.httpd.call(lambda: node.begin_load("dispatcher", "default", clock()))
    world.httpd.call(lambda: node.finish_load("dispatcher", "default", "1 destinations", clock()))
    world.receiver.wait_for(2)
    assert world.down() == set()
    subject = "sip:192.0.2.9, set 1"
    assert world.told() == [(NAME, subject, "firing"), (NAME, subject, "resolved")]


def test_a_restart_of_the_server_ends_all_of_it(world):
    for number in range(5):
        world.gateway("inactive", f"<gw{number}>/192.0.2.1")
    eventually(lambda: world.matches("gateway_inactive") == 5)
    assert len(world.down()) == 3
    found = series(world.app.client.metrics(), "sr_exporter_subjects_refused_total", source="sip-1")
    assert list(found.values()) == [2]
    world.receiver.wait_for(3)
    world.httpd.call(lambda: world.begin(world.clock()))
    world.receiver.wait_for(6)
    assert world.down() == set()


def test_a_rule_that_is_switched_off_by_a_reload_says_nothing_any_more(world):
    """What it had said ends in that pass."""
    world.gateway("inactive")
    world.receiver.wait_for(1)
    world.config = world.configured("gateway_inactive")
    assert world.app.client.reload().ok
    world.receiver.wait_for(2)
    assert world.told()[-1] == (NAME, "gw1", "resolved")
    world.gateway("inactive", "<gw2>/192.0.2.1")
    world.gateway("active", "<gw2>/192.0.2.1")
    eventually(lambda: world.matches("gateway_active") == 1)
    assert (world.down(), len(world.receiver.received)) == (set(), 2)


def test_the_documented_push_of_a_report_alerts_by_its_gateway(tmp_path):
    """docs/http-api.md, as it is written there."""
    page = (Path(__file__).parents[2] / "docs" / "http-api.md").read_text("utf-8")
    (example,) = re.findall(r"curl -d '([^']*\"reports\"[^']*)' localhost:9797/api/v1/push", page)
    with RunningApp(tmp_path) as app:
        app.client.session.post(f"{app.base}/api/v1/push", example, timeout=10).raise_for_status()
        down = series(app.client.metrics(), "opensips_sr_reported_ready", subject="carrier-a")
        assert list(down.values()) == [0]
        url = f"{app.base}/api/v2/alerts?filter=alertname=OpenSIPSReportedNotReady"
        eventually(lambda: len(app.client.session.get(url, timeout=10).json()) == 1)
