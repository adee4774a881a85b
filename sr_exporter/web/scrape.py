"""The route Prometheus scrapes."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from starlette.responses import Response

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.types import Receive, Scope, Send

    from sr_exporter.ingest import Ingest
    from sr_exporter.metrics.scrape import Exposition, Scraped


#: How long a scrape waits for the disk: one that hangs must not blind Prometheus.
KEPT_SECONDS = 1.0


class ScrapeRoute:
    def __init__(self, exposition: Exposition, ingest: Ingest) -> None:
        self._exposition = exposition
        self._ingest = ingest

    async def metrics(self, request: Request) -> Response:
        """`GET /metrics`."""
        await self._ingest.catch_up()  # what has expired by now is not shown
        scraped = await self._exposition.scrape(
            accept=", ".join(request.headers.getlist("accept")) or None,
            accept_encoding=", ".join(request.headers.getlist("accept-encoding")) or None,
            names=frozenset(request.query_params.getlist("name[]")),
        )
        # A counter that was shown must not be lower after a crash.
        await self._ingest.kept(KEPT_SECONDS)
        return _Answer(scraped)


class _Answer(Response):
    """A scrape's answer, sent piece by piece as the client takes it."""

    def __init__(self, scraped: Scraped) -> None:
        super().__init__()
        self._scraped = scraped
        self.headers["Vary"] = "Accept, Accept-Encoding"
        if scraped.gzip:
            self.headers["Content-Encoding"] = "gzip"
        # Set whole: Starlette would add a charset of its own.
        self.headers["Content-Type"] = scraped.content_type
        self.headers["Content-Length"] = str(scraped.size)

    async def __call__(self, scope: Scope, _: Receive, send: Send) -> None:
        await send(
            {
                "type": "http.response.start",
                "status": self.status_code,
                "headers": self.raw_headers,
            }
        )
        if scope["method"] != "HEAD":
            for piece in self._scraped.pieces():
                await send({"type": "http.response.body", "body": piece, "more_body": True})
                await asyncio.sleep(0)  # to who went away sending takes no time, unpacking does
        await send({"type": "http.response.body", "body": b""})
