"""MI over HTTP: OpenSIPS' httpd and mi_http.

An answer other than 200 has a body that may never end, so it is judged by its status line,
and its connection closed (facts on OpenSIPS, section 8). Whatever ends a request, be it a
time-out or a cancellation, its connection is gone with it: there is one per source (rule 1).
Proxies, .netrc, cookies and redirects are not known here (rule 2).
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import os
import select
import socket
import ssl
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import urlsplit

from sr_exporter import __version__, tls
from sr_exporter.errors import MiError
from sr_exporter.mi.http_answer import Answer, AnswerReader
from sr_exporter.model import PollFailure

if TYPE_CHECKING:
    from sr_exporter.mi.names import Address, Names

#: More than any listing that was ever seen: 100,000 registrants' reports are 30 MB.
LIMIT_BYTES = 64 * 2**20
_TURN_SECONDS = 0.001
#: For whoever is cancelled at the very end of a handshake: that closes, and does not abort.
_SHUTDOWN_SECONDS = 0.1


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
        #: Open between requests.
        self._idle: _Connection | None = None
        #: Of the connection that was made last, closed or not.
        self._socket: socket.socket | None = None

    async def ask(self, request: bytes) -> bytes:
        async with self._one_at_a_time:
            try:
                async with asyncio.timeout(self._timeout_seconds):
                    answer = await self._exchange(request)
            except TimeoutError:
                said = f"no whole answer within {self._timeout_seconds:g} s"
                raise MiError(PollFailure.TIMEOUT, said) from None
            except OSError as error:
                raise MiError(PollFailure.CONNECT, _why(error)) from None
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
        connection, self._idle = self._idle, None
        if connection is not None and not connection.usable():
            connection.abort()
            connection = None
        if connection is None:
            connection = await self._connect()
        reusable = False
        try:
            answer = await connection.exchange(
                b"%sContent-Length: %d\r\n\r\n%s" % (self._head, len(request), request)
            )
            reusable = answer.reusable
        finally:
            if reusable:
                self._idle = connection
            else:
                connection.abort()
        return answer

    async def _connect(self) -> _Connection:
        """Try one address after the other, the time that is left shared among them."""
        addresses = await self._names.addresses(self._host, self._port, socket.SOCK_STREAM)
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._timeout_seconds
        for number, address in enumerate(addresses[:-1]):
            share = (deadline - loop.time()) / (len(addresses) - number)
            with contextlib.suppress(OSError):
                async with asyncio.timeout(share):
                    return await self._connect_to(address)
        return await self._connect_to(addresses[-1])

    async def _connect_to(self, address: Address) -> _Connection:
        loop = asyncio.get_running_loop()
        security: dict[str, Any] = {}
        if self._secure:
            security = {
                "ssl": tls.context(self._ca),
                "server_hostname": self._host,
                "ssl_handshake_timeout": self._timeout_seconds,
                "ssl_shutdown_timeout": _SHUTDOWN_SECONDS,
            }
        # The one before was aborted, which takes effect in a later turn of the loop; over TLS
        # nobody is told of the end of a handshake that failed.
        while self._socket is not None and self._socket.fileno() != -1:  # noqa: ASYNC110
            await asyncio.sleep(_TURN_SECONDS)
        own = self._socket = socket.socket(address.family, address.kind, address.protocol)
        try:
            own.setblocking(False)
            await loop.sock_connect(own, address.place)
        except BaseException:
            own.close()
            raise
        _, connection = await loop.create_connection(_Connection, sock=own, **security)
        return connection


class _Connection(asyncio.Protocol):
    """A connection that is asked one thing after the other."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport
        self._reader: AnswerReader | None = None
        self._answer: asyncio.Future[Answer] | None = None
        self._lost = False

    async def exchange(self, request: bytes) -> Answer:
        """Send a request, whole, and wait for its answer.

        Raises:
            MiError: what came is no answer.
            OSError: the connection broke.
        """
        if self._lost:
            raise ConnectionResetError("the connection was closed at once")
        self._reader = AnswerReader(LIMIT_BYTES)
        self._answer = asyncio.get_running_loop().create_future()
        try:
            self._transport.write(request)
            return await self._answer
        finally:
            self._reader = self._answer = None

    def usable(self) -> bool:
        """Whether the peer has neither closed it nor said more than it was asked."""
        if self._lost or self._transport.is_closing():
            return False
        # What came since the last answer may not have been handed to us yet.
        ready = select.poll()
        ready.register(self._transport.get_extra_info("socket"), select.POLLIN)
        return not ready.poll(0)

    def abort(self) -> None:
        """Close it without waiting for anything; over TLS too."""
        self._transport.abort()

    # --- what the loop calls -------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        if self._reader is None or self._answer is None or self._answer.done():
            self.abort()  # nobody asked
            return
        try:
            answer = self._reader.feed(data)
        except MiError as error:
            self._answer.set_exception(error)
        else:
            if answer is not None:
                self._answer.set_result(answer)

    def connection_lost(self, exc: Exception | None) -> None:
        self._lost = True
        if self._reader is None or self._answer is None or self._answer.done():
            return
        if exc is not None:
            self._answer.set_exception(exc)
            return
        try:
            self._answer.set_result(self._reader.end())
        except MiError as error:
            self._answer.set_exception(error)


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


def _why(error: OSError) -> str:
    if isinstance(error, ssl.SSLError):
        return tls.why(error)
    if error.errno:  # its own words differ from loop to loop
        return os.strerror(error.errno).lower()
    return str(error) or "the connection broke"


def _status_message(status: int) -> str:
    if status == 500:
        return "HTTP 500: the answer may be too big for OpenSIPS' httpd buf_size"
    return f"HTTP {status}"
