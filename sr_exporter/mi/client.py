"""The Status/Report commands of one OpenSIPS, by whichever names it knows them (rule 12).

The old names work everywhere up to 4.1-dev; the new ones are tried when an old one is
unknown, and what worked is remembered. `which` is never asked: 4.0 lists only the new names
and 3.6 only the old.
"""

from __future__ import annotations

import enum
import hashlib
from functools import partial
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from sr_exporter.errors import MiError, NotFound
from sr_exporter.model import PollFailure
from sr_exporter.threads import elsewhere
from sr_exporter.turns import in_turns
from sr_exporter.wire import events, jsonrpc, sr
from sr_exporter.wire.text import Undecodable

if TYPE_CHECKING:
    from collections.abc import Callable

    from sr_exporter.mi.transport import Transport
    from sr_exporter.model import ListedStatus
    from sr_exporter.wire.differences import Imprint

T = TypeVar("T")

#: Above this an answer is read on a thread: the loop has others to serve.
LARGE_BYTES = 256 * 1024


class Command(enum.Enum):
    """A command by its name up to 3.6 (and after, as an alias), and its name since 4.0."""

    GET_STATUS = ("sr_get_status", "status_report:get")
    LIST_STATUS = ("sr_list_status", "status_report:status")
    LIST_REPORTS = ("sr_list_reports", "status_report:reports")
    LIST_IDENTIFIERS = ("sr_list_identifiers", "status_report:identifiers")
    VERSION = ("version", "core:version")
    UPTIME = ("uptime", "core:uptime")
    SUBSCRIBE = ("event_subscribe", "evi:subscribe")


#: What lists all of a server: large, and mostly as it was.
_LISTINGS = frozenset({Command.LIST_STATUS, Command.LIST_REPORTS})


class _Answer(NamedTuple):
    reply: jsonrpc.Reply
    #: A digest of what it says; None where it is not looked at, or cannot be told.
    mark: bytes | None
    #: None: it says what the last did, which was read.
    result: bytes | None


class MiClient:
    """Asks one OpenSIPS, one request at a time.

    Every method raises `MiError`, whose reason is the label of the failure's counter; those that
    name a group or an identifier raise `NotFound` where there is none of that name.
    """

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self._generation = 0
        self._request_id = 0
        #: Of each listing that was read without a fault, that of the last reply.
        self._marks: dict[Command, bytes | None] = {}
        self._imprint: Imprint | None = None

    @property
    def transport_name(self) -> str:
        return self._transport.name

    async def statuses(self) -> sr.Statuses:
        """List all statuses; what a reply says as the last one did is left unread."""
        answer = await self._call(Command.LIST_STATUS, None)
        before = self._marks.get(Command.LIST_STATUS)
        if answer.result is None:
            same = sr.Statuses((), frozenset(), complete=True, faults=(), mark=before)
            return same._replace(since=before, unread=answer.reply)
        listed = await self._parse_statuses(answer.result, self._imprint)
        clean = listed.complete and not listed.faults
        mark = self._marks[Command.LIST_STATUS] = answer.mark if clean else None
        self._imprint = listed.imprint if mark is not None else None
        if listed.whole:
            return listed._replace(mark=mark, imprint=None)
        return listed._replace(mark=mark, since=before, unread=answer.reply, imprint=None)

    async def reports(self) -> sr.Reports:
        """List all reports; a reply that says what the last did is left unread."""
        answer = await self._call(Command.LIST_REPORTS, None)
        if answer.result is None:
            return sr.Reports((), (), answer.mark, answer.reply)
        listed = await self._parse(Command.LIST_REPORTS, sr.reports, answer.result)
        mark = self._marks[Command.LIST_REPORTS] = None if listed.faults else answer.mark
        return listed._replace(mark=mark)

    async def read_statuses(self, reply: jsonrpc.Reply) -> sr.Statuses:
        """Read all of what was left unread, or read in part."""
        return await self._parse_statuses(jsonrpc.result(*reply))

    async def read_reports(self, reply: jsonrpc.Reply) -> sr.Reports:
        """Read what was left unread."""
        return await self._parse(Command.LIST_REPORTS, sr.reports, jsonrpc.result(*reply))

    async def group_statuses(self, group: str) -> sr.Statuses:
        read = partial(sr.group_statuses, group=group)
        return await self._read(Command.LIST_STATUS, read, [group])

    async def group_reports(self, group: str) -> sr.Reports:
        read = partial(sr.group_reports, group=group)
        return await self._read(Command.LIST_REPORTS, read, [group])

    async def identifier_reports(self, group: str, identifier: str) -> sr.Reports:
        read = partial(sr.identifier_reports, group=group, identifier=identifier)
        return await self._read(Command.LIST_REPORTS, read, [group, identifier])

    async def identifiers(self, group: str | None = None) -> sr.Identifiers:
        params = [] if group is None else [group]
        return await self._read(Command.LIST_IDENTIFIERS, sr.identifiers, params)

    async def status(self, group: str, identifier: str) -> ListedStatus:
        read = partial(sr.status, group=group, identifier=identifier)
        return await self._read(Command.GET_STATUS, read, [group, identifier])

    async def version(self) -> str:
        return await self._read(Command.VERSION, sr.version)

    async def uptime_seconds(self) -> float:
        return await self._read(Command.UPTIME, sr.uptime)

    async def subscribe(self, socket: str, expire_seconds: int) -> None:
        """Have SR events sent to a socket, or no more with 0 (facts on OpenSIPS, section 2)."""
        await self._call(Command.SUBSCRIBE, [events.EVENT, socket, str(expire_seconds)])

    def rest(self) -> None:
        """Let go of connections until the next request."""
        self._transport.rest()

    async def _read(
        self, command: Command, read: Callable[[bytes], T], params: list[str] | None = None
    ) -> T:
        answer = await self._call(command, params)
        result = jsonrpc.result(*answer.reply) if answer.result is None else answer.result
        return await self._parse(command, read, result)

    async def _parse_statuses(self, result: bytes, before: Imprint | None = None) -> sr.Statuses:
        plain = await in_turns(sr.statuses_in_slices(result, before))
        if plain is not None:
            return plain
        return await self._parse(Command.LIST_STATUS, sr.statuses, result)

    async def _parse(self, command: Command, read: Callable[[bytes], T], result: bytes) -> T:
        try:
            if len(result) > LARGE_BYTES:
                return await elsewhere(read, result)
            return read(result)
        except Undecodable as error:
            raise MiError(PollFailure.MALFORMED, f"{self._name(command)}: {error}") from None

    async def _call(self, command: Command, params: list[str] | None) -> _Answer:
        try:
            return await self._ask(command, params)
        except jsonrpc.RpcError as error:
            if error.code != jsonrpc.METHOD_NOT_FOUND:
                raise self._rpc_failure(command, error) from None
        self._generation = 1 - self._generation
        try:
            return await self._ask(command, params)
        except jsonrpc.RpcError as error:
            if error.code == jsonrpc.METHOD_NOT_FOUND:
                self._generation = 0
                raise MiError(
                    PollFailure.UNSUPPORTED,
                    f"it knows neither {' nor '.join(command.value)}:"
                    " Status/Report begins with OpenSIPS 3.3",
                ) from None
            raise self._rpc_failure(command, error) from None

    async def _ask(self, command: Command, params: list[str] | None) -> _Answer:
        self._request_id = self._request_id % 1_000_000 + 1
        method = self._name(command)
        try:
            request = jsonrpc.request(method, params, request_id=self._request_id)
        except jsonrpc.RequestTooBig as error:
            raise MiError(PollFailure.TOO_BIG, str(error)) from None
        reply = jsonrpc.Reply(await self._transport.ask(request), self._request_id)
        mark = None if params or command not in _LISTINGS else await _mark(reply)
        if mark is not None and mark == self._marks.get(command):
            return _Answer(reply, mark, None)
        try:
            return _Answer(reply, mark, jsonrpc.result(*reply))
        except Undecodable as error:
            raise MiError(PollFailure.MALFORMED, f"{method}: {error}") from None

    def _name(self, command: Command) -> str:
        return command.value[self._generation]

    def _rpc_failure(self, command: Command, error: jsonrpc.RpcError) -> MiError:
        kind = NotFound if error.code == jsonrpc.NOT_FOUND else MiError
        return kind(PollFailure.RPC_ERROR, f"{self._name(command)}: {error}")


async def _mark(reply: jsonrpc.Reply) -> bytes | None:
    said = jsonrpc.said(reply)
    if said is None:
        return None
    if len(said) > LARGE_BYTES:
        return (await elsewhere(hashlib.sha256, said)).digest()
    return hashlib.sha256(said).digest()
