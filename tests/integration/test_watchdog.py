"""The watchdog at a real receiver: beside notifications, over a restart and a reload."""

from __future__ import annotations

import threading
from dataclasses import replace
from itertools import groupby
from typing import TYPE_CHECKING

from sr_exporter.config import Alertmanager, Config, Secret, SecretUrl, Webhook
from tests.harness import RunningApp, eventually, series
from tests.ports import reserve_port
from tests.receiver import Receiver

if TYPE_CHECKING:
    from tests.receiver import Received

BEAT_SECONDS = 0.2
AGAIN = "repeat interval elapsed"


def is_beat(one: Received) -> bool:
    return one.body["alerts"][0]["labels"]["alertname"] == "SRExporterWatchdog"


def beats(receiver: Receiver) -> list[Received]:
    return [one for one in receiver.accepted if is_beat(one)]


def others(receiver: Receiver) -> list[str]:
    return [one.status for one in receiver.accepted if not is_beat(one)]


def config(*receivers: Receiver, interval: float = BEAT_SECONDS) -> Config:
    hooks = tuple(
        Webhook(f"hook-{n}", SecretUrl(one.url), timeout_seconds=60.0, secret=Secret("s"))
        for n, one in enumerate(receivers)
    )
    return Config(notifiers=hooks, watchdog=True, watchdog_interval_seconds=interval)


class Deaf(Receiver):
    """Does not answer beats, or nothing but beats, before it is let go."""

    def __init__(self, *, to_beats: bool) -> None:
        super().__init__()
        self._to_beats = to_beats
        self.let_go = threading.Event()

    def take(self, received: Received) -> int:
        code = super().take(received)
        if is_beat(received) is self._to_beats:
            self.let_go.wait(30)
        return code


def test_it_beats_beside_the_notifications_and_over_a_restart(tmp_path):
    """It counts as none of them; the alert is the same one after a restart; a stop is silent."""
    with Receiver() as receiver:
        with RunningApp(tmp_path / "data", config(receiver)) as app:
            app.client.push({"group": "trunk", "status": -1})
            app.client.push({"group": "trunk", "status": 1})
            eventually(lambda: others(receiver) == ["firing", "resolved"])
            heard = len(beats(receiver))
            eventually(lambda: len(beats(receiver)) > heard + 2)
            found = app.client.metrics()
            accepted = series(found, "sr_exporter_notifications_total", result="accepted")
            assert list(accepted.values()) == [2]
            assert list(series(found, "sr_exporter_notifier_backlog").values()) == [0]
        eventually(
            lambda: not [one for one in threading.enumerate() if one.name.startswith("watch")]
        )
        before = len(beats(receiver))
        with RunningApp(tmp_path / "data", config(receiver)):
            eventually(lambda: len(beats(receiver)) >= before + 2)
        every = beats(receiver)
        assert {one.status for one in every} == {"firing"}
        assert len({one.delivery for one in every}) == len(every)
        assert len({one.body["alerts"][0]["startsAt"] for one in every}) == 1
        reasons = [one.body["notification_reason"] for one in every]
        assert set(reasons) == {"first notification", AGAIN}
        assert "first notification" in reasons[before:]
        assert all("X-SR-Signature-256" in one.headers for one in every)


def test_neither_waits_for_the_other(tmp_path):
    """A beat that hangs holds up no notification, and a notification that hangs no beat."""
    with (
        Deaf(to_beats=True) as one,
        Deaf(to_beats=False) as other,
        RunningApp(tmp_path / "data", config(one, other)) as app,
    ):
        for status in (-1, 1):
            app.client.push({"group": "trunk", "status": status})
        eventually(lambda: others(one) == ["firing", "resolved"])
        eventually(lambda: any(not is_beat(taken) for taken in other.received))
        heard = len(beats(other))
        eventually(lambda: len(beats(other)) > heard + 2)
        assert others(other) == []
        one.let_go.set()
        other.let_go.set()


def test_failing_beats_say_nothing_of_the_notifier(tmp_path):
    """How it stands is how it takes notifications: it does not turn with each beat."""
    with Receiver(503) as receiver, RunningApp(tmp_path / "data", config(receiver)) as app:
        receiver.wait_for(3)
        found = app.client.metrics()
        assert set(series(found, "opensips_sr_ready", group="notifier").values()) == {1}
        assert set(series(found, "sr_exporter_notifications_total").values()) == {0}


def test_a_reload_that_switches_it_off_is_heard_once(tmp_path):
    """By a webhook as by an Alertmanager, before the reload is over."""
    with Receiver() as receiver, Receiver() as alertmanager:
        on = config(receiver)
        on = replace(on, notifiers=(*on.notifiers, Alertmanager("am", (alertmanager.base,))))
        running = [on]

        def told() -> list[str]:
            """Give what was heard, however often."""
            return [status for status, _ in groupby(one.status for one in receiver.received)]

        with RunningApp(tmp_path / "data", read_config=lambda: running[0]) as app:
            # By then the exporter knows that the one before was taken.
            eventually(
                lambda: any(one.body["notification_reason"] == AGAIN for one in beats(receiver))
            )
            eventually(lambda: alertmanager.received)
            running[0] = replace(on, watchdog=False)
            assert app.client.reload().ok
            assert told() == ["firing", "resolved"]
            running[0] = on
            assert app.client.reload().ok
            eventually(lambda: told() == ["firing", "resolved", "firing"])
        assert told() == ["firing", "resolved", "firing"]


def test_a_receiver_that_is_away_does_not_hold_up_a_start_or_a_stop(tmp_path):
    """Nor a reload: what never heard it is not told of its end."""
    with Receiver() as receiver, reserve_port() as nobody:
        url = f"http://127.0.0.1:{nobody.getsockname()[1]}/hook"
        on = config(receiver)
        running = [replace(on, notifiers=(*on.notifiers, Webhook("away", SecretUrl(url))))]
        with RunningApp(tmp_path / "data", read_config=lambda: running[0]) as app:
            eventually(lambda: len(beats(receiver)) > 2)
            running[0] = replace(running[0], watchdog=False)
            assert app.client.reload().ok
