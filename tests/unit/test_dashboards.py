"""The dashboards are what their generator makes, well-formed, and ask for what is exported."""

import copy
import itertools
import re

import pytest
import yaml

from dashboards import generate
from dashboards.generator import states
from sr_exporter.words import meaning
from tests import grafana_code
from tests.boards import (
    EXPORTED,
    FAMILIES,
    FILES,
    OF_PROMETHEUS,
    ROOT,
    asked,
    boards,
    expressions,
    faults,
    load,
    metrics,
    operands,
    variables,
)

RULES = sorted((ROOT / "alerts").glob("*.rules.yml"))
BOARDS = boards()

#: Families that are on no panel, and why.
ON_NO_PANEL = {
    "process_virtual_memory_bytes": "says nothing of what is used; resident memory is drawn",
    "python_info": "the exporter's own version is what matters",
    "python_gc_objects_collected_total": "for who works on the exporter",
    "python_gc_objects_uncollectable_total": "for who works on the exporter",
    "python_gc_collections_total": "for who works on the exporter",
    "sr_exporter_web_config_last_reload_successful": "most have no web configuration",
    "sr_exporter_web_requests_refused_total": "most have no web configuration",
}


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
    assert {path.name for path in FILES} == set(generate.DASHBOARDS)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_nothing_is_wrong_with_a_dashboard(path):
    """Ids, places, data sources, mappings, expressions, links: see `tests/boards.py`."""
    board = load(path)
    assert board["uid"] == path.stem
    assert faults(board) == []


def test_every_family_is_on_a_panel_or_has_a_reason_not_to_be():
    """What is exported and shown nowhere would be exported for nobody."""
    used = {
        name
        for board in BOARDS.values()
        for place, expr in expressions(board)
        if not place.startswith("variable")
        for name in metrics(expr)
    }
    unseen = {family for family, names in FAMILIES.items() if not used & set(names)}
    assert unseen == set(ON_NO_PANEL)


def test_links_go_down_from_the_fleet_to_an_identifier():
    """From the fleet one click leads to a source and to an identifier, from a source to one."""

    def leads(uid):
        text = str([panel["fieldConfig"] for panel in BOARDS[uid]["panels"] if "targets" in panel])
        return set(re.findall(r"/d/([\w-]+)", text))

    assert leads("opensips-sr-overview") == {"opensips-sr-source", "opensips-sr-identifier"}
    assert leads("opensips-sr-source") == {"opensips-sr-identifier"}
    assert leads("opensips-sr-identifier") == {"opensips-sr-source"}


def test_every_dashboard_leads_to_the_others():
    """The links above each dashboard name the five others."""
    for uid, board in BOARDS.items():
        led = [re.match(r"/d/([\w-]+)", link["url"])[1] for link in board["links"]]
        assert sorted([uid, *led]) == sorted(BOARDS)


def test_provisioning_loads_the_folder():
    """The one provider that is shipped, read-only, looks where the documentation mounts."""
    (path,) = (ROOT / "dashboards" / "provisioning" / "dashboards").iterdir()
    (provider,) = yaml.safe_load(path.read_text(encoding="utf-8"))["providers"]
    assert provider["type"] == "file"
    assert provider["allowUiUpdates"] is False
    text = (ROOT / "docs" / "dashboards.md").read_text(encoding="utf-8")
    assert f":{provider['options']['path']}:ro" in text
    for uid, board in BOARDS.items():
        assert f"| `{uid}` |" in text, board["title"]


# --- meanings ----------------------------------------------------------------------------------

_OF = {
    "table": ("drouting", "us"),
    "core": ("core", "main"),
    "capability": ("clusterer", "cap:dialog"),
    "registrant": ("uac_registrant", "aor=sip:a@b"),
}


@pytest.mark.parametrize("kind", list(states.KINDS))
def test_a_status_is_called_as_on_the_page(kind):
    """Both know the same codes by the same words, and green or blue is what is ready."""
    for code in range(-101, 5):
        word, color = states.KINDS[kind].words.get(code, (None, None))
        said = meaning(*_OF[kind], code or 1).capitalize()
        if word is None:
            assert said in ("Ready", "Not ready") or code == 0
        else:
            assert word == said
            assert (color in ("green", "blue")) == (code > 0)


def test_kinds_of_groups_never_meet():
    """No status of one kind, its offset added, can be one of another kind."""
    offsets = sorted([0, *(kind.offset for kind in states.KINDS.values())])
    for one, other in itertools.pairwise(offsets):
        assert one + 2**31 < other - 2**31


# --- proof that faults are found ---------------------------------------------------------------


def _first(board, **wanted):
    return next(
        panel
        for panel in board["panels"]
        if all(panel.get(key) == value for key, value in wanted.items())
    )


def _set(path, value):
    """Make an act that sets, or with None removes, what is at a path in a dashboard."""

    def act(board):
        *way, last = path
        for step in way:
            board = board[step]
        if value is None:
            del board[last]
        else:
            board[last] = value

    return act


def _open_range(board):
    panel = _first(board, type="state-timeline")
    one = next(one for one in panel["fieldConfig"]["defaults"]["mappings"] if "from" in str(one))
    one["options"]["from"] = None


@pytest.mark.parametrize(
    ("act", "said"),
    [
        (_set(("panels", 3, "id"), 1), "taken twice"),
        (_set(("panels", 3, "id"), None), "not a number"),
        (_set(("panels", 0, "targets"), None), "asks nothing"),
        (_set(("panels", 0, "datasource"), {"uid": "mine"}), "a data source of its own"),
        (_set(("panels", 0, "description"), ""), "no description"),
        (_set(("panels", 0, "gridPos", "w"), 4), "no place of its own"),
        (_set(("panels", 0, "fieldConfig", "defaults", "unit"), None), "neither unit nor mappings"),
        (_open_range, "open end"),
        (
            lambda board: _first(board, type="state-timeline")["fieldConfig"]["defaults"].update(
                color={"mode": "thresholds"}
            ),
            "instead of the mappings",
        ),
        (_set(("panels", 1, "targets", 0, "expr"), "opensips_sr_up"), "not exported"),
        (_set(("panels", 1, "targets", 0, "expr"), "up{job=~'$jobs'}"), "no such variable: jobs"),
        (_set(("panels", 1, "targets", 0, "expr"), "rate(up[5m])"), "fixed range"),
        (_set(("templating", "list", 1, "allValue"), ".+"), "loses series"),
        (_set(("id",), 17), "somebody's own Grafana"),
        (_set(("editable",), True), "it can be edited"),
        (_set(("links", 0, "url"), "/d/opensips-sr-sources?x=1"), "leads to no dashboard"),
        (
            _set(("links", 0, "url"), "/d/opensips-sr-source?var-server=${job:percentencode}"),
            "has no variable var-server",
        ),
        (
            _set(("links", 0, "url"), "/d/opensips-sr-source?var-source=${job}"),
            "job is not encoded",
        ),
    ],
)
def test_a_fault_is_found(act, said):
    """The checks above are only as good as what they find."""
    board = copy.deepcopy(BOARDS["opensips-sr-overview"])
    act(board)
    assert any(said in fault for fault in faults(board))


@pytest.mark.parametrize("rule", rules())
def test_an_alert_uses_what_is_exported(rule):
    """A metric that is not exported would be an alert that never fires, or a page without words."""
    recorded = {"opensips_sr:not_ready_on_purpose"}
    assert metrics(rule["expr"]) <= EXPORTED | OF_PROMETHEUS | recorded
    for template in rule.get("annotations", {}).values():
        assert set(re.findall(r"\b(?:opensips_sr|sr_exporter)_\w+", template)) <= EXPORTED


@pytest.mark.parametrize("rule", rules())
def test_an_alert_leads_to_a_dashboard_that_has_what_it_fills(rule):
    """The variables of its link are the dashboard's, and those that have no All are among them."""
    for url in (one for key, one in rule.get("annotations", {}).items() if key == "dashboard_url"):
        uid = re.match(r"/d/([\w-]+)", url)[1]
        filled = set(re.findall(r"var-(\w+)=", url))
        known = variables(BOARDS[uid])
        assert filled <= set(known)
        needed = {name for name, one in known.items() if one["type"] == "query"}
        assert {name for name in needed if not known[name]["includeAll"]} <= filled


@pytest.mark.parametrize(
    ("expression", "names"),
    [
        ("up", {"up"}),
        ('sum by (a, b) (rate(x_total{b="c{}"}[5m])) > 0', {"x_total"}),
        ('count({__name__=~"y|z",job="x"})', {"y", "z"}),
        ("a == bool 0 unless on (job) b offset 5m", {"a", "b"}),
        ("max_over_time(a[1m:]) and ignoring(x) group_left(y) c", {"a", "c"}),
        ("a * on (job) group_left b @ end()", {"a", "b"}),
    ],
)
def test_the_names_in_an_expression_are_found(expression, names):
    """The check above is only as good as the reading of the expressions."""
    assert metrics(expression) == names


def test_the_sides_of_an_or_are_found():
    """What is behind `or` must not hide that there is nothing before it."""
    assert operands('sum(a or b{c="or (d"} or e) + f or vector(0)') == [
        "a",
        'b{c="or (d"}',
        "e",
        'sum(a or b{c="or (d"} or e) + f',
        "vector(0)",
    ]
    assert operands("clamp(a, 0, b or c) and d") == ["b", "c"]


def test_variables_are_put_in_as_grafana_does():
    """All is the regular expression, a choice of many is escaped as one, a single one is quoted."""
    board = {
        "templating": {
            "list": [
                {"name": "many", "multi": True, "includeAll": True, "allValue": ".*"},
                {"name": "one", "multi": False, "includeAll": False},
            ]
        }
    }
    expr = 'x{a=~"$many",b="${one:raw}"}[$__rate_interval]'
    assert asked(expr, board, {"one": r"a\b"}) == r'x{a=~".*",b="a\\b"}[60s]'
    assert asked(expr, board, {"many": ["a.b", "c"], "one": "d"}) == (
        r'x{a=~"(a\\.b|c)",b="d"}[60s]'
    )


# --- the finder of Node ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ci", "outcome"), [("", pytest.skip.Exception), ("true", pytest.fail.Exception)]
)
def test_without_node_it_is_said_why(ci, outcome, monkeypatch):
    """Who has no Node can still run the other tests; a CI without it is a broken one."""
    monkeypatch.setenv("CI", ci)
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(outcome, match="node is not on the PATH"):
        grafana_code.find.__wrapped__()
