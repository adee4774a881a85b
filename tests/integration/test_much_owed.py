"""A receiver that is away while much happens: what it is owed is on disk, and bounded."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from sr_exporter.config import Config, SecretUrl, Webhook
from sr_exporter.config.values import Limits
from tests.harness import RunningApp, eventually, series
from tests.receiver import Receiver

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.once


def hooked(receiver: Receiver, **hook: Any) -> Config:
    return Config(notifiers=(Webhook("hook", SecretUrl(receiver.url), **hook),))


def push(app: RunningApp, *numbers: int, keys: str = "abc") -> None:
    """Push a change of each key for each number, and say which one it is."""
    for number in numbers:
        app.client.push(
            *(
                {
                    "source": "s",
                    "group": "g",
                    "identifier": key,
                    "status": -1 - number % 2,
                    "details": str(number),
                }
                for key in keys
            )
        ).raise_for_status()


def listed(app: RunningApp, **query: object) -> list[dict[str, Any]]:
    answer = app.client.session.get(f"{app.base}/api/v1/notifications", params=query, timeout=10)
    answer.raise_for_status()
    return answer.json()["items"]


def backlog(app: RunningApp) -> float:
    return sum(series(app.client.metrics(), "sr_exporter_notifier_backlog").values())


def told(alerts: list[dict[str, Any]]) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {}
    for alert in alerts:
        key = alert["labels"]["identifier"]
        found.setdefault(key, []).append(int(alert["annotations"]["details"]))
    return found


@pytest.mark.parametrize("group_wait_seconds", [0.0, 0.1])
def test_what_is_left_to_the_store_is_shown_and_delivered(
    tmp_path: Path, monkeypatch, group_wait_seconds
):
    """As if it were in memory; after a restart, too, and with other things behind it."""
    monkeypatch.setattr("sr_exporter.notify.rows.BODY_BYTES", -1)
    with Receiver(503) as receiver:
        config = hooked(receiver, group_wait_seconds=group_wait_seconds)
        with RunningApp(tmp_path, config) as app:
            push(app, *range(5))
            receiver.wait_for(1)
            shown = [one["notification"]["alerts"][0] for one in listed(app, state="owed")]
            assert told(shown) == {key: list(range(5)) for key in "abc"}
            assert len(listed(app, state="owed", limit=4)) == 4
        with RunningApp(tmp_path, config) as app:
            assert [one["notification"]["alerts"][0] for one in listed(app, state="owed")] == shown
            push(app, *range(5, 10))
            receiver.answer(200)
            eventually(lambda: backlog(app) == 0, within=30)
        heard = [alert for one in receiver.accepted for alert in one.body["alerts"]]
        assert told(heard) == {key: list(range(10)) for key in "abc"}


def test_a_dead_letter_of_what_was_left_to_the_store_is_whole(tmp_path, monkeypatch):
    """It was given up without its text being here, and is delivered with it."""
    monkeypatch.setattr("sr_exporter.notify.rows.BODY_BYTES", -1)
    with Receiver(400) as receiver, RunningApp(tmp_path, hooked(receiver)) as app:
        push(app, 1, keys="a")
        (letter,) = eventually(lambda: listed(app))
        assert letter["notification"] == receiver.received[0].body
        receiver.answer(200)
        url = f"{app.base}/api/v1/notifications/{letter['id']}/retry"
        answer = app.client.session.post(url, timeout=10)
        assert answer.json()["notification"] == letter["notification"]
        assert receiver.wait_for(2)[1].body == letter["notification"]


def test_too_many_are_given_up_and_may_be_tried_again(tmp_path, capsys):
    """The oldest, counted, with a reason; said once, though it goes on."""
    with Receiver(503) as receiver:
        config = replace(hooked(receiver), limits=Limits(notifications=100))
        with RunningApp(tmp_path, config) as app:
            push(app, *range(50))
            letters = eventually(lambda: len(found := listed(app, limit=1000)) >= 50 and found)
            dead = ("sr_exporter_notifications_total", (("notifier", "hook"), ("result", "dead")))
            eventually(lambda: app.client.metrics()[dead] == len(letters))
            assert backlog(app) == 150 - len(letters)
            assert {one["reason"] for one in letters} == {
                "more than 100 were owed (limits.notifications)"
            }
            receiver.answer(200)
            eventually(lambda: backlog(app) == 0, within=30)
            count = len(receiver.received)
            url = f"{app.base}/api/v1/notifications/{letters[0]['id']}/retry"
            app.client.session.post(url, timeout=10).raise_for_status()
            assert receiver.wait_for(count + 1)[count].delivery == letters[0]["id"]
        alerts = [one["notification"]["alerts"][0] for one in letters]
        heard = [one.body["alerts"][0] for one in receiver.accepted[: 150 - len(letters)]]
        for numbers in told(heard).values():
            assert numbers == sorted(numbers)
        lost, had = told(alerts), told(heard)
        assert {key: sorted(lost[key] + had[key]) for key in lost} == {
            key: list(range(50)) for key in "abc"
        }
    assert capsys.readouterr().out.count("too many notifications are owed") == 1
