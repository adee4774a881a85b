"""Events over TCP, from OpenSIPS' event_stream: one JSON-RPC object after the other.

The objects of one read are applied as one batch, in order. In `reliable_mode` each is a request,
and is answered once it is kept. While a few batches of a connection wait for that, no more is read
from it.

Answers go out one by one, a moment apart. event_stream reads them into a buffer whose care of what
follows the first one is faulty: what it freed after two answers in one read it writes to, and
frees again, when two come in one read once more (stream_send.c, `handle_reply_jsonrpc`). That ends
the whole server.
"""

from __future__ import annotations

import asyncio
import socket
from collections import deque
from typing import TYPE_CHECKING, NamedTuple, cast

from sr_exporter import accepting
from sr_exporter.accepting import Acceptor
from sr_exporter.limits import Limit
from sr_exporter.model import Rejection, Way
from sr_exporter.sources.intake import STOP_SECONDS, not_kept
from sr_exporter.sources.senders import plain
from sr_exporter.sources.unfinished import Pool, Unfinished
from sr_exporter.wire import events as wire
from sr_exporter.wire.framing import Broken, Objects
from sr_exporter.wire.text import Undecodable

if TYPE_CHECKING:
    from sr_exporter.model import Statement
    from sr_exporter.sources.intake import Intake
    from sr_exporter.sources.senders import Senders

#: An unfinished object may be so long. OpenSIPS' events are some 200 bytes.
LIMIT_BYTES = 64 * 1024
#: How much is read at once: what is applied without a pause for others.
READ_BYTES = 32 * 1024
#: So many batches of a connection may wait to be kept.
MOST_BATCHES = 4
#: So many bytes of answers of a connection may wait to go out.
MOST_ANSWER_BYTES = 256 * 1024
#: And of one that brought no event that was taken.
MOST_UNPROVEN_BYTES = 4 * 1024
#: From one answer to the next.
ANSWER_SECONDS = 0.002
MOST_CONNECTIONS = 10_000
BACKLOG = 2048
_OPTIONS = (
    # An answer must not wait for the next one.
    (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),
    # And nobody needs room for many.
    (socket.SOL_SOCKET, socket.SO_SNDBUF, 64 * 1024),
)
#: How the names of OpenSIPS' events begin; a name of a source that begins so is one all the same.
_EVENTS = "E_"
#: JSON-RPC's own codes, and its first that is free for servers.
_INVALID_PARAMS, _SERVER_ERROR = -32602, -32000


def most_connections() -> int:
    """Give how many connections there may be: a quarter of our descriptors at most."""
    files = accepting.files()
    if files is None:
        return MOST_CONNECTIONS
    return max(1, min(MOST_CONNECTIONS, files // 4))


class EventStream:
    """One listening socket, and who is connected to it; implements `accepting.Host`."""

    #: Nobody reads what an event is refused with by us.
    busy = b""

    def __init__(self, intake: Intake, most: int | None = None) -> None:
        self.intake = intake
        self.senders: Senders | None = None
        self.most = most_connections() if most is None else most
        self._acceptor: Acceptor | None = None
        self._connections: set[Connection] = set()
        #: Those that never brought an event that was taken, the oldest first.
        self._unproven: dict[Connection, None] = {}
        self._all_gone: asyncio.Future[None] | None = None
        self.unfinished = Pool()
        #: What every connection is read into, one at a time.
        self.buffer = memoryview(bytearray(READ_BYTES))

    def __len__(self) -> int:
        return len(self._connections)

    def open(self, listening: socket.socket) -> None:
        """Take over a socket that listens; nobody is answered before `start`."""
        self._acceptor = Acceptor(listening, self)

    def start(self, senders: Senders) -> None:
        """Serve these senders, from now on."""
        self.senders = senders
        if self._acceptor is not None:
            self._acceptor.start()

    def close(self) -> None:
        """Listen no more; connections end when what they brought is kept and answered."""
        if self._acceptor is not None:
            self._acceptor.close()
            self._acceptor = None
        for connection in tuple(self._connections):
            connection.finish()

    def lost(self) -> bool:
        """Say no: a port stays where it is."""
        return False

    async def closed(self) -> None:
        """Wait until every connection is gone."""
        if self._connections:
            self._all_gone = asyncio.get_running_loop().create_future()
            await self._all_gone

    def protocol(self) -> Connection:
        return Connection(self)

    def has_room(self, expected: int, *, scarce: bool) -> bool:
        """Say whether one more is taken: for him one goes that never brought an event."""
        if not scarce and len(self._connections) + expected < self.most:
            return True
        limit = Limit.OPEN_FILES if scarce else Limit.EVENT_CONNECTIONS
        if self._make_room(limit):
            return True
        what = "connection refused: there are too many"
        self.intake.limited.met(limit, what, most=self.most, listener="events")
        return False

    def exhausted(self, error: OSError) -> None:
        what, why = "no connection can be taken in for now", accepting.reason(error)
        self.intake.limited.met(Limit.OPEN_FILES, what, error=why, listener="events")
        self._make_room(Limit.OPEN_FILES)

    def _make_room(self, limit: Limit) -> bool:
        if not self._unproven:
            return False
        oldest = next(iter(self._unproven))
        what = "connection closed to make room: it brought no event"
        self.intake.limited.met(limit, what, sender=oldest.peer, most=self.most)
        self.left(oldest)
        oldest.abort()
        return True

    def joined(self, connection: Connection) -> None:
        self._connections.add(connection)
        self._unproven[connection] = None

    def proven(self, connection: Connection) -> None:
        self._unproven.pop(connection, None)

    def left(self, connection: Connection) -> None:
        self._connections.discard(connection)
        self._unproven.pop(connection, None)
        if not self._connections and self._all_gone is not None and not self._all_gone.done():
            self._all_gone.set_result(None)


def _stranger(method: str) -> str:
    if method == wire.EVENT:
        return "the address is not in events.peers"
    return f"no source is called {method!r}"


class _Batch(NamedTuple):
    """What came in one read, and waits to be kept."""

    #: None: there was nothing to keep.
    kept: asyncio.Future[None] | None
    #: The ids to answer with, in order, and why what they came with was refused, if it was.
    asked: list[tuple[int | str, bytes | None]]


class Connection(asyncio.BufferedProtocol):
    """Reads one stream. Nothing in it waits: it is called, and returns."""

    def __init__(self, stream: EventStream) -> None:
        self._stream = stream
        self._intake = stream.intake
        self._objects = Objects(LIMIT_BYTES)
        self._batches: deque[_Batch] = deque()
        self._answers: deque[bytes] = deque()
        self._answer_bytes = 0
        self._pacing: asyncio.TimerHandle | None = None
        self._writable = True
        self._reading = True
        self._finishing = False
        self._proven = False
        self._transport: asyncio.Transport | None = None
        self._unfinished = Unfinished(stream.unfinished, self._late)
        self._address = ""
        self.peer = ""

    # --- what asyncio calls ----------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # What a server gives. uvloop's are of no class of asyncio's.
        self._transport = transport = cast("asyncio.Transport", transport)
        peer = transport.get_extra_info("peername")  # None: it is gone already
        if peer is not None:
            self._address = plain(peer[0])
            self.peer = f"{self._address} port {peer[1]}"
        if peer is None:
            self.abort()
            return
        self._stream.joined(self)
        connected = transport.get_extra_info("socket")
        for option in _OPTIONS:
            connected.setsockopt(*option)
        transport.set_write_buffer_limits(high=0)

    def get_buffer(self, sizehint: int) -> memoryview:
        del sizehint  # as much as may be applied without a pause
        return self._stream.buffer

    def buffer_updated(self, nbytes: int) -> None:
        data = bytes(self._stream.buffer[:nbytes])
        try:
            whole, broken = self._objects.feed(data), None
        except Broken as error:
            whole, broken = error.whole, error
        self._take(whole)
        if not self._unfinished.holds(self._objects.unfinished_bytes, anew=bool(whole)):
            self._intake.refuse(Way.TCP, Rejection.TOO_BIG, self.peer, "too much is unfinished")
            self.abort()
        if broken is not None:
            reason = Rejection.TOO_BIG if broken.too_big else Rejection.MALFORMED
            self._intake.refuse(Way.TCP, reason, self.peer, str(broken))
            self.finish()
        self._heed()

    def eof_received(self) -> bool:
        """Go on answering: who says nothing more may still listen."""
        if self._objects.unfinished_bytes:
            reason = "the stream ends within an object"
            self._intake.refuse(Way.TCP, Rejection.MALFORMED, self.peer, reason)
        self.finish()
        return True

    def pause_writing(self) -> None:
        self._writable = False  # what is owed grows, until no more is read

    def resume_writing(self) -> None:
        self._writable = True
        self._answer()

    def connection_lost(self, exc: Exception | None) -> None:
        del exc  # a lost one is like a closed one: what came of it is taken
        self._transport = None
        self._batches.clear()
        self._answers.clear()
        if self._pacing is not None:
            self._pacing.cancel()
        self._unfinished.end()
        self._stream.left(self)

    # --- ends ------------------------------------------------------------------------------

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def _late(self) -> None:
        what = "connection closed: an event took too long"
        self._intake.limited.met(Limit.EVENT_TIME, what, sender=self.peer)
        self.abort()

    def finish(self) -> None:
        """Read no more; end when all that came is kept and answered, or time is up."""
        if self._finishing:
            return
        self._finishing = True
        asyncio.get_running_loop().call_later(STOP_SECONDS, self.abort)
        self._heed()

    # --- events ----------------------------------------------------------------------------

    def _take(self, objects: list[bytes]) -> None:
        taken: list[Statement] = []
        asked: list[tuple[int | str, bytes | None]] = []
        for data in objects:
            try:
                event = wire.event(data)
            except Undecodable as error:
                self._refuse(Rejection.MALFORMED, wire.request_id(data), str(error), asked)
                continue
            senders = self._stream.senders
            source = senders.over_tcp(event.method, self._address) if senders else None
            if source is None and event.method.startswith(_EVENTS) and event.method != wire.EVENT:
                said = f"another event: {event.method}"
                self._refuse(Rejection.MALFORMED, event.id, said, asked)
                continue
            if source is None:
                self._refuse(Rejection.UNKNOWN_PEER, event.id, _stranger(event.method), asked)
                continue
            taken.append(event.params.statement(source, Way.TCP))
            if event.id is not None:
                asked.append((event.id, None))
        if taken:
            self._proven = True
            self._stream.proven(self)
        kept = self._intake.take(taken) if taken else None
        if kept is not None:
            kept.add_done_callback(self._kept)
        if kept is not None or asked:
            self._batches.append(_Batch(kept, asked))
            self._settle()

    def _refuse(
        self,
        reason: Rejection,
        request_id: int | str | None,
        said: str,
        asked: list[tuple[int | str, bytes | None]],
    ) -> None:
        self._intake.refuse(Way.TCP, reason, self.peer, said)
        if request_id is not None:
            malformed = reason is Rejection.MALFORMED
            code = _INVALID_PARAMS if malformed else _SERVER_ERROR
            asked.append((request_id, wire.refusal(request_id, code, said)))

    def _kept(self, kept: asyncio.Future[None]) -> None:
        not_kept(kept)  # heard also where nobody is to be answered any more
        self._settle()
        self._heed()

    def _settle(self) -> None:
        """Owe the answers to what is kept by now, in order."""
        while self._batches and ((kept := self._batches[0].kept) is None or kept.done()):
            error = None if kept is None else not_kept(kept)
            for request_id, refusal in self._batches.popleft().asked:
                if refusal is not None:
                    answer = refusal
                elif error is None:
                    answer = wire.answer(request_id)
                else:
                    answer = wire.refusal(request_id, _SERVER_ERROR, error)
                self._answers.append(answer)
                self._answer_bytes += len(answer)
        self._answer()

    # --- answers ---------------------------------------------------------------------------

    def _answer(self) -> None:
        """Write one answer, and see to the next."""
        if self._pacing is not None or not self._writable or self._transport is None:
            return
        if self._answers:
            answer = self._answers.popleft()
            self._answer_bytes -= len(answer)
            self._transport.write(answer)
            loop = asyncio.get_running_loop()
            self._pacing = loop.call_later(ANSWER_SECONDS, self._next_answer)
        self._heed()

    def _next_answer(self) -> None:
        self._pacing = None
        self._answer()

    def _heed(self) -> None:
        """Read, or do not, as what waits allows; end when that was asked for."""
        transport = self._transport
        if transport is None or transport.is_closing():
            return
        owed = MOST_ANSWER_BYTES if self._proven else MOST_UNPROVEN_BYTES
        read = (
            not self._finishing and len(self._batches) < MOST_BATCHES and self._answer_bytes < owed
        )
        if read and not self._reading:
            transport.resume_reading()
        elif not read and self._reading:
            transport.pause_reading()
        self._reading = read
        if self._finishing and not self._batches and not self._answers:
            transport.close()
