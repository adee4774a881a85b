"""Is it alive, is it ready: as Prometheus servers answer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.responses import PlainTextResponse

from sr_exporter.web.errors import NOW

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

    from sr_exporter.ingest import Ingest

HEALTHY = "sr-exporter is healthy.\n"


class HealthRoutes:
    """A source that is down does not make the exporter unready: it has a gauge of its own."""

    def __init__(self, ingest: Ingest) -> None:
        self._ingest = ingest

    async def healthy(self, _: Request) -> Response:
        """`GET /-/healthy`: the loop turns."""
        return PlainTextResponse(HEALTHY, headers=NOW)

    async def ready(self, _: Request) -> Response:
        """`GET /-/ready`: the exporter is not stopping; while it starts, starting.py answers."""
        if not self._ingest.open:
            return PlainTextResponse("sr-exporter is stopping.\n", status_code=503, headers=NOW)
        return PlainTextResponse("sr-exporter is ready.\n", headers=NOW)
