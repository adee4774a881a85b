"""The routes that say whether something is ready (design, section 5)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sr_exporter.model import PUSH_SOURCE
from sr_exporter.readiness import NotHeld, judge
from sr_exporter.web.access import require_reading
from sr_exporter.web.errors import JSONResponse, Refused
from sr_exporter.web.lists import parameters
from sr_exporter.web.paths import parts

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

    from sr_exporter.ingest import Ingest
    from sr_exporter.state import State

_PREFIX = b"/ready/"


class CheckRoutes:
    def __init__(self, state: State, ingest: Ingest) -> None:
        self._state = state
        self._ingest = ingest

    async def check(self, request: Request) -> Response:
        """`GET /api/v1/check?source=&group=&identifier=`: 200 ready, 503 not, 404 unknown."""
        query = parameters(request, ("source", "group", "identifier"))
        for named, said in query.items():
            if not said:
                raise Refused(400, f"{named}: must not be empty")
        if "identifier" in query and "group" not in query:
            raise Refused(400, "identifier: only together with group")
        return await self._judged(
            request, query.get("source", PUSH_SOURCE), query.get("group"), query.get("identifier")
        )

    async def ready(self, request: Request) -> Response:
        """`GET /ready/SOURCE[/GROUP[/IDENTIFIER]]`: the same."""
        parameters(request, ())
        asked = parts(request.scope["raw_path"], _PREFIX)
        if len(asked) > 3 or not all(asked):
            raise Refused(404, "no such route: GET /ready/SOURCE[/GROUP[/IDENTIFIER]]")
        return await self._judged(request, *asked)

    async def _judged(
        self,
        request: Request,
        source: str,
        group: str | None = None,
        identifier: str | None = None,
    ) -> Response:
        require_reading(request, source, group or "*")
        await self._ingest.catch_up()  # what has expired by now is not ready
        try:
            verdict = judge(self._state, source, group, identifier)
        except NotHeld as error:
            raise Refused(404, str(error)) from None
        return JSONResponse(verdict, status_code=200 if verdict.ready else 503)
