"""Events to statements: what real servers wrote, and what nobody should have written."""

from __future__ import annotations

import contextlib
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sr_exporter.model import Origin, Statement
from sr_exporter.wire import events
from sr_exporter.wire.events import EVENT, event
from sr_exporter.wire.framing import Objects
from sr_exporter.wire.text import Undecodable, loads, name, text
from tests.recorded_events import logs, reads

RECORDED = [
    pytest.param(path, id="/".join(path.parts[-3:]))
    for transport in ("tcp", "udp", "unix")
    for path in logs(transport)
]


@pytest.mark.parametrize("path", RECORDED)
def test_every_recorded_event_is_read_as_it_was_written(path):
    """Over every transport, with an id in `reliable_mode` over TCP and without one elsewhere."""
    objects = Objects(65_536)
    seen = 0
    for read in reads(path):
        for data in objects.feed(read):
            written = loads(data)
            found = event(data)
            assert (found.id, found.method) == (written.get("id"), EVENT)
            assert ("events-reliable" in path.parts and "tcp" in path.name) == ("id" in written)
            said = written["params"]
            assert found.params.statement("sip-1") == Statement(
                "sip-1",
                name(said["group"]),
                name(said["identifier"]),
                said["status"],
                text(said["details"]) if "details" in said else None,
                old_status=said["old_status"],
                origin=Origin.EVENT,
            )
            seen += 1
    assert seen > 0
    assert objects.unfinished_bytes == 0


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
    said = event(data).params.statement("sip-1")
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


@settings(max_examples=1000)
@given(st.binary(max_size=300) | st.text(max_size=300).map(str.encode))
def test_no_bytes_break_it(data):
    """An event, or an error."""
    with contextlib.suppress(Undecodable):
        event(data)
