"""How long a poll of one server takes, from the bytes of its answers to the journal on disk.

It runs inside this process: what answers is no network, but what was written beforehand.
"""

from __future__ import annotations

import asyncio
import json
import time
from contextlib import closing
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Gauge

from sr_exporter.ingest import Ingest
from sr_exporter.mi.client import MiClient
from sr_exporter.model import Configured, PolledSource, PollFailed
from sr_exporter.sources.poll import Poller
from sr_exporter.state import State
from sr_exporter.store.sqlite import SqliteStore
from tests.bench.figures import CLIENT, OURS, at_most
from tests.bench.held import identifier

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sr_exporter.outcome import Outcome
    from sr_exporter.store.contract import Owed
    from tests.bench.setting import Setting

SOURCE, GROUP = "sip-1", "uac_registrant"
#: As recorded from OpenSIPS 4.0.1.
_ANSWERS = {
    "uptime": b'{"Now":"Sun Nov 22 20:01:52 2026","Up since":"Sun Nov 22 20:01:22 2026",'
    b'"Up time":"30 [sec]"}',
    "version": b'{"Server":"OpenSIPS (4.0.1 (x86_64/linux))"}',
}


def run(setting: Setting) -> None:
    """Poll the same again, and with a little changed, beside what is commonly done instead."""
    asyncio.run(_measure(setting))


async def _measure(setting: Setting) -> None:
    names = [identifier(number, setting.name_bytes) for number in range(setting.identifiers)]
    every = max(1, min(100, len(names) // 2))
    before = _statuses(names, set())
    later = _statuses(names, set(range(0, len(names), every)))
    no_reports, reports = b"[]", _reports(names)
    figures = setting.figures
    store = SqliteStore(setting.folder / "ours")
    with closing(store):
        polled = await _Polled.by(store)
        figures.measured("first poll", OURS, [await polled.poll(before, no_reports)], "s")
        registry = CollectorRegistry()
        gauge = Gauge(
            "opensips_sr_status", "", ["source", "group", "identifier"], registry=registry
        )
        found: dict[str, list[float]] = {name: [] for name in ("same", "changed", CLIENT)}
        ways = ((before, later), (later, before))
        for turn in range(setting.rounds):
            now, then = ways[turn % 2]
            found["same"].append(await polled.poll(now, no_reports))
            found["changed"].append(await polled.poll(then, no_reports))
            found[CLIENT].append(_set(gauge, then))
        last = ways[setting.rounds % 2][0]
        await polled.poll(last, reports)
        rings = [await polled.poll(last, reports) for _ in range(setting.rounds)]
        await polled.end()
    theirs = figures.measured("json.loads, and a gauge set for each", CLIENT, found[CLIENT], "s")
    same = figures.measured("identical answer", OURS, found["same"], "s")
    changed = figures.measured("1 % changed", OURS, found["changed"], "s")
    figures.measured("identical, with a report of each", OURS, rings, "s")
    figures.measured("answer", "opensips", [len(before)], "B")
    figures.measured("answer of reports", "opensips", [len(reports)], "B")
    figures.judged("identical: times prometheus_client's time", same / theirs, at_most(1 / 20))
    figures.judged("1 % changed: times prometheus_client's time", changed / theirs, at_most(1 / 3))


class _Polled:
    """One source, its state and its store, without the rest of an exporter."""

    def __init__(self, ingest: Ingest, transport: _Written) -> None:
        self._ingest = ingest
        self._transport = transport
        self._poller = Poller(SOURCE, MiClient(transport), ingest, clock=time.time)

    @classmethod
    async def by(cls, store: SqliteStore) -> _Polled:
        """Open the store, and configure the source."""
        kept = store.load()
        state = State(last_seq=kept.last_seq)
        ingest = Ingest(state, store, _OwesNothing(), time.time)
        await ingest.observe(Configured((PolledSource(SOURCE, 60.0),), 10_000_000))
        return cls(ingest, _Written())

    async def poll(self, statuses: bytes, reports: bytes) -> float:
        """Poll once; give how many seconds it took until all was kept."""
        self._transport.written = {
            **_ANSWERS,
            "sr_list_status": statuses,
            "sr_list_reports": reports,
        }
        began = time.perf_counter()
        heard = await self._poller.ask()
        await self._ingest.observe(heard)
        took = time.perf_counter() - began
        if isinstance(heard, PollFailed) or heard.faults:
            raise RuntimeError(f"the poll is not good: {heard}"[:500])
        return took

    async def end(self) -> None:
        await self._ingest.settle()


class _Written:
    """Implements `Transport`: every command has its answer already."""

    name = "http"

    def __init__(self) -> None:
        self.written: dict[str, bytes] = {}

    async def ask(self, request: bytes) -> bytes:
        asked = json.loads(request)
        result = self.written[asked["method"]]
        # All that differs from answer to answer, and OpenSIPS writes it last.
        return b'{"jsonrpc":"2.0","result":%b,"id":%d}' % (result, asked["id"])

    def rest(self) -> None:
        """Keep what there is."""


class _OwesNothing:
    """Implements `Planner` where there is nobody to be told."""

    def plan(self, outcome: Outcome, now: float) -> dict[str, Owed | None]:
        return {}

    def kept(self, ids: Sequence[str]) -> None:
        """Deliver nothing."""


def _statuses(names: Sequence[str], lost: set[int]) -> bytes:
    """Write what `sr_list_status` answers, the result alone."""
    well = {"Readiness": True, "Status": 1, "Details": "REGISTERED_STATE"}
    unwell = {"Readiness": False, "Status": -1, "Details": "NOT_REGISTERED_STATE"}
    listed = [
        {"Name": name, **(unwell if number in lost else well)} for number, name in enumerate(names)
    ]
    return _written([{"Name": GROUP, "Identifiers": listed}])


def _reports(names: Sequence[str]) -> bytes:
    """Write what `sr_list_reports` answers, with one report of each, the result alone."""
    report = {"Timestamp": 1795378068, "Date": "Sun Nov 22 20:07:48 2026", "Log": "registered"}
    listed = [{"Name": name, "Reports": [report]} for name in names]
    return _written([{"Name": GROUP, "Identifiers": listed}])


def _written(result: object) -> bytes:
    return json.dumps(result, separators=(",", ":")).encode()


def _set(gauge: Gauge, text: bytes) -> float:
    began = time.perf_counter()
    for group in json.loads(text):
        for item in group["Identifiers"]:
            gauge.labels(SOURCE, group["Name"], item["Name"]).set(item["Status"])
    return time.perf_counter() - began
