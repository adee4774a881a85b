"""Long bodies in pieces of many items: no single call reads all of a body.

A piece of an array is found by trying: where it reads as an array by itself, what follows cannot
make anything else of it, since JSON is read from left to right.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, TypeVar

import msgspec

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

T = TypeVar("T")

#: What is read at once: some hundred items, in a few milliseconds.
PIECE_BYTES = 2**16
_WHITE = b" \t\r\n"
_PLACE = re.compile(r"(?<=\(byte )\d+(?=\)$)")


def of_array(
    body: bytes, read: Callable[[bytes], Sequence[T]], size: int = PIECE_BYTES
) -> Iterator[Sequence[T]]:
    """Give the items of a JSON array of objects as `read` reads them of a part that is an array.

    An empty piece is one that was tried in vain: a pause like any other.

    Raises:
        ValueError: as `read` says, but that bytes are counted from the beginning of the body.
    """
    start, wanted = 1, size
    while end := body.find(b"},", start + wanted) + 1:
        try:
            piece = read(b"[%b]" % body[start:end])
        except msgspec.ValidationError:
            raise  # it was read so far
        except ValueError:
            # It ends within a string, or in something that is nested.
            wanted *= 2
            yield []
        else:
            yield piece
            start, wanted = end + 1, size
    rest = body[start:]
    blanks = len(rest) - len(rest.lstrip(_WHITE))
    if start > 1 and rest[blanks : blanks + 1] == b"]":
        raise ValueError(f"JSON is malformed: trailing comma in array (byte {start + blanks})")
    try:
        last = read(b"[" + rest)
    except msgspec.ValidationError:
        raise
    except ValueError as error:
        said = _PLACE.sub(lambda at: str(int(at[0]) + start - 1), str(error))
        raise ValueError(said) from None
    yield last


def of_lines(body: bytes, size: int = PIECE_BYTES) -> Iterator[list[bytes]]:
    """Give the lines of a body that are not blank."""
    start = 0
    while start < len(body):
        end = body.find(b"\n", start + size)
        if end < 0:
            end = len(body)
        yield [line for line in body[start:end].split(b"\n") if line.strip(b" \t\r")]
        start = end + 1
