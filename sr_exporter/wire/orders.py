"""The commands that write, which the Management Interface of no OpenSIPS has: calls to statements.

They are the functions of an OpenSIPS script, `sr_set_status` and `sr_add_report`.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from sr_exporter.model import MAIN, Statement
from sr_exporter.wire.answers import Command
from sr_exporter.wire.calls import CallError
from sr_exporter.wire.text import details_of, log, name

if TYPE_CHECKING:
    from sr_exporter.wire.answers import Asked, Commands

#: By their names.
ORDERS = ("sr_set_status", "sr_add_report")


def orders(source: str) -> Commands:
    """Give the commands, whose results are statements of a source."""
    return {
        "sr_set_status": Command(
            partial(_set_status, source),
            (
                ("group", "status"),
                ("group", "status", "details"),
                ("group", "status", "identifier"),
                ("group", "status", "details", "identifier"),
            ),
            integers=frozenset({"status"}),
        ),
        "sr_add_report": Command(
            partial(_add_report, source), (("group", "report"), ("group", "report", "identifier"))
        ),
    }


def _set_status(source: str, asked: Asked) -> Statement:
    """State a status; without details there are none any more."""
    details = asked.params.get("details")
    return Statement(
        source,
        _name(asked, "group"),
        _name(asked, "identifier"),
        asked.params["status"],
        None if details is None else details_of(details),
    )


def _add_report(source: str, asked: Asked) -> Statement:
    return Statement(
        source,
        _name(asked, "group"),
        _name(asked, "identifier"),
        reports=(log(asked.params["report"]),),
    )


def _name(asked: Asked, parameter: str) -> str:
    said: str = asked.params.get(parameter, MAIN)
    if not said:
        raise CallError(400, "Bad parameter value", f"Parameter '{parameter}' is empty")
    return name(said)
