"""Walks over what is held in the order of source, group and identifier, page by page.

A page begins after a key, whether that is still held or not: whatever comes and goes meanwhile,
each key that stays is on one page, and on one only. It costs what it shows; where a filter fits
few of many it is looked for in short turns.
"""

from __future__ import annotations

import asyncio
import base64
import heapq
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Generic, Self, TypeVar

import msgspec

from sr_exporter.model import Key, fold
from sr_exporter.turns import slices
from sr_exporter.web.errors import Refused
from sr_exporter.web.lists import Listed, Wanted, wanted

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from starlette.requests import Request

    from sr_exporter.held import Entry
    from sr_exporter.order import Order, Place
    from sr_exporter.state import State

T = TypeVar("T")

#: How long keys are looked at before others have their turn.
_TURN_SECONDS = 0.005
#: How many names are asked for at once.
_NAMES = 1_000
#: So many that are not ready are looked through rather than all there is.
_FEW_NOT_READY = 10_000


@dataclass(frozen=True, slots=True)
class Where:
    """What a request wants to see; group and identifier are folded."""

    source: str | None
    group: str | None
    identifier: str | None
    ready: bool | None

    def fits(self, entry: Entry) -> bool:
        return (
            self.ready in (None, entry.ready)
            and self.source in (None, entry.group.source.name)
            and (self.group is None or self.group == fold(entry.group.name))
            and (self.identifier is None or self.identifier == fold(entry.identifier))
        )


def where(request: Request) -> tuple[Where, Key | None, int]:
    """Read the query of a list of keys: what it wants, after which key, and how many.

    Raises:
        Refused: 400, something is not understood.
    """
    asked: Wanted = wanted(request, filters=("source", "group", "identifier", "ready"))
    said = asked.filters
    ready = said.get("ready")
    if ready not in (None, "true", "false"):
        raise Refused(400, "ready: must be true or false")
    return (
        Where(
            said.get("source"),
            fold(said["group"]) if "group" in said else None,
            fold(said["identifier"]) if "identifier" in said else None,
            None if ready is None else ready == "true",
        ),
        None if asked.cursor is None else _key(asked.cursor),
        asked.limit,
    )


class Keys:
    """What is held, in order."""

    def __init__(self, state: State, order: Order) -> None:
        self._state = state
        self._order = order

    async def page(
        self,
        what: Where,
        after: Key | None,
        limit: int,
        item: Callable[[Entry], T],
        *,
        full: Callable[[], bool] = lambda: False,
    ) -> Listed[T]:
        """Give one page of items; `full` says whether it has enough before it has `limit`.

        An item is made when its key is come to: others may have changed since.
        """
        page = _Writing(what, limit, item, full)
        if what.ready is False and len(self._state.not_ready) <= _FEW_NOT_READY:
            await self._not_ready(page, after)
        else:
            await self._all(page, after)
        return Listed(page.items, _cursor(page.last) if page.more and page.last else None)

    async def _not_ready(self, page: _Writing[T], after: Key | None) -> None:
        """Write of the few that are not ready."""
        found: list[Key] = []
        for some in slices(list(self._state.not_ready), _NAMES):
            keys = [entry.key.folded() for entry in some if page.what.fits(entry)]
            found += [key for key in keys if after is None or key > after]
            await asyncio.sleep(0)
        # They may be others by now, or be ready, or gone.
        entries = ((key, self._state.entry(key)) for key in found)
        left = (key for key, entry in entries if entry is not None and not entry.ready)
        for key in heapq.nsmallest(page.limit + 1, left):
            if page.add(self._state.entry(key)):
                return

    async def _all(self, page: _Writing[T], after: Key | None) -> None:
        what, turn = page.what, _Turn()
        sources = _Each(
            self._order, (), lambda: self._state.sources, what.source, after and after.source
        )
        async for source in sources:
            in_source = after if after is not None and after.source == source else None
            groups = _Each(
                self._order,
                (source,),
                partial(self._groups, source),
                what.group,
                in_source and in_source.group,
            )
            async for group in groups:
                begin = in_source.identifier if in_source and in_source.group == group else None
                while names := await self._identifiers(source, group, what, begin):
                    if any(page.add(self._state.entry(Key(source, group, name))) for name in names):
                        return
                    begin = names[-1]
                    await turn.pause()
                await turn.pause()

    def _groups(self, source: str) -> Collection[str]:
        held = self._state.sources.get(source)
        return () if held is None else held.groups

    def _entries(self, source: str, group: str) -> Collection[str]:
        held = self._state.sources.get(source)
        found = None if held is None else held.groups.get(group)
        return () if found is None else found.entries

    async def _identifiers(
        self, source: str, group: str, what: Where, after: str | None
    ) -> list[str]:
        if what.identifier is not None:
            return [what.identifier] if after is None or what.identifier > after else []
        there = partial(self._entries, source, group)
        return await self._order.after((source, group), there, after, _NAMES)


class _Writing(Generic[T]):
    """A page that is being written."""

    def __init__(
        self, what: Where, limit: int, item: Callable[[Entry], T], full: Callable[[], bool]
    ) -> None:
        self.what = what
        self.limit = limit
        self.items: list[T] = []
        #: The key of the last of them.
        self.last: Key | None = None
        #: There is at least one more.
        self.more = False
        self._item = item
        self._full = full

    def add(self, entry: Entry | None) -> bool:
        """Add what is held of a key, if it is wanted; say whether there is no room for it."""
        if entry is None or self.what.ready not in (None, entry.ready):
            return False
        if self.items and (len(self.items) == self.limit or self._full()):
            self.more = True
            return True
        self.items.append(self._item(entry))
        self.last = entry.key.folded()
        return False


class _Each:
    """Names in a place, in order, some at a time; the first is `begin`, be it there or not."""

    def __init__(
        self,
        order: Order,
        place: Place,
        there: Callable[[], Collection[str]],
        only: str | None,
        begin: str | None,
    ) -> None:
        self._order = order
        self._place = place
        self._there = there
        self._last = begin
        if only is not None:
            self._left = [only] if begin is None or only >= begin else []
        else:
            self._left = [] if begin is None else [begin]
        self._ended = only is not None

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> str:
        if not self._left and not self._ended:
            self._left = await self._order.after(self._place, self._there, self._last, _NAMES)
            self._left.reverse()
        if not self._left:
            raise StopAsyncIteration
        self._last = self._left.pop()
        return self._last


class _Turn:
    """How long something has gone on without others having their turn."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._until = self._loop.time() + _TURN_SECONDS

    async def pause(self) -> None:
        """Let others have their turn, if it is time."""
        if self._loop.time() >= self._until:
            await asyncio.sleep(0)
            self._until = self._loop.time() + _TURN_SECONDS


def _cursor(key: Key) -> str:
    return base64.urlsafe_b64encode(msgspec.json.encode(key)).rstrip(b"=").decode()


def _key(cursor: str) -> Key:
    try:
        written = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4))
        return msgspec.json.decode(written, type=Key)
    except (ValueError, RecursionError):
        raise Refused(400, "cursor: is not the `next` of an earlier page") from None
