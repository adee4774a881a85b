"""SR events, as OpenSIPS' event_stream, event_datagram and scripts write them, to statements.

An event is a JSON-RPC notification, or over event_stream in `reliable_mode` a request, whose
answer is to bear its id (facts on OpenSIPS, section 2). Its method is the event's name, or the
one that was given when subscribing, `tcp:host:port/NAME`: then it says whose event it is, and
event_stream's `event_param`, where it is set, says which event.
"""

from __future__ import annotations

from typing import Annotated, Any, NamedTuple

import msgspec

from sr_exporter.model import INT32_MAX, INT32_MIN, Origin, Statement
from sr_exporter.wire.text import Undecodable, convert, loads, name, text

EVENT = "E_CORE_SR_STATUS_CHANGED"

_Name = Annotated[str, msgspec.Meta(min_length=1)]
_Int32 = Annotated[int, msgspec.Meta(ge=INT32_MIN, le=INT32_MAX)]


class EventParams(msgspec.Struct):
    """What an event says; the rest is `event_param`, under a name of the operator's."""

    group: _Name
    identifier: _Name
    status: _Int32
    old_status: _Int32
    details: str | None = None

    def statement(self, source: str) -> Statement:
        return Statement(
            source=name(source),
            group=name(self.group),
            identifier=name(self.identifier),
            status=self.status,
            details=None if self.details is None else text(self.details),
            old_status=self.old_status,
            origin=Origin.EVENT,
        )


class _Event(msgspec.Struct):
    method: _Name
    params: dict[str, Any]
    jsonrpc: str = "2.0"
    id: int | str | None = None


class Event(NamedTuple):
    #: What it is to be answered with; None where no answer is awaited.
    id: int | str | None
    #: The event's name, or the one that was given when subscribing.
    method: str
    params: EventParams


_decode = msgspec.json.Decoder(_Event).decode


def event(data: bytes) -> Event:
    """Read one event.

    Raises:
        Undecodable: it is none, or one of another kind.
    """
    found = _read(data)
    if found.jsonrpc != "2.0":
        raise Undecodable("it is not JSON-RPC 2.0")
    said = convert(found.params, EventParams)
    for key, value in found.params.items():
        if key not in EventParams.__struct_fields__ and value != EVENT:
            # No version writes anything else; another event has other parameters.
            raise Undecodable(f"params: {text(key)!r} is not understood")
    return Event(found.id, name(found.method), said)


def answer(request_id: int | str) -> bytes:
    """Write the answer that event_stream waits for in `reliable_mode`."""
    return msgspec.json.encode({"jsonrpc": "2.0", "result": "OK", "id": request_id})


def _read(data: bytes) -> _Event:
    try:
        return _decode(data)
    except RecursionError:
        raise Undecodable("JSON is nested too deeply") from None
    except UnicodeDecodeError:
        return convert(loads(data), _Event)
    except msgspec.ValidationError as error:
        raise Undecodable(str(error)) from None
    except msgspec.DecodeError:
        # A lone surrogate is malformed to msgspec; only the tolerant reading can tell.
        return convert(loads(data), _Event)
