"""A webhook receiver: takes what is posted, and answers as it is told."""

from __future__ import annotations

import json
import threading
import time
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from types import TracebackType


@dataclass(frozen=True, slots=True)
class Received:
    at: float
    delivery: str
    body: dict[str, Any]
    headers: dict[str, str]

    @property
    def identifier(self) -> str:
        return self.body["alerts"][0]["labels"].get("identifier", "")

    @property
    def status(self) -> str:
        return self.body["status"]


class Receiver:
    """`answers` are status codes, one a request; the last one stays."""

    def __init__(self, *answers: int, headers: dict[str, str] | None = None) -> None:
        self._answers = list(answers) or [200]
        self._headers = headers or {}
        self.received: list[Received] = []
        self.changed = threading.Condition()

    def __enter__(self) -> Self:
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def do_POST(self) -> None:
                at = time.monotonic()
                body = self.rfile.read(int(self.headers["Content-Length"]))
                code = receiver.take(at, dict(self.headers), json.loads(body))
                self.send_response(code)
                for name, value in receiver._headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}/hook"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def take(self, at: float, headers: dict[str, str], body: dict[str, Any]) -> int:
        with self.changed:
            code = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
            self.received.append(Received(at, headers.get("X-SR-Delivery", ""), body, headers))
            self.changed.notify_all()
            return code

    def wait_for(self, count: int, within: float = 10.0) -> list[Received]:
        """Wait until so many were received; give all."""
        with self.changed:
            enough = self.changed.wait_for(lambda: len(self.received) >= count, within)
            assert enough, f"{len(self.received)} of {count} within {within} s"
            return list(self.received)
