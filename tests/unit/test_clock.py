"""Time goes on evenly, whatever the machine's clock does; what lasts is over when it is."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from sr_exporter.clock import STEP_SECONDS, Clock
from sr_exporter.model import (
    Configured,
    Forget,
    Kind,
    ListedReports,
    ListedStatus,
    OnExpiry,
    PolledSource,
    PollFailed,
    PollFailure,
    Report,
    Snapshot,
    Statement,
    Tick,
)
from sr_exporter.notify.queues import Queue
from sr_exporter.report_rules import ReportRules
from sr_exporter.state import State
from sr_exporter.store.contract import Owed, Standing

if TYPE_CHECKING:
    from sr_exporter.held import Entry

NOW = 1_800_000_000.0
HOUR, DAY = 3600.0, 86_400.0
#: Back to the beginning of Unix' time, and on to what 32 bits do not hold any more.
EPOCH, AFTER_2038 = -NOW, 2.0**31 + DAY - NOW
STEPS = pytest.mark.parametrize(
    "step", [HOUR, -HOUR, DAY, -DAY, 40 * DAY, EPOCH, AFTER_2038], ids=lambda step: f"{step:+.0f}"
)


class Machine:
    """A machine whose clock can be set."""

    def __init__(self) -> None:
        self.up, self.ahead = 1000.0, NOW

    def clock(self) -> Clock:
        return Clock(lambda: self.up + self.ahead, lambda: self.up)


@STEPS
def test_a_step_is_told_and_followed(step):
    """The time is the machine's again, and by how much it was set is known."""
    machine = Machine()
    clock = machine.clock()
    machine.up += 10
    machine.ahead += step
    assert clock() == NOW + 1010
    assert clock.follow() == pytest.approx(step)
    assert clock() == pytest.approx(NOW + 1010 + step)
    assert clock.follow() == 0.0


def test_a_drift_is_followed_without_a_word():
    """NTP slews a clock by less than a thousandth."""
    machine = Machine()
    clock = machine.clock()
    for _ in range(20):
        machine.up += 1
        machine.ahead += 0.9 * STEP_SECONDS
        assert clock.follow() == 0.0
        assert clock() == pytest.approx(machine.up + machine.ahead)


def test_who_asked_is_told_of_a_step():
    """As long as the clock is run."""
    machine = Machine()

    async def run() -> float:
        clock, told = machine.clock(), asyncio.get_running_loop().create_future()
        running = asyncio.create_task(clock.run(told.set_result))
        await asyncio.sleep(0)
        machine.ahead -= HOUR
        by: float = await told
        running.cancel()
        return by

    assert asyncio.run(asyncio.wait_for(run(), 10)) == pytest.approx(-HOUR)


# --- the state -------------------------------------------------------------------------------


def push(**more) -> Statement:
    return Statement("crowd", "g", "k", **{"status": 1, **more})


def held(state: State) -> Entry | None:
    source = state.sources.get("crowd")
    return source.entry("g", "k") if source else None


@STEPS
@pytest.mark.parametrize("on_expiry", OnExpiry)
def test_a_time_to_live_lasts_as_long_as_it_does(step, on_expiry):
    """Neither is a living key expired, nor does a dead one stay ready for the step's length."""
    state = State()
    state.apply(push(ttl_seconds=90.0, on_expiry=on_expiry), NOW)
    state.set_clock(step)
    assert state.next_deadline() == pytest.approx(NOW + step + 90)
    state.apply(Tick(), NOW + step + 89)
    assert held(state).ready
    outcome = state.apply(Tick(), NOW + step + 91)
    assert [change.at for change in outcome.changes] == [pytest.approx(NOW + step + 90)]
    assert held(state) is None if on_expiry is OnExpiry.REMOVE else not held(state).ready


@STEPS
def test_a_heartbeat_over_a_step_keeps_a_key_alive(step):
    """It is put off from when it came, by the new time."""
    state = State()
    state.apply(push(ttl_seconds=90.0), NOW)
    state.set_clock(step)
    state.apply(push(ttl_seconds=90.0), NOW + step + 60)
    state.apply(Tick(), NOW + step + 149)
    assert held(state).ready
    state.apply(Tick(), NOW + step + 151)
    assert not held(state).ready


def polled(reader: ReportRules | None = None) -> State:
    state = State()
    state.apply(Configured((PolledSource("sip-1", 60.0),), reader=reader), NOW)
    return state


def poll(state: State, at: float, uptime: float, *reports: Report, as_of=None) -> Snapshot:
    return Snapshot(
        "sip-1",
        state.revision if as_of is None else as_of,
        at,
        (ListedStatus("drouting", "us;events", 1, True, None),),
        reports=(ListedReports("drouting", "us;events", reports),),
        uptime_seconds=uptime,
    )


@STEPS
def test_a_lost_source_is_withheld_when_it_was_lost_for_so_long(step):
    """Not at once by a clock that is set forward, and no later by one that is set back."""
    state = polled()
    state.apply(poll(state, NOW, 100.0), NOW)
    state.apply(PollFailed("sip-1", NOW, PollFailure.CONNECT, "refused"), NOW)
    state.set_clock(step)
    state.apply(Tick(), NOW + step + 59)
    assert not state.sources["sip-1"].withheld
    state.apply(Tick(), NOW + step + 61)
    assert state.sources["sip-1"].withheld


@STEPS
def test_a_step_is_no_restart_of_what_is_polled(step):
    """Rule 13: when a source started is told by our clock; a real restart is seen all the same."""
    state = polled()
    state.apply(poll(state, NOW, 5000.0), NOW)
    under_way = poll(state, NOW + 10, 5010.0)
    outcome = state.set_clock(step)
    assert list(outcome.sources) == ["sip-1"]
    source = state.sources["sip-1"]
    state.apply(under_way, NOW + step + 10)
    state.apply(poll(state, NOW + step + 20, 5020.0), NOW + step + 20)
    assert source.polls_since_restart > 1
    assert source.start_time == pytest.approx(NOW + step - 5000)
    state.apply(poll(state, NOW + step + 30, 3.0), NOW + step + 30)
    assert source.polls_since_restart <= 1
    assert source.start_time == pytest.approx(NOW + step + 27)


@STEPS
def test_what_a_text_calls_down_stays_so_for_its_time(step):
    """A day for a subject is a day."""
    state = polled(ReportRules())
    down = Report(NOW, "GW <gw0>/127.0.0.1:5080 switched to [inactive] due to probing")
    state.apply(poll(state, NOW, 5000.0), NOW)
    state.apply(poll(state, NOW + 1, 5001.0, down), NOW + 1)
    source = state.sources["sip-1"]
    assert source.subjects == 1
    state.set_clock(step)
    state.apply(Tick(), NOW + step + DAY - 60)
    assert source.subjects == 1
    state.apply(Tick(), NOW + step + DAY + 60)
    assert source.subjects == 0


def test_what_was_said_by_a_clock_that_was_ahead_does_not_outrank_the_present():
    """Else a status that was pushed while we were an hour ahead would stand for an hour."""
    state = State()
    state.apply(push(), NOW + HOUR)
    state.set_clock(-HOUR)
    state.apply(push(status=-1, at=NOW + 5), NOW + 5)
    assert not held(state).ready
    # What is late stays late.
    state.apply(push(status=1, at=NOW + 1), NOW + 6)
    assert not held(state).ready


def test_a_removal_by_a_clock_that_was_ahead_buries_nothing_for_longer():
    """And a pushed source that is forgotten is gone."""
    state = State()
    state.apply(push(), NOW + HOUR)
    state.apply(Forget("crowd"), NOW + HOUR)
    state.set_clock(-HOUR)
    state.apply(push(at=NOW + 5), NOW + 5)
    assert held(state).ready
    assert state.sources["crowd"].kind is Kind.PUSHED


# --- what is owed ----------------------------------------------------------------------------


def owed(row_id: str, *, due_in: float, standing: Standing) -> Owed:
    return Owed(
        row_id, 1, "hook", f'["{row_id}"]', standing, NOW, NOW + due_in, 0, body=b'{"alerts":[]}'
    )


@STEPS
def test_what_waits_goes_on_waiting_as_long_as_it_would_have(step):
    """A back-off, what a rule's `for` holds back, and the age at which it is given up."""
    queue = Queue()
    queue.add(owed("held", due_in=30.0, standing=Standing.HELD), kept=True)
    queue.add(owed("owed", due_in=20.0, standing=Standing.OWED), kept=True)
    assert queue.take(NOW + 10) is None
    queue.set_clock(step)
    assert queue.take(NOW + step + 19) is None
    assert queue.next_due() == pytest.approx(NOW + step + 20)
    first = queue.take(NOW + step + 21)
    assert [row.id for row in first.rows] == ["owed"]
    assert first.rows[0].created_at == pytest.approx(NOW + step)
    assert queue.owed(NOW + step + 22) == 1
    assert queue.take(NOW + step + 29) is None
    assert [row.id for row in queue.take(NOW + step + 31).rows] == ["held"]


@STEPS
def test_what_gathers_leaves_once_over_a_step(step):
    """None of a window that was open is lost, and none is sent twice."""
    queue = Queue()
    queue.gather(5.0)
    for number in range(3):
        queue.add(owed(f"r{number}", due_in=0.0, standing=Standing.OWED), kept=True)
    assert queue.take(NOW + 1) is None
    queue.set_clock(step)
    sent = []
    for second in range(2, 30):
        while (parcel := queue.take(NOW + step + second)) is not None:
            sent += [row.id for row in parcel.rows]
            queue.settle(parcel)
    assert sorted(sent) == ["r0", "r1", "r2"]
    assert len(queue) == 0
