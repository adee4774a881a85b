"""Logging: one line an event, logfmt or JSON, to standard error."""

from __future__ import annotations

import enum
import logging
import sys
from typing import TYPE_CHECKING

import structlog

if TYPE_CHECKING:
    from structlog.typing import Processor

LEVELS = ("debug", "info", "warn", "error")


class LogFormat(enum.StrEnum):
    LOGFMT = "logfmt"
    JSON = "json"


def set_up(level: str, form: LogFormat) -> None:
    """Send this program's log, and that of the libraries it runs, to standard error."""
    number = logging.getLevelNamesMapping()[level.upper()]
    render: Processor
    if form is LogFormat.JSON:
        render = structlog.processors.JSONRenderer()
    else:
        render = structlog.processors.LogfmtRenderer(
            key_order=["ts", "level", "msg"], bool_as_flag=False
        )
    shared: list[Processor] = [
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="ts"),
        structlog.processors.format_exc_info,
        structlog.processors.EventRenamer("msg"),
        _one_line,
    ]
    structlog.configure(
        processors=[*shared, render],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(processor=render, foreign_pre_chain=shared)
    )
    logging.basicConfig(handlers=[handler], level=max(number, logging.WARNING), force=True)


def _one_line(_: object, __: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    """Escape line ends and control characters: a peer's text must not forge a line."""
    for name, value in event.items():
        if isinstance(value, str) and not value.isprintable():
            event[name] = value.encode("unicode_escape").decode("ascii")
    return event
