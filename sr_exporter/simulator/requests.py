"""HTTP requests out of the bytes of a connection, as far as an OpenSIPS reads them. No I/O."""

from __future__ import annotations

from typing import NamedTuple


class Malformed(ValueError):  # noqa: N818 - named for what was received
    """This is no HTTP."""


class Request(NamedTuple):
    method: str
    path: str
    #: By lower-case name.
    headers: dict[str, str]
    body: bytes
    #: By its version, or by `Connection: close`.
    wants_close: bool


class RequestReader:
    """Feed it bytes as they come; it gives whole requests, one after the other.

    A request whose body is longer than `limit` is never given, nor is any after it.
    """

    def __init__(self, *, limit: int) -> None:
        self._limit = limit
        self._buffer = bytearray()
        self._head: Request | None = None
        self._continue_due = False
        self._deaf = False

    @property
    def begun(self) -> bool:
        """Whether a part of a request is there, and the rest is not."""
        return self._head is not None or bool(self._buffer)

    @property
    def deaf(self) -> bool:
        """Whether a request was too long to be read."""
        return self._deaf

    def feed(self, data: bytes) -> None:
        if not self._deaf:
            self._buffer += data

    def must_say_continue(self) -> bool:
        """True once for each head that expects `100 Continue`, as soon as it was read."""
        due, self._continue_due = self._continue_due, False
        return due

    def next_request(self) -> Request | None:
        """Give the next request; None while it is not whole. Raises Malformed."""
        if self._head is None:
            head, end, _ = self._buffer.partition(b"\r\n\r\n")
            if not end:
                self._check_limit(len(self._buffer))
                return None
            self._head = _parse_head(bytes(head))
            del self._buffer[: len(head) + len(end)]
            self._continue_due = self._head.headers.get("expect", "").lower() == "100-continue"
        body = self._take_body(self._head)
        if body is None:
            return None
        request, self._head = self._head._replace(body=body), None
        return request

    def _take_body(self, head: Request) -> bytes | None:
        if head.headers.get("transfer-encoding", "").lower() == "chunked":
            return self._take_chunks()
        length = _number(head.headers.get("content-length", "0"), 10)
        if self._check_limit(length) or len(self._buffer) < length:
            return None
        body = bytes(self._buffer[:length])
        del self._buffer[:length]
        return body

    def _take_chunks(self) -> bytes | None:
        body = bytearray()
        position = 0
        while (line_end := self._buffer.find(b"\r\n", position)) >= 0:
            size = _number(self._buffer[position:line_end].partition(b";")[0].decode("latin-1"), 16)
            start, end = line_end + 2, line_end + 2 + size
            if self._check_limit(len(body) + size) or len(self._buffer) < end + 2:
                return None
            if self._buffer[end : end + 2] != b"\r\n":
                raise Malformed("a chunk is longer than it says, or there are trailers")
            body += self._buffer[start:end]
            position = end + 2
            if size == 0:
                del self._buffer[:position]
                return bytes(body)
        return None

    def _check_limit(self, length: int) -> bool:
        """Stop listening at all when this is more than can be taken."""
        if length > self._limit:
            self._deaf = True
            self._buffer.clear()
        return self._deaf


def _parse_head(head: bytes) -> Request:
    request_line, *lines = head.decode("latin-1").split("\r\n")
    try:
        method, path, version = request_line.split(" ")
    except ValueError:
        raise Malformed(f"no request line: {request_line!r}") from None
    headers: dict[str, str] = {}
    for line in lines:
        name, colon, value = line.partition(":")
        if not colon:
            raise Malformed(f"no header: {line!r}")
        headers[name.lower()] = value.strip()
    wants_close = version == "HTTP/1.0" or headers.get("connection", "").lower() == "close"
    return Request(method, path, headers, b"", wants_close)


def _number(text: str, base: int) -> int:
    text = text.strip()
    if not text.isascii() or not text.isalnum():
        raise Malformed(f"no length: {text!r}")
    try:
        return int(text, base)
    except ValueError:
        raise Malformed(f"no length: {text!r}") from None
