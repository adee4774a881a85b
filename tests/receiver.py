"""A webhook receiver: takes what is posted, and answers as it is told."""

from __future__ import annotations

import contextlib
import json
import sys
import threading
import time
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ssl import SSLError
from typing import TYPE_CHECKING, Any, Self

from tests.ports import reserve_port

if TYPE_CHECKING:
    import ssl
    from collections.abc import Iterator
    from types import TracebackType


@dataclass(frozen=True, slots=True)
class Received:
    at: float
    delivery: str
    body: dict[str, Any]
    headers: dict[str, str]
    #: The body as it came.
    raw: bytes

    @property
    def identifier(self) -> str:
        return self.body["alerts"][0]["labels"].get("identifier", "")

    @property
    def status(self) -> str:
        return self.body["status"]


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say what went wrong, unless it is that a sender was killed, or does not trust us."""
        if not isinstance(sys.exception(), (ConnectionError, SSLError)):
            super().handle_error(request, client_address)


class Receiver:
    """`answers` are status codes, one a request; the last one stays. `tls`: it speaks HTTPS.

    `received` is every attempt. `accepted` is those whose 2xx was sent whole. Both are in the
    order in which they came. A sender may know of an answer before it is noted here: so who asks
    for `accepted` waits a moment while answers are under way.
    """

    def __init__(
        self,
        *answers: int,
        headers: dict[str, str] | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._tls = tls
        self._answers = list(answers) or [200]
        self._headers = headers or {}
        self.received: list[Received] = []
        self._accepted: set[int] = set()
        self._answering = 0
        self.changed = threading.Condition()

    def __enter__(self) -> Self:
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def do_POST(self) -> None:
                at = time.monotonic()
                size = int(self.headers["Content-Length"])
                body = self.rfile.read(size)
                if len(body) < size:
                    raise ConnectionResetError
                headers = dict(self.headers)
                delivery = headers.get("X-SR-Delivery", "")
                received = Received(at, delivery, json.loads(body), headers, body)
                with receiver.answering():
                    code = receiver.take(received)
                    self.send_response(code)
                    for name, value in receiver._headers.items():
                        self.send_header(name, value)
                    self.send_header("Content-Length", "0")
                    self.end_headers()
                    receiver.answered(received, code)

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        self._handler = Handler
        self._reserved = reserve_port()
        self.port = self._reserved.getsockname()[1]
        scheme = "https" if self._tls else "http"
        self.base = f"{scheme}://127.0.0.1:{self.port}"
        self.url = f"{self.base}/hook"
        self._server: ThreadingHTTPServer | None = None
        self.listen()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.refuse()
        self._reserved.close()

    def listen(self) -> None:
        """Take connections, again after `refuse`."""
        if self._server is None:
            self._server = _Server(("127.0.0.1", self.port), self._handler)
            if self._tls is not None:
                # The handshake is the connection's thread's, or one peer would stop all.
                self._server.socket = self._tls.wrap_socket(
                    self._server.socket, server_side=True, do_handshake_on_connect=False
                )
            self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
            self._thread.start()

    def refuse(self) -> None:
        """Refuse connections, as one that is not running."""
        if self._server is not None:
            self._server.shutdown()
            self._thread.join()
            self._server.server_close()
            self._server = None

    def answer(self, *answers: int) -> None:
        """Answer with these status codes from now on."""
        with self.changed:
            self._answers = list(answers)

    @contextlib.contextmanager
    def answering(self) -> Iterator[None]:
        """Answer a request; what is accepted is known when that is over."""
        with self.changed:
            self._answering += 1
        try:
            yield
        finally:
            with self.changed:
                self._answering -= 1
                self.changed.notify_all()

    def take(self, received: Received) -> int:
        """Note what came in whole; give the code of the answer."""
        with self.changed:
            code = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
            self.received.append(received)
            self.changed.notify_all()
            return code

    def answered(self, received: Received, code: int) -> None:
        """Note what was answered, after the answer has left."""
        if 200 <= code < 300:
            with self.changed:
                self._accepted.add(id(received))
                self.changed.notify_all()

    @property
    def accepted(self) -> list[Received]:
        with self.changed:
            self.changed.wait_for(lambda: not self._answering, 1.0)
            return [one for one in self.received if id(one) in self._accepted]

    def wait_for(self, count: int, within: float = 10.0) -> list[Received]:
        """Wait until so many were received; give all."""
        with self.changed:
            enough = self.changed.wait_for(lambda: len(self.received) >= count, within)
            assert enough, f"{len(self.received)} of {count} within {within} s"
            return list(self.received)
