"""A row that comes back to a queue takes the place it would have had."""

from __future__ import annotations

from dataclasses import replace

import pytest

from sr_exporter.notify import queues
from sr_exporter.notify.parcels import Parcel
from sr_exporter.notify.queues import Queue
from sr_exporter.store.contract import Owed, Standing
from tests.stores import an_owed

NOW = 100.0


def row(row_id: str, made: float, seq: int) -> Owed:
    return replace(an_owed(row_id, seq), created_at=made, due_at=NOW)


def queue_of(*rows: Owed) -> Queue:
    queue = Queue()
    for one in rows:
        queue.add(one, kept=True)
    return queue


def delivered(queue: Queue) -> list[str]:
    """Deliver everything that is due, one after the other."""
    found = []
    while (parcel := queue.take(NOW)) is not None:
        found += [owed.id for owed in parcel.rows]
        queue.settle(parcel)
    return found


@pytest.mark.parametrize(
    ("made", "seq", "order", "number"),
    [
        (15.0, 15, ["a", "back", "b", "c"], 15),
        (5.0, 5, ["back", "a", "b", "c"], 5),
        (35.0, 35, ["a", "b", "c", "back"], 35),
        # Numbers of another run say nothing.
        (15.0, 99, ["a", "back", "b", "c"], 20),
        (25.0, 1, ["a", "b", "back", "c"], 20),
        (20.0, 19, ["a", "back", "b", "c"], 19),
    ],
)
def test_a_row_that_comes_back_goes_before_what_is_younger(made, seq, order, number):
    """It is given the number by which it stands there when it is loaded again, too."""
    queue = queue_of(row("a", 10.0, 10), row("b", 20.0, 20), row("c", 30.0, 30))
    back = queue.insert(row("back", made, seq))
    assert back == row("back", made, number)
    assert back.id in queue
    assert queue.take(NOW) is None or order[0] == "a"
    loaded = queue_of(*sorted(queue.rows(), key=lambda one: (one.seq, one.created_at)))
    assert delivered(loaded) == order


def test_a_row_that_comes_back_is_not_sent_before_it_is_kept():
    """And then in its turn."""
    queue = queue_of()
    queue.insert(row("back", 1.0, 1))
    assert queue.take(NOW) is None
    queue.add(row("later", 2.0, 2), kept=True)
    queue.mark_kept("back")
    assert delivered(queue) == ["back", "later"]


def test_what_is_under_way_is_not_overtaken():
    """Its receiver may have it already."""
    queue = queue_of(row("a", 10.0, 10), row("b", 20.0, 20))
    taken = queue.take(NOW)
    assert taken is not None
    assert taken.rows == (row("a", 10.0, 10),)
    back = queue.insert(row("back", 5.0, 5))
    queue.mark_kept("back")
    assert back.seq == 10
    assert queue.take(NOW) is None
    queue.settle(taken)
    assert delivered(queue) == ["back", "b"]


def test_a_row_may_be_put_right_behind_another():
    """Before what is held back, though that is older than it."""
    held = replace(row("held", 20.0, 20), standing=Standing.HELD, due_at=NOW + 1)
    queue = queue_of(held)
    queue.insert(row("back", 10.0, 10))
    queue.insert(row("word", 90.0, 10), after="back")
    for one in ("back", "word"):
        queue.mark_kept(one)
    assert delivered(queue) == ["back", "word"]
    assert queue.rows() == [held]


# --- trying at once what waits --------------------------------------------------------------


def waiting(monkeypatch, count: int = 5) -> Queue:
    """Give a queue of rows that wait for another attempt; two are looked at in one go."""
    monkeypatch.setattr(queues, "_HURRIED", 2)
    rows = [row(f"r{number}", 10.0 + number, number) for number in range(count)]
    return queue_of(*(replace(one, due_at=NOW + 300.0, subject=one.id) for one in rows))


def taken(queue: Queue) -> list[str]:
    """Look once for as much as there is to send."""
    found = []
    while (parcel := queue.take(NOW)) is not None:
        found += [owed.id for owed in parcel.rows]
    return found


def test_what_waits_is_tried_at_once_the_oldest_first(monkeypatch):
    """There is more to look for until all of it was, and then no longer."""
    queue = waiting(monkeypatch)
    assert (taken(queue), queue.next_due()) == ([], NOW + 300.0)
    queue.retry_now(NOW)
    looks = []
    while queue.next_due() == NOW:
        looks.append(queue.take(NOW))
    assert [parcel.rows[0].id for parcel in looks if parcel] == [f"r{n}" for n in range(5)]
    assert taken(queue) == []


def test_what_is_not_to_be_tried_at_once_waits(monkeypatch):
    """Also where that is known only after it was asked for."""
    queue = waiting(monkeypatch)
    but = {"r0", "r1"}
    queue.retry_now(NOW, but=but)
    assert queue.next_due() == NOW  # for there are others
    but.add("r4")
    assert taken(queue) == ["r2", "r3"]


def test_what_was_attempted_since_waits_for_its_time(monkeypatch):
    """What was altered otherwise does not; what is gone is gone."""
    queue = waiting(monkeypatch, 8)
    rows = {owed.id: owed for owed in queue.rows()}
    queue.retry_now(NOW)
    queue.settle(Parcel((replace(rows["r7"], attempts=1),), grouped=False), retry_at=NOW + 50.0)
    queue.add(replace(rows["r6"], body=b"other"), kept=True)
    queue.withdraw(rows["r5"])
    assert taken(queue) == ["r0", "r1", "r2", "r3", "r4", "r6"]


def test_a_row_that_is_held_back_is_not_hurried(monkeypatch):
    """It waits for a rule's time, and not for another attempt."""
    queue = waiting(monkeypatch, 1)
    (owed,) = queue.rows()
    queue.add(replace(owed, standing=Standing.HELD), kept=True)
    queue.retry_now(NOW)
    assert taken(queue) == []
