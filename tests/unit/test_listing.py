"""What is asked of a source that refuses what is too big: every step down, and none twice."""

from __future__ import annotations

import asyncio
import json
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sr_exporter.errors import MiError
from sr_exporter.mi.client import MiClient
from sr_exporter.model import ListedReports, ListedStatus, PollFailure, Report, fold
from sr_exporter.simulator.judge import violations_of
from sr_exporter.simulator.node import SimulatedNode
from sr_exporter.simulator.releases import OPENSIPS_4_0
from sr_exporter.sources import reports, statuses
from sr_exporter.sources.ladder import TIMEOUTS
from sr_exporter.sources.listing import Listing
from sr_exporter.sources.refusals import DOUBTED_AFTER_SECONDS
from sr_exporter.sources.statuses import MODULE_GROUPS
from sr_exporter.wire.answers import answer

if TYPE_CHECKING:
    from collections.abc import Callable

    from sr_exporter.mi.transport import Transport
    from sr_exporter.model import Snapshot

    #: What comes instead of an answer.
    Way = Callable[[bytes], bytes | MiError]

SHORT = {
    "sr_get_status": "get",
    "sr_list_status": "status",
    "sr_list_reports": "reports",
    "sr_list_identifiers": "ids",
}
TIMEOUT_SECONDS = 5.0
DAY = 86_400.0

WAYS: dict[str, Way] = {
    "http 500": lambda _: MiError(PollFailure.HTTP_STATUS, "HTTP 500; fifo, http, socket_buf_size"),
    "500 Internal error": lambda _: MiError(PollFailure.TOO_BIG, "fifo, http, socket_buf_size"),
    "silence": lambda _: MiError(PollFailure.TIMEOUT, "no answer within 5 s"),
    "cut": lambda said: said[: len(said) // 2],
    "empty": lambda _: b"",
}
REASONS = {
    "http 500": PollFailure.HTTP_STATUS,
    "500 Internal error": PollFailure.TOO_BIG,
    "silence": PollFailure.TIMEOUT,
    "cut": PollFailure.MALFORMED,
    "empty": PollFailure.MALFORMED,
}
ways = pytest.mark.parametrize("way", WAYS)
WAY = "500 Internal error"


class Peer:
    """Implements `Transport`: a simulated node that refuses, on a clock of its own."""

    name = "udp"

    def __init__(self, sizes: dict[str, int], *, cost: float = 0.001) -> None:
        self.now = 10_000.0
        self.cost = cost
        self.node = SimulatedNode(OPENSIPS_4_0)
        self.node.up = True
        self.node.started_at = self.now - 1000
        # Groups are listed newest first, so the last one is made first.
        for group, size in reversed(sizes.items()):
            for number in reversed(range(size)):
                identifier = f"i{number}" if size > 1 else "main"
                self.node.register(group, identifier, number % 3 or -1, "so it is")
                self.node.add_report(group, identifier, f"report of {number}", 5)
        self.asked: list[str] = []
        #: What comes instead of an answer, by the question; or, with `*` for the rest of it,
        #: instead of a result.
        self.instead: dict[str, bytes | MiError | Way] = {}
        self.after: Callable[[str], None] = lambda _: None
        self.held: list[str] = []
        self.listing = Listing(
            "sip-1",
            MiClient(self.transport),
            clock=lambda: self.now,
            monotonic=lambda: self.now,
        )

    @property
    def transport(self) -> Transport:
        return self  # type: ignore[return-value]

    async def ask(self, request: bytes) -> bytes:
        assert list(violations_of(request)) == []
        call = json.loads(request)
        question = " ".join([SHORT.get(call["method"], call["method"]), *call.get("params", [])])
        self.asked.append(question)
        said = answer(request, self.node, self.now)
        assert said is not None
        self.now += self.cost
        instead = self.instead.get(question)
        if instead is None and b'"result"' in said:
            instead = self.instead.get(f"{question.split(' ')[0]} *")
        if instead is not None:
            said = instead(said) if callable(instead) else instead
        self.after(question)
        if isinstance(said, MiError):
            if said.reason is PollFailure.TIMEOUT:
                self.now += TIMEOUT_SECONDS
            raise said
        return said.replace(b'"id":0}', b'"id":%d}' % call["id"])

    def refuse(self, way: str, *questions: str) -> None:
        self.instead |= dict.fromkeys(questions, WAYS[way])

    def rest(self) -> None:
        """Hold nothing."""

    # --- polls

    def poll(self) -> Snapshot:
        """Poll once, and hold what was heard of; `asked` is what this poll asked."""
        self.asked.clear()
        snapshot = asyncio.run(self.listing.snapshot(7, self.held))
        self.now += 10.0
        self.held = sorted({one.group for one in snapshot.statuses} | snapshot.partial_groups)
        return snapshot

    def fails(self) -> MiError:
        with pytest.raises(MiError) as raised:
            self.poll()
        self.now += 10.0
        return raised.value

    # --- what is true

    def statuses(self, *groups: str) -> set[ListedStatus]:
        return {
            ListedStatus(group.name, one.name, one.status, one.ready, one.details)
            for group in self.node.groups()
            if not groups or group.name in groups
            for one in group.identifiers()
        }

    def reports(self, *groups: str) -> set[ListedReports]:
        return {
            ListedReports(
                group.name, one.name, tuple(Report(r.timestamp, r.log) for r in one.reports)
            )
            for group in self.node.groups()
            if not groups or group.name in groups
            for one in group.identifiers()
        }

    def is_whole(self, snapshot: Snapshot) -> bool:
        return (
            snapshot.complete
            and not snapshot.partial_groups
            and snapshot.faults == ()
            and set(snapshot.statuses) == self.statuses()
            and len(snapshot.statuses) == len(self.statuses())
        )


def identifiers(word: str, group: str, size: int) -> list[str]:
    return [f"{word} {group} i{number}" for number in range(size)]


FIRST = ["status", "reports", "uptime", "version"]
LATER = ["status", "reports", "uptime"]


def test_what_comes_whole_is_asked_whole():
    """Nothing is asked in pieces without need."""
    peer = Peer({"a": 1, "b": 3})
    assert peer.is_whole(snapshot := peer.poll())
    assert set(snapshot.reports or ()) == peer.reports()
    assert peer.asked == FIRST
    peer.poll()
    assert peer.asked == LATER


# --- by group -------------------------------------------------------------------------------


@ways
def test_refused_statuses_are_asked_by_group_and_so_ever_after(way):
    """The up time tells that the peer is alive; the names of groups are asked for once."""
    peer = Peer({"a": 1, "b": 3, "core": 1})
    peer.refuse(way, "status")
    snapshot = peer.poll()
    by_group = ["status a", "status b", "status core", "reports a", "reports b", "reports core"]
    assert peer.asked == ["status", "uptime", "ids", *by_group, "uptime", "version"]
    assert peer.is_whole(snapshot)
    assert set(snapshot.reports or ()) == peer.reports()
    assert (snapshot.as_of, snapshot.requested_at) == (7, 10_000.0)
    for _ in range(3):
        assert peer.is_whole(peer.poll())
        assert sorted(peer.asked) == sorted(["uptime", *by_group, "uptime"])
        assert (peer.asked[0], peer.asked[-1]) == ("uptime", "uptime")


@ways
def test_refused_reports_are_asked_by_group_and_the_statuses_whole(way):
    """The two are independent as far as they can be."""
    peer = Peer({"a": 1, "b": 3})
    peer.refuse(way, "reports")
    snapshot = peer.poll()
    by_group = ["reports a", "reports b"]
    assert peer.asked == ["status", "reports", "uptime", *by_group, "uptime", "version"]
    assert peer.is_whole(snapshot)
    assert set(snapshot.reports or ()) == peer.reports()
    peer.poll()
    assert peer.asked == ["status", *by_group, "uptime"]


@ways
def test_without_the_names_of_groups_the_likely_ones_are_asked(way):
    """Those that are held, and those of OpenSIPS' modules: what is not there is no fault."""
    peer = Peer({"core": 1, "uac_registrant": 3, "alarms": 2, "hidden": 1})
    peer.refuse(way, "status", "ids")
    peer.held = ["Alarms", "gone"]
    snapshot = peer.poll()
    tried = [f"status {group}" for group in ("Alarms", "gone", *MODULE_GROUPS)]
    alive = ["uptime"] if way == "silence" else []
    assert peer.asked[:3] == ["status", "uptime", "ids"]
    assert peer.asked[3 : 3 + len(alive) + len(tried)] == [*alive, *tried]
    found = {fold(status.group) for status in snapshot.statuses}
    assert found == {"core", "uac_registrant", "alarms"}
    assert snapshot.complete
    assert not snapshot.partial_groups
    ((reason, said),) = snapshot.faults
    assert reason is REASONS[way]
    assert "script's own may be missing" in said
    assert "socket_buf_size" in said
    assert "fifo" in said
    peer.poll()
    # What is not there is not asked for again in this life; nor are the names.
    assert {one for one in peer.asked if one.startswith(("status", "ids"))} == {
        "status Alarms",
        "status core",
        "status uac_registrant",
    }


@pytest.mark.parametrize("reason", [PollFailure.CONNECT, PollFailure.AUTH, PollFailure.UNSUPPORTED])
@pytest.mark.parametrize("at", ["status", "ids", "status a", "ids b", "get b i1"])
def test_a_peer_that_is_gone_is_down_wherever_that_shows(at, reason):
    """Half a list of a server that is gone is no good poll, and nothing more is asked."""
    peer = Peer({"a": 1, "b": 3})
    peer.refuse(WAY, *[one for one in ("status", "status b") if one != at])
    peer.instead[at] = MiError(reason, "gone")
    error = peer.fails()
    assert (error.reason, str(error)) == (reason, "gone")
    assert peer.asked[-1] == at


@pytest.mark.parametrize("small", [PollFailure.CONNECT, PollFailure.TIMEOUT, PollFailure.AUTH])
@ways
def test_where_nothing_small_is_answered_either_the_source_is_down(way, small):
    """With what befell it first. After a silence the small one is asked first from then on."""
    peer = Peer({"a": 1})
    peer.refuse(way, "status")
    peer.instead["uptime"] = MiError(small, "small")
    assert peer.fails().reason is REASONS[way]
    assert peer.asked == ["status", "uptime"]
    peer.fails()
    assert peer.asked == (["uptime"] if way == "silence" else ["status", "uptime"])
    peer.instead.clear()
    assert peer.is_whole(peer.poll())
    assert "ids" not in peer.asked


@ways
def test_a_poll_that_hears_nothing_at_all_failed_with_the_first_error(way):
    """And nothing is learned from it: it may have been anything."""
    peer = Peer({"core": 1, "pike": 3})
    peer.refuse(way, "status *", "ids *", "get *")
    for _ in range(2):
        assert peer.fails().reason is REASONS[way]
        assert [one for one in peer.asked if one != "uptime"][:2] == ["status", "ids"]
    peer.instead.clear()
    assert peer.is_whole(peer.poll())
    assert [one for one in peer.asked if one != "uptime"] == ["status", "reports", "version"]


# --- by identifier --------------------------------------------------------------------------


@ways
def test_a_group_too_big_is_asked_by_identifier(way):
    """Its names, then each; nothing that was refused once is asked for again."""
    peer = Peer({"Big": 4, "core": 1})
    peer.refuse(way, "status", "status Big", "reports Big")
    alive = ["uptime"] if way == "silence" else []
    gets, logs = identifiers("get", "Big", 4), identifiers("reports", "Big", 4)
    snapshot = peer.poll()
    assert peer.asked == [
        *["status", "uptime", "ids", "status Big", *alive, "status core", "ids Big", *gets],
        *["reports core", *logs, "uptime", "version"],
    ]
    assert peer.is_whole(snapshot)
    assert set(snapshot.reports or ()) == peer.reports()
    for _ in range(2):
        assert peer.is_whole(peer.poll())
        expected = ["uptime", "status core", "ids Big", *gets, "reports core", *logs, "uptime"]
        assert peer.asked == expected


@ways
def test_reports_too_big_by_group_are_asked_by_identifier(way):
    """A ring too big even so is left out, with a fault that names its group; once tried."""
    peer = Peer({"big": 4, "core": 1})
    peer.refuse(way, "reports", "reports big", "reports big i2")
    snapshot = peer.poll()
    assert set(snapshot.statuses) == peer.statuses()
    assert len(snapshot.reports or ()) == 4
    ((reason, said),) = snapshot.faults
    assert reason is REASONS[way]
    assert "'big'" in said
    again = peer.poll()
    assert again.reports == snapshot.reports
    assert again.faults == snapshot.faults
    logs = [one for one in identifiers("reports", "big", 4) if not one.endswith("i2")]
    assert peer.asked == ["status", "reports core", *logs, "uptime"]


@ways
def test_a_group_whose_names_cannot_be_listed_is_partial(way):
    """The others are whole; the message names the group and what to do."""
    peer = Peer({"uac_registrant": 4, "core": 1})
    peer.refuse(way, "status", "ids", "status uac_registrant", "ids uac_registrant")
    for poll in range(3):
        snapshot = peer.poll()
        assert snapshot.partial_groups == {"uac_registrant"}
        assert snapshot.complete
        assert set(snapshot.statuses) == peer.statuses("core")
        assert set(snapshot.reports or ()) == peer.reports("core")
        reason, said = snapshot.faults[-1]
        assert reason is REASONS[way]
        assert "'uac_registrant'" in said
        assert "fifo" in said
        assert "http" in said
        assert "socket_buf_size" in said
        if poll:
            assert peer.asked == ["uptime", "status core", "reports core", "uptime"]


def test_over_http_the_remedy_is_that_of_http():
    """Silence says nothing of itself; what can be done about it depends on the way."""
    peer = Peer({"big": 2, "core": 1})
    peer.name = "http"
    peer.refuse("silence", "status", "status big", "ids big")
    _, said = peer.poll().faults[0]
    assert "buf_size" in said
    assert "datagram" not in said


def test_what_vanishes_between_two_questions_is_no_fault():
    """Neither a group nor an identifier."""
    peer = Peer({"big": 3, "core": 1, "gone": 2})
    peer.refuse(WAY, "status", "status big")

    def vanish(question: str) -> None:
        if question == "ids":
            del peer.node._groups["gone"]
        if question == "ids big":
            peer.node._groups["big"].held.pop("i1", None)

    peer.after = vanish
    snapshot = peer.poll()
    assert "get big i1" in peer.asked
    assert "status gone" in peer.asked
    assert peer.is_whole(snapshot)
    peer.poll()
    assert "status gone" not in peer.asked


def test_a_group_that_vanishes_before_its_names_are_listed_is_no_fault():
    """As any other."""
    peer = Peer({"big": 3, "core": 1})
    peer.refuse(WAY, "status", "status big")
    peer.after = lambda question: (
        peer.node._groups.pop("big", None) if question == "status core" else None
    )
    assert peer.is_whole(peer.poll())


# --- names that cannot be asked for ---------------------------------------------------------


def test_a_group_whose_name_is_not_utf_8_is_partial():
    """By what is shown for it nothing is found."""
    peer = Peer({"core": 1})
    peer.refuse(WAY, "status")
    peer.instead["ids"] = (
        b'{"jsonrpc":"2.0","result":[{"Group":"g\xff","Identifiers":["main"]},'
        b'{"Group":"core","Identifiers":["main"]}],"id":0}'
    )
    snapshot = peer.poll()
    assert snapshot.partial_groups == {r"g\xff"}
    assert set(snapshot.statuses) == peer.statuses()
    ((reason, said),) = snapshot.faults
    assert reason is PollFailure.RPC_ERROR
    assert r"g\\xff" in said


def test_an_identifier_whose_name_is_not_utf_8_makes_its_group_partial():
    """The others of its group are heard."""
    peer = Peer({"big": 2, "core": 1})
    peer.refuse(WAY, "status", "status big")
    peer.instead["ids big"] = (
        b'{"jsonrpc":"2.0","result":{"Group":"big","Identifiers":["i0","\xed\xa0\x80","i1"]},"id":0}'
    )
    snapshot = peer.poll()
    assert snapshot.partial_groups == {"big"}
    assert set(snapshot.statuses) == peer.statuses()


def test_names_too_long_to_be_asked_for_make_their_group_partial():
    """A request over 1024 bytes is not sent; the fault says how long it would be."""
    peer = Peer({"big": 2, "core": 1})
    long = "\u754c" * 400  # of three bytes each
    peer.node.register("big", long)
    peer.node.register(long, "main")
    peer.refuse(WAY, "status", "status big")
    snapshot = peer.poll()
    assert snapshot.partial_groups == {"big", long}
    assert set(snapshot.statuses) == {
        one for one in peer.statuses() if max(map(len, (one.group, one.identifier))) < 400
    }
    assert {reason for reason, _ in snapshot.faults} == {PollFailure.TOO_BIG}
    assert all("OpenSIPS takes 1024" in said for _, said in snapshot.faults)


# --- bounded time ---------------------------------------------------------------------------


def test_a_poll_asks_by_identifier_for_a_few_seconds_and_goes_on_where_it_stopped():
    """Until all of a group is asked in one poll it is partial; none is left out for ever."""
    size = 1000
    peer = Peer({"big": size, "core": 1}, cost=0.01)
    peer.refuse(WAY, "status", "status big")
    heard: list[ListedStatus] = []
    rung: set[str] = set()
    for _ in range(8):
        began = peer.now
        snapshot = peer.poll()
        assert peer.now - 10 - began < 2 * (statuses.SECONDS + reports.SECONDS)
        assert snapshot.partial_groups == {"big"}
        assert peer.statuses("core") <= set(snapshot.statuses)
        assert "socket_buf_size" in snapshot.faults[0][1]
        heard += [status for status in snapshot.statuses if status.group == "big"]
        rung |= {one.identifier for one in snapshot.reports or () if one.group == "big"}
        assert len({said for _, said in snapshot.faults}) == 1
    assert [one.identifier for one in heard[:size]] == [f"i{n}" for n in range(size)]
    assert heard[size].identifier == "i0"
    assert len(rung) > size // 2
    assert peer.asked.count("ids big") <= 1


def test_it_is_told_how_many_of_a_group_were_asked_for():
    """Of all that are asked one by one, until the last of them was."""
    peer = Peer({"one": 400, "two": 200, "core": 1}, cost=0.01)
    assert peer.listing.asked is None
    peer.refuse(WAY, "status", "status one", "status two")
    told = []
    while len(told) < 3:
        ones = [status for status in peer.poll().statuses if status.group != "core"]
        told.append((len(ones), peer.listing.asked))
    first, second = told[0][0], told[1][0]
    assert told[0][1] == (first, 400)
    assert told[1][1] == (first + second, 600)
    assert told[2][1] is None


def test_two_groups_too_big_take_turns():
    """Neither waits for ever behind the other."""
    peer = Peer({"one": 500, "two": 500, "core": 1}, cost=0.01)
    peer.refuse(WAY, "status", "status one", "status two")
    heard: set[tuple[str, str]] = set()
    for _ in range(5):
        heard |= {(one.group, one.identifier) for one in peer.poll().statuses}
    assert heard == {(one.group, one.identifier) for one in peer.statuses()}


def test_many_slow_groups_are_asked_over_several_polls():
    """Those not asked in this poll are partial, and the first in the next."""
    peer = Peer({f"g{number}": 1 for number in range(60)}, cost=0.1)
    peer.refuse(WAY, "status")
    first, second, third = (peer.poll() for _ in range(3))
    assert 0 < len(first.partial_groups) < 60
    heard = [{status.group for status in one.statuses} for one in (first, second, third)]
    assert not first.partial_groups & heard[0]
    assert not heard[0] & heard[1]
    assert heard[0] | heard[1] | heard[2] == {f"g{number}" for number in range(60)}


def test_what_is_only_guessed_is_not_called_partial_for_lack_of_time():
    """A group nobody has heard of may not be there; it is tried in a later poll."""
    peer = Peer({"core": 1, "pike": 1, "uac_registrant": 1}, cost=0.5)
    peer.refuse(WAY, "status", "ids")
    heard: set[str] = set()
    for _ in range(3):
        snapshot = peer.poll()
        assert snapshot.partial_groups <= {"core", "pike", "uac_registrant"}
        heard |= {status.group for status in snapshot.statuses}
    assert heard == {"core", "pike", "uac_registrant"}


def test_reports_by_identifier_go_on_where_they_stopped():
    """Statuses are whole all the while; the rings come in bounded time, each in its turn."""
    size = 1000
    peer = Peer({"big": size, "core": 1}, cost=0.01)
    peer.refuse(WAY, "reports", "reports big")
    asked: list[str] = []
    for _ in range(8):
        began = peer.now
        snapshot = peer.poll()
        assert peer.is_whole(snapshot)
        assert peer.now - 10 - began < 2 * reports.SECONDS
        asked += [one for one in peer.asked if one.startswith("reports big ")]
        assert set(snapshot.reports or ()) >= peer.reports("core")
    assert asked[: size + 1] == [*identifiers("reports", "big", size), "reports big i0"]


def test_reports_by_group_take_turns():
    """Where there is not the time for all groups, those left are the first in the next poll."""
    names = [f"g{number}" for number in range(60)]
    peer = Peer(dict.fromkeys(names, 1), cost=0.1)
    peer.refuse(WAY, "reports")
    asked: list[str] = []
    for _ in range(4):
        began = peer.now
        assert peer.is_whole(peer.poll())
        assert peer.now - 10 - began < 2 * reports.SECONDS
        asked += [one for one in peer.asked if one.startswith("reports g")]
    assert asked[:60] == [f"reports {name}" for name in names]


@pytest.mark.parametrize("lost", ["a", "b"])
def test_reports_of_what_vanishes_are_no_fault(lost):
    """Neither those of a group nor those of an identifier."""
    peer = Peer({"a": 1, "b": 3})
    peer.refuse(WAY, "reports", "reports b")

    def vanish(question: str) -> None:
        if question == "reports":
            peer.node._groups.pop(lost)

    peer.after = vanish
    snapshot = peer.poll()
    assert snapshot.faults == ()
    assert set(snapshot.reports or ()) == peer.reports()


def test_a_poll_waits_for_few_silences():
    """Each costs a time-out; what is left is asked by the polls after it."""
    sizes = {f"g{number}": 2 for number in range(10)}
    peer = Peer({**sizes, "core": 1})
    peer.refuse("silence", "status", *[f"status {group}" for group in sizes])
    first = peer.poll()
    assert sum(one.startswith("status ") for one in peer.asked) <= TIMEOUTS + 1
    assert set(sizes) <= first.partial_groups | {status.group for status in first.statuses}
    for _ in range(3):
        snapshot = peer.poll()
    assert peer.is_whole(snapshot)
    began = peer.now
    peer.poll()
    assert peer.now - 10 - began < TIMEOUT_SECONDS


@pytest.mark.lengthy
def test_silence_is_paid_for_seldom():
    """Once, and again after twice as long each time: it may have had another cause."""
    peer = Peer({"pike": 3, "core": 1})
    silent = ("status", "ids", "status pike", "ids pike", "reports", "reports pike")
    peer.refuse("silence", *silent)
    asked = []
    while peer.now < 10_000 + 2 * DAY:
        peer.poll()
        if set(silent) & set(peer.asked):
            assert [one for one in silent if one in peer.asked] == list(silent[:4])
            assert peer.asked.count("status") == 1
            asked.append(peer.now)
        peer.now += 10
    gaps = [later - earlier for earlier, later in pairwise(asked)]
    assert gaps[:8] == [pytest.approx(DOUBTED_AFTER_SECONDS * 2**turn, abs=45) for turn in range(8)]
    assert len(asked) < 14


# --- what was learned, and when it is forgotten ---------------------------------------------


@pytest.mark.parametrize("way", ["http 500", "500 Internal error"])
def test_the_whole_is_tried_again_after_a_day(way):
    """What was too big once need not be any more."""
    peer = Peer({"big": 2, "core": 1})
    peer.refuse(way, "status", "status big", "reports")
    peer.poll()
    peer.now = 10_000.0 + DAY - 60
    peer.poll()
    assert "status" not in peer.asked
    peer.now += 60
    peer.poll()
    assert peer.asked[0] == "status"
    assert "status big" in peer.asked
    peer.poll()
    assert "status" not in peer.asked
    peer.instead.clear()
    peer.now += DAY
    assert peer.is_whole(peer.poll())
    assert peer.asked == LATER


@pytest.mark.parametrize("way", ["silence", "cut", "empty"])
def test_what_may_have_passed_is_tried_again_soon(way):
    """A lost datagram is not taken for a list that is too big for longer than a minute."""
    peer = Peer({"big": 2, "core": 1})
    for _ in range(3):
        peer.refuse(way, "status", "ids", "status big")
        assert not peer.is_whole(peer.poll())
        peer.instead.clear()
        peer.now += DOUBTED_AFTER_SECONDS - 30
        assert not peer.is_whole(peer.poll())
        peer.now += 30
        assert peer.is_whole(peer.poll())
        assert peer.asked == LATER, "all is forgotten, the doubts too"


@pytest.mark.parametrize("way", ["http 500", "500 Internal error"])
def test_an_identifier_that_was_refused_by_itself_is_asked_again_soon(way):
    """One status is never too big: what is shown of it would be what it was, for a day."""
    peer = Peer({"big": 2, "core": 1})
    peer.refuse(way, "status", "status big", "get big i1")
    assert peer.poll().partial_groups == {"big"}
    peer.instead.clear()
    peer.now += DOUBTED_AFTER_SECONDS
    assert peer.is_whole(peer.poll())


def test_a_day_begins_with_the_first_refusal():
    """Later ones do not put it off."""
    peer = Peer({"big": 2, "core": 1})
    peer.refuse(WAY, "status")
    peer.poll()
    peer.now += DAY / 2
    peer.refuse(WAY, "status big")
    peer.poll()
    peer.now += DAY / 2
    peer.poll()
    assert "status" in peer.asked


@pytest.mark.parametrize("ago", [1.0, 25.0], ids=["up time fell", "start moved"])
def test_the_whole_is_tried_again_after_a_restart(ago):
    """Another life, another list: seen before anything else is asked."""
    peer = Peer({"big": 2, "core": 1})
    peer.refuse(WAY, "status", "status big")
    if ago > 1:
        peer.node.started_at = peer.now - 5
    peer.poll()
    peer.instead.clear()
    peer.now += 20
    peer.node.started_at = peer.now - ago
    assert peer.is_whole(peer.poll())
    assert peer.asked == ["uptime", "status", "reports", "uptime", "version"]


def test_a_restart_between_two_polls_close_together_is_seen_by_the_up_time_alone():
    """Its start has hardly moved."""
    peer = Peer({"big": 2, "core": 1})
    peer.refuse(WAY, "status", "status big")
    peer.node.started_at = peer.now - 4
    peer.poll()
    peer.now -= 9.5
    peer.node.started_at = peer.now
    peer.poll()
    assert peer.asked[:2] == ["uptime", "status"]


def test_another_life_is_asked_from_the_first():
    """What was left of a group when its server restarted is forgotten with the rest."""
    peer = Peer({"big": 1000, "core": 1}, cost=0.01)
    peer.refuse(WAY, "status", "status big")
    peer.poll()
    peer.node.started_at = peer.now
    peer.poll()
    gets = [one for one in peer.asked if one.startswith("get big")]
    assert gets[:2] == ["get big i0", "get big i1"]
    assert peer.asked.index("ids big") < peer.asked.index(gets[0])


@pytest.mark.parametrize("at", ["status a", "ids b", "get b i1", "reports a", "reports b i0"])
def test_two_lives_are_not_mixed(at):
    """Who restarts between two pieces has answered nothing; the next poll is of one life."""
    peer = Peer({"a": 1, "b": 3})
    peer.refuse(WAY, "status", "status b")

    def restart(question: str) -> None:
        if question == at:
            peer.node.started_at = peer.now
            peer.after = lambda _: None

    peer.poll()
    peer.after = restart
    error = peer.fails()
    assert (error.reason, str(error)) == (PollFailure.CONNECT, "it restarted while it was asked")
    assert peer.poll().version == "4.0.1"
    assert peer.asked[0] == "status"


def test_reports_in_pieces_of_two_lives_are_left_out():
    """The statuses came whole, and are of one; the reports come with the next poll."""
    peer = Peer({"a": 1, "b": 3})
    peer.refuse(WAY, "reports")
    peer.poll()

    def restart(question: str) -> None:
        if question == "reports a":
            peer.node.started_at = peer.now

    peer.after = restart
    snapshot = peer.poll()
    assert set(snapshot.statuses) == peer.statuses()
    assert snapshot.reports is None
    peer.after = lambda _: None
    assert set(peer.poll().reports or ()) == peer.reports()


# --- reports that fail for other reasons ----------------------------------------------------


@pytest.mark.parametrize("reason", [PollFailure.CONNECT, PollFailure.TIMEOUT])
@pytest.mark.parametrize("at", ["reports a", "reports b i1"])
def test_a_peer_lost_among_the_reports_leaves_the_statuses(at, reason):
    """What was heard is passed on, and nothing more is waited for."""
    peer = Peer({"a": 1, "b": 3})
    peer.refuse(WAY, "reports", "reports b")
    peer.poll()
    peer.instead[at] = MiError(reason, "gone")
    peer.instead["uptime"] = MiError(PollFailure.CONNECT, "gone, too")
    snapshot = peer.poll()
    assert set(snapshot.statuses) == peer.statuses()
    assert snapshot.faults == ((reason, "gone"),)
    assert peer.asked[-1] == (at if reason is PollFailure.CONNECT else "uptime")


def test_reports_refused_for_another_reason_are_a_fault_and_asked_whole_again():
    """An error of the command says nothing of sizes."""
    peer = Peer({"a": 1})
    peer.instead["reports"] = MiError(PollFailure.RPC_ERROR, "Server error (-32000)")
    snapshot = peer.poll()
    assert snapshot.faults == ((PollFailure.RPC_ERROR, "Server error (-32000)"),)
    assert snapshot.reports is None
    assert peer.asked == FIRST
    peer.poll()
    assert peer.asked == LATER


# --- whatever is refused --------------------------------------------------------------------


@settings(max_examples=300)
@given(
    st.dictionaries(
        st.sampled_from(["core", "uac_registrant", "pike", "mine", "yours"]),
        st.integers(1, 12),
        min_size=1,
    ),
    st.integers(120, 1500),
    st.sampled_from(sorted(WAYS)),
    st.booleans(),
)
def test_whatever_size_is_refused_nothing_untrue_is_said(sizes, limit, way, held):
    """What is neither partial nor named as a fault is listed in full; nothing is asked twice."""
    peer = Peer(sizes)
    refused = WAYS[way]
    peer.instead = dict.fromkeys(
        ("status", "ids", "reports", "status *", "ids *", "reports *", "get *"),
        lambda said: said if len(said) <= limit else refused(said),
    )
    peer.held = list(sizes) if held else []
    for _ in range(3):
        try:
            snapshot = peer.poll()
        except MiError as error:
            assert error.reason is REASONS[way]  # noqa: PT017 - whether it fails is not the point
            return
        listed = {status.group for status in snapshot.statuses}
        whole = listed - snapshot.partial_groups
        assert {one for one in snapshot.statuses if one.group in whole} == peer.statuses(*whole)
        assert set(snapshot.statuses) <= peer.statuses()
        assert set(snapshot.reports or ()) <= peer.reports()
        unheard = set(sizes) - listed - snapshot.partial_groups
        assert not unheard or any("script's own" in said for _, said in snapshot.faults)
        assert not held or not unheard
        repeated = [one for one in peer.asked if peer.asked.count(one) > 1 and one != "uptime"]
        assert repeated == []


# --- what is said again ---------------------------------------------------------------------


class Known:
    """Implements `Knows`: all that is marked stands, or nothing does."""

    def __init__(self, *, stands: bool) -> None:
        self.stands = stands

    def statuses(self, mark: bytes | None) -> bool:
        return self.stands and mark is not None

    def reports(self, mark: bytes | None) -> bool:
        return self.stands and mark is not None


@pytest.mark.parametrize("alters", [False, True])
@pytest.mark.parametrize("stands", [False, True])
def test_only_what_differs_is_read_if_the_rest_stands_and_else_all(alters, stands):
    """Each identifier once, whether the listing says the same again or a little else."""
    peer = Peer({"big": 40, "core": 1})
    first = peer.poll()
    assert (first.statuses_since, peer.is_whole(first)) == (None, True)
    if alters:
        peer.node.set_status("big", "i7", -5, "gone")
    snapshot = asyncio.run(peer.listing.snapshot(8, peer.held, Known(stands=stands)))
    if not stands:
        assert (snapshot.statuses_since, peer.is_whole(snapshot)) == (None, True)
    else:
        assert snapshot.statuses_since == first.statuses_mark
        assert len(snapshot.statuses) == (8 if alters else 0)
        assert (("i7", -5) in {(one.identifier, one.status) for one in snapshot.statuses}) == alters
        assert (snapshot.statuses_mark == first.statuses_mark) is not alters
