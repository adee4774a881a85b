"""The route of the journal: pages of it, and the newest lines as they come (design, section 5)."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import msgspec

from sr_exporter.errors import NotKept
from sr_exporter.journal import AT_ONCE, Missed
from sr_exporter.limits import Limit
from sr_exporter.model import fold
from sr_exporter.web.errors import JSONResponse, Refused
from sr_exporter.web.items import change_item
from sr_exporter.web.lists import Listed, wanted
from sr_exporter.web.stream import Stream, accepts_stream

if TYPE_CHECKING:
    from collections.abc import Sequence

    from starlette.requests import Request
    from starlette.types import ASGIApp

    from sr_exporter.journal import Journal, News
    from sr_exporter.limited import Limited
    from sr_exporter.model import Change
    from sr_exporter.store.contract import Store
    from sr_exporter.web.lists import Wanted

_FILTERS = ("source", "group", "identifier")
#: How many changes a page is looked for in.
MOST_LOOKED_AT = 20 * AT_ONCE
#: Numbers are below this: SQLite has no higher ones.
_NUMBERS = 2**63
_RETRY_AFTER = {"Retry-After": "1"}


class _Filter(NamedTuple):
    source: str | None
    group: str | None
    identifier: str | None

    def fits(self, change: Change) -> bool:
        return (
            self.source in (None, change.source)
            and (self.group is None or self.group == fold(change.group or ""))
            and (self.identifier is None or self.identifier == fold(change.identifier or ""))
        )


class ChangesRoute:
    def __init__(self, journal: Journal, store: Store, limited: Limited) -> None:
        self._journal = journal
        self._limited = limited
        self._store = store

    async def changes(self, request: Request) -> ASGIApp:
        """`GET /api/v1/changes?since=&source=&group=&identifier=`: a list, or a stream."""
        asked = wanted(request, filters=(*_FILTERS, "since"))
        since = _number("since", asked.filters.get("since"))
        if asked.cursor is not None:
            since = _number("cursor", asked.cursor)
        filters = _Filter(
            asked.filters.get("source"),
            *(
                fold(asked.filters[name]) if name in asked.filters else None
                for name in _FILTERS[1:]
            ),
        )
        last = _number("Last-Event-ID", request.headers.get("last-event-id") or None)
        if not accepts_stream(request):
            return await self._page(since or 0, filters, asked)
        if not self._journal.open:
            raise Refused(503, "the exporter is stopping", _RETRY_AFTER)
        if self._journal.full:
            self._limited.met(Limit.LISTENERS, "listener refused: there are too many")
            raise Refused(503, "too many listen already; try again", _RETRY_AFTER)
        return Stream(
            lambda: self._journal.listen(since if last is None else last),
            lambda news: _events(news, filters),
        )

    async def _page(self, since: int, filters: _Filter, asked: Wanted) -> ASGIApp:
        found: list[Change] = []
        looked_at, more = 0, True
        try:
            while more and len(found) <= asked.limit and looked_at < MOST_LOOKED_AT:
                changes = await self._store.changes(since, AT_ONCE)
                more = len(changes) == AT_ONCE
                looked_at += len(changes)
                found += [change for change in changes if filters.fits(change)]
                since = changes[-1].seq if changes else since
        except NotKept as error:
            raise Refused(503, f"the store cannot be read: {error}", _RETRY_AFTER) from None
        if len(found) > asked.limit:
            more = True
            del found[asked.limit :]
            since = found[-1].seq
        return JSONResponse(
            Listed(list(map(change_item, found)), str(since) if more else None),
            headers={"X-SR-Newest": str(self._journal.newest)},
        )


def written(change: Change) -> bytes:
    """Write an event of a stream."""
    return b"id: %d\nevent: change\ndata: %b\n\n" % (
        change.seq,
        msgspec.json.encode(change_item(change)),
    )


def _events(news: Sequence[News], filters: _Filter) -> bytes:
    return b"".join(
        _gap(one) if isinstance(one, Missed) else one.written
        for one in news
        if isinstance(one, Missed) or filters.fits(one.change)
    )


def _gap(missed: Missed) -> bytes:
    return b'id: %d\nevent: gap\ndata: {"after":%d,"last":%d}\n\n' % (
        missed.last,
        missed.after,
        missed.last,
    )


def _number(name: str, said: str | None) -> int | None:
    """Read the number of a change.

    Raises:
        Refused: 400, it is none.
    """
    if said is None:
        return None
    if not (said.isascii() and said.isdigit()):
        raise Refused(400, f"{name}: must be the number of a change, a whole number from 0 on")
    return min(int(said[:40]), _NUMBERS - 1)
