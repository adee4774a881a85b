"""Takes connections in, a few at a time, as long as descriptors are left for everything else.

Neither loop can be left to do it. When no descriptor is left, uvloop's server closes whoever comes
without a word, and for good the socket it listens on, if another thread took the last descriptor in
between (libuv, `uv__emfile_trick`; uvloop, `UVStreamServer._fatal_error`). asyncio's writes a
traceback each second, and accepts a whole backlog in one turn.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import resource
import socket
import ssl
from collections import deque
from typing import TYPE_CHECKING, Any, Protocol

import structlog

if TYPE_CHECKING:
    from collections.abc import Callable

log = structlog.get_logger(__name__)

#: How many connections are taken in before others have their turn.
AT_ONCE = 16
#: So many descriptors are left for the rest at least (the store's files, polls, webhooks), or an
#: eighth of all; but half of few.
LEAST_RESERVED = 64
#: How long nobody is taken in once there is no descriptor left; and while it shows who may go.
REST_SECONDS, CROWDED_SECONDS = 0.1, 0.002
#: Whoever is refused is heard out for so long, and so many of them at a time: a socket that is
#: closed on what still comes is reset, and the answer is lost with it.
LINGER_SECONDS, MOST_LINGERING = 1.0, 16
#: How long a handshake (TLS) may take, and how long a client may take to say goodbye.
HANDSHAKE_SECONDS, GOODBYE_SECONDS = 10.0, 5.0
#: How long a handshake may take where there are too many.
GRACE_SECONDS = 1.0
#: Of which there is no more for now (accept(2)). Other errors are those of the one that came.
_SCARCE = frozenset((errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM))
#: A dead peer is known after two minutes.
_KEEPALIVE = (
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 60),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 15),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 4),
)


class Host(Protocol):
    """Who connections are taken in for."""

    #: What somebody is told who finds no room; nothing: he is not told.
    busy: bytes
    #: How many there may be.
    most: int

    def __len__(self) -> int:
        """Say how many there are."""

    def protocol(self) -> asyncio.BaseProtocol:
        """Make what serves a connection."""

    def has_room(self, expected: int, *, scarce: bool) -> bool:
        """Say whether one more is taken, beside these that are expected; make room if need be.

        `scarce`: there are few descriptors left.
        """

    def exhausted(self, error: OSError) -> None:
        """Be told that there is no descriptor left; let go of connections, if there are any."""


def files() -> int | None:
    """Give how many descriptors we may have open; None: there is no limit."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return None if soft == resource.RLIM_INFINITY else soft


def reserved(most: int) -> int:
    """Give how many of so many descriptors connections leave to the rest."""
    return min(max(LEAST_RESERVED, most // 8), most // 2)


def is_scarce(descriptor: int) -> bool:
    """Say whether a descriptor that was just given is one of the last.

    The lowest that is free is given (open(2)): all below it are in use.
    """
    most = files()
    return most is not None and descriptor >= most - reserved(most)


class Acceptor:
    """Takes connections of one listening socket in."""

    def __init__(
        self,
        listening: socket.socket,
        host: Host,
        tls: ssl.SSLContext | None = None,
        distrusted: Callable[[str, ssl.SSLError], None] | None = None,
    ) -> None:
        """`distrusted` is told whose handshake (TLS) failed, and why."""
        self._listening = listening
        self._host = host
        self._tls = tls
        self._distrusted = distrusted
        self._loop = asyncio.get_running_loop()
        #: Those that are not connected yet, the oldest first, and since when.
        self._expected: dict[asyncio.Task[None], float] = {}
        self._lingering: deque[socket.socket] = deque()
        self._resting: asyncio.TimerHandle | None = None
        self._open = False
        listening.setblocking(False)
        for option in _KEEPALIVE:
            listening.setsockopt(*option)  # accepted sockets inherit them

    def start(self) -> None:
        """Take connections in, from now on."""
        if not self._open:
            self._open = True
            self._loop.add_reader(self._listening, self._ready)

    def close(self) -> None:
        """Take no more in, and listen no more."""
        if self._resting is not None:
            self._resting.cancel()
            self._resting = None
        elif self._open:
            self._loop.remove_reader(self._listening)
        self._open = False
        for task in self._expected:
            task.cancel()
        while self._lingering:
            self._lingering.popleft().close()
        self._listening.close()

    def _ready(self) -> None:
        for _ in range(AT_ONCE):
            if self._is_crowded() and not self._drop_a_handshake():
                # Of those who are just being taken in somebody may go: let them be known first.
                self._pause(CROWDED_SECONDS)
                return
            try:
                connected, peer = self._listening.accept()
            except (BlockingIOError, InterruptedError):
                return
            except OSError as error:
                if error.errno in _SCARCE:
                    self._pause(REST_SECONDS)  # those who come meanwhile wait in the backlog
                    self._host.exhausted(error)
                    return
                log.debug("a connection was gone before it was taken in", error=str(error))
                continue
            connected.setblocking(False)
            scarce = is_scarce(connected.fileno())
            if not self._host.has_room(len(self._expected), scarce=scarce):
                self._refuse(connected)
                continue
            task = self._loop.create_task(self._serve(connected, peer))
            self._expected[task] = self._loop.time()
            task.add_done_callback(self._expected.pop)

    def _is_crowded(self) -> bool:
        """Say whether one more would be one too many, and some are not connected yet."""
        return bool(self._expected) and len(self._host) + len(self._expected) >= self._host.most

    def _drop_a_handshake(self) -> bool:
        """Let go of who is long about his handshake (TLS); say whether there was one."""
        task, since = next(iter(self._expected.items()))
        if self._loop.time() < since + GRACE_SECONDS:
            return False
        return task.cancel()

    async def _serve(self, connected: socket.socket, peer: Any) -> None:
        seconds = (None, None) if self._tls is None else (HANDSHAKE_SECONDS, GOODBYE_SECONDS)
        try:
            await self._loop.connect_accepted_socket(
                self._host.protocol,
                connected,
                ssl=self._tls,
                ssl_handshake_timeout=seconds[0],
                ssl_shutdown_timeout=seconds[1],
            )
        except OSError as error:  # ssl.SSLError and TimeoutError are such
            log.debug("a connection came to nothing", error=str(error))
            connected.close()
            if isinstance(error, ssl.SSLError) and self._distrusted is not None:
                self._distrusted(str(peer[0]), error)

    def _pause(self, seconds: float) -> None:
        self._loop.remove_reader(self._listening)
        self._resting = self._loop.call_later(seconds, self._rested)

    def _rested(self) -> None:
        self._resting = None
        self._loop.add_reader(self._listening, self._ready)

    def _refuse(self, connected: socket.socket) -> None:
        if not self._host.busy or self._tls is not None:
            connected.close()
            return
        with contextlib.suppress(OSError):  # he is gone already
            connected.send(self._host.busy)
            connected.shutdown(socket.SHUT_WR)
        if len(self._lingering) == MOST_LINGERING:
            self._lingering.popleft().close()
        self._lingering.append(connected)
        self._loop.call_later(LINGER_SECONDS, self._let_go, connected)

    def _let_go(self, connected: socket.socket) -> None:
        with contextlib.suppress(ValueError):  # it made room for another
            self._lingering.remove(connected)
        with contextlib.suppress(OSError):
            connected.recv(2**16)
        connected.close()


def reason(error: OSError) -> str:
    """Say in the system's words why there is no more."""
    return os.strerror(error.errno or errno.EMFILE).lower()
