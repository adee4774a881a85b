"""Refused writes in the log: a program that pushes may never look at what it was answered."""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog

from sr_exporter.seldom import Seldom

if TYPE_CHECKING:
    from starlette.types import Scope

    from sr_exporter.web.errors import Refused

log = structlog.get_logger(__name__)


class Refusals:
    """Tells of them, once in a while of each sender and status code."""

    def __init__(self) -> None:
        self._seldom = Seldom(log)

    def tell(self, scope: Scope, refused: Refused, what: str) -> None:
        """Say that a request was refused, and why; `what` is one of few."""
        sender = client(scope)
        said = refused.error
        if items := refused.more.get("items"):
            said += f" (item {items[0].index}: {items[0].error})"
        of = f"{sender} {refused.status}"
        self._seldom.tell(what, of, what, code=refused.status, error=said, client=sender)


def client(scope: Scope) -> str:
    """Give the address that a request came from, for a line in the log."""
    known = scope.get("client")
    return str(known[0]) if known else "unknown"
