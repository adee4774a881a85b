"""The Management Interface of the exporter: what no recording shows."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import json
from datetime import UTC
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import unquote

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from starlette.applications import Starlette
from starlette.routing import Route

from sr_exporter.config import Token
from sr_exporter.ingest import Ingest
from sr_exporter.metrics.own import OwnMetrics
from sr_exporter.model import (
    OWN_SOURCE,
    PUSH_SOURCE,
    Configured,
    Forget,
    ListedReports,
    ListedStatus,
    PolledSource,
    PollFailed,
    PollFailure,
    Report,
    Snapshot,
    Statement,
    Way,
)
from sr_exporter.model import Origin as By
from sr_exporter.state import State
from sr_exporter.web import routes  # noqa: F401 - knows what `names` are in a path
from sr_exporter.web.access import Access
from sr_exporter.web.errors import Refused, refused
from sr_exporter.web.mi import MOST_BYTES, MiRoute
from sr_exporter.web.mi_view import HeldView
from tests.unit.test_ingest import FakePlanner, FakeStore

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from sr_exporter.held import Entry

SIP = "sip-1"
JSON = {"Content-Type": "application/json"}


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    pieces: list[bytes]

    @property
    def body(self) -> bytes:
        return b"".join(self.pieces)

    @property
    def said(self) -> Any:
        return json.loads(self.body)


async def _nothing(_: int) -> None:
    """Let an answer go on."""


class Exporter:
    """What answers over MI, without sockets, over a store that can be made to fail."""

    def __init__(self) -> None:
        self.now = 1.8e9
        #: Told of each message of an answer, as many as there are by then.
        self.on_piece: Callable[[int], Awaitable[None]] = _nothing
        self.loop = asyncio.new_event_loop()
        self.state = State()
        self.store = FakeStore([])
        self.access = Access()
        self.metrics = OwnMetrics()
        self.ingest = Ingest(self.state, self.store, FakePlanner([]), lambda: self.now)
        mi = MiRoute(self.ingest, self.state, self.access, self.metrics, lambda: self.now)
        self._app = Starlette(
            routes=[Route("/mi", mi), Route("/mi/{source:names}", mi)],
            exception_handlers={Refused: refused},
        )

    def close(self) -> None:
        self.loop.run_until_complete(self.ingest.settle())
        self.loop.close()

    def send(
        self,
        body: bytes,
        path: str = "/mi",
        *,
        method: str = "POST",
        client: str = "127.0.0.1",
        **headers: str,
    ) -> Answer:
        """Send a request; where nothing is said of it, its body is JSON."""
        target, _, query = path.partition("?")
        scope = {
            "type": "http",
            "method": method,
            "path": unquote(target, errors="replace"),
            "raw_path": target.encode(),
            "query_string": query.encode(),
            "client": (client, 1),
            "headers": [
                (name.replace("_", "-").lower().encode(), value.encode())
                for name, value in (JSON | headers).items()
            ],
        }
        return self.loop.run_until_complete(self._send(scope, body))

    async def _send(self, scope: dict[str, Any], body: bytes) -> Answer:
        sent: list[Any] = []
        bodies = iter([body])

        async def receive() -> dict[str, Any]:
            for one in bodies:
                return {"type": "http.request", "body": one}
            return await asyncio.Event().wait()  # it stays, and sends nothing more

        async def send(message: Any) -> None:
            sent.append(message)
            await self.on_piece(len(sent))

        await self._app(scope, receive, send)
        head = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
        return Answer(sent[0]["status"], head, [part["body"] for part in sent[1:] if part["body"]])

    def call(self, method: str, params: Any = (), path: str = "/mi", **headers: str) -> Any:
        """Call a method; gives its result, or its error."""
        request = {"jsonrpc": "2.0", "method": method, "params": params, "id": 7}
        answer = self.send(json.dumps(request).encode(), path, **headers)
        assert answer.status == 200, answer
        assert (answer.said["jsonrpc"], answer.said["id"]) == ("2.0", 7)
        return answer.said["result"] if "result" in answer.said else answer.said["error"]

    def observe(self, *observations: Any) -> None:
        for one in observations:
            self.loop.run_until_complete(self.ingest.observe(one))

    def entry(self, group: str, identifier: str = "main", source: str = PUSH_SOURCE) -> Entry:
        held = self.state.sources[source].entry(group, identifier)
        assert held is not None
        return held

    def pushed(self, code: int) -> float:
        """Give how many pushes were counted."""
        return self.metrics._pushed[code]._value.get()


@pytest.fixture
def exporter() -> Iterator[Exporter]:
    made = Exporter()
    yield made
    made.close()


def polled(exporter: Exporter, status: int = 1, **more: Any) -> None:
    """Have `core` polled of a server."""
    exporter.observe(Configured((PolledSource(SIP, 60.0),)))
    exporter.observe(
        Snapshot(
            SIP,
            exporter.state.revision,
            exporter.now,
            (ListedStatus("core", "main", status, status > 0, "running"),),
            reports=(ListedReports("core", "main", (Report(1.0, "up"),)),),
            **more,
        ),
    )


NOT_HEARD = {"code": 503, "message": "Source not heard"}
READS = [
    ("sr_get_status", ["core"]),
    ("sr_get_status", ["core", "all"]),
    ("sr_list_status", []),
    ("status_report:status", ["core"]),
    ("sr_list_reports", []),
    ("sr_list_identifiers", []),
    ("sr_list_identifiers", {"group": "core"}),
    ("version", []),
    ("uptime", []),
]


# --- what is not known ------------------------------------------------------------------------


@pytest.mark.parametrize(("method", "params"), READS)
def test_nothing_is_told_of_a_source_that_is_down(exporter, method, params):
    """Not even within `stale_after`, while its series are still there; and again once it is up."""
    polled(exporter, version="4.0.1", uptime_seconds=5.0)
    good = exporter.call(method, params, "/mi/sip-1")
    exporter.observe(PollFailed(SIP, exporter.now, PollFailure.CONNECT, "refused"))
    assert not exporter.state.sources[SIP].withheld
    lost = exporter.call(method, params, "/mi/sip-1")
    assert lost == {**NOT_HEARD, "data": "sip-1: refused"}
    polled(exporter, version="4.0.1", uptime_seconds=5.0)
    assert exporter.call(method, params, "/mi/sip-1") == good


@pytest.mark.parametrize(("method", "params"), READS)
def test_nothing_is_told_of_a_source_before_it_is_heard(exporter, method, params):
    """What was kept over a restart is not what is so."""
    exporter.observe(Configured((PolledSource(SIP, 60.0),), event_sources=("sip-2",)))
    for source in (SIP, "sip-2"):
        lost = exporter.call(method, params, f"/mi/{source}")
        assert lost == {**NOT_HEARD, "data": f"{source}: not heard since the exporter started"}
    assert "sr_list_status" in exporter.call("which", path="/mi/sip-1")


def test_a_source_that_only_sends_events_has_no_version(exporter):
    """Nor an up time; what it sent is told."""
    exporter.observe(Configured((), event_sources=("sip-2",)))
    exporter.observe(Statement("sip-2", "g", status=-1, old_status=1, origin=By.EVENT, way=Way.UDP))
    assert exporter.call("sr_get_status", ["g"], "/mi/sip-2")["Status"] == -1
    unknown = {"code": 404, "message": "Version not known", "data": "sip-2"}
    assert exporter.call("version", path="/mi/sip-2") == unknown
    assert exporter.call("uptime", path="/mi/sip-2")["message"] == "Up time not known"


def test_a_name_that_nobody_has_is_no_source(exporter):
    """A slip of the pen must not look like a server that has nothing. `push` is always there."""
    exporter.call("sr_set_status", ["g", 1], "/mi/Known")
    assert exporter.call("sr_list_status", path="/mi/Known")[0]["Name"] == "g"
    missing = {"code": 404, "message": "Source not found", "data": "known"}
    assert exporter.call("sr_list_status", path="/mi/known") == missing
    assert exporter.call("sr_list_status") == []
    assert exporter.call("sr_get_status", ["g"]) == {"code": 404, "message": "Group not found"}
    assert exporter.call("version")["Server"].startswith("sr-exporter (")


def test_what_expired_is_not_ready(exporter):
    """Though nothing else looked at the clock yet."""
    said = Statement(PUSH_SOURCE, "job", status=1, ttl_seconds=90.0)
    exporter.loop.run_until_complete(exporter.ingest.push([said]))
    assert exporter.call("sr_get_status", ["job"])["Readiness"] is True
    exporter.now += 91
    assert exporter.call("sr_get_status", ["job"]) == {
        "Readiness": False,
        "Status": -1,
        "Details": "expired: nothing heard for 90s",
    }
    exporter.observe(Forget(PUSH_SOURCE, "job"))
    assert exporter.call("sr_list_status") == []


def test_all_of_a_group(exporter):
    """It is ready when each of it is."""
    for number, ready in ((1, True), (2, True), (-1, False)):
        exporter.call("sr_set_status", {"group": "g", "status": number, "identifier": f"{number}"})
        shown = exporter.call("sr_get_status", ["G", "ALL"])
        assert (shown["Readiness"], shown["Details"]) == (ready, "aggregated")


@pytest.mark.parametrize(
    ("seconds", "date"),
    [(2.0**40, "Mon Feb 20 00:36:16 36812"), (0.0, "Thu Jan  1 00:00:00 1970")],
)
def test_dates_of_any_report(exporter, seconds, date, monkeypatch):
    """Also of one that was pushed with a time of another age."""
    monkeypatch.setattr(HeldView, "zone", UTC)
    said = Statement(PUSH_SOURCE, "g", reports=(Report(seconds, "x"),))
    exporter.loop.run_until_complete(exporter.ingest.push([said]))
    shown = {"Timestamp": int(seconds), "Date": date, "Log": "x"}
    assert exporter.call("sr_list_reports", ["g", "main"]) == [shown]


# --- what writes ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("params", "identifier", "status", "details"),
    [
        (["G", -1], "main", -1, None),
        (["G", "-2"], "main", -2, None),
        (["G", "+2147483647", "why"], "main", 2147483647, "why"),
        (["G", 0, ""], "main", 1, ""),
        (["G", 3, "why", "i"], "i", 3, "why"),
        ({"group": "G", "status": -2147483648}, "main", -2147483648, None),
        ({"status": 2, "group": "G", "identifier": "i"}, "i", 2, None),
        ({"status": 2, "group": "G", "details": 5, "identifier": 7}, "7", 2, "5"),
    ],
)
def test_a_status_is_set(exporter, params, identifier, status, details):
    """By order or by name; as it is asked for afterwards, ignoring case."""
    assert exporter.call("sr_set_status", params) == "OK"
    entry = exporter.entry("G", identifier)
    assert (entry.status, entry.details) == (status, details)
    if status != -2147483648:  # no such identifier, to 4.0
        shown = exporter.call("sr_get_status", ["g", identifier.upper()])
        expected = {"Readiness": status > 0, "Status": status}
        assert shown == (expected if details is None else {**expected, "Details": details})
    assert exporter.pushed(200) == 1


def test_names_and_texts_that_are_no_utf_8(exporter):
    """Two names stay two, and are found as they are spelled; a text shows what is wrong."""
    names = (b"\xff", b"\xfe", b"\\ud800")
    for number, name in enumerate(names, 1):
        request = b'{"jsonrpc":"2.0","method":"sr_set_status","params":["%s",%d,"%s","%s"],"id":1}'
        answer = exporter.send(request % (name, number, name, name))
        assert answer.said["result"] == "OK"
    for number, (name, held) in enumerate(
        zip(names, ("\\xff", "\\xfe", "\\ud800"), strict=True), 1
    ):
        asked = b'{"jsonrpc":"2.0","method":"sr_get_status","params":["%s","%s"],"id":1}'
        assert exporter.send(asked % (name, name)).said["result"] == {
            "Readiness": True,
            "Status": number,
            "Details": "\ufffd" * (3 if number == 3 else 1),
        }
        assert exporter.entry(held, held).status == number


def test_details_go_with_the_next_status(exporter):
    """As those of a push do."""
    exporter.call("sr_set_status", ["g", -1, "why"])
    exporter.call("sr_set_status", ["g", -1])
    assert exporter.entry("g").details is None


def test_a_report_is_added(exporter):
    """Stamped as it comes; a key begins with one."""
    assert exporter.call("sr_add_report", ["g", "one\n"]) == "OK"
    assert exporter.call("sr_add_report", {"group": "G", "report": "two", "identifier": "Main"})
    shown = exporter.call("sr_list_reports", ["g", "main"])
    assert [(one["Timestamp"], one["Log"]) for one in shown] == [
        (1_800_000_000, "one"),
        (1_800_000_000, "two"),
    ]
    assert exporter.call("sr_get_status", ["g"]) == {"Readiness": True, "Status": 1}


COUNT, NAMES = "Too few or too many parameters", "Named parameters do not match"


@pytest.mark.parametrize(
    ("params", "data"),
    [
        ([], COUNT),
        (["g"], COUNT),
        (["g", 1, "d", "i", "x"], COUNT),
        ({"group": "g", "status": 1, "ttl": "9s"}, NAMES),
        ({"group": "g", "Status": 1}, NAMES),
        *(
            (["g", bad], "Bad type for parameter 'status'")
            for bad in (True, None, 1.5, "", "up", "1.0", "0x1", " 1", "\uff11", [1], {})
        ),
        *(
            (["g", bad], "Parameter 'status' does not fit 32 bits")
            for bad in (2147483648, -2147483649, "9" * 99, 1e300)
        ),
        (["g", 1, None], "Bad type for parameter 'details'"),
        ([[], 1], "Bad type for parameter 'group'"),
    ],
    ids=str,
)
def test_a_wrong_parameter_sets_nothing(exporter, params, data):
    """It is named, and nothing is cut to fit."""
    answer = exporter.call("sr_set_status", params)
    assert answer == {"code": -32602, "message": "Invalid params", "data": data}
    assert not exporter.state.sources
    assert (exporter.pushed(200), exporter.pushed(400)) == (0, 1)


def test_a_name_must_not_be_empty(exporter):
    """As in a push."""
    for params in (["", 1], {"group": "g", "status": 1, "identifier": ""}):
        answer = exporter.call("sr_set_status", params)
        assert (answer["code"], answer["message"]) == (400, "Bad parameter value")
        assert answer["data"].endswith("is empty")
    assert not exporter.state.sources


def test_what_is_not_pushed_is_not_written(exporter):
    """What a server said itself, and the exporter of itself."""
    polled(exporter)
    for source, why in ((SIP, "'sip-1' is polled"), (OWN_SOURCE, "is the exporter's own")):
        for method, params in (("sr_set_status", ["core", -1]), ("sr_add_report", ["core", "x"])):
            answer = exporter.call(method, params, f"/mi/{source}")
            assert (answer["code"], answer["message"]) == (400, "Bad parameter value")
            assert why in answer["data"]
    assert exporter.entry("core", source=SIP).status == 1
    assert OWN_SOURCE not in exporter.state.sources
    assert exporter.pushed(400) == 4


SET = b'{"jsonrpc":"2.0","method":"sr_set_status","params":["g",1],"id":1}'


def test_ok_means_kept(exporter):
    """It is not said before; where it cannot be kept, 503, and whether nothing is tried at all."""
    exporter.store.waiting = True
    asked = exporter.loop.create_task(asyncio.to_thread(int))  # a turn or two of the loop
    sending = exporter.loop.create_task(
        exporter._send(
            {
                "type": "http",
                "method": "POST",
                "path": "/mi",
                "raw_path": b"/mi",
                "query_string": b"",
                "client": ("127.0.0.1", 1),
                "headers": [(b"content-type", b"application/json")],
            },
            SET,
        )
    )
    exporter.loop.run_until_complete(asked)
    assert exporter.store.batches
    assert not sending.done()
    exporter.store.release()
    assert exporter.loop.run_until_complete(sending).said["result"] == "OK"

    exporter.store.waiting, exporter.store.failing = False, True
    failed = exporter.send(SET)
    assert (failed.status, failed.headers["retry-after"]) == (503, "1")
    assert "the disk is full" in failed.said["error"]
    exporter.ingest.open = False
    stopping = exporter.send(SET)
    assert (stopping.status, stopping.said["error"]) == (
        503,
        "it cannot be kept now: the exporter is stopping",
    )
    assert (exporter.pushed(200), exporter.pushed(503)) == (1, 2)


def test_nothing_is_done_that_cannot_be_answered(exporter):
    """An id that cannot be printed is refused before anything is written."""
    for bad in (b"{}", b"[]", b"true", b'"\\ud800"'):
        answer = exporter.send(SET.replace(b'"id":1', b'"id":' + bad))
        assert (answer.status, answer.said) == (
            400,
            {"error": "id: must be a string, a number or null"},
        )
    assert not exporter.state.sources


def test_a_notification_that_writes(exporter):
    """It is kept with a 202, and has 400 where it is wrong: 2xx means kept."""
    silent = SET.replace(b',"id":1', b"")
    answer = exporter.send(silent)
    assert (answer.status, answer.body) == (202, b"")
    assert exporter.entry("g").status == 1
    wrong = exporter.send(silent.replace(b"1]", b"true]"))
    assert wrong.status == 400
    assert "Bad type for parameter 'status'" in wrong.said["error"]
    assert exporter.send(silent.replace(b"sr_set_status", b"nosuch")).status == 202


# --- who may write ----------------------------------------------------------------------------


def test_a_stranger_reads_and_does_not_write(exporter):
    """Until there are tokens only loopback writes, and neither a proxy nor a foreign page."""
    for stranger in (
        {"client": "192.0.2.1"},
        {"X_Forwarded_For": "127.0.0.1"},
        {"Origin": "http://evil.example"},
    ):
        answer = exporter.send(SET, **stranger)
        assert answer.status == 403
        assert "push.tokens" in answer.said["error"]
        assert exporter.send(SET.replace(b'"g"', b"[]"), **stranger).status == 403
        assert exporter.call("sr_list_status", **stranger) == []
    assert not exporter.state.sources
    assert exporter.pushed(403) == 6


def test_a_token_is_for_its_sources_and_groups(exporter):
    """401 without one, 403 for another source or group; reading takes none."""
    digest = hashlib.sha256(b"s3cret").digest()
    exporter.access.configure([Token(digest, sources=("sbc-*",), groups=("trunks",))])
    bearer = {"Authorization": "Bearer s3cret"}
    trunks = SET.replace(b'"g"', b'"Trunks"')
    none = exporter.send(trunks, "/mi/sbc-1")
    assert (none.status, none.headers["www-authenticate"]) == (401, "Bearer")
    assert exporter.send(trunks, "/mi/sbc-1", Authorization="Bearer wrong").status == 401
    assert exporter.send(trunks, "/mi", **bearer).status == 403
    assert exporter.send(SET, "/mi/sbc-1", **bearer).status == 403
    assert not exporter.state.sources
    assert exporter.send(trunks, "/mi/sbc-1", **bearer).said["result"] == "OK"
    assert exporter.call("sr_get_status", ["trunks"], "/mi/sbc-1")["Status"] == 1
    assert [exporter.pushed(code) for code in (200, 401, 403)] == [1, 2, 2]


# --- requests ---------------------------------------------------------------------------------

VERSION = b'{"jsonrpc":"2.0","method":"version","id":1}'


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("/mi", "push"),
        ("/mi/", "push"),
        ("/mi/a%2Fb", "a/b"),
        ("/mi/%FF", "\\xff"),
        ("/mi/%00", "\0"),
        ("/mi/a%0Ab", "a\nb"),
    ],
)
def test_the_path_names_the_source(exporter, path, source):
    """%2F is a slash inside a name, as everywhere."""
    assert exporter.call("sr_set_status", ["g", 1], path) == "OK"
    assert list(exporter.state.sources) == [source]
    assert exporter.call("sr_get_status", ["g"], path)["Status"] == 1


def test_other_paths_and_queries_are_refused(exporter):
    """What nobody would look at is no way to write to another source than was meant."""
    assert exporter.send(SET, "/mi/a/b").status == 404
    assert exporter.send(SET, "/mi%2Fa").status == 404
    query = exporter.send(SET, "/mi?source=a")
    assert query.status == 400
    assert "in the path" in query.said["error"]
    assert not exporter.state.sources


def test_encodings_and_sizes(exporter):
    """Gzip or none; 64 KiB, unpacked too, and the last byte counts."""
    assert exporter.send(gzip.compress(VERSION), Content_Encoding="gzip").status == 200
    assert exporter.send(VERSION, Content_Encoding="br").status == 415
    assert exporter.send(VERSION, Content_Encoding="gzip").status == 400
    assert exporter.send(VERSION.ljust(MOST_BYTES)).status == 200
    for long in (VERSION.ljust(MOST_BYTES + 1), gzip.compress(b" " * 2**20)):
        encoding = {"Content_Encoding": "gzip"} if long[:1] == b"\x1f" else {}
        answer = exporter.send(long, **encoding)
        assert (answer.status, answer.said) == (
            400,
            {"error": "the request is larger than 65536 bytes"},
        )


@pytest.mark.parametrize(
    ("method", "content_type", "status"),
    [
        *((method, "application/json", 406) for method in ("PUT", "DELETE", "PATCH", "X")),
        ("GET", "application/json", 405),
        ("POST", "APPLICATION/JSON; charset=koi8-r", 200),
        ("POST", "application/json-rpc", 200),
        ("POST", "application/x-www-form-urlencoded", 400),
        *(("POST", other, 415) for other in ("", "text/json", " ", "multipart/form-data", "é")),
    ],
)
def test_methods_and_types(exporter, method, content_type, status):
    """As of a real server, and with an end."""
    answer = exporter.send(VERSION, method=method, **{"Content-Type": content_type})
    assert answer.status == status
    if status in (400, 405, 415):
        assert answer.said["error"]
    assert exporter.send(b"").status == 400


def test_a_long_listing_comes_whole_in_pieces(exporter):
    """Every key of it, and each once; what is short has its length."""
    items = [Statement(PUSH_SOURCE, f"g{n % 7}", f"i{n:030}", n + 1) for n in range(20_000)]
    exporter.loop.run_until_complete(exporter.ingest.push(items))
    body = b'{"jsonrpc":"2.0","method":"sr_list_status","id":1}'
    answer = exporter.send(body)
    assert "content-length" not in answer.headers
    assert len(answer.pieces) > 20
    assert max(map(len, answer.pieces)) < 2**16
    listed = {
        (group["Name"], one["Name"]): one["Status"]
        for group in answer.said["result"]
        for one in group["Identifiers"]
    }
    assert listed == {(said.group, said.identifier): said.status for said in items}
    short = exporter.send(body[:-1].replace(b'"id"', b'"params":["g0"],"id"') + b"}")
    assert len(short.pieces) == 1
    assert int(short.headers["content-length"]) == len(short.body)
    assert len(short.said["result"]) == len(items[::7])


def test_a_long_listing_ends_in_its_midst_where_its_source_is_lost(exporter):
    """Who reads it slowly is told of nothing that is not known any more: it is no JSON."""
    statuses = tuple(ListedStatus("g", f"i{n:030}", 1, True, None) for n in range(20_000))
    exporter.observe(Configured((PolledSource(SIP, 60.0),)))
    exporter.observe(Snapshot(SIP, exporter.state.revision, exporter.now, statuses))

    async def lose_it(sent: int) -> None:
        if sent == 5:
            failed = PollFailed(SIP, exporter.now, PollFailure.TIMEOUT, "slow")
            await exporter.ingest.observe(failed)

    exporter.on_piece = lose_it
    body = b'{"jsonrpc":"2.0","method":"sr_list_status","id":1}'
    answer = exporter.send(body, "/mi/sip-1")
    assert len(answer.pieces) == 4
    with pytest.raises(ValueError, match=r"Expecting|Unterminated"):
        json.loads(answer.body)


# --- anything ---------------------------------------------------------------------------------

_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=8,
)
_METHODS = st.sampled_from(
    [
        *("sr_get_status", "sr_list_status", "sr_list_reports", "sr_list_identifiers", "which"),
        *("sr_set_status", "sr_add_report", "get", "uptime", "version", "status_report:", ":", ""),
    ]
)
_NAMES = st.sampled_from(["group", "identifier", "status", "details", "report", "command", "x"])
_SAID = st.sampled_from(["g", "G", "main", "all", "", "-1", "é", "\ud800", "\udcff", "\0"])
_PARAMS = (
    st.lists(_SAID | _VALUES, max_size=5)
    | st.dictionaries(_NAMES, _SAID | _VALUES, max_size=4)
    | _VALUES
)
_CALLS = st.fixed_dictionaries(
    {"jsonrpc": st.just("2.0") | _VALUES, "method": _METHODS | _VALUES},
    optional={"params": _PARAMS, "id": st.integers() | _VALUES, "x": _VALUES},
)
_BODIES = st.one_of(
    st.binary(max_size=60),
    st.builds(json.dumps, _CALLS | _VALUES).map(str.encode),
    st.builds(json.dumps, _CALLS, ensure_ascii=st.just(False)).map(
        lambda said: said.encode("utf-8", "surrogatepass")
    ),
    st.tuples(_CALLS, st.integers(0, 120), st.binary(max_size=4)).map(
        lambda cut: json.dumps(cut[0]).encode()[: cut[1]] + cut[2]
    ),
)


@settings(max_examples=300)
@given(bodies=st.lists(_BODIES, min_size=1, max_size=6), path=st.sampled_from(["/mi", "/mi/s"]))
@example(bodies=[b"[" * 60_000, b'{"a":' * 10_000], path="/mi")
@example(bodies=[b'{"jsonrpc":"2.0","method":"version","id":' + b"9" * 60_000 + b"}"], path="/mi")
@example(bodies=[SET.replace(b"1]", b"9" * 60_000 + b"]")], path="/mi")
@example(bodies=[SET.replace(b"1]", b'"%s"]' % (b"9" * 60_000))], path="/mi")
@example(bodies=[SET.replace(b"1]", b"1e999]"), SET.replace(b"1]", b"NaN]")], path="/mi")
@example(bodies=[b"\0", b"\xef\xbb\xbf" + SET, SET + b"\0{", b" \n" + SET], path="/mi")
@example(bodies=[SET[:-1] + b',"method":"version","id":"x"}'], path="/mi")
def test_no_body_makes_it_fail(bodies, path):
    """Whatever is sent is answered as JSON-RPC, or refused with the reason and not done."""
    exporter = Exporter()
    for body in bodies:
        before = exporter.state.revision
        answer = exporter.send(body, path)
        assert answer.status in (200, 202, 400), answer
        if answer.status == 200:
            assert answer.said["jsonrpc"] == "2.0"
            assert ("result" in answer.said) != ("error" in answer.said)
        if answer.status == 400 or b'"error"' in answer.body:
            assert exporter.state.revision == before
    for source in exporter.state.sources.values():
        for entry in source.entries():
            reports = "".join(report.log for report in entry.reports)
            assert "".join((*entry.key, entry.details or "", reports)).encode()
    assert exporter.send(VERSION).status == 200
    exporter.close()
