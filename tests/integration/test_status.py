"""What is held, over HTTP: statuses and reports, filtered and in pages."""

from __future__ import annotations

import time
from contextlib import ExitStack

import pytest

from sr_exporter.config import Config, Source
from sr_exporter.web import status
from tests.harness import RunningApp, eventually, free_port
from tests.replay import ReplayMi


@pytest.fixture(scope="module")
def app(tmp_path_factory):
    with RunningApp(tmp_path_factory.mktemp("status")) as running:
        running.client.push(
            {"source": "a", "group": "G", "status": -3, "details": "x", "at": 1000,
             "reports": ["r", {"log": "r2", "timestamp": 12.5}]},
            {"source": "a", "group": "g", "identifier": "Ä/b", "status": 2, "details": ""},
            {"source": "A", "group": "h", "identifier": "c", "status": 1},
            {"source": "b", "group": "g", "identifier": "MAIN", "status": -1},
        )  # fmt: skip
        yield running


def _get(app, path: str):
    answer = app.client.session.get(f"{app.base}/api/v1/{path}", timeout=10)
    assert answer.headers["content-type"] == "application/json"
    return answer


def _page(app, path: str):
    answer = _get(app, path)
    assert answer.status_code == 200, answer.text
    assert answer.headers["cache-control"] == "no-store"
    body = answer.json()
    assert list(body) == ["items", "next"]
    return body


def _keys(items) -> list[str]:
    return ["{source}.{group}.{identifier}".format(**item) for item in items]


def test_a_status_is_told_with_exactly_these_fields(app):
    """In order; details that are absent are null, and those that are empty are empty."""
    before = time.time()
    app.client.push({"source": "z", "group": "g", "status": 4})
    found = [item for item in _page(app, "status")["items"] if item["source"] != "sr_exporter"]
    assert [list(item) for item in found] == [
        ["source", "group", "identifier", "status", "ready", "details", "since", "reports_total",
         "last_report", "stale"]
    ] * 5  # fmt: skip
    now = [item["since"] for item in found]
    assert now[1] == 1000.0
    assert before - 60 < now[2] <= before <= now[-1] <= time.time()
    assert [tuple(item.values())[:6] for item in found] == [
        ("A", "h", "c", 1, True, None),
        ("a", "G", "main", -3, False, "x"),
        ("a", "G", "Ä/b", 2, True, ""),
        ("b", "g", "MAIN", -1, False, None),
        ("z", "g", "main", 4, True, None),
    ]
    assert [tuple(item.values())[7:] for item in found] == [
        (0, None, False),
        (2, 12.5, False),
        *((0, None, False),) * 3,
    ]
    app.client.delete("z")


def test_reports_are_told_ring_by_ring(app):
    """As they were pushed, the oldest first; keys without any are there too."""
    first, second = _page(app, "reports?source=a")["items"]
    assert first == {
        "source": "a",
        "group": "G",
        "identifier": "main",
        "reports": [{"timestamp": 1000.0, "log": "r"}, {"timestamp": 12.5, "log": "r2"}],
        "reports_total": 2,
        "stale": False,
    }
    assert (second["reports"], second["reports_total"]) == ([], 0)


@pytest.mark.parametrize("route", ["status", "reports"])
@pytest.mark.parametrize(
    ("query", "keys"),
    [
        ("?source=a", ["a.G.main", "a.G.Ä/b"]),
        ("?source=A", ["A.h.c"]),
        ("?group=g", ["a.G.main", "a.G.Ä/b", "b.g.MAIN"]),
        ("?group=G&ready=false", ["a.G.main", "b.g.MAIN"]),
        ("?identifier=Main&group=G", ["a.G.main", "b.g.MAIN"]),
        ("?source=a&group=g&identifier=%C3%84/B", ["a.G.Ä/b"]),
        ("?source=a&ready=true", ["a.G.Ä/b"]),
        ("?source=nobody", []),
        ("?source=", []),
    ],
)
def test_filters(app, route, query, keys):
    """Sources as they are spelled, groups and identifiers whatever their case; all must fit."""
    assert _keys(_page(app, route + query)["items"]) == keys


@pytest.mark.parametrize("route", ["status", "reports"])
def test_pages_stay_right_while_keys_come_and_go(app, route):
    """Also when the key is gone that a page ended with."""
    app.client.push(
        *({"source": "pages", "group": group, "identifier": name, "status": 1}
          for group in "xy" for name in "abcd")
    )  # fmt: skip
    first = _page(app, f"{route}?source=pages&limit=3")
    assert _keys(first["items"]) == ["pages.x.a", "pages.x.b", "pages.x.c"]
    app.client.delete("pages/groups/x/identifiers/c")
    app.client.push(
        {"source": "pages", "group": "x", "identifier": "bb", "status": 1},
        {"source": "pages", "group": "X", "identifier": "CC", "status": 1},
    )
    second = _page(app, f"{route}?source=pages&limit=3&cursor={first['next']}")
    assert _keys(second["items"]) == ["pages.x.CC", "pages.x.d", "pages.y.a"]
    app.client.delete("pages/groups/y")
    third = _page(app, f"{route}?source=pages&limit=3&cursor={second['next']}")
    assert third == {"items": [], "next": None}
    app.client.delete("pages")


def test_a_page_of_many_reports_is_shorter(app, monkeypatch):
    """Rings may be 200 deep: a page is bounded by what is in them, too."""
    monkeypatch.setattr(status, "MOST_REPORTS", 5)
    app.client.push(
        *({"source": "deep", "group": "g", "identifier": name, "reports": ["1", "2", "3"]}
          for name in "abc")
    )  # fmt: skip
    page = _page(app, "reports?source=deep")
    assert _keys(page["items"]) == ["deep.g.a", "deep.g.b"]
    page = _page(app, f"reports?source=deep&cursor={page['next']}")
    assert (_keys(page["items"]), page["next"]) == (["deep.g.c"], None)


@pytest.mark.parametrize("route", ["status", "reports"])
@pytest.mark.parametrize(
    ("query", "error"),
    [
        ("?ready=yes", "ready: must be true or false"),
        ("?limit=1001", "limit: must be a whole number from 1 to 1000"),
        ("?limit=%D9%A1", "limit: must be"),
        ("?cursor=", "cursor: is not the `next` of an earlier page"),
        ("?cursor=x", "cursor: is not"),
        ("?cursor=WyJhIl0", "cursor: is not"),
        ("?cursor=%00%C3%A9", "cursor: is not"),
        ("?status=1", "'status' is not understood here"),
        ("?group=a&group=b", "'group' is there twice"),
    ],
)
def test_what_is_not_understood(app, route, query, error):
    """400, and what it is."""
    answer = _get(app, route + query)
    assert answer.status_code == 400
    assert error in answer.json()["error"]


def test_sources_are_listed_page_by_page(app):
    """By name, also after one that is gone; with how many they hold."""
    found = _page(app, "sources")
    names = [item["source"] for item in found["items"]]
    assert names == sorted(names)
    assert {"a", "A", "b", "sr_exporter"} <= set(names)
    told = {item["source"]: (item["identifiers"], item["not_ready"]) for item in found["items"]}
    assert (told["a"], told["A"], told["b"]) == ((2, 1), (1, 0), (1, 1))
    in_pieces, cursor = [], ""
    while True:
        page = _page(app, f"sources?limit=2{cursor}")
        in_pieces += [item["source"] for item in page["items"]]
        if page["next"] is None:
            break
        cursor = f"&cursor={page['next']}"
    assert in_pieces == names
    after = _page(app, "sources?cursor=aa")["items"]
    assert [item["source"] for item in after] == [name for name in names if name > "aa"]
    assert _page(app, "sources?source=a&cursor=a") == {"items": [], "next": None}
    assert [item["source"] for item in _page(app, "sources?source=a")["items"]] == ["a"]


def test_what_a_lost_source_said_is_stale(tmp_path):
    """At once, and until it is heard again."""
    with ExitStack() as stack:
        mi = stack.enter_context(ReplayMi("4.0"))
        config = Config(sources=(Source("sip", mi.url, poll_interval_seconds=0.1, max_share=1.0),))
        with RunningApp(tmp_path, config) as app:

            def stale() -> set[bool]:
                return {item["stale"] for item in _page(app, "status?source=sip")["items"]}

            eventually(lambda: stale() == {False})
            assert _page(app, "status?source=sip&group=core")["items"][0]["details"] == "running"
            stack.close()
            eventually(lambda: stale() == {True})
    gone = Config(sources=(Source("sip", f"http://127.0.0.1:{free_port()}/mi"),))
    with RunningApp(tmp_path, gone) as app:
        items = _page(app, "reports?source=sip")["items"]
        assert items
        assert {item["stale"] for item in items} == {True}
