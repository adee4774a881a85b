"""Who is connected to the HTTP server, for how long, and who goes when there are too many.

Time is limited where somebody else decides how long a thing takes: a request to come, an answer to
be taken. Nothing is timed request by request: all connections are looked through once a second,
which takes a millisecond or two of 10,000.
"""

from __future__ import annotations

import asyncio
import enum
import heapq
from typing import TYPE_CHECKING, Protocol

import msgspec

from sr_exporter.accepting import reason
from sr_exporter.limits import Limit
from sr_exporter.web.errors import Problem

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sr_exporter.limited import Limited

#: A head must come whole in so many seconds, from the connection or its first byte on; a body in as
#: many, and one more for every so many bytes (httpd's mod_reqtimeout has 20 and 500).
HEAD_SECONDS = BODY_SECONDS = 20.0
BODY_BYTES_A_SECOND = 500
#: An answer may wait for so long until some of it is taken, and so many may wait longer than a
#: moment: each may hold pages of a scrape that nobody else needs any more.
ANSWER_SECONDS = 60.0
MOMENT_SECONDS, MOST_STUCK = 5.0, 64
#: And so many wait at all: each has a piece of its answer in our memory.
MOST_WAITING = 512
#: For how long a connection may rest between two requests. Longer than the clients that keep one
#: do (Prometheus: 5 minutes, Go's programs 90 s), so that it is they who close it: a push that
#: crosses our closing fails, and whoever sent it cannot know whether it was taken.
REST_SECONDS = 330
#: Once nobody was found who could go, it is looked again after so long.
LOOK_AGAIN_SECONDS = 0.1
#: How many go at once: to look for them costs more than to let go of them.
GO_AT_ONCE = 64
_ANSWER = (
    b"HTTP/1.1 %b\r\ncontent-type: application/json\r\nx-content-type-options: nosniff\r\n"
    b"content-length: %d\r\n%bconnection: close\r\n\r\n%b"
)


def refusal(status: bytes, why: str, more: bytes = b"") -> bytes:
    """Write the last answer of a connection, that it is done with."""
    body = msgspec.json.encode(Problem(why))
    return _ANSWER % (status, len(body), more, body)


_TIMEOUT = b"408 Request Timeout"
_TOO_MANY = refusal(
    b"503 Service Unavailable", "there are too many connections; try again", b"retry-after: 1\r\n"
)


class Phase(enum.Enum):
    """What a connection is at."""

    #: A head is to come: the first, or what followed the last answer is not whole.
    HEAD = enum.auto()
    BODY = enum.auto()
    #: A request is whole, and being answered.
    ANSWER = enum.auto()
    #: It has answered, and nothing more has come.
    REST = enum.auto()


class Connection(Protocol):
    """What must be known of a connection."""

    phase: Phase
    #: Since when it is at that, by the loop's clock.
    since: float
    #: How many bytes of a body have come.
    taken: int
    #: Since when an answer waits to be taken; None: it does not.
    stuck_since: float | None
    #: Whether a request came over it whole.
    proven: bool

    def is_outdated(self) -> bool:
        """Say whether it may not go on: who may connect is decided otherwise by now."""

    def end(self, last_words: bytes = b"") -> None:
        """End it: with last words where no answer is under way."""


class Connected:
    """All of them, and the room there is; implements `accepting.Host`."""

    busy = _TOO_MANY

    def __init__(
        self,
        make: Callable[[], asyncio.BaseProtocol],
        connections: set[Connection],
        limited: Limited,
        most: int,
    ) -> None:
        self.protocol = make
        self.most = most
        self._connections = connections
        #: Those whose answer waits to be taken, the longest first.
        self._waiting: dict[Connection, None] = {}
        self._limited = limited
        self._loop = asyncio.get_running_loop()
        self._nobody_until = 0.0

    def __len__(self) -> int:
        return len(self._connections)

    def has_room(self, expected: int, *, scarce: bool) -> bool:
        """Say whether one more is taken; who has waited longest for nothing goes for him."""
        if not scarce and len(self._connections) + expected < self.most:
            return True
        limit = Limit.OPEN_FILES if scarce else Limit.CONNECTIONS
        if self._make_room(limit):
            return True
        self._limited.met(limit, "connection refused: there are too many", most=self.most)
        return False

    def exhausted(self, error: OSError) -> None:
        self._limited.met(
            Limit.OPEN_FILES, "no connection can be taken in for now", error=reason(error)
        )
        self._make_room(Limit.OPEN_FILES)

    def waits(self, one: Connection) -> None:
        """Be told that an answer waits to be taken."""
        one.stuck_since = self._loop.time()
        self._waiting[one] = None
        if len(self._waiting) > MOST_WAITING:
            self._not_taken(next(iter(self._waiting)))

    def waits_no_more(self, one: Connection) -> None:
        """Be told that it was taken, or that its connection is lost."""
        one.stuck_since = None
        self._waiting.pop(one, None)

    def look(self) -> None:
        """Let go of those who take too long."""
        self._limited.look()
        now = self._loop.time()
        for one in tuple(self._connections):
            if one.is_outdated():
                self._end(one)
            elif one.phase is not Phase.ANSWER and one.stuck_since is None:
                self._look_at(one, now)
        stuck = [(one, now - (one.stuck_since or now)) for one in self._waiting]
        stuck = [(one, seconds) for one, seconds in stuck if seconds > MOMENT_SECONDS]
        for place, (one, seconds) in enumerate(stuck):
            if place < len(stuck) - MOST_STUCK or seconds > ANSWER_SECONDS:
                self._not_taken(one)

    def _not_taken(self, one: Connection) -> None:
        self._limited.met(Limit.ANSWER_TIME, "connection closed: an answer was not taken in time")
        self._end(one)

    def _look_at(self, one: Connection, now: float) -> None:
        took = now - one.since
        if one.phase is Phase.HEAD and took > HEAD_SECONDS:
            self._limited.met(
                Limit.HEAD_TIME, "connection closed: the head of a request took too long"
            )
            why = f"the head of the request took longer than {HEAD_SECONDS:.0f} s"
            self._end(one, refusal(_TIMEOUT, why))
        elif one.phase is Phase.BODY and took > BODY_SECONDS + one.taken / BODY_BYTES_A_SECOND:
            self._limited.met(
                Limit.BODY_TIME, "connection closed: the body of a request took too long"
            )
            why = f"the body of the request took too long: {one.taken} bytes in {took:.0f} s"
            self._end(one, refusal(_TIMEOUT, why))
        elif one.phase is Phase.REST and took > REST_SECONDS:
            self._end(one)

    def _make_room(self, limit: Limit) -> bool:
        """Let go of some who can best be spared; say whether there were any."""
        now = self._loop.time()
        if now < self._nobody_until:
            return False
        some = max(1, min(GO_AT_ONCE, len(self._connections) // 16))
        going = heapq.nsmallest(some, self._spared(now))
        if not going:
            self._nobody_until = now + LOOK_AGAIN_SECONDS
            return False
        worst = going[0][0]
        for rank, _, __, one in going:
            if rank == worst:
                self._limited.met(
                    limit, "connection closed to make room", most=self.most, was=one.phase.name
                )
                self._end(one, b"" if one.phase is Phase.REST else _TOO_MANY)
        return True

    def _spared(self, now: float) -> Iterator[tuple[int, float, int, Connection]]:
        """Give those who can be spared: a rank, the worst first, and since when."""
        for one in self._connections:
            took = now - one.since
            if one.stuck_since is not None:
                if now > one.stuck_since + MOMENT_SECONDS:
                    yield 4, one.stuck_since, id(one), one
            elif one.phase is Phase.HEAD:
                yield int(one.proven), one.since, id(one), one
            elif one.phase is Phase.REST:
                yield 2, one.since, id(one), one
            elif one.phase is Phase.BODY and took > MOMENT_SECONDS:
                yield 3, one.since, id(one), one

    def _end(self, one: Connection, last_words: bytes = b"") -> None:
        self._connections.discard(one)  # not only in the next turn
        self._waiting.pop(one, None)
        one.end(last_words)
