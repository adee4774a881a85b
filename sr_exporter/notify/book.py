"""The levels: which alerts fire now, and which were resolved a short while ago.

Kept up to date from outcomes, so that its cost follows what changed. A level is written to
the store when it changes: after a restart, what fired and no longer should is resolved.
"""

from __future__ import annotations

import heapq
import itertools
import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from sr_exporter.held import Entry, Reported, Source
from sr_exporter.notify import alerts
from sr_exporter.notify.rules import Rules
from sr_exporter.signals import End
from sr_exporter.store.contract import AlertRecord

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from sr_exporter.notify.alerts import Alert, Links, Who
    from sr_exporter.notify.rules import Rule
    from sr_exporter.outcome import Outcome
    from sr_exporter.state import State

#: Of how many it is noted at most that they are to be looked at, where nobody is told: beyond
#: that all that is not ready is looked at.
MOST_NOTED = 20_000
#: For how long a resolved alert is sent again: as Prometheus does.
RESOLVED_SECONDS = 900.0


@dataclass(frozen=True, slots=True)
class Level:
    record: AlertRecord
    #: When it last changed, by its order and by our clock.
    version: int
    changed_at: float


class AlertBook:
    """Knows every level; `refresh` brings it up to date."""

    def __init__(self, state: State, links: Links) -> None:
        self._state = state
        self._links = links
        self._rules = Rules()
        #: Whether anything was looked at by them yet.
        self._ruled = False
        self._firing: dict[Who, str] = {}
        #: By fingerprint, the one that changed last at the end.
        self._levels: dict[str, Level] = {}
        self._pending: dict[Who, None] = {}
        #: What is to be looked at was not looked at each time that it changed.
        self._unwatched = False
        #: Of whom something is said to begin in the future: that, and when it was first looked at.
        self._ahead: dict[Who, tuple[float, float]] = {}
        self._kept: dict[Who, None] = {}  # whose alerts fire on though all is well again
        #: When subjects ended whose alerts fire on.
        self._subject_ended: dict[Who, float] = {}
        #: Subjects that no report rule is for any more, whose alerts are to end.
        self._unread: set[Who] = set()
        #: Which polled sources answer: the alerts of their keys say it too.
        self._up: dict[str, bool] = {}
        #: Since when sources whose alert is kept firing are up again.
        self._up_again: dict[str, float] = {}
        self._due: list[tuple[float, int, Who]] = []
        #: When which resolved level has been told long enough.
        self._ended: list[tuple[float, str]] = []
        #: The earliest of each that is in these heaps: what flaps is in there once.
        self._looked_at: dict[Who, float] = {}
        self._looked_for: dict[str, float] = {}
        self._tie = itertools.count()
        self.version = 0

    def restore(self, records: Iterable[AlertRecord], now: float) -> None:
        """Take up the levels that were given out before.

        `change_rules` follows; then the next `refresh` resolves what ended meanwhile.
        """
        for record in records:
            self._put(record, now)
            if record.resolved_at is None:
                self._firing[alerts.who_of(record)] = record.fingerprint

    def change_rules(self, rules: Rules) -> None:
        """Have the next `refresh` look at everything by these rules, if they are others."""
        if not self._ruled or not rules.say_as(self._rules):
            self.look_at_everything()
        self._rules, self._ruled = rules, True

    def look_at_everything(self) -> None:
        """Have the next `refresh` look at all that fires or might."""
        self._pending[alerts.NOBODY] = None
        self._pending.update(dict.fromkeys(self._firing))
        for entry in self._state.not_ready:
            self._pending[alerts.who_of_key(entry.key)] = None
        for reported in self._state.reported():
            self._pending[reported.who] = None
        for source in self._state.sources.values():
            if source.down_since is not None:
                self._pending[source.name,] = None

    def observe(self, outcome: Outcome, now: float) -> None:
        """Remember whom to look at again."""
        self._note_beginnings(outcome, now)
        for key in (*outcome.entries, *outcome.removed):
            self._pending[alerts.who_of_key(key)] = None
        for turn in outcome.subjects:
            self._pending[turn.who] = None
            if turn.ending is not None and turn.ending.end is End.UNREAD:
                self._unread.add(turn.who)
            else:
                self._unread.discard(turn.who)
        self._pending.update(dict.fromkeys(reported.who for reported in outcome.named))
        for name in (*outcome.sources, *outcome.sources_removed):
            self._pending[name,] = None
        for name, source in outcome.sources.items():
            if source.polled and self._up.get(name) is not source.up:
                self._up[name] = source.up
                for entry in self._state.not_ready:
                    if entry.group.source is source:
                        self._pending[alerts.who_of_key(entry.key)] = None
                self._pending.update(dict.fromkeys(one.who for one in source.reported()))
        for name in outcome.sources_removed:
            self._up.pop(name, None)

    def _note_beginnings(self, outcome: Outcome, now: float) -> None:
        """Have what is told to begin in the future begin now, whenever the next look is."""
        for entry in outcome.entries.values():
            if not entry.ready and entry.ready_changed_at > now:
                self._began(alerts.who_of_key(entry.key), entry.ready_changed_at, now)

    def note(self, outcome: Outcome, now: float) -> bool:
        """Do as `observe` does for who looks now and then only: what ends and begins in between
        is two. Gives False when there is so much that everything is to be looked at.
        """
        self._unwatched = True
        if self._firing or outcome.subjects or outcome.named or outcome.sources_removed:
            self.observe(outcome, now)
        else:
            for entry in outcome.entries.values():
                if not entry.ready:
                    self.observe(outcome, now)
                    break
            for name in outcome.sources:
                self._pending[name,] = None
        if len(self._pending) <= MOST_NOTED:
            return True
        self._pending.clear()
        return False

    @property
    def behind(self) -> int:
        """Give how many the next `refresh` is to look at."""
        return len(self._pending)

    def refresh(self, now: float, most: int | None = None) -> dict[str, AlertRecord | None]:
        """Bring the levels up to date, `most` of them. Gives what changed, for the store."""
        while self._due and self._due[0][0] <= now:
            due, _, who = heapq.heappop(self._due)
            self._pending[who] = None
            if self._looked_at.get(who) == due:
                del self._looked_at[who]
        changed: dict[str, AlertRecord | None] = {}
        for who in list(itertools.islice(self._pending, most)):
            del self._pending[who]
            self._look(who, now, changed)
        if not self._pending:
            self._unwatched = False
        self._forget_resolved(now, changed)
        return changed

    def next_due(self) -> float | None:
        """Give when `refresh` has something to do though nothing is observed."""
        nearest = [heap[0][0] for heap in (self._due, self._ended) if heap]
        return min(nearest, default=None)

    def levels(self) -> list[Level]:
        return list(self._levels.values())

    def changed_after(self, version: int) -> list[Level]:
        """Give the levels that changed after a version of the book."""
        newest = itertools.takewhile(
            lambda level: level.version > version, reversed(self._levels.values())
        )
        return list(newest)[::-1]

    def firing(self) -> Iterator[AlertRecord]:
        for mark in self._firing.values():
            yield self._levels[mark].record

    def kept(self) -> Iterator[AlertRecord]:
        """Give the alerts that a rule keeps firing though all is well again."""
        yield from (record for who in self._kept if (record := self.told(who)) is not None)

    def told(self, who: Who) -> AlertRecord | None:
        """Give the alert of somebody as it was given out, while it fires."""
        mark = self._firing.get(who)
        return None if mark is None else self._levels[mark].record

    def _look(self, who: Who, now: float, changed: dict[str, AlertRecord | None]) -> None:
        mark = self._firing.get(who)
        self._kept.pop(who, None)
        if mark is not None and self._unwatched and self._ended_unseen(who, mark, now):
            del self._firing[who]
            self._change(replace(self._levels[mark].record, resolved_at=now), now, changed)
            mark = None
        wanted = self._wanted(who, now) if who else self._watchdog(now)
        if mark is not None and wanted is None and self._goes_on(who, mark, now):
            self._kept[who] = None
            return
        if mark is not None and (wanted is None or wanted.fingerprint != mark):
            del self._firing[who]
            ended = self._levels[mark].record
            if wanted is not None or self._did_not_recover(who):
                ended = alerts.ended_by_configuration(ended)
            self._change(replace(ended, resolved_at=now), now, changed)
            mark = None
        if wanted is None:
            self._unread.discard(who)
            return
        starts_at = min(wanted.starts_at, now)
        if mark is not None:
            starts_at = min(starts_at, self._levels[mark].record.starts_at)
        record = AlertRecord(
            fingerprint=wanted.fingerprint,
            labels=wanted.labels,
            annotations=wanted.annotations,
            starts_at=starts_at,
            resolved_at=None,
            generator_url=wanted.generator_url,
        )
        held = self._levels.get(record.fingerprint)
        if held is None or held.record != record:
            self._firing[who] = record.fingerprint
            self._change(record, now, changed)

    def _ended_unseen(self, who: Who, mark: str, now: float) -> bool:
        """Whether what fires is so anew: that it ended in between, nobody looked at."""
        found = self._find(who)
        began: float | None = None
        if isinstance(found, Source):
            began, rule = found.down_since, self._rules.for_source(found.name)
        elif isinstance(found, Entry):
            began = None if found.ready else found.ready_changed_at
            rule = self._rules.for_key(found.key, early=found.early)
        elif isinstance(found, Reported):
            began = None if found.record is None else found.record.since
            rule = self._rules.for_key(found.entry.key, early=False)
        if began is None or rule.keep_firing_seconds:
            return False
        return self._levels[mark].record.starts_at < began <= now

    def _watchdog(self, now: float) -> Alert | None:
        return alerts.of_watchdog(self._links, now) if self._rules.watchdog else None

    def _wanted(self, who: Who, now: float) -> Alert | None:
        """Give the alert that should fire for somebody now, if any; note when it will."""
        found = self._find(who)
        if isinstance(found, Source) and found.down_since is not None:
            rule = self._rules.for_source(found.name, found.asked_twice_after)
            began = found.down_since
            self._up_again.pop(found.name, None)
        elif isinstance(found, Entry) and not found.ready:
            rule, began = self._rules.for_key(found.key, early=found.early), found.ready_changed_at
        elif isinstance(found, Reported) and found.record is not None:
            rule, began = self._rules.for_key(found.entry.key, early=False), found.record.since
            self._subject_ended.pop(who, None)
        else:
            self._ahead.pop(who, None)
            return None
        since = self._began(who, began, now)
        if rule.silent:
            return None
        due = since + rule.for_seconds
        if due > now and rule.for_seconds and who not in self._firing:
            if due < self._looked_at.get(who, math.inf):
                self._looked_at[who] = due
                heapq.heappush(self._due, (due, next(self._tie), who))
            return None
        alert = self._alert(found, rule, since)
        told = self.told(who)
        if told is not None and told.fingerprint == alert.fingerprint and told.starts_at < since:
            return self._alert(found, rule, told.starts_at)  # it was kept firing since then
        return alert

    def _alert(self, found: Entry | Reported | Source, rule: Rule, since: float) -> Alert:
        if isinstance(found, Entry):
            return alerts.of_key(found, rule, self._links, since=since)
        if isinstance(found, Reported):
            record = replace(found.entry.subjects[found.subject], since=since)
            return alerts.of_subject(*found, record, rule, self._links)
        return alerts.of_source(
            found.name,
            rule,
            self._links,
            since=since,
            error=found.last_error,
            address=found.address,
        )

    def _goes_on(self, who: Who, mark: str, now: float) -> bool:
        """Whether an alert fires on though all is well again; note until when."""
        found = self._find(who)
        if isinstance(found, Entry) and found.ready:
            rule = self._rules.for_key(found.key, early=found.early)
            goes_on = alerts.of_key(found, rule, self._links).fingerprint
            since = min(found.ready_changed_at, now)
        elif isinstance(found, Source) and found.polled and found.down_since is None:
            rule = self._rules.for_source(found.name)
            alert = alerts.of_source(found.name, rule, self._links, since=now, error=None)
            goes_on = alert.fingerprint
            since = min(self._up_again.setdefault(found.name, now), now)
        elif isinstance(found, Reported):
            rule = self._rules.for_key(found.entry.key, early=False)
            goes_on = alerts.mark_of_subject(*found, rule)
            since = min(self._subject_ended.setdefault(who, now), now)
        else:
            return False
        until = since + rule.keep_firing_seconds
        if rule.silent or until <= now or goes_on != mark:
            if isinstance(found, Source):
                self._up_again.pop(found.name, None)
            self._subject_ended.pop(who, None)
            return False
        heapq.heappush(self._due, (until, next(self._tie), who))
        return True

    def _began(self, who: Who, said: float, now: float) -> float:
        """Give since when it is so. What is said to begin in the future began at first sight.

        Our clock went back, or a pusher's is ahead; the outbox has it so too.
        """
        seen = self._ahead.get(who)
        if seen is not None and seen[0] == said:
            return min(seen[1], now)
        if said <= now:
            self._ahead.pop(who, None)
            return said
        self._ahead[who] = (said, now)
        return now

    def _did_not_recover(self, who: Who) -> bool:
        """Whether what ends an alert is a change of the configuration."""
        if who == alerts.NOBODY:
            return True  # what ends the watchdog is no recovery
        found = self._find(who)
        if len(who) == 1:
            up = isinstance(found, Source) and found.polled and found.down_since is None
            return not up
        if isinstance(found, Reported):
            return found.record is not None or who in self._unread
        return isinstance(found, Entry) and not found.ready

    def _find(self, who: Who) -> Entry | Reported | Source | None:
        source = self._state.sources.get(who[0]) if who else None
        if source is None or len(who) == 1:
            return source
        entry = source.entry(who[1], who[2])
        return entry if entry is None or len(who) == 3 else Reported(entry, who[3])

    def _forget_resolved(self, now: float, changed: dict[str, AlertRecord | None]) -> None:
        while self._ended and self._ended[0][0] <= now:
            ends, mark = heapq.heappop(self._ended)
            if self._looked_for.get(mark) == ends:
                del self._looked_for[mark]
            level = self._levels.get(mark)
            resolved_at = level.record.resolved_at if level else None
            if resolved_at is None:
                continue
            if resolved_at + RESOLVED_SECONDS <= now:
                del self._levels[mark]
                changed[mark] = None
            else:
                self._forget_at(resolved_at + RESOLVED_SECONDS, mark)

    def _change(
        self, record: AlertRecord, now: float, changed: dict[str, AlertRecord | None]
    ) -> None:
        self._put(record, now)
        changed[record.fingerprint] = record

    def _put(self, record: AlertRecord, now: float) -> None:
        self.version += 1
        self._levels.pop(record.fingerprint, None)
        self._levels[record.fingerprint] = Level(record, self.version, now)
        if record.resolved_at is not None:
            self._forget_at(record.resolved_at + RESOLVED_SECONDS, record.fingerprint)

    def _forget_at(self, ends: float, mark: str) -> None:
        """Look at it then, unless that is done earlier: then it is seen what is still ahead."""
        if ends < self._looked_for.get(mark, math.inf):
            self._looked_for[mark] = ends
            heapq.heappush(self._ended, (ends, mark))
