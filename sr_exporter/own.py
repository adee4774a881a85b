"""The exporter's own SR state, said through the same door as everybody else's.

Source `sr_exporter`: `core` (main), `source` (each polled source), `notifier` (each
notifier) and `store` (main). An operator's page, metrics and alerts thus cover the exporter
too.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from sr_exporter.model import (
    MAIN,
    OWN_SOURCE,
    Forget,
    Origin,
    Statement,
    fold,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from sr_exporter.held import Source
    from sr_exporter.ingest import Ingest
    from sr_exporter.metrics.own import OwnMetrics
    from sr_exporter.model import Observation
    from sr_exporter.outcome import Outcome
    from sr_exporter.state import State
    from sr_exporter.store.contract import Store

READY, NOT_READY = 1, -1
#: How often the store is looked at.
STORE_SECONDS = 1.0
#: How often it is said how much a notifier is owed that takes nothing.
OWED_SECONDS = 30.0
_UNHEARD = "not heard since the exporter started"


class OwnState:
    """Says how the exporter's parts stand; only what changed is said."""

    def __init__(self, ingest: Ingest, state: State) -> None:
        self._ingest = ingest
        self._state = state
        #: The identifiers of sources: their names, made distinct where only case differs.
        self._names: dict[str, str] = {}
        self._said: dict[tuple[str, str], tuple[int, str | None]] = {}
        self._tasks: set[asyncio.Task[object]] = set()

    def configure(self, sources: Iterable[str], notifiers: Iterable[str]) -> None:
        """Speak of these parts from now on, and forget those that are gone."""
        self._names = _distinct(sources)
        self.forget("source", but=self._names.values())
        self.forget("notifier", but=notifiers)
        for source in self._state.sources.values():
            if source.polled and not source.heard:
                self._say_source(source.name, NOT_READY, source.last_error or _UNHEARD)
            else:
                self._follow(source)
        self.say("core", MAIN, READY, "running")

    def forget(self, group: str, *, but: Iterable[str]) -> None:
        """Speak no more of parts of this group, but of these."""
        wanted = {fold(name) for name in but}
        own = self._state.sources.get(OWN_SOURCE)
        for entry in list(own.entries()) if own else ():
            if fold(entry.group.name) == group and fold(entry.identifier) not in wanted:
                self._said.pop((group, fold(entry.identifier)), None)
                self._observe(Forget(OWN_SOURCE, group, entry.identifier))

    def observe(self, outcome: Outcome) -> None:
        """Follow the polled sources."""
        for source in outcome.sources.values():
            self._follow(source)

    def _follow(self, source: Source) -> None:
        if source.polled and source.down_since is not None:
            self._say_source(source.name, NOT_READY, source.last_error)
        elif source.polled and source.heard:
            self._say_source(source.name, READY, source.last_error)

    def say(self, group: str, identifier: str, status: int, details: str | None) -> None:
        """Say how a part stands, unless it was just said."""
        if self._said.get((group, fold(identifier))) == (status, details):
            return
        self._said[group, fold(identifier)] = (status, details)
        self._observe(_statement(group, identifier, status, details))

    def _observe(self, observation: Observation) -> None:
        # Not at once: it may be an outcome that is spoken of, and its batch goes first.
        task = asyncio.ensure_future(self._ingest.observe(observation))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _say_source(self, source: str, status: int, details: str | None) -> None:
        self.say("source", self._names.get(source, source), status, details)

    async def watch_store(self, store: Store) -> None:
        """Say how the store stands, for ever."""
        while True:
            error = store.figures().error
            self.say("store", MAIN, READY if error is None else NOT_READY, error)
            await asyncio.sleep(STORE_SECONDS)

    async def settle(self) -> None:
        """Wait until what was said is kept."""
        while self._tasks:
            await asyncio.wait(self._tasks)


class NotifierTeller:
    """Implements `NotifierObserver`: counts, and says how each notifier stands."""

    def __init__(self, metrics: OwnMetrics, own: OwnState) -> None:
        self._metrics = metrics
        self._own = own
        #: How much each is owed; None: it is told what is the case, and owed nothing.
        self._backlogs: dict[str, Callable[[], int] | None] = {}
        #: Why notifiers do not take what they are sent.
        self._failing: dict[str, str] = {}

    def joined(
        self,
        notifier: str,
        backlog: Callable[[], int],
        error: str | None = None,
        *,
        owes: bool = True,
    ) -> None:
        self._metrics.add_notifier(notifier, backlog)
        self._backlogs[notifier] = backlog if owes else None
        self._own.say("notifier", notifier, READY if error is None else NOT_READY, error)

    def left(self, notifier: str) -> None:
        self._metrics.remove_notifier(notifier)
        self._backlogs.pop(notifier, None)
        self._failing.pop(notifier, None)

    def accepted(self, notifier: str) -> None:
        self._metrics.delivered(notifier, "accepted")

    def latency(self, notifier: str, seconds: float) -> None:
        self._metrics.latency(notifier, seconds)

    def retried(self, notifier: str) -> None:
        self._metrics.delivered(notifier, "retried")

    def dead(self, notifier: str) -> None:
        self._metrics.delivered(notifier, "dead")

    def stands(self, notifier: str, error: str | None) -> None:
        if notifier not in self._backlogs:
            return  # it left
        if error is None:
            self._failing.pop(notifier, None)
            self._own.say("notifier", notifier, READY, None)
        else:
            self._failing[notifier] = error
            self._say_owed(notifier)

    async def watch_owed(self) -> None:
        """Say how much is owed to those that take nothing, for ever."""
        while True:
            await asyncio.sleep(OWED_SECONDS)
            for notifier in self._failing:
                self._say_owed(notifier)

    def _say_owed(self, notifier: str) -> None:
        why, backlog = self._failing[notifier], self._backlogs[notifier]
        said = why if backlog is None else f"{why} ({backlog()} owed)"
        self._own.say("notifier", notifier, NOT_READY, said)


def _distinct(sources: Iterable[str]) -> dict[str, str]:
    """Give each source an identifier: case tells sources apart, and identifiers not."""
    names: dict[str, str] = {}
    taken: set[str] = set()
    for source in sources:
        name, number = source, 2
        while fold(name) in taken:
            name, number = f"{source} ({number})", number + 1
        taken.add(fold(name))
        names[source] = name
    return names


def _statement(group: str, identifier: str, status: int, details: str | None) -> Statement:
    return Statement(
        OWN_SOURCE, group, identifier, status=status, details=details, origin=Origin.OWN
    )
