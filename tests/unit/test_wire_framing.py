"""A stream of objects, cut anywhere, gives the same objects."""

from __future__ import annotations

import contextlib
import json
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sr_exporter.wire.framing import Broken, Objects
from sr_exporter.wire.text import Undecodable, loads
from tests.recorded_events import logs, reads

LIMIT = 65_536


def cut(stream: bytes, *places: int) -> list[bytes]:
    """Feed a stream in parts that end at these places."""
    objects = Objects(LIMIT)
    edges = [0, *sorted(places), len(stream)]
    found = []
    for begin, end in pairwise(edges):
        found += objects.feed(stream[begin:end])
    assert objects.unfinished_bytes == 0
    return found


def cut_out(parts: list[bytes], limit: int = LIMIT) -> tuple[list[bytes], Broken | None]:
    """Give the objects in the parts of a stream, and what broke it."""
    objects, found = Objects(limit), []
    for part in parts:
        try:
            found += objects.feed(part)
        except Broken as error:
            return found + error.whole, error
    return found, None


@pytest.mark.parametrize("path", logs("tcp"), ids=lambda path: "/".join(path.parts[-3:-1]))
def test_a_recorded_stream_re_cut_at_every_byte(path):
    """Two parts, wherever the cut is, and byte by byte: always what the server wrote."""
    stream = b"".join(reads(path))
    whole = cut(stream)
    assert b"".join(whole) == stream
    assert all(loads(one)["params"] for one in whole)
    assert cut(stream, *range(len(stream))) == whole
    for first in range(0, len(whole) - 1, 2):
        two = whole[first : first + 2]
        for place in range(len(b"".join(two))):
            assert cut(b"".join(two), place) == two


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@settings(max_examples=150)
@given(st.data())
def test_objects_of_any_kind_in_parts_of_any_size(data):
    """Braces, quotes and backslashes in strings, spaces in between: nothing misleads it."""
    written = data.draw(st.lists(st.dictionaries(st.text(), JSON, max_size=4), max_size=6))
    ascii_only = data.draw(st.booleans())
    spaces = data.draw(
        st.lists(st.text(" \t\r\n", max_size=3), min_size=len(written), max_size=len(written))
    )
    stream = "".join(
        space + json.dumps(one, ensure_ascii=ascii_only)
        for space, one in zip(spaces, written, strict=True)
    ).encode()
    places = data.draw(st.lists(st.integers(0, len(stream)), max_size=20))
    assert [json.loads(one) for one in cut(stream, *places)] == written


@pytest.mark.parametrize("stream", [b"x", b"[1]", b'"a"', b"{}1", b"}", b"null", b"\xff"])
def test_what_is_no_object_ends_the_stream(stream):
    """There is no telling where the next one would begin."""
    with pytest.raises(Undecodable, match="an object is expected"):
        Objects(LIMIT).feed(stream)


def test_what_was_whole_before_it_is_not_lost():
    """It came in a read before, or in the same one."""
    objects = Objects(LIMIT)
    assert objects.feed(b'{"a":1} {"b":') == [b'{"a":1}']
    assert objects.feed(b"2}\n") == [b'{"b":2}']
    with pytest.raises(Broken) as caught:
        objects.feed(b'{"c":3}{"d":4}?{"e":5}')
    assert caught.value.whole == [b'{"c":3}', b'{"d":4}']
    assert not caught.value.too_big


def test_an_unfinished_object_has_a_limit():
    """In one read or in many; a long stream of short objects has none."""
    with pytest.raises(Undecodable, match="longer than 100 bytes"):
        Objects(100).feed(b'{"a":"' + b"x" * 200)
    objects = Objects(100)
    for _ in range(20):
        assert objects.feed(b'{"a":') == []
    with pytest.raises(Undecodable, match="longer than 100 bytes"):
        objects.feed(b'{"a":')
    assert len(Objects(100).feed(b'{"a":1}' * 1000)) == 1000


def test_an_object_that_is_too_long_is_so_however_it_is_cut():
    """That it came whole in one read makes it no shorter."""
    long = b'{"a":"' + b"x" * 100 + b'"}'
    for place in (0, 50, len(long)):
        found, broken = cut_out([b"{}" + long[:place], long[place:]], 100)
        assert found == [b"{}"]
        assert broken is not None
        assert broken.too_big
        assert str(broken) == "an object is longer than 100 bytes"


def test_it_looks_at_no_byte_twice():
    """A long object in small reads costs what it is long, not its square."""
    objects = Objects(10**7)
    objects.feed(b'{"a":"')
    for _ in range(2000):
        objects.feed(b"x" * 1000)
        assert objects._read == objects.unfinished_bytes
    assert len(objects.feed(b'"}')) == 1


@settings(max_examples=1000)
@given(st.text('{}[]"\\\n ,:a', max_size=60).map(str.encode))
def test_what_is_found_in_one_go_is_what_is_found_byte_by_byte(stream):
    """There is a shorter way for usual objects that come whole; it leads to the same ones."""
    at_once, in_bytes = cut_out([stream]), cut_out([bytes([byte]) for byte in stream])
    assert at_once[0] == in_bytes[0]
    assert str(at_once[1]) == str(in_bytes[1])


@settings(max_examples=500)
@given(st.binary(max_size=200), st.lists(st.integers(0, 200), max_size=5))
def test_no_bytes_break_it(stream, places):
    """Objects, or an error."""
    found = Objects(LIMIT)
    with contextlib.suppress(Undecodable):
        for begin, end in zip([0, *sorted(places)], [*sorted(places), 200], strict=True):
            found.feed(stream[begin:end])
