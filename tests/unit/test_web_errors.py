"""What is answered where there is no route."""

from __future__ import annotations

import asyncio
import inspect
import json
import threading
from typing import Any, cast

import pytest
from starlette.exceptions import HTTPException
from starlette.requests import Request

from sr_exporter.web import routes
from sr_exporter.web.errors import failed, unroutable
from tests.fuzz.asgi import ask


def request(path: str, query: bytes = b"") -> Request:
    scope = {"type": "http", "method": "GET", "path": path, "query_string": query, "headers": []}
    return Request(scope)


@pytest.mark.parametrize("query", [b"", b"\x8a", b"%8a=\xff"])
@pytest.mark.parametrize(("status", "said"), [(404, "no such route: /a?b#c"), (405, "/a?b#c")])
def test_it_names_the_path_whatever_the_query_is(status, said, query):
    """Found by fuzzing: bytes that are no UTF-8 in a query made a 500 of a 404."""
    answer = unroutable(request("/a?b#c", query), HTTPException(status))
    assert answer.status_code == status
    assert json.loads(bytes(answer.body))["error"].endswith(said)


def test_a_fault_of_ours_is_told_whatever_the_query_is():
    """And logged, with the path."""
    assert failed(request("/a", b"\x8a"), ValueError("x")).status_code == 500


class _Nobody:
    """Stands for handlers that are not asked."""

    def __getattr__(self, name: str) -> Any:
        async def handler(request: object) -> None:
            raise AssertionError(name)

        return handler


def test_a_refusal_takes_no_thread(monkeypatch):
    """Found by fuzzing: each took one, and there may be none."""

    def none_left(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    parts = inspect.signature(routes.application).parameters
    application = routes.application(**{name: cast("Any", _Nobody()) for name in parts})
    monkeypatch.setattr(threading.Thread, "start", none_left)
    answer = asyncio.run(ask(application, b"GET /nope HTTP/1.1\n\n"))
    assert answer.status == 404
