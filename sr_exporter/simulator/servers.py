"""What the servers of a simulated Management Interface have in common, HTTP's apart.

A server tells what no OpenSIPS should be sent, and dies of what kills a real one. Told to, it
refuses: it is late, silent, or sends less than the answer.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
import time
from abc import ABC, abstractmethod
from collections import Counter
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Protocol, TypeVar

from sr_exporter.simulator.judge import TWO_IN_FLIGHT, Violations, violations_of
from sr_exporter.wire.answers import answer_call
from sr_exporter.wire.calls import CallError, UnprintableId, encode_error, parse_call

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Hashable
    from types import TracebackType
    from typing import Self

    from sr_exporter.wire.answers import Commands, SrView

    #: What is sent instead of an answer; None for nothing.
    Spoil = Callable[[bytes], bytes | None]

T = TypeVar("T")

#: What mi_datagram says where it has no answer to send.
INTERNAL_ERROR = b"500 Internal error"
NO_COMMANDS: Commands = MappingProxyType({})
_PARSE_ERROR, _INVALID_REQUEST = -32700, -32600


# --- ways to refuse -----------------------------------------------------------------------


def unspoiled(answer: bytes) -> bytes:
    return answer


def silent_over(size: int) -> Spoil:
    """Send no answer that is longer."""
    return lambda answer: answer if len(answer) <= size else None


def cut_over(size: int) -> Spoil:
    """Send no more of an answer than that."""
    return lambda answer: answer[:size]


def error_over(size: int) -> Spoil:
    """Send an error instead of an answer that is longer."""
    return lambda answer: answer if len(answer) <= size else INTERNAL_ERROR


# --- what kills -----------------------------------------------------------------------------

_DECODER = json.JSONDecoder(parse_int=float, strict=False)


def has_no_method(body: bytes) -> bool:
    """Whether it is valid JSON, and no object with a text for a `method` (facts, section 9)."""
    try:
        parse_call(body)
    except CallError as error:
        if error.code == _INVALID_REQUEST:
            text = body.decode("utf-8", "surrogateescape").lstrip()
            document = _DECODER.raw_decode(text)[0]
            return not isinstance(document, dict) or not isinstance(document.get("method"), str)
    return False


# --- servers ------------------------------------------------------------------------------


class MiServer(ABC):
    """A server of one node in the running loop, and what it saw of its clients.

    `async with` starts and stops it. `delay`, in seconds, is how long an answer lies ready
    before it is sent, and `spoil` what becomes of it; both may be changed while it runs.
    `commands` are answered besides those of Status/Report.
    """

    #: Whether all requests are one exporter's, which should wait for each answer.
    one_client: ClassVar[bool] = True

    def __init__(
        self,
        node: SrView,
        *,
        clock: Callable[[], float] = time.time,
        on_request: Callable[[bytes], None] | None = None,
        delay: float = 0.0,
        spoil: Spoil = unspoiled,
        commands: Commands = NO_COMMANDS,
    ) -> None:
        self.delay = delay
        self.spoil = spoil
        #: What no OpenSIPS should be sent, as it came.
        self.violations = Violations()
        #: How often each method was asked.
        self.asked: Counter[str] = Counter()
        #: Requests of each client that are not answered, or given up, yet.
        self.in_flight: Counter[Hashable] = Counter()
        #: How many there were at a time at most, of all clients.
        self.most_in_flight = 0
        #: What killed it since it was started, if something did.
        self.killed_by: str | None = None
        #: Answers that could not be handed over, and why.
        self.failures: list[str] = []
        self._node = node
        self._clock = clock
        self._on_request = on_request
        self._commands = commands
        self._came: asyncio.Queue[tuple[Hashable, bytes]] = asyncio.Queue()
        self._answering: asyncio.Task[None] | None = None

    @property
    @abstractmethod
    def url(self) -> str:
        """Where it is, in the words of the configuration."""

    @property
    def listening(self) -> bool:
        return self._answering is not None and self.killed_by is None

    async def start(self) -> None:
        """Listen, after a death too. Raises OSError when the place is taken."""
        self._open()
        self.killed_by = None
        self.in_flight.clear()
        self._came = asyncio.Queue()
        self._answering = asyncio.create_task(self._answer_all(), name=f"answering {self.url}")

    async def stop(self, *, keep_port: bool = False) -> None:
        """Take no more requests, and leave those that came without an answer.

        Raises what ended the server before, if something other than a request did.
        """
        self._close()
        self._tidy(keep_port=keep_port)
        answering, self._answering = self._answering, None
        if answering is not None:
            answering.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await answering

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.stop()

    # --- what a kind of server is

    @abstractmethod
    def _open(self) -> None: ...

    @abstractmethod
    def _close(self) -> None:
        """Take no more, as a process that ends. What it made is left where it is."""

    @abstractmethod
    def _tidy(self, *, keep_port: bool) -> None:
        """Remove what it made, or keep its place for another start."""

    @abstractmethod
    def _waits(self, client: Any) -> bool:
        """Whether a client is still there to take an answer."""

    @abstractmethod
    async def _send(self, client: Any, answer: bytes) -> None: ...

    @abstractmethod
    def _dies_of(self, body: bytes) -> bool: ...

    @abstractmethod
    def _unparsed(self) -> bytes | None:
        """Give the answer to what is no JSON."""

    @abstractmethod
    def _unprintable(self) -> bytes:
        """Give the answer where the request's id spoils it."""

    def _fitted(self, answer: bytes) -> bytes:
        return answer

    # --- what is common

    def _take(self, client: Hashable, body: bytes) -> None:
        """Take a request as it comes in; it is answered after those before it."""
        self.violations.extend(violations_of(body))
        others = [one for one, count in self.in_flight.items() if count and one != client]
        self.in_flight[client] += 1
        if self.in_flight[client] > 1 or (self.one_client and any(map(self._waits, others))):
            self.violations.append(TWO_IN_FLIGHT)
        self.most_in_flight = max(self.most_in_flight, self.in_flight.total())
        self._came.put_nowait((client, body))

    async def _answer_all(self) -> None:
        while self.killed_by is None:
            client, body = await self._came.get()
            await self._answer(client, body)
            self.in_flight[client] -= 1

    async def _answer(self, client: Hashable, body: bytes) -> None:
        if self._on_request is not None:
            self._on_request(body)
        if self._dies_of(body):
            self._close()
            self.killed_by = f"no usable method: {body!r}"
            return
        reply = self._reply(body)
        if self.delay:
            await asyncio.sleep(self.delay)
        sent = None if reply is None else self.spoil(reply)
        if sent is not None:
            await self._send(client, sent)

    def _reply(self, body: bytes) -> bytes | None:
        try:
            try:
                call = parse_call(body)
            except CallError as error:
                if error.code == _PARSE_ERROR:
                    return self._unparsed()
                return self._fitted(encode_error(error, error.request_id))
            self.asked[call.method] += 1
            answered = answer_call(call, self._node, self._clock(), self._commands)
        except UnprintableId:
            return self._unprintable()
        return None if answered is None else self._fitted(answered)


# --- in a thread --------------------------------------------------------------------------


class Startable(Protocol):
    """Any server of the simulator, `MiHttpd` too."""

    @property
    def url(self) -> str: ...
    async def start(self) -> None: ...
    async def stop(self, *, keep_port: bool = False) -> None: ...


S = TypeVar("S", bound=Startable)


class MiThread(Generic[S]):
    """A server in a thread and a loop of its own, for clients that block. A context manager.

    Touch its node only by `call`, once it runs. What it saw may be read at any time.
    """

    def __init__(self, server: S) -> None:
        self.server = server
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="simulator")

    @property
    def url(self) -> str:
        return self.server.url

    def call(self, act: Callable[[], T]) -> T:
        """Do something in the server's thread, and give its result."""

        async def done() -> T:
            return act()

        return self._run(done())

    def refuse(self) -> None:
        """Stop listening, as a server that is down."""
        self._run(self.server.stop(keep_port=True))

    def listen(self) -> None:
        """Listen again, at the same place."""
        self._run(self.server.start())

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    def __enter__(self) -> Self:
        self._thread.start()
        try:
            self.listen()
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            self._run(self.server.stop())
        finally:
            self._end()

    def _end(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
