"""The whole exporter and simulated servers that send it events: subscribed, killed, left."""

from __future__ import annotations

import dataclasses
import json
import tempfile
import time
from collections import Counter
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from sr_exporter.config import Config, Endpoint, Events, Source, Subscribe
from sr_exporter.simulator.events import Events as Raised
from sr_exporter.simulator.instance import Instance
from sr_exporter.simulator.node import Planned, SimulatedNode
from sr_exporter.simulator.releases import OPENSIPS_3_6, OPENSIPS_4_0
from sr_exporter.simulator.servers import MiThread
from sr_exporter.simulator.subscriptions import parse_socket
from tests.harness import RunningApp, eventually, free_port, series
from tests.simulated import KINDS, mi_server

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sr_exporter.simulator.requests import Request


#: Polled once, and then not before the test is over.
SELDOM = 3600.0
CARRIERS = ("sql_cacher", "carriers")


@pytest.fixture
def folder():
    """A folder whose name leaves room for that of a socket."""
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


class Sip:
    """A simulated OpenSIPS in a thread."""

    def __init__(
        self, kind: str, folder: Path, release=OPENSIPS_4_0, *, knows_events: bool = True, **raised
    ) -> None:
        self.node = SimulatedNode(release, (Planned(*CARRIERS),))
        self.raised = Raised(self.node, **raised)
        self.asked: Counter[str] = Counter()
        given = {"commands": self.raised.commands} if knows_events else {}
        given["on_request"] = self._count
        server = self.server = mi_server(kind, self.node, folder, **given)
        self.thread = MiThread(Instance(self.node, server, self.raised, boot=self._boot))

    def _count(self, request: bytes | Request) -> None:
        body = request if isinstance(request, bytes) else request.body
        self.asked[json.loads(body)["method"]] += 1

    @staticmethod
    def _boot(node: SimulatedNode, now: float) -> None:
        node.initialized(now)
        node.begin_load(*CARRIERS, now)
        node.finish_load(*CARRIERS, "1 records loaded", now)

    def __enter__(self):
        self.thread.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self.thread.__exit__(*error)

    def turn(self, status: int, details: str | None = None, key=CARRIERS) -> None:
        self.thread.call(lambda: self.node.set_status(*key, status, details))

    def subscribers(self) -> list[str]:
        live = self.thread.call(lambda: self.raised.subscriptions.live(time.time()))
        return [f"{one.protocol}:{one.host}:{one.port}/{one.method}" for one in live]


def _config(*sources: Source, **events) -> Config:
    stream = Endpoint("127.0.0.1", free_port())
    return Config(sources=sources, events=Events(stream=stream, advertise=stream, **events))


def _source(sip: Sip, name: str = "sip-1", **more) -> Source:
    said = {"poll_interval_seconds": SELDOM, "max_share": 1.0, "subscribe": Subscribe.TCP} | more
    return Source(name, sip.thread.url, **said)


def _statuses(app: RunningApp, family: str = "opensips_sr_status") -> dict[str, float]:
    found = series(app.client.metrics(), family, source="sip-1")
    return {dict(labels).get("group", ""): value for labels, value in found.items()}


def _events(app: RunningApp, transport: str = "tcp", source: str = "sip-1") -> float:
    found = series(
        app.client.metrics(), "opensips_sr_events_total", source=source, transport=transport
    )
    return sum(found.values())


def _source_of(app: RunningApp, name: str = "sip-1") -> dict:
    answer = app.client.session.get(f"{app.base}/api/v1/sources?source={name}", timeout=10)
    assert answer.status_code == 200
    (item,) = answer.json()["items"]
    return item


@contextmanager
def _changing(app: RunningApp) -> Iterator[Callable[[Config], None]]:
    """Reload what the test says."""
    configs: list[Config] = []

    def reload(config: Config) -> None:
        configs.append(config)
        answer = app.client.reload()
        assert answer.status_code == 200, answer.text

    app.read_config = lambda: configs[-1]
    yield reload


@pytest.mark.parametrize("release", [OPENSIPS_3_6, OPENSIPS_4_0], ids=["3.6", "4.0"])
@pytest.mark.parametrize("kind", KINDS)
def test_what_changes_is_shown_before_any_poll(kind, release, folder, tmp_path):
    """Subscribed over any interface; the method name says whose the event is."""
    with Sip(kind, folder, release) as sip:
        config = _config(_source(sip))
        socket = f"tcp:127.0.0.1:{config.events.advertise.port}/sip-1"
        with RunningApp(tmp_path, config) as app:
            eventually(lambda: sip.subscribers() == [socket])
            eventually(lambda: _source_of(app)["subscription"]["expires"])
            shown = _source_of(app)["subscription"]
            assert (shown["socket"], shown["error"]) == (socket, None)
            assert 100 < shown["expires"] - time.time() < 121
            assert _events(app) == 0
            assert _statuses(app, "opensips_sr_source_subscribed") == {"": 1}
            sip.turn(-1, "trunk down")
            eventually(lambda: _statuses(app) == {"core": 1, "sql_cacher": -1})
            sip.turn(1)
            eventually(lambda: _statuses(app) == {"core": 1, "sql_cacher": 1})
            assert _statuses(app, "opensips_sr_status_changes_total")["sql_cacher"] == 2
            assert _events(app) == 2
            assert _source_of(app)["up"] is True
        # It lasts for the rest of the second (facts on OpenSIPS, section 2).
        eventually(lambda: sip.subscribers() == [])
        assert sip.raised.failures == []


def test_each_event_twice_is_each_change_once(folder, tmp_path):
    """Unfixed servers take a renewal for another subscription (OpenSIPS issue 4169)."""
    with Sip("http", folder, knows_named=False) as sip:
        config = _config(_source(sip))
        with RunningApp(tmp_path, config) as app:
            (address,) = eventually(sip.subscribers)
            again = parse_socket(address)
            sip.thread.call(lambda: sip.raised.subscriptions.subscribe(again, 120, time.time()))
            assert sip.subscribers() == [address] * 2
            for status in (-1, 1, -2, 1):
                sip.turn(status)
            eventually(lambda: _events(app) == 8)
            assert _statuses(app) == {"core": 1, "sql_cacher": 1}
            assert _statuses(app, "opensips_sr_status_changes_total")["sql_cacher"] == 4


def test_a_pair_out_of_order_is_asked_about(folder, tmp_path):
    """The truth is shown again without a poll (rule 8)."""
    with Sip("http", folder) as sip, RunningApp(tmp_path, _config(_source(sip))) as app:
        eventually(sip.subscribers)
        sip.thread.call(lambda: setattr(sip.raised, "holding", True))
        sip.turn(-1)
        sip.turn(1)
        sip.thread.call(lambda: sip.raised.deliver(1, 0))
        eventually(lambda: _events(app) == 2)
        eventually(lambda: _statuses(app)["sql_cacher"] == 1)
        assert sip.asked["sr_get_status"] == 1
        assert _statuses(app, "opensips_sr_status_changes_total")["sql_cacher"] == 2


def test_killed_and_restarted_it_is_subscribed_and_right_within_an_interval(
    folder, tmp_path, figure
):
    """No report counts twice, and no counter falls, over many lives."""
    interval = 1.0
    with Sip("http", folder) as sip:
        config = _config(_source(sip, poll_interval_seconds=interval))
        with RunningApp(tmp_path, config) as app:
            eventually(sip.subscribers)
            made, slowest, before = 3, 0.0, {}
            for life in range(1, 8):
                # Up times are whole seconds: this life has lasted.
                sip.thread.call(lambda: setattr(sip.node, "started_at", time.time() - 1000))
                eventually(lambda: _source_of(app)["start_time"] < time.time() - 900)
                sip.turn(-life - 1, f"life {life}")
                eventually(lambda: _statuses(app)["sql_cacher"] < -1)
                sip.thread.refuse()
                sip.thread.listen()
                began = time.monotonic()
                eventually(lambda: _right(app, sip), within=2 * interval + 2)
                slowest = max(slowest, time.monotonic() - began)
                made += 3
                total = _statuses(app, "opensips_sr_reports_total")["sql_cacher"]
                assert total <= made, "a report counted twice"
                now = _counters(app)
                assert all(now[key] >= value for key, value in before.items()), "a counter fell"
                before = now
            figure(
                f"killed and restarted: 7 times, subscribed and right after {slowest:.2f} s at"
                f" most, at an interval of {interval:g} s; {total:g} of {made} reports counted"
            )
            assert total == made
            assert slowest < interval + 0.5


def _right(app: RunningApp, sip: Sip) -> bool:
    return bool(sip.subscribers()) and _statuses(app) == {"core": 1, "sql_cacher": 1}


def _counters(app: RunningApp) -> dict:
    found = app.client.metrics()
    return {
        (name, labels): value
        for (name, labels), value in found.items()
        if name.endswith("_total") and ("source", "sip-1") in labels
    }


def test_a_source_that_refuses_is_polled_all_the_same(folder, tmp_path):
    """One without event_stream says so; that is shown, and nothing else suffers."""
    sip = Sip("http", folder, knows_events=False)
    with sip, RunningApp(tmp_path, _config(_source(sip))) as app:
        error = eventually(lambda: _source_of(app)["subscription"]["error"])
        assert "event_subscribe" in error
        assert _source_of(app)["subscription"]["expires"] is None
        assert _source_of(app)["up"] is True
        assert _statuses(app, "opensips_sr_source_subscribed") == {"": 0}
        page = app.client.session.get(app.base, timeout=10).text
        assert "not subscribed to its events: it knows neither event_subscribe nor" in page


def test_a_reload_subscribes_and_ends_subscriptions(folder, tmp_path):
    """Taken in, left alone, moved to another listener, and taken out."""
    with (
        Sip("http", folder) as sip,
        RunningApp(tmp_path, Config()) as app,
        _changing(app) as reload,
    ):
        none = _config(_source(sip, subscribe=Subscribe.NONE))
        reload(none)
        eventually(lambda: _source_of(app)["up"])
        assert _source_of(app)["subscription"] is None
        wanted = dataclasses.replace(none, sources=(_source(sip),))
        reload(wanted)
        (first,) = eventually(sip.subscribers)
        others = Events(
            stream=wanted.events.stream,
            advertise=wanted.events.advertise,
            peers=(("192.0.2.1", "x"),),
        )
        reload(dataclasses.replace(wanted, events=others))
        assert sip.asked["event_subscribe"] == 1, "who is configured as before stays"
        moved = _config(_source(sip))
        reload(moved)
        eventually(lambda: len(sip.subscribers()) == 1 and sip.subscribers() != [first])
        sip.turn(-1)
        eventually(lambda: _statuses(app)["sql_cacher"] == -1)
        reload(Config())
        eventually(lambda: sip.subscribers() == [])
        assert series(app.client.metrics(), "opensips_sr_events_total", source="sip-1") == {}


def test_a_listener_that_cannot_be_had_changes_nothing(folder, tmp_path):
    """The reload is refused with the place of the fault, and all goes on as before."""
    with Sip("http", folder) as sip, RunningApp(tmp_path, _config(_source(sip))) as app:
        eventually(sip.subscribers)
        taken = Endpoint("127.0.0.1", app.port)
        app.read_config = lambda: Config(events=Events(stream=taken, advertise=taken))
        answer = app.client.reload()
        assert answer.status_code == 400
        assert "events.stream.listen" in answer.json()["error"]
        sip.turn(-1)
        eventually(lambda: _statuses(app)["sql_cacher"] == -1)


@pytest.mark.parametrize("way", ["udp", "unix"])
def test_a_source_that_only_sends_is_shown_when_it_is_heard(way, folder, tmp_path):
    """After our restart its keys are not shown before: they may have changed (rule 7)."""
    path = str(folder / "events")
    datagram = Endpoint("127.0.0.1", free_port())
    to = {"udp": f"udp:{datagram}", "unix": f"unix:{path}"}[way]
    config = {
        "udp": Config(events=Events(datagram=datagram, peers=(("127.0.0.1", "sip-1"),))),
        "unix": Config(events=Events(unix=((path, "sip-1"),))),
    }[way]
    with Sip("http", folder, script=[to]) as sip:
        with RunningApp(tmp_path, config) as app:
            assert _source_of(app)["kind"] == "event"
            sip.turn(-1)
            eventually(lambda: _statuses(app) == {"sql_cacher": -1})
            sip.turn(2)
            eventually(lambda: _statuses(app) == {"sql_cacher": 2})
            assert _events(app, way) == 2
            assert _statuses(app, "opensips_sr_source_up") == {}
        with RunningApp(tmp_path, config) as app:
            assert _source_of(app)["stale"] is True
            assert _statuses(app) == {}
            assert "not heard yet" in app.client.session.get(app.base, timeout=10).text
            sip.turn(-2)
            eventually(lambda: _statuses(app) == {"sql_cacher": -2})
            assert _source_of(app)["stale"] is False
            assert "sends events" in app.client.session.get(app.base, timeout=10).text
            assert _statuses(app, "opensips_sr_status_changes_total")["sql_cacher"] == 2
        with RunningApp(tmp_path, Config()) as app:
            sources = app.client.session.get(f"{app.base}/api/v1/sources", timeout=10).json()
            assert [item["source"] for item in sources["items"]] == ["sr_exporter"]


def test_a_script_that_posts_is_heard_through_the_push_route(folder, tmp_path):
    """As the recorded event_route does, for a source that is polled, too."""
    with RunningApp(tmp_path, Config()) as app, _changing(app) as reload:
        url = f"{app.base}/api/v1/push?source=sip-1"
        with Sip("http", folder, post_to=url) as sip:
            reload(Config(sources=(_source(sip, subscribe=Subscribe.NONE),)))
            eventually(lambda: _source_of(app)["up"])
            sip.turn(-1, "trunk down")
            eventually(lambda: _statuses(app)["sql_cacher"] == -1)
            assert _events(app, "http") >= 1
            assert sip.raised.failures == []


def test_sources_are_listed_by_name_in_pages(tmp_path):
    """With filters, a limit and a cursor; what is not understood is refused."""
    with RunningApp(tmp_path, Config()) as app:
        app.client.push(*({"source": f"s{n}", "group": "g", "status": 1 - 2 * n} for n in range(3)))
        get = app.client.session.get

        def listed(query: str) -> tuple[list[str], str | None]:
            answer = get(f"{app.base}/api/v1/sources{query}", timeout=10)
            assert answer.status_code == 200
            body = answer.json()
            return [item["source"] for item in body["items"]], body["next"]

        assert listed("") == (["s0", "s1", "s2", "sr_exporter"], None)
        assert listed("?limit=2") == (["s0", "s1"], "s1")
        assert listed("?limit=2&cursor=s1") == (["s2", "sr_exporter"], None)
        assert listed("?source=s1") == (["s1"], None)
        assert listed("?source=none") == ([], None)
        item = _source_of(app, "s1")
        assert (item["kind"], item["transport"], item["up"]) == ("pushed", "push", None)
        assert (item["identifiers"], item["not_ready"], item["stale"]) == (1, 1, False)
        for query in (
            "?limit=0",
            "?limit=1001",
            "?limit=x",
            "?limit=",
            "?ready=1",
            "?source=a&source=b",
        ):
            answer = get(f"{app.base}/api/v1/sources{query}", timeout=10)
            assert answer.status_code == 400, query
            assert answer.json()["error"]
