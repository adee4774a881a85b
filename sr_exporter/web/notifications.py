"""The routes of what notifiers are owed, and of what was given up (design, section 7)."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from sr_exporter.errors import NotKept
from sr_exporter.notify.letters import Asked, NoSuchLetter, NotRetried
from sr_exporter.store.contract import Standing
from sr_exporter.web.errors import JSONResponse, Refused
from sr_exporter.web.items import notification_item
from sr_exporter.web.lists import Listed, parameters, wanted

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

    from sr_exporter.notify.letters import Letters
    from sr_exporter.store.contract import Age
    from sr_exporter.web.access import Access

#: An `Age`: when it was made, its number, its id.
_CURSOR = re.compile(r"(\d{1,15}\.\d{1,9})_(\d{1,18})_([0-9a-zA-Z-]{1,80})")
_RETRY_AFTER = {"Retry-After": "1"}


class NotificationsRoutes:
    def __init__(self, letters: Letters, access: Access) -> None:
        self._letters = letters
        self._access = access

    async def notifications(self, request: Request) -> Response:
        """`GET /api/v1/notifications?state=&notifier=`: a list, the oldest first."""
        asked = wanted(request, filters=("state", "notifier"))
        state = asked.filters.get("state", Standing.DEAD)
        if state not in set(Standing):
            raise Refused(400, f"state: must be one of {', '.join(sorted(Standing))}")
        after = None if asked.cursor is None else _age(asked.cursor)
        notifier = asked.filters.get("notifier")
        try:
            page = await self._letters.find(Asked(Standing(state), notifier, after, asked.limit))
        except NotKept as error:
            raise Refused(503, f"the store cannot be read: {error}", _RETRY_AFTER) from None
        return JSONResponse(
            Listed(
                [notification_item(owed) for owed in page.rows],
                None if page.next is None else _cursor(page.next),
            )
        )

    async def retry(self, request: Request) -> Response:
        """`POST /api/v1/notifications/ID/retry`: 200 once it is owed again, and that is kept."""
        self._access.writer(request).require_everything("retry notifications")
        parameters(request, ())
        row_id = request.path_params["id"]
        try:
            owed = await self._letters.retry(row_id)
        except NoSuchLetter:
            raise Refused(404, f"no notification {row_id!r} is dead") from None
        except NotRetried as error:
            raise Refused(409, f"notification {row_id!r} is not retried: {error}") from None
        except NotKept as error:
            raise Refused(503, f"it cannot be kept now: {error}", _RETRY_AFTER) from None
        return JSONResponse(notification_item(owed))


def _cursor(age: Age) -> str:
    return f"{age[0]:.9f}_{age[1]}_{age[2]}"


def _age(cursor: str) -> Age:
    found = _CURSOR.fullmatch(cursor)
    if found is None:
        raise Refused(400, "cursor: is not the `next` of an earlier page")
    return float(found[1]), int(found[2]), found[3]
