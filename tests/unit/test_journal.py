"""The journal as it comes: what is kept, in order, none lost, none twice, whoever listens."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any, cast

from hypothesis import given, settings
from hypothesis import strategies as st

from sr_exporter import journal as module
from sr_exporter.errors import NotKept
from sr_exporter.journal import Journal, Line, Missed
from sr_exporter.outcome import Outcome
from tests.stores import a_change
from tests.virtual_time import run

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from sr_exporter.journal import Listener
    from sr_exporter.model import Change


#: How long a store takes to answer: others do something meanwhile.
READ_SECONDS = 0.001


class KeptLines:
    """The journal's part of a store, with every read counted.

    How lines are kept and removed is the test's business; what a real store answers is held by its
    contract's tests.
    """

    def __init__(self, *seqs: int) -> None:
        self.lines: list[Change] = [a_change(seq) for seq in seqs]
        self.reads = 0
        self.broken = False

    def keep(self, *seqs: int) -> None:
        self.lines += [a_change(seq) for seq in seqs]

    def changes(self, since: int, limit: int) -> asyncio.Future[list[Change]]:
        self.reads += 1
        loop = asyncio.get_running_loop()
        answer = loop.create_future()
        if self.broken:
            answer.set_exception(NotKept("disk I/O error"))
        else:
            found = [line for line in self.lines if line.seq > since][:limit]
            loop.call_later(READ_SECONDS, answer.set_result, found)
        return answer


def _journal(store: KeptLines, last_seq: int = 0) -> Journal:
    return Journal(cast("Any", store), last_seq, lambda change: b"%d" % change.seq)


def _applied(*seqs: int) -> Outcome:
    return Outcome(changes=[a_change(seq) for seq in seqs])


@contextlib.asynccontextmanager
async def _running(journal: Journal) -> AsyncIterator[None]:
    pump = asyncio.create_task(journal.run())
    try:
        yield
    finally:
        assert not pump.done(), "it goes on for ever"
        pump.cancel()
        await asyncio.gather(pump, return_exceptions=True)


def _told(news: Sequence[Line | Missed]) -> list[int | Missed]:
    for one in news:
        assert isinstance(one, Missed) or one.written == b"%d" % one.change.seq
    return [one if isinstance(one, Missed) else one.change.seq for one in news]


async def _all(listener: Listener) -> list[int | Missed]:
    """Take until nothing more comes for a long time."""
    told: list[int | Missed] = []
    while news := await listener.take(60.0):
        told += _told(news)
    return told


def _happen(journal: Journal, store: KeptLines, *seqs: int) -> None:
    journal.observe(_applied(*seqs))
    store.keep(*seqs)


def test_from_stored_to_live():
    """Whoever begins in the past hears all of it, and then what comes, each once."""

    async def check() -> None:
        store = KeptLines(*range(1, 1201))
        journal = _journal(store, 1200)
        async with _running(journal):
            listener = journal.listen(0)
            first = _told(await listener.take(1.0))
            assert first == list(range(1, module.AT_ONCE_BEHIND + 1))
            _happen(journal, store, 1201, 1202)
            assert first + await _all(listener) == list(range(1, 1203))
            _happen(journal, store, 1203)
            assert await _all(listener) == [1203]

    run(check())


def test_from_now_on():
    """Without a number only what comes is told."""

    async def check() -> None:
        store = KeptLines(1, 2)
        journal = _journal(store, 2)
        async with _running(journal):
            journal.observe(_applied(3))
            listener = journal.listen(None)
            store.keep(3)
            _happen(journal, store, 4)
            assert await _all(listener) == [4]

    run(check())


def test_what_is_not_kept_is_not_told():
    """Not until it is, though that takes long; and nobody need do anything for it then."""

    async def check() -> None:
        store = KeptLines(1)
        journal = _journal(store, 1)
        journal.observe(_applied(2))
        async with _running(journal):
            old, new = journal.listen(0), journal.listen(None)
            journal.observe(_applied(3))
            assert await _all(old) == [1]
            assert await _all(new) == []
            waiting = [asyncio.create_task(old.take(3600.0))]
            await asyncio.sleep(10)
            store.keep(2)
            await asyncio.sleep(1)
            assert [_told(one.result()) for one in waiting] == [[2]]
            waiting = [asyncio.create_task(one.take(3600.0)) for one in (old, new)]
            await asyncio.sleep(10)
            store.keep(3)
            await asyncio.sleep(1)
            assert [_told(one.result()) for one in waiting] == [[3], [3]]

    run(check())


def test_a_store_that_cannot_be_read_is_asked_again():
    """Listeners wait, and lose nothing."""

    async def check() -> None:
        store = KeptLines(*range(1, 4))
        journal = _journal(store, 3)
        async with _running(journal):
            old, new = journal.listen(1), journal.listen(None)
            store.broken = True
            _happen(journal, store, 4)
            assert await _all(old) == await _all(new) == []
            store.broken = False
            assert await _all(old) == [2, 3, 4]
            assert await _all(new) == [4]

    run(check())


def test_many_share_the_reading():
    """A hundred listeners cost one read, and nobody listening costs none."""

    async def check() -> None:
        store = KeptLines()
        journal = _journal(store)
        async with _running(journal):
            _happen(journal, store, 1)
            await asyncio.sleep(10)
            assert store.reads == 0
            listeners = [journal.listen(None) for _ in range(100)]
            _happen(journal, store, 2)
            assert {str(await _all(one)) for one in listeners} == {"[2]"}
            assert store.reads == 1
            for one in listeners:
                one.leave()
            _happen(journal, store, 3)
            await asyncio.sleep(10)
            assert store.reads == 1

    run(check())


def test_a_slow_listener_costs_a_place(monkeypatch):
    """What he has not taken is not held for him; he reads it when he comes to it."""
    monkeypatch.setattr(module, "MOST_RECENT", 10)

    async def check() -> None:
        store = KeptLines()
        journal = _journal(store)
        async with _running(journal):
            slow, quick = journal.listen(None), journal.listen(None)
            told = []
            for seq in range(1, 101):
                _happen(journal, store, seq)
                told += _told(await quick.take(60.0))
                assert len(journal._recent) <= module.MOST_RECENT
            assert told == list(range(1, 101))
            reads = store.reads
            assert await _all(slow) == told
            assert store.reads - reads == 1

    run(check())


def test_large_lines_are_not_held(monkeypatch):
    """By their bytes, too, no more is held than is bounded; they are told all the same."""
    monkeypatch.setattr(module, "MOST_RECENT_BYTES", 8)

    async def check() -> None:
        store = KeptLines()
        journal = _journal(store)
        async with _running(journal):
            listener = journal.listen(None)
            for seq in range(1, 8):
                _happen(journal, store, seq * 2 - 1, seq * 2)
                await asyncio.sleep(1)
                assert journal._bytes == sum(len(line.written) for line in journal._recent) <= 8
            assert await _all(listener) == list(range(1, 15))

    run(check())


def test_what_retention_removed_is_said():
    """At the beginning, in between, at the end: which lines are not there, and only once."""

    async def check() -> None:
        store = KeptLines(4, 5, 8)
        journal = _journal(store, 10)
        async with _running(journal):
            listener = journal.listen(1)
            expected = [Missed(1, 3), 4, 5, Missed(5, 7), 8, Missed(8, 10)]
            assert await _all(listener) == expected
            _happen(journal, store, 11)
            journal.observe(_applied(12))  # given up: the disk took nothing for too long
            _happen(journal, store, 13)
            assert await _all(listener) == [11, Missed(11, 12), 13]
            assert await _all(journal.listen(9)) == [Missed(9, 10), 11, Missed(11, 12), 13]

    run(check())


def test_a_number_of_another_journal_is_said():
    """One that is still to come was never told by this one: it goes on from now."""

    async def check() -> None:
        store = KeptLines(1, 2)
        journal = _journal(store, 2)
        async with _running(journal):
            listener = journal.listen(5000)
            assert await _all(listener) == [Missed(5000, 2)]
            _happen(journal, store, 3)
            assert await _all(listener) == [3]
            assert await _all(journal.listen(3)) == []

    run(check())


def test_at_a_stop_everybody_goes():
    """Who waits is woken at once, who has something to take is hurried, and no one comes."""

    async def check() -> None:
        journal = _journal(KeptLines())
        async with _running(journal):
            listener, other = journal.listen(None), journal.listen(None)
            hurried = []
            listener.hurry = lambda: hurried.append(1)
            waiting = asyncio.create_task(listener.take(3600.0))
            leaving = asyncio.create_task(other.take(3600.0))
            await asyncio.sleep(1)
            other.leave()
            assert await leaving == []
            assert (other.ended, listener.ended) == (True, False)
            journal.stop()
            assert await waiting == []
            assert (listener.ended, hurried) == (True, [1])
            assert asyncio.get_running_loop().time() < 2

    run(check())


def test_nothing_read_for_those_who_left_is_told_to_who_comes():
    """The last may leave, and another come, while the store is read."""

    async def check() -> None:
        store = KeptLines()
        journal = _journal(store)
        async with _running(journal):
            listener = journal.listen(None)
            _happen(journal, store, 1)
            await asyncio.sleep(READ_SECONDS / 2)
            listener.leave()
            _happen(journal, store, 2)
            listener = journal.listen(None)
            _happen(journal, store, 3)
            assert await _all(listener) == [3]
            assert [line.last for line in journal._recent] == [3]

    run(check())


STEPS = st.lists(
    st.tuples(st.sampled_from(["apply", "keep", "lose", "trim", "join", "take", "leave", "wait"]),
              st.integers(0, 12)),
    max_size=60,
)  # fmt: skip


@settings(max_examples=200)
@given(STEPS, st.integers(0, 3))
def test_none_is_lost_and_none_is_told_twice(steps, before):
    """Whatever is applied, kept, given up, removed and when: each listener's story is whole."""
    small = (module.AT_ONCE, module.AT_ONCE_BEHIND, module.MOST_RECENT, module.TAKEN_BYTES)
    module.AT_ONCE, module.AT_ONCE_BEHIND, module.MOST_RECENT, module.TAKEN_BYTES = 3, 2, 6, 2
    try:
        run(_story(steps, before))
    finally:
        module.AT_ONCE, module.AT_ONCE_BEHIND, module.MOST_RECENT, module.TAKEN_BYTES = small


async def _story(steps: list[tuple[str, int]], before: int) -> None:
    store = KeptLines(*range(1, before + 1))
    journal = _journal(store, before)
    newest, waiting = before, []
    listening: list[tuple[Listener, int, list[int | Missed]]] = []
    over = []
    async with _running(journal):
        for what, much in steps:
            if what == "apply":
                fresh = list(range(newest + 1, newest + 1 + much))
                newest += much
                waiting += fresh
                journal.observe(_applied(*fresh))
            elif what == "keep":
                store.keep(*waiting[:much])
                del waiting[:much]
            elif what == "lose":
                del waiting[: much // 3]
            elif what == "trim":
                del store.lines[: much // 2]
            elif what == "join":
                since = None if much > 9 else min(much, newest)
                began = newest if since is None else since
                listening.append((journal.listen(since), began, []))
            elif what == "wait":
                await asyncio.sleep(much / 10)
            elif listening:
                listener, began, told = listening[much % len(listening)]
                if what == "take":
                    told += _told(await listener.take(0.0))
                else:
                    listening.remove((listener, began, told))
                    listener.leave()
                    over.append((began, told))
        store.keep(*waiting)
        _happen(journal, store, newest + 1)
        for listener, began, told in listening:
            told.extend(await _all(listener))
            assert (told[-1], listener.seq) == (newest + 1, newest + 1)
            over.append((began, told))
    there = {line.seq for line in store.lines}
    for began, told in over:
        place = began
        for one in told:
            if isinstance(one, Missed):
                assert one.after == place < one.last
                assert not there & set(range(one.after + 1, one.last + 1))
                place = one.last
            else:
                assert one == place + 1
                place = one
