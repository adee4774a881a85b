"""Is it ready: of everything that can be asked, by example."""

from __future__ import annotations

import pytest

from sr_exporter.model import (
    Configured,
    ListedStatus,
    OnExpiry,
    PolledSource,
    PollFailed,
    PollFailure,
    Snapshot,
    Statement,
    Tick,
)
from sr_exporter.readiness import NotHeld, Verdict, judge
from sr_exporter.state import State

SIP = "sip-1"
LISTED = (
    ListedStatus("core", "main", 1, True, "running"),
    ListedStatus("drouting", "us", 1, True, None),
    ListedStatus("drouting", "EU", -2, False, ""),
    ListedStatus("dialplan", "main", 2, True, "reloading"),
)


def _pushed(*said: Statement) -> State:
    state = State()
    for one in said:
        state.apply(one, 1000.0)
    return state


def _polled(*listed: ListedStatus, heard: bool = True) -> State:
    state = State()
    state.apply(Configured((PolledSource(SIP, 60.0),), event_sources=("sip-2",)), 1000.0)
    if heard:
        state.apply(Snapshot(SIP, state.revision, 1000.0, listed), 1000.0)
    return state


def _fail(state: State, now: float = 1001.0) -> None:
    state.apply(PollFailed(SIP, now, PollFailure.CONNECT, "connection refused"), now)


def test_what_is_held_is_told_as_its_source_said_it():
    """Status and details as they are: absent and empty details are two things."""
    state = _polled(*LISTED)
    assert judge(state, SIP, "drouting", "us") == Verdict(True, 1, None, False)
    assert judge(state, SIP, "drouting", "EU") == Verdict(False, -2, "", False)


def test_what_the_source_calls_ready_is_ready():
    """Readiness decides, not the sign of the status."""
    state = _polled(ListedStatus("g", "main", -5, True, None))
    assert judge(state, SIP, "g") == Verdict(True, -5, None, False)
    assert judge(state, SIP, "g", "all") == Verdict(True, 1, "aggregated", False)


def test_a_group_alone_means_main():
    """As OpenSIPS takes it; one without main has none, whatever else it has."""
    state = _polled(*LISTED)
    assert judge(state, SIP, "dialplan") == Verdict(True, 2, "reloading", False)
    with pytest.raises(NotHeld, match="no identifier 'main' is held of group 'drouting'"):
        judge(state, SIP, "drouting")


def test_case_counts_in_sources_only():
    """Groups and identifiers ignore ASCII case, and nothing beyond ASCII."""
    state = _pushed(Statement("Push", "Größe", "Ärger", 1))
    assert judge(state, "Push", "GRößE", "ÄRGER".replace("RGER", "rGeR")).ready
    with pytest.raises(NotHeld, match="no source 'push' is known"):
        judge(state, "push", "Größe", "Ärger")
    with pytest.raises(NotHeld, match="no identifier 'ärger'"):
        judge(state, "Push", "Größe", "ärger")
    with pytest.raises(NotHeld, match="no group 'GRÖSSE'"):
        judge(state, "Push", "GRÖSSE", "Ärger")


@pytest.mark.parametrize("spelled", ["all", "ALL", "aLL"])
def test_all_speaks_for_its_group(spelled):
    """1, or -1 when any of it is not ready; also where an identifier has that very name."""
    state = _polled(*LISTED, ListedStatus("well", "all", -1, False, "of its own"))
    assert judge(state, SIP, "drouting", spelled) == Verdict(False, -1, "aggregated", False)
    assert judge(state, SIP, "dialplan", spelled) == Verdict(True, 1, "aggregated", False)
    assert judge(state, SIP, "well", spelled) == Verdict(False, -1, "aggregated", False)
    with pytest.raises(NotHeld, match=f"no group {spelled!r}"):
        judge(state, SIP, spelled)


def test_a_source_alone_means_its_core():
    """And nothing else of it: one registrant must not take a server away."""
    state = _polled(*LISTED)
    assert judge(state, SIP) == Verdict(True, 1, "running", False)
    state = _polled(ListedStatus("Core", "Main", -1, False, "initializing"), *LISTED[1:])
    assert judge(state, SIP) == Verdict(False, -1, "initializing", False)


def test_a_source_without_a_core_is_not_known_as_a_whole():
    """What is pushed has none as a rule: nobody said what stands for it."""
    state = _pushed(Statement("app", "db", "main", 1))
    with pytest.raises(NotHeld, match=r"source 'app' has no core/main .* name a group"):
        judge(state, "app")
    state.apply(Statement("app", "core", "main", 1, "up"), 1000.0)
    assert judge(state, "app") == Verdict(True, 1, "up", False)


def test_a_lost_source_is_not_ready_at_once():
    """With the first failed poll, long before anything of it is withheld, and until a good one."""
    state = _polled(*LISTED)
    _fail(state)
    assert not state.sources[SIP].withheld
    assert judge(state, SIP) == Verdict(False, 1, "running", True)
    assert judge(state, SIP, "drouting", "all") == Verdict(False, -1, "aggregated", True)
    assert judge(state, SIP, "dialplan", "all") == Verdict(False, 1, "aggregated", True)
    state.apply(Tick(), 1100.0)
    assert state.sources[SIP].withheld
    assert judge(state, SIP, "dialplan") == Verdict(False, 2, "reloading", True)
    state.apply(Snapshot(SIP, state.revision, 1101.0, LISTED), 1101.0)
    assert judge(state, SIP) == Verdict(True, 1, "running", False)


def test_of_a_lost_source_nothing_is_unknown():
    """What is not held of it may be there all the same: that is 503, and no 404."""
    state = _polled(heard=False)
    unheard = Verdict(False, None, "not heard since the exporter started", True)
    assert judge(state, SIP) == unheard
    assert judge(state, SIP, "drouting", "us") == unheard
    assert judge(state, "sip-2", "drouting", "all") == unheard
    _fail(state)
    assert judge(state, SIP, "g") == Verdict(False, None, "connection refused", True)


def test_a_source_that_only_sends_events_is_known_once_heard():
    """It says nothing of what did not change: what is not held of it is unknown."""
    state = _polled()
    state.apply(Statement("sip-2", "drouting", "us", 1, old_status=2), 1000.0)
    assert judge(state, "sip-2", "drouting", "us") == Verdict(True, 1, None, False)
    with pytest.raises(NotHeld, match="has no core/main"):
        judge(state, "sip-2")


def test_after_a_restart_only_what_was_pushed_is_known():
    """Polled and event sources are lost until they are heard (rule 7)."""
    before = _polled(*LISTED)
    before.apply(Statement("push", "job", "main", 1), 1000.0)
    state = State()
    records = [source.record() for source in before.sources.values()]
    keys = [entry.record() for source in before.sources.values() for entry in source.entries()]
    state.restore(records, keys, 2000.0)
    assert judge(state, SIP) == Verdict(False, 1, "running", True)
    assert judge(state, "push", "job") == Verdict(True, 1, None, False)


def test_what_expired_is_not_ready():
    """It is not stale either: that nothing was heard is what is known."""
    said = Statement("push", "job", "main", 1, ttl_seconds=90.0, on_expiry=OnExpiry.NOT_READY)
    state = _pushed(said)
    state.apply(Tick(), 1090.0)
    expired = Verdict(False, -1, "expired: nothing heard for 90s", False)
    assert judge(state, "push", "job") == expired


def test_nothing_of_a_group_that_could_not_be_listed_is_known():
    """A group whose identifiers are too many to list is there, and nothing of it is held."""
    state = _polled()
    partial = Snapshot(SIP, state.revision, 1000.0, (), partial_groups=frozenset({"uac"}))
    state.apply(partial, 1000.0)
    with pytest.raises(NotHeld, match="no identifier 'all'"):
        judge(state, SIP, "uac", "all")
