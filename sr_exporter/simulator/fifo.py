"""A Management Interface by named pipes, as `mi_fifo` has it.

Recorded from 3.6, 4.0 and 4.1-dev; "(src)" was read in source. What a client has to survive
(facts on OpenSIPS, sections 1, 7, 9 and 12):

* A request is `:NAME:{json}` and a newline. Its answer comes to the FIFO of that name in
  `reply_dir`, of whatever size, and ends where that is closed.
* What is no JSON gets no answer at all, as a notification does. Valid JSON without a usable
  `method` kills the whole server, in all versions.
* One process answers, one request after the other; it takes what is in the pipe, at most 4096
  bytes, for whole requests, so that one in two writes is two that are no JSON (src).
* A name with a dot or a slash is refused, and what follows it passed over; a FIFO nobody reads
  is tried five times in 0.32 s, then its answer is dropped (src).
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import stat
import time
from typing import TYPE_CHECKING

from sr_exporter.simulator.servers import NO_COMMANDS, MiServer, has_no_method, unspoiled

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from sr_exporter.simulator.servers import Spoil
    from sr_exporter.wire.answers import Commands, SrView

#: What is read at a time (src).
READ_BYTES = 4096
#: How often, and how many seconds apart, it tries to open a FIFO that nobody reads (src).
TRIES = 5
RETRY_SECONDS = 0.08
#: The longest path of a reply FIFO, its closing NUL included (src).
LONGEST_PATH = 128
#: Said where the request's id spoils the answer (src).
UNPRINTABLE = b"failed to print response"


class MiFifo(MiServer):
    """`mi_fifo` at a path; clients make their reply FIFOs in `reply_dir`."""

    def __init__(
        self,
        node: SrView,
        path: Path,
        reply_dir: Path,
        *,
        clock: Callable[[], float] = time.time,
        on_request: Callable[[bytes], None] | None = None,
        delay: float = 0.0,
        spoil: Spoil = unspoiled,
        commands: Commands = NO_COMMANDS,
    ) -> None:
        super().__init__(
            node, clock=clock, on_request=on_request, delay=delay, spoil=spoil, commands=commands
        )
        self.path = path
        self.reply_dir = reply_dir
        self._reading: int | None = None
        self._holding: int

    @property
    def url(self) -> str:
        return f"fifo://{self.path}?reply_dir={self.reply_dir}"

    def _open(self) -> None:
        self.path.unlink(missing_ok=True)
        os.mkfifo(self.path, 0o660)
        self._reading = os.open(self.path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        # With a writer of our own the pipe has no end.
        self._holding = os.open(self.path, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        asyncio.get_running_loop().add_reader(self._reading, self._read, self._reading)

    def _close(self) -> None:
        if self._reading is not None:
            asyncio.get_running_loop().remove_reader(self._reading)
            os.close(self._reading)
            os.close(self._holding)
            self._reading = None

    def _tidy(self, *, keep_port: bool) -> None:  # noqa: ARG002 - a path needs no keeping
        self.path.unlink(missing_ok=True)

    def _read(self, reading: int) -> None:
        with contextlib.suppress(BlockingIOError):
            while True:
                self._take_lines(os.read(reading, READ_BYTES))

    def _take_lines(self, chunk: bytes) -> None:
        if not chunk.endswith(b"\n"):
            self.violations.append(f"a line in more than one write: {chunk!r}")
        for line in filter(None, map(bytes.lstrip, chunk.split(b"\n"))):
            before, name, body = [*line.split(b":", 2), b"", b""][:3]
            if before or not body:
                self.violations.append(f"not :name:request: {line!r}")
                return
            if fault := self._fault_of(name):
                self.violations.append(f"{fault}: {line!r}")
                return
            if not name:
                self.violations.append(f"no reply FIFO: {line!r}")
            self._take(os.fsdecode(name), body)

    def _fault_of(self, name: bytes) -> str | None:
        if any(forbidden in name for forbidden in b"./\\"):
            return "a reply FIFO elsewhere"
        if len(os.fsencode(self.reply_dir)) + 1 + len(name) + 1 > LONGEST_PATH:
            return "too long a path of a reply FIFO"
        return None

    def _dies_of(self, body: bytes) -> bool:
        return has_no_method(body)

    def _unparsed(self) -> None:
        return None

    def _unprintable(self) -> bytes:
        return UNPRINTABLE

    def _waits(self, client: str) -> bool:
        return bool(client) and (self.reply_dir / client).is_fifo()

    async def _send(self, client: str, answer: bytes) -> None:
        if not client:
            return
        try:
            descriptor = await self._opened(self.reply_dir / client)
            try:
                await _write(descriptor, answer)
            finally:
                os.close(descriptor)
        except OSError as error:
            self.failures.append(f"{len(answer)} bytes to {client}: {error.strerror}")

    async def _opened(self, path: Path) -> int:
        """Open a FIFO as its writer, and nothing else. Raises OSError."""
        for tries_left in reversed(range(TRIES)):
            try:
                descriptor = os.open(
                    path, os.O_WRONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC
                )
                break
            except OSError as error:
                if error.errno != errno.ENXIO or not tries_left:
                    raise
            await asyncio.sleep(RETRY_SECONDS)
        found = os.fstat(descriptor)
        if not stat.S_ISFIFO(found.st_mode) or found.st_nlink > 1:
            os.close(descriptor)
            raise OSError(errno.EINVAL, "It is no FIFO of one name")
        return descriptor


async def _write(descriptor: int, answer: bytes) -> None:
    """Write all, however slowly it is read."""
    loop = asyncio.get_running_loop()
    left = memoryview(answer)
    while left:
        with contextlib.suppress(BlockingIOError):
            left = left[os.write(descriptor, left) :]
            continue
        writable = asyncio.Event()
        loop.add_writer(descriptor, writable.set)
        try:
            await writable.wait()
        finally:
            loop.remove_writer(descriptor)
