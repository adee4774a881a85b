"""What is answered while the exporter starts: how far it is, and nothing of what it restores.

Prometheus takes a scrape that is refused for what it is, a target that is down: half of the series
would have it take the others for gone.
"""

from __future__ import annotations

import base64
import hashlib
from typing import TYPE_CHECKING

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from starlette.responses import HTMLResponse, PlainTextResponse

from sr_exporter.web.errors import JSONResponse
from sr_exporter.web.health import HEALTHY

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

    from sr_exporter.progress import Progress

#: When to ask again: pages do so by themselves.
REFRESH_SECONDS = 2
RETRY_AFTER_SECONDS = 5
_STYLE = (
    ":root { color-scheme: light dark; }"
    " body { font: 16px/1.5 system-ui, sans-serif; margin: 3rem auto; max-width: 36rem;"
    " padding: 0 1rem; }"
    " progress { width: 100%; }"
)
_STYLE_HASH = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
_RETRY = {"Retry-After": str(RETRY_AFTER_SECONDS), "Cache-Control": "no-store"}
_PAGE = {
    **_RETRY,
    "Content-Security-Policy": f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}';"
    " base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "same-origin",
}


class Starting:
    """Answers everything: that it lives, and that it is not ready."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        templates = Environment(
            loader=PackageLoader("sr_exporter.web"), autoescape=True, undefined=StrictUndefined
        )
        self._page = templates.get_template("starting.html")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._answer(scope)(scope, receive, send)

    def _answer(self, scope: Scope) -> ASGIApp:
        path = scope["path"]
        if path == "/-/healthy":
            return PlainTextResponse(HEALTHY)
        if path == "/-/ready":
            text = f"sr-exporter is starting: {self._progress}.\n"
            return PlainTextResponse(text, status_code=503, headers=_RETRY)
        if path == "/" or _is_for_a_person(scope):
            page = self._page.render(
                progress=self._progress,
                step=self._progress.step,
                refresh=REFRESH_SECONDS,
                style=Markup(_STYLE),  # noqa: S704 - it is ours
            )
            return HTMLResponse(page, status_code=503, headers=_PAGE)
        error = f"sr-exporter is starting: {self._progress}; try again"
        return JSONResponse({"error": error}, status_code=503, headers=_RETRY)


def _is_for_a_person(scope: Scope) -> bool:
    """Whether a browser asks: a link in an alert leads to any page."""
    return any(name == b"accept" and b"text/html" in said for name, said in scope["headers"])


class Door:
    """Leads every request to what answers now; it is another once the exporter has started."""

    def __init__(self, application: ASGIApp) -> None:
        self.application = application

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.application(scope, receive, send)
