"""The routes as a stranger to the code meets them."""

from __future__ import annotations

import gzip
import hashlib
import http.client
import json
import random
import re
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sr_exporter.config import Config, Limits, Source, Token
from tests.harness import RunningApp, eventually, free_port, series
from tests.replay import ReplayMi

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="module")
def app(tmp_path_factory):
    with RunningApp(tmp_path_factory.mktemp("http")) as running:
        yield running


def _post(app, body: bytes, query: str = "", **headers: str):
    return app.client.session.post(
        f"{app.base}/api/v1/push{query}", data=body, headers=headers, timeout=10
    )


# --- push ----------------------------------------------------------------------------------


def test_a_push_is_shown_at_once(app):
    """What was accepted is on the very next scrape."""
    answer = app.client.push(
        {"source": "a", "group": "G", "status": -3, "details": "x", "reports": ["r", "r2"]}
    )
    assert (answer.status_code, answer.json()) == (200, {"accepted": 1, "changed": 1})
    found = app.client.metrics()
    key = (("group", "G"), ("identifier", "main"), ("source", "a"))
    assert found["opensips_sr_status", key] == -3
    assert found["opensips_sr_ready", key] == 0
    assert found["opensips_sr_reports_total", key] == 2
    assert found["opensips_sr_status_changes_total", key] == 0
    assert app.client.push({"source": "a", "group": "g", "status": 0}).json()["changed"] == 1
    found = app.client.metrics()
    assert found["opensips_sr_status", key] == 1
    assert found["opensips_sr_status_changes_total", key] == 1


def test_all_or_none(app):
    """One wrong item, and nothing of the body is taken; the items are named."""
    answer = app.client.push(
        {"group": "all-or-none", "status": 1}, {"group": "all-or-none", "status": True}
    )
    assert answer.status_code == 400
    assert answer.json() == {
        "error": "1 item is wrong; nothing was taken",
        "items": [{"index": 1, "error": "Expected `int`, got `bool` - at `$.status`"}],
    }
    assert not series(app.client.metrics(), "opensips_sr_status", group="all-or-none")


def test_ndjson_and_the_query_source(app):
    """Lines are items; items that name no source are of the query's."""
    body = b'{"group":"n1","status":1}\n\n{"group":"n2","status":-1,"source":"own"}\r\n'
    assert _post(app, body, "?source=asked").json() == {"accepted": 2, "changed": 2}
    found = app.client.metrics()
    assert series(found, "opensips_sr_status", source="asked", group="n1")
    assert series(found, "opensips_sr_status", source="own", group="n2")


def test_an_empty_array_is_good(app):
    """Nothing to do is done: zeros."""
    assert _post(app, b"[]").json() == {"accepted": 0, "changed": 0}


def test_encodings(app):
    """Gzip or none; what is neither is 415, what lies is 400, what grows too big is 413."""
    body = b'{"group":"zip","status":1}'
    packed = gzip.compress(body)
    assert _post(app, packed, **{"Content-Encoding": "gzip"}).status_code == 200
    assert _post(app, packed, **{"Content-Encoding": "br"}).status_code == 415
    lie = _post(app, body, **{"Content-Encoding": "gzip"})
    assert (lie.status_code, lie.json()["items"]) == (400, [])
    assert _post(app, packed[:-4], **{"Content-Encoding": "gzip"}).status_code == 400
    bomb = gzip.compress(b" " * (33 * 2**20))
    assert _post(app, bomb, **{"Content-Encoding": "gzip"}).status_code == 413


@pytest.mark.parametrize("as_lines", [True, False])
def test_a_long_push_is_answered_as_a_short_one(app, as_lines):
    """However it is written: taken, counted and shown, or refused whole with what is wrong."""
    source = f"long-{as_lines}"
    items = [{"source": source, "group": f"g{number % 3}", "identifier": f"i{number}", "status": 1}
             for number in range(3000)]  # fmt: skip

    def body(*documents: dict[str, object]) -> bytes:
        if not as_lines:
            return json.dumps(documents).encode()
        return b"\n".join(json.dumps(document).encode() for document in documents)

    wrong = _post(app, body(*items, {"source": source, "group": "g"}))
    assert (wrong.status_code, [item["index"] for item in wrong.json()["items"]]) == (400, [3000])
    ahead = _post(app, body(*items, {"source": source, "group": "g", "status": 1, "at": 2e9 * 2}))
    assert (ahead.status_code, [item["index"] for item in ahead.json()["items"]]) == (400, [3000])
    assert not any(("source", source) in key for _, key in app.client.metrics())
    event = {**items[0], "status": -1, "old_status": 1}
    packed = gzip.compress(body(*items, event))
    answer = _post(app, packed, **{"Content-Encoding": "gzip"})
    assert (answer.status_code, answer.json()) == (200, {"accepted": 3001, "changed": 3001})
    found = app.client.metrics()
    statuses = {key: value for (name, key), value in found.items() if name == "opensips_sr_status"}
    assert sum(value for key, value in statuses.items() if ("source", source) in key) == 2998
    labels = (("source", source), ("transport", "http"))
    assert found["opensips_sr_events_total", labels] == 1


def test_a_body_over_the_limit_is_413(tmp_path):
    """The limit holds with and without a Content-Length."""
    with RunningApp(tmp_path, Config(limits=Limits(body_bytes=1024))) as app:
        assert _post(app, b" " * 1025).status_code == 413
        chunked = app.client.session.post(
            f"{app.base}/api/v1/push", data=iter([b" " * 600] * 2), timeout=10
        )
        assert chunked.status_code == 413
        found = app.client.metrics()
        assert found["sr_exporter_push_requests_total", (("code", "413"),)] == 2


def test_sources_that_differ_in_case_have_own_identifiers_of_their_own(tmp_path):
    """Identifiers ignore case and sources do not: what is said of one is not said of the other."""
    with ReplayMi("3.6") as mi:
        dead = f"http://127.0.0.1:{free_port()}/mi"
        sources = (Source("SIP", dead), Source("sip", mi.url, poll_interval_seconds=0.1))
        with RunningApp(tmp_path, Config(sources=sources)) as app:

            def own() -> dict[str, float]:
                found = series(app.client.metrics(), "opensips_sr_status", group="source")
                return {dict(key)["identifier"]: value for key, value in found.items()}

            eventually(lambda: own() == {"SIP": -1, "sip (2)": 1})


def test_a_full_house_takes_no_new_key_and_keeps_the_old(tmp_path):
    """limits.identifiers refuses what is new, by name, and nothing of that push is taken."""
    # The exporter's own core and store are two identifiers.
    with RunningApp(tmp_path, Config(limits=Limits(identifiers=4))) as app:
        eventually(lambda: series(app.client.metrics(), "opensips_sr_status", group="store"))
        assert app.client.push({"group": "a", "status": 1}).status_code == 200
        refused = app.client.push({"group": "b", "status": 1}, {"group": "c", "status": 1})
        assert refused.status_code == 400
        assert refused.json()["items"] == [
            {"index": 1, "error": "limits.identifiers (4) is reached"}
        ]
        assert app.client.push({"group": "a", "status": -1}).status_code == 200
        assert not series(app.client.metrics(), "opensips_sr_status", group="b")


# --- wrong input ---------------------------------------------------------------------------

_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=8,
)
_FIELDS = st.sampled_from(
    [
        *("group", "identifier", "source", "status", "details", "reports", "ttl", "on_expiry"),
        *("at", "old_status", "jsonrpc", "method", "params", "id", "log", "timestamp", "other"),
    ]
)
_ITEMS = st.dictionaries(_FIELDS, _VALUES, max_size=6)
_BODIES = st.one_of(
    st.binary(max_size=80),
    _VALUES.map(lambda value: json.dumps(value).encode("utf-8", "surrogatepass")),
    _ITEMS.map(lambda value: json.dumps(value).encode("utf-8", "surrogatepass")),
    st.lists(_ITEMS, max_size=4).map(
        lambda items: json.dumps(items).encode("utf-8", "surrogatepass")
    ),
    st.lists(_ITEMS | st.text(max_size=5), max_size=4).map(
        lambda items: "\n".join(map(json.dumps, items)).encode("utf-8", "surrogatepass")
    ),
    st.tuples(_ITEMS, st.integers(0, 200), st.binary(max_size=4)).map(
        lambda cut: json.dumps({"group": "g", "status": 1, **cut[0]}).encode()[: cut[1]] + cut[2]
    ),
)
_ENCODINGS = st.sampled_from(["", "identity", "gzip", "br", "deflate", "gzip, gzip", "x"])
_SEEN = {"requests": 0, "codes": set()}


def _spoilt(body: bytes) -> Iterator[bytes]:
    """Give a body, and what is left of it when something on its way cuts, doubles or alters it.

    The same of the same body, always: a failure can be had again.
    """
    yield body
    chance = random.Random(body)
    for _ in range(4):
        start, end = sorted(chance.randrange(len(body) + 1) for _ in range(2))
        put = chance.choice((b"", body[start:end] * 2, chance.randbytes(2), b'"', b"}", b"9" * 20))
        yield body[:start] + put + body[end:]


@settings(max_examples=2_000, deadline=None)
@given(body=_BODIES, encoding=_ENCODINGS, query=st.sampled_from(["", "?source=", "?source=x"]))
def _throw(app, body, encoding, query):
    for one in _spoilt(body):
        _throw_one(app, one, encoding, query)


def _throw_one(app, body, encoding, query):
    before = app.state_of()
    headers = {"Content-Encoding": encoding} if encoding else {}
    # Of ten thousand requests most of the time would go into `requests`.
    app.line.request("POST", f"/api/v1/push{query}", body=body, headers=headers)
    answer = app.line.getresponse()
    text = answer.read()
    _SEEN["requests"] += 1
    _SEEN["codes"].add(answer.status)
    assert answer.status in (200, 400, 413, 415), text
    said = json.loads(text)
    if answer.status == 200:
        assert set(said) == {"accepted", "changed"}
    else:
        assert said["error"]
        assert app.state_of() == before, "something of a refused push was applied"


@pytest.mark.lengthy
@pytest.mark.timeout(400)
def test_ten_thousand_wrong_inputs_are_refused_whole(tmp_path, figure):
    """Only 200, 400, 413 and 415; never 500, and nothing half-applied."""
    with RunningApp(tmp_path) as app:
        # Read without a socket between: the state's revision moves with every observation.
        state = app.app.state
        eventually(lambda: "store" in state.sources["sr_exporter"].groups)
        app.state_of = lambda: state.revision
        app.line = http.client.HTTPConnection(app.base.removeprefix("http://"), timeout=10)
        _throw(app)
        app.line.close()
        assert app.client.metrics()  # and what was accepted can be scraped
    figure(f"{_SEEN['requests']} pushes of wrong input: answers {sorted(_SEEN['codes'])}")
    assert _SEEN["requests"] >= 10_000
    assert _SEEN["codes"] == {200, 400, 415}


# --- delete --------------------------------------------------------------------------------


def test_delete_forgets_what_was_pushed(app):
    """An identifier, a group, a source; %2F is a slash inside a part; case does not count."""
    for group, identifier in (("g/1", "x"), ("g/1", "y"), ("h", "x"), ("i", "x")):
        app.client.push({"source": "del/me", "group": group, "identifier": identifier, "status": 1})
    assert app.client.delete("del%2Fme/groups/G%2F1/identifiers/X").json() == {"removed": 1}
    assert app.client.delete("del%2Fme/groups/g%2F1").json() == {"removed": 1}
    assert app.client.delete("del%2Fme/groups/g%2F1").status_code == 404
    assert app.client.delete("del/me").status_code == 404
    assert app.client.delete("del%2Fme").json() == {"removed": 2}
    assert not series(app.client.metrics(), "opensips_sr_status", source="del/me")


def test_a_query_that_is_not_understood_removes_nothing(app):
    """`?group=g` on a delete is a mistake, and must not cost the whole source."""
    app.client.push({"source": "query", "group": "a", "status": 1})
    refused = app.client.delete("query?group=b")
    assert refused.status_code == 400
    assert "'group' is not understood" in refused.json()["error"]
    assert _post(app, b"[]", "?sorce=x").status_code == 400
    assert app.client.delete("query").json() == {"removed": 1}


def test_a_removed_key_that_returns_starts_at_0(app):
    """Counters of a key that was removed begin anew."""
    for status in (1, -1, 1):
        app.client.push({"source": "again", "group": "g", "status": status})
    key = (("group", "g"), ("identifier", "main"), ("source", "again"))
    assert app.client.metrics()["opensips_sr_status_changes_total", key] == 2
    app.client.delete("again")
    app.client.push({"source": "again", "group": "g", "status": -1})
    assert app.client.metrics()["opensips_sr_status_changes_total", key] == 0


def test_a_polled_source_is_neither_pushed_nor_deleted(tmp_path):
    """400 for a push, 409 for a delete; an SR event is taken."""
    with ReplayMi("4.0") as mi:
        config = Config(sources=(Source("sip-1", mi.url, poll_interval_seconds=60),))
        with RunningApp(tmp_path, config) as app:
            eventually(lambda: series(app.client.metrics(), "opensips_sr_status", source="sip-1"))
            item = {"source": "sip-1", "group": "alarms", "status": 1}
            refused = app.client.push(item)
            assert refused.status_code == 400
            assert "is polled" in refused.json()["items"][0]["error"]
            assert app.client.delete("sip-1").status_code == 409
            assert app.client.delete("sr_exporter").status_code == 409
            event = {
                "jsonrpc": "2.0",
                "method": "E_CORE_SR_STATUS_CHANGED",
                "params": {
                    "group": "alarms",
                    "identifier": "main",
                    "status": 1,
                    "old_status": -1,
                },
            }
            answer = _post(app, json.dumps(event).encode(), "?source=sip-1")
            assert answer.json() == {"accepted": 1, "changed": 1}


# --- who may write (and who may not: test_attacks_writing.py) ----------------------------------


def test_tokens_open_writing_within_their_scope(tmp_path):
    """No token 401, an unknown one 401, one for something else 403: loopback too."""
    digest = hashlib.sha256(b"s3cret").digest()
    token = Token(digest, sources=("sbc-*",), groups=("trunks",))
    with RunningApp(tmp_path, Config(tokens=(token,))) as app:
        bearer = {"Authorization": "Bearer s3cret"}
        good = {"source": "sbc-1", "group": "Trunks", "status": 1}
        assert app.client.push(good).status_code == 401
        assert app.client.push(good, Authorization="Bearer wrong").status_code == 401
        assert app.client.push(good, **bearer).status_code == 200
        assert app.client.push({**good, "source": "other"}, **bearer).status_code == 403
        assert app.client.push({**good, "group": "other"}, **bearer).status_code == 403
        long = [{**good, "identifier": f"i{number}"} for number in range(6000)]
        assert app.client.push(*long, {**good, "group": "other"}, **bearer).status_code == 403
        assert app.client.push(*long, **bearer).status_code == 200
        deleted = app.client.session.delete(
            f"{app.base}/api/v1/sources/sbc-1", headers=bearer, timeout=10
        )
        assert deleted.status_code == 403
        deleted = app.client.session.delete(
            f"{app.base}/api/v1/sources/sbc-1/groups/trunks", headers=bearer, timeout=10
        )
        assert deleted.status_code == 200


# --- the rest ------------------------------------------------------------------------------


def test_health(app):
    """Alive and ready, as Prometheus servers say it."""
    for route in ("healthy", "ready"):
        assert app.client.session.get(f"{app.base}/-/{route}", timeout=5).status_code == 200


@pytest.mark.parametrize("path", ["/api/v1/nothing", "/api/v1/statuses", "/sources"])
def test_what_is_not_there_is_refused_in_json(app, path):
    """404 with a reason, never an empty answer."""
    answer = app.client.session.get(f"{app.base}{path}", timeout=5)
    assert answer.status_code == 404
    assert path in answer.json()["error"]
    assert app.client.session.get(f"{app.base}/api/v1/push", timeout=5).status_code == 405


def test_the_page_escapes_what_sources_say(app):
    """Details are text, not markup; the page may load nothing from anywhere."""
    app.client.push({"group": "html", "status": -1, "details": "<script>alert(1)</script>"})
    page = app.client.session.get(f"{app.base}/?group=html", timeout=5)
    assert "&lt;script&gt;" in page.text
    assert "<script>" not in page.text
    policy = page.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy


def test_the_page_filters(app):
    """By the name, or else by a part of it, or by wildcards; ASCII case does not count."""
    for identifier, status in (("one", -1), ("one;more", 1), ("two", 1)):
        item = {"source": "p/1", "group": "Gr", "identifier": identifier, "status": status}
        app.client.push(item)

    def shown(query: str) -> set[str]:
        page = app.client.session.get(f"{app.base}/{query}", timeout=5).text
        return set(re.findall(r'<td data-name="Identifier"[^>]*><a [^>]*>(.*?)</a>', page))

    everything = {"one", "one;more", "two"}
    assert shown("?source=p/1") == everything
    assert shown("?source=P/&group=g") == everything
    assert shown("?source=p/1&identifier=ONE") == {"one"}
    assert shown("?source=p/1&identifier=on") == {"one", "one;more"}
    assert shown("?source=p/1&identifier=*%3B*") == {"one;more"}
    assert shown("?source=p/1&ready=false") == {"one"}
    assert shown("?source=p/1&ready=true") == {"one;more", "two"}
    assert shown("sources/p%2F1?group=gr") == everything
    assert shown("sources/p%2F1/groups/gr") == everything
    assert shown("?source=p/1&ready=unknown") == set()


@pytest.mark.parametrize(
    "path", ["sources/k%2F1?group=gr&identifier=ONE", "sources/k%2F2/groups/gr/identifiers/ONE"]
)
def test_the_link_of_an_alert_opens_the_page_of_its_key(app, path):
    """With what it says, its reports, and the past; as the API spells it, too."""
    source = f"k/{path[12]}"
    item = {"source": source, "group": "Gr", "identifier": "one"}
    app.client.push({**item, "status": 1})
    app.client.push({**item, "status": -1, "details": "no <b>", "reports": ["first", "last"]})
    app.client.push({**item, "identifier": "two", "status": 1})
    page = app.client.session.get(f"{app.base}/{path}", timeout=5)
    assert page.status_code == 200
    for said in ("NOT READY", "no &lt;b&gt;", "first", "last", "not ready once", "<svg"):
        assert said in page.text
    assert "two" not in page.text
    app.client.delete(f"k%2F{path[12]}/groups/gr/identifiers/one")
    gone = app.client.session.get(f"{app.base}/{path}", timeout=5)
    assert gone.status_code == 404
    assert "it was removed, or never heard" in gone.text
    assert "not held" in gone.text  # which is the newest of what it was


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("?ready=maybe", "ready: &#39;maybe&#39; is none of true, false, unknown"),
        ("?hours=5", "hours: &#39;5&#39; is none of 1, 6, 24"),
        ("?after=a/b", "after: &#39;a/b&#39; is not SOURCE/GROUP/IDENTIFIER"),
        ("?sources_from=-1", "sources_from: &#39;-1&#39; is no number up to 1000"),
        (f"?group={'x' * 5000}", "group: longer than 4096 characters"),
        ("sources/a?group=g&identifier=i&hours=x", "hours: &#39;x&#39; is none of"),
    ],
)
def test_an_address_that_means_nothing_is_refused_by_name(app, path, said):
    """400, as a page: a person reads it."""
    page = app.client.session.get(f"{app.base}/{path}", timeout=5)
    assert (page.status_code, said in page.text) == (400, True)


def test_the_files_beside_a_page_are_kept_by_browsers(app):
    """Under a name that is theirs alone; by another name they are asked for again."""
    page = app.client.session.get(f"{app.base}/", timeout=5).text
    for path in set(re.findall(r'"(/static/[^"]*)"', page)):
        name = path.partition("?")[0].removeprefix("/static/")
        answer = app.client.session.get(f"{app.base}{path}", timeout=5)
        assert answer.ok
        assert "immutable" in answer.headers["Cache-Control"]
        mark = {"If-None-Match": answer.headers["ETag"]}
        bare = app.client.session.get(f"{app.base}/static/{name}", headers=mark, timeout=5)
        assert (bare.status_code, bare.headers["Cache-Control"]) == (304, "no-cache")
    none = app.client.session.get(f"{app.base}/static/other.js", timeout=5)
    assert (none.status_code, none.json()) == (404, {"error": "no such file: other.js"})


def test_the_page_does_not_call_ready_what_it_does_not_know(tmp_path):
    """Once a source is lost, its identifiers are unknown: none of them green, none counted."""
    with ReplayMi("3.6") as mi:
        source = Source("sip-1", mi.url, poll_interval_seconds=0.1, max_share=1.0)
        running = RunningApp(tmp_path, Config(sources=(source,)), external_url="http://x/sr")
        with running as app:
            eventually(lambda: series(app.client.metrics(), "opensips_sr_status", source="sip-1"))
            page = app.client.session.get(f"{app.base}/sources/sip-1", timeout=5).text
            assert ">ready</span>" in page
            assert mi.url in page
            mi.__exit__(None, None, None)
            eventually(
                lambda: 0.0 in series(app.client.metrics(), "opensips_sr_source_up").values()
            )
            page = app.client.session.get(f"{app.base}/sources/sip-1", timeout=5).text
            assert ">ready</span>" not in page
            assert "NOT READY" not in page
            assert "19 unknown" in page
            assert "sip-1 is down" in page
            assert 'href="/sr/runbooks"' in page


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("/sources/nobody", "No source nobody is held"),
        ("/?group=nothing", "Nothing like that is held now"),
    ],
)
def test_the_page_says_what_is_not_held(app, path, said):
    """A link to what is gone is 404, and says so."""
    answer = app.client.session.get(f"{app.base}{path}", timeout=5)
    assert answer.status_code == 404
    assert said in answer.text


def test_the_runbooks_have_the_anchors_alerts_point_at(app):
    """Each native alert's runbook_url leads somewhere."""
    page = app.client.session.get(f"{app.base}/runbooks", timeout=5).text
    for anchor in ("opensipsnotready", "opensipssourcedown"):
        assert f'id="{anchor}"' in page
