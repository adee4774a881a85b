"""What the answers of polled sources alter: snapshots, answers to single questions, failures.

Rules 5, 6, 7, 9, 13 and 16 bind here (state.py has them in words).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sr_exporter.model import ChangeKind, ListedStatus, fold, is_another_life
from sr_exporter.parts import Part
from sr_exporter.rings import continues
from sr_exporter.subjects import Subjects, in_order

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sr_exporter.held import Entry, Source
    from sr_exporter.known import UnderWay
    from sr_exporter.model import Checked, ListedReports, PollFailed, PollFailure, Report, Snapshot
    from sr_exporter.outcome import Outcome

_NO_ENTRIES: Mapping[str, Entry] = {}
#: How many keys a part of a poll removes at most, and of how many that it looks at: 5 ms, and 20
#: where a webhook is owed the end of an alert on each.
PRUNED, PRUNED_OF = 100, 20_000


class Asked(Subjects):
    """The part of the state that asking alters."""

    def snapshot(self, out: Outcome, poll: Snapshot, now: float) -> None:
        source = self._asked(poll)
        if source is None:
            return
        if Part.BEGINS in poll.part:
            source.known.begin(poll)
            self._began(out, source, poll)
            if poll.part is Part.WHOLE:
                self._answered(out, source, poll, now)
        under_way = source.known.under_way
        if under_way is None:
            return
        self._list(out, source, poll, under_way, now)
        if Part.PRUNES in poll.part:
            self._prune(out, source, poll, under_way, PRUNED)
        if Part.LISTS in poll.part:
            self._listed(out, source, poll, under_way, now)
        if poll.reports:
            self._rings(out, source, poll.reports, under_way)
        if Part.ENDS in poll.part:
            self._ended(out, source, poll, under_way, now)

    def knows_statuses(self, name: str, mark: bytes | None) -> bool:
        """Whether statuses that are marked so need not be read: they stand."""
        source = self.sources.get(name)
        return source is not None and source.known.has_statuses(mark)

    def knows_reports(self, name: str, mark: bytes | None) -> bool:
        """Whether reports that are marked so need not be read: they stand."""
        source = self.sources.get(name)
        return source is not None and source.known.has_reports(mark)

    def held_beside(self, poll: Snapshot) -> int:
        """Count by how many keys more are held of a source than a complete poll lists of it."""
        source = self._asked(poll)
        if source is None or poll.statuses_since is not None or not poll.complete:
            return 0
        return max(0, source.identifiers - len(poll.statuses))

    def prunes(self, poll: Snapshot) -> bool:
        """Whether anything is left to be removed by a poll whose statuses are all applied."""
        source = self._asked(poll)
        if source is None or source.known.under_way is None or poll.statuses_since is not None:
            return False
        unchecked = source.known.under_way.unchecked
        return unchecked is None or bool(unchecked)

    def _asked(self, answer: Snapshot | Checked) -> Source | None:
        """Give the source an answer is of.

        None: it left the configuration while it was asked, or came back anew.
        """
        source = self.sources.get(answer.source)
        if source is None or not source.polled or answer.as_of < source.begun:
            return None
        return source

    def _listed(
        self, out: Outcome, source: Source, poll: Snapshot, under_way: UnderWay, now: float
    ) -> None:
        """Do what is to be done once all statuses are known."""
        known = source.known
        if poll.statuses_since is None:
            self._prune(out, source, poll, under_way)
            self._end_groups(source, poll)
            complete = poll.complete and not poll.partial_groups
            mark = poll.statuses_mark if complete else None
            known.keep_statuses(mark, poll.as_of, self.revision)
        elif known.has_base():
            for entry in known.open:
                if entry not in under_way.seen:
                    self._polled(out, entry, _as_held(entry), poll.requested_at, now)
                    if entry.tally is not None:
                        under_way.open.append(entry)
            known.keep_statuses(poll.statuses_mark, poll.as_of, self.revision)
        # Else something spoke of a key meanwhile: all of the next is read.
        if poll.uptime_seconds is not None:
            self.settle_guesses(out, source, poll.as_of)
        if source.polls_since_restart == 0:
            self.end_subjects(out, source, poll.requested_at)
        if poll.part is not Part.WHOLE:
            self._answered(out, source, poll, now)

    def _ended(
        self, out: Outcome, source: Source, poll: Snapshot, under_way: UnderWay, now: float
    ) -> None:
        known = source.known
        self.heed(out, in_order(under_way.fresh), now)
        if not poll.reports_stand:
            known.keep_reports(poll.reports_mark, poll.as_of, self.revision)
        elif not known.has_reports(poll.reports_mark):
            known.forget_reports()
        known.under_way = None

    def _prune(
        self,
        out: Outcome,
        source: Source,
        poll: Snapshot,
        under_way: UnderWay,
        most: int | None = None,
    ) -> None:
        """Remove what a complete poll does not list, but nothing of a partial group (rule 6).

        At most so much of it; None: all.
        """
        if under_way.unchecked is None:
            under_way.unchecked = _of_complete_groups(source, poll)
        unchecked, seen = under_way.unchecked, under_way.seen
        left = len(unchecked) if most is None else min(len(unchecked), PRUNED_OF)
        removed = 0
        while left and removed != most:
            left -= 1
            entry = unchecked.pop()
            if entry not in seen and entry.touched <= poll.as_of and _is_held(entry):
                self.remove(out, entry, poll.requested_at)
                removed += 1

    def _end_groups(self, source: Source, poll: Snapshot) -> None:
        """Say which groups are complete; of those, the ones without keys are held no more."""
        partial = {fold(name) for name in poll.partial_groups}
        for name in poll.partial_groups:
            self.group(source, name)
        for group in list(source.groups.values()):
            group.complete = poll.complete and fold(group.name) not in partial
            if group.complete and not group.entries:
                del source.groups[fold(group.name)]

    def _list(
        self, out: Outcome, source: Source, poll: Snapshot, under_way: UnderWay, now: float
    ) -> None:
        """Apply the listed statuses."""
        seen = under_way.seen
        under_way.listed += len(poll.statuses)
        as_of, requested_at = poll.as_of, poll.requested_at
        name, entries = None, _NO_ENTRIES
        for item in poll.statuses:
            if item.group != name:
                name = item.group
                group = source.groups.get(fold(name))
                entries = _NO_ENTRIES if group is None else group.entries
            said = item.identifier
            # What is spelled in lower case is its own folded name: most of what is listed.
            entry = entries.get(said) or entries.get(fold(said))
            if entry is None:
                if self.full(source.name, source):
                    source.refused += 1
                    continue
                entry = self.appear(out, item, source, requested_at)
                entries = entry.group.entries
            elif (
                entry.status == item.status
                and entry.ready == item.ready
                and entry.details == item.details
                and entry.tally is None
                and entry.ttl_seconds is None
            ):
                pass
            elif entry not in seen and entry.touched <= as_of:
                self._polled(out, entry, item, requested_at, now)
                if entry.ttl_seconds is not None:
                    # What is polled does not expire; only a push or event could have said so.
                    entry.ttl_seconds = entry.expires_at = None
                    entry.expired = False
                    out.keep(entry)
                if entry.tally is not None:
                    under_way.open.append(entry)
            seen.add(entry)

    def _polled(
        self, out: Outcome, entry: Entry, item: ListedStatus, requested_at: float, now: float
    ) -> None:
        """Take a status that was asked for after everything that was heard of it."""
        before = entry.changes_total
        self._settle(entry, now)
        if entry.tally is not None or item.status != entry.status:
            tally = self._tally(entry)
            tally.poll(item.status, requested_at)
            entry.changes_total = tally.total
        if entry.changes_total != before:
            out.keep(entry)
        self.set(out, entry, item.status, item.ready, item.details, requested_at, counts=False)

    def checked(self, out: Outcome, checked: Checked, now: float) -> None:
        source = self._asked(checked)
        if source is None:
            return
        said = checked.status
        entry = source.entry(said.group, said.identifier)
        if entry is not None and entry.touched <= checked.as_of:
            self._polled(out, entry, said, checked.requested_at, now)
            entry.touched = checked.as_of
            source.known.stirred = self.revision

    def _began(self, out: Outcome, source: Source, poll: Snapshot) -> None:
        """Take what a poll tells of the source itself, before its keys."""
        version = source.version if poll.version is None else poll.version
        start_time = source.start_time
        restarted = self._restarted(source, poll)
        if source.start_time != start_time or poll.faults or version != source.version:
            out.keep_source(source)
        source.polls_since_restart = 0 if restarted else source.polls_since_restart + 1
        source.version = version
        source.refused = 0
        source.last_error = None
        for reason, error in poll.faults:
            _count(source, reason)
            source.last_error = error

    def _answered(self, out: Outcome, source: Source, poll: Snapshot, now: float) -> None:
        """Take the source for up. Its keys are shown from now on, so they must be known."""
        if not source.heard or source.down_since is not None:
            out.keep_source(source)
        source.heard = True
        source.withheld = False
        source.last_seen = now
        if source.down_since is not None:
            since, source.down_since = source.down_since, None
            self.log(out, ChangeKind.SOURCE_UP, poll.requested_at, source, since=since)

    def _restarted(self, source: Source, poll: Snapshot) -> bool:
        """Hold the start time (rule 13); say whether it moved."""
        uptime = poll.uptime_seconds
        if uptime is None or poll.as_of < self.clock_set_at:
            return False  # or it was asked by a clock that was set since
        before, source.uptime_seconds = source.uptime_seconds, uptime
        asked_at = poll.requested_at if poll.uptime_asked_at is None else poll.uptime_asked_at
        start = asked_at - uptime
        held = source.start_time
        if held is not None and not is_another_life(uptime, start, before, held):
            return False
        source.start_time = start
        return held is not None

    def _rings(
        self,
        out: Outcome,
        source: Source,
        reports: tuple[ListedReports, ...],
        under_way: UnderWay,
    ) -> None:
        under_way.rings_listed += len(reports)
        for item in reports:
            held = source.entry(item.group, item.identifier)
            if held is not None:
                under_way.rings.add(held)
                new = self._ring(out, source, held, item.reports)
                if new and self.reader and self.reader.reads(source.name, item.group):
                    under_way.fresh.append((held, new))

    def _ring(
        self, out: Outcome, source: Source, entry: Entry, listed: tuple[Report, ...]
    ) -> tuple[Report, ...]:
        """Take a ring as it is listed. Gives what is new in it."""
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
        return listed[len(listed) - new :]

    def poll_failed(self, out: Outcome, failed: PollFailed, now: float) -> None:
        source = self.sources.get(failed.source)
        if source is None or not source.polled:
            return
        _count(source, failed.reason)
        source.last_error = failed.error
        out.keep_source(source)
        if source.down_since is None:
            source.down_since = now
            source.again_by = failed.again_by
            self.log(out, ChangeKind.SOURCE_DOWN, now, source, failed.error, since=now)
            source.clock_set_by = self.clock_set_by
            self.schedule(now - self.clock_set_by + source.stale_after_seconds, source)
        elif source.again_by is not None and now < source.again_by:
            # Sooner than was planned: it sent something, or is polled more often by now.
            source.again_by = now
            out.asked_again.append(source)


def _of_complete_groups(source: Source, poll: Snapshot) -> list[Entry]:
    """Give all that is held of the groups that a poll lists whole, the last first."""
    partial = {fold(name) for name in poll.partial_groups}
    found: list[Entry] = []
    for group in source.groups.values() if poll.complete else ():
        if fold(group.name) not in partial:
            found += group.entries.values()
    found.reverse()
    return found


def _is_held(entry: Entry) -> bool:
    return entry.group.entries.get(fold(entry.identifier)) is entry


def _as_held(entry: Entry) -> ListedStatus:
    """Give what a listing says of an entry that it does not alter."""
    return ListedStatus(
        entry.group.name, entry.identifier, entry.status, entry.ready, entry.details
    )


def _count(source: Source, reason: PollFailure) -> None:
    source.poll_failures_total[reason] = source.poll_failures_total.get(reason, 0) + 1
