"""Targets: what is sent to the exporter: events, pushes and calls of its own MI."""

from __future__ import annotations

import json
from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec

from sr_exporter.errors import PushRefused
from sr_exporter.model import Statement, Way
from sr_exporter.web.mi_view import HeldView
from sr_exporter.wire import events, mi_http, pieces, push
from sr_exporter.wire.answers import perform
from sr_exporter.wire.calls import (
    CallError,
    UnprintableId,
    encode_error,
    encode_result,
    parse_call,
    result_in_pieces,
)
from sr_exporter.wire.framing import Broken, Objects
from sr_exporter.wire.orders import orders
from sr_exporter.wire.text import Undecodable
from tests.fuzz import corpora
from tests.fuzz.held import NOW, a_state
from tests.fuzz.target import Target, pure
from tests.fuzz.values import must_be_statement, must_be_text

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_EVENT_WORDS = (
    *(b'"group"', b'"identifier"', b'"status"', b'"old_status"', b'"details"', b'"jsonrpc"'),
    *(b'"method"', b'"params"', b'"id"', b"E_CORE_SR_STATUS_CHANGED", b"tcp:1.2.3.4:5/sip-1"),
)
_PUSH_WORDS = (
    *(b'"group"', b'"identifier"', b'"source"', b'"status"', b'"details"', b'"reports"', b'"ttl"'),
    *(b'"on_expiry"', b'"at"', b'"old_status"', b'"timestamp"', b'"log"', b'"remove"', b'"90s"'),
)
_CALL_WORDS = (
    *(b'"sr_get_status"', b'"sr_list_status"', b'"sr_list_reports"', b'"sr_list_identifiers"'),
    *(b'"sr_set_status"', b'"sr_add_report"', b'"which"', b'"version"', b'"uptime"', b'"all"'),
    *(b'"status_report:status"', b'"core:version"', b'"group"', b'"identifier"', b'"trunks"'),
    *(b'"report"', b'"status"', b'"details"', b'"params"', b'"carrier-a"', b'"2.0"', b'"id"'),
)


def _event(data: bytes) -> None:
    try:
        found = events.event(data)
    except Undecodable as error:
        must_be_text(str(error))
        asked = events.request_id(data)
        if asked is not None:
            json.loads(events.refusal(asked, -32600, str(error)))
        raise
    must_be_statement(found.params.statement("sip-1", Way.TCP))
    must_be_text(found.method)
    if found.id is not None:
        json.loads(events.answer(found.id))


def _framing(data: bytes) -> None:
    """Cut a stream anywhere: the same objects come of it, and the same end."""
    whole, broken = _objects([data])
    step = 1 + len(data) % 7
    cut, broken_too = _objects([data[at : at + step] for at in range(0, len(data), step)])
    assert whole == cut
    assert broken == broken_too
    if broken:
        raise Broken(broken, whole)


def _objects(reads: Sequence[bytes]) -> tuple[list[bytes], str]:
    objects, found = Objects(1024), []
    for data in reads:
        try:
            found += objects.feed(data)
        except Broken as error:
            return found + error.whole, str(error)
    return found, ""


def _push(data: bytes) -> None:
    try:
        statements = push.statements(data)
    except PushRefused as error:
        must_be_text(error.error, *(item.error for item in error.items))
        json.dumps([msgspec.to_builtins(item) for item in error.items])
        raise
    for said in statements:
        must_be_statement(said)


def _pieces(decode: Callable[[bytes], list[Any]], data: bytes) -> None:
    """Read an array in pieces of a few bytes, and at once: both must say the same."""
    body = b"[" + data
    try:
        wanted = decode(body)
    except RecursionError:
        return
    except ValueError:
        wanted = None
    try:
        found = [item for piece in pieces.of_array(body, decode, 8) for item in piece]
    except ValueError:
        assert wanted is None, wanted
        raise
    assert found == wanted
    lines = [line for some in pieces.of_lines(data, 8) for line in some]
    assert lines == [line for line in data.split(b"\n") if line.strip(b" \t\r")]


def _call(view: HeldView, data: bytes) -> None:
    """Answer a call as the MI of the exporter does."""
    mi_http.heard("POST", data[:40].decode("latin-1"))
    try:
        call = parse_call(data)
    except CallError as error:
        json.loads(encode_error(error, error.request_id).decode("utf-8", "surrogateescape"))
        return
    try:
        result = perform(call, view, NOW, orders("push"))
    except CallError as error:
        answer = encode_error(error, call.id)
    else:
        if isinstance(result, Statement):
            must_be_statement(result)
            answer = encode_result("OK", call.id)
        else:
            answer = encode_result(result, call.id)
            # It is gone through as it is written, once.
            result = perform(call, view, NOW, orders("push"))
            assert answer == b"".join(result_in_pieces(result, call.id))
    json.loads(answer.decode("utf-8", "surrogateescape"))


def targets() -> list[Target]:
    """Give them all."""
    lists = msgspec.json.Decoder(list[Any]).decode
    return [
        pure(
            "event",
            _event,
            corpora.events(),
            declared=(Undecodable,),
            words=_EVENT_WORDS,
            weight=5,
        ),
        pure(
            "event-stream",
            _framing,
            corpora.streams(),
            declared=(Undecodable,),
            words=(*_EVENT_WORDS, b"}{", b"} {", b'\\"'),
            weight=5,
        ),
        pure(
            "push",
            _push,
            corpora.pushes(),
            declared=(PushRefused,),
            words=_PUSH_WORDS,
            weight=6,
        ),
        pure(
            "push-pieces",
            partial(_pieces, lists),
            [body.lstrip(b"[") for body in corpora.PUSHES],
            declared=(ValueError, RecursionError),
            words=(b"},", b"}]", b"},]", b"}, {"),
            weight=3,
        ),
        pure(
            "mi-call",
            partial(_call, HeldView("sip-1", a_state().sources["sip-1"], 0.0)),
            corpora.requests(),
            declared=(UnprintableId,),
            words=_CALL_WORDS,
            weight=3,
        ),
    ]
