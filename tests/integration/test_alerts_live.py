"""From a server that breaks to Alertmanager: exporter, Prometheus, Alertmanager, the real ones.

All times of the rules are divided by 60, and so are those that they go by: how often is scraped
and evaluated (15 s: 250 ms), how old a sample may be (5 min: 5 s), when keys are withheld.
"""

from __future__ import annotations

import re
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest
import yaml

from sr_exporter.config import Config, Source
from sr_exporter.simulator.httpd import MiHttpd
from sr_exporter.simulator.node import Planned, SimulatedNode
from sr_exporter.simulator.releases import OPENSIPS_4_0
from sr_exporter.simulator.servers import MiThread
from sr_exporter.sources import pacing
from tests.harness import RunningApp, eventually, free_port, process
from tests.integration.test_alerting import RealAlertmanager, alertmanager
from tests.promtool import ALERTS, RULES
from tests.real_parts import program

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from typing import Self

SCALE = 60
SCRAPE = "250ms"
US = ("drouting", "us")
_UNITS = {"s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000, "w": 604_800_000}
_DURATION = re.compile(r"(\[|for: |interval: |offset )(\d+)([smhdw])\b")


def scaled(rules: str) -> str:
    """Divide every duration of a file of rules, those in its texts too."""

    def shorter(found: re.Match[str]) -> str:
        return f"{found[1]}{int(found[2]) * _UNITS[found[3]] // SCALE}ms"

    return _DURATION.sub(shorter, rules)


def test_every_duration_is_scaled():
    """None is left but those that are milliseconds now, in expressions, waits and templates."""
    for path in RULES:
        said = path.read_text(encoding="utf-8")
        left = [line for line in scaled(said).splitlines() if "#" not in line]
        assert not [line for line in left if re.search(r"(\[|: |offset )\d+[smhdw]\b", line)]
        assert yaml.safe_load(scaled(said))["groups"][0]["interval"] == SCRAPE


@contextmanager
def prometheus(folder: Path, exporter: int, alerts: RealAlertmanager) -> Iterator[None]:
    """Run a real Prometheus with the shipped rules."""
    for path in RULES:
        (folder / path.name).write_text(scaled(path.read_text(encoding="utf-8")), encoding="utf-8")
    config = {
        "global": {"scrape_interval": SCRAPE, "scrape_timeout": SCRAPE},
        "rule_files": [str(folder / "*.rules.yml")],
        "scrape_configs": [
            {"job_name": "sr", "static_configs": [{"targets": [f"127.0.0.1:{exporter}"]}]}
        ],
        "alerting": {
            "alertmanagers": [
                {"static_configs": [{"targets": [alerts.url.removeprefix("http://")]}]}
            ]
        },
    }
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config), encoding="utf-8")
    with process(
        program("prometheus"),
        f"--config.file={folder / 'prometheus.yml'}",
        f"--storage.tsdb.path={folder / 'tsdb'}",
        f"--web.listen-address=127.0.0.1:{free_port()}",
        "--query.lookback-delta=5s",
        "--rules.alert.resend-delay=1s",
        log=folder / "prometheus.log",
    ):
        yield


class Watch(threading.Thread):
    """Looks at Alertmanager without pause: is there a word about this source?"""

    def __init__(self, running: RealAlertmanager, source: str) -> None:
        super().__init__(daemon=True)
        self._running = running
        self._filter = f'source="{source}"'
        self._ended = threading.Event()
        self.looks = 0
        #: What was seen where nobody was told anything, and when.
        self.quiet: list[tuple[float, list[dict]]] = []

    def run(self) -> None:
        while not self._ended.is_set():
            alerts = self._running.alerts(self._filter)
            self.looks += 1
            if not is_told(alerts):
                self.quiet.append((time.monotonic(), alerts))

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *failed: object) -> None:
        self._ended.set()
        self.join(10)
        assert not self.is_alive()


def is_told(alerts: list[dict]) -> bool:
    """Whether somebody is paged: an alert that is not silenced, or is by one that just came."""
    known = {alert["fingerprint"] for alert in alerts}
    return any(
        alert["status"]["state"] == "active" or set(alert["status"]["inhibitedBy"]) - known
        for alert in alerts
    )


def start(node: SimulatedNode, now: float, *, well: bool) -> None:
    """Start a server; one that is not well waits for its database for ever."""
    node.start(now)
    if well:
        node.begin_load(*US, now)
        node.finish_load(*US, "3 gateways loaded", now)
        node.initialized(now)


@pytest.mark.real
def test_a_server_that_dies_while_it_starts_is_never_quiet(tmp_path, monkeypatch):
    """Its core is not ready, it dies, it is back: told throughout, each once, and resolved."""
    monkeypatch.setattr(pacing, "LONGEST_BACKOFF_SECONDS", 1.0)
    node = SimulatedNode(OPENSIPS_4_0, (Planned(*US),))
    start(node, time.time() - 3600, well=True)
    config = (ALERTS / "alertmanager.yml").read_text(encoding="utf-8")
    with (
        MiThread(MiHttpd(node)) as httpd,
        alertmanager(tmp_path, config=config) as running,
        RunningApp(
            tmp_path / "data",
            Config(
                sources=(
                    Source(
                        "sip-1",
                        httpd.url,
                        poll_interval_seconds=0.17,
                        stale_after_seconds=1.0,
                        max_share=1.0,
                    ),
                )
            ),
        ) as app,
        prometheus(tmp_path, app.port, running),
    ):

        def fires() -> dict[str, dict]:
            return {
                one["labels"]["alertname"]: one
                for one in running.alerts('source="sip-1"', f'instance="127.0.0.1:{app.port}"')
            }

        def silenced_by(name: str) -> set[str]:
            found = fires()
            causes = found[name]["status"]["inhibitedBy"] if name in found else ()
            return {known for known, one in found.items() if one["fingerprint"] in causes}

        httpd.call(lambda: start(node, time.time(), well=False))
        core = eventually(lambda: fires().get("OpenSIPSSRCoreNotReady"), within=30)
        with Watch(running, "sip-1") as watch:
            assert "initializing (status -1)" in core["annotations"]["description"]
            assert core["annotations"]["runbook_url"].startswith(f"{app.base}/runbooks#")
            eventually(
                lambda: silenced_by("OpenSIPSSRNoData") == {"OpenSIPSSRCoreNotReady"}, within=30
            )
            httpd.refuse()
            eventually(lambda: "OpenSIPSSRSourceDown" in fires(), within=30)
            assert watch.quiet == []
            eventually(lambda: silenced_by("OpenSIPSSRCoreNotReady") == {"OpenSIPSSRSourceDown"})
            eventually(lambda: fires().keys() == {"OpenSIPSSRSourceDown"}, within=30)

        httpd.call(lambda: start(node, time.time(), well=True))
        httpd.listen()
        eventually(lambda: not fires(), within=30)
        assert not running.alerts()
    assert watch.looks > 50
    assert watch.quiet == []
