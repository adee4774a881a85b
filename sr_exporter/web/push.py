"""The routes that write: push, and delete (design, section 5)."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import unquote_to_bytes

from sr_exporter.errors import NotKept, PushRefused
from sr_exporter.model import OWN_SOURCE, PUSH_SOURCE, Forget
from sr_exporter.web import bodies
from sr_exporter.web.errors import JSONResponse, Refused
from sr_exporter.wire import push as wire
from sr_exporter.wire.text import name

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

    from sr_exporter.ingest import Ingest
    from sr_exporter.metrics.own import OwnMetrics
    from sr_exporter.state import State
    from sr_exporter.web.access import Access

_RETRY_AFTER = {"Retry-After": "1"}
_PREFIX = b"/api/v1/sources/"


class PushRoutes:
    """Takes what is pushed, and forgets it when told."""

    def __init__(
        self,
        ingest: Ingest,
        state: State,
        access: Access,
        metrics: OwnMetrics,
        *,
        limit_bytes: int = 2**25,
    ) -> None:
        self._ingest = ingest
        self._state = state
        self._access = access
        self._metrics = metrics
        #: How large a body may be, after decompression too.
        self.limit_bytes = limit_bytes

    async def push(self, request: Request) -> Response:
        """`POST /api/v1/push`: 200 once kept, 400 with the items that are wrong."""
        try:
            answer = await self._push(request)
        except Refused as refused:
            self._metrics.pushed(refused.status)
            if refused.status == 400:
                refused.more.setdefault("items", [])
            raise
        self._metrics.pushed(200)
        return answer

    async def _push(self, request: Request) -> Response:
        grant = self._access.writer(request)
        _refuse_query(request, allowed=("source",))
        source = request.query_params.get("source", PUSH_SOURCE)
        if not source:
            raise Refused(400, "source: must not be empty", items=[])
        body = await bodies.read(request, self.limit_bytes)
        try:
            statements = wire.statements(body, source=name(source))
            grant.require((said.source, said.group) for said in statements)
            changed = await self._ingest.push(statements)
        except PushRefused as error:
            items = [{"index": item.index, "error": item.error} for item in error.items]
            raise Refused(400, error.error, items=items) from None
        except NotKept as error:
            raise Refused(503, f"it cannot be kept now: {error}", _RETRY_AFTER) from None
        for said in statements:
            if said.way is not None:
                self._metrics.events.event_accepted(said.source, said.way)
        return JSONResponse({"accepted": len(statements), "changed": changed})

    async def forget(self, request: Request) -> Response:
        """`DELETE /api/v1/sources/...`: 200, 404 nothing there, 409 not a pushed source."""
        grant = self._access.writer(request)
        _refuse_query(request, allowed=())
        what = _target(request.scope["raw_path"])
        grant.require([(what.source, what.group or "*")])
        source = self._state.sources.get(what.source)
        if (source is not None and source.polled) or what.source == OWN_SOURCE:
            raise Refused(409, f"source {what.source!r} is not pushed: it can't be forgotten")
        try:
            removed = await self._ingest.forget(what)
        except NotKept as error:
            raise Refused(503, f"it cannot be kept now: {error}", _RETRY_AFTER) from None
        if not removed:
            raise Refused(404, "nothing of that is held")
        return JSONResponse({"removed": removed})


def _refuse_query(request: Request, *, allowed: tuple[str, ...]) -> None:
    """Refuse what a query asks and nobody would do: `?group=x` must not delete everything."""
    for asked in request.query_params:
        if asked not in allowed:
            raise Refused(400, f"the query parameter {asked!r} is not understood here")


def _target(raw_path: bytes) -> Forget:
    """Read SOURCE[/groups/GROUP[/identifiers/IDENTIFIER]]; %2F is a slash inside a part.

    Raises:
        Refused: 404 for a path of another form.
    """
    parts = [
        name(unquote_to_bytes(part).decode("utf-8", "surrogateescape"))
        for part in raw_path.removeprefix(_PREFIX).split(b"/")
    ]
    match parts:
        case [source] if source:
            return Forget(source)
        case [source, "groups", group] if source and group:
            return Forget(source, group)
        case [source, "groups", group, "identifiers", identifier] if (
            source and group and identifier
        ):
            return Forget(source, group, identifier)
        case _:
            raise Refused(
                404,
                "no such route: DELETE /api/v1/sources/SOURCE[/groups/GROUP"
                "[/identifiers/IDENTIFIER]]",
            )
