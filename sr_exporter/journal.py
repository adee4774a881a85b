"""What changed, as it comes: many listen, and the store is read once.

Only what is kept is told, in the order of its numbers, none left out and none twice: what was told
must not be gone after a crash, and numbered anew. Whoever listens has a place in the journal, and
takes what follows it in his own time: the newest lines are held for all, older ones each reads from
the store. So a slow listener costs a place, and one that was away goes on where he was.

Numbers have no gaps. Where lines are gone all the same (the retention removed them, the disk took
nothing for too long, or it is another journal than the one the number is of) a listener is told
which he has missed.
"""

from __future__ import annotations

import asyncio
import contextlib
from bisect import bisect_right
from typing import TYPE_CHECKING, NamedTuple

from sr_exporter.errors import NotKept
from sr_exporter.turns import Turnstile

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from sr_exporter.model import Change
    from sr_exporter.outcome import Outcome
    from sr_exporter.store.contract import Store

#: How many lines are read at once for all, a millisecond; and for one who is behind.
AT_ONCE = 500
AT_ONCE_BEHIND = 100
#: How much somebody takes at once of what is held, if it is more than a line.
TAKEN_BYTES = 2**16
#: What is held of the newest lines at most, by number and by size.
MOST_RECENT = 10_000
MOST_RECENT_BYTES = 2**23
#: What comes within so long of what was read is read together; longer where many listen: to tell
#: one of them takes a tenth of a millisecond, and others want their turn, too.
GATHER_SECONDS = 0.02
GATHER_SECONDS_EACH = 0.0005
#: How soon is looked again for what is applied and not kept yet.
RETRY_SECONDS = 0.25
#: How many listeners are served before others have their turn.
_SERVED = 10
#: How many may listen: each costs a tenth of a millisecond whenever something changes.
MOST_LISTENERS = 2_000


class Line(NamedTuple):
    change: Change
    #: As it is sent; written once for all.
    written: bytes

    @property
    def last(self) -> int:
        return self.change.seq


class Missed(NamedTuple):
    """Lines that are not there."""

    #: The numbers above the first of these up to the second.
    after: int
    last: int


News = Line | Missed


class Journal:
    """The newest lines, and who listens for more."""

    def __init__(self, store: Store, last_seq: int, write: Callable[[Change], bytes]) -> None:
        """`last_seq` is the number of the newest change that is kept."""
        self._store = store
        self._write = write
        #: The number of the newest change that is known to be kept, and of the newest of all.
        self._kept = self.newest = last_seq
        #: All that is kept with numbers above `_after`, as far as it was read.
        self._recent: list[Line] = []
        self._after = last_seq
        self._bytes = 0
        self._listeners: dict[Listener, None] = {}
        self.turnstile = Turnstile(_SERVED)
        self._stirred = asyncio.Event()
        #: False once it stops: everybody is told all that is here, and no more comes.
        self.open = True

    def observe(self, outcome: Outcome) -> None:
        """Follow what is observed."""
        if outcome.changes:
            self.newest = outcome.changes[-1].seq
            if self._listeners:
                self._stirred.set()

    @property
    def full(self) -> bool:
        """Whether nobody more may listen."""
        return len(self._listeners) >= MOST_LISTENERS

    def listen(self, since: int | None) -> Listener:
        """Have somebody told what comes after a number; None: from now on."""
        if not self._listeners:
            self._recent, self._bytes, self._after = [], 0, self.newest
        listener = Listener(self, self.newest if since is None else since)
        self._listeners[listener] = None
        return listener

    def leave(self, listener: Listener) -> None:
        self._listeners.pop(listener, None)

    async def run(self) -> None:
        """Read what is kept while anybody listens, for ever."""
        while True:
            behind = bool(self._listeners) and self._last < self.newest
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(RETRY_SECONDS if behind else None):
                    await self._stirred.wait()
            self._stirred.clear()
            if await self._read():
                await self._wake()
                gathering = GATHER_SECONDS_EACH * len(self._listeners)
                await asyncio.sleep(max(GATHER_SECONDS, gathering))

    def stop(self) -> None:
        """Let everybody go who listens."""
        self.open = False
        for listener in list(self._listeners):
            listener.wake()
            listener.hurry()

    async def after(self, seq: int) -> Sequence[News]:
        """Give some of what follows a number; nothing: there is none yet.

        Raises:
            NotKept: the store cannot be read.
        """
        if seq > self.newest:
            return [Missed(seq, self.newest)]
        if seq >= self._after:
            start = bisect_right(self._recent, seq, key=lambda line: line.last)
            return list(_gapless(seq, _some(self._recent, start)))
        kept = self._kept
        found = await self._store.changes(seq, AT_ONCE_BEHIND)
        if not found and seq < kept:
            return [Missed(seq, kept)]
        return list(_gapless(seq, [self._line(change) for change in found]))

    def is_behind(self, seq: int) -> bool:
        """Whether what follows a number must be looked for: nobody is woken for it."""
        return seq < self._after

    @property
    def _last(self) -> int:
        return self._recent[-1].last if self._recent else self._after

    async def _read(self) -> bool:
        """Read some of what is new; say whether there was any."""
        recent = self._recent
        try:
            found = await self._store.changes(self._last, AT_ONCE) if self._listeners else []
        except NotKept:
            return False  # it says so in its own status, and is asked again
        if not found or recent is not self._recent:
            return False
        lines = [self._line(change) for change in found]
        recent += lines
        self._bytes += sum(len(line.written) for line in lines)
        self._kept = max(self._kept, lines[-1].last)
        if len(recent) > MOST_RECENT or self._bytes > MOST_RECENT_BYTES:
            kept = MOST_RECENT // 2 if self._bytes <= MOST_RECENT_BYTES else 0
            self._after = recent[-kept - 1].last
            self._recent = recent[len(recent) - kept :]
            self._bytes = sum(len(line.written) for line in self._recent)
        return True

    async def _wake(self) -> None:
        for woken, listener in enumerate(list(self._listeners), 1):
            listener.wake()
            if woken % _SERVED == 0:
                await asyncio.sleep(0)

    def _line(self, change: Change) -> Line:
        return Line(change, self._write(change))


class Listener:
    """Somebody's place in the journal."""

    def __init__(self, journal: Journal, seq: int) -> None:
        self._journal = journal
        #: The number of the last line that he has, or has missed.
        self.seq = seq
        #: Called at a stop: what he was given, he must take now.
        self.hurry: Callable[[], None] = _nothing
        #: He listens no more.
        self.left = False
        self._woken = asyncio.Event()

    def wake(self) -> None:
        """Have him look whether there is anything."""
        self._woken.set()

    def leave(self) -> None:
        """Be told nothing more; what he is waiting for ends."""
        self.left = True
        self._journal.leave(self)
        self.wake()

    @property
    def ended(self) -> bool:
        """Whether nothing more comes: he left, or the journal is stopped."""
        return self.left or not self._journal.open

    async def pause(self) -> None:
        """Let the others have their turn: many may be told much at one time."""
        await self._journal.turnstile.turn()

    async def take(self, within_seconds: float) -> Sequence[News]:
        """Give some of what comes next; nothing: nothing came, or it ended."""
        loop = asyncio.get_running_loop()
        until = loop.time() + within_seconds
        while True:
            self._woken.clear()
            looks_again = self._journal.is_behind(self.seq)
            try:
                news = [] if self.left else await self._journal.after(self.seq)
            except NotKept:
                news, looks_again = [], True
            if news:
                self.seq = news[-1].last
            left = until - loop.time()
            if news or self.ended or left <= 0:
                return news
            if looks_again:
                left = min(left, RETRY_SECONDS)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(left):
                    await self._woken.wait()


def _some(lines: Sequence[Line], start: int) -> Sequence[Line]:
    """Give as many lines as are taken at once."""
    size, end = 0, start
    while end < len(lines) and size < TAKEN_BYTES:
        size += len(lines[end].written)
        end += 1
    return lines[start:end]


def _nothing() -> None:
    """Do as nobody asks for more."""


def _gapless(seq: int, lines: Sequence[Line]) -> Iterator[News]:
    """Say between lines which are missing."""
    for line in lines:
        if line.last > seq + 1:
            yield Missed(seq, line.last - 1)
        seq = line.last
        yield line
