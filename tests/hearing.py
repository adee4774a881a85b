"""An exporter's ears alone: real sockets, a real state, and a store that can be held."""

from __future__ import annotations

import asyncio
import json
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from sr_exporter.config import Endpoint, Events, Source
from sr_exporter.errors import NotKept
from sr_exporter.ingest import Ingest
from sr_exporter.metrics.events import EventMetrics
from sr_exporter.model import Change, Configured, PolledSource
from sr_exporter.sources.listeners import Listeners
from sr_exporter.state import State
from sr_exporter.store.contract import Batch, Keeping, Kept, Owed, StoreFigures
from sr_exporter.wire.events import EVENT
from tests.harness import free_port

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    from sr_exporter.outcome import Outcome
    from sr_exporter.store.contract import Store

WITHIN_SECONDS = 20.0


class HeldStore:
    """Implements `Store`: keeps nothing, and says so at once, or when the test lets it."""

    def __init__(self) -> None:
        self.held = False
        self.broken: str | None = None
        self.batches: list[Batch] = []
        self._waiting: list[asyncio.Future[None]] = []

    def load(self) -> Kept:
        return Kept("held", 0, [], [], [], [])

    def commit(self, batch: Batch) -> Keeping:
        kept = Keeping()
        self.batches.append(batch)
        self._waiting.append(kept)
        if not self.held:
            kept.get_loop().call_soon(self.release)
        return kept

    def release(self) -> None:
        """Let everything that waits be kept, or fail at it."""
        waiting, self._waiting = self._waiting, []
        for kept in waiting:
            if kept.done():
                continue
            if self.broken is None:
                kept.set_result(None)
            else:
                kept.set_exception(NotKept(self.broken))

    def changes(self, since: int, limit: int) -> asyncio.Future[list[Change]]:
        raise NotImplementedError

    def figures(self) -> StoreFigures:
        return StoreFigures(0, 0, 0.0, 0, 0, len(self._waiting), 0, self.broken)

    def retain(self, seconds: float) -> None:
        pass

    def close(self) -> None:
        self.held = False
        self.release()


class NoPlanner:
    """Implements `Planner`: nobody is owed anything."""

    def plan(self, outcome: Outcome, now: float) -> dict[str, Owed | None]:
        return {}

    def kept(self, ids: Sequence[str]) -> None:
        pass


class Ears:
    """Listens for events; `changes` is what they altered, in order."""

    def __init__(self, store: Store | None = None) -> None:
        self.state = State()
        self.store = HeldStore() if store is None else store
        self.ingest = Ingest(self.state, self.store, NoPlanner(), time.time)
        self.metrics = EventMetrics()
        self.listeners = Listeners(self.ingest, self.metrics)
        self.changes: list[Change] = []
        self.ingest.subscribe(lambda outcome: self.changes.extend(outcome.changes))

    async def configure(self, events: Events, *polled: str) -> None:
        sources = [Source(name, "http://127.0.0.1:1/mi") for name in polled]
        prepared = await self.listeners.prepare(events, sources)
        held = tuple(PolledSource(name, 60.0) for name in polled)
        senders = tuple(sorted(events.sources() - set(polled)))
        await self.ingest.observe(Configured(held, event_sources=senders))
        self.listeners.apply(prepared)

    def statuses(self, source: str) -> dict[tuple[str, str], tuple[int, str | None]]:
        """Give what is held of a source."""
        held = self.state.sources.get(source)
        return {
            (entry.group.name, entry.identifier): (entry.status, entry.details)
            for entry in (held.entries() if held else ())
        }

    def samples(self, family: str) -> dict[tuple[str, ...], float]:
        """Give the samples of a family by the values of their labels."""
        return {
            tuple(value for _, value in sample.labels): sample.value
            for found in self.metrics.families()
            if found.name == f"opensips_sr_{family}_total"
            for sample in found.samples
        }

    def accepted(self, source: str, way: str) -> float:
        return self.samples("events").get((source, way), 0)

    def rejected(self, way: str, reason: str) -> float:
        return self.samples("events_rejected")[way, reason]


@asynccontextmanager
async def ears(events: Events, *polled: str, store: Store | None = None) -> AsyncIterator[Ears]:
    """Listen as configured, and stop in the end."""
    made = Ears(store)
    await made.configure(events, *polled)
    try:
        yield made
    finally:
        if store is None:
            made.store.close()
        await made.listeners.stop()
        await made.ingest.settle()


async def until(condition: Callable[[], object]) -> None:
    """Let the loop go round until a condition holds."""
    deadline = asyncio.get_running_loop().time() + WITHIN_SECONDS
    while not condition():
        assert asyncio.get_running_loop().time() < deadline, "not in time"
        await asyncio.sleep(0.001)


def endpoint() -> Endpoint:
    """Give a free place of 127.0.0.1."""
    return Endpoint("127.0.0.1", free_port())


def event(
    status: int,
    old_status: int,
    *,
    identifier: str = "i",
    method: str = EVENT,
    request_id: object = None,
) -> bytes:
    """Write an event as OpenSIPS does."""
    params = {"group": "g", "identifier": identifier, "status": status, "old_status": old_status}
    said = {"jsonrpc": "2.0", "method": method, "params": params}
    if request_id is not None:
        said = {"id": request_id, **said}
    return json.dumps(said, separators=(",", ":")).encode()


async def objects(reader: asyncio.StreamReader, count: int) -> list[dict[str, object]]:
    """Read so many answers, and nothing after them that is there already."""
    decoder, found, text = json.JSONDecoder(), [], ""
    while len(found) < count:
        more = await asyncio.wait_for(reader.read(65536), WITHIN_SECONDS)
        assert more, f"closed after {len(found)} answers"
        text += more.decode()
        while text:
            try:
                one, end = decoder.raw_decode(text)
            except ValueError:
                break
            found.append(one)
            text = text[end:]
    assert len(found) == count
    assert not text
    return found
