"""Those who hear a simulated OpenSIPS' events: a TCP, UDP or Unix socket, or an HTTP server."""

from __future__ import annotations

import contextlib
import socket
import threading
from typing import TYPE_CHECKING, Self

from sr_exporter.wire.framing import Objects
from tests.harness import eventually

if TYPE_CHECKING:
    from pathlib import Path


class Listener:
    """Takes what comes, on a thread; `with` begins and ends it. `address` is for subscribing."""

    address: str

    def __init__(self) -> None:
        #: What came, read by read, over all connections.
        self.reads: list[bytes] = []
        self._sockets: list[socket.socket] = []
        self._thread = threading.Thread(target=self._take, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        for one in self._sockets:
            with contextlib.suppress(OSError):  # its peer was faster
                one.shutdown(socket.SHUT_RDWR)
            one.close()
        self._thread.join(5)
        assert not self._thread.is_alive()

    @property
    def heard(self) -> bytes:
        return b"".join(self.reads)

    def hears(self, expected: bytes) -> None:
        """Wait for exactly these bytes, from the first on."""
        eventually(lambda: len(self.heard) >= len(expected))
        assert self.heard == expected

    def _take(self) -> None:
        raise NotImplementedError


class Datagrams(Listener):
    """Hears datagrams at a free port, or at a path."""

    def __init__(self, path: Path | None = None) -> None:
        super().__init__()
        self._own = socket.socket(
            socket.AF_INET if path is None else socket.AF_UNIX, socket.SOCK_DGRAM
        )
        self._own.bind(("127.0.0.1", 0) if path is None else str(path))
        self._own.settimeout(0.05)
        self._over = threading.Event()
        self.address = (
            f"udp:127.0.0.1:{self._own.getsockname()[1]}" if path is None else f"unix:{path}"
        )

    def __exit__(self, *error: object) -> None:
        self._over.set()
        super().__exit__()
        self._own.close()

    def _take(self) -> None:
        while not self._over.is_set():
            try:
                self.reads.append(self._own.recv(65536))
            except TimeoutError:
                continue


class Stream(Listener):
    """Hears connections at a port; it answers what comes, if told what with."""

    def __init__(self, port: int = 0, *, answer: bytes | None = None) -> None:
        super().__init__()
        self._server = socket.create_server(("127.0.0.1", port))
        self.port = self._server.getsockname()[1]
        self.address = f"tcp:127.0.0.1:{self.port}"
        self.connections = 0
        self._answer = answer
        self._sockets.append(self._server)

    def _take(self) -> None:
        while True:
            try:
                connection, _ = self._server.accept()
            except OSError:
                return
            self.connections += 1
            self._sockets.append(connection)
            threading.Thread(target=self._read, args=(connection,), daemon=True).start()

    def _read(self, connection: socket.socket) -> None:
        try:
            while more := connection.recv(65536):
                self.reads.append(more)
                if self._answer is not None:
                    connection.sendall(self._answer)
        except OSError:
            return

    def objects(self) -> list[bytes]:
        """Give what came, object by object."""
        return Objects(65_536).feed(self.heard)


class Posts(Stream):
    """Hears POSTs, one a connection, and answers each with 200."""

    def __init__(self, port: int = 0, *, status: int = 200) -> None:
        said = b"HTTP/1.1 %d Said\r\nContent-Length: 2\r\n\r\n{}" % status
        super().__init__(port, answer=said)
        self.url = f"http://127.0.0.1:{self.port}/"
