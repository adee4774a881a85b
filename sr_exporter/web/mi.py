"""The Management Interface of the exporter: it answers for every source as an OpenSIPS 4.0 would.

Recorded answers are the oracle, also of what is wrong with a request. Where a real server hangs, or
closes the connection, the answer is an error with a body (docs/http-api.md).
"""

from __future__ import annotations

import asyncio
from itertools import chain
from typing import TYPE_CHECKING, Any

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from sr_exporter.errors import NotKept, PushRefused
from sr_exporter.model import PUSH_SOURCE, Statement
from sr_exporter.web import bodies
from sr_exporter.web.access import require_reading
from sr_exporter.web.errors import Refused
from sr_exporter.web.mi_view import NAMES, HeldView
from sr_exporter.web.paths import parts
from sr_exporter.web.refusals import Refusals
from sr_exporter.wire.answers import perform
from sr_exporter.wire.calls import (
    CallError,
    UnprintableId,
    encode_error,
    parse_call,
    printable,
    result_in_pieces,
)
from sr_exporter.wire.mi_http import HTML, JSON, UNSUPPORTED, Heard, heard
from sr_exporter.wire.orders import ORDERS, orders

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from starlette.types import Receive, Scope, Send

    from sr_exporter.ingest import Ingest
    from sr_exporter.metrics.own import OwnMetrics
    from sr_exporter.state import State
    from sr_exporter.web.access import Access, Grant
    from sr_exporter.wire.calls import Call

#: The longest request. OpenSIPS takes what its httpd's `receive_buf_size` says, 1024 unless set.
MOST_BYTES = 2**16
#: What is as long is sent as it is written, and its length is not told.
_LONG_BYTES = 2**20
_USE_JSON = "Content-Type must be application/json (curl: -H 'Content-Type: application/json')"


class MiRoute:
    """`/mi`, which is the source `push`, and `/mi/{source}`; for all methods."""

    def __init__(
        self,
        ingest: Ingest,
        state: State,
        access: Access,
        metrics: OwnMetrics,
        clock: Callable[[], float],
    ) -> None:
        self._ingest = ingest
        self._state = state
        self._access = access
        self._metrics = metrics
        self._clock = clock
        self._started_at = clock()
        self._refusals = Refusals()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        try:
            answer = await self._answer(request)
        except Refused as refused:
            if refused.limit is not None:
                self._metrics.limited.met(refused.limit, "MI request refused: it is too large")
            raise
        await answer(scope, receive, send)

    async def _answer(self, request: Request) -> Response:
        match heard(request.method, request.headers.get("content-type", "")):
            case Heard.GET:
                allowed = {"Allow": "POST"}
                raise Refused(405, "MI takes JSON-RPC requests: send a POST", allowed)
            case Heard.OTHER_METHOD:
                return Response(UNSUPPORTED, 406, {"Content-Type": HTML})
            case Heard.FORM:
                raise Refused(400, _USE_JSON)
            case Heard.OTHER_TYPE:
                raise Refused(415, _USE_JSON)
            case Heard.CALL:
                return await self._answer_post(request)

    async def _answer_post(self, request: Request) -> Response:
        source = _source(request)
        body = await _body(request)
        try:
            return await self._answer_body(body, source, request)
        except UnprintableId:
            raise Refused(400, "id: must be a string, a number or null") from None

    async def _answer_body(self, body: bytes, source: str, request: Request) -> Response:
        try:
            call = parse_call(body)
        except CallError as error:
            return _answered(encode_error(error, error.request_id))
        printable(call.id)  # nothing is done that cannot be answered
        try:
            result = await self._result(call, source, request)
        except CallError as error:
            answer = _answered(encode_error(error, call.id))
        else:
            view = self._view(source)
            answer = await _answered_in_pieces(result_in_pieces(result, call.id), view)
        return Response(status_code=202, media_type=JSON) if call.notification else answer

    async def _result(self, call: Call, source: str, request: Request) -> Any:
        """Carry out a call. Raises CallError."""
        if NAMES.resolve(call.method) not in ORDERS:
            require_reading(request, source)
            await self._ingest.catch_up()  # what has expired by now is not shown
            return self._perform(call, source)
        try:
            grant = self._access.writer(request)
            await self._write(self._perform(call, source), grant)
        except CallError as error:
            self._metrics.pushed(400)
            if call.notification:  # a 202 would say that it is kept
                raise Refused(400, str(error)) from None
            raise
        except Refused as refused:
            self._metrics.pushed(refused.status)
            self._refusals.tell(request.scope, refused, "MI request refused")
            raise
        self._metrics.pushed(200)
        return "OK"

    def _perform(self, call: Call, source: str) -> Any:
        return perform(call, self._view(source), self._clock(), orders(source))

    def _view(self, source: str) -> HeldView:
        return HeldView(source, self._state.sources.get(source), self._started_at)

    async def _write(self, said: Statement, grant: Grant) -> None:
        """Push what a call says; resolves when it is kept."""
        grant.require([(said.source, said.group)])
        try:
            await self._ingest.push([said])
        except PushRefused as error:
            why = error.items[0].error if error.items else error.error
            raise CallError(400, "Bad parameter value", why) from None
        except NotKept as error:
            why = f"it cannot be kept now: {error}"
            raise Refused(503, why, {"Retry-After": "1"}) from None


def _source(request: Request) -> str:
    """Read the source from the path; %2F is a slash inside its name, and `/mi/` is `/mi`.

    Raises:
        Refused: 400 for a query, 404 for a path of more parts.
    """
    if request.scope["query_string"]:
        raise Refused(
            400, "a query is not understood here: the source goes in the path, /mi/SOURCE"
        )
    match parts(request.scope["raw_path"], b"/"):
        case ["mi"] | ["mi", ""]:
            return PUSH_SOURCE
        case ["mi", source]:
            return source
        case _:
            raise Refused(
                404, "no such route: POST /mi or /mi/SOURCE, with %2F for a slash in SOURCE"
            )


async def _body(request: Request) -> bytes:
    """Give the body.

    Raises:
        Refused: as OpenSIPS' HTTP server does, 400 for none and for one that is too long.
    """
    try:
        body = await bodies.read(request, MOST_BYTES)
    except Refused as refused:
        if refused.status == 413:
            said = f"the request is larger than {MOST_BYTES} bytes"
            raise Refused(400, said, limit=refused.limit) from None
        raise
    if not body:
        raise Refused(400, "the request is empty")
    return body


def _answered(body: bytes) -> Response:
    return Response(body, media_type=JSON)


async def _answered_in_pieces(pieces: Iterator[bytes], view: HeldView) -> Response:
    """Answer as a whole what is not too long for it; others have their turn in between."""
    written = [next(pieces)]
    size = len(written[0])
    for piece in pieces:
        written.append(piece)
        size += len(piece)
        if size >= _LONG_BYTES:
            return StreamingResponse(_in_turns(chain(written, pieces), view), media_type=JSON)
        await asyncio.sleep(0)
    return _answered(b"".join(written))


async def _in_turns(pieces: Iterator[bytes], view: HeldView) -> AsyncIterator[bytes]:
    """Give what is sent while it is written, which a slow client may draw out.

    It ends in its midst, and is no JSON, where its source is lost: the rest is not known.
    """
    for piece in pieces:
        if view.is_lost:
            return
        yield piece
        await asyncio.sleep(0)
