"""What a key was over the last hours: from the journal, with gaps where nobody knows. Mostly pure.

A gap is a time of which the exporter cannot say how the key stood: it was not held, its source was
lost, or the exporter itself was stopped. It is never drawn as a status.
"""

from __future__ import annotations

import asyncio
import enum
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from sr_exporter.errors import NotKept
from sr_exporter.model import OWN_SOURCE, Change, ChangeKind, Key, fold

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from sr_exporter.held import Entry
    from sr_exporter.store.contract import Store

#: How many changes of the journal, whosever, the store's thread looks at before commits have their
#: turn: some milliseconds.
PIECE_ROWS = 5_000


class Looks(NamedTuple):
    """How far back the journal is looked through at most, and for how long it is waited."""

    rows: int
    seconds: float


#: For the bars of a list: the list does not wait for them long.
FOR_MANY = Looks(40_000, 0.1)
#: For the page of one key.
FOR_ONE = Looks(400_000, 1.0)

#: Why it is not looked all the way back.
MUCH_HAPPENED = "more happened since than is looked through for a page"
IS_BUSY = "the store was too busy to tell in time"


class Standing(enum.IntEnum):
    """How a key stood; a page paints the later of these over the earlier."""

    #: It was not held.
    ABSENT = 0
    READY = 1
    #: The journal was not looked through so far back.
    UNREAD = 2
    #: Its source was lost, or the exporter stopped.
    UNKNOWN = 3
    NOT_READY = 4


class Span(NamedTuple):
    """A time in which a key stood one way."""

    begin: float
    end: float
    standing: Standing
    #: None while it was not held, and where nothing tells.
    status: int | None = None
    details: str | None = None


@dataclass(slots=True)
class History:
    """What the journal says of some keys since a time."""

    since: float
    #: Only what happened later than this was looked at.
    reached: float
    #: By folded key, and by the name of a source; the oldest first.
    changes: dict[Key | str, list[Change]] = field(default_factory=dict)
    #: Why it was not looked at all the way back; "": it was.
    why: str = ""

    def of(self, key: Key | str) -> Sequence[Change]:
        return self.changes.get(key, ())


def own_key(source: str) -> Key:
    """Give the key by which the exporter says of itself how a source is heard."""
    return Key(OWN_SOURCE, "source", fold(source))


async def read(
    store: Store, keys: Iterable[Key], since: float, looks: Looks, now: float
) -> History:
    """Read what the journal has of (folded) keys and their sources since a time.

    It is read backwards, piece by piece, and not longer than `looks` allows.
    """
    wanted: set[Key] = set()
    for key in keys:
        wanted |= {key, own_key(key.source)}
    found = History(since, since)
    if not wanted:
        return found
    until = asyncio.get_running_loop().time() + looks.seconds
    before: int | None = None
    seen: list[Change] = []
    found.reached, found.why = now, MUCH_HAPPENED
    for _ in range(max(1, looks.rows // PIECE_ROWS)):
        asked = store.past(wanted, before=before, rows=PIECE_ROWS)
        try:
            async with asyncio.timeout_at(until):
                past = await asked
        except (TimeoutError, NotKept) as error:
            found.why = str(error) if isinstance(error, NotKept) else IS_BUSY
            break
        seen += past.changes
        if past.youngest_at is not None:
            found.reached = max(since, min(found.reached, past.youngest_at))
        before = past.before
        if before is None or found.reached <= since:
            found.reached, found.why = since, ""
            break
    for change in reversed(seen):
        found.changes.setdefault(_of(change), []).append(change)
    return found


def _of(change: Change) -> Key | str:
    if change.group is None or change.identifier is None:
        return change.source
    return Key(change.source, change.group, change.identifier).folded()


def spans(
    history: History,
    key: Key,
    entry: Entry | None,
    *,
    known: bool,
    now: float,
    lost_at: float | None = None,
) -> list[Span]:
    """Give how a folded key stood, the oldest first, without holes.

    `entry` is how it stands now, None where it is not held, and `known` whether that can be said.
    `lost_at` is when its source was last heard before this exporter was started.
    """
    if lost_at is not None and lost_at < history.reached:
        lost_at = None
    marks = [
        *_of_key(history.of(key), entry),
        *_of_source([*history.of(key.source), *history.of(own_key(key.source))], known, lost_at),
    ]
    marks.sort(key=lambda mark: mark[0])
    found: list[Span] = []
    at = history.reached
    _add(found, history.since, at, _Stood(Standing.UNREAD), heard=True)
    stood, heard = _Stood(Standing.ABSENT), True
    for moment, what in marks:
        moment = min(max(moment, history.reached), now)  # noqa: PLW2901 - clocks are set back
        _add(found, at, moment, stood, heard=heard)
        at = max(at, moment)
        if isinstance(what, _Stood):
            stood = what
        else:
            heard = what
    _add(found, at, now, stood, heard=heard)
    return found


class _Stood(NamedTuple):
    standing: Standing
    status: int | None = None
    details: str | None = None


_BEGIN = float("-inf")


def _of_key(changes: Sequence[Change], entry: Entry | None) -> list[tuple[float, _Stood | bool]]:
    """Give how it stood at first, and from each change on."""
    if not changes and entry is not None:
        # What is not in the journal was not kept, or is not kept any more.
        return [(_BEGIN, _Stood(Standing.UNREAD)), (entry.changed_at, _now(entry))]
    if not changes:
        return []
    marks: list[tuple[float, _Stood | bool]] = [(_BEGIN, _before(changes[0]))]
    last = _BEGIN
    for change in changes:
        last = max(last, change.at)  # they stand in the order in which they were heard
        marks.append((last, _after(change)))
    return marks


def _now(entry: Entry) -> _Stood:
    return _Stood(_standing(ready=entry.ready), entry.status, entry.details)


def _before(change: Change) -> _Stood:
    if change.kind is ChangeKind.APPEARED or change.old_status is None:
        return _Stood(Standing.ABSENT)
    return _Stood(_standing(ready=bool(change.was_ready)), change.old_status)


def _after(change: Change) -> _Stood:
    if change.kind is ChangeKind.REMOVED or change.status is None:
        return _Stood(Standing.ABSENT)
    return _Stood(_standing(ready=bool(change.ready)), change.status, change.details)


def _standing(*, ready: bool) -> Standing:
    return Standing.READY if ready else Standing.NOT_READY


def _of_source(
    changes: list[Change], known: bool, lost_at: float | None
) -> list[tuple[float, _Stood | bool]]:
    """Give whether it was heard at first, and from when on it was, or was not."""
    changes.sort(key=lambda change: change.seq)
    first = _heard_before(changes[0]) if changes else known
    marks: list[tuple[float, _Stood | bool]] = [(_BEGIN, first)]
    marks += [
        (change.at, heard) for change in changes if (heard := _heard_after(change)) is not None
    ]
    if lost_at is not None:
        marks.append((lost_at, False))
    return marks


def _heard_before(change: Change) -> bool:
    if change.kind in (ChangeKind.SOURCE_UP, ChangeKind.SOURCE_DOWN):
        return change.kind is ChangeKind.SOURCE_DOWN
    return bool(change.was_ready)


def _heard_after(change: Change) -> bool | None:
    """Say whether the source is heard from this on; None: it does not tell."""
    if change.kind in (ChangeKind.SOURCE_UP, ChangeKind.SOURCE_DOWN):
        return change.kind is ChangeKind.SOURCE_UP
    return change.ready


def _add(found: list[Span], begin: float, end: float, stood: _Stood, *, heard: bool) -> None:
    if end <= begin:
        return
    if stood.standing is not Standing.ABSENT and not heard:
        stood = _Stood(Standing.UNKNOWN)
    last = found[-1] if found else None
    if last is not None and (last.standing, last.status, last.details) == stood:
        found[-1] = last._replace(end=end)
    else:
        found.append(Span(begin, end, *stood))


def together(some: Iterable[Span], standing: Standing) -> tuple[int, float]:
    """Give how often it stood so, and for how long in all."""
    times, seconds, before = 0, 0.0, None
    for span in some:
        if span.standing is standing:
            times += before is not standing
            seconds += span.end - span.begin
        before = span.standing
    return times, seconds
