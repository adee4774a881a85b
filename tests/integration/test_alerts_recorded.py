"""The alerts on series that a real exporter wrote while its servers played a story.

What the hand-written tests suppose of the exporter is here what it does: a metric that is renamed
in the exporter, or a label, ends these tests, and not the alerts of whoever upgrades. Scrapes and
evaluations fall together here, so a window holds the sample at its far edge: that is Prometheus 2.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from sr_exporter.simulator.node import REGISTER_TIMEOUT, REGISTERED
from sr_exporter.simulator.scenario import (
    CYCLE,
    CYCLE_SECONDS,
    LINES,
    LOADED,
    OPENING,
    OPENING_SECONDS,
)
from tests.promtool import RULES, all_alerts, read, rules_in, run_tests
from tests.rehearsal import STEP_SECONDS, Act, Rehearsal, firing_tests, input_series

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

    from sr_exporter.simulator.node import SimulatedNode
    from tests.promtool import Document
    from tests.rehearsal import Recorded

#: The demo's story, a minute for each of its seconds.
DEMO = [
    *(Act(beat.second, beat.node, beat.act) for beat in OPENING),
    *(Act(OPENING_SECONDS + beat.second, beat.node, beat.act) for beat in CYCLE),
]
MINUTES = 152
assert OPENING_SECONDS + CYCLE_SECONDS == 66


# --- and a bad night after it ----------------------------------------------------------------


def status(group: str, identifier: str, number: int, details: str):
    return lambda node, now: node.set_status(group, identifier, number, details)


def registrants(state: str):
    def act(node: SimulatedNode, now: float) -> None:
        for line in LINES:
            node.registrant(line, state, now)

    return act


def restart(node: SimulatedNode, now: float) -> None:
    """Be back at once, with all that is loaded."""
    node.start(now)
    for group in node.groups():
        for identifier in group.identifiers():
            if group.name in LOADED and not identifier.name.endswith(";events"):
                node.finish_load(group.name, identifier.name, LOADED[group.name], now)
    node.initialized(now)


def restart_with_less(node: SimulatedNode, now: float) -> None:
    """Start with a configuration that lost its last module."""
    node._plan = node._plan[:-1]
    restart(node, now)


def restart_registered(node: SimulatedNode, now: float) -> None:
    restart(node, now)
    registrants(REGISTERED)(node, now)


def many_reports(node: SimulatedNode, now: float) -> None:
    """Turn a ring of 20 over."""
    for number in range(45):
        node.add_report("dialplan", "default", f"line {number}", now)


NO_DATA = status("dialplan", "default", -2, "no data loaded")
AVAILABLE = status("dialplan", "default", 1, "data available")
NIGHT = [
    Act(68, "sip-1", lambda node, now: node.begin_load("drouting", "eu", now)),
    Act(70, "reg-1", registrants(REGISTER_TIMEOUT)),
    *(Act(70, name, NO_DATA) for name in ("sip-1", "sip-2", "edge-1")),
    *(Act(80, name, AVAILABLE) for name in ("sip-1", "sip-2", "edge-1")),
    Act(80, "reg-1", registrants(REGISTERED)),
    *(
        Act(82 + n, "sip-1", status("alarms", "main", -1 if n % 2 == 0 else 1, ""))
        for n in range(8)
    ),
    Act(90, "sip-1", lambda node, now: node.finish_load("drouting", "eu", LOADED["drouting"], now)),
    *(Act(minute, "edge-1", restart) for minute in (95, 97, 99)),
    Act(
        100, "sip-1", lambda node, now: node.register("clusterer", "cap:dialog", -2, "sync pending")
    ),
    Act(100, "reg-1", lambda node, now: node.start(now)),
    Act(104, "sip-2", restart_with_less),
    Act(108, "reg-1", lambda node, now: node.stop()),
    Act(110, "edge-1", many_reports),
    Act(115, "reg-1", restart_registered),
    Act(118, "sip-1", status("clusterer", "cap:dialog", 1, "synced")),
    Act(120, "", lambda exporter: exporter.reload(faulty=True)),
    Act(130, "", lambda exporter: exporter.reload(faulty=False)),
    Act(135, "", lambda exporter: exporter.stop_exporter()),
]
STORY = [*DEMO, Act(0, "", lambda exporter: exporter.start_exporter()), *NIGHT]

#: What fires in that story: from its first minute to the one in which it is over.
FIRES: dict[tuple[str, ...], list[tuple[float, float]]] = {
    ("OpenSIPSSRCoreNotReady", "edge-1", "core", "main"): [(2, 8)],
    ("OpenSIPSSRCoreNotReady", "sip-1", "core", "main"): [(2, 8)],
    ("OpenSIPSSRCoreNotReady", "sip-2", "core", "main"): [(2, 8)],
    ("OpenSIPSSRFleetWideNotReady", "", "dialplan", "default"): [(2, 8), (73, 85)],
    ("OpenSIPSSRFleetWideNotReady", "", "dispatcher", "default"): [(2, 8)],
    ("OpenSIPSSRFleetWideNotReady", "", "drouting", "us"): [(2, 8)],
    ("OpenSIPSSRReportedNotReady", "sip-2", "drouting", "us;events", "gw1"): [(14, 36)],
    ("OpenSIPSSRLoadFailed", "edge-1", "dialplan", "default"): [(23, 38)],
    ("OpenSIPSSRIdentifierNotReady", "sip-1", "alarms", "main"): [(32, 38)],
    ("OpenSIPSSRSourceDown", "sip-2"): [(42, 44)],
    ("OpenSIPSSRLoadFailed", "sip-2", "sql_cacher", "carriers"): [(46, 61)],
    ("OpenSIPSSRNoData", "sip-2", "sql_cacher", "carriers"): [(49, 60)],
    ("OpenSIPSSRIdentifierNotReady", "sip-2", "sql_cacher", "carriers"): [(49, 61)],
    ("OpenSIPSSRPikeBlocking", "edge-1", "pike", "main"): [(51, 56)],
    (
        "OpenSIPSSRReportedNotReady",
        "edge-1",
        "dispatcher",
        "default;events",
        "sip:198.51.100.21:5060, set 1",
    ): [(60, 70)],
    ("OpenSIPSSRNoData", "edge-1", "dialplan", "default"): [(73, 85)],
    ("OpenSIPSSRNoData", "sip-1", "dialplan", "default"): [(73, 85)],
    ("OpenSIPSSRNoData", "sip-2", "dialplan", "default"): [(73, 85)],
    ("OpenSIPSSRIdentifierNotReady", "edge-1", "dialplan", "default"): [(76, 85)],
    ("OpenSIPSSRIdentifierNotReady", "sip-1", "dialplan", "default"): [(76, 85)],
    ("OpenSIPSSRIdentifierNotReady", "sip-2", "dialplan", "default"): [(76, 85)],
    ("OpenSIPSSRRegistrantsNotRegistered", "reg-1"): [(76, 85), (106, 115)],
    ("OpenSIPSSRStuckLoading", "sip-1", "drouting", "eu"): [(83, 95)],
    ("OpenSIPSSRStatusFlapping", "sip-1", "alarms", "main"): [(88, 128)],
    ("OpenSIPSSRRestarting", "edge-1"): [(99, 125)],
    ("OpenSIPSSRCoreNotReady", "reg-1", "core", "main"): [(103, 115)],
    ("OpenSIPSSRSourceDown", "reg-1"): [(110, 115)],
    ("OpenSIPSSRCapabilityNotSynced", "sip-1", "clusterer", "cap:dialog"): [(110, 123)],
    ("OpenSIPSSRReportsLost", "edge-1"): [(110, 125)],
    ("OpenSIPSSRIdentifierVanished", "sip-2", "sql_cacher", "carriers"): [(114, 139)],
    ("SRExporterConfigReloadFailed",): [(126, 130)],
    ("SRExporterDown",): [(140, 153)],
    ("SRExporterAbsent",): [(150, 153)],
}
#: What the story does not show: it has no notifiers, no events and no listing that is too big.
NOT_SHOWN = {
    "OpenSIPSSRGroupIncomplete",
    "OpenSIPSSRSubscriptionLost",
    "SRExporterEventsDropped",
    "SRExporterEventsRejected",
    "SRExporterNotificationsGivenUp",
    "SRExporterNotifierStuck",
}


#: The story has no web configuration; promtool's cases show that one that is refused is told.
_NO_FILE = {"sr_exporter_web_config_last_reload_successful"}
#: The metrics that the alerts of the story are made of.
SHOWN = sorted(
    {
        name
        for who in FIRES
        for name in re.findall(
            r"\b(?:opensips_sr|sr_exporter)_\w+", str(all_alerts()[who[0]]["expr"])
        )
    }
    - _NO_FILE
)


@pytest.fixture(scope="module")
def recorded(tmp_path_factory) -> Recorded:
    """What the exporter exposed through the whole story, a scrape every 30 s of it."""
    with Rehearsal(tmp_path_factory.mktemp("exporter"), used()) as rehearsal:
        rehearsal.play(STORY, MINUTES)
        return rehearsal.recorded


def used() -> frozenset[str]:
    """Give the metrics that the rules, and their texts, ask for."""
    text = str([rules_in(read(path)) for path in RULES])
    return frozenset(re.findall(r"\b(?:opensips_sr|sr_exporter)_\w+|\bup\b", text))


def asks_for(rule: Document) -> set[str]:
    return set(re.findall(r"\b(?:opensips_sr|sr_exporter)_\w+", rule.get("expr", "")))


def tried(folder: Path, recorded: Recorded, alerts: Collection[str]) -> tuple[int, str]:
    """Run these alerts over what was recorded; give what promtool says."""
    rules = [rule for name, rule in all_alerts().items() if name in alerts]
    expected = {who: spans for who, spans in FIRES.items() if who[0] in alerts}
    case = {
        "interval": f"{STEP_SECONDS}s",
        "input_series": input_series(recorded, used()),
        "promql_expr_test": firing_tests(expected, MINUTES),
    }
    tests = {"evaluation_interval": f"{STEP_SECONDS}s", "tests": [case]}
    return run_tests(folder, rules, tests)


@pytest.mark.real
def test_at_every_minute_what_is_wrong_fires_and_nothing_else(recorded, tmp_path):
    """From what the exporter wrote, with the rules as they are shipped."""
    code, said = tried(tmp_path, recorded, all_alerts())
    assert code == 0, said


def test_the_story_shows_every_alert_but_a_few():
    """An alert that is new is shown in the story, or it is said why not."""
    assert {who[0] for who in FIRES} == set(all_alerts()) - NOT_SHOWN


@pytest.mark.real
@pytest.mark.parametrize("metric", SHOWN)
def test_a_metric_renamed_in_the_exporter_is_noticed(metric, recorded, tmp_path):
    """The exposition with one name changed: the alerts on it no longer do what they should."""
    alerts = [name for name, rule in all_alerts().items() if metric in asks_for(rule)]
    changed = {
        (f"{name}_renamed" if name == metric else name, labels): values
        for (name, labels), values in recorded.items()
    }
    assert changed.keys() != recorded.keys()
    code, said = tried(tmp_path, changed, alerts)
    assert code == 1, said
    assert "FAILED" in said
