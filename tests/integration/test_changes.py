"""The journal over HTTP: pages of it, and the newest as it comes."""

from __future__ import annotations

import signal
import threading
import time

import pytest

from sr_exporter.journal import AT_ONCE
from sr_exporter.web import changes, stream
from tests.events import Event, Events
from tests.harness import Command, RunningApp, eventually


@pytest.fixture(scope="module")
def app(tmp_path_factory):
    with RunningApp(tmp_path_factory.mktemp("changes")) as running:
        yield running


def _page(app, query: str = ""):
    answer = app.client.session.get(f"{app.base}/api/v1/changes{query}", timeout=10)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "application/json"
    body = answer.json()
    assert set(body) == {"items", "next"}
    return answer, body


def _newest(app) -> int:
    return int(_page(app)[0].headers["x-sr-newest"])


def _push(app, status: int, **item: object) -> None:
    answer = app.client.push({"source": "s", "group": "g", "status": status, **item})
    assert answer.status_code == 200, answer.text


# --- pages ---------------------------------------------------------------------------------


def test_a_change_is_told_with_exactly_these_fields(app):
    """What appeared has no old status, what was removed no new one; times are Unix seconds."""
    since = _newest(app)
    before = time.time()
    _push(app, -2, details="down")
    _push(app, -2, details=None)
    _push(app, 1, identifier="Other")
    app.client.delete("s/groups/g/identifiers/other")
    found = _page(app, f"?since={since}")[1]["items"]
    assert [list(item) for item in found] == [
        ["seq", "at", "source", "group", "identifier", "kind", "status", "old_status", "details"]
    ] * 4
    assert all(before <= item.pop("at") <= time.time() for item in found)
    same = {"source": "s", "group": "g", "identifier": "main"}
    other = {**same, "identifier": "Other", "details": None}
    assert found == [
        {**same, "seq": since + 1, "kind": "appeared", "status": -2, "old_status": None,
         "details": "down"},
        {**same, "seq": since + 2, "kind": "details", "status": -2, "old_status": -2,
         "details": None},
        {**other, "seq": since + 3, "kind": "appeared", "status": 1, "old_status": None},
        {**other, "seq": since + 4, "kind": "removed", "status": None, "old_status": 1},
    ]  # fmt: skip


def test_pages_are_the_journal_in_pieces(app):
    """Whatever their size, together they are everything, once, in order; `since` is exclusive."""
    since = _newest(app)
    app.client.push(*({"source": "p", "group": "g", "status": n} for n in range(1, 26)))
    numbers = list(range(since + 1, since + 26))
    for limit in (1, 7, 24, 25, 26, 1000):
        told, cursor = [], ""
        while True:
            _, body = _page(app, f"?since={since}&limit={limit}{cursor}")
            told += [item["seq"] for item in body["items"]]
            assert len(body["items"]) <= limit
            if body["next"] is None:
                break
            cursor = f"&cursor={body['next']}"
        assert told == numbers, limit
    assert _page(app, f"?since={since + 25}")[1] == {"items": [], "next": None}
    assert _page(app, f"?since={10**30}")[1] == {"items": [], "next": None}


def test_filters(app):
    """A source as it is spelled, groups and identifiers whatever their case; several at once."""
    since = _newest(app)
    for source in ("f", "F"):
        app.client.push(
            *({"source": source, "group": group, "identifier": name, "status": 1}
              for group in ("A", "b") for name in ("X", "y"))
        )  # fmt: skip

    def told(query: str) -> list[str]:
        found = _page(app, f"?since={since}&limit=3{query}")[1]
        more = _page(app, f"?cursor={found['next']}{query}")[1] if found["next"] else {"items": []}
        items = [*found["items"], *more["items"]]
        return [f"{item['source']}{item['group']}{item['identifier']}" for item in items]

    assert told("&source=f") == ["fAX", "fAy", "fbX", "fby"]
    assert told("&group=B") == ["fbX", "fby", "FbX", "Fby"]
    assert told("&group=a&identifier=x&source=F") == ["FAX"]
    assert told("&source=nobody") == []


def test_a_page_of_few_among_many_is_looked_for_in_turns(app, monkeypatch):
    """One request looks at so many changes and no more: it may find nothing, and there is more."""
    monkeypatch.setattr(changes, "MOST_LOOKED_AT", AT_ONCE)
    since = _newest(app)
    for status in (1, 2):
        app.client.push(
            *({"source": "many", "group": "g", "identifier": f"i{n}", "status": status}
              for n in range(AT_ONCE))
        )  # fmt: skip
        app.client.push({"source": "rare", "group": "g", "status": status})
    told, cursor, pages = [], f"since={since}", 0
    while cursor:
        _, body = _page(app, f"?source=rare&limit=1&{cursor}")
        told += [item["status"] for item in body["items"]]
        cursor = body["next"] and f"cursor={body['next']}"
        pages += 1
    assert told == [1, 2]
    assert pages >= 3


@pytest.mark.parametrize(
    ("query", "error"),
    [
        ("?since=-1", "since: must be the number of a change"),
        ("?since=", "since: must be the number of a change"),
        ("?since=1.5", "since: must be"),
        ("?cursor=x", "cursor: must be"),
        ("?limit=0", "limit: must be a whole number from 1 to 1000"),
        ("?limit=1001", "limit: must be"),
        ("?ready=true", "'ready' is not understood here"),
        ("?since=1&since=2", "'since' is there twice"),
    ],
)
def test_what_is_not_understood(app, query, error):
    """400, also of a stream, and what it is."""
    for accept in ("application/json", "text/event-stream"):
        answer = app.client.session.get(
            f"{app.base}/api/v1/changes{query}", headers={"Accept": accept}, timeout=10
        )
        assert answer.status_code == 400
        assert error in answer.json()["error"]


# --- streams -------------------------------------------------------------------------------


def test_a_stream_tells_what_the_pages_tell(app):
    """From a number on, stored and live: the same items under their numbers."""
    since = _newest(app)
    _push(app, -5, group="stream")
    with Events(app.base, f"?since={since}") as events:
        assert events.status == 200
        assert events.headers["content-type"] == "text/event-stream"
        assert events.headers["cache-control"] == "no-store"
        first = events.next()
        assert app.client.reload().status_code == 200  # nobody who listens need know of it
        _push(app, 5, group="stream", details="line\nbreak")
        told = [first, events.next()]
    items = _page(app, f"?since={since}")[1]["items"]
    assert told == [Event("change", str(item["seq"]), item) for item in items]


def test_without_a_number_only_what_comes(app):
    """A change is there within moments of its push."""
    _push(app, 1, group="live")
    with Events(app.base) as events:
        _push(app, -1, group="live")
        began = time.monotonic()
        event = events.next()
        took = time.monotonic() - began
    assert (event.data["group"], event.data["status"]) == ("live", -1)
    assert took < 1.0


def test_who_comes_back_goes_on(app):
    """By `Last-Event-ID`, which a browser sends, and which counts more than its first `since`."""
    since = _newest(app)
    app.client.push(*({"source": "back", "group": "g", "status": n} for n in range(1, 31)))
    told = []
    query, headers = f"?since={since}", {}
    while len(told) < 30:
        with Events(app.base, query, **headers) as events:
            told += [events.next().data["status"] for _ in range(3)]
            headers = {"Last_Event_ID": events.last_id}
    assert told == list(range(1, 31))


def test_a_stream_of_some(app):
    """Filters hold for events as for items."""
    with Events(app.base, "?source=wanted&group=G") as events:
        for source, group in (("other", "g"), ("wanted", "h"), ("wanted", "g")):
            app.client.push({"source": source, "group": group, "status": 1})
        event = events.next()
    assert (event.data["source"], event.data["group"]) == ("wanted", "g")


def test_a_number_that_is_still_to_come_is_of_another_journal(app):
    """It is said, and the stream goes on from now."""
    newest = _newest(app)
    with Events(app.base, Last_Event_ID=str(newest + 1000)) as events:
        data = {"after": newest + 1000, "last": newest}
        assert events.next() == Event("gap", str(newest), data)
        _push(app, 7, group="ahead")
        assert events.next().data["status"] == 7


def test_a_quiet_stream_says_that_it_is_there(app, monkeypatch):
    """By comments, also where only others are told something."""
    monkeypatch.setattr(stream, "HEARTBEAT_SECONDS", 0.05)
    since = _newest(app)
    with Events(app.base, "?source=quiet") as events:
        _push(app, 3, group="loud")
        _push(app, 4, group="loud")
        reader = threading.Timer(
            0.4, lambda: app.client.push({"source": "quiet", "group": "g", "status": 1})
        )
        reader.start()
        event = events.next()
        reader.join()
    assert event.data["source"] == "quiet"
    assert len(events.comments) > 2
    assert int(event.id) > since


@pytest.mark.parametrize(
    ("accept", "stream_it_is"),
    [
        ("*/*", False),
        ("text/*", False),
        ("text/event-stream;q=0", False),
        ("application/json, text/event-stream;q=0.5", False),
        ("Text/Event-Stream", True),
        ("text/event-stream, application/json;q=0.9", True),
    ],
)
def test_only_who_asks_for_a_stream_gets_one(app, accept, stream_it_is):
    """HEAD tells which, and ends."""
    answer = app.client.session.head(
        f"{app.base}/api/v1/changes", headers={"Accept": accept}, timeout=10
    )
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/event-stream") is stream_it_is


def test_who_takes_nothing_holds_nobody_up(tmp_path, monkeypatch):
    """Others are told at once, and he is let go of in the end."""
    monkeypatch.setattr(stream, "STUCK_SECONDS", 1.0)
    # More than there is room for in sockets; cut, it would take thousands of pushes.
    monkeypatch.setattr("sr_exporter.wire.text.MOST_DETAILS", 200_000)
    with RunningApp(tmp_path) as app, Events(app.base) as stuck, Events(app.base) as events:
        text = "x" * 100_000
        for number in range(1, 201):
            _push(app, number, details=text)
            assert events.next().data["status"] == number
        journal = app.app.journal
        eventually(lambda: len(journal._listeners) == 1)
        with pytest.raises((ConnectionResetError, AssertionError, ValueError)):
            stuck.to_the_end()
        _push(app, -1)
        assert events.next().data["status"] == -1


def test_who_leaves_is_forgotten(app):
    """At once, though nothing is told meanwhile."""
    journal = app.app.journal
    with Events(app.base):
        eventually(lambda: len(journal._listeners) == 1)
    eventually(lambda: not journal._listeners)


# --- stopping ------------------------------------------------------------------------------


def test_streams_end_whole_at_a_stop_and_go_on_after_it(tmp_path):
    """Nobody waits for those who listen, not even for one who takes nothing; nothing is lost."""
    storage = f"--storage.path={tmp_path}"
    with Command(storage) as command:
        command.wait_ready()
        with Events(command.base, "?since=0") as events, Events(command.base, "?since=0") as stuck:
            text = "x" * 100_000
            for number in range(1, 101):
                command.client.push({"group": "g", "status": number, "details": text})
            told = []
            while not told or told[-1].data["group"] != "g" or told[-1].data["status"] != 100:
                told.append(events.next())
            command.signal(signal.SIGTERM)
            began = time.monotonic()
            while (event := events.next()) is not None:
                told.append(event)
            assert command.wait() == 0
            assert time.monotonic() - began < 4.0
            del stuck
        assert "Traceback" not in command.said
        assert "error" not in command.said.lower(), command.said
    with Command(storage) as command:
        command.wait_ready()
        with Events(command.base, "?since=0", Last_Event_ID=told[-1].id) as events:
            command.client.push({"group": "g", "status": -7})
            while told[-1].data["status"] != -7:
                told.append(events.next())
    assert [int(event.id) for event in told] == list(range(1, len(told) + 1))
