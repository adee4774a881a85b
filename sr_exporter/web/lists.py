"""Lists of the API: filters, and pages of them (design, section 5)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar
from urllib.parse import parse_qsl

import msgspec

from sr_exporter.web.errors import Refused
from sr_exporter.wire.text import name

if TYPE_CHECKING:
    from collections.abc import Mapping

    from starlette.requests import Request

T = TypeVar("T")

#: How many items a page has at most, and unless less is asked for.
MOST_ITEMS = 1000


class Listed(msgspec.Struct, Generic[T], frozen=True):
    """One page of a list."""

    items: list[T]
    #: The `cursor` of the page that follows; null: there is none.
    next: str | None


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a request for a list asks for."""

    filters: Mapping[str, str]
    limit: int
    #: The page begins after this item; None: at the first.
    cursor: str | None


def parameters(request: Request, allowed: tuple[str, ...]) -> dict[str, str]:
    """Read a query that may have these parameters, each once; spelled as names are held.

    Raises:
        Refused: 400, there is another, or one twice.
    """
    raw = request.scope["query_string"].decode("latin-1")
    query: dict[str, str] = {}
    for asked, said in parse_qsl(raw, keep_blank_values=True, errors="surrogateescape"):
        if asked not in allowed:
            raise Refused(400, f"the query parameter {name(asked)!r} is not understood here")
        if asked in query:
            raise Refused(400, f"the query parameter {asked!r} is there twice")
        query[asked] = name(said)
    return query


def wanted(request: Request, *, filters: tuple[str, ...]) -> Wanted:
    """Read the query of a list: these filters, `limit`, and the `cursor` of an earlier page.

    Raises:
        Refused: 400, something is not understood, or is there twice.
    """
    query = parameters(request, (*filters, "limit", "cursor"))
    limit = query.get("limit", str(MOST_ITEMS))
    if not (limit.isascii() and limit.isdigit() and 0 < int(limit[:9]) <= MOST_ITEMS):
        raise Refused(400, f"limit: must be a whole number from 1 to {MOST_ITEMS}")
    return Wanted(
        {asked: query[asked] for asked in filters if asked in query},
        int(limit),
        query.get("cursor"),
    )
