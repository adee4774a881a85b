"""Families with a few samples for each source, of which only what changed is written anew.

What a family shows of a source follows from its *look*: a small value that is taken of every
source at each scrape, at one moment. Lines are kept, and written again where the look is another;
so thousands of sources cost a comparison each, and those that were polled meanwhile a line or two.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from sr_exporter.metrics.blocks import Block, pack
from sr_exporter.metrics.exposition import Family, Kind, Sample, encode, header, sample_line

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Hashable, Iterable, Iterator, Sequence

    from sr_exporter.metrics.exposition import Format

    #: Sources by name, or what stands for them.
    Members = Iterable[tuple[str, Any]]


class FaceFamily(NamedTuple):
    """A family whose samples of each source follow from a look at it."""

    name: str
    kind: Kind
    help: str
    look: Callable[[Any], Hashable]
    #: Gives the samples of the source of a name, by its look.
    samples: Callable[[str, Any], list[Sample]]

    def empty(self) -> Family:
        return Family(self.name, self.kind, self.help, ())

    def lines(self, name: str, look: Hashable) -> str:
        family = self.empty()
        return "".join(
            [
                sample_line(family.sample_name(suffix), labels, value)
                for suffix, labels, value in self.samples(name, look)
            ]
        )


def anew(families: Iterable[FaceFamily], members: Members) -> Iterator[Family]:
    """Give these families of these sources by name, from scratch."""
    known = list(members)
    for family in families:
        samples = [
            sample for name, member in known for sample in family.samples(name, family.look(member))
        ]
        yield Family(family.name, family.kind, family.help, samples)


class Faces:
    """Keeps the lines of every source."""

    def __init__(self, families: Sequence[FaceFamily]) -> None:
        self._families = families
        self._looks = list(dict.fromkeys(family.look for family in families))
        self._look_of = [self._looks.index(family.look) for family in families]
        #: By name: the looks that the lines are of, and the lines of each family.
        self._held: dict[str, tuple[list[Hashable], list[str]]] = {}

    def look(self, members: Members) -> list[tuple[str, list[Hashable]]]:
        """Look at every source, at one moment."""
        looks = self._looks
        return [(name, [look(member) for look in looks]) for name, member in members]

    def write(
        self, seen: Collection[tuple[str, list[Hashable]]], form: Format
    ) -> Iterator[Block | None]:
        """Give a block for each family, by what was seen; None as often as there is a pause."""
        for name, looks in seen:
            held = self._held.get(name)
            if held is None or held[0] != looks:
                self._held[name] = (looks, self._lines(name, looks, held))
                yield None
        if len(self._held) > len(seen):
            names = {name for name, _ in seen}
            self._held = {name: held for name, held in self._held.items() if name in names}
        for at, family in enumerate(self._families):
            lines = [self._held[name][1][at] for name, _ in seen]
            yield pack(encode("".join([header(family.empty(), form), *lines])))

    def _lines(
        self, name: str, looks: list[Hashable], held: tuple[list[Hashable], list[str]] | None
    ) -> list[str]:
        return [
            held[1][at]
            if held is not None and held[0][look] == looks[look]
            else family.lines(name, looks[look])
            for at, (family, look) in enumerate(zip(self._families, self._look_of, strict=True))
        ]
