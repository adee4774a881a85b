"""Names in order, however many there are: a page of a long list must not cost the whole list.

What few there are is sorted when it is asked for. Of more the order is found once, at the first
question and in short turns, and followed from then on as keys come and go. Until somebody asks it
costs nothing.
"""

from __future__ import annotations

import asyncio
import random
from bisect import bisect_left, bisect_right
from itertools import chain, islice
from typing import TYPE_CHECKING

from sr_exporter.model import ChangeKind, fold
from sr_exporter.turns import in_turns

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Generator, Iterable

    from sr_exporter.outcome import Outcome
    from sr_exporter.state import State

#: So many are sorted at each question: a millisecond.
FEW = 2_000
#: How many names a chunk has about; of twice as many two are made.
CHUNK = 1_000
#: How many names are dealt out, or changes caught up with, before others have their turn.
_AT_ONCE = 2_000
#: In what names are: a source's name, with a folded group where they are identifiers. Those of
#: sources are in `()`.
Place = tuple[str, ...]


class Names:
    """A set of names in order, in chunks: to add one costs a chunk, not all of them."""

    def __init__(self, chunks: Iterable[list[str]] = ()) -> None:
        """Take chunks that are sorted, each and among each other."""
        self._chunks = [chunk for chunk in chunks if chunk]
        #: The last name of each.
        self._ends = [chunk[-1] for chunk in self._chunks]

    def __bool__(self) -> bool:
        return bool(self._chunks)

    def add(self, name: str) -> None:
        if not self._chunks:
            self._chunks, self._ends = [[name]], [name]
            return
        at = min(bisect_left(self._ends, name), len(self._chunks) - 1)
        chunk = self._chunks[at]
        place = bisect_left(chunk, name)
        if place < len(chunk) and chunk[place] == name:
            return
        chunk.insert(place, name)
        if len(chunk) > 2 * CHUNK:
            self._chunks[at : at + 1] = [chunk[:CHUNK], chunk[CHUNK:]]
            self._ends.insert(at, chunk[CHUNK - 1])
            at += 1
        self._ends[at] = self._chunks[at][-1]

    def discard(self, name: str) -> None:
        at = bisect_left(self._ends, name)
        if at == len(self._chunks):
            return
        chunk = self._chunks[at]
        place = bisect_left(chunk, name)
        if chunk[place] != name:
            return
        del chunk[place]
        if chunk:
            self._ends[at] = chunk[-1]
        else:
            del self._chunks[at], self._ends[at]

    def after(self, name: str | None, most: int) -> list[str]:
        """Give at most so many of those that come after a name; None: of all."""
        at = 0 if name is None else bisect_right(self._ends, name)
        if at == len(self._chunks):
            return []
        place = 0 if name is None else bisect_right(self._chunks[at], name)
        first = islice(self._chunks[at], place, None)
        rest = chain.from_iterable(islice(self._chunks, at + 1, None))
        return list(islice(chain(first, rest), most))


def in_order(names: Collection[str]) -> Generator[None, None, Names]:
    """Put names in order, with pauses: to sort a million at once would hold everybody up.

    A sample of them says where chunks begin and end, then each name is dealt to its chunk.
    """
    left = list(names)
    borders = sorted(random.sample(left, len(left) // CHUNK))
    yield
    dealt: list[list[str]] = [[] for _ in range(len(borders) + 1)]
    while left:
        for name in left[-_AT_ONCE:]:
            dealt[bisect_right(borders, name)].append(name)
        del left[-_AT_ONCE:]
        yield
    chunks: list[list[str]] = []
    for some in dealt:
        some.sort()
        if len(some) <= 2 * CHUNK:
            chunks.append(some)
        else:
            chunks += (some[start : start + CHUNK] for start in range(0, len(some), CHUNK))
        yield
    return Names(chunks)


class Order:
    """The order of all that is held: of sources, of their groups, and of their identifiers."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._names: dict[Place, Names] = {}
        #: What came and went while an order is being found, in turn.
        self._meanwhile: dict[Place, list[tuple[str, bool]]] = {}
        self._finding = asyncio.Lock()

    def observe(self, outcome: Outcome) -> None:
        """Follow what is observed."""
        if not self._names and not self._meanwhile:
            return
        for source in chain(outcome.sources, outcome.sources_removed):
            self._note((), source, source in self._state.sources)
        for change in outcome.changes:
            if change.group is None or change.identifier is None:
                continue
            if change.kind in (ChangeKind.APPEARED, ChangeKind.REMOVED):
                group = fold(change.group)
                here = change.kind is ChangeKind.APPEARED
                self._note((change.source, group), fold(change.identifier), here)
                held = self._state.sources.get(change.source)
                self._note((change.source,), group, held is not None and group in held.groups)

    async def after(
        self, place: Place, there: Callable[[], Collection[str]], name: str | None, most: int
    ) -> list[str]:
        """Give at most so many of the names in a place, in order: those that come after one.

        `there` gives all of them, as they are held now. It is asked again after each wait: they
        may have come and gone, and be another collection by then.
        """
        names = self._names.get(place)
        if names is None and len(there()) > FEW:
            async with self._finding:
                names = self._names.get(place)
                if names is None and len(there()) > FEW:
                    names = await self._find(place, there())
        if names is None or len(there()) <= FEW:
            self._names.pop(place, None)
            return sorted(one for one in there() if name is None or one > name)[:most]
        return names.after(name, most)

    async def _find(self, place: Place, there: Collection[str]) -> Names:
        meanwhile = self._meanwhile[place] = []
        try:
            names = await in_turns(in_order(there))
            while meanwhile:
                some = meanwhile[:_AT_ONCE]
                del meanwhile[:_AT_ONCE]
                for name, here in some:
                    _put(names, name, here)
                if meanwhile:
                    await asyncio.sleep(0)
            self._names[place] = names
            return names
        finally:
            del self._meanwhile[place]

    def _note(self, place: Place, name: str, here: bool) -> None:
        if (names := self._names.get(place)) is not None:
            _put(names, name, here)
            if not names:
                del self._names[place]
        elif (meanwhile := self._meanwhile.get(place)) is not None:
            meanwhile.append((name, here))


def _put(names: Names, name: str, here: bool) -> None:
    if here:
        names.add(name)
    else:
        names.discard(name)
