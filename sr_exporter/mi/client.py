"""The Status/Report commands of one OpenSIPS, by whichever names it knows them (rule 12).

The old names work everywhere up to 4.1-dev; the new ones are tried when an old one is
unknown, and what worked is remembered. `which` is never asked: 4.0 lists only the new names
and 3.6 only the old.
"""

from __future__ import annotations

import asyncio
import enum
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from sr_exporter.errors import MiError, NotFound
from sr_exporter.model import PollFailure
from sr_exporter.wire import events, jsonrpc, sr
from sr_exporter.wire.text import Undecodable

if TYPE_CHECKING:
    from collections.abc import Callable

    from sr_exporter.mi.transport import Transport
    from sr_exporter.model import ListedStatus

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


class MiClient:
    """Asks one OpenSIPS, one request at a time.

    Every method raises `MiError`, whose reason is the label of the failure's counter; those that
    name a group or an identifier raise `NotFound` where there is none of that name.
    """

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self._generation = 0
        self._request_id = 0

    @property
    def transport_name(self) -> str:
        return self._transport.name

    async def statuses(self) -> sr.Statuses:
        return await self._read(Command.LIST_STATUS, sr.statuses)

    async def reports(self) -> sr.Reports:
        return await self._read(Command.LIST_REPORTS, sr.reports)

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
        result = await self._call(command, params)
        try:
            if len(result) > LARGE_BYTES:
                return await asyncio.to_thread(read, result)
            return read(result)
        except Undecodable as error:
            raise MiError(PollFailure.MALFORMED, f"{self._name(command)}: {error}") from None

    async def _call(self, command: Command, params: list[str] | None) -> bytes:
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

    async def _ask(self, command: Command, params: list[str] | None) -> bytes:
        self._request_id = self._request_id % 1_000_000 + 1
        method = self._name(command)
        try:
            request = jsonrpc.request(method, params, request_id=self._request_id)
        except jsonrpc.RequestTooBig as error:
            raise MiError(PollFailure.TOO_BIG, str(error)) from None
        answer = await self._transport.ask(request)
        try:
            return jsonrpc.result(answer, request_id=self._request_id)
        except Undecodable as error:
            raise MiError(PollFailure.MALFORMED, f"{method}: {error}") from None

    def _name(self, command: Command) -> str:
        return command.value[self._generation]

    def _rpc_failure(self, command: Command, error: jsonrpc.RpcError) -> MiError:
        kind = NotFound if error.code == jsonrpc.NOT_FOUND else MiError
        return kind(PollFailure.RPC_ERROR, f"{self._name(command)}: {error}")
