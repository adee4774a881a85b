"""An OpenSIPS that answers with recorded bytes; the judge of all servers is its judge too."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from sr_exporter.simulator.judge import (
    TWO_CONNECTIONS,
    TWO_IN_FLIGHT,
    Violations,
    is_open,
    violations_of,
    violations_of_head,
)
from sr_exporter.simulator.requests import RequestReader

if TYPE_CHECKING:
    from types import TracebackType

RECORDINGS = Path(__file__).parent / "recordings"
HANG = b"<<TIMEOUT>>"
_COMMANDS = {
    "sr_list_status": "status-noparams",
    "sr_list_reports": "reports-noparams",
    "sr_list_identifiers": "ids-noparams",
    "version": "version",
    "uptime": "uptime",
}

_LISTINGS = ("sr_list_status", "sr_list_reports", "sr_list_identifiers")


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


def recorded_group(version: str, method: str, group: str) -> bytes:
    """Give what a listing of one group is answered with, cut out of the recorded whole."""
    whole = recorded(version, _COMMANDS[method])
    for said in json.loads(body_of(whole).decode("utf-8", "surrogateescape"))["result"]:
        if said.get("Name", said.get("Group")) == group:
            result = said if "Group" in said else said["Identifiers"]
            return with_body(whole, _json({"jsonrpc": "2.0", "result": result, "id": 1}))
    return _error(404, "Group not found", 1)


class ReplayMi:
    """Serves recorded answers by method, and writes down what no OpenSIPS should be sent.

    Answers are given verbatim but for the request's id, which real servers echo; a listing of
    one group is cut out of the recorded one of all. An answer
    that ends in `<<TIMEOUT>>` is given up to there, and then nothing: the connection hangs
    until the client closes it.
    """

    def __init__(
        self,
        version: str,
        answers: dict[str, list[bytes]] | None = None,
        *,
        to_all: bytes | None = None,
    ) -> None:
        """`answers` are given to requests for the whole; `to_all`, if set, to every request."""
        #: What each method is answered, one after the other; the last one stays.
        self._version = version
        self._to_all = to_all
        self.answers = {method: [recorded(version, name)] for method, name in _COMMANDS.items()} | (
            answers or {}
        )
        self.violations = Violations()
        self.asked: Counter[str] = Counter()
        self.hung_up_after: list[float] = []
        self._open: list[socket.socket] = []
        #: Those of them that asked, and have no answer yet.
        self._waiting: list[socket.socket] = []
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
            if any(is_open(other.fileno()) for other in self._open):
                self.violations.append(TWO_CONNECTIONS)
            self._open.append(connection)
        with connection, contextlib.suppress(OSError):  # a client may leave as it likes
            while (request := _read_request(connection)) is not None:
                if not self._answer(connection, request):
                    break
        with self._lock:
            self._open.remove(connection)

    def _answer(self, connection: socket.socket, request: _Received) -> bool:
        with self._lock:
            if any(is_open(other.fileno()) for other in self._waiting):
                self.violations.append(TWO_IN_FLIGHT)
            self._waiting.append(connection)
        method, params, request_id = self._judge(request)
        try:
            answers = self.answers.get(method)
            if self._to_all is not None:
                answer = self._to_all
            elif len(params) == 1 and method in _LISTINGS:
                answer = recorded_group(self._version, method, params[0])
            elif answers is None:
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
                self._waiting.remove(connection)
        connection.sendall(_with_id(answer, request_id))
        return True

    def _judge(self, request: _Received) -> tuple[str, list[Any], Any]:
        """Judge a request by what real servers survive; give its method, parameters and id."""
        self.violations.extend(violations_of_head(request.method, request.headers))
        self.violations.extend(violations_of(request.body))
        if not request.in_one_write:
            self.violations.append("a request in more than one write")
        try:
            said = json.loads(request.body)
            self.asked[said["method"]] += 1
            return said["method"], [*said.get("params", ())], said.get("id")
        except (ValueError, TypeError, KeyError):
            return "", [], None


class _Received(NamedTuple):
    method: str
    #: By lower-case name.
    headers: dict[str, str]
    body: bytes
    in_one_write: bool


def _read_request(connection: socket.socket) -> _Received | None:
    """Read one request; None when the client left instead."""
    reader = RequestReader(limit=65_536)
    reads = 0
    while (found := reader.next_request()) is None:
        more = connection.recv(65_536)
        if not more:
            return None
        reads += 1
        reader.feed(more)
    return _Received(found.method, found.headers, found.body, reads == 1 and not reader.begun)


def _with_id(answer: bytes, request_id: object) -> bytes:
    body = body_of(answer)
    if not body.endswith(b',"id":1}'):
        return answer
    return with_body(answer, body.removesuffix(b"1}") + json.dumps(request_id).encode() + b"}")


def _json(document: object) -> bytes:
    text = json.dumps(document, separators=(",", ":"), ensure_ascii=False)
    return text.encode("utf-8", "surrogateescape")


def _error(code: int, message: str, request_id: object) -> bytes:
    error = {"code": code, "message": message}
    body = _json({"jsonrpc": "2.0", "error": error, "id": request_id})
    return b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s" % (
        len(body),
        body,
    )
