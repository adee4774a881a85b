"""Logging: one line an event, logfmt or JSON, to standard error."""

from __future__ import annotations

import enum
import json
import logging
import sys
from typing import TYPE_CHECKING

import structlog

if TYPE_CHECKING:
    from structlog.typing import EventDict, Processor, WrappedLogger

LEVELS = ("debug", "info", "warn", "error")
_FIRST = ("ts", "level", "msg")
#: What makes a value one that is quoted.
_UNUSUAL = frozenset(' "=\\')
_WRITE_JSON = structlog.processors.JSONRenderer()


class LogFormat(enum.StrEnum):
    LOGFMT = "logfmt"
    JSON = "json"


def set_up(level: str, form: LogFormat) -> None:
    """Send this program's log, and that of the libraries it runs, to standard error."""
    number = logging.getLevelNamesMapping()[level.upper()]
    render: Processor = _json if form is LogFormat.JSON else _logfmt
    shared: list[Processor] = [
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="ts"),
        structlog.processors.format_exc_info,
        structlog.processors.EventRenamer("msg"),
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


# --- writing: whatever a peer says, it must not forge a line, a value, or a terminal's command


def _json(logger: WrappedLogger, method: str, event: EventDict) -> str | bytes:
    """Write an object; texts stay on one line also for who prints them as they are read."""
    for name, value in event.items():
        if isinstance(value, str) and not value.isprintable():
            event[name] = value.encode("unicode_escape").decode("ascii")
    return _WRITE_JSON(logger, method, event)


def _logfmt(_: WrappedLogger, __: str, event: EventDict) -> str:
    """Write name=value pairs, the usual ones first.

    structlog has a writer of its own, whose older versions let a backslash end a quoted value.
    """
    first = [name for name in _FIRST if name in event]
    rest = [name for name in event if name not in _FIRST]
    return " ".join(f"{name}={_value(event[name])}" for name in (*first, *rest))


def _value(value: object) -> str:
    """Write a value; what is not plain in quotes, with the escapes of JSON."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    text = str(value)
    if text.isprintable() and not _UNUSUAL & set(text):
        return text
    return f'"{"".join(map(_escaped, text))}"'


def _escaped(letter: str) -> str:
    if letter.isprintable() and letter not in '"\\':
        return letter
    return json.dumps(letter)[1:-1]
