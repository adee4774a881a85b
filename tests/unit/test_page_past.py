"""What a key was: from the journal, with gaps where nobody knows; and how that is drawn."""

from __future__ import annotations

import asyncio
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sr_exporter.held import Entry, Group, Source
from sr_exporter.model import OWN_SOURCE, Change, ChangeKind, Key, Kind
from sr_exporter.store.contract import Batch
from sr_exporter.store.sqlite import SqliteStore
from sr_exporter.web import past
from sr_exporter.web.drawing import HEIGHT, draw
from sr_exporter.web.past import History, Looks, Span, Standing, read, spans, together

KEY = Key("sip-1", "drouting", "us")
OWN = past.own_key("sip-1")
NOW = 1000.0
A, R, U, N, X = (
    Standing.ABSENT,
    Standing.READY,
    Standing.UNKNOWN,
    Standing.NOT_READY,
    Standing.UNREAD,
)


def entry(status: int = 1, changed_at: float = 0.0) -> Entry:
    held = Entry(Group(Source("sip-1", Kind.POLLED), "drouting"), "us", status, ready=status > 0)
    held.changed_at = changed_at
    return held


def status(at: float, before: int | None, after: int | None, key: Key = KEY) -> Change:
    """Make a change of a status; None: it was not held."""
    kind = ChangeKind.STATUS
    if before is None:
        kind = ChangeKind.APPEARED
    elif after is None:
        kind = ChangeKind.REMOVED
    return Change(
        next(status.seq),
        at,
        kind,
        *key,
        status=after,
        old_status=before,
        ready=None if after is None else after > 0,
        was_ready=None if before is None else before > 0,
    )


status.seq = iter(range(1, 10_000))


def source(at: float, *, up: bool) -> Change:
    kind = ChangeKind.SOURCE_UP if up else ChangeKind.SOURCE_DOWN
    return Change(next(status.seq), at, kind, "sip-1")


def own(at: float, before: int, after: int) -> Change:
    return status(at, before, after, Key(OWN_SOURCE, "source", "sip-1"))


def stood(*changes: Change, held: Entry | None = None, known: bool = True, **more: object):
    """Say how it stood from 0 to NOW: (from, standing)."""
    history = History(0.0, more.pop("reached", 0.0))
    for change in changes:
        history.changes.setdefault(past._of(change), []).append(change)
    found = spans(history, KEY, held, known=known, now=NOW, **more)
    return [(span.begin, span.standing) for span in found]


@pytest.mark.parametrize(
    ("changes", "held", "expected"),
    [
        ([], entry(1), [(0, R)]),
        ([], entry(-1), [(0, N)]),
        ([], entry(-1, changed_at=400.0), [(0, X), (400, N)]),
        ([], None, [(0, A)]),
        ([status(300, 1, -1)], entry(-1), [(0, R), (300, N)]),
        ([status(300, None, 1)], entry(1), [(0, A), (300, R)]),
        ([status(300, -1, None)], None, [(0, N), (300, A)]),
        ([status(300, 1, 2), status(310, 2, 1)], entry(1), [(0, R), (300, R), (310, R)]),
        ([status(300, -1, None), status(500, None, 1)], entry(1), [(0, N), (300, A), (500, R)]),
        # They stand in the order in which they were heard, whatever a pusher's clock says.
        ([status(300, 1, -1), status(200, -1, 1)], entry(1), [(0, R)]),
        ([status(2000, 1, -1)], entry(-1), [(0, R)]),
        ([status(-50, 1, -1)], entry(-1), [(0, N)]),
        # While the source is lost nothing is known, whatever was held.
        ([source(300, up=False), source(400, up=True)], entry(1), [(0, R), (300, U), (400, R)]),
        ([source(400, up=True)], entry(1), [(0, U), (400, R)]),
        ([own(300, 1, -1), source(300, up=False)], entry(1), [(0, R), (300, U)]),
        (
            [source(300, up=False), status(350, 1, -1), source(400, up=True)],
            entry(-1),
            [(0, R), (300, U), (400, N)],
        ),
        # What is not held is not unknown.
        ([source(300, up=False), status(350, 1, None)], None, [(0, R), (300, U), (350, A)]),
        # After its own start the exporter says that it has not heard it yet.
        ([own(300, 1, -1), own(320, -1, 1)], entry(1), [(0, R), (300, U), (320, R)]),
    ],
)
def test_how_a_key_stood(changes, held, expected):
    assert stood(*changes, held=held) == expected


def test_the_time_in_which_the_exporter_was_stopped_is_not_known():
    """From the last answer before it, to the first after it."""
    changes = [own(300, 1, -1), own(320, -1, 1)]
    assert stood(*changes, held=entry(1), lost_at=200.0) == [(0, R), (200, U), (320, R)]
    assert stood(*changes, held=entry(1), lost_at=200.0, reached=310.0) == [
        (0, X),
        (310, U),
        (320, R),
    ]


def test_a_source_that_is_lost_and_was_lost_all_the_time():
    assert stood(held=entry(1), known=False) == [(0, U)]


def test_what_was_not_looked_at_is_not_known():
    assert stood(status(500, 1, -1), held=entry(-1), reached=400.0) == [(0, X), (400, R), (500, N)]


CHANGES = st.lists(
    st.one_of(
        st.builds(
            status,
            st.floats(-100, 1100),
            st.none() | st.sampled_from([1, -1, 2]),
            st.none() | st.sampled_from([1, -1, 2]),
        ).filter(lambda change: (change.status, change.old_status) != (None, None)),
        st.builds(source, st.floats(-100, 1100), up=st.booleans()),
        st.builds(own, st.floats(-100, 1100), st.sampled_from([1, -1]), st.sampled_from([1, -1])),
    ),
    max_size=30,
)


@given(CHANGES, st.none() | st.sampled_from([1, -1]), st.integers(1, 200))
def test_spans_have_no_holes_and_are_drawn_whole(changes, held, width):
    """Whatever the journal says: from the beginning to now, and nothing is drawn beside."""
    history = History(0.0, 0.0)
    for change in changes:
        history.changes.setdefault(past._of(change), []).append(change)
    now = None if held is None else entry(held)
    found = spans(history, KEY, now, known=True, now=NOW)
    ends = [span.end for span in found]
    assert [span.begin for span in found] == [0.0, *ends[:-1]]
    assert ends[-1] == NOW
    assert all(span.begin < span.end for span in found)
    drawing = draw(found, 0.0, NOW, width)
    columns = []
    for path in (drawing.ready, drawing.unknown, drawing.not_ready):
        for at, length in re.findall(r"M(\d+) \d+h(\d+)", path):
            columns += range(int(at), int(at) + int(length))
    assert len(columns) == len(set(columns))
    assert all(0 <= column < width for column in columns)
    for span in found:
        if span.standing is N:
            assert drawing.not_ready


def test_what_was_short_is_seen_and_shapes_tell_states_apart():
    """A moment in which it was not ready has a column of its own."""
    found = [Span(0, 500, R), Span(500, 500.1, N), Span(500.1, 900, R), Span(900, NOW, U)]
    drawing = draw(found, 0.0, NOW, 10)
    assert drawing.not_ready == f"M5 0h1v{HEIGHT}h-1z"
    assert drawing.ready == f"M0 {HEIGHT - 4}h5v4h-5zM6 {HEIGHT - 4}h3v4h-3z"
    assert drawing.unknown == f"M9 {HEIGHT // 2}h1"
    assert together(found, N) == (1, pytest.approx(0.1))
    assert together(found, R)[0] == 2


# --- reading --------------------------------------------------------------------------------


def test_the_journal_is_read_as_far_back_as_is_asked_and_allowed(monkeypatch):
    """In pieces; and it is said how far that went, and why no farther."""
    monkeypatch.setattr(past, "PIECE_ROWS", 10)

    def change(seq: int) -> Change:
        key = KEY if seq % 7 == 0 else Key("other", "g", "i")
        return Change(seq, float(seq), ChangeKind.STATUS, *key, status=1, old_status=-1)

    async def act() -> None:
        store = SqliteStore(None)
        store.load()
        try:
            empty = await read(store, [KEY], 0.0, Looks(100, 5.0), 100.0)
            assert (empty.reached, empty.why, empty.changes) == (0.0, "", {})
            await store.commit(Batch(changes=[change(seq) for seq in range(1, 101)]))
            whole = await read(store, [KEY], 0.0, Looks(1000, 5.0), 100.0)
            assert [one.seq for one in whole.of(KEY)] == list(range(7, 101, 7))
            assert (whole.reached, whole.why) == (0.0, "")
            some = await read(store, [KEY], 65.0, Looks(1000, 5.0), 100.0)
            assert [one.seq for one in some.of(KEY)][-6:] == [63, 70, 77, 84, 91, 98]
            assert (some.reached, some.why) == (65.0, "")
            bounded = await read(store, [KEY], 0.0, Looks(30, 5.0), 100.0)
            assert [one.seq for one in bounded.of(KEY)] == [77, 84, 91, 98]
            assert (bounded.reached, bounded.why) == (80.0, past.MUCH_HAPPENED)
            assert (await read(store, [], 0.0, Looks(30, 5.0), 100.0)).changes == {}
        finally:
            store.close()
        closed = await read(store, [KEY], 0.0, Looks(30, 5.0), 100.0)
        assert (closed.reached, closed.why) == (100.0, "the store is closed")

    asyncio.run(act())


def test_a_store_that_is_busy_is_not_waited_for():
    """A page is not late for its timelines."""

    class Busy:
        def past(self, *_: object, **__: object) -> asyncio.Future[None]:
            return asyncio.get_running_loop().create_future()

    found = asyncio.run(read(Busy(), [KEY], 0.0, Looks(30, 0.01), 100.0))
    assert (found.reached, found.why) == (100.0, past.IS_BUSY)
