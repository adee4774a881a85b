"""What inputs are made of: what real servers said, and what was written by hand for its malice."""

from __future__ import annotations

import gzip
import json
from functools import cache
from pathlib import Path
from typing import Any

from tests.recorded_events import logs, posts, reads

RECORDINGS = Path(__file__).parent.parent / "recordings"
#: A seed that is longer is mostly more of the same, and takes long to read.
_LONGEST = 1500
#: As much of a list is left in what is cut shorter.
_ITEMS = 3

#: What decoders of JSON trip over.
ODD_JSON = (
    *(b"", b" ", b"null", b"[]", b"{}", b'""', b"\xef\xbb\xbf{}", b"[" * 900 + b"]" * 900),
    *(b'{"a":1,"a":2}', b"NaN", b"[Infinity,-Infinity]", b'"\\ud800"', b'{"\\ud800":1}'),
    *(b'{"\xff":"\xfe"}', b"[1,]", b"{}{}", b"{}\n{}", b"[]\r[]", b'{"a":' * 500, b"1" * 5000),
    *(b'["\\u0000"]', b'"\x00"', b"\xff\xfe{\x00}\x00", b"[1e999,-1e999,1e-999]"),
)


@cache
def answers() -> tuple[bytes, ...]:
    """Give the bodies of recorded answers of the Management Interface, over all transports."""
    found = [path.read_bytes() for path in _recorded("*/dgram/*.res", "*/fifo/*.res", "*/*/*.json")]
    found += [raw.partition(b"\r\n\r\n")[2] for raw in http_answers()]
    return _shortened(found)


@cache
def http_answers() -> tuple[bytes, ...]:
    """Give recorded answers over HTTP as they came."""
    found = [path.read_bytes() for path in _recorded("*/http/*.res")]
    return tuple(dict.fromkeys(raw for raw in found if raw.startswith(b"HTTP/")))


@cache
def requests() -> tuple[bytes, ...]:
    """Give the bodies of recorded requests of the Management Interface."""
    found = [path.read_bytes() for path in _recorded("*/dgram/*.req")]
    http = [path.read_bytes() for path in _recorded("*/http/*.req")]
    fifo = [path.read_bytes() for path in _recorded("*/fifo/*.req")]
    found += [raw.partition(b"\r\n\r\n")[2] for raw in http]
    found += [raw[raw.find(b"{") :] for raw in fifo]
    return _shortened(found)


def results(method: str) -> tuple[bytes, ...]:
    """Give the results of recorded answers to requests whose names begin so, by themselves."""
    found = []
    for path in _recorded(f"*/*/{method}*.res"):
        with_head = path.read_bytes()
        body = with_head.partition(b"\r\n\r\n")[2] or with_head
        said = _document(body)
        if isinstance(said, dict) and "result" in said:
            found.append(_written(said["result"]))
    return _shortened(found)


@cache
def events() -> tuple[bytes, ...]:
    """Give recorded events, each whole."""
    found = [event for way in ("udp", "unix") for log in logs(way) for event in reads(log)]
    found += [b'{"id":7,' + event[1:] for event in found[:3]]
    return _shortened(found)[:80]


@cache
def streams() -> tuple[bytes, ...]:
    """Give what was recorded of event_stream, read by read."""
    return tuple(dict.fromkeys(read for log in logs("tcp") for read in reads(log)))[:80]


@cache
def posted() -> tuple[bytes, ...]:
    """Give the bodies that scripts posted."""
    found = [read for log in posts() for read in reads(log)]
    return _shortened([read.partition(b"\r\n\r\n")[2] for read in found])[:40]


_ITEM = b'{"group":"trunks","identifier":"carrier-a","status":-1,"details":"no answer"}'
PUSHES = (
    *(_ITEM, b"[" + _ITEM + b"]", _ITEM + b"\n" + _ITEM + b"\r\n\n" + _ITEM, b"[]", b"\n", b"["),
    b'{"group":"g","source":"sbc-1","reports":["up",{"log":"down\\n","timestamp":1795378416.5}]}',
    b'{"group":"g","status":1,"ttl":"90s","on_expiry":"remove","at":1795378416}',
    b'[{"group":"G","status":0,"ttl":30},{"group":"g","identifier":"MAIN","status":2147483647}]',
    b'{"group":"g","identifier":"i","status":1,"old_status":-1,"details":null}',
    b'{"group":"drouting","identifier":"a;events","reports":["GW <g>/::1 switched to [active]"]}',
    (
        b'{"jsonrpc":"2.0","method":"E_CORE_SR_STATUS_CHANGED","params":{"group":"core",'
        b'"identifier":"main","status":-2,"details":"shutting down","old_status":1}}'
    ),
    b'{\n "group": "g",\n "status": 1\n}',
)


def pushes() -> tuple[bytes, ...]:
    return (*PUSHES, *posted()[:4], *events()[:4])


@cache
def gzipped() -> tuple[bytes, ...]:
    """Give packed bodies: whole, cut, of several members, with a name, that grow a thousandfold."""
    packed = [gzip.compress(body, mtime=0) for body in PUSHES[:5]]
    named = packed[0][:3] + b"\x08" + packed[0][4:10] + b"name\0" + packed[0][10:]
    return (
        *packed,
        packed[0] + packed[1],
        packed[0] + b"trailing",
        packed[0][:-1],
        packed[0][:-8] + b"\0" * 8,
        named,
        gzip.compress(b" " * 100_000, mtime=0),
        gzip.compress(gzip.compress(_ITEM, mtime=0), mtime=0),
        b"".join(gzip.compress(b"", mtime=0) for _ in range(50)),
    )


def _recorded(*patterns: str) -> list[Path]:
    return [path for pattern in patterns for path in sorted(RECORDINGS.glob(pattern))]


def _shortened(found: list[bytes]) -> tuple[bytes, ...]:
    """Give each once, and cut lists of what is long."""
    short = []
    for body in found:
        if len(body) > _LONGEST and (said := _document(body)) is not None:
            body = _written(_cut(said))  # noqa: PLW2901 - it is the same, shorter
        if 0 < len(body) <= 2 * _LONGEST:
            short.append(body)
    return tuple(dict.fromkeys(short))


def _document(body: bytes) -> Any:
    try:
        return json.loads(body.decode("utf-8", "surrogateescape"))
    except ValueError:
        return None


def _written(said: Any) -> bytes:
    text = json.dumps(said, ensure_ascii=False, separators=(",", ":"))
    return text.encode("utf-8", "surrogateescape")


def _cut(said: Any) -> Any:
    if isinstance(said, list):
        return [_cut(one) for one in said[:_ITEMS]]
    if isinstance(said, dict):
        return {key: _cut(one) for key, one in said.items()}
    return said
