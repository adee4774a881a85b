"""Two real Alertmanagers that gossip, a receiver behind them, and restarts in the middle.

Durations are scaled: an alert ends 5 s ahead instead of 4 min, and is sent again every 1.25 s
instead of every minute; the proportion is the real one.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from contextlib import ExitStack, contextmanager
from datetime import datetime
from typing import TYPE_CHECKING

import pytest

from sr_exporter.config import Alertmanager, Config
from sr_exporter.notify import alertmanager as sender
from sr_exporter.notify import payload
from tests.harness import RunningApp, eventually, process
from tests.integration.test_alerting import RealAlertmanager
from tests.ports import reserve_port
from tests.real_parts import program
from tests.receiver import Receiver

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [pytest.mark.real, pytest.mark.timeout(120)]

ENDS_AFTER_SECONDS = 5.0
#: How long the second of the pair waits for the first, and how often both look at an alert.
#: Its wait is shorter, as it is in real ones (15 s and 5 min), and no blink: who has not heard by
#: then that the first told tells again.
PEER_SECONDS, INTERVAL_SECONDS = 1, 3
_CONFIG = {
    "route": {
        "receiver": "hook",
        "group_by": ["..."],
        "group_wait": "0s",
        "group_interval": f"{INTERVAL_SECONDS}s",
        "repeat_interval": "1h",
    },
}


class Member(RealAlertmanager):
    """One of the pair, which can be stopped and started again."""

    def __init__(self, folder: Path, hook: str) -> None:
        folder.mkdir()
        self._folder = folder
        self._web, self._gossip = reserve_port(), reserve_port()
        super().__init__(self._web.getsockname()[1])
        self.gossip = f"127.0.0.1:{self._gossip.getsockname()[1]}"
        self._running = ExitStack()
        receivers = [{"name": "hook", "webhook_configs": [{"url": hook, "send_resolved": True}]}]
        (folder / "am.yml").write_text(json.dumps({**_CONFIG, "receivers": receivers}))

    def start(self, peer: Member) -> None:
        self._running.enter_context(
            process(
                program("prometheus-alertmanager"),
                f"--config.file={self._folder / 'am.yml'}",
                f"--storage.path={self._folder / 'data'}",
                f"--web.listen-address={self.url.removeprefix('http://')}",
                f"--cluster.listen-address={self.gossip}",
                f"--cluster.advertise-address={self.gossip}",
                f"--cluster.peer={peer.gossip}",
                f"--cluster.peer-timeout={PEER_SECONDS * 1000:.0f}ms",
                "--cluster.gossip-interval=50ms",
                "--cluster.settle-timeout=3s",
                "--cluster.reconnect-interval=500ms",
                log=self._folder / "log",
            )
        )
        eventually(self.ready, within=20)

    def stop(self) -> None:
        self._running.close()

    def close(self) -> None:
        self.stop()
        self.session.close()
        self._web.close()
        self._gossip.close()

    def peers(self) -> int:
        answer = self.session.get(f"{self.url}/api/v2/status", timeout=5).json()
        return len(answer["cluster"]["peers"])

    def fires(self, group: str) -> dict | None:
        """Give the alert of a group, as it is known here."""
        return next(iter(self.alerts(f'group="{group}"')), None)


@contextmanager
def pair(folder: Path, hook: str) -> Iterator[tuple[Member, Member]]:
    first, second = Member(folder / "first", hook), Member(folder / "second", hook)
    try:
        first.start(second)
        second.start(first)
        eventually(lambda: first.peers() == second.peers() == 2, within=20)
        yield first, second
    finally:
        first.close()
        second.close()


@pytest.fixture
def scaled(monkeypatch):
    monkeypatch.setattr(sender, "RESEND_SECONDS", ENDS_AFTER_SECONDS / 4)
    monkeypatch.setattr(payload, "ENDS_AFTER_SECONDS", ENDS_AFTER_SECONDS)


@pytest.fixture
def parts(scaled, tmp_path):
    """Give a receiver, the pair in front of it, and the configuration that names the pair."""
    with Receiver() as receiver, pair(tmp_path, receiver.url) as members:
        config = Config(notifiers=(Alertmanager("am", tuple(one.url for one in members)),))
        yield receiver, members, config


def told(receiver: Receiver) -> Counter:
    """Give how often the receiver behind the pair was told what."""
    return Counter(
        (alert["labels"]["group"], alert["status"])
        for one in list(receiver.received)
        for alert in one.body["alerts"]
    )


def told_twice(receiver: Receiver) -> Counter:
    """Give what was told more than once."""
    return Counter({what: times for what, times in told(receiver).items() if times > 1})


def wait_told(receiver: Receiver, group: str, status: str, times: int = 1) -> None:
    eventually(lambda: told(receiver)[group, status] >= times, within=30)


def recover(app: RunningApp, receiver: Receiver, group: str) -> None:
    """Have a key recover while neither of the pair looks at it, or waits for the other.

    What the second was to tell when it began to wait it tells, though the first has told newer
    things meanwhile: a change within a second of five minutes, in real ones, comes twice.
    """
    looked = max(
        one.at
        for one in list(receiver.received)
        if group in {alert["labels"]["group"] for alert in one.body["alerts"]}
    )
    eventually(lambda: 0.5 < (time.monotonic() - looked) / INTERVAL_SECONDS % 1 < 0.7)
    app.client.push({"group": group, "status": 1})
    wait_told(receiver, group, "resolved", told(receiver)[group, "firing"])


def everybody_had_time(app: RunningApp, receiver: Receiver, member: Member, name: str) -> None:
    """Have a key of its own fire, for longer than the pair waits for each other, and recover.

    What both had to tell of before has been told by then.
    """
    app.client.push({"group": name, "status": -1})
    wait_told(receiver, name, "firing")
    eventually(
        lambda: (alert := member.fires(name)) and age(alert) > PEER_SECONDS + INTERVAL_SECONDS + 1,
        within=20,
    )
    recover(app, receiver, name)


def age(alert: dict) -> float:
    """Give how long after its beginning an alert was last sent."""
    began, updated = (datetime.fromisoformat(alert[name]) for name in ("startsAt", "updatedAt"))
    return (updated - began).total_seconds()


def test_each_transition_is_told_once(parts, tmp_path):
    """Fire, send again for longer than an alert lives, resolve: once each, known to both."""
    receiver, members, config = parts
    with RunningApp(tmp_path / "data", config) as app:
        app.client.push({"group": "trunk", "status": -1})
        first, second = (eventually(lambda one=one: one.fires("trunk")) for one in members)
        assert first["fingerprint"] == second["fingerprint"]
        assert first["startsAt"] == second["startsAt"]
        wait_told(receiver, "trunk", "firing")
        ends = first["endsAt"]
        # Sent again and again, it outlives its first end.
        for one in members:
            eventually(lambda one=one: one.fires("trunk")["updatedAt"] > ends, within=20)
        everybody_had_time(app, receiver, members[1], "clock")
        assert all(one.fires("trunk")["startsAt"] == first["startsAt"] for one in members)
        recover(app, receiver, "trunk")
        for one in members:
            eventually(lambda one=one: one.fires("trunk") is None)
        everybody_had_time(app, receiver, members[1], "again")
    assert told_twice(receiver) == {}


def test_one_of_the_pair_is_away_for_a_while(parts, tmp_path):
    """What it misses the other tells; when it is back it knows all, and repeats nothing."""
    receiver, members, config = parts
    first, second = members
    with RunningApp(tmp_path / "data", config) as app:
        app.client.push({"group": "long", "status": -1}, {"group": "over", "status": -1})
        for group in ("long", "over"):
            wait_told(receiver, group, "firing")
        known = eventually(lambda: first.fires("long"))
        # Both have heard who was told: the log of notifications is gossip, too.
        everybody_had_time(app, receiver, members[1], "clock")
        first.stop()
        app.client.push({"group": "over", "status": 1}, {"group": "new", "status": -1})
        wait_told(receiver, "over", "resolved")
        wait_told(receiver, "new", "firing")
        first.start(second)
        eventually(lambda: first.peers() == second.peers() == 2, within=20)
        back = eventually(lambda: first.fires("long"), within=30)
        assert (back["fingerprint"], back["startsAt"]) == (known["fingerprint"], known["startsAt"])
        eventually(lambda: first.fires("new"))
        assert first.fires("over") is None
        everybody_had_time(app, receiver, members[1], "again")
        # Nothing that was told before, or meanwhile, was told twice, and no end came too early.
        assert told_twice(receiver) == {}
        assert told(receiver).keys() & {("long", "resolved"), ("new", "resolved")} == set()
        app.client.push({"group": "long", "status": 1}, {"group": "new", "status": 1})
        for group in ("long", "new"):
            wait_told(receiver, group, "resolved")
        for one in members:
            eventually(lambda one=one: not one.alerts())


def test_the_exporter_is_away_for_a_short_and_for_a_long_while(parts, tmp_path):
    """Short: nobody notices. Long: it ends when it was to, and is back with its beginning."""
    receiver, members, config = parts
    data = tmp_path / "data"
    with RunningApp(data, config) as app:
        app.client.push({"group": "trunk", "status": -1})
        wait_told(receiver, "trunk", "firing")
        known = [eventually(lambda one=one: one.fires("trunk")) for one in members]
    with RunningApp(data, config) as app:
        for one, before in zip(members, known, strict=True):
            after = eventually(
                lambda one=one, before=before: (
                    (alert := one.fires("trunk"))
                    and alert["updatedAt"] > before["updatedAt"]
                    and alert
                )
            )
            assert after["startsAt"] == before["startsAt"]
        everybody_had_time(app, receiver, members[1], "clock")
        assert told(receiver)["trunk", "resolved"] == 0
        assert told(receiver)["trunk", "firing"] == 1
    last = [one.fires("trunk") for one in members]
    assert all(last)
    for one in members:
        eventually(lambda one=one: one.fires("trunk") is None, within=20)
    wait_told(receiver, "trunk", "resolved")
    ended = next(
        alert
        for one in list(receiver.received)
        for alert in one.body["alerts"]
        if (alert["labels"]["group"], alert["status"]) == ("trunk", "resolved")
    )
    assert ended["endsAt"][:23] in {alert["endsAt"][:23] for alert in last}
    with RunningApp(data, config) as app:
        for one, before in zip(members, known, strict=True):
            again = eventually(lambda one=one: one.fires("trunk"))
            assert again["fingerprint"] == before["fingerprint"]
            assert again["startsAt"] == before["startsAt"]
        wait_told(receiver, "trunk", "firing", 2)
        recover(app, receiver, "trunk")
        for one in members:
            eventually(lambda one=one: one.fires("trunk") is None)
        everybody_had_time(app, receiver, members[1], "again")
    assert told(receiver)["trunk", "firing"] == told(receiver)["trunk", "resolved"] == 2


def test_the_watchdog_is_lost_with_the_exporter(parts, tmp_path):
    """It fires as long as the exporter runs, and ends by itself after that."""
    receiver, members, config = parts
    config = Config(notifiers=config.notifiers, watchdog=True)
    with RunningApp(tmp_path / "data", config) as app:
        (alert,) = eventually(lambda: members[0].alerts('alertname="SRExporterWatchdog"'))
        assert alert["labels"]["exporter"] == "http://sr.example"
        ends = alert["endsAt"]
        eventually(
            lambda: members[0].alerts('alertname="SRExporterWatchdog"')[0]["updatedAt"] > ends,
            within=20,
        )
        app.client.push({"group": "trunk", "status": -1})
        eventually(lambda: members[0].fires("trunk"))
    eventually(lambda: not members[0].alerts(), within=20)
    assert receiver.received
