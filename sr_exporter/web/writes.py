"""Sends the head of an answer and its body together.

uvicorn writes them one after the other, and either is a packet of its own that wakes the client:
of a short answer that is most of what it costs.
"""

from __future__ import annotations

import asyncio
from collections import deque
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import msgspec
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from sr_exporter.limits import Limit
from sr_exporter.web.connected import Phase, refusal
from sr_exporter.web.errors import Problem
from sr_exporter.web.stream import ABORT

if TYPE_CHECKING:
    from collections.abc import Callable

    from starlette.types import Receive, Scope, Send
    from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

    from sr_exporter.limited import Limited
    from sr_exporter.web.connected import Connected

#: What is as long is written as it comes: to copy it would cost more than another packet.
LONG_BYTES = 2**14
#: How long the head of a request may be, and its target in it: there are names in it, written as
#: URLs write them, and filters.
MOST_HEAD_BYTES, MOST_URL_BYTES = 2**16, 2**15
#: How many requests may come over a connection before the first of them is answered; how long a
#: connection may take to close.
MOST_PIPELINED, CLOSING_SECONDS = 64, 5.0
_WHY = {
    Limit.URL_BYTES: (414, f"the URL is longer than {MOST_URL_BYTES} bytes"),
    Limit.HEAD_BYTES: (431, f"the head of the request is longer than {MOST_HEAD_BYTES} bytes"),
}
_TOO_LONG = {
    limit: refusal(b"%d %b" % (status, HTTPStatus(status).phrase.encode()), why)
    for limit, (status, why) in _WHY.items()
}


class JoiningTransport(asyncio.Transport):
    """Gives a transport what a turn of the loop writes at once, in order."""

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__()
        self._transport = transport
        self._loop = loop
        self._pieces: list[bytes] = []
        self.get_extra_info = transport.get_extra_info  # type: ignore[method-assign]
        self.is_closing = transport.is_closing  # type: ignore[method-assign]
        self.pause_reading = transport.pause_reading  # type: ignore[method-assign]
        self.resume_reading = transport.resume_reading  # type: ignore[method-assign]
        self.set_protocol = transport.set_protocol  # type: ignore[method-assign]

    def write(self, data: bytes | bytearray | memoryview[Any]) -> None:
        if len(data) >= LONG_BYTES:
            self._flush()
            self._transport.write(data)
            return
        if not self._pieces:
            self._loop.call_soon(self._flush)
        self._pieces.append(bytes(data))

    def close(self) -> None:
        self._flush()
        self._transport.close()

    def abort(self) -> None:
        self._pieces.clear()
        self._transport.abort()

    def _flush(self) -> None:
        if self._pieces:
            pieces, self._pieces = self._pieces, []
            if not self._transport.is_closing():
                self._transport.write(b"".join(pieces))


class Protocol(HttpToolsProtocol):
    """uvicorn's, over such a transport; knows what it is at, and how much of a head it takes."""

    def __init__(self, host: Callable[[], Connected], limited: Limited, **named: Any) -> None:
        """`host` gives who is told when an answer waits to be taken."""
        super().__init__(**named)
        self._host = host
        self._limited = limited
        self.phase = Phase.HEAD
        self.since = self.loop.time()
        self.taken = 0
        self.stuck_since: float | None = None
        self.proven = False
        #: Requests that are not answered yet: the first is being answered, the others wait.
        self._asked: deque[RequestResponseCycle] = deque()
        #: How much came that neither a head that is whole nor a body was made of.
        self._loose = 0

    # --- what asyncio calls ----------------------------------------------------------------

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(JoiningTransport(transport, self.loop))
        self.since = self.loop.time()

    def data_received(self, data: bytes) -> None:
        self._loose += len(data)
        super().data_received(data)
        if self._loose > MOST_HEAD_BYTES and not self.transport.is_closing():
            url = getattr(self, "url", b"")  # none until a request begins
            limit = Limit.HEAD_BYTES if len(url) <= MOST_URL_BYTES else Limit.URL_BYTES
            self._too_long(limit)
            self.end(_TOO_LONG[limit])

    def pause_writing(self) -> None:
        super().pause_writing()
        self._host().waits(self)

    def resume_writing(self) -> None:
        self._host().waits_no_more(self)
        super().resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        self._host().waits_no_more(self)
        self.pipeline.clear()
        for cycle in self._asked:  # uvicorn tells the last one only
            cycle.disconnected = True
            cycle.message_event.set()
        self._asked.clear()
        super().connection_lost(exc)

    # --- what httptools calls --------------------------------------------------------------

    def on_message_begin(self) -> None:
        super().on_message_begin()
        # Who is sent something without end, and takes none of it, must be got rid of.
        self.scope["extensions"] = {ABORT: {"now": self.transport.abort}}
        if self.phase is Phase.REST:
            self.phase, self.since = Phase.HEAD, self.loop.time()

    def on_headers_complete(self) -> None:
        limit = None
        if len(self.url) > MOST_URL_BYTES:
            limit = Limit.URL_BYTES
        elif self._loose > MOST_HEAD_BYTES and _length(self.headers) > MOST_HEAD_BYTES:
            limit = Limit.HEAD_BYTES
        if limit is not None:
            self._too_long(limit)
            self.app = _Refusal(limit)
        self.phase, self.since, self.taken, self._loose = Phase.BODY, self.loop.time(), 0, 0
        super().on_headers_complete()
        self.proven = True
        self._asked.append(self.cycle)
        if len(self._asked) > MOST_PIPELINED:
            self._limited.met(
                Limit.PIPELINED, "connection closed: too many requests wait for their answers"
            )
            self.transport.abort()
            raise ValueError("too many requests at once")  # the rest of them is not read

    def on_body(self, body: bytes) -> None:
        self.taken += len(body)
        self._loose = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._loose = 0
        super().on_message_complete()
        if self._answered():  # before all of it had come
            self.phase, self.since = Phase.REST, self.loop.time()
        else:
            self.phase = Phase.ANSWER

    # --- what uvicorn calls ----------------------------------------------------------------

    def on_response_complete(self) -> None:
        if self._asked:
            self._asked.popleft()
        if self.phase is Phase.ANSWER and not self.pipeline:
            self.phase, self.since = Phase.REST, self.loop.time()
        super().on_response_complete()

    def send_400_response(self, msg: str) -> None:
        """Answer what is no HTTP as everything else that is not understood."""
        self.transport.write(refusal(b"400 Bad Request", msg))
        self.transport.close()

    # --- ends ------------------------------------------------------------------------------

    def is_outdated(self) -> bool:
        """Say whether it may not go on."""
        return False

    def end(self, last_words: bytes = b"") -> None:
        """End it: with last words where no answer is under way."""
        if self.stuck_since is None and not (self._asked and self._asked[0].response_started):
            self.transport.write(last_words)
            self.transport.close()
            # Who takes nothing of what is left must not keep it, and a descriptor, for ever.
            self.loop.call_later(CLOSING_SECONDS, self.transport.abort)
        else:
            self.transport.abort()

    def _answered(self) -> bool:
        """Say whether whatever was asked is answered."""
        return not self._asked

    def _too_long(self, limit: Limit) -> None:
        self._limited.met(limit, "request refused: its head is too long")


class _Refusal:
    """Answers a request that is whole and must not be read."""

    def __init__(self, limit: Limit) -> None:
        self._status, self._why = _WHY[limit]

    async def __call__(self, _: Scope, __: Receive, send: Send) -> None:
        body = msgspec.json.encode(Problem(self._why))
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", b"%d" % len(body)),
            (b"connection", b"close"),
        ]
        await send({"type": "http.response.start", "status": self._status, "headers": headers})
        await send({"type": "http.response.body", "body": body})


def _length(headers: list[tuple[bytes, bytes]]) -> int:
    return sum(len(name) + len(value) for name, value in headers)
