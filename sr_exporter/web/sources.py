"""The route that tells how each source is heard (design, section 5)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sr_exporter.web.errors import JSONResponse
from sr_exporter.web.items import source_item
from sr_exporter.web.lists import Listed, wanted

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from starlette.requests import Request
    from starlette.responses import Response

    from sr_exporter.model import Subscribed
    from sr_exporter.order import Order
    from sr_exporter.state import State


class SourcesRoute:
    """`subscriptions` tells how our own subscriptions at sources stand, by source."""

    def __init__(
        self, state: State, subscriptions: Callable[[], Mapping[str, Subscribed]], order: Order
    ) -> None:
        self._state = state
        self._subscriptions = subscriptions
        self._order = order

    async def sources(self, request: Request) -> Response:
        """`GET /api/v1/sources?source=`: a list, by name."""
        asked = wanted(request, filters=("source",))
        sources = self._state.sources
        if (name := asked.filters.get("source")) is not None:
            names = [name] if asked.cursor is None or name > asked.cursor else []
        else:
            names = await self._order.after((), lambda: sources, asked.cursor, asked.limit + 1)
        told = self._subscriptions()
        items = [source_item(sources[name], told.get(name)) for name in names if name in sources]
        more = len(items) > asked.limit
        del items[asked.limit :]
        return JSONResponse(Listed(items, items[-1].source if more else None))
