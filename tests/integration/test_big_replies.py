"""Listings too big for their transport: asked in pieces, whole in the end or said to be partial."""

from __future__ import annotations

import json
import tempfile
import time
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from sr_exporter.config import Config, Source
from sr_exporter.mi import places
from sr_exporter.simulator.datagram import SOCKET_BUF_SIZE, MiDatagram
from sr_exporter.simulator.fifo import MiFifo
from sr_exporter.simulator.httpd import MiHttpd
from sr_exporter.simulator.node import SimulatedNode
from sr_exporter.simulator.releases import OPENSIPS_4_0
from sr_exporter.simulator.servers import (
    MiThread,
    cut_over,
    error_over,
    silent_over,
    unspoiled,
)
from sr_exporter.wire import jsonrpc
from sr_exporter.wire.answers import answer
from tests.harness import RunningApp, eventually, series
from tests.recorded_mi import RECORDINGS

if TYPE_CHECKING:
    from collections.abc import Iterator

KINDS = ("http", "udp", "unix", "fifo")
#: What was recorded: `-M 16`, a quarter of which is httpd's `buf_size` (facts, section 7).
BUF_SIZE = 4 * 2**20
REGISTRANTS = "uac_registrant"
OTHERS = {("core", "main"), ("sql_cacher", "carriers"), ("dispatcher", "default")}


def registrant(number: int) -> str:
    """Name a registrant as OpenSIPS does."""
    user = f"sip:user{number:04}"
    aor = f"aor={user}@trunk.example.net"
    return f"{aor};contact={user}@127.0.0.1:5060;registrar=sip:127.0.0.1:5099"


def a_node(registrants: int) -> SimulatedNode:
    node = SimulatedNode(OPENSIPS_4_0)
    node.up = True
    node.started_at = time.time() - 1000
    node.register("core", "main", 1, "running")
    for number in range(registrants):
        node.register(REGISTRANTS, registrant(number), -1, "NOT_REGISTERED_STATE")
        log = "created with state NOT_REGISTERED_STATE\n"
        node.add_report(REGISTRANTS, registrant(number), log, 1_795_378_068)
    node.register("sql_cacher", "carriers", 1, "data available")
    node.register("dispatcher", "default", 1, "data available")
    return node


@dataclass
class World:
    """A server of one kind with many registrants, and what it was asked."""

    kind: str
    folder: Path
    node: SimulatedNode
    more: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.asked: list[tuple[str, ...]] = []
        more = {"on_request": self._note, **self.more}
        match self.kind:
            case "http":
                more = {"buf_size": BUF_SIZE, **more}
                self.server: Any = MiHttpd(self.node, **more)
            case "udp":
                self.server = MiDatagram(self.node, **more)
            case "unix":
                self.server = MiDatagram(self.node, Path(places.gettempdir()) / "mi", **more)
            case _:
                replies = self.folder / "replies"
                replies.mkdir()
                self.server = MiFifo(self.node, self.folder / "mi", replies, **more)

    def _note(self, request: Any) -> None:
        call = json.loads(request if isinstance(request, bytes) else request.body)
        self.asked.append((call["method"], *call.get("params", ())))

    def polls(self) -> int:
        """Count the polls: each ends with the up time, and has it in between at times."""
        return self.asked.count(("uptime",))

    def source(self, url: str, timeout: float = 20.0) -> Config:
        return Config(
            sources=(
                Source(
                    "sip-1",
                    url,
                    poll_interval_seconds=0.1,
                    max_share=1.0,
                    timeout_seconds=timeout,
                ),
            )
        )

    def check_harmless(self) -> None:
        """Two requests, or two connections, at a time are violations too."""
        assert self.server.violations == []


@pytest.fixture(autouse=True)
def own_folder(monkeypatch) -> Iterator[Path]:
    """Keep what is ours for Unix sockets in a folder of the test, with a short name."""
    with tempfile.TemporaryDirectory() as name:
        monkeypatch.setattr(places, "gettempdir", lambda: name)
        yield Path(name)


class Shown:
    """One look at `/metrics`."""

    def __init__(self, app: RunningApp) -> None:
        self._found = app.client.metrics()

    def one(self, name: str, **labels: str) -> float | None:
        found = list(series(self._found, name, source="sip-1", **labels).values())
        return found[0] if found else None

    def identifiers(self, group: str) -> float:
        found = series(self._found, "opensips_sr_identifiers", source="sip-1", group=group)
        return sum(found.values())

    @property
    def keys(self) -> set[tuple[str, str]]:
        found = series(self._found, "opensips_sr_status", source="sip-1")
        return {(dict(key)["group"], dict(key)["identifier"]) for key in found}

    def complete(self, group: str) -> float | None:
        return self.one("opensips_sr_group_complete", group=group)

    def reports(self) -> float:
        return sum(series(self._found, "opensips_sr_reports_total", source="sip-1").values())


def test_registrants_are_named_as_they_were_recorded():
    """What is called big here is as big as in the recordings."""
    recorded = (RECORDINGS / "4.0" / "big" / "N1000-sr_list_identifiers.res").read_bytes()
    assert all(f'"{registrant(n)}"'.encode() in recorded for n in (0, 999))


# --- all of ten thousand --------------------------------------------------------------------


WHOLE = {
    'opensips_sr_identifiers{group="uac_registrant",ready="false",source="sip-1"} 10000.0',
    'opensips_sr_group_complete{group="uac_registrant",source="sip-1"} 1.0',
    'opensips_sr_source_up{source="sip-1"} 1.0',
}


def _lines(app: RunningApp) -> set[str]:
    """Give the lines of an exposition; to parse one of this size takes seconds."""
    return set(app.client.session.get(f"{app.base}/metrics", timeout=20).text.splitlines())


@pytest.mark.parametrize("kind", ["http", "fifo"])
def test_ten_thousand_registrants_come_in_whole(kind, tmp_path):
    """In one answer, over http with the recorded `buf_size`, and over fifo without a limit."""
    world = World(kind, tmp_path, a_node(10_000))
    with (
        MiThread(world.server) as server,
        RunningApp(tmp_path / "data", world.source(server.url)) as app,
    ):
        eventually(lambda: _lines(app) >= WHOLE, within=40, every=0.2)
        lines = _lines(app)
        for family in "status", "last_report_timestamp_seconds":
            found = [one for one in lines if one.startswith(f"opensips_sr_{family}{{")]
            assert sum(f'group="{REGISTRANTS}"' in one for one in found) == 10_000
    asked = {question for (question,) in world.asked}
    assert asked == {"sr_list_status", "sr_list_reports", "uptime", "version"}
    world.check_harmless()


# --- datagrams ------------------------------------------------------------------------------


@cache
def most_listed() -> int:
    """Find how many registrants' names still fit into one datagram."""
    node = a_node(700)
    request = jsonrpc.request("sr_list_identifiers", [REGISTRANTS], request_id=999_999)
    held = node.group(REGISTRANTS)
    assert held is not None
    while len(answer(request, node, node.started_at) or b"") > SOCKET_BUF_SIZE:
        held.held.popitem()
    return len(held.held)


@pytest.mark.parametrize("kind", ["udp", "unix"])
def test_over_datagrams_the_largest_group_that_can_be_listed_comes_in_whole(kind, tmp_path, figure):
    """By the names of its identifiers, and then each of them."""
    size = most_listed()
    figure(f"registrants that come in whole over a default {kind} datagram: {size}")
    assert 600 < size < 660
    world = World(kind, tmp_path, a_node(size))
    with (
        MiThread(world.server) as server,
        RunningApp(tmp_path / "data", world.source(server.url)) as app,
    ):
        eventually(lambda: Shown(app).complete(REGISTRANTS) == 1, within=40, every=0.1)
        shown = Shown(app)
        assert shown.keys == OTHERS | {(REGISTRANTS, registrant(n)) for n in range(size)}
        assert shown.one("opensips_sr_source_up") == 1
        assert all(shown.complete(group) == 1 for group, _ in OTHERS)
        eventually(lambda: Shown(app).reports() == size, within=40, every=0.1)
    assert world.asked.count(("sr_list_status",)) == 1
    assert world.asked.count(("sr_list_status", REGISTRANTS)) == 1
    assert world.asked.count(("sr_list_reports", REGISTRANTS)) == 0
    world.check_harmless()


DATAGRAM = ("fifo", "http", "mi_datagram's socket_buf_size")


@pytest.mark.parametrize(
    ("kind", "more", "remedies"),
    [("udp", {}, DATAGRAM), ("unix", {}, DATAGRAM), ("http", {"buf_size": 65_457}, ["buf_size"])],
    ids=["udp", "unix", "http"],
)
def test_a_larger_group_is_partial_and_the_others_whole(kind, more, remedies, tmp_path):
    """The gauge says so, the last error what to do; nothing of it was ever known."""
    world = World(kind, tmp_path, a_node(most_listed() + 10), more)
    with (
        MiThread(world.server) as server,
        RunningApp(tmp_path / "data", world.source(server.url)) as app,
    ):
        eventually(lambda: Shown(app).complete(REGISTRANTS) == 0, within=40)
        for _ in range(2):
            polls = world.polls()
            eventually(lambda polls=polls: world.polls() > polls + 3)
            shown = Shown(app)
            assert shown.keys == OTHERS
            assert shown.complete(REGISTRANTS) == 0
            assert all(shown.complete(group) == 1 for group, _ in OTHERS)
            assert shown.one("opensips_sr_source_up") == 1
        error = app.app.state.sources["sip-1"].last_error
        assert error is not None
        assert "'uac_registrant'" in error
        assert all(remedy in error for remedy in remedies)
    for question in ("sr_list_status",), ("sr_list_identifiers",):
        assert world.asked.count(question) == 1
        assert world.asked.count((*question, REGISTRANTS)) == 1
    world.check_harmless()


def test_what_was_known_of_a_group_that_grew_too_big_is_kept(tmp_path):
    """Nothing of a partial group is removed."""
    world = World("udp", tmp_path, a_node(300))
    known = {(REGISTRANTS, registrant(n)) for n in range(300)}
    with (
        MiThread(world.server) as server,
        RunningApp(tmp_path / "data", world.source(server.url)) as app,
    ):
        eventually(lambda: Shown(app).keys == OTHERS | known, within=20)

        def grow() -> None:
            for number in range(300, 900):
                world.node.register(REGISTRANTS, registrant(number), 1, "REGISTERED_STATE")

        server.call(grow)
        eventually(lambda: Shown(app).complete(REGISTRANTS) == 0, within=20)
        assert Shown(app).keys == OTHERS | known
        assert Shown(app).one("opensips_sr_source_up") == 1
    world.check_harmless()


# --- every way to refuse, on every transport ------------------------------------------------

#: The statuses of all, the names of all, and the statuses of the registrants are longer.
LIMIT = 800
WAYS = {"500": error_over, "silence": silent_over, "cut": cut_over}
CASES = [(kind, way) for kind in KINDS for way in WAYS] + [("http", "hanging 500")]


@pytest.mark.parametrize(("kind", "way"), CASES)
def test_what_is_refused_above_a_size_comes_in_pieces(kind, way, tmp_path):
    """All of it is heard, what was refused is asked once, and after a restart once more."""
    size = 7
    world = World(kind, tmp_path, a_node(size))
    if way == "hanging 500":
        world.server.buf_size = LIMIT
    else:
        world.server.spoil = WAYS[way](LIMIT)
    with (
        MiThread(world.server) as server,
        RunningApp(tmp_path / "data", world.source(server.url, timeout=0.5)) as app,
    ):
        _is_whole(app, size)
        eventually(lambda: world.polls() > 6)
        _is_whole(app, size)
        assert world.asked.count(("sr_list_status",)) == 1
        assert world.asked.count(("sr_list_status", REGISTRANTS)) == 1
        assert world.asked.count(("sr_get_status", REGISTRANTS, registrant(0))) > 1
        world.server.spoil = unspoiled
        if kind == "http":
            world.server.buf_size = BUF_SIZE
        server.call(lambda: setattr(world.node, "started_at", time.time()))
        eventually(lambda: world.asked.count(("sr_list_status",)) > 1)
        pieces = world.asked.count(("sr_get_status", REGISTRANTS, registrant(0)))
        eventually(lambda: world.asked.count(("sr_list_status",)) > 3)
        assert world.asked.count(("sr_get_status", REGISTRANTS, registrant(0))) == pieces
        _is_whole(app, size)
    world.check_harmless()


def _is_whole(app: RunningApp, size: int) -> None:
    def whole() -> bool:
        shown = Shown(app)
        return (
            shown.one("opensips_sr_source_up") == 1
            and shown.keys == OTHERS | {(REGISTRANTS, registrant(n)) for n in range(size)}
            and all(shown.complete(group) == 1 for group, _ in shown.keys)
            and shown.reports() == size
        )

    eventually(whole, within=30)


def test_an_answer_that_hangs_is_not_waited_for(tmp_path):
    """A 500 over http has a body without an end: it is judged by its first line."""
    world = World("http", tmp_path, a_node(7), {"buf_size": LIMIT})
    with (
        MiThread(world.server) as server,
        RunningApp(tmp_path / "data", world.source(server.url, timeout=60.0)) as app,
    ):
        _is_whole(app, 7)
    world.check_harmless()
