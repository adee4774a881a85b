"""MI over HTTP: OpenSIPS' httpd and mi_http.

An answer other than 200 has a body that may never end, so it is judged by its status line,
and its connection closed (facts on OpenSIPS, section 8). There is one per source (rule 1).
Proxies, .netrc, cookies and redirects are not known here (rule 2).
"""

from __future__ import annotations

import asyncio
import base64
import socket
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from sr_exporter import __version__
from sr_exporter.errors import MiError
from sr_exporter.lines import Dialer, Line, why
from sr_exporter.mi.http_answer import Answer, AnswerReader
from sr_exporter.model import PollFailure

if TYPE_CHECKING:
    from sr_exporter.names import Names

#: More than any listing that was ever seen: 100,000 registrants' reports are 30 MB.
LIMIT_BYTES = 64 * 2**20


class HttpTransport:
    """Implements `Transport` for `http://` and `https://` addresses.

    `ca` holds the certificates that an `https://` server is trusted by, in PEM; None: the
    system's.
    """

    name = "http"

    def __init__(
        self,
        url: str,
        names: Names,
        *,
        timeout_seconds: float,
        basic_auth: tuple[str, str] | None = None,
        ca: str | None = None,
    ) -> None:
        parts = urlsplit(url)
        self._secure = parts.scheme == "https"
        self._host = parts.hostname or ""
        self._port = parts.port or (443 if self._secure else 80)
        self._names = names
        self._timeout_seconds = timeout_seconds
        self._ca = ca
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        self._head = _head(target, parts.netloc.rpartition("@")[2], basic_auth)
        self._one_at_a_time = asyncio.Lock()
        self._dialer = Dialer()
        #: Open between requests.
        self._idle: Line[Answer] | None = None

    async def ask(self, request: bytes) -> bytes:
        async with self._one_at_a_time:
            try:
                async with asyncio.timeout(self._timeout_seconds):
                    answer = await self._exchange(request)
            except TimeoutError:
                said = f"no whole answer within {self._timeout_seconds:g} s"
                raise MiError(PollFailure.TIMEOUT, said) from None
            except OSError as error:
                raise MiError(PollFailure.CONNECT, why(error)) from None
        if answer.status == 401:
            raise MiError(PollFailure.AUTH, "HTTP 401: basic_auth is missing or wrong")
        if answer.status != 200:
            raise MiError(PollFailure.HTTP_STATUS, _status_message(answer.status))
        return answer.body

    def rest(self) -> None:
        if self._idle is not None:
            self._idle.abort()
            self._idle = None

    async def _exchange(self, request: bytes) -> Answer:
        line, self._idle = self._idle, None
        if line is not None and not line.usable():
            line.abort()
            line = None
        if line is None:
            line = await self._connect()
        reusable = False
        try:
            answer = await line.exchange(
                b"%sContent-Length: %d\r\n\r\n%s" % (self._head, len(request), request),
                AnswerReader(LIMIT_BYTES),
            )
            reusable = answer.reusable
        finally:
            if reusable:
                self._idle = line
            else:
                line.abort()
        return answer

    async def _connect(self) -> Line[Answer]:
        addresses = await self._names.addresses(self._host, self._port, socket.SOCK_STREAM)
        secure = (self._host, self._ca) if self._secure else None
        return await self._dialer.connect(addresses, self._timeout_seconds, secure=secure)


def _head(target: str, netloc: str, basic_auth: tuple[str, str] | None) -> bytes:
    """Give the start of every request, up to its length."""
    lines = [
        f"POST {target} HTTP/1.1",
        f"Host: {netloc}",
        f"User-Agent: sr-exporter/{__version__}",
        "Content-Type: application/json",
    ]
    if basic_auth is not None:
        credentials = base64.b64encode(":".join(basic_auth).encode()).decode()
        lines.append(f"Authorization: Basic {credentials}")
    return "\r\n".join([*lines, ""]).encode()


def _status_message(status: int) -> str:
    if status == 500:
        return "HTTP 500: the answer may be too big for OpenSIPS' httpd buf_size"
    return f"HTTP {status}"
