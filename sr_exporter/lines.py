"""Connections on which HTTP is asked, in the event loop.

A neighbour is asked one thing after the other, and has one connection for it. Whatever ends a
request, be it a time-out or a cancellation, its connection is gone with it, at once: over TLS too
nobody waits for a peer's goodbye.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import socket
import ssl
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar, cast

from sr_exporter import tls
from sr_exporter.errors import SrExporterError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sr_exporter.names import Address

_TURN_SECONDS = 0.001
#: For whoever is cancelled at the very end of a handshake: that closes, and does not abort.
_SHUTDOWN_SECONDS = 0.1

Answer_co = TypeVar("Answer_co", covariant=True)


class Reader(Protocol[Answer_co]):
    """Takes the bytes of one answer as they come, as far as they are wanted.

    What it raises for an answer that is none is a `SrExporterError`.
    """

    @property
    def whole(self) -> bool:
        """Whether all of the answer was taken, what nobody wanted too."""

    def feed(self, data: bytes) -> Answer_co | None:
        """Take more bytes; give the answer as soon as it is known."""

    def end(self) -> Answer_co:
        """Take the end of the connection: the answer is over, or it is none."""


class Line(asyncio.Protocol, Generic[Answer_co]):
    """A connection that is asked one thing after the other."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport
        self._reader: Reader[Answer_co] | None = None
        self._answer: asyncio.Future[Answer_co] | None = None
        self._lost = False

    async def exchange(self, request: bytes, reader: Reader[Answer_co]) -> Answer_co:
        """Send a request, whole, and wait for its answer.

        What of it is not wanted may still come afterwards, and is taken: until then the line is
        not `usable`.

        Raises:
            SrExporterError: what the reader says of what came.
            OSError: the connection broke.
        """
        if self._lost:
            raise ConnectionResetError("the connection was closed at once")
        self._reader = reader
        self._answer = asyncio.get_running_loop().create_future()
        try:
            self._transport.write(request)
            return await self._answer
        finally:
            self._answer = None

    def usable(self) -> bool:
        """Whether the peer has answered whole, and neither closed it nor said more."""
        if self._lost or self._transport.is_closing():
            return False
        if self._transport.get_write_buffer_size():
            return False  # it answered before it had taken all
        if self._reader is not None and not self._reader.whole:
            return False
        # What came since the last answer may not have been handed to us yet.
        ready = select.poll()
        ready.register(self._transport.get_extra_info("socket"), select.POLLIN)
        return not ready.poll(0)

    def abort(self) -> None:
        """Close it without waiting for anything; over TLS too."""
        self._transport.abort()

    def _fail(self, error: Exception) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(error)
        else:
            self.abort()  # nobody waits for what is left of an answer

    # --- what the loop calls -------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        if self._reader is None or self._reader.whole:
            self.abort()  # nobody asked
            return
        try:
            answer = self._reader.feed(data)
        except SrExporterError as error:
            self._fail(error)
            return
        if answer is not None and self._answer is not None and not self._answer.done():
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
        except SrExporterError as error:
            self._answer.set_exception(error)


class Dialer:
    """Makes connections to one neighbour, one after the other, and never a second beside it."""

    def __init__(self) -> None:
        #: Of the connection that was made last, closed or not.
        self._socket: socket.socket | None = None
        #: The address that took it.
        self._last: Any = None

    async def connect(
        self,
        addresses: Sequence[Address],
        seconds: float,
        *,
        secure: tuple[str, str | None] | None = None,
    ) -> Line[Any]:
        """Try one address after the other, each for its share of the time that is left.

        One of them that takes no connection, as a broken IPv6 route or half of a pair that is
        down, must not use up the time of all. The one that took the last connection is first.

        Args:
            addresses: at least one.
            seconds: for all of them.
            secure: over TLS, the host's name and the certificates to trust it by, in PEM; None
                for the system's.

        Raises:
            OSError: the last of them took no connection.
            TimeoutError: the time was up at the last of them.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + seconds
        ordered = sorted(addresses, key=lambda address: address.place != self._last)
        for number, address in enumerate(ordered[:-1]):
            share = (deadline - loop.time()) / (len(ordered) - number)
            with contextlib.suppress(OSError):
                async with asyncio.timeout(share):
                    return await self._connect(address, seconds, secure)
        async with asyncio.timeout_at(deadline):
            return await self._connect(ordered[-1], seconds, secure)

    async def _connect(
        self, address: Address, seconds: float, secure: tuple[str, str | None] | None
    ) -> Line[Any]:
        loop = asyncio.get_running_loop()
        security: dict[str, Any] = {}
        if secure is not None:
            host, ca = secure
            security = {
                "ssl": tls.context(ca),
                "server_hostname": host,
                "ssl_handshake_timeout": seconds,
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
        made: tuple[Any, Line[Any]] = await loop.create_connection(Line, sock=own, **security)
        self._last = address.place
        return made[1]


def why(error: OSError) -> str:
    """Say why there is no connection, or no more, in the system's words."""
    if isinstance(error, ssl.SSLError):
        return tls.why(error)
    if error.errno:  # its own words differ from loop to loop
        return os.strerror(error.errno).lower()
    return str(error) or "the connection broke"
