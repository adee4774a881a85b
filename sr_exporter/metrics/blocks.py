"""Text kept compressed, in blocks that any answer can be joined of.

A block is raw deflate (RFC 1951) ended by a full flush: it begins and ends on a byte, and refers
to nothing before it. So blocks in any order, between a header and a last empty block, are one
gzip member (RFC 1952), as curl and Chromium want it: after the first member of several they stop.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, NamedTuple

from isal import isal_zlib

from sr_exporter.turns import slices

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Iterator, Sequence

_RAW = -15
#: Of 0 to 3: the loop's time is dearer than the network's bytes.
_LEVEL = 1
#: Of how many blocks checksums are combined in a turn.
_COMBINED = 1_000
#: RFC 1952, section 2.3: deflate, no flags, no time, of unknown system.
GZIP_HEADER = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff"
#: An empty block that is the last (RFC 1951, section 3.2.6).
_LAST_BLOCK = b"\x03\x00"

# One for all: a full flush leaves nothing behind. It is used on the loop's thread only.
_packer = isal_zlib.compressobj(_LEVEL, isal_zlib.DEFLATED, _RAW)


class Block(NamedTuple):
    """A piece of an answer."""

    #: Raw deflate, ended by a full flush.
    packed: bytes
    #: The CRC-32, and the length in bytes, of what is packed.
    crc: int
    size: int

    def unpack(self) -> bytes:
        return isal_zlib.decompress(self.packed + _LAST_BLOCK, _RAW) if self.packed else b""


EMPTY = Block(b"", 0, 0)


def pack(text: bytes) -> Block:
    """Compress a piece; the same piece always gives the same bytes."""
    if not text:
        return EMPTY
    packed = _packer.compress(text) + _packer.flush(isal_zlib.Z_FULL_FLUSH)
    return Block(packed, isal_zlib.crc32(text), len(text))


def gzip_trailer(blocks: Sequence[Block]) -> Generator[None, None, bytes]:
    """Give what ends a gzip member of these blocks, in turns: of 16,000 it takes 20 ms."""
    crc = size = 0
    combine = isal_zlib.crc32_combine
    for some in slices(blocks, _COMBINED):
        for block in some:
            crc = combine(crc, block.crc, block.size)
            size += block.size
        yield
    return _LAST_BLOCK + struct.pack("<LL", crc, size & 0xFFFFFFFF)


def joined(pieces: Iterable[bytes], about: int) -> Iterator[bytes]:
    """Join small pieces to some of about this many bytes."""
    gathered: list[bytes] = []
    size = 0
    for piece in pieces:
        gathered.append(piece)
        size += len(piece)
        if size >= about:
            yield b"".join(gathered)
            gathered.clear()
            size = 0
    if gathered:
        yield b"".join(gathered)
