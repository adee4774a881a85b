"""Streams of server-sent events (WHATWG HTML, section 9.2), which never end by themselves.

A listener that takes nothing is waited for, and costs what the system buffers for him and no more;
after a while he is let go of. At a stop every stream ends as an answer does that is whole.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from sr_exporter.metrics.negotiation import prefers

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from starlette.requests import Request
    from starlette.types import Receive, Scope, Send

    from sr_exporter.journal import Listener, News

#: How often a quiet stream says that it is there: proxies close what is silent for a minute.
HEARTBEAT_SECONDS = 15.0
#: How soon a browser that lost a stream asks for it again.
_RETRY_MS = 1000
#: How long a listener may take nothing, and how long at a stop.
STUCK_SECONDS = 60.0
STOP_SECONDS = 1.0
_TYPE = "text/event-stream"
_HEADERS = [
    (b"content-type", _TYPE.encode()),
    (b"cache-control", b"no-store"),
    # nginx would hold events back until it has some kilobytes of them.
    (b"x-accel-buffering", b"no"),
]


#: In an ASGI scope's `extensions`: its `now` lets go of a connection, whatever is still to be sent.
ABORT = "sr_exporter.abort"


def accepts_stream(request: Request) -> bool:
    """Whether a request asks for events: none does by accident, not even by `*/*`."""
    accept = ", ".join(request.headers.getlist("accept")) or None
    return prefers(accept, _TYPE, "application/json")


class Stream:
    """An answer that goes on until its listener leaves, or the exporter stops."""

    def __init__(
        self, listen: Callable[[], Listener], write: Callable[[Sequence[News]], bytes]
    ) -> None:
        """`write` makes events of news, or nothing of what nobody asked for."""
        self._listen = listen
        self._write = write
        self._limit: asyncio.Timeout | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": _HEADERS})
        if scope["method"] == "HEAD":
            await send({"type": "http.response.body", "body": b""})
            return
        listener = self._listen()
        listener.hurry = self._hurry
        leaving = asyncio.create_task(_leaves(listener, receive))
        try:
            await self._tell(listener, send)
        except TimeoutError:
            scope["extensions"][ABORT]["now"]()
            await leaving
        finally:
            listener.leave()
            leaving.cancel()

    async def _tell(self, listener: Listener, send: Send) -> None:
        """Send what comes.

        Raises:
            TimeoutError: it is not taken.
        """
        loop = asyncio.get_running_loop()
        await self._send(send, b"retry: %d\n\n" % _RETRY_MS)
        told_at = loop.time()
        while not listener.ended:
            news = await listener.take(told_at + HEARTBEAT_SECONDS - loop.time())
            text = self._write(news)
            if not text and loop.time() >= told_at + HEARTBEAT_SECONDS:
                # He need not hear again of what he did not ask for.
                text = b": still here\nid: %d\n\n" % listener.seq
            if text:
                await self._send(send, text)
                told_at = loop.time()
            await listener.pause()  # neither taking nor sending need have taken any time
        await self._send(send, b"", more=False)

    async def _send(self, send: Send, body: bytes, *, more: bool = True) -> None:
        async with asyncio.timeout(STUCK_SECONDS) as self._limit:
            await send({"type": "http.response.body", "body": body, "more_body": more})
        self._limit = None

    def _hurry(self) -> None:
        if self._limit is not None and not self._limit.expired():
            self._limit.reschedule(asyncio.get_running_loop().time() + STOP_SECONDS)


async def _leaves(listener: Listener, receive: Receive) -> None:
    """Wait until a listener has gone away."""
    while (await receive())["type"] != "http.disconnect":
        pass
    listener.leave()
