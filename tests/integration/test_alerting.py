"""A push goes out of readiness: a real Alertmanager and a webhook hear of it, and of its end."""

from __future__ import annotations

import re
import statistics
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest
import requests

from sr_exporter.config import Alertmanager, Config, SecretUrl, Send, Webhook
from sr_exporter.notify.alerts import fingerprint
from tests.harness import RunningApp, eventually, free_port, process
from tests.real_parts import program
from tests.receiver import Receiver

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

KEYS = 50
_ROUTE = "route: {receiver: none}\nreceivers: [{name: none}]\n"


class RealAlertmanager:
    #: Of the process, where the test may stop it for a while.
    pid: int

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self.session = requests.Session()
        self.session.trust_env = False

    def ready(self) -> bool:
        try:
            return self.session.get(f"{self.url}/-/ready", timeout=2).ok
        except requests.ConnectionError:
            return False

    def alerts(self, *filters: str) -> list[dict]:
        answer = self.session.get(
            f"{self.url}/api/v2/alerts", params={"filter": filters}, timeout=5
        )
        answer.raise_for_status()
        return answer.json()


@contextmanager
def alertmanager(
    folder: Path, port: int | None = None, *, config: str = _ROUTE
) -> Iterator[RealAlertmanager]:
    """Run a real Alertmanager, without gossip, on a free port."""
    port = port or free_port()
    file = folder / "alertmanager.yml"
    file.write_text(config)
    with process(
        program("prometheus-alertmanager"),
        f"--config.file={file}",
        f"--storage.path={folder / 'alertmanager'}",
        f"--web.listen-address=127.0.0.1:{port}",
        "--cluster.listen-address=",
        log=folder / "alertmanager.log",
    ) as started:
        running = RealAlertmanager(port)
        running.pid = started.pid
        eventually(running.ready, within=20)
        yield running
        running.session.close()


def _identifier(alert: dict) -> str:
    return alert["labels"]["identifier"]


class Watcher(threading.Thread):
    """Reads Alertmanager's alerts without pause, noting when each was first and last seen."""

    def __init__(self, running: RealAlertmanager) -> None:
        super().__init__(daemon=True)
        self._running = running
        self._ended = threading.Event()
        self.appeared: dict[str, float] = {}
        self.vanished: dict[str, float] = {}

    def run(self) -> None:
        present: set[str] = set()
        while not self._ended.is_set():
            seen = {_identifier(alert) for alert in self._running.alerts('group="bench"')}
            at = time.monotonic()
            for name in seen - present:
                self.appeared.setdefault(name, at)
            for name in present - seen:
                self.vanished.setdefault(name, at)
            present = seen

    def end(self) -> None:
        self._ended.set()
        self.join(10)


@pytest.mark.real
def test_a_push_reaches_a_real_alertmanager_and_a_webhook_within_100_ms(tmp_path, figure):
    """Fifty keys are pushed to -1 and back to 1; medians of push to receiver are printed."""
    with Receiver() as receiver, alertmanager(tmp_path) as running:
        config = Config(
            notifiers=(
                Alertmanager("am", (running.url,)),
                Webhook("hook", SecretUrl(receiver.url)),
            )
        )
        with RunningApp(tmp_path / "data", config) as app:
            watcher = Watcher(running)
            watcher.start()
            sent = {}
            for number in range(KEYS):
                name = f"key-{number}"
                sent[name] = time.monotonic()
                answer = app.client.push(
                    {"source": "sbc", "group": "bench", "identifier": name, "status": -1}
                )
                assert answer.json() == {"accepted": 1, "changed": 1}
                receiver.wait_for(number + 1)
                eventually(lambda name=name: name in watcher.appeared, every=0.001)
            fired = receiver.wait_for(KEYS)
            back = {}
            for number in range(KEYS):
                name = f"key-{number}"
                back[name] = time.monotonic()
                app.client.push(
                    {"source": "sbc", "group": "bench", "identifier": name, "status": 1}
                )
                receiver.wait_for(KEYS + number + 1)
                eventually(lambda name=name: name in watcher.vanished, every=0.001)
            resolved = receiver.wait_for(2 * KEYS)[KEYS:]
            watcher.end()
            assert len(receiver.received) == 2 * KEYS
    assert {one.status for one in fired} == {"firing"}
    assert {one.status for one in resolved} == {"resolved"}
    medians = {
        "webhook, firing": [one.at - sent[one.identifier] for one in fired],
        "webhook, resolved": [one.at - back[one.identifier] for one in resolved],
        "Alertmanager, firing": [watcher.appeared[name] - at for name, at in sent.items()],
        "Alertmanager, resolved": [watcher.vanished[name] - at for name, at in back.items()],
    }
    for what, seconds in medians.items():
        assert len(seconds) == KEYS
        figure(
            f"push to {what}: median {statistics.median(seconds) * 1000:.1f} ms,"
            f" maximum {max(seconds) * 1000:.1f} ms of {KEYS}"
        )
    for seconds in medians.values():
        assert statistics.median(seconds) < 0.1


@pytest.mark.real
def test_an_alert_at_a_real_alertmanager_says_what_section_7_promises(tmp_path):
    """Labels are identity only; annotations carry status, details, reports, and follow them."""
    with alertmanager(tmp_path) as running:
        config = Config(notifiers=(Alertmanager("am", (running.url,)),))
        with RunningApp(tmp_path / "data", config) as app:
            item = {"source": "sip-9", "group": "Core", "identifier": "main", "status": -1}
            app.client.push(
                {**item, "details": "initializing", "reports": ["one", "two", "three", "four\n"]}
            )
            (alert,) = eventually(lambda: running.alerts('group="Core"'))
            assert alert["labels"] == {
                "alertname": "OpenSIPSNotReady",
                "source": "sip-9",
                "group": "Core",
                "identifier": "main",
                "severity": "critical",
            }
            assert alert["fingerprint"] == fingerprint(alert["labels"])
            description = alert["annotations"].pop("description")
            assert re.fullmatch(r"Since \S+ \S+ UTC: Status -1: initializing", description)
            assert alert["annotations"] == {
                "summary": "OpenSIPS sip-9 is not ready: core is initializing",
                "status": "-1",
                "details": "initializing",
                "reports": "two\nthree\nfour",
                "runbook_url": "http://sr.example/runbooks#opensipsnotready",
            }
            assert alert["generatorURL"] == (
                "http://sr.example/sources/sip-9?group=Core&identifier=main"
            )
            app.client.push({**item, "details": "still initializing"})
            eventually(
                lambda: (
                    running.alerts('group="Core"')[0]["annotations"]["details"]
                    == "still initializing"
                )
            )
            (same,) = running.alerts('group="Core"')
            assert same["fingerprint"] == alert["fingerprint"]
            assert same["startsAt"] == alert["startsAt"]
            app.client.delete("sip-9")
            eventually(lambda: not running.alerts('group="Core"'))


@pytest.mark.real
def test_an_alertmanager_that_was_away_hears_of_everything_when_it_is_back(tmp_path):
    """A level is sent again until it is taken: nothing is lost with a dead Alertmanager."""
    port = free_port()
    config = Config(notifiers=(Alertmanager("am", (f"http://127.0.0.1:{port}",)),))
    with RunningApp(tmp_path / "data", config) as app:
        app.client.push({"group": "sbc", "status": -1})
        eventually(
            lambda: (
                app.client.metrics()[
                    "sr_exporter_notifications_total", (("notifier", "am"), ("result", "retried"))
                ]
                > 0
            )
        )
        with alertmanager(tmp_path, port) as running:
            (alert,) = eventually(lambda: running.alerts('group="sbc"'), within=20)
            assert alert["labels"]["severity"] == "warning"


def test_a_webhook_gets_version_4_with_a_stable_delivery_id(tmp_path):
    """A refused delivery comes again, under the same id, with the same bytes."""
    with Receiver(500, 200) as receiver:
        config = Config(notifiers=(Webhook("on.call", SecretUrl(receiver.url)),))
        with RunningApp(tmp_path, config) as app:
            app.client.push({"group": "sbc", "status": -1, "details": "trunk down"})
            first, second = receiver.wait_for(2)
            found = eventually(
                lambda: (
                    # Accepted, and noted as delivered.
                    not (metrics := app.client.metrics())[
                        "sr_exporter_notifier_backlog", (("notifier", "on.call"),)
                    ]
                    and metrics
                )
            )
            assert (
                found[
                    "sr_exporter_notifications_total",
                    (("notifier", "on.call"), ("result", "retried")),
                ]
                == 1
            )
            assert (
                found[
                    "sr_exporter_notifications_total",
                    (("notifier", "on.call"), ("result", "accepted")),
                ]
                == 1
            )
    assert first.delivery == second.delivery != ""
    assert first.body == second.body
    assert first.headers["Content-Type"] == "application/json"
    assert first.headers["User-Agent"].startswith("sr-exporter/")
    assert first.body["version"] == "4"
    assert first.body["receiver"] == r"on\.call"
    assert first.body["groupKey"] == (
        '{}:{alertname="OpenSIPSNotReady", group="sbc", identifier="main", source="push"}'
    )
    (alert,) = first.body["alerts"]
    assert alert["endsAt"] == "0001-01-01T00:00:00Z"
    assert alert["annotations"]["details"] == "trunk down"


def test_webhooks_of_one_key_arrive_in_order_though_one_is_refused(tmp_path):
    """What was pushed first is delivered first, however often it is refused."""
    with Receiver(503, 503, 200) as receiver:
        config = Config(notifiers=(Webhook("hook", SecretUrl(receiver.url)),))
        with RunningApp(tmp_path, config) as app:
            for status in (-1, -2, 1, 2):
                app.client.push({"group": "sbc", "status": status})
            seen = receiver.wait_for(6, within=20)
    said = [one.body["alerts"][0]["annotations"]["status"] for one in seen]
    assert said == ["-1", "-1", "-1", "-2", "1", "2"]
    assert [one.status for one in seen[2:]] == ["firing", "firing", "resolved", "resolved"]
    assert len({one.delivery for one in seen}) == 4


def test_a_notifier_told_of_readiness_is_spared_other_changes(tmp_path):
    """`send: readiness` hears of the turns only."""
    with Receiver() as receiver:
        hook = Webhook("hook", SecretUrl(receiver.url), send=Send.READINESS)
        with RunningApp(tmp_path, Config(notifiers=(hook,))) as app:
            for status in (1, 2, -1, -2, 1):
                app.client.push({"group": "sbc", "status": status})
            app.client.push({"group": "last", "status": -1})
            seen = receiver.wait_for(3)
    assert [(one.body["alerts"][0]["labels"]["group"], one.status) for one in seen] == [
        ("sbc", "firing"),
        ("sbc", "resolved"),
        ("last", "firing"),
    ]


def test_a_dead_webhook_delays_neither_pushes_nor_the_other_webhook(tmp_path):
    """A receiver that never answers holds up itself only."""
    with Receiver() as receiver:
        dead = f"http://127.0.0.1:{free_port()}/"
        config = Config(
            notifiers=(
                Webhook("dead", SecretUrl(dead)),
                Webhook("alive", SecretUrl(receiver.url)),
            )
        )
        with RunningApp(tmp_path, config) as app:
            for number in range(20):
                answer = app.client.push({"group": f"g{number}", "status": -1})
                assert answer.status_code == 200
            receiver.wait_for(20)
            found = app.client.metrics()
            assert found["sr_exporter_notifier_backlog", (("notifier", "dead"),)] == 20


def test_a_hard_refusal_is_final_and_counted(tmp_path):
    """A 400 is not tried again: it goes to the dead letters with its reason."""
    with Receiver(400, 200) as receiver:
        config = Config(notifiers=(Webhook("hook", SecretUrl(receiver.url)),))
        with RunningApp(tmp_path, config) as app:
            app.client.push({"group": "sbc", "status": -1})
            receiver.wait_for(1)
            dead = ("sr_exporter_notifications_total", (("notifier", "hook"), ("result", "dead")))
            eventually(lambda: app.client.metrics()[dead] == 1)
            app.client.push({"group": "sbc", "status": -2})
            seen = receiver.wait_for(2)
    assert [one.body["alerts"][0]["annotations"]["status"] for one in seen] == ["-1", "-2"]
