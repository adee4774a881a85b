"""Every expression of every dashboard finds something, in a real Prometheus of a real exporter."""

from __future__ import annotations

import copy
import math
from typing import TYPE_CHECKING

import pytest

from sr_exporter.simulator.scenario import LINES
from tests.boards import asked, boards, expressions, operands, panels, selector_of
from tests.fleet_story import FleetStory

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tests.boards import Json
    from tests.fleet_story import Chapter

pytestmark = [pytest.mark.real, pytest.mark.timeout(180)]

BOARDS = boards()
#: What is chosen, one after the other, where All cannot be.
CHOICES: dict[str, list[dict[str, str]]] = {
    "opensips-sr-source": [{"source": name} for name in ("sip-1", "sip-2", "sip-3")],
    "opensips-sr-identifier": [
        {"group": "core", "identifier": "main"},
        {"group": "drouting", "identifier": "us"},
        {"group": "clusterer", "identifier": "cap:dialog"},
        {"group": "uac_registrant", "identifier": LINES[0]},
        {"group": "alarms", "identifier": "main"},
    ],
}
#: What is empty while all is well, and is to be.
TROUBLE = {
    "opensips-sr-overview": {
        "8 Not ready now",
        "13 Sources disagree",
    },
    "opensips-sr-source": {"15 Failed requests", "16 Reported not ready", "annotation Alerts"},
    "opensips-sr-identifier": {"annotation Alerts"},
    "opensips-sr-routing": {"7 Loading for", "11 Gateways and destinations reported not ready"},
    "opensips-sr-cluster": {"4 Nodes reported down", "15 Not registered now"},
    "opensips-sr-exporter": {"14 Failed requests", "57 Limits met in 5 min", "annotation Alerts"},
}
#: As Grafana has it where scrapes are a second apart: four of them.
RATE_SECONDS = 4


@pytest.fixture(scope="module")
def story(tmp_path_factory):
    with FleetStory(tmp_path_factory.mktemp("story")) as told:
        yield told


def _finds(story: FleetStory, expr: str, board: Json, chapters: Sequence[Chapter]) -> bool:
    """Whether an expression finds a number in one of the chapters, for any of the choices."""
    for chosen in CHOICES.get(board["uid"], [{}]):
        for begin, end in chapters:
            query = asked(
                expr,
                board,
                chosen,
                rate_seconds=RATE_SECONDS,
                range_seconds=math.ceil(end - story.began),
            )
            found = story.prometheus.over(query, begin, end)
            if any(not math.isnan(value) for values in found.values() for value in values):
                return True
    return False


def _empty(story: FleetStory, board: Json, *chapters: Chapter) -> Iterator[str]:
    """Give where an expression, or a side of an `or` in one, finds nothing in any chapter."""
    for place, expr in expressions(board):
        for one in (expr, *operands(expr)):
            if not _finds(story, one, board, chapters):
                yield f"{place}: {one}"


@pytest.mark.parametrize("uid", list(BOARDS))
def test_every_expression_finds_something_while_things_are_broken(story, uid):
    """Panels, annotations, variables; of an `or` each side alone, since it hides the other."""
    assert list(_empty(story, BOARDS[uid], story.broken, story.well)) == []
    whole = [
        place
        for place, expr in expressions(BOARDS[uid])
        if not _finds(story, expr, BOARDS[uid], [story.broken])
    ]
    assert whole == []


@pytest.mark.parametrize("uid", list(BOARDS))
def test_what_is_empty_while_all_is_well_is_trouble(story, uid):
    """Only what shows trouble is empty then, and all of that is: it would be a false alarm."""
    empty = {
        place if place.startswith("annotation") else place.rpartition(" ")[0]
        for place, expr in expressions(BOARDS[uid])
        if not _finds(story, expr, BOARDS[uid], [story.well])
    }
    assert empty == TROUBLE[uid]


@pytest.mark.parametrize("uid", list(BOARDS))
def test_a_variable_offers_what_there_is(story, uid):
    """What a variable looks at bears the label that it takes."""
    for one in BOARDS[uid]["templating"]["list"]:
        if one["type"] == "query":
            selector, label = selector_of(one["query"])
            found = {
                dict(labels).get(label)
                for chosen in CHOICES.get(uid, [{}])
                for labels in story.prometheus.now(
                    asked(selector, BOARDS[uid], chosen), story.well.end
                )
            }
            assert found, one["name"]
            assert None not in found
            if label == "source":
                assert {"sip-1", "sip-2", "sip-3", "sbc-1"} <= found


@pytest.mark.parametrize("uid", list(BOARDS))
def test_a_table_has_the_labels_that_it_names(story, uid):
    """The labels of each query are the table's columns, and no others: they join its rows."""
    for panel in panels(BOARDS[uid]):
        if panel["type"] != "table":
            continue
        *_, organize = panel["transformations"]
        names = organize["options"]["renameByName"]
        for target in panel["targets"]:
            # An empty label is none: what only pushes has no version.
            found = {
                name
                for chosen in CHOICES.get(uid, [{}])
                for labels in story.prometheus.now(
                    asked(target["expr"], BOARDS[uid], chosen, range_seconds=30), story.broken.end
                )
                for name, _ in labels
            }
            assert found == {name for name in names if not name.startswith("Value")}, panel["title"]


#: What a panel's first query is to give, at the end of each chapter: the number, or, of several
#: series, the numbers by the last word of their labels.
TOLD = {
    ("opensips-sr-overview", "Sources"): (4, 4),
    ("opensips-sr-overview", "Sources down"): (0, 1),
    ("opensips-sr-overview", "Cores not ready"): (0, 1),
    ("opensips-sr-overview", "Reported not ready"): (0, 3),
    ("opensips-sr-overview", "Core of each server"): (
        {"sip-1": 1, "sip-2": 1, "sip-3": 1},
        {"sip-1": 1, "sip-2": -1, "sip-3": 0},
    ),
    ("opensips-sr-routing", "No data"): (0, 3),
    ("opensips-sr-routing", "Loading"): (0, 1),
    ("opensips-sr-routing", "Reloading"): (0, 1),
    ("opensips-sr-routing", "Reported not ready"): (0, 2),
    ("opensips-sr-cluster", "Capabilities not synced"): (0, 1),
    ("opensips-sr-cluster", "Registrants"): (3, 3),
    ("opensips-sr-cluster", "Not registered"): (0, 1),
    ("opensips-sr-exporter", "Exporters up"): (1, 1),
    ("opensips-sr-exporter", "Sources down"): (0, 1),
}


@pytest.mark.parametrize(("uid", "title"), list(TOLD))
def test_a_panel_tells_well_from_broken(story, uid, title):
    """It is not enough that something is drawn: it must be the other thing when it is broken."""
    panel = next(one for one in panels(BOARDS[uid]) if one["title"] == title)
    for chapter, expected in zip((story.well, story.broken), TOLD[uid, title], strict=True):
        found = story.prometheus.now(
            asked(panel["targets"][0]["expr"], BOARDS[uid], rate_seconds=RATE_SECONDS), chapter.end
        ).items()
        if isinstance(expected, dict):
            assert {dict(labels)["source"]: value for labels, value in found} == expected
        else:
            assert [value for _, value in found] == [expected]


def test_a_change_is_marked_at_its_second(story):
    """The annotation's value is the time of the change, in milliseconds, not that of a scrape."""
    board = BOARDS["opensips-sr-identifier"]
    (changes,) = (
        one["expr"] for one in board["annotations"]["list"] if one["name"] == "Status changes"
    )
    chosen = {"group": "alarms", "identifier": "main"}
    query = asked(changes, board, chosen, range_seconds=60)
    (times,) = story.prometheus.over(query, *story.broken).values()
    assert abs(times[-1] / 1000 - story.broken.begin) < 1


@pytest.mark.parametrize(
    "expr",
    [
        'sum(opensips_sr_status{job=~"$job",group="coer"})',
        'count(opensips_sr_ready{source=~"$source",kind="x"}) or vector(0)',
        "opensips_sr_source_up * on (source) group_left opensips_sr_ready{group='none'}",
        'histogram_quantile(0.9, rate(opensips_sr_poll_duration_seconds_bucket{x="y"}[5s]))',
    ],
)
def test_an_expression_that_finds_nothing_is_found(story, expr):
    """The check is only as good as what it finds; `or vector(0)` hides nothing."""
    board = copy.deepcopy(BOARDS["opensips-sr-overview"])
    board["panels"] = board["panels"][:1]
    board["panels"][0]["targets"][0]["expr"] = expr
    assert list(_empty(story, board, story.broken, story.well))
