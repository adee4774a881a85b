"""What report texts tell: how often each rule fits, and which subjects are called not ready.

Rule 16 binds here. A text is a hint: a subject is held from the text that calls it down until one
calls it up, its source restarts, its table is loaded anew and nothing names it again, it was not
named for long, or its key is forgotten. Who reads the texts is report_rules.py.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sr_exporter.held import Reported
from sr_exporter.ledger import Ledger
from sr_exporter.limits import Limit
from sr_exporter.model import fold
from sr_exporter.outcome import SubjectTurn
from sr_exporter.signals import End, Ending, Meaning, SubjectRecord

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from sr_exporter.held import Entry, Source
    from sr_exporter.model import Configured, Report
    from sr_exporter.outcome import Outcome
    from sr_exporter.signals import ReportReader, Signal

#: What drouting and dispatcher add to an identifier's name for one of its own that tells of its
#: gateways and destinations (facts on OpenSIPS, section 3).
_EVENTS = ";events"

#: A new report, and where.
New = tuple["Entry", "Report"]


class Subjects(Ledger):
    """The part of the state that report texts alter."""

    #: Who reads what is reported; None: nobody.
    reader: ReportReader | None = None
    _limit_subjects = 1_000
    _subject_ttl_seconds = 86_400.0

    def reported(self) -> Iterator[Reported]:
        """Give every subject that is called not ready."""
        for source in self.sources.values():
            yield from source.reported()

    def rules_of(self, entry: Entry) -> Sequence[str]:
        """Give the names of the report rules that may fit texts of a key."""
        if self.reader is None:
            return ()
        group = entry.group
        return self.reader.rules(group.source.name, group.name, entry.identifier)

    def read_entries(self, source: Source) -> Iterator[tuple[Entry, Sequence[str]]]:
        """Give the keys of a source whose texts are read, and the rules of each by name.

        Most groups have many keys and no rules: they cost nothing.
        """
        for group in source.groups.values() if self.reader else ():
            if self.reader and self.reader.reads(source.name, group.name):
                for entry in group.entries.values():
                    yield entry, self.rules_of(entry)

    def read_by(self, out: Outcome, configured: Configured, now: float) -> None:
        """Read by other rules from now on; what a rule said that is there no more is not said."""
        self.reader = configured.reader
        self._limit_subjects = configured.limit_subjects
        self._subject_ttl_seconds = configured.subject_ttl_seconds
        for reported in list(self.reported()):
            record = reported.record
            if record is not None and record.rule not in self.rules_of(reported.entry):
                self.end_subject(out, reported, now, Ending(End.UNREAD))

    def end_subjects(self, out: Outcome, source: Source, at: float) -> None:
        """End all of a source: it restarted, and knows nothing of what it said before."""
        for reported in list(source.reported()):
            self.end_subject(out, reported, at, Ending(End.RESTARTED))

    def heed(self, out: Outcome, reports: Sequence[New], now: float) -> None:
        """Take what new reports of one source say, in their order."""
        if self.reader is None:
            return
        said = [
            (entry, report, signal)
            for entry, report in reports
            for signal in self.reader.read(*entry.key, report.log)
        ]
        named = {
            Reported(entry, signal.subject): place
            for place, (entry, _, signal) in enumerate(said)
            if signal.meaning is Meaning.DOWN and signal.subject is not None
        }
        for place, (entry, report, signal) in enumerate(said):
            entry.matches = {
                **entry.matches,
                signal.rule: entry.matches.get(signal.rule, 0) + 1,
            }
            out.keep(entry)
            if signal.meaning is Meaning.LOADED:
                for reported in _of_table(entry):
                    again = named.get(reported, -1) > place
                    if not again and _is_before(reported, report):
                        self.end_subject(out, reported, now, Ending(End.LOADED))
            elif signal.subject is not None:
                self._turn(out, Reported(entry, signal.subject), report, signal, now)

    def _turn(
        self, out: Outcome, reported: Reported, report: Report, signal: Signal, now: float
    ) -> None:
        entry, subject = reported
        held = reported.record
        if signal.meaning is Meaning.UP:
            if held is not None:
                self.end_subject(out, reported, now, Ending(End.UP, report.log))
            return
        source = entry.group.source
        if held is None and source.subjects >= self._limit_subjects:
            source.subjects_refused_total += 1
            self.turn_away(Limit.SUBJECTS, source.name)
            return
        record = SubjectRecord(
            rule=signal.rule,
            since=min(report.timestamp, now) if held is None else held.since,
            reported_at=report.timestamp,
            ends_at=now + self._subject_ttl_seconds,
            log=report.log,
        )
        entry.subjects = {**entry.subjects, subject: record}
        source.reporting[entry] = None
        self.schedule(record.ends_at - self.clock_set_by, reported)
        if held is None:
            source.subjects += 1
            out.subjects.append(SubjectTurn(now, entry, subject, record))
        else:
            out.named.append(reported)


def in_order(rings: Sequence[tuple[Entry, Sequence[Report]]]) -> list[New]:
    """Give the new reports of several rings by their time; those of one ring stay as they are.

    Within a ring the order is known, and a clock may be set back.
    """
    timed = []
    for entry, reports in rings:
        latest = float("-inf")
        for report in reports:
            latest = max(latest, report.timestamp)
            timed.append((latest, (entry, report)))
    timed.sort(key=lambda one: one[0])
    return [new for _, new in timed]


def _of_table(entry: Entry) -> list[Reported]:
    """Give the subjects that the table of an identifier makes."""
    entries = [entry, entry.group.entries.get(fold(entry.identifier + _EVENTS))]
    return [Reported(one, subject) for one in entries if one for subject in one.subjects]


def _is_before(reported: Reported, report: Report) -> bool:
    """Whether a subject was last named before a report; stamps are of whole seconds."""
    record = reported.record
    return record is not None and record.reported_at < report.timestamp
