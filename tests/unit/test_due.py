"""What falls due is found at its time, whatever was put off meanwhile, and no step takes long."""

from __future__ import annotations

import random

import pytest

from sr_exporter import due
from sr_exporter.due import Due


class Times:
    """A `Due` of numbers, beside when each is really due, and how often that was asked."""

    def __init__(self) -> None:
        self.due: dict[int, float] = {}
        self.asked = 0
        self.places = Due(self.of)

    def of(self, what: int) -> float | None:
        self.asked += 1
        return self.due.get(what)

    def put(self, what: int, at: float) -> None:
        self.due[what] = at
        self.places.put(at, what)

    def take(self, now: float, looks: int) -> list[tuple[float, int]]:
        taken = []
        for at, what in self.places.take(now, looks):
            assert self.due.pop(what) == at
            taken.append((at, what))
        return taken


@pytest.mark.parametrize("room", [0, 1000])
def test_all_is_taken_at_its_time_and_nothing_before(monkeypatch, room):
    """However often it was put off, brought forward, given up and put there again."""
    monkeypatch.setattr(due, "_ROOM", room)
    chance = random.Random(7)
    times = Times()
    now = 0.0
    for _ in range(20_000):
        what = chance.randrange(200)
        step = chance.random()
        if step < 0.6:
            times.put(what, now + chance.randrange(1, 100))
        elif step < 0.7:
            times.due.pop(what, None)
        elif step < 0.8:
            times.due.pop(what, None)
            times.places.drop(what)
        else:
            now += chance.randrange(4)
            wanted = sorted(at for at in times.due.values() if at <= now)
            assert [at for at, _ in times.take(now, 10**6)] == wanted
        found = times.places.next()
        assert found == min(times.due.values(), default=None)
    assert len(times.places) < 2_000


def test_what_is_put_off_keeps_its_one_place():
    """It costs nothing until that comes."""
    times = Times()
    for at in range(100, 200):
        times.put(1, float(at))
    assert (len(times.places), times.asked) == (1, 0)
    assert times.places.next() == 199.0


def test_what_is_due_at_once_is_taken_in_the_order_in_which_it_came():
    times = Times()
    for what in (3, 1, 2):
        times.put(what, 5.0)
    assert times.take(5.0, 10) == [(5.0, 3), (5.0, 1), (5.0, 2)]


def test_so_much_is_looked_at_and_the_rest_is_left():
    """Void places count too; nothing is lost."""
    times = Times()
    for what in range(1000):
        times.put(what, 1.0)
    for what in range(500):
        times.put(what, 2.0)
    assert times.take(1.5, 100) == []
    assert times.asked < 300
    assert [len(times.take(1.5, 100)) for _ in range(10)] == [0, 0, 0, 0, *[100] * 5, 0]
    assert len(times.take(2.0, 10**6)) == 500


def test_the_next_time_is_looked_for_so_long():
    """Then it is the time of a place that may be void: to look then does no harm."""
    times = Times()
    for what in range(1000):
        times.put(what, 1.0)
    for what in range(1000):
        times.put(what, 2.0)
    times.asked = 0
    assert times.places.next() == 1.0
    assert times.asked < 250
    assert [times.places.next() for _ in range(10)] == [1.0] * 8 + [2.0] * 2


@pytest.mark.parametrize("put", [True, False])
def test_void_places_are_swept_out_a_little_at_a_time(monkeypatch, put):
    """Whether others come or go; what is there stays."""
    monkeypatch.setattr(due, "_ROOM", 10)
    times = Times()
    for what in range(2000):
        times.put(what, 1e9)
    for what in range(1500):
        before = len(times.places)
        times.due.pop(what)
        times.places.drop(what)
        if put:
            times.put(2000 + what % 100, 1e9 - what)
        assert before - len(times.places) <= 4
    assert len(times.places) < 1_800
    assert len(times.take(1e9, 10**6)) == (600 if put else 500)


def test_what_is_being_swept_is_taken_in_its_order(monkeypatch):
    """Beside what came since."""
    monkeypatch.setattr(due, "_ROOM", 0)
    monkeypatch.setattr(due, "_SWEPT", 0)
    times = Times()
    for what in range(0, 20, 2):
        times.put(what, float(what))
    for what in range(0, 12, 2):
        times.due.pop(what)
        times.places.drop(what)
    for what in range(1, 20, 2):
        times.put(what, float(what))
    assert times.places.next() == 1.0
    left = [1, 3, 5, 7, 9, 11, *range(12, 20)]
    assert times.take(13.0, 100) == [(float(what), what) for what in left if what <= 13]
    assert times.places.next() == 14.0
    assert times.take(99.0, 100) == [(float(what), what) for what in left if what > 13]
