"""One HTTP request to a neighbour, bounded in every way. For notifiers; MI has a client of its own.

It runs in the event loop: a thread for each would wait its turn for the interpreter many times a
request (decision 0037). There is a deadline for the whole answer, and a limit to all that a peer
says (rule 2). What an answer's body says is of no use to a notifier: whoever posts goes on as soon
as the headers are there, and what follows is taken, up to a limit, so that the connection can bear
the next request. Environment proxies, .netrc, cookies and redirects are not known here. Over TLS
the peer's certificate is always verified.
"""

from __future__ import annotations

import asyncio
import enum
import socket
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import httptools

from sr_exporter import __version__
from sr_exporter.errors import SrExporterError
from sr_exporter.lines import Dialer, Line, why

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sr_exporter.names import Names

USER_AGENT = f"sr-exporter/{__version__}"
#: How long an answer's headers may be, with all interim responses before them.
HEAD_BYTES = 64 * 1024
#: How much of a body is taken for the sake of its connection.
BODY_BYTES = 64 * 1024
#: Who says so many is not going to answer (Go's net/http takes 5).
MOST_INTERIM = 16
_VERSIONS = ("1.0", "1.1")
#: How long after an answer its connection takes another request, and the rest of its body may take.
KEPT_SECONDS = 1.0


class Failure(enum.Enum):
    CONNECT = "connect"
    TIMEOUT = "timeout"
    TOO_BIG = "too_big"
    #: What came back is no HTTP, or ends before its end; or the request cannot be written.
    BROKEN = "broken"


class OutboundError(SrExporterError):
    """No usable answer came back. The message never holds a URL, which may be a secret."""

    def __init__(self, failure: Failure, message: str) -> None:
        self.failure = failure
        super().__init__(message)


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    #: By their names in lower case; the first of each.
    headers: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Post:
    """A request: JSON, posted in one write with its Content-Length."""

    url: str = field(repr=False)
    body: bytes
    timeout_seconds: float
    headers: Mapping[str, str] = field(repr=False)
    #: Certificates that the peer is trusted by, in PEM; None: the system's.
    ca: str | None = None


class Outbound:
    """Posts to one neighbour, one request at a time."""

    def __init__(self, names: Names) -> None:
        self._names = names
        self._dialer = Dialer()
        self._one_at_a_time = asyncio.Lock()
        #: Open between requests, and whom it leads to.
        self._idle: Line[Answer] | None = None
        self._idle_to: tuple[str, str, str | None] | None = None
        #: Until when it is kept, by the loop's clock, and what closes it then.
        self._kept_until = 0.0
        self._resting: asyncio.TimerHandle | None = None
        #: Nobody asks any more once the request under way has ended.
        self._leaving = False

    async def post(self, post: Post) -> Answer:
        """Send one request and wait for its answer's headers, `timeout_seconds` at most.

        A second one waits until the first has ended.

        Raises:
            OutboundError: with what befell the request.
        """
        async with self._one_at_a_time:
            self._leaving = False
            try:
                async with asyncio.timeout(post.timeout_seconds):
                    return await self._exchange(post)
            except TimeoutError:
                said = f"no whole answer within {post.timeout_seconds:g} s"
                raise OutboundError(Failure.TIMEOUT, said) from None
            except OSError as error:
                raise OutboundError(Failure.CONNECT, why(error)) from None

    def hang_up(self) -> None:
        """Close the connection: now, or as soon as the request under way has ended."""
        self._leaving = self._one_at_a_time.locked()
        self._rest()

    async def _exchange(self, post: Post) -> Answer:
        parts = urlsplit(post.url)
        to = (parts.scheme, parts.netloc, post.ca)
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        request = _request(target, parts.netloc, post)
        line = self._take_idle(to)
        if line is None:
            secure = parts.scheme == "https"
            host, port = parts.hostname or "", parts.port or (443 if secure else 80)
            addresses = await self._names.addresses(host, port, socket.SOCK_STREAM)
            line = await self._dialer.connect(
                addresses, post.timeout_seconds, secure=(host, post.ca) if secure else None
            )
        stays = False
        reader = AnswerReader()
        try:
            answer = await line.exchange(request, reader)
            stays = reader.may_stay and not self._leaving
        finally:
            if stays:
                self._idle, self._idle_to = line, to
                loop = asyncio.get_running_loop()
                self._kept_until = loop.time() + KEPT_SECONDS
                self._resting = loop.call_at(self._kept_until, self._rest)
            else:
                line.abort()
        return answer

    def _take_idle(self, to: tuple[str, str, str | None]) -> Line[Answer] | None:
        """Go on with the connection that there is, if it leads there and is still good."""
        line, self._idle = self._idle, None
        if line is None or self._resting is None:
            return None
        self._resting.cancel()
        in_time = asyncio.get_running_loop().time() < self._kept_until
        if in_time and to == self._idle_to and line.usable():
            return line
        line.abort()
        return None

    def _rest(self) -> None:
        """Close a connection that waits in vain: its peer may be about to do so.

        A request that crosses that would be lost.
        """
        line, self._idle = self._idle, None
        if self._resting is not None:
            self._resting.cancel()
        if line is not None:
            line.abort()


def _request(target: str, netloc: str, post: Post) -> bytes:
    """Write a request.

    Raises:
        OutboundError: a header would be more than one.
    """
    lines = [
        f"POST {target} HTTP/1.1",
        f"Host: {netloc}",
        f"User-Agent: {USER_AGENT}",
        "Accept-Encoding: identity",
        "Content-Type: application/json",
        f"Content-Length: {len(post.body)}",
    ]
    for name, value in post.headers.items():
        if not (value.isascii() and value.isprintable()):
            raise OutboundError(Failure.BROKEN, f"the header {name} cannot be written")
        lines.append(f"{name}: {value}")
    return "\r\n".join([*lines, "\r\n"]).encode() + post.body


class AnswerReader:
    """One answer, from bytes to its status and headers. No I/O."""

    def __init__(self) -> None:
        self._parser = httptools.HttpResponseParser(self)
        self._taken_bytes = 0
        self._interim = 0
        self._headers: dict[str, str] = {}
        #: None until its headers are whole; never an interim one.
        self._answer: Answer | None = None
        self._body_bytes = 0
        self._whole = False
        self._stays = True

    @property
    def whole(self) -> bool:
        return self._whole

    @property
    def may_stay(self) -> bool:
        """Whether the connection may bear another request, once this answer is whole."""
        return self._stays

    def feed(self, data: bytes) -> Answer | None:
        """Take more bytes; give the answer as soon as its headers are whole.

        Raises:
            OutboundError: it is no answer, or is too long.
        """
        in_head = self._answer is None
        self._taken_bytes += len(data)
        broken = None
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            broken = error
            self._stays = False
        if self._answer is not None and self._parser.get_http_version() not in _VERSIONS:
            raise OutboundError(Failure.BROKEN, "not HTTP: another version was answered")
        if self._answer is not None:
            # In what follows nothing is wrong that would take the answer back.
            if self._body_bytes > BODY_BYTES or self._taken_bytes > HEAD_BYTES + BODY_BYTES:
                self._stays = False
            if in_head:
                return self._answer
            if not self._stays:
                raise OutboundError(Failure.TOO_BIG, "nobody takes the rest of the answer")
            return None
        if self._interim > MOST_INTERIM:
            said = f"more than {MOST_INTERIM} interim responses, and no answer"
            raise OutboundError(Failure.TOO_BIG, said)
        if broken is not None:
            raise OutboundError(Failure.BROKEN, f"not HTTP: {broken}")
        if self._taken_bytes > HEAD_BYTES:
            said = f"not HTTP: over {HEAD_BYTES} bytes of headers"
            raise OutboundError(Failure.BROKEN, said)
        return None

    def end(self) -> Answer:
        """Take the end of the connection, before there was an answer.

        Raises:
            OutboundError: always.
        """
        if not self._taken_bytes:
            said = "the connection was closed without an answer"
            raise OutboundError(Failure.CONNECT, said)
        raise OutboundError(Failure.BROKEN, "the answer ends before its end")

    # --- what httptools calls ------------------------------------------------------------------

    def on_message_begin(self) -> None:
        self._headers = {}
        if self._answer is not None:
            self._stays = False  # another answer begins, to a request that nobody made

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._answer is not None:
            return  # a trailer, which nobody needs
        known, said = name.decode("latin-1").lower(), value.decode("latin-1").strip()
        self._headers.setdefault(known, said)

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code()
        if self._answer is not None:
            return
        if 100 <= status < 200 and status != 101:
            self._interim += 1
        else:
            self._answer = Answer(status, self._headers)
            self._stays = self._parser.should_keep_alive()

    def on_body(self, body: bytes) -> None:
        self._body_bytes += len(body)

    def on_message_complete(self) -> None:
        if self._answer is not None:
            self._whole = True
