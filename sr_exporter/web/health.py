"""Is it alive, is it ready: as Prometheus servers answer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.responses import PlainTextResponse

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

    from sr_exporter.ingest import Ingest


class HealthRoutes:
    """A source that is down does not make the exporter unready: it has a gauge of its own."""

    def __init__(self, ingest: Ingest) -> None:
        self._ingest = ingest

    async def healthy(self, _: Request) -> Response:
        """`GET /-/healthy`: the loop turns."""
        return PlainTextResponse("sr-exporter is healthy.\n")

    async def ready(self, _: Request) -> Response:
        """`GET /-/ready`: what was kept is restored, and the exporter is not stopping."""
        if not self._ingest.open:
            return PlainTextResponse("sr-exporter is stopping.\n", status_code=503)
        return PlainTextResponse("sr-exporter is ready.\n")
