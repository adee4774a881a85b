"""Answers of the Management Interface, byte for byte those of real servers."""

from __future__ import annotations

import functools
import json
from datetime import timedelta, timezone

import pytest

from sr_exporter.model import INT32_MIN
from sr_exporter.simulator.node import SimulatedNode
from sr_exporter.simulator.releases import OPENSIPS_3_6, OPENSIPS_4_0
from sr_exporter.simulator.requests import RequestReader
from sr_exporter.wire.answers import answer
from sr_exporter.wire.calls import UnprintableId
from tests.recorded_mi import (
    OTHER_METHODS,
    OTHER_SERVICES,
    RECORDINGS,
    SPLIT,
    Exchange,
    asked_at,
    exchanges,
    recorded_node,
)

NOT_FOUND = b'{"jsonrpc":"2.0","error":{"code":-32601,"message":"Method not found"},"id":1}'


def body_sent(exchange: Exchange) -> bytes:
    reader = RequestReader(limit=100_000)
    reader.feed(exchange.request.replace(SPLIT, b""))
    request = reader.next_request()
    assert request is not None
    return request.body


unchanged_node = functools.cache(recorded_node)


def answered(exchange: Exchange) -> bytes | None:
    return answer(body_sent(exchange), unchanged_node(exchange.version), asked_at(exchange.version))


REACHED_MI = [
    exchange
    for exchange in exchanges(without=OTHER_METHODS | OTHER_SERVICES)
    if exchange.status in {200, 202, 500}
]


@pytest.mark.parametrize("exchange", REACHED_MI, ids=str)
def test_answers_are_those_recorded(exchange):
    """Every request that a real server's MI took is answered with the bytes it answered with."""
    if exchange.status == 500:
        with pytest.raises(UnprintableId):
            answered(exchange)
    elif exchange.status == 202:
        assert answered(exchange) is None
    else:
        assert answered(exchange) == exchange.answer_body


def test_requests_not_compared_are_those_http_refused():
    """What is left out here never reached the MI, as its HTTP status shows."""
    left_out = {
        exchange.name
        for exchange in exchanges(without=OTHER_METHODS | OTHER_SERVICES)
        if exchange not in REACHED_MI
    }
    assert left_out == {
        "http-DELETE", "http-GET", "http-GET-query", "http-HEAD", "http-OPTIONS", "http-PUT",
        "http-POST-empty", "http-big-request-70k", "http-ct-form", "http-ct-text",
        "http-ct-unknown", "http-no-ct", "http-path-other", "http-path-prefix", "http-path-root",
    }  # fmt: skip


@pytest.mark.parametrize("exchange", [e for e in exchanges() if e.name in OTHER_METHODS], ids=str)
def test_methods_of_other_modules_are_not_found(exchange):
    """What other modules do is not imitated: their methods are answered as unknown."""
    assert answered(exchange) == NOT_FOUND


def ask(node: SimulatedNode, method: str, *params: object, now: float = 0.0) -> bytes | None:
    call = {"jsonrpc": "2.0", "method": method, "params": params, "id": 1}
    return answer(json.dumps(call).encode(), node, now)


ESCAPING = sorted(
    path
    for version in ("4.0", "master")
    for path in (RECORDINGS / version / "escaping").glob("esc-*.json")
)


@pytest.mark.parametrize(
    "path", ESCAPING, ids=lambda path: f"{path.parent.parent.name}/{path.name}"
)
def test_text_is_escaped_as_recorded(path):
    """Quotes, control characters, UTF-8 and bytes that are none come out as from a server."""
    recorded = path.read_bytes().rstrip(b"\n")
    shown = json.loads(recorded.decode("utf-8", "surrogateescape"))["result"]
    node = SimulatedNode(OPENSIPS_4_0)
    if isinstance(shown, list):
        node.register("weird")
        for report in shown:
            node.add_report("weird", "main", report["Log"], report["Timestamp"])
        assert ask(node, "sr_list_reports", "weird", "main") == recorded
    else:
        node.register("weird", "main", shown["Status"], shown["Details"])
        assert ask(node, "sr_get_status", "weird") == recorded


def test_text_ends_at_its_first_nul():
    """Details and logs are C strings."""
    node = SimulatedNode(OPENSIPS_4_0)
    node.register("g", "main", -1, "a\0b")
    node.add_report("g", "main", "c\0d", 0)
    assert b'"Details":"a"' in (ask(node, "sr_get_status", "g") or b"")
    assert b'"Log":"c"' in (ask(node, "sr_list_reports", "g") or b"")


def test_dates_are_those_of_the_servers_zone():
    """A date has no zone of its own and a day of two places; the timestamp is what counts."""
    node = SimulatedNode(OPENSIPS_4_0, zone=timezone(timedelta(hours=-5)))
    node.register("g")
    node.add_report("g", "main", "x", 1793519091)  # 2026-11-01 07:44:51 UTC
    assert ask(node, "sr_list_reports", "g", "main") == (
        b'{"jsonrpc":"2.0","result":'
        b'[{"Timestamp":1793519091,"Date":"Sun Nov  1 02:44:51 2026","Log":"x"}],"id":1}'
    )


def test_lowest_status_is_no_identity():
    """The framework mistakes its lowest status for "no such identifier", but lists it."""
    node = SimulatedNode(OPENSIPS_3_6)
    node.register("g", "main", INT32_MIN)
    assert b'"Identity not found"' in (ask(node, "sr_get_status", "g") or b"")
    assert b'"Status":-2147483648' in (ask(node, "sr_list_status", "g") or b"")


@pytest.mark.parametrize(
    ("statuses", "shown"),
    [
        ((1, 2), b'{"Readiness":true,"Status":1,"Details":"aggregated"}'),
        ((1, -2), b'{"Readiness":false,"Status":-1,"Details":"aggregated"}'),
    ],
)
def test_all_is_ready_only_when_every_identifier_is(statuses, shown):
    """The identifier `all` tells the worst of its group."""
    node = SimulatedNode(OPENSIPS_4_0)
    for status in statuses:
        node.register("g", f"i{status}", status)
    assert shown in (ask(node, "sr_get_status", "G", "All") or b"")


@pytest.mark.parametrize(
    ("method", "error"),
    [
        ("status_report:get", None),
        ("core:uptime", None),
        ("uptime", None),
        ("version", None),
        ("which", None),
        ("identifiers", None),
        (
            "reload",
            b'"Method ambiguous","data":"supported names: db_text:reload, clusterer:reload, ',
        ),
        ("uac_registrant:list", b'"Method not found"'),
        ("status_report:sr_get_status", b'"Method not found"'),
        (":get", b'"Method not found"'),
        ("", b'"Method not found"'),
    ],
)
def test_names_of_4_0(method, error):
    """From 4.0 on a full name is taken, the old one, or a short one that is unambiguous."""
    node = SimulatedNode(OPENSIPS_4_0)
    node.register("core")
    params = ["core"] if method.endswith("get") else []
    reply = ask(node, method, *params) or b""
    assert b'"result":' in reply if error is None else error in reply


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"\xff",
        b'{"jsonrpc":"2.0","method":"version","id":NaN}',
        b'{"jsonrpc":"2.0","method":"version","id":' + b"[" * 100_000,
    ],
    ids=["empty", "cut", "no-text", "nan", "deep"],
)
def test_what_is_no_json_is_a_parse_error(body):
    """No bytes make it fail."""
    assert answer(body, SimulatedNode(OPENSIPS_4_0), 0) == (
        b'{"jsonrpc":"2.0","error":{"code":-32700,"message":"Parse error"},"id":null}'
    )


def test_of_double_members_the_first_counts():
    """And double parameters are too many: none of them is taken for what was meant."""
    node = SimulatedNode(OPENSIPS_4_0)
    node.register("g")
    body = b'{"jsonrpc":"2.0","method":"version","id":1,"method":"nosuch","id":2}'
    reply = answer(body, node, 0) or b""
    assert reply.startswith(b'{"jsonrpc":"2.0","result":{"Server"')
    assert reply.endswith(b',"id":1}')
    named = b'{"jsonrpc":"2.0","method":"sr_get_status","params":{"group":"g","group":"g"},"id":1}'
    assert b'"data":"Named parameters do not match"' in (answer(named, node, 0) or b"")


@pytest.mark.parametrize("request_id", [b"{}", b"[]", b"true", b'"\\ud800"'])
@pytest.mark.parametrize("method", [b"version", b"nosuch"])
def test_ids_that_cannot_be_printed(request_id, method):
    """An id that is no string, number or null spoils the answer, an error's too."""
    body = b'{"jsonrpc":"2.0","method":"%s","id":%s}' % (method, request_id)
    with pytest.raises(UnprintableId):
        answer(body, SimulatedNode(OPENSIPS_4_0), 0)


@pytest.mark.parametrize(
    ("request_id", "shown"),
    [
        (b"-1.9", b"-1"),
        (b"-9e99", b"-2147483648"),
        (b"1e999", b"2147483647"),
        (b"9" * 5000, b"2147483647"),
        (b'"a/\xc3\xbc\xff"', b'"a/\xc3\xbc\xff"'),
    ],
)
def test_ids_are_echoed_as_c_would(request_id, shown):
    """Numbers are cut to int32; text comes back byte for byte."""
    body = b'{"jsonrpc":"2.0","method":"nosuch","id":%s}' % request_id
    reply = answer(body, SimulatedNode(OPENSIPS_4_0), 0)
    assert reply is not None
    assert reply.endswith(b',"id":' + shown + b"}")


@pytest.mark.parametrize("value", [None, True, [], {}])
def test_parameters_of_a_wrong_type_are_named(value):
    """A parameter that is neither text nor number is refused by its name, given by place too."""
    reply = ask(SimulatedNode(OPENSIPS_4_0), "sr_list_status", value)
    assert reply is not None
    assert b'"data":"Bad type for parameter \'group\'"' in reply


def test_a_number_is_taken_for_its_digits():
    """A group may be called 1, and be asked for by a number."""
    node = SimulatedNode(OPENSIPS_4_0)
    node.register("1")
    assert b'"Readiness":true' in (ask(node, "sr_get_status", 1) or b"")
