"""JSON-RPC as a Management Interface takes and answers it: bytes to calls, results to bytes.

The other end of the wire is `jsonrpc`.

Recorded from 3.6, 4.0 and 4.1-dev servers, whose parser and printer are cJSON's:

* What follows the first JSON value is not read. Numbers are doubles, printed as int32.
* A request without `id` is a notification: it is carried out, and never answered.
* The number of parameters chooses among a method's forms, then their names must match.
* Only quotes, backslashes and control characters are escaped. Bytes that are not UTF-8 come in
  and go out as they are: text holds them by `surrogateescape`.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any

from sr_exporter.errors import SrExporterError
from sr_exporter.model import INT32_MAX, INT32_MIN

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

#: How much of an answer is written in one piece: a millisecond's work.
PIECE_CHARACTERS = 2**15
#: What C takes for an integer (str2sint).
_INTEGER = re.compile(r"[+-]?[0-9]+", re.ASCII)
#: Halves of a surrogate pair that only a \u escape can have written: cJSON refuses them.
_LONE_SURROGATE = re.compile("[\ud800-\udc7f]")


class CallError(SrExporterError):
    """The error a call is answered with. Codes of OpenSIPS' own, such as 404, are positive."""

    def __init__(
        self, code: int, message: str, data: str | None = None, *, request_id: Any = None
    ) -> None:
        self.code = code
        self.message = message
        self.data = data
        #: The `id` of a request that is no call; the answer to a call takes the call's.
        self.request_id = request_id
        super().__init__(message if data is None else f"{message}: {data}")


class UnprintableId(SrExporterError):  # noqa: N818 - named for what cannot be done
    """The `id` is no string, number or null, so that OpenSIPS fails to print any answer.

    Its HTTP server then says 500, and sends no body (recorded: id-object).
    """


@dataclass(frozen=True, slots=True)
class Call:
    """A request that is well formed. Its id is still as it came, and may be unprintable."""

    method: str
    params: list[Any] | dict[str, Any]
    id: Any
    notification: bool


def parse_call(body: bytes) -> Call:
    """Read a request. Raises CallError, with the `id` to answer under, if it is not one."""
    document = _decode(body)
    if not isinstance(document, dict):
        raise CallError(-32600, "Invalid Request")  # a batch too (recorded: batch)
    request_id = document.get("id")
    method = document.get("method")
    params = document.get("params", [])
    if (
        document.get("jsonrpc") != "2.0"
        or not isinstance(method, str)
        or not isinstance(params, list | dict)
    ):
        raise CallError(-32600, "Invalid Request", request_id=request_id)
    return Call(method, params, request_id, notification="id" not in document)


class Many:
    """A list of a result that is gone through as it is written: it may be a million long."""

    __slots__ = ("items",)

    def __init__(self, items: Iterable[Any]) -> None:
        self.items = items


def bind(call: Call, *forms: tuple[str, ...]) -> dict[str, Any]:
    """Give the parameters by name, after the first of a method's forms that fits.

    Each form lists its parameters in their positional order. Raises CallError -32602.
    """
    of_length = [form for form in forms if len(form) == len(call.params)]
    if not of_length:
        raise _invalid_params("Too few or too many parameters")
    if isinstance(call.params, list):
        given = dict(zip(of_length[0], call.params, strict=True))
    elif not isinstance(call.params, _Doubled) and any(
        call.params.keys() == set(form) for form in of_length
    ):
        given = call.params
    else:
        raise _invalid_params("Named parameters do not match")
    return given


def text_of(name: str, value: Any) -> str:
    """Read a parameter that is a text; an integer is taken for its digits (get-group-int).

    Raises CallError -32602, as does `int_of`.
    """
    if isinstance(value, str):
        return value
    if isinstance(value, float):
        return str(_int32(value))
    raise _bad_type(name)


def int_of(name: str, value: Any) -> int:
    """Read a parameter that is an integer, or its digits as a text: opensips-cli sends no others.

    OpenSIPS cuts what is none, or too long: 1.5 and 4294967297 are 1 to it. What is written is
    refused instead, since a typo must not become a silent "ready".
    """
    if isinstance(value, str) and _INTEGER.fullmatch(value):
        value = float(value)
    if not isinstance(value, float) or not value.is_integer():
        raise _bad_type(name)
    if not INT32_MIN <= value <= INT32_MAX:
        raise _invalid_params(f"Parameter '{name}' does not fit 32 bits")
    return int(value)


def _decode(body: bytes) -> Any:
    text = body.decode("utf-8", "surrogateescape").lstrip()
    try:
        return _DECODER.raw_decode(text)[0]
    except (ValueError, RecursionError):
        raise CallError(-32700, "Parse error") from None


class _Doubled(dict[str, Any]):
    """An object with several members of one name: cJSON finds the first, and counts them all."""


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    return found if len(found) == len(pairs) else _Doubled(reversed(pairs))


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


_DECODER = json.JSONDecoder(
    parse_int=float, parse_constant=_refuse_constant, object_pairs_hook=_object, strict=False
)


def _int32(number: float) -> int:
    """Cut a double as cJSON does: towards zero, and clamped (recorded: id-bigint, id-float)."""
    return int(max(INT32_MIN, min(INT32_MAX, number)))


def _bad_type(name: str) -> CallError:
    return _invalid_params(f"Bad type for parameter '{name}'")


def _invalid_params(data: str) -> CallError:
    return CallError(-32602, "Invalid params", data)


# --- answers, written ---------------------------------------------------------------------


def encode_result(result: Any, request_id: Any) -> bytes:
    """Write an answer. Raises UnprintableId."""
    return b"".join(result_in_pieces(result, request_id))


def result_in_pieces(result: Any, request_id: Any) -> Iterator[bytes]:
    """Write an answer piece by piece, none of them long. Raises UnprintableId, at once."""
    end = f',"id":{_write(printable(request_id))}}}'
    return _pieces(chain(('{"jsonrpc":"2.0","result":',), _written(result), (end,)))


def encode_error(error: CallError, request_id: Any) -> bytes:
    """Write an error. Raises UnprintableId."""
    shown: dict[str, Any] = {"code": error.code, "message": error.message}
    if error.data is not None:
        shown["data"] = error.data
    document = {"jsonrpc": "2.0", "error": shown, "id": printable(request_id)}
    return _encoded(_write(document))


_write = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


def _written(value: Any) -> Iterator[str]:
    """Write a value bit by bit wherever there are many."""
    if isinstance(value, Many):
        before = "["
        for item in value.items:
            yield before
            yield from _written(item)
            before = ","
        yield "[]" if before == "[" else "]"
    elif isinstance(value, dict) and any(isinstance(inner, Many) for inner in value.values()):
        before = "{"
        for name, inner in value.items():
            yield f"{before}{_write(name)}:"
            yield from _written(inner)
            before = ","
        yield "}"
    else:
        yield _write(value)


def _pieces(bits: Iterable[str]) -> Iterator[bytes]:
    gathered: list[str] = []
    size = 0
    for bit in bits:
        gathered.append(bit)
        size += len(bit)
        if size >= PIECE_CHARACTERS:
            yield _encoded("".join(gathered))
            gathered.clear()
            size = 0
    if gathered:
        yield _encoded("".join(gathered))


def _encoded(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def printable(request_id: Any) -> str | int | None:
    """Give an `id` as it is echoed. Raises UnprintableId."""
    if isinstance(request_id, float):
        return _int32(request_id)
    if request_id is None or (
        isinstance(request_id, str) and not _LONE_SURROGATE.search(request_id)
    ):
        return request_id
    raise UnprintableId
