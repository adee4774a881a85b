"""A Management Interface by datagrams, as `mi_datagram` has it: over UDP or a Unix socket.

Recorded from 3.6, 4.0 and 4.1-dev; "(src)" was read in source. What a client has to survive
(facts on OpenSIPS, sections 1, 7 and 9):

* What is no JSON is answered with the plain text `400 Parse_error`, a notification not at all.
* An answer over `socket_buf_size` becomes the plain text `500 Internal error`. Where that was
  raised, one that the kernel does not take for a datagram is not sent.
* Valid JSON without a usable `method` kills the whole server from 4.0 on.
* One process answers, one request after the other.
* Over a Unix socket the answer comes from another socket than the one that was asked, which
  has no name (src): a client that has connected its own is sent nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sr_exporter.simulator.servers import (
    INTERNAL_ERROR,
    NO_COMMANDS,
    MiServer,
    has_no_method,
    unspoiled,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from sr_exporter.simulator.servers import Spoil
    from sr_exporter.wire.answers import Commands, SrView

#: mi_datagram's `socket_buf_size`: the longest request, and the longest answer.
SOCKET_BUF_SIZE = 65_457
#: net.core.wmem_default, of which the kernel takes 32 bytes for itself.
WMEM_DEFAULT = 212_992

PARSE_ERROR = b"400 Parse_error"


class MiDatagram(MiServer):
    """`mi_datagram` at an IPv4 address and port, or at a path.

    The port that the kernel gave for 0 is kept over a stop with `keep_port`, so that a node
    can restart. `wmem` is what the kernel of a simulated machine allows a Unix datagram.
    """

    def __init__(
        self,
        node: SrView,
        address: tuple[str, int] | Path = ("127.0.0.1", 0),
        *,
        socket_buf_size: int = SOCKET_BUF_SIZE,
        wmem: int = WMEM_DEFAULT,
        clock: Callable[[], float] = time.time,
        on_request: Callable[[bytes], None] | None = None,
        delay: float = 0.0,
        spoil: Spoil = unspoiled,
        commands: Commands = NO_COMMANDS,
    ) -> None:
        super().__init__(
            node, clock=clock, on_request=on_request, delay=delay, spoil=spoil, commands=commands
        )
        #: With the port of the kernel's choice, once started.
        self.address = address
        self._buf_size = socket_buf_size
        self._wmem = wmem
        self._receiving: socket.socket | None = None
        self._sending: socket.socket
        self._reserved: socket.socket | None = None

    @property
    def url(self) -> str:
        if isinstance(self.address, Path):
            return f"unix://{self.address}"
        return f"udp://{self.address[0]}:{self.address[1]}"

    def _open(self) -> None:
        if isinstance(self.address, Path):
            self.address.unlink(missing_ok=True)
            self._receiving = _bound(socket.AF_UNIX, str(self.address))
            self._sending = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            self._sending.setblocking(False)
            # The kernel doubles what it is given.
            self._sending.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, self._wmem // 2)
        else:
            self._receiving = _bound(
                socket.AF_INET, self.address, shared=self._reserved is not None
            )
            self._release()
            self._sending = self._receiving
            self.address = self._receiving.getsockname()
        asyncio.get_running_loop().add_reader(self._receiving, self._receive, self._receiving)

    def _close(self) -> None:
        if self._receiving is None:
            return
        asyncio.get_running_loop().remove_reader(self._receiving)
        if not isinstance(self.address, Path):
            self._reserve(self.address)
        self._receiving.close()
        self._sending.close()
        self._receiving = None

    def _tidy(self, *, keep_port: bool) -> None:
        if isinstance(self.address, Path):
            self.address.unlink(missing_ok=True)
        elif not keep_port:
            self._release()

    def _reserve(self, address: tuple[str, int]) -> None:
        """Keep the port, and refuse: a socket connected to itself is nobody else's to reach."""
        assert self._receiving is not None  # noqa: S101 - for the type checker
        self._receiving.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._reserved = _bound(socket.AF_INET, address, shared=True)
        self._reserved.connect(address)

    def _release(self) -> None:
        if self._reserved is not None:
            self._reserved.close()
            self._reserved = None

    def _receive(self, receiving: socket.socket) -> None:
        with contextlib.suppress(BlockingIOError):
            while True:
                body, client = receiving.recvfrom(self._buf_size)
                if body:  # an empty one is passed over (src)
                    self._take(client, body)

    def _waits(self, client: Any) -> bool:
        if not isinstance(client, tuple):
            return Path(client or "/").is_socket()
        try:
            _bound(socket.AF_INET, client).close()
        except OSError:
            return True
        return False

    async def _send(self, client: Any, answer: bytes) -> None:
        if not client:
            self.failures.append(f"{len(answer)} bytes to nobody: the client has no name")
            return
        try:
            self._sending.sendto(answer, client)
        except OSError as error:
            self.failures.append(f"{len(answer)} bytes to {client!r}: {error.strerror}")

    def _dies_of(self, body: bytes) -> bool:
        return self._node.names.qualified and has_no_method(body)

    def _unparsed(self) -> bytes:
        return PARSE_ERROR

    def _unprintable(self) -> bytes:
        return INTERNAL_ERROR

    def _fitted(self, answer: bytes) -> bytes:
        return answer if len(answer) <= self._buf_size else INTERNAL_ERROR


def _bound(family: int, address: Any, *, shared: bool = False) -> socket.socket:
    made = socket.socket(family, socket.SOCK_DGRAM)
    made.setblocking(False)
    try:
        if shared:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind(address)
    except BaseException:
        made.close()
        raise
    return made
