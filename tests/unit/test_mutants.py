"""The faults that are put into alert rules are those they say, and nothing is forgotten."""

from __future__ import annotations

import pytest

from tests.mutants import halved, mutants
from tests.promtool import all_alerts

RULE = {
    "alert": "One",
    "expr": 'max_over_time(opensips_sr_ready{group="core",identifier!~"a|b"}[1m]) == 0\n'
    "unless on (source, group) up",
    "for": "2m",
    "labels": {"severity": "critical"},
    "annotations": {
        "summary": "Core of {{ $labels.source }}",
        "description": "{{ if eq $value -1.0 }}starts{{ end }}",
    },
}


def test_every_fault_of_a_rule_is_made():
    """Names, signs, numbers, windows, matchers, alternatives, labels, sides, waits and texts."""
    assert [one.what for one in mutants(RULE)] == [
        "expr: max_over_time to min_over_time",
        "expr: opensips_sr_ready renamed",
        "expr: = to !=",
        "expr: !~ to =~",
        'expr: "a|b" to "b"',
        'expr: "a|b" to "a"',
        "expr: [1m] halved",
        "expr: == to !=",
        "expr: 0 to -1",
        "expr: 0 to 1",
        "expr: unless to and",
        "expr: up renamed",
        'expr: {group="core"} left out',
        'expr: {identifier!~"a|b"} left out',
        "expr: on (source) left out",
        "expr: on (group) left out",
        "expr: unless: right side left out",
        "expr: unless: left side left out",
        "expr: max_over_time[1m] left out",
        "for: halved",
        "for: left out",
        "labels.severity: empty",
        "annotations.summary: empty",
        "annotations.summary: {{ $labels.source }} left out",
        "annotations.description: empty",
        "annotations.description: eq $value -1.0 to eq $value 9.0",
    ]


def test_a_fault_is_what_it_says():
    made = {one.what: one.rule for one in mutants(RULE)}

    def expr(what: str) -> str:
        return " ".join(made[f"expr: {what}"]["expr"].split())

    ready = 'opensips_sr_ready{group="core",identifier!~"a|b"}'
    assert expr("[1m] halved") == f"max_over_time({ready}[30s]) == 0 unless on (source, group) up"
    assert expr("unless: right side left out") == f"max_over_time({ready}[1m]) == 0"
    assert expr("unless: left side left out") == "up"
    assert expr("max_over_time[1m] left out") == f"({ready}) == 0 unless on (source, group) up"
    assert expr('{group="core"} left out').startswith(
        "max_over_time(opensips_sr_ready{identifier!~"
    )
    assert expr("on (source) left out").endswith("unless on (group) up")
    assert made["for: halved"]["for"] == "60s"
    assert "for" not in made["for: left out"]
    assert made["annotations.description: eq $value -1.0 to eq $value 9.0"]["annotations"] == {
        "description": "{{ if eq $value 9.0 }}starts{{ end }}"
    }


def test_sides_in_brackets_are_told_apart():
    """A side ends where its brackets do, and where another side of the same brackets begins."""
    rule = RULE | {"expr": "(a or b unless c) and d", "annotations": {}, "labels": {}}
    sides = {
        one.what.removeprefix("expr: "): " ".join(one.rule["expr"].split())
        for one in mutants(rule)
        if "side" in one.what
    }
    assert sides == {
        "or: right side left out": "(a unless c) and d",
        "or: left side left out": "( b unless c) and d",
        "unless: right side left out": "(a or b ) and d",
        "unless: left side left out": "(a or c) and d",
        "and: right side left out": "(a or b unless c)",
        "and: left side left out": "d",
    }


@pytest.mark.parametrize(("whole", "half"), [("1m", "30s"), ("15s", "7s"), ("1d", "43200s")])
def test_a_half_is_in_seconds(whole, half):
    assert halved(whole) == half


@pytest.mark.parametrize("alert", list(all_alerts()))
def test_every_alert_has_its_faults(alert):
    """No two are the same rule, and none is the rule itself."""
    rule = all_alerts()[alert]
    made = [one.rule for one in mutants(rule)]
    assert len(made) >= 10
    assert rule not in made
    assert all(one != other for at, one in enumerate(made) for other in made[:at])
