"""A small fleet that is well and then broken in every way that a dashboard shows.

Real Prometheus, real exporter, simulated servers: it is told once, and asked about for as long as
a test likes. Nobody sleeps: a chapter is over when Prometheus has seen all that belongs to it.
"""

from __future__ import annotations

import math
import re
import socket
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import yaml

from sr_exporter.config import Config, Endpoint, Events, SecretUrl, Source, Subscribe, Webhook
from sr_exporter.simulator.events import Events as Raised
from sr_exporter.simulator.httpd import MiHttpd
from sr_exporter.simulator.instance import Instance
from sr_exporter.simulator.node import (
    LOADERS,
    REGISTER_TIMEOUT,
    REGISTERED,
    REGISTRANT,
    Planned,
    SimulatedNode,
)
from sr_exporter.simulator.releases import OPENSIPS_4_0
from sr_exporter.simulator.scenario import LINES
from sr_exporter.simulator.servers import MiThread
from tests.boards import ROOT
from tests.harness import RunningApp, eventually, free_port
from tests.prometheus import Prometheus
from tests.receiver import Receiver

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

#: A key of each kind of group that there is (facts on dashboards, section 2).
EVERYTHING = (
    Planned("config", "main"),
    Planned("clusterer", "node_states"),
    Planned("clusterer", "sharing_tags"),
    Planned("clusterer", "cap:dialog"),
    Planned("clusterer", "cap:usrloc"),
    Planned("dispatcher", "default"),
    Planned("dispatcher", "default;events"),
    Planned("drouting", "us"),
    Planned("drouting", "us;events"),
    Planned("drouting", "eu"),
    Planned("dialplan", "default"),
    Planned("sql_cacher", "carriers"),
    Planned("pike"),
    Planned("auto-scaling"),
    Planned("alarms"),
    *(Planned(REGISTRANT, line) for line in LINES[:3]),
)
TABLES = (Planned("drouting", "us"), Planned("dialplan", "default"))
#: The alerts that are to fire; others would by what is quick here, and is not trouble.
ALERTS = frozenset(
    {"OpenSIPSSRSourceDown", "OpenSIPSSRCoreNotReady", "OpenSIPSSRIdentifierNotReady"}
)
#: How long the end of a chapter is looked at, in scrapes, which are a second apart.
SCRAPES = 5


class Chapter(NamedTuple):
    """From when to when, in Unix seconds."""

    begin: float
    end: float


class Server:
    """One simulated OpenSIPS in a thread of its own; all its tables load when it starts."""

    def __init__(self, plan: Sequence[Planned]) -> None:
        self.node = SimulatedNode(OPENSIPS_4_0, plan)
        self.starts = True
        raised = Raised(self.node)
        httpd = MiHttpd(self.node, commands=raised.commands)
        self.thread = MiThread(Instance(self.node, httpd, raised, boot=self._boot))
        self._plan = plan

    def _boot(self, node: SimulatedNode, now: float) -> None:
        if not self.starts:
            return
        for group, identifier in self._plan:
            if group in LOADERS and not identifier.endswith(";events"):
                node.begin_load(group, identifier, now)
                node.finish_load(group, identifier, "1 records loaded", now)
            elif group == REGISTRANT:
                node.registrant(identifier, REGISTERED, now)
            elif identifier.startswith("cap:"):
                node.set_status(group, identifier, 1, "synced")
        node.initialized(now)

    def act(self, what: Callable[[SimulatedNode, float], object]) -> None:
        """Have something happen to it, now."""
        self.thread.call(lambda: what(self.node, time.time()))


class FleetStory:
    """`with` tells it; then `well` and `broken` are its chapters, and `prometheus` remembers."""

    well: Chapter
    broken: Chapter

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.servers = {
            "sip-1": Server(EVERYTHING),
            "sip-2": Server(TABLES),
            "sip-3": Server(TABLES),
        }
        self._pushed = 0

    def __enter__(self) -> Self:
        self.began = time.time()
        with ExitStack() as running:
            for server in self.servers.values():
                running.enter_context(server.thread)
            self._kind, self._deaf = (running.enter_context(Receiver()) for _ in range(2))
            (self._folder / "exporter").mkdir()
            self.app = running.enter_context(
                RunningApp(self._folder / "exporter", self._config(), external_url="http://sr")
            )
            target = self.app.base.removeprefix("http://")
            self.prometheus = running.enter_context(
                Prometheus(self._folder, {"sr-exporter": target}, quick_rules())
            )
            self.well = self._chapter(
                "opensips_sr_source_up{source='sip-3'} == 1",
                "opensips_sr_source_subscribed == 1",
                "opensips_sr_ready{source='sr_exporter',group='store'} == 1",
                f"count(opensips_sr_ready{{source='sip-1'}} == 1) == {len(EVERYTHING) + 1}",
            )
            assert self.prometheus.now("opensips_sr_ready == 0") == {}
            self._break()
            self.broken = self._chapter(
                "opensips_sr_source_up{source='sip-3'} == 0",
                "absent(opensips_sr_status{source='sip-3'})",
                "opensips_sr_status{source='sip-2',group='core'} == -1",
                "count(opensips_sr_reported_ready) == 3",
                # Loads that failed and succeeded, a gateway, a destination, a node, a tag, a flood.
                "count(count by (rule) (opensips_sr_report_matches_total > 0)) == 7",
                "ALERTS{alertname='OpenSIPSSRSourceDown',alertstate='firing',source='sip-3'}",
                "sr_exporter_notifications_total{result='retried'} > 0",
                "sr_exporter_notifier_backlog > 0",
                "opensips_sr_events_rejected_total > 0",
                "sr_exporter_push_requests_total{code='400'} > 0",
                since=self._broke,
            )
            self._running = running.pop_all()
        return self

    def __exit__(self, *failed: object) -> None:
        self._running.close()

    def _config(self) -> Config:
        stream = Endpoint("127.0.0.1", free_port())
        self._datagrams = Endpoint("127.0.0.1", free_port())
        return Config(
            sources=tuple(
                Source(
                    name,
                    server.thread.url,
                    poll_interval_seconds=0.5,
                    timeout_seconds=5.0,
                    stale_after_seconds=1.0,
                    max_share=1.0,
                    subscribe=Subscribe.TCP if name == "sip-1" else Subscribe.NONE,
                )
                for name, server in self.servers.items()
            ),
            events=Events(stream=stream, advertise=stream, datagram=self._datagrams),
            notifiers=(
                Webhook("kind", SecretUrl(self._kind.url)),
                Webhook("deaf", SecretUrl(self._deaf.url)),
            ),
        )

    def _break(self) -> None:
        """Have everything go wrong that can, all at once."""
        self._broke = time.time()
        self._deaf.answer(500)
        self.servers["sip-3"].thread.refuse()
        second = self.servers["sip-2"]
        second.starts = False
        second.thread.refuse()
        second.thread.listen()  # and stays initializing, its tables without data
        self.servers["sip-1"].act(_go_wrong)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
            stranger.sendto(b"no event", self._datagrams)
        assert self.app.client.push({"group": "trunks", "status": "down"}).status_code == 400
        too_long = f"{self.app.base}/metrics?{'x' * 40_000}"
        assert self.app.client.session.get(too_long, timeout=10).status_code == 414

    def _chapter(self, *seen: str, since: float | None = None) -> Chapter:
        """Wait until Prometheus has seen all this, and then some; something always changes."""
        waiting = list(seen)

        def all_seen() -> bool:
            self._live()
            waiting[:] = [expr for expr in waiting if not self.prometheus.now(expr)]
            return not waiting

        try:
            eventually(all_seen, within=40, every=0.2)
        except AssertionError as error:
            raise AssertionError(f"Prometheus never saw {waiting}") from error
        begin = time.time()

        def looked_at() -> bool:
            self._live()
            since = math.ceil(time.time() - begin)
            good = self.prometheus.now(f"count_over_time(sr_exporter_build_info[{since}s])")
            return sum(good.values()) > SCRAPES

        eventually(looked_at, within=40, every=0.2)
        return Chapter(begin if since is None else since, time.time())

    def _live(self) -> None:
        """Have a pushed trunk change, and stay ready: as on any day."""
        self._pushed += 1
        item = {"source": "sbc-1", "group": "trunks", "status": 1 + self._pushed % 2}
        assert self.app.client.push(item | {"reports": [f"turn {self._pushed}"]}).ok


def _go_wrong(node: SimulatedNode, now: float) -> None:
    node.begin_load("drouting", "us", now)
    node.fail_load("drouting", "us", now)
    node.begin_load("dialplan", "default", now)
    node.set_status("sql_cacher", "carriers", -2, "no data loaded")
    node.set_status("dispatcher", "default", -1, "startup data loading")
    node.gateway("us", "<gw1>/198.51.100.11:5060", "inactive", "negative probing reply", now)
    node.destination("default", "<sip:198.51.100.21>, set 1", "inactive", "MI command", now)
    node.add_report("clusterer", "node_states", "Node [2], cluster [1] is DOWN", now)
    node.add_report("clusterer", "sharing_tags", "TAG <vip>, cluster 1, became backup", now)
    node.set_status("clusterer", "cap:dialog", -2, "sync pending")
    node.add_report("pike", "main", "IP 203.0.113.9 detected as flooding", now)
    node.registrant(LINES[0], REGISTER_TIMEOUT, now)
    node.set_status("alarms", "main", -7, "trunk down")


def quick_rules() -> dict[str, Any]:
    """Give the rules that are shipped, with seconds for minutes and no waiting."""
    groups = []
    for path in sorted((ROOT / "alerts").glob("*.rules.yml")):
        text = re.sub(r"\[(\d+)m\]", r"[\g<1>s]", path.read_text(encoding="utf-8"))
        for group in yaml.safe_load(text)["groups"]:
            rules = [
                {key: one for key, one in rule.items() if key not in ("for", "keep_firing_for")}
                for rule in group["rules"]
                if rule.get("alert") in (None, *ALERTS)
            ]
            groups.append({"name": f"{path.name} {group['name']}", "rules": rules})
    return {"groups": groups}
