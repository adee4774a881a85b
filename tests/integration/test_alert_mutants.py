"""Proof that the tests of the alerts can fail: faults are put into the rules, and they notice."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from tests.mutants import Mutant, mutants
from tests.promtool import all_alerts, cases_of, run_tests

if TYPE_CHECKING:
    from pathlib import Path

    from tests.promtool import Document

#: How much of the faults must be noticed.
WANTED = 0.95
#: Those that mean the same as the rule, and why.
THE_SAME = {
    "OpenSIPSSRFleetWideNotReady: expr: count to sum": "each is 1",
    "OpenSIPSSRCapabilityNotSynced: expr: < to <=": "a status is never 0",
    "OpenSIPSSRCapabilityNotSynced: expr: 0 to 1": "a status is a whole number, and never 0",
    "OpenSIPSSRPikeBlocking: expr: 0 to 1": "increase() gives more than 1 for one report",
    "SRExporterEventsDropped: expr: 0 to 1": "increase() gives more than 1 for one event",
    "SRExporterNotificationsGivenUp: expr: 0 to 1": "increase() gives more than 1 for 6",
    "SRExporterDown: expr: last_over_time to min_over_time": "it is always 1",
}


def tried_together(tests: Document, candidates: dict[str, Mutant]) -> list[Document]:
    """Give the tests of an alert for each of its mutants, all of them in the same cases."""
    cases = []
    for case in tests["tests"]:
        looks = [
            expected_of(mutant, look) | {"alertname": name}
            for name, mutant in candidates.items()
            for look in case["alert_rule_test"]
        ]
        cases.append(case | {"alert_rule_test": looks})
    return tests | {"tests": cases}


def expected_of(mutant: Mutant, look: Document) -> Document:
    """Give what is expected of the rule, as far as the mutant has the texts for it."""
    expected = [
        alert
        | {
            "exp_annotations": {
                name: text
                for name, text in alert["exp_annotations"].items()
                if name in mutant.rule["annotations"]
            }
        }
        for alert in look.get("exp_alerts", ())
    ]
    return look | ({"exp_alerts": expected} if expected else {})


def first_and_rest(tests: Document) -> list[Document]:
    """Give the first case alone, which notices most, and then the others."""
    first, *rest = tests["tests"]
    return [tests | {"tests": cases} for cases in ([first], rest) if cases]


def rules_of(alert: str, candidates: dict[str, Mutant]) -> list[Document]:
    """Give the mutants as rules with names of their own; what asks for itself keeps doing so."""
    return [
        mutant.rule | {"alert": name, "expr": mutant.rule["expr"].replace(f'"{alert}', f'"{name}')}
        for name, mutant in candidates.items()
    ]


def survivors(folder: Path, alert: str) -> tuple[int, list[str]]:
    """Give how many mutants of an alert there are, and those that none of its tests notices."""
    found = list(mutants(all_alerts()[alert]))
    left = {f"{alert}_{number}": mutant for number, mutant in enumerate(found)}
    for tests in (one for document in cases_of(alert) for one in first_and_rest(document)):
        while left:
            code, said = run_tests(folder, rules_of(alert, left), tried_together(tests, left))
            noticed = {name for name in re.findall(rf"{alert}_\d+", said) if name in left}
            assert noticed or code == 0, said
            left = {
                name: mutant if mutant.in_a_text else mutant.without_texts()
                for name, mutant in left.items()
                if name not in noticed
            }
            # A rule that cannot be read or evaluated ends the run before the others were looked at.
            if "alertname:" in said or code == 0:
                break
    return len(found), [f"{alert}: {mutant.what}" for mutant in left.values()]


@pytest.mark.real
@pytest.mark.timeout(300)
def test_faults_in_the_rules_are_noticed(tmp_path, figure):
    """At least 95 of 100, and all that differ; who survives is printed."""
    alerts = list(all_alerts())
    for alert in alerts:
        (tmp_path / alert).mkdir()
    with ThreadPoolExecutor(2) as pool:
        tried = list(pool.map(lambda alert: survivors(tmp_path / alert, alert), alerts))
    total = sum(count for count, _ in tried)
    alive = [what for _, names in tried for what in names]
    figure(f"faults put into {len(alerts)} alert rules: {total}, noticed {total - len(alive)}")
    for what in alive:
        figure(f"  not noticed: {what}")
    assert total > 20 * len(alerts)
    assert len(alive) <= (1 - WANTED) * total, alive
    assert [what for what in alive if what not in THE_SAME] == []
