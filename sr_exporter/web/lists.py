"""Lists of the API: filters, and pages of them (design, section 5)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sr_exporter.web.errors import Refused

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from starlette.requests import Request

#: How many items a page has at most, and unless less is asked for.
MOST_ITEMS = 1000


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a request for a list asks for."""

    filters: Mapping[str, str]
    limit: int
    #: The page begins after this item; None: at the first.
    cursor: str | None


def wanted(request: Request, *, filters: tuple[str, ...]) -> Wanted:
    """Read the query of a list: these filters, `limit`, and the `cursor` of an earlier page.

    Raises:
        Refused: 400, something is not understood, or is there twice.
    """
    query = request.query_params
    for asked in query:
        if asked not in (*filters, "limit", "cursor"):
            raise Refused(400, f"the query parameter {asked!r} is not understood here")
        if len(query.getlist(asked)) > 1:
            raise Refused(400, f"the query parameter {asked!r} is there twice")
    limit = query.get("limit", str(MOST_ITEMS))
    if not (limit.isascii() and limit.isdigit() and 0 < int(limit[:9]) <= MOST_ITEMS):
        raise Refused(400, f"limit: must be a whole number from 1 to {MOST_ITEMS}")
    return Wanted(
        {name: query[name] for name in filters if name in query}, int(limit), query.get("cursor")
    )


def page(names: Sequence[str], asked: Wanted, item: Callable[[str], Any]) -> dict[str, Any]:
    """Give one page of what these sorted names stand for."""
    left = names if asked.cursor is None else [name for name in names if name > asked.cursor]
    shown = left[: asked.limit]
    more = len(left) > len(shown)
    return {"items": [item(name) for name in shown], "next": shown[-1] if more else None}
