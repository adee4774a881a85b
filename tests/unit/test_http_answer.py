"""One HTTP answer, however its bytes are cut."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sr_exporter.errors import MiError
from sr_exporter.mi.http_answer import Answer, AnswerReader
from tests.recorded_mi import Exchange

RECORDED = Exchange("4.0", "status-noparams")
CHUNKED = (
    b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"2\r\nfi\r\n2;x=y\r\nne\r\n0\r\nA: b\r\n\r\n"
)
REFUSED = b"HTTP/1.1 500 Internal Server Error\r\nTransfer-Encoding: chunked\r\n\r\n"


def read(*parts: bytes, limit: int = 10**6) -> Answer | None:
    """Read until nothing more is wanted, as a connection does."""
    reader = AnswerReader(limit)
    for part in parts:
        if (answer := reader.feed(part)) is not None:
            return answer
    return None


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (RECORDED.answer, Answer(200, RECORDED.answer_body, reusable=True)),
        (CHUNKED, Answer(200, b"fine", reusable=True)),
        (REFUSED, Answer(500, b"", reusable=False)),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok", Answer(200, b"ok", reusable=False)),
    ],
    ids=["recorded", "chunked", "refused", "1.0"],
)
def test_an_answer_is_the_same_wherever_it_is_cut(answer, expected):
    """In two at every byte, and byte for byte; never before its end, or its status."""
    for position in range(len(answer) + 1):
        assert read(answer[:position], answer[position:]) == expected
    assert read(*[bytes([byte]) for byte in answer]) == expected
    if expected.status == 200:
        assert read(answer[:-1]) is None


def test_a_refusal_is_judged_before_its_headers():
    """Its status line is all that is needed."""
    reader = AnswerReader(100)
    assert reader.feed(b"HTTP/1.1 50") is None
    assert reader.feed(b"0 Internal") == Answer(500, b"", reusable=False)


@given(st.binary(max_size=300))
def test_any_bytes_are_an_answer_a_fault_or_too_few(noise):
    """Nothing else comes of what a peer sends, wherever in an answer it goes astray."""
    for start in (b"", b"HTTP/1.1 ", b"HTTP/1.1 200 OK\r\n", RECORDED.answer[:-20], CHUNKED[:95]):
        reader = AnswerReader(10_000)
        try:
            answer = reader.feed(start) or reader.feed(noise) or reader.end()
        except MiError:
            continue
        assert answer.status >= 100


def test_what_follows_an_answer_spoils_its_connection_only():
    """The answer that was asked for is given, and never part of the next."""
    for more in (b"x", CHUNKED, REFUSED):
        expected = Answer(200, RECORDED.answer_body, reusable=False)
        assert read(RECORDED.answer + more) == expected


def test_what_follows_a_refusal_is_never_taken_for_the_answer():
    """Found by fuzzing: a 200 in the same read took the place of the 400 before it."""
    said = b"HTTP/1.1 400 \r\nContent-Length: 1\r\n\r\nx"
    more = b"HTTP/1.1 200 \r\nContent-Length: 3\r\n\r\n{1}"
    assert read(said + more) == Answer(400, b"", reusable=False)
