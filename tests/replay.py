"""An OpenSIPS that answers with recorded bytes, and fails the test that would hurt a real one."""

from __future__ import annotations

import contextlib
import json
import select
import socket
import threading
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from types import TracebackType

RECORDINGS = Path(__file__).parent / "recordings"
HANG = b"<<TIMEOUT>>"
_COMMANDS = {
    "sr_list_status": "status-noparams",
    "sr_list_reports": "reports-noparams",
    "version": "version",
    "uptime": "uptime",
}


def recorded(version: str, name: str) -> bytes:
    """Give the bytes of one recorded answer."""
    return (RECORDINGS / version / "http" / f"{name}.res").read_bytes()


def body_of(answer: bytes) -> bytes:
    return answer.partition(b"\r\n\r\n")[2]


def with_body(answer: bytes, body: bytes) -> bytes:
    """Put another body into a recorded answer."""
    head, _, old = answer.partition(b"\r\n\r\n")
    length = b"Content-Length: %d"
    assert length % len(old) in head
    return head.replace(length % len(old), length % len(body)) + b"\r\n\r\n" + body


class ReplayMi:
    """Serves recorded answers by method, and writes down what no OpenSIPS should be sent.

    Answers are given verbatim but for the request's id, which real servers echo. An answer
    that ends in `<<TIMEOUT>>` is given up to there, and then nothing: the connection hangs
    until the client closes it.
    """

    def __init__(self, version: str, answers: dict[str, list[bytes]] | None = None) -> None:
        #: What each method is answered, one after the other; the last one stays.
        self.answers = {method: [recorded(version, name)] for method, name in _COMMANDS.items()} | (
            answers or {}
        )
        self.violations: list[str] = []
        self.asked: Counter[str] = Counter()
        self.hung_up_after: list[float] = []
        self._in_flight = 0
        self._open: list[socket.socket] = []
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port = self._server.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}/mi"
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._server.close()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._server.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with self._lock:
            if any(map(_is_open, self._open)):
                self.violations.append("a second connection at the same time")
            self._open.append(connection)
        with connection, contextlib.suppress(OSError):  # a client may leave as it likes
            buffer = b""
            while True:
                request, buffer = _read_request(connection, buffer)
                if request is None:
                    break
                if not self._answer(connection, *request):
                    break
        with self._lock:
            self._open.remove(connection)

    def _answer(self, connection: socket.socket, head: bytes, body: bytes) -> bool:
        with self._lock:
            self._in_flight += 1
            if self._in_flight > 1:
                self.violations.append("a second request in flight")
        method, request_id = self.inspect(head, body)
        try:
            answers = self.answers.get(method)
            if answers is None:
                answer = _error(-32601, "Method not found", request_id)
            else:
                answer = answers.pop(0) if len(answers) > 1 else answers[0]
            if answer.endswith(HANG):
                connection.sendall(answer.removesuffix(HANG))
                connection.settimeout(30)
                connection.recv(1)
                return False
        finally:
            # Before the answer is whole: who has it may ask again before we are back here.
            with self._lock:
                self._in_flight -= 1
        connection.sendall(_with_id(answer, request_id))
        return True

    def inspect(self, head: bytes, body: bytes) -> tuple[str, Any]:
        """Judge a request by what real servers survive; give its method and id."""
        if b"content-length:" not in head.lower():
            self.violations.append("a body without Content-Length")
        if b"content-type: application/json" not in head.lower():
            self.violations.append("no Content-Type: application/json")
        if len(body) > 1024:
            self.violations.append(f"a body of {len(body)} bytes")
        try:
            said = json.loads(body)
        except ValueError:
            self.violations.append(f"not JSON: {body!r}")
            return "", None
        if not isinstance(said, dict):
            self.violations.append(f"a batch, or no object: {body!r}")
            return "", None
        method, request_id = said.get("method"), said.get("id")
        if not isinstance(method, str):
            self.violations.append(f"no string method: {body!r}")
            return "", None
        if "id" not in said:
            self.violations.append(f"a notification: {body!r}")
        elif type(request_id) is not int or not 0 < request_id < 2**31:
            self.violations.append(f"no small integer id: {body!r}")
        if "params" in said and not (isinstance(said["params"], list) and said["params"]):
            self.violations.append(f"params that are no filled array: {body!r}")
        if method in ("subscribers_list", "evi:subscribers", "which"):
            self.violations.append(f"{method} was asked")
        self.asked[method] += 1
        return method, request_id


def _read_request(
    connection: socket.socket, buffer: bytes
) -> tuple[tuple[bytes, bytes] | None, bytes]:
    while b"\r\n\r\n" not in buffer:
        try:
            more = connection.recv(65536)
        except OSError:
            return None, b""
        if not more:
            return None, b""
        buffer += more
    head, _, rest = buffer.partition(b"\r\n\r\n")
    length = 0
    for line in head.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            length = int(value)
    while len(rest) < length:
        more = connection.recv(65536)
        if not more:
            return None, b""
        rest += more
    return (head, rest[:length]), rest[length:]


def _is_open(connection: socket.socket) -> bool:
    """Whether the client has not closed its end, be that noticed by the serving thread or not."""
    try:
        readable, _, _ = select.select([connection], [], [], 0)
        return not readable or connection.recv(1, socket.MSG_PEEK) != b""
    except (OSError, ValueError):
        return False


def _with_id(answer: bytes, request_id: object) -> bytes:
    body = body_of(answer)
    if not body.endswith(b',"id":1}'):
        return answer
    return with_body(answer, body.removesuffix(b"1}") + json.dumps(request_id).encode() + b"}")


def _error(code: int, message: str, request_id: object) -> bytes:
    body = json.dumps(
        {"jsonrpc": "2.0", "error": {"code": code, "message": message}, "id": request_id},
        separators=(",", ":"),
    ).encode()
    return b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s" % (
        len(body),
        body,
    )
