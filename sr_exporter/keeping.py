"""Waiting until what was handed to the store is kept."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import structlog

from sr_exporter.errors import NotKept

if TYPE_CHECKING:
    from collections.abc import Awaitable, Iterable

log = structlog.get_logger(__name__)


async def all_kept(keeping: Iterable[Awaitable[None]]) -> None:
    """Wait for several batches.

    Raises:
        NotKept: one of them is not kept; it is known of all.
    """
    kept = await asyncio.gather(*keeping, return_exceptions=True)
    for failure in filter(None, kept):
        raise failure


async def in_passing(kept: Awaitable[object]) -> None:
    """Wait for what stays true though it cannot be kept."""
    try:
        await kept
    except NotKept as error:
        log.debug("observation not kept yet", error=str(error))
