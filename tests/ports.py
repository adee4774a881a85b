"""A port that stays the same over many lives of who listens on it."""

from __future__ import annotations

import socket


def reserve_port() -> socket.socket:
    """Bind a free port of 127.0.0.1; as long as this is open, nobody gets it by chance.

    Who asks for it by its number listens on it; while nobody does, connections are refused. A
    port that is merely free is soon that of a connection, and its listener cannot come back.
    """
    holder = socket.socket()
    holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    holder.bind(("127.0.0.1", 0))
    return holder
