"""An HTTP server that speaks as the one of OpenSIPS does (`httpd` with `mi_http`), faults and all.

Recorded from 3.6, 4.0 and 4.1-dev, over libmicrohttpd 0.9.75. What a client has to survive:

* An answer without a body (202, 400, 405, 500) is chunked and does not end: its last chunk is
  sent when another connection or request reaches the server, whoever it is from.
* A POST without a Content-Type that begins with `application/json` has its connection closed.
* A body over 1024 bytes is refused with such an endless 400; one much longer meets silence.
* An answer over `buf_size` becomes an endless 500.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from typing import TYPE_CHECKING, TypeVar, cast

from sr_exporter.simulator.judge import (
    TWO_CONNECTIONS,
    TWO_IN_FLIGHT,
    Violations,
    is_open,
    violations_of,
    violations_of_head,
)
from sr_exporter.simulator.replies import BUF_SIZE, ROOT, reply_to
from sr_exporter.simulator.requests import Malformed, RequestReader
from sr_exporter.simulator.servers import NO_COMMANDS, unspoiled

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType
    from typing import Self

    from sr_exporter.simulator.replies import BasicAuth, Reply
    from sr_exporter.simulator.requests import Request
    from sr_exporter.simulator.servers import Spoil
    from sr_exporter.wire.answers import Commands, SrView

T = TypeVar("T")

#: A body that long is not even refused. 15,000 bytes still were, 30,000 were not.
SILENCE_BYTES = 16_384


class MiHttpd:
    """The HTTP server of one node, in the running loop; `async with` starts and stops it.

    It listens at once or not at all: while it is stopped, connections are refused. The port
    given by the kernel is kept over a stop with `keep_port`, so that a node can restart.
    """

    def __init__(
        self,
        node: SrView,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        auth: BasicAuth | None = None,
        buf_size: int = BUF_SIZE,
        clock: Callable[[], float] = time.time,
        on_request: Callable[[Request], None] | None = None,
        commands: Commands = NO_COMMANDS,
        spoil: Spoil = unspoiled,
    ) -> None:
        """`commands` are answered besides those of Status/Report.

        `buf_size`, and `spoil`, what becomes of the body of a 200, may be changed while it runs.
        """
        self.buf_size = buf_size
        self.spoil = spoil
        #: What no OpenSIPS should be sent, as it came.
        self.violations = Violations()
        self.host = host
        #: 0 until the first start, if the kernel is to choose.
        self.port = port
        self._node = node
        self._auth = auth
        self._clock = clock
        self._on_request = on_request
        self._commands = commands
        self._listener: socket.socket | None = None
        self._accepting: set[asyncio.Task[object]] = set()
        self._reserved: socket.socket | None = None
        self._connections: set[_Connection] = set()
        self._idle = asyncio.Event()
        self._idle.set()

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.port}{ROOT}"

    @property
    def listening(self) -> bool:
        return self._listener is not None

    async def start(self) -> None:
        """Listen. Raises OSError when the port is taken."""
        self._listener = self._reserved or self._bind()
        self._reserved = None
        self._listener.listen(128)
        asyncio.get_running_loop().add_reader(self._listener, self._accept, self._listener)

    async def stop(self, *, keep_port: bool = False) -> None:
        """Refuse connections, and cut those that are open, hanging or not."""
        if self._listener is not None:
            asyncio.get_running_loop().remove_reader(self._listener)
            self._listener.close()
            self._listener = None
            if self._accepting:
                await asyncio.wait(self._accepting)
            for connection in tuple(self._connections):
                connection.abort()
            await self._idle.wait()
        if self._reserved is not None:
            self._reserved.close()
            self._reserved = None
        if keep_port:
            self._reserved = self._bind()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.stop()

    def _accept(self, listener: socket.socket) -> None:
        """Accept by hand: an asyncio server that is closed as it accepts leaves that client
        without an answer and without an end.
        """
        with contextlib.suppress(BlockingIOError, ConnectionError):
            accepted, _ = listener.accept()
            accepted.setblocking(False)
            made = asyncio.get_running_loop().connect_accepted_socket(
                lambda: _Connection(self), accepted
            )
            task: asyncio.Task[object] = asyncio.ensure_future(made)
            self._accepting.add(task)
            task.add_done_callback(self._accepting.discard)

    def _bind(self) -> socket.socket:
        """Take the port. Bound and not listening, it refuses, and nobody else is given it."""
        listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        listener.setblocking(False)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((self.host, self.port))
        except BaseException:
            listener.close()
            raise
        self.port = listener.getsockname()[1]
        return listener

    # --- what connections call

    def joined(self, connection: _Connection) -> None:
        if not self.listening:  # accepted just before the stop
            connection.abort()
            return
        if any(other.is_open() for other in self._connections):
            self.violations.append(TWO_CONNECTIONS)
        self._connections.add(connection)
        self._idle.clear()
        self.stirred()

    def left(self, connection: _Connection) -> None:
        self._connections.discard(connection)
        if not self._connections:
            self._idle.set()

    def stirred(self) -> None:
        """Something reached the server: answers that were hanging end now."""
        for connection in tuple(self._connections):
            connection.end_hanging()

    def reply(self, request: Request) -> Reply | None:
        if self._on_request is not None:
            self._on_request(request)
        self.violations.extend(violations_of_head(request.method, request.headers))
        self.violations.extend(violations_of(request.body))
        return reply_to(
            request,
            self._node,
            self._clock(),
            auth=self._auth,
            buf_size=self.buf_size,
            commands=self._commands,
        )


class _Connection(asyncio.Protocol):
    def __init__(self, server: MiHttpd) -> None:
        self._server = server
        self._reader = RequestReader(limit=SILENCE_BYTES)
        self._transport: asyncio.Transport
        self._hanging = False
        #: It is left without an answer.
        self._silent = False
        self._closing = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._server.joined(self)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        self._closing = True
        self._server.left(self)

    def data_received(self, data: bytes) -> None:
        violations = self._server.violations
        if self._hanging:
            violations.append(TWO_IN_FLIGHT)
        elif self._reader.begun:
            violations.append("a request in more than one write")
        self._server.stirred()
        self._reader.feed(data)
        self._go_on()
        if self._reader.deaf:
            violations.append("a request too long to be read")

    def abort(self) -> None:
        self._transport.abort()

    def is_open(self) -> bool:
        """Whether the client has not gone away, be that noticed yet or not."""
        socket = self._transport.get_extra_info("socket")
        return socket is not None and not self._closing and is_open(socket.fileno())

    def end_hanging(self) -> None:
        if self._hanging:
            self._hanging = False
            self._transport.write(b"0\r\n\r\n")
            self._close_if_asked()

    def _go_on(self) -> None:
        """Answer what has come in whole; behind a hanging answer, or none, nothing is read."""
        while not self._hanging and not self._silent and not self._closing:
            try:
                request = self._reader.next_request()
            except Malformed as error:
                self._server.violations.append(f"no HTTP: {error}")
                self._close()
                return
            if self._reader.must_say_continue():
                self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            if request is None:
                return
            if self._reader.begun:
                self._server.violations.append(TWO_IN_FLIGHT)
            self._answer(request)

    def _answer(self, request: Request) -> None:
        reply = self._server.reply(request)
        if reply is None:
            self._close()
            return
        if reply.status == 200 and reply.body is not None:
            body = self._server.spoil(reply.body)
            if body is None:
                self._silent = True
                return
            reply = reply._replace(body=body)
        # A refusal that does not wait for the body ends the connection, says libmicrohttpd.
        self._closing = request.wants_close or request.method != "POST" or reply.status == 401
        # In one write: the second of two would wait for the first to be acknowledged, 40 ms.
        body = None if request.method == "HEAD" else reply.body
        self._transport.write(reply.head(close=self._closing) + (body or b""))
        if reply.body is None:
            self._hanging = True
            return
        self._close_if_asked()

    def _close_if_asked(self) -> None:
        if self._closing:
            self._transport.close()

    def _close(self) -> None:
        self._closing = True
        self._transport.close()
