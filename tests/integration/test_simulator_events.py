"""Events of the simulated OpenSIPS: subscribed over every interface, sent as recorded."""

from __future__ import annotations

import itertools
import re
import tempfile
from pathlib import Path

import pytest

from sr_exporter.simulator.events import Events
from sr_exporter.simulator.instance import Instance
from sr_exporter.simulator.node import SimulatedNode
from sr_exporter.simulator.releases import OPENSIPS_3_6, OPENSIPS_4_0
from sr_exporter.simulator.servers import MiThread
from sr_exporter.wire import events as wire
from sr_exporter.wire import jsonrpc
from sr_exporter.wire.answers import answer
from sr_exporter.wire.events import EVENT, event
from sr_exporter.wire.framing import Objects
from tests.harness import eventually
from tests.listeners import Datagrams, Posts, Stream
from tests.mi_asking import ask
from tests.recorded_events import logs, posts, reads
from tests.recorded_mi import RECORDINGS, recorded_node
from tests.simulated import KINDS, mi_server


class Clock:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.now = 1_000_000.5

    def __call__(self) -> float:
        return self.now


class Sip:
    """One simulated server with events, in a thread; `with` runs it."""

    def __init__(self, kind: str = "http", release=OPENSIPS_4_0, folder=None, **more) -> None:
        self.clock = Clock()
        self.node = SimulatedNode(release)
        self.events = Events(self.node, clock=self.clock, **more)
        given = {"clock": self.clock, "commands": self.events.commands}
        server = self.server = mi_server(kind, self.node, folder, **given)
        self.thread = MiThread(Instance(self.node, server, self.events, clock=self.clock))

    def __enter__(self):
        self.thread.__enter__()
        self.url = self.thread.url
        return self

    def __exit__(self, *error: object) -> None:
        self.thread.__exit__(*error)

    def subscribe(self, socket: str, *more: str, method: str = "event_subscribe") -> object:
        return ask(self.url, method, EVENT, socket, *more)

    def turn(self, status: int, details: str | None = None, group: str = "alarms") -> bytes:
        """Change a status; give what is to be heard of it, in a datagram."""

        def act() -> bytes:
            if self.node.group(group) is None:
                self.node.register(group)
            old = self.node.group(group).identifier("main").status
            assert self.node.set_status(group, "main", status, details)
            return wire.notification(wire.EventParams(group, "main", status, old, details))

        return self.thread.call(act)


@pytest.fixture
def folder():
    """A folder whose name leaves room for that of a socket."""
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


# --- subscribing ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("release", "method"),
    [
        (OPENSIPS_3_6, "event_subscribe"),
        (OPENSIPS_4_0, "event_subscribe"),
        (OPENSIPS_4_0, "evi:subscribe"),
    ],
)
@pytest.mark.parametrize("kind", KINDS)
def test_an_event_reaches_who_subscribed_over_any_interface(kind, release, method, folder):
    """By the names of the release; the change is told at once, and again after the next."""
    with Sip(kind, release, folder) as sip, Datagrams() as listener:
        assert sip.subscribe(listener.address, method=method) == "OK"
        expected = sip.turn(-1, "trunk down") + sip.turn(1)
        listener.hears(expected)
    assert sip.events.failures == []


@pytest.mark.parametrize("kind", KINDS)
def test_the_new_name_is_unknown_to_an_old_release(kind, folder):
    """-32601, as any other unknown one."""
    with Sip(kind, OPENSIPS_3_6, folder) as sip, pytest.raises(jsonrpc.RpcError, match="-32601"):
        sip.subscribe("udp:127.0.0.1:1", method="evi:subscribe")


_RECORDED = re.compile(r"^(event_subscribe) ([\[{].*[\]}]) -> (\{.*\})$", re.MULTILINE)


@pytest.mark.parametrize("version", ["4.0", "master"])
def test_every_recorded_subscription_is_answered_as_recorded(version):
    """Renewals, every bad value, a port over 65535, sockets that nobody listens at."""
    text = (RECORDINGS / version / "escaping" / "T2.txt").read_bytes().decode("utf-8", "replace")
    pairs = _RECORDED.findall(text)
    assert len(pairs) == 20
    node = recorded_node(version)
    commands = Events(node).commands
    for method, params, expected in pairs:
        request = f'{{"jsonrpc":"2.0","method":"{method}","params":{params},"id":1}}'
        assert answer(request.encode(), node, 1.0, commands) == expected.encode(), params
    short = '{"jsonrpc":"2.0","method":"subscribe","params":["E","udp:127.0.0.1:9"],"id":1}'
    short = short.replace('"E"', f'"{EVENT}"')
    assert answer(short.encode(), node, 1.0, commands) == b'{"jsonrpc":"2.0","result":"OK","id":1}'


def test_nothing_but_a_simulator_can_be_subscribed_to():
    """Answers without its commands know no `event_subscribe`: the exporter's will not, either."""
    request = b'{"jsonrpc":"2.0","method":"event_subscribe","id":1}'
    for version in ("3.6", "4.0"):
        assert b"Method not found" in answer(request, recorded_node(version), 1.0)


def test_the_same_socket_again_is_a_renewal():
    """One copy, with the new expiry; another method name is another subscription."""
    with Sip() as sip, Stream() as listener:
        sip.subscribe(f"{listener.address}/sip-1", "100")
        sip.clock.now += 10
        sip.subscribe(f"tcp:127.0.0.1:{listener.port + 65536}/sip-1", "50")
        sip.subscribe(f"{listener.address}/other", "20")
        sockets = sip.thread.call(lambda: sip.events.subscriptions.live(sip.clock.now))
        assert [(one.port, one.method) for one in sockets] == [
            (listener.port, "other"),
            (listener.port, "sip-1"),
        ]
        sip.turn(-1)
        eventually(lambda: len(listener.objects()) == 2)
        assert [event(one).method for one in listener.objects()] == ["other", "sip-1"]
        sip.clock.now += 21
        sip.turn(1)
        eventually(lambda: len(listener.objects()) == 3)
        sip.clock.now += 29
        assert len(sip.thread.call(lambda: sip.events.subscriptions.live(sip.clock.now))) == 1
        sip.clock.now += 1
        sip.turn(-1)
        assert sip.thread.call(lambda: sip.events.subscriptions.live(sip.clock.now)) == []
        assert [event(one).method for one in listener.objects()] == ["other", "sip-1", "sip-1"]
        assert listener.connections == 1


def test_an_expiry_of_0_lasts_to_the_end_of_the_second():
    """How a subscription is ended: there is no other way."""
    with Sip() as sip, Datagrams() as listener:
        sip.subscribe(listener.address)
        sip.subscribe(listener.address, "0")
        sip.clock.now += 0.4
        expected = sip.turn(-1)
        listener.hears(expected)
        sip.clock.now += 0.1
        sip.turn(1)
        assert sip.events.sent == 1


def test_without_an_expiry_it_is_an_hour():
    """3600 s, to the second."""
    with Sip() as sip, Datagrams() as listener:
        sip.subscribe(listener.address)
        sip.clock.now += 3600
        expected = sip.turn(-1)
        listener.hears(expected)
        sip.clock.now += 1
        sip.turn(1)
        assert sip.events.sent == 1


def test_what_the_script_subscribed_is_there_after_a_restart_and_nothing_else():
    """Rings, up time and subscriptions over the Management Interface are gone."""
    with Datagrams() as script, Datagrams() as other, Sip(script=[script.address]) as sip:
        sip.subscribe(other.address)
        expected = sip.turn(-1)
        other.hears(expected)
        script.hears(expected)
        url, sip.clock.now = sip.url, sip.clock.now + 10
        sip.thread.refuse()
        sip.thread.listen()
        assert sip.thread.url == url
        assert ask(url, "uptime")["Up time"] == "0 [sec]"
        assert len(ask(url, "sr_list_reports", "core", "main")) == 2
        expected += sip.turn(-1)
        script.hears(expected)
        assert sip.events.sent == 3
        assert sip.subscribe(script.address, "5") == "OK"
        sip.clock.now += 6
        sip.turn(1)
        assert sip.events.sent == 3


# --- sending --------------------------------------------------------------------------------


@pytest.mark.parametrize("path", logs("tcp"), ids=lambda path: "/".join(path.parts[-3:-1]))
def test_a_stream_is_that_of_a_real_server(path):
    """The recorded changes, made again, give the recorded bytes on one connection, ids too.

    Of the many processes that raised the recorded ones, the simulator has two.
    """
    ids = itertools.count(804_123_421, -4)
    expected = re.sub(rb'(?<=\{"id":)\d\d+', lambda _: b"%d" % next(ids), b"".join(reads(path)))
    reliable = path.parts[-2] == "events-reliable"
    with Stream() as listener, Sip(reliable=reliable) as sip:
        sip.subscribe(listener.address)
        _again(sip, Objects(65_536).feed(expected))
        listener.hears(expected)
    assert listener.connections == 1


@pytest.mark.parametrize("transport", ["udp", "unix"])
@pytest.mark.parametrize("version", ["3.6", "4.0", "master"])
def test_datagrams_are_those_of_a_real_server(version, transport, folder):
    """One for each change. Those of `core` are lost, in all versions."""
    path = RECORDINGS / version / "events" / f"ev-{transport}.log"
    expected = reads(path)
    with Datagrams(folder / "ev" if transport == "unix" else None) as listener, Sip() as sip:
        sip.subscribe(listener.address)
        for data in expected:
            _again(sip, [data])
            eventually(lambda data=data: listener.reads[-1:] == [data])
        assert sip.thread.call(lambda: sip.node.set_status("core", "main", -2, "shutting down"))
        assert "Socket operation on non-socket" in sip.events.failures[-1]
    assert listener.reads == expected


@pytest.mark.parametrize("path", posts(), ids=lambda path: "/".join(path.parts[-3:-1]))
def test_posts_are_those_of_a_real_server(path):
    """Head and body, byte for byte but for the port."""
    expected = reads(path)
    with Posts() as listener, Sip(post_to=listener.url) as sip:
        eventually(lambda: listener.reads)  # core is running
        sip.thread.call(lambda: setattr(sip.events, "holding", True))
        _again(sip, [_as_event(read.partition(b"\r\n\r\n")[2]) for read in expected])
        sip.thread.call(sip.events.deliver)
        eventually(lambda: sip.events.sent == 1 + len(expected), within=30)
    host = b"Host: 127.0.0.1:%d" % listener.port
    assert listener.reads[1:] == [read.replace(b"Host: 127.0.0.1:9999", host) for read in expected]
    assert sip.events.failures == []


def _as_event(body: bytes) -> bytes:
    return b'{"jsonrpc":"2.0","method":"E_CORE_SR_STATUS_CHANGED","params":%s}' % body


def _again(sip: Sip, events: list[bytes]) -> None:
    """Make the changes that these tell of."""

    def act() -> None:
        for data in events:
            said = event(data).params
            group = sip.node.group(said.group)
            if group is None or group.identifier(said.identifier) is None:
                sip.node.register(said.group, said.identifier)
            # What came between was not sent here: a recording may begin or go on anywhere.
            sip.node.group(said.group).identifier(said.identifier).status = said.old_status
            assert sip.node.set_status(said.group, said.identifier, said.status, said.details)

    sip.thread.call(act)


def test_answers_are_awaited_in_reliable_mode():
    """An answer with the id of an event is its; who sends none is sent the next all the same."""
    answers = b'{"jsonrpc":"2.0","result":"OK","id":804123421}'
    with Stream(answer=answers) as listener, Sip(reliable=True) as sip:
        sip.subscribe(listener.address)
        sip.turn(-1)
        eventually(lambda: listener.reads and not sip.events.unanswered)
        sip.turn(1)
        eventually(lambda: len(listener.objects()) == 2)
        assert [event(one).id for one in listener.objects()] == [804_123_421, 804_123_417]
        assert sip.events.unanswered == [804_123_417]


def test_the_event_is_named_in_a_parameter_where_it_is_set():
    """`event_param`, together with a method of the subscriber's."""
    with Sip(event_param="event") as sip, Stream() as listener:
        sip.subscribe(f"{listener.address}/sip-1")
        sip.turn(-1)
        eventually(lambda: listener.heard)
        assert b'"method":"sip-1","params":{"event":"E_CORE_SR_STATUS_CHANGED","group"' in (
            listener.heard
        )


def test_what_nobody_hears_is_lost_and_the_next_event_connects_again():
    """No replay; the Management Interface does not notice."""
    with Sip() as sip:
        with Stream() as listener:
            sip.subscribe(listener.address)
            listener.hears(sip.turn(-1))
        eventually(lambda: sip.thread.call(lambda: not sip.events._streams))
        sip.turn(-2)
        eventually(lambda: len(sip.events.failures) == 1)
        with Stream(listener.port) as back:
            back.hears(sip.turn(1))
        eventually(lambda: sip.events.sent == 2)  # it is noted after it was heard


@pytest.mark.parametrize("transport", ["udp", "unix", "post"])
def test_a_listener_that_is_not_there_harms_nobody(transport, folder):
    """What cannot be sent is written down, and only that."""
    given = {"post_to": "http://127.0.0.1:1/"} if transport == "post" else {}
    with Sip(**given) as sip:
        if transport == "unix":
            assert sip.subscribe("unix:/nonexistent/x") == "OK"
        elif transport == "udp":
            assert sip.subscribe("udp:127.0.0.1:1") == "OK"
        sip.turn(-1)
        if transport != "udp":  # nobody tells who is not connected
            eventually(lambda: sip.events.failures)
        assert ask(sip.url, "sr_get_status", "alarms")["Status"] == -1


# --- on demand ------------------------------------------------------------------------------


@pytest.mark.parametrize(("order", "statuses"), [((), [-1, 2, 1]), ((2, 0), [1, -1]), ((1,), [2])])
def test_events_are_late_inverted_or_lost_on_demand(order, statuses):
    """Whoever runs the server decides, over a stream and over rest_post."""
    with Stream() as listener, Posts() as script, Sip(post_to=script.url) as sip:
        eventually(lambda: script.reads)
        sip.subscribe(listener.address)
        sip.thread.call(lambda: setattr(sip.events, "holding", True))
        for status in (-1, 2, 1):
            sip.turn(status)
        assert listener.reads == []
        assert len(sip.events.held) == 6
        both = [which for index in order for which in (2 * index, 2 * index + 1)]
        sip.thread.call(lambda: sip.events.deliver(*both))
        eventually(lambda: len(script.reads) == 1 + len(statuses))
        eventually(lambda: len(listener.objects()) == len(statuses))
        assert [event(one).params.status for one in listener.objects()] == statuses
        bodies = [read.partition(b"\r\n\r\n")[2] for read in script.reads[1:]]
        assert [event(_as_event(body)).params.status for body in bodies] == statuses
        assert sip.events.held == []


def test_all_that_is_held_can_be_lost():
    """The next event tells of a change that nobody was told the begin of."""
    with Stream() as listener, Sip() as sip:
        sip.subscribe(listener.address)
        sip.thread.call(lambda: setattr(sip.events, "holding", True))
        sip.turn(-1)
        sip.thread.call(sip.events.lose)
        sip.thread.call(lambda: setattr(sip.events, "holding", False))
        sip.turn(1)
        eventually(lambda: listener.reads)
        assert event(listener.heard).params.old_status == -1


def test_only_the_number_of_a_status_is_an_event():
    """Other details, or a report, are none."""
    with Sip() as sip, Datagrams() as listener:
        sip.subscribe(listener.address)
        expected = sip.turn(-1, "trunk down")
        assert not sip.thread.call(lambda: sip.node.set_status("alarms", "main", -1, "other"))
        sip.thread.call(lambda: sip.node.add_report("alarms", "main", "said", 1))
        expected += sip.turn(1)
        listener.hears(expected)
        assert len(listener.reads) == 2
