"""Grafana's own code reads the dashboards, and shows each status by its right word and color."""

from __future__ import annotations

import copy
import time
from typing import TYPE_CHECKING, NamedTuple

import pytest

from sr_exporter.words import meaning
from tests.boards import asked, boards, metrics, panels, variables
from tests.grafana_code import Grafana
from tests.prometheus import Past, sample

if TYPE_CHECKING:
    from tests.boards import Json

# The first of them may have to install Grafana's packages.
pytestmark = [pytest.mark.real, pytest.mark.timeout(400)]

BOARDS = boards()
FLEET = BOARDS["opensips-sr-overview"]


@pytest.fixture(scope="module")
def grafana():
    """Grafana's code, loaded once."""
    with Grafana() as running:
        yield running


# --- the files ---------------------------------------------------------------------------------


def test_grafana_finds_nothing_wrong(grafana):
    """All files fit the schema of Grafana's types whole, and name units that it has."""
    found = grafana.ask(faults=list(BOARDS.values()))["faults"]
    assert dict(zip(BOARDS, found, strict=True)) == {uid: [] for uid in BOARDS}


def _panel(board: Json, kind: str) -> Json:
    return next(panel for panel in board["panels"] if panel["type"] == kind)


def _defaults(board: Json, kind: str) -> Json:
    return _panel(board, kind)["fieldConfig"]["defaults"]


SEEDED = {
    "a type that is none": lambda board: _panel(board, "stat").update(type="stats"),
    "no targets": lambda board: _panel(board, "stat").pop("targets"),
    "a target that asks nothing": lambda board: _panel(board, "stat")["targets"][0].pop("expr"),
    "a number as text": lambda board: _panel(board, "stat").update(id="1"),
    "an id twice": lambda board: board["panels"][1].update(id=board["panels"][0]["id"]),
    "no options": lambda board: _panel(board, "state-timeline").pop("options"),
    "an option of another kind of panel": (
        lambda board: _panel(board, "timeseries")["options"].update(mergeValues=True)
    ),
    "a choice that is none": (
        lambda board: _panel(board, "stat")["options"].update(colorMode="backdrop")
    ),
    "a misspelt key": lambda board: _defaults(board, "stat").update(novalue="Unknown"),
    "a unit that is none": lambda board: _defaults(board, "timeseries").update(unit="cpm2"),
    "a unit of an override": (
        lambda board: _panel(board, "table")["fieldConfig"]["overrides"][-1]["properties"].append(
            {"id": "unit", "value": "ago"}
        )
    ),
    "a range without an end": (
        lambda board: _defaults(board, "state-timeline")["mappings"][-1]["options"].pop("to")
    ),
    "a mapping that is none": (
        lambda board: _defaults(board, "state-timeline")["mappings"][0].update(type="values")
    ),
    "an override of nothing": (
        lambda board: _panel(board, "table")["fieldConfig"]["overrides"].append({"properties": []})
    ),
    "a color mode that is none": (
        lambda board: _defaults(board, "stat").update(color={"mode": "threshold"})
    ),
    "a transformation that is none": (
        lambda board: _panel(board, "table")["transformations"][0].update(id="merged")
    ),
    "a variable of no type": lambda board: board["templating"]["list"][1].pop("type"),
    "a refresh that is none": lambda board: board["templating"]["list"][1].update(refresh=3),
    "a link without a title": lambda board: board["links"][0].pop("title"),
    "no place": lambda board: _panel(board, "stat").pop("gridPos"),
}


@pytest.fixture(scope="module")
def seeded(grafana):
    """What is said of each faulty dashboard, in one go."""
    faulty = {}
    for name, act in SEEDED.items():
        faulty[name] = copy.deepcopy(FLEET)
        act(faulty[name])
        assert faulty[name] != FLEET
    return dict(zip(faulty, grafana.ask(faults=list(faulty.values()))["faults"], strict=True))


@pytest.mark.parametrize("name", list(SEEDED))
def test_a_fault_is_found(name, seeded):
    """The check above is only as good as what it finds."""
    assert seeded[name]


# --- words and colors --------------------------------------------------------------------------


class Key(NamedTuple):
    """An identifier in one state; its source is named after both, so that it can be found."""

    group: str
    identifier: str
    code: int
    known: bool = True

    @property
    def source(self) -> str:
        return f"{self.group}/{self.identifier}/{self.code}{'' if self.known else '/lost'}"


_FAR = (-(2**31), -7, 7, 2**31 - 1)
_AOR = "aor=sip:a+b@trunk.example;contact=sip:a@192.0.2.1:5060;registrar=sip:[2001:db8::7]"
#: Every code of every module (facts on dashboards, section 2), and some of nobody's.
KEYS = [
    Key(group, identifier, code)
    for groups, identifier, codes in (
        (("config", "dialplan", "dispatcher", "drouting", "sql_cacher"), "us", (-2, -1, 1, 2)),
        (("drouting", "sql_cacher"), "eu", _FAR),
        (("dispatcher", "drouting"), "us;events", (1, -1)),
        (("core",), "main", (-100, -2, -1, 1, *_FAR)),
        (("clusterer",), "cap:dialog", (-3, -2, -1, 1, *_FAR)),
        (("clusterer",), "node_states", (1,)),
        (("clusterer",), "sharing_tags", (1,)),
        (("uac_registrant",), _AOR, (-1, 1)),
        (("pike", "auto-scaling"), "main", (1,)),
        (("my (own) group",), "trunk.a|b", (-1, 1, -2, 2, *_FAR)),
    )
    for group in groups
    for code in codes
]
LOST = [Key(key.group, key.identifier, key.code, known=False) for key in KEYS[::5]]
BY_SOURCE = {key.source: key for key in (*KEYS, *LOST)}

_YELLOW = {
    *("Loading data", "Initializing", "Terminating"),
    *("Sync pending", "Syncing", "Not registered"),
}


def has_words(key: Key) -> bool:
    """Whether the fleet says its group's status, and not just whether all of it is ready."""
    return key.group == "core" or key.identifier in ("us", "eu", "cap:dialog")


def shown(key: Key) -> tuple[str, str]:
    """Give the word and the color that a key is to be shown by."""
    if not key.known:
        return "Unknown", "#8e8e8e"
    said = meaning(key.group, key.identifier, key.code).capitalize()
    if said in _YELLOW:
        return said, "yellow"
    if said == "Reloading data":
        return said, "blue"
    if not has_words(key) and key.group != "uac_registrant" and abs(key.code) != 1:
        # Only the script knows what it means.
        said = str(key.code)
    return said, "green" if key.code > 0 else "red"


@pytest.fixture(scope="module")
def past(tmp_path_factory):
    """A Prometheus that saw every key in its state, and when; some of them are gone since."""
    at = float(int(time.time()) - 3 * 3600)
    lines = []
    for key in BY_SOURCE.values():
        # Longer ago than Prometheus looks back for a value (5 min), and less than an hour.
        then = at if key.known else at - 900
        labels = {
            "source": key.source,
            "group": key.group,
            "identifier": key.identifier,
        }
        for name, value in (
            ("status", key.code),
            ("ready", int(key.code > 0)),
            ("status_change_timestamp_seconds", then - 60),
            ("last_report_timestamp_seconds", then - 30),
            ("status_changes_total", 4),
        ):
            lines.append(sample(f"opensips_sr_{name}", value, then, **labels))
        del labels["identifier"]
        lines.append(sample("opensips_sr_group_ready", int(key.code > 0), then, **labels))
    with Past(tmp_path_factory.mktemp("past"), lines) as prometheus:
        yield prometheus, at


def _of_states(board: Json) -> list[tuple[Json, str, str | None]]:
    """Give what shows statuses in words: the panel, its query, and in a table its column."""
    found = []
    for panel in panels(board):
        first = panel["targets"][0]["expr"]
        if "opensips_sr_status" not in metrics(first):
            continue
        if panel["type"] == "table":
            found.append((panel, first, "State"))
        elif panel["fieldConfig"]["defaults"]["mappings"]:
            found.append((panel, first, None))
    return found


def _asked(board: Json) -> list[dict[str, str]]:
    """Give what is to be chosen, one after the other, for every key to be asked for once."""
    names = [
        name
        for name in ("source", "group", "identifier")
        if name in variables(board) and not variables(board)[name]["includeAll"]
    ]
    choices = {tuple(getattr(key, name) for name in names) for key in BY_SOURCE.values()}
    return [dict(zip(names, choice, strict=True)) for choice in sorted(choices)]


def _in_column(panel: Json, column: str | None) -> Json:
    """Give the panel with the column's overrides as defaults, to show a value by."""
    if column is None:
        return panel
    panel = copy.deepcopy(panel)
    for override in panel["fieldConfig"]["overrides"]:
        if override["matcher"]["options"] == column:
            for one in override["properties"]:
                if one["id"] == "mappings":
                    panel["fieldConfig"]["defaults"]["mappings"] = one["value"]
    panel["fieldConfig"]["overrides"] = []
    return panel


def test_every_status_is_shown_by_its_word_and_color(past, grafana):
    """From the metric to the word: of every module, negative ones too, on every panel."""
    prometheus, at = past
    places: dict[str, tuple[Json, list[Key], list[float]]] = {}
    for uid, board in BOARDS.items():
        for panel, expr, column in _of_states(board):
            of_panel = places[f"{uid} {panel['title']}"] = (_in_column(panel, column), [], [])
            for chosen in _asked(board):
                for labels, value in prometheus.now(asked(expr, board, chosen), at).items():
                    source = chosen.get("source") or dict(labels)["source"]
                    of_panel[1].append(BY_SOURCE[source])
                    of_panel[2].append(value)
    answer = grafana.ask(
        words=[{"panel": panel, "values": values} for panel, _, values in places.values()],
        colors=["green", "blue", "yellow", "red", "#8e8e8e"],
    )
    hexes = dict(zip(["green", "blue", "yellow", "red", "#8e8e8e"], answer["colors"], strict=True))
    seen = set()
    for (place, (_, keys, values)), words in zip(places.items(), answer["words"], strict=True):
        assert keys, f"{place} shows nothing"
        assert len(set(keys)) == len(keys), f"{place} shows one twice"
        for key, value, said in zip(keys, values, words, strict=True):
            word, color = shown(key)
            if place == "opensips-sr-overview Groups" and not has_words(key) and key.known:
                word, color = ("Ready", "green") if key.code > 0 else ("Not ready", "red")
            assert (said["text"], said["color"]) == (word, hexes[color]), (place, key, value)
        seen |= {(place.split()[0], key) for key in keys}
    for uid in ("opensips-sr-overview", "opensips-sr-source", "opensips-sr-identifier"):
        assert {key for board, key in seen if board == uid} == set(BY_SOURCE.values())


# --- tables and links --------------------------------------------------------------------------


def _frames(panel: Json, board: Json, prometheus: Past, at: float, chosen: dict) -> list[Json]:
    """Make the frames that Grafana's Prometheus data source makes for a table."""
    frames = []
    for target in panel["targets"]:
        found = prometheus.now(asked(target["expr"], board, chosen), at)
        labels = sorted({name for one in found for name, _ in one})
        rows = [(dict(one), value) for one, value in found.items()]
        name = "Value" if len(panel["targets"]) == 1 else f"Value #{target['refId']}"
        frames.append(
            {
                "refId": target["refId"],
                "fields": [
                    {"name": "Time", "type": "time", "values": [at * 1000] * len(rows)},
                    *(
                        {"name": one, "type": "string", "values": [row[0][one] for row in rows]}
                        for one in labels
                    ),
                    {"name": name, "type": "number", "values": [row[1] for row in rows]},
                ],
            }
        )
    return frames


def test_a_table_has_its_columns_and_leads_on(past, grafana):
    """Grafana joins the answers to rows, shows them in words, and fills the links' variables."""
    prometheus, at = past
    key = Key("uac_registrant", _AOR, -1)
    panel = next(one for one in panels(FLEET) if one["title"] == "Not ready now")
    frames = _frames(panel, FLEET, prometheus, at, {"source": [key.source]})
    chosen = {"datasource": "prom-1", "job": ["sr", "s/2"], "__url_time_range": "from=1&to=2"}
    (rows,) = grafana.ask(rows=[{"panel": panel, "frames": frames, "variables": chosen}])["rows"]
    (row,) = rows
    assert list(row) == [
        *("Source", "Group", "Identifier"),
        *("State", "Since", "Last report", "Code"),
    ]
    assert row["State"]["text"] == "Not registered"
    assert row["Code"]["text"] == "-1"
    assert row["Identifier"]["text"] == _AOR
    kept = "var-datasource=prom-1&var-job=sr&var-job=s%2F2"
    source = (
        "uac_registrant%2Faor%3Dsip%3Aa%2Bb%40trunk.example%3Bcontact%3Dsip%3Aa%40192.0.2.1"
        "%3A5060%3Bregistrar%3Dsip%3A%5B2001%3Adb8%3A%3A7%5D%2F-1"
    )
    identifier = source.removeprefix("uac_registrant%2F").removesuffix("%2F-1")
    assert row["Source"]["links"] == [
        f"/d/opensips-sr-source?{kept}&var-source={source}&from=1&to=2"
    ]
    assert row["Identifier"]["links"] == [
        (
            f"/d/opensips-sr-identifier?{kept}&var-source={source}&var-group=uac_registrant"
            f"&var-identifier={identifier}&from=1&to=2"
        )
    ]


@pytest.mark.parametrize(
    ("uid", "title"),
    [
        (uid, panel["title"])
        for uid, board in BOARDS.items()
        for panel in panels(board)
        if panel["type"] == "table"
    ],
)
def test_the_columns_of_a_table_are_those_that_it_speaks_of(uid, title, grafana):
    """What is sorted by, and shown in a way of its own, is a column that is there."""
    panel = next(one for one in panels(BOARDS[uid]) if one["title"] == title)
    *_, organize = panel["transformations"]
    names = organize["options"]["renameByName"]
    frames = []
    for target in panel["targets"]:
        value = f"Value #{target['refId']}" if len(panel["targets"]) > 1 else "Value"
        frames.append(
            {
                "refId": target["refId"],
                "fields": [
                    {"name": "Time", "type": "time", "values": [0]},
                    *(
                        {"name": name, "type": "string", "values": [name]}
                        for name in names
                        if not name.startswith("Value")
                    ),
                    {"name": value, "type": "number", "values": [1]},
                ],
            }
        )
    (((row,)),) = grafana.ask(rows=[{"panel": panel, "frames": frames, "variables": {}}])["rows"]
    assert list(row) == list(names.values())
    matchers = [one["matcher"] for one in panel["fieldConfig"]["overrides"]]
    spoken = [one["options"] for one in matchers if one["id"] == "byName"]
    spoken += [one["displayName"] for one in panel["options"]["sortBy"]]
    assert set(spoken) <= set(row)


def test_an_empty_cell_says_nothing(past, grafana):
    """What is said instead of a table without rows is not said in a cell without a value."""
    prometheus, at = past
    panel = next(one for one in panels(FLEET) if one["title"] == "Not ready now")
    assert panel["fieldConfig"]["defaults"]["noValue"]
    frames = _frames(panel, FLEET, prometheus, at, {"source": [KEYS[0].source, KEYS[1].source]})
    reports = next(one for one in frames if one["refId"] == "C")
    for field in reports["fields"]:
        del field["values"][1]
    (rows,) = grafana.ask(rows=[{"panel": panel, "frames": frames, "variables": {}}])["rows"]
    assert sorted(bool(row["Last report"]["text"]) for row in rows) == [False, True]


def test_a_line_leads_on(grafana):
    """A click on what is drawn of a source, or of an identifier, leads there; nothing is unset."""
    labels = {"source": "a b", "group": "drouting", "identifier": "us;x"}
    chosen = dict.fromkeys(("datasource", "job", "source", "group", "identifier"), "c")
    asking = [
        {"panel": panel, "labels": labels, "variables": chosen | {"__url_time_range": "from=1"}}
        for board in BOARDS.values()
        for panel in panels(board)
        if panel["fieldConfig"]["defaults"].get("links")
    ]
    assert len(asking) > 20
    for one, links in zip(asking, grafana.ask(hrefs=asking)["hrefs"], strict=True):
        assert links, one["panel"]["title"]
        for href in links:
            assert "$" not in href.replace("var-source=$__all", "")
            assert "var-source=a%20b" in href or "var-identifier=us%3Bx" in href
