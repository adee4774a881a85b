"""The Status/Report state of a simulated OpenSIPS."""

from __future__ import annotations

import functools

import pytest

from sr_exporter.simulator.node import Planned, SimulatedNode, ring_depth
from sr_exporter.simulator.releases import OPENSIPS_3_6, OPENSIPS_4_0
from tests.recorded_mi import result


def logs(node: SimulatedNode, group: str, identifier: str = "main") -> list[str]:
    return [report.log for report in node.group(group).identifier(identifier).reports]


@pytest.mark.parametrize(
    ("group", "identifier", "depth"),
    [
        ("core", "main", 10),
        ("alarms", "main", 50),
        ("dispatcher", "default", 20),
        ("drouting", "us", 20),
        ("dialplan", "default", 20),
        ("sql_cacher", "carriers", 20),
        ("uac_registrant", "aor=sip:a@b", 20),
        ("drouting", "us;events", 200),
        ("dispatcher", "default;events", 200),
        ("clusterer", "node_states", 200),
        ("pike", "main", 100),
    ],
)
def test_rings_are_as_deep_as_real_ones(group, identifier, depth):
    """The newest reports are kept, oldest first."""
    assert ring_depth(group, identifier) == depth
    node = SimulatedNode(OPENSIPS_4_0)
    node.register(group, identifier)
    for number in range(depth + 3):
        node.add_report(group, identifier, str(number), 0)
    assert logs(node, group, identifier) == [str(number) for number in range(3, depth + 3)]


def test_status_zero_is_one():
    """OpenSIPS knows no status 0, at registration or later."""
    node = SimulatedNode(OPENSIPS_4_0)
    node.register("g", "main", 0)
    main = node.group("g").identifier("main")
    assert (main.status, main.ready) == (1, True)
    assert not node.set_status("G", "MAIN", 0, "x")
    assert node.set_status("g", "main", -1)
    assert (main.status, main.ready, main.details) == (-1, False, None)


def test_double_and_unknown_names_are_refused():
    """Names are told apart as OpenSIPS does: ASCII case does not count."""
    node = SimulatedNode(OPENSIPS_4_0)
    node.register("Gr\u00fcp")
    with pytest.raises(ValueError, match="already registered"):
        node.register("gR\u00fcp", "MAIN")
    with pytest.raises(KeyError):
        node.set_status("GR\u00dcP", "main", 1)
    with pytest.raises(KeyError):
        node.add_report("Gr\u00fcp", "other", "x", 0)


def test_a_start_is_as_recorded():
    """Up to "running", a node shows the reports that real servers showed."""
    plan = [
        Planned("clusterer", "node_states"),
        Planned("clusterer", "cap:dispatcher-status-repl"),
        Planned("uac_registrant", "aor=sip:a@b"),
        Planned("drouting", "us"),
        Planned("drouting", "us;events"),
        Planned("sql_cacher", "carriers"),
    ]
    node = SimulatedNode(OPENSIPS_4_0, plan)
    node.start(100.7)
    shown = {
        (group.name, identifier.name): (identifier.status, identifier.details)
        for group in node.groups()
        for identifier in group.identifiers()
    }
    assert list(shown.items()) == [
        (("sql_cacher", "carriers"), (-2, "no data loaded")),
        (("drouting", "us;events"), (1, None)),
        (("drouting", "us"), (-2, "no data loaded")),
        (("uac_registrant", "aor=sip:a@b"), (-1, "NOT_REGISTERED_STATE")),
        (("clusterer", "cap:dispatcher-status-repl"), (-2, "sync pending")),
        (("clusterer", "node_states"), (1, None)),
        (("core", "main"), (-1, "initializing")),
    ]
    node.begin_load("drouting", "us", 101)
    us = node.group("drouting").identifier("us")
    assert (us.status, us.details) == (-1, "startup data loading")
    node.finish_load("drouting", "us", "3 gateways loaded", 101)
    node.initialized(101)

    def recorded(group: str, identifier: str) -> list[str]:
        [reports] = [
            shown_identifier["Reports"]
            for shown_group in result("4.0", "reports-noparams")
            if shown_group["Name"] == group
            for shown_identifier in shown_group["Identifiers"]
            if shown_identifier["Name"] == identifier
        ]
        return [report["Log"] for report in reports]

    assert logs(node, "core") == recorded("core", "main")
    assert logs(node, "drouting", "us")[:2] == recorded("drouting", "us")[:2]
    cap = "cap:dispatcher-status-repl"
    assert logs(node, "clusterer", cap) == recorded("clusterer", cap)
    assert [report.timestamp for report in node.group("core").identifier("main").reports] == [
        100,
        101,
    ]


def test_a_failed_reload_is_told_by_a_report_alone():
    """Old data stays in use and the status is what it was; a first load that fails is -2."""
    node = SimulatedNode(OPENSIPS_4_0, [Planned("dialplan", "default")])
    node.start(0)
    default = node.group("dialplan").identifier("default")
    seen = []
    for act in (
        node.begin_load,
        node.fail_load,
        node.begin_load,
        functools.partial(node.finish_load, loaded="2 rules loaded (0 discarded)"),
        node.begin_load,
        node.fail_load,
    ):
        act("dialplan", "default", now=0)
        seen.append((default.status, default.details))
    assert seen == [
        (-1, "startup data loading"),
        (-2, "no data loaded"),
        (-1, "startup data loading"),
        (1, "data available"),
        (2, "data re-loading"),
        (1, "data available"),
    ]
    assert logs(node, "dialplan", "default")[-2:] == [
        "starting DB data loading",
        "DB data loading failed, discarding",
    ]


def test_a_restart_empties_everything():
    """Reports, script statuses and up time begin anew."""
    node = SimulatedNode(OPENSIPS_3_6, [Planned("alarms"), Planned("dialplan", "default")])
    node.start(0)
    node.set_status("alarms", "main", -1, "trunk down")
    node.add_report("alarms", "main", "down", 5)
    node.stop()
    assert not node.up
    node.start(60)
    alarms = node.group("alarms").identifier("main")
    assert (alarms.status, alarms.details, list(alarms.reports)) == (1, None, [])
    assert logs(node, "core") == ["initializing"]
    assert (node.up, node.started_at) == (True, 60)
