"""The one table of routes."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

import msgspec
from starlette.applications import Starlette
from starlette.convertors import PathConvertor, register_url_convertor
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from sr_exporter.web.errors import Refused, failed, refused, unroutable
from sr_exporter.web.lists import parameters
from sr_exporter.web.openapi import document
from sr_exporter.web.operations import OPERATIONS
from sr_exporter.web.static import static

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from starlette.types import ASGIApp, Receive, Scope, Send

    from sr_exporter.web.alerts import AlertsRoutes
    from sr_exporter.web.changes import ChangesRoute
    from sr_exporter.web.check import CheckRoutes
    from sr_exporter.web.health import HealthRoutes
    from sr_exporter.web.mi import MiRoute
    from sr_exporter.web.notifications import NotificationsRoutes
    from sr_exporter.web.page import PageRoutes
    from sr_exporter.web.push import PushRoutes
    from sr_exporter.web.reload import ReloadRoute
    from sr_exporter.web.scrape import ScrapeRoute
    from sr_exporter.web.sources import SourcesRoute
    from sr_exporter.web.status import StatusRoutes


_PUSH = "/api/v1/push"


class _NamesConvertor(PathConvertor):
    """Names, in which there may be anything: Starlette's own `path` ends at a line's end."""

    regex = "(?s:.*)"


register_url_convertor("names", _NamesConvertor())


def application(
    *,
    scrape: ScrapeRoute,
    push: PushRoutes,
    page: PageRoutes,
    health: HealthRoutes,
    reload: ReloadRoute,
    sources: SourcesRoute,
    notifications: NotificationsRoutes,
    alerts: AlertsRoutes,
    check: CheckRoutes,
    changes: ChangesRoute,
    status: StatusRoutes,
    mi: MiRoute,
) -> ASGIApp:
    """Put the routes together; those of the API have their rows in operations.py."""
    served = Starlette(
        routes=[
            Route("/metrics", scrape.metrics),
            Route("/api/v1/notifications", notifications.notifications),
            Route("/api/v1/notifications/{id}/retry", notifications.retry, methods=["POST"]),
            Route(_PUSH, push.push, methods=["POST"]),
            Route("/api/v1/sources", sources.sources),
            Route("/api/v1/sources/{target:names}", push.forget, methods=["DELETE"]),
            Route("/api/v1/status", status.status),
            Route("/api/v1/reports", status.reports),
            Route("/api/v1/changes", changes.changes),
            Route("/api/v1/check", check.check),
            Route("/ready/{target:names}", check.ready),
            Route("/api/v1/openapi.json", openapi),
            Route("/api/v2/alerts", alerts.alerts),
            Route("/api/v2/alerts/groups", alerts.groups),
            Route("/api/v2/receivers", alerts.receivers),
            Route("/api/v2/silences", alerts.silences),
            Route("/api/v2/status", alerts.status),
            Route("/mi", mi),
            Route("/mi/{source:names}", mi),
            Route("/-/healthy", health.healthy),
            Route("/-/ready", health.ready),
            Route("/-/reload", reload.reload, methods=["POST", "PUT"]),
            Route("/", page.index),
            Route("/sources/{target:names}", page.source),
            Route("/static/{name}", static),
            Route("/runbooks", page.runbooks),
        ],
        exception_handlers={
            Refused: _on_the_loop(refused),
            HTTPException: _on_the_loop(unroutable),
            Exception: _on_the_loop(failed),
        },
    )
    # A redirect would answer 307 to what is to be 404, and lose a POST's body on its way.
    served.router.redirect_slashes = False
    return _Front(push, served)


def _on_the_loop(
    answer: Callable[[Request, Exception], Response],
) -> Callable[[Request, Exception], Awaitable[Response]]:
    """Have a refusal written at once: Starlette would take a thread for each."""

    async def handler(request: Request, error: Exception) -> Response:
        return answer(request, error)

    return handler


async def openapi(request: Request) -> Response:
    """`GET /api/v1/openapi.json`: what can be asked, for programs."""
    parameters(request, ())
    return Response(_openapi(), media_type="application/json")


@functools.cache
def _openapi() -> bytes:
    return msgspec.json.encode(document(OPERATIONS))


class _Front:
    """Takes pushes itself and leaves the rest to Starlette, whose way costs more than a push."""

    def __init__(self, push: PushRoutes, rest: ASGIApp) -> None:
        self._push = push
        self._rest = rest

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] != _PUSH or scope["method"] != "POST":
            await self._rest(scope, receive, send)
            return
        request = Request(scope, receive)
        try:
            answer: ASGIApp = await self._push.push(request)
        except Refused as error:
            answer = refused(request, error)
        except Exception as error:
            await failed(request, error)(scope, receive, send)
            raise
        await answer(scope, receive, send)
