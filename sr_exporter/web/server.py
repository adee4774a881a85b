"""The HTTP server: uvicorn on sockets of ours, stopped by us."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import uvicorn

from sr_exporter.accepting import Acceptor
from sr_exporter.errors import ListenError
from sr_exporter.web.connected import REST_SECONDS, Connected
from sr_exporter.web.encrypted import EncryptedProtocol
from sr_exporter.web.writes import Protocol

if TYPE_CHECKING:
    from collections.abc import Iterator

    from starlette.types import ASGIApp

    from sr_exporter.limited import Limited
    from sr_exporter.web.encrypted import Context

#: How long requests under way may take at a stop.
STOP_SECONDS = 5
#: How many connections there may be.
MOST_CONNECTIONS = 10_000
_BACKLOG = 2048
#: On every answer: what a source says must not be taken for a page, or a script.
_HEADERS = [("X-Content-Type-Options", "nosniff")]


@dataclass(frozen=True, slots=True)
class Address:
    """Where to listen; an empty host is every address, IPv4 and IPv6."""

    host: str
    port: int

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


def parse_address(text: str) -> Address:
    """Read `host:port`, `[v6]:port` or `:port`, as Prometheus servers spell it.

    Raises:
        ValueError: it is of another form.
    """
    host, colon, port = text.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise ValueError(f"{text!r}: an IPv6 address goes in brackets: [::1]:9797")
    if not colon or not (port.isascii() and port.isdigit()) or int(port) > 65535:
        raise ValueError(f"{text!r} is not host:port")
    return Address(host, int(port))


def listen(address: Address) -> socket.socket:
    """Open a listening socket.

    Raises:
        ListenError: the port is taken, or the address is not of this machine.
    """
    try:
        if not address.host and socket.has_dualstack_ipv6():
            opened = socket.create_server(
                ("", address.port),
                family=socket.AF_INET6,
                dualstack_ipv6=True,
                backlog=_BACKLOG,
            )
        else:
            family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
            opened = socket.create_server(
                (address.host, address.port), family=family, backlog=_BACKLOG
            )
    except OSError as error:
        raise ListenError(
            f"cannot listen on {address}: {_why(error)}; --web.listen-address names another"
        ) from None
    # Accepted sockets inherit it. asyncio sets it only where a socket's protocol number is
    # given, which it is not here, and an answer in two writes would wait 40 ms for an ACK.
    opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return opened


def _why(error: OSError) -> str:
    """Say it in the system's words: Python adds the address, as it writes tuples."""
    return os.strerror(error.errno).lower() if error.errno and error.errno > 0 else str(error)


class WebServer:
    """Serves an application on sockets that listen already."""

    def __init__(
        self,
        application: ASGIApp,
        sockets: list[socket.socket],
        limited: Limited,
        most: int = MOST_CONNECTIONS,
        tls: Context | None = None,
    ) -> None:
        """Make one for so many connections at most."""
        self._sockets = sockets
        self._server = _Server(
            uvicorn.Config(
                application,
                http=Protocol if tls is None else EncryptedProtocol,
                ws="none",
                lifespan="off",
                access_log=False,
                log_config=None,
                proxy_headers=False,
                server_header=False,
                headers=_HEADERS,
                timeout_keep_alive=REST_SECONDS,
                timeout_graceful_shutdown=STOP_SECONDS,
            ),
            limited,
            most,
            tls,
        )
        logging.getLogger("uvicorn.error").addFilter(_is_a_fault)

    @property
    def connected(self) -> Connected:
        """Who is connected."""
        return self._server.connected

    async def run(self) -> None:
        """Serve until `stop`."""
        await self._server.serve(sockets=self._sockets)

    def stop(self) -> None:
        """Take no more requests; those under way have STOP_SECONDS."""
        self._server.should_exit = True

    async def end(self, serving: asyncio.Task[None]) -> None:
        """Stop, and wait until `serving`, which runs it, is over."""
        self.stop()
        await asyncio.gather(serving, return_exceptions=True)


class _Server(uvicorn.Server):
    """Signals are the app's business: it stops more than this server, and in order."""

    def __init__(
        self, config: uvicorn.Config, limited: Limited, most: int, tls: Context | None
    ) -> None:
        super().__init__(config)
        config.load()
        config.ssl = self._tls = tls
        self.connected: Connected
        make = partial(
            Protocol if tls is None else EncryptedProtocol,
            lambda: self.connected,
            limited,
            config=config,
            server_state=self.server_state,
            app_state={},
        )
        connections = cast("set[Any]", self.server_state.connections)
        self.connected = Connected(make, connections, limited, most)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Take connections in ourselves: see accepting.py."""
        tls = self._tls
        distrusted = None if tls is None else tls.distrusted
        acceptors = [Acceptor(one, self.connected, tls, distrusted) for one in sockets or ()]
        self.servers = cast("list[asyncio.Server]", acceptors)  # they are closed, and no more
        for acceptor in acceptors:
            acceptor.start()
        self.started = True

    async def on_tick(self, counter: int) -> bool:
        """Do what is to be done every tenth of a second."""
        if counter % 10 == 0:
            self.connected.look()
        return await super().on_tick(counter)


def _is_a_fault(record: logging.LogRecord) -> bool:
    """Leave out what clients do wrong: they are told so, and anybody could fill a disk with it.

    And the traceback of a request that a stop cut off: one line tells how many were.
    """
    if record.levelno <= logging.WARNING:
        return False
    return record.exc_info is None or not isinstance(record.exc_info[1], asyncio.CancelledError)
