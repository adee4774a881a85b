"""JSON-RPC 2.0 as the Management Interface speaks it: one request, one answer.

What a request may be is a matter of safety: a batch or a request without a string method
kills an OpenSIPS over datagram and FIFO, a body over 1024 bytes hangs its HTTP (facts,
sections 7 and 9). `request` can build nothing of the kind.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import msgspec

from sr_exporter.wire.text import Undecodable, convert, loads, text

#: The longest body every OpenSIPS takes (httpd `receive_buf_size`).
MAX_REQUEST_BYTES = 1024
METHOD_NOT_FOUND = -32601
#: The code of "Group not found", "Identity not found" and "Identifier not found".
NOT_FOUND = 404
_INT32_MAX = 2**31 - 1


class RequestTooBig(ValueError):  # noqa: N818
    """The request would not be taken; its size and method are named."""


class RpcError(Exception):
    """The error an MI command answered with."""

    def __init__(self, code: int, message: str) -> None:
        self.code = code
        self.message = message
        super().__init__(f"{message} ({code})")


class Reply(NamedTuple):
    """The bytes of a reply, and the id of the request that it must be to."""

    data: bytes
    request_id: int


class _Error(msgspec.Struct):
    code: int
    message: str = ""
    data: Any = None


class _Reply(msgspec.Struct):
    id: int | None = None
    result: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    error: _Error | None = None


_decode_reply = msgspec.json.Decoder(_Reply).decode


def request(
    method: str, params: list[str] | dict[str, str] | None = None, *, request_id: int = 1
) -> bytes:
    """Write one request, with its parameters in their order or by name.

    Raises:
        RequestTooBig: it is longer than OpenSIPS takes.
        ValueError: the method is empty or the id no small integer.
    """
    if not method or not 0 < request_id <= _INT32_MAX:
        raise ValueError(f"no request can be made of method {method!r}, id {request_id!r}")
    body: dict[str, object] = {"jsonrpc": "2.0", "method": method, "id": request_id}
    if params:
        body["params"] = params
    data = msgspec.json.encode(body)
    if len(data) > MAX_REQUEST_BYTES:
        raise RequestTooBig(f"{method}: {len(data)} bytes; OpenSIPS takes {MAX_REQUEST_BYTES}")
    return data


def result(data: bytes, request_id: int = 1) -> bytes:
    """Give the bytes of the result in a reply.

    Invalid UTF-8 inside the result is passed on as it is.

    Raises:
        RpcError: the command answered with an error.
        Undecodable: this is no reply, or the reply to another request.
    """
    reply = _reply(data)
    if reply.error is not None:
        said = reply.error.message
        if isinstance(reply.error.data, str):
            said = f"{said}: {reply.error.data}"
        raise RpcError(reply.error.code, said)
    if reply.id != request_id:
        raise Undecodable(f"the reply is to request {reply.id}, not {request_id}")
    if isinstance(reply.result, msgspec.UnsetType):
        raise Undecodable("the reply has neither result nor error")
    return bytes(reply.result)


def said(reply: Reply) -> memoryview | None:
    """Give what a reply says whatever request it is to: all but its id, where that comes last.

    Two replies that say the same have the same result; None where that cannot be told.
    """
    end = b',"id":%d}' % reply.request_id
    return memoryview(reply.data)[: -len(end)] if reply.data.endswith(end) else None


def _reply(data: bytes) -> _Reply:
    try:
        return _decode_reply(data)
    except RecursionError:
        raise Undecodable("JSON is nested too deeply") from None
    except UnicodeDecodeError:
        return _tolerant(data)
    except msgspec.MsgspecError as error:
        raise Undecodable(str(error)) from None


def _tolerant(data: bytes) -> _Reply:
    """Read a reply whose own words are no UTF-8: only an error's message can be so."""
    document = loads(data)
    if not isinstance(document, dict):
        raise Undecodable("the reply is no object")
    reply = convert({**document, "result": msgspec.Raw(b"null")}, _Reply)
    if reply.error is not None:
        reply.error.message = text(reply.error.message)
        reply.error.data = text(reply.error.data) if isinstance(reply.error.data, str) else None
        return reply
    raise Undecodable("the reply is not UTF-8 where it must be")
