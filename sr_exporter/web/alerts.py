"""What fires now, as Alertmanager's API version 2 tells it: `amtool` reads the exporter.

Read only, and without silences: what is silenced by a rule makes no alert at all. Shapes,
filters and errors are those of a real Alertmanager, which the tests ask the same questions.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import msgspec
from starlette.responses import Response, StreamingResponse

from sr_exporter import __version__
from sr_exporter.notify.alerts import is_about, rfc3339
from sr_exporter.notify.payload import ENDS_AFTER_SECONDS
from sr_exporter.web.alert_items import (
    AlertItem,
    AlertmanagerConfig,
    AlertmanagerStatus,
    AlertState,
    Cluster,
    ReceiverItem,
    VersionInfo,
)
from sr_exporter.web.errors import NOW, JSONResponse
from sr_exporter.web.matchers import expression, matcher

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

    from starlette.requests import Request

    from sr_exporter.notify.book import AlertBook, Level

#: For how long filters are asked, and how many alerts are written, before others have a turn.
_TURN_SECONDS = 0.005
_AT_ONCE = 500
#: How long the regular expressions of one request may be, together.
MOST_PATTERN = 500
#: What Alertmanager reads as "yes"; anything else is "no".
_YES = frozenset({"1", "true", "yes", "ok", "y", "on", "selected", "checked", "t", "enabled"})
_CONFIG = "# sr-exporter has none of Alertmanager's configuration: see its own file.\n"


class AlertsRoutes:
    """`receivers` gives the names of the notifiers."""

    def __init__(
        self,
        book: AlertBook,
        receivers: Callable[[], Sequence[str]],
        clock: Callable[[], float],
        *,
        catch_up: Callable[[], Awaitable[None]],
    ) -> None:
        """`catch_up` brings the book up to date."""
        self._catch_up = catch_up
        self._book = book
        self._receivers = receivers
        self._clock = clock
        self._started_at = clock()

    async def alerts(self, request: Request) -> Response:
        """`GET /api/v2/alerts?filter=&receiver=&active=`: what fires, by fingerprint."""
        try:
            levels, _ = await self._asked(request)
        except ValueError as error:
            return _bad(error)
        return _Streamed(self._list(levels))

    async def groups(self, request: Request) -> Response:
        """`GET /api/v2/alerts/groups`: the same, as one group for each receiver."""
        try:
            levels, receivers = await self._asked(request)
        except ValueError as error:
            return _bad(error)
        return _Streamed(self._groups(levels, receivers))

    async def status(self, _: Request) -> Response:
        """`GET /api/v2/status`."""
        return JSONResponse(
            AlertmanagerStatus(
                cluster=Cluster([], "disabled"),
                config=AlertmanagerConfig(_CONFIG),
                uptime=_moment(self._started_at),
                version_info=VersionInfo(version=__version__),
            )
        )

    async def receivers(self, _: Request) -> Response:
        """`GET /api/v2/receivers`: the notifiers."""
        return JSONResponse([ReceiverItem(name) for name in self._receivers()])

    async def silences(self, request: Request) -> Response:
        """`GET /api/v2/silences`: there are none."""
        try:
            _filters(request)
        except ValueError as error:
            return _bad(error)
        return JSONResponse([])

    async def _asked(self, request: Request) -> tuple[list[Level], list[str]]:
        """Give the alerts, and the receivers, that a request asks for.

        Raises:
            ValueError: it is not understood.
        """
        filters = _filters(request)
        names = list(self._receivers())
        asked: list[str] | None = None
        if receiver := request.query_params.get("receiver"):
            try:
                fits = expression(receiver)
            except ValueError as error:
                raise ValueError(f"failed to parse receiver param: {error}") from None
            names = asked = [name for name in names if fits(name)]
            if not names:
                return [], []
        # Nothing of ours is silenced, inhibited or unprocessed: all there is is active.
        if (request.query_params.get("active") or "true").lower() not in _YES:
            return [], names
        await self._catch_up()
        loop = asyncio.get_running_loop()
        pause_at = loop.time() + _TURN_SECONDS
        found = []
        for level in self._book.levels():
            record = level.record
            told = asked is None or _is_told(level, asked)
            if record.resolved_at is None and told and all(fits(record.labels) for fits in filters):
                found.append(level)
            if loop.time() >= pause_at:
                await asyncio.sleep(0)
                pause_at = loop.time() + _TURN_SECONDS
        return sorted(found, key=lambda level: level.record.fingerprint), names

    async def _list(self, levels: Sequence[Level]) -> AsyncIterator[bytes]:
        receivers = self._receivers()
        ends_at = _moment(self._clock() + ENDS_AFTER_SECONDS)
        yield b"["
        for first in range(0, len(levels), _AT_ONCE):
            batch = levels[first : first + _AT_ONCE]
            written = msgspec.json.encode([_item(level, receivers, ends_at) for level in batch])
            yield (b"," if first else b"") + written[1:-1]
            await asyncio.sleep(0)
        yield b"]"

    async def _groups(
        self, levels: Sequence[Level], receivers: Sequence[str]
    ) -> AsyncIterator[bytes]:
        yield b"["
        told = ((name, [one for one in levels if _is_told(one, [name])]) for name in receivers)
        for number, (name, theirs) in enumerate((name, some) for name, some in told if some):
            yield (b"," if number else b"") + b'{"alerts":'
            async for written in self._list(theirs):
                yield written
            yield b',"labels":{},"receiver":' + msgspec.json.encode({"name": name}) + b"}"
        yield b"]"


def _filters(request: Request) -> list[Callable[..., bool]]:
    said = request.query_params
    # RE2 takes the length of what is searched times that of the expression.
    patterns = [text for text in said.getlist("filter") if "~" in text] + [said.get("receiver", "")]
    if sum(map(len, patterns)) > MOST_PATTERN:
        raise ValueError(
            f"regular expressions of one request may be {MOST_PATTERN} characters long together"
        )
    return [matcher(text) for text in said.getlist("filter")]


def _is_told(level: Level, receivers: Sequence[str]) -> bool:
    """Whether any of these is told: of a notifier in trouble all are, but itself."""
    return any(not is_about(level.record, name) for name in receivers)


def _item(level: Level, receivers: Sequence[str], ends_at: str) -> AlertItem:
    record = level.record
    return AlertItem(
        annotations=record.annotations,
        ends_at=ends_at,
        fingerprint=record.fingerprint,
        receivers=[ReceiverItem(name) for name in receivers if not is_about(record, name)],
        starts_at=_moment(record.starts_at),
        status=AlertState([], [], "active"),
        updated_at=_moment(level.changed_at),
        generator_url=record.generator_url,
        labels=record.labels,
    )


def _moment(seconds: float) -> str:
    """Write a time as Alertmanager does: cut to the millisecond."""
    return rfc3339(seconds)[:-4] + "Z"


class _Streamed(StreamingResponse):
    """A list, sent as it is written."""

    def __init__(self, pieces: AsyncIterator[bytes]) -> None:
        super().__init__(pieces, media_type="application/json", headers=NOW)


def _bad(error: ValueError) -> Response:
    """Refuse as Alertmanager does, by a string: amtool shows it."""
    return JSONResponse(str(error), status_code=400)
