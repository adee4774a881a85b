"""Report rules in the configuration."""

from __future__ import annotations

from pathlib import Path

import pytest

from sr_exporter.config import Reports, parse
from sr_exporter.errors import ConfigError
from sr_exporter.report_rules import BUILT_IN_NAMES, ReportRule
from sr_exporter.signals import Meaning

PLACE = "alerts.report_rules[0]"
FIXED = "is fixed: a rule of this name is built in, and can only be switched off"


def read(*rules: str) -> Reports:
    text = "".join(f"    - {rule}\n" for rule in rules)
    return parse(f"alerts:\n  report_rules:\n{text}", directory=Path("/etc/sr")).reports


def faults(*rules: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        read(*rules)
    return [str(fault) for fault in caught.value.faults]


def test_without_any_the_built_in_rules_are_all():
    assert read() == Reports() == Reports((), frozenset(), 86_400.0)


def test_a_rule_counts_unless_it_says_more():
    """It is for everything it does not leave out; its subject is the group of that name."""
    assert read("{name: a, match: x}").rules == (ReportRule("a", "x"),)
    (rule,) = read("{name: a, meaning: down, match: '(?P<subject>x)'}").rules
    assert (rule.meaning, rule.subject, rule.group) == (Meaning.DOWN, "{subject}", "*")


def test_every_built_in_rule_can_be_switched_off():
    found = read(*(f"{{name: {name}, enabled: false}}" for name in sorted(BUILT_IN_NAMES)))
    assert (found.rules, found.switched_off) == ((), BUILT_IN_NAMES)


def test_a_rule_of_the_file_can_be_switched_off():
    """It is checked all the same."""
    assert read("{name: a, match: x, enabled: false}") == Reports()
    assert faults("{name: a, match: '(', enabled: false}")


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ("{match: x}", [f"{PLACE}: name is required"]),
        ("{name: a}", [f"{PLACE}: match is required"]),
        (
            "{name: a, match: '['}",
            [f"{PLACE}.match: is no regular expression of RE2: missing ]: ["],
        ),
        (
            "{name: a, match: '(?=x)'}",
            [f"{PLACE}.match: is no regular expression of RE2: invalid perl operator: (?="],
        ),
        (
            "{name: a, match: x, meaning: down}",
            [f"{PLACE}.match: has no group (?P<subject>...), which the subject needs"],
        ),
        (
            "{name: a, match: '(?P<b>x)', meaning: up, subject: b}",
            [f"{PLACE}.subject: names no group of match: it would be the same for all"],
        ),
        (
            "{name: a, match: '(?P<subject>x)', meaning: up, subject: '{gateway}'}",
            [f"{PLACE}.match: has no group (?P<gateway>...), which the subject needs"],
        ),
        (
            "{name: a, match: '(?P<b>x)', subject: '{b}'}",
            [f"{PLACE}.subject: has no effect on an event: only down and up are about somebody"],
        ),
        (
            "{name: a, match: x, meaning: loaded}",
            [f'{PLACE}.meaning: must be event or down or up, not "loaded"'],
        ),
        (
            "{name: a, match: x, enabled: 1}",
            [f"{PLACE}.enabled: must be true or false, not a number"],
        ),
        (
            "{name: flood, match: x}",
            [f"{PLACE}.match: {FIXED}"],
        ),
        (
            "{name: flood}",
            [f"{PLACE}: says nothing: a rule of this name is built in (enabled: false?)"],
        ),
        ("{name: a, match: x, sourc: y}", [f"{PLACE}.sourc: unknown key (did you mean source?)"]),
    ],
)
def test_says_what_is_wrong_and_where(rule, expected):
    assert faults(rule) == expected


def test_two_rules_of_one_name_are_a_fault():
    assert faults("{name: a, match: x}", "{name: a, match: y}") == [
        "alerts.report_rules[1].name: is there twice: the first is alerts.report_rules[0]"
    ]
