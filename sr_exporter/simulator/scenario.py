"""The story that the demo tells: four servers, a minute that repeats, nothing that is not real.

A table of beats and no clock: `Scenario.step(now)` does what is due by then. Every kind of
trouble in it was seen on real servers, and so was what it looks like: a failed reload and a
dead gateway change no status, only reports; a restarted server forgets its reports.
"""

from __future__ import annotations

from itertools import count
from typing import TYPE_CHECKING, NamedTuple

from sr_exporter.simulator.node import (
    REGISTER_TIMEOUT,
    REGISTERED,
    REGISTERING,
    REGISTRANT,
    Planned,
    SimulatedNode,
)
from sr_exporter.simulator.releases import OPENSIPS_3_6, OPENSIPS_4_0

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from sr_exporter.simulator.releases import Release

    Act = Callable[[SimulatedNode, float], None]


class Beat(NamedTuple):
    """What happens on one node, and how an operator would say it."""

    #: From the begin of its table.
    second: float
    node: str
    line: str
    act: Act


class Told(NamedTuple):
    """A beat that was played."""

    #: Unix seconds.
    at: float
    node: str
    line: str


def aor(number: int) -> str:
    """Name a registrant as uac_registrant does."""
    user = f"sip:line{number:02}"
    return f"aor={user}@trunk.example.net;contact={user}@192.0.2.20:5060;registrar=sip:198.51.100.7"


LINES = tuple(aor(number) for number in range(1, 13))

#: Which release each node runs, and what it loads, in the order of loading.
CAST: dict[str, tuple[Release, tuple[Planned, ...]]] = {
    "sip-1": (
        OPENSIPS_4_0,
        (
            Planned("alarms"),
            Planned("clusterer", "node_states"),
            Planned("clusterer", "sharing_tags"),
            Planned("dispatcher", "default"),
            Planned("dispatcher", "default;events"),
            Planned("drouting", "us"),
            Planned("drouting", "us;events"),
            Planned("drouting", "eu"),
            Planned("drouting", "eu;events"),
            Planned("dialplan", "default"),
            Planned("pike"),
        ),
    ),
    "sip-2": (
        OPENSIPS_4_0,
        (
            Planned("drouting", "us"),
            Planned("drouting", "us;events"),
            Planned("dialplan", "default"),
            Planned("sql_cacher", "carriers"),
        ),
    ),
    "edge-1": (
        OPENSIPS_3_6,
        (
            Planned("dispatcher", "default"),
            Planned("dispatcher", "default;events"),
            Planned("dialplan", "default"),
            Planned("pike"),
        ),
    ),
    "reg-1": (OPENSIPS_4_0, tuple(Planned(REGISTRANT, line) for line in LINES)),
}

#: What a good load of each module reports.
LOADED = {
    "dispatcher": "4 destinations loaded (0 discarded)",
    "drouting": "3 gateways loaded (0 discarded), 1 carriers loaded (0 discarded), "
    "1 rules loaded (0 discarded)",
    "dialplan": "2 rules loaded (0 discarded)",
    "sql_cacher": "1 records loaded",
}
NEGATIVE_PROBING = "negative probing reply"
MI_COMMAND = "MI command"


# --- acts: what a beat does -----------------------------------------------------------------


def _start(node: SimulatedNode, now: float) -> None:
    node.start(now)


def _stop(node: SimulatedNode, now: float) -> None:  # noqa: ARG001 - an act like the others
    node.stop()


def _initialized(node: SimulatedNode, now: float) -> None:
    node.initialized(now)


def _tables(node: SimulatedNode) -> list[tuple[str, str]]:
    return [
        (group.name, identifier.name)
        for group in node.groups()
        for identifier in group.identifiers()
        if group.name in LOADED and not identifier.name.endswith(";events")
    ]


def _begin_loads(node: SimulatedNode, now: float) -> None:
    for table in _tables(node):
        node.begin_load(*table, now)


def _finish_loads(*, lost: str | None = None) -> Act:
    """Finish every load; that of the module `lost` fails."""

    def act(node: SimulatedNode, now: float) -> None:
        for group, identifier in _tables(node):
            if group == lost:
                node.fail_load(group, identifier, now)
            else:
                node.finish_load(group, identifier, LOADED[group], now)
        node.initialized(now)

    return act


def _begin_load(group: str, identifier: str) -> Act:
    return lambda node, now: node.begin_load(group, identifier, now)


def _finish_load(group: str, identifier: str) -> Act:
    return lambda node, now: node.finish_load(group, identifier, LOADED[group], now)


def _fail_load(group: str, identifier: str) -> Act:
    return lambda node, now: node.fail_load(group, identifier, now)


def _registrants(lines: Sequence[str], state: str) -> Act:
    def act(node: SimulatedNode, now: float) -> None:
        for line in lines:
            node.registrant(line, state, now)

    return act


def _gateway(gateway: str, state: str, reason: str) -> Act:
    return lambda node, now: node.gateway("us", gateway, state, reason, now)


def _destination(uri: str, state: str, reason: str) -> Act:
    return lambda node, now: node.destination("default", uri, state, reason, now)


def _report(group: str, log: str) -> Act:
    return lambda node, now: node.add_report(group, "main", log, now)


def _alarm(status: int, details: str, log: str) -> Act:
    def act(node: SimulatedNode, now: float) -> None:
        node.set_status("alarms", "main", status, details)
        node.add_report("alarms", "main", log, now)

    return act


# --- the tables -----------------------------------------------------------------------------

_GATEWAY = "<gw1>/198.51.100.11:5060"
_DESTINATION = "<sip:198.51.100.21:5060>, set 1"
_ROUTINE, _UNLUCKY = LINES[:2], LINES[4:5]

OPENING_SECONDS = 6.0
OPENING = (
    *(
        Beat(0, node, "starts: core is initializing, nothing is loaded yet", _start)
        for node in CAST
    ),
    Beat(1, "sip-1", "loads its tables for the first time", _begin_loads),
    Beat(1, "sip-2", "loads its tables for the first time", _begin_loads),
    Beat(1, "edge-1", "loads its tables for the first time", _begin_loads),
    Beat(2, "reg-1", "is running; its 12 registrants are not registered yet", _initialized),
    Beat(3, "sip-1", "is running, all data available", _finish_loads()),
    Beat(3, "sip-2", "is running, all data available", _finish_loads()),
    Beat(3, "edge-1", "is running, all data available", _finish_loads()),
    Beat(4, "reg-1", "registers its 12 lines", _registrants(LINES, REGISTERING)),
    Beat(5, "reg-1", "has all 12 lines registered", _registrants(LINES, REGISTERED)),
)

CYCLE_SECONDS = 60.0
CYCLE = (
    Beat(
        1,
        "sip-1",
        "reloads drouting/us: status 2, still ready on the old data",
        _begin_load("drouting", "us"),
    ),
    Beat(3, "sip-1", "has reloaded drouting/us", _finish_load("drouting", "us")),
    Beat(
        6,
        "sip-2",
        "loses gateway gw1 of drouting/us: no status changes, only a report says so",
        _gateway(_GATEWAY, "inactive", NEGATIVE_PROBING),
    ),
    Beat(
        10,
        "reg-1",
        "registers two lines anew, as it does all day: not ready for a moment",
        _registrants(_ROUTINE, REGISTERING),
    ),
    Beat(12, "reg-1", "has both lines registered again", _registrants(_ROUTINE, REGISTERED)),
    Beat(16, "edge-1", "reloads dialplan/default", _begin_load("dialplan", "default")),
    Beat(
        17,
        "edge-1",
        "fails to reload dialplan/default and keeps the old rules: only a report says so",
        _fail_load("dialplan", "default"),
    ),
    Beat(
        20,
        "sip-1",
        "has an alarm set by its script: trunk down",
        _alarm(-1, "trunk down", "carrier A: 0 of 4 trunks answer"),
    ),
    Beat(
        24,
        "sip-2",
        "has gateway gw1 put back by an operator",
        _gateway(_GATEWAY, "active", MI_COMMAND),
    ),
    Beat(
        27,
        "sip-1",
        "has its alarm cleared: all trunks up",
        _alarm(1, "all trunks up", "carrier A: 4 of 4 trunks answer"),
    ),
    Beat(29, "reg-1", "registers one line anew", _registrants(_UNLUCKY, REGISTERING)),
    Beat(
        31,
        "reg-1",
        "gets no answer for that line: REGISTER_TIMEOUT_STATE",
        _registrants(_UNLUCKY, REGISTER_TIMEOUT),
    ),
    Beat(34, "sip-2", "goes down: its connections are refused", _stop),
    Beat(38, "sip-2", "starts again: up time and reports begin anew", _start),
    Beat(39, "sip-2", "loads its tables", _begin_loads),
    Beat(
        40,
        "sip-2",
        "is running, but the table of sql_cacher/carriers is lost: status -2, no data loaded",
        _finish_loads(lost="sql_cacher"),
    ),
    Beat(
        45,
        "edge-1",
        "blocks a flood: pike reports it",
        _report("pike", "IP 203.0.113.9 detected as flooding"),
    ),
    Beat(
        49,
        "sip-2",
        "loads sql_cacher/carriers, whose table is back",
        _begin_load("sql_cacher", "carriers"),
    ),
    Beat(50, "sip-2", "has its carriers again", _finish_load("sql_cacher", "carriers")),
    Beat(
        52,
        "edge-1",
        "loses a destination of dispatcher/default: only a report says so",
        _destination(_DESTINATION, "inactive", NEGATIVE_PROBING),
    ),
    Beat(54, "reg-1", "tries the timed-out line again", _registrants(_UNLUCKY, REGISTERING)),
    Beat(55, "reg-1", "has all 12 lines registered again", _registrants(_UNLUCKY, REGISTERED)),
    Beat(56, "edge-1", "reloads dialplan/default again", _begin_load("dialplan", "default")),
    Beat(57, "edge-1", "has reloaded dialplan/default", _finish_load("dialplan", "default")),
    Beat(
        58,
        "edge-1",
        "has the destination put back by an operator",
        _destination(_DESTINATION, "active", MI_COMMAND),
    ),
)


class Scenario:
    """The story under way. Time is passed in; reports carry the time their beat was due."""

    def __init__(self, begin: float, *, only: str | None = None) -> None:
        """Set the stage, with all nodes or with `only` one; nothing is up before a step."""
        cast = CAST if only is None else {only: CAST[only]}
        self.nodes = {name: SimulatedNode(release, plan) for name, (release, plan) in cast.items()}
        self._due = (due for due in _all_beats(begin) if due[1].node in cast)
        self._next = next(self._due)

    @property
    def next_at(self) -> float:
        """When the next beat is due, in Unix seconds."""
        return self._next[0]

    def step(self, now: float) -> list[Told]:
        """Play all that is due by now, in order."""
        told = []
        while self.next_at <= now:
            at, beat = self._next
            beat.act(self.nodes[beat.node], at)
            told.append(Told(at, beat.node, beat.line))
            self._next = next(self._due)
        return told


def _all_beats(begin: float) -> Iterator[tuple[float, Beat]]:
    for beat in OPENING:
        yield begin + beat.second, beat
    for turn in count():
        start = begin + OPENING_SECONDS + turn * CYCLE_SECONDS
        for beat in CYCLE:
            yield start + beat.second, beat


def narrative() -> list[str]:
    """The whole story, a line for each beat, with its second from the begin of the first turn."""
    first_turn = [beat._replace(second=OPENING_SECONDS + beat.second) for beat in CYCLE]
    return [f"{beat.second:4.0f} s  {beat.node} {beat.line}" for beat in (*OPENING, *first_turn)]
