"""The one table of routes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.routing import Route

from sr_exporter.web.errors import Refused, failed, refused, unroutable

if TYPE_CHECKING:
    from sr_exporter.web.alerts import AlertsRoutes
    from sr_exporter.web.health import HealthRoutes
    from sr_exporter.web.notifications import NotificationsRoutes
    from sr_exporter.web.page import PageRoutes
    from sr_exporter.web.push import PushRoutes
    from sr_exporter.web.reload import ReloadRoute
    from sr_exporter.web.scrape import ScrapeRoute
    from sr_exporter.web.sources import SourcesRoute


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
) -> Starlette:
    """Put the routes together."""
    served = Starlette(
        routes=[
            Route("/metrics", scrape.metrics),
            Route("/api/v1/notifications", notifications.notifications),
            Route("/api/v1/notifications/{id}/retry", notifications.retry, methods=["POST"]),
            Route("/api/v1/push", push.push, methods=["POST"]),
            Route("/api/v1/sources", sources.sources),
            Route("/api/v1/sources/{target:path}", push.forget, methods=["DELETE"]),
            Route("/api/v2/alerts", alerts.alerts),
            Route("/api/v2/alerts/groups", alerts.groups),
            Route("/api/v2/receivers", alerts.receivers),
            Route("/api/v2/silences", alerts.silences),
            Route("/api/v2/status", alerts.status),
            Route("/-/healthy", health.healthy),
            Route("/-/ready", health.ready),
            Route("/-/reload", reload.reload, methods=["POST", "PUT"]),
            Route("/", page.index),
            Route("/sources/{source:path}", page.index),
            Route("/runbooks", page.runbooks),
        ],
        exception_handlers={
            Refused: refused,
            HTTPException: unroutable,
            Exception: failed,
        },
    )
    # A redirect would answer 307 to what is to be 404, and lose a POST's body on its way.
    served.router.redirect_slashes = False
    return served
