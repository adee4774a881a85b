"""What a real Alertmanager refuses, and that it costs nobody else their alert."""

from __future__ import annotations

import argparse
import json
import time

import pytest

from sr_exporter import cli
from sr_exporter.config import Alertmanager, AlertRule, Config
from sr_exporter.notify import alertmanager as sender
from sr_exporter.notify.alerts import Links
from tests.harness import RunningApp, eventually, series
from tests.integration.test_alerting import RealAlertmanager, alertmanager
from tests.receiver import Receiver

pytestmark = pytest.mark.real

GOOD = 20
RESULTS = "sr_exporter_notifications_total"
#: Refused in the file (test_config.py); made here past it, for Alertmanager to refuse.
BAD_LABEL = AlertRule(group="bad", labels=(("no-name", "x"),))
HOUR = 3600.0


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    with alertmanager(tmp_path_factory.mktemp("am")) as running:
        yield running


@pytest.fixture
def often(monkeypatch):
    """Send again every half second."""
    monkeypatch.setattr(sender, "RESEND_SECONDS", 0.5)


def result(app: RunningApp, what: str) -> float:
    return app.client.metrics()[RESULTS, (("notifier", "am"), ("result", what))]


def told(running: RealAlertmanager, source: str) -> dict[str, dict]:
    """Give the alerts of a source, by their identifiers."""
    found = running.alerts(f'source="{source}"')
    return {alert["labels"]["identifier"]: alert for alert in found}


def fire(app: RunningApp, source: str) -> None:
    """Have many keys of two groups be not ready at once, a bad one in their midst."""
    names = [str(number) for number in range(GOOD)]
    items = [
        {"source": source, "group": "bad" if name == "7" else "good", "identifier": name}
        for name in names
    ]
    app.client.push(*({**item, "status": -1} for item in items)).raise_for_status()


def test_of_a_400_the_valid_ones_are_stored_and_go_on(running, often, tmp_path):
    """One alert that it refuses keeps no other away, nor from being sent again."""
    config = Config(notifiers=(Alertmanager("am", (running.url,)),), rules=(BAD_LABEL,))
    with RunningApp(tmp_path, config) as app:
        fire(app, "half")
        # It stores one after the other, and answers when it has.
        good = {str(number) for number in range(GOOD)} - {"7"}
        first = eventually(lambda: (found := told(running, "half")).keys() >= good and found)
        assert first.keys() == good
        eventually(lambda: result(app, "dead") >= 1)
        app.client.push({"source": "half", "group": "good", "identifier": "3", "status": 1})
        eventually(lambda: "3" not in told(running, "half"))
        eventually(
            lambda: all(
                alert["updatedAt"] > first[name]["updatedAt"]
                for name, alert in told(running, "half").items()
            )
        )
        assert len(told(running, "half")) == GOOD - 2


def test_of_a_batch_that_is_refused_whole_the_others_get_through(
    running, often, tmp_path, monkeypatch
):
    """A link that is none is answered with 422, and nothing is stored: the batch is halved."""
    good_link = Links.key

    def link(self, key):
        return "http://sr/%zz" if key.group == "bad" else good_link(self, key)

    monkeypatch.setattr(Links, "key", link)
    config = Config(notifiers=(Alertmanager("am", (running.url,)),))
    with RunningApp(tmp_path, config) as app:
        fire(app, "whole")
        eventually(lambda: len(told(running, "whole")) == GOOD - 1)
        assert "7" not in told(running, "whole")
        # The notifier is in trouble all along, though it takes most of what it is sent.
        dead = result(app, "dead")
        eventually(lambda: result(app, "dead") >= dead + 4)
        (changes,) = series(
            app.client.metrics(), "opensips_sr_status_changes_total", group="notifier"
        ).values()
        assert changes <= 1


def test_a_proxy_that_takes_nothing_is_not_pressed(often, tmp_path):
    """Halving ends after a while: 413 to all is some requests more, not two for each alert."""
    with Receiver(413) as proxy:
        config = Config(notifiers=(Alertmanager("am", (proxy.base,)),))
        with RunningApp(tmp_path, config) as app:
            items = ({"group": "g", "identifier": str(n), "status": -1} for n in range(1000))
            began = time.monotonic()
            app.client.push(*items)
            eventually(lambda: result(app, "dead") > 0)
            eventually(lambda: len(proxy.received) > 2 * sender.MOST_SPLITS, within=20)
            # At each turn four batches, and two halves of those that are split.
            turns = (time.monotonic() - began) / 0.5 + 2
            assert len(proxy.received) <= turns * (4 + 2 * sender.MOST_SPLITS)


@pytest.mark.parametrize("strange", ["\0", "\ud83d", "\ufffe", " ", '"\\\n', "a" * 5000])
def test_strange_names_are_taken(running, tmp_path, strange):
    """Whatever a push may be named, of halves of characters too, is valid there."""
    config = Config(notifiers=(Alertmanager("am", (running.url,)),))
    with RunningApp(tmp_path, config) as app:
        item = {"source": "x" + strange, "group": "g" + strange, "identifier": strange}
        body = json.dumps({**item, "status": -1, "details": strange, "reports": [strange]})
        app.client.session.post(f"{app.base}/api/v1/push", data=body, timeout=5).raise_for_status()
        eventually(lambda: result(app, "accepted") == 1)
        assert result(app, "dead") == 0


def test_a_clock_that_was_ahead_and_is_set_back_mutes_nothing_and_holds_nothing(
    running, often, tmp_path
):
    """No alert ends before it begins, which is refused, and none fires on till its old future."""
    ahead = [HOUR]
    config = Config(notifiers=(Alertmanager("am", (running.url,)),))
    with RunningApp(tmp_path, config, clock=lambda: time.time() + ahead[0]) as app:
        items = [
            {"source": "clock", "group": "g", "identifier": name} for name in ("ends", "stays")
        ]
        app.client.push(*({**item, "status": -1} for item in items))
        first = eventually(lambda: len(found := told(running, "clock")) == 2 and found)
        ahead[0] = 0.0
        app.client.push({**items[0], "status": 1})
        eventually(lambda: told(running, "clock").keys() == {"stays"})
        eventually(
            lambda: told(running, "clock")["stays"]["updatedAt"] > first["stays"]["updatedAt"]
        )
        assert result(app, "dead") == 0
        app.client.push({**items[1], "status": 1})
        eventually(lambda: not told(running, "clock"))


URLS = (
    *("http://sr", "https://sr.example:9797/", "http://sr/a%20b/c", "http://[::1]:9797"),
    *("http://[fe80::1%25eth0]:1", "HTTP://a_b-c.d/!$&'()*+,;=:@~", "http://sr/%zz", "http://sr/%"),
    *(
        "http://sr:x/",
        "http://s{r}/",
        "http://s%41/",
        "http://s^r",
        "http://[::1%eth0]/",
        "http://",
    ),
    *("http://sr/a b", "http://sr/é", "http://sr?x", "http://sr#x", "ftp://sr", "http://[::1/"),
)


@pytest.mark.parametrize("url", URLS)
def test_no_external_url_is_taken_that_alertmanager_does_not_take(running, url):
    """Every alert's link begins with it: all would be refused."""
    try:
        taken = cli._external_url(url)
    except argparse.ArgumentTypeError:
        assert url in URLS[6:]
        return
    assert url in URLS[:6]
    posted = running.session.post(
        f"{running.url}/api/v2/alerts",
        json=[{"labels": {"source": "url"}, "generatorURL": f"{taken}/sources/a?group=b"}],
        timeout=5,
    )
    assert posted.status_code == 200, posted.text
