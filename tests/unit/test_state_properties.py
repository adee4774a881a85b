"""The state against a naive model: random observations, and everything compared after each.

The model is written from the rules, in plain dicts, without an index, a heap or a revision:
it looks at everything each time. It shares only the words of `model.py` with the state.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from msgspec.structs import replace

from sr_exporter.model import (
    ChangeKind,
    Configured,
    Forget,
    Key,
    Kind,
    ListedReports,
    ListedStatus,
    OnExpiry,
    Origin,
    PolledSource,
    PollFailed,
    PollFailure,
    Report,
    Snapshot,
    Statement,
    Tick,
)
from sr_exporter.state import State

if TYPE_CHECKING:
    from sr_exporter.model import Change, Observation

LIMIT = 7
STALE_AFTER = 30.0
RING = 50

Folded = tuple[str, str, str]


def folded(source: str, group: str, identifier: str) -> Folded:
    return source, group.lower(), identifier.lower()  # every name here is ASCII


@dataclass
class Held:
    """What the model holds of a key."""

    spelled: Key
    status: int
    ready: bool
    details: str | None
    stated_at: float
    changed_at: float
    order: int
    changes: int = 0
    reports: list[Report] = field(default_factory=list)
    reports_total: int = 0
    ttl: float | None = None
    remove: bool = False
    expires: float | None = None
    #: Polls and events both tell of it: how its changes are counted is test_tally.py's.
    tallied: bool = False


@dataclass
class Origins:
    """What the model holds of a source."""

    polled: bool
    heard: bool = False
    withheld: bool = False
    down_since: float | None = None
    missed: int = 0
    overruns: int = 0
    failures: int = 0
    start: float | None = None
    uptime: float | None = None
    polls_since_restart: int = 1000
    begun: int = 0
    #: Groups that could not be read and of which no key is known, as they are spelled.
    unread: dict[str, str] = field(default_factory=dict)


class Model:
    """The rules, done slowly."""

    def __init__(self) -> None:
        self.keys: dict[Folded, Held] = {}
        self.sources: dict[str, Origins] = {}
        self.graves: dict[Folded, float] = {}
        self.steps = 0

    # the parts of the rules

    def spelling(self, key: Key) -> Key:
        for held in self.keys.values():
            if folded(*held.spelled)[:2] == folded(*key)[:2]:
                return Key(key.source, held.spelled.group, key.identifier)
        source, group, _ = folded(*key)
        unread = self.sources[source].unread if source in self.sources else {}
        return Key(key.source, unread.pop(group, key.group), key.identifier)

    def put(self, key: Key, status: int, ready: bool, details: str | None, at: float) -> Held:
        held = self.keys.get(folded(*key))
        if held is None:
            spelled = self.spelling(key)
            held = Held(spelled, status, ready, details, at, at, self.steps)
            self.keys[folded(*key)] = held
            self.graves.pop(folded(*key), None)
            return held
        if (held.status, held.ready, held.details) != (status, ready, details):
            held.stated_at = max(held.stated_at, at)
        if held.status != status:
            held.changes += 1
            held.changed_at = at
        held.status, held.ready, held.details = status, ready, details
        return held

    def bury(self, key: Folded, at: float) -> None:
        self.graves[key] = max(at, self.keys.pop(key).stated_at)

    def buried(self, said: Statement, now: float) -> bool:
        key = folded(said.source, said.group, said.identifier)
        grave = self.graves.get(key)
        if key in self.keys or grave is None or said.at is None:
            return False
        return said.at < grave and now - 86400 <= grave <= now + 60

    def remove(self, key: Folded, at: float) -> None:
        self.bury(key, at)
        source = self.sources[key[0]]
        if not source.polled and not any(other[0] == key[0] for other in self.keys):
            del self.sources[key[0]]

    def refused(self, said: Statement, now: float) -> bool:
        source = self.sources.get(said.source)
        polled = source is not None and source.polled
        new = folded(said.source, said.group, said.identifier) not in self.keys
        return (
            (said.at is not None and said.at > now + 60)
            or (polled and (said.old_status is None or bool(said.reports)))
            or (polled and said.ttl_seconds is not None)
            or (new and len(self.keys) >= self.limit and not self.buried(said, now))
        )

    # the observations

    def statement(self, said: Statement, now: float) -> None:
        key = Key(said.source, said.group, said.identifier)
        at = now if said.at is None else said.at
        held = self.keys.get(folded(*key))
        if self.buried(said, now) or (held is None and len(self.keys) >= self.limit):
            return
        source = self.sources.setdefault(said.source, Origins(polled=False))
        status = None if said.status is None else said.status or 1
        late = False
        if held is None:
            first = 1 if status is None else status
            held = self.put(key, first, first > 0, said.details, at)
        elif status is not None:
            late = said.at is not None and said.at < held.stated_at
            if not late:
                if said.old_status is not None:
                    # No OpenSIPS holds 0: it is 1.
                    source.missed += held.status not in {status, said.old_status or 1}
                self.put(key, status, status > 0, said.details, at)
                held.stated_at = at
        held.tallied |= source.polled and said.old_status is not None
        if not late:
            if said.ttl_seconds is not None:
                held.ttl, held.remove = said.ttl_seconds, said.on_expiry is OnExpiry.REMOVE
                held.expires = now + said.ttl_seconds
            elif status is not None:
                held.ttl = held.expires = None
            elif held.expires is not None and held.ttl is not None:
                held.expires = now + held.ttl
        held.order = self.steps
        for said_report in said.reports:
            report = said_report if isinstance(said_report, Report) else Report(at, said_report)
            if report not in held.reports:
                held.reports = [*held.reports, report][-RING:]
                held.reports_total += 1

    def snapshot(self, poll: Snapshot, asked_after: int) -> None:
        source = self.sources.get(poll.source)
        if source is None or not source.polled or asked_after < source.begun:
            return
        source.heard, source.withheld, source.down_since = True, False, None
        self.life(source, poll)
        listed: set[Folded] = set()
        for item in poll.statuses:
            key = folded(poll.source, item.group, item.identifier)
            held = self.keys.get(key)
            if key in listed or (held is None and len(self.keys) >= self.limit):
                continue
            listed.add(key)
            if held is None or held.order <= asked_after:
                said = Key(poll.source, item.group, item.identifier)
                order = 0 if held is None else held.order
                held = self.put(said, item.status, item.ready, item.details, poll.requested_at)
                held.ttl = held.expires = None
                held.order = order
        for key, held in list(self.keys.items()):
            if (
                poll.complete
                and key[0] == poll.source
                and key[1] not in poll.partial_groups
                and key not in listed
                and held.order <= asked_after
            ):
                self.remove(key, poll.requested_at)
        if poll.complete:
            source.unread = {
                group: name for group, name in source.unread.items() if group in poll.partial_groups
            }
        for name in poll.partial_groups:
            if not any(key[:2] == (poll.source, name) for key in self.keys):
                source.unread.setdefault(name, name)
        for ring in poll.reports or ():
            held = self.keys.get(folded(poll.source, ring.group, ring.identifier))
            if held is not None:
                self.ring(source, held, list(ring.reports))

    def life(self, source: Origins, poll: Snapshot) -> None:
        source.polls_since_restart += 1
        if poll.uptime_seconds is None:
            return
        start = poll.requested_at - poll.uptime_seconds
        fell = source.uptime is not None and poll.uptime_seconds < source.uptime
        source.uptime = poll.uptime_seconds
        if source.start is None:
            source.start = start
        elif fell or abs(start - source.start) > 5:
            source.start = start
            source.polls_since_restart = 0

    def ring(self, source: Origins, held: Held, reports: list[Report]) -> None:
        before, held.reports = held.reports, reports
        for length in range(min(len(before), len(reports)), 0, -1):
            if before[-length:] == reports[:length]:
                held.reports_total += len(reports) - length
                return
        held.reports_total += len(reports)
        if before and len(reports) >= len(before) and source.polls_since_restart > 1:
            source.overruns += 1

    def failed(self, name: str, now: float) -> None:
        source = self.sources.get(name)
        if source is None or not source.polled:
            return
        source.failures += 1
        if source.down_since is None:
            source.down_since = now

    def configured(self, names: set[str], limit: int, now: float) -> None:
        self.limit = limit
        for key in list(self.keys):
            source = self.sources.get(key[0])
            if source is not None and source.polled and key[0] not in names:
                self.bury(key, now)
        for name, source in list(self.sources.items()):
            if source.polled and name not in names:
                del self.sources[name]
        for name in names:
            source = self.sources.setdefault(name, Origins(polled=False))
            if not source.polled:
                source.polled = source.withheld = True
                source.begun = self.steps

    def forget(self, said: Forget, now: float) -> None:
        for key in list(self.keys):
            if (
                key[0] == said.source
                and said.group in (None, key[1])
                and said.identifier in (None, key[2])
            ):
                self.remove(key, now)

    def tick(self, now: float) -> None:
        for source in self.sources.values():
            if source.down_since is not None and now >= source.down_since + STALE_AFTER:
                source.withheld = True
        for key, held in list(self.keys.items()):
            if held.expires is None or held.expires > now:
                continue
            if held.remove:
                self.remove(key, held.expires)
                continue
            said = f"expired: nothing heard for {held.ttl:g}s"
            self.put(held.spelled, -1, False, said, held.expires)
            held.expires = None

    def restart(self, now: float) -> None:
        for source in self.sources.values():
            source.heard, source.withheld, source.begun = False, source.polled, 0
            source.uptime, source.polls_since_restart = None, 1000
        for held in self.keys.values():
            held.order = 0
            if held.expires is not None and held.ttl is not None:
                held.expires = now + held.ttl


SOURCES = ["s1", "s2"]
sources = st.sampled_from(SOURCES)
groups = st.sampled_from(["g", "G", "h"])
identifiers = st.sampled_from(["main", "Main", "x"])
statuses = st.sampled_from([-2, -1, 0, 1, 2])
details = st.sampled_from([None, "", "a"])
logs = st.lists(st.sampled_from("ab"), max_size=3)


class Comparison(RuleBasedStateMachine):
    """Applies each observation to both, and what an outcome says to a disk and a journal."""

    def __init__(self) -> None:
        super().__init__()
        self.state = State(limit_identifiers=LIMIT)
        self.model = Model()
        self.now = 1000.0
        self.questions: list[tuple[Snapshot, int]] = []
        self.journal: list[Change] = []
        self.kept_keys = {}
        self.kept_sources = {}
        self.kept_tombstones: dict[Key, float] = {}

    def apply(self, observation: Observation) -> None:
        self.model.steps += 1
        outcome = self.state.apply(observation, self.now)
        assert not outcome.entries.keys() & outcome.removed.keys()
        assert not outcome.sources.keys() & outcome.sources_removed.keys()
        for key in outcome.removed:
            self.kept_keys.pop(key.folded(), None)
        for key, entry in outcome.entries.items():
            self.kept_keys[key.folded()] = entry.record()
        for name in outcome.sources_removed:
            self.kept_sources.pop(name, None)
        for name, source in outcome.sources.items():
            self.kept_sources[name] = source.record()
        for key, at in outcome.tombstones.items():
            if at is None:
                del self.kept_tombstones[key]
            else:
                self.kept_tombstones[key] = at
        self.journal += outcome.changes

    @initialize()
    def begin(self) -> None:
        self.counted: dict[Key, int] = {}
        self.configure({"s1"})

    @rule(names=st.sets(sources), limit=st.sampled_from([2, LIMIT, LIMIT + 2]))
    def configure(self, names: set[str], limit: int = LIMIT) -> None:
        polled = tuple(PolledSource(name, STALE_AFTER) for name in sorted(names))
        self.apply(Configured(polled, limit_identifiers=limit))
        self.model.configured(names, limit, self.now)

    @rule(names=st.sets(sources))
    def take_out_and_bring_back(self, names: set[str]) -> None:
        self.configure(set(), self.model.limit)
        self.configure(names, self.model.limit)

    @rule(seconds=st.sampled_from([0.0, 1.0, 7.0, 40.0, 86_400.0]))
    def pass_time(self, seconds: float) -> None:
        self.now += seconds

    @rule()
    def tick(self) -> None:
        self.apply(Tick())
        self.model.tick(self.now)

    @rule(
        said=st.builds(
            Statement,
            source=st.sampled_from([*SOURCES, "push"]),
            group=groups,
            identifier=identifiers,
            status=st.none() | statuses,
            reports=st.lists(
                st.sampled_from("ab") | st.builds(Report, st.just(1.0), st.sampled_from("ab")),
                max_size=2,
            ).map(tuple),
            ttl_seconds=st.none() | st.sampled_from([5.0, 60.0]),
            on_expiry=st.sampled_from(OnExpiry),
            old_status=st.none() | st.sampled_from([-1, 1]),
        ),
        said_details=details,
        ago=st.none() | st.sampled_from([-100.0, -30.0, 0.0, 10.0]),
    )
    def push(self, said: Statement, said_details: str | None, ago: float | None) -> None:
        at = None if ago is None else self.now - ago
        told = None if said.status is None else said_details
        said = replace(said, details=told, at=at)
        refused = self.model.refused(said, self.now)
        assert [index for index, _ in self.state.faults([said], self.now)] == [0] * refused
        if not refused:
            self.apply(said)
            self.model.statement(said, self.now)

    @rule(
        source=sources,
        group=groups,
        identifier=identifiers,
        status=statuses,
        old_status=statuses,
        said_details=details,
    )
    def event(self, source, group, identifier, status, old_status, said_details) -> None:
        said = Statement(
            source,
            group,
            identifier,
            status=status,
            details=said_details,
            old_status=old_status,
            origin=Origin.EVENT,
        )
        self.apply(said)
        self.model.statement(said, self.now)

    @rule(
        source=sources,
        listed=st.lists(
            st.builds(
                ListedStatus,
                groups,
                identifiers,
                st.sampled_from([-1, 1, 2]),
                st.booleans(),
                details,
            ),
            max_size=5,
        ),
        partial=st.sets(st.sampled_from(["g", "h"]), max_size=1),
        complete=st.booleans(),
        rings=st.none() | st.dictionaries(st.tuples(groups, identifiers), logs, max_size=3),
        uptime=st.none() | st.sampled_from([3.0, 500.0]),
    )
    def ask(self, source, listed, partial, complete, rings, uptime) -> None:
        reports = rings and tuple(
            ListedReports(*where, tuple(Report(1.0, log) for log in texts))
            for where, texts in rings.items()
        )
        poll = Snapshot(
            source,
            as_of=self.state.revision,
            requested_at=self.now,
            statuses=tuple(listed),
            partial_groups=frozenset(partial),
            complete=complete,
            reports=reports,
            uptime_seconds=uptime,
        )
        self.questions.append((poll, self.model.steps))

    @precondition(lambda self: self.questions)
    @rule()
    def answer(self) -> None:
        poll, asked_after = self.questions.pop(0)
        self.apply(poll)
        self.model.snapshot(poll, asked_after)

    @rule(source=sources)
    def fail(self, source: str) -> None:
        self.apply(PollFailed(source, self.now, PollFailure.TIMEOUT, "slow"))
        self.model.failed(source, self.now)

    @rule(
        forget=st.builds(
            Forget, st.sampled_from([*SOURCES, "push"]), st.none() | st.sampled_from("gh")
        )
    )
    def forget(self, forget: Forget) -> None:
        self.apply(forget)
        self.model.forget(forget, self.now)

    @rule()
    def restart(self) -> None:
        """Start anew from what the outcomes had kept: nothing else is known then."""
        names = {name for name, source in self.model.sources.items() if source.polled}
        self.state = State(limit_identifiers=LIMIT, last_seq=self.state.last_seq)
        self.state.restore(
            self.kept_sources.values(), self.kept_keys.values(), self.now, self.kept_tombstones
        )
        self.model.restart(self.now)
        self.model.steps = 0
        self.questions.clear()
        self.configure(names, self.model.limit)

    # what must hold after each step

    def entries(self):
        return [entry for source in self.state.sources.values() for entry in source.entries()]

    @invariant()
    def keys_are_those_of_the_model(self) -> None:
        tallied = [
            (entry, held)
            for entry in self.entries()
            if (held := self.model.keys.get(tuple(entry.key.folded()))) and held.tallied
        ]
        for entry, held in tallied:
            assert entry.changes_total >= self.counted.get(entry.key, 0)
            held.changes = entry.changes_total
        self.counted = {entry.key: entry.changes_total for entry, _ in tallied}
        shown = {
            tuple(entry.key.folded()): (
                entry.key,
                entry.status,
                entry.ready,
                entry.details,
                entry.changed_at,
                entry.changes_total,
                list(entry.reports),
                entry.reports_total,
                entry.expires_at,
            )
            for entry in self.entries()
        }
        expected = {
            key: (
                held.spelled,
                held.status,
                held.ready,
                held.details,
                held.changed_at,
                held.changes,
                held.reports,
                held.reports_total,
                held.expires,
            )
            for key, held in self.model.keys.items()
        }
        assert shown == expected

    @invariant()
    def sources_are_those_of_the_model(self) -> None:
        shown = {
            name: (
                source.kind is Kind.POLLED,
                source.up,
                source.withheld,
                source.down_since,
                source.start_time,
                source.changes_missed_total,
                source.report_overruns_total,
                sum(source.poll_failures_total.values()),
            )
            for name, source in self.state.sources.items()
        }
        expected = {
            name: (
                source.polled,
                source.heard and source.down_since is None,
                source.withheld,
                source.down_since,
                source.start,
                source.missed,
                source.overruns,
                source.failures,
            )
            for name, source in self.model.sources.items()
        }
        assert shown == expected

    @invariant()
    def counts_and_indexes_are_those_of_a_recount(self) -> None:
        assert self.state.identifiers == len(self.model.keys)
        for source in self.state.sources.values():
            entries = list(source.entries())
            not_ready = sum(not entry.ready for entry in entries)
            assert (source.identifiers, source.not_ready) == (len(entries), not_ready)
        assert {tuple(entry.key.folded()) for entry in self.state.not_ready} == {
            key for key, held in self.model.keys.items() if not held.ready
        }
        due = [held.expires for held in self.model.keys.values() if held.expires is not None]
        due += [
            source.down_since + STALE_AFTER
            for source in self.model.sources.values()
            if source.down_since is not None and not source.withheld
        ]
        assert self.state.next_deadline() == min(due, default=None)

    @invariant()
    def the_journal_replays_to_what_is_held(self) -> None:
        assert [change.seq for change in self.journal] == list(range(1, len(self.journal) + 1))
        assert self.state.last_seq == len(self.journal)
        replayed: dict[Key, tuple[object, ...]] = {}
        down: set[str] = set()
        for change in self.journal:
            if change.group is None or change.identifier is None:
                known = {ChangeKind.SOURCE_DOWN: down.add}.get(change.kind, down.remove)
                known(change.source)
                continue
            key = Key(change.source, change.group, change.identifier)
            if change.kind is ChangeKind.REMOVED:
                gone = replayed.pop(key)
                assert (change.old_status, change.was_ready) == (gone[0], gone[1])
                continue
            assert (change.kind is ChangeKind.APPEARED) == (key not in replayed)
            if key in replayed:
                before = replayed[key]
                assert (change.old_status, change.was_ready) == before[:2]
                only_details = (change.status, change.ready) == before[:2]
                assert (change.kind is ChangeKind.DETAILS) == only_details
            replayed[key] = (change.status, change.ready, change.details)
        assert replayed == {
            entry.key: (entry.status, entry.ready, entry.details) for entry in self.entries()
        }
        assert down == {
            name for name, source in self.model.sources.items() if source.down_since is not None
        }

    @invariant()
    def what_outcomes_kept_is_what_is_held(self) -> None:
        """Only `last_seen` may lag: a poll that tells nothing new is not worth a commit."""
        assert self.kept_keys == {entry.key.folded(): entry.record() for entry in self.entries()}
        assert {
            name: replace(record, last_seen=None) for name, record in self.kept_sources.items()
        } == {
            name: replace(source.record(), last_seen=None)
            for name, source in self.state.sources.items()
        }
        lately = self.now - 86400
        remembered = {tuple(key): at for key, at in self.state.tombstones.items() if at >= lately}
        assert remembered == {key: at for key, at in self.model.graves.items() if at >= lately}
        assert remembered == {
            tuple(key): at for key, at in self.kept_tombstones.items() if at >= lately
        }

    @invariant()
    def records_make_the_same_state_again(self) -> None:
        again = State(limit_identifiers=LIMIT, last_seq=self.state.last_seq)
        records = [source.record() for source in self.state.sources.values()]
        entries = [entry.record() for entry in self.entries()]
        again.restore(records, entries, self.now, self.kept_tombstones)
        assert [source.record() for source in again.sources.values()] == records
        held = [entry for source in again.sources.values() for entry in source.entries()]
        assert [entry.record() for entry in held] == [entry.record() for entry in self.entries()]
        assert {entry.key for entry in again.not_ready} == {
            entry.key for entry in self.state.not_ready
        }
        assert again.identifiers == self.state.identifiers
        for source in again.sources.values():
            assert source.withheld == source.polled  # no event sources here
            assert not source.up


TestComparison = Comparison.TestCase
TestComparison.settings = settings(max_examples=100, stateful_step_count=40)
