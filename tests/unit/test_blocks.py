"""Blocks: any of them in any order are one gzip member."""

from __future__ import annotations

import gzip
import zlib

from hypothesis import given
from hypothesis import strategies as st

from sr_exporter.metrics.blocks import GZIP_HEADER, Block, gzip_trailer, joined, pack
from sr_exporter.wire.slices import at_once

TEXTS = st.lists(st.binary(max_size=3000), max_size=8)


def member(blocks: list[Block]) -> bytes:
    trailer = at_once(gzip_trailer(blocks))
    return b"".join([GZIP_HEADER, *(block.packed for block in blocks), trailer])


@given(TEXTS)
def test_blocks_are_one_member(texts: list[bytes]):
    """Readers that stop after the first member, as curl and Chromium do, get all of it."""
    whole = member([pack(text) for text in texts])
    assert gzip.decompress(whole) == b"".join(texts)
    first = zlib.decompressobj(wbits=31)
    assert first.decompress(whole) == b"".join(texts)
    assert first.eof
    assert first.unused_data == b""


@given(TEXTS, st.randoms())
def test_blocks_stand_alone(texts: list[bytes], random):
    """A block can be left out, said twice, or stand elsewhere: none looks back on another."""
    packed = [(text, pack(text * 3)) for text in texts]
    chosen = random.choices(packed, k=5) if packed else []
    whole = member([block for _, block in chosen])
    assert gzip.decompress(whole) == b"".join(text * 3 for text, _ in chosen)
    for text, block in packed:
        assert block.unpack() == text * 3


def test_a_trailer_of_many_blocks_is_written_in_turns():
    blocks = [pack(b"x" * 100)] * 2500
    turns = gzip_trailer(blocks)
    assert sum(1 for _ in turns) == 3
    assert gzip.decompress(member(blocks)) == b"x" * 250_000


def test_bytes_carry_no_time():
    """The same body gives the same bytes at any time: the header's time is zero."""
    assert member([pack(b"x" * 1000)])[4:8] == bytes(4)
    assert pack(b"x" * 1000) == pack(b"x" * 1000)
    assert len(member([pack(b"x" * 1000)])) < 100


@given(st.lists(st.binary(max_size=50)), st.integers(1, 200))
def test_pieces_are_joined_whole(pieces: list[bytes], about: int):
    """Nothing is lost or turned round, and none but the last is smaller than was asked for."""
    larger = list(joined(pieces, about))
    assert b"".join(larger) == b"".join(pieces)
    assert all(len(piece) >= about for piece in larger[:-1])
