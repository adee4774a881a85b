"""What every request passes before it is answered, where there is a web configuration.

In exporter-toolkit's order: how often requests may come, then who asks. It stands in front of all
routes, and of what is answered while the exporter starts.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, NoReturn

from starlette.requests import Request

from sr_exporter.web.access import GRANT, READS, STRANGER, WHOLE
from sr_exporter.web.encrypted import CERTIFIED, MADE_BY, listening
from sr_exporter.web.errors import Refused, refused
from sr_exporter.web.rate import Bucket
from sr_exporter.web.server import WebServer
from sr_exporter.web.users import Busy, Users, basic

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Sequence

    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from sr_exporter.config import Limits
    from sr_exporter.config.web import RateLimit, WebConfig
    from sr_exporter.metrics.own import OwnMetrics
    from sr_exporter.web.access import Access, Grant
    from sr_exporter.web.config_file import WebConfigFile

_CHALLENGE = {"WWW-Authenticate": "Basic"}
#: Routes that know what a token of some sources or groups is for.
_SCOPED = frozenset({"/api/v1/push", "/api/v1/check", "/mi"})
_SCOPED_BELOW = ("/api/v1/sources/", "/ready/", "/mi/", "/-/")


def web_server(
    application: ASGIApp,
    sockets: list[socket.socket],
    file: WebConfigFile | None,
    access: Access,
    metrics: OwnMetrics,
    limits: Limits,
) -> WebServer:
    """Make the server of an application, which stands behind a gate if there is a file."""
    if file is None:
        return WebServer(application, sockets, metrics.limited, limits.connections)
    file.report_to(metrics)
    gate = Gate(application, file.now, access, metrics.web_refused)
    tls = listening(file.tls, file.last_tls, metrics.web_refused) if file.has_tls else None
    return WebServer(gate, sockets, metrics.limited, limits.connections, tls)


class Gate:
    """Lets requests through to an application, or answers them itself."""

    def __init__(
        self,
        application: ASGIApp,
        config: Callable[[], WebConfig],
        access: Access,
        turned_away: Callable[[str], None],
    ) -> None:
        """`turned_away` is told why, in the words of the metric."""
        self._application = application
        self._config = config
        self._access = access
        self._turned_away = turned_away
        self._users = Users()
        self._bucket: Bucket | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        config = self._config()
        if config.headers:
            send = functools.partial(_send_with, config.headers, send)
        try:
            self._pace(config.rate_limit)
            await self._identify(scope, config)
        except Refused as error:
            answer = refused(Request(scope, receive), error)
            await answer(scope, receive, send)
            return
        await self._application(scope, receive, send)

    def _pace(self, limit: RateLimit | None) -> None:
        if limit is None:
            self._bucket = None
            return
        bucket = self._bucket
        if bucket is None or bucket.limit != limit:
            bucket = self._bucket = Bucket(limit)
        if not bucket.take():
            self._turned_away("rate_limit")
            wait = {"Retry-After": str(bucket.retry_after_seconds)}
            raise Refused(429, "too many requests: see rate_limit in --web.config.file", wait)

    async def _identify(self, scope: Scope, config: WebConfig) -> None:
        """Put into the scope what whoever asks may do."""
        shown = scope.get("extensions", {})
        if config.tls is not None and shown.get(MADE_BY, config.tls.clients) != config.tls.clients:
            raise Refused(
                401,
                "who may connect is decided otherwise since this connection was made:"
                " connect again",
                {"Connection": "close"},
            )
        if config.users:
            scope[GRANT] = scope[READS] = grant = await self._grant(scope, config)
            if not grant.is_whole and not _knows_scopes(scope["path"]):
                raise Refused(
                    403,
                    "this token is for writing some sources or groups: anything else takes a user"
                    " of basic_auth_users in --web.config.file, or a token of sources: ['*'] and"
                    " groups: ['*'] in push.tokens",
                )
        elif config.tls is not None and config.tls.asks_for_certificates:
            if CERTIFIED not in scope["extensions"]:
                scope[GRANT] = STRANGER
            elif not self._access.is_token(scope["headers"]):
                scope[GRANT] = WHOLE

    async def _grant(self, scope: Scope, config: WebConfig) -> Grant:
        """Give what a user, or the bearer of a token, may do.

        Raises:
            Refused: 401 for anybody else.
        """
        headers = scope["headers"]
        if self._access.is_token(headers):
            grant = self._access.bearer(headers)
            if grant is not None:
                return grant
            self._refuse("this token is not known")
        said = basic(_authorization(headers))
        if said is None:
            self._refuse("a user of basic_auth_users is needed: send Authorization: Basic")
        client = scope.get("client")
        try:
            known = await self._users.knows(config.users, said, client[0] if client else "")
        except Busy:
            self._turned_away("busy")
            raise Refused(
                503, "too many passwords are being checked", {"Retry-After": "1"}
            ) from None
        if not known:
            self._refuse("user or password is wrong")
        return WHOLE

    def _refuse(self, why: str) -> NoReturn:
        self._turned_away("credentials")
        raise Refused(401, why, _CHALLENGE)


def _authorization(headers: Sequence[tuple[bytes, bytes]]) -> bytes:
    for name, said in headers:
        if name == b"authorization":
            return said
    return b""


def _knows_scopes(path: str) -> bool:
    return path in _SCOPED or path.startswith(_SCOPED_BELOW)


async def _send_with(headers: Sequence[tuple[bytes, bytes]], send: Send, message: Message) -> None:
    """Add headers to an answer, but for those it has: the page's own policy fits the page."""
    if message["type"] == "http.response.start":
        said = message.get("headers", [])
        has = {name.lower() for name, _ in said}
        more = [one for one in headers if one[0] not in has]
        message = {**message, "headers": [*said, *more]}
    await send(message)
