"""One scrape: everything there is at one moment, in the form that was asked for."""

from __future__ import annotations

import asyncio
import time
from itertools import chain
from typing import TYPE_CHECKING, NamedTuple

from sr_exporter.metrics import faces
from sr_exporter.metrics.blocks import GZIP_HEADER, Block, gzip_trailer, joined, pack
from sr_exporter.metrics.exposition import Family, encode, header, render_family, select
from sr_exporter.metrics.faces import Faces
from sr_exporter.metrics.families import KEY_FAMILIES, TEXT_FAMILIES
from sr_exporter.metrics.negotiation import accepts_gzip, negotiate
from sr_exporter.metrics.pages import Pages
from sr_exporter.metrics.polls import POLL_FAMILIES
from sr_exporter.metrics.source_families import SOURCE_FAMILIES
from sr_exporter.turns import in_turns

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator

    from sr_exporter.held import Entry
    from sr_exporter.metrics.exposition import Format
    from sr_exporter.metrics.faces import FaceFamily
    from sr_exporter.metrics.families import KeyFamily, TextFamily
    from sr_exporter.metrics.own import OwnMetrics
    from sr_exporter.metrics.pages import Draft, Page, TextDraft
    from sr_exporter.outcome import Outcome
    from sr_exporter.state import State
    from sr_exporter.store.contract import Store

#: For how long blocks are made before others have their turn.
SLICE_SECONDS = 0.002
#: An answer leaves in pieces of about this many bytes: who takes none of it costs one of them.
PIECE_BYTES = 128 * 1024

_PAGED: tuple[KeyFamily | TextFamily, ...] = (*KEY_FAMILIES, *TEXT_FAMILIES)


class Scraped:
    """An answer, in blocks; `pieces` gives its bytes."""

    def __init__(self, blocks: list[Block], content_type: str, trailer: bytes | None) -> None:
        """`trailer` ends its gzip member; None: it is not packed."""
        self._blocks = blocks
        self.content_type = content_type
        self.gzip = trailer is not None
        self._trailer = trailer or b""

    @property
    def size(self) -> int:
        """How many bytes it has."""
        if not self.gzip:
            return sum([block.size for block in self._blocks])
        packed = sum([len(block.packed) for block in self._blocks])
        return len(GZIP_HEADER) + packed + len(self._trailer)

    def pieces(self) -> Iterator[bytes]:
        """Give it piece by piece: nowhere it is whole a second time."""
        if not self.gzip:
            return joined((block.unpack() for block in self._blocks), PIECE_BYTES)
        packed = (block.packed for block in self._blocks)
        return joined(chain([GZIP_HEADER], packed, [self._trailer]), PIECE_BYTES)


class Exposition:
    """Answers scrapes. The one place that knows how."""

    def __init__(self, state: State, own: OwnMetrics, store: Store) -> None:
        self._state = state
        self._own = own
        self._store = store
        self._pages = Pages(state)
        self._sources = Faces(SOURCE_FAMILIES)
        self._polls = Faces(POLL_FAMILIES)
        #: Scrapes at one time write one after the other: the second finds what the first wrote.
        self._writing = asyncio.Lock()
        #: Of those that wait for that, all get what is begun next: thousands cost as one. How many
        #: were begun, how many wait, and what was written last, by the number of it.
        self._begun = self._waiting = 0
        self._written: dict[Format, tuple[int, list[Block]]] = {}

    def restored(self, entries: list[Entry]) -> None:
        """Take up keys of a source that were held before a restart."""
        self._pages.restored(entries)

    def observe(self, outcome: Outcome) -> None:
        """Follow what is observed."""
        self._pages.observe(outcome)

    async def scrape(
        self,
        *,
        accept: str | None = None,
        accept_encoding: str | None = None,
        names: Collection[str] = (),
    ) -> Scraped:
        """Give every family, or only samples of these names, as of one moment."""
        form = negotiate(accept)
        begun = self._begun
        self._waiting += 1
        try:
            async with self._writing:
                since, blocks = self._written.get(form, (0, []))
                if names:
                    blocks = await _in_slices(self._some(form, names))
                elif since <= begun:
                    self._begun += 1
                    blocks = await _in_slices(self._all(form))
                    self._written[form] = self._begun, blocks
        finally:
            self._waiting -= 1
            if not self._waiting:
                self._written.clear()
        gzip = accepts_gzip(accept_encoding)
        trailer = await in_turns(gzip_trailer(blocks)) if gzip else None
        return Scraped(blocks, form.content_type, trailer)

    def _all(self, form: Format) -> Iterator[Block | None]:
        pages = self._paged(range(len(_PAGED)))
        sources = self._sources.look(self._state.sources.items())
        polls = self._polls.look(self._own.polls.sources.items())
        own = list(self._own.small_families(self._store.figures()))
        return chain(
            _headed(pages, form),
            self._sources.write(sources, form),
            self._polls.write(polls, form),
            (pack(render_family(family, form)) for family in own),
            (pack(form.trailer) for _ in range(1)),
        )

    def _some(self, form: Format, names: Collection[str]) -> Iterator[Block | None]:
        wanted = [at for at, family in enumerate(_PAGED) if family.name in names]
        pages = self._paged(wanted)
        rest = chain(
            faces.anew(_of_names(SOURCE_FAMILIES, names), self._state.sources.items()),
            faces.anew(_of_names(POLL_FAMILIES, names), self._own.polls.sources.items()),
            self._own.small_families(self._store.figures()),
        )
        own = list(select(rest, names))
        return chain(
            _headed(pages, form, optional=True),
            (pack(render_family(family, form)) for family in own),
            (pack(form.trailer) for _ in range(1)),
        )

    def _paged(self, wanted: Iterable[int]) -> list[_Paged]:
        pages = self._pages.shown()
        # Most have it: a million keys are 16,000 calls, and others wait for all of them.
        return [
            _Paged(at, pages, [page.blocks[at] or page.block(at) for page in pages])
            for at in wanted
        ]


async def _in_slices(written: Iterator[Block | None]) -> list[Block]:
    """Make blocks, which are of the moment at which this is called, and let others have turns."""
    blocks: list[Block] = []
    until = time.perf_counter() + SLICE_SECONDS
    for block in written:
        if block is not None:
            blocks.append(block)
        if time.perf_counter() > until:
            await asyncio.sleep(0)
            until = time.perf_counter() + SLICE_SECONDS
    return blocks


class _Paged(NamedTuple):
    """A family of keys at one moment."""

    at: int
    pages: list[Page]
    blocks: list[Block | Draft | TextDraft]


def _headed(
    paged: Iterable[_Paged], form: Format, *, optional: bool = False
) -> Iterator[Block | None]:
    """Give the blocks of families, each below its header; an `optional` one only with samples."""
    for at, pages, blocks in paged:
        family = _PAGED[at]
        header_block = pack(encode(header(Family(family.name, family.kind, family.help, ()), form)))
        headed = False
        for page, found in zip(pages, blocks, strict=True):
            if isinstance(found, Block):
                block = found
            else:
                block = found.write()
                page.made(at, found, block)
            if block.size and not headed:
                headed = True
                yield header_block
            yield block
        if not (headed or optional):
            yield header_block


def _of_names(families: Iterable[FaceFamily], names: Collection[str]) -> list[FaceFamily]:
    """Give those that may have samples of these names."""
    return [family for family in families if any(name.startswith(family.name) for name in names)]
