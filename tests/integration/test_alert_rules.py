"""The alert rules, as promtool reads them, their runbooks, and what ships beside them."""

from __future__ import annotations

import itertools
import re
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest

from dashboards import generate
from tests.promtool import (
    ROOT,
    RULES,
    TESTS,
    all_alerts,
    cases_of,
    read,
    rules_in,
    run,
)
from tests.real_parts import program

RUNBOOKS = (ROOT / "docs" / "runbooks.md").read_text(encoding="utf-8")

#: Alerts the exporter sends by itself; no Prometheus rule makes them.
NATIVE = [
    "OpenSIPSNotReady",
    "OpenSIPSSourceDown",
    "OpenSIPSReportedNotReady",
    "SRExporterNotifierFailing",
    "SRExporterWatchdog",
]
#: What dashboards there are, and the variables a link to each may fill.
DASHBOARDS = {
    "opensips-sr-overview",
    "opensips-sr-source",
    "opensips-sr-identifier",
    "opensips-sr-routing",
    "opensips-sr-cluster",
    "opensips-sr-exporter",
}
VARIABLES = {"job", "source", "group", "identifier"}
ALL = all_alerts()


def seconds(duration: str) -> int:
    """Read a duration as Prometheus writes it."""
    units = {"h": 3600, "m": 60, "s": 1}
    return sum(int(n) * units[unit] for n, unit in re.findall(r"(\d+)([hms])", duration))


@pytest.mark.real
def test_promtool_accepts_the_rules():
    """Prometheus loads the rules, and its linter has nothing to say."""
    code, said = run("check", "rules", "--lint=all", "--lint-fatal", *RULES)
    assert code == 0, said
    assert len(ALL) == sum(len(re.findall(r"- alert: ", path.read_text())) for path in RULES)


@pytest.mark.real
def test_the_rules_do_what_their_tests_say():
    """Each alert fires, waits, resolves and stays silent when it should, labels and all."""
    with ThreadPoolExecutor(2) as pool:
        for code, said in pool.map(lambda path: run("test", "rules", path), TESTS):
            assert code == 0, said


@pytest.mark.parametrize("alert", list(ALL))
def test_each_alert_has_its_cases(alert):
    """One in which it fires, one silent a step before that, one in which it ends; two silent."""
    kinds = Counter()
    for document in cases_of(alert):
        step = seconds(document["evaluation_interval"])
        for case in document["tests"]:
            looks = [
                (seconds(one["eval_time"]), bool(one.get("exp_alerts")))
                for one in case["alert_rule_test"]
            ]
            turns = list(itertools.pairwise(looks))
            kinds["fires"] += any(fires for _, fires in looks)
            kinds["silent"] += not any(fires for _, fires in looks)
            kinds["waits"] += any(
                not before and after and later - at <= step
                for (at, before), (later, after) in turns
            )
            kinds["ends"] += any(before and not after for (_, before), (_, after) in turns)
    assert kinds["fires"] >= 1
    assert kinds["waits"] >= 1
    assert kinds["ends"] >= 1
    assert kinds["silent"] >= 2


def test_no_case_is_for_an_alert_that_does_not_exist():
    """A silent case of a misspelt alert passes in promtool; so the names are held here."""
    named = {
        one["alertname"]
        for path in TESTS
        for case in read(path)["tests"]
        for one in case.get("alert_rule_test", ())
    }
    assert named == set(ALL)


def test_every_recording_rule_is_tested():
    """Each record is asked for by its name in a test."""
    asked = "\n".join(
        one["expr"]
        for path in TESTS
        for case in read(path)["tests"]
        for one in case.get("promql_expr_test", ())
    )
    records = {
        rule["record"] for path in RULES for rule in rules_in(read(path)) if "record" in rule
    }
    assert records
    assert {name for name in records if name not in asked} == set()


@pytest.mark.parametrize("rule", ALL.values(), ids=lambda rule: rule["alert"])
def test_an_alert_tells_what_the_paged_one_needs(rule):
    """Severity, summary, description, a runbook that exists and a dashboard that exists."""
    assert rule["labels"]["severity"] in {"critical", "warning", "info"}
    told = rule["annotations"]
    assert set(told) == {"summary", "description", "runbook_url", "dashboard_url"}
    assert told["runbook_url"].endswith(f"#{rule['alert'].lower()}")
    assert f"\n## {rule['alert']}\n" in RUNBOOKS
    uid, query = re.fullmatch(r"/d/([\w-]+)\?(.+)", told["dashboard_url"]).groups()
    assert uid in DASHBOARDS
    filled = dict(re.findall(r"var-(\w+)=(\{\{ \$labels\.\w+ \| urlquery \}\}|\$__all)", query))
    assert "&".join(f"var-{name}={value}" for name, value in filled.items()) == query
    assert filled.keys() <= VARIABLES
    for name, value in filled.items():
        assert value in (f"{{{{ $labels.{name} | urlquery }}}}", "$__all")


def test_every_dashboard_there_is_may_be_linked_to():
    """Each that is generated is one of those that links of alerts may name."""
    assert {name.removesuffix(".json") for name in generate.DASHBOARDS} == DASHBOARDS


@pytest.mark.parametrize("rule", ALL.values(), ids=lambda rule: rule["alert"])
def test_one_lost_scrape_pages_nobody_and_ends_nothing(rule):
    """What is compared looks over a window, or waits so long that a scrape more is no matter."""
    windows = re.findall(r"(?:_over_time|increase|changes)\(", rule["expr"])
    assert windows or rule.get("for") in {"5m", "15m"}


@pytest.mark.parametrize("alert", [*ALL, *NATIVE])
def test_an_alert_has_a_runbook(alert):
    """One section per alert, in the order a paged person reads, with commands to type."""
    sections = dict(re.findall(r"^## (\S+)\n(.*?)(?=^## |\Z)", RUNBOOKS, re.MULTILINE | re.DOTALL))
    section = sections[alert]
    assert re.findall(r"^### (.+)$", section, re.MULTILINE) == [
        "Meaning",
        "Impact",
        "Diagnosis",
        "Mitigation",
    ]
    diagnosis = section.partition("### Diagnosis")[2].partition("### Mitigation")[0]
    assert "opensips-cli -x mi " in diagnosis
    assert "curl -s localhost:9797/metrics | grep " in diagnosis


def test_the_runbooks_list_every_alert():
    """The table at their head names each, so that who reads knows what there is."""
    listed = RUNBOOKS.partition("\n## ")[0]
    assert {name for name in [*ALL, *NATIVE] if f"[{name}](#{name.lower()})" not in listed} == set()


def test_links_inside_the_runbooks_lead_somewhere():
    """An anchor is its heading in lower case, spaces as hyphens, as every Markdown page has it."""
    headings = re.findall(r"^#+ (.+)$", RUNBOOKS, re.MULTILINE)
    anchors = {heading.lower().replace(" ", "-") for heading in headings}
    assert set(re.findall(r"\]\(#([^)]+)\)", RUNBOOKS)) <= anchors


# --- the finder of real programs ---------------------------------------------------------------


def test_a_missing_program_skips_on_a_laptop(monkeypatch):
    """Who has no Prometheus can still run the tests, and reads why some did not run."""
    monkeypatch.delenv("CI", raising=False)
    with pytest.raises(pytest.skip.Exception, match="no-such-program is not on the PATH"):
        program("no-such-program")


def test_a_missing_program_fails_in_ci(monkeypatch):
    """A CI without Prometheus is a broken CI, not a green one."""
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match="no-such-program is not on the PATH"):
        program("no-such-program")
