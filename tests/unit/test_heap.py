"""The garbage collector does not look again at what it has looked through."""

from __future__ import annotations

import gc

from sr_exporter import heap
from sr_exporter.heap import Frost


def test_what_is_much_is_frozen(monkeypatch):
    """After a long full collection the next has nothing old to look at; a short one freezes not."""
    monkeypatch.setattr(heap, "LONG_SECONDS", 3600.0)
    frost = Frost()
    frost.wait()
    frost.begin()
    try:
        assert gc.get_freeze_count() > 1000
        kept: list[list[int]] = [[] for _ in range(10_000)]
        before = gc.get_freeze_count()
        gc.collect()
        assert gc.get_freeze_count() <= before
        monkeypatch.setattr(heap, "LONG_SECONDS", 0.0)
        gc.collect()
        assert gc.get_freeze_count() <= before
        # Twice: it is a thing, and in another.
        monkeypatch.setattr(heap, "MUCH", 2 * len(kept))
        gc.collect()
        assert gc.get_freeze_count() >= before + len(kept) - 100
    finally:
        frost.end()
    assert gc.get_freeze_count() == 0


def test_a_few_long_lists_are_much(monkeypatch):
    """What is in a list is looked at one by one, by every full collection."""
    monkeypatch.setattr(heap, "LONG_SECONDS", 0.0)
    frost = Frost()
    frost.wait()
    frost.begin()
    try:
        before = gc.get_freeze_count()
        gc.collect()
        assert gc.get_freeze_count() <= before
        long = [[str(number)] * 1_000 for number in range(heap.MUCH // 1_000)]
        gc.collect()
        assert gc.get_freeze_count() >= before + len(long)
    finally:
        frost.end()


def test_what_is_frozen_is_freed():
    """Frozen or not, what nobody refers to goes at once."""

    class Thing:
        gone = False

        def __del__(self) -> None:
            Thing.gone = True

    frost = Frost()
    thing = Thing()
    frost.begin()
    try:
        del thing
        assert Thing.gone
    finally:
        frost.end()


def test_a_busy_machine_is_no_reason_to_freeze(monkeypatch):
    """What is short-lived and frozen by chance is lost: a collection that waits is not long."""
    clocks = iter(range(1000))
    monkeypatch.setattr(heap, "MUCH", 0)
    monkeypatch.setattr(heap.time, "perf_counter", lambda: float(next(clocks)))
    frost = Frost()
    frost.wait()
    frost.begin()
    try:
        before = gc.get_freeze_count()
        for _ in range(3):
            gc.collect()
        assert gc.get_freeze_count() <= before
    finally:
        frost.end()
