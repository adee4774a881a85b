"""A notifier that takes nothing: what is said of it, and to whom."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING

import pytest

from sr_exporter.config import Alertmanager, AlertRule
from sr_exporter.config.values import Send
from sr_exporter.metrics.own import OwnMetrics
from sr_exporter.model import Forget, Key, Statement
from sr_exporter.notify import alerts
from sr_exporter.notify.alertmanager import AlertmanagerSender, Instance
from sr_exporter.notify.alerts import Links
from sr_exporter.notify.rules import Rules
from sr_exporter.own import OWED_SECONDS, NotifierTeller, OwnState
from sr_exporter.state import State
from sr_exporter.tasks import Tasks, end
from tests import virtual_time
from tests.receiver import Receiver
from tests.unit.test_notify_book import Bench as BookBench
from tests.unit.test_notify_outbox import FIRST, OVER, Bench

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from sr_exporter.model import Observation

NAME = "SRExporterNotifierFailing"
WHY = "connection refused (3 owed)"


def said(status: int, name: str = "changes", details: str | None = None) -> Statement:
    return Statement("sr_exporter", "notifier", name, status=status, details=details)


def bench() -> Bench:
    return Bench(Send.CHANGES, Send.READINESS)


# --- what it says ----------------------------------------------------------------------------


def test_the_alert_of_a_notifier_tells_which_since_when_why_and_what_to_do():
    """Its labels are those of any key, under a name of its own."""
    state = State()
    state.apply(said(-1, "oncall", WHY), 1795377166.5)
    key = Key("sr_exporter", "notifier", "oncall")
    entry = state.entry(key)
    assert entry is not None
    alert = alerts.of_key(entry, Rules().for_key(key, early=False), Links("http://sr"))
    assert alert.labels == {
        "alertname": NAME,
        "source": "sr_exporter",
        "group": "notifier",
        "identifier": "oncall",
        "severity": "critical",
    }
    assert alert.annotations == {
        "summary": "Notifier oncall does not take what it is sent",
        "description": (
            "Since 2026-11-22 19:52:46 UTC: connection refused (3 owed). People paged by oncall"
            " may miss alerts now. See that its receiver runs, that the exporter reaches it, and"
            " what it is owed: sr-exporter notifications list --state owed."
        ),
        "status": "-1",
        "details": WHY,
        "runbook_url": "http://sr/runbooks#srexporternotifierfailing",
    }
    assert alert.starts_at == 1795377166.5


def test_the_end_of_it_says_no_more_than_is_known():
    """It took one notification; others may be owed, or were refused for good."""
    state = State()
    state.apply(said(1, "oncall"), 0.0)
    key = Key("sr_exporter", "notifier", "oncall")
    entry = state.entry(key)
    assert entry is not None
    alert = alerts.of_key(entry, Rules().for_key(key, early=False), Links("http://sr"))
    assert alert.annotations["description"] == (
        "It took a notification again; more may be owed to it. What a webhook refused for good is"
        " kept: sr-exporter notifications list --state dead --notifier oncall."
    )


def test_a_rule_may_say_more_of_it_or_silence_it():
    """It is decided as any key is."""
    b = BookBench()
    b.reload(AlertRule(source="sr_exporter", group="notifier", labels=(("team", "ops"),)))
    b.see(said(-1))
    b.later(60)
    assert [record.labels["team"] for record in b.book.firing()] == ["ops"]
    b.reload(AlertRule(group="notifier", silence=True))
    assert list(b.book.firing()) == []


def test_it_fires_after_a_minute_and_ends_when_it_takes_again_or_leaves():
    """A receiver that restarts is nobody's business."""
    b = BookBench()
    b.see(said(-1))
    b.later(59)
    assert b.firing() == []
    b.later(1)
    assert b.firing() == ["notifier"]
    b.see(said(1))
    assert b.firing() == []
    b.see(said(-1))
    b.later(60)
    b.see(Forget("sr_exporter", "notifier", "changes"))
    assert b.firing() == []


# --- who is told -----------------------------------------------------------------------------


def test_a_webhook_is_not_told_of_itself():
    """The other one is, of the beginning and of the end."""
    b = bench()
    b.see(said(-1))
    b.later(60)
    b.see(said(1))
    assert b.sent(Send.CHANGES) == []
    assert b.sent(Send.READINESS) == [("firing", "notifier", FIRST), ("resolved", "notifier", OVER)]


def test_case_does_not_make_it_another():
    """Names of notifiers are told apart ignoring it."""
    b = bench()
    b.see(said(-1, "Changes"))
    b.later(60)
    assert b.sent(Send.CHANGES) == []
    assert len(b.sent(Send.READINESS)) == 1


def test_two_that_fail_hear_of_each_other_in_order():
    """As soon as they take something: first that it began, then that it is over."""
    b = bench()
    b.see(said(-1, "changes"))
    b.later(30)
    b.see(said(-1, "readiness"))
    b.later(60)
    b.see(said(1, "changes"))
    b.see(said(1, "readiness"))
    for send in (Send.CHANGES, Send.READINESS):
        assert [status for status, *_ in b.sent(send)] == ["firing", "resolved"]


def test_a_reload_tells_nobody_of_itself():
    """Neither by another rule, nor as it leaves."""
    b = bench()
    b.see(said(-1))
    b.later(60)
    b.configure(AlertRule(group="notifier", labels=(("team", "ops"),)))
    assert b.sent(Send.CHANGES) == []
    assert [status for status, *_ in b.sent(Send.READINESS)] == ["firing", "resolved", "firing"]
    b.sends = (Send.READINESS,)
    b.configure()
    assert b.sent(Send.CHANGES) == []
    b.see(Forget("sr_exporter", "notifier", "changes"))
    *_, gone = b.sent(Send.READINESS)
    assert gone == ("resolved", "notifier", OVER)


def test_the_end_of_one_that_left_says_so():
    """Nothing of it recovered."""
    b = bench()
    b.see(said(-1))
    b.later(60)
    writes = b.see(Forget("sr_exporter", "notifier", "changes"))
    (row,) = [row for row in writes.values() if row]
    (alert,) = json.loads(row.body)["alerts"]
    assert alert["annotations"]["description"] == "It is no longer configured."


# --- an Alertmanager -------------------------------------------------------------------------


class Told:
    """Implements `NotifierObserver`; keeps how the notifier stands."""

    def __init__(self) -> None:
        self.stood: list[str | None] = []

    def stands(self, _: str, error: str | None) -> None:
        self.stood.append(error)

    def __getattr__(self, _: str) -> Callable[..., None]:
        return lambda *_: None


def sender(b: BookBench, told: Told, url: str, **fields: bool) -> AlertmanagerSender:
    config = Alertmanager("am", (url,), timeout_seconds=5.0)
    return AlertmanagerSender(config, b.book, told, clock=lambda: b.now, **fields)


def names(receiver: Receiver) -> list[list[str]]:
    return [
        [alert["labels"]["identifier"] for alert in json.loads(one.raw)]
        for one in receiver.received
    ]


def send(sending: AlertmanagerSender, *, whole: bool) -> None:
    (instance,) = sending._instances
    asyncio.run(_all_of(instance, instance.send(whole=whole)))


async def _all_of(instance: Instance, request: Awaitable[object]) -> None:
    """Have nothing left of a request, for its loop ends with it."""
    await request
    instance._outbound.hang_up()


def test_an_alertmanager_is_not_told_of_itself():
    """Not what changed, not all of it, not as it leaves; it is not owed that either."""
    b, told = BookBench(), Told()
    b.see(said(-1, "am"))
    b.see(said(-1, "hook"))
    b.later(60)
    with Receiver() as receiver:
        sending = sender(b, told, receiver.base)
        assert sending.backlog == 1
        send(sending, whole=True)
        assert sending.backlog == 0
        b.see(said(1, "am"))
        assert sending.backlog == 0
        b.see(said(1, "hook"))
        send(sending, whole=False)
        (instance,) = sending.leave()
        asyncio.run(_all_of(instance, instance.part()))
        assert names(receiver) == [["hook"], ["hook"], ["hook"]]
        instance.close()


@pytest.mark.parametrize(("doubted", "asked"), [(False, 0), (True, 1)])
def test_one_that_took_nothing_when_we_stopped_is_asked_though_there_is_nothing_to_send(
    doubted, asked
):
    """Else its alert would go on until the next trouble; a sound one is left alone."""
    b, told = BookBench(), Told()
    b.see(said(-1, "am"))
    b.later(60)
    with Receiver() as receiver:
        sending = sender(b, told, receiver.base, doubted=doubted)
        send(sending, whole=True)
        assert names(receiver) == [[]] * asked
        assert told.stood == [None] * asked
        sending.close()


def test_one_that_failed_is_asked_until_it_takes_something_again():
    """What it refused is over by then."""
    b, told = BookBench(), Told()
    b.push(-1)
    with Receiver(503) as receiver:
        sending = sender(b, told, receiver.base)
        send(sending, whole=True)
        b.push(1)
        b.later(901)
        assert list(b.book.levels()) == []
        send(sending, whole=True)
        receiver.answer(200)
        send(sending, whole=True)
        send(sending, whole=True)
        assert [len(alerts) for alerts in names(receiver)] == [1, 0, 0]
        assert told.stood == ["1 of 1 instances: HTTP 503", None]
        sending.close()


def test_a_doubt_about_one_instance_is_not_lifted_by_another():
    """How the notifier stands is not known before all of them were asked."""
    b, told = BookBench(), Told()
    b.push(-1)
    with Receiver() as one, Receiver() as other:
        config = Alertmanager("am", (one.base, other.base))
        sending = AlertmanagerSender(config, b.book, told, clock=lambda: b.now, doubted=True)
        first, second = sending._instances
        asyncio.run(_all_of(first, first.send(whole=True)))
        assert told.stood == []
        asyncio.run(_all_of(second, second.send(whole=True)))
        assert told.stood == [None]
        sending.close()


# --- how it is said --------------------------------------------------------------------------


class Ingest:
    """Notes what is said of our own state."""

    def __init__(self) -> None:
        self.said: list[tuple[int | None, str | None]] = []

    async def observe(self, observation: Observation) -> None:
        assert isinstance(observation, Statement)
        self.said.append((observation.status, observation.details))


def test_how_much_is_owed_is_said_again_while_it_grows():
    """Every half a minute; and no more once it takes something again, or leaves."""

    async def run() -> None:
        ingest, tasks = Ingest(), Tasks()
        own = OwnState(ingest, State())  # type: ignore[arg-type]
        teller = NotifierTeller(OwnMetrics(), own)
        owed = 1
        teller.joined("hook", lambda: owed)
        watching = tasks.start("watch", teller.watch_owed())
        teller.stands("hook", "HTTP 503")
        await asyncio.sleep(OWED_SECONDS * 2.5)
        owed = 7
        await asyncio.sleep(OWED_SECONDS)
        teller.stands("hook", None)
        owed = 9
        await asyncio.sleep(OWED_SECONDS)
        teller.stands("hook", "HTTP 500")
        teller.left("hook")
        owed = 11
        await asyncio.sleep(OWED_SECONDS)
        teller.stands("hook", "HTTP 502")
        await own.settle()
        await end([watching])
        assert ingest.said == [
            (1, None),
            (-1, "HTTP 503 (1 owed)"),
            (-1, "HTTP 503 (7 owed)"),
            (1, None),
            (-1, "HTTP 500 (9 owed)"),
        ]

    virtual_time.run(run())


def test_who_is_told_what_is_the_case_is_owed_nothing():
    """An Alertmanager has no list of what it is owed."""

    async def run() -> None:
        ingest = Ingest()
        own = OwnState(ingest, State())  # type: ignore[arg-type]
        teller = NotifierTeller(OwnMetrics(), own)
        teller.joined("am", lambda: 3, owes=False)
        teller.stands("am", "1 of 1 instances: connection refused")
        await own.settle()
        assert ingest.said[-1] == (-1, "1 of 1 instances: connection refused")

    asyncio.run(run())


def test_what_was_so_when_we_stopped_is_not_said_to_have_ended():
    """A notifier that took nothing is not sound because we start."""

    async def run() -> None:
        ingest = Ingest()
        own = OwnState(ingest, State())  # type: ignore[arg-type]
        teller = NotifierTeller(OwnMetrics(), own)
        teller.joined("hook", lambda: 0, WHY)
        await own.settle()
        assert ingest.said == [(-1, WHY)]

    asyncio.run(run())
