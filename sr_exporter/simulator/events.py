"""Events of a simulated OpenSIPS: what its event_stream, event_datagram and script send.

Recorded from 3.6, 4.0 and 4.1-dev; "(src)" was read in source. What a listener has to survive
(facts on OpenSIPS, section 2):

* Over tcp one object follows the other on one connection, with nothing between them. It is made
  for the first event, and for the next one after it broke; one process makes all of them, and
  waits for each (src). In `reliable_mode` events have ids, and answers are awaited.
* Over udp and unix each is a datagram. Those of `core` are lost: who raises them has no socket.
* A script's `rest_post` comes from other processes: two may come in the wrong order.
* What cannot be delivered is lost, and never sent again.

Nothing here is left to chance: while `holding`, what would be sent is held, and whoever runs the
server decides what of it is sent, when, and in which order.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import os
import socket as sockets
import time
from typing import TYPE_CHECKING, NamedTuple, cast
from urllib.parse import urlsplit

from sr_exporter.simulator.subscriptions import Socket, Subscriptions, parse_socket
from sr_exporter.wire.events import EVENT, notification, posted
from sr_exporter.wire.framing import Objects

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from sr_exporter.simulator.node import SimulatedNode
    from sr_exporter.wire.answers import Commands
    from sr_exporter.wire.events import EventParams

#: The ids of `reliable_mode` are those of the process that raises: the attendant's, and all
#: others' (recorded: 4.1-dev, events-reliable).
_ATTENDANT_ID, _ATTENDANT_STEP = 4, 4
_FIRST_ID, _ID_STEP = 804_123_421, -4
#: rest_client's `curl_timeout`, in seconds.
_POST_SECONDS = 20.0
_LONGEST_ANSWER_BYTES = 65_536


class Letter(NamedTuple):
    """One event, on its way to one listener."""

    #: A socket that is subscribed, or the URL that the script posts to.
    to: Socket | str
    data: bytes
    change: EventParams
    #: In `reliable_mode`.
    id: int | None = None


class Events:
    """Raises the events of one node, from `start` to `stop`, in the running loop.

    Its `commands` are to be answered by the node's Management Interface.
    """

    def __init__(
        self,
        node: SimulatedNode,
        *,
        clock: Callable[[], float] = time.time,
        reliable: bool = False,
        event_param: str | None = None,
        script: Sequence[str] = (),
        post_to: str | None = None,
        knows_named: bool = True,
    ) -> None:
        """`script` holds the sockets that its `startup_route` subscribes, for ever; `post_to` is
        the URL that its `event_route` posts to.
        """
        self.subscriptions = Subscriptions(knows_named=knows_named)
        #: While true nothing is sent: it is `held`.
        self.holding = False
        self.held: list[Letter] = []
        #: How many letters the kernel took.
        self.sent = 0
        #: Letters that were lost, and why.
        self.failures: list[str] = []
        #: Ids of `reliable_mode` that no answer came to, in the order of sending.
        self.unanswered: list[int] = []
        self._clock = clock
        self._reliable = reliable
        self._event_param = event_param
        self._script = [parse_socket(text) for text in script]
        self._post_to = post_to
        self._attendant_id, self._id = _ATTENDANT_ID, _FIRST_ID
        self._streams: dict[tuple[str, int], _Stream] = {}
        self._datagrams: dict[str, sockets.socket] = {}
        self._workers: list[asyncio.Task[None]] = []
        self._streams_due: asyncio.Queue[Letter] = asyncio.Queue()
        self._posts_due: asyncio.Queue[Letter] = asyncio.Queue()
        node.on_change = self._raise

    @property
    def commands(self) -> Commands:
        return self.subscriptions.commands()

    async def start(self) -> None:
        """Raise events from now on, with no subscriptions but the script's."""
        for protocol, family in (("udp", sockets.AF_INET), ("unix", sockets.AF_UNIX)):
            made = sockets.socket(family, sockets.SOCK_DGRAM)
            made.setblocking(False)
            self._datagrams[protocol] = made
        for socket in self._script:
            self.subscriptions.subscribe(socket, None, self._clock())
        self._attendant_id, self._id = _ATTENDANT_ID, _FIRST_ID
        self._streams_due, self._posts_due = asyncio.Queue(), asyncio.Queue()
        self._workers = [
            asyncio.create_task(_each(self._streams_due, self._stream), name="event_stream"),
            asyncio.create_task(_each(self._posts_due, self._post), name="rest_post"),
        ]

    async def stop(self) -> None:
        """Lose subscriptions, connections and what was not sent, as a process that is killed."""
        for worker in self._workers:
            worker.cancel()
        for worker in self._workers:
            with contextlib.suppress(asyncio.CancelledError):
                await worker
        self._workers.clear()
        for stream in tuple(self._streams.values()):
            stream.abort()
        self._streams.clear()
        for made in self._datagrams.values():
            made.close()
        self._datagrams.clear()
        self.subscriptions.clear()
        self.held.clear()
        self.unanswered.clear()

    def deliver(self, *which: int) -> None:
        """Send what is held: all of it, or these, in this order; what is left out is lost."""
        letters = [self.held[index] for index in which] if which else list(self.held)
        self.held.clear()
        for letter in letters:
            self._send(letter)

    def lose(self) -> None:
        """Send nothing of what is held, ever."""
        self.held.clear()

    # --- raising

    def _raise(self, change: EventParams) -> None:
        if not self._workers:
            return
        letters = [self._letter(to, change) for to in self.subscriptions.live(self._clock())]
        if self._post_to is not None:  # the route subscribed before all others
            letters.append(Letter(self._post_to, posted(change), change))
        for letter in letters:
            if self.holding:
                self.held.append(letter)
            else:
                self._send(letter)

    def _letter(self, to: Socket, change: EventParams) -> Letter:
        if to.protocol != "tcp":
            return Letter(to, notification(change), change)
        request_id = self._next_id(change) if self._reliable else None
        data = notification(
            change,
            method=to.method or EVENT,
            request_id=request_id,
            event_param=self._event_param,
        )
        return Letter(to, data, change, request_id)

    def _next_id(self, change: EventParams) -> int:
        if change.group == "core":
            given, self._attendant_id = self._attendant_id, self._attendant_id + _ATTENDANT_STEP
        else:
            given, self._id = self._id, self._id + _ID_STEP
        return given

    # --- sending

    def _send(self, letter: Letter) -> None:
        if isinstance(letter.to, str):
            self._posts_due.put_nowait(letter)
        elif letter.to.protocol == "tcp":
            self._streams_due.put_nowait(letter)
        else:
            self._send_datagram(letter, letter.to)

    def _send_datagram(self, letter: Letter, to: Socket) -> None:
        if letter.change.group == "core":
            self._lost(letter, OSError(errno.ENOTSOCK, os.strerror(errno.ENOTSOCK)))
            return
        try:
            address = to.host if to.protocol == "unix" else (to.host, to.port)
            self._datagrams[to.protocol].sendto(letter.data, address)
        except OSError as error:
            self._lost(letter, error)
        else:
            self.sent += 1

    async def _stream(self, letter: Letter) -> None:
        to = cast("Socket", letter.to)
        address = (to.host, to.port)
        try:
            stream = self._streams.get(address) or await self._connected(address)
        except OSError as error:
            self._lost(letter, error)
            return
        if letter.id is not None:
            self.unanswered.append(letter.id)
        stream.write(letter.data)
        self.sent += 1

    async def _connected(self, address: tuple[str, int]) -> _Stream:
        loop = asyncio.get_running_loop()
        _, stream = await loop.create_connection(
            lambda: _Stream(self._answered, lambda broken: self._forget(address, broken)), *address
        )
        self._streams[address] = stream
        return stream

    def _forget(self, address: tuple[str, int], broken: _Stream) -> None:
        if self._streams.get(address) is broken:
            del self._streams[address]

    def _answered(self, answer: bytes) -> None:
        with contextlib.suppress(ValueError, KeyError, TypeError):
            self.unanswered.remove(json.loads(answer)["id"])

    async def _post(self, letter: Letter) -> None:
        url = cast("str", letter.to)
        try:
            async with asyncio.timeout(_POST_SECONDS):
                status = await _posted(url, letter.data)
        except (OSError, EOFError, ValueError) as error:
            self._lost(letter, error)
            return
        self.sent += 1
        if status != 200:
            self.failures.append(f"{url} answered {status} to {letter.data!r}")

    def _lost(self, letter: Letter, error: Exception) -> None:
        self.failures.append(f"{letter.to} was not sent {letter.data!r}: {error}")


class _Stream(asyncio.Protocol):
    """One connection of event_stream."""

    def __init__(self, answered: Callable[[bytes], None], lost: Callable[[_Stream], None]) -> None:
        self._answered = answered
        self._lost = lost
        self._answers = Objects(_LONGEST_ANSWER_BYTES)
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        self._lost(self)

    def eof_received(self) -> None:
        self._lost(self)

    def data_received(self, data: bytes) -> None:
        try:
            answers = self._answers.feed(data)
        except ValueError:  # it cannot be followed: the connection is given up (src)
            self.abort()
            return
        for answer in answers:
            self._answered(answer)

    def write(self, data: bytes) -> None:
        self._transport.write(data)

    def abort(self) -> None:
        self._transport.abort()


async def _each(due: asyncio.Queue[Letter], act: Callable[[Letter], Awaitable[None]]) -> None:
    while True:
        await act(await due.get())


async def _posted(url: str, body: bytes) -> int:
    """Post as the recorded script does, over a connection of its own; give the status."""
    parts = urlsplit(url)
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    head = (
        f"POST {target} HTTP/1.1\r\n"
        f"Host: {parts.netloc}\r\n"
        "Accept: */*\r\n"
        "Content-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    try:
        writer.write(head.encode() + body)
        status = await reader.readline()
        await reader.readuntil(b"\r\n\r\n")
        return int(status.split()[1])
    except IndexError:
        raise ValueError(f"no answer: {status!r}") from None
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
