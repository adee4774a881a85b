"""One HTTP request to a neighbour, bounded in every way. For notifiers; MI has a client of its own.

`requests` bounds each read, not the whole: a peer that trickles a byte a second, in its
headers even, holds a thread for ever. So the sockets are watched from outside: at the
deadline they are shut down, and the blocked read ends. Environment proxies, .netrc and
redirects are off; an answer's body is read only where the caller wants it, and there is a limit
to all that a peer says (rule 2). Over TLS the peer's certificate is always verified.
"""

from __future__ import annotations

import asyncio
import enum
import errno
import os
import socket
import ssl
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import requests
import urllib3.exceptions

from sr_exporter import tls
from sr_exporter.connections import Sockets, TooLongError, new_session

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from concurrent.futures import ThreadPoolExecutor

_CHUNK = 65536
#: How long after the deadline a thread may take to notice that its socket is gone.
_GRACE_SECONDS = 1.0


class Failure(enum.Enum):
    CONNECT = "connect"
    TIMEOUT = "timeout"
    TOO_BIG = "too_big"
    #: What came back is no HTTP, or ends before its end.
    BROKEN = "broken"


class OutboundError(Exception):
    """No usable answer came back. The message never holds a URL, which may be a secret."""

    def __init__(self, failure: Failure, message: str) -> None:
        self.failure = failure
        super().__init__(message)


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    headers: Mapping[str, str]
    #: Empty when it was not wanted.
    body: bytes


@dataclass(frozen=True, slots=True)
class Post:
    """A request: JSON, posted in one write with its Content-Length."""

    url: str = field(repr=False)
    body: bytes
    timeout_seconds: float
    limit_bytes: int
    headers: Mapping[str, str] = field(repr=False)
    #: Certificates that the peer is trusted by, in PEM; None: the system's.
    ca: str | None = None


class Outbound:
    """Posts to one neighbour, one request at a time, on threads of the pool given."""

    def __init__(self, pool: ThreadPoolExecutor) -> None:
        self._pool = pool
        self._sockets = Sockets()
        #: Whom the session trusts.
        self._ca: str | None = None
        self._session = new_session(self._sockets, self._ca)
        self._running: asyncio.Future[Answer] | None = None
        self._aborted = False
        #: A thread uses the session; whoever hangs up meanwhile leaves the closing to it.
        self._lock = threading.Lock()
        self._busy = False
        self._abandoned = False

    async def post(self, post: Post, *, wants_body: Callable[[int], bool]) -> Answer:
        """Send one request and wait for its answer, `timeout_seconds` at most.

        `wants_body` sees the status code; where it says no, nothing after the headers is read
        and the connection is closed.

        Raises:
            OutboundError: with what befell the request.
        """
        if self._running is not None and not self._running.done():
            # It was cancelled, and its thread is on its way out; or it is stuck for good.
            await asyncio.wait({self._running}, timeout=_GRACE_SECONDS)
            if not self._running.done():
                raise OutboundError(Failure.TIMEOUT, "the request before is still under way")
        self._aborted = False
        self._sockets.begin(post.limit_bytes)
        with self._lock:
            self._busy, self._abandoned = True, False
        loop = asyncio.get_running_loop()
        try:
            running = loop.run_in_executor(self._pool, self._exchange, post, wants_body)
        except BaseException:
            self._done()  # no thread could be had
            raise
        running.add_done_callback(self._ended)
        self._running = running
        deadline = loop.call_later(post.timeout_seconds, self._abort)
        try:
            await asyncio.wait({running}, timeout=post.timeout_seconds + _GRACE_SECONDS)
        except asyncio.CancelledError:
            self._abort()
            raise
        finally:
            deadline.cancel()
        if not running.done():
            raise self._too_late(post)
        return running.result()

    def hang_up(self) -> None:
        """Close connections: now, or as soon as the request under way has ended."""
        with self._lock:
            self._abandoned = self._busy
            if not self._busy:
                self._let_go()

    def _ended(self, running: asyncio.Future[Answer]) -> None:
        """Look at the outcome even when nobody waits for it any more."""
        if running.cancelled():
            self._done()  # its thread never began: the pool was shut down
        else:
            running.exception()

    def _done(self) -> None:
        with self._lock:
            self._busy = False
            if self._abandoned:
                self._let_go()

    def _let_go(self) -> None:
        self._session.close()
        self._sockets.release()

    def _abort(self) -> None:
        self._aborted = True
        self._sockets.shut_down()

    # --- on a thread of the pool -----------------------------------------------------------

    def _exchange(self, post: Post, wants_body: Callable[[int], bool]) -> Answer:
        try:
            if post.ca != self._ca:
                self._trust(post.ca)
            with self._session.post(
                post.url,
                data=post.body,
                headers={"Content-Type": "application/json", **post.headers},
                timeout=post.timeout_seconds,
                allow_redirects=False,
                stream=True,
            ) as response:
                if wants_body(response.status_code):
                    body = _read(response, post.limit_bytes)
                else:
                    body = b""
                    response.raw.close()
                    self._sockets.release()
                if self._aborted:
                    # To a reader, an end made by us is an end like any other.
                    self._session.close()
                    raise self._too_late(post)
                return Answer(response.status_code, dict(response.headers), body)
        except OutboundError:
            self._sockets.shut_down()
            raise
        except (requests.RequestException, urllib3.exceptions.HTTPError, OSError) as error:
            self._session.close()
            self._sockets.release()
            if self._aborted or _is_timeout(error):
                raise self._too_late(post) from None
            raise OutboundError(_failure(error), reason(error)) from None
        except TooLongError as error:
            self._session.close()
            self._sockets.release()
            raise OutboundError(Failure.TOO_BIG, str(error)) from None
        except ValueError as error:
            raise OutboundError(Failure.BROKEN, reason(error)) from None
        finally:
            self._done()

    def _trust(self, ca: str | None) -> None:
        """Go on with connections to whom these certificates prove, and no others."""
        self._session.close()
        self._ca = ca
        self._session = new_session(self._sockets, self._ca)

    def _too_late(self, post: Post) -> OutboundError:
        return OutboundError(Failure.TIMEOUT, f"no whole answer within {post.timeout_seconds:g} s")


def _read(response: requests.Response, limit: int) -> bytes:
    taken: list[bytes] = []
    size = 0
    for chunk in response.raw.stream(_CHUNK, decode_content=False):
        size += len(chunk)
        if size > limit:
            raise OutboundError(Failure.TOO_BIG, f"the answer is longer than {limit} bytes")
        taken.append(chunk)
    return b"".join(taken)


def _causes(error: BaseException) -> list[BaseException]:
    """Give the errors an error of requests wraps, outermost first."""
    found: list[BaseException] = []
    queue: list[Any] = [error]
    while queue and len(found) < 20:
        one = queue.pop(0)
        if isinstance(one, BaseException) and one not in found:
            found.append(one)
            queue += [*one.args, getattr(one, "reason", None), one.__cause__, one.__context__]
    return found


def _is_timeout(error: BaseException) -> bool:
    kinds = (TimeoutError, requests.Timeout, urllib3.exceptions.TimeoutError)
    return any(
        isinstance(cause, kinds)
        # Of urllib3's kinds of time-out this one is none: a refused connection, say.
        and not isinstance(cause, urllib3.exceptions.NewConnectionError)
        for cause in _causes(error)
    )


def _failure(error: BaseException) -> Failure:
    broken = (
        requests.exceptions.ChunkedEncodingError,
        requests.exceptions.InvalidHeader,
        urllib3.exceptions.IncompleteRead,
        urllib3.exceptions.InvalidChunkLength,
        urllib3.exceptions.DecodeError,
    )
    causes = _causes(error)
    if any(isinstance(cause, broken) for cause in causes):
        return Failure.BROKEN
    of_protocol = any(
        isinstance(cause, urllib3.exceptions.ProtocolError)
        or type(cause).__module__ == "http.client"
        for cause in causes
    )
    of_system = any(
        isinstance(cause, OSError) and not isinstance(cause, requests.RequestException)
        for cause in causes
    )
    if of_protocol and not of_system:
        return Failure.BROKEN
    return Failure.CONNECT


def reason(error: BaseException) -> str:
    """Say why a request of requests failed, in the words of its innermost cause, without a URL."""
    for cause in reversed(_causes(error)):
        if isinstance(cause, OSError) and cause.strerror:
            return _said_by_the_system(cause)
        if isinstance(cause, ConnectionError):
            return str(cause)[:200] or type(cause).__name__
        if type(cause).__module__ == "http.client":
            return f"not HTTP: {type(cause).__name__}"
        if type(cause) in (urllib3.exceptions.IncompleteRead, urllib3.exceptions.ProtocolError):
            return "the answer ends before its end"
    return type(error).__name__


def _said_by_the_system(error: OSError) -> str:
    if isinstance(error, ssl.SSLError):
        return tls.why(error)
    if isinstance(error, socket.gaierror):
        return f"name not resolved: {error.strerror}"
    if error.errno == errno.ENOTCONN:
        # What is left to find of a connection that was reset while TLS was being agreed on.
        return os.strerror(errno.ECONNRESET).lower()
    return str(error.strerror).lower()
