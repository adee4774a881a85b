"""The one state: each rule of what an observation alters, by example."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from msgspec.structs import replace

from sr_exporter.model import (
    INT32_MAX,
    INT32_MIN,
    OWN_SOURCE,
    PUSH_SOURCE,
    Change,
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
    from sr_exporter.outcome import Outcome

SIP = "sip-1"
CORE = Key(SIP, "core", "main")
DP = Key(SIP, "dialplan", "main")
JOB = Key(PUSH_SOURCE, "job", "main")


def listed(
    group: str,
    status: int = 1,
    identifier: str = "main",
    *,
    ready: bool | None = None,
    details: str | None = None,
) -> ListedStatus:
    return ListedStatus(group, identifier, status, status > 0 if ready is None else ready, details)


def rings(group: str, *texts: str, identifier: str = "main") -> ListedReports:
    return ListedReports(group, identifier, tuple(Report(1.0, text) for text in texts))


class Polled:
    """A state with one polled source, and a clock that its observations move."""

    def __init__(self, *, limit_identifiers: int = 1000, stale_after_seconds: float = 60.0) -> None:
        self.state = State(limit_identifiers=limit_identifiers)
        self.now = 1000.0
        self.configure(PolledSource(SIP, stale_after_seconds))

    @property
    def source(self):
        return self.state.sources[SIP]

    def entry(self, key: Key = CORE):
        entry = self.state.entry(key)
        assert entry is not None
        return entry

    def configure(self, *sources: PolledSource) -> Outcome:
        configured = Configured(sources, limit_identifiers=self.state.limit_identifiers)
        return self.state.apply(configured, self.now)

    def question(self, *statuses: ListedStatus, **said) -> Snapshot:
        """Send a poll's question now; what it is answered with is applied by `answer`."""
        return Snapshot(
            SIP, as_of=self.state.revision, requested_at=self.now, statuses=statuses, **said
        )

    def answer(self, poll: Snapshot) -> Outcome:
        return self.state.apply(poll, self.now)

    def poll(self, *statuses: ListedStatus, **said) -> Outcome:
        self.now += 10.0
        return self.answer(self.question(*statuses, **said))

    def fail(self, error: str = "no route") -> Outcome:
        self.now += 10.0
        failed = PollFailed(SIP, self.now, PollFailure.CONNECT, error)
        return self.state.apply(failed, self.now)

    def event(
        self, key: Key, old_status: int, status: int, details: str | None = None, **said
    ) -> Outcome:
        statement = Statement(
            *key,
            status=status,
            details=details,
            old_status=old_status,
            origin=Origin.EVENT,
            **said,
        )
        return self.state.apply(statement, self.now)

    def tick(self, seconds: float) -> Outcome:
        self.now += seconds
        return self.state.apply(Tick(), self.now)


def push(state: State, now: float, key: Key = JOB, **said) -> Outcome:
    return state.apply(Statement(*key, **said), now)


def kinds(outcome: Outcome) -> list[ChangeKind]:
    return [change.kind for change in outcome.changes]


def restored(state: State, now: float) -> State:
    """Give the state a process that starts now would make of what was kept of this one."""
    fresh = State(limit_identifiers=state.limit_identifiers, last_seq=state.last_seq)
    fresh.restore(
        [source.record() for source in state.sources.values()],
        [entry.record() for source in state.sources.values() for entry in source.entries()],
        now,
        state.tombstones,
    )
    return fresh


# --- rule 5: late snapshots lose ------------------------------------------------------------


def test_a_poll_does_not_overwrite_what_an_event_said_after_its_question():
    """The answer tells of the moment of its question; the event came later and stands."""
    sip = Polled()
    sip.poll(listed("core"))
    poll = sip.question(listed("core"))
    sip.event(CORE, 1, -1, "loading")
    outcome = sip.answer(poll)
    assert outcome.changes == []
    assert (sip.entry().status, sip.entry().details) == (-1, "loading")


def test_a_poll_does_not_remove_a_key_that_an_event_began_after_its_question():
    """A key unknown at the question is not missing from the answer."""
    sip = Polled()
    sip.poll(listed("core"))
    poll = sip.question(listed("core"))
    sip.event(DP, -2, -1)
    sip.answer(poll)
    assert sip.entry(DP).status == -1


def test_a_poll_does_not_remove_a_key_that_an_event_touched_after_its_question():
    """An event that altered nothing still tells that the key is there."""
    sip = Polled()
    sip.poll(listed("core"), listed("dialplan"))
    poll = sip.question(listed("core"))
    sip.event(DP, 1, 1)
    sip.answer(poll)
    assert sip.entry(DP).status == 1


def test_a_poll_asked_after_the_event_wins():
    """An event that came before the question has no claim on the answer."""
    sip = Polled()
    sip.poll(listed("core"))
    sip.event(CORE, 1, -1)
    sip.event(DP, -1, 1)
    sip.poll(listed("core", 2))
    assert sip.entry().status == 2
    assert sip.state.entry(DP) is None


def test_a_clock_that_jumps_back_does_not_decide_what_is_late():
    """Which of two moments is later is told by their order, not by their times."""
    sip = Polled()
    sip.poll(listed("core"))
    poll = sip.question(listed("core"))
    sip.now -= 500
    sip.event(CORE, 1, -1)
    sip.answer(poll)
    assert sip.entry().status == -1


def test_the_first_of_two_lines_for_one_key_counts():
    """A listing that holds a key twice, in two spellings, makes it one key and one change."""
    sip = Polled()
    outcome = sip.poll(listed("core", 1), listed("CORE", -1))
    assert kinds(outcome) == [ChangeKind.APPEARED]
    assert sip.entry().status == 1


# --- rule 6: a complete snapshot removes ----------------------------------------------------


def test_a_complete_snapshot_removes_what_it_does_not_list():
    """The removed key is gone, series and all, and the journal says from what it went."""
    sip = Polled()
    sip.poll(listed("core"), listed("dialplan", -1))
    outcome = sip.poll(listed("core"))
    assert kinds(outcome) == [ChangeKind.REMOVED]
    (change,) = outcome.changes
    assert (change.group, change.status, change.old_status) == ("dialplan", None, -1)
    assert (change.ready, change.was_ready) == (None, False)
    assert list(outcome.removed) == [DP]
    assert sip.state.entry(DP) is None
    assert "dialplan" not in sip.source.groups
    assert not sip.state.not_ready
    assert sip.state.identifiers == 1


def test_an_empty_complete_snapshot_removes_all_keys_and_not_the_source():
    """A polled source without keys is still a source."""
    sip = Polled()
    sip.poll(listed("core"), listed("dialplan"))
    sip.poll()
    assert sip.state.identifiers == 0
    assert sip.source.up


def test_nothing_of_a_partial_group_is_removed():
    """What could not be read may be there: only the groups that were read lose keys."""
    sip = Polled()
    sip.poll(listed("Reg", identifier="a"), listed("Reg", identifier="b"), listed("core"))
    outcome = sip.poll(listed("Reg", identifier="a"), partial_groups=frozenset({"reg"}))
    assert list(outcome.removed) == [CORE]
    assert sip.state.entry(Key(SIP, "Reg", "b"))
    assert not sip.source.groups["reg"].complete


def test_a_group_is_complete_again_once_all_of_it_was_read():
    """The mark of a partial group lasts until the next whole reading."""
    sip = Polled()
    sip.poll(listed("reg"), partial_groups=frozenset({"reg"}))
    assert not sip.source.groups["reg"].complete
    sip.poll(listed("reg"))
    assert sip.source.groups["reg"].complete


def test_an_incomplete_snapshot_removes_nothing():
    """When whole groups may be missing no key is removed, and what was listed is applied."""
    sip = Polled()
    sip.poll(listed("core"), listed("dialplan"))
    outcome = sip.poll(listed("core", -1), complete=False)
    assert kinds(outcome) == [ChangeKind.STATUS]
    assert sip.state.entry(DP)
    assert not sip.source.groups["dialplan"].complete


def test_a_failed_poll_removes_nothing():
    """A failure says nothing about any key."""
    sip = Polled()
    sip.poll(listed("core"), listed("dialplan"))
    outcome = sip.fail()
    assert not outcome.removed
    assert sip.state.identifiers == 2


def test_a_snapshot_of_a_source_that_left_alters_nothing():
    """A poll may be under way while its source leaves the configuration, or is taken over."""
    sip = Polled()
    poll = sip.question(listed("core"))
    sip.configure()
    outcome = sip.answer(poll)
    assert not outcome.changes
    assert not outcome.sources
    assert SIP not in sip.state.sources
    push(sip.state, sip.now, CORE, status=1)
    assert not sip.answer(poll).changes
    assert not sip.fail().changes


# --- rule 7: down is not removed ------------------------------------------------------------


def test_a_source_that_fails_is_down_at_once_and_says_why():
    """The first failure lowers the source and keeps its keys shown."""
    sip = Polled()
    sip.poll(listed("core"))
    outcome = sip.fail("no route")
    assert kinds(outcome) == [ChangeKind.SOURCE_DOWN]
    (change,) = outcome.changes
    assert (change.details, change.group, change.not_ready_since) == ("no route", None, sip.now)
    assert not sip.source.up
    assert not sip.source.withheld
    assert sip.source.last_error == "no route"
    assert sip.source.poll_failures_total == {PollFailure.CONNECT: 1}


def test_a_further_failure_is_counted_and_is_no_further_change():
    """It is down already; only the count and the last error go on."""
    sip = Polled()
    sip.poll(listed("core"))
    sip.fail()
    outcome = sip.fail("still none")
    assert outcome.changes == []
    assert sip.source.last_error == "still none"
    assert sip.source.poll_failures_total == {PollFailure.CONNECT: 2}


def test_keys_are_withheld_stale_after_the_first_failure():
    """The time runs from the first failed poll, whatever fails after it."""
    sip = Polled(stale_after_seconds=60.0)
    sip.poll(listed("core"))
    sip.fail()
    due = sip.now + 60.0
    assert sip.state.next_deadline() == due
    sip.fail()
    assert sip.state.next_deadline() == due
    sip.tick(49.0)
    assert not sip.source.withheld
    sip.tick(1.0)
    assert sip.source.withheld
    assert sip.entry().status == 1
    assert sip.state.next_deadline() is None


def test_a_good_poll_brings_withheld_keys_back_with_counters_unbroken():
    """What was withheld goes on where it was, and the source is up since this poll."""
    sip = Polled()
    sip.poll(listed("core"), reports=(rings("core", "a"),))
    sip.poll(listed("core", -1), reports=(rings("core", "a", "b"),))
    sip.fail()
    down_at = sip.now
    sip.tick(100.0)
    outcome = sip.poll(listed("core", 1), reports=(rings("core", "a", "b", "c"),))
    assert kinds(outcome) == [ChangeKind.SOURCE_UP, ChangeKind.STATUS]
    assert outcome.changes[0].not_ready_since == down_at
    assert sip.source.up
    assert not sip.source.withheld
    assert sip.source.last_error is None
    assert (sip.entry().changes_total, sip.entry().reports_total) == (2, 3)


def test_a_source_that_came_back_is_not_withheld_by_its_old_failure():
    """The deadline of an outage ends with the outage; the next one has its own."""
    sip = Polled()
    sip.poll(listed("core"))
    sip.fail()
    sip.poll(listed("core"))
    assert sip.state.next_deadline() is None
    sip.tick(60.0)
    assert not sip.source.withheld
    sip.fail()
    assert sip.state.next_deadline() == sip.now + 60.0


def test_a_firing_key_of_a_lost_source_stays_not_ready():
    """Withholding hides series; what alerts is still there."""
    sip = Polled()
    sip.poll(listed("core", -1))
    sip.fail()
    sip.tick(100.0)
    assert [entry.key for entry in sip.state.not_ready] == [CORE]


def test_a_new_stale_after_holds_for_an_outage_that_has_begun():
    """A reload moves the moment at which a source that is down will be withheld."""
    sip = Polled(stale_after_seconds=60.0)
    sip.poll(listed("core"))
    sip.fail()
    sip.configure(PolledSource(SIP, 300.0))
    assert sip.state.next_deadline() == sip.now + 300.0
    sip.tick(60.0)
    assert not sip.source.withheld
    sip.tick(240.0)
    assert sip.source.withheld


def test_lesser_failures_of_a_good_poll_are_counted_each():
    """A poll that got past a failure is good, and does not hide it."""
    sip = Polled()
    sip.poll(
        listed("core"),
        faults=((PollFailure.TIMEOUT, "slow"), (PollFailure.TOO_BIG, "reports")),
    )
    assert sip.source.up
    assert sip.source.last_error == "reports"
    assert sip.source.poll_failures_total == {PollFailure.TIMEOUT: 1, PollFailure.TOO_BIG: 1}


def test_after_our_restart_polled_keys_are_withheld_until_their_source_is_heard():
    """What a polled source said before we stopped may be false by now."""
    sip = Polled()
    sip.poll(listed("core", -1), version="4.0.1")
    sip.poll(listed("core", 1))
    sip.state = restored(sip.state, sip.now)
    sip.configure(PolledSource(SIP, 60.0))
    assert sip.source.withheld
    assert not sip.source.up
    outcome = sip.poll(listed("core", 1))
    assert outcome.changes == []
    assert not sip.source.withheld
    assert sip.source.up
    assert sip.entry().changes_total == 1
    assert sip.source.version == "4.0.1"


def test_after_our_restart_pushed_keys_show_at_once():
    """Nobody could be asked about a pushed key: the last word stands."""
    state = State()
    push(state, 0.0, status=-1)
    state = restored(state, 100.0)
    assert not state.sources[PUSH_SOURCE].withheld
    assert [entry.key for entry in state.not_ready] == [JOB]


def test_an_outage_goes_on_over_our_restart():
    """It is the same outage, so it is not told twice, and ends with the time it began."""
    sip = Polled()
    sip.poll(listed("core"))
    sip.fail()
    since = sip.now
    sip.state = restored(sip.state, sip.now)
    sip.configure(PolledSource(SIP, 60.0))
    assert sip.fail().changes == []
    outcome = sip.poll(listed("core"))
    assert kinds(outcome) == [ChangeKind.SOURCE_UP]
    assert outcome.changes[0].not_ready_since == since


def test_the_store_is_told_what_a_good_poll_altered_of_its_source():
    """A poll that says nothing new costs nothing; a version, an outage's end and a count do."""
    sip = Polled()
    assert SIP in sip.poll(listed("core")).sources
    quiet = sip.poll(listed("core"))
    assert not quiet.sources
    assert not quiet.entries
    assert SIP in sip.poll(listed("core"), version="4.0.1").sources
    assert not sip.poll(listed("core"), version="4.0.1").sources
    assert SIP in sip.poll(listed("core"), faults=((PollFailure.TIMEOUT, "slow"),)).sources
    assert SIP in sip.fail().sources
    assert SIP in sip.poll(listed("core")).sources


# --- rule 8: events are hints ---------------------------------------------------------------


def test_an_event_that_fits_is_no_miss():
    """Its old status is the one held."""
    sip = Polled()
    sip.poll(listed("core", 1))
    sip.event(CORE, 1, 2)
    assert sip.source.changes_missed_total == 0
    assert sip.entry().status == 2


def test_an_event_that_was_foreseen_is_no_miss():
    """A poll may have told already what the event tells."""
    sip = Polled()
    sip.poll(listed("core", 2))
    sip.event(CORE, 1, 2)
    assert sip.source.changes_missed_total == 0


def test_an_event_that_fits_neither_before_nor_after_tells_of_a_miss():
    """Something happened between, which nobody told; the new status is taken all the same."""
    sip = Polled()
    sip.poll(listed("core", 1))
    outcome = sip.event(CORE, -1, 2)
    assert sip.source.changes_missed_total == 1
    assert sip.entry().status == 2
    assert outcome.sources[SIP].changes_missed_total == 1


def test_the_first_event_of_a_key_misses_nothing():
    """Nothing was held that it could contradict."""
    sip = Polled()
    sip.event(CORE, -1, 1)
    assert sip.source.changes_missed_total == 0


@pytest.mark.parametrize(
    ("version", "old_status", "status", "missed"),
    [
        ("3.3.4", 70000, 1, 0),
        ("3.4.0", 5, 2**31 - 1, 0),
        ("3.4.11", -40000, 2, 0),
        ("3.4.11", 32767, 2, 1),
        ("3.4.11", -32768, 2, 1),
        ("3.5.0", 70000, 2, 1),
        ("4.0.1", 70000, 2, 1),
        ("3.40.0", 70000, 2, 1),
    ],
)
def test_statuses_beyond_16_bits_are_no_misses_where_they_are_cut(
    version, old_status, status, missed
):
    """3.3 and 3.4 list 16 bits of a status and put all of it into the event."""
    sip = Polled()
    sip.poll(listed("core", 4464), version=version)
    sip.event(CORE, old_status, status)
    assert sip.source.changes_missed_total == missed


def test_an_event_does_not_bring_a_lost_source_back():
    """Only a good poll makes a polled source up; its other keys are as unknown as before."""
    sip = Polled()
    sip.poll(listed("core"))
    sip.fail()
    sip.tick(60.0)
    sip.event(CORE, 1, -1)
    assert sip.source.withheld
    assert not sip.source.up


# --- rule 9: reports are counted by overlap -------------------------------------------------


def test_at_first_sight_all_reports_count():
    """There is nothing to continue."""
    sip = Polled()
    sip.poll(listed("core"), reports=(rings("core", "a", "b"),))
    assert sip.entry().reports_total == 2
    assert [report.log for report in sip.entry().reports] == ["a", "b"]


def test_a_longer_or_moved_ring_adds_what_follows_the_overlap():
    """The counter goes on by what is new, and the ring held is the one listed."""
    sip = Polled()
    sip.poll(listed("core"), reports=(rings("core", "a", "b"),))
    outcome = sip.poll(listed("core"), reports=(rings("core", "b", "c", "d"),))
    assert sip.entry().reports_total == 4
    assert [report.log for report in sip.entry().reports] == ["b", "c", "d"]
    assert CORE in outcome.entries
    assert sip.source.report_overruns_total == 0


def test_a_ring_that_turned_over_is_an_overrun():
    """At least one turn may have been lost unseen."""
    sip = Polled()
    sip.poll(listed("core"), reports=(rings("core", "a", "b"),), uptime_seconds=100.0)
    outcome = sip.poll(listed("core"), reports=(rings("core", "x", "y"),), uptime_seconds=110.0)
    assert sip.source.report_overruns_total == 1
    assert sip.entry().reports_total == 4
    assert SIP in outcome.sources


@pytest.mark.parametrize("late", [False, True])
def test_a_restart_empties_rings_without_an_overrun(late):
    """The up time is asked last: the emptied ring may show with the restart or a poll later."""
    sip = Polled()
    sip.poll(listed("core"), reports=(rings("core", "a"),), uptime_seconds=1000.0)
    seen = rings("core", "a") if late else rings("core", "x")
    sip.poll(listed("core"), reports=(seen,), uptime_seconds=3.0)
    sip.poll(listed("core"), reports=(rings("core", "x", "y"),), uptime_seconds=13.0)
    assert sip.source.report_overruns_total == 0
    assert sip.entry().reports_total == 3
    sip.poll(listed("core"), reports=(rings("core", "p", "q"),), uptime_seconds=23.0)
    assert sip.source.report_overruns_total == 1


def test_a_restart_while_we_were_away_is_no_overrun():
    """The start time that was kept tells that the source restarted, too."""
    sip = Polled()
    sip.poll(listed("core"), reports=(rings("core", "a"),), uptime_seconds=1000.0)
    sip.state = restored(sip.state, sip.now)
    sip.configure(PolledSource(SIP, 60.0))
    sip.poll(listed("core"), reports=(rings("core", "x", "y"),), uptime_seconds=3.0)
    assert sip.source.report_overruns_total == 0
    assert sip.entry().reports_total == 3


def test_reports_that_could_not_be_had_leave_the_ring_alone():
    """No answer is not an empty ring."""
    sip = Polled()
    sip.poll(listed("core"), reports=(rings("core", "a"),))
    sip.poll(listed("core"), reports=None)
    assert len(sip.entry().reports) == 1
    sip.poll(listed("core"), reports=(rings("core", "a", "b"),))
    assert sip.entry().reports_total == 2


def test_reports_of_a_key_that_is_not_held_are_left_out():
    """A ring belongs to a status; one without is of no key."""
    sip = Polled()
    sip.poll(listed("core"), reports=(rings("nowhere", "a"),))
    assert sip.state.entry(Key(SIP, "nowhere", "main")) is None


# --- rule 10: what is held of foreign values ------------------------------------------------


def test_a_pushed_status_of_zero_is_one():
    """Zero does not exist; OpenSIPS takes it as 1, and so do pushes."""
    state = State()
    push(state, 0.0, status=0)
    entry = state.entry(JOB)
    assert entry is not None
    assert (entry.status, entry.ready) == (1, True)
    assert push(state, 1.0, status=1).changes == []
    assert push(state, 2.0, status=0).changes == []


def test_readiness_is_what_the_source_says():
    """A listed readiness that contradicts the number stands."""
    sip = Polled()
    sip.poll(listed("core", 5, ready=False))
    assert (sip.entry().status, sip.entry().ready) == (5, False)
    outcome = sip.poll(listed("core", 5, ready=True))
    assert kinds(outcome) == [ChangeKind.STATUS]
    assert sip.entry().changes_total == 0
    assert not sip.state.not_ready


@pytest.mark.parametrize("status", [INT32_MIN, -1, 1, INT32_MAX])
def test_any_int32_is_held_as_it_is(status):
    """The edges of the range are statuses like others."""
    state = State()
    push(state, 0.0, status=status)
    entry = state.entry(JOB)
    assert entry is not None
    assert (entry.status, entry.ready) == (status, status > 0)


def test_details_absent_and_details_empty_are_different():
    """Going from one to the other is a change of details."""
    sip = Polled()
    sip.poll(listed("core", details=None))
    outcome = sip.poll(listed("core", details=""))
    assert kinds(outcome) == [ChangeKind.DETAILS]
    assert sip.entry().details == ""
    assert kinds(sip.poll(listed("core", details=None))) == [ChangeKind.DETAILS]


def test_names_match_without_ascii_case_and_show_as_first_spelled():
    """The spelling that made the key stays, in every change it leaves."""
    state = State()
    push(state, 0.0, Key("push", "Gateways", "Main"), status=1)
    outcome = push(state, 1.0, Key("push", "GATEWAYS", "main"), status=-1)
    (change,) = outcome.changes
    assert (change.group, change.identifier) == ("Gateways", "Main")
    assert state.identifiers == 1
    entry = state.entry(Key("push", "gateways", "MAIN"))
    assert entry is not None
    assert entry.key == Key("push", "Gateways", "Main")


def test_a_new_identifier_takes_the_spelling_of_its_group():
    """A group has one name, however its identifiers spell it."""
    state = State()
    push(state, 0.0, Key("push", "Gateways", "a"), status=1)
    push(state, 0.0, Key("push", "gateWAYS", "b"), status=1)
    assert [entry.key.group for entry in state.sources["push"].entries()] == ["Gateways"] * 2


@pytest.mark.parametrize(("one", "other"), [("É", "é"), ("ß", "SS"), ("\u212a", "k")])
def test_only_ascii_case_is_folded(one, other):
    """OpenSIPS compares bytes: letters beyond ASCII differ by their case."""
    state = State()
    push(state, 0.0, Key("push", one, "main"), status=1)
    push(state, 0.0, Key("push", other, "main"), status=1)
    assert state.identifiers == 2


def test_the_case_of_a_source_counts():
    """Sources are ours to name, not OpenSIPS'."""
    state = State()
    push(state, 0.0, Key("A", "g", "main"), status=1)
    push(state, 0.0, Key("a", "g", "main"), status=-1)
    assert list(state.sources) == ["A", "a"]


# --- rule 13: the start of a source ---------------------------------------------------------


def polled_at(sip: Polled, now: float, uptime: float | None) -> float | None:
    sip.now = now - 10.0
    sip.poll(listed("core"), uptime_seconds=uptime)
    return sip.source.start_time


def test_the_start_time_is_held_over_small_differences():
    """An up time of whole seconds, and answers that are slow, make the start stray."""
    sip = Polled()
    assert polled_at(sip, 2000.0, 100.0) == 1900.0
    assert polled_at(sip, 2010.0, 109.0) == 1900.0
    assert polled_at(sip, 2020.0, 125.0) == 1900.0
    assert polled_at(sip, 2030.0, 125.0) == 1900.0
    assert polled_at(sip, 2040.0, None) == 1900.0


def test_the_start_time_moves_when_it_differs_by_more():
    """More than five seconds are another life, or another clock."""
    sip = Polled()
    polled_at(sip, 2000.0, 100.0)
    assert polled_at(sip, 2010.0, 104.9) == pytest.approx(1905.1)


def test_the_start_time_moves_when_the_up_time_falls():
    """A fall is a restart, however small."""
    sip = Polled()
    polled_at(sip, 2000.0, 2.0)
    assert polled_at(sip, 2001.0, 1.0) == 2000.0


def test_the_store_is_told_of_a_start_time():
    """Whenever the start is first known, or moves, it is kept."""
    sip = Polled()
    assert SIP in sip.poll(listed("core")).sources
    assert SIP in sip.poll(listed("core"), uptime_seconds=100.0).sources
    assert SIP not in sip.poll(listed("core"), uptime_seconds=110.0).sources
    assert SIP in sip.poll(listed("core"), uptime_seconds=1.0).sources


# --- the flag of starting -------------------------------------------------------------------


def test_a_polled_key_that_appears_not_ready_is_early():
    """Most of what is not ready at first sight is still starting."""
    sip = Polled()
    sip.poll(listed("core", -1), listed("dialplan", 1))
    assert sip.entry().early
    assert not sip.entry(DP).early


@pytest.mark.parametrize(("uptime", "early"), [(50.0, True), (110.0, True), (111.0, False)])
def test_a_key_that_turns_not_ready_soon_after_a_start_is_early(uptime, early):
    """For two minutes after its source's start "not ready" is part of starting."""
    sip = Polled()
    sip.poll(listed("core"), uptime_seconds=uptime)
    sip.poll(listed("core", -1), uptime_seconds=uptime + 10.0)
    assert sip.entry().early is early


def test_a_key_is_early_no_more_once_it_was_ready():
    """The flag belongs to one time of not being ready, and stays over its changes."""
    sip = Polled()
    sip.poll(listed("core", -1), uptime_seconds=1000.0)
    sip.poll(listed("core", -2), uptime_seconds=1010.0)
    assert sip.entry().early
    sip.poll(listed("core", 1), uptime_seconds=1020.0)
    assert not sip.entry().early
    sip.poll(listed("core", -1), uptime_seconds=1030.0)
    assert not sip.entry().early


def test_a_core_that_shuts_down_is_early():
    """For some milliseconds it says so (facts on OpenSIPS, section 4); its polls tell the rest."""
    sip = Polled()
    sip.poll(listed("core"), listed("dialplan"), uptime_seconds=3600.0)
    sip.poll(listed("core", -2), listed("dialplan", -2), uptime_seconds=3610.0)
    assert sip.entry().early
    assert not sip.entry(DP).early


@pytest.mark.parametrize(("uptime", "early"), [(3.0, True), (3610.0, False), (None, True)])
def test_what_was_not_ready_before_and_nobody_said_so_is_early_until_a_poll_knows(uptime, early):
    """Most likely its source has just started; else an event was lost, and there is no hurry."""
    sip = Polled()
    sip.poll(listed("core"), listed("dialplan"), uptime_seconds=3600.0)
    late = sip.question(listed("core"), listed("dialplan"), uptime_seconds=3600.0)
    sip.event(DP, -2, -1)
    entry = sip.entry(DP)
    assert entry.early
    # What was asked before knows nothing of it.
    assert sip.answer(late).not_starting == []
    assert entry.early
    outcome = sip.poll(listed("core"), listed("dialplan", -1), uptime_seconds=uptime)
    assert entry.early is early
    assert outcome.not_starting == ([entry] if not early else [])
    sip.poll(listed("core"), listed("dialplan", 1), uptime_seconds=uptime)
    assert not entry.early


@pytest.mark.parametrize(("old_status", "status"), [(1, -1), (5, -1), (-2, 1)])
def test_an_event_that_tells_the_turn_itself_is_not_early(old_status, status):
    """Whether it fits or not: it was ready a moment ago, so it was not starting."""
    sip = Polled()
    sip.poll(listed("dialplan"), uptime_seconds=3600.0)
    sip.event(DP, old_status, status)
    assert not sip.entry(DP).early


def test_a_pushed_key_is_never_early():
    """Nobody knows when a pusher started."""
    state = State()
    push(state, 0.0, status=-1)
    entry = state.entry(JOB)
    assert entry is not None
    assert not entry.early


# --- rule 14: pushed state can expire -------------------------------------------------------


def test_past_its_ttl_a_key_is_not_ready():
    """The status turns at the deadline, however late that was looked at."""
    state = State()
    push(state, 100.0, status=5, details="fine", ttl_seconds=90.0)
    assert state.next_deadline() == 190.0
    assert state.apply(Tick(), 189.9).changes == []
    outcome = state.apply(Tick(), 200.0)
    entry = state.entry(JOB)
    assert entry is not None
    assert (entry.status, entry.ready) == (-1, False)
    assert entry.details == "expired: nothing heard for 90s"
    assert kinds(outcome) == [ChangeKind.STATUS]
    assert outcome.changes[0].at == entry.changed_at == 190.0
    assert entry.changes_total == 1
    assert state.next_deadline() is None
    assert state.apply(Tick(), 1000.0).changes == []


@pytest.mark.parametrize(
    ("ttl", "shown"), [(0.5, "0.5s"), (86400.0, "86400s"), (12345678.0, "12345678s")]
)
def test_the_details_of_an_expiry_spell_the_whole_ttl(ttl, shown):
    """However long or short it was."""
    state = State()
    push(state, 0.0, status=1, ttl_seconds=ttl)
    state.apply(Tick(), ttl)
    entry = state.entry(JOB)
    assert entry is not None
    assert entry.details == f"expired: nothing heard for {shown}"


def test_a_key_pushed_to_be_removed_is_removed_past_its_ttl():
    """Its source goes with its last key."""
    state = State()
    push(state, 100.0, status=1, ttl_seconds=90.0, on_expiry=OnExpiry.REMOVE)
    outcome = state.apply(Tick(), 200.0)
    assert [(change.kind, change.at) for change in outcome.changes] == [(ChangeKind.REMOVED, 190.0)]
    assert list(outcome.removed) == [JOB]
    assert list(outcome.sources_removed) == [PUSH_SOURCE]
    assert state.sources == {}


def test_a_push_renews_the_ttl():
    """The time runs from the last push that was heard, even one with reports alone."""
    state = State()
    push(state, 100.0, status=1, ttl_seconds=90.0)
    push(state, 150.0, status=1, ttl_seconds=90.0)
    assert state.next_deadline() == 240.0
    push(state, 200.0, reports=("alive",))
    assert state.next_deadline() == 290.0


def test_a_status_without_ttl_ends_the_ttl():
    """What a push says of a key is all that holds for it."""
    state = State()
    push(state, 100.0, status=1, ttl_seconds=90.0)
    push(state, 150.0, status=1)
    assert state.next_deadline() is None
    assert state.apply(Tick(), 1000.0).changes == []


def test_a_key_that_expired_comes_back_with_the_next_push():
    """And may expire again."""
    state = State()
    push(state, 100.0, status=1, ttl_seconds=90.0)
    state.apply(Tick(), 190.0)
    outcome = push(state, 200.0, status=1, ttl_seconds=90.0)
    assert kinds(outcome) == [ChangeKind.STATUS]
    assert outcome.changes[0].not_ready_since == 190.0
    assert kinds(state.apply(Tick(), 290.0)) == [ChangeKind.STATUS]


def test_the_ttl_starts_anew_after_our_restart():
    """Pushers could not reach us while we were away."""
    state = State()
    push(state, 100.0, status=1, ttl_seconds=90.0)
    state = restored(state, 500.0)
    assert state.next_deadline() == 590.0
    assert kinds(state.apply(Tick(), 590.0)) == [ChangeKind.STATUS]


def test_an_expired_key_stays_so_over_our_restart():
    """Nothing is due for what has expired already."""
    state = State()
    push(state, 100.0, status=1, ttl_seconds=90.0)
    state.apply(Tick(), 190.0)
    state = restored(state, 500.0)
    assert state.next_deadline() is None
    entry = state.entry(JOB)
    assert entry is not None
    assert entry.status == -1


def test_a_key_that_was_removed_does_not_expire():
    """Its deadline goes with it, also when the key is there again without one."""
    state = State()
    push(state, 100.0, status=1, ttl_seconds=90.0)
    state.apply(Forget(PUSH_SOURCE), 110.0)
    push(state, 120.0, status=1)
    assert state.next_deadline() is None
    assert state.apply(Tick(), 1000.0).changes == []


def test_heartbeats_with_a_long_ttl_leave_nothing_behind():
    """A million renewals cost no more than the one deadline that stands."""
    state = State()
    for second in range(10_000):
        push(state, float(second), status=1, ttl_seconds=86400.0)
    assert len(state._due) <= 2048
    assert state.next_deadline() == 9_999 + 86400.0


def test_keys_that_are_removed_leave_no_deadlines_behind():
    """They may be years ahead, and each would keep what it is about in memory."""
    state = State()
    for number in range(5_000):
        push(state, 0.0, Key("push", "job", str(number)), status=1, ttl_seconds=86400.0)
    push(state, 0.0, Key("kept", "job", "main"), status=1, ttl_seconds=60.0)
    state.apply(Forget("push"), 1.0)
    for _ in range(3_000):
        state.next_deadline()
    assert len(state._due) <= 1024


def test_what_is_polled_does_not_expire():
    """A poll that lists a key is a hearing of it: the time to live of a push is over."""
    state = State()
    push(state, 100.0, CORE, status=1, ttl_seconds=90.0)
    sip = Polled()
    sip.state, sip.now = state, 110.0
    sip.configure(PolledSource(SIP, 60.0))
    outcome = sip.poll(listed("core"))
    assert CORE in outcome.entries
    assert sip.entry().record().ttl_seconds is None
    assert state.next_deadline() is None
    assert CORE not in sip.poll(listed("core")).entries


# --- section 6: what counts as a change -----------------------------------------------------


def test_only_a_change_of_the_number_counts():
    """Appearing, other details and other readiness do not."""
    sip = Polled()
    sip.poll(listed("core", 1))
    assert sip.entry().changes_total == 0
    appeared = sip.now
    sip.poll(listed("core", 1, details="data available"))
    sip.poll(listed("core", 1, ready=False))
    assert sip.entry().changes_total == 0
    assert sip.entry().changed_at == appeared
    sip.poll(listed("core", 2))
    assert sip.entry().changes_total == 1
    assert sip.entry().changed_at == sip.now


def test_a_removed_key_that_returns_starts_at_zero():
    """It is a new key, of its own time, and may be spelled anew."""
    sip = Polled()
    sip.poll(listed("Core", 1), reports=(rings("core", "a"),))
    sip.poll(listed("core", 2))
    sip.poll()
    outcome = sip.poll(listed("core", 2))
    assert kinds(outcome) == [ChangeKind.APPEARED]
    assert sip.entry().key == CORE
    assert (sip.entry().changes_total, sip.entry().reports_total) == (0, 0)
    assert sip.entry().changed_at == sip.now


def test_a_change_by_poll_is_of_the_time_of_its_request():
    """The answer tells of the moment it was asked for."""
    sip = Polled()
    poll = sip.question(listed("core", -1))
    asked = sip.now
    sip.now += 7.0
    outcome = sip.answer(poll)
    assert outcome.changes[0].at == sip.entry().changed_at == asked
    assert sip.source.last_seen == sip.now


def test_a_status_change_tells_both_sides():
    """Status and readiness before and after, and since when it was not ready."""
    sip = Polled()
    sip.poll(listed("core", 1))
    down = sip.poll(listed("core", -1, details="loading")).changes[0]
    since = sip.now
    assert down == Change(
        seq=down.seq,
        at=since,
        kind=ChangeKind.STATUS,
        source=SIP,
        group="core",
        identifier="main",
        status=-1,
        old_status=1,
        details="loading",
        ready=False,
        was_ready=True,
        not_ready_since=since,
    )
    worse = sip.poll(listed("core", -2)).changes[0]
    assert (worse.ready, worse.was_ready, worse.not_ready_since) == (False, False, since)
    up = sip.poll(listed("core", 1)).changes[0]
    assert (up.ready, up.was_ready, up.not_ready_since) == (True, False, since)


def test_numbers_of_changes_have_no_gaps():
    """Over every kind of change, and over our restart."""
    sip = Polled()
    numbers = []
    for outcome in [
        sip.poll(listed("core"), listed("dialplan")),
        sip.poll(listed("core", -1), listed("dialplan", details="x")),
        sip.fail(),
        sip.tick(100.0),
        sip.poll(listed("core")),
    ]:
        numbers += [change.seq for change in outcome.changes]
    sip.state = restored(sip.state, sip.now)
    sip.configure(PolledSource(SIP, 60.0))
    numbers += [change.seq for change in sip.poll(listed("core", -1)).changes]
    assert numbers == list(range(1, len(numbers) + 1))
    assert sip.state.last_seq == numbers[-1]


# --- section 5: pushes ----------------------------------------------------------------------


def test_a_push_older_than_what_is_held_is_ignored():
    """Its status, details and time to live belong to the past."""
    state = State()
    push(state, 1000.0, status=1, at=900.0)
    outcome = push(state, 1001.0, status=-1, details="late", at=899.0, ttl_seconds=5.0)
    assert outcome.changes == []
    entry = state.entry(JOB)
    assert entry is not None
    assert (entry.status, entry.details) == (1, None)
    assert state.next_deadline() is None


def test_a_push_as_old_as_what_is_held_is_taken():
    """Of two that are said to be of one moment the later to arrive counts."""
    state = State()
    push(state, 1000.0, status=1, at=900.0)
    push(state, 1001.0, status=-1, at=900.0)
    entry = state.entry(JOB)
    assert entry is not None
    assert (entry.status, entry.changed_at) == (-1, 900.0)


def test_a_push_without_a_time_is_of_its_arrival():
    """So one that arrives later, and is said to be older than that, is ignored."""
    state = State()
    push(state, 1000.0, status=1)
    push(state, 1010.0, status=-1, at=999.0)
    entry = state.entry(JOB)
    assert entry is not None
    assert (entry.status, entry.changed_at) == (1, 1000.0)


def test_an_event_older_than_what_a_poll_altered_is_ignored():
    """What is held was said by the poll: an event of an earlier time has no claim."""
    sip = Polled()
    sip.poll(listed("core", 1))
    sip.poll(listed("core", 2))
    sip.event(CORE, 1, -1, at=sip.now - 5.0)
    assert sip.entry().status == 2
    sip.poll(listed("core", 2, details="newer"))
    sip.event(CORE, 2, -1, at=sip.now - 5.0)
    assert sip.entry().status == 2
    assert sip.source.changes_missed_total == 0


def test_reports_equal_in_time_and_text_are_one_report():
    """A push that is repeated adds nothing; another second, or another text, does."""
    state = State()
    push(state, 0.0, status=1, reports=(Report(5.0, "a"),))
    push(state, 1.0, status=1, reports=(Report(5.0, "a"), Report(6.0, "a"), Report(5.0, "b")))
    entry = state.entry(JOB)
    assert entry is not None
    assert entry.reports_total == 3
    assert entry.reports == (Report(5.0, "a"), Report(6.0, "a"), Report(5.0, "b"))


def test_a_report_without_a_time_is_stamped():
    """With the time of its push, else of its arrival."""
    state = State()
    push(state, 10.0, status=1, reports=("a",))
    push(state, 20.0, status=1, reports=("b",), at=15.0)
    entry = state.entry(JOB)
    assert entry is not None
    assert entry.reports == (Report(10.0, "a"), Report(15.0, "b"))


def test_a_pushed_ring_holds_fifty():
    """The oldest are dropped, and every one is counted."""
    state = State()
    for start in range(0, 60, 20):
        texts = tuple(str(number) for number in range(start, start + 20))
        push(state, float(start), reports=texts)
    entry = state.entry(JOB)
    assert entry is not None
    assert entry.reports_total == 60
    assert [report.log for report in entry.reports] == [str(number) for number in range(10, 60)]


def test_more_reports_than_the_ring_holds_cost_their_number_only():
    """One push of very many reports is counted whole, and the last fifty stay."""
    state = State()
    push(state, 0.0, reports=tuple(str(number) for number in range(20_000)))
    entry = state.entry(JOB)
    assert entry is not None
    assert entry.reports_total == 20_000
    assert [report.log for report in entry.reports] == [str(n) for n in range(19_950, 20_000)]


def test_reports_alone_begin_a_key_that_is_ready():
    """An unknown key of which only reports are known has status 1."""
    state = State()
    outcome = push(state, 0.0, reports=("hello",))
    assert kinds(outcome) == [ChangeKind.APPEARED]
    entry = state.entry(JOB)
    assert entry is not None
    assert (entry.status, entry.ready, entry.reports_total) == (1, True, 1)


def test_reports_alone_leave_status_and_details_as_they_are():
    """A known key only gains reports, and the outcome alters nothing."""
    state = State()
    push(state, 0.0, status=-1, details="broken")
    outcome = push(state, 1.0, reports=("why",))
    assert outcome.changes == []
    assert not outcome.altered()
    entry = state.entry(JOB)
    assert entry is not None
    assert (entry.status, entry.details) == (-1, "broken")
    assert JOB in outcome.entries


def test_a_push_of_a_status_without_details_clears_them():
    """Details belong to the status they came with."""
    state = State()
    push(state, 0.0, status=-1, details="broken")
    outcome = push(state, 1.0, status=-1)
    assert kinds(outcome) == [ChangeKind.DETAILS]
    assert outcome.altered()


# --- idempotence ----------------------------------------------------------------------------


def picture(state: State) -> tuple[object, ...]:
    """Everything that is shown or kept, but for counts of failures and the revision."""
    return (
        state.last_seq,
        [replace(source.record(), poll_failures_total={}) for source in state.sources.values()],
        [(source.up, source.withheld) for source in state.sources.values()],
        [entry.record() for source in state.sources.values() for entry in source.entries()],
        [entry.key for entry in state.not_ready],
        state.next_deadline(),
        dict(state.tombstones),
    )


@pytest.mark.parametrize(
    "observation",
    [
        Statement(*JOB, status=-1, details="x", reports=("a", Report(1.0, "b")), ttl_seconds=5.0),
        Statement(*JOB, reports=("a",)),
        Statement("push", "gone", status=1, at=1.0),
        Statement(*CORE, status=2, old_status=-7, origin=Origin.EVENT),
        Snapshot(
            SIP,
            as_of=10**9,
            requested_at=1005.0,
            statuses=(listed("core", -1), listed("reg", 3, details="d")),
            reports=(rings("core", "x", "y"), rings("reg", "z")),
            uptime_seconds=5.0,
            version="4.0.1",
        ),
        PollFailed(SIP, 1005.0, PollFailure.TIMEOUT, "slow"),
        Forget(PUSH_SOURCE),
        Forget(PUSH_SOURCE, "job", "main"),
        Configured((PolledSource(SIP, 30.0), PolledSource("push", 60.0))),
        Configured(()),
        Tick(),
    ],
    ids=lambda observation: type(observation).__name__,
)
def test_the_same_observation_again_alters_nothing(observation):
    """No change, no count (but for failures), nothing else held: saying it twice is harmless."""
    sip = Polled()
    sip.poll(listed("core"), listed("dialplan"), reports=(rings("core", "a"),))
    push(sip.state, 1010.0, status=1)
    sip.state.apply(observation, 1100.0)
    before = picture(sip.state)
    again = sip.state.apply(observation, 1100.0)
    assert again.changes == []
    assert picture(sip.state) == before


# --- configuration and forgetting -----------------------------------------------------------


def test_a_source_that_left_the_configuration_is_removed():
    """Its keys go, one by one, and then it."""
    sip = Polled()
    sip.poll(listed("core"), listed("dialplan", -1))
    outcome = sip.configure()
    assert kinds(outcome) == [ChangeKind.REMOVED] * 2
    assert list(outcome.sources_removed) == [SIP]
    assert not outcome.sources
    assert sip.state.sources == {}
    assert not sip.state.not_ready
    assert sip.state.identifiers == 0


def test_a_source_that_left_while_it_was_down_ends_its_outage():
    """Whatever alerts on the outage must hear that it is over."""
    sip = Polled()
    sip.poll()
    sip.fail()
    since = sip.now
    outcome = sip.configure()
    (change,) = outcome.changes
    assert (change.kind, change.group, change.not_ready_since) == (ChangeKind.REMOVED, None, since)
    assert sip.state.next_deadline() is None


def test_a_source_that_left_and_returns_starts_anew():
    """Nothing of its earlier life is due, or counted."""
    sip = Polled()
    sip.poll(listed("core"))
    sip.fail()
    sip.configure()
    sip.configure(PolledSource(SIP, 60.0))
    sip.tick(1000.0)
    assert sip.source.poll_failures_total == {}
    assert sip.source.down_since is None


def test_an_answer_of_a_former_life_is_ignored():
    """A reload may take a source out, and another bring it back, while a poll is under way."""
    sip = Polled()
    sip.poll(listed("core"))
    poll = sip.question(listed("core", -1))
    sip.configure()
    sip.configure(PolledSource(SIP, 60.0))
    outcome = sip.answer(poll)
    assert (outcome.changes, outcome.sources) == ([], {})
    assert not sip.source.heard
    assert sip.source.withheld
    sip.poll(listed("core", 2))
    assert sip.entry().status == 2
    assert sip.source.up


def test_an_answer_from_before_a_source_was_taken_over_is_ignored():
    """A pushed source's name may have been polled before."""
    sip = Polled()
    poll = sip.question(listed("core", -1))
    sip.configure()
    push(sip.state, sip.now, CORE, status=1)
    sip.configure(PolledSource(SIP, 60.0))
    assert sip.answer(poll).changes == []
    assert sip.entry().status == 1


def test_a_reload_that_leaves_a_source_does_not_make_its_polls_late():
    """It is the same life: what was asked before still counts."""
    sip = Polled()
    poll = sip.question(listed("core"))
    sip.configure(PolledSource(SIP, 30.0), PolledSource("sip-2", 30.0))
    assert kinds(sip.answer(poll)) == [ChangeKind.APPEARED]


def test_a_polled_source_that_was_kept_answers_after_our_restart():
    """Its life began before ours."""
    sip = Polled()
    sip.poll(listed("core"))
    sip.state = restored(sip.state, sip.now)
    poll = sip.question(listed("core", 2))
    sip.configure(PolledSource(SIP, 60.0))
    assert kinds(sip.answer(poll)) == [ChangeKind.STATUS]


def test_configuring_leaves_other_sources_alone():
    """Pushed sources are nobody's business here, and a source that stays keeps its keys."""
    sip = Polled()
    sip.poll(listed("core"))
    push(sip.state, sip.now, status=1)
    outcome = sip.configure(PolledSource(SIP, 60.0), PolledSource("sip-2", 60.0, "udp"))
    assert outcome.changes == []
    assert set(sip.state.sources) == {SIP, PUSH_SOURCE, "sip-2"}
    assert sip.source.up
    assert sip.state.sources["sip-2"].transport == "udp"


def test_a_pushed_source_that_is_configured_is_taken_over():
    """Its keys are withheld until it is heard, and then they are what the poll lists."""
    sip = Polled()
    sip.configure()
    push(sip.state, sip.now, CORE, status=-1)
    push(sip.state, sip.now, DP, status=1)
    outcome = sip.configure(PolledSource(SIP, 60.0))
    assert outcome.changes == []
    assert sip.source.kind is Kind.POLLED
    assert sip.source.withheld
    assert outcome.sources[SIP].record().kind is Kind.POLLED
    outcome = sip.poll(listed("core", 1))
    assert kinds(outcome) == [ChangeKind.STATUS, ChangeKind.REMOVED]
    assert not sip.source.withheld


@pytest.mark.parametrize(
    ("forget", "left"),
    [
        (Forget("a"), {("b", "g", "x")}),
        (Forget("a", "G"), {("a", "h", "x"), ("b", "g", "x")}),
        (Forget("a", "g", "X"), {("a", "g", "y"), ("a", "h", "x"), ("b", "g", "x")}),
        (Forget("A"), {("a", "g", "x"), ("a", "g", "y"), ("a", "h", "x"), ("b", "g", "x")}),
        (Forget("a", "q"), {("a", "g", "x"), ("a", "g", "y"), ("a", "h", "x"), ("b", "g", "x")}),
    ],
)
def test_forgetting_removes_what_was_named(forget, left):
    """A source, a group or an identifier; matched as keys are."""
    state = State()
    for key in [("a", "g", "x"), ("a", "g", "y"), ("a", "h", "x"), ("b", "g", "x")]:
        push(state, 0.0, Key(*key), status=1)
    outcome = state.apply(forget, 1.0)
    held = {entry.key for source in state.sources.values() for entry in source.entries()}
    assert held == left
    assert len(outcome.removed) == 4 - len(left)
    assert state.identifiers == len(left)
    assert set(state.sources) == {source for source, _, _ in left}


# --- what was removed stays so --------------------------------------------------------------

GONE = Key(PUSH_SOURCE, "Gone", "Main")


def buried(at: float = 1000.0, **said) -> State:
    """Give a state in which a pushed key was removed at this time."""
    state = State()
    push(state, at - 100.0, GONE, status=1, **said)
    state.apply(Forget(PUSH_SOURCE), at)
    return state


@pytest.mark.parametrize(
    "said",
    [
        {"status": -1, "details": "late"},
        {"status": -1, "old_status": 1, "origin": Origin.EVENT},
        {"reports": ("a line",)},
        {"status": 1, "reports": (Report(5000.0, "of later"),), "ttl_seconds": 5.0},
    ],
    ids=["a status", "an event", "reports", "all"],
)
def test_a_removed_key_is_not_revived_by_what_is_older(said):
    """What was true before the removal alters nothing: no key, no source, no report."""
    state = buried()
    late = Key(PUSH_SOURCE, "gone", "MAIN")  # matched as keys are
    assert state.faults([Statement(*late, **said, at=999.0)], 1010.0) == []
    outcome = push(state, 1010.0, late, **said, at=999.0)
    assert not outcome.altered()
    assert (outcome.changes, outcome.entries, outcome.sources) == ([], {}, {})
    assert outcome.tombstones == {}
    assert (state.sources, state.identifiers, state.last_seq) == ({}, 0, 2)
    assert state.next_deadline() is None


@pytest.mark.parametrize("at", [None, 1000.0, 1001.0])
def test_a_removed_key_appears_again_by_what_is_not_older(at):
    """Without a time it is of now; the removal is over then, and its time with it."""
    state = buried()
    outcome = push(state, 1010.0, GONE, status=-1, reports=("a",), at=at)
    assert kinds(outcome) == [ChangeKind.APPEARED]
    assert outcome.tombstones == {GONE.folded(): None}
    assert state.tombstones == {}
    # It is judged by what is held from here on.
    push(state, 1020.0, GONE, status=1, at=1015.0)
    push(state, 1020.0, GONE, status=-1, at=1014.0)
    entry = state.entry(GONE)
    assert entry is not None
    assert entry.status == 1


def test_a_key_that_was_never_held_may_be_of_any_time():
    """Nothing tells of it that what is said is out of date."""
    state = buried()
    outcome = push(state, 1010.0, JOB, status=1, at=5.0)
    assert kinds(outcome) == [ChangeKind.APPEARED]
    assert outcome.tombstones == {}


@pytest.mark.parametrize(
    ("remove", "gone_at"),
    [
        (lambda sip: sip.state.apply(Forget(SIP, "core"), 5000.0), 5000.0),
        (lambda sip: sip.poll(), 1020.0),
        (lambda sip: sip.configure(), 1010.0),
    ],
    ids=["forgotten", "listed no more", "its source left"],
)
def test_every_way_of_removing_is_remembered(remove, gone_at):
    """With its time, in the outcome that removes the key: they are kept together."""
    sip = Polled()
    sip.poll(listed("Core"))
    outcome = remove(sip)
    assert list(outcome.removed) == [Key(SIP, "Core", "main")]
    assert outcome.tombstones == {CORE: gone_at}
    assert sip.state.tombstones == {CORE: gone_at}
    sip.state.apply(Forget(SIP), gone_at)
    sip.state.apply(Configured(()), gone_at)
    assert not push(sip.state, 5000.0, CORE, status=1, at=gone_at - 1.0).altered()
    assert push(sip.state, 5000.0, CORE, status=1, at=gone_at).altered()


def test_an_expiry_that_removes_is_of_its_deadline():
    """However late that was looked at: what was said in between is news."""
    state = State()
    push(state, 100.0, status=1, ttl_seconds=90.0, on_expiry=OnExpiry.REMOVE)
    outcome = state.apply(Tick(), 400.0)
    assert outcome.tombstones == {JOB: 190.0}
    assert not push(state, 401.0, status=1, at=189.0).altered()
    assert push(state, 401.0, status=1, at=191.0).altered()


def test_a_removal_is_not_older_than_what_it_removed():
    """A pusher's clock may be ahead: its last word was of later than our removal."""
    state = State()
    push(state, 1000.0, status=1, at=1050.0)
    state.apply(Forget(PUSH_SOURCE), 1010.0)
    assert state.tombstones == {JOB: 1050.0}
    assert not push(state, 1020.0, status=-1, at=1049.0).altered()
    assert push(state, 1020.0, status=-1, at=1051.0).altered()


def test_a_poll_lists_a_removed_key_anew():
    """What is polled is true now, and ends the memory of the removal."""
    sip = Polled()
    sip.poll(listed("core"))
    sip.poll()
    outcome = sip.poll(listed("core"))
    assert kinds(outcome) == [ChangeKind.APPEARED]
    assert outcome.tombstones == {CORE: None}
    assert sip.state.tombstones == {}


def test_a_key_listed_and_removed_at_once_is_removed():
    """One outcome holds the last word on each key."""
    sip = Polled()
    sip.poll(listed("core"))
    sip.poll()
    sip.poll(listed("core"))
    outcome = sip.poll()
    assert outcome.tombstones == {CORE: sip.now}


def test_removals_are_remembered_for_a_day():
    """Then what is older counts again, as of any key that is not held."""
    state = buried(1000.0)
    late = Statement(*GONE, status=1, at=999.0)
    assert not state.apply(late, 1000.0 + 86_400.0).altered()
    assert state.apply(late, 1000.5 + 86_400.0).altered()


def test_old_removals_take_no_room():
    """They go when others come."""
    state = buried(1000.0)
    push(state, 90_000.0, JOB, status=1)
    state.apply(Forget(PUSH_SOURCE), 90_000.0)
    assert state.tombstones == {JOB: 90_000.0}


def test_so_many_removals_are_remembered(monkeypatch):
    """The oldest are forgotten first, and such as are forgotten at once are not kept either."""
    monkeypatch.setattr("sr_exporter.ledger.TOMBSTONES", 3)
    state = State()
    keys = [Key("push", name, "main") for name in "abcdef"]
    for key in keys[:2]:
        push(state, 0.0, key, status=1)
        state.apply(Forget("push"), 1.0)
    for key in keys[2:]:
        push(state, 2.0, key, status=1)
    outcome = state.apply(Forget("push"), 3.0)
    assert list(state.tombstones) == keys[3:]
    assert outcome.tombstones == dict.fromkeys(keys[3:], 3.0)
    assert len(outcome.removed) == 4
    assert push(state, 4.0, keys[2], status=1, at=2.0).altered()
    assert not push(state, 4.0, keys[3], status=1, at=2.0).altered()


def test_removals_are_remembered_over_our_restart():
    """And are no more than that: what is held, or long ago, is not looked up."""
    state = restored(buried(1000.0), 1010.0)
    assert not push(state, 1020.0, GONE, status=1, at=999.0).altered()
    assert push(state, 1020.0, GONE, status=1, at=1000.0).altered()
    assert restored(buried(1000.0), 90_000.0).tombstones == {}
    held = State()
    push(held, 1000.0, JOB, status=1)
    records = [entry.record() for entry in held.sources["push"].entries()]
    held = State()
    held.restore([], records, 1010.0, {JOB: 1005.0, GONE.folded(): 1005.0})
    assert held.tombstones == {GONE.folded(): 1005.0}


def test_a_removal_that_is_still_to_come_is_not_believed():
    """It was made while our clock was wrong, and would hold off every word until then."""
    state = buried(1e9)
    assert push(state, 1000.0, GONE, status=1, at=999.0).altered()
    assert not push(buried(1000.0), 940.0, GONE, status=1, at=939.0).altered()


def test_what_is_ignored_needs_no_room_under_the_limit():
    """It is no new key, unless the key appears before it in the same push."""
    state = State(limit_identifiers=1)
    push(state, 900.0, GONE, status=1)
    state.apply(Forget(PUSH_SOURCE), 1000.0)
    late = Statement(*GONE, status=1, at=999.0)
    new, gone = Statement(*JOB, status=1), Statement(*GONE, status=1)
    assert faults(state, late, new) == []
    assert faults(state, new, late) == []
    assert faults(state, late, gone, late, new) == [3]
    assert faults(state, new, gone, late) == [1]
    push(state, 1000.0, JOB, status=1)
    assert faults(state, late) == []
    assert faults(state, gone) == [0]


# --- what must not be applied ---------------------------------------------------------------


def faults(state: State, *statements: Statement, now: float = 1000.0) -> list[int]:
    return [index for index, _ in state.faults(statements, now)]


def test_a_time_over_a_minute_ahead_is_a_fault():
    """A clock may be a little fast; more would hold off every later word."""
    state = State()
    fine = Statement(*JOB, status=1, at=1060.0)
    wrong = Statement(*JOB, status=1, at=1060.5)
    assert faults(state, fine, wrong) == [1]


def test_the_exporters_own_source_is_its_own():
    """Neither pushes nor events may speak in its name."""
    state = State()
    own = Statement(OWN_SOURCE, "core", status=1)
    event = replace(own, origin=Origin.EVENT, old_status=1)
    assert faults(state, own, event, replace(own, origin=Origin.OWN)) == [0, 1]


def test_a_polled_source_takes_no_push_but_an_event():
    """What is polled is the truth; an event, which knows the old status, is a hint of it."""
    sip = Polled()
    plain = Statement(*CORE, status=1)
    assert faults(
        sip.state,
        plain,
        replace(plain, old_status=-1),
        replace(plain, origin=Origin.EVENT),
        replace(plain, source="SIP-1"),
    ) == [0]


def test_the_limit_of_identifiers_refuses_new_keys_and_keeps_the_old():
    """Each item that finds no room is named; one that has its room already is not."""
    state = State(limit_identifiers=2)
    push(state, 0.0, Key("push", "old", "main"), status=1)
    names = ["OLD", "a", "b", "A", "b", "old"]
    statements = [Statement("push", name, status=1) for name in names]
    assert faults(state, *statements) == [2, 4]
    assert faults(state, statements[0], statements[1]) == []


def test_a_limit_below_what_is_held_refuses_every_new_key():
    """A reload may lower the limit; what is held stays."""
    state = State(limit_identifiers=2)
    push(state, 0.0, Key("push", "a", "main"), status=1)
    push(state, 0.0, Key("push", "b", "main"), status=1)
    assert not state.apply(Configured((), limit_identifiers=1), 0.0).removed
    a, c = (Statement("push", name, status=-1) for name in "ac")
    assert faults(state, a, c) == [1]
    state.apply(Configured((), limit_identifiers=3), 0.0)
    assert faults(state, a, c) == []


def test_a_poll_holds_what_the_limit_has_room_for():
    """Keys that are held go on; how many found no room is told, anew with each poll."""
    sip = Polled(limit_identifiers=2)
    sip.poll(listed("a"), listed("b"), listed("c"), listed("d"))
    assert sip.state.identifiers == 2
    assert sip.source.refused == 2
    sip.poll(listed("a", -1), listed("b"), listed("c"))
    assert sip.entry(Key(SIP, "a", "main")).status == -1
    assert sip.source.refused == 1
    sip.poll(listed("a"))
    sip.poll(listed("a"), listed("c"))
    assert sip.source.refused == 0
    assert sip.state.identifiers == 2


def test_an_event_does_not_pass_the_limit():
    """A new key is refused whoever tells of it; only the exporter's own always fit."""
    sip = Polled(limit_identifiers=1)
    sip.poll(listed("core"))
    assert sip.event(DP, 1, -1).changes == []
    assert sip.state.identifiers == 1
    assert kinds(sip.event(CORE, 1, -1)) == [ChangeKind.STATUS]
    stranger = Statement("other", "g", status=1, old_status=2, origin=Origin.EVENT)
    sip.state.apply(stranger, sip.now)
    assert "other" not in sip.state.sources
    own = Statement(OWN_SOURCE, "core", status=1, origin=Origin.OWN)
    assert kinds(sip.state.apply(own, sip.now)) == [ChangeKind.APPEARED]


def test_reports_are_not_pushed_into_a_polled_ring():
    """A line between two listings would break the count by overlap."""
    state = State()
    state.apply(Configured((PolledSource("sip", 60.0),)), 0.0)
    event = Statement("sip", "core", status=-1, old_status=1, origin=Origin.EVENT)
    assert state.faults([event], 0.0) == []
    ((index, fault),) = state.faults([replace(event, reports=("line",))], 0.0)
    assert index == 0
    assert "is polled, and so are its reports" in fault


def test_the_up_time_counts_from_when_it_was_asked_for():
    """Listings that take long, or not, do not make the start time move."""
    state = State()
    state.apply(Configured((PolledSource("sip", 60.0),)), 0.0)
    for asked, took, uptime in ((100.0, 3.0, 53.0), (110.0, 0.0, 60.0), (120.9, 0.2, 71.0)):
        poll = Snapshot(
            "sip", state.revision, asked, (), uptime_seconds=uptime, uptime_asked_at=asked + took
        )
        state.apply(poll, asked + took)
        assert state.sources["sip"].start_time == 50.0


def test_when_a_source_was_heard_is_not_kept_of_every_push():
    """Of thousands a second each would be a row; what is kept is a second old at most."""
    state = State()
    kept = []
    for tenth in range(31):
        now = 1000.0 + tenth / 10
        out = state.apply(Statement("push", "job", status=1), now)
        assert state.sources["push"].last_seen == now
        kept += [source.last_seen for source in out.sources.values()]
    assert kept == [1000.0, 1001.0, 1002.0, 1003.0]


def test_a_clock_that_went_back_does_not_hide_when_a_source_was_heard():
    state = State()
    for now in (1000.0, 400.0):
        out = state.apply(Statement("push", "job", status=1), now)
        assert [source.last_seen for source in out.sources.values()] == [now]
