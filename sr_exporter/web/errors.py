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

log = structlog.get_logger(__name__)


class Refused(Exception):  # noqa: N818 - named for what befell the caller
    """A request that is not done, and why."""

    def __init__(
        self, status: int, error: str, headers: Mapping[str, str] | None = None, **more: Any
    ) -> None:
        self.status = status
        self.error = error
        self.headers = dict(headers or {})
        self.more = more
        super().__init__(error)


class JSONResponse(Response):
    media_type = "application/json"

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
    said = {
        404: f"no such route: {request.url.path}",
        405: f"{request.method} is not for {request.url.path}",
    }
    message = said.get(error.status_code, error.detail)
    return JSONResponse({"error": message}, status_code=error.status_code, headers=error.headers)


def failed(request: Request, error: Exception) -> Response:
    """Answer for a fault of ours; it is logged with its traceback."""
    log.error("request failed", method=request.method, path=request.url.path, exc_info=error)
    return JSONResponse({"error": "internal error; the log tells more"}, status_code=500)
