"""The routes that write: push, and delete (design, section 5)."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import structlog

from sr_exporter.errors import NotKept, PushRefused
from sr_exporter.freeing import emptied
from sr_exporter.limits import Limit
from sr_exporter.model import OWN_SOURCE, PUSH_SOURCE, Forget
from sr_exporter.turns import MANY, in_turns, slices
from sr_exporter.web import bodies
from sr_exporter.web.errors import ItemProblem, JSONResponse, Refused
from sr_exporter.web.items import Removed
from sr_exporter.web.lists import parameters
from sr_exporter.web.paths import parts
from sr_exporter.web.refusals import Refusals, client
from sr_exporter.wire import push as wire

if TYPE_CHECKING:
    from collections.abc import Sequence

    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.types import ASGIApp, Receive, Scope, Send

    from sr_exporter.ingest import Ingest
    from sr_exporter.metrics.own import OwnMetrics
    from sr_exporter.model import Statement
    from sr_exporter.state import State
    from sr_exporter.web.access import Access, Grant

log = structlog.get_logger(__name__)

_RETRY_AFTER = {"Retry-After": "1"}
_TOO_MUCH = {
    Limit.BODY_BYTES: "push refused: it is too large",
    Limit.GZIP_MEMBERS: "push refused: its gzip body has too many members",
}
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
        self._refusals = Refusals()
        #: How large a body may be, after decompression too.
        self.limit_bytes = limit_bytes

    async def push(self, request: Request) -> ASGIApp:
        """`POST /api/v1/push`: 200 once kept, 400 with the items that are wrong."""
        try:
            answer = await self._push(request)
        except Refused as refused:
            self._metrics.pushed(refused.status)
            if refused.status == 400:
                refused.more.setdefault("items", [])
            if refused.limit is None:
                self._refusals.tell(request.scope, refused, "push refused")
            else:
                self._metrics.limited.met(refused.limit, _TOO_MUCH[refused.limit])
            raise
        self._metrics.pushed(200)
        return answer

    async def _push(self, request: Request) -> ASGIApp:
        grant = self._access.writer(request)
        source = PUSH_SOURCE
        if request.scope["query_string"]:
            source = parameters(request, ("source",)).get("source", PUSH_SOURCE)
        if not source:
            raise Refused(400, "source: must not be empty", items=[])
        body = await bodies.read(request, self.limit_bytes)
        try:
            if len(body) > wire.LARGE_BYTES:
                return await self._push_many(body, source, grant)
            statements = wire.statements(body, source=source)
            grant.require((said.source, said.group) for said in statements)
            changed = await self._ingest.push(statements)
        except PushRefused as error:
            items = [ItemProblem(item.index, item.error) for item in error.items]
            raise Refused(400, error.error, items=items) from None
        except NotKept as error:
            raise Refused(503, f"it cannot be kept now: {error}", _RETRY_AFTER) from None
        self._count_events(statements)
        return _Accepted(len(statements), changed)

    async def _push_many(self, body: bytes, source: str, grant: Grant) -> ASGIApp:
        """Push as `_push` does, and let others have their turn meanwhile."""
        statements = await in_turns(wire.statements_in_slices(body, source=source))
        accepted = len(statements)
        try:
            for some in slices(statements, MANY):
                grant.require((said.source, said.group) for said in some)
                await asyncio.sleep(0)
            changed = await self._ingest.push(statements)
            for some in slices(statements, MANY):
                self._count_events(some)
                await asyncio.sleep(0)
        finally:
            await in_turns(emptied(statements))
        return _Accepted(accepted, changed)

    def _count_events(self, statements: Sequence[Statement]) -> None:
        for said in statements:
            if said.way is not None:
                self._metrics.events.event_accepted(said.source, said.way)

    async def forget(self, request: Request) -> Response:
        """`DELETE /api/v1/sources/...`: 200, 404 nothing there, 409 not a pushed source."""
        try:
            what, removed = await self._forget(request)
        except Refused as refused:
            self._refusals.tell(request.scope, refused, "deletion refused")
            raise
        log.info(
            "deleted",
            source=what.source,
            group=what.group,
            identifier=what.identifier,
            removed=removed,
            client=client(request.scope),
        )
        return JSONResponse(Removed(removed))

    async def _forget(self, request: Request) -> tuple[Forget, int]:
        grant = self._access.writer(request)
        parameters(request, ())  # `?group=x` must not delete everything
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
        return what, removed


class _Accepted:
    """What most pushes are answered: an `items.Accepted`, without what a `Response` costs."""

    def __init__(self, accepted: int, changed: int) -> None:
        self._body = b'{"accepted":%d,"changed":%d}' % (accepted, changed)

    async def __call__(self, _: Scope, __: Receive, send: Send) -> None:
        length = (b"content-length", b"%d" % len(self._body))
        headers = [length, (b"content-type", b"application/json")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": self._body})


def _target(raw_path: bytes) -> Forget:
    """Read SOURCE[/groups/GROUP[/identifiers/IDENTIFIER]]; %2F is a slash inside a part.

    Raises:
        Refused: 404 for a path of another form.
    """
    match parts(raw_path, _PREFIX):
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
