"""The HTTP server: uvicorn on sockets of ours, stopped by us."""

from __future__ import annotations

import contextlib
import os
import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING

import uvicorn

from sr_exporter.errors import ListenError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from starlette.applications import Starlette

#: How long requests under way may take at a stop.
STOP_SECONDS = 5
_BACKLOG = 2048


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

    def __init__(self, application: Starlette, sockets: list[socket.socket]) -> None:
        self._sockets = sockets
        self._server = _Server(
            uvicorn.Config(
                application,
                http="httptools",
                ws="none",
                lifespan="off",
                access_log=False,
                log_config=None,
                proxy_headers=False,
                server_header=False,
                timeout_graceful_shutdown=STOP_SECONDS,
            )
        )

    async def run(self) -> None:
        """Serve until `stop`."""
        await self._server.serve(sockets=self._sockets)

    def stop(self) -> None:
        """Take no more requests; those under way have STOP_SECONDS."""
        self._server.should_exit = True


class _Server(uvicorn.Server):
    """Signals are the app's business: it stops more than this server, and in order."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield
