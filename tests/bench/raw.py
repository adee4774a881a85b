"""HTTP over a bare socket: what is timed is the program that answers, not a client library."""

from __future__ import annotations

import socket
import time
import zlib
from typing import NamedTuple

_PIECE = bytearray(1 << 20)


class Got(NamedTuple):
    seconds: float
    #: Head and body, as they came.
    answer: bytes

    @property
    def body(self) -> bytes:
        """The body, out of its chunks."""
        head, _, rest = self.answer.partition(b"\r\n\r\n")
        if b"transfer-encoding: chunked" not in head.lower():
            return rest
        pieces: list[bytes] = []
        at = 0
        while True:
            end = rest.index(b"\r\n", at)
            size = int(rest[at:end], 16)
            if not size:
                return b"".join(pieces)
            pieces.append(rest[end + 2 : end + 2 + size])
            at = end + 2 + size + 2

    @property
    def text(self) -> bytes:
        """The body, decompressed; one gzip member, as curl reads it."""
        reader = zlib.decompressobj(wbits=31)
        text = reader.decompress(self.body) + reader.flush()
        if not reader.eof or reader.unused_data:
            raise RuntimeError("the answer is not one whole gzip member")
        return text


def get(port: int, path: str = "/metrics") -> Got:
    """Ask for gzip, over a connection of its own; timed from connecting to the last byte."""
    request = f"GET {path} HTTP/1.1\r\nHost: localhost\r\nAccept-Encoding: gzip\r\n"
    began = time.perf_counter()
    pieces = []
    with socket.create_connection(("127.0.0.1", port), timeout=600) as connection:
        connection.sendall(f"{request}Connection: close\r\n\r\n".encode())
        while size := connection.recv_into(_PIECE):
            pieces.append(bytes(memoryview(_PIECE)[:size]))
    took = time.perf_counter() - began
    answer = b"".join(pieces)
    if not answer.startswith(b"HTTP/1.1 200"):
        raise RuntimeError(f"{path} was answered {answer[:200]!r}")
    return Got(took, answer)
