"""Targets: the parts of requests that the web side reads, each by itself."""

from __future__ import annotations

import hashlib
import math
from typing import TYPE_CHECKING, Any

from starlette.requests import Request

from sr_exporter.config import Token
from sr_exporter.metrics.negotiation import accepts_gzip, negotiate, prefers
from sr_exporter.web import bodies, changes, filters, keys, matchers, notifications
from sr_exporter.web.access import Access, is_from_loopback
from sr_exporter.web.errors import Refused
from sr_exporter.web.lists import wanted
from sr_exporter.web.paths import parts
from sr_exporter.web.push import _target
from sr_exporter.web.users import basic
from tests.fuzz import corpora
from tests.fuzz.target import Target, pure
from tests.fuzz.values import must_be_text

if TYPE_CHECKING:
    from starlette.types import Message

_ACCEPTS = (
    b"application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,text/plain;version=0.0.4;q=0.3,*/*;q=0.2",
    b"text/event-stream",
    b"text/html, application/xhtml+xml;q=0.9, image/webp, */*;q=0.8",
    b'text/plain; charset="utf-8, \\"x\\""; q=1.000',
    b"gzip, deflate, br;q=1.0, *;q=0",
    b"*/*;q=0",
    b"identity;q=0.5, x-gzip;q=0.5",
    b"text/*;q=0.4;version=1.0.0",
    b";;;,,,=",
    b'a/b;q="0.5"',
)
_ACCEPT_WORDS = (
    *(b"q=0", b";q=1.000", b";q=0.0001", b";q=-1", b";q=1e3", b"version=1.0.0", b"escaping=values"),
    *(b"*/*", b"text/", b"gzip", b"identity", b'"', b'\\"', b",", b";", b"=", b"application/json"),
)
_QUERIES = (
    b"source=push&group=trunks&identifier=main&ready=true&limit=10",
    b"cursor=WyJhIiwiYiIsImMiXQ",
    b"cursor=W10=&limit=1000",
    b"limit=0",
    b"source=%FF&group=%ED%A0%80",
    b"a=1&a=2;b=3",
    b"since=99",
    b"after=push/a%2Fb/c&hours=24&sources_from=3",
    b"ready=unknown&group=t*&identifier=?",
    b"+=%2B&=&&",
    b"cursor=1795378416.000000001_12_3f2a-b",
    b"cursor=eyJhIjoxfQ",
    b"limit=%D9%A1",
    b"hours=1&after=a/b",
)
_QUERY_WORDS = (
    *(
        b"source=",
        b"group=",
        b"identifier=",
        b"ready=",
        b"limit=",
        b"cursor=",
        b"since=",
        b"after=",
    ),
    *(
        b"hours=",
        b"sources_from=",
        b"&",
        b"=",
        b"%",
        b"%00",
        b"%ff",
        b"%2F",
        b"+",
        b"true",
        b"9" * 30,
    ),
)
_FILTERS = (
    b'alertname="OpenSIPSNotReady"',
    b"source=~a.*",
    b'group!~"(a|b)+$"',
    b' identifier != "a\\"b\\\\" ',
    b"a=",
    b'_x=~"[[:alpha:]]{1,50}"',
    b'a=~"((((a*)*)*)*)*b"',
    b'a="\\n"',
    b"a=~(?i)\xc3\x9f",
    b'a=~"\\C\\pN"',
)
_FILTER_WORDS = (
    b"=~",
    b"!~",
    b"!=",
    b"=",
    b'"',
    b"\\",
    b"(",
    b")*",
    b"{1000}",
    b"[^",
    b"\\p{L}",
    b"(?P<",
    b"$",
)
_HEADS = (
    b"Authorization: Bearer let-me-in",
    b"Authorization: Basic YTpiOmM=\nHost: x",
    b"Last-Event-ID: 17\nAuthorization: bearer let-me-in ",
    b"authorization: basic YTpi",
    b"Authorization: Bearer  x",
    b"Origin: http://localhost:9797\nHost: localhost:9797",
    b"Origin: http://[::1]\nHost: [::1]",
    b"X-Forwarded-For: 1.2.3.4\nForwarded: for=1",
    b"Sec-Fetch-Site: same-site",
    b"Origin: null",
    b"Host: \xff\nOrigin: http://\xff",
    b"Origin: http://[::ffff:127.0.0.1]:1\nHost: [::ffff:127.0.0.1]:1",
)
_PATHS = (
    b"/api/v1/sources/push/groups/trunks/identifiers/a%2Fb",
    b"/api/v1/sources/%FF",
    b"/ready/a/b/c/d",
    b"/sources/sip-1/groups//identifiers/",
    b"/api/v1/sources/%ED%A0%80/groups/%00",
    b"/mi/%2F%2e%2E",
)


def _accept(data: bytes) -> None:
    said = data.decode("latin-1")
    negotiate(said)
    accepts_gzip(said)
    prefers(said, "text/event-stream", "application/json")


def _request(query: bytes = b"", headers: list[tuple[bytes, bytes]] | None = None) -> Request:
    return Request(
        {
            "type": "http",
            "method": "GET",
            "path": "/",
            "raw_path": b"/",
            "query_string": query,
            "headers": headers or [],
            "client": ("127.0.0.1", 1),
        }
    )


def _query(data: bytes) -> None:
    """Read it as every route does that reads one."""
    refused: Refused | None = None
    request = _request(data)
    for names in (("source", "group", "identifier", "ready"), ("state", "notifier"), ("since",)):
        try:
            asked = wanted(request, filters=names)
        except Refused as error:
            must_be_text(error.error)
            refused = error
        else:
            must_be_text(*asked.filters.values())
            assert 0 < asked.limit <= 1000
    try:
        _, after, _ = keys.where(request)
    except Refused as error:
        refused = error
    else:
        must_be_text(*(after or ()))
    if refused is not None:
        raise refused


def _cursor(data: bytes) -> None:
    """Read one of each kind, as they stand in a query."""
    said = data.decode("latin-1")
    refused = 0
    try:
        must_be_text(*keys._key(said))
    except Refused:
        refused += 1
    try:
        age = notifications._age(said)
    except Refused:
        refused += 1
    else:
        assert math.isfinite(age[0])
        assert 0 <= age[1] < 2**63
    try:
        number = changes._number("cursor", said)
    except Refused:
        refused += 1
    else:
        assert number is not None
        assert 0 <= number < 2**63
    if refused == 3:
        raise Refused(400, "none of them")


def _page_query(data: bytes) -> None:
    from starlette.datastructures import QueryParams

    found = filters.read(QueryParams(data.decode("latin-1")))
    assert filters.read(QueryParams(found.url()[1:])) == found
    filters.fitting(found.group)(["trunks", "core"])


def _filter(data: bytes) -> None:
    fits = matchers.matcher(data.decode("utf-8", "replace"))
    for said in ({}, {"a": "a" * 200}, {"source": "a" * 200 + "!", "group": "\n"}):
        assert fits(said) in (True, False)


_ACCESS = Access((Token(hashlib.sha256(b"let-me-in").digest()),))


def _head(data: bytes) -> None:
    headers = []
    for line in data.split(b"\n"):
        name, _, said = line.partition(b":")
        headers.append((name.lower(), said.strip()))
    request = _request(headers=headers)
    is_from_loopback(request)
    user = basic(dict(headers).get(b"authorization", b""))
    assert user is None or b":" not in user.user
    changes._number("Last-Event-ID", request.headers.get("last-event-id"))
    _ACCESS.writer(request)


def _path(data: bytes) -> None:
    must_be_text(*parts(data, b"/sources/"))
    filters.key_in_path(data)
    _target(data)


def _packed(data: bytes) -> None:
    """Read a packed body, 20,000 bytes at most: what it needs is there, so nothing waits."""

    async def receive() -> Message:
        return {"type": "http.request", "body": data, "more_body": False}

    request = _request(headers=[(b"content-encoding", b"gzip")])
    request._receive = receive
    reading: Any = bodies.read(request, 20_000)
    body = None
    try:
        reading.send(None)
    except StopIteration as end:
        body = end.value
    assert body is not None, "it waits"
    assert len(body) <= 20_000


def targets() -> list[Target]:
    """Give them all."""
    refused = (Refused,)
    return [
        pure("accept", _accept, _ACCEPTS, words=_ACCEPT_WORDS, weight=4),
        pure("query", _query, _QUERIES, declared=refused, words=_QUERY_WORDS, weight=3),
        pure(
            "cursor",
            _cursor,
            [query.partition(b"=")[2] for query in _QUERIES],
            declared=refused,
            weight=2,
        ),
        pure(
            "page-query",
            _page_query,
            _QUERIES,
            declared=(filters.BadQuery,),
            words=_QUERY_WORDS,
            weight=2,
        ),
        pure(
            "alert-filter", _filter, _FILTERS, declared=(ValueError,), words=_FILTER_WORDS, weight=2
        ),
        pure(
            "request-head",
            _head,
            _HEADS,
            declared=refused,
            words=(b"Bearer ", b"Origin: ", b"Host: ", b"[", b"::1"),
            weight=2,
        ),
        pure(
            "path",
            _path,
            _PATHS,
            declared=refused,
            words=(b"%2F", b"/groups/", b"/identifiers/", b"%"),
            weight=2,
        ),
        pure("push-gzip", _packed, corpora.gzipped(), declared=refused, longest=4000, weight=2),
    ]
