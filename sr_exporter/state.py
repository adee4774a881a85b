"""The one state: what is held, and what an observation alters. No clock, no I/O.

Rules that bind here (numbers as in the design):

5.  Late snapshots lose: a poll's answer describes the moment its request was sent, and never
    overwrites or removes a key that an event or push touched after that.
6.  A complete snapshot removes what it does not list; a failed or partial one removes nothing.
7.  A source that is down is not removed: its keys are withheld after `stale_after`, and come
    back with the next good poll, counters unbroken. So it is after our own restart.
8.  Events are hints: one that fits neither before nor after tells that a change was missed.
9.  Reports are counted by overlap (rings.py).
13. A source's start time moves only when its up time fell, or differs by more than 5 s.
14. Pushed state can expire.
16. Report texts are hints, read by rules (subjects.py).

What was removed is not revived by anything older, also not after a restart: it is remembered when
it was removed, for a day.

Which of two moments is later is told by `revision`, which every `apply` raises, never by a
clock, which may jump.
"""

from __future__ import annotations

import sys
from collections import OrderedDict
from itertools import islice
from typing import TYPE_CHECKING

from sr_exporter.asked import Asked
from sr_exporter.held import Entry, Reported, Source
from sr_exporter.model import (
    OWN_SOURCE,
    PUSHED_RING,
    TOMBSTONE_SECONDS,
    Checked,
    Configured,
    Forget,
    Key,
    Kind,
    ListedStatus,
    OnExpiry,
    Origin,
    PollFailed,
    Report,
    Snapshot,
    Statement,
    Tick,
    Way,
    fold,
    held_status,
    is_ready,
)
from sr_exporter.outcome import Outcome
from sr_exporter.room import Beginning
from sr_exporter.signals import End, Ending
from sr_exporter.tally import Tally

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from sr_exporter.held import Group
    from sr_exporter.model import KeyRecord, Observation, SourceRecord

#: How far a pusher's clock may be ahead of ours.
CLOCK_SKEW_SECONDS = 60.0
INT16 = range(-(2**15), 2**15)
#: How much is looked at in one tick, and the next goes on: 20 ms where all of it expires, and a
#: webhook is owed each.
MOST_DUE = 100
#: A `State.revision` that no question is asked at.
_NEVER = sys.maxsize


class State(Asked):
    """Everything that is held. `apply` is the only way to change it."""

    def restore(
        self,
        sources: Iterable[SourceRecord],
        keys: Iterable[KeyRecord],
        now: float,
        tombstones: Mapping[Key, float] | None = None,
        *,
        each: Callable[[list[Entry]], None] = lambda _: None,
    ) -> None:
        """Take up what was kept. Times to live start anew at `now`.

        `each` is told of the keys, some of one group at a time.
        """
        for record in sources:
            self.sources[record.name] = Source.restored(record)
        for entries in self.take_up(keys, now):
            each(entries)
        self.tombstones = OrderedDict(
            (key, at)
            for key, at in (tombstones or {}).items()
            if at >= now - TOMBSTONE_SECONDS and self.entry(key) is None
        )

    def faults(
        self, statements: Sequence[Statement], now: float, fresh: Beginning | None = None
    ) -> list[tuple[int, str]]:
        """Say which statements must not be applied, and why; `fresh` are keys that others begin."""
        found: list[tuple[int, str]] = []
        plenty = fresh is None and self.is_plenty(len(statements))
        fresh = Beginning() if fresh is None else fresh
        for index, said in enumerate(statements):
            source = self.sources.get(said.source)
            if (fault := _fault(said, source, now)) is not None:
                found.append((index, fault))
                continue
            if plenty:
                continue
            if source is not None and source.entry(said.group, said.identifier) is not None:
                continue
            key = Key(said.source, said.group, said.identifier).folded()
            if key in fresh.keys or self._buried(key, said.at, now):
                continue
            if full := self.full(said.source, source, fresh):
                found.append((index, full))
            else:
                fresh.add(key)
        return found

    def apply(self, observation: Observation, now: float) -> Outcome:
        """Apply what was observed; the same observation again alters nothing."""
        self.revision += 1
        outcome = Outcome()
        match observation:
            case Statement():
                self._statement(outcome, observation, now)
            case Snapshot():
                self.snapshot(outcome, observation, now)
            case Checked():
                self.checked(outcome, observation, now)
            case PollFailed():
                self.poll_failed(outcome, observation, now)
            case Forget():
                self._forget(outcome, observation, now)
            case Configured():
                self._configured(outcome, observation, now)
            case Tick():
                self._tick(outcome, now)
        return outcome

    # --- statements: pushes, events, ourselves ---------------------------------------------

    def _statement(self, out: Outcome, said: Statement, now: float) -> None:
        key = Key(said.source, said.group, said.identifier)
        entry = self.entry(key)
        if entry is None and not self._may_begin(key, said, now):
            return
        source = self.source(said.source)
        at = now if said.at is None else said.at
        if entry is None:
            entry = self._first_statement(out, source, said, at, now)
            late = False
        else:
            late = said.status is not None and _is_late(said.at, entry.stated_at, now)
            if said.status is not None and not late:
                self._state_status(out, entry, said, held_status(said.status), at, now)
                entry.stated_at = at
        if not late:
            self._live(entry, said, now)
        entry.touched = source.known.stirred = self.revision
        if said.reports:
            fresh = self._report(entry, said, at)
            self.heed(out, [(entry, report) for report in fresh], now)
        if source.kind is Kind.EVENT:
            source.heard, source.withheld = True, False
        if source.polled and source.down_since is not None:
            out.alive.append(source.name)
        if source.seen(now):
            out.keep_source(source)
        out.keep(entry)

    def _may_begin(self, key: Key, said: Statement, now: float) -> bool:
        """Say whether a key that is not held begins with what is said of it."""
        if self._buried(key, said.at, now):
            return False
        known = self.sources.get(said.source)
        if said.origin is Origin.OWN or not self.full(said.source, known):
            return True
        # An event: a push was refused by `faults`, and a poll counts what it leaves out.
        if known is not None:
            known.refused += known.kind is Kind.EVENT
        return False

    def _state_status(
        self, out: Outcome, entry: Entry, said: Statement, status: int, at: float, now: float
    ) -> None:
        """Take a status that was pushed, or came as an event (rule 8)."""
        source = entry.group.source
        if said.old_status is None:
            self.set(out, entry, status, is_ready(status), said.details, at)
            return
        old_status = held_status(said.old_status)
        cut = _cuts(source, old_status, status)
        missed = entry.status not in (old_status, status) and not cut
        if missed:
            source.changes_missed_total += 1
            out.keep_source(source)
        # It was not ready before already, and nobody said so: most likely it has just started.
        unheard = missed and entry.ready and not is_ready(old_status) and not is_ready(status)
        if not source.polled:
            self.set(out, entry, status, is_ready(status), said.details, at)
            if unheard:
                self.guess_early(entry)
            return
        self._settle(entry, now)
        tally = self._tally(entry)
        way = said.way or Way.HTTP
        told = tally.repeats(way, old_status, status) and status == entry.status
        if missed or (tally.is_close(now) and not told):
            out.doubtful.append(entry.key)
        tally.event(way, old_status, status, now, comparable=not cut)
        self.set(out, entry, status, is_ready(status), said.details, at, counts=False)
        if unheard:
            self.guess_early(entry)
        entry.changes_total = tally.total

    def _buried(self, key: Key, said_at: float | None, now: float) -> bool:
        """Say whether a key that is not held was removed after this was said of it."""
        gone_at = self.tombstones.get(key.folded())
        if gone_at is None or said_at is None:
            return False
        # One of a time that is still to come was made while our clock was wrong.
        known = now - TOMBSTONE_SECONDS <= gone_at <= now + CLOCK_SKEW_SECONDS
        return known and said_at < gone_at

    def _first_statement(
        self, out: Outcome, source: Source, said: Statement, at: float, now: float
    ) -> Entry:
        """Begin a key; one that only brings reports is ready."""
        status = held_status(1 if said.status is None else said.status)
        item = ListedStatus(said.group, said.identifier, status, is_ready(status), said.details)
        entry = self.appear(out, item, source, at)
        if said.old_status is not None and not is_ready(held_status(said.old_status)):
            self.guess_early(entry)
        if source.polled:
            old_status = held_status(said.old_status or status)
            entry.tally = Tally.of_first(said.way or Way.HTTP, old_status, status, now)
        return entry

    def _live(self, entry: Entry, said: Statement, now: float) -> None:
        if said.ttl_seconds is not None:
            entry.ttl_seconds = said.ttl_seconds
            entry.on_expiry = said.on_expiry
            entry.expired = False
        elif said.status is not None:
            entry.ttl_seconds = None
            entry.expired = False
        if entry.ttl_seconds is None or entry.expired:
            entry.expires_at = None
        else:
            entry.expires_at = now - self.clock_set_by + entry.ttl_seconds
            self.schedule(entry.expires_at, entry)

    def _report(self, entry: Entry, said: Statement, at: float) -> list[Report]:
        """Take the reports of a push. Gives those that are new, as far as they are held."""
        fresh: list[Report] = []
        ring = list(entry.reports)
        for item in said.reports:
            report = item if isinstance(item, Report) else Report(at, item)
            if report not in ring:
                ring.append(report)
                del ring[:-PUSHED_RING]
                entry.reports_total += 1
                fresh.append(report)
        entry.reports = tuple(ring)
        return fresh[-PUSHED_RING:]

    # --- configuration, forgetting, time ---------------------------------------------------

    def leaving(self, configured: Configured) -> list[Source]:
        """Give the sources of which nothing is held any more once this is in force."""
        polled = {source.name for source in configured.sources}
        events = set(configured.event_sources)
        return [
            source
            for source in self.sources.values()
            if source.kind is not Kind.PUSHED and source.name not in polled
            # What was polled of one that only sends events from now on is not known any more, nor
            # that it is down.
            if source.polled or source.name not in events
        ]

    def _configured(self, out: Outcome, configured: Configured, now: float) -> None:
        self.limit_identifiers = configured.limit_identifiers
        self.limit_of_source = configured.limit_of_source
        for source in self.leaving(configured):
            self.remove_source(out, source, now)
        polled = {source.name for source in configured.sources}
        for told in configured.sources:
            source = self.source(told.name)
            if not source.polled:
                source.kind = Kind.POLLED
                source.withheld = True
                source.begun = self.revision
            source.stale_after_seconds = told.stale_after_seconds
            source.transport = told.transport
            source.address = told.address
            out.keep_source(source)
            if source.withheld_from is not None:
                self.schedule(source.withheld_from, source)
        for name in configured.event_sources:
            if name not in polled:
                self._only_events(out, self.source(name))
        self.read_by(out, configured, now)

    def _only_events(self, out: Outcome, source: Source) -> None:
        """Take a source for one that sends events and is not polled."""
        if source.kind is not Kind.EVENT:
            source.kind = Kind.EVENT
            source.heard = bool(source.groups)
        source.transport = "event"
        source.address = ""
        out.keep_source(source)

    def _forget(self, out: Outcome, forget: Forget, now: float) -> None:
        source = self.sources.get(forget.source)
        if source is None:
            return
        if forget.leaves:
            source.begun = _NEVER
        for entry in list(islice(_named(source, forget), forget.most)):
            self.remove(out, entry, now)

    def _tick(self, out: Outcome, now: float) -> None:
        for due_at, what in self._due.take(now - self.clock_set_by, MOST_DUE):
            at = due_at + self.clock_set_by
            if isinstance(what, Source):
                what.withheld = True
            elif isinstance(what, Reported):
                self.end_subject(out, what, at, Ending(End.OUTDATED))
            elif what.on_expiry is OnExpiry.REMOVE:
                self.remove(out, what, at)
            else:
                what.expires_at = None
                what.expired = True
                details = f"expired: nothing heard for {what.ttl_seconds:.15g}s"
                self.set(out, what, -1, False, details, at)
                out.keep(what)


def _named(source: Source, forget: Forget) -> Iterator[Entry]:
    """Give the keys of a source that are to be forgotten."""
    if forget.group is None:
        groups: Iterable[Group] = source.groups.values()
    else:
        group = source.groups.get(fold(forget.group))
        groups = () if group is None else (group,)
    for group in groups:
        if forget.identifier is None:
            yield from group.entries.values()
        elif (entry := group.entries.get(fold(forget.identifier))) is not None:
            yield entry


def _cuts(source: Source, *statuses: int) -> bool:
    """Whether polls of a source cannot show one of these statuses as events do.

    3.3 and 3.4 keep 16 bits of a status, and put all of it in the event (facts on 3.4).
    """
    cuts = source.version.startswith(("3.3.", "3.4."))
    return cuts and any(status not in INT16 for status in statuses)


def _is_late(at: float | None, stated_at: float, now: float) -> bool:
    """Say whether something newer is held. What is of a time to come was said by a wrong clock."""
    return at is not None and at < stated_at <= now + CLOCK_SKEW_SECONDS


def _fault(said: Statement, source: Source | None, now: float) -> str | None:
    """Say why a statement must not be applied; `source` is what is held of its source."""
    if said.at is not None and said.at > now + CLOCK_SKEW_SECONDS:
        ahead = said.at - now
        return f"at: {ahead:.0f} s ahead of this exporter's clock; 60 s are allowed"
    if said.source == OWN_SOURCE and said.origin is not Origin.OWN:
        return f"source: {OWN_SOURCE!r} is the exporter's own"
    if source is None or source.kind is not Kind.POLLED:
        return None
    return _fault_where_polled(said)


def _fault_where_polled(said: Statement) -> str | None:
    if said.old_status is None and said.origin is Origin.PUSH:
        return f"source: {said.source!r} is polled; only SR events (with old_status) are taken"
    if said.ttl_seconds is not None:
        return f"ttl: {said.source!r} is polled, and what is polled does not expire"
    if said.reports:
        # Its rings are counted by overlap; a line put in between would break that.
        return f"reports: {said.source!r} is polled, and so are its reports"
    return None
