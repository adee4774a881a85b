"""What the answers of polled sources alter: snapshots, answers to single questions, failures.

Rules 5, 6, 7, 9, 13 and 16 bind here (state.py has them in words).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sr_exporter.model import ChangeKind, fold, is_another_life
from sr_exporter.rings import continues
from sr_exporter.subjects import Subjects, in_order

if TYPE_CHECKING:
    from sr_exporter.held import Entry, Source
    from sr_exporter.model import Checked, ListedStatus, PollFailed, PollFailure, Report, Snapshot
    from sr_exporter.outcome import Outcome


class Asked(Subjects):
    """The part of the state that asking alters."""

    def snapshot(self, out: Outcome, poll: Snapshot, now: float) -> None:
        source = self.sources.get(poll.source)
        if source is None or not source.polled or poll.as_of < source.begun:
            return  # it left the configuration while the poll was under way, or came back anew
        self._heard(out, source, poll, now)
        listed = self._list(out, source, poll, now)
        self._prune(out, source, poll, listed)
        if poll.uptime_seconds is not None:
            self.settle_guesses(out, source, poll.as_of)
        if source.polls_since_restart == 0:
            self.end_subjects(out, source, poll.requested_at)
        fresh = []
        for item in poll.reports or ():
            held = source.entry(item.group, item.identifier)
            if held is not None:
                fresh.append((held, self._ring(out, source, held, item.reports)))
        self.heed(out, in_order(fresh), now)

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

    def _list(self, out: Outcome, source: Source, poll: Snapshot, now: float) -> set[Entry]:
        """Apply the listed statuses; give the entries that were listed."""
        seen: set[Entry] = set()
        source.refused = 0
        for item in poll.statuses:
            entry = source.entry(item.group, item.identifier)
            if entry is None:
                if self.full():
                    source.refused += 1
                    continue
                entry = self.appear(out, item, source, poll.requested_at)
            elif entry not in seen and entry.touched <= poll.as_of:
                self._polled(out, entry, item, poll.requested_at, now)
                if entry.ttl_seconds is not None:
                    # What is polled does not expire; only a push or event could have said so.
                    entry.ttl_seconds = entry.expires_at = None
                    entry.expired = False
                    out.keep(entry)
            seen.add(entry)
        return seen

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
        source = self.sources.get(checked.source)
        if source is None or not source.polled or checked.as_of < source.begun:
            return
        said = checked.status
        entry = source.entry(said.group, said.identifier)
        if entry is not None and entry.touched <= checked.as_of:
            self._polled(out, entry, said, checked.requested_at, now)
            entry.touched = checked.as_of

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
        held = source.start_time
        if held is not None and not is_another_life(uptime, start, before, held):
            return False
        source.start_time = start
        return held is not None

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
            self.schedule(now + source.stale_after_seconds, source)
        elif source.again_by is not None and now < source.again_by:
            # Sooner than was planned: it sent something, or is polled more often by now.
            source.again_by = now
            out.asked_again.append(source)


def _count(source: Source, reason: PollFailure) -> None:
    source.poll_failures_total[reason] = source.poll_failures_total.get(reason, 0) + 1
