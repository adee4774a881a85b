"""Request bodies, taken up to a limit."""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING

from sr_exporter.limits import Limit
from sr_exporter.threads import elsewhere
from sr_exporter.web.errors import Refused

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.types import Receive

_GZIP = 16 + zlib.MAX_WBITS
#: What is longer is decompressed in a thread: it may grow by a thousand, of which zlib makes
#: some hundred megabytes a second, and lets others run meanwhile.
_AT_ONCE_BYTES = 2**12
#: How many members a gzip body may have. One of nothing is 20 bytes, and costs what any does.
MOST_MEMBERS, _PIECE_BYTES = 10_000, 2**14


async def read(request: Request, limit_bytes: int) -> bytes:
    """Give a body, decompressed; Content-Encoding may be gzip or none.

    Raises:
        Refused: 415 for another encoding, 413 past the limit (compressed or not), 400 for
            what is no gzip or ends too soon.
    """
    # Their names are lower case already; of one that is repeated the first counts.
    headers: dict[bytes, bytes] = dict(reversed(request.scope["headers"]))
    encoding = headers.get(b"content-encoding", b"identity").decode("latin-1").strip().lower()
    if encoding not in ("", "identity", "gzip", "x-gzip"):
        raise Refused(415, f"Content-Encoding {encoding!r} is not understood: gzip or none")
    length = headers.get(b"content-length", b"")
    if length.isdigit() and int(length[:20]) > limit_bytes:
        raise _too_big(limit_bytes)
    body = await _take(request.receive, limit_bytes)
    if encoding in ("", "identity"):
        return body
    if len(body) <= _AT_ONCE_BYTES:
        return _unzip(body, limit_bytes)
    return await elsewhere(_unzip, body, limit_bytes)


async def _take(receive: Receive, limit_bytes: int) -> bytes:
    taken: list[bytes] = []
    size = 0
    more = True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise Refused(400, "the body ends before its end")
        chunk: bytes = message.get("body", b"")
        size += len(chunk)
        if size > limit_bytes:
            raise _too_big(limit_bytes)
        taken.append(chunk)
        more = message.get("more_body", False)
    return b"".join(taken) if len(taken) > 1 else taken[0]


def _unzip(body: bytes, limit_bytes: int) -> bytes:
    """Decompress members up to the limit: a bomb is not blown up to be measured.

    They are taken in pieces: what follows a member is copied to begin the next with.
    """
    taken: list[bytes] = []
    rest, size, at, members = memoryview(body), 0, 0, 0
    while at < len(body):
        members += 1
        if members > MOST_MEMBERS:
            raise Refused(
                400,
                f"the gzip body has more than {MOST_MEMBERS} members",
                limit=Limit.GZIP_MEMBERS,
            )
        member = zlib.decompressobj(_GZIP)
        while not member.eof:
            if at == len(body):
                raise Refused(400, "the gzip body ends before its end")
            piece = rest[at : at + _PIECE_BYTES]
            at += len(piece)
            try:
                taken.append(member.decompress(piece, limit_bytes + 1 - size))
            except zlib.error:
                raise Refused(400, "the body is not gzip, as its Content-Encoding says") from None
            size += len(taken[-1])
            if size > limit_bytes:
                raise _too_big(limit_bytes)
        at -= len(member.unused_data)
    return b"".join(taken)


def _too_big(limit_bytes: int) -> Refused:
    return Refused(
        413,
        f"the body is larger than {limit_bytes} bytes (limits.body_bytes)",
        limit=Limit.BODY_BYTES,
    )
