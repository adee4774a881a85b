"""What becomes of a delivery, whatever befalls it: one table, asked of both senders on the wire.

Settled is what was answered with 2xx. Dead is what the receiver does not want. Everything else
is tried again: what was not answered may have been heard, or not.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import gc
import re
import socket
import ssl
import struct
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Any, NamedTuple
from unittest import mock

import pytest
import trustme

from sr_exporter.config import Access, Alertmanager, SecretUrl, Tls, Webhook
from sr_exporter.notify.alertmanager import Instance
from sr_exporter.notify.book import Level
from sr_exporter.notify.queues import Queue
from sr_exporter.notify.webhook import WebhookSender
from sr_exporter.store.contract import AlertRecord, Batch, Owed, Standing
from sr_exporter.tasks import Tasks
from tests.peer import OK, Peer, closes, many_peers, resets, says, says_and_closes, trickles
from tests.ports import reserve_port

if TYPE_CHECKING:
    from collections.abc import Iterator

Script = Callable[[Peer, socket.socket], None]
CA = trustme.CA()
TIMEOUT_SECONDS = 0.5
NOW = 1000.0


class Fate(StrEnum):
    SETTLED = "settled"
    AGAIN = "again"
    DEAD = "dead"


class Told(NamedTuple):
    fate: Fate
    reason: str | None


class Witness:
    """Implements `Store` and `NotifierObserver`, as far as a sender asks for it."""

    def __init__(self, queue: Queue, wanted: int) -> None:
        self._queue = queue
        self._wanted = wanted
        self._error: str | None = None
        self.told: dict[str, Told] = {}
        self.all_told = asyncio.Event()

    def commit(self, batch: Batch) -> asyncio.Future[None]:
        for row_id, row in batch.outbox.items():
            if row is None:
                self._tell(row_id, Told(Fate.SETTLED, None))
            else:
                assert row.standing is Standing.DEAD
                self._tell(row_id, Told(Fate.DEAD, row.reason))
        kept: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        kept.set_result(None)
        return kept

    def retried(self, _: str) -> None:
        # Its row says so in a moment, which is the queue's affair.
        asyncio.get_running_loop().call_soon(self._look_at_the_queue, self._error)

    def stands(self, _: str, error: str | None) -> None:
        self._error = error

    def __getattr__(self, _: str):
        return lambda *_: None

    def _look_at_the_queue(self, error: str | None) -> None:
        for row in self._queue.rows():
            if row.attempts and row.id not in self.told:
                assert row.due_at > NOW
                self._tell(row.id, Told(Fate.AGAIN, error))

    def _tell(self, row_id: str, told: Told) -> None:
        assert row_id not in self.told
        self.told[row_id] = told
        if len(self.told) == self._wanted:
            self.all_told.set()


def fates(config: Webhook, ids: list[str]) -> dict[str, Told]:
    """Deliver a notification of each id once; give what became of each."""

    async def run() -> dict[str, Told]:
        queue, tasks = Queue(), Tasks()
        for seq, row_id in enumerate(ids, 1):
            body = b'{"alerts": [{"labels": {}}]}'
            row = Owed(row_id, seq, "n", f'["{row_id}"]', Standing.OWED, NOW, NOW, 0, body)
            queue.add(row, kept=True)
        witness = Witness(queue, len(ids))
        sender = WebhookSender(config, queue, witness, witness, clock=lambda: NOW)
        sender.start(tasks)
        try:
            async with asyncio.timeout(60):
                await witness.all_told.wait()
        finally:
            sender.close()
            await tasks.stop()
        return witness.told

    return asyncio.run(run())


def hook(url: str, ca: trustme.CA | None = None) -> Webhook:
    access = Access(tls=Tls(ca.cert_pem.bytes().decode()) if ca else None)
    return Webhook("n", SecretUrl(url), timeout_seconds=TIMEOUT_SECONDS, access=access)


# --- the two senders -----------------------------------------------------------------------


def by_webhook(url: str, ca: trustme.CA | None = None) -> list[Told]:
    """Deliver one notification once."""
    return list(fates(hook(f"{url}/", ca), ["a"]).values())


def by_alertmanager(url: str, ca: trustme.CA | None = None, *, times: int = 1) -> list[Told]:
    """Send one alert so many times, each once; give what became of each."""
    access = Access(tls=Tls(ca.cert_pem.bytes().decode()) if ca else None)
    config = Alertmanager("n", (url,), timeout_seconds=TIMEOUT_SECONDS, access=access)

    async def run() -> list[Told]:
        counts = Counts()
        instance = Instance(
            config, url, OneAlert(), counts, clock=lambda: NOW, on_turn=lambda: None
        )
        told = []
        try:
            for _ in range(times):
                await instance.send(whole=True)
                told.append(Told(counts.fates.pop(), instance.error))
        finally:
            instance.close()
        return told

    return asyncio.run(run())


SENDERS = {"webhook": by_webhook, "alertmanager": by_alertmanager}


class OneAlert:
    """Implements `AlertBook`, as far as a sender asks for it."""

    version = 1

    def levels(self) -> list[Level]:
        record = AlertRecord("0", {"alertname": "x"}, {}, NOW, None, "http://sr.example/")
        return [Level(record, version=1, changed_at=NOW)]


class Counts:
    """Implements `NotifierObserver`: what became of each attempt."""

    def __init__(self) -> None:
        self.fates: list[Fate] = []

    def accepted(self, _: str) -> None:
        self.fates.append(Fate.SETTLED)

    def retried(self, _: str) -> None:
        self.fates.append(Fate.AGAIN)

    def dead(self, _: str) -> None:
        self.fates.append(Fate.DEAD)

    def __getattr__(self, _: str):
        return lambda *_: None


# --- status codes --------------------------------------------------------------------------


def expected(code: int) -> Told:
    """Give the table."""
    if 200 <= code <= 299:
        return Told(Fate.SETTLED, None)
    if code in {408, 429} or 500 <= code <= 599:
        return Told(Fate.AGAIN, f"HTTP {code}")
    if 100 <= code <= 199 and code != 101:
        # An interim response is none: the answer never comes here.
        return Told(Fate.AGAIN, f"no whole answer within {TIMEOUT_SECONDS:g} s")
    return Told(Fate.DEAD, f"HTTP {code}")


def answers_as_asked(peer: Peer, connection: socket.socket) -> None:
    """Answer with the code that is the delivery's id; where that is final, with a redirect."""
    while head := peer.read_request(connection):  # 204 and 304 end with their heads
        (code,) = re.findall(rb"X-SR-Delivery: (\d+)", head)
        connection.sendall(
            b"HTTP/1.1 %s So\r\nLocation: http://127.0.0.1:1/\r\nRetry-After: 5\r\n\r\n" % code
        )


@pytest.mark.parametrize("hundred", range(2, 6))
def test_every_status_code(hundred):
    """By the table, whatever else is in the answer."""
    codes = range(hundred * 100, hundred * 100 + 100)
    with many_peers() as peers:
        peer = peers(answers_as_asked)
        found = fates(hook(f"http://127.0.0.1:{peer.port}/"), [str(code) for code in codes])
    # The reason of what is tried again is told once for all of them, so not looked at here.
    assert {row: told.fate for row, told in found.items()} == {
        str(code): expected(code).fate for code in codes
    }
    for row, told in found.items():
        if told.fate is not Fate.AGAIN:
            assert told == expected(int(row))


def test_every_status_code_of_an_alertmanager():
    """By the same table, each with its reason: what is tried again is the level as it is then."""
    codes = iter(range(200, 600))

    def answers_in_turn(peer: Peer, connection: socket.socket) -> None:
        peer.read_request(connection)
        head = b"HTTP/1.1 %d So\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
        connection.sendall(head % next(codes))
        peer.wait_for_hang_up(connection)

    with many_peers() as peers:
        peer = peers(answers_in_turn)
        found = by_alertmanager(f"http://127.0.0.1:{peer.port}", times=400)
    assert dict(zip(range(200, 600), found, strict=True)) == {
        code: expected(code) for code in range(200, 600)
    }


@pytest.mark.parametrize("code", [100, 101, 102, 103, 199, 200, 299, 302, 400, 408, 429, 500, 599])
def test_a_status_code_s_reason(code):
    """What is said of it."""
    with many_peers() as peers:
        peer = peers(answers_as_asked)
        found = fates(hook(f"http://127.0.0.1:{peer.port}/"), [str(code)])
    assert found == {str(code): expected(code)}


@pytest.mark.parametrize("code", [*range(100, 101), *range(102, 200)])
def test_an_interim_response_is_not_the_answer(code):
    """The one that follows is; of a proxy's 103, too."""
    interim = b"HTTP/1.1 %d Wait\r\nLink: </a>\r\n\r\n" % code
    with many_peers() as peers:
        peer = peers(says(interim + interim + OK))
        found = fates(hook(f"http://127.0.0.1:{peer.port}/"), ["a"])
    assert found == {"a": Told(Fate.SETTLED, None)}


# --- everything else -------------------------------------------------------------------------

LATE = r"no whole answer within 0\.5 s"
SETTLED = Fate.SETTLED, ""
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n"


class Place(NamedTuple):
    url: str
    #: Whom the sender trusts.
    ca: trustme.CA | None = None
    peer: Peer | None = None


Places = Callable[[], contextlib.AbstractContextManager[Place]]


def at(script: Script, *, ca: trustme.CA | None = None) -> Places:
    """Give who behaves like this; over TLS where somebody is to be trusted."""

    @contextlib.contextmanager
    def place() -> Iterator[Place]:
        with many_peers() as peers:
            peer = peers(script)
            yield Place(f"{'https' if ca else 'http'}://127.0.0.1:{peer.port}", ca, peer)

    return place


@contextlib.contextmanager
def nobody() -> Iterator[Place]:
    """Give a port at which nobody listens."""
    with reserve_port() as reserved:
        yield Place(f"http://127.0.0.1:{reserved.getsockname()[1]}")


@contextlib.contextmanager
def a_full_backlog() -> Iterator[Place]:
    """Give who takes no connection, as a firewall that drops."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full:
        port = full.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)):
            yield Place(f"http://127.0.0.1:{port}")


def no_way(error: OSError) -> Places:
    """Give a host that is not found, or not reached."""

    @contextlib.contextmanager
    def place() -> Iterator[Place]:
        with mock.patch.object(socket, "getaddrinfo", side_effect=error):
            yield Place("http://receiver.example")

    return place


@contextlib.contextmanager
def a_name_nobody_answers_for() -> Iterator[Place]:
    """Give a host whose name is looked up for ever: its thread cannot be called back."""
    over = threading.Event()

    def waits(*_: object, flags: int = 0, **__: object) -> object:
        if not flags:  # else it is asked whether it is a number
            over.wait(30)
        raise socket.gaierror(socket.EAI_AGAIN, "later")

    with mock.patch.object(socket, "getaddrinfo", waits):
        try:
            yield Place("http://receiver.example")
        finally:
            over.set()


def hangs(peer: Peer, connection: socket.socket) -> None:
    peer.read_request(connection)
    peer.wait_for_hang_up(connection)


def resets_unread(peer: Peer, connection: socket.socket) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def resets_in_its_answer(peer: Peer, connection: socket.socket) -> None:
    peer.read_request(connection)
    connection.sendall(b"HTTP/1.1 200 OK\r\nX:")
    resets_unread(peer, connection)


def closes_unread(peer: Peer, connection: socket.socket) -> None:
    """Say nothing, and hear nothing: what comes is answered by the kernel, with a reset."""


def never_reads(peer: Peer, connection: socket.socket) -> None:
    peer.over.wait(30)


def over_tls(script: Script, host: str = "127.0.0.1", **certificate: Any) -> Script:
    """Have a script speak over TLS; what fails before is the client's affair."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    CA.issue_cert(host, **certificate).configure_cert(context)

    def wrapped(peer: Peer, connection: socket.socket) -> None:
        with context.wrap_socket(connection, server_side=True) as secured:
            script(peer, secured)

    return wrapped


def drips_its_handshake(peer: Peer, connection: socket.socket) -> None:
    connection.recv(65536)
    connection.sendall(b"\x16\x03\x03\x40\x00")
    while not peer.over.wait(0.02):
        connection.sendall(b"\x02")


def speaks_plainly(peer: Peer, connection: socket.socket) -> None:
    connection.recv(65536)
    connection.sendall(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")


def unresolved(number: int, words: str) -> Places:
    return no_way(socket.gaierror(number, words))


OTHER_CA = trustme.CA()
EXPIRED = datetime(2020, 1, 1, tzinfo=UTC)
#: What may befall a delivery: where it goes, what becomes of it, and what is said of that.
TABLE: dict[str, tuple[Places, tuple[Fate, str]]] = {
    # The way there.
    "name not found": (
        unresolved(socket.EAI_NONAME, "Name or service not known"),
        (Fate.AGAIN, r"name not resolved: Name or service not known"),
    ),
    "name server in trouble": (
        unresolved(socket.EAI_AGAIN, "Temporary failure in name resolution"),
        (Fate.AGAIN, r"name not resolved: Temporary failure in name resolution"),
    ),
    "name never answered for": (a_name_nobody_answers_for, (Fate.AGAIN, LATE)),
    "network unreachable": (
        no_way(OSError(errno.ENETUNREACH, "Network is unreachable")),
        (Fate.AGAIN, r"network is unreachable"),
    ),
    "host unreachable": (
        no_way(OSError(errno.EHOSTUNREACH, "No route to host")),
        (Fate.AGAIN, r"no route to host"),
    ),
    "no descriptor left": (
        no_way(OSError(errno.EMFILE, "Too many open files")),
        (Fate.AGAIN, r"too many open files"),
    ),
    "refused": (nobody, (Fate.AGAIN, r"connection refused")),
    "connection not taken": (a_full_backlog, (Fate.AGAIN, LATE)),
    # TLS.
    "certificate untrusted": (
        at(over_tls(says(OK)), ca=OTHER_CA),
        (Fate.AGAIN, r"TLS: the certificate is not trusted: .+"),
    ),
    "certificate for another host": (
        at(over_tls(says(OK), "other.example"), ca=CA),
        (Fate.AGAIN, r"TLS: the certificate is for another host: .+"),
    ),
    "certificate expired": (
        at(over_tls(says(OK), not_after=EXPIRED), ca=CA),
        (Fate.AGAIN, r"TLS: the certificate .*expired"),
    ),
    "TLS where none is": (at(speaks_plainly, ca=CA), (Fate.AGAIN, r"TLS: .+")),
    "handshake silent": (at(never_reads, ca=CA), (Fate.AGAIN, LATE)),
    "handshake that never ends": (at(drips_its_handshake, ca=CA), (Fate.AGAIN, LATE)),
    "handshake reset": (at(resets_unread, ca=CA), (Fate.AGAIN, r"connection reset by peer")),
    "handshake closed": (at(closes_unread, ca=CA), (Fate.AGAIN, r".+")),
    "silent behind TLS": (at(over_tls(hangs), ca=CA), (Fate.AGAIN, LATE)),
    "reset behind TLS": (at(over_tls(resets), ca=CA), (Fate.AGAIN, r".+")),
    "taken behind TLS": (at(over_tls(says(OK)), ca=CA), SETTLED),
    # No answer.
    "reset before the request is read": (
        at(resets_unread),
        (
            Fate.AGAIN,
            r"connection reset by peer|the connection was closed without an answer|broken pipe",
        ),
    ),
    "closed before the request is read": (
        at(closes_unread),
        (
            Fate.AGAIN,
            r"connection reset by peer|the connection was closed without an answer|broken pipe",
        ),
    ),
    "request not read": (at(never_reads), (Fate.AGAIN, LATE)),
    "reset": (at(resets), (Fate.AGAIN, r"connection reset by peer")),
    "closed without a word": (
        at(closes),
        (Fate.AGAIN, r"the connection was closed without an answer"),
    ),
    "silent": (at(hangs), (Fate.AGAIN, LATE)),
    # No whole answer.
    "reset in its answer": (at(resets_in_its_answer), (Fate.AGAIN, r"connection reset by peer")),
    "cut in its status line": (
        at(says_and_closes(b"HTTP/1.1")),
        (Fate.AGAIN, r"the answer ends before its end"),
    ),
    "a status line that never ends": (at(trickles(b"HTTP/1.1 200 ", b"O")), (Fate.AGAIN, LATE)),
    "headers that never end": (
        at(trickles(b"HTTP/1.1 200 OK\r\n", b"X: x\r\n")),
        (Fate.AGAIN, LATE),
    ),
    "interim responses that trickle": (
        at(trickles(b"", b"HTTP/1.1 103 So\r\n\r\n", every=0.1)),
        (Fate.AGAIN, LATE),
    ),
    "interim responses without end": (
        at(trickles(b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 9)),
        (Fate.AGAIN, r"more than 16 interim responses, and no answer"),
    ),
    # No HTTP.
    "another protocol": (
        at(says_and_closes(b"SSH-2.0-OpenSSH_9.2\r\n")),
        (Fate.AGAIN, r"not HTTP: .+"),
    ),
    "garbage": (at(says_and_closes(b"\xff" * 100)), (Fate.AGAIN, r"not HTTP: .+")),
    "no code": (
        at(says_and_closes(b"HTTP/1.1 OK\r\n\r\n")),
        (Fate.AGAIN, r"not HTTP: .+"),
    ),
    "a code of four digits": (
        at(says_and_closes(b"HTTP/1.1 2000 OK\r\n\r\n")),
        (Fate.AGAIN, r"not HTTP: .+"),
    ),
    "another HTTP": (
        at(says_and_closes(b"HTTP/2.0 200 OK\r\n\r\n")),
        (Fate.AGAIN, r"not HTTP: another version was answered"),
    ),
    "a header line too long": (
        at(says_and_closes(b"HTTP/1.1 200 OK\r\nX: " + b"x" * 900_000 + b"\r\n\r\n")),
        (Fate.AGAIN, r"not HTTP: over 65536 bytes of headers"),
    ),
    "too many headers": (
        at(says_and_closes(b"HTTP/1.1 200 OK\r\n" + b"X: x\r\n" * 200_000 + b"\r\n")),
        (Fate.AGAIN, r"not HTTP: over 65536 bytes of headers"),
    ),
    # It was taken: to send it again for its answer's sake would be to send it twice.
    "a body that never ends": (at(trickles(b"HTTP/1.1 200 OK\r\n\r\n", b"x" * 1000)), SETTLED),
    "a body of a terabyte": (
        at(trickles(b"HTTP/1.1 200 OK\r\nContent-Length: 1099511627776\r\n\r\n", b"x" * 65536)),
        SETTLED,
    ),
    "a body cut off": (
        at(says_and_closes(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc")),
        SETTLED,
    ),
    "a body in chunks cut off": (at(says_and_closes(CHUNKED + b"\r\n5\r\nab")), SETTLED),
    "a body that is not as its headers say": (
        at(says_and_closes(CHUNKED + b"Content-Encoding: gzip\r\n\r\nzz\r\n")),
        SETTLED,
    ),
}
#: Nothing of a delivery may be sent to who is none of these.
UNTRUSTED = [what for what in TABLE if what.startswith("certificate ")]


# Some versions of Python (3.11.2) forget to close a socket that is reset in a handshake.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("kind", SENDERS)
@pytest.mark.parametrize("what", TABLE)
def test_what_befalls_a_delivery(what, kind):
    """By the table, whoever sends it."""
    places, (fate, reason) = TABLE[what]
    with places() as place:
        (told,) = SENDERS[kind](place.url, place.ca)
        heard = place.peer.requests if place.peer is not None else []
    assert told.fate is fate
    assert re.fullmatch(reason, told.reason or ""), told.reason
    if what in UNTRUSTED:
        assert heard == []
    if what.startswith("handshake"):
        gc.collect()
