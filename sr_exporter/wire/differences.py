"""In which places a listing says something else than the one before: only they need be read.

A poll says of most identifiers what the last poll said. An imprint of a listing has a hash of
every few items, and one of their names. Of the next listing, if its groups have the same names and
as many items each, only the places are read whose hash is another. Where a name in such a place is
another too, identifiers came or went, and all of it is read.

Hashes are Python's own: 64 bits, seeded anew in each process.
"""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING, Annotated, NamedTuple

import msgspec

if TYPE_CHECKING:
    from collections.abc import Sequence

#: How many items are a place: with 1 % changed anywhere 8 % are read.
PLACE = 8


class SlicedGroup(msgspec.Struct, rename="pascal"):
    """A group whose items are to be read some at a time."""

    name: Annotated[str, msgspec.Meta(min_length=1)]
    identifiers: list[msgspec.Raw]


class Imprint(NamedTuple):
    """What there is to compare another listing with, at 2 bytes an item."""

    #: The groups, and how many items each has.
    shape: tuple[tuple[str, int], ...]
    #: Hashes, by place.
    items: array[int]
    names: array[int]


class Comparison:
    """A listing that is being read, beside what the one before said."""

    def __init__(self, groups: Sequence[SlicedGroup], before: Imprint | None) -> None:
        self._shape = tuple((group.name, len(group.identifiers)) for group in groups)
        alike = before is not None and before.shape == self._shape
        #: None: all of it is read.
        self._before = before if alike else None
        self._items = array("q")
        self._names = array("q")
        self._places: list[int] = []

    @property
    def is_of_all(self) -> bool:
        """Whether all of it is read."""
        return self._before is None

    @property
    def imprint(self) -> Imprint:
        """Give what the next one is compared with; only when all was read."""
        names = self._names if self._before is None else self._before.names
        return Imprint(self._shape, self._items, names)

    def to_read(self, items: Sequence[bytes]) -> list[bytes]:
        """Give those of the next items, joined by place, that must be read.

        Groups begin with a place of their own; within one the number of items is a multiple of
        `PLACE` but for the last call.
        """
        joined = [b",".join(items[at : at + PLACE]) for at in range(0, len(items), PLACE)]
        hashes = array("q", map(hash, joined))
        first = len(self._items)
        self._items.extend(hashes)
        if self._before is None:
            return joined
        before = self._before.items[first : len(self._items)]
        if hashes == before:
            self._places = []
            return []
        others = [at for at, said in enumerate(hashes) if said != before[at]]
        self._places = [first + at for at in others]
        return [joined[at] for at in others]

    def are_named_so(self, names: Sequence[str]) -> bool:
        """Be told the names of all that was to be read; whether they are those of before."""
        hashes = [hash(tuple(names[at : at + PLACE])) for at in range(0, len(names), PLACE)]
        if self._before is None:
            self._names.extend(hashes)
            return True
        return hashes == [self._before.names[place] for place in self._places]
