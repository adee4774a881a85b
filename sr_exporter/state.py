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

What was removed is not revived by anything older, also not after a restart: it is remembered when
it was removed, for a day.

Which of two moments is later is told by `revision`, which every `apply` raises, never by a
clock, which may jump.
"""

from __future__ import annotations

import heapq
from typing import TYPE_CHECKING

from sr_exporter.held import Entry, Source
from sr_exporter.ledger import Ledger
from sr_exporter.model import (
    OWN_SOURCE,
    PUSHED_RING,
    TOMBSTONE_SECONDS,
    ChangeKind,
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
    fold,
    held_status,
    is_ready,
)
from sr_exporter.outcome import Outcome
from sr_exporter.rings import continues

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from sr_exporter.model import KeyRecord, Observation, PollFailure, SourceRecord

#: How far a pusher's clock may be ahead of ours.
CLOCK_SKEW_SECONDS = 60.0
#: How far the up time may stray before it is another life (rule 13).
UPTIME_SLACK_SECONDS = 5.0
INT16 = range(-(2**15), 2**15)


class State(Ledger):
    """Everything that is held. `apply` is the only way to change it."""

    def restore(
        self,
        sources: Iterable[SourceRecord],
        keys: Iterable[KeyRecord],
        now: float,
        tombstones: Mapping[Key, float] | None = None,
    ) -> None:
        """Take up what was kept. Times to live start anew at `now`."""
        for record in sources:
            self.sources[record.name] = Source.restored(record)
        for kept in keys:
            source = self.source(kept.key.source)
            group = self.group(source, kept.key.group)
            self.hold(Entry.restored(group, kept, now))
        self.tombstones = {
            key: at
            for key, at in (tombstones or {}).items()
            if at >= now - TOMBSTONE_SECONDS and self.entry(key) is None
        }

    def faults(self, statements: Sequence[Statement], now: float) -> list[tuple[int, str]]:
        """Say which of these statements must not be applied, and why, by their index."""
        found: list[tuple[int, str]] = []
        room = self.limit_identifiers - self.identifiers
        fresh: set[Key] = set()
        for index, said in enumerate(statements):
            if (fault := self._fault(said, now)) is not None:
                found.append((index, fault))
                continue
            key = Key(said.source, said.group, said.identifier).folded()
            if key in fresh or self.entry(key) is not None or self._buried(key, said.at, now):
                continue
            if len(fresh) < room:
                fresh.add(key)
            else:
                found.append((index, f"limits.identifiers ({self.limit_identifiers}) is reached"))
        return found

    def _fault(self, said: Statement, now: float) -> str | None:
        if said.at is not None and said.at > now + CLOCK_SKEW_SECONDS:
            ahead = said.at - now
            return f"at: {ahead:.0f} s ahead of this exporter's clock; 60 s are allowed"
        if said.source == OWN_SOURCE and said.origin is not Origin.OWN:
            return f"source: {OWN_SOURCE!r} is the exporter's own"
        source = self.sources.get(said.source)
        if source is None or not source.polled:
            return None
        if said.old_status is None and said.origin is Origin.PUSH:
            return f"source: {said.source!r} is polled; only SR events (with old_status) are taken"
        if said.reports:
            # Its rings are counted by overlap; a line put in between would break that.
            return f"reports: {said.source!r} is polled, and so are its reports"
        return None

    def apply(self, observation: Observation, now: float) -> Outcome:
        """Apply what was observed; the same observation again alters nothing."""
        self.revision += 1
        outcome = Outcome()
        match observation:
            case Statement():
                self._statement(outcome, observation, now)
            case Snapshot():
                self._snapshot(outcome, observation, now)
            case PollFailed():
                self._poll_failed(outcome, observation, now)
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
        if entry is None and self._buried(key, said.at, now):
            return
        if entry is None and said.origin is not Origin.OWN and self._full():
            return  # an event; a push was refused by `faults`, a poll counts what it leaves out
        source = self.source(said.source)
        at = now if said.at is None else said.at
        if entry is None:
            entry = self._first_statement(out, source, said, at)
            late = False
        else:
            late = said.status is not None and said.at is not None and said.at < entry.stated_at
            if said.status is not None and not late:
                status = held_status(said.status)
                if said.old_status is not None and _missed(entry, said.old_status, status):
                    source.changes_missed_total += 1
                self.set(out, entry, status, is_ready(status), said.details, at)
                entry.stated_at = at
        if not late:
            self._live(entry, said, now)
        entry.touched = self.revision
        self._report(entry, said, at)
        source.last_seen = now
        out.keep(entry)
        out.keep_source(source)

    def _buried(self, key: Key, said_at: float | None, now: float) -> bool:
        """Say whether a key that is not held was removed after this was said of it."""
        gone_at = self.tombstones.get(key.folded())
        if gone_at is None or said_at is None:
            return False
        # One of a time that is still to come was made while our clock was wrong.
        known = now - TOMBSTONE_SECONDS <= gone_at <= now + CLOCK_SKEW_SECONDS
        return known and said_at < gone_at

    def _first_statement(self, out: Outcome, source: Source, said: Statement, at: float) -> Entry:
        """Begin a key; one that only brings reports is ready."""
        status = held_status(1 if said.status is None else said.status)
        item = ListedStatus(said.group, said.identifier, status, is_ready(status), said.details)
        return self.appear(out, item, source, at)

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
            entry.expires_at = now + entry.ttl_seconds
            self.schedule(entry.expires_at, entry)

    def _report(self, entry: Entry, said: Statement, at: float) -> None:
        if not said.reports:
            return
        ring = list(entry.reports)
        for item in said.reports:
            report = item if isinstance(item, Report) else Report(at, item)
            if report not in ring:
                ring.append(report)
                del ring[:-PUSHED_RING]
                entry.reports_total += 1
        entry.reports = tuple(ring)

    def _full(self) -> bool:
        return self.identifiers >= self.limit_identifiers

    # --- polls -----------------------------------------------------------------------------

    def _snapshot(self, out: Outcome, poll: Snapshot, now: float) -> None:
        source = self.sources.get(poll.source)
        if source is None or not source.polled or poll.as_of < source.begun:
            return  # it left the configuration while the poll was under way, or came back anew
        self._heard(out, source, poll, now)
        listed = self._list(out, source, poll)
        self._prune(out, source, poll, listed)
        for item in poll.reports or ():
            held = source.entry(item.group, item.identifier)
            if held is not None:
                self._ring(out, source, held, item.reports)

    def _prune(self, out: Outcome, source: Source, poll: Snapshot, listed: set[Entry]) -> None:
        """Remove what a complete poll does not list, but nothing of a partial group (rule 6)."""
        partial = {fold(name) for name in poll.partial_groups}
        for name in poll.partial_groups:
            self.group(source, name)
        for group in list(source.groups.values()):
            group.complete = poll.complete and fold(group.name) not in partial
            if not group.complete:
                continue
            for entry in list(group.entries.values()):
                if entry not in listed and entry.touched <= poll.as_of:
                    self.remove(out, entry, poll.requested_at)
            if not group.entries:
                source.groups.pop(fold(group.name), None)

    def _list(self, out: Outcome, source: Source, poll: Snapshot) -> set[Entry]:
        """Apply the listed statuses; give the entries that were listed."""
        seen: set[Entry] = set()
        source.refused = 0
        for item in poll.statuses:
            entry = source.entry(item.group, item.identifier)
            if entry is None:
                if self._full():
                    source.refused += 1
                    continue
                entry = self.appear(out, item, source, poll.requested_at)
            elif entry not in seen and entry.touched <= poll.as_of:
                self.set(out, entry, item.status, item.ready, item.details, poll.requested_at)
                if entry.ttl_seconds is not None:
                    # What is polled does not expire; only a push or event could have said so.
                    entry.ttl_seconds = entry.expires_at = None
                    entry.expired = False
                    out.keep(entry)
            seen.add(entry)
        return seen

    def _heard(self, out: Outcome, source: Source, poll: Snapshot, now: float) -> None:
        version = source.version if poll.version is None else poll.version
        start_time = source.start_time
        restarted = self._restarted(source, poll)
        if (
            source.start_time != start_time
            or not source.heard
            or source.down_since is not None
            or poll.faults
            or version != source.version
        ):
            out.keep_source(source)
        source.polls_since_restart = 0 if restarted else source.polls_since_restart + 1
        source.version = version
        source.heard = True
        source.withheld = False
        source.last_seen = now
        if source.down_since is not None:
            since, source.down_since = source.down_since, None
            self.log(out, ChangeKind.SOURCE_UP, poll.requested_at, source, since=since)
        source.last_error = None
        for reason, error in poll.faults:
            _count(source, reason)
            source.last_error = error

    def _restarted(self, source: Source, poll: Snapshot) -> bool:
        """Hold the start time (rule 13); say whether it moved."""
        uptime = poll.uptime_seconds
        if uptime is None:
            return False
        before, source.uptime_seconds = source.uptime_seconds, uptime
        asked_at = poll.requested_at if poll.uptime_asked_at is None else poll.uptime_asked_at
        start = asked_at - uptime
        if source.start_time is not None:
            fell = before is not None and uptime < before
            if not fell and abs(start - source.start_time) <= UPTIME_SLACK_SECONDS:
                return False
        first_sight = source.start_time is None
        source.start_time = start
        return not first_sight

    def _ring(self, out: Outcome, source: Source, entry: Entry, listed: tuple[Report, ...]) -> None:
        # The up time is asked last: a restart between the reports and it shows in the reports
        # of the next poll only.
        restarted = source.polls_since_restart <= 1
        new, overrun = continues(entry.reports, listed, restarted=restarted)
        if overrun:
            source.report_overruns_total += 1
            out.keep_source(source)
        if listed != entry.reports:
            entry.reports = listed
            entry.reports_total += new
            out.keep(entry)

    def _poll_failed(self, out: Outcome, failed: PollFailed, now: float) -> None:
        source = self.sources.get(failed.source)
        if source is None or not source.polled:
            return
        _count(source, failed.reason)
        source.last_error = failed.error
        out.keep_source(source)
        if source.down_since is None:
            source.down_since = now
            self.log(out, ChangeKind.SOURCE_DOWN, now, source, failed.error, since=now)
            self.schedule(now + source.stale_after_seconds, source)

    # --- configuration, forgetting, time ---------------------------------------------------

    def _configured(self, out: Outcome, configured: Configured, now: float) -> None:
        self.limit_identifiers = configured.limit_identifiers
        wanted = {source.name for source in configured.sources}
        for source in list(self.sources.values()):
            if source.polled and source.name not in wanted:
                self.remove_source(out, source, now)
        for polled in configured.sources:
            source = self.source(polled.name)
            if not source.polled:
                source.kind = Kind.POLLED
                source.withheld = True
                source.begun = self.revision
            source.stale_after_seconds = polled.stale_after_seconds
            source.transport = polled.transport
            source.address = polled.address
            out.keep_source(source)
            if source.withheld_from is not None:
                self.schedule(source.withheld_from, source)

    def _forget(self, out: Outcome, forget: Forget, now: float) -> None:
        source = self.sources.get(forget.source)
        if source is None:
            return
        for group in list(source.groups.values()):
            if forget.group is not None and fold(group.name) != fold(forget.group):
                continue
            for entry in list(group.entries.values()):
                if forget.identifier is None or fold(entry.identifier) == fold(forget.identifier):
                    self.remove(out, entry, now)

    def _tick(self, out: Outcome, now: float) -> None:
        while (at := self.next_deadline()) is not None and at <= now:
            what = heapq.heappop(self._due)[2]
            if isinstance(what, Source):
                what.withheld = True
            elif what.on_expiry is OnExpiry.REMOVE:
                self.remove(out, what, at)
            else:
                what.expires_at = None
                what.expired = True
                details = f"expired: nothing heard for {what.ttl_seconds:.15g}s"
                self.set(out, what, -1, False, details, at)
                out.keep(what)


def _count(source: Source, reason: PollFailure) -> None:
    source.poll_failures_total[reason] = source.poll_failures_total.get(reason, 0) + 1


def _missed(entry: Entry, old_status: int, status: int) -> bool:
    """Whether an event from `old_status` to `status` tells of a change never heard (rule 8).

    3.3 and 3.4 keep 16 bits of a status, and put all of it in the event (facts on 3.4).
    """
    if entry.status in (old_status, status):
        return False
    cut = entry.group.source.version.startswith(("3.3.", "3.4."))
    return not (cut and (old_status not in INT16 or status not in INT16))
