"""A burst becomes one notification of each source; what happens to it happens to all of it."""

from __future__ import annotations

import json
from collections import Counter
from itertools import groupby
from typing import TYPE_CHECKING

import pytest

from sr_exporter.config import Config, SecretUrl, Webhook
from tests.harness import Command, RunningApp, eventually, series
from tests.receiver import Receiver

if TYPE_CHECKING:
    from pathlib import Path

    from tests.harness import Client
    from tests.receiver import Received

SOURCES = ("sbc-1", "sbc-2")
KEYS = 100


def hooked(receiver: Receiver, group_wait_seconds: float) -> Config:
    hook = Webhook("hook", SecretUrl(receiver.url), group_wait_seconds=group_wait_seconds)
    return Config(notifiers=(hook,))


def burst(client: Client, status: int, keys: int = KEYS) -> None:
    """Push a change of every key of both sources, in many pushes."""
    for first in range(0, keys, 10):
        items = [
            {"source": source, "group": "g", "identifier": f"k{key}", "status": status}
            for key in range(first, min(first + 10, keys))
            for source in SOURCES
        ]
        client.push(*items).raise_for_status()


def told(notifications: list[Received]) -> Counter[tuple[str, str, str]]:
    """Count who was told of, and how it stands."""
    return Counter(
        (alert["labels"]["source"], alert["labels"]["identifier"], alert["annotations"]["status"])
        for one in notifications
        for alert in one.body["alerts"]
    )


def everybody(*statuses: int, keys: int = KEYS) -> set[tuple[str, str, str]]:
    return {
        (source, f"k{key}", str(status))
        for source in SOURCES
        for key in range(keys)
        for status in statuses
    }


def backlog(client: Client) -> float:
    return sum(series(client.metrics(), "sr_exporter_notifier_backlog").values())


def test_a_burst_is_one_notification_of_each_source(tmp_path):
    """200 changes in 20 pushes are two notifications, and so is their end."""
    now = [1_800_000_000.0]
    with (
        Receiver() as receiver,
        RunningApp(tmp_path, hooked(receiver, 0.2), clock=lambda: now[0]) as app,
    ):
        burst(app.client, -1)
        assert receiver.received == []
        now[0] += 1
        fired = receiver.wait_for(2)
        eventually(lambda: backlog(app.client) == 0)
        burst(app.client, 1)
        now[0] += 1
        receiver.wait_for(4)
        eventually(lambda: backlog(app.client) == 0)
        taken = app.client.metrics()[
            "sr_exporter_notifications_total", (("notifier", "hook"), ("result", "accepted"))
        ]
    assert len(receiver.received) == 4
    assert taken == 4 * KEYS
    ended = receiver.received[2:]
    for notifications, status, reason in (
        (fired, "firing", "first notification"),
        (ended, "resolved", "all alerts resolved"),
    ):
        assert {one.body["groupKey"] for one in notifications} == {
            f'{{}}:{{source="{source}"}}' for source in SOURCES
        }
        for one in notifications:
            (source,) = one.body["groupLabels"].values()
            assert one.body["status"] == status
            assert one.body["notification_reason"] == reason
            assert one.body["commonLabels"] == {
                "alertname": "OpenSIPSNotReady",
                "source": source,
                "group": "g",
                "severity": "warning",
            }
            assert len(one.body["alerts"]) == KEYS
    assert set(told(fired)) == everybody(-1)
    assert set(told(ended)) == everybody(1)
    assert len({one.delivery for one in receiver.received}) == 4


def test_a_burst_that_is_refused_comes_again_whole(tmp_path):
    """The same bytes under the same id, though more has happened meanwhile."""
    with Receiver(503) as receiver, RunningApp(tmp_path, hooked(receiver, 0.1)) as app:
        burst(app.client, -1, 5)
        first = receiver.wait_for(2)[:2]
        burst(app.client, 1, 5)
        receiver.answer(200)
        eventually(lambda: backlog(app.client) == 0, within=20)
    sent = {one.delivery: one.raw for one in receiver.received}
    assert all(sent[one.delivery] == one.raw for one in receiver.received)
    assert {one.delivery for one in first} <= {one.delivery for one in receiver.accepted}
    assert set(told(receiver.accepted)) == everybody(-1, 1, keys=5)
    for source in SOURCES:
        heard = [one for one in receiver.accepted if one.body["groupLabels"]["source"] == source]
        assert [one.status for one in heard] == ["firing", "resolved"]


def test_a_kill_in_the_middle_of_a_burst_loses_nothing(tmp_path: Path):
    """Neither what was refused, nor what gathers; what was taken may come again."""
    with Receiver(503) as receiver:
        file = tmp_path / "sr.yml"
        hook = {"url": receiver.url, "group_wait": "300ms"}
        file.write_text(json.dumps({"notifiers": [{"name": "hook", "webhook": hook}]}))
        arguments = (f"--config.file={file}", f"--storage.path={tmp_path / 'data'}")
        with Command(*arguments) as running:
            running.wait_ready()
            burst(running.client, -1)
            receiver.wait_for(1)
            burst(running.client, 1)
            running.process.kill()
        receiver.answer(200)
        with Command(*arguments) as running:
            running.wait_ready()
            burst(running.client, -2)
            eventually(lambda: backlog(running.client) == 0, within=20)
        assert set(told(receiver.accepted)) == everybody(-1, 1, -2)
        # In the order of each key: a notification holds one change of it.
        order: dict[tuple[str, str], list[str]] = {}
        for one in receiver.accepted:
            for source, name, status in told([one]):
                order.setdefault((source, name), []).append(status)
        # What was under way as it was killed may be taken all the same, and comes again.
        once = {tuple(status for status, _ in groupby(heard)) for heard in order.values()}
        assert once == {("-1", "1", "-2")}
        assert len(receiver.accepted) <= 12


def test_what_is_given_up_is_a_letter_for_each_change(tmp_path):
    """Each is tried again by itself, as a notification of its source."""
    with Receiver(400) as receiver, RunningApp(tmp_path, hooked(receiver, 0.1)) as app:
        burst(app.client, -1, 5)
        url = f"{app.base}/api/v1/notifications"
        get, post = app.client.session.get, app.client.session.post
        letters = eventually(
            lambda: len(items := get(url, timeout=10).json()["items"]) == 10 and items
        )
        count = len(receiver.received)
        assert count < 10
        receiver.answer(200)
        post(f"{url}/{letters[3]['id']}/retry", timeout=10).raise_for_status()
        again = receiver.wait_for(count + 1)[-1]
        eventually(lambda: backlog(app.client) == 0)
        assert len(get(url, timeout=10).json()["items"]) == 9
    assert again.delivery == letters[3]["id"]
    assert again.body["alerts"] == letters[3]["notification"]["alerts"]
    assert list(again.body["groupLabels"]) == ["source"]


@pytest.mark.parametrize("code", [413, 422])
def test_a_burst_that_is_too_big_is_sent_in_halves(tmp_path, code):
    """None of it is lost for being many, and halves of other size are other notifications."""
    now = [1_800_000_000.0]
    with (
        Receiver(code, code, code, code, 200) as receiver,
        RunningApp(tmp_path, hooked(receiver, 0.3), clock=lambda: now[0]) as app,
    ):
        burst(app.client, -1)
        burst(app.client, 1)
        now[0] += 1
        eventually(lambda: backlog(app.client) == 0, within=20)
        letters = app.client.session.get(f"{app.base}/api/v1/notifications", timeout=10).json()
    assert letters["items"] == []
    assert told(receiver.accepted) == Counter(everybody(-1, 1))
    refused = receiver.received[:4]
    assert not {one.delivery for one in refused} & {one.delivery for one in receiver.accepted}
    for one in receiver.accepted:
        assert len({alert["status"] for alert in one.body["alerts"]}) == 1


def test_one_change_that_is_refused_costs_no_other(tmp_path, monkeypatch):
    """It alone is given up, as it would be without gathering."""
    with Receiver() as receiver, RunningApp(tmp_path, hooked(receiver, 0.1)) as app:
        take = receiver.take

        def picky(received: Received) -> int:
            names = {alert["labels"]["identifier"] for alert in received.body["alerts"]}
            return 413 if "k3" in names else take(received)

        monkeypatch.setattr(receiver, "take", picky)
        burst(app.client, -1, 20)
        eventually(lambda: backlog(app.client) == 0, within=20)
        letters = app.client.session.get(f"{app.base}/api/v1/notifications", timeout=10).json()
    dead = [one["notification"]["commonLabels"] for one in letters["items"]]
    assert sorted((one["source"], one["identifier"]) for one in dead) == [
        (source, "k3") for source in SOURCES
    ]
    heard = {name for _, name, _ in told(receiver.accepted)}
    assert heard == {f"k{number}" for number in range(20)} - {"k3"}


def test_a_reload_that_gathers_no_more_sends_at_once(tmp_path):
    """Each by itself, as before there was any gathering."""
    with Receiver() as receiver:
        configs = [hooked(receiver, 3600.0)]
        with RunningApp(tmp_path, read_config=lambda: configs[-1]) as app:
            burst(app.client, -1, 2)
            configs.append(hooked(receiver, 0.0))
            app.client.reload().raise_for_status()
            sent = receiver.wait_for(4)
            eventually(lambda: backlog(app.client) == 0)
    assert {len(one.body["groupLabels"]) for one in sent} == {4}
    assert set(told(sent)) == everybody(-1, keys=2)


def test_a_stop_waits_for_no_window(tmp_path):
    """What gathers is told before the exporter ends."""
    with Receiver() as receiver:
        with RunningApp(tmp_path, hooked(receiver, 3600.0)) as app:
            burst(app.client, -1, 20)
            assert backlog(app.client) == 40
        assert [len(one.body["alerts"]) for one in receiver.received] == [20, 20]
