"""The story of the demo: all that it promises happens, and nothing waits for a clock."""

from __future__ import annotations

from copy import deepcopy
from typing import TYPE_CHECKING

import pytest

from sr_exporter.simulator.scenario import (
    CAST,
    CYCLE,
    CYCLE_SECONDS,
    LINES,
    OPENING,
    OPENING_SECONDS,
    Scenario,
    narrative,
)

if TYPE_CHECKING:
    from sr_exporter.simulator.node import SimulatedNode


def logs(node: SimulatedNode, group: str, identifier: str = "main") -> list[str]:
    return [report.log for report in node.group(group).identifier(identifier).reports]


def everything(scenario: Scenario) -> object:
    """All that a poll of all nodes can see."""
    return [
        (name, node.up, node.started_at, deepcopy([group.held for group in node.groups()]))
        for name, node in scenario.nodes.items()
    ]


def test_every_line_of_the_story_is_reached_on_time_and_again():
    """Two turns play the opening once and the cycle twice, each beat at its second."""
    scenario = Scenario(1000.0)
    told = scenario.step(1000.0 + OPENING_SECONDS + 2 * CYCLE_SECONDS - 0.5)
    expected = [(1000.0 + beat.second, beat.node, beat.line) for beat in OPENING] + [
        (1000.0 + OPENING_SECONDS + turn * CYCLE_SECONDS + beat.second, beat.node, beat.line)
        for turn in (0, 1)
        for beat in CYCLE
    ]
    assert told == expected
    assert len(narrative()) == len(OPENING) + len(CYCLE)
    assert all(line.partition(" s  ")[2] for line in narrative())


def test_something_visible_happens_every_five_seconds():
    """No beat is without an effect, and there is never a long pause, over the turn neither."""
    scenario = Scenario(0.0)
    seen, at = everything(scenario), 0.0
    while at < OPENING_SECONDS + 2 * CYCLE_SECONDS:
        assert scenario.next_at - at <= 5
        at = scenario.next_at
        assert scenario.step(at)
        assert everything(scenario) != seen
        seen = everything(scenario)


def test_a_turn_ends_as_it_began():
    """After each turn all is ready, so that the story can go on for ever."""
    scenario = Scenario(0.0)
    for turn in range(5):
        scenario.step(OPENING_SECONDS + turn * CYCLE_SECONDS)
        assert [
            (name, group.name, identifier.name)
            for name, node in scenario.nodes.items()
            for group in node.groups()
            for identifier in group.identifiers()
            if identifier.status != 1 or not node.up
        ] == []


def played(second: float) -> Scenario:
    """The story as it stands at a second of its first turn."""
    scenario = Scenario(0.0)
    scenario.step(OPENING_SECONDS + second)
    return scenario


def shown(scenario: Scenario, node: str, group: str, identifier: str = "main"):
    held = scenario.nodes[node].group(group).identifier(identifier)
    return held.status, held.details


@pytest.mark.parametrize(
    ("second", "node", "group", "identifier", "status", "details"),
    [
        (1, "sip-1", "drouting", "us", 2, "data re-loading"),
        (3, "sip-1", "drouting", "us", 1, "data available"),
        (10, "reg-1", "uac_registrant", LINES[0], -1, "REGISTERING_STATE"),
        (12, "reg-1", "uac_registrant", LINES[0], 1, "REGISTERED_STATE"),
        (17, "edge-1", "dialplan", "default", 1, "data available"),
        (20, "sip-1", "alarms", "main", -1, "trunk down"),
        (27, "sip-1", "alarms", "main", 1, "all trunks up"),
        (31, "reg-1", "uac_registrant", LINES[4], -1, "REGISTER_TIMEOUT_STATE"),
        (38, "sip-2", "core", "main", -1, "initializing"),
        (39, "sip-2", "drouting", "us", -1, "startup data loading"),
        (40, "sip-2", "core", "main", 1, "running"),
        (40, "sip-2", "sql_cacher", "carriers", -2, "no data loaded"),
        (50, "sip-2", "sql_cacher", "carriers", 1, "data available"),
        (55, "reg-1", "uac_registrant", LINES[4], 1, "REGISTERED_STATE"),
    ],
)
def test_statuses_of_the_story(second, node, group, identifier, status, details):
    """What the demo promises to show as a status is there at its second."""
    assert shown(played(second), node, group, identifier) == (status, details)


GATEWAY = "<gw1>/198.51.100.11:5060"
DESTINATION = "<sip:198.51.100.21:5060>, set 1"


@pytest.mark.parametrize(
    ("second", "node", "group", "identifier", "log"),
    [
        (
            6,
            "sip-2",
            "drouting",
            "us;events",
            f"GW {GATEWAY} switched to [inactive] due to negative probing reply\n",
        ),
        (17, "edge-1", "dialplan", "default", "DB data loading failed, discarding"),
        (
            24,
            "sip-2",
            "drouting",
            "us;events",
            f"GW {GATEWAY} switched to [active] due to MI command\n",
        ),
        (45, "edge-1", "pike", "main", "IP 203.0.113.9 detected as flooding"),
        (
            52,
            "edge-1",
            "dispatcher",
            "default;events",
            f"DESTINATION {DESTINATION} switched to [inactive] due to negative probing reply\n",
        ),
    ],
)
def test_reports_of_the_story(second, node, group, identifier, log):
    """What only a report tells is there, and the status beside it stays ready."""
    scenario = played(second)
    assert logs(scenario.nodes[node], group, identifier)[-1] == log
    assert shown(scenario, node, group, identifier)[0] == 1


def test_a_node_of_the_story_restarts():
    """It is down for seconds, comes back with a new start time and without its reports."""
    down, again = played(34), played(38)
    assert not down.nodes["sip-2"].up
    assert again.nodes["sip-2"].up
    assert again.nodes["sip-2"].started_at == OPENING_SECONDS + 38
    assert logs(again.nodes["sip-2"], "drouting", "us;events") == []


def test_tables_of_the_story_are_in_order():
    """Beats are sorted, and none is later than its table lasts."""
    for table, length in ((OPENING, OPENING_SECONDS), (CYCLE, CYCLE_SECONDS)):
        seconds = [beat.second for beat in table]
        assert seconds == sorted(seconds)
        assert seconds[-1] < length
        assert {beat.node for beat in table} <= set(CAST)
