"""The answers of the Status/Report commands, to values.

One bad string or item never loses the list (rule 10): what cannot be used is left out, and
named in `faults`.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple, TypeVar

import msgspec

from sr_exporter.cutting import MOST_NAME
from sr_exporter.model import (
    DEEPEST_RING,
    INT32_MAX,
    INT32_MIN,
    ListedReports,
    ListedStatus,
    Report,
    fold,
    held_status,
)
from sr_exporter.wire.differences import PLACE, Comparison, SlicedGroup
from sr_exporter.wire.slices import at_once
from sr_exporter.wire.text import Undecodable, convert, details_of, loads, log, name, text

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator

    from sr_exporter.wire.differences import Imprint
    from sr_exporter.wire.jsonrpc import Reply

T = TypeVar("T")

#: A listing in which so many items are wrong is no listing; to name them all could cost more
#: than it is worth to read it.
MOST_FAULTS = 1000
#: How many statuses are read at once: in a few milliseconds.
SLICE = 250 * PLACE

_Name = Annotated[str, msgspec.Meta(min_length=1)]
_Int32 = Annotated[int, msgspec.Meta(ge=INT32_MIN, le=INT32_MAX)]


class _Status(msgspec.Struct, rename="pascal", gc=False):
    readiness: bool
    status: _Int32
    details: str | None = None


class _Identifier(_Status, rename="pascal", kw_only=True, gc=False):
    name: _Name


class _Report(msgspec.Struct, rename="pascal"):
    timestamp: Annotated[int, msgspec.Meta(ge=0, le=2**53)]
    log: str


class _ReportIdentifier(msgspec.Struct, rename="pascal"):
    name: _Name
    reports: list[_Report]


class _ReportGroup(msgspec.Struct, rename="pascal"):
    name: _Name
    identifiers: list[_ReportIdentifier]


class _IdentifierGroup(msgspec.Struct, rename="pascal"):
    group: _Name
    identifiers: list[_Name]


class _Named(msgspec.Struct, rename="pascal"):
    """The outer part of a group, when something inside it is wrong."""

    name: _Name
    identifiers: list[Any]


class _NamedReports(msgspec.Struct, rename="pascal"):
    name: _Name
    reports: list[Any]


class _Version(msgspec.Struct, rename="pascal"):
    server: str


class _Uptime(msgspec.Struct):
    up_time: str = msgspec.field(name="Up time")


class Statuses(NamedTuple):
    """What `sr_list_status` listed."""

    statuses: tuple[ListedStatus, ...]
    #: Folded names of groups of which something was left out.
    partial_groups: frozenset[str]
    #: False when a whole group was left out, unnamed.
    complete: bool
    #: What was left out, and why.
    faults: tuple[str, ...]
    #: What tells this listing from another; None where that was not looked for.
    mark: bytes | None = None
    #: The mark of the listing before: all it said that is not among these statuses is said again.
    #: None: they are all of them.
    since: bytes | None = None
    #: The reply, where not all of it was read.
    unread: Reply | None = None
    #: What another listing is compared with; None where something is left out.
    imprint: Imprint | None = None
    #: Whether these are all, or only what differs from what it was compared with.
    whole: bool = True


class Reports(NamedTuple):
    """What `sr_list_reports` listed."""

    reports: tuple[ListedReports, ...]
    faults: tuple[str, ...]
    #: What tells this listing from another; None where that was not looked for.
    mark: bytes | None = None
    #: The reply, unread: it is that of this mark, which was read before.
    unread: Reply | None = None


class Identifiers(NamedTuple):
    """What `sr_list_identifiers` listed: one group and its identifiers each."""

    groups: tuple[tuple[str, tuple[str, ...]], ...]


def statuses(result: bytes) -> Statuses:
    """Read the result of `sr_list_status` for a whole server.

    Raises:
        Undecodable: it is no list of groups at all.
    """
    plain = at_once(statuses_in_slices(result))
    if plain is None:
        return _statuses_item_by_item(_list(result))
    return plain._replace(imprint=None)  # of no use to who reads at once


def statuses_in_slices(
    result: bytes, before: Imprint | None = None
) -> Generator[None, None, Statuses | None]:
    """Read as `statuses` does, with pauses; gives None where something is not as it should be.

    With an imprint of the listing `before`, those only that differ, if the names are the same.
    """
    groups = _strict(result, list[SlicedGroup])
    if groups is None:
        return None
    comparison = Comparison(groups, before)
    listed: list[ListedStatus] = []
    for group in groups:
        for start in range(0, len(group.identifiers), SLICE):
            to_read = comparison.to_read(group.identifiers[start : start + SLICE])
            items = _strict(b"[%s]" % b",".join(to_read), list[_Identifier])
            if items is None:
                return None
            if not comparison.are_named_so([item.name for item in items]):
                return (yield from statuses_in_slices(result))
            listed += _listed_all(group.name, items)
            yield
    whole, imprint = comparison.is_of_all, comparison.imprint
    return Statuses(tuple(listed), frozenset(), True, (), whole=whole, imprint=imprint)


def group_statuses(result: bytes, group: str) -> Statuses:
    """Read the result of `sr_list_status` for this group: its identifiers.

    Raises:
        Undecodable: it is no list at all.
    """
    items = _strict(result, list[_Identifier])
    if items is not None:
        return Statuses(tuple(_listed_all(name(group), items)), frozenset(), True, ())
    faults = _Faults()
    read = [_convert(item, _Identifier, faults.add) for item in _list(result)]
    listed = tuple(_listed(group, item) for item in read if item is not None)
    partial = frozenset({fold(group)} if faults.found else ())
    return Statuses(listed, partial, complete=True, faults=tuple(faults.found))


def _statuses_item_by_item(document: list[Any]) -> Statuses:
    listed: list[ListedStatus] = []
    partial: set[str] = set()
    faults = _Faults()
    unnamed = False
    for entry in document:
        group = _convert(entry, _Named, faults.add)
        if group is None:
            unnamed = True
            continue
        for item in group.identifiers:
            identifier = _convert(item, _Identifier, faults.add)
            if identifier is None:
                partial.add(fold(name(group.name)))
            else:
                listed.append(_listed(group.name, identifier))
    return Statuses(tuple(listed), frozenset(partial), not unnamed, tuple(faults.found))


def reports(result: bytes) -> Reports:
    """Read the result of `sr_list_reports` for a whole server.

    Raises:
        Undecodable: it is no list of groups at all.
    """
    groups = _strict(result, list[_ReportGroup])
    if groups is not None:
        listed = (item for group in groups for item in _rings(group.name, group.identifiers))
        return Reports(tuple(listed), faults=())
    found: list[ListedReports] = []
    faults = _Faults()
    for entry in _list(result):
        group = _convert(entry, _Named, faults.add)
        if group is not None:
            found += _rings_item_by_item(group.name, group.identifiers, faults)
    return Reports(tuple(found), tuple(faults.found))


def group_reports(result: bytes, group: str) -> Reports:
    """Read the result of `sr_list_reports` for this group: its identifiers, each with its ring.

    Raises:
        Undecodable: it is no list at all.
    """
    items = _strict(result, list[_ReportIdentifier])
    if items is not None:
        return Reports(tuple(_rings(group, items)), faults=())
    faults = _Faults()
    listed = tuple(_rings_item_by_item(group, _list(result), faults))
    return Reports(listed, tuple(faults.found))


def identifier_reports(result: bytes, group: str, identifier: str) -> Reports:
    """Read the result of `sr_list_reports` for this identifier of this group: its ring.

    Raises:
        Undecodable: it is no list at all.
    """
    ring = _strict(result, list[_Report])
    faults = _Faults()
    if ring is None:
        ring = _reports_item_by_item(_list(result), faults)
    listed = ListedReports(name(group), name(identifier), _ring(ring))
    return Reports((listed,), tuple(faults.found))


def _rings(group: str, items: list[_ReportIdentifier]) -> Iterator[ListedReports]:
    for item in items:
        yield ListedReports(name(group), name(item.name), _ring(item.reports))


def _rings_item_by_item(group: str, items: list[Any], faults: _Faults) -> Iterator[ListedReports]:
    for item in items:
        identifier = _convert(item, _NamedReports, faults.add)
        if identifier is not None:
            ring = _ring(_reports_item_by_item(identifier.reports, faults))
            yield ListedReports(name(group), name(identifier.name), ring)


def _reports_item_by_item(items: list[Any], faults: _Faults) -> list[_Report]:
    read = [_convert(item, _Report, faults.add) for item in items]
    return [report for report in read if report is not None]


def identifiers(result: bytes) -> Identifiers:
    """Read the result of `sr_list_identifiers`, of a whole server or of one group.

    Raises:
        Undecodable: it is neither a list of groups nor a group.
    """
    listed = _strict(result, list[_IdentifierGroup] | _IdentifierGroup)
    if listed is None:
        listed = _tolerant(result, list[_IdentifierGroup] | _IdentifierGroup)
    groups = listed if isinstance(listed, list) else [listed]
    return Identifiers(
        tuple((name(group.group), tuple(map(name, group.identifiers))) for group in groups)
    )


def status(result: bytes, group: str, identifier: str) -> ListedStatus:
    """Read the result of `sr_get_status`, asked for this group and identifier.

    Raises:
        Undecodable: it is no status.
    """
    said = _strict(result, _Status) or _tolerant(result, _Status)
    return _listed_as(group, identifier, said)


def version(result: bytes) -> str:
    """Read the bare version of the result of `version`: "4.0.1".

    Raises:
        Undecodable: it names no server.
    """
    server = text((_strict(result, _Version) or _tolerant(result, _Version)).server)
    found = re.search(r"\((\S+)", server)
    return name(found[1] if found else server)


def uptime(result: bytes) -> float:
    """Read the up time, in seconds, of the result of `uptime`.

    Raises:
        Undecodable: it tells no up time.
    """
    said = (_strict(result, _Uptime) or _tolerant(result, _Uptime)).up_time
    found = re.match(r"\s*([0-9]{1,12})\b", said)
    if not found:
        raise Undecodable(f"Up time: {said[:40]!r} begins with no number")
    return float(found[1])


class _Faults:
    """What is left out of a listing, and why: up to a limit."""

    def __init__(self) -> None:
        self.found: list[str] = []

    def add(self, fault: str) -> None:
        self.found.append(fault)
        if len(self.found) > MOST_FAULTS:
            raise Undecodable(
                f"more than {MOST_FAULTS} items are wrong; the first: {self.found[0]}"
            )


def _listed_all(group: str, items: list[_Identifier]) -> list[ListedStatus]:
    """Do as `_listed` does with what was decoded strictly: its strings are UTF-8."""
    return [
        ListedStatus(
            group,
            item.name if len(item.name) <= MOST_NAME else name(item.name),
            item.status or held_status(0, ready=item.readiness),
            item.readiness,
            details_of(item.details) if item.details else item.details,
        )
        for item in items
    ]


def _listed(group: str, item: _Identifier) -> ListedStatus:
    return _listed_as(group, item.name, item)


def _listed_as(group: str, identifier: str, said: _Status) -> ListedStatus:
    details = said.details
    return ListedStatus(
        name(group),
        name(identifier),
        held_status(said.status, ready=said.readiness),
        said.readiness,
        None if details is None else details_of(details),
    )


def _ring(listed: list[_Report]) -> tuple[Report, ...]:
    return tuple(Report(item.timestamp, log(item.log)) for item in listed[-DEEPEST_RING:])


_decoders: dict[Any, msgspec.json.Decoder[Any]] = {}


def _strict(result: bytes, wanted: Any) -> Any:
    """Decode at once what is as it should be; None when it is not."""
    decoder = _decoders.get(wanted) or _decoders.setdefault(wanted, msgspec.json.Decoder(wanted))
    try:
        return decoder.decode(result)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None


def _tolerant(result: bytes, wanted: Any) -> Any:
    return convert(loads(result), wanted)


def _list(result: bytes) -> list[Any]:
    document = loads(result)
    if not isinstance(document, list):
        raise Undecodable(f"a list was expected, not {type(document).__name__}")
    return document


def _convert(item: Any, wanted: type[T], fault: Callable[[str], None]) -> T | None:
    try:
        return convert(item, wanted)
    except Undecodable as error:
        fault(str(error))
        return None
