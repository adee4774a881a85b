"""A notifier takes nothing: the others are told, it is not, and a restart changes nothing."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest
import requests

from sr_exporter.config import Alertmanager, AlertRule, Config, SecretUrl, Webhook
from tests.harness import RunningApp, eventually
from tests.integration.test_alerting import alertmanager
from tests.ports import reserve_port
from tests.receiver import Receiver

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

NAME = "SRExporterNotifierFailing"
#: A minute, scaled.
RULE = AlertRule("sr_exporter", "notifier", for_seconds=1.0)


def hook(name: str, receiver: Receiver) -> Webhook:
    return Webhook(name, SecretUrl(receiver.url), timeout_seconds=2.0)


def told(receiver: Receiver) -> list[tuple[str, str]]:
    """Give which notifier a receiver was told of, and how."""
    return [
        (one.identifier, one.status)
        for one in receiver.accepted
        if one.body["alerts"][0]["labels"]["alertname"] == NAME
    ]


def levels(app: RunningApp) -> list[dict]:
    with requests.Session() as session:
        session.trust_env = False
        url = f"{app.base}/api/v2/alerts?filter=alertname={NAME}"
        return session.get(url, timeout=5).json()


@contextmanager
def exporter(folder: Path, *notifiers: Alertmanager | Webhook) -> Iterator[RunningApp]:
    with RunningApp(folder / "data", Config(notifiers=notifiers, rules=(RULE,))) as app:
        yield app


@pytest.mark.real
def test_the_others_are_told_of_a_webhook_that_is_away(tmp_path):
    """A real Alertmanager and another webhook, once each, and over a restart; itself never."""
    with Receiver() as away, Receiver() as sound, alertmanager(tmp_path) as real:
        notifiers = (hook("a", away), hook("b", sound), Alertmanager("am", (real.url,)))
        with exporter(tmp_path, *notifiers) as app:
            away.refuse()
            app.client.push({"group": "trunk", "status": -1})
            eventually(lambda: told(sound) == [("a", "firing")])
            (alert,) = eventually(lambda: real.alerts(f"alertname={NAME}"))
            assert alert["labels"] == {
                "alertname": NAME,
                "source": "sr_exporter",
                "group": "notifier",
                "identifier": "a",
                "severity": "critical",
            }
            assert "connection refused (1 owed)" in alert["annotations"]["description"]
            assert away.url not in str(alert)
            (shown,) = levels(app)
            assert shown["receivers"] == [{"name": "b"}, {"name": "am"}]
        with exporter(tmp_path, *notifiers) as app:
            assert [one["startsAt"] for one in levels(app)] == [shown["startsAt"]]
            away.listen()
            eventually(lambda: told(sound) == [("a", "firing"), ("a", "resolved")], within=20)
            eventually(lambda: not real.alerts(f"alertname={NAME}"))
            assert levels(app) == []
        assert told(away) == []
        # What one is asked that took nothing, when there is nothing to send.
        assert real.session.post(f"{real.url}/api/v2/alerts", json=[], timeout=5).ok
        assert [one.identifier for one in away.accepted] == ["main"]


def test_a_webhook_is_told_of_an_alertmanager_that_is_away(tmp_path):
    """And that another one, which a restart puts in its place, takes alerts."""
    with Receiver() as sound, reserve_port() as nobody:
        port = nobody.getsockname()[1]
        notifiers = (hook("b", sound), Alertmanager("am", (f"http://127.0.0.1:{port}",)))
        with exporter(tmp_path, *notifiers) as app:
            app.client.push({"group": "trunk", "status": -1})
            eventually(lambda: told(sound) == [("am", "firing")])
        with Receiver() as back:
            mended = (notifiers[0], Alertmanager("am", (back.base,)))
            with exporter(tmp_path, *mended) as app:
                eventually(lambda: told(sound) == [("am", "firing"), ("am", "resolved")])
                assert levels(app) == []


def test_one_that_leaves_while_it_is_away_ends_its_alert(tmp_path):
    """Nobody is left wondering about a notifier that there is not."""
    with Receiver(500) as away, Receiver() as sound:
        running = [Config(notifiers=(hook("a", away), hook("b", sound)), rules=(RULE,))]
        with RunningApp(tmp_path / "data", read_config=lambda: running[0]) as app:
            app.client.push({"group": "trunk", "status": -1})
            eventually(lambda: told(sound) == [("a", "firing")])
            running[0] = Config(notifiers=(hook("b", sound),), rules=(RULE,))
            assert app.client.reload().ok
            eventually(lambda: told(sound) == [("a", "firing"), ("a", "resolved")])


def test_one_under_another_name_is_still_away(tmp_path):
    """A new name mends nothing: the alert goes on under it."""
    with Receiver(500) as away, Receiver() as sound:
        running = [Config(notifiers=(hook("a", away), hook("b", sound)), rules=(RULE,))]
        with RunningApp(tmp_path / "data", read_config=lambda: running[0]) as app:
            app.client.push({"group": "trunk", "status": -1})
            eventually(lambda: told(sound) == [("a", "firing")])
            running[0] = Config(notifiers=(hook("c", away), hook("b", sound)), rules=(RULE,))
            assert app.client.reload().ok
            eventually(lambda: ("c", "firing") in told(sound))
            assert ("a", "resolved") in told(sound)
            assert [one["labels"]["identifier"] for one in levels(app)] == ["c"]


def test_one_that_a_restart_finds_gone_ends_its_alert(tmp_path):
    """It left the configuration while the exporter was not running."""
    with Receiver(500) as away, Receiver() as sound:
        with exporter(tmp_path, hook("a", away), hook("b", sound)) as app:
            app.client.push({"group": "trunk", "status": -1})
            eventually(lambda: told(sound) == [("a", "firing")])
        with exporter(tmp_path, hook("b", sound)) as app:
            eventually(lambda: told(sound) == [("a", "firing"), ("a", "resolved")])
            assert levels(app) == []


@pytest.mark.parametrize(
    ("url", "warned"),
    [("http://localhost:9797", 1), ("http://[::1]:1/x", 1), ("http://monitor.example", 0)],
)
def test_links_that_lead_nowhere_are_said_at_the_start(tmp_path, capfd, url, warned):
    """Who reads an alert sits at another machine; without notifiers nobody gets a link."""
    with Receiver() as sound:
        for config in (Config(), Config(notifiers=(Webhook("a", SecretUrl(sound.url)),))):
            with RunningApp(tmp_path / "data", config, external_url=url):
                pass
    assert "".join(capfd.readouterr()).count("lead nowhere from other machines") == warned


def test_with_one_notifier_the_log_says_that_nobody_is_told(tmp_path, capfd):
    """Who looks sees it all the same."""
    with Receiver(500) as away, exporter(tmp_path, hook("alone", away)) as app:
        app.client.push({"group": "trunk", "status": -1})
        (shown,) = eventually(lambda: levels(app))
        assert (shown["labels"]["identifier"], shown["receivers"]) == ("alone", [])
        asked = app.client.session.get(f"{app.base}/api/v2/alerts?receiver=alone", timeout=5)
        assert [one["labels"]["group"] for one in asked.json()] == ["trunk"]
    assert told(away) == []
    said = [line for line in "".join(capfd.readouterr()).splitlines() if "one notifier" in line]
    assert len(said) == 1
    assert "warning" in said[0]
    assert "configure a second one" in said[0]
