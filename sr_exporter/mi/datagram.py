"""MI over datagrams: OpenSIPS' mi_datagram, over UDP or a Unix socket.

Each request has a socket of its own: an answer that comes too late comes to nobody, and is not
taken for the next one's. Where an answer is too big to be sent, OpenSIPS sends the plain text
`500 Internal error`, or nothing at all (facts on OpenSIPS, sections 1 and 7).
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from typing import TYPE_CHECKING

from sr_exporter.errors import MiError
from sr_exporter.model import PollFailure

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from sr_exporter.mi.places import Place
    from sr_exporter.names import Names

#: No datagram is larger: UDP's are under 64 KiB, and a Unix socket's are bounded by
#: net.core.wmem_max, which is 208 KiB unless an operator raised it.
LIMIT_BYTES = 4 * 2**20
_FULL_SECONDS = 0.02


class _Connectionless:
    """What holds nothing between requests."""

    def rest(self) -> None:
        pass


class UdpTransport(_Connectionless):
    """Implements `Transport` for `udp://host:port`."""

    name = "udp"

    def __init__(self, host: str, port: int, names: Names, *, timeout_seconds: float) -> None:
        self._host = host
        self._port = port
        self._names = names
        self._timeout_seconds = timeout_seconds

    async def ask(self, request: bytes) -> bytes:
        return await _within(self._timeout_seconds, self._ask(request))

    async def _ask(self, request: bytes) -> bytes:
        address, *_ = await self._names.addresses(self._host, self._port, socket.SOCK_DGRAM)
        with socket.socket(address.family, address.kind, address.protocol) as own:
            own.setblocking(False)
            own.connect(address.place)  # nobody else's are taken, and a refusal is heard
            own.send(request)
            return await _answer(own)


class UnixTransport(_Connectionless):
    """Implements `Transport` for `unix:///path`; `place` is where our end is."""

    name = "unix"

    def __init__(self, path: str, place: Place, *, timeout_seconds: float) -> None:
        self._path = path
        self._place = place
        self._timeout_seconds = timeout_seconds

    async def ask(self, request: bytes) -> bytes:
        return await _within(self._timeout_seconds, self._ask(request))

    async def _ask(self, request: bytes) -> bytes:
        with self._place.name() as path, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as own:
            own.setblocking(False)
            own.bind(str(path))
            path.chmod(0o666)  # to answer is to write to it, as another user
            # Not connected: OpenSIPS answers from a socket that is bound to nothing, which a
            # connected one is not sent anything by (unix(7)).
            await self._send(own, request)
            return await _answer(own)

    async def _send(self, own: socket.socket, request: bytes) -> None:
        while True:
            with contextlib.suppress(BlockingIOError):
                own.sendto(request, self._path)
                return
            # Others' requests wait there, as many as it takes; nothing tells when that is over.
            await asyncio.sleep(_FULL_SECONDS)


async def _answer(own: socket.socket) -> bytes:
    answer = await asyncio.get_running_loop().sock_recv(own, LIMIT_BYTES)
    if answer.startswith(b"500 "):
        raise MiError(
            PollFailure.TOO_BIG,
            "500 Internal error: the answer is too big for a datagram; ask over fifo or http, or"
            " raise mi_datagram's socket_buf_size (4.0 and later)",
        )
    return answer


async def _within(seconds: float, answer: Awaitable[bytes]) -> bytes:
    try:
        async with asyncio.timeout(seconds):
            return await answer
    except TimeoutError:
        raise MiError(PollFailure.TIMEOUT, f"no answer within {seconds:g} s") from None
    except OSError as error:
        what = error.strerror.lower() if error.strerror else str(error)
        raise MiError(PollFailure.CONNECT, what) from None
