"""A peer that answers HTTP requests from a list, whatever they are."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.peer import Peer

ACCEPTED = b'{"accepted":1,"changed":1}'


def answer(status: int, body: bytes = b"", **headers: str) -> bytes:
    """Write an answer; `_` in the name of a header is a hyphen."""
    lines = [f"HTTP/1.1 {status} Whatever", f"Content-Length: {len(body)}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode() + body


def answers(*parts: bytes | None) -> Callable[[Peer, socket.socket], None]:
    """Answer one request after the other, on however many connections; the last answer stays.

    None resets the connection instead.
    """

    def script(peer: Peer, connection: socket.socket) -> None:
        while True:
            peer.read_request(connection)
            part = parts[min(len(peer.requests), len(parts)) - 1]
            if part is None:
                return
            connection.sendall(part)

    return script


def loses_the_first_answer(port: int) -> Callable[[Peer, socket.socket], None]:
    """Pass requests on to a port of this machine, and hang up instead of the first answer."""

    def script(peer: Peer, connection: socket.socket) -> None:
        while True:
            request = peer.read_request(connection)
            with socket.create_connection(("127.0.0.1", port), timeout=10) as onward:
                onward.sendall(request)
                taken = onward.recv(65536)
            if len(peer.requests) == 1:
                return
            connection.sendall(taken)

    return script
