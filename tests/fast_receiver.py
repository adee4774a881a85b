"""A receiver for tests that measure: on a thread and a loop of its own, and as little as can be."""

from __future__ import annotations

import asyncio
import contextlib
import re
import threading
from typing import TYPE_CHECKING, Self

from tests.ports import reserve_port

if TYPE_CHECKING:
    from types import TracebackType

_HEAD_END = b"\r\n\r\n"


class FastReceiver:
    """Takes what is posted, hands it to `take`, and answers 200; `with` begins to listen.

    Until then connections are refused.
    """

    #: Whether one connection bears many requests.
    keeps_alive = True

    def __init__(self) -> None:
        self._reserved = reserve_port()
        self.port: int = self._reserved.getsockname()[1]
        self._listening = threading.Event()

    def take(self, head: bytes, body: bytes) -> None:
        """Note a request that came in whole. Called on the receiver's own thread."""
        raise NotImplementedError

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=asyncio.run, args=[self._serve()])
        self._thread.start()
        assert self._listening.wait(10)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()
        self._reserved.close()

    async def _serve(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        async with await asyncio.start_server(self._talk, "127.0.0.1", self.port):
            self._listening.set()
            await self._stop.wait()

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        goes_on = b"" if self.keeps_alive else b"Connection: close\r\n"
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = await reader.readuntil(_HEAD_END)
                (size,) = re.findall(rb"Content-Length: (\d+)", head)
                self.take(head, await reader.readexactly(int(size)))
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n" + goes_on + b"\r\n")
                await writer.drain()
                if not self.keeps_alive:
                    break
        writer.close()
