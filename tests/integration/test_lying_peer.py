"""A source whose every answer is HTTP, and a lie: what is shown stays true, or is not shown."""

from __future__ import annotations

import contextlib
import json
import time
from typing import TYPE_CHECKING, Any

import pytest

from sr_exporter.model import PollFailure
from sr_exporter.simulator.httpd import MiHttpd
from sr_exporter.simulator.node import SimulatedNode
from sr_exporter.simulator.releases import OPENSIPS_4_0
from sr_exporter.simulator.replies import reply_to
from sr_exporter.simulator.requests import RequestReader
from sr_exporter.simulator.servers import MiThread
from tests.harness import RunningApp, eventually, series
from tests.peer import Peer

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Iterator

pytestmark = pytest.mark.once

UP, CHANGES = "opensips_sr_source_up", "opensips_sr_status_changes_total"
PAGES = ("/", "/api/v1/status", "/api/v1/reports", "/api/v1/sources", "/api/v2/alerts", "/metrics")


def said(answer: dict[str, Any]) -> bytes:
    return json.dumps(answer).encode()


def in_place(old: bytes, new: bytes) -> Callable[[dict[str, Any]], bytes]:
    """Have something else stand where an honest answer has something."""
    return lambda answer: said(answer).replace(old, new)


def at_first(change: Callable[[dict[str, Any]], object]) -> Callable[[dict[str, Any]], bytes]:
    """Have the first identifier that is listed be changed, if this is a listing."""

    def lie(answer: dict[str, Any]) -> bytes:
        if isinstance(answer["result"], list):
            change(answer["result"][0]["Identifiers"][0])
        return said(answer)

    return lie


def times(stamp: object) -> Callable[[dict[str, Any]], bytes]:
    """Have every report be of such a time."""

    def change(identifier: dict[str, Any]) -> None:
        for report in identifier.get("Reports", ()):
            report["Timestamp"] = stamp

    return at_first(change)


def status(told: object) -> Callable[[dict[str, Any]], bytes]:
    def change(identifier: dict[str, Any]) -> None:
        if "Status" in identifier:
            identifier["Status"] = told

    return at_first(change)


def uptime(told: object) -> Callable[[dict[str, Any]], bytes]:
    def lie(answer: dict[str, Any]) -> bytes:
        if "Up time" in answer["result"]:
            answer["result"]["Up time"] = told
        return said(answer)

    return lie


#: What is a lie that is seen to be one: the source is down, for a reason that is told.
SEEN = {
    "another's id": lambda answer: said({**answer, "id": 10**30}),
    "an id that is a text": lambda answer: said({**answer, "id": "1"}),
    "no result": lambda answer: said({"jsonrpc": "2.0", "id": answer["id"]}),
    "a result that is a number": lambda answer: said({**answer, "result": 7}),
    "a result that is its own opposite": lambda answer: said({**answer, "error": {"code": 1}}),
    "an error of no form": lambda answer: said({"jsonrpc": "2.0", "id": 1, "error": [None]}),
    "a status that is no number": in_place(b'"Status": 1', b'"Status": NaN'),
    "an answer to another question": lambda answer: said({**answer, "result": {"Server": "x"}}),
    "brackets without end": lambda _: b"[" * 100_000,
    "an array of answers": lambda answer: said(answer).join((b"[", b"]")),
    "nothing": lambda _: b"",
    "a page": lambda _: b"<html>it works</html>",
}
#: What may be so for all that can be told, or is left out: the source stays up.
BORNE = {
    "a status beyond all bounds": status(10**400),
    "a status beyond int32": status(2**31),
    "a status that is a float": status(1e300),
    "a status that is a text": status("1"),
    "groups nobody asked for": in_place(b'"Name": "core"', b'"Name": "CORE", "Extra": {}'),
    "the same identifier twice": lambda answer: said(_twice(answer)),
    "a key twice": in_place(b'"Status": 1', b'"Status": -1, "Status": 1'),
    "reports of a time long after the end": times(10**18),
    "reports of before all time": times(-(10**18)),
    "an up time that is negative": uptime("-5 [sec]"),
    "an up time that is no number": uptime("NaN [sec]"),
    "an up time beyond all bounds": uptime("9" * 300 + " [sec]"),
    "a name of a megabyte": at_first(lambda one: one.update(Name="n" * 2**20)),
    "a name that is markup": at_first(lambda one: one.update(Name='"}\n<script>x</script>\x00')),
}


def _twice(answer: dict[str, Any]) -> dict[str, Any]:
    if isinstance(answer["result"], list):
        group = answer["result"][0]
        group["Identifiers"] += group["Identifiers"]
    return answer


class Liar:
    """Answers as an OpenSIPS 4.0 would, through `lie`; None: honestly."""

    def __init__(self) -> None:
        self._node = SimulatedNode(OPENSIPS_4_0)
        self._node.start(time.time() - 1000)
        self._node.initialized(time.time() - 999)
        self._node.register("script", "steady")
        self.lie: Callable[[dict[str, Any]], bytes] | None = None
        self.told = 0

    def __call__(self, peer: Peer, connection: socket.socket) -> None:
        reader = RequestReader(limit=1024)
        while not peer.over.is_set() and (data := connection.recv(65536)):
            reader.feed(data)
            while (request := reader.next_request()) is not None:
                honest = reply_to(request, self._node, time.time())
                assert honest is not None
                body = honest.body or b""
                if self.lie is not None:
                    body = self.lie(json.loads(body))
                    self.told += 1
                head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
                length = b"Content-Length: %d\r\n\r\n" % len(body)
                connection.sendall(head + length + body)


class World:
    """A liar and an honest source, and the exporter that polls both."""

    def __init__(self, app: RunningApp, liar: Liar) -> None:
        self.app = app
        self.liar = liar

    def up(self) -> dict[str, float]:
        found = series(self.app.client.metrics(), UP)
        return {dict(labels)["source"]: value for labels, value in found.items()}

    def tell(self, name: str, lie: Callable[[dict[str, Any]], bytes], *, seen: bool) -> list[int]:
        """Have it lie until that is seen, or was borne for a poll; gives what pages answer then."""
        told = self.liar.told
        self.liar.lie = lie
        eventually(lambda: self.liar.told >= told + (1 if seen else 5), within=20)
        if seen:
            eventually(lambda: self.up()["liar"] == 0, within=20)
        assert self.up() == {"liar": float(not seen), "honest": 1.0}, name
        return [
            self.app.client.session.get(self.app.base + page, timeout=10).status_code
            for page in PAGES
        ]

    def be_honest(self) -> None:
        self.liar.lie = None
        told = series(self.app.client.metrics(), "opensips_sr_poll_failures_total", source="liar")
        assert {dict(labels)["reason"] for labels in told} == set(PollFailure)
        # It is asked less and less often; a reload asks anew.
        assert self.app.client.reload().ok
        eventually(lambda: self.up()["liar"] == 1, within=70)


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> Iterator[World]:
    folder, liar = tmp_path_factory.mktemp("lying"), Liar()
    node = SimulatedNode(OPENSIPS_4_0)
    node.start(time.time())
    with contextlib.ExitStack() as stack:
        httpd = stack.enter_context(MiThread(MiHttpd(node)))
        peer = Peer(liar)
        stack.callback(peer.close)
        config = folder / "sr.yml"
        config.write_text(
            "defaults: {poll_interval: 100ms, max_share: 1, timeout: 2s}\n"
            f"sources: [{{name: liar, mi: 'http://127.0.0.1:{peer.port}/mi'}},"
            f" {{name: honest, mi: '{httpd.url}'}}]\n"
        )
        app = stack.enter_context(RunningApp(folder / "data", config_file=config))
        made = World(app, liar)
        eventually(lambda: set(made.up().values()) == {1.0})
        yield made


def test_a_lie_that_is_seen_makes_the_source_be_down(world, figure):
    """Nobody else is, nothing of it is removed, and it is believed again once it is honest."""
    before = world.app.client.metrics()
    answers = set()
    for name, lie in SEEN.items():
        answers |= set(world.tell(name, lie, seen=True))
        assert answers == {200}, name
        world.be_honest()
    after = world.app.client.metrics()
    turns = series(before, CHANGES, source="liar")
    assert turns
    assert series(after, CHANGES, source="liar") == turns
    figure(f"lies that were seen: {len(SEEN)}; pages answered {answers}, statuses that turned: 0")


def test_a_lie_that_may_be_true_harms_nobody(world, figure):
    """What cannot be held is left out; the rest of the answer counts, and all pages are there."""
    answers = set()
    for name, lie in BORNE.items():
        answers |= set(world.tell(name, lie, seen=False))
        assert answers == {200}, name
    world.liar.lie = None
    figure(f"lies that were borne: {len(BORNE)}; pages answered {answers}")
