"""A peer over TCP that misbehaves as a script says."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

OK = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 4\r\n\r\nfine"


class Peer:
    """Listens, and hands each connection to a script on a thread of its own."""

    def __init__(
        self, script: Callable[[Peer, socket.socket], None], host: str = "127.0.0.1"
    ) -> None:
        self._script = script
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._listener = socket.create_server((host, 0), family=family)
        self.port = self._listener.getsockname()[1]
        self.requests: list[bytes] = []
        self.connections = 0
        #: Set once the script has answered all it wants to.
        self.answered = threading.Event()
        #: Set once our side has closed the connection.
        self.hung_up = threading.Event()
        self.over = threading.Event()
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        threads = []
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                self.connections += 1
                threads.append(threading.Thread(target=self._talk, args=[connection]))
                threads[-1].start()
        for thread in threads:
            thread.join()

    def _talk(self, connection: socket.socket) -> None:
        connection.settimeout(30)
        with connection, contextlib.suppress(OSError):
            self._script(self, connection)
            self.answered.set()

    def close(self) -> None:
        self.over.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join()

    # --- what scripts do -------------------------------------------------------------------

    def read_request(self, connection: socket.socket) -> bytes:
        data = b""
        while b"\r\n\r\n" not in data:
            data += self._more(connection)
        head, _, body = data.partition(b"\r\n\r\n")
        (length,) = (
            int(line.partition(b":")[2])
            for line in head.split(b"\r\n")
            if line.lower().startswith(b"content-length:")
        )
        while len(body) < length:
            body += self._more(connection)
        self.requests.append(head + b"\r\n\r\n" + body)
        return self.requests[-1]

    def _more(self, connection: socket.socket) -> bytes:
        received = connection.recv(65536)
        if not received:
            raise ConnectionError("closed before the request's end")
        return received

    def wait_for_hang_up(self, connection: socket.socket) -> None:
        with contextlib.suppress(ConnectionError):
            while connection.recv(65536):
                pass
        self.hung_up.set()


def says(*parts: bytes) -> Callable[[Peer, socket.socket], None]:
    """Answer every request of a connection with these bytes, then wait for the hang-up."""

    def script(peer: Peer, connection: socket.socket) -> None:
        peer.read_request(connection)
        for part in parts:
            connection.sendall(part)
        peer.answered.set()
        peer.wait_for_hang_up(connection)

    return script


def trickles(
    start: bytes, drop: bytes, *, every: float = 0.02
) -> Callable[[Peer, socket.socket], None]:
    """Answer with a start, then with a drop again and again, so many seconds apart."""

    def script(peer: Peer, connection: socket.socket) -> None:
        peer.read_request(connection)
        try:
            connection.sendall(start)
            while not peer.over.wait(every):
                connection.sendall(drop)
        except ConnectionError:
            peer.hung_up.set()
            raise

    return script


def says_and_closes(answer: bytes) -> Callable[[Peer, socket.socket], None]:
    def script(peer: Peer, connection: socket.socket) -> None:
        peer.read_request(connection)
        connection.sendall(answer)

    return script


def resets(peer: Peer, connection: socket.socket) -> None:
    peer.read_request(connection)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def closes(peer: Peer, connection: socket.socket) -> None:
    peer.read_request(connection)


@contextlib.contextmanager
def many_peers() -> Iterator[Callable[..., Peer]]:
    """Make peers that are gone afterwards."""
    with contextlib.ExitStack() as stack:

        def make(script: Callable[[Peer, socket.socket], None], host: str = "127.0.0.1") -> Peer:
            peer = Peer(script, host)
            stack.callback(peer.close)
            return peer

        yield make
