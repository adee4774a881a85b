"""The pages a person opens: what is held, and the runbooks alerts point at."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from importlib import resources
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from jinja2 import Environment, PackageLoader, StrictUndefined
from markdown_it import MarkdownIt
from markupsafe import Markup
from starlette.responses import HTMLResponse

from sr_exporter import __version__
from sr_exporter.model import OWN_SOURCE, Kind, fold
from sr_exporter.words import meaning

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from starlette.requests import Request
    from starlette.responses import Response

    from sr_exporter.held import Entry, Source
    from sr_exporter.ingest import Ingest
    from sr_exporter.model import Subscribed
    from sr_exporter.state import State

#: How many identifiers one page shows.
PAGE_ROWS = 500
#: What a person must see comes first.
_ORDER = {"not ready": 0, "unknown": 1, "ready": 2}
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; "
    "base-uri 'none'; form-action 'self'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cache-Control": "no-store",
}


@dataclass(frozen=True, slots=True)
class _SourceRow:
    name: str
    state: str
    good: bool
    version: str
    transport: str
    address: str
    identifiers: int
    #: None when it is not known now.
    not_ready: int | None
    error: str


@dataclass(frozen=True, slots=True)
class _KeyRow:
    source: str
    group: str
    identifier: str
    #: "ready", "not ready" or "unknown": what is known now.
    state: str
    status: int
    meaning: str
    details: str
    since: str
    newest: str


class PageRoutes:
    """A plain table of what is held; `source`, `group` and `identifier` filter it."""

    def __init__(
        self,
        state: State,
        ingest: Ingest,
        clock: Callable[[], float],
        subscriptions: Callable[[], Mapping[str, Subscribed]],
        *,
        external_url: str = "",
    ) -> None:
        self._subscriptions = subscriptions
        self._state = state
        self._ingest = ingest
        self._clock = clock
        self._templates = Environment(
            loader=PackageLoader("sr_exporter.web"), autoescape=True, undefined=StrictUndefined
        )
        # Behind a proxy that serves us below a path, links must begin with that path.
        self._templates.globals.update(root=urlsplit(external_url).path, version=__version__)

    async def index(self, request: Request) -> Response:
        """`GET /` and `GET /sources/{source}`."""
        self._ingest.advance()
        query = request.query_params
        source = request.path_params.get("source") or query.get("source")
        group, identifier = query.get("group"), query.get("identifier")
        entries = [
            entry
            for held in self._state.sources.values()
            if source is None or held.name == source
            for entry in held.entries()
            if (group is None or fold(entry.group.name) == fold(group))
            and (identifier is None or fold(entry.identifier) == fold(identifier))
        ]
        rows = [_key_row(entry) for entry in entries]
        rows.sort(key=lambda row: (_ORDER[row.state], row.source, row.group, row.identifier))
        sources = [held for held in self._state.sources.values() if source in (None, held.name)]
        page = self._templates.get_template("index.html").render(
            source=source,
            group=group,
            identifier=identifier,
            now=_moment(self._clock()),
            sources=[_source_row(held, self._unheard(held.name)) for held in sources],
            rows=rows[:PAGE_ROWS],
            total=len(rows),
            not_ready=sum(row.state == "not ready" for row in rows),
            unknown=sum(row.state == "unknown" for row in rows),
            down=sum(held.polled and not held.up for held in sources),
        )
        asked = (source, group, identifier) != (None, None, None)
        found = bool(rows) if group or identifier else bool(sources)
        return HTMLResponse(page, status_code=404 if asked and not found else 200, headers=_HEADERS)

    def _unheard(self, source: str) -> str | None:
        """Say why a source that is to send events does not."""
        subscribed = self._subscriptions().get(source)
        if subscribed is None or subscribed.error is None:
            return None
        return f"not subscribed to its events: {subscribed.error}"

    async def runbooks(self, _: Request) -> Response:
        """`GET /runbooks`: what to do about each alert; headings are anchors."""
        page = self._templates.get_template("runbooks.html").render(runbooks=_runbooks_html())
        return HTMLResponse(page, headers=_HEADERS)


def _source_row(source: Source, unheard: str | None) -> _SourceRow:
    if source.name == OWN_SOURCE:
        state, good = "this exporter", True
    elif source.kind is Kind.PUSHED:
        state, good = "pushed", True
    elif source.kind is Kind.EVENT and source.heard:
        state, good = "sends events", True
    elif source.up:
        state, good = "up", True
    elif source.down_since is not None:
        state, good = f"down since {_moment(source.down_since)}", False
    else:
        state, good = "not heard yet", False
    entries = list(source.entries())
    not_ready = sum(not entry.ready for entry in entries)
    return _SourceRow(
        name=source.name,
        state=state,
        good=good,
        version=source.version,
        transport=source.transport,
        address=source.address,
        identifiers=len(entries),
        not_ready=not_ready if _is_known(source) else None,
        error="; ".join(error for error in (source.last_error, unheard) if error),
    )


def _key_row(entry: Entry) -> _KeyRow:
    key = entry.key
    source = entry.group.source
    said = meaning(key.group, key.identifier, entry.status)
    state = "ready" if entry.ready else "not ready"
    if not _is_known(source):
        said, state = f"last said: {said}", "unknown"
    newest = entry.reports[-1] if entry.reports else None
    return _KeyRow(
        source=key.source,
        group=key.group,
        identifier=key.identifier,
        state=state,
        status=entry.status,
        meaning=said,
        details=entry.details or "",
        since=_moment(entry.changed_at),
        newest=f"{_moment(newest.timestamp)} {newest.log}" if newest else "",
    )


def _is_known(source: Source) -> bool:
    """Whether what is held is what the source said last, and it would have said otherwise."""
    return not source.withheld and (not source.polled or source.up)


def _moment(seconds: float) -> str:
    try:
        return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    except (ValueError, OverflowError, OSError):
        return f"{seconds:.0f} s after 1970"


@lru_cache(maxsize=1)
def _runbooks() -> str:
    """Read docs/runbooks.md, which a wheel carries inside the package."""
    packaged = resources.files("sr_exporter.web").joinpath("runbooks.md")
    if packaged.is_file():
        return packaged.read_text("utf-8")
    return (Path(__file__).parents[2] / "docs" / "runbooks.md").read_text("utf-8")


@lru_cache(maxsize=1)
def _runbooks_html() -> Markup:
    """Render the runbooks; each section is an anchor, as GitHub would name it."""
    markdown = MarkdownIt("commonmark", {"html": False}).enable("table")
    tokens = markdown.parse(_runbooks())
    for opening, inline in pairwise(tokens):
        if opening.type == "heading_open" and opening.tag in ("h1", "h2"):
            opening.attrSet("id", _anchor(inline.content))
    # The text is this project's own, and HTML inside it is escaped.
    return Markup(markdown.renderer.render(tokens, markdown.options, {}))  # noqa: S704


def _anchor(heading: str) -> str:
    return re.sub(r"[^a-z0-9 -]", "", heading.lower()).replace(" ", "-")
