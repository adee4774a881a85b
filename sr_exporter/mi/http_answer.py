"""One HTTP answer, from bytes to a body. No I/O.

It is judged as soon as its status line is there: what comes with another status than 200 may
never end (facts on OpenSIPS, section 8), and its body is not looked at.
"""

from __future__ import annotations

from typing import NamedTuple

import httptools

from sr_exporter.errors import MiError
from sr_exporter.model import PollFailure

#: How long everything but the body may be. Its parts are kept until the head is whole.
HEAD_BYTES = 64 * 1024


class Answer(NamedTuple):
    status: int
    #: Empty unless the status is 200.
    body: bytes
    #: Whether the connection may be asked again.
    reusable: bool


class _MoreThanAskedError(Exception):
    """Another answer begins, to a request that nobody made."""


class AnswerReader:
    """Takes the bytes of one answer as they come."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._parser = httptools.HttpResponseParser(self)
        self._taken_bytes = 0
        #: None until the status line is whole; never that of an interim answer.
        self._status: int | None = None
        self._in_body = False
        self._coding = b""
        self._ends_by_itself = False
        self._body: list[bytes] = []
        self._body_bytes = 0
        self._whole = False
        self._reusable = False

    @property
    def whole(self) -> bool:
        return self._whole

    def feed(self, data: bytes) -> Answer | None:
        """Take more bytes; give the answer once nothing more of it is wanted.

        Raises:
            MiError: it is no answer, is too long, or is packed.
        """
        self._taken_bytes += len(data)
        broken = None
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            broken = error
        if self._status not in (None, 200):
            return Answer(self._status, b"", reusable=False)
        if self._body_bytes > self._limit_bytes or (
            self._in_body and self._taken_bytes > self._limit_bytes + HEAD_BYTES
        ):
            said = f"the answer is longer than {self._limit_bytes} bytes"
            raise MiError(PollFailure.TOO_BIG, said)
        if self._coding:
            coding = self._coding.decode("ascii", "backslashreplace")[:40]
            raise MiError(PollFailure.MALFORMED, f"the answer is packed, unasked: {coding}")
        if self._whole:
            return Answer(200, b"".join(self._body), self._reusable and broken is None)
        if broken is not None:
            raise MiError(PollFailure.MALFORMED, f"not HTTP: {broken}")
        if not self._in_body and self._taken_bytes > HEAD_BYTES:
            said = f"not HTTP: over {HEAD_BYTES} bytes of headers"
            raise MiError(PollFailure.MALFORMED, said)
        return None

    def end(self) -> Answer:
        """Take the end of the connection; it ends a body that has no other end.

        Raises:
            MiError: it is too early.
        """
        if self._in_body and not self._ends_by_itself:
            return Answer(200, b"".join(self._body), reusable=False)
        if not self._taken_bytes:
            raise MiError(PollFailure.CONNECT, "the connection was closed without an answer")
        raise MiError(PollFailure.MALFORMED, "the answer ends before its end")

    # --- what httptools calls ------------------------------------------------------------------

    def on_message_begin(self) -> None:
        if self._status is not None:  # also where that one was refused: it stays so
            raise _MoreThanAskedError

    def on_status(self, _: bytes) -> None:
        self._judge()

    def on_header(self, name: bytes, value: bytes) -> None:
        self._judge()
        if self._in_body:
            return  # a trailer, which nobody needs
        value = value.strip().lower()
        match name.lower():
            case b"content-length":
                self._ends_by_itself = True
            case b"transfer-encoding" if value == b"chunked":
                self._ends_by_itself = True
            case b"transfer-encoding" | b"content-encoding" if value != b"identity":
                self._coding = value

    def on_headers_complete(self) -> None:
        self._judge()
        self._in_body = self._status == 200

    def on_body(self, body: bytes) -> None:
        self._body_bytes += len(body)
        if self._in_body and self._body_bytes <= self._limit_bytes:
            self._body.append(body)

    def on_message_complete(self) -> None:
        self._whole = self._status == 200
        self._reusable = self._whole and self._parser.should_keep_alive()

    def _judge(self) -> None:
        """Note the status, whose line is over by now; `100 Continue` and the like are passed by."""
        status = self._parser.get_status_code()
        if status == 101 or status >= 200:
            self._status = status
