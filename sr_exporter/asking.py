"""Requests to a running exporter, from programs that have no event loop.

Each is made on a thread of its own, and whoever asked goes on at the deadline, whatever has
become of it: looking a name up cannot be ended, and a peer that trickles a byte a second is
never too late for any single read. What is abandoned closes its own connection.
"""

from __future__ import annotations

import base64
import contextlib
import json
import ssl
import threading
import time
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlsplit

import requests
import urllib3.exceptions

from sr_exporter import tls
from sr_exporter.connections import Sockets, TooLongError, is_timeout, new_session, reason

if TYPE_CHECKING:
    from collections.abc import Mapping

#: How long a connection may rest between two requests: some peer or firewall in between may have
#: forgotten it by then, without a word, and a request would wait in vain.
LONGEST_REST_SECONDS = 30.0
#: A file that is longer holds no token.
MOST_TOKEN_BYTES = 2**16
#: How long an answer may be: a thousand items of a list, or a hundred wrong ones of a push.
MOST_BYTES = 2**24


class Unanswered(Exception):  # noqa: N818 - named for what befell the request
    """No whole answer came; why, in words that hold no secret."""


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    headers: Mapping[str, str]
    body: bytes


class Login(NamedTuple):
    """A user of the exporter's."""

    user: str
    password: str


class Exporter:
    """Asks one exporter, one request at a time; threads may share it.

    Raises:
        ValueError: the URL, the token or the user is none, or `ca` or `certificate` cannot be
            used.
    """

    def __init__(
        self,
        url: str,
        *,
        token: str | None = None,
        login: Login | None = None,
        ca: str | None = None,
        certificate: tls.Certificate | None = None,
    ) -> None:
        self._url = exporter_url(url)
        self._authorization = _authorization(token, login)
        self._ca = ca
        self._certificate = certificate
        if ca is not None:
            _refuse_unless_certificates(ca)
        if certificate is not None:
            refuse_unless_usable(certificate)
        self._lock = threading.Lock()
        #: The connection, between two requests.
        self._line: _Line | None = None

    def ask(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: bytes | None = None,
        timeout_seconds: float,
    ) -> Answer:
        """Send a request, and give its answer, whatever the status code.

        Raises:
            Unanswered: no whole answer came within the time-out.
        """
        deadline = time.monotonic() + timeout_seconds
        if not self._lock.acquire(timeout=timeout_seconds):
            raise Unanswered(f"an earlier request took more than {timeout_seconds:.3g} s")
        try:
            line = self._take_line()
            request = _Request(method, self._url + path, query, body, self._authorization)
            future = _begin(line, request, deadline)
            try:
                answer = future.result(max(0.0, deadline - time.monotonic()))
            except BaseException:
                line.sockets.shut_down()
                future.add_done_callback(lambda _: line.close())
                raise
            line.rests_since = time.monotonic()
            self._line = line
        except TimeoutError:
            raise Unanswered(f"no whole answer within {timeout_seconds:.3g} s") from None
        else:
            return answer
        finally:
            self._lock.release()

    def _take_line(self) -> _Line:
        line, self._line = self._line, None
        if line is not None and time.monotonic() - line.rests_since > LONGEST_REST_SECONDS:
            line.close()
            line = None
        return line or _Line(self._ca, self._certificate)

    def another(self) -> Exporter:
        """Make one that asks the same exporter, on a connection of its own."""
        other = Exporter(self._url, ca=self._ca, certificate=self._certificate)
        other._authorization = self._authorization
        return other

    def close(self) -> None:
        """Let go of the connection; it may be used again."""
        with self._lock:
            line, self._line = self._line, None
        if line is not None:
            line.close()


class _Line:
    """A session with its connection; whatever goes wrong on it, both are given up."""

    def __init__(self, ca: str | None, certificate: tls.Certificate | None) -> None:
        self.sockets = Sockets()
        self.session = new_session(self.sockets, ca, certificate)
        self.rests_since = 0.0

    def close(self) -> None:
        self.session.close()
        self.sockets.release()


@dataclass(frozen=True, slots=True)
class _Request:
    method: str
    url: str
    query: Mapping[str, str] | None
    body: bytes | None
    authorization: str | None = field(repr=False)


def _begin(line: _Line, request: _Request, deadline: float) -> Future[Answer]:
    future: Future[Answer] = Future()
    line.sockets.begin(MOST_BYTES)

    def run() -> None:
        try:
            future.set_result(_exchange(line, request, deadline))
        except BaseException as error:  # noqa: BLE001 - handed to whoever asked
            future.set_exception(error)

    try:
        threading.Thread(target=run, name="asking", daemon=True).start()
    except RuntimeError as error:  # too many threads, or the interpreter ends
        future.set_exception(Unanswered(str(error)))
    return future


def _exchange(line: _Line, request: _Request, deadline: float) -> Answer:
    headers = {} if request.authorization is None else {"Authorization": request.authorization}
    if request.body is not None:
        headers["Content-Type"] = "application/json"
    try:
        response = line.session.request(
            request.method,
            request.url,
            params=request.query,
            data=request.body,
            headers=headers,
            timeout=max(0.001, deadline - time.monotonic()),
            allow_redirects=False,
            stream=True,
        )
        # As it came: what a peer has packed though nobody asked for it may be endless unpacked.
        body = response.raw.read(decode_content=False)
    except (requests.RequestException, urllib3.exceptions.HTTPError, OSError) as error:
        if is_timeout(error):
            raise TimeoutError from None
        raise Unanswered(reason(error)) from None
    except TooLongError as error:
        raise Unanswered(str(error)) from None
    except ValueError as error:  # what http.client cannot read
        raise Unanswered(f"not HTTP: {type(error).__name__}") from None
    return Answer(response.status_code, response.headers, body)


# --- what a person or a program gives ------------------------------------------------------


def exporter_url(written: str) -> str:
    """Give a URL of an exporter without the slash at its end.

    Raises:
        ValueError: it is none; nothing of it is shown, for it may hold a password.
    """
    try:
        parts = urlsplit(written)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    plain = written.isascii() and written.isprintable() and not set(" @?#") & set(written)
    if not (usable and plain):
        raise ValueError("is not http(s)://host[:port][/path]")
    return written.rstrip("/")


def usable_token(token: str) -> str:
    """Give a token as it can stand in a header.

    Raises:
        ValueError: it cannot; it is not shown.
    """
    token = token.strip()
    if not token or not token.isascii() or not token.isprintable() or " " in token:
        raise ValueError("must hold one token")
    return token


def _authorization(token: str | None, login: Login | None) -> str | None:
    if token is not None and login is not None:
        raise ValueError("a token and a user are two ways to say who asks: one is enough")
    if token is not None:
        return f"Bearer {usable_token(token)}"
    if login is None:
        return None
    if not login.user or ":" in login.user or not login.user.isprintable():
        raise ValueError("user must be a name without a colon")
    return f"Basic {base64.b64encode(f'{login.user}:{login.password}'.encode()).decode()}"


def certificate(
    cert_file: str | Path | None, key_file: str | Path | None
) -> tls.Certificate | None:
    """Put a certificate and its key together.

    Raises:
        ValueError: a key is no certificate.
    """
    if cert_file is None:
        if key_file is not None:
            raise ValueError("key_file is for a cert_file")
        return None
    return tls.Certificate(str(cert_file), None if key_file is None else str(key_file))


def refuse_unless_usable(certificate: tls.Certificate) -> None:
    """Try a client certificate.

    Raises:
        ValueError: it cannot be used; why, with the file's name.
    """
    try:
        # Of somebody's own: the system's authorities would have to be read as well.
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_cert_chain(*certificate, password=lambda: "")
    except ssl.SSLError as error:
        what = "holds no certificate in PEM and its key"
        if error.reason == "KEY_VALUES_MISMATCH":
            what = f"and {certificate.key_file} do not belong together"
        raise ValueError(f"{certificate.file} {what}") from None
    except OSError as error:
        name = (
            certificate.file
            if certificate.key_file is None
            else f"{certificate.file} or {certificate.key_file}"
        )
        raise ValueError(f"{name} cannot be read: {error.strerror}") from None


def _refuse_unless_certificates(ca: str) -> None:
    try:
        usable = bool(ca.strip()) and bool(tls.context(ca).get_ca_certs())
    except ssl.SSLError:
        usable = False
    if not usable:
        raise ValueError("holds no certificate in PEM")


def token_in(file: str) -> str:
    """Read a file that holds a token.

    Raises:
        ValueError: it does not; what is wrong, with the file's name.
    """
    try:
        with Path(file).open(encoding="utf-8") as opened:
            return usable_token(opened.read(MOST_TOKEN_BYTES))
    except OSError as error:
        raise ValueError(f"{file} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ValueError(f"{file} is not UTF-8") from None
    except ValueError as error:
        raise ValueError(f"{file} {error}") from None


def document(answer: Answer) -> dict[str, Any]:
    """Give the JSON object that an exporter answers with.

    Raises:
        ValueError: this is none: something else answers.
    """
    with contextlib.suppress(ValueError, RecursionError):
        said = json.loads(answer.body)
        if isinstance(said, dict):
            return said
    raise ValueError(f"HTTP {answer.status}: something else than an exporter answers")
