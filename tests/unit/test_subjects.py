"""Subjects: whom report texts call not ready, from when, and until when."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sr_exporter.limits import Limit
from sr_exporter.metrics.families import families
from sr_exporter.model import (
    PUSHED_RING,
    Configured,
    Forget,
    Key,
    ListedReports,
    ListedStatus,
    PolledSource,
    PollFailed,
    PollFailure,
    Report,
    Snapshot,
    Statement,
    Tick,
)
from sr_exporter.report_rules import ReportRule, ReportRules
from sr_exporter.signals import Meaning
from sr_exporter.state import State

if TYPE_CHECKING:
    from sr_exporter.model import Observation
    from sr_exporter.outcome import Outcome

START = 1_000_000.0
EVENTS = ("drouting", "us;events")
TABLE = ("drouting", "us")
FAILED, LOADED = "DB data loading failed, discarding", "DB data loading successfully completed"


def gateway(name: str, state: str = "inactive") -> str:
    return f"GW <{name}>/127.0.0.1:5080 switched to [{state}] due to negative probing reply"


class Bench:
    """A state with one polled source, its rings, and a clock."""

    def __init__(self, limit: int = 1000, ttl: float = 86_400.0, *off: str) -> None:
        self.now = START
        self.up_since = START - 1000
        self.limit, self.ttl = limit, ttl
        self.state = State()
        self.rings: dict[tuple[str, str], list[Report]] = {
            place: [] for place in (EVENTS, TABLE, ("drouting", "eu"), ("pike", "main"))
        }
        self.configure(ReportRules(switched_off=off))

    def configure(self, rules: ReportRules | None) -> Outcome:
        return self.see(
            Configured(
                (PolledSource("sip-1", 60.0),),
                reader=rules,
                limit_subjects=self.limit,
                subject_ttl_seconds=self.ttl,
            )
        )

    def see(self, observation: Observation) -> Outcome:
        return self.state.apply(observation, self.now)

    def log(self, place: tuple[str, str], *texts: str, at: float | None = None) -> None:
        stamp = float(int(self.now)) if at is None else at
        self.rings[place] += [Report(stamp, text) for text in texts]

    def poll(self, *, reports: bool = True) -> list[tuple[str, bool]]:
        """Poll; give whom texts began (True) and ceased to call not ready, in order."""
        statuses = tuple(ListedStatus(*place, 1, True, None) for place in self.rings)
        rings = tuple(ListedReports(*place, tuple(ring)) for place, ring in self.rings.items())
        outcome = self.see(
            Snapshot(
                "sip-1",
                self.state.revision,
                self.now,
                statuses,
                reports=rings if reports else None,
                uptime_seconds=self.now - self.up_since,
            )
        )
        return turns(outcome)

    def restart(self) -> None:
        self.up_since = self.now
        self.rings = {place: [] for place in self.rings}

    def down(self) -> set[str]:
        """Whom the metrics call not ready, which is whom the state does."""
        shown = {dict(one.labels)["subject"] for one in self.samples("opensips_sr_reported_ready")}
        assert shown == {reported.subject for reported in self.state.reported()}
        source = self.state.sources.get("sip-1")
        if source is not None:
            assert source.subjects == len(list(source.reported()))
        return shown

    def samples(self, name: str):
        (found,) = (one.samples for one in families(self.state) if one.name == name)
        return found

    def matches(self) -> dict[tuple[str, str], float]:
        found = self.samples("opensips_sr_report_matches_total")
        labelled = ((dict(one.labels), one.value) for one in found if one.value)
        return {(labels["identifier"], labels["rule"]): value for labels, value in labelled}


def turns(outcome: Outcome) -> list[tuple[str, bool]]:
    return [(turn.subject, not turn.ended) for turn in outcome.subjects]


@pytest.fixture
def bench():
    return Bench()


# --- beginning ---------------------------------------------------------------------------------


def test_new_reports_are_read_once_and_in_order(bench):
    """Those of the first listing too; what is listed again says nothing."""
    bench.log(EVENTS, gateway("gw0"), gateway("gw1"), gateway("gw0", "active"))
    assert bench.poll() == [("gw0", True), ("gw1", True), ("gw0", False)]
    assert (bench.down(), bench.poll()) == ({"gw1"}, [])
    bench.log(EVENTS, gateway("gw1", "active"))
    assert bench.poll() == [("gw1", False)]
    counts = {("us;events", "gateway_inactive"): 2, ("us;events", "gateway_active"): 2}
    assert (bench.down(), bench.matches()) == (set(), counts)


def test_a_subject_called_so_again_is_the_same(bench):
    """Since the first time; the newest text is the one that is told."""
    bench.log(EVENTS, gateway("gw0"))
    bench.poll()
    bench.now += 60
    bench.log(EVENTS, gateway("gw0").replace("negative probing reply", "MI command"))
    assert bench.poll() == []
    (reported,) = bench.state.reported()
    assert reported.record is not None
    assert (reported.record.since, reported.record.reported_at) == (START, START + 60)
    assert reported.record.log.endswith("MI command")


def test_the_source_says_since_when_but_never_after_now(bench):
    bench.log(EVENTS, gateway("old"), at=START - 5000)
    bench.log(EVENTS, gateway("ahead"), at=START + 5000)
    bench.poll()
    assert {one.subject: one.record.since for one in bench.state.reported()} == {
        "old": START - 5000,
        "ahead": START,
    }
    assert {one.ends_at for one in bench.state.reported()} == {START + 86_400}  # since it was heard


def test_every_rule_counts_from_zero(bench):
    """For each key it may fit, before anything was said."""
    bench.poll()
    found = {
        (dict(one.labels)["identifier"], dict(one.labels)["rule"]): one.value
        for one in bench.samples("opensips_sr_report_matches_total")
    }
    assert set(found.values()) == {0}
    assert {("us", "data_load_failed"), ("us;events", "gateway_active"), ("main", "flood")} <= set(
        found
    )


def test_texts_of_a_push_are_read_too(bench):
    """Each once, though it is pushed again; case counts in no name."""
    push = Statement("sbc", "Drouting", "US;events", status=1, reports=(gateway("gw0"),), at=START)
    assert turns(bench.see(push)) == [("gw0", True)]
    assert turns(bench.see(push)) == []
    again = Statement("sbc", "drouting", "us;events", reports=(gateway("gw0", "active"),))
    assert turns(bench.see(again)) == [("gw0", False)]


def test_of_a_push_what_is_held_is_read(bench):
    """However long its list of reports is."""
    logs = tuple(Report(START + n, gateway(f"gw{n}")) for n in range(PUSHED_RING + 2))
    outcome = bench.see(Statement("sbc", *EVENTS, reports=logs))
    assert turns(outcome) == [(f"gw{n}", True) for n in range(2, PUSHED_RING + 2)]


# --- ends --------------------------------------------------------------------------------------


def test_a_restart_of_the_source_ends_what_it_said(bench):
    """And what it says from then on begins."""
    bench.log(EVENTS, gateway("gw0"), gateway("gw1"))
    bench.poll()
    bench.now += 100
    bench.restart()
    bench.now += 10
    bench.log(EVENTS, gateway("gw1"))
    assert bench.poll() == [("gw0", False), ("gw1", False), ("gw1", True)]
    assert bench.down() == {"gw1"}


def test_a_load_of_its_table_ends_what_no_text_names_again(bench):
    """Of another table it does not, and a failed one never."""
    bench.log(EVENTS, gateway("gw0"), gateway("gw1"))
    bench.poll()
    bench.now += 10
    bench.log(TABLE, FAILED)
    bench.log(("drouting", "eu"), LOADED)
    assert (bench.poll(), bench.down()) == ([], {"gw0", "gw1"})
    bench.log(TABLE, LOADED, at=bench.now + 1)
    bench.log(EVENTS, gateway("gw1"), at=bench.now + 2)
    assert bench.poll() == [("gw0", False)]
    assert bench.down() == {"gw1"}


def test_what_was_named_in_the_second_of_a_load_stays(bench):
    """Which came first cannot be told."""
    bench.log(EVENTS, gateway("gw0"))
    bench.log(TABLE, LOADED)
    assert bench.poll() == [("gw0", True)]
    bench.log(TABLE, LOADED, at=bench.now + 1)
    assert bench.poll() == [("gw0", False)]


def test_a_ring_is_read_in_its_own_order_though_the_clock_was_set_back(bench):
    bench.log(EVENTS, gateway("gw0"), at=START)
    bench.log(EVENTS, gateway("gw0", "active"), at=START - 3600)
    assert bench.poll() == [("gw0", True), ("gw0", False)]


def test_what_is_not_named_for_long_ends():
    """To be named again counts anew."""
    bench = Bench(1000, 100.0)
    bench.log(EVENTS, gateway("gw0"), gateway("gw1"))
    bench.poll()
    bench.now += 60
    bench.log(EVENTS, gateway("gw1"))
    bench.poll()
    bench.now += 39
    assert turns(bench.see(Tick())) == []
    assert bench.state.next_deadline() == START + 100
    bench.now += 1
    assert turns(bench.see(Tick())) == [("gw0", False)]
    assert bench.state.next_deadline() == START + 160
    bench.now += 60
    assert turns(bench.see(Tick())) == [("gw1", False)]
    assert (bench.down(), bench.state.next_deadline()) == (set(), None)


def test_to_forget_a_key_ends_its_subjects(bench):
    bench.see(Statement("sbc", *EVENTS, status=1, reports=(gateway("gw0"),)))
    assert turns(bench.see(Forget("sbc"))) == [("gw0", False)]
    assert bench.state.next_deadline() is None


def test_a_key_that_is_polled_no_more_takes_its_subjects_along(bench):
    bench.log(EVENTS, gateway("gw0"))
    bench.poll()
    del bench.rings[EVENTS]
    assert bench.poll() == [("gw0", False)]
    assert bench.down() == set()


def test_a_rule_that_is_taken_away_takes_what_it_said_along(bench):
    """Switched off by its name, or gone with the file; rules that stay keep theirs."""
    own = ReportRule("own", "^GW <(?P<subject>gw1)>", Meaning.DOWN, group="drouting")
    bench.configure(ReportRules([own]))
    bench.log(EVENTS, gateway("gw0"), gateway("gw1"))
    bench.poll()
    assert turns(bench.configure(ReportRules([own], ["gateway_inactive"]))) == [("gw0", False)]
    assert turns(bench.configure(None)) == [("gw1", False)]
    bench.log(EVENTS, gateway("gw2"))
    assert (bench.poll(), bench.matches()) == ([], {})


# --- limits, and sources that are lost ---------------------------------------------------------


def test_so_many_of_one_source_and_no_more():
    """The rest is counted, each time it is named; who ends makes room."""
    bench = Bench(2)
    bench.log(EVENTS, *(gateway(f"gw{number}") for number in range(5)))
    bench.poll()
    (refused,) = bench.samples("sr_exporter_subjects_refused_total")
    assert (bench.down(), refused.value) == ({"gw0", "gw1"}, 3)
    assert bench.state.turned_away == {(Limit.SUBJECTS, "sip-1"): 3}
    bench.log(EVENTS, gateway("gw0"), gateway("gw0", "active"), gateway("gw4"))
    bench.poll()
    (refused,) = bench.samples("sr_exporter_subjects_refused_total")
    assert (bench.down(), refused.value) == ({"gw1", "gw4"}, 3)


def test_what_a_lost_source_said_is_withheld_and_comes_back(bench):
    bench.log(EVENTS, gateway("gw0"))
    bench.poll()
    bench.see(PollFailed("sip-1", bench.now, PollFailure.CONNECT, "refused"))
    assert bench.down() == {"gw0"}
    bench.now += 61
    bench.see(Tick())
    assert not bench.samples("opensips_sr_reported_ready")
    assert not bench.samples("opensips_sr_report_matches_total")
    bench.poll()
    assert bench.down() == {"gw0"}


# --- our own restart ---------------------------------------------------------------------------


def test_what_is_held_outlives_a_restart():
    """With its counts and its end; a restart of the source meanwhile is noticed."""
    for restarted in (False, True):
        bench = Bench(1000, 100.0)
        bench.log(EVENTS, gateway("gw0"))
        kept = {}
        for _ in range(2):
            bench.poll()
        (source,) = bench.state.sources.values()
        kept = [entry.record() for entry in source.entries()]
        bench.state = State()
        bench.state.restore([source.record()], kept, bench.now)
        bench.now += 50
        if restarted:
            bench.restart()
        bench.configure(ReportRules())
        assert not bench.samples("opensips_sr_reported_ready")  # until the source is heard
        assert bench.poll() == ([("gw0", False)] if restarted else [])
        assert bench.down() == (set() if restarted else {"gw0"})
        assert bench.matches() == {("us;events", "gateway_inactive"): 1}
        bench.now += 50
        assert turns(bench.see(Tick())) == ([] if restarted else [("gw0", False)])


# --- any history -------------------------------------------------------------------------------


class Plain:
    """What should be held, told simply: no rings, no heaps."""

    def __init__(self, limit: int, ttl: float) -> None:
        self.limit, self.ttl = limit, ttl
        self.held: dict[str, tuple[float, float]] = {}
        self.refused = 0

    def down(self, name: str, now: float) -> None:
        if name not in self.held and len(self.held) >= self.limit:
            self.refused += 1
        else:
            self.held[name] = (now, now + self.ttl)

    def pass_to(self, now: float) -> None:
        self.held = {name: when for name, when in self.held.items() if when[1] > now}

    def loaded(self, now: float) -> None:
        self.held = {name: when for name, when in self.held.items() if when[0] >= now}


NAMES = st.sampled_from(["gw0", "gw1", "gw2", "gw3"])
STEPS = st.one_of(
    st.tuples(st.just("down"), NAMES),
    st.tuples(st.just("up"), NAMES),
    st.tuples(st.just("loaded"), st.none()),
    st.tuples(st.just("wait"), st.sampled_from([1, 30, 70])),
    st.tuples(st.just("restart"), st.none()),
    st.tuples(st.just("poll"), st.none()),
)


@settings(max_examples=300, deadline=None)
@given(st.lists(STEPS, max_size=40), st.integers(1, 4))
def test_any_history_ends_as_told_simply(steps, limit):
    """Whatever is reported, and whenever it is polled: what is held follows from it.

    A poll follows each report, and a second passes, so that nothing is heard late or at once.
    """
    bench, plain = Bench(limit, 100.0), Plain(limit, 100.0)
    bench.poll()
    for what, which in steps:
        bench.now += which if what == "wait" else 1
        plain.pass_to(bench.now)
        bench.see(Tick())
        if what == "down":
            bench.log(EVENTS, gateway(which))
            plain.down(which, bench.now)
        elif what == "up":
            bench.log(EVENTS, gateway(which, "active"))
            plain.held.pop(which, None)
        elif what == "loaded":
            bench.log(TABLE, LOADED)
            plain.loaded(bench.now)
        elif what == "restart":
            bench.restart()
            bench.now += 6
            plain.held.clear()
        bench.poll()
        assert bench.down() == set(plain.held)
    (refused,) = bench.samples("sr_exporter_subjects_refused_total")
    assert refused.value == plain.refused
    deadline = bench.state.next_deadline()
    assert (deadline is None) == (not plain.held)
    entry = bench.state.entry(Key("sip-1", *EVENTS))
    assert entry is not None
    assert dict(entry.record().subjects) == dict(entry.subjects)
