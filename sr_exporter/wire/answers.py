"""What an OpenSIPS answers over its Management Interface when it is asked for Status/Report.

Bytes of a request in, bytes of the answer out; no I/O and no clock. The oracle are recorded
answers of 3.6, 4.0 and 4.1-dev servers. Groups and identifiers are found ignoring ASCII case,
and shown as they were registered, the newest first.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Protocol

from sr_exporter.model import INT32_MIN, MAIN, fold
from sr_exporter.wire.calls import (
    CallError,
    Many,
    bind,
    encode_error,
    encode_result,
    int_of,
    parse_call,
    text_of,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from datetime import tzinfo

    from sr_exporter.model import Report
    from sr_exporter.wire.calls import Call

    Commands = Mapping[str, "Command"]


# --- what is asked about ------------------------------------------------------------------


class IdentifierView(Protocol):
    """One identifier. `ready` decides what is shown as Readiness; None details were never set."""

    @property
    def name(self) -> str: ...
    @property
    def status(self) -> int: ...
    @property
    def ready(self) -> bool: ...
    @property
    def details(self) -> str | None: ...
    @property
    def reports(self) -> Iterable[Report]:
        """Oldest first."""


class GroupView(Protocol):
    @property
    def name(self) -> str: ...
    @property
    def ready(self) -> bool:
        """Whether all of them are."""

    def identifiers(self) -> Iterable[IdentifierView]:
        """All, in the order in which they are listed: the newest first."""

    def identifier(self, name: str) -> IdentifierView | None:
        """The one of that name, whatever its ASCII case."""


class SrView(Protocol):
    """The read side of one server's Status/Report. Raises CallError for what it cannot tell."""

    @property
    def server(self) -> str:
        """What `version` shows: `OpenSIPS (4.0.1 (x86_64/linux))`."""

    @property
    def started_at(self) -> float: ...

    @property
    def zone(self) -> tzinfo | None:
        """The zone of dates, which do not name it; None is this machine's."""

    @property
    def names(self) -> Names: ...

    def groups(self) -> Iterable[GroupView]:
        """All, in the order in which they are listed: the newest first."""

    def group(self, name: str) -> GroupView | None:
        """The one of that name, whatever its ASCII case."""


# --- answers ------------------------------------------------------------------------------

_NONE: Commands = MappingProxyType({})


def answer(body: bytes, node: SrView, now: float, others: Commands = _NONE) -> bytes | None:
    """Answer a request as the server that `node` shows; None for a notification.

    `now` is what `uptime` shows; `others` are commands, by their full names, that are answered
    besides those of Status/Report. Raises UnprintableId where OpenSIPS has no answer to give.
    """
    try:
        call = parse_call(body)
    except CallError as error:
        return encode_error(error, error.request_id)
    return answer_call(call, node, now, others)


def answer_call(call: Call, node: SrView, now: float, others: Commands = _NONE) -> bytes | None:
    """Answer a call; see `answer`."""
    try:
        result = perform(call, node, now, others)
    except CallError as error:
        return None if call.notification else encode_error(error, call.id)
    return None if call.notification else encode_result(result, call.id)


def perform(call: Call, node: SrView, now: float, others: Commands = _NONE) -> Any:
    """Carry out a call and give its result, ready for JSON. Raises CallError."""
    name = node.names.resolve(call.method)
    command = COMMANDS.get(name) or others.get(name)
    if command is None:
        raise _method_not_found()
    given = bind(call, *command.forms)
    params = {parameter: command.read(parameter, value) for parameter, value in given.items()}
    return command.run(Asked(node, now, params, others))


# --- method names -------------------------------------------------------------------------


def _method_not_found() -> CallError:
    return CallError(-32601, "Method not found")


@dataclass(frozen=True, slots=True)
class Names:
    """The methods one server has, as its `which` lists them.

    Up to 3.6 a name is one word. From 4.0 it is `module:name`; the name alone will do where
    only one module has it, and the old words still work without being listed.
    """

    which: tuple[str, ...]
    #: Old names, and what each became, besides those that are answered here.
    other_old_names: Mapping[str, str] = field(default_factory=dict, hash=False)

    @property
    def qualified(self) -> bool:
        return any(":" in name for name in self.which)

    def resolve(self, method: str) -> str:
        """Give the full name of a method, or raise CallError -32601 or -32001."""
        if method in self.which:
            return method
        if self.qualified and (new := OLD_NAMES.get(method, self.other_old_names.get(method))):
            return new
        meant = [name for name in self.which if name.partition(":")[2] == method]
        if not method or not meant:
            raise _method_not_found()
        if len(meant) > 1:
            raise CallError(-32001, "Method ambiguous", f"supported names: {', '.join(meant)}")
        return meant[0]


#: The old name of each method answered here, and the one 4.0 gave it.
OLD_NAMES = {
    "sr_get_status": "status_report:get",
    "sr_list_status": "status_report:status",
    "sr_list_reports": "status_report:reports",
    "sr_list_identifiers": "status_report:identifiers",
    "version": "core:version",
    "uptime": "core:uptime",
    "which": "core:which",
}


#: After so many years dates fall on the same days of the week again.
_CYCLE_YEARS = 400
_CYCLE_SECONDS = 146_097 * 86_400


# --- methods ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Asked:
    """All that a method may look at."""

    node: SrView
    now: float
    params: Mapping[str, Any]
    #: What is answered besides Status/Report.
    others: Commands

    def group(self) -> GroupView:
        found = self.node.group(self.params["group"])
        if found is None:
            raise CallError(404, "Group not found")
        return found


@dataclass(frozen=True, slots=True)
class Command:
    run: Callable[[Asked], Any]
    #: Parameters of each form, in positional order.
    forms: tuple[tuple[str, ...], ...]
    #: Those that are integers; all others are texts.
    integers: frozenset[str] = frozenset()

    def read(self, parameter: str, value: Any) -> str | int:
        """Give the value of a parameter. Raises CallError -32602."""
        if parameter in self.integers:
            return int_of(parameter, value)
        return text_of(parameter, value)


def _get(asked: Asked) -> Any:
    group = asked.group()
    name = asked.params.get("identifier", MAIN)
    if fold(name) == "all":
        ready = group.ready
        return {"Readiness": ready, "Status": 1 if ready else -1, "Details": "aggregated"}
    identifier = group.identifier(name)
    # The lowest int is how the framework says "no such identifier" to itself (recorded on 3.6).
    if identifier is None or identifier.status == INT32_MIN:
        raise CallError(404, "Identity not found")
    return _status(identifier)


def _list_status(asked: Asked) -> Any:
    return _list(asked, lambda identifier: {"Name": identifier.name} | _status(identifier))


def _list_reports(asked: Asked) -> Any:
    zone = asked.node.zone
    if "identifier" not in asked.params:
        return _list(
            asked,
            lambda identifier: {"Name": identifier.name, "Reports": _reports(identifier, zone)},
        )
    identifier = asked.group().identifier(asked.params["identifier"])
    if identifier is None:
        raise CallError(404, "Identifier not found")
    return _reports(identifier, zone)


def _list_identifiers(asked: Asked) -> Any:
    def names(group: GroupView) -> Any:
        return {
            "Group": group.name,
            "Identifiers": _each(group, lambda identifier: identifier.name),
        }

    if "group" in asked.params:
        return names(asked.group())
    return Many(map(names, asked.node.groups()))


def _version(asked: Asked) -> Any:
    return {"Server": asked.node.server}


def _uptime(asked: Asked) -> Any:
    node = asked.node
    return {
        "Now": _ctime(asked.now, node.zone),
        "Up since": _ctime(node.started_at, node.zone),
        "Up time": f"{int(asked.now) - int(node.started_at)} [sec]",
    }


def _which(asked: Asked) -> Any:
    """List the methods, or the forms of one: opensips-cli completes a line by them."""
    names = asked.node.names
    if "command" not in asked.params:
        return list(names.which)
    try:
        name = names.resolve(asked.params["command"])
    except CallError:
        name = ""
    command = COMMANDS.get(name) or asked.others.get(name)
    if command is None:
        raise CallError(404, "unknown MI command")
    return [list(form) for form in command.forms]


def _list(asked: Asked, show: Callable[[IdentifierView], Any]) -> Any:
    """Show every identifier: of the group that is named, else of all by group."""
    if "group" in asked.params:
        return _each(asked.group(), show)
    return Many(
        {"Name": group.name, "Identifiers": _each(group, show)} for group in asked.node.groups()
    )


def _each(group: GroupView, show: Callable[[IdentifierView], Any]) -> Many:
    return Many(map(show, _late(group.identifiers)))


def _late(give: Callable[[], Iterable[IdentifierView]]) -> Iterator[IdentifierView]:
    """Ask for a group's identifiers when its turn has come."""
    yield from give()


def _status(identifier: IdentifierView) -> dict[str, Any]:
    shown: dict[str, Any] = {"Readiness": identifier.ready, "Status": identifier.status}
    if identifier.details is not None:
        shown["Details"] = _c_string(identifier.details)
    return shown


def _reports(identifier: IdentifierView, zone: tzinfo | None) -> list[dict[str, Any]]:
    return [
        {
            "Timestamp": int(report.timestamp),
            "Date": _ctime(report.timestamp, zone),
            "Log": _c_string(report.log),
        }
        for report in identifier.reports
    ]


def _c_string(text: str) -> str:
    return text.partition("\0")[0]


def _ctime(timestamp: float, zone: tzinfo | None) -> str:
    """Write a date as C does, beyond the year 9999 too: a report's may be anything."""
    cycles, seconds = divmod(int(timestamp), _CYCLE_SECONDS)
    moment = datetime.fromtimestamp(seconds, zone)
    return f"{moment.ctime()[:-4]}{moment.year + cycles * _CYCLE_YEARS}"


_GROUP = ("group",)
_GROUP_AND_IDENTIFIER = ("group", "identifier")

#: By their new names, and by the old ones: a server lists either.
COMMANDS: dict[str, Command] = {
    "status_report:get": Command(_get, (_GROUP, _GROUP_AND_IDENTIFIER)),
    "status_report:status": Command(_list_status, ((), _GROUP)),
    "status_report:reports": Command(_list_reports, ((), _GROUP, _GROUP_AND_IDENTIFIER)),
    "status_report:identifiers": Command(_list_identifiers, ((), _GROUP)),
    "core:version": Command(_version, ((),)),
    "core:uptime": Command(_uptime, ((),)),
    "core:which": Command(_which, ((), ("command",))),
}
COMMANDS |= {old: COMMANDS[new] for old, new in OLD_NAMES.items()}
