"""Push bodies to statements.

A body that begins with `[` is an array; else it is one object; else, of several lines, each
line is an object (NDJSON). An object is a push item, or an `E_CORE_SR_STATUS_CHANGED` as
OpenSIPS writes it. Unknown fields are errors, and a bool, float or string is no status: a
typo must not become a silent "ready".
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated, Any, Literal

import msgspec

from sr_exporter.durations import parse_duration
from sr_exporter.errors import ItemFault, PushRefused
from sr_exporter.model import (
    INT32_MAX,
    INT32_MIN,
    MAIN,
    PUSH_SOURCE,
    OnExpiry,
    Origin,
    Report,
    Statement,
    Way,
)
from sr_exporter.wire.events import EventParams
from sr_exporter.wire.text import Undecodable, convert, loads, log, name, text

if TYPE_CHECKING:
    from collections.abc import Iterator

#: After so many wrong items a body is read no further.
MOST_FAULTS = 100
#: Times past this are not Unix seconds: some unit is wrong.
_LATEST = 2.0**40
#: A time to live is at most ten years.
_LONGEST_TTL_SECONDS = 10 * 365 * 86400.0

_Name = Annotated[str, msgspec.Meta(min_length=1)]
_Int32 = Annotated[int, msgspec.Meta(ge=INT32_MIN, le=INT32_MAX)]
_Time = Annotated[float, msgspec.Meta(ge=0, le=_LATEST)]


class _PushedReport(msgspec.Struct, forbid_unknown_fields=True):
    log: str
    timestamp: _Time | None = None


class _Item(msgspec.Struct, forbid_unknown_fields=True):
    group: _Name
    identifier: _Name = MAIN
    source: _Name | None = None
    status: _Int32 | msgspec.UnsetType = msgspec.UNSET
    details: str | None = None
    reports: list[str | _PushedReport] = []
    ttl: float | str | None = None
    on_expiry: OnExpiry | None = None
    at: _Time | None = None
    old_status: _Int32 | None = None


class _EventParams(EventParams, forbid_unknown_fields=True):
    """An event's, and nothing else: a pusher's typo must not go unseen."""


class _Event(msgspec.Struct, forbid_unknown_fields=True):
    jsonrpc: Literal["2.0"]
    method: Literal["E_CORE_SR_STATUS_CHANGED"]
    params: _EventParams
    id: int | str | None = None


_decode = msgspec.json.Decoder().decode


def statements(body: bytes, *, source: str = PUSH_SOURCE) -> list[Statement]:
    """Read a push body; items that name no source are of `source`.

    Raises:
        PushRefused: with every item that is wrong; nothing of the body may be used.
    """
    read: list[Statement] = []
    faults: list[ItemFault] = []
    for index, item in enumerate(_items(body)):
        try:
            if isinstance(item, Undecodable):
                raise item
            read.append(_statement(item, source))
        except (ValueError, TypeError) as error:
            faults.append(ItemFault(index, text(str(error))))
            if len(faults) == MOST_FAULTS:
                break
    if faults:
        raise PushRefused(_summary(faults), faults)
    return read


def _summary(faults: list[ItemFault]) -> str:
    what = "1 item is" if len(faults) == 1 else f"{len(faults)} items are"
    if len(faults) == MOST_FAULTS:
        what = f"at least {what}"
    return f"{what} wrong; nothing was taken"


def _items(body: bytes) -> Iterator[Any]:
    """Give the items of a body, or the error that stands in the place of one."""
    body = body.strip(b" \t\r\n")
    if not body:
        raise PushRefused("the body is empty")
    if body.startswith(b"["):
        try:
            yield from _json(body)
        except Undecodable as error:
            raise PushRefused(str(error)) from None
        return
    lines = [line for line in body.split(b"\n") if line.strip(b" \t\r")]
    if len(lines) > 1:
        try:
            yield _json(body)  # one object, written over several lines
        except Undecodable:
            pass
        else:
            return
    for line in lines:
        try:
            yield _json(line)
        except Undecodable as error:
            yield error


def _json(data: bytes) -> Any:
    try:
        return _decode(data)
    except RecursionError:
        raise Undecodable("JSON is nested too deeply") from None
    except UnicodeDecodeError:
        return loads(data)
    except msgspec.DecodeError as error:
        # A lone surrogate is malformed to msgspec; only the tolerant reading can tell.
        try:
            return loads(data)
        except Undecodable:
            raise Undecodable(str(error)) from None


def _statement(item: Any, source: str) -> Statement:
    if not isinstance(item, dict):
        raise TypeError(f"an object is expected, not {_kind(item)}")
    if "jsonrpc" in item or "method" in item:
        return convert(item, _Event).params.statement(source, Way.HTTP)
    said = convert(item, _Item)
    status = None if isinstance(said.status, msgspec.UnsetType) else said.status
    if status is None:
        _needs_status(said)
    if said.on_expiry is not None and said.ttl is None:
        raise ValueError("on_expiry: only together with ttl")
    return Statement(
        source=name(said.source or source),
        group=name(said.group),
        identifier=name(said.identifier),
        status=status,
        details=None if said.details is None else text(said.details),
        reports=tuple(map(_report, said.reports)),
        ttl_seconds=None if said.ttl is None else _ttl(said.ttl),
        on_expiry=said.on_expiry or OnExpiry.NOT_READY,
        at=said.at,
        old_status=said.old_status,
        origin=Origin.PUSH if said.old_status is None else Origin.EVENT,
        way=None if said.old_status is None else Way.HTTP,
    )


def _needs_status(said: _Item) -> None:
    if said.details is not None:
        raise ValueError("details: only together with status")
    if said.old_status is not None:
        raise ValueError("old_status: only together with status")
    if not said.reports:
        raise ValueError("status or reports is required")


def _report(item: str | _PushedReport) -> Report | str:
    if isinstance(item, str):
        return log(item)
    line = log(item.log)
    return line if item.timestamp is None else Report(item.timestamp, line)


def _ttl(ttl: float | str) -> float:
    if isinstance(ttl, str):
        try:
            seconds = parse_duration(ttl)
        except ValueError as error:
            raise ValueError(f"ttl: {error}") from None
    else:
        seconds = ttl
    if not (math.isfinite(seconds) and 0 < seconds <= _LONGEST_TTL_SECONDS):
        raise ValueError("ttl: more than 0 seconds, and at most 10 years")
    return seconds


_KINDS = {list: "an array", str: "a string", bool: "a bool", type(None): "null"}


def _kind(item: Any) -> str:
    return _KINDS.get(type(item), "a number")
