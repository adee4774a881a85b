"""Answers to what cannot be done: JSON with `error`, under the status code that fits."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
import structlog
from starlette.exceptions import HTTPException
from starlette.responses import Response

if TYPE_CHECKING:
    from collections.abc import Mapping

    from starlette.requests import Request

    from sr_exporter.limits import Limit

log = structlog.get_logger(__name__)


#: Headers of what tells how it is now: no cache in between knows that.
NOW = {"Cache-Control": "no-store"}


class Refused(Exception):  # noqa: N818 - named for what befell the caller
    """A request that is not done, and why."""

    def __init__(
        self,
        status: int,
        error: str,
        headers: Mapping[str, str] | None = None,
        *,
        limit: Limit | None = None,
        **more: Any,
    ) -> None:
        self.status = status
        #: Which limit was met, if one was; whoever refuses counts it.
        self.limit = limit
        self.error = error
        self.headers = dict(headers or {})
        self.more = more
        super().__init__(error)


class Problem(msgspec.Struct, frozen=True):
    """Why something is not done."""

    error: str


class ItemProblem(msgspec.Struct, frozen=True):
    """What is wrong with one item of a push; they count from 0."""

    index: int
    error: str


class PushProblem(msgspec.Struct, frozen=True):
    """Why nothing of a push was taken."""

    error: str
    items: list[ItemProblem]


class ReloadProblem(msgspec.Struct, frozen=True):
    """Why a configuration is not in force."""

    error: str
    #: Each with its place in the file.
    faults: list[str]


class JSONResponse(Response):
    """An answer that is so now."""

    media_type = "application/json"

    def __init__(
        self, content: Any, status_code: int = 200, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(content, status_code, {**NOW, **(headers or {})})

    def render(self, content: Any) -> bytes:
        return msgspec.json.encode(content)


def refused(_: Request, error: Exception) -> Response:
    """Answer a `Refused`."""
    if not isinstance(error, Refused):
        raise error
    body = {"error": error.error, **error.more}
    return JSONResponse(body, status_code=error.status, headers=error.headers)


def unroutable(request: Request, error: Exception) -> Response:
    """Answer for a route that is not there, or a method it does not have."""
    if not isinstance(error, HTTPException):
        raise error
    # Not of `request.url`: that reads the query too, which may be no UTF-8.
    path = request.scope["path"]
    said = {
        404: f"no such route: {path}",
        405: f"{request.method} is not for {path}",
    }
    message = said.get(error.status_code, error.detail)
    return JSONResponse({"error": message}, status_code=error.status_code, headers=error.headers)


def failed(request: Request, error: Exception) -> Response:
    """Answer for a fault of ours; it is logged with its traceback."""
    log.error("request failed", method=request.method, path=request.scope["path"], exc_info=error)
    return JSONResponse({"error": "internal error; the log tells more"}, status_code=500)
