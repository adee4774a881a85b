"""The levels: what fires now, since when, and what was resolved a short while ago."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sr_exporter.config.values import AlertRule
from sr_exporter.model import (
    Configured,
    Forget,
    ListedReports,
    ListedStatus,
    PolledSource,
    PollFailed,
    PollFailure,
    Report,
    Snapshot,
    Statement,
)
from sr_exporter.notify.alerts import SOURCE_DOWN, Links
from sr_exporter.notify.book import RESOLVED_SECONDS, AlertBook
from sr_exporter.notify.rules import Rules
from sr_exporter.notify.wording import ENDED
from sr_exporter.state import State

if TYPE_CHECKING:
    from sr_exporter.model import Observation
    from sr_exporter.store.contract import AlertRecord

LINKS = Links("http://sr")
START = 1000.0


class Bench:
    """A state and its book, with what the store would hold of its levels."""

    def __init__(self) -> None:
        self.now = START
        self.state = State()
        self.book = AlertBook(self.state, LINKS)
        self.kept: dict[str, AlertRecord] = {}
        self.rules = Rules()

    def see(self, observation: Observation) -> dict[str, AlertRecord | None]:
        self.book.observe(self.state.apply(observation, self.now), self.now)
        return self.refresh()

    def refresh(self) -> dict[str, AlertRecord | None]:
        changed = self.book.refresh(self.now)
        for mark, record in changed.items():
            if record is None:
                del self.kept[mark]
            else:
                self.kept[mark] = record
        return changed

    def push(
        self, status: int | None, group: str = "g", **fields: object
    ) -> dict[str, AlertRecord | None]:
        return self.see(Statement("push", group, status=status, **fields))  # type: ignore[arg-type]

    def configure(self) -> None:
        self.see(Configured((PolledSource("sip-1", 60.0),)))

    def poll(self, *listed: tuple[str, int], reports: tuple[str, ...] = ()) -> None:
        statuses = tuple(ListedStatus(group, "main", n, n > 0, None) for group, n in listed)
        lines = tuple(Report(START, line) for line in reports)
        rings = tuple(ListedReports(group, "main", lines) for group, _ in listed)
        self.see(Snapshot("sip-1", self.state.revision, self.now, statuses, reports=rings))

    def fail(self, error: str = "connection refused") -> None:
        self.see(PollFailed("sip-1", self.now, PollFailure.CONNECT, error))

    def later(self, seconds: float) -> dict[str, AlertRecord | None]:
        self.now += seconds
        return self.refresh()

    def firing(self) -> list[str]:
        """Give the groups (or the sources) whose alerts fire."""
        return [_about(record) for record in self.book.firing()]

    def restart(self) -> None:
        """Begin anew with what is kept."""
        old = self.state
        self.state = State(last_seq=old.last_seq)
        self.state.restore(
            [source.record() for source in old.sources.values()],
            [entry.record() for source in old.sources.values() for entry in source.entries()],
            self.now,
        )
        self.book = AlertBook(self.state, LINKS)
        self.book.restore(list(self.kept.values()), self.now)
        self.book.change_rules(self.rules)

    def reload(self, *rules: AlertRule) -> dict[str, AlertRecord | None]:
        self.rules = Rules(rules)
        self.book.change_rules(self.rules)
        return self.refresh()


def _about(record: AlertRecord) -> str:
    return record.labels.get("group", record.labels["source"])


def only(bench: Bench) -> AlertRecord:
    (level,) = bench.book.levels()
    return level.record


# --- beginning and end -----------------------------------------------------------------------


def test_an_alert_begins_and_ends_with_readiness():
    """It fires from the change on, and its end is the moment it was seen."""
    b = Bench()
    assert b.push(1) == {}
    b.later(5)
    (record,) = b.push(-1).values()
    assert record
    assert (record.starts_at, record.resolved_at) == (1005.0, None)
    assert b.firing() == ["g"]
    b.later(5)
    (ended,) = b.push(1).values()
    assert ended
    assert ended.fingerprint == record.fingerprint
    assert (ended.starts_at, ended.resolved_at) == (1005.0, 1010.0)
    assert b.firing() == []


def test_the_same_again_changes_nothing():
    """Cost follows what changed."""
    b = Bench()
    b.push(-1)
    version = b.book.version
    assert b.push(-1) == {}
    assert b.refresh() == {}
    assert b.book.version == version


def test_an_alert_fires_after_its_for():
    """A registrant has 30 s; the start is that of the change all the same."""
    b = Bench()
    b.push(-1, group="uac_registrant")
    assert b.book.next_due() == START + 30
    b.later(29.9)
    assert b.book.levels() == []
    b.later(0.1)
    assert b.firing() == ["uac_registrant"]
    assert only(b).starts_at == START


def test_what_is_well_within_its_for_never_fires():
    """Every routine re-registration passes through -1."""
    b = Bench()
    for _ in range(10):
        b.push(-1, group="uac_registrant")
        b.later(29)
        b.push(1, group="uac_registrant")
        b.later(5)
    assert (b.book.version, b.book.levels()) == (0, [])


def test_a_change_of_number_within_the_for_does_not_begin_it_anew():
    """What counts is since when it is not ready."""
    b = Bench()
    b.push(-1, group="uac_registrant")
    b.later(20)
    b.push(-2, group="uac_registrant")
    b.later(10)
    assert b.firing() == ["uac_registrant"]


def test_a_removal_resolves():
    """A key that is forgotten has no alert any more."""
    b = Bench()
    b.push(-1)
    b.later(7)
    b.see(Forget("push"))
    assert (b.firing(), only(b).resolved_at) == ([], START + 7)


def test_an_alert_that_comes_again_starts_again():
    """A second failure is no continuation of the first."""
    b = Bench()
    b.push(-1)
    b.later(10)
    b.push(1)
    b.later(10)
    b.push(-1)
    assert (only(b).starts_at, only(b).resolved_at) == (START + 20, None)


def test_resolved_alerts_are_kept_for_a_quarter_of_an_hour():
    """As long as Prometheus sends them again; then they are forgotten, by the store too."""
    b = Bench()
    b.push(-1)
    b.push(1)
    mark = only(b).fingerprint
    assert b.book.next_due() == START + RESOLVED_SECONDS
    assert b.later(RESOLVED_SECONDS - 0.1) == {}
    assert len(b.book.levels()) == 1
    assert b.later(0.1) == {mark: None}
    assert b.book.levels() == []
    assert b.book.next_due() is None


def test_an_alert_that_fires_again_is_not_forgotten_with_its_past():
    """The quarter of an hour of its former end does not count any more."""
    b = Bench()
    b.push(-1)
    b.push(1)
    b.later(10)
    b.push(-1)
    b.later(RESOLVED_SECONDS)
    assert b.firing() == ["g"]
    b.push(1)
    b.later(RESOLVED_SECONDS - 1)
    assert len(b.book.levels()) == 1


def test_what_flaps_is_waited_for_once():
    """Within its `for`, and in the time in which it is told to be resolved: a heap each is flat."""
    b = Bench()
    b.reload(AlertRule(group="slow", for_seconds=3600.0))
    for _ in range(200):
        for group in ("slow", "g"):
            b.push(-1, group)
            b.later(0.5)
            b.push(1, group)
    assert len(b.book._due) <= 2
    assert len(b.book._ended) <= 2
    b.push(-1, "slow")
    b.later(3600.0)
    assert b.firing() == ["slow"]
    b.push(1, "slow")
    b.later(901.0)
    assert list(b.book.levels()) == []


def test_our_own_sources_have_no_alert_here():
    """A lost source has one of its own, whatever is configured."""
    b = Bench()
    b.reload(AlertRule(source="sr_exporter", severity="page", for_seconds=0.0))
    b.see(Statement("sr_exporter", "source", status=-1))
    assert b.book.levels() == []


def test_a_key_that_was_away_between_two_looks_goes_on_with_its_alert():
    """No receiver was told of an end, so the alert keeps the start it was told."""
    b = Bench()
    b.push(-1)
    b.later(10)
    b.book.observe(b.state.apply(Forget("push"), b.now), b.now)
    b.push(-1)
    assert (only(b).starts_at, only(b).resolved_at) == (START, None)


# --- identity --------------------------------------------------------------------------------


def test_details_and_reports_update_annotations_and_nothing_else():
    """Who it is about does not change, nor since when."""
    b = Bench()
    b.push(-1, details="one")
    first = only(b)
    b.later(10)
    (second,) = b.push(-1, details="two", reports=("why",)).values()
    assert second
    assert (second.fingerprint, second.labels) == (first.fingerprint, first.labels)
    assert (second.starts_at, second.resolved_at) == (START, None)
    assert second.annotations["details"] == "two"
    assert second.annotations["reports"] == "why"
    assert len(b.book.levels()) == 1


def test_another_number_that_is_not_ready_goes_on_with_the_alert():
    """From -1 to -2 nothing ends."""
    b = Bench()
    b.push(-1)
    b.later(10)
    b.push(-2)
    assert (only(b).starts_at, only(b).annotations["status"]) == (START, "-2")


def test_an_alert_whose_labels_change_is_resolved_under_the_old_ones():
    """Else it would stay at the receiver until its end came by itself; and it says why."""
    b = Bench()
    b.push(-1)
    old = only(b)
    b.later(10)
    changed = b.reload(AlertRule(group="g", severity="critical", labels=(("team", "voip"),)))
    assert len(changed) == 2
    new = next(record for record in changed.values() if record and record.resolved_at is None)
    ended = b.kept[old.fingerprint]
    assert ended.resolved_at == START + 10
    assert "not by a recovery" in ended.annotations["description"]
    assert (new.labels["severity"], new.labels["team"]) == ("critical", "voip")
    assert "not by a recovery" not in new.annotations["description"]
    assert new.starts_at == START
    assert b.firing() == ["g"]


def test_a_rule_that_became_silent_resolves():
    """No rule, no alert; a rule that speaks again brings it back as it began."""
    b = Bench()
    b.push(-1)
    b.later(10)
    b.reload(AlertRule(group="g", silence=True))
    assert (b.firing(), only(b).resolved_at) == ([], START + 10)
    b.reload()
    assert (b.firing(), only(b).starts_at) == (["g"], START)


def test_a_rule_with_another_for_counts_from_the_beginning():
    """Shorter than what is over: at once. Longer: what fires goes on."""
    b = Bench()
    b.push(-1, group="uac_registrant")
    b.later(20)
    assert b.firing() == []
    b.reload(AlertRule(group="uac_registrant", for_seconds=10.0))
    assert (b.firing(), only(b).starts_at) == (["uac_registrant"], START)
    b.reload(AlertRule(group="uac_registrant", for_seconds=600.0))
    assert b.firing() == ["uac_registrant"]


def test_a_reload_that_changes_nothing_tells_nothing():
    """Levels are not told anew because a file was read anew."""
    b = Bench()
    b.push(-1)
    assert b.reload() == {}


def test_a_reload_without_other_rules_looks_at_nothing():
    """With many alerts that fire each look would hold everybody else up."""
    b = Bench()
    b.push(-1)
    b.reload(AlertRule(group="g", severity="critical"))
    for rules, looked_at in (
        ((AlertRule(group="g", severity="critical"),), 0),
        ((AlertRule(group="g", severity="warning"),), 2),  # the key, and the watchdog
    ):
        b.book.change_rules(Rules(rules))
        assert b.book.behind == looked_at
    b.book.change_rules(Rules(rules, watchdog=True))
    assert b.book.behind == 2


def test_a_restart_with_other_rules_ends_what_the_old_ones_began():
    """Most configurations change by a restart."""
    b = Bench()
    b.push(-1)
    old = only(b)
    b.rules = Rules([AlertRule(group="g", severity="critical")])
    b.restart()
    b.refresh()
    assert b.kept[old.fingerprint].resolved_at == START
    assert [record.labels["severity"] for record in b.book.firing()] == ["critical"]


# --- sources ---------------------------------------------------------------------------------


def test_a_source_that_is_down_fires_after_half_a_minute():
    """And resolves with the next good poll."""
    b = Bench()
    b.configure()
    b.poll(("g", 1))
    b.fail()
    b.later(29)
    assert b.firing() == []
    b.later(1)
    assert b.firing() == ["sip-1"]
    assert only(b).starts_at == START
    b.fail("timed out")
    assert "timed out" in only(b).annotations["description"]
    b.poll(("g", 1))
    assert b.firing() == []
    (record,) = b.kept.values()
    assert ENDED not in record.annotations["description"]


def test_a_firing_alert_of_a_lost_source_stays_and_says_so():
    """It cannot be known that it is over; what is known is told."""
    b = Bench()
    b.configure()
    b.poll(("g", 1))
    b.poll(("g", -1))
    before = only(b)
    b.fail()
    b.later(3600)
    assert sorted(b.firing()) == ["g", "sip-1"]
    after = b.kept[before.fingerprint]
    assert after.starts_at == before.starts_at
    assert "it does not answer now (connection refused)" in after.annotations["description"]
    b.poll(("g", -1))
    assert b.kept[before.fingerprint].annotations == before.annotations
    assert b.firing() == ["g"]


def test_a_source_that_leaves_the_configuration_resolves_all_it_had():
    """Its own alert and those of its keys."""
    b = Bench()
    b.configure()
    b.poll(("g", 1))
    b.poll(("g", -1))
    b.fail()
    b.later(60)
    assert len(b.firing()) == 2
    b.see(Configured(()))
    assert b.firing() == []
    assert all(record.resolved_at == b.now for record in b.kept.values())
    (source,) = (one for one in b.kept.values() if one.labels["alertname"] == SOURCE_DOWN)
    assert source.annotations["description"].endswith(ENDED)


def test_a_key_of_a_starting_source_has_two_minutes():
    """It appeared not ready."""
    b = Bench()
    b.configure()
    b.poll(("g", -1))
    b.later(119)
    assert b.firing() == []
    b.later(1)
    assert b.firing() == ["g"]


# --- versions --------------------------------------------------------------------------------


def test_what_changed_after_a_version_is_told_in_order():
    """An instance that knows a version is told the rest, the newest last, each once."""
    b = Bench()
    b.push(-1, group="a")
    b.push(-1, group="b")
    known = b.book.version
    assert b.book.changed_after(known) == []
    b.push(-1, group="c")
    b.push(-2, group="a")
    b.push(1, group="c")
    assert [_about(level.record) for level in b.book.changed_after(known)] == ["a", "c"]
    assert [_about(level.record) for level in b.book.changed_after(0)] == ["b", "a", "c"]
    assert [level.version for level in b.book.changed_after(0)] == [2, 4, 5]
    assert b.book.levels() == b.book.changed_after(0)


def test_a_level_knows_when_it_changed():
    """The time from there to a receiver's word is the latency."""
    b = Bench()
    b.push(-1)
    b.later(10)
    b.push(-2)
    (level,) = b.book.levels()
    assert level.changed_at == START + 10


# --- our own restart -------------------------------------------------------------------------


def test_after_a_restart_the_same_alert_goes_on():
    """Same labels, same start, and everything is told once more."""
    b = Bench()
    b.push(-1)
    before = only(b)
    b.later(500)
    b.restart()
    b.refresh()
    assert only(b) == before
    assert b.firing() == ["g"]
    assert [level.record for level in b.book.changed_after(0)] == [before]


def test_what_ended_while_we_were_away_is_resolved():
    """A key that is not held any more, or is ready now, fires no more."""
    b = Bench()
    b.push(-1, group="a")
    b.push(-1, group="b")
    b.later(50)
    records = list(b.kept.values())
    state = State()
    state.apply(Statement("push", "b", status=1), b.now)
    b.state = state
    b.book = AlertBook(state, LINKS)
    b.book.restore(records, b.now)
    b.book.change_rules(b.rules)
    b.refresh()
    assert b.firing() == []
    assert {_about(record): record.resolved_at for record in b.kept.values()} == {
        "a": START + 50,
        "b": START + 50,
    }


def test_a_resolved_alert_outlives_a_restart_for_the_rest_of_its_time():
    """A resolved notice is not lost around a restart."""
    b = Bench()
    b.push(-1)
    b.push(1)
    b.later(600)
    b.restart()
    b.refresh()
    assert only(b).resolved_at == START
    b.later(RESOLVED_SECONDS - 600)
    assert b.book.levels() == []
    assert b.kept == {}


def test_a_for_goes_on_over_a_restart():
    """The time it was not ready before counts."""
    b = Bench()
    b.push(-1, group="uac_registrant")
    b.later(20)
    b.restart()
    b.refresh()
    assert b.firing() == []
    b.later(10)
    assert b.firing() == ["uac_registrant"]
    assert only(b).starts_at == START


def test_after_a_restart_an_unheard_source_keeps_its_alerts_until_it_is_heard():
    """They say that nothing was heard, for as long as that is true, and no longer."""
    b = Bench()
    b.configure()
    b.poll(("g", 1))
    b.poll(("g", -1))
    before = only(b)
    b.later(100)
    b.restart()
    b.configure()
    assert b.firing() == ["g"]
    assert "not heard since the exporter started" in only(b).annotations["description"]
    assert only(b).starts_at == before.starts_at
    b.poll(("g", -1))
    assert b.firing() == ["g"]
    assert only(b).annotations == before.annotations


def test_a_source_that_was_down_is_down_after_a_restart():
    """The same start, no second half minute."""
    b = Bench()
    b.configure()
    b.poll(("g", 1))
    b.fail()
    b.later(40)
    assert b.firing() == ["sip-1"]
    before = only(b)
    b.restart()
    b.configure()
    assert (b.firing(), only(b).starts_at) == (["sip-1"], before.starts_at)


# --- properties ------------------------------------------------------------------------------


@settings(max_examples=300)
@given(
    st.lists(
        st.one_of(
            st.tuples(
                st.sampled_from(["g", "uac_registrant", "core"]), st.sampled_from([1, 2, -1, -2])
            ),
            st.tuples(st.just("forget"), st.just(0)),
            st.tuples(st.just("restart"), st.just(0)),
            st.tuples(st.just("later"), st.sampled_from([1, 29, 31, 1000])),
        ),
        max_size=40,
    )
)
def test_levels_are_what_the_state_says(steps):
    """Whatever happened: what fires is what is not ready for long enough, and is kept so."""
    b = Bench()
    for group, number in steps:
        if group == "forget":
            b.see(Forget("push"))
        elif group == "restart":
            b.restart()
            b.refresh()
        elif group == "later":
            b.later(number)
        else:
            b.push(number, group=group)
        due = {"uac_registrant": 30.0}
        expected = {
            entry.group.name: entry.ready_changed_at
            for entry in b.state.not_ready
            if b.now - entry.ready_changed_at >= due.get(entry.group.name, 0.0)
        }
        assert {_about(record): record.starts_at for record in b.book.firing()} == expected
        levels = b.book.levels()
        assert {level.record.fingerprint: level.record for level in levels} == b.kept
        assert [level.version for level in levels] == sorted(level.version for level in levels)
        for level in levels:
            ended = level.record.resolved_at
            assert ended is None or level.record.starts_at <= ended <= b.now
            assert ended is None or b.now - ended < RESOLVED_SECONDS


@pytest.mark.parametrize("pushes", [1, 100])
def test_waiting_for_a_for_ends_with_it(pushes):
    """However often a key is heard of meanwhile, nothing is left to look at afterwards."""
    b = Bench()
    for index in range(pushes):
        b.push(-1, group="uac_registrant", details=str(index))
    b.later(30)
    assert b.firing() == ["uac_registrant"]
    assert b.book.next_due() is None


def test_what_is_said_to_begin_in_the_future_began_at_first_sight():
    """A pusher's clock is ahead, or ours went back: the `for` is no longer for that."""
    b = Bench()
    b.push(-1, group="uac_registrant", at=b.now + 50.0)
    b.later(29.0)
    assert b.firing() == []
    b.later(1.0)
    assert (b.firing(), only(b).starts_at) == (["uac_registrant"], START)


def test_a_clock_that_steps_back_ends_no_alert():
    """What fires goes on firing, though its `for` seems to begin only now."""
    b = Bench()
    b.configure()
    b.fail()
    b.later(31.0)
    assert b.firing() == ["sip-1"]
    b.later(-3600.0)
    b.fail("no route to host")
    assert b.firing() == ["sip-1"]


# --- the watchdog ----------------------------------------------------------------------------


def test_the_watchdog_fires_always_and_ends_by_configuration_only():
    """It is off unless it is configured; its beginning outlives restarts."""
    b = Bench()
    assert b.reload() == {}
    b.rules = Rules(watchdog=True)
    b.book.change_rules(b.rules)
    (record,) = b.refresh().values()
    assert record
    assert record.labels == {
        "alertname": "SRExporterWatchdog",
        "severity": "none",
        "exporter": "http://sr",
    }
    assert record.starts_at == START
    b.push(-1)
    b.push(1)
    assert list(b.later(5000).values()) == [None]
    b.restart()
    assert b.refresh() == {}
    (again,) = b.book.firing()
    assert again == record
    (ended,) = b.reload().values()
    assert ended
    assert ended.resolved_at == b.now
    assert "not by a recovery" in ended.annotations["description"]
