"""Reads server-sent events as browsers do (WHATWG HTML, section 9.2.6), as far as they are sent."""

from __future__ import annotations

import json
import socket
from typing import TYPE_CHECKING, Any, NamedTuple, Self
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from types import TracebackType


class Event(NamedTuple):
    name: str
    id: str
    data: Any


class Events:
    """A stream that is listened to; `with` closes it."""

    def __init__(self, base: str, query: str = "", *, within: float = 10.0, **headers: str) -> None:
        target = urlsplit(base)
        self.socket = socket.create_connection((target.hostname or "", target.port or 0), within)
        lines = [f"GET /api/v1/changes{query} HTTP/1.1", "Host: x", "Accept: text/event-stream"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        self.socket.sendall("\r\n".join([*lines, "", ""]).encode())
        self._input = self.socket.makefile("rb")
        self.status = int(self._input.readline().split()[1])
        self.headers: dict[str, str] = {}
        while line := self._input.readline().strip():
            name, _, value = line.decode("latin-1").partition(":")
            self.headers[name.lower()] = value.strip()
        #: The last that was seen, as a browser would send it to go on.
        self.last_id = ""
        self.comments: list[str] = []
        self._left = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._input.close()
        self.socket.close()

    def next(self) -> Event | None:
        """Wait for one more; None when the stream has ended as an answer ends that is whole."""
        while True:
            block, found, rest = self._left.partition("\n\n")
            if not found:
                chunk = self._chunk()
                if chunk is None:
                    assert not self._left, "it ends amid an event"
                    return None
                self._left += chunk.decode("utf-8")
                continue
            self._left = rest
            if (event := self._event(block)) is not None:
                return event

    def _event(self, block: str) -> Event | None:
        name, data = "message", []
        for line in block.split("\n"):
            field, _, value = line.partition(":")
            value = value.removeprefix(" ")
            match field:
                case "":
                    self.comments.append(value)
                case "event":
                    name = value
                case "data":
                    data.append(value)
                case "id":
                    self.last_id = value
                case _:
                    assert field == "retry", line
        return Event(name, self.last_id, json.loads("\n".join(data))) if data else None

    def _chunk(self) -> bytes | None:
        size = int(self._input.readline(), 16)
        chunk = self._input.read(size)
        assert self._input.readline() == b"\r\n"
        return chunk or None

    def to_the_end(self) -> int:
        """Take all there is to come; give how many events it was."""
        found = 0
        while self.next() is not None:
            found += 1
        return found
