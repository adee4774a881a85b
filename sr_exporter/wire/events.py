"""SR events, as OpenSIPS' event_stream, event_datagram and scripts write them; both directions.

An event is a JSON-RPC notification, or over event_stream in `reliable_mode` a request, whose
answer is to bear its id (facts on OpenSIPS, section 2). Its method is the event's name, or the
one that was given when subscribing, `tcp:host:port/NAME`: then it says whose event it is, and
event_stream's `event_param`, where it is set, says which event.
"""

from __future__ import annotations

import json
from typing import Annotated, Any, NamedTuple

import msgspec

from sr_exporter.model import INT32_MAX, INT32_MIN, Origin, Statement, Way
from sr_exporter.wire.text import Undecodable, convert, details_of, loads, name, text

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

    def statement(self, source: str, way: Way) -> Statement:
        return Statement(
            source=name(source),
            group=name(self.group),
            identifier=name(self.identifier),
            status=self.status,
            details=None if self.details is None else details_of(self.details),
            old_status=self.old_status,
            origin=Origin.EVENT,
            way=way,
        )


class _Event(msgspec.Struct):
    method: _Name
    params: dict[str, Any]
    jsonrpc: str = "2.0"
    id: int | str | None = None


class _Request(msgspec.Struct):
    """As much of a request as its answer needs."""

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
    if not _can_be_written(found.id):
        raise Undecodable("its id is not UTF-8")
    said = convert(found.params, EventParams)
    for key, value in found.params.items():
        if key not in EventParams.__struct_fields__ and value != EVENT:
            # No version writes anything else; another event has other parameters.
            raise Undecodable(f"params: {text(key)!r} is not understood")
    return Event(found.id, name(found.method), said)


def answer(request_id: int | str) -> bytes:
    """Write the answer that event_stream waits for in `reliable_mode`."""
    return msgspec.json.encode({"jsonrpc": "2.0", "result": "OK", "id": request_id})


def refusal(request_id: int | str, code: int, message: str) -> bytes:
    """Write the answer to an event that was not taken, or is not kept."""
    error = {"code": code, "message": message}
    return msgspec.json.encode({"jsonrpc": "2.0", "error": error, "id": request_id})


def request_id(data: bytes) -> int | str | None:
    """Find what to answer to something that is no event; None: nothing can be."""
    if b'"id"' not in data:
        return None
    try:
        found = convert(loads(data), _Request).id
    except Undecodable:
        return None
    return found if _can_be_written(found) else None


def _can_be_written(request_id: int | str | None) -> bool:
    """Whether an id can be given back: one that is no UTF-8 cannot."""
    return not isinstance(request_id, str) or name(request_id) == request_id


# --- as OpenSIPS writes them --------------------------------------------------------------


def notification(
    said: EventParams,
    *,
    method: str = EVENT,
    request_id: int | None = None,
    event_param: str | None = None,
) -> bytes:
    """Write an event as event_stream and event_datagram do, byte for byte.

    Bytes that are not UTF-8 are held by `surrogateescape`, and go out as they are; texts end at
    the first NUL. `request_id` is `reliable_mode`'s, and `event_param` a name that the event's
    own is given under, before all else (read in event_stream's source; not recorded).
    """
    params: dict[str, object] = {} if event_param is None else {event_param: EVENT}
    params |= {
        "group": _c_string(said.group),
        "identifier": _c_string(said.identifier),
        "status": said.status,
    }
    if said.details is not None:
        params["details"] = _c_string(said.details)
    params["old_status"] = said.old_status
    written: dict[str, object] = {} if request_id is None else {"id": request_id}
    written |= {"jsonrpc": "2.0", "method": method, "params": params}
    return _bytes(json.dumps(written, ensure_ascii=False, separators=(",", ":")))


def posted(said: EventParams) -> bytes:
    """Write the body that the recorded `event_route` posts: json-c's spacing and escapes."""
    params: dict[str, object] = {
        "group": said.group,
        "identifier": said.identifier,
        "status": said.status,
        "old_status": said.old_status,
    }
    if said.details is not None:
        params["details"] = said.details
    written = json.dumps(params, ensure_ascii=False)[1:-1].replace("/", r"\/")
    return _bytes(f"{{ {written} }}")


def _c_string(text_held: str) -> str:
    return text_held.partition("\0")[0]


def _bytes(written: str) -> bytes:
    return written.encode("utf-8", "surrogateescape")


# --- reading ------------------------------------------------------------------------------


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
