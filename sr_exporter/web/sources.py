"""The route that tells how each source is heard (design, section 5)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sr_exporter.web.errors import JSONResponse
from sr_exporter.web.lists import page, wanted

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from starlette.requests import Request
    from starlette.responses import Response

    from sr_exporter.held import Source
    from sr_exporter.model import Subscribed
    from sr_exporter.state import State


class SourcesRoute:
    """`subscriptions` tells how our own subscriptions at sources stand, by source."""

    def __init__(self, state: State, subscriptions: Callable[[], Mapping[str, Subscribed]]) -> None:
        self._state = state
        self._subscriptions = subscriptions

    async def sources(self, request: Request) -> Response:
        """`GET /api/v1/sources?source=`: a list, by name."""
        asked = wanted(request, filters=("source",))
        sources = self._state.sources
        name = asked.filters.get("source")
        names = sorted(sources) if name is None else [name] * (name in sources)
        subscriptions = self._subscriptions()
        return JSONResponse(
            page(names, asked, lambda name: _item(sources[name], subscriptions.get(name)))
        )


def _item(source: Source, subscribed: Subscribed | None) -> dict[str, Any]:
    entries = list(source.entries())
    return {
        "source": source.name,
        "kind": source.kind.value,
        "transport": source.transport,
        "address": source.address or None,
        "version": source.version or None,
        # What is not polled is neither up nor down.
        "up": source.up if source.polled else None,
        "stale": source.withheld,
        "last_seen": source.last_seen,
        "start_time": source.start_time,
        "down_since": source.down_since,
        "last_error": source.last_error,
        "identifiers": len(entries),
        "not_ready": sum(not entry.ready for entry in entries),
        "status_changes_missed_total": source.changes_missed_total,
        "report_overruns_total": source.report_overruns_total,
        "subscription": None if subscribed is None else subscribed._asdict(),
    }
