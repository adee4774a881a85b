"""The routes of what is held: statuses, and reports (design, section 5)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sr_exporter.web.errors import JSONResponse
from sr_exporter.web.items import ReportsItem, reports_item, status_item
from sr_exporter.web.keys import Keys, where

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

    from sr_exporter.held import Entry
    from sr_exporter.ingest import Ingest
    from sr_exporter.order import Order
    from sr_exporter.state import State
    from sr_exporter.web.items import StatusItem
    from sr_exporter.web.lists import Listed

#: A page of reports is full when it has so many, of however few keys: rings have up to 200.
MOST_REPORTS = 5_000


class StatusRoutes:
    def __init__(self, state: State, ingest: Ingest, order: Order) -> None:
        self._keys = Keys(state, order)
        self._ingest = ingest

    async def status(self, request: Request) -> Response:
        """`GET /api/v1/status?source=&group=&identifier=&ready=`: a list, by key."""
        asked = where(request)
        await self._ingest.catch_up()  # what has expired by now is told so
        return _answer(await self._keys.page(*asked, status_item))

    async def reports(self, request: Request) -> Response:
        """`GET /api/v1/reports`: the same keys, with their reports."""
        asked = where(request)
        await self._ingest.catch_up()
        taken = 0

        def take(entry: Entry) -> ReportsItem:
            nonlocal taken
            taken += len(entry.reports)
            return reports_item(entry)

        return _answer(await self._keys.page(*asked, take, full=lambda: taken >= MOST_REPORTS))


def _answer(page: Listed[StatusItem] | Listed[ReportsItem]) -> Response:
    return JSONResponse(page)
