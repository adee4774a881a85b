"""A body that is read in pieces reads as it does at once."""

from __future__ import annotations

import json
import random
from itertools import chain
from typing import Any

import msgspec
import pytest

from sr_exporter.wire import pieces

decode = msgspec.json.Decoder().decode


def anything(chance: random.Random, depth: int = 3) -> Any:
    """Make a value, often an object; its texts could be taken for the end of an item."""
    kind = chance.randrange(6 if depth else 2)
    if kind == 0:
        return chance.choice([0, 17, None, True])
    if kind == 1:
        return "".join(chance.choices('},{["\\ é\n', k=chance.randrange(6)))
    inner = [anything(chance, depth - 1) for _ in range(chance.randrange(4))]
    if kind == 2:
        return inner
    return {f"{number}}},": value for number, value in enumerate(inner)}


def outcome(body: bytes, size: int | None) -> list[Any] | str:
    """Give what is read of a body, or why nothing is; `size` None: at once."""
    try:
        if size is None:
            return decode(body)
        return list(chain(*pieces.of_array(body, decode, size)))
    except ValueError as error:
        return str(error)


def test_an_array_reads_as_at_once():
    """However it is laid out, and whatever is nested or written in it."""
    chance = random.Random(7)
    for _ in range(2000):
        documents = [anything(chance) for _ in range(chance.randrange(8))]
        layout = chance.choice([None, 0, 1])
        body = json.dumps(documents, ensure_ascii=False, indent=layout).encode()
        assert outcome(body, chance.randrange(1, 40)) == documents


def test_a_wrong_array_is_wrong_as_at_once():
    """The same is said of it, and of the same byte."""
    chance = random.Random(7)
    wrong = 0
    for _ in range(5000):
        documents = [anything(chance) for _ in range(chance.randrange(1, 8))]
        body = json.dumps(documents).encode()
        place = chance.randrange(1, len(body))
        put = chance.choice([b"", b",", b"x", b"}", b"]", b"\x01"])
        body = body[:place] + put + body[place + chance.randrange(2) :]
        whole = outcome(body, None)
        assert outcome(body, chance.randrange(1, 40)) == whole
        wrong += isinstance(whole, str)
    assert wrong > 2500


@pytest.mark.parametrize(
    "body", [b"[{},{},]", b"[{},{}, \n]", b"[{},{}", b"[{},{},", b"[{},{}]]", b"[{},,{}]"]
)
@pytest.mark.parametrize("size", [1, 2, 3, 4, 5])
def test_the_end_of_an_array_is_looked_at(body, size):
    """Also where a piece ends right before it."""
    found = outcome(body, size)
    assert found == outcome(body, None)
    assert isinstance(found, str)


def test_a_long_array_is_no_single_piece():
    """Of items that hold no others a piece is not tried twice."""
    documents = [{"group": "g", "status": number} for number in range(1000)]
    body = json.dumps(documents, separators=(",", ":")).encode()
    read = list(pieces.of_array(body, decode, 1000))
    assert 20 < len(read) < 30
    assert all(read)


def test_an_item_longer_than_a_piece_is_found():
    """With ever longer tries: each costs what the one before did, twice."""
    long = {"reports": [{"log": "x"}] * 1000}
    documents = [long, *({"a": 1} for _ in range(3000))]
    body = json.dumps(documents, separators=(",", ":")).encode()
    tries: list[int] = []

    def read(part: bytes) -> list[Any]:
        tries.append(len(part))
        found: list[Any] = decode(part)
        return found

    assert list(chain(*pieces.of_array(body, read, 100))) == documents
    assert sum(tries) < 6 * len(body)
    assert max(tries[-5:]) < 200


def test_lines_are_those_of_the_whole():
    """But for blank ones."""
    chance = random.Random(7)
    for _ in range(500):
        body = bytes(chance.choices(b"aa \t\r\n", k=chance.randrange(40)))
        whole = [line for line in body.split(b"\n") if line.strip()]
        assert list(chain(*pieces.of_lines(body, chance.randrange(1, 10)))) == whole


@pytest.mark.parametrize("size", [1, 10])
def test_lines_come_in_pieces(size):
    """Of a line more than was asked for, at most."""
    body = b"12345\n" * 100
    assert max(map(len, pieces.of_lines(body, size))) == 1 + size // 6
