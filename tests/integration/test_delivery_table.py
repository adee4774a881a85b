"""What becomes of a delivery, whatever befalls it: one table, asked of the sender on the wire.

Settled is what was answered with 2xx. Dead is what the receiver does not want. Everything else
is tried again: what was not answered may have been heard, or not.
"""

from __future__ import annotations

import asyncio
import re
import socket
import ssl
import threading
from enum import StrEnum
from typing import TYPE_CHECKING, NamedTuple

import pytest
import trustme

from sr_exporter.config import Access, SecretUrl, Tls, Webhook
from sr_exporter.notify.queues import Queue
from sr_exporter.notify.webhook import WebhookSender
from sr_exporter.store.contract import Batch, Owed, Standing
from sr_exporter.tasks import Tasks
from tests.peer import OK, Peer, closes, many_peers, resets, says, says_and_closes, trickles

if TYPE_CHECKING:
    from collections.abc import Callable

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
            row = Owed(row_id, seq, "n", row_id, Standing.OWED, NOW, NOW, 0, body)
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


def hook(url: str, ca: str | None = None) -> Webhook:
    access = Access(tls=Tls(ca) if ca else None)
    return Webhook("n", SecretUrl(url), timeout_seconds=TIMEOUT_SECONDS, access=access)


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
    head = peer.read_request(connection)
    (code,) = re.findall(rb"X-SR-Delivery: (\d+)", head)
    connection.sendall(
        b"HTTP/1.1 %s So\r\nLocation: http://127.0.0.1:1/\r\nRetry-After: 5\r\n\r\n" % code
    )
    peer.wait_for_hang_up(connection)


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


# --- no answer -----------------------------------------------------------------------------


def hangs(peer: Peer, connection: socket.socket) -> None:
    peer.read_request(connection)
    peer.wait_for_hang_up(connection)


def over_tls(script: Callable[[Peer, socket.socket], None], host: str = "127.0.0.1"):
    """Have a script speak over TLS; what fails before is the client's affair."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    CA.issue_cert(host).configure_cert(context)

    def wrapped(peer: Peer, connection: socket.socket) -> None:
        with context.wrap_socket(connection, server_side=True) as secured:
            script(peer, secured)

    return wrapped


LATE = r"no whole answer within 0\.5 s"
BROKEN = {
    "closed without a word": (closes, r"Remote end closed connection without response"),
    "reset": (resets, r"connection reset by peer"),
    "silent": (hangs, LATE),
    "a status line that never ends": (trickles(b"HTTP/1.1 2", b"0"), LATE),
    "headers that never end": (trickles(b"HTTP/1.1 200 OK\r\n", b"X: x\r\n"), LATE),
    "interim responses without end": (
        trickles(b"", b"HTTP/1.1 103 So\r\n\r\n"),
        r"more than 16 interim responses, and no answer",
    ),
    "cut in its status line": (says_and_closes(b"HTTP/1.1"), r"not HTTP: .*"),
    "not HTTP": (says_and_closes(b"SSH-2.0-OpenSSH_9.2\r\n"), r"not HTTP: BadStatusLine"),
    "no code": (says_and_closes(b"HTTP/1.1 OK\r\n\r\n"), r"not HTTP: BadStatusLine"),
    "a code of four digits": (says_and_closes(b"HTTP/1.1 2000 OK\r\n\r\n"), r"not HTTP: .*"),
    "another HTTP": (says_and_closes(b"HTTP/2.0 200 OK\r\n\r\n"), r"not HTTP: UnknownProtocol"),
    "a header line too long": (
        says_and_closes(b"HTTP/1.1 200 OK\r\nX: " + b"x" * 70_000 + b"\r\n\r\n"),
        r"not HTTP: LineTooLong",
    ),
    "too many headers": (
        says_and_closes(b"HTTP/1.1 200 OK\r\n" + b"X: x\r\n" * 200 + b"\r\n"),
        r"not HTTP: HTTPException",
    ),
}


@pytest.mark.parametrize("what", BROKEN)
def test_what_is_no_answer_is_tried_again(what):
    """Its reason says what happened."""
    script, reason = BROKEN[what]
    with many_peers() as peers:
        peer = peers(script)
        (told,) = fates(hook(f"http://127.0.0.1:{peer.port}/"), ["a"]).values()
    assert told.fate is Fate.AGAIN
    assert re.fullmatch(reason, told.reason or "")


ENDLESS = {
    "a body that never ends": trickles(b"HTTP/1.1 200 OK\r\n\r\n", b"x" * 1000),
    "a body of a terabyte": trickles(
        b"HTTP/1.1 200 OK\r\nContent-Length: 1099511627776\r\n\r\n", b"x" * 65536
    ),
    "a body cut off": says_and_closes(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc"),
    "a body that is not as its headers say": says_and_closes(
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Encoding: gzip\r\n\r\nzz\r\n"
    ),
}


@pytest.mark.parametrize("what", ENDLESS)
def test_what_follows_a_2xx_does_not_matter(what):
    """It was taken: to send it again for its answer's sake would be to send it twice."""
    with many_peers() as peers:
        peer = peers(ENDLESS[what])
        found = fates(hook(f"http://127.0.0.1:{peer.port}/"), ["a"])
    assert found == {"a": Told(Fate.SETTLED, None)}


def test_nobody_who_listens_is_tried_again():
    """A receiver that is started anew."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    found = fates(hook(f"http://127.0.0.1:{port}/"), ["a"])
    assert found == {"a": Told(Fate.AGAIN, "connection refused")}


def test_who_takes_no_connection_is_tried_again():
    """A backlog that is full, as behind a firewall that drops."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full:
        port = full.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)):
            (told,) = fates(hook(f"http://127.0.0.1:{port}/"), ["a"]).values()
    assert told == Told(Fate.AGAIN, f"no whole answer within {TIMEOUT_SECONDS:g} s")


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (
            socket.gaierror(socket.EAI_NONAME, "Name or service not known"),
            "name not resolved: Name or service not known",
        ),
        (
            socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution"),
            "name not resolved: Temporary failure in name resolution",
        ),
        (OSError(101, "Network is unreachable"), "network is unreachable"),
        (OSError(113, "No route to host"), "no route to host"),
        (OSError(24, "Too many open files"), "too many open files"),
    ],
)
def test_a_way_that_is_not_there_is_tried_again(monkeypatch, error, reason):
    """Names and routes come back."""

    def no_way(*args: object, **kwargs: object) -> object:
        raise error

    monkeypatch.setattr(socket, "getaddrinfo", no_way)
    found = fates(hook("http://receiver.example/"), ["a"])
    assert found == {"a": Told(Fate.AGAIN, reason)}


def test_a_name_that_is_never_resolved_is_given_up_at_the_deadline(monkeypatch):
    """Though its thread cannot be called back."""
    over = threading.Event()

    def waits(*args: object, **kwargs: object) -> object:
        over.wait(30)
        raise socket.gaierror(socket.EAI_AGAIN, "later")

    monkeypatch.setattr(socket, "getaddrinfo", waits)
    try:
        found = fates(hook("http://receiver.example/"), ["a"])
    finally:
        over.set()
    assert found == {"a": Told(Fate.AGAIN, f"no whole answer within {TIMEOUT_SECONDS:g} s")}


# --- TLS -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("script", "ca", "reason"),
    [
        (over_tls(says(OK)), trustme.CA(), r"TLS: the certificate is not trusted: .*"),
        (over_tls(says(OK), "other.example"), CA, r"TLS: the certificate is for another host: .*"),
        (says_and_closes(b""), CA, r".*"),
        (hangs, CA, LATE),
    ],
    ids=["untrusted", "another host", "no TLS", "silent"],
)
def test_whoever_is_not_trusted_is_tried_again(script, ca, reason):
    """Certificates are mended; nothing was sent."""
    with many_peers() as peers:
        peer = peers(script)
        (told,) = fates(
            hook(f"https://127.0.0.1:{peer.port}/", ca.cert_pem.bytes().decode()), ["a"]
        ).values()
        assert not any(b"POST" in request for request in peer.requests)
    assert told.fate is Fate.AGAIN
    assert re.fullmatch(reason, told.reason or "")
