"""Targets: answers of the Management Interface as they come over each transport."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from typing import TYPE_CHECKING, Any

from sr_exporter.errors import MiError
from sr_exporter.mi.client import MiClient
from sr_exporter.mi.datagram import _answer as datagram_answer
from sr_exporter.mi.fifo import _read as fifo_answer
from sr_exporter.mi.http_answer import AnswerReader
from sr_exporter.wire import jsonrpc
from sr_exporter.wire.text import Undecodable
from tests.fuzz import corpora
from tests.fuzz.mi_targets import SR_WORDS
from tests.fuzz.target import Opened, Target, pure
from tests.fuzz.values import must_be_statuses, must_be_text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

HTTP_WORDS = (
    *(b"HTTP/1.1 200 OK\r\n", b"HTTP/1.0 500 X\r\n", b"HTTP/1.1 100 Continue\r\n\r\n", b"\r\n\r\n"),
    *(b"Content-Length: ", b"Transfer-Encoding: chunked\r\n", b"Content-Encoding: gzip\r\n"),
    *(b"Connection: close\r\n", b"Upgrade: x\r\nConnection: upgrade\r\n", b"101", b"204", b"304"),
    *(
        b"5;ext=1\r\n",
        b"0\r\n\r\n",
        b"ffffffffffffffff\r\n",
        b"-1\r\n",
        b"\r",
        b"\n",
        b" \r\n a: b",
    ),
    *(b"Trailer: x\r\n", b"identity", b"Content-Length: 5\r\nContent-Length: 6\r\n", b"\0"),
)
#: Besides those that were recorded.
_HTTP = (
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n3;x=y\r\n ab\r\n0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\n\r\n{}",
    b"HTTP/1.0 200\r\nContent-Length: 2\r\n\r\n{}HTTP/1.1 200 OK\r\n\r\n",
    b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
)
_LONGEST_HTTP = 1500


def _http_answer(data: bytes) -> None:
    """Read an answer as a whole, and cut: where both are answers they are the same."""
    step = 1 + len(data) % 11
    cut = _read_http([data[at : at + step] for at in range(0, len(data), step)])
    whole = _read_http([data])
    if isinstance(whole, MiError):
        raise whole
    assert isinstance(cut, MiError) or cut[:2] == whole[:2]


def _read_http(reads: Sequence[bytes]) -> Any:
    reader = AnswerReader(1000)
    try:
        for data in reads:
            if answer := reader.feed(data):
                return answer
        return reader.end()
    except MiError as error:
        must_be_text(str(error))
        return error


class _Says:
    """A transport whose peer says what it is told to."""

    name = "http"
    said = b""

    async def ask(self, _: bytes) -> bytes:
        return self.said

    def rest(self) -> None:
        pass


@contextlib.contextmanager
def _in_loop(act: Callable[[bytes], Any]) -> Iterator[Opened]:
    loop = asyncio.new_event_loop()
    try:
        yield Opened(lambda data: loop.run_until_complete(act(data)))
    finally:
        loop.close()


def _client() -> contextlib.AbstractContextManager[Opened]:
    """Ask what lies: the same client again and again, whose last answers it remembers."""
    says = _Says()
    client = MiClient(says)

    async def ask(data: bytes) -> None:
        says.said = data
        client._request_id = 0  # the recorded answers are to request 1
        listed = await client.statuses()
        if listed.unread is not None:
            listed = await client.read_statuses(listed.unread)
        must_be_statuses(listed)

    return _in_loop(ask)


async def _by_datagram(data: bytes) -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with ours, theirs:
        ours.setblocking(False)
        theirs.send(data)
        jsonrpc.result(await datagram_answer(ours))


async def _by_fifo(data: bytes) -> None:
    ours, theirs = os.pipe()
    try:
        os.set_blocking(ours, False)
        os.write(theirs, data)
        os.close(theirs)
        jsonrpc.result(await fifo_answer(ours))
    finally:
        os.close(ours)


def targets() -> list[Target]:
    """Give them all."""
    answers, declared = corpora.answers(), (Undecodable, jsonrpc.RpcError, MiError)
    http = [raw for raw in corpora.http_answers() if len(raw) < _LONGEST_HTTP]
    listings = [one for one in answers if b"Identifiers" in one]
    too_big = b"500 Internal error"
    return [
        pure(
            "mi-http-answer",
            _http_answer,
            (*http, *_HTTP),
            declared=(MiError,),
            words=HTTP_WORDS,
            weight=3,
        ),
        Target("mi-client", _client, listings, declared, SR_WORDS, weight=2),
        Target(
            "mi-datagram",
            lambda: _in_loop(_by_datagram),
            (*(one for one in answers if one), too_big),
            declared,
            SR_WORDS,
        ),
        Target("mi-fifo", lambda: _in_loop(_by_fifo), answers, declared, SR_WORDS),
    ]
