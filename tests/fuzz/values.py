"""What must hold of values that were made of strangers' bytes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sr_exporter.model import INT32_MAX, INT32_MIN, Report

if TYPE_CHECKING:
    from sr_exporter.model import Statement
    from sr_exporter.wire import sr


def must_be_text(*said: str | None) -> None:
    """See that it can be written: names and texts of strangers are mended at the door."""
    for one in said:
        if one is not None:
            one.encode()


def must_be_names(*said: str) -> None:
    must_be_text(*said)
    assert all(said), "a name is empty"


def _must_be_status(status: int | None) -> None:
    assert status is None or INT32_MIN <= status <= INT32_MAX, status


def must_be_statement(said: Statement) -> None:
    must_be_names(said.source, said.group, said.identifier)
    must_be_text(said.details)
    _must_be_status(said.status)
    _must_be_status(said.old_status)
    for report in said.reports:
        must_be_text(report.log if isinstance(report, Report) else report)


def must_be_statuses(listed: sr.Statuses) -> None:
    for item in listed.statuses:
        must_be_names(item.group, item.identifier)
        must_be_text(item.details)
        _must_be_status(item.status)
        assert item.status, "a status is 0"
    must_be_text(*listed.faults, *listed.partial_groups)


def must_be_reports(listed: sr.Reports) -> None:
    for ring in listed.reports:
        must_be_names(ring.group, ring.identifier)
        must_be_text(*(report.log for report in ring.reports))
    must_be_text(*listed.faults)
