"""Requests to an application without a socket, and what must hold of its answers."""

from __future__ import annotations

import asyncio
import json
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from tests.fuzz.target import Answered5xx

if TYPE_CHECKING:
    from collections.abc import Iterable

    from starlette.types import ASGIApp, Message, Scope

_TOKEN = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_HEADER = re.compile(rb"[\t\x20-\x7e\x80-\xff]*")
#: What no server hands on in a target.
_NOT_IN_PATHS = re.compile(rb"[^\x21-\x7e]|[#?]")
_NOT_IN_QUERIES = re.compile(rb"[\x00-\x20\x7f#]")
#: 503 is an answer of these, by docs/http-api.md.
_MAY_BE_503 = re.compile(
    rb"/(?:ready/.*|mi(?:/.*)?|api/v1/(?:check|push|changes|notifications(?:/.*)?|sources/.*))|/-/.*",
    re.DOTALL,
)
_STREAMS = b"text/event-stream"
#: How long an answer may take that is not cut off.
_PATIENCE_SECONDS = 20.0


@dataclass(slots=True)
class Answer:
    status: int = 0
    headers: dict[bytes, bytes] = field(default_factory=dict)
    body: bytes = b""
    ended: bool = False


def scope(raw: bytes) -> tuple[Scope, bytes]:
    """Read a request roughly, as a server hands it on: what one would refuse is left out.

    A line `!from ADDRESS` among the headers says where it comes from; loopback unless said.
    """
    head, _, body = raw.partition(b"\n\n")
    first, *lines = head.replace(b"\r", b"").split(b"\n")
    method, _, rest = first.partition(b" ")
    path, _, query = rest.partition(b" ")[0].partition(b"?")
    # Nearly all that is broken would ask for the page else.
    path = b"/" + _NOT_IN_PATHS.sub(b"", path or b"nothing").lstrip(b"/")
    headers, client = [(b"host", b"127.0.0.1:9797")], "127.0.0.1"
    for line in lines:
        if line.startswith(b"!from "):
            client = line[6:].decode("latin-1")
            continue
        name, _, said = line.partition(b":")
        if _TOKEN.fullmatch(name) and _HEADER.fullmatch(said):
            headers.append((name.lower(), said.strip(b" \t")))
    headers.append((b"content-length", b"%d" % len(body)))
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": method.decode() if _TOKEN.fullmatch(method) else "GET",
        "scheme": "http",
        "path": unquote(path.decode("ascii")),
        "raw_path": path,
        "root_path": "",
        "query_string": _NOT_IN_QUERIES.sub(b"", query),
        "headers": headers,
        "client": (client, 50000),
        "server": ("127.0.0.1", 9797),
        "extensions": {},
    }, body


async def ask(application: ASGIApp, raw: bytes) -> Answer:
    """Ask, and see that what is answered is an answer. A stream is left after its first words."""
    asked, body = scope(raw)
    # A body comes in as many parts as the network likes.
    middle = len(body) // 2
    parts = [body[:middle], body[middle:]] if middle % 2 else [body]
    answer, over = Answer(), asyncio.Event()

    async def receive() -> Message:
        if parts:
            part = parts.pop(0)
            return {"type": "http.request", "body": part, "more_body": bool(parts)}
        await over.wait()
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        _take(answer, message)
        if answer.ended or answer.headers.get(b"content-type", b"").startswith(_STREAMS):
            over.set()

    async with asyncio.timeout(_PATIENCE_SECONDS):
        await application(asked, receive, send)
    _judge(answer, asked)
    return answer


def _take(answer: Answer, message: Message) -> None:
    if message["type"] == "http.response.start":
        assert not answer.status, "an answer begins twice"
        answer.status = message["status"]
        answer.headers = dict(_headers(message["headers"]))
        return
    assert message["type"] == "http.response.body", message
    assert answer.status, "a body without a head"
    assert not answer.ended, "a body goes on after its end"
    answer.body += message.get("body", b"")
    answer.ended = not message.get("more_body", False)


def _headers(said: Iterable[tuple[bytes, bytes]]) -> Iterable[tuple[bytes, bytes]]:
    for name, value in said:
        assert _TOKEN.fullmatch(name), name
        assert name == name.lower(), name
        assert _HEADER.fullmatch(value), value
        yield name, value


def _judge(answer: Answer, asked: Scope) -> None:
    status, headers = answer.status, answer.headers
    assert status, "there is no answer"
    if status >= 500 and not (status == 503 and _MAY_BE_503.fullmatch(asked["raw_path"])):
        raise Answered5xx(f"{asked['method']} {asked['raw_path']!r}: {status}, {answer.body!r}")
    streams = headers.get(b"content-type", b"").startswith(_STREAMS)
    assert answer.ended or streams, "an answer without an end"
    if asked["method"] == "HEAD":
        assert not streams or not answer.body
        return
    if (length := headers.get(b"content-length")) is not None:
        assert int(length) == len(answer.body), (length, len(answer.body))
    if status != 202 and b"json" in headers.get(b"content-type", b""):
        # The Management Interface gives bytes back as they came.
        errors = "surrogateescape" if asked["raw_path"].startswith(b"/mi") else "strict"
        said: Any = json.loads(answer.body.decode("utf-8", errors))
        assert status < 400 or status == 503 or isinstance(said, str) or said.get("error"), said
