"""Push bodies to statements.

A body that begins with `[` is an array; else it is one object; else, of several lines, each
line is an object (NDJSON). An object is a push item, or an `E_CORE_SR_STATUS_CHANGED` as
OpenSIPS writes it. Unknown fields are errors, and a bool, float or string is no status: a
typo must not become a silent "ready".
"""

from __future__ import annotations

import contextlib
import math
from typing import TYPE_CHECKING, Annotated, Any, Literal

import msgspec

from sr_exporter.durations import parse_duration
from sr_exporter.errors import ItemFault, PushRefused
from sr_exporter.freeing import emptied
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
from sr_exporter.wire import pieces
from sr_exporter.wire.events import EventParams
from sr_exporter.wire.slices import at_once
from sr_exporter.wire.text import Undecodable, convert, details_of, loads, log, name, text

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Iterator, Sequence

#: A larger body is read in pieces.
LARGE_BYTES = 2**17
#: After so many wrong items a body is read no further.
MOST_FAULTS = 100
#: Times past this are not Unix seconds: some unit is wrong.
_LATEST = 2.0**40
#: A time to live is at most ten years.
_LONGEST_TTL_SECONDS = 10 * 365 * 86400.0

_Name = Annotated[str, msgspec.Meta(min_length=1)]
_Int32 = Annotated[int, msgspec.Meta(ge=INT32_MIN, le=INT32_MAX)]
_Time = Annotated[float, msgspec.Meta(ge=0, le=_LATEST)]


class PushedReport(msgspec.Struct, forbid_unknown_fields=True):
    """A line for a key's ring."""

    log: str
    timestamp: _Time | None = None


class Item(msgspec.Struct, forbid_unknown_fields=True):
    """What a push says of one key."""

    group: _Name
    identifier: _Name = MAIN
    source: _Name | None = None
    status: _Int32 | msgspec.UnsetType = msgspec.UNSET
    details: str | None = None
    reports: list[str | PushedReport] = []
    ttl: float | str | None = None
    on_expiry: OnExpiry | None = None
    at: _Time | None = None
    old_status: _Int32 | None = None


class PushedEventParams(EventParams, forbid_unknown_fields=True):
    """An event's, and nothing else: a pusher's typo must not go unseen."""


class PushedEvent(msgspec.Struct, forbid_unknown_fields=True):
    """An SR event, as OpenSIPS writes it."""

    jsonrpc: Literal["2.0"]
    method: Literal["E_CORE_SR_STATUS_CHANGED"]
    params: PushedEventParams
    id: int | str | None = None


_decode = msgspec.json.Decoder().decode
_decode_item = msgspec.json.Decoder(Item).decode
_decode_items = msgspec.json.Decoder(list[Item]).decode
_WHITE = b" \t\r\n"


def statements(body: bytes, *, source: str = PUSH_SOURCE) -> list[Statement]:
    """Read a push body; items that name no source are of `source`.

    Raises:
        PushRefused: with every item that is wrong; nothing of the body may be used.
    """
    return at_once(statements_in_slices(body, source=source))


def statements_in_slices(
    body: bytes, *, source: str = PUSH_SOURCE
) -> Generator[None, None, list[Statement]]:
    """Read as `statements` does, with pauses."""
    body = body.strip(_WHITE)
    if not body:
        raise PushRefused("the body is empty")
    with contextlib.suppress(ValueError, RecursionError):
        return (yield from _plain(body, source))
    read: list[Statement] = []
    faults: list[ItemFault] = []
    index = -1
    for piece in _pieces(body):
        for item in piece:
            index += 1
            try:
                if isinstance(item, Undecodable):
                    raise item
                read.append(_statement(item, source))
            except (ValueError, TypeError) as error:
                faults.append(ItemFault(index, text(str(error))))
                if len(faults) == MOST_FAULTS:
                    raise PushRefused(_summary(faults), faults) from None
        yield
    if faults:
        yield from emptied(read)
        raise PushRefused(_summary(faults), faults)
    return read


def _plain(body: bytes, source: str) -> Generator[None, None, list[Statement]]:
    """Read a body of push items alone that are all well formed: nearly every one is.

    Raises:
        ValueError: this one is not, or not known to be; nothing can be told of what is wrong.
    """
    if len(body) > LARGE_BYTES:
        read: list[Statement] = []
        try:
            for piece in _plain_pieces(body):
                read += [_said(item, source) for item in piece]
                yield
        except (ValueError, RecursionError):
            yield from emptied(read)
            raise
        return read
    if body.startswith(b"["):
        return [_said(item, source) for item in _decode_items(body)]
    lines = body.split(b"\n") if b"\n" in body else [body]
    return [_said(_decode_item(line), source) for line in lines if line.strip(_WHITE)]


def _plain_pieces(body: bytes) -> Iterable[Sequence[Item]]:
    if body.startswith(b"["):
        return pieces.of_array(body, _decode_items)
    return (list(map(_decode_item, lines)) for lines in pieces.of_lines(body))


def _summary(faults: list[ItemFault]) -> str:
    what = "1 item is" if len(faults) == 1 else f"{len(faults)} items are"
    if len(faults) == MOST_FAULTS:
        what = f"at least {what}"
    return f"{what} wrong; nothing was taken"


def _pieces(body: bytes) -> Iterator[Sequence[Any]]:
    """Give the items of a body, or the error that stands in the place of one.

    Raises:
        PushRefused: items cannot be told apart.
    """
    if body.startswith(b"["):
        try:
            yield from pieces.of_array(body, _json)
        except ValueError as error:
            raise PushRefused(str(error)) from None
        return
    if b"\n" in body and isinstance(_line(body[: body.find(b"\n")]), Undecodable):
        try:
            yield [_json(body)]  # one object, written over several lines
        except Undecodable:
            pass
        else:
            return
    for lines in pieces.of_lines(body):
        yield [_line(line) for line in lines]


def _line(line: bytes) -> Any:
    try:
        return _json(line)
    except Undecodable as error:
        return error


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
        return convert(item, PushedEvent).params.statement(source, Way.HTTP)
    return _said(convert(item, Item), source)


def _said(said: Item, source: str) -> Statement:
    """Say what an item says.

    Raises:
        ValueError: its fields do not go together, or are out of range.
    """
    status = None if isinstance(said.status, msgspec.UnsetType) else said.status
    if status is None:
        _needs_status(said)
    if said.on_expiry is not None and said.ttl is None:
        raise ValueError("on_expiry: only together with ttl")
    if said.old_status is None and said.ttl is None and not said.reports:
        return Statement(
            name(said.source or source),
            name(said.group),
            name(said.identifier),
            status,
            None if said.details is None else details_of(said.details),
            at=said.at,
        )
    return Statement(
        source=name(said.source or source),
        group=name(said.group),
        identifier=name(said.identifier),
        status=status,
        details=None if said.details is None else details_of(said.details),
        reports=tuple(map(_report, said.reports)),
        ttl_seconds=None if said.ttl is None else _ttl(said.ttl),
        on_expiry=said.on_expiry or OnExpiry.NOT_READY,
        at=said.at,
        old_status=said.old_status,
        origin=Origin.PUSH if said.old_status is None else Origin.EVENT,
        way=None if said.old_status is None else Way.HTTP,
    )


def _needs_status(said: Item) -> None:
    if said.details is not None:
        raise ValueError("details: only together with status")
    if said.old_status is not None:
        raise ValueError("old_status: only together with status")
    if not said.reports:
        raise ValueError("status or reports is required")


def _report(item: str | PushedReport) -> Report | str:
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
