"""Events to statements: what real servers wrote, and what nobody should have written."""

from __future__ import annotations

import contextlib
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sr_exporter.model import Origin, Statement, Way
from sr_exporter.wire import events
from sr_exporter.wire.events import EVENT, EventParams, event, notification, posted
from sr_exporter.wire.framing import Objects
from sr_exporter.wire.text import Undecodable, convert, loads, name, text
from tests.recorded_events import logs, posts, reads

RECORDED = [
    pytest.param(path, id="/".join(path.parts[-3:]))
    for transport in ("tcp", "udp", "unix")
    for path in logs(transport)
]


@pytest.mark.parametrize("path", RECORDED)
def test_every_recorded_event_is_read_as_it_was_written(path):
    """Over every transport, with an id in `reliable_mode` over TCP and without one elsewhere."""
    objects = Objects(65_536)
    way = Way(path.stem.removeprefix("ev-"))
    seen = 0
    for read in reads(path):
        for data in objects.feed(read):
            written = loads(data)
            found = event(data)
            assert (found.id, found.method) == (written.get("id"), EVENT)
            assert ("events-reliable" in path.parts and "tcp" in path.name) == ("id" in written)
            said = written["params"]
            assert found.params.statement("sip-1", way) == Statement(
                "sip-1",
                name(said["group"]),
                name(said["identifier"]),
                said["status"],
                text(said["details"]) if "details" in said else None,
                old_status=said["old_status"],
                origin=Origin.EVENT,
                way=way,
            )
            seen += 1
    assert seen > 0
    assert objects.unfinished_bytes == 0


@pytest.mark.parametrize("path", RECORDED)
def test_every_recorded_event_is_written_byte_for_byte(path):
    """Escapes, invalid UTF-8, ids and absent details, as event_stream and event_datagram do."""
    objects = Objects(65_536)
    stream = b"".join(reads(path))
    said = [event(data) for data in objects.feed(stream)]
    assert b"".join(notification(one.params, request_id=one.id) for one in said) == stream
    assert said


@pytest.mark.parametrize("path", posts(), ids=lambda path: "/".join(path.parts[-3:-1]))
def test_every_recorded_post_is_written_byte_for_byte(path):
    """What the script posts has json-c's spacing, and keeps what follows a NUL."""
    bodies = [read.partition(b"\r\n\r\n")[2] for read in reads(path)]
    assert [posted(convert(loads(body), EventParams)) for body in bodies] == bodies
    assert bodies


def test_an_event_is_written_with_what_was_asked_for():
    """A method of its own, and the event's name as the first parameter."""
    said = EventParams("g", "i", 1, -1, "a\0b")
    assert notification(said, method="sip-1", request_id=4, event_param="event") == (
        b'{"id":4,"jsonrpc":"2.0","method":"sip-1","params":{"event":"E_CORE_SR_STATUS_CHANGED",'
        b'"group":"g","identifier":"i","status":1,"details":"a","old_status":-1}}'
    )


def written(**changes: object) -> bytes:
    params = {"group": "g", "identifier": "i", "status": 1, "old_status": -1}
    said = {"jsonrpc": "2.0", "method": EVENT, "params": params}
    for key, value in changes.items():
        target = said if key in ("jsonrpc", "method", "id", "params") else params
        target[key] = value
    return json.dumps(said).encode()


def test_the_method_is_whatever_was_given_when_subscribing():
    """`tcp:host:port/sip-1` makes it say whose event it is; `event_param` says which event."""
    assert event(written(method="sip-1")).method == "sip-1"
    assert event(written(method="sip-1", event=EVENT)).params.group == "g"
    with pytest.raises(Undecodable, match="'event' is not understood"):
        event(written(method="sip-1", event="E_CORE_THRESHOLD"))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b"{}",
        b"null",
        b"400 Parse_error",
        written(jsonrpc="1.0"),
        written(method=""),
        written(method=5),
        written(params=[]),
        written(group=""),
        written(status="1"),
        written(status=True),
        written(status=2**31),
        written(old_status=None),
        written(details=5),
        written(id=1.5),
        written(id=[]),
    ],
    ids=lambda data: data.decode()[-60:],
)
def test_what_is_no_event_is_refused(data):
    """A wrong one is counted; it must not become a silent "ready"."""
    with pytest.raises(Undecodable):
        event(data)


def test_bytes_that_are_no_utf_8_cost_no_event():
    """Names with `backslashreplace`, texts with U+FFFD (rule 10)."""
    data = written(details="down?", group="g?").replace(b"?", b"\xff")
    said = event(data).params.statement("sip-1", Way.UDP)
    assert (said.group, said.details) == ("g\\xff", "down\ufffd")


def test_a_request_is_answered_with_its_id():
    """Whatever kind of id it is."""
    for request_id in (342360189, 0, -4, "x"):
        asked = event(written(id=request_id))
        assert asked.id == request_id
        assert json.loads(events.answer(asked.id)) == {
            "jsonrpc": "2.0",
            "result": "OK",
            "id": request_id,
        }


@pytest.mark.parametrize("request_id", [b'"\xff"', rb'"\ud800"'])
def test_an_id_that_cannot_be_given_back_is_a_fault_of_the_event(request_id):
    data = written(id=0).replace(b'"id": 0', b'"id": ' + request_id)
    assert request_id in data
    with pytest.raises(Undecodable, match="id"):
        event(data)


def test_what_was_not_taken_is_answered_with_its_id_too():
    """Also where nothing but the id can be understood."""
    assert json.loads(events.refusal(7, -32000, "why")) == {
        "jsonrpc": "2.0",
        "error": {"code": -32000, "message": "why"},
        "id": 7,
    }
    assert events.request_id(b'{"id":7,"method":5,"params":"\xff"}') == 7
    for nothing in (
        b'{"id":"\xff"}',
        rb'{"id":"\ud800"}',
        b"{}",
        b'{"id":null}',
        b'{"id":1.5}',
        b'{"id":{}}',
        b"{",
        b"[7]",
        b"\xff",
    ):
        assert events.request_id(nothing) is None


@settings(max_examples=1000)
@given(st.binary(max_size=300) | st.text(max_size=300).map(str.encode))
def test_no_bytes_break_it(data):
    """An event, or an error."""
    with contextlib.suppress(Undecodable):
        event(data)
