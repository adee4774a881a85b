"""Targets: the answers of Status/Report commands, to values (sr_exporter/wire/sr.py)."""

from __future__ import annotations

from functools import partial

from sr_exporter.mi_command import _CONTROLS, _shown
from sr_exporter.wire import jsonrpc, sr
from sr_exporter.wire.slices import at_once
from sr_exporter.wire.text import Undecodable
from tests.fuzz import corpora
from tests.fuzz.target import Target, pure
from tests.fuzz.values import must_be_names, must_be_reports, must_be_statuses, must_be_text

SR_WORDS = (
    *(b'"Name"', b'"Identifiers"', b'"Readiness"', b'"Status"', b'"Details"', b'"Reports"'),
    *(
        b'"Timestamp"',
        b'"Log"',
        b'"Group"',
        b'"jsonrpc"',
        b'"2.0"',
        b'"id"',
        b'"result"',
        b'"error"',
    ),
    *(b'"code"', b'"message"', b'"data"', b'"method"', b'"params"', b'"Server"', b'"Up time"'),
)


def _statuses(before: sr.Statuses, data: bytes) -> None:
    """Read a listing as a whole, and by what differs from another: both must say the same."""
    must_be_statuses(sr.statuses(data))
    plain = at_once(sr.statuses_in_slices(data))
    if plain is None:
        return
    differing = at_once(sr.statuses_in_slices(data, before.imprint))
    assert differing is not None
    if differing.whole:
        assert differing.statuses == plain.statuses
        return
    said = {(item.group, item.identifier): item for item in before.statuses}
    said |= {(item.group, item.identifier): item for item in differing.statuses}
    assert said == {(item.group, item.identifier): item for item in plain.statuses}


def _group_statuses(data: bytes) -> None:
    must_be_statuses(sr.group_statuses(data, "g"))


def _reports(data: bytes) -> None:
    must_be_reports(sr.reports(data))


def _group_reports(data: bytes) -> None:
    must_be_reports(sr.group_reports(data, "g"))


def _identifier_reports(data: bytes) -> None:
    must_be_reports(sr.identifier_reports(data, "g", "i"))


def _version(data: bytes) -> None:
    must_be_text(sr.version(data))


def _identifiers(data: bytes) -> None:
    for group, names in sr.identifiers(data).groups:
        must_be_names(group, *names)


def _status(data: bytes) -> None:
    must_be_statuses(
        sr.Statuses((sr.status(data, "g", "i"),), frozenset(), complete=True, faults=())
    )


def _error_or_result(data: bytes) -> None:
    try:
        jsonrpc.result(data)
    except jsonrpc.RpcError as error:
        must_be_text(str(error))
        raise


def _shown_to_a_person(data: bytes) -> None:
    shown = _shown(data)
    must_be_text(shown)
    assert not _CONTROLS.search(shown), "a terminal may obey it"
    assert all(letter >= " " or letter == "\n" for letter in shown)


def targets() -> list[Target]:
    """Give them all."""
    listings, rings = corpora.results("status"), corpora.results("reports")
    before = at_once(sr.statuses_in_slices(listings[0]))
    assert before is not None
    said = (Undecodable, jsonrpc.RpcError)
    read = partial(pure, declared=(Undecodable,), words=SR_WORDS)
    return [
        read("mi-reply", _error_or_result, corpora.answers(), declared=said, weight=3),
        read("mi-statuses", partial(_statuses, before), listings, weight=4),
        read("mi-group-statuses", _group_statuses, listings, weight=2),
        read("mi-reports", _reports, rings, weight=3),
        read("mi-group-reports", _group_reports, rings),
        read("mi-identifier-reports", _identifier_reports, rings),
        read("mi-identifiers", _identifiers, corpora.results("ids")),
        read("mi-status", _status, corpora.results("get")),
        read("mi-version", _version, corpora.results("version"), weight=0.5),
        read("mi-uptime", sr.uptime, corpora.results("uptime"), weight=0.5),
        read(
            "mi-command",
            _shown_to_a_person,
            (*listings, *rings),
            declared=(Undecodable, RecursionError),
        ),
    ]
