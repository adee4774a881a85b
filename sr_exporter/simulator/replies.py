"""What the HTTP server of an OpenSIPS (`httpd` with `mi_http`) answers to a request. No I/O."""

from __future__ import annotations

import base64
from email.utils import formatdate
from typing import TYPE_CHECKING, Any, NamedTuple

from sr_exporter.simulator.servers import NO_COMMANDS
from sr_exporter.wire.answers import answer
from sr_exporter.wire.calls import UnprintableId
from sr_exporter.wire.mi_http import HTML, JSON, UNSUPPORTED, Heard, heard

if TYPE_CHECKING:
    from sr_exporter.simulator.requests import Request
    from sr_exporter.wire.answers import Commands, SrView

#: httpd's `receive_buf_size`: the longest body it takes.
RECEIVE_BUF_SIZE = 1024
#: httpd's `buf_size`, the longest answer, as the Debian init script makes it.
BUF_SIZE = 1024 * 1024

ROOT = "/mi"
_REASONS = {
    200: "OK",
    202: "Accepted",
    400: "Bad Request",
    401: "Unauthorized",
    405: "Method Not Allowed",
    406: "Not Acceptable",
    500: "Internal Server Error",
}


class BasicAuth(NamedTuple):
    """httpd's `auth_username`, `auth_password` and `auth_realm`, of 4.0 and later."""

    username: str
    password: str
    realm: str = "opensips"

    def admits(self, request: Request) -> bool:
        secret = base64.b64encode(f"{self.username}:{self.password}".encode()).decode()
        return request.headers.get("authorization") == f"Basic {secret}"


class Reply(NamedTuple):
    status: int
    content_type: str | None = JSON
    #: None for an answer that has none, and therefore no end.
    body: bytes | None = None
    challenge: str | None = None

    def head(self, *, close: bool) -> bytes:
        lines = [f"HTTP/1.1 {self.status} {_REASONS[self.status]}"]
        lines.append(f"Date: {formatdate(usegmt=True)}")
        if close:
            lines.append("Connection: close")
        if self.challenge is not None:
            lines.append(f'WWW-Authenticate: Basic realm="{self.challenge}"')
        if self.content_type is not None:
            lines.append(f"Content-Type: {self.content_type}")
        if self.body is None:
            lines.append("Transfer-Encoding: chunked")
        else:
            lines.append(f"Content-Length: {len(self.body)}")
        return "\r\n".join([*lines, "", ""]).encode()


def _page(status: int, text: str, **more: Any) -> Reply:
    return Reply(status, body=f"<html><body>{text}</body></html>".encode(), **more)


_NO_SUCH_PATH = _page(400, "Unable to parse URL!", content_type=HTML)


def reply_to(
    request: Request,
    node: SrView,
    now: float,
    *,
    auth: BasicAuth | None = None,
    buf_size: int = BUF_SIZE,
    commands: Commands = NO_COMMANDS,
) -> Reply | None:
    """Say what is answered to a request; None closes the connection without a word.

    `commands` are answered besides those of Status/Report.
    """
    if auth is not None and not auth.admits(request):
        return _page(401, "Unauthorized", content_type=None, challenge=auth.realm)
    match heard(request.method, request.headers.get("content-type", "")):
        case Heard.GET:
            return Reply(405) if _is_under_root(request.path) else _NO_SUCH_PATH
        case Heard.OTHER_METHOD:
            return Reply(406, HTML, UNSUPPORTED)
        case Heard.FORM:
            return Reply(400)
        case Heard.OTHER_TYPE:
            return None
        case Heard.CALL:
            return _reply_to_call(request, node, now, buf_size, commands)


def _reply_to_call(
    request: Request, node: SrView, now: float, buf_size: int, commands: Commands
) -> Reply:
    if not _is_under_root(request.path):
        return _NO_SUCH_PATH
    if not 0 < len(request.body) <= RECEIVE_BUF_SIZE:
        return Reply(400)
    return _reply_of_mi(request.body, node, now, buf_size, commands)


def _reply_of_mi(body: bytes, node: SrView, now: float, buf_size: int, commands: Commands) -> Reply:
    try:
        answered = answer(body, node, now, commands)
    except UnprintableId:
        return Reply(500)
    if answered is None:
        return Reply(202)
    return Reply(200, body=answered) if len(answered) <= buf_size else Reply(500)


def _is_under_root(path: str) -> bool:
    path = path.partition("?")[0]
    return path == ROOT or path.startswith(f"{ROOT}/")
