"""`keep_firing_for`: an alert outlives a short recovery, at every notifier and a restart."""

from __future__ import annotations

import json

import pytest

from sr_exporter.config import Send
from sr_exporter.config.values import AlertRule
from sr_exporter.model import Configured, Forget, PolledSource, PollFailed, PollFailure, Statement
from sr_exporter.notify.alerts import rfc3339
from tests.unit.test_notify_book import Bench as BookBench
from tests.unit.test_notify_outbox import Bench as OutboxBench

KEPT = AlertRule(keep_firing_seconds=60.0)


def book() -> BookBench:
    b = BookBench()
    b.reload(KEPT)
    return b


def outbox(*sends: Send) -> OutboxBench:
    b = OutboxBench(*sends)
    b.configure(KEPT)
    return b


# --- levels ----------------------------------------------------------------------------------


def test_an_alert_goes_on_for_a_while_after_the_recovery():
    """It is the same, says the same, and ends when it is time."""
    b = book()
    (record,) = b.push(-1, details="down").values()
    b.now += 10
    assert b.push(1) == {}
    assert b.firing() == ["g"]
    assert b.book.next_due() == b.now + 60
    assert b.later(59) == {}
    (ended,) = b.later(1).values()
    assert record
    assert ended
    assert (ended.fingerprint, ended.annotations) == (record.fingerprint, record.annotations)
    assert ended.resolved_at == b.now
    assert b.firing() == []


def test_which_alerts_are_kept_can_be_told():
    """Those of whom is well again, as long as they fire, and no others."""
    b = book()

    def kept() -> list[str]:
        return [record.labels["group"] for record in b.book.kept()]

    b.push(-1)
    assert kept() == []
    b.push(1)
    assert kept() == ["g"]
    b.push(-1)
    assert kept() == []
    b.push(1)
    assert kept() == ["g"]
    b.later(60)
    assert kept() == []
    b.push(-1)
    b.push(1)
    b.see(Forget("push", "g"))
    assert kept() == []


def test_a_flap_is_one_alert():
    """Not ready again in time: it fires on from its first moment, for as long as it takes."""
    b = book()
    (record,) = b.push(-1).values()
    for _ in range(3):
        b.now += 50
        b.push(1)
        b.now += 50
        b.push(-2)
    assert record
    (level,) = b.book.levels()
    assert level.record.starts_at == record.starts_at
    assert level.record.annotations["description"].startswith("Since 1970-01-01 00:16:40 UTC: ")
    assert level.record.annotations["status"] == "-2"
    assert b.later(1000) == {}
    assert b.firing() == ["g"]


def test_a_removal_ends_it_at_once():
    """There is nothing left to wait for."""
    b = book()
    b.push(-1)
    b.push(1)
    b.see(Forget("push", "g"))
    assert b.firing() == []


@pytest.mark.parametrize(
    "rule", [AlertRule(severity="info", keep_firing_seconds=60.0), AlertRule(silence=True), None]
)
def test_it_ends_when_its_rule_is_another(rule):
    """Other labels, silence, or no such rule: it is well, and nothing keeps it."""
    b = book()
    b.push(-1)
    b.push(1)
    b.reload(*([rule] if rule else []))
    assert b.firing() == []


def test_a_restart_does_not_cut_it_short_nor_prolong_it():
    """A key keeps when it recovered."""
    b = book()
    b.push(-1)
    b.now += 5
    b.push(1)
    b.now += 30
    b.restart()
    b.refresh()
    assert b.firing() == ["g"]
    b.later(29)
    assert b.firing() == ["g"]
    b.later(1)
    assert b.firing() == []


def test_a_lost_source_is_kept_too():
    """From its first good poll on; and anew each time it is lost."""
    b = book()
    b.configure()
    b.poll()
    b.fail()
    b.later(30)
    assert b.firing() == ["sip-1"]
    b.poll()
    b.later(59)
    assert b.firing() == ["sip-1"]
    b.fail()
    b.later(100)
    b.poll()
    b.later(59)
    assert b.firing() == ["sip-1"]
    b.later(1)
    assert b.firing() == []


# --- edges -----------------------------------------------------------------------------------


@pytest.mark.parametrize("send", Send)
def test_the_end_is_told_when_it_is_time(send):
    """Not before; and once."""
    b = outbox(send)
    b.push(-1)
    assert [one[0] for one in b.sent(send)] == ["firing"]
    b.push(1)
    b.later(59)
    assert b.sent(send) == []
    b.later(1)
    assert [one[0] for one in b.sent(send)] == ["resolved"]
    assert b.rows == {}


@pytest.mark.parametrize("send", Send)
def test_neither_an_end_nor_a_beginning_is_told_of_a_flap(send):
    """Whoever was told that it fires need not hear of it."""
    b = outbox(send)
    b.push(-1)
    b.sent(send)
    for _ in range(3):
        b.push(1)
        b.later(50)
        b.push(-1)
        b.later(50)
    assert b.sent(send) == []
    b.push(1)
    b.later(60)
    assert [one[0] for one in b.sent(send)] == ["resolved"]


def test_what_is_held_of_an_end_says_what_is_true_at_last():
    """Another status above 0 does not put the end off."""
    b = outbox()
    b.push(-1)
    b.sent()
    b.push(1)
    b.later(40)
    b.push(2)
    assert b.sent() == []
    b.later(20)
    assert [one[0] for one in b.sent()] == ["resolved"]


@pytest.mark.parametrize("send", Send)
@pytest.mark.parametrize("deaf", [False, True])
@pytest.mark.parametrize("restart", [False, True])
def test_an_end_bears_the_time_of_its_beginning(send, deaf, restart):
    """Receivers pair them by it: one that flaps began when it was told, and so for one told late.

    Neither another status meanwhile nor one after the recovery makes it begin anew.
    """
    b = outbox(send)
    began = b.now
    b.push(-1)
    if not deaf:
        b.sent(send)
    for status in (1, -1, -2, 1, 2):
        b.later(8)
        b.push(status)
    if restart:
        levels = [level.record for level in b.book.levels()]
        b.begin(list(b.rows.values()), levels, keep_firing_seconds=60.0)
    b.later(60)
    rows = sorted(b.rows.values(), key=lambda row: row.seq)
    said = [json.loads(row.body)["alerts"][0] for row in rows]
    assert said[-1]["status"] == "resolved"
    assert {one["startsAt"] for one in said} == {rfc3339(began)}


def test_an_end_by_a_reload_bears_the_time_of_its_beginning():
    """Of what flapped, too; what begins under other labels begins then."""
    b = outbox()
    began = b.now
    b.push(-1)
    b.sent()
    for status in (1, -1):
        b.later(8)
        b.push(status)
    b.configure(AlertRule(silence=True))
    (row,) = b.rows.values()
    assert json.loads(row.body)["alerts"][0]["startsAt"] == rfc3339(began)


def test_two_alerts_are_two_though_the_book_did_not_see_the_first_end():
    """It is brought up to date a moment later; what is owed tells then."""
    b = OutboxBench()
    times = []
    for status in (-1, 1, -1, 1):
        b.later(1)
        times.append(b.now)
        b.see(Statement("push", "g", status=status), look=len(times) == 1)
    said = [json.loads(row.body)["alerts"][0] for row in b.rows.values()]
    assert [one["startsAt"] for one in said] == [rfc3339(times[n]) for n in (0, 0, 2, 2)]


def test_news_of_what_is_well_all_along_is_not_held():
    """No alert is kept there."""
    b = outbox()
    b.push(1)
    b.push(2)
    assert [one[0] for one in b.sent()] == ["resolved"]


@pytest.mark.parametrize("ready_before", [True, False])
def test_a_removal_is_told_at_once(ready_before):
    """Whether the end was held already, or not."""
    b = outbox()
    b.push(-1)
    b.sent()
    if ready_before:
        b.push(1)
        assert b.sent() == []
    b.see(Forget("push", "g"))
    assert [one[0] for one in b.sent()] == ["resolved"]
    assert b.rows == {}


@pytest.mark.parametrize(
    "rule", [AlertRule(severity="info", keep_firing_seconds=60.0), AlertRule(silence=True), None]
)
def test_a_reload_lets_go_of_an_end(rule):
    """As the level ends, so does it for a webhook."""
    b = outbox()
    b.push(-1)
    b.sent()
    b.push(1)
    b.configure(*([rule] if rule else []))
    assert [one[0] for one in b.sent()] == ["resolved"]


def test_a_reload_moves_an_end():
    """It counts from the recovery."""
    b = outbox()
    b.push(-1)
    b.sent()
    b.push(1)
    b.later(10)
    b.configure(AlertRule(keep_firing_seconds=30.0))
    b.later(19)
    assert b.sent() == []
    b.later(1)
    assert [one[0] for one in b.sent()] == ["resolved"]


def test_who_leaves_is_told_the_end_at_once():
    """It will not be there later."""
    b = outbox()
    b.push(-1)
    b.sent()
    b.push(1)
    queue = b.queue()
    b.sends = (Send.READINESS,)
    b.configure(KEPT)
    owed = queue.take(b.now)
    assert owed is not None


def test_an_end_that_is_held_survives_a_restart():
    """Its row is kept, and due at its time."""
    b = outbox()
    b.push(-1)
    b.sent()
    b.push(1)
    b.later(10)
    levels = [level.record for level in b.book.levels()]
    b.begin(list(b.rows.values()), levels, keep_firing_seconds=60.0)
    assert b.sent() == []
    b.later(50)
    assert [one[0] for one in b.sent()] == ["resolved"]


def test_the_end_of_an_outage_is_held():
    """A lost source that is back, and lost again, was never back to who is told."""
    b = outbox()
    b.see(Configured((PolledSource("sip-1", 60.0),)))
    b.poll()
    lost = PollFailed("sip-1", b.now, PollFailure.CONNECT, "refused")
    b.see(lost)
    b.later(30)
    assert [one[0] for one in b.sent()] == ["firing"]
    b.book.refresh(b.now)
    b.poll()
    b.later(30)
    b.see(lost)
    b.later(60)
    assert b.sent() == []
    b.poll()
    b.later(60)
    assert [one[0] for one in b.sent()] == ["resolved"]
