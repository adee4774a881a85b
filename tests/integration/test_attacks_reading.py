"""What is pushed forges nothing, whoever reads it; and what is asked for alters nothing.

What is told here is in docs/security.md too.
"""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pytest
from prometheus_client.openmetrics import parser as openmetrics
from prometheus_client.parser import text_string_to_metric_families

from sr_exporter.web.operations import OPERATIONS
from tests.attacks import Ask, attacked, exchange
from tests.events import Events
from tests.stores import FILE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.attacks import Attacked

pytestmark = pytest.mark.once

#: What would be seen if a template took a name for one.
PRODUCT = str(1337 * 1331)
NASTY = [
    "x\r\nX-Owned: 1\r\n\r\n<script>owned()</script>",
    'x"} 1\nopensips_sr_status{source="owned",group="g",identifier="main"} 1\n# EOF\n',
    "ends in a backslash\\",
    'x\\"} 1\nowned 1',
    'x\n\nevent: change\nid: 999999\ndata: {"owned": 1}\n\n',
    'x\r\revent: change\rid: 999999\rdata: {"owned": 1}\r\r',
    "x\u2028data: owned\u2029\x85\x0b\x0c",
    '"><img src=x onerror=owned()><svg onload=owned()><script>owned()</script>',
    "' onmouseover='owned()' style='position:fixed' x='",
    "</title></style></textarea><script>owned()</script><!--",
    "javascript:owned()//",
    "{{ 1337*1331 }}${1337*1331}<%= 1337*1331 %>{% raw %}",
    "../../../../etc/passwd",
    "/etc/passwd",
    "..%2f..%2fcanary",
    "nul\0nul",
    "\x1b]0;owned\x07\x1b[2J",
    "x'; DROP TABLE keys; --",
    "%0d%0aX-Owned:%201",
    "*",
    "?",
    "#",
    "&amp;",
    "\ufeff",
    "\U000e0001",
]
KEYS = {(name, name, name) for name in NASTY}
#: All that an answer may say in its head.
HEADERS = {
    *("date", "connection", "content-type", "content-length", "content-encoding", "vary"),
    *("x-content-type-options", "content-security-policy", "referrer-policy", "cache-control"),
    *("transfer-encoding", "etag", "allow", "retry-after", "x-sr-newest", "x-accel-buffering"),
}
PAGES = ("/", "/sources/{source}", "/runbooks", "/static/{name}", "/static/page.js")


@pytest.fixture(scope="module")
def target(tmp_path_factory) -> Iterator[Attacked]:
    """Give one that was pushed every nasty text, in every place there is."""
    folder = tmp_path_factory.mktemp("nasty")
    (folder / "canary").write_text("owned")
    with attacked(folder) as running:
        items: list[dict[str, object]] = [
            {"source": name, "group": name, "identifier": name, "status": -1,
             "details": name, "reports": [name, f"GW {name} switched to [inactive] due to {name}"]}
            for name in NASTY
        ]  # fmt: skip
        assert running.app.client.push(*items).ok
        yield running


def _get(target: Attacked, path: str, **headers: str) -> Any:
    return target.ask(Ask("GET", path), tuple(headers.items()))


def _listed(target: Attacked, path: str) -> Any:
    return target.app.client.session.get(f"{target.app.base}{path}", timeout=10).json()


# --- what programs read ----------------------------------------------------------------------


def test_no_name_forges_a_sample(target, figure):
    """In each format: the keys that were pushed, and nothing else."""
    formats = {
        "text/plain": text_string_to_metric_families,
        "application/openmetrics-text": openmetrics.text_string_to_metric_families,
    }
    for accept, parse in formats.items():
        text = _get(target, "/metrics", Accept=accept).body.decode()
        found = [
            tuple(sample.labels[name] for name in ("source", "group", "identifier"))
            for family in parse(text)
            for sample in family.samples
            if sample.name == "opensips_sr_status"
        ]
        others = [key for key in found if key[0] in ("sr_exporter", "sbc-1")]
        assert len(found) == len(KEYS) + len(others)
        assert set(found) == KEYS | set(others)
        assert "owned" not in {key[0] for key in found}
    figure(f"{len(NASTY)} nasty names: 0 samples forged in {len(formats)} formats")


class _Raw(Events):
    """Keeps events as they were written."""

    def __init__(self, *arguments: Any) -> None:
        self.blocks: list[str] = []
        super().__init__(*arguments)

    def _event(self, block: str) -> Any:
        self.blocks.append(block)
        return super()._event(block)


def test_no_name_forges_an_event(target):
    """Nor a line of one: browsers end lines at CR, too."""
    page = _listed(target, "/api/v1/changes")["items"]
    with _Raw(target.app.base, "?since=0") as events:
        heard = [events.next() for _ in page]
    assert [one.data for one in heard] == page
    assert all(one.name == "change" and one.id == str(one.data["seq"]) for one in heard)
    lines = [line for block in events.blocks for line in re.split("\r\n|\r|\n", block)]
    assert {line.partition(":")[0] for line in lines} == {"retry", "id", "event", "data"}


def test_every_list_gives_names_as_they_are(target):
    """JSON is read back as it was pushed, whatever is in it."""
    for path in ("status", "reports"):
        items = _listed(target, f"/api/v1/{path}")["items"]
        assert {(one["source"], one["group"], one["identifier"]) for one in items} >= KEYS
    alerts = _listed(target, "/api/v2/alerts")
    assert set(NASTY) <= {one["labels"]["identifier"] for one in alerts}
    for one in alerts:
        address = one["generatorURL"]
        assert address.isascii()
        assert address.isprintable()
        assert not set('<>"\\^`{|} ') & set(address), address


# --- what browsers read ----------------------------------------------------------------------


class _Markup(HTMLParser):
    """Finds what a page has besides text."""

    def __init__(self) -> None:
        super().__init__()
        self.scripts: list[str | None] = []
        self.strange: list[str] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        said = dict(attributes)
        if tag in ("img", "iframe", "object", "embed", "base", "style", "textarea"):
            self.strange.append(tag)
        if tag == "script":
            self.scripts.append(said.get("src"))
        for name, value in attributes:
            leads = name in ("href", "src", "action", "formaction", "data", "xlink:href")
            if name.startswith("on") or name == "style":
                self.strange.append(f"{tag} {name}")
            elif leads and not (value or "").startswith(("/", "#", "?")):
                self.strange.append(f"{tag} {name}={value}")

    def handle_comment(self, data: str) -> None:
        self.strange.append(f"comment {data}")


def _pages() -> Iterator[str]:
    yield "/"
    parameters = ("source", "group", "ready", "hours", "after", "sources_from")
    for number, name in enumerate(NASTY):
        one = quote(name, safe="")
        yield f"/sources/{one}"
        yield f"/sources/{one}?group={one}&identifier={one}"
        yield f"/sources/{one}/groups/{one}"
        for parameter in (parameters[number % 6], parameters[(number + 3) % 6]):
            yield f"/?{parameter}={one}"


def test_no_text_becomes_markup(target, figure):
    """Not in pages of sources, keys and filters, nor in those that say what is wrong."""
    pages = list(_pages())
    for path in pages:
        answer = _get(target, path)
        assert answer.headers["content-type"] == "text/html; charset=utf-8", path
        markup = _Markup()
        markup.feed(answer.body.decode())
        markup.close()
        assert markup.strange == [], path
        assert all(src and src.startswith("/static/page.js") for src in markup.scripts), path
        assert PRODUCT.encode() not in answer.body, path
    figure(f"{len(pages)} pages of nasty texts: 0 elements, attributes or addresses forged")


def test_no_answer_has_the_host_that_was_asked_for(target):
    """No address is made of it, and nobody is sent there: a cache might keep that for others."""
    evil = (("Host", "evil.example"), ("X-Forwarded-Host", "evil.example"))
    for path in (
        *("/", "//evil.example/..", "/sources/sbc-1", "/sources/sbc-1/", "/runbooks/"),
        *("/api/v2/alerts", "/api/v1/status/", "/metrics", "/api/v1/openapi.json"),
    ):
        answer = target.ask(Ask("GET", path), evil)
        assert answer.status in (200, 404), path
        assert b"evil.example" not in answer.body.replace(path.encode(), b""), path
        assert not any("evil.example" in said for said in answer.headers.values()), path


def test_nobody_fills_the_log(target, caplog):
    """What is no HTTP is answered, and that is all: who asks decides how much there is of it."""
    for written in (
        b"\x16\x03\x01 hello\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nno colon\r\n\r\n",
        b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: upgrade, close\r\nUpgrade: h2c\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nConnection: upgrade, close\r\nUpgrade: websocket\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ):
        assert exchange(target.app.port, written).status in (200, 400)
    assert caplog.records == []


# --- asking alters nothing, and forges no answer ---------------------------------------------


def _targets() -> Iterator[str]:
    """Give every address that can be read, with nasty names in its path and in its query."""
    paths = {*PAGES, *(one.path for one in OPERATIONS if one.path != "/metrics")}
    hostile = [quote(name, safe="") for name in NASTY]
    for path in sorted(paths):
        filled = path
        while "{" in filled:
            before, _, rest = filled.partition("{")
            filled = before + hostile[len(before) % len(hostile)] + rest.partition("}")[2]
        yield filled
        for query in ("_method=DELETE", "method=POST&status=-7", "source=sbc-1&group=Trunks",
                      "source=sbc-1&status=1", f"x={hostile[0]}", f"group={hostile[0]}",
                      f"cursor={hostile[4]}", f"filter={hostile[3]}", f"since={hostile[0]}",
                      f"{hostile[0]}=1"):  # fmt: skip
            yield f"{filled}?{query}"


def test_nothing_that_is_only_read_alters_anything(target, figure):
    """By GET and HEAD, as a method in disguise too; and no answer has a forged head."""
    before = target.settled()
    disguise = (
        ("X-HTTP-Method-Override", "DELETE"),
        ("X-HTTP-Method", "POST"),
        ("Content-Type", "application/json"),
    )
    body = json.dumps({"group": "Trunks", "source": "sbc-1", "status": -7}).encode()
    asked = 0
    for path in _targets():
        for method in ("GET",) if "?" in path else ("GET", "HEAD"):
            answer = target.ask(Ask(method, path, body, disguise))
            asked += 1
            assert answer.status in (200, 400, 404, 405, 406, 503), (path, answer)
            assert set(answer.headers) <= HEADERS, (path, answer.headers)
            assert answer.headers["x-content-type-options"] == "nosniff"
            kind = answer.headers.get("content-type", "")
            if kind.startswith("text/html") and answer.status != 406:
                policy = answer.headers["content-security-policy"]
                assert "default-src 'none'" in policy
                assert "frame-ancestors 'none'" in policy
                assert answer.headers["referrer-policy"] == "same-origin"
            if kind.startswith(("text/html", "application/json")) and method == "GET":
                known = path.startswith(("/api/v1/openapi.json", "/mi", "/runbooks"))
                assert known or answer.headers["cache-control"] == "no-store", path
    assert target.settled() == before
    figure(f"{asked} hostile reads: 0 alter anything, 0 forge a header")


@pytest.mark.parametrize("method", ["TRACE", "PATCH", "CONNECT", "OPTIONS", "PROPFIND", "LOCK"])
def test_other_methods_do_nothing(target, method):
    """They are refused, and no origin is let in by a preflight."""
    before = target.settled()
    cross = (("Origin", "http://evil.example"), ("Access-Control-Request-Method", "DELETE"))
    for path in ("/api/v1/push", "/api/v1/sources/sbc-1", "/-/reload", "/metrics", "/"):
        answer = target.ask(Ask(method, path, b"{}", cross))
        assert answer.status in (400, 405), (path, answer)
        assert not any(name.startswith("access-control") for name in answer.headers)
    assert target.settled() == before


@pytest.mark.parametrize(
    "path",
    [
        *("/static/../canary", "/static/..%2fcanary", "/static/%2e%2e/canary", "//canary"),
        *("/static/%2e%2e%2f%2e%2e%2fetc%2fpasswd", "/static//etc/passwd", "/static/%00"),
        *("/static/page.css%00.html", "/static/..\\..\\canary", "/static/page.css/../x"),
        *("/../canary", "/..%2fcanary", "/runbooks/../canary", "/static/%252e%252e%252fcanary"),
        *("/static/", "/static", "/static/.", "/static/PAGE.CSS", "file:///etc/passwd"),
        *("/static/page%2ecss%2f..%2fpage.js", "/templates/index.html", "/static/__init__.py"),
    ],
)
def test_no_path_leads_out(target, path):
    """What is there is a table of names: nothing is looked up in a folder."""
    answer = _get(target, path)
    assert answer.status in (400, 404), answer
    assert b"owned" not in answer.body
    assert b"root:" not in answer.body


def test_no_name_becomes_a_file(target):
    """Whatever is pushed is in the database, and nowhere else."""
    assert {one.name for one in target.folder.iterdir()} == {"canary", "data"}
    assert (target.folder / "canary").read_text() == "owned"
    names = {one.name for one in (target.folder / "data").iterdir()}
    assert all(name.startswith((FILE, "lock")) for name in names), names


SMUGGLED = (
    b"POST /api/v1/push HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 47\r\n\r\n"
    b'{"source":"sbc-1","group":"Trunks","status":-7}'
)


@pytest.mark.parametrize(
    "head",
    [
        b"Content-Length: %d\r\nTransfer-Encoding: chunked",
        b"Transfer-Encoding: chunked\r\nContent-Length: %d",
        b"Content-Length: %d\r\nContent-Length: 0",
        b"Content-Length: 0\r\nContent-Length: %d",
        b"Content-Length: +%d",
        b"Content-Length: 0, %d",
        b"Content-Length : %d",
        b"Transfer-Encoding: xchunked\r\nX-Was: %d",
        b"Transfer-Encoding: chunked, identity\r\nX-Was: %d",
        b"Transfer-Encoding:\x0bchunked\r\nX-Was: %d",
        b"Transfer-Encoding: identity\r\nContent-Length: %d",
        b"X: y\r\n Transfer-Encoding: chunked\r\nContent-Length: %d",
        b"X: y\x00\r\nContent-Length: %d",
        b"X: y\n\r\nContent-Length: %d",
    ],
    ids=ascii,
)
def test_no_request_is_smuggled_in_the_body_of_another(target, head):
    """A proxy and we read the end of a body alike, or not at all.

    One that came so would bear none of the headers by which a proxy's requests are known.
    """
    before = target.settled()
    first = b"POST /api/v1/push HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Forwarded-For: 192.0.2.7\r\n"
    body = b"0\r\n\r\n" + SMUGGLED
    written = first + head % len(body) + b"\r\n\r\n" + body
    answer = exchange(target.app.port, written, end=True)
    assert answer.status in (400, 403), answer
    assert answer.body.count(b"HTTP/1.1 200") == 0, answer
    assert target.settled() == before
