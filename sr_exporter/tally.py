"""How often a status changed, at least, where polls and events both tell of it. Pure.

Neither tells all. A poll sees a moment, and nothing in between; an event may be lost, late or out
of order (rule 8). So each gives a bound that the true number is not below:

* Every event is a change of its own, and two ways may bring the same. One way may, too: a push is
  repeated by who heard no answer, and a named TCP socket that is renewed is subscribed twice
  (OpenSIPS issue 4169). So the same event twice in a row, over one way, is one.
* Between two polls that differ there was a change at least.
* Events lead from status to status. Once nothing late is to be expected, those that came must
  lead from the status that was polled before them to the one that was polled after; each step
  that is missing was a change, too.

The largest bound is the count: it never exceeds what happened, it never falls, and it is exact
when no event was lost, however late and out of order, but where a change and its repetition came
in a row though another was between them.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sr_exporter.model import Way

#: How late an event may come and still be known for one from before a poll.
LATE_SECONDS = 60.0
#: Of two events of one identifier so close together the later may be the one that came first.
CLOSE_SECONDS = 5.0


@dataclass(slots=True)
class _Heard:
    """The events that one way brought."""

    count: int = 0
    #: How often the status was left (below 0) and reached (above).
    steps: Counter[int] = field(default_factory=Counter)
    last: tuple[int, int] | None = None

    def missing(self, start: int, end: int) -> int:
        """Give how many steps more it takes, at least, to get from one status to the other."""
        balance = Counter(self.steps)
        balance[start] += 1
        balance[end] -= 1
        return sum(surplus for surplus in balance.values() if surplus > 0)


class Tally:
    """The count of one identifier, from a moment at which all was known to the next such one.

    Times are of the exporter's clock, in seconds.
    """

    __slots__ = (
        "_differed",
        "_differed_since",
        "_heard_at",
        "_polled",
        "_quiet",
        "_settled",
        "_start",
        "_ways",
    )

    def __init__(self, total: int, status: int) -> None:
        """Begin at a total, and the status that is held."""
        self._settled = total
        #: The status from which the events lead; None: it is not known.
        self._start: int | None = status
        self._heard_at: float | None = None
        self._polled = status
        self._ways: dict[Way, _Heard] = {}
        #: Polls that differed from the one before: up to the first after the last event, and
        #: after that one.
        self._differed = 0
        self._differed_since = 0
        #: The first poll after the last event: when it was asked, and the status.
        self._quiet: tuple[float, int] | None = None

    @classmethod
    def of_first(cls, way: Way, old_status: int, status: int, now: float) -> Tally:
        """Begin with the event that makes an identifier known, which counts as no change.

        Others may have been before it, and nothing is known of where they began.
        """
        tally = cls(0, status)
        tally._start = None
        tally._heard_at = now
        tally._ways[way] = _Heard(last=(old_status, status))
        return tally

    @property
    def total(self) -> int:
        return self._settled + max(self._heard, self._differed + self._differed_since)

    @property
    def _heard(self) -> int:
        return max((way.count for way in self._ways.values()), default=0)

    def is_close(self, now: float) -> bool:
        """Whether another event was heard so shortly before that their order is in doubt."""
        return self._heard_at is not None and 0 <= now - self._heard_at < CLOSE_SECONDS

    def repeats(self, way: Way, old_status: int, status: int) -> bool:
        """Whether this is the last event of this way once more."""
        heard = self._ways.get(way)
        return heard is not None and heard.last == (old_status, status)

    def event(
        self, way: Way, old_status: int, status: int, now: float, *, comparable: bool = True
    ) -> None:
        """Count an event; one whose statuses polls cannot show says nothing of what is missing."""
        if old_status == status or self.repeats(way, old_status, status):
            return
        self._heard_at = now
        if not comparable:
            self._start = None
        heard = self._ways.setdefault(way, _Heard())
        heard.last = (old_status, status)
        heard.count += 1
        heard.steps[old_status] -= 1
        heard.steps[status] += 1
        self._differed += self._differed_since
        self._differed_since = 0
        self._quiet = None

    def poll(self, status: int, requested_at: float) -> None:
        """Count what a poll said that was asked after all the events that were heard."""
        differed = int(status != self._polled)
        self._polled = status
        if self._quiet is None:
            self._differed += differed
            self._quiet = (requested_at, status)
        else:
            self._differed_since += differed

    def settle(self, now: float) -> bool:
        """Close the account if no late event is to be expected. Says whether nothing is open."""
        if self._quiet is None or now < self._quiet[0] + LATE_SECONDS:
            return False
        bounds = [self._differed]
        for way in self._ways.values():
            missing = 0 if self._start is None else way.missing(self._start, self._quiet[1])
            bounds.append(way.count + missing)
        self._settled += max(bounds)
        self._start = self._quiet[1]
        self._ways.clear()
        self._heard_at = None
        self._differed, self._differed_since = self._differed_since, 0
        self._quiet = None
        return not self._differed
