"""Targets: what receivers and exporters answer, and what is shown of it."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from sr_exporter import check_command, check_exporter
from sr_exporter import client as publishing
from sr_exporter.asking import Answer
from sr_exporter.errors import NoVerdict
from sr_exporter.notify.retry import LONGEST_RETRY_AFTER_SECONDS, decide, retry_after
from sr_exporter.outbound import Answer as Received
from sr_exporter.outbound import AnswerReader, OutboundError
from tests.fuzz import corpora
from tests.fuzz.held import NOW
from tests.fuzz.target import Target, pure
from tests.fuzz.transport_targets import HTTP_WORDS
from tests.fuzz.values import must_be_text

if TYPE_CHECKING:
    from collections.abc import Sequence

_DATES = (
    b"120",
    b"0",
    b"Mon, 23 Nov 2026 12:00:00 GMT",
    b"Sunday, 06-Nov-94 08:49:37 GMT",
    b"Sun Nov  6 08:49:37 1994",
    b"Mon, 23 Nov 9999 23:59:59 -2359",
    b"1e3",
    b"-1",
    b"Mon, 31 Feb 2026 12:00:00",
    b"1 Jan 0000 00:00 +9999",
    b"Mon, 23 Nov 2026 99:99:99 EST",
    b"\xb2",
    b"9" * 400,
    b"23 Nov 26 1:2",
    b"1 1 1 1:1:1 1",
)
_ANSWERS = (
    b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}",
    b"HTTP/1.1 204 No Content\r\n\r\n",
    b"HTTP/1.1 429 Slow Down\r\nRetry-After: 120\r\nContent-Length: 0\r\n\r\n",
    (
        b"HTTP/1.1 503 X\r\nRetry-After: Mon, 23 Nov 2026 12:00:00 GMT\r\n"
        b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
    ),
    b"HTTP/1.1 301 Moved\r\nLocation: http://[::1\r\nContent-Length: 5\r\n\r\nmoved",
    b"HTTP/1.0 200\r\n\r\nendless",
    b"HTTP/1.1 103 Early\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/2 200\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 3\r\n\r\nabc",
    b"HTTP/1.1 999 X\r\n a: b\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nSet-Cookie: a=b; expires=x\r\nContent-Length: -1\r\n\r\n",
    b"ICY 200 OK\r\n\r\n",
)
#: A status code on a line of its own, then a body.
_EXPORTERS = (
    b'200\n{"accepted":1,"changed":0}',
    b'400\n{"error":"2 items are wrong","items":[{"index":0,"error":"x"},{"index":1,"error":"y"}]}',
    b'401\n{"error":"no"}',
    b'503\n{"error":"not kept"}',
    b"302\n",
    b"200\n[]",
    b'413\n{"error":["x"]}',
    b"429\n<html>",
    b'200\n{"ready":true,"status":1,"details":"data available","stale":false}',
    b'503\n{"ready":false,"status":-1,"details":null,"stale":true}',
    b'404\n{"error":"no such group"}',
    b'503\n{"ready":false,"status":null,"details":"lost |x=1","stale":true}',
)
_EXPORTER_WORDS = (
    *(
        b'"error"',
        b'"items"',
        b'"index"',
        b'"accepted"',
        b'"changed"',
        b'"ready"',
        b'"status"',
        b'"details"',
    ),
    *(b'"stale"', b"200\n", b"503\n", b"|", b"\xc2\xa6", b"\x1b[2J", b"1e999", b"\\u0007"),
)
_LONGEST_LINE = 2000


def _retry_after(data: bytes) -> None:
    headers = {"Retry-After": data.decode("latin-1")}
    assert 0 <= retry_after(headers, NOW) <= LONGEST_RETRY_AFTER_SECONDS
    status = 200 + len(data) % 400
    decide(
        status=status,
        headers=headers,
        attempts=1,
        age_seconds=0,
        max_age_seconds=1,
        now=NOW,
        random=0.5,
    )


def _receiver(data: bytes) -> None:
    """Read an answer to a notification, whole and cut: where both are answers they are the same."""
    step = 1 + len(data) % 11
    cut = _read_receiver([data[at : at + step] for at in range(0, len(data), step)])
    whole = _read_receiver([data])
    if isinstance(whole, OutboundError):
        raise whole
    assert isinstance(cut, OutboundError) or cut == whole
    for name, said in whole.headers.items():
        assert name == name.lower()
        must_be_text(said)
    assert 0 <= retry_after(whole.headers, NOW) <= LONGEST_RETRY_AFTER_SECONDS


def _read_receiver(reads: Sequence[bytes]) -> Received | OutboundError:
    reader, answer = AnswerReader(), None
    try:
        for data in reads:
            # What follows the headers is taken, too: nobody waits for it.
            with contextlib.suppress(OutboundError) if answer else contextlib.nullcontext():
                answer = reader.feed(data) or answer
        return answer or reader.end()
    except OutboundError as error:
        must_be_text(str(error))
        return error


def _answer(data: bytes) -> Answer:
    status, _, body = data.partition(b"\n")
    return Answer(int(status[:3]) if status[:3].isdigit() else 200, {}, body)


def _published(data: bytes) -> None:
    """Take an answer to a push from something that need not be an exporter."""
    accepted = publishing._accepted(_answer(data))
    assert isinstance(accepted.accepted, int)
    assert isinstance(accepted.changed, int)


def _checked(data: bytes) -> None:
    """Take an answer to a check, and print what Nagios reads: one line, with one bar."""
    outcome = None
    try:
        verdict = check_exporter._read(_answer(data), "http://monitor:9797")
    except NoVerdict as error:
        outcome = check_command._Outcome(check_command.State.UNKNOWN, str(error))
        line = check_command._line(outcome)
        assert "|" not in line
        raise
    else:
        state = check_command._state(verdict, check_command.State.WARNING)
        text = check_command._text("push g/main", "g", "main", verdict)
        line = check_command._line(
            check_command._Outcome(state, text, check_command._figures(verdict, 0.1))
        )
        assert line.count("|") == 1
        assert (state is check_command.State.OK) == verdict.ready
    finally:
        if outcome is not None:
            line = check_command._line(outcome)
        assert line.isprintable(), line
        assert len(line) <= _LONGEST_LINE


def targets() -> list[Target]:
    """Give them all."""
    return [
        pure(
            "retry-after",
            _retry_after,
            _DATES,
            words=(b"GMT", b"-2359", b":", b"Feb", b"9" * 30),
            longest=300,
            weight=2,
        ),
        pure(
            "webhook-answer",
            _receiver,
            (*_ANSWERS, *(raw for raw in corpora.http_answers() if len(raw) < 600)),
            declared=(OutboundError,),
            words=(*HTTP_WORDS, b"Retry-After: ", b"retry-after:9", b"HTTP/1.1 103 \r\n\r\n"),
            weight=2,
        ),
        pure(
            "push-answer",
            _published,
            _EXPORTERS,
            declared=(publishing.ClientError,),
            words=_EXPORTER_WORDS,
            weight=2,
        ),
        pure(
            "check-answer",
            _checked,
            _EXPORTERS,
            declared=(NoVerdict,),
            words=_EXPORTER_WORDS,
            weight=2,
        ),
    ]
