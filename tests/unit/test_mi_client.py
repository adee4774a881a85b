"""The client of one Management Interface, against answers as they were recorded."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import pytest

from sr_exporter.errors import MiError, NotFound
from sr_exporter.mi.client import Command, MiClient
from sr_exporter.model import ListedStatus, PollFailure
from tests.recorded_mi import Exchange

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from sr_exporter.mi.transport import Transport

#: Which recording answers which command.
RECORDED = {
    "LIST_STATUS": "status-noparams",
    "LIST_REPORTS": "reports-noparams",
    "LIST_IDENTIFIERS": "ids-noparams",
    "GET_STATUS": "get-pos-group-id",
    "VERSION": "version",
    "UPTIME": "uptime",
}
LISTING = [Command[name] for name in RECORDED]
OLD = [command.value[0] for command in LISTING]
NEW = [command.value[1] for command in LISTING]


class RecordedServer:
    """Implements `Transport`: answers with recorded bytes, by the names it is given."""

    name = "http"

    def __init__(self, version: str = "3.6", *, old: bool = True, new: bool = False) -> None:
        self._version = version
        self.known = {
            name: RECORDED[command.name]
            for command in LISTING
            for name, has in zip(command.value, (old, new), strict=True)
            if has
        }
        self.asked: list[dict[str, Any]] = []
        self.rests = 0
        #: What to answer instead, by method.
        self.instead: dict[str, bytes | MiError] = {}

    @property
    def methods(self) -> list[str]:
        return [call["method"] for call in self.asked]

    async def ask(self, request: bytes) -> bytes:
        call = json.loads(request)
        self.asked.append(call)
        said = self.instead.get(call["method"])
        if isinstance(said, MiError):
            raise said
        if said is not None:
            return said.replace(b'"id":1}', b'"id":%d}' % call["id"])
        name = self.known.get(call["method"], "unknown-method")
        return Exchange(self._version, name).answer_body.replace(
            b'"id":1}', b'"id":%d}' % call["id"]
        )

    def rest(self) -> None:
        self.rests += 1


def a_transport(server: RecordedServer) -> Transport:
    return server


def error_of(asked: Coroutine[Any, Any, Any]) -> MiError:
    with pytest.raises(MiError) as caught:
        asyncio.run(asked)
    return caught.value


CALLS: list[tuple[Command, Callable[[MiClient], Coroutine[Any, Any, Any]]]] = [
    (Command.LIST_STATUS, MiClient.statuses),
    (Command.LIST_REPORTS, MiClient.reports),
    (Command.LIST_IDENTIFIERS, MiClient.identifiers),
    (Command.GET_STATUS, lambda client: client.status("alarms", "main")),
    (Command.VERSION, MiClient.version),
    (Command.UPTIME, MiClient.uptime_seconds),
]


@pytest.mark.parametrize(("command", "call"), CALLS, ids=[c.name for c, _ in CALLS])
@pytest.mark.parametrize("version", ["3.6", "4.0", "master"])
def test_every_release_is_asked_by_the_old_names(version, command, call):
    """One request by the old name is enough wherever it is known."""
    server = RecordedServer(version, old=True, new=version != "3.6")
    assert asyncio.run(call(MiClient(a_transport(server)))) is not None
    assert server.methods == [command.value[0]]


@pytest.mark.parametrize(("command", "call"), CALLS, ids=[c.name for c, _ in CALLS])
def test_new_names_are_tried_when_an_old_one_is_unknown_and_remembered(command, call):
    """A server with only the new names costs one request more, once."""
    server = RecordedServer("4.0", old=False, new=True)
    client = MiClient(a_transport(server))

    async def run() -> None:
        assert await call(client) is not None
        assert await call(client) is not None
        await client.version()

    asyncio.run(run())
    assert server.methods == [*command.value, command.value[1], "core:version"]


def test_old_names_are_tried_again_when_the_new_are_gone():
    """A server that is downgraded is found again by its old names."""
    server = RecordedServer("4.0", old=False, new=True)
    client = MiClient(a_transport(server))

    async def run() -> str:
        await client.version()
        server.known = RecordedServer("3.6").known
        await client.version()
        return await client.version()

    assert asyncio.run(run()) == "4.0.1"
    assert server.methods == ["version", "core:version", "core:version", "version", "version"]


def test_an_error_by_the_new_name_is_an_answer_to_it():
    """Whoever says "Group not found" to a new name knows it; that is remembered too."""
    server = RecordedServer("4.0", old=False, new=True)
    client = MiClient(a_transport(server))
    server.instead["status_report:get"] = Exchange("4.0", "get-unknown-group").answer_body
    error = error_of(client.status("nope", "main"))
    assert (error.reason, str(error)) == (
        PollFailure.RPC_ERROR,
        "status_report:get: Group not found (404)",
    )
    error_of(client.status("nope", "main"))
    assert server.methods == ["sr_get_status", "status_report:get", "status_report:get"]


def test_neither_name_is_unsupported():
    """A server that knows no name at all is older than Status/Report, and asked anew."""
    server = RecordedServer(old=False, new=False)
    client = MiClient(a_transport(server))
    for _ in range(2):
        error = error_of(client.statuses())
        assert error.reason is PollFailure.UNSUPPORTED
        assert str(error) == (
            "it knows neither sr_list_status nor status_report:status:"
            " Status/Report begins with OpenSIPS 3.3"
        )
    assert server.methods == ["sr_list_status", "status_report:status"] * 2


def test_which_is_never_asked():
    """What a server can do is never found out by listing its commands."""
    server = RecordedServer(old=False, new=False)
    client = MiClient(a_transport(server))
    for _, call in CALLS:
        error_of(call(client))
    assert set(server.methods) == {*OLD, *NEW}


def test_requests_are_numbered_and_have_no_empty_params():
    """Ids are small integers, one after the other; params are there when there are some."""
    server = RecordedServer()
    client = MiClient(a_transport(server))

    async def run() -> None:
        await client.statuses()
        await client.identifiers("core")
        await client.status("alarms", "main")

    asyncio.run(run())
    assert [call["id"] for call in server.asked] == [1, 2, 3]
    assert [call.get("params", "none") for call in server.asked] == [
        "none",
        ["core"],
        ["alarms", "main"],
    ]


def test_a_reply_that_says_what_the_last_did_is_left_unread():
    """It is known by its bytes, whatever its id; and can be read all the same."""
    server = RecordedServer()
    client = MiClient(a_transport(server))

    async def run() -> None:
        for ask, read in (
            (client.statuses, client.read_statuses),
            (client.reports, client.read_reports),
        ):
            first, again = await ask(), await ask()
            assert first.mark is not None
            assert (first.unread, again.mark, again[0]) == (None, first.mark, ())
            assert again.unread is not None
            assert (await read(again.unread))[0] == first[0]

    asyncio.run(run())


def test_of_a_reply_that_says_little_else_only_that_is_read():
    """And it is told from which listing it differs; all of it can be read, too."""
    item = b'{"Name":"%d","Readiness":true,"Status":%d}'

    def answer(*twos: int) -> bytes:
        items = b",".join(item % (name, 2 if name in twos else 1) for name in range(100))
        return b'{"jsonrpc":"2.0","result":[{"Name":"g","Identifiers":[%s]}],"id":1}' % items

    server = RecordedServer()
    client = MiClient(a_transport(server))

    async def run() -> None:
        server.instead["sr_list_status"] = answer()
        first = await client.statuses()
        assert (first.since, len(first.statuses)) == (None, 100)
        server.instead["sr_list_status"] = answer(17, 18, 99)
        second = await client.statuses()
        assert (first.mark, second.mark is None) == (second.since, False)
        # What shares a place with it is read with it.
        assert [one.identifier for one in second.statuses] == [
            *map(str, range(16, 24)),
            *map(str, range(96, 100)),
        ]
        assert [one.identifier for one in second.statuses if one.status == 2] == ["17", "18", "99"]
        assert second.unread is not None
        assert (await client.read_statuses(second.unread)).statuses[17].status == 2
        server.instead["sr_list_status"] = answer()
        third = await client.statuses()
        assert (third.since, third.mark) == (second.mark, first.mark)
        assert len(third.statuses) == 12

    asyncio.run(run())


def test_another_reply_and_one_with_a_fault_are_read():
    """A fault is counted each time that it is listed."""
    whole = b'{"jsonrpc":"2.0","result":[{"Name":"g","Identifiers":[%s]}],"id":1}'
    good = whole % b'{"Name":"a","Readiness":true,"Status":1}'
    other = whole % b'{"Name":"b","Readiness":true,"Status":1}'
    bad = whole % b'{"Name":"a","Readiness":true,"Status":"x"}'
    server = RecordedServer()
    client = MiClient(a_transport(server))

    async def listed(answer: bytes) -> tuple[bool, int]:
        server.instead["sr_list_status"] = answer
        said = await client.statuses()
        return said.unread is not None, len(said.faults)

    async def run() -> None:
        answers = (good, other, good, good, bad, bad, good, good)
        assert [await listed(answer) for answer in answers] == [
            *[(False, 0)] * 3,
            (True, 0),
            *[(False, 1)] * 2,
            (False, 0),
            (True, 0),
        ]

    asyncio.run(run())


def test_ids_stay_small():
    """After a million requests the ids begin anew."""
    server = RecordedServer()
    client = MiClient(a_transport(server))
    client._request_id = 999_999

    async def run() -> None:
        for _ in range(3):
            await client.version()

    asyncio.run(run())
    assert [call["id"] for call in server.asked] == [1_000_000, 1, 2]


def test_a_status_is_named_as_it_was_asked_for():
    """A single status comes without names; it has those of the question."""
    server = RecordedServer()
    listed = asyncio.run(MiClient(a_transport(server)).status("Alarms", "MAIN"))
    said = json.loads(Exchange("3.6", "get-pos-group-id").answer_body)["result"]
    assert listed == ListedStatus(
        "Alarms", "MAIN", said["Status"], said["Readiness"], said.get("Details")
    )


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"400 Parse_error",
        b'{"jsonrpc":"2.0","result":"OK","id":1}',
        b'{"jsonrpc":"2.0","result":{},"id":1}',
        b'{"jsonrpc":"2.0","result":[],"id":99}',
        b'{"jsonrpc":"2.0","result":[',
        b"\xff",
    ],
)
def test_answers_that_cannot_be_read_are_malformed(answer):
    """What is no answer, or one to something else, is counted as malformed and named."""
    server = RecordedServer()
    server.instead["sr_list_status"] = answer
    error = error_of(MiClient(a_transport(server)).statuses())
    assert error.reason is PollFailure.MALFORMED
    assert str(error).startswith("sr_list_status: ")
    assert server.methods == ["sr_list_status"]


@pytest.mark.parametrize(
    ("recording", "message"),
    [
        ("status-params-null", "Invalid Request (-32600)"),
        ("get-unknown-group", "Group not found (404)"),
        ("get-unknown-id", "Identity not found (404)"),
        ("get-noparams", "Invalid params: Too few or too many parameters (-32602)"),
        ("malformed", "Parse error (-32700)"),
    ],
)
def test_errors_of_commands_are_rpc_errors(recording, message):
    """A command that answers with an error is no reason to try its other name."""
    server = RecordedServer("4.0", new=True)
    server.instead["sr_list_status"] = Exchange("4.0", recording).answer_body
    error = error_of(MiClient(a_transport(server)).statuses())
    assert error.reason is PollFailure.RPC_ERROR
    assert str(error) == f"sr_list_status: {message}"
    assert server.methods == ["sr_list_status"]


@pytest.mark.parametrize("version", ["3.6", "4.0", "master"])
def test_parts_are_asked_for_by_their_names(version):
    """One group, and one identifier of it: as they were recorded, under the names asked for."""
    server = RecordedServer(version)
    recorded = {"status": "status-pos-group", "reports": "reports-pos-group"}
    for command, name in recorded.items():
        server.instead[f"sr_list_{command}"] = Exchange(version, name).answer_body
    client = MiClient(a_transport(server))

    async def run() -> None:
        statuses = await client.group_statuses("G")
        assert statuses.statuses
        assert {status.group for status in statuses.statuses} == {"G"}
        assert (statuses.complete, statuses.partial_groups) == (True, frozenset())
        reports = await client.group_reports("G")
        assert {ring.group for ring in reports.reports} == {"G"}
        one = Exchange(version, "reports-pos-group-id").answer_body
        server.instead["sr_list_reports"] = one
        ((group, identifier, ring),) = (await client.identifier_reports("G", "I")).reports
        assert (group, identifier, len(ring)) == ("G", "I", len(json.loads(one)["result"]))

    asyncio.run(run())
    assert [call["params"] for call in server.asked] == [["G"], ["G"], ["G", "I"]]


@pytest.mark.parametrize(
    ("recording", "call"),
    [
        ("get-unknown-group", lambda client: client.status("g", "i")),
        ("get-unknown-id", lambda client: client.status("g", "i")),
        ("status-unknown", lambda client: client.group_statuses("g")),
        ("ids-unknown", lambda client: client.identifiers("g")),
        ("reports-unknown-group", lambda client: client.group_reports("g")),
        ("reports-unknown-id", lambda client: client.identifier_reports("g", "i")),
    ],
)
def test_what_is_not_there_is_told_apart(recording, call):
    """Of a name that nothing has, and only of that, the error says so."""
    server = RecordedServer()
    for method in OLD:
        server.instead[method] = Exchange("4.0", recording).answer_body
    error = error_of(call(MiClient(a_transport(server))))
    assert isinstance(error, NotFound)
    assert error.reason is PollFailure.RPC_ERROR
    assert str(error).endswith("not found (404)")


def test_other_errors_of_a_command_are_not_taken_for_that():
    """A code of the protocol tells of the request, not of what is there."""
    server = RecordedServer()
    server.instead["sr_get_status"] = Exchange("4.0", "get-noparams").answer_body
    assert not isinstance(error_of(MiClient(a_transport(server)).status("g", "i")), NotFound)


@pytest.mark.parametrize("reason", PollFailure)
def test_failures_of_the_transport_pass_through(reason):
    """How the transport failed is how the request failed; nothing is asked in its place."""
    server = RecordedServer()
    server.instead["uptime"] = MiError(reason, "as said")
    error = error_of(MiClient(a_transport(server)).uptime_seconds())
    assert (error.reason, str(error)) == (reason, "as said")
    assert server.methods == ["uptime"]


def test_a_request_that_would_not_be_taken_is_not_sent():
    """Names too long for a request fail before anything is sent."""
    server = RecordedServer()
    error = error_of(MiClient(a_transport(server)).status("g" * 600, "i" * 600))
    assert error.reason is PollFailure.TOO_BIG
    assert server.asked == []


def test_resting_is_passed_on():
    """Letting go of connections is the transport's business."""
    server = RecordedServer()
    client = MiClient(a_transport(server))
    client.rest()
    assert (server.rests, client.transport_name) == (1, "http")
