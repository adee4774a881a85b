"""The families of keys as blocks that are made anew only where something changed.

Keys stand on pages, some hundred of one source on each. A page has a column for each family: the
values as they are written. What was said of a key is written into its columns when a scrape wants
to know, or when many keys wait for it; a column in which a value changed loses its block. A scrape
takes every block as it stands, and a *draft* of each that is missing: what it is to be made of. A
page alters nothing that a draft has, but a copy. So a scrape is of one moment, though its drafts
are written while the loop goes on.
"""

from __future__ import annotations

from functools import lru_cache
from itertools import groupby
from typing import TYPE_CHECKING, TypeVar

from sr_exporter.metrics.blocks import Block, pack
from sr_exporter.metrics.exposition import encode, escape, number
from sr_exporter.metrics.families import KEY_FAMILIES, TEXT_FAMILIES, text_lines

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sr_exporter.held import Entry
    from sr_exporter.outcome import Outcome
    from sr_exporter.state import State

L = TypeVar("L")

#: How many keys a page has at most. Of twice as many a single change costs twice as much; of half
#: as many, blocks are smaller than what compression looks back on.
PAGE_KEYS = 512
#: So many keys wait to be written at most: a scrape that comes then is not late for it.
MOST_WAITING = 200

#: The numbers that most values are.
_NUMBERS: dict[float | None, str] = {value: f"{number(value)}\n" for value in range(-100, 1000)}


@lru_cache(maxsize=4096)
def _written(value: float) -> str:
    """Write a value, line end included; what was said of many keys at one time is one string."""
    return f"{number(value)}\n"


def _text(value: float | None) -> str | None:
    return None if value is None else (_NUMBERS.get(value) or _written(value))


@lru_cache(maxsize=4096)
def _around(source: str, group: str) -> tuple[str, str]:
    """Give what stands before and after an identifier in the labels of its samples."""
    return f'{{group="{escape(group)}",identifier="', f'",source="{escape(source)}"}} '


def _labels(entry: Entry) -> str:
    """Write a key's labels as `labels_text` does: that takes as long as all else of a line."""
    before, after = _around(entry.group.source.name, entry.group.name)
    return f"{before}{escape(entry.identifier)}{after}"


#: One object for each place on a page.
_PLACES = tuple(range(PAGE_KEYS))
_COLUMNS = len(KEY_FAMILIES)
_VALUES_OF = tuple(family.value_of for family in KEY_FAMILIES)


class Draft:
    """What a missing block is to be made of, as it was at one moment.

    It has the lists of its page themselves: the page takes copies if it must alter them before it
    is written. To copy those of 10,000 blocks would hold everybody up for half a second.
    """

    __slots__ = ("_labels", "_name", "_values")

    def __init__(self, name: str, labels: list[str], values: list[str | None]) -> None:
        self._name = name
        self._labels = labels
        self._values = values

    def write(self) -> Block:
        name = self._name
        lines = [
            f"{name}{labels}{value}"
            for labels, value in zip(self._labels, self._values, strict=True)
            if value is not None
        ]
        return pack(encode("".join(lines)))


class TextDraft:
    """As `Draft`, of lines that are written already: a key may have none, or many."""

    __slots__ = ("_lines",)

    def __init__(self, lines: list[str]) -> None:
        self._lines = lines

    def write(self) -> Block:
        return pack(encode("".join(self._lines)))


class Page:
    """Some keys of one source."""

    __slots__ = ("_lent", "blocks", "columns", "free", "labels", "texts", "used")

    def __init__(self) -> None:
        #: As a sample's line has them between its name and its value; empty where nobody is.
        self.labels: list[str] = []
        self.columns: list[list[str | None]] = [[] for _ in range(_COLUMNS)]
        #: The lines of the families of texts; None while no key of the page has any.
        self.texts: list[list[str]] | None = None
        #: Of each family; None: it is to be made.
        self.blocks: list[Block | Draft | TextDraft | None] = [None] * (
            _COLUMNS + len(TEXT_FAMILIES)
        )
        #: Whether a draft may have these lists.
        self._lent = False
        #: Places that keys left.
        self.free: list[int] = []
        self.used = 0

    @property
    def room(self) -> int:
        """How many more keys find a place."""
        return PAGE_KEYS - self.used

    def take(self, entries: Sequence[Entry], lines: Sequence[tuple[str, ...] | None]) -> None:
        """Give each of these a place, and write what is held of it.

        There must be room for them. `lines` are those of each of the families of texts.
        """
        self.used += len(entries)
        self._begin_anew()
        left = min(len(self.free), len(entries))
        for entry, own in zip(entries[:left], lines, strict=False):
            entry.page, entry.place = self, self.free.pop()
            self.write(entry.place, entry, own)
        if left < len(entries):
            self._append(entries[left:], lines[left:])

    def _append(self, entries: Sequence[Entry], lines: Sequence[tuple[str, ...] | None]) -> None:
        """Write many behind all others at once: that takes a third of the time."""
        first = len(self.labels)
        for place, entry in enumerate(entries, first):
            entry.page, entry.place = self, _PLACES[place]
        self.labels += map(_labels, entries)
        for column, value_of in zip(self.columns, _VALUES_OF, strict=True):
            column.extend([_NUMBERS.get(value) or _text(value) for value in map(value_of, entries)])
        if self.texts is None:
            if not any(lines):
                return
            self.texts = [[""] * first for _ in TEXT_FAMILIES]
        for at, texts in enumerate(self.texts):
            texts.extend([own[at] if own else "" for own in lines])

    def leave(self, place: int) -> None:
        self.used -= 1
        self._begin_anew()
        self.free.append(place)
        self.labels[place] = ""
        for column in self.columns:
            column[place] = None
        for lines in self.texts or ():
            lines[place] = ""

    def write(self, place: int, entry: Entry, lines: tuple[str, ...] | None) -> None:
        """Write what is held of a key; `lines` are its own of the families of texts."""
        if not self.labels[place]:
            self._begin_anew()
            self.labels[place] = _labels(entry)
        for at, value_of in enumerate(_VALUES_OF):
            text = _text(value_of(entry))
            if self.columns[at][place] != text:
                if self.blocks[at] is not None:
                    self._outdate(at, self.columns, at)
                self.columns[at][place] = text
        if lines is None and self.texts is None:
            return
        if self.texts is None:
            self.texts = [[""] * len(self.labels) for _ in TEXT_FAMILIES]
        for at, own in enumerate(lines or ("",) * len(TEXT_FAMILIES)):
            if self.texts[at][place] != own:
                self._outdate(_COLUMNS + at, self.texts, at)
                self.texts[at][place] = own

    def _outdate(self, block: int, lists: list[list[L]], at: int) -> None:
        """Be about to alter one of the lists, which a block is made of."""
        if isinstance(self.blocks[block], Draft | TextDraft):
            lists[at] = lists[at].copy()
        self.blocks[block] = None

    def _begin_anew(self) -> None:
        """Be about to alter all lists."""
        if not self._lent:
            return  # and there is no block that was made of them either
        self._lent = False
        # Also of a block that was made, or outdated, meanwhile: a scrape may have its draft still.
        self.labels = self.labels.copy()
        self.columns = [column.copy() for column in self.columns]
        if self.texts is not None:
            self.texts = [lines.copy() for lines in self.texts]
        self.blocks = [None] * len(self.blocks)

    def forget_texts(self) -> None:
        if self.texts is not None:
            self.texts = None
            self.blocks[_COLUMNS:] = [None] * len(TEXT_FAMILIES)

    def block(self, at: int) -> Block | Draft | TextDraft:
        """Give the block of a family, or what it is to be made of."""
        found = self.blocks[at]
        if found is None:
            found = self.blocks[at] = self._draft(at)
            self._lent = True
        return found

    def _draft(self, at: int) -> Draft | TextDraft:
        if at < _COLUMNS:
            return Draft(KEY_FAMILIES[at].name, self.labels, self.columns[at])
        return TextDraft([] if self.texts is None else self.texts[at - _COLUMNS])

    def made(self, at: int, draft: Draft | TextDraft, block: Block) -> None:
        """Take the block that was made of a draft, unless something changed since."""
        if self.blocks[at] is draft:
            self.blocks[at] = block


class Pages:
    """The pages of every source, kept up to date from outcomes."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._pages: dict[str, list[Page]] = {}
        #: Keys of which something was said, and whether they are held.
        self._waiting: dict[Entry, bool] = {}
        self._reader = state.reader

    def restored(self, entries: list[Entry]) -> None:
        """Take up keys of a source that were held before a restart."""
        self._take_in(entries)

    def observe(self, outcome: Outcome) -> None:
        """Remember of whom something was said."""
        waiting = self._waiting
        for entry in outcome.entries.values():
            waiting[entry] = True
        for entry in outcome.removed.values():
            waiting[entry] = False
        if len(waiting) > MOST_WAITING:
            self._catch_up()

    def shown(self) -> list[Page]:
        """Give the pages of what is shown, as of now."""
        self._catch_up()
        if self._reader is not self._state.reader:
            self._read_anew()
        return [
            page
            for source in self._state.sources.values()
            if not source.withheld
            for page in self._pages.get(source.name, ())
        ]

    def _catch_up(self) -> None:
        waiting, self._waiting = self._waiting, {}
        fresh: list[Entry] = []
        for entry, held in waiting.items():
            if entry.page is None:
                if held:
                    fresh.append(entry)
            elif held:
                entry.page.write(entry.place, entry, text_lines(self._state, entry))
            else:
                self._drop(entry)
        for _, entries in groupby(fresh, lambda entry: entry.group.source):
            self._take_in(list(entries))

    def _take_in(self, entries: list[Entry]) -> None:
        """Write keys of a source that are on no page yet."""
        source = entries[0].group.source.name
        while entries:
            page = self._page_for(source)
            taken, entries = entries[: page.room], entries[page.room :]
            page.take(taken, [text_lines(self._state, entry) for entry in taken])

    def _page_for(self, source: str) -> Page:
        """Give the page for more keys of a source: there is room on it."""
        pages = self._pages.setdefault(source, [])
        if not pages or not pages[-1].room:
            # Keys come in the order in which they are listed: room that others left is used
            # only when there is much of it.
            spare = [page for page in pages if len(page.free) > PAGE_KEYS // 2]
            pages.append(spare[0] if spare else Page())
            if spare:
                del pages[pages.index(spare[0])]
        return pages[-1]

    def _drop(self, entry: Entry) -> None:
        page, entry.page = entry.page, None
        page.leave(entry.place)
        if not page.used:
            source = entry.group.source.name
            self._pages[source].remove(page)
            if not self._pages[source]:
                del self._pages[source]

    def _read_anew(self) -> None:
        """Write what other report rules are to be shown of: nothing was said of those keys."""
        self._reader = self._state.reader
        for pages in self._pages.values():
            for page in pages:
                page.forget_texts()
        for source in self._state.sources.values():
            for entry, _ in self._state.read_entries(source):
                self._waiting[entry] = True
        self._catch_up()
