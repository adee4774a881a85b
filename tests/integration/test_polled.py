"""A polled server's life: it loses a table, is lost, comes back; and who hears of it."""

from __future__ import annotations

import time
from contextlib import ExitStack

import pytest

from sr_exporter.config import Alertmanager, Config, SecretUrl, Source, Webhook
from sr_exporter.simulator.httpd import MiHttpd
from sr_exporter.simulator.node import Planned, SimulatedNode
from sr_exporter.simulator.releases import OPENSIPS_4_0
from sr_exporter.simulator.servers import MiThread
from tests.harness import RunningApp, Samples, eventually, series
from tests.integration.test_alerting import alertmanager
from tests.receiver import Receiver

PLAN = (Planned("sql_cacher", "carriers"),)


class Clock:
    """The wall clock, put forward at will: minutes pass without being waited for."""

    def __init__(self) -> None:
        self.ahead = 0.0

    def __call__(self) -> float:
        return time.time() + self.ahead


def _node(clock: Clock) -> SimulatedNode:
    """Give a server that has been running, and ready, for an hour."""
    began = clock() - 3600
    node = SimulatedNode(OPENSIPS_4_0, PLAN)
    node.start(began)
    node.initialized(began + 1)
    node.begin_load("sql_cacher", "carriers", began + 1)
    node.finish_load("sql_cacher", "carriers", "1 records loaded", began + 2)
    return node


def _shown(found: Samples, family: str = "opensips_sr_status") -> dict[str, float]:
    return {
        dict(labels)["group"]: value
        for labels, value in series(found, family, source="sip-1").items()
    }


@pytest.fixture
def world(tmp_path):
    """A server, an exporter that polls it, and a webhook receiver."""
    clock = Clock()
    node = _node(clock)
    with ExitStack() as stack:
        httpd = stack.enter_context(MiThread(MiHttpd(node, clock=clock)))
        receiver = stack.enter_context(Receiver())
        config = Config(
            sources=(Source("sip-1", httpd.url, poll_interval_seconds=0.1, max_share=1.0),),
            notifiers=(Webhook("hook", SecretUrl(receiver.url)),),
        )
        app = stack.enter_context(RunningApp(tmp_path, config, clock=clock))
        eventually(lambda: _shown(app.client.metrics()) == {"core": 1, "sql_cacher": 1})
        yield clock, node, httpd, receiver, app


def test_a_lost_table_is_told_and_its_return_too(world):
    """What a poll finds not ready goes to the receiver, with its reason, and ends."""
    clock, node, httpd, receiver, app = world
    httpd.call(
        lambda: (
            node.add_report("sql_cacher", "carriers", "no table carriers", clock()),
            node.set_status("sql_cacher", "carriers", -2, "no data loaded"),
        )
    )
    (fired,) = receiver.wait_for(1)
    (alert,) = fired.body["alerts"]
    assert fired.status == "firing"
    assert alert["labels"]["identifier"] == "carriers"
    assert alert["annotations"]["description"].endswith("UTC: Status -2: no data loaded")
    assert alert["annotations"]["reports"].endswith("no table carriers")
    assert _shown(app.client.metrics(), "opensips_sr_ready")["sql_cacher"] == 0
    httpd.call(lambda: node.set_status("sql_cacher", "carriers", 1, "data available"))
    assert [one.status for one in receiver.wait_for(2)] == ["firing", "resolved"]
    changes = _shown(app.client.metrics(), "opensips_sr_status_changes_total")
    assert changes == {"core": 0, "sql_cacher": 2}


def test_a_lost_server_is_down_at_once_withheld_after_a_minute_and_comes_back(world):
    """Rule 7 from end to end: gauge, alert after 30 s, series withheld, counters unbroken."""
    clock, node, httpd, receiver, app = world
    httpd.call(lambda: node.set_status("sql_cacher", "carriers", 2, "data re-loading"))
    receiver.wait_for(1)
    before = _shown(app.client.metrics(), "opensips_sr_reports_total")
    httpd.refuse()
    up = ("opensips_sr_source_up", (("source", "sip-1"),))
    found = eventually(lambda: (found := app.client.metrics())[up] == 0.0 and found)
    assert _shown(found), "keys are kept for a minute"
    assert len(receiver.received) == 1, "a source is given 30 s"
    clock.ahead += 31
    told = receiver.wait_for(2, within=20)[1].body["alerts"][0]
    assert told["labels"]["alertname"] == "OpenSIPSSourceDown"
    assert httpd.url in told["annotations"]["description"]
    clock.ahead += 30
    eventually(lambda: not _shown(app.client.metrics()))
    found = app.client.metrics()
    assert found[up] == 0.0
    assert not series(found, "opensips_sr_group_ready", source="sip-1")
    httpd.listen()
    # The next try is up to a minute away by now: failures back off.
    found = eventually(lambda: (found := app.client.metrics())[up] == 1.0 and found, within=60)
    assert _shown(found) == {"core": 1, "sql_cacher": 2}
    assert _shown(found, "opensips_sr_status_changes_total") == {"core": 0, "sql_cacher": 1}
    assert _shown(found, "opensips_sr_reports_total") == before
    assert receiver.wait_for(3)[2].status == "resolved"


def test_a_restarted_server_begins_anew_without_a_false_word(world):
    """Its start moves, its rings are new, and no report is called lost."""
    clock, node, httpd, _, app = world
    start = ("opensips_sr_source_start_timestamp_seconds", (("source", "sip-1"),))
    before = app.client.metrics()[start]
    reports = _shown(app.client.metrics(), "opensips_sr_reports_total")
    httpd.call(lambda: (node.stop(), node.start(clock()), node.initialized(clock())))
    found = eventually(lambda: (found := app.client.metrics())[start] > before + 3000 and found)
    overruns = ("opensips_sr_report_overruns_total", (("source", "sip-1"),))
    assert found[overruns] == 0
    again = eventually(
        lambda: (
            (now := _shown(app.client.metrics(), "opensips_sr_reports_total"))["core"]
            > reports["core"]
            and now
        )
    )
    assert again["core"] == reports["core"] + 2


@pytest.mark.real
def test_an_alert_outlives_a_restart_of_the_exporter_and_ends_with_what_was_missed(tmp_path):
    """Kept levels: what recovered while the exporter was away is resolved at Alertmanager."""
    clock = Clock()
    node = _node(clock)
    with MiThread(MiHttpd(node, clock=clock)) as httpd, alertmanager(tmp_path) as running:
        config = Config(
            sources=(Source("sip-1", httpd.url, poll_interval_seconds=0.1, max_share=1.0),),
            notifiers=(Alertmanager("am", (running.url,)),),
        )
        with RunningApp(tmp_path / "data", config, clock=clock) as app:
            eventually(lambda: _shown(app.client.metrics()))
            httpd.call(lambda: node.set_status("sql_cacher", "carriers", -2, "no data loaded"))
            (before,) = eventually(lambda: running.alerts('group="sql_cacher"'))
        with RunningApp(tmp_path / "data", config, clock=clock) as app:
            eventually(lambda: _shown(app.client.metrics()))
            (again,) = running.alerts('group="sql_cacher"')
            assert again["startsAt"] == before["startsAt"]
        httpd.call(lambda: node.set_status("sql_cacher", "carriers", 1, "data available"))
        assert running.alerts('group="sql_cacher"'), "nobody is there to resolve it yet"
        with RunningApp(tmp_path / "data", config, clock=clock):
            eventually(lambda: not running.alerts('group="sql_cacher"'))
