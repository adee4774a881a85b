"""The route that has the configuration read again."""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog
from starlette.responses import PlainTextResponse

from sr_exporter.errors import ConfigError, NotReloaded
from sr_exporter.reload import MOST_FAULTS
from sr_exporter.web.errors import Refused
from sr_exporter.web.refusals import client

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from starlette.requests import Request
    from starlette.responses import Response

    from sr_exporter.web.access import Access

log = structlog.get_logger(__name__)


class ReloadRoute:
    def __init__(self, reload: Callable[[], Awaitable[None]], access: Access) -> None:
        self._reload = reload
        self._access = access

    async def reload(self, request: Request) -> Response:
        """`POST /-/reload`: 200 once in force, 400 with everything that is wrong in the file."""
        self._access.writer(request).require_everything("reload")
        log.info("asked to reload", client=client(request.scope))
        try:
            await self._reload()
        except ConfigError as error:
            faults = [str(fault) for fault in error.faults[:MOST_FAULTS]]
            if (more := len(error.faults) - MOST_FAULTS) > 0:
                faults.append(f"and {more} more")
            said = f"the configuration is not reloaded: {'; '.join(faults)}"
            raise Refused(400, said, faults=faults) from None
        except NotReloaded as error:
            raise Refused(503, str(error)) from None
        return PlainTextResponse("sr-exporter has reloaded its configuration.\n")
