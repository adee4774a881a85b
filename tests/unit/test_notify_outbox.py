"""What webhooks are owed: which change, in what order, and when."""

from __future__ import annotations

import json
import uuid
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sr_exporter.config.values import Send
from sr_exporter.model import (
    Configured,
    Forget,
    ListedStatus,
    OnExpiry,
    PolledSource,
    PollFailed,
    PollFailure,
    Snapshot,
    Statement,
    Tick,
)
from sr_exporter.notify.alerts import Links
from sr_exporter.notify.outbox import EdgeNotifier, Outbox, Queue
from sr_exporter.state import State
from sr_exporter.store.contract import Owed, Standing

if TYPE_CHECKING:
    from sr_exporter.model import Observation

RUN = uuid.UUID("6ba7b810-9dad-11d1-80b4-00c04fd430c8")
LINKS = Links("http://sr")


class Bench:
    """A state, an outbox, and the rows that a store would hold."""

    def __init__(self, *sends: Send) -> None:
        self.now = 1000.0
        self.state = State()
        self.sends = sends or (Send.CHANGES,)
        self.outbox = self.an_outbox()
        self.rows: dict[str, Owed] = {}

    def an_outbox(self) -> Outbox:
        return Outbox([EdgeNotifier(send.value, send) for send in self.sends], LINKS, RUN)

    def queue(self, send: Send = Send.CHANGES) -> Queue:
        return self.outbox.queues[send.value]

    def see(self, observation: Observation, *, kept: bool = True) -> dict[str, Owed | None]:
        """Apply an observation; unless told otherwise, its commit is over at once."""
        outcome = self.state.apply(observation, self.now)
        writes = self.outbox.plan(outcome, self.now)
        for row_id, row in writes.items():
            if row is None:
                del self.rows[row_id]
            else:
                self.rows[row_id] = row
        if kept:
            self.outbox.kept(list(writes))
        return writes

    def push(self, status: int | None, group: str = "g", **fields: object) -> list[Owed | None]:
        said = Statement("push", group, status=status, **fields)  # type: ignore[arg-type]
        return list(self.see(said).values())

    def poll(self, *listed: tuple[str, int], uptime: float | None = None) -> None:
        statuses = tuple(ListedStatus(group, "main", n, n > 0, None) for group, n in listed)
        self.see(Snapshot("sip-1", self.state.revision, self.now, statuses, uptime_seconds=uptime))

    def sent(self, send: Send = Send.CHANGES) -> list[tuple[str, str, str]]:
        """Deliver what is due now. Gives status, group or source, and reason of each."""
        delivered = []
        while (owed := self.queue(send).take(self.now)) is not None:
            self.queue(send).settle(owed)
            self.rows.pop(owed.id)
            delivered.append(told(owed))
        return delivered

    def later(self, seconds: float) -> None:
        self.now += seconds


def told(owed: Owed) -> tuple[str, str, str]:
    body = json.loads(owed.body)
    labels = body["commonLabels"]
    return body["status"], labels.get("group", labels["source"]), body["notification_reason"]


FIRST = "first notification"
MORE = "new alerts added"
OVER = "all alerts resolved"


# --- which change is told --------------------------------------------------------------------


def test_every_change_of_status_is_told_to_who_wants_changes():
    """`send: changes`: firing while not ready, else resolved; a good appearance is nothing."""
    b = Bench()
    for status in (1, -1, -2, -2, 1, 2, 1):
        b.push(status)
    assert b.sent() == [
        ("firing", "g", FIRST),
        ("firing", "g", MORE),
        ("resolved", "g", OVER),
        ("resolved", "g", OVER),
        ("resolved", "g", OVER),
    ]


def test_only_turns_are_told_to_who_wants_readiness():
    """`send: readiness`: the number does not count, only whether it is ready."""
    b = Bench(Send.READINESS, Send.CHANGES)
    for status in (1, -1, -2, -2, 1, 2, 1):
        b.push(status)
    assert b.sent(Send.READINESS) == [("firing", "g", FIRST), ("resolved", "g", OVER)]
    assert len(b.sent(Send.CHANGES)) == 5


@pytest.mark.parametrize(("status", "sent"), [(1, []), (-1, [("firing", "g", FIRST)])])
def test_an_appearance_counts_when_it_is_not_ready(status, sent):
    """A key that comes up well is no news."""
    b = Bench()
    b.push(status)
    assert b.sent() == sent


@pytest.mark.parametrize(("status", "sent"), [(1, []), (-1, [("resolved", "g", OVER)])])
def test_a_removal_resolves(status, sent):
    """A key that is forgotten while not ready is resolved; another is no news."""
    b = Bench()
    b.push(status)
    b.sent()
    b.later(5)
    b.see(Forget("push"))
    assert b.sent() == sent


@pytest.mark.parametrize("status", [1, -1])
def test_details_and_reports_alone_are_no_news(status):
    """Only a number that changes is an event."""
    b = Bench()
    b.push(status)
    b.sent()
    assert b.push(status, details="other", reports=("a",)) == []
    assert b.push(None, reports=("b",)) == []
    assert b.sent() == []


def test_an_expiry_is_told():
    """A pusher that fell silent is a change like any other."""
    b = Bench()
    b.push(1, ttl_seconds=90.0)
    b.push(1, group="h", ttl_seconds=90.0, on_expiry=OnExpiry.REMOVE)
    b.later(91)
    b.see(Tick())
    assert b.sent() == [("firing", "g", FIRST)]


def test_our_own_sources_and_notifiers_are_told_elsewhere():
    """The own groups `source` and `notifier` make no notification."""
    b = Bench()
    for group in ("source", "notifier", "store"):
        b.see(Statement("sr_exporter", group, status=-1))
    assert b.sent() == [("firing", "store", FIRST)]


def test_every_notifier_has_a_row_of_its_own():
    """What one has taken is still owed to the other."""
    b = Bench(Send.READINESS, Send.CHANGES)
    rows = b.push(-1)
    assert {row.notifier for row in rows if row} == {"readiness", "changes"}
    assert len(b.sent(Send.READINESS)) == 1
    assert len(b.queue(Send.CHANGES)) == 1


def test_without_notifiers_nothing_is_owed():
    """Planning costs nothing then."""
    state = State()
    outbox = Outbox([], LINKS, RUN)
    assert outbox.plan(state.apply(Statement("push", "g", status=-1), 1.0), 1.0) == {}


def test_the_body_is_made_when_the_change_is_seen():
    """A notification tells of its change, whatever came after it."""
    b = Bench()
    (first,) = b.push(-1, details="one")
    b.later(10)
    (second,) = b.push(1, details="two")
    assert first
    assert second
    one, two = (json.loads(row.body)["alerts"][0] for row in (first, second))
    assert (one["annotations"]["details"], two["annotations"]["details"]) == ("one", "two")
    assert one["startsAt"] == two["startsAt"] == "1970-01-01T00:16:40.000000Z"
    assert two["endsAt"] == "1970-01-01T00:16:50.000000Z"


# --- held back -------------------------------------------------------------------------------


def test_a_change_under_a_for_is_held_and_withdrawn():
    """A registrant that is back within its 30 s is told neither way."""
    b = Bench()
    (row,) = b.push(-1, group="uac_registrant")
    assert row
    assert (row.standing, row.due_at, row.created_at) == (Standing.HELD, 1030.0, 1000.0)
    assert b.queue().next_due() == 1030.0
    b.later(29.9)
    assert b.sent() == []
    assert b.push(1, group="uac_registrant") == [None]
    assert b.rows == {}
    b.later(1000)
    assert b.sent() == []
    assert len(b.queue()) == 0


def test_a_change_is_told_when_its_for_is_over():
    """What lasts is told, and so is its end, in order."""
    b = Bench()
    b.push(-1, group="uac_registrant")
    b.later(30)
    assert b.sent() == [("firing", "uac_registrant", FIRST)]
    b.push(1, group="uac_registrant")
    assert b.sent() == [("resolved", "uac_registrant", OVER)]


def test_what_is_due_and_not_yet_sent_is_not_withdrawn():
    """Once `for` is over the receiver may know of it: both are told."""
    b = Bench()
    b.push(-1, group="uac_registrant")
    b.later(31)
    b.push(1, group="uac_registrant")
    assert [status for status, _, _ in b.sent()] == ["firing", "resolved"]


def test_what_is_held_says_what_is_true_at_last():
    """A held notification is written anew when the status changes once more."""
    b = Bench()
    (first,) = b.push(-1, group="uac_registrant")
    b.later(10)
    (second,) = b.push(-5, group="uac_registrant")
    assert first
    assert second
    assert (second.id, second.seq, second.due_at) == (first.id, first.seq, first.due_at)
    assert json.loads(second.body)["commonAnnotations"]["status"] == "-5"
    b.later(20)
    assert len(b.sent()) == 1


def test_a_removal_withdraws_what_is_held():
    """A key that is gone before its `for` is over was never told of."""
    b = Bench()
    b.push(-1, group="uac_registrant")
    b.see(Forget("push"))
    b.later(1000)
    assert (b.sent(), b.rows) == ([], {})


def test_a_source_is_held_for_half_a_minute():
    """An OpenSIPS that restarts quickly is told of neither way; one that stays away is."""
    b = Bench()
    b.see(Configured((PolledSource("sip-1", 60.0),)))
    failed = PollFailed("sip-1", b.now, PollFailure.CONNECT, "refused")
    b.poll(("g", 1))
    b.see(failed)
    b.later(20)
    b.poll(("g", 1))
    b.later(100)
    assert b.sent() == []
    b.see(failed)
    b.later(30)
    b.see(failed)
    assert b.sent() == [("firing", "sip-1", FIRST)]
    b.poll(("g", 1))
    assert b.sent() == [("resolved", "sip-1", OVER)]


def test_a_key_that_appears_not_ready_is_given_two_minutes():
    """A source that starts is not paged for."""
    b = Bench()
    b.see(Configured((PolledSource("sip-1", 60.0),)))
    b.poll(("g", -1), ("h", -1))
    b.later(60)
    b.poll(("g", 1), ("h", -1))
    b.later(59.9)
    assert b.sent() == []
    b.later(0.1)
    assert b.sent() == [("firing", "h", FIRST)]


def test_a_retried_notification_is_not_held_any_more():
    """What failed on the way may have been heard: its end is told after it."""
    b = Bench()
    b.push(-1, group="uac_registrant")
    b.later(30)
    owed = b.queue().take(b.now)
    assert owed
    b.queue().settle(replace(owed, attempts=1), retry_at=b.now + 60)
    b.push(1, group="uac_registrant")
    assert b.sent() == []
    b.later(60)
    assert [status for status, _, _ in b.sent()] == ["firing", "resolved"]


def test_what_is_under_way_is_not_withdrawn_though_the_clock_went_back():
    """A notification being sent cannot be taken back."""
    b = Bench()
    b.push(-1, group="uac_registrant")
    b.later(30)
    owed = b.queue().take(b.now)
    assert owed
    b.later(-10)
    b.push(1, group="uac_registrant")
    b.queue().settle(owed)
    assert [status for status, _, _ in b.sent()] == ["resolved"]


# --- the queue -------------------------------------------------------------------------------


def test_nothing_leaves_before_its_commit_is_over():
    """A receiver must not hear what a power loss would undo."""
    b = Bench()
    writes = b.see(Statement("push", "g", status=-1), kept=False)
    assert b.queue().take(b.now) is None
    b.outbox.kept(list(writes))
    assert b.sent() == [("firing", "g", FIRST)]


def test_a_queue_wakes_who_waits_for_it():
    """Between a change and its sending there is no polling."""
    b = Bench()
    woken = []
    b.queue().on_change(lambda: woken.append(True))
    b.see(Statement("push", "g", status=-1), kept=False)
    assert woken == []
    b.outbox.kept([*b.rows])
    assert woken


def test_a_subject_has_one_notification_under_way():
    """Others go on meanwhile; the next of this one waits for the end of the one before."""
    b = Bench()
    for status in (-1, 1, -1):
        b.push(status)
    b.push(-1, group="h")
    first = b.queue().take(b.now)
    other = b.queue().take(b.now)
    assert first
    assert other
    assert (told(first)[1], told(other)[1]) == ("g", "h")
    assert b.queue().in_flight == 2
    assert b.queue().take(b.now) is None
    b.queue().settle(first)
    second = b.queue().take(b.now)
    assert second
    assert second.seq > first.seq
    assert told(second)[1] == "g"


def test_spellings_of_one_key_are_one_subject():
    """ASCII case does not count: order is kept over it."""
    b = Bench()
    (one,) = b.push(-1, group="Alarms")
    (two,) = b.push(1, group="alarms")
    assert one
    assert two
    assert one.subject == two.subject


def test_a_retry_is_not_before_its_time_and_in_order():
    """The one behind it waits for it, however long."""
    b = Bench()
    b.push(-1)
    b.push(1)
    owed = b.queue().take(b.now)
    assert owed
    b.queue().settle(replace(owed, attempts=1), retry_at=b.now + 60)
    assert b.queue().take(b.now) is None
    assert b.queue().next_due() == b.now + 60
    b.later(59.9)
    assert b.queue().take(b.now) is None
    b.later(0.1)
    again = b.queue().take(b.now)
    assert again
    assert (again.id, again.attempts) == (owed.id, 1)
    b.queue().settle(again)
    assert [status for status, _, _ in b.sent()] == ["resolved"]


def test_a_retry_of_what_was_queued_behind_another_is_not_before_its_time():
    """A place in the queue from before says nothing of when it is tried again."""
    b = Bench()
    b.push(-1, group="uac_registrant")
    b.later(30)
    first = b.queue().take(b.now)
    assert first
    b.push(1, group="uac_registrant")
    b.later(1)
    b.push(-1, group="uac_registrant")  # held for 30 s, behind the other two
    b.queue().settle(first)
    assert [status for status, _, _ in b.sent()] == ["resolved"]
    b.later(30)
    owed = b.queue().take(b.now)
    assert owed
    assert b.queue().take(b.now) is None  # nor twice at once
    b.queue().settle(replace(owed, attempts=1), retry_at=b.now + 60)
    b.later(59)
    assert b.queue().take(b.now) is None
    b.later(1)
    assert b.queue().take(b.now) is not None


def test_a_stale_place_in_the_queue_is_no_reason_to_try_again():
    """With every lane taken nobody looks while it is under way; the retry waits all the same."""
    b = Bench()
    b.push(-1)
    first = b.queue().take(b.now)
    assert first
    b.push(1, group="uac_registrant")
    b.push(-1, group="uac_registrant")
    b.push(1)
    b.queue().settle(first)
    second = b.queue().take(b.now)
    assert second
    b.queue().settle(replace(second, attempts=1), retry_at=b.now + 60)
    b.later(59)
    assert [told(owed)[1] for owed in iter(lambda: b.queue().take(b.now), None)] == [
        "uac_registrant"
    ]


def test_delivery_ids_are_the_same_for_the_same_change():
    """A change has one id per notifier and store, whoever works it out, and when."""
    seen = []
    for _ in range(2):
        b = Bench(Send.READINESS, Send.CHANGES)
        b.push(1)
        seen.append([row.id for row in b.push(-1) if row])
    assert seen[0] == seen[1]
    assert len(set(seen[0])) == 2
    assert all(uuid.UUID(one).version == 5 for one in seen[0])
    other = Outbox([EdgeNotifier("changes", Send.CHANGES)], LINKS, uuid.uuid4())
    state = State(last_seq=1)
    writes = other.plan(state.apply(Statement("push", "g", status=-1), 1.0), 1.0)
    assert not writes.keys() & set(seen[0])


def test_what_was_owed_is_taken_up_after_a_restart():
    """The same ids, in order, held ones still held; rows of a notifier that left are given."""
    b = Bench(Send.READINESS, Send.CHANGES)
    b.push(-1)
    b.push(1)
    b.push(-1, group="uac_registrant")
    rows = sorted(b.rows.values(), key=lambda row: row.seq)
    changes = [row for row in rows if row.notifier == "changes"]
    b.sends = (Send.CHANGES,)
    b.outbox = b.an_outbox()
    homeless = b.outbox.restore(rows)
    assert {row.notifier for row in homeless} == {"readiness"}
    assert len(homeless) == 3
    b.rows = {row.id: row for row in changes}
    taken = b.queue().take(b.now)
    assert taken == changes[0]
    b.queue().settle(changes[0])
    b.rows.pop(changes[0].id)
    assert [status for status, _, _ in b.sent()] == ["resolved"]
    assert b.push(1, group="uac_registrant") == [None]
    assert len(b.queue()) == 0


# --- properties ------------------------------------------------------------------------------

steps = st.lists(
    st.one_of(
        st.tuples(
            st.just("push"),
            st.sampled_from(["g", "h", "uac_registrant"]),
            st.sampled_from([1, -1, -2]),
        ),
        st.tuples(st.just("take"), st.just(""), st.just(0)),
        st.tuples(st.sampled_from(["settle", "retry"]), st.just(""), st.integers(0, 5)),
        st.tuples(st.just("later"), st.just(""), st.sampled_from([1, 7, 40])),
        st.tuples(st.just("keep"), st.just(""), st.just(0)),
    ),
    max_size=60,
)


@settings(max_examples=500)
@given(steps)
def test_deliveries_are_in_order_whatever_befalls_them(taken_steps):
    """Per key in the order of the changes, one at a time, none early, lost, or made up."""
    b = Bench()
    under_way: list[Owed] = []
    unkept: list[str] = []
    delivered: dict[str, list[Owed]] = {}
    not_before: dict[str, float] = {}

    def take() -> None:
        owed = b.queue().take(b.now)
        if owed is None:
            return
        assert owed.subject not in {other.subject for other in under_way}
        assert owed.id not in unkept
        assert owed.id in b.rows
        assert b.now >= not_before.get(owed.id, owed.due_at)
        under_way.append(owed)

    def settle(owed: Owed) -> None:
        b.queue().settle(replace(owed, attempts=owed.attempts + 1))
        delivered.setdefault(owed.subject, []).append(owed)
        b.rows.pop(owed.id)

    for kind, group, number in taken_steps:
        if kind == "push":
            writes = b.see(Statement("push", group, status=number), kept=False)
            unkept += writes
        elif kind == "take":
            take()
        elif kind == "settle" and under_way:
            settle(under_way.pop(number % len(under_way)))
        elif kind == "retry" and under_way:
            owed = under_way.pop(number % len(under_way))
            not_before[owed.id] = b.now + 10.0
            b.queue().settle(replace(owed, attempts=owed.attempts + 1), retry_at=b.now + 10.0)
        elif kind == "later":
            b.later(number)
        elif kind == "keep":
            b.outbox.kept(unkept)
            unkept.clear()
    b.outbox.kept(unkept)
    unkept.clear()
    while under_way:
        settle(under_way.pop())
    b.later(1000)
    for _ in range(200):
        take()
        while under_way:
            settle(under_way.pop())
    assert b.rows == {}
    assert len(b.queue()) == 0
    assert b.queue().in_flight == 0
    for rows in delivered.values():
        seqs = [row.seq for row in rows]
        assert seqs == sorted(set(seqs))
    for source in b.state.sources.values():
        for entry in source.entries():
            rows = delivered.get(json.dumps(entry.key.folded(), separators=(",", ":")), [])
            assert entry.ready == (not rows or told(rows[-1])[0] == "resolved")


def test_names_with_separators_are_two_subjects():
    """Whatever stands in a name, the recovery of one key withdraws nothing of another."""
    b = Bench()
    b.push(-1, "a", identifier="b\x1fc")
    b.push(-1, "a\x1fb", identifier="c")
    assert len({owed.subject for owed in b.rows.values()}) == 2


def test_another_run_makes_other_ids():
    """A change's number may be given out again after a crash; its deliveries' ids are not."""
    ids = []
    for run in (uuid.UUID(int=1), uuid.UUID(int=2)):
        state = State()
        outbox = Outbox([EdgeNotifier("changes", Send.CHANGES)], LINKS, run)
        outcome = state.apply(Statement("push", "g", "i", -1), 0.0)
        (row,) = outbox.plan(outcome, 0.0)
        ids.append(row)
    assert ids[0] != ids[1]
