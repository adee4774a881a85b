"""The routes as a stranger to the code meets them."""

from __future__ import annotations

import gzip
import hashlib
import json
import socket

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sr_exporter.config import Config, Limits, Source, Token
from tests.harness import Command, RunningApp, eventually, free_port, series
from tests.replay import ReplayMi


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


@settings(max_examples=10_000, deadline=None)
@given(body=_BODIES, encoding=_ENCODINGS, query=st.sampled_from(["", "?source=", "?source=x"]))
def _throw(app, body, encoding, query):
    before = app.state_of()
    answer = _post(app, body, query, **({"Content-Encoding": encoding} if encoding else {}))
    _SEEN["requests"] += 1
    _SEEN["codes"].add(answer.status_code)
    assert answer.status_code in (200, 400, 413, 415), answer.text
    said = answer.json()
    if answer.status_code == 200:
        assert set(said) == {"accepted", "changed"}
    else:
        assert said["error"]
        assert app.state_of() == before, "something of a refused push was applied"


@pytest.mark.timeout(400)
def test_ten_thousand_wrong_inputs_are_refused_whole(tmp_path, figure):
    """Only 200, 400, 413 and 415; never 500, and nothing half-applied."""
    with RunningApp(tmp_path) as app:
        # Read without a socket between: the state's revision moves with every observation.
        state = app.app.state
        eventually(lambda: "store" in state.sources["sr_exporter"].groups)
        app.state_of = lambda: state.revision
        _throw(app)
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


# --- who may write -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "headers",
    [
        {"X-Forwarded-For": "127.0.0.1"},
        {"Forwarded": "for=127.0.0.1"},
        {"X-Real-IP": "127.0.0.1"},
        {"Via": "1.1 proxy"},
        {"X-Forwarded-Proto": "https"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://evil.example:{port}", "Host": "evil.example:{port}"},
    ],
    ids=str,
)
def test_a_stranger_may_not_write(app, headers):
    """What was forwarded, or sent by a foreign page, is not from loopback; nothing is taken."""
    headers = {name: value.format(port=app.port) for name, value in headers.items()}
    answer = _post(app, b'{"group":"stranger","status":1}', **headers)
    assert answer.status_code == 403
    assert "push.tokens" in answer.json()["error"]
    deleted = app.client.session.delete(f"{app.base}/api/v1/sources/a", headers=headers, timeout=10)
    assert deleted.status_code == 403
    assert not series(app.client.metrics(), "opensips_sr_status", group="stranger")


def test_our_own_page_may_write(app):
    """An Origin that is this exporter, on this machine, is no stranger."""
    origin = {"Origin": f"http://127.0.0.1:{app.port}"}
    assert _post(app, b"[]", **origin).status_code == 200


def _own_address() -> str | None:
    """Give an address of this machine that is not loopback, if it has one."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
        except OSError:
            return None
        address = probe.getsockname()[0]
    return None if address.startswith("127.") else address


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


@pytest.mark.parametrize("path", ["/api/v1/nothing", "/mi", "/api/v1/status", "/sources"])
def test_what_is_not_built_is_refused_in_json(app, path):
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
    assert "<script" not in page.text
    assert "default-src 'none'" in page.headers["Content-Security-Policy"]


def test_the_page_filters_and_links(app):
    """The link of an alert opens a page with just that key."""
    app.client.push({"source": "p/1", "group": "Gr", "identifier": "one", "status": -1})
    app.client.push({"source": "p/1", "group": "Gr", "identifier": "two", "status": 1})
    page = app.client.session.get(f"{app.base}/sources/p%2F1?group=gr&identifier=ONE", timeout=5)
    assert page.status_code == 200
    assert ">one</td>" in page.text
    assert ">two</td>" not in page.text
    assert "NOT READY" in page.text
    gone = app.client.session.get(f"{app.base}/sources/nobody", timeout=5)
    assert gone.status_code == 404


def test_the_page_does_not_call_ready_what_it_does_not_know(tmp_path):
    """Once a source is lost, its identifiers are unknown: none of them green, none counted."""
    with ReplayMi("3.6") as mi:
        source = Source("sip-1", mi.url, poll_interval_seconds=0.1, max_share=1.0)
        running = RunningApp(tmp_path, Config(sources=(source,)), external_url="http://x/sr")
        with running as app:
            eventually(lambda: series(app.client.metrics(), "opensips_sr_status", source="sip-1"))
            page = app.client.session.get(f"{app.base}/sources/sip-1", timeout=5).text
            assert ">ready</td>" in page
            assert mi.url in page
            mi.__exit__(None, None, None)
            eventually(
                lambda: 0.0 in series(app.client.metrics(), "opensips_sr_source_up").values()
            )
            page = app.client.session.get(f"{app.base}/sources/sip-1", timeout=5).text
            assert ">ready</td>" not in page
            assert "NOT READY" not in page
            assert "19 unknown" in page
            assert "1 source down" in page
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


def test_a_write_from_another_address_is_refused(tmp_path):
    """Without tokens only loopback writes, however the exporter listens."""
    address = _own_address()
    if address is None:
        pytest.skip("this machine has no address but loopback")
    port = free_port()
    with Command(
        f"--storage.path={tmp_path / 'b'}", f"--web.listen-address={address}:{port}"
    ) as command:
        command.wait_ready()
        base = f"http://{address}:{port}"
        answer = command.client.session.post(
            f"{base}/api/v1/push", data=b'{"group":"g","status":1}', timeout=5
        )
        assert answer.status_code == 403
        assert command.client.session.get(f"{base}/metrics", timeout=5).status_code == 200
