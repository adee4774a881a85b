"""A story played to a real exporter at any speed, and what it exposed, as promtool reads it.

The clock of the exporter and of its servers stands still between two steps. At each the beats that
are due are played, the exporter polls all servers that can be, and its exposition is kept. So an
hour takes seconds, and two plays of a story give the same.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import ExitStack
from itertools import groupby
from typing import TYPE_CHECKING, Any, NamedTuple, Self
from unittest import mock

from sr_exporter.config import Config, Source
from sr_exporter.errors import ConfigError, Fault
from sr_exporter.simulator.httpd import MiHttpd
from sr_exporter.simulator.node import SimulatedNode
from sr_exporter.simulator.scenario import CAST
from sr_exporter.simulator.servers import MiThread
from sr_exporter.sources import pacing
from sr_exporter.sources.poll import Poller
from tests.harness import RunningApp, Samples, eventually, samples

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence
    from pathlib import Path

BEGIN = 1_795_000_000.0
#: How far apart two scrapes are, in seconds of the story: as far as the rules allow.
STEP_SECONDS = 30
INSTANCE = {"job": "sr", "instance": "mon-1:9797"}

Labels = tuple[tuple[str, str], ...]
#: What was seen of each series at each scrape, None where it was not there.
Recorded = dict[tuple[str, Labels], list[float | None]]


class Act(NamedTuple):
    """What happens in the story at a minute, to a server of it or, by "", to the exporter."""

    minute: float
    node: str
    act: Callable[..., object]


class Turns:
    """Has each source polled once a turn, and not in between: no answer is of another minute."""

    def __init__(self, sources: int) -> None:
        self._sources = sources
        self._turn = 0
        self._asked: Counter[str] = Counter()
        self._waiting: dict[str, asyncio.Future[None]] = {}
        self._real = Poller.ask

    def __enter__(self) -> Self:
        self._patch = mock.patch.object(Poller, "ask", self._wrapped())
        self._patch.start()
        return self

    def __exit__(self, *failed: object) -> None:
        self._patch.stop()

    def _wrapped(self) -> Callable[[Poller], Awaitable[Any]]:
        async def ask(poller: Poller) -> Any:
            while self._asked[poller.source] >= self._turn:
                waiting = asyncio.get_running_loop().create_future()
                self._waiting[poller.source] = waiting
                await waiting
            self._asked[poller.source] = self._turn
            return await self._real(poller)

        return ask

    def play(self, app: RunningApp) -> None:
        """Poll each source once; returns when what was heard is applied."""
        turn = self._turn + 1
        app._loop.call_soon_threadsafe(self._next)
        # Who waits for the next turn is done with this one.
        eventually(lambda: self._turn == turn and len(self._waiting) == self._sources, within=30)

    def _next(self) -> None:
        self._turn += 1
        waiting, self._waiting = self._waiting, {}
        for one in waiting.values():
            if not one.done():
                one.set_result(None)


class Rehearsal:
    """The demo's servers and an exporter that polls them, on one clock; `with` runs them."""

    def __init__(self, folder: Path, names: frozenset[str]) -> None:
        """`names` are the samples to be recorded."""
        self._folder = folder
        self._names = names
        self.now = BEGIN
        self.nodes = {name: SimulatedNode(*cast) for name, cast in CAST.items()}
        self.recorded: Recorded = {}
        self._faulty = False
        self._refusing: set[str] = set()
        self._scrapes = 0
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        with self._stack as stack:
            stack.enter_context(mock.patch.object(pacing, "LONGEST_BACKOFF_SECONDS", 0.01))
            self._turns = stack.enter_context(Turns(len(self.nodes)))
            self._servers = {
                name: stack.enter_context(MiThread(MiHttpd(node, clock=self.clock)))
                for name, node in self.nodes.items()
            }
            self._config = Config(
                sources=tuple(
                    Source(name, server.url, poll_interval_seconds=0.01, max_share=1.0)
                    for name, server in self._servers.items()
                )
            )
            self._stack = stack.pop_all()
        self._exporter = ExitStack()
        return self

    def __exit__(self, *failed: object) -> None:
        self._exporter.close()
        self._stack.close()

    def clock(self) -> float:
        return self.now

    # --- acts on the exporter

    def start_exporter(self) -> None:
        self._app = self._exporter.enter_context(
            RunningApp(self._folder, clock=self.clock, read_config=self._read)
        )

    def stop_exporter(self) -> None:
        self._exporter.close()
        del self._app

    def reload(self, *, faulty: bool) -> None:
        self._faulty = faulty
        self._app.client.reload()

    def _read(self) -> Config:
        if self._faulty:
            raise ConfigError([Fault("sources", "a fault, for the story's sake")])
        return self._config

    # --- the play

    def play(self, story: Sequence[Act], minutes: float) -> None:
        """Play from the beginning, and scrape at each step."""
        due = sorted(story, key=lambda act: act.minute)
        for step in range(int(minutes * 60 / STEP_SECONDS) + 1):
            self.now = BEGIN + step * STEP_SECONDS
            now_due = [act for act in due if act.minute * 60 <= step * STEP_SECONDS]
            del due[: len(now_due)]
            for act in now_due:
                self._perform(act)
            if now_due and hasattr(self, "_app"):
                self._turns.play(self._app)
            self._scrape()

    def _perform(self, act: Act) -> None:
        if not act.node:
            act.act(self)
            return
        node, server = self.nodes[act.node], self._servers[act.node]
        server.call(lambda: act.act(node, self.now))
        if node.up and act.node in self._refusing:
            self._refusing.remove(act.node)
            server.listen()
        elif not node.up and act.node not in self._refusing:
            self._refusing.add(act.node)
            server.refuse()

    def _exposed(self, names: frozenset[str]) -> Samples:
        answer = self._app.client.session.get(
            f"{self._app.base}/metrics", params={"name[]": sorted(names)}, timeout=10
        )
        answer.raise_for_status()
        return samples(answer.text)

    def _scrape(self) -> None:
        found: Samples = {("up", ()): 0.0}
        if hasattr(self, "_app"):
            found = self._exposed(self._names) | {("up", ()): 1.0}
        for key in found.keys() | self.recorded.keys():
            values = self.recorded.setdefault(key, [None] * self._scrapes)
            values.append(found.get(key))
        self._scrapes += 1


def input_series(recorded: Recorded, names: frozenset[str]) -> list[dict[str, str]]:
    """Write what was recorded under these names as promtool's `input_series`."""
    return [
        {"series": _series(name, labels), "values": _values(values)}
        for (name, labels), values in sorted(recorded.items())
        if name in names
    ]


def _series(name: str, labels: Labels) -> str:
    pairs = (INSTANCE | dict(labels)).items()
    return name + "{" + ",".join(f"{label}={_quoted(text)}" for label, text in pairs) + "}"


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n") + '"'


def _values(values: Sequence[float | None]) -> str:
    """Write samples; what was there and is not is stale, as a Prometheus marks it."""
    parts = []
    before = None
    for value, same in groupby(values):
        count = sum(1 for _ in same)
        if value is None:
            parts += ["stale"] * (before is not None)
            missing = count - (before is not None)
            parts += [f"_x{missing}"] * (missing > 0)
        else:
            parts.append(f"{value!r}x{count - 1}" if count > 1 else f"{value!r}")
        before = value
    return " ".join(parts)


def firing_tests(
    expected: dict[tuple[str, ...], Sequence[tuple[float, float]]], minutes: int
) -> Any:
    """Ask at every minute what fires, and expect just that.

    `expected` has for each alert (its name, source, group, identifier and subject, as far as it
    bears them) from when to when it fires: minutes, the first one in and the last one out.
    """
    labels = ("alertname", "source", "group", "identifier", "subject")
    expr = f'count by ({", ".join(labels)}) (ALERTS{{alertstate="firing"}})'
    return [
        {
            "expr": expr,
            "eval_time": f"{minute}m",
            "exp_samples": [
                {
                    "labels": _series_of(dict(zip(labels, who, strict=False))),
                    "value": 1,
                }
                for who, spans in expected.items()
                if any(begin <= minute < end for begin, end in spans)
            ],
        }
        for minute in range(minutes + 1)
    ]


def _series_of(labels: dict[str, str]) -> str:
    return "{" + ",".join(f"{k}={_quoted(v)}" for k, v in labels.items() if v) + "}"
