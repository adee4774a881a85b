"""Request bodies, taken up to a limit."""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING

from starlette.requests import ClientDisconnect

from sr_exporter.web.errors import Refused

if TYPE_CHECKING:
    from starlette.requests import Request

_GZIP = 16 + zlib.MAX_WBITS


async def read(request: Request, limit_bytes: int) -> bytes:
    """Give a body, decompressed; Content-Encoding may be gzip or none.

    Raises:
        Refused: 415 for another encoding, 413 past the limit (compressed or not), 400 for
            what is no gzip or ends too soon.
    """
    encoding = request.headers.get("content-encoding", "identity").strip().lower()
    if encoding not in ("", "identity", "gzip", "x-gzip"):
        raise Refused(415, f"Content-Encoding {encoding!r} is not understood: gzip or none")
    body = await _take(request, limit_bytes)
    if encoding in ("", "identity"):
        return body
    return _unzip(body, limit_bytes)


async def _take(request: Request, limit_bytes: int) -> bytes:
    length = request.headers.get("content-length", "")
    if length.isascii() and length.isdigit() and int(length[:20]) > limit_bytes:
        raise _too_big(limit_bytes)
    taken: list[bytes] = []
    size = 0
    try:
        async for chunk in request.stream():
            size += len(chunk)
            if size > limit_bytes:
                raise _too_big(limit_bytes)
            taken.append(chunk)
    except ClientDisconnect:
        raise Refused(400, "the body ends before its end") from None
    return b"".join(taken)


def _unzip(body: bytes, limit_bytes: int) -> bytes:
    """Decompress members up to the limit: a bomb is not blown up to be measured."""
    taken: list[bytes] = []
    size = 0
    while body:
        member = zlib.decompressobj(_GZIP)
        try:
            piece = member.decompress(body, limit_bytes + 1 - size)
        except zlib.error:
            raise Refused(400, "the body is not gzip, as its Content-Encoding says") from None
        size += len(piece)
        if size > limit_bytes:
            raise _too_big(limit_bytes)
        if not member.eof:
            raise Refused(400, "the gzip body ends before its end")
        taken.append(piece)
        body = member.unused_data
    return b"".join(taken)


def _too_big(limit_bytes: int) -> Refused:
    return Refused(413, f"the body is larger than {limit_bytes} bytes (limits.body_bytes)")
