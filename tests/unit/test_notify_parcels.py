"""What gathers, and leaves together; what is attempted stays together."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sr_exporter.notify import parcels
from sr_exporter.notify.parcels import Parcel
from sr_exporter.notify.queues import Queue
from sr_exporter.store.contract import Owed, Standing
from tests.stores import an_owed

WAIT = 10.0


def row(name: str, seq: int, *, source: str = "s", due_at: float = 0.0, size: int = 2) -> Owed:
    """Give a row about the key `name`; its id names the change."""
    return replace(
        an_owed(f"{name}{seq}", seq),
        subject=json.dumps([source, name]),
        created_at=float(seq),
        due_at=due_at,
        attempts=0,
        body=b" " * size,
    )


def gathering(*rows: Owed, wait: float | None = WAIT) -> Queue:
    queue = Queue()
    queue.gather(wait)
    for one in rows:
        queue.add(one, kept=True)
    return queue


def ids(parcel: Parcel | None) -> list[str]:
    return [] if parcel is None else [one.id for one in parcel.rows]


def leaving(queue: Queue, now: float) -> list[list[str]]:
    """Deliver all that may leave now; gives what left together."""
    found = []
    while (parcel := queue.take(now)) is not None:
        found.append(ids(parcel))
        queue.settle(parcel)
    return found


def test_what_is_due_of_a_source_leaves_together():
    """When the window is over that the first of it opened; other sources have their own."""
    queue = gathering(row("a", 1), row("x", 2, source="t", due_at=3.0), row("b", 3, due_at=4.0))
    assert leaving(queue, 9.9) == []
    assert queue.next_due() == WAIT
    assert leaving(queue, 10.0) == [["a1", "b3"]]
    assert queue.next_due() == 13.0
    queue.add(row("c", 4, due_at=11.0), kept=True)
    assert leaving(queue, 13.0) == [["x2"]]
    assert leaving(queue, 21.0) == [["c4"]]
    assert len(queue) == 0


def test_without_gathering_each_leaves_at_once_by_itself():
    """As a notification of its own key."""
    queue = gathering(row("a", 1), row("b", 2), wait=None)
    taken = [queue.take(0.0), queue.take(0.0)]
    assert [ids(parcel) for parcel in taken] == [["a1"], ["b2"]]
    assert [parcel.grouped for parcel in taken if parcel] == [False, False]


def test_one_change_of_a_key_leaves_at_a_time():
    """The next of that key is in the next notification; it has waited long enough by then."""
    queue = gathering(row("a", 1), row("a", 2), row("b", 3), row("b", 4), row("b", 5))
    assert leaving(queue, WAIT) == [["a1", "b3"], ["a2", "b4"], ["b5"]]


def test_a_change_waits_its_time_though_the_one_before_it_has_left():
    """The window of the second is its own."""
    queue = gathering(row("a", 1), row("a", 2, due_at=8.0))
    assert leaving(queue, WAIT) == [["a1"]]
    assert queue.next_due() == 18.0
    assert leaving(queue, 18.0) == [["a2"]]


def test_what_is_not_kept_yet_does_not_leave():
    """Neither does it hold up what is in a window."""
    queue = gathering(row("a", 1))
    assert queue.take(1.0) is None
    queue.add(row("b", 2), kept=False)
    assert leaving(queue, WAIT) == [["a1"]]
    queue.mark_kept("b2")
    assert leaving(queue, WAIT) == [["b2"]]


def test_a_parcel_is_tried_again_as_it_was():
    """Under the same id, in the same order, and at its own time; what came later is another."""
    queue = gathering(row("a", 1), row("b", 2))
    first = queue.take(WAIT)
    assert first
    queue.settle(first.attempted(), retry_at=30.0)
    for one in (row("a", 3), row("c", 4)):
        queue.add(one, kept=True)
    assert leaving(queue, 29.0) == [["c4"]]
    queue.add(row("c", 5), kept=True)
    again = queue.take(30.0)
    assert again
    assert (ids(again), again.id, again.attempts) == (["a1", "b2"], first.id, 1)
    queue.settle(again)
    assert leaving(queue, 30.0) == [["a3", "c5"]]


@pytest.mark.parametrize("wait", [None, 0.0, 60.0])
def test_another_wait_leaves_together_what_was_attempted_together(wait):
    """Its receiver may have it; what only waited goes by the new one."""
    queue = gathering(row("a", 1), row("b", 2))
    first = queue.take(WAIT)
    assert first
    queue.settle(first.attempted(), retry_at=30.0)
    queue.add(row("c", 3, due_at=WAIT), kept=True)
    queue.add(row("d", 4, due_at=WAIT), kept=True)
    assert queue.take(WAIT) is None
    woken = []
    queue.on_change(lambda: woken.append(True))
    queue.gather(wait)
    assert woken
    together = [["c3"], ["d4"]] if wait is None else [["c3", "d4"]]
    assert leaving(queue, WAIT) == ([] if wait else together)
    assert leaving(queue, 30.0) == [["a1", "b2"]]
    assert leaving(queue, 70.0) == (together if wait else [])


def test_the_last_round_waits_for_nothing():
    """Whoever stops, or leaves, says what there is to say."""
    queue = gathering(row("a", 1), row("b", 2))
    assert queue.take(1.0) is None
    queue.leave_now()
    assert leaving(queue, 1.0) == [["a1", "b2"]]
    alone = gathering(row("a", 1), row("b", 2), wait=None)
    alone.leave_now()
    assert leaving(alone, 1.0) == [["a1"], ["b2"]]


def test_a_receiver_that_is_back_gets_whole_parcels():
    """Those that asked for a time of their own excepted."""
    queue = gathering(row("a", 1), row("b", 2), row("x", 3, source="t"))
    for _ in range(2):
        parcel = queue.take(WAIT)
        assert parcel
        queue.settle(parcel.attempted(), retry_at=300.0)
    queue.retry_now(20.0, but={"x3"})
    assert leaving(queue, 20.0) == [["a1", "b2"]]
    assert leaving(queue, 300.0) == [["x3"]]


def test_what_comes_back_goes_before_what_was_attempted_together():
    """The rest waits for it: the set is not broken up, nor the order of a key."""
    queue = gathering(row("a", 5), row("b", 6))
    first = queue.take(WAIT)
    assert first
    queue.settle(first.attempted(), retry_at=30.0)
    queue.insert(row("a", 1, due_at=25.0))
    queue.mark_kept("a1")
    assert leaving(queue, 30.0) == []
    assert leaving(queue, 35.0) == [["a1"], ["a5", "b6"]]


def test_what_loses_a_member_is_a_new_parcel():
    """Under another id: the others are told once more, and none is missed."""
    queue = gathering(row("a", 1), row("b", 2), row("c", 3), row("a", 4))
    first = queue.take(WAIT)
    assert first
    queue.settle(first.attempted(), retry_at=30.0)
    queue.withdraw(first.rows[0])
    assert leaving(queue, 20.0) == [["a4"]]
    again = queue.take(40.0)
    assert again
    assert ids(again) == ["b2", "c3"]
    assert again.id != first.id


def test_what_loses_a_member_while_it_waits_is_looked_at_again():
    """It waited for what came back before that member: nothing else would look at the rest."""
    queue = gathering(row("a", 2), row("b", 3))
    first = queue.take(WAIT)
    assert first
    queue.settle(first.attempted(), retry_at=20.0)
    queue.insert(row("a", 1, due_at=12.0))
    queue.mark_kept("a1")
    back = queue.take(22.0)
    assert back
    assert ids(back) == ["a1"]
    assert queue.take(22.0) is None
    assert [one.id for one in queue.withdraw_oldest(2)] == ["a2"]
    queue.settle(back)
    assert leaving(queue, 32.0) == [["b3"]]


def test_what_is_held_is_withdrawn_while_others_gather():
    """It has no part in the window before it is due."""
    held = replace(row("h", 2, due_at=9.0), standing=Standing.HELD)
    queue = gathering(row("a", 1), held)
    assert queue.take(8.0) is None
    assert queue.held(held.subject, 8.0) == held
    queue.withdraw(held)
    assert leaving(queue, WAIT) == [["a1"]]


def test_a_window_outlives_a_clock_that_goes_back():
    """What was due, and is altered, is looked at again: when it is kept, and when it is due."""
    held = replace(row("h", 1, due_at=9.0), standing=Standing.HELD)
    queue = gathering(held)
    assert queue.take(9.0) is None
    queue.add(replace(held, body=b"{ }"), kept=False)
    assert queue.take(19.0) is None
    queue.add(replace(held, due_at=40.0), kept=True)
    assert queue.take(19.0) is None
    queue.mark_kept("h1")
    assert queue.take(19.0) is None
    assert queue.take(49.0) is None
    assert leaving(queue, 50.0) == [["h1"]]
    queue = gathering(held)
    assert queue.take(9.0) is None
    queue.add(replace(held, body=b"{ }"), kept=False)
    assert queue.take(19.0) is None
    queue.mark_kept("h1")
    assert leaving(queue, 19.0) == [["h1"]]
    queue = gathering(held)
    assert queue.take(9.0) is None
    queue.add(replace(held, due_at=40.0), kept=True)
    assert leaving(queue, 30.0) == []


def test_a_window_does_not_wait_for_a_clock_that_went_back():
    """It is as long as it would have been, at most."""
    queue = gathering(row("a", 1, due_at=3600.0), row("b", 2, due_at=3601.0))
    assert queue.take(3605.0) is None
    assert queue.take(5.0) is None
    assert leaving(queue, 15.0) == [["a1", "b2"]]


def test_a_parcel_is_bounded(monkeypatch):
    """By rows and by bytes; the rest leaves right behind it, and one row always does."""
    monkeypatch.setattr(parcels, "MOST_ROWS", 3)
    monkeypatch.setattr(parcels, "MOST_BYTES", 100)
    many = gathering(*(row(name, seq) for seq, name in enumerate("abcdefg", 1)))
    assert leaving(many, WAIT) == [["a1", "b2", "c3"], ["d4", "e5", "f6"], ["g7"]]
    sizes = {"a": 60, "b": 40, "c": 1, "d": 500, "e": 50}
    large = gathering(*(row(name, seq, size=n) for seq, (name, n) in enumerate(sizes.items())))
    assert leaving(large, WAIT) == [["a0", "b1"], ["c2"], ["d3"], ["e4"]]


def test_what_is_left_of_a_window_is_not_looked_at_for_each_parcel(monkeypatch):
    """There may be very many, and each look would hold up everything else."""
    monkeypatch.setattr(parcels, "MOST_ROWS", 2)
    queue = gathering(*(row(f"k{n}", n) for n in range(1, 101)), row("x", 101, source="t"))
    looks = 0
    look = queue._ready

    def counted(row_id: str, now: float) -> Owed | None:
        nonlocal looks
        looks += 1
        return look(row_id, now)

    monkeypatch.setattr(queue, "_ready", counted)
    left = leaving(queue, WAIT)
    assert left[:3] == [["k11", "k22"], ["x101"], ["k33", "k44"]]
    assert len(left) == 51
    assert looks == 101


def test_what_is_left_of_a_window_outlives_a_clock_that_goes_back(monkeypatch):
    """Its time was over: it leaves at once."""
    monkeypatch.setattr(parcels, "MOST_ROWS", 1)
    queue = gathering(row("a", 1, due_at=5.0), row("b", 2, due_at=6.0), row("c", 3, due_at=6.0))
    first = queue.take(20.0)
    assert first
    queue.settle(first)
    assert queue.next_due() == 20.0
    assert leaving(queue, 1.0) == [["b2"], ["c3"]]
    assert leaving(queue, 99.0) == []


def test_what_is_left_of_a_window_leaves_by_itself_when_nothing_gathers(monkeypatch):
    """A reload holds for what waits already."""
    monkeypatch.setattr(parcels, "MOST_ROWS", 1)
    queue = gathering(row("a", 1), row("b", 2))
    first = queue.take(WAIT)
    assert first
    queue.gather(None)
    assert leaving(queue, WAIT) == [["b2"]]


def test_the_id_is_that_of_the_row_or_of_all_rows():
    """In whatever order they became due."""
    one, two = row("a", 1), row("b", 2, due_at=-1.0)
    assert Parcel((one,)).id == Parcel((one,), grouped=True).id == "a1"
    parcel = gathering(one, two).take(WAIT)
    assert parcel
    assert parcel.id == Parcel((one, two)).id
    assert len({Parcel(rows).id for rows in [(one, two), (two,), (one, two, row("c", 3))]}) == 3


# --- properties ------------------------------------------------------------------------------

steps = st.lists(
    st.one_of(
        st.tuples(st.just("add"), st.sampled_from("abc"), st.sampled_from([0, 0, 25])),
        st.tuples(st.sampled_from(["take", "keep", "leave"]), st.just(""), st.just(0)),
        st.tuples(st.sampled_from(["settle", "retry"]), st.just(""), st.integers(0, 5)),
        st.tuples(st.just("later"), st.just(""), st.sampled_from([-3, 1, 7, 40])),
        st.tuples(st.just("withdraw"), st.sampled_from("abc"), st.just(0)),
        st.tuples(st.just("gather"), st.just(""), st.sampled_from([0, 5, 10])),
        st.tuples(st.just("letter"), st.sampled_from("abc"), st.just(0)),
        st.tuples(st.just("back"), st.just(""), st.just(0)),
    ),
    max_size=60,
)


@settings(max_examples=500)
@given(steps)
def test_gathered_deliveries_are_whole_and_in_order(taken_steps):
    """Whatever befalls: per key in order, one at a time, none early, lost or made up.

    What was attempted together comes again together, under its id.
    """
    queue, now = gathering(), 100.0
    owed: dict[str, Owed] = {}
    unkept: set[str] = set()
    under_way: list[Parcel] = []
    failed: dict[str, Parcel] = {}
    order: dict[str, list[str]] = {"a": [], "b": [], "c": []}
    delivered: dict[str, list[str]] = {"a": [], "b": [], "c": []}

    def take() -> bool:
        parcel = queue.take(now)
        if parcel is None:
            return False
        busy = {one.subject for other in under_way for one in other.rows}
        subjects = [one.subject for one in parcel.rows]
        assert len({json.loads(subject)[0] for subject in subjects}) == 1
        assert len(set(subjects)) == len(subjects)
        assert busy.isdisjoint(subjects)
        for one in parcel.rows:
            assert one.id in owed
            assert one.id not in unkept
            assert one.due_at <= now
            if one.id in failed:
                before = failed[one.id]
                assert (ids(parcel), parcel.id) == (ids(before), before.id)
        under_way.append(parcel)
        return True

    def settle(parcel: Parcel) -> None:
        queue.settle(parcel.attempted())
        for one in parcel.rows:
            owed.pop(one.id)
            failed.pop(one.id, None)
            delivered[one.id[0]].append(one.id)

    for seq, (kind, name, number) in enumerate(taken_steps, 1):
        if kind == "add":
            made = row(name, seq, source="t" if name == "c" else "s", due_at=now + number)
            if number:
                made = replace(made, standing=Standing.HELD)
            queue.add(made, kept=False)
            owed[made.id] = made
            unkept.add(made.id)
            order[name].append(made.id)
        elif kind == "letter":
            source = "t" if name == "c" else "s"
            old = replace(row(name, -seq, source=source, due_at=now))
            queue.insert(old)
            owed[old.id] = old
            unkept.add(old.id)
            first = int(any(one.id[0] == name for other in under_way for one in other.rows))
            left = len(delivered[name]) + first
            order[name].insert(left, old.id)
        elif kind == "take":
            take()
        elif kind == "settle" and under_way:
            settle(under_way.pop(number % len(under_way)))
        elif kind == "retry" and under_way:
            parcel = under_way.pop(number % len(under_way))
            queue.settle(parcel.attempted(), retry_at=now + 10.0)
            failed.update(dict.fromkeys(ids(parcel), parcel) if parcel.grouped else {})
        elif kind == "withdraw":
            source = "t" if name == "c" else "s"
            held = queue.held(json.dumps([source, name]), now)
            if held is not None:
                queue.withdraw(held)
                owed.pop(held.id)
                order[name].remove(held.id)
        elif kind == "gather":
            queue.gather(number or None)
        elif kind == "leave":
            queue.leave_now()
        elif kind == "back":
            queue.retry_now(now)
        elif kind == "later":
            now += number
        elif kind == "keep":
            for row_id in unkept:
                queue.mark_kept(row_id)
            unkept.clear()
    for row_id in unkept:
        queue.mark_kept(row_id)
    unkept.clear()
    while under_way:
        settle(under_way.pop())
    for _ in range(300):
        now += 100.0
        while take():
            pass
        while under_way:
            settle(under_way.pop())
    assert owed == {}
    assert len(queue) == queue.in_flight == 0
    assert queue.next_due() is None
    assert delivered == order
