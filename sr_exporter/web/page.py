"""The pages a person opens: the fleet, a source, a key; and the runbooks alerts point at."""

from __future__ import annotations

import asyncio
from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol
from urllib.parse import urlsplit

from isal import igzip
from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.responses import HTMLResponse

from sr_exporter import __version__
from sr_exporter.held import Reported
from sr_exporter.metrics.negotiation import accepts_gzip
from sr_exporter.model import Key
from sr_exporter.turns import in_turns
from sr_exporter.web import filters, moments, past, static
from sr_exporter.web.filters import BadQuery, Filters
from sr_exporter.web.finding import SOURCE_ROWS, Found, find, is_down, is_held
from sr_exporter.web.runbooks import runbooks_html
from sr_exporter.web.shown import (
    NEWEST_REPORTS,
    PAGE_CHARACTERS,
    PAGE_COLUMNS,
    KeyRow,
    Shown,
    group_mark,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Mapping

    from starlette.requests import Request
    from starlette.responses import Response

    from sr_exporter.held import Entry, Group, Source
    from sr_exporter.ingest import Ingest
    from sr_exporter.model import Subscribed
    from sr_exporter.notify.book import AlertBook
    from sr_exporter.state import State
    from sr_exporter.store.contract import Store
    from sr_exporter.web.past import History, Looks

#: How many alerts that are kept firing one page shows.
KEPT_ROWS = 40
#: How many reports, and how many spells, the page of a key shows.
KEY_REPORTS = 200
KEY_SPELLS = 100
#: For how long a page waits for the alerts to be brought up to date.
ALERTS_SECONDS = 0.03
#: How many pieces of a page are written before others have their turn: some milliseconds.
_PIECES = 1_000
#: Of fewer identifiers than these all groups are unfolded.
_FEW = 30
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self';"
    " img-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'self';"
    " frame-ancestors 'none'",
    "Referrer-Policy": "same-origin",
    "Cache-Control": "no-store",
}


class Polls(Protocol):
    """Knows how polling goes, by source."""

    def subscriptions(self) -> Mapping[str, Subscribed]:
        """Tell how our subscriptions stand."""

    def asking(self) -> Mapping[str, float]:
        """Tell since when polls are under way."""


class _GroupRows(NamedTuple):
    id: str
    source: str
    source_path: str
    name: str
    #: The page of this group alone.
    url: str
    identifiers: int
    not_ready: int
    known: bool
    complete: bool
    unfolded: bool
    rows: list[KeyRow]


class PageRoutes:
    """What is held, for people; `source`, `group`, `identifier` and `ready` filter it."""

    def __init__(
        self,
        state: State,
        ingest: Ingest,
        store: Store,
        book: AlertBook,
        polls: Polls,
        clock: Callable[[], float],
        *,
        catch_up: Callable[[], Awaitable[None]],
        external_url: str = "",
        heard_before: Mapping[str, float] | None = None,
    ) -> None:
        """`catch_up` brings the book up to date.

        `heard_before` says when sources were last heard before this exporter was started.
        """
        self._state = state
        self._ingest = ingest
        self._store = store
        self._book = book
        self._polls = polls
        self._clock = clock
        self._catch_up = catch_up
        self._catching_up: asyncio.Future[None] | None = None
        self._heard_before = dict(heard_before or {})
        self._templates = _environment(urlsplit(external_url).path)

    async def index(self, request: Request) -> Response:
        """`GET /`: the fleet, or what its query asks for."""
        return _packed(await self._list(request.query_params), request)

    async def source(self, request: Request) -> Response:
        """`GET /sources/{source}`, and the page of a key under it.

        That is asked for by `?group=&identifier=`, as alerts link to it, or by the path the API
        has for it.
        """
        named = filters.key_in_path(request.scope["raw_path"])
        if named is None:
            return await self._unknown(404, f"No page is at {request.scope['path']}.")
        source, group, identifier = named
        query = dict(request.query_params)
        if group is not None:
            query["group"] = group
        if identifier is not None:
            query["identifier"] = identifier
        if query.get("group") and query.get("identifier"):
            key = Key(source, query["group"], query["identifier"])
            return await self._key(key, query.get("hours", ""))
        return _packed(await self._list(query, source), request)

    async def runbooks(self, _: Request) -> Response:
        """`GET /runbooks`: what to do about each alert; headings are anchors."""
        return await self._page("runbooks.html", runbooks=runbooks_html())

    async def _list(self, query: Mapping[str, str], source: str = "") -> Response:
        await self._ingest.catch_up()
        seq = self._state.last_seq
        try:
            asked = filters.read(query, source)
        except BadQuery as error:
            return await self._unknown(400, f"This address is not understood. {error}")
        found = await in_turns(find(self._state, asked, exactly=bool(source)))
        behind = not await self._alerts_are_up_to_date()
        entries = [*found.urgent, *found.entries]
        keys = [entry.key.folded() for entry in entries]
        if source and found.sources:
            keys.append(past.own_key(source))
        history = await self._read_history(keys, asked.hours, past.FOR_MANY)
        return await self._listed(asked, found, history, source, seq=seq, behind=behind)

    async def _listed(
        self,
        asked: Filters,
        found: Found,
        history: History,
        only: str,
        *,
        seq: int,
        behind: bool,
    ) -> Response:
        """Show what was found, as far as it is so still."""
        shown = self._shown(history)
        asking, subscriptions = self._polls.asking(), self._polls.subscriptions()
        first = asked.sources_from
        rows = [
            shown.source(one, asking.get(one.name), subscriptions.get(one.name))
            for one in found.worst[first : first + SOURCE_ROWS]
        ]
        held = [entry for entry in found.entries if is_held(entry)]
        last = asked.after if not found.entries else _place_of(found.entries[-1])
        down = sum(is_down(one) for one in found.sources)
        alone = found.sources[0] if only and found.sources else None
        there = bool(found.total) if asked.group or asked.identifier else bool(found.sources)
        return await self._page(
            "index.html",
            status=200 if there or not asked.narrow else 404,
            seq=seq,
            asked=asked,
            alone_past=self._past_of_source(shown, alone),
            only=only,
            down=down,
            unheard=sum(one.polled and not one.up for one in found.sources) - down,
            sources=rows,
            sources_total=len(found.sources),
            next_sources=asked.url(sources_from=first + SOURCE_ROWS)
            if len(found.worst) > first + SOURCE_ROWS and first < filters.MOST_SOURCES_FROM
            else "",
            lost=[row for row in rows if row.tone == "bad"] if asked.after is None else [],
            urgent=[
                shown.key(entry, reports=NEWEST_REPORTS)
                for entry in found.urgent
                if is_held(entry) and not entry.ready
            ],
            reported=[row for one in found.reported if (row := shown.reported(one)) is not None],
            kept=self._kept(shown, asked, found),
            groups=_grouped(shown, asked, held, unfolded=asked.narrow or found.total <= _FEW),
            found=found,
            next_page=asked.url(after=last) if found.more else "",
            history=history,
            behind=behind,
        )

    def _past_of_source(self, shown: Shown, source: Source | None) -> Any:
        """Give how a polled source was heard, which the exporter says of itself."""
        if source is None or not source.polled:
            return None
        key = past.own_key(source.name)
        return shown.timeline(key, self._state.entry(key), PAGE_COLUMNS)

    def _kept(self, shown: Shown, asked: Filters, found: Found) -> list[Any]:
        """Give the alerts that fire on though what they were about is well again."""
        if asked.after is not None:
            return []
        names = {one.name for one in found.sources}
        those = (
            record
            for record in self._book.kept()
            if not asked.narrow or record.labels.get("source") in names
        )
        return [shown.kept(record) for record in islice(those, KEPT_ROWS)]

    async def _key(self, key: Key, hours: str) -> Response:
        await self._ingest.catch_up()
        seq = self._state.last_seq
        try:
            asked = filters.read({"hours": hours})
        except BadQuery as error:
            return await self._unknown(400, f"This address is not understood. {error}")
        behind = not await self._alerts_are_up_to_date()
        folded = key.folded()
        history = await self._read_history([folded], asked.hours, past.FOR_ONE)
        shown = self._shown(history)
        entry = self._state.entry(key)
        source = self._state.sources.get(key.source)
        asking, subscriptions = self._polls.asking(), self._polls.subscriptions()
        return await self._page(
            "key.html",
            status=200 if entry else 404,
            seq=seq,
            key=entry.key if entry else key,
            hours=asked.hours,
            path=filters.key_path(key),
            entry=entry,
            row=shown.key(
                entry,
                columns=PAGE_COLUMNS,
                characters=PAGE_CHARACTERS,
                reports=KEY_REPORTS,
            )
            if entry
            else None,
            timeline=shown.timeline(folded, entry, PAGE_COLUMNS),
            source=shown.source(source, asking.get(source.name), subscriptions.get(source.name))
            if source
            else None,
            reported=_reported_of(shown, entry) if entry else [],
            most_spells=KEY_SPELLS,
            history=history,
            behind=behind,
        )

    async def _read_history(self, keys: Iterable[Key], hours: int, looks: Looks) -> History:
        now = self._clock()
        return await past.read(self._store, keys, now - hours * 3600.0, looks, now)

    def _shown(self, history: History) -> Shown:
        return Shown(self._book, history, self._clock(), self._heard_before)

    async def _alerts_are_up_to_date(self) -> bool:
        """Bring the book up to date; False when that takes longer, and goes on by itself."""
        if self._catching_up is None or self._catching_up.done():
            self._catching_up = asyncio.ensure_future(self._catch_up())
        done, _ = await asyncio.wait({self._catching_up}, timeout=ALERTS_SECONDS)
        for one in done:
            one.result()
        return bool(done)

    async def _unknown(self, status: int, why: str) -> Response:
        return await self._page("unknown.html", status=status, why=why)

    async def _page(self, template: str, *, status: int = 200, **values: Any) -> Response:
        page: list[str] = []
        for piece in self._templates.get_template(template).generate(now=self._clock(), **values):
            page.append(piece)
            if len(page) % _PIECES == 0:
                await asyncio.sleep(0)
        return HTMLResponse("".join(page), status_code=status, headers=_HEADERS)


def _packed(page: Response, request: Request) -> Response:
    """Pack a page for who takes it so: to a telephone far away it is a tenth as long."""
    page.headers["Vary"] = "Accept-Encoding"
    if accepts_gzip(request.headers.get("accept-encoding")):
        page.body = igzip.compress(page.body, compresslevel=1)
        page.headers["Content-Encoding"] = "gzip"
        page.headers["Content-Length"] = str(len(page.body))
    return page


def _environment(root: str) -> Environment:
    """Make the templates; `root` is the path below which a proxy serves us."""
    made = Environment(
        loader=PackageLoader("sr_exporter.web"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.globals.update(
        root=root,
        version=__version__,
        static=static.address,
        hours_of=filters.HOURS,
        not_ready_only=filters.Readiness.NOT_READY,
    )
    made.filters.update(
        moment=moments.moment,
        when=moments.when,
        clock=moments.clock,
        lasting=moments.lasting,
        machine=moments.machine,
        source_path=filters.source_path,
        key_path=filters.key_path,
    )
    return made


def _place_of(entry: Entry) -> filters.Place:
    return filters.Place(*entry.key.folded())


def _grouped(
    shown: Shown, asked: Filters, entries: list[Entry], *, unfolded: bool
) -> list[_GroupRows]:
    """Put the identifiers of a page under their groups; they come in order."""
    by_group: dict[int, tuple[Group, list[KeyRow]]] = {}
    for entry in entries:
        by_group.setdefault(id(entry.group), (entry.group, []))[1].append(shown.key(entry))
    return [_group(group, rows, asked, unfolded=unfolded) for group, rows in by_group.values()]


def _group(group: Group, rows: list[KeyRow], asked: Filters, *, unfolded: bool) -> _GroupRows:
    source = group.source.name
    wrong = any(row.state != "ready" for row in rows)
    query = Filters(group=group.name, hours=asked.hours).url()
    return _GroupRows(
        id=group_mark(group),
        source=source,
        source_path=filters.source_path(source),
        name=group.name,
        url=f"{filters.source_path(source)}{query}",
        identifiers=len(group.entries),
        not_ready=group.not_ready,
        known=all(row.state != "unknown" for row in rows),
        complete=group.complete,
        unfolded=unfolded or wrong,
        rows=rows,
    )


def _reported_of(shown: Shown, entry: Entry) -> list[Any]:
    those = (
        shown.reported(Reported(entry, subject), PAGE_CHARACTERS) for subject in entry.subjects
    )
    return [row for row in those if row is not None]
