"""The route Prometheus scrapes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.responses import Response

if TYPE_CHECKING:
    from starlette.requests import Request

    from sr_exporter.ingest import Ingest
    from sr_exporter.metrics.scrape import Exposition


#: How long a scrape waits for the disk: one that hangs must not blind Prometheus.
KEPT_SECONDS = 1.0


class ScrapeRoute:
    def __init__(self, exposition: Exposition, ingest: Ingest) -> None:
        self._exposition = exposition
        self._ingest = ingest

    async def metrics(self, request: Request) -> Response:
        """`GET /metrics`."""
        self._ingest.advance()  # what has expired by now is not shown
        scraped = self._exposition.scrape(
            accept=", ".join(request.headers.getlist("accept")) or None,
            accept_encoding=", ".join(request.headers.getlist("accept-encoding")) or None,
            names=frozenset(request.query_params.getlist("name[]")),
        )
        # A counter that was shown must not be lower after a crash.
        await self._ingest.kept(KEPT_SECONDS)
        headers = {"Vary": "Accept, Accept-Encoding"}
        if scraped.gzip:
            headers["Content-Encoding"] = "gzip"
        response = Response(scraped.body, headers=headers)
        # Set whole: Starlette would add a charset of its own.
        response.headers["Content-Type"] = scraped.content_type
        return response
