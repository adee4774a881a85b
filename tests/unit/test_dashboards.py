"""The dashboards are what their generator makes, well-formed, and ask for what is exported."""

import json
import re
from pathlib import Path

import pytest
import yaml

from dashboards import generate

ROOT = Path(__file__).resolve().parents[2]
DASHBOARDS = sorted((ROOT / "dashboards").glob("*.json"))
RULES = sorted((ROOT / "alerts").glob("*.rules.yml"))

#: What `/metrics` gives: samples, not families, so counters end in `_total`.
EXPORTED = frozenset(
    {
        "opensips_sr_status",
        "opensips_sr_ready",
        "opensips_sr_status_changes_total",
        "opensips_sr_status_change_timestamp_seconds",
        "opensips_sr_reports_total",
        "opensips_sr_last_report_timestamp_seconds",
        "opensips_sr_report_matches_total",
        "opensips_sr_reported_ready",
        "opensips_sr_status_changes_missed_total",
        "opensips_sr_report_overruns_total",
        "opensips_sr_group_ready",
        "opensips_sr_group_complete",
        "opensips_sr_identifiers",
        "opensips_sr_source_up",
        "opensips_sr_source_info",
        "opensips_sr_source_last_seen_timestamp_seconds",
        "opensips_sr_source_start_timestamp_seconds",
        "opensips_sr_poll_duration_seconds_bucket",
        "opensips_sr_poll_duration_seconds_count",
        "opensips_sr_poll_duration_seconds_sum",
        "opensips_sr_poll_interval_seconds",
        "opensips_sr_poll_failures_total",
        "opensips_sr_events_total",
        "opensips_sr_events_rejected_total",
        "opensips_sr_events_dropped_total",
        "opensips_sr_source_subscribed",
        "sr_exporter_push_requests_total",
        "sr_exporter_notifications_total",
        "sr_exporter_notification_latency_seconds_bucket",
        "sr_exporter_notification_latency_seconds_count",
        "sr_exporter_notification_latency_seconds_sum",
        "sr_exporter_notifier_backlog",
        "sr_exporter_build_info",
        "sr_exporter_config_last_reload_successful",
        "sr_exporter_config_last_reload_success_timestamp_seconds",
    }
)
#: What Prometheus makes by itself.
OF_PROMETHEUS = frozenset({"up", "ALERTS"})

_KEYWORDS = frozenset({"and", "or", "unless", "bool", "offset"})
_GROUPING = re.compile(r"\b(?:by|without|on|ignoring|group_left|group_right)\s*\([^)]*\)")
_STRING = re.compile(r'"(?:[^"\\]|\\.)*"')


def metrics(expression: str) -> set[str]:
    """Give the names of the metrics a PromQL expression asks for.

    >>> sorted(metrics('sum by (a) (rate(x_total{b="c"}[5m])) or {__name__=~"y|z"} and on (a) up'))
    ['up', 'x_total', 'y', 'z']
    """
    named = re.findall(r'__name__=~?"([^"]*)"', expression)
    bare = re.sub(r"\{[^}]*\}|\[[^]]*\]", " ", _STRING.sub("", expression))
    words = re.findall(r"(?<!\w)[a-zA-Z_:][\w:]*(?!\w)(?!\s*\()", _GROUPING.sub(" ", bare))
    return {name for names in named for name in names.split("|")} | (set(words) - _KEYWORDS)


def load(path):
    return json.loads(path.read_text(encoding="utf-8"))


def objects(value):
    """Give every object anywhere in a piece of JSON."""
    if isinstance(value, dict):
        yield value
    for part in value.values() if isinstance(value, dict) else value:
        if isinstance(part, dict | list):
            yield from objects(part)


def panels():
    return [
        pytest.param(panel, id=f"{path.stem}-{panel['id']}")
        for path in DASHBOARDS
        for panel in load(path)["panels"]
    ]


def rules():
    return [
        pytest.param(rule, id=rule.get("alert") or rule["record"])
        for path in RULES
        for group in yaml.safe_load(path.read_text(encoding="utf-8"))["groups"]
        for rule in group["rules"]
    ]


@pytest.mark.parametrize("name", list(generate.DASHBOARDS))
def test_the_committed_json_is_what_the_generator_makes(name):
    """Nobody has edited the JSON by hand, or forgotten to run `python dashboards/generate.py`."""
    assert (ROOT / "dashboards" / name).read_text(encoding="utf-8") == generate.text(name)


def test_the_generator_writes_its_files(tmp_path, monkeypatch):
    """Running the generator writes each dashboard under its name."""
    monkeypatch.setattr(generate, "HERE", tmp_path)
    generate.main()
    assert {path.name for path in tmp_path.iterdir()} == set(generate.DASHBOARDS)


def test_no_dashboard_is_without_its_generator():
    """Every JSON file in the folder is generated."""
    assert {path.name for path in DASHBOARDS} == set(generate.DASHBOARDS)


@pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.stem)
def test_a_dashboard_can_be_imported_anywhere(path):
    """A fixed uid that is the file's name, no database id, read-only, a tag, a title."""
    board = load(path)
    assert board["uid"] == path.stem
    assert len(board["uid"]) <= 40
    assert "id" not in board
    assert "__inputs" not in board
    assert board["editable"] is False
    assert board["tags"]
    assert board["title"]
    assert board["description"]


@pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.stem)
def test_panel_ids_are_unique_and_positive(path):
    """A panel id is part of links; two panels with one id break both."""
    ids = [panel["id"] for panel in load(path)["panels"]]
    assert len(ids) == len(set(ids))
    assert all(isinstance(number, int) and number > 0 for number in ids)


@pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.stem)
def test_panels_fit_the_grid_and_do_not_overlap(path):
    """Every cell of Grafana's 24 columns belongs to one panel at most."""
    taken = set()
    for panel in load(path)["panels"]:
        at = panel["gridPos"]
        assert at["x"] + at["w"] <= 24
        cells = {
            (x, y)
            for x in range(at["x"], at["x"] + at["w"])
            for y in range(at["y"], at["y"] + at["h"])
        }
        assert not cells & taken
        taken |= cells


@pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.stem)
def test_variables_keep_series_without_the_label(path):
    """All is `.*`: with `.+` a series without the label would vanish. One data source variable."""
    variables = load(path)["templating"]["list"]
    assert [one["name"] for one in variables if one["type"] == "datasource"] == ["datasource"]
    for one in variables:
        if one["type"] == "query":
            assert one["allValue"] == ".*"
            assert one["refresh"] == 2
            assert one["query"] == one["definition"]
            assert one["datasource"] == generate.DATASOURCE


@pytest.mark.parametrize("panel", panels())
def test_a_panel_says_what_it_is(panel):
    """Every panel has a title, a description, and a unit or mappings for its values."""
    assert panel["title"].strip()
    assert panel["description"].strip().endswith(".")
    defaults = panel["fieldConfig"]["defaults"]
    assert defaults.get("unit") or defaults.get("mappings")
    assert "noValue" in defaults


@pytest.mark.parametrize("panel", panels())
def test_a_panel_asks_the_chosen_data_source(panel):
    """Panels and targets use the variable, never a data source of somebody's own Grafana."""
    assert panel["targets"]
    for one in (panel, *panel["targets"]):
        assert one["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
    refs = [one["refId"] for one in panel["targets"]]
    assert len(refs) == len(set(refs))


@pytest.mark.parametrize("panel", panels())
def test_a_rate_fits_the_scrape_interval(panel):
    """Every rate is over `$__rate_interval`: a fixed range is empty where scrapes are rare."""
    for one in panel["targets"]:
        ranges = re.findall(r"\b(?:rate|irate|increase)\([^\[]*\[([^\]]*)\]", one["expr"])
        assert set(ranges) <= {"$__rate_interval"}


@pytest.mark.parametrize("panel", panels())
def test_a_range_mapping_has_both_ends(panel):
    """An open end (null) compares as 0 in Grafana, so it never fits a negative status."""
    ranges = [one for one in objects(panel) if one.get("type") == "range"]
    for one in ranges:
        ends = one["options"]["from"], one["options"]["to"]
        assert all(isinstance(end, int) for end in ends)
        assert -(2**31) <= ends[0] <= ends[1] < 2**31


@pytest.mark.parametrize("panel", panels())
def test_the_order_of_mappings_is_written_down(panel):
    """The first mapping that fits wins, so exact values come before the ranges around them."""
    found = panel["fieldConfig"]["defaults"]["mappings"]
    assert [one["type"] for one in found] == sorted((one["type"] for one in found), reverse=True)
    results = [
        one["options"]["result"] if one["type"] == "range" else next(iter(one["options"].values()))
        for one in found
    ]
    assert [result["index"] for result in results] == list(range(len(found)))


@pytest.mark.parametrize("panel", panels())
def test_a_panel_uses_what_is_exported(panel):
    """A metric that is not exported would be a panel that is empty for ever."""
    for one in panel["targets"]:
        used = metrics(one["expr"])
        assert used
        assert used <= EXPORTED | OF_PROMETHEUS


@pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.stem)
def test_a_variable_uses_what_is_exported(path):
    """A variable of a metric that is not exported would offer nothing to choose."""
    for one in load(path)["templating"]["list"]:
        if one["type"] == "query":
            selector, _, label = one["query"].removeprefix("label_values(").rpartition(",")
            assert label.endswith(")")
            used = metrics(selector)
            assert used
            assert used <= EXPORTED


@pytest.mark.parametrize("rule", rules())
def test_an_alert_uses_what_is_exported(rule):
    """A metric that is not exported would be an alert that never fires, or a page without words."""
    recorded = {"opensips_sr:not_ready_on_purpose"}
    assert metrics(rule["expr"]) <= EXPORTED | OF_PROMETHEUS | recorded
    for template in rule.get("annotations", {}).values():
        assert set(re.findall(r"\b(?:opensips_sr|sr_exporter)_\w+", template)) <= EXPORTED


@pytest.mark.parametrize(
    ("expression", "names"),
    [
        ("up", {"up"}),
        ('sum by (a, b) (rate(x_total{b="c{}"}[5m])) > 0', {"x_total"}),
        ('count({__name__=~"y|z",job="x"})', {"y", "z"}),
        ("a == bool 0 unless on (job) b offset 5m", {"a", "b"}),
        ("max_over_time(a[1m:]) and ignoring(x) group_left(y) c", {"a", "c"}),
    ],
)
def test_the_names_in_an_expression_are_found(expression, names):
    """The check above is only as good as the reading of the expressions."""
    assert metrics(expression) == names
