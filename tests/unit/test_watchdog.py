"""The alert that always fires, as webhooks hear it: by the clock, and on its own."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import pytest

from sr_exporter.config import SecretUrl, Webhook
from sr_exporter.notify import watchdog
from sr_exporter.notify.alerts import Links, of_watchdog
from sr_exporter.notify.watchdog import Watchdog
from sr_exporter.outbound import Answer, Failure, OutboundError
from sr_exporter.store.contract import AlertRecord
from sr_exporter.tasks import Tasks
from tests import virtual_time

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from sr_exporter.outbound import Post

LINKS = Links("http://sr")
FIRST, REPEATED, OVER = "first notification", "repeat interval elapsed", "all alerts resolved"
#: As the book has it: it began before we started.
_ALERT = of_watchdog(LINKS, 500.0)
RECORD = AlertRecord(
    _ALERT.fingerprint, _ALERT.labels, _ALERT.annotations, 500.0, None, _ALERT.generator_url
)
INTERVAL = 300.0
HOOK = Webhook("hook", SecretUrl("http://h/hook"), timeout_seconds=10.0)


@dataclass
class Receivers:
    """Stands for the network: notes what is posted, and answers as told."""

    #: When each came, where, and what.
    took: list[tuple[float, str, Post]] = field(default_factory=list)
    answer: int = 200
    hangs: bool = False
    under_way: int = 0
    most: int = 0

    def connect(self, _: object) -> Receivers:
        return self

    async def post(self, post: Post) -> Answer:
        self.took.append((asyncio.get_running_loop().time(), post.url, post))
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        try:
            if self.hangs:
                await asyncio.sleep(post.timeout_seconds)
                raise OutboundError(Failure.TIMEOUT, "no whole answer")
            return Answer(self.answer, {})
        finally:
            self.under_way -= 1

    def hang_up(self) -> None:
        """There is no connection."""

    @property
    def times(self) -> list[float]:
        return [at for at, *_ in self.took]

    @property
    def bodies(self) -> list[dict[str, Any]]:
        return [json.loads(post.body) for *_, post in self.took]

    @property
    def reasons(self) -> list[str]:
        return [body["notification_reason"] for body in self.bodies]


@pytest.fixture
def receivers(monkeypatch: pytest.MonkeyPatch) -> Receivers:
    found = Receivers()
    monkeypatch.setattr(watchdog, "Outbound", found.connect)
    return found


class Bench:
    """A watchdog that is configured again and again."""

    def __init__(self) -> None:
        self.tasks = Tasks()
        self.dog = Watchdog(LINKS, lambda: 1000.0)

    async def configure(
        self, *hooks: Webhook, interval: float = INTERVAL, record: AlertRecord | None = RECORD
    ) -> None:
        self.dog.configure(hooks, record, interval)
        await self.dog.part()
        self.dog.start(self.tasks)


def run(what: Callable[[Bench], Awaitable[None]]) -> None:
    async def whole() -> None:
        bench = Bench()
        await what(bench)
        await bench.dog.stop()
        await bench.tasks.stop()

    virtual_time.run(whole())


def test_a_webhook_hears_it_at_the_start_and_again_by_the_clock(receivers):
    """Each beat is a notification of its own; it is the same alert throughout."""

    async def what(b: Bench) -> None:
        await b.configure(HOOK)
        await asyncio.sleep(3 * INTERVAL + 1)

    run(what)
    assert receivers.times == [0.0, INTERVAL, 2 * INTERVAL, 3 * INTERVAL]
    assert receivers.reasons == [FIRST, REPEATED, REPEATED, REPEATED]
    assert len({post.headers["X-SR-Delivery"] for *_, post in receivers.took}) == 4
    alerts = [alert for body in receivers.bodies for alert in body["alerts"]]
    assert len(alerts) == 4
    assert all(alert == alerts[0] for alert in alerts)
    assert alerts[0]["labels"] == {
        "alertname": "SRExporterWatchdog",
        "severity": "none",
        "exporter": "http://sr",
    }
    assert alerts[0]["status"] == "firing"
    assert alerts[0]["startsAt"] == "1970-01-01T00:08:20.000000Z"


def test_nobody_hears_it_at_the_stop(receivers):
    """Silence is the alarm."""

    async def what(b: Bench) -> None:
        await b.configure(HOOK)
        await asyncio.sleep(1)

    run(what)
    assert receivers.reasons == [FIRST]


def test_a_beat_that_hangs_is_given_up_when_the_next_is_due(receivers):
    """There is one at a time, and none is made up for."""

    async def what(b: Bench) -> None:
        await b.configure(replace(HOOK, timeout_seconds=60.0), interval=15.0)
        await asyncio.sleep(44)

    receivers.hangs = True
    run(what)
    assert receivers.times == [0.0, 15.0, 30.0]
    assert receivers.most == 1


def test_a_beat_that_fails_is_not_tried_again(receivers, capfd):
    """The next one comes in its time. It is the first that is taken which is the first."""

    async def what(b: Bench) -> None:
        receivers.answer = 503
        await b.configure(HOOK)
        await asyncio.sleep(2 * INTERVAL + 1)
        receivers.answer = 204
        await asyncio.sleep(2 * INTERVAL)

    run(what)
    assert receivers.times == [n * INTERVAL for n in range(5)]
    assert receivers.reasons == [FIRST, FIRST, FIRST, FIRST, REPEATED]
    said = "".join(capfd.readouterr())
    assert said.count("webhook does not take the watchdog") == 1
    assert said.count("webhook takes the watchdog") == 1


def test_receivers_do_not_wait_for_each_other(receivers):
    """Each has its own clock and connection."""

    async def what(b: Bench) -> None:
        other = Webhook("other", SecretUrl("http://o/hook"), timeout_seconds=200.0)
        await b.configure(other, HOOK)
        await asyncio.sleep(INTERVAL + 1)

    receivers.hangs = True
    run(what)
    assert receivers.times == [0.0, 0.0, INTERVAL, INTERVAL]
    assert receivers.most == 2


# --- reloads ---------------------------------------------------------------------------------


def test_a_reload_that_changes_nothing_is_not_heard(receivers):
    """The clock goes on."""

    async def what(b: Bench) -> None:
        await b.configure(HOOK)
        await asyncio.sleep(100)
        await b.configure(HOOK)
        await asyncio.sleep(INTERVAL)

    run(what)
    assert receivers.times == [0.0, INTERVAL]


def test_another_interval_is_kept_from_now_on(receivers):
    """Nobody waits a day for the first of the shorter ones."""

    async def what(b: Bench) -> None:
        await b.configure(HOOK, interval=86400.0)
        await asyncio.sleep(100)
        await b.configure(HOOK, interval=50.0)
        await asyncio.sleep(51)

    run(what)
    assert receivers.times == [0.0, 100.0, 150.0]
    assert receivers.reasons == [FIRST, REPEATED, REPEATED]


@pytest.mark.parametrize("hangs", [False, True])
def test_another_address_hears_it_at_once_though_the_one_before_hangs(receivers, hangs):
    """It has not heard of it before; the other is told nothing, as with any notification."""

    async def what(b: Bench) -> None:
        receivers.hangs = hangs
        await b.configure(replace(HOOK, timeout_seconds=INTERVAL))
        await asyncio.sleep(10)
        receivers.hangs = False
        await b.configure(replace(HOOK, url=SecretUrl("http://mended/hook")))
        await asyncio.sleep(1)

    run(what)
    assert [(at, url) for at, url, _ in receivers.took] == [
        (0.0, "http://h/hook"),
        (10.0, "http://mended/hook"),
    ]
    assert receivers.reasons == [FIRST, FIRST]


@pytest.mark.parametrize(("hooks", "record"), [((HOOK,), None), ((), RECORD), ((), None)])
def test_who_is_told_no_more_hears_that_once(receivers, hooks, record):
    """It is switched off, or the webhook leaves: no switch pages for that."""

    async def what(b: Bench) -> None:
        await b.configure(HOOK)
        await asyncio.sleep(1)
        await b.configure(*hooks, record=record)
        await asyncio.sleep(3 * INTERVAL)

    run(what)
    assert receivers.reasons == [FIRST, OVER]
    firing, ended = receivers.bodies
    (alert,) = ended["alerts"]
    assert ended["status"] == alert["status"] == "resolved"
    assert alert["endsAt"] == "1970-01-01T00:16:40.000000Z"
    assert alert["fingerprint"] == firing["alerts"][0]["fingerprint"]
    assert alert["startsAt"] == firing["alerts"][0]["startsAt"]
    assert "not by a recovery" in alert["annotations"]["description"]


def test_who_never_heard_it_is_not_kept_waiting_for(receivers):
    """A reload away from a receiver that hangs takes no longer for that."""

    async def what(b: Bench) -> None:
        await b.configure(HOOK)
        await asyncio.sleep(1)
        await b.configure()

    receivers.hangs = True
    run(what)
    assert receivers.reasons == [FIRST]


def test_a_webhook_under_another_name_goes_on(receivers):
    """The receiver hears of the new name at once, and of no end."""

    async def what(b: Bench) -> None:
        await b.configure(HOOK)
        await asyncio.sleep(100)
        await b.configure(replace(HOOK, name="new"))
        await asyncio.sleep(INTERVAL - 1)

    run(what)
    assert receivers.reasons == [FIRST, REPEATED]
    assert [body["receiver"] for body in receivers.bodies] == ["hook", "new"]


def test_a_receiver_that_another_webhook_goes_on_with_hears_of_no_end(receivers):
    """Two of one address are two, and one is left."""

    async def what(b: Bench) -> None:
        await b.configure(HOOK, replace(HOOK, name="twin"))
        await asyncio.sleep(1)
        await b.configure(HOOK)
        await asyncio.sleep(INTERVAL)

    run(what)
    assert receivers.reasons == [FIRST, FIRST, REPEATED]
