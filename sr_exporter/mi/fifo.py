"""MI over named pipes: OpenSIPS' mi_fifo.

A request is one line in one write, `:NAME:{json}`. Its answer comes to a FIFO of that name in
the module's `reply_dir`, which is ours, and ends where OpenSIPS closes it. It knows no limit of
size (facts on OpenSIPS, section 7). Nothing here blocks: what is opened is opened so that it
does not wait for the other end.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import stat
from typing import TYPE_CHECKING

from sr_exporter.errors import MiError
from sr_exporter.model import PollFailure

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sr_exporter.mi.places import Place

#: More than any listing that was ever seen: 100,000 registrants' reports are 30 MB.
LIMIT_BYTES = 64 * 2**20
_CHUNK = 65536


class FifoTransport:
    """Implements `Transport` for `fifo:///path`; `place` is the module's `reply_dir`."""

    name = "fifo"

    def __init__(self, path: str, place: Place, *, timeout_seconds: float) -> None:
        self._path = path
        self._place = place
        self._timeout_seconds = timeout_seconds

    async def ask(self, request: bytes) -> bytes:
        try:
            async with asyncio.timeout(self._timeout_seconds):
                return await self._ask(request)
        except TimeoutError:
            said = f"no whole answer within {self._timeout_seconds:g} s"
            raise MiError(PollFailure.TIMEOUT, said) from None
        except OSError as error:
            raise MiError(PollFailure.CONNECT, _why(error)) from None

    def rest(self) -> None:
        """Do nothing: nothing is open between requests."""

    async def _ask(self, request: bytes) -> bytes:
        with self._place.name() as reply:
            os.mkfifo(reply, 0o600)
            with _opened(reply, os.O_RDONLY) as answers:
                with _opened(self._path, os.O_WRONLY) as requests:
                    # Less than PIPE_BUF: it is written whole, or not at all.
                    line = b":" + os.fsencode(reply.name) + b":" + request + b"\n"
                    await _write(requests, line)
                return await _read(answers)


@contextlib.contextmanager
def _opened(path: str | os.PathLike[str], how: int) -> Iterator[int]:
    descriptor = os.open(path, how | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        if not stat.S_ISFIFO(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "is no FIFO")
        yield descriptor
    finally:
        os.close(descriptor)


async def _write(requests: int, line: bytes) -> None:
    while True:
        with contextlib.suppress(BlockingIOError):
            os.write(requests, line)
            return
        # Others' requests wait in it: OpenSIPS has not read them yet.
        loop = asyncio.get_running_loop()
        await _ready(requests, loop.add_writer, loop.remove_writer)


async def _read(answers: int) -> bytes:
    """Read until OpenSIPS has closed its end; before it opens it nothing is ready."""
    loop = asyncio.get_running_loop()
    taken: list[bytes] = []
    size = 0
    while True:
        await _ready(answers, loop.add_reader, loop.remove_reader)
        with contextlib.suppress(BlockingIOError):
            while chunk := os.read(answers, _CHUNK):
                size += len(chunk)
                if size > LIMIT_BYTES:
                    said = f"the answer is longer than {LIMIT_BYTES} bytes"
                    raise MiError(PollFailure.TOO_BIG, said)
                taken.append(chunk)
            return b"".join(taken)


async def _ready(
    descriptor: int, add: Callable[..., object], remove: Callable[[int], object]
) -> None:
    ready = asyncio.Event()
    add(descriptor, ready.set)
    try:
        await ready.wait()
    finally:
        remove(descriptor)


def _why(error: OSError) -> str:
    if error.errno == errno.ENXIO:
        return "nobody reads the FIFO: OpenSIPS is not running, or without mi_fifo"
    return (error.strerror or str(error)).lower()
