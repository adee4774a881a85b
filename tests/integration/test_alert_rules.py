"""The alert rules, as promtool reads them; their runbooks; and proof that their tests can fail."""

import itertools
import re
import shutil
import subprocess
from collections import Counter
from pathlib import Path

import pytest
import yaml

from dashboards import generate
from tests.real_parts import program

ROOT = Path(__file__).resolve().parents[2]
RULES = ROOT / "alerts" / "opensips-sr.rules.yml"
TESTS = ROOT / "alerts" / "tests" / "opensips-sr.test.yml"
RUNBOOKS = (ROOT / "docs" / "runbooks.md").read_text(encoding="utf-8")

#: Alerts the exporter sends by itself; no Prometheus rule makes them.
NATIVE = [
    *("OpenSIPSNotReady", "OpenSIPSSourceDown"),
    *("SRExporterNotifierFailing", "SRExporterWatchdog"),
]
DOWN, CORE, IDENTIFIER, EXPORTER = (
    "OpenSIPSSRSourceDown",
    "OpenSIPSSRCoreNotReady",
    "OpenSIPSSRIdentifierNotReady",
    "SRExporterDown",
)


def read(path):
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def alerts(document):
    return {rule["alert"]: rule for group in document["groups"] for rule in group["rules"]}


def run(*arguments):
    """Run promtool; give its exit code and everything it said."""
    done = subprocess.run(
        [program("promtool"), *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


def rule_of(alert):
    """Give the rules file with the rule of one alert only."""
    return {"groups": [{"name": "one", "rules": [alerts(read(RULES))[alert]]}]}


def cases_of(alert):
    """Give the test file with the cases of one alert only."""
    document = read(TESTS)
    for case in document["tests"]:
        case["alert_rule_test"] = [
            one for one in case["alert_rule_test"] if one["alertname"] == alert
        ]
    document["tests"] = [case for case in document["tests"] if case["alert_rule_test"]]
    return document


def promtool_tests(folder, rules, tests):
    """Run tests over rules, both given as documents, in a folder of their own."""
    rules_file, tests_file = folder / "rules.yml", folder / "test.yml"
    rules_file.write_text(yaml.safe_dump(rules), encoding="utf-8")
    tests_file.write_text(
        yaml.safe_dump(tests | {"rule_files": [str(rules_file)]}), encoding="utf-8"
    )
    return run("test", "rules", tests_file)


@pytest.mark.real
def test_promtool_accepts_the_rules():
    """Prometheus loads the rules, and its linter has nothing to say."""
    code, said = run("check", "rules", "--lint=all", "--lint-fatal", RULES)
    assert code == 0, said


@pytest.mark.real
def test_the_rules_do_what_their_tests_say():
    """Each alert fires, waits, resolves and stays silent when it should, labels and all."""
    code, said = run("test", "rules", TESTS)
    assert code == 0, said


@pytest.mark.parametrize("alert", list(alerts(read(RULES))))
def test_each_alert_has_its_cases(alert):
    """At least one case in which it fires, one in which it ends, two in which it never fires."""
    kinds = Counter()
    for case in cases_of(alert)["tests"]:
        fires = [bool(one.get("exp_alerts")) for one in case["alert_rule_test"]]
        kinds["fires"] += any(fires)
        kinds["silent"] += not any(fires)
        kinds["waits"] += fires[0] is False and any(fires)
        kinds["ends"] += any(a and not b for a, b in itertools.pairwise(fires))
    assert kinds["fires"] >= 1
    assert kinds["waits"] >= 1
    assert kinds["ends"] >= 1
    assert kinds["silent"] >= 2


def test_no_case_is_for_an_alert_that_does_not_exist():
    """A silent case of a misspelt alert passes in promtool; so the names are held here."""
    named = {one["alertname"] for case in read(TESTS)["tests"] for one in case["alert_rule_test"]}
    assert named == set(alerts(read(RULES)))


@pytest.mark.real
@pytest.mark.parametrize("alert", list(alerts(read(RULES))))
def test_a_rule_alone_passes_its_tests(tmp_path, alert):
    """The control of the next test: taken out of its file, a rule still passes its cases."""
    code, said = promtool_tests(tmp_path, rule_of(alert), cases_of(alert))
    assert code == 0, said


@pytest.mark.real
@pytest.mark.parametrize(
    ("alert", "field", "old", "new"),
    [
        (DOWN, "expr", "opensips_sr_source_up", "opensips_sr_source_is_up"),
        (DOWN, "expr", "== 0", "!= 0"),
        (DOWN, "expr", "max_over_time(opensips_sr_source_up[1m])", "opensips_sr_source_up"),
        (DOWN, "for", "30s", "15s"),
        (DOWN, "for", "30s", "45s"),
        (DOWN, "annotations.description", "opensips_sr_poll_failures_total", "failures_total"),
        (CORE, "expr", "opensips_sr_ready", "opensips_sr_is_ready"),
        (CORE, "expr", '{group="core"}', ""),
        (CORE, "expr", 'group="core"', 'group=~".*core"'),
        (CORE, "expr", "== 0", "== 1"),
        (CORE, "for", "2m", "1m"),
        (CORE, "keep_firing_for", "5m", "1m"),
        (CORE, "labels.severity", "critical", "warning"),
        (CORE, "annotations.description", "opensips_sr_status", "opensips_sr_state"),
        (CORE, "annotations.description", "-1.0", "-2.0"),
        (IDENTIFIER, "expr", "core|", ""),
        (IDENTIFIER, "expr", "|clusterer", ""),
        (IDENTIFIER, "expr", "|uac_registrant", ""),
        (IDENTIFIER, "expr", 'source="sr_exporter",', ""),
        (IDENTIFIER, "expr", "source|notifier", "source"),
        (IDENTIFIER, "expr", "source|notifier", "notifier"),
        (IDENTIFIER, "expr", ',group=~"source|notifier"', ""),
        (IDENTIFIER, "for", "5m", "4m"),
        (IDENTIFIER, "keep_firing_for", "5m", "3m"),
        (EXPORTER, "expr", "sr_exporter_build_info", "sr_exporter_info"),
        (EXPORTER, "expr", ' or ALERTS{alertname="SRExporterDown"}', ""),
        (EXPORTER, "expr", "(job, instance)", "(job)"),
        (EXPORTER, "expr", "(job, instance)", "(instance)"),
        (EXPORTER, "for", "5m", "4m"),
        (EXPORTER, "annotations.runbook_url", '| sortByLabel "instance" ', "| "),
    ],
)
def test_a_fault_in_a_rule_fails_its_tests(tmp_path, alert, field, old, new):
    """The tests of an alert notice a wrong name, a flipped sign, a lost matcher, a short wait."""
    rules, tests = rule_of(alert), cases_of(alert)
    place = alerts(rules)[alert]
    *way, last = field.split(".")
    for step in way:
        place = place[step]
    assert old in place[last], "the mutation would change nothing"
    place[last] = place[last].replace(old, new)
    code, said = promtool_tests(tmp_path, rules, tests)
    assert code == 1, said
    assert "FAILED" in said
    assert alert in said


@pytest.mark.real
def test_a_metric_renamed_in_a_copy_of_the_files_fails(tmp_path):
    """The files as they are shipped, one metric renamed: promtool's tests fail, as they stand."""
    shutil.copytree(ROOT / "alerts", tmp_path / "alerts")
    rules = tmp_path / "alerts" / RULES.name
    text = rules.read_text(encoding="utf-8")
    rules.write_text(text.replace("opensips_sr_ready", "opensips_sr_readiness"), encoding="utf-8")
    code, said = run("test", "rules", tmp_path / "alerts" / "tests" / TESTS.name)
    assert code == 1, said
    assert CORE in said
    assert IDENTIFIER in said


@pytest.mark.parametrize("rule", alerts(read(RULES)).values(), ids=lambda rule: rule["alert"])
def test_an_alert_tells_what_the_paged_one_needs(rule):
    """Severity, summary, description, a runbook that exists and a dashboard that exists."""
    assert set(rule["labels"]) == {"severity"}
    assert rule["labels"]["severity"] in {"critical", "warning", "info"}
    told = rule["annotations"]
    assert set(told) == {"summary", "description", "runbook_url", "dashboard_url"}
    assert told["runbook_url"].endswith(f"/runbooks#{rule['alert'].lower()}")
    uid = re.match(r"/d/([\w-]+)\?var-", told["dashboard_url"]).group(1)
    assert f"{uid}.json" in generate.DASHBOARDS


@pytest.mark.parametrize("alert", [*alerts(read(RULES)), *NATIVE])
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


def test_links_inside_the_runbooks_lead_somewhere():
    """An anchor is its heading in lower case, spaces as hyphens, as every Markdown page has it."""
    headings = re.findall(r"^#+ (.+)$", RUNBOOKS, re.MULTILINE)
    anchors = {heading.lower().replace(" ", "-") for heading in headings}
    assert set(re.findall(r"\]\(#([^)]+)\)", RUNBOOKS)) <= anchors


# --- the expressions of the dashboards, by Prometheus' own evaluation ---------------------------


def asked(expression):
    """Substitute the variables as Grafana does, with All chosen."""
    for name, value in (("$__rate_interval", "1m"), ("$job", ".*"), ("$source", ".*")):
        expression = expression.replace(name, value)
    assert "$" not in expression
    return expression


def series(metric, values, **labels):
    inner = ",".join(f'{name}="{value}"' for name, value in labels.items())
    return {"series": f'{metric}{{job="sr",instance="mon-1:9797",{inner}}}', "values": values}


def key(source, group, identifier, status, since):
    labels = {"source": source, "group": group, "identifier": identifier}
    return [
        series("opensips_sr_status", f"{status}x60", **labels),
        series("opensips_sr_ready", f"{int(status > 0)}x60", **labels),
        series("opensips_sr_status_change_timestamp_seconds", f"{since}x60", **labels),
        series("opensips_sr_last_report_timestamp_seconds", f"{since + 1}x60", **labels),
        series("opensips_sr_status_changes_total", "0+1x60", **labels),
    ]


#: sip-1 is well but for one identifier, sip-2 initializes, sip-3 was lost 5 minutes ago.
FLEET = [
    series("sr_exporter_build_info", "1x60", version="0.1.0"),
    *(
        series("opensips_sr_source_info", "1x60", source=name)
        for name in ("sip-1", "sip-2", "push")
    ),
    series("opensips_sr_source_info", "1x60", source="sr_exporter"),
    series("opensips_sr_source_up", "1x60", source="sip-1"),
    series("opensips_sr_source_up", "1x60", source="sip-2"),
    series("opensips_sr_source_up", "1x39 0x20", source="sip-3"),
    *key("sip-1", "core", "main", 1, 100),
    *key("sip-1", "drouting", "us", -2, 300),
    *key("sip-2", "core", "main", -1, 200),
    series("opensips_sr_status", "1x39 stale", source="sip-3", group="core", identifier="main"),
    series("opensips_sr_identifiers", "1x60", source="sip-1", group="drouting", ready="false"),
    series("opensips_sr_identifiers", "7x60", source="sip-1", group="drouting", ready="true"),
    series("opensips_sr_identifiers", "1x60", source="sip-2", group="core", ready="false"),
    series("opensips_sr_group_ready", "0x60", source="sip-1", group="drouting"),
    series("opensips_sr_group_ready", "1x39 stale", source="sip-3", group="core"),
    series(
        "ALERTS", "1x60", alertname="OpenSIPSSRCoreNotReady", alertstate="firing", source="sip-2"
    ),
    series("ALERTS", "1x60", alertname="SRExporterDown", alertstate="pending"),
    series("ALERTS", "1x60", alertname="Other", alertstate="firing"),
]

_US = '{source="sip-1", group="drouting", identifier="us"}'
_CORE_2 = '{source="sip-2", group="core", identifier="main"}'
#: What each query of each panel gives for that fleet.
DRAWN = {
    "Sources": [{"{}": 4}],
    "Sources down": [{"{}": 1}],
    "Cores not ready": [{"{}": 1}],
    "Identifiers not ready": [{"{}": 2}],
    "Alerts firing": [{"{}": 1}],
    "Core of each server": [{'{source="sip-1"}': 1, '{source="sip-2"}': -1, '{source="sip-3"}': 0}],
    "Groups": [{'{source="sip-1", group="drouting"}': 0, '{source="sip-3", group="core"}': -1}],
    "Not ready now": [
        {_US: -2, _CORE_2: -1},
        {_US: 300_000, _CORE_2: 200_000},
        {_US: 301_000, _CORE_2: 201_000},
    ],
    "Status changes": [{'{source="sip-1"}': 8, '{source="sip-2"}': 4}],
}


def expressions(fleet, expected):
    """Make a promtool test of what every panel of the overview draws at 14 minutes."""
    tests = [
        {
            "expr": asked(target["expr"]),
            "eval_time": "14m",
            "exp_samples": [{"labels": k, "value": v} for k, v in samples.items()],
        }
        for panel in generate.overview()["panels"]
        for target, samples in zip(panel["targets"], expected[panel["title"]], strict=True)
    ]
    case = {"interval": "15s", "input_series": fleet, "promql_expr_test": tests}
    return {"evaluation_interval": "15s", "tests": [case]}


@pytest.mark.real
def test_the_overview_draws_the_fleet_as_it_is(tmp_path):
    """Every expression of every panel gives the right numbers while things are broken."""
    code, said = promtool_tests(tmp_path, {"groups": []}, expressions(FLEET, DRAWN))
    assert code == 0, said


@pytest.mark.real
def test_the_overview_draws_nothing_where_nothing_is_known(tmp_path):
    """Without any exporter every panel is empty: no green 0 that nobody has measured."""
    nothing = {title: [{} for _ in queries] for title, queries in DRAWN.items()}
    others = [{"series": 'up{job="node",instance="x"}', "values": "1x60"}]
    code, said = promtool_tests(tmp_path, {"groups": []}, expressions(others, nothing))
    assert code == 0, said


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
