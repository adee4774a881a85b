"""Targets: the application as it runs, asked by strangers; all but the sockets is real."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import io
import logging
import tempfile
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import structlog
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics
from prometheus_client.parser import text_string_to_metric_families as plain_text

from sr_exporter import logs
from sr_exporter.app import App, Options
from sr_exporter.config import Config, Limits, SecretUrl, Source, Token, Webhook
from sr_exporter.web.server import Address
from tests.fuzz import corpora
from tests.fuzz.asgi import ask
from tests.fuzz.held import Watched
from tests.fuzz.target import Opened, Target

if TYPE_CHECKING:
    from collections.abc import Iterator

    from starlette.types import ASGIApp

_TOKEN = "let-me-in"
_LINES = (
    *(b"GET /metrics", b"GET /metrics?name[]=opensips_sr_status&name[]=up", b"HEAD /metrics"),
    *(b"GET /api/v1/status?source=push&ready=true&limit=2", b"GET /api/v1/reports?group=trunks"),
    *(
        b"GET /api/v1/sources",
        b"GET /api/v1/sources?limit=1&cursor=sip-1",
        b"GET /api/v1/changes?since=0",
    ),
    *(b"GET /api/v1/changes?since=3&source=push&limit=5&cursor=9", b"HEAD /api/v1/changes"),
    b"GET /api/v1/status?cursor=WyJwdXNoIiwidHJ1bmtzIiwiY2Fycmllci1hIl0",
    *(b"GET /api/v1/check?source=sip-1&group=core&identifier=all", b"GET /api/v1/check"),
    *(b"GET /ready/push/trunks/carrier-a", b"GET /ready/sip-1", b"GET /ready/a%2Fb/%ff/%00"),
    *(
        b"GET /api/v1/notifications?state=dead&notifier=oncall",
        b"GET /api/v1/notifications?state=owed",
    ),
    *(b"GET /api/v1/notifications?cursor=1.0_2_x", b"POST /api/v1/notifications/x/retry"),
    *(b"GET /api/v1/openapi.json", b"GET /api/v2/alerts?filter=alertname=%22OpenSIPSNotReady%22"),
    *(
        b"GET /api/v2/alerts/groups?filter=source=~%22a.*%22&receiver=on.*",
        b"GET /api/v2/receivers",
    ),
    *(
        b"GET /api/v2/silences?filter=a!~%22(b%22",
        b"GET /api/v2/status",
        b"GET /-/ready",
        b"GET /-/healthy",
    ),
    *(
        b"POST /-/reload",
        b"GET /",
        b"GET /?source=s*&group=t%3F&ready=false&hours=24",
        b"GET /runbooks",
    ),
    *(
        b"GET /?after=push/trunks/carrier-a&sources_from=1",
        b"GET /sources/push?group=trunks&identifier=carrier-a",
    ),
    *(
        b"GET /sources/push/groups/trunks/identifiers/carrier-a",
        b"GET /static/page.css",
        b"GET /static/..%2fapp.py",
    ),
    *(
        b"DELETE /api/v1/sources/push/groups/trunks/identifiers/carrier-a",
        b"DELETE /api/v1/sources/sip-1",
    ),
    *(
        b"DELETE /api/v1/sources/sbc-1",
        b"OPTIONS /api/v1/push",
        b"GET /mi",
        b"PUT /mi",
        b"GET /favicon.ico",
    ),
)
_HEADS = (
    *(
        b"Accept: text/event-stream",
        b"Accept: application/openmetrics-text;version=1.0.0;q=0.5,*/*;q=0.1",
    ),
    *(
        b"Accept-Encoding: gzip;q=0.5, identity;q=0",
        b"Last-Event-ID: 3",
        b"Origin: http://127.0.0.1:9797",
    ),
    *(
        b"X-Forwarded-For: 127.0.0.1",
        b"Sec-Fetch-Site: cross-site",
        b"!from 10.0.0.1",
        b"!from ::1",
    ),
    *(b"Authorization: Bearer let-me-in", b"Authorization: Basic YTpi", b"Accept: text/html"),
    *(
        b"If-None-Match: *",
        b"Range: bytes=0-1",
        b"Content-Encoding: gzip",
        b"Content-Type: text/plain",
    ),
)
_WORDS = (
    *_HEADS,
    *(b"\n", b"\n\n", b"?", b"&", b"=", b"%00", b"%2F", b"%ff", b"%", b"+", b"name[]=", b"source="),
    *(b"group=", b"identifier=", b"limit=", b"cursor=", b"since=", b"ready=", b"filter=", b"q=0.5"),
    *(
        b"push",
        b"sr_exporter",
        b"sip-1",
        b"main",
        b"all",
        b"~",
        b"(",
        b"*",
        b"Last-Event-ID: ",
        b"99999999999",
    ),
    *(
        b"POST ",
        b"GET ",
        b"HEAD ",
        b"DELETE ",
        b"1" * 5000,
        b"\xc3\xa9",
        b"%F0%9F%92%A9",
        b"%ED%A0%80",
    ),
)
_JSON = b"Content-Type: application/json"


def _requests() -> list[bytes]:
    found = [line + b" HTTP/1.1\n\n" for line in _LINES]
    found += [
        line + b" HTTP/1.1\n" + head + b"\n\n"
        for line, head in zip(_LINES, _HEADS * 9, strict=False)
    ]
    found += [b"POST /api/v1/push HTTP/1.1\n\n" + body for body in corpora.PUSHES]
    found += [
        b"POST /api/v1/push?source=sbc-1 HTTP/1.1\n\n" + body for body in corpora.posted()[:4]
    ]
    found += [
        b"POST /api/v1/push HTTP/1.1\nContent-Encoding: gzip\n\n" + body
        for body in corpora.gzipped()[:10]
    ]
    calls = [
        *corpora.requests()[::6],
        b'{"jsonrpc":"2.0","method":"sr_set_status","params":["g",-1,"why"],"id":1}',
        b'{"jsonrpc":"2.0","method":"sr_add_report","params":{"group":"g","report":"x"},"id":"a"}',
        b'{"jsonrpc":"2.0","method":"sr_list_status","id":1}',
    ]
    found += [b"POST /mi HTTP/1.1\n" + _JSON + b"\n\n" + body for body in calls]
    found += [b"POST /mi/sip-1 HTTP/1.1\n" + _JSON + b"\n\n" + body for body in calls[:5]]
    return found


@contextlib.contextmanager
def _running(*, tokens: bool) -> Iterator[Opened]:
    """Start an exporter; give what asks it."""
    config = Config(
        sources=(Source("sip-1", "unix:///nowhere/mi.sock"),),
        notifiers=(Webhook("oncall", SecretUrl("http://127.0.0.1:9/hook")),),
        tokens=(
            (
                Token(hashlib.sha256(_TOKEN.encode()).digest(), ("*",), ("*",)),
                Token(hashlib.sha256(b"one").digest(), ("push",), ("trunks",)),
            )
            if tokens
            else ()
        ),
        limits=Limits(identifiers=300, body_bytes=20_000),
    )
    loop = asyncio.new_event_loop()
    with tempfile.TemporaryDirectory(prefix="sr-fuzz-") as folder, _logged() as written:
        options = Options(
            [Address("127.0.0.1", 0)],
            Path(folder) / "s.sqlite3",
            "http://sr.example",
            config,
            lambda: config,
        )
        started, stop = loop.create_future(), asyncio.Event()
        app = App(options, on_ready=started.set_result)
        running = loop.create_task(app.run(stop))
        loop.run_until_complete(
            asyncio.wait({running, started}, return_when=asyncio.FIRST_COMPLETED)
        )
        assert started.done(), running.exception()
        asked = _Asked(app, loop, written)
        try:
            yield Opened(asked.take, asked.look)
        finally:
            stop.set()
            loop.run_until_complete(running)
            loop.run_until_complete(loop.shutdown_default_executor())
            loop.close()


class _Asked:
    """Asks one request after the other, and looks at everything once in a while."""

    def __init__(self, app: App, loop: asyncio.AbstractEventLoop, written: io.StringIO) -> None:
        assert app.door is not None
        self._application: ASGIApp = app.door
        self._loop = loop
        self._written = written
        self._held = Watched(app.state)

    def take(self, data: bytes) -> None:
        answer = self._loop.run_until_complete(ask(self._application, data))
        if answer.status in (401, 403):
            raise _NotLet

    def look(self) -> None:
        """See that what is held, shown and logged holds together."""
        self._held.look()
        for accept, parse in (
            (b"text/plain", plain_text),
            (b"application/openmetrics-text", openmetrics),
        ):
            raw = b"GET /metrics HTTP/1.1\nAccept: " + accept + b"\n\n"
            shown = self._loop.run_until_complete(ask(self._application, raw)).body
            families = [family.name for family in parse(shown.decode())]
            assert "opensips_sr_status" in families
        for line in self._written.getvalue().splitlines():
            assert line.startswith("ts=2"), line
            assert line.isprintable(), line
        self._written.seek(0)
        self._written.truncate()


class _NotLet(Exception):  # noqa: N818 - named for what befell the caller
    """It was refused for who asked: what it asked for was not looked at."""


@contextlib.contextmanager
def _logged() -> Iterator[io.StringIO]:
    """Have the log written as it is, to memory."""
    written = io.StringIO()
    before, root = structlog.get_config(), logging.getLogger()
    handlers, level = root.handlers[:], root.level
    with contextlib.redirect_stderr(written):
        logs.set_up("info", logs.LogFormat.LOGFMT)
    try:
        yield written
    finally:
        structlog.configure(**before)
        root.handlers[:] = handlers
        root.setLevel(level)


def targets() -> list[Target]:
    """Give them: one who is let in from loopback, and one where tokens are needed."""
    return [
        Target(
            name,
            partial(_running, tokens=tokens),
            _requests(),
            (_NotLet,),
            _WORDS,
            weight=weight,
            holds=True,
        )
        for name, tokens, weight in (("app", False, 2), ("app-tokens", True, 2))
    ]
