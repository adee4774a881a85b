"""The Status/Report state of one simulated OpenSIPS, and what its modules do to it.

No clock and no I/O: every act takes the time at which it happens, in Unix seconds. Statuses,
details and report texts are the recorded ones. It is what `wire.answers` reads from.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from datetime import UTC
from typing import TYPE_CHECKING, NamedTuple

from sr_exporter.model import MAIN, Report, fold
from sr_exporter.wire.events import EventParams

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from datetime import tzinfo

    from sr_exporter.simulator.releases import Release
    from sr_exporter.wire.answers import Names

#: Modules that load a table for each identifier, which has no data until they did.
LOADERS = frozenset({"dispatcher", "drouting", "dialplan", "sql_cacher"})
REGISTRANT = "uac_registrant"
REGISTERED = "REGISTERED_STATE"
REGISTERING = "REGISTERING_STATE"
REGISTER_TIMEOUT = "REGISTER_TIMEOUT_STATE"
NOT_REGISTERED = "NOT_REGISTERED_STATE"

_DEPTHS = {"core": 10, "clusterer": 200, "pike": 100, REGISTRANT: 20} | dict.fromkeys(LOADERS, 20)
_SCRIPT_DEPTH = 50
_EVENTS_DEPTH = 200


def ring_depth(group: str, identifier: str) -> int:
    """How many reports a real server keeps; groups it does not know are the script's own."""
    if identifier.endswith(";events"):
        return _EVENTS_DEPTH
    return _DEPTHS.get(group, _SCRIPT_DEPTH)


@dataclass(slots=True)
class Identifier:
    name: str
    status: int
    details: str | None
    reports: deque[Report]

    @property
    def ready(self) -> bool:
        return self.status > 0


@dataclass(slots=True)
class Group:
    name: str
    held: dict[str, Identifier] = field(default_factory=dict)

    @property
    def ready(self) -> bool:
        return all(identifier.ready for identifier in self.held.values())

    def identifiers(self) -> Iterable[Identifier]:
        return reversed(self.held.values())

    def identifier(self, name: str) -> Identifier | None:
        return self.held.get(fold(name))


class Planned(NamedTuple):
    """An identifier that a start brings, in the order of loading."""

    group: str
    identifier: str = MAIN


def _tell_nobody(change: EventParams) -> None:
    """The hook of a node that nobody listens to."""


class SimulatedNode:
    """One server, down until `start`. Names are matched as OpenSIPS does, by `fold`."""

    def __init__(
        self, release: Release, plan: Sequence[Planned] = (), *, zone: tzinfo | None = UTC
    ) -> None:
        self.release = release
        self.zone = zone
        self.started_at = 0.0
        self.up = False
        #: Called at each change of a status number, with what a real server raises an event of.
        self.on_change: Callable[[EventParams], None] = _tell_nobody
        self._plan = tuple(plan)
        self._groups: dict[str, Group] = {}

    # --- read side: wire.answers.SrView

    @property
    def server(self) -> str:
        return self.release.server

    @property
    def names(self) -> Names:
        return self.release.names

    def groups(self) -> Iterable[Group]:
        return reversed(self._groups.values())

    def group(self, name: str) -> Group | None:
        return self._groups.get(fold(name))

    # --- the framework

    def register(
        self, group: str, identifier: str = MAIN, status: int = 1, details: str | None = None
    ) -> None:
        """Add an identifier, and its group with the first; each is listed before the older."""
        held = self._groups.setdefault(fold(group), Group(group)).held
        if fold(identifier) in held:
            raise ValueError(f"{group}/{identifier} is already registered")
        ring = deque[Report](maxlen=ring_depth(group, identifier))
        held[fold(identifier)] = Identifier(identifier, status or 1, details, ring)

    def set_status(
        self, group: str, identifier: str, status: int, details: str | None = None
    ) -> bool:
        """Set a status, 0 being 1. True when the number changed: `on_change` is told then.

        Raises KeyError for what was never registered, as do all acts below.
        """
        held = self._identifier(group, identifier)
        old, held.status, held.details = held.status, status or 1, details
        if old == held.status:
            return False
        name = self._groups[fold(group)].name
        self.on_change(EventParams(name, held.name, held.status, old, details))
        return True

    def add_report(self, group: str, identifier: str, log: str, now: float) -> None:
        """Add to a ring, whose oldest is dropped; stamped in whole seconds."""
        self._identifier(group, identifier).reports.append(Report(int(now), log))

    def _identifier(self, group: str, identifier: str) -> Identifier:
        return self._groups[fold(group)].held[fold(identifier)]

    # --- the life of a server

    def start(self, now: float) -> None:
        """Come up with empty rings: `core` initializing, nothing loaded."""
        self.up = True
        self.started_at = now
        self._groups.clear()
        self.register("core", MAIN, -1, "initializing")
        self.add_report("core", MAIN, "initializing", now)
        for planned in self._plan:
            self._register_planned(*planned, now)

    def _register_planned(self, group: str, identifier: str, now: float) -> None:
        if group == REGISTRANT:
            self.register(group, identifier, -1, NOT_REGISTERED)
            self.add_report(group, identifier, f"created with state {NOT_REGISTERED}\n", now)
        elif group == "clusterer" and identifier.startswith("cap:"):
            self.register(group, identifier, -2, "sync pending")
            log = "Sync request postponed! (no donor available)"
            self.add_report(group, identifier, log, now)
        elif group in LOADERS and not identifier.endswith(";events"):
            self.register(group, identifier, -2, "no data loaded")
        else:
            self.register(group, identifier)

    def initialized(self, now: float) -> None:
        self.set_status("core", MAIN, 1, "running")
        self.add_report("core", MAIN, "initialization completed, ready now", now)

    def stop(self) -> None:
        """Go down. What was held stays to be seen until the next start."""
        self.up = False

    # --- what modules do

    def begin_load(self, group: str, identifier: str, now: float) -> None:
        """Begin to load a table: at first for the start, later anew with the old data in use."""
        if self._identifier(group, identifier).status < 0:
            self.set_status(group, identifier, -1, "startup data loading")
        else:
            self.set_status(group, identifier, 2, "data re-loading")
        self.add_report(group, identifier, "starting DB data loading", now)

    def finish_load(self, group: str, identifier: str, loaded: str, now: float) -> None:
        """Take the new data; `loaded` says how much: `2 rules loaded (0 discarded)`."""
        self.set_status(group, identifier, 1, "data available")
        self.add_report(group, identifier, "DB data loading successfully completed", now)
        self.add_report(group, identifier, loaded, now)

    def fail_load(self, group: str, identifier: str, now: float) -> None:
        """Keep the old data, which no status tells, or stay without any."""
        if self._identifier(group, identifier).status < 0:
            self.set_status(group, identifier, -2, "no data loaded")
        else:
            self.set_status(group, identifier, 1, "data available")
        self.add_report(group, identifier, "DB data loading failed, discarding", now)

    def registrant(self, identifier: str, state: str, now: float) -> None:
        """Move a registrant to a state; only one that is registered is ready."""
        self.set_status(REGISTRANT, identifier, 1 if state == REGISTERED else -1, state)
        self.add_report(REGISTRANT, identifier, f"state changed to {state}\n", now)

    def gateway(self, partition: str, gateway: str, state: str, reason: str, now: float) -> None:
        """Report a gateway of drouting (`<gw0>/127.0.0.1:5080`) as active or inactive."""
        log = f"GW {gateway} switched to [{state}] due to {reason}\n"
        self.add_report("drouting", f"{partition};events", log, now)

    def destination(self, partition: str, uri: str, state: str, reason: str, now: float) -> None:
        """Report a destination of dispatcher (`<sip:192.0.2.1>, set 1`) as active or inactive."""
        log = f"DESTINATION {uri} switched to [{state}] due to {reason}\n"
        self.add_report("dispatcher", f"{partition};events", log, now)
