"""What is owed takes little memory: bodies are left to the store, and read when there is room."""

from __future__ import annotations

import json
from collections import deque
from dataclasses import replace

import pytest

from sr_exporter.notify import letters, payload, rows
from sr_exporter.notify.alerts import Alert
from sr_exporter.notify.letters import Asked
from sr_exporter.notify.parcels import fill
from sr_exporter.notify.queues import Queue
from sr_exporter.notify.rows import Holding
from sr_exporter.store.contract import Gist, Owed, Standing
from tests.stores import an_owed


def row(seq: int, name: str = "k", *, resolved_at: float | None = None) -> Owed:
    """Give a row as the outbox makes it; each object of it its own."""
    labels = {"alertname": "x", "source": "s", "identifier": name}
    body = payload.webhook(
        Alert(labels, {}, 1.0, ""),
        receiver="oncall",
        external_url="http://sr",
        resolved_at=resolved_at,
        reason=payload.FIRST,
    )
    return replace(
        an_owed(str(seq), seq),
        subject=json.dumps(["s", name]),
        created_at=float(seq),
        due_at=0.0,
        body=body,
    )


SIZE = len(row(1).whole)


@pytest.fixture
def small(monkeypatch):
    """Have room for two bodies, and a bit."""
    monkeypatch.setattr(rows, "BODY_BYTES", 2 * SIZE + SIZE // 2)


def bodies_held(queue: Queue) -> list[str]:
    return [one.id for one in queue.rows() if one.body is not None]


def test_bodies_of_the_oldest_are_held_and_others_left_once_they_are_kept(small):
    """Before that the store may not have them."""
    queue = Queue()
    for seq in range(1, 6):
        queue.add(row(seq), kept=False)
    assert bodies_held(queue) == list("12345")
    for seq in (5, 4, 3, 2, 1):
        queue.mark_kept(str(seq))
    assert bodies_held(queue) == ["1", "2"]
    queue.add(row(6), kept=True)
    assert bodies_held(queue) == ["1", "2"]


def test_what_is_left_tells_what_planning_must_know(small):
    """Its labels, whether it fires, and how large it is."""
    queue = Queue()
    for seq in range(1, 5):
        queue.add(row(seq, f"k{seq}"), kept=True)
    queue.add(row(5, "k5", resolved_at=2.0), kept=True)
    *_, fires, ended = queue.rows()
    assert (fires.body, ended.body) == (None, None)
    labels = {"alertname": "x", "source": "s"}
    assert payload.believed(fires) == {**labels, "identifier": "k4"}
    assert payload.believed(ended) is None
    assert payload.gist(ended) == Gist({**labels, "identifier": "k5"}, firing=False)
    assert fires.size == len(row(4, "k4").whole)
    held = replace(ended, standing=Standing.HELD)
    assert payload.is_end_held(held)
    assert not payload.is_end_held(replace(fires, standing=Standing.HELD))
    with pytest.raises(ValueError, match="left to the store"):
        _ = fires.whole


def test_rows_of_a_subject_share_what_they_say():
    """An alert and its end by turns are two notes, however often it comes and goes."""
    queue = Queue()
    for seq in range(1, 9):
        made = row(seq, resolved_at=2.0 if seq % 2 else None)
        queue.add(replace(made, gist=payload.gist(made)), kept=True)
    found = queue.rows()
    assert len({id(one.gist) for one in found}) == 2
    assert len({id(one.subject) for one in found}) == 1


def test_bodies_are_read_again_the_oldest_first_when_there_is_room(small):
    """Once half of it is free; and no more than there is room for."""
    queue = Queue()
    for seq in range(1, 9):
        queue.add(row(seq, f"k{seq}"), kept=True)
    texts = {str(seq): row(seq, f"k{seq}").whole for seq in range(1, 9)}
    assert queue.unread() == []
    parcel = queue.take(1.0)
    assert parcel
    queue.settle(parcel)
    assert [one.id for one in queue.unread()] == ["3"]
    parcel = queue.take(1.0)
    assert parcel
    queue.settle(parcel)
    unread = queue.unread()
    assert [one.id for one in unread] == ["3", "4"]
    queue.fill(unread, texts)
    assert bodies_held(queue) == ["3", "4"]
    assert [one.body for one in queue.rows()[:2]] == [texts["3"], texts["4"]]
    assert queue.unread() == []


def test_a_row_that_was_altered_meanwhile_is_not_given_an_old_body(small):
    """What was read may be what it said before."""
    queue = Queue()
    for seq in range(1, 5):
        queue.add(row(seq, f"k{seq}"), kept=True)
    for _ in range(2):
        parcel = queue.take(1.0)
        assert parcel
        queue.settle(parcel)
    unread = queue.unread()
    queue.add(replace(row(3, "k3", resolved_at=9.0)), kept=True)
    queue.withdraw(unread[1])
    queue.fill(unread, dict.fromkeys("34", b"old"))
    (left,) = queue.rows()
    assert left.body == row(3, "k3", resolved_at=9.0).body
    queue.fill(queue.unread(), {})


def test_one_body_larger_than_all_room_is_read_too(monkeypatch):
    """Else it would never be."""
    queue = Queue()
    monkeypatch.setattr(rows, "BODY_BYTES", 10)
    queue.add(row(1), kept=True)
    assert [one.id for one in queue.unread()] == ["1"]


def test_a_parcel_is_as_large_as_its_bodies_though_they_are_left(monkeypatch):
    """Their size is known without them."""
    monkeypatch.setattr("sr_exporter.notify.parcels.MOST_BYTES", 2 * SIZE)
    light = [payload.without_body(row(seq)) for seq in range(1, 5)]
    rows = {one.id: one for one in light}
    assert [one.id for one in fill(deque(rows), rows.get)] == ["1", "2"]


def test_what_is_read_from_a_store_is_held_without_bodies():
    """Each row as it is otherwise, sharing what rows of its subject say alike."""
    hold = Holding()
    made = [
        row(1, "a"),
        row(2, "b"),
        row(3, "a", resolved_at=2.0),
        row(4, "a"),
        replace(row(5, "a"), notifier="other"),
    ]
    held = [hold(one) for one in made]
    assert held == [replace(one, body=None) for one in made]
    assert held[3].gist is held[0].gist
    assert held[3].subject is held[0].subject
    assert held[4].notifier == "other"
    assert [payload.gist(one) for one in held] == [payload.gist(one) for one in made]


# --- too many ----------------------------------------------------------------------------------


def test_the_oldest_beyond_a_number_are_taken_out():
    """But not what is under way, or not kept yet; the next of its key then goes in its turn."""
    queue = Queue()
    for seq, name in enumerate("aabcd", 1):
        queue.add(row(seq, name), kept=True)
    queue.add(row(6, "b"), kept=False)
    taken = queue.take(1.0)
    assert taken
    assert [one.id for one in taken.rows] == ["1"]
    assert queue.withdraw_oldest(6) == []
    assert [one.id for one in queue.withdraw_oldest(4)] == ["2", "3"]
    assert queue.given_up() == ["2", "3"]
    assert queue.given_up() == []
    queue.mark_kept("6")
    queue.settle(taken)
    left = []
    while (parcel := queue.take(1.0)) is not None:
        left += [one.id for one in parcel.rows]
    assert left == ["4", "5", "6"]
    assert queue.withdraw_oldest(0) == []


def test_what_is_not_kept_yet_is_not_taken_out():
    """Its commit is under way, and would bring it back."""
    queue = Queue()
    queue.add(row(1, "a"), kept=False)
    queue.add(row(2, "b"), kept=True)
    assert [one.id for one in queue.withdraw_oldest(0)] == ["2"]
    queue.mark_kept("1")
    assert [one.id for one in queue.withdraw_oldest(0)] == ["1"]


def test_what_is_held_back_is_owed_once_its_time_is_over():
    """And when it is altered, attempted or gone, it is counted as what it is by then."""
    queue = Queue()
    queue.add(row(1), kept=True)
    held = replace(row(2, "h"), standing=Standing.HELD, due_at=50.0)
    queue.add(held, kept=True)
    assert (queue.owed(49.0), queue.owed(50.0)) == (1, 2)
    queue.add(replace(held, due_at=70.0), kept=True)
    assert queue.owed(69.0) == 1
    queue.add(replace(held, standing=Standing.OWED), kept=True)
    assert queue.owed(0.0) == 2
    queue.add(held, kept=True)
    queue.withdraw(held)
    assert queue.owed(0.0) == 1


@pytest.mark.parametrize(("now", "state"), [(49.0, Standing.HELD), (50.0, Standing.OWED)])
def test_what_is_held_back_is_listed_as_owed_once_its_time_is_over(now, state):
    """It may wait for long then: for one of its subject that is before it."""
    held = replace(row(1), standing=Standing.HELD, due_at=50.0)
    lists = {
        asked: [one.standing for one in letters._first([held], Asked(asked, None, None, 9), now)]
        for asked in (Standing.HELD, Standing.OWED)
    }
    assert lists == {Standing.HELD: [], Standing.OWED: []} | {state: [state]}
