"""Requests that can do no harm, and replies taken for what they are."""

from __future__ import annotations

import json

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from sr_exporter.mi.client import Command
from sr_exporter.wire import jsonrpc
from sr_exporter.wire.calls import parse_call
from sr_exporter.wire.text import Undecodable


@given(
    st.text(min_size=1, max_size=300),
    st.none() | st.lists(st.text(max_size=300), max_size=4),
    st.integers(1, 2**31 - 1),
)
@example("sr_get_status", ["g" * 480, "i" * 480], 1)
@example("sr_list_status", [], 1)
@example('"},{"', ['"}]'], 1)
def test_a_request_is_one_well_formed_object(method, params, request_id):
    """Method is a string, id a small integer, params there only when there are some."""
    try:
        data = jsonrpc.request(method, params, request_id=request_id)
    except jsonrpc.RequestTooBig:
        said = {"jsonrpc": "2.0", "method": method, "id": request_id, "params": params}
        assert len(json.dumps(said, ensure_ascii=False).encode()) > 1000
        return
    assert len(data) <= 1024
    assert b"\n" not in data
    expected = {"jsonrpc": "2.0", "method": method, "id": request_id}
    if params:
        expected["params"] = params
    document = json.loads(data)
    assert document == expected
    assert type(document) is dict
    assert type(document["id"]) is int


@pytest.mark.parametrize("length", [1024, 1025])
def test_a_request_is_at_most_1024_bytes(length):
    """One byte more than every OpenSIPS takes is refused, and the method named."""
    room = length - len(jsonrpc.request("m", [""]))
    if length <= 1024:
        assert len(jsonrpc.request("m", ["x" * room])) == 1024
        # In bytes, not in characters.
        with pytest.raises(jsonrpc.RequestTooBig):
            jsonrpc.request("m", ["x" * (room - 1) + "ü"])
        return
    with pytest.raises(jsonrpc.RequestTooBig, match="m: 1025 bytes"):
        jsonrpc.request("m", ["x" * room])


@pytest.mark.parametrize(
    ("method", "request_id"), [("", 1), ("m", 0), ("m", -1), ("m", 2**31), ("m", 2**63)]
)
def test_a_request_that_could_do_harm_cannot_be_made(method, request_id):
    """Without a method, or with an id that OpenSIPS would clamp, there is no request."""
    with pytest.raises(ValueError, match="no request can be made"):
        jsonrpc.request(method, request_id=request_id)


@pytest.mark.parametrize("command", Command)
@pytest.mark.parametrize("generation", [0, 1])
def test_commands_are_calls_to_the_other_end(command, generation):
    """Every command we know is a call, no notification, for a parser that does as OpenSIPS'."""
    call = parse_call(jsonrpc.request(command.value[generation], ["g"], request_id=7))
    assert (call.method, call.params, call.id) == (command.value[generation], ["g"], 7)
    assert not call.notification


def test_nothing_asks_for_the_subscribers_list():
    """The command that cuts off subscribers up to 3.5 has no name here."""
    assert not any("subscribers" in name for command in Command for name in command.value)


@pytest.mark.parametrize(
    ("body", "code", "message"),
    [
        (b'{"error":{"code":404,"message":"Group not found"},"id":1}', 404, "Group not found"),
        (
            b'{"error":{"code":-32602,"message":"Invalid params","data":"Too few"},"id":1}',
            -32602,
            "Invalid params: Too few",
        ),
        (b'{"error":{"code":-32700,"message":"Parse error"},"id":null}', -32700, "Parse error"),
        (b'{"error":{"code":1,"message":"a\xffb"},"id":1}', 1, "a\ufffdb"),
        (b'{"error":{"code":1,"message":"a","data":"\xff"},"id":1}', 1, "a: \ufffd"),
        (b'{"error":{"code":1,"message":"a","data":{"b":2}},"id":1}', 1, "a"),
        (b'{"error":{"code":1},"id":1}', 1, ""),
        (b'{"\xff":1,"error":{"code":1,"\xfe":2,"message":"a\xff"},"id":1}', 1, "a\ufffd"),
    ],
)
def test_errors_of_commands_keep_code_and_words(body, code, message):
    """An error is told with its code, its message and what data says in words."""
    with pytest.raises(jsonrpc.RpcError) as caught:
        jsonrpc.result(body)
    assert (caught.value.code, caught.value.message) == (code, message)
    assert str(caught.value) == f"{message} ({code})"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"400 Parse_error",
        b"500 Internal error",
        b"<html>",
        b"[]",
        b"null",
        b"{}",
        b'{"result":[],"id":2}',
        b'{"result":[],"id":"1"}',
        b'{"result":[],"id":null}',
        b'{"result":[]}',
        b'{"id":1}',
        b'{"result":[],"id":1} trailing',
        b'{"result":[,"id":1}',
        b'{"error":"text","id":1}',
        b'{"error":{"code":"x"},"id":1}',
        b'{"result":' + b"[" * 100_000,
    ],
    ids=lambda body: repr(body[:30]),
)
def test_what_is_no_reply_to_us_is_undecodable(body):
    """Plain text, half an answer, and the answer to somebody else are no reply."""
    with pytest.raises(Undecodable):
        jsonrpc.result(body)


@given(st.integers(1, 2**31 - 1), st.integers(1, 2**31 - 1))
def test_a_reply_is_to_its_own_request(asked, answered):
    """The result is given for the id that was asked with, and for no other."""
    assume(asked != answered)
    body = b'{"jsonrpc":"2.0","result":"OK","id":%d}' % answered
    assert jsonrpc.result(body, request_id=answered) == b'"OK"'
    with pytest.raises(Undecodable, match=f"request {answered}, not {asked}"):
        jsonrpc.result(body, request_id=asked)


def test_bytes_of_a_result_are_passed_on_as_they_are():
    """Invalid UTF-8 inside a result is left for who knows what is a name and what a text."""
    assert jsonrpc.result(b'{"result":{"a\xff":"\xfe"},"id":1}') == b'{"a\xff":"\xfe"}'


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b'{"result":[],"id":7}', b'{"result":[]'),
        (b'{"result":[],"id":17}', None),
        (b'{"result":[],"id":7} ', None),
        (b'{"id":7,"result":[]}', None),
        (b'{"result":[],"id": 7}', None),
        (b"", None),
    ],
)
def test_what_a_reply_says_is_all_but_its_id(data, said):
    """Where the id comes last, as OpenSIPS writes it."""
    found = jsonrpc.said(jsonrpc.Reply(data, 7))
    assert (found if found is None else bytes(found)) == said
