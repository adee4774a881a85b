"""Connections of `requests`, for programs without a loop, in view of whoever has to end them.

Nothing is taken from the environment, kept of a peer, or done without being asked for: no
proxies, .netrc, cookies or redirects. Over TLS the peer's certificate is always verified.
"""

from __future__ import annotations

import contextlib
import errno
import http.client
import io
import os
import socket
import ssl
import threading
import time
from http.cookiejar import DefaultCookiePolicy
from typing import TYPE_CHECKING, Any, ClassVar

import requests
import urllib3.connection
import urllib3.connectionpool
import urllib3.exceptions
from requests.adapters import HTTPAdapter

from sr_exporter import __version__, tls

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

USER_AGENT = f"sr-exporter/{__version__}"
#: What an answer may be long besides its body: headers, interim responses, marks of chunks.
HEAD_BYTES = 256 * 1024
#: Who says so many is not going to answer; meanwhile it would keep a thread, and with it the
#: interpreter, busy.
MOST_INTERIM = 16


class TooLongError(Exception):
    """A peer says more than an answer may hold."""


class Sockets:
    """The open connections of one session, so that another thread can end them."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._held: list[socket.socket] = []
        self._over = False
        #: The address that took the last connection.
        self._last: object = None
        #: How many bytes may come in answer to a request, all in all.
        self.limit = HEAD_BYTES

    def begin(self, limit_bytes: int) -> None:
        """Let a request have its connection, and an answer whose body is so long at most."""
        with self._lock:
            self._over = False
        self.limit = HEAD_BYTES + limit_bytes

    def connect(self, host: str, port: int, seconds: float) -> socket.socket:
        """Connect to a host: at each of its addresses for its share of the time that is left.

        One of them that takes no connection, as a broken IPv6 route or half of a pair that is
        down, must not use up the time of all. The one that took the last connection is first.

        Raises:
            OSError: why the last of them did not take it.
        """
        deadline = time.monotonic() + seconds
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        found.sort(key=lambda one: one[4] != self._last)
        error: OSError = TimeoutError("timed out")
        for left, (family, kind, protocol, _, place) in zip(
            range(len(found), 0, -1), found, strict=True
        ):
            share = (deadline - time.monotonic()) / left
            if share <= 0:
                break
            try:
                connected = _connected(socket.socket(family, kind, protocol), place, share)
            except OSError as failed:
                error = failed
                continue
            connected.settimeout(seconds)
            self._last = place
            self.add(connected)
            return connected
        raise error

    def add(self, connected: socket.socket) -> None:
        # One request at a time: whatever was connected before is done with. A duplicate, for
        # wrapping in TLS detaches the original from its descriptor.
        self.release()
        with self._lock:
            self._held.append(connected.dup())
            if self._over:  # a host's second address may be connected after the deadline
                self._end()

    def shut_down(self) -> None:
        """End what is connected, and what will be until `begin`."""
        with self._lock:
            self._over = True
            self._end()

    def _end(self) -> None:
        for held in self._held:
            with contextlib.suppress(OSError):
                held.shutdown(socket.SHUT_RDWR)

    def release(self) -> None:
        with self._lock:
            for held in self._held:
                held.close()
            self._held.clear()


def _connect(connection: urllib3.connection.HTTPConnection, sockets: Sockets) -> socket.socket:
    host = connection._dns_host  # noqa: SLF001 - `host` is without its last dot
    try:
        return sockets.connect(host, connection.port, connection.timeout or 0.0)
    except OSError as error:
        # A reset, as it is, would be taken for one of a request that was sent.
        raise urllib3.exceptions.NewConnectionError(connection, "not connected") from error


def _connected(new: socket.socket, place: Any, seconds: float) -> socket.socket:
    try:
        new.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        new.settimeout(seconds)
        new.connect(place)
    except OSError:
        new.close()
        raise
    return new


def new_session(
    sockets: Sockets, ca: str | None, certificate: tls.Certificate | None = None
) -> requests.Session:
    """Make a session whose every connection is known to `sockets`.

    `ca` holds the certificates that peers are trusted by, in PEM; None: the system's.
    `certificate` is ours, for peers that ask for one.
    """
    session = _Session()
    session.trust_env = False
    # What a peer wants remembered would make every request to it longer.
    session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
    session.headers.clear()
    session.headers.update({"User-Agent": USER_AGENT, "Accept-Encoding": "identity"})
    adapter = _Adapter(sockets, ca, certificate)
    session.mount("http://", adapter)
    session.mount("https://", adapter)
    return session


class _Bounded(io.RawIOBase):
    """What a peer says, up to a limit."""

    def __init__(self, said: io.RawIOBase, limit: int) -> None:
        self._said = said
        self._limit = self._left = limit

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer) -> int | None:
        if not self._left:
            raise TooLongError(f"the answer is longer than {self._limit} bytes, headers and all")
        count = self._said.readinto(memoryview(buffer)[: self._left])
        self._left -= count or 0
        return count

    def close(self) -> None:
        self._said.close()
        super().close()


class _Response(http.client.HTTPResponse):
    """Waits for the answer itself, whatever is said before it, but not for ever.

    Of what RFC 9110 calls interim responses (15.2) `http.client` knows 100 only: it would take
    a 103 of some proxy for the answer. And it takes as many of them as come.
    """

    watched: ClassVar[Sockets]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fp = io.BufferedReader(_Bounded(self.fp.detach(), self.watched.limit))
        self._interim = 0

    def _read_status(self) -> tuple[str, int, str]:
        while True:
            said: tuple[str, int, str] = super()._read_status()  # type: ignore[misc]
            status = said[1]
            if not 100 <= status < 200 or status == http.client.SWITCHING_PROTOCOLS:
                return said
            self._interim += 1
            if self._interim > MOST_INTERIM:
                raise TooLongError(f"more than {MOST_INTERIM} interim responses, and no answer")
            http.client.parse_headers(self.fp)


class _Session(requests.Session):
    def get_redirect_target(self, resp: requests.Response) -> None:
        """Say that nothing is a redirect: of one, requests reads the whole body unasked."""


class _Adapter(HTTPAdapter):
    def __init__(
        self, sockets: Sockets, ca: str | None, certificate: tls.Certificate | None
    ) -> None:
        self._sockets = sockets
        self._ca = ca
        self._certificate = certificate
        super().__init__(pool_connections=1, pool_maxsize=1, max_retries=0)

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = _watched_pools(
            self._sockets, self._ca, self._certificate
        )


def _watched_pools(
    sockets: Sockets, ca: str | None, certificate: tls.Certificate | None
) -> dict[str, Any]:
    """Make connection pools whose every new socket is also known to `sockets`."""

    class Response(_Response):
        watched = sockets

    class HttpConnection(urllib3.connection.HTTPConnection):
        response_class = Response

        def _new_conn(self) -> socket.socket:
            return _connect(self, sockets)

    class HttpsConnection(urllib3.connection.HTTPSConnection):
        response_class = Response

        def __init__(self, *args: Any, **kwargs: Any) -> None:
            # The bundle that requests names would be trusted besides.
            kwargs |= {"ca_certs": None, "ca_cert_dir": None, "cert_reqs": "CERT_REQUIRED"}
            context = tls.certified(ca, certificate) if certificate else tls.context(ca)
            super().__init__(*args, **kwargs, ssl_context=context)

        def _new_conn(self) -> socket.socket:
            return _connect(self, sockets)

    class HttpPool(urllib3.connectionpool.HTTPConnectionPool):
        ConnectionCls = HttpConnection

    class HttpsPool(urllib3.connectionpool.HTTPSConnectionPool):
        ConnectionCls = HttpsConnection

    return {"http": HttpPool, "https": HttpsPool}


# --- what went wrong -------------------------------------------------------------------------


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


def is_timeout(error: BaseException) -> bool:
    kinds = (TimeoutError, requests.Timeout, urllib3.exceptions.TimeoutError)
    return any(
        isinstance(cause, kinds)
        # Of urllib3's kinds of time-out this one is none: a refused connection, say.
        and not isinstance(cause, urllib3.exceptions.NewConnectionError)
        for cause in _causes(error)
    )


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
