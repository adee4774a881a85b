"""One source polled: what is asked, what is passed on, and what is said of it."""

from __future__ import annotations

import asyncio
from itertools import product
from typing import TYPE_CHECKING, cast

import pytest
import structlog.testing

from sr_exporter.errors import MiError
from sr_exporter.ingest import Ingest
from sr_exporter.model import (
    ChangeKind,
    Configured,
    Key,
    ListedReports,
    ListedStatus,
    Origin,
    PolledSource,
    PollFailure,
    Report,
    Snapshot,
    Statement,
)
from sr_exporter.sources.ladder import OF_SIZE
from sr_exporter.sources.listing import FAULTS_PER_POLL
from sr_exporter.sources.poll import Poller
from sr_exporter.state import State
from sr_exporter.store.contract import Kept, StoreFigures
from sr_exporter.wire import sr

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sr_exporter.mi.client import MiClient
    from sr_exporter.model import Change
    from sr_exporter.outcome import Outcome
    from sr_exporter.store.contract import Batch, Owed

NAME = "sip-1"
STATUSES = (ListedStatus("core", "main", 1, True, "running"),)
REPORTS = (ListedReports("core", "main", (Report(5, "up"),)),)
FIRST = ["statuses", "reports", "uptime", "version"]
LATER = ["statuses", "reports", "uptime"]


class MemoryStore:
    """Implements `Store` in memory: keeps every batch at once."""

    def __init__(self) -> None:
        self.batches: list[Batch] = []

    def load(self) -> Kept:
        return Kept("00000000-0000-0000-0000-000000000000", 0, [], [], [], [])

    def commit(self, batch: Batch) -> asyncio.Future[None]:
        self.batches.append(batch)
        future = asyncio.get_running_loop().create_future()
        future.set_result(None)
        return future

    def changes(self, since: int, limit: int) -> asyncio.Future[list[Change]]:
        raise NotImplementedError

    def figures(self) -> StoreFigures:
        return StoreFigures(0, 0, 0.0, 0, 0, 0, 0, None)

    def retain(self, seconds: float) -> None:
        pass

    def close(self) -> None:
        pass


class NoPlans:
    """Implements `Planner`: nothing is owed to anybody."""

    def plan(self, outcome: Outcome, now: float) -> dict[str, Owed | None]:
        return {}

    def kept(self, ids: Sequence[str]) -> None:
        pass


class FakeClient:
    """Answers as `MiClient` does; what is in `failing` fails so instead."""

    transport_name = "http"

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.rests = 0
        self.failing: dict[str, PollFailure] = {}
        self.listed = sr.Statuses(STATUSES, frozenset(), complete=True, faults=())
        self.rings = sr.Reports(REPORTS, ())
        self.uptime = 100.0
        self.said_version = "4.0.1"
        self.before: Callable[[str], None] = lambda what: None

    def _ask(self, what: str) -> None:
        self.asked.append(what)
        self.before(what)
        if what in self.failing:
            raise MiError(self.failing[what], f"{what} failed")

    def asked_now(self) -> list[str]:
        asked, self.asked = self.asked, []
        return asked

    async def statuses(self) -> sr.Statuses:
        self._ask("statuses")
        return self.listed

    async def reports(self) -> sr.Reports:
        self._ask("reports")
        return self.rings

    async def uptime_seconds(self) -> float:
        self._ask("uptime")
        return self.uptime

    async def version(self) -> str:
        self._ask("version")
        return self.said_version

    def rest(self) -> None:
        self.rests += 1


class Bench:
    """A poller of one source, with everything behind it real but the store."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.client = FakeClient()
        self.state = State()
        self.store = MemoryStore()
        self.outcomes: list[Outcome] = []
        self.ingest = Ingest(self.state, self.store, NoPlans(), lambda: self.now)
        self.ingest.subscribe(self.outcomes.append)
        self.poller = self.a_poller()

    def a_poller(self) -> Poller:
        return Poller(
            NAME,
            cast("MiClient", self.client),
            self.ingest,
            clock=lambda: self.now,
        )

    async def configure(self) -> None:
        await self.ingest.observe(Configured((PolledSource(NAME, 60.0),)))

    async def poll(self) -> bool:
        heard = await self.poller.ask()
        await self.ingest.observe(heard)
        good = isinstance(heard, Snapshot)
        self.now += 10.0
        self.client.uptime += 10.0
        return good

    @property
    def changes(self) -> list[ChangeKind]:
        return [change.kind for outcome in self.outcomes for change in outcome.changes]


def bench(script: Callable[[Bench], object]) -> Bench:
    """Run a script of polls on a new bench."""
    made = Bench()

    async def run() -> None:
        await made.configure()
        await script(made)  # type: ignore[misc]
        await made.ingest.settle()

    asyncio.run(run())
    return made


def test_a_good_poll_is_passed_on_whole():
    """Statuses, reports, up time and version arrive in the state, and are kept."""

    async def script(b: Bench) -> None:
        assert await b.poll()

    b = bench(script)
    entry = b.state.entry(Key(NAME, "core", "main"))
    assert entry is not None
    assert (entry.status, entry.details, entry.reports) == (1, "running", (Report(5, "up"),))
    assert entry.changed_at == 1000.0
    source = b.state.sources[NAME]
    assert (source.up, source.version, source.start_time) == (True, "4.0.1", 900.0)
    assert source.transport == "http"
    assert source.last_error is None
    assert b.client.asked == FIRST
    assert any(Key(NAME, "core", "main") in batch.keys for batch in b.store.batches)


# Refused for what may be its size, a listing is asked in pieces: test_listing.py.
@pytest.mark.parametrize("reason", sorted(set(PollFailure) - OF_SIZE))
def test_a_poll_is_as_good_as_its_statuses(reason):
    """Without statuses the poll failed, by its reason, and nothing else is asked."""

    async def script(b: Bench) -> None:
        assert await b.poll()
        b.client.asked_now()
        b.client.failing["statuses"] = reason
        assert not await b.poll()

    b = bench(script)
    source = b.state.sources[NAME]
    assert b.client.asked == ["statuses"]
    assert not source.up
    assert source.poll_failures_total == {reason: 1}
    assert source.last_error == "statuses failed"
    assert b.changes == [ChangeKind.APPEARED, ChangeKind.SOURCE_DOWN]
    assert b.state.entry(Key(NAME, "core", "main")) is not None


@pytest.mark.parametrize(
    ("what", "reason"),
    [
        ("reports", PollFailure.RPC_ERROR),
        *product(
            ("uptime", "version"),
            (PollFailure.RPC_ERROR, PollFailure.HTTP_STATUS, PollFailure.MALFORMED),
        ),
    ],
)
def test_other_failures_are_faults_of_a_good_poll(what, reason):
    """What else fails is counted and shown, and everything after it still asked."""

    async def script(b: Bench) -> None:
        b.client.failing[what] = reason
        assert await b.poll()

    b = bench(script)
    source = b.state.sources[NAME]
    assert source.up
    assert source.poll_failures_total == {reason: 1}
    assert source.last_error == f"{what} failed"
    assert b.client.asked == FIRST
    assert b.changes == [ChangeKind.APPEARED]


@pytest.mark.parametrize(
    ("what", "asked", "reason"),
    [
        ("reports", ["statuses", "reports"], PollFailure.CONNECT),
        ("uptime", LATER, PollFailure.CONNECT),
        ("uptime", LATER, PollFailure.TIMEOUT),
        ("version", FIRST, PollFailure.CONNECT),
        ("version", FIRST, PollFailure.TIMEOUT),
    ],
)
def test_a_peer_that_is_gone_is_asked_nothing_more(what, asked, reason):
    """After a time-out the statuses already heard do not wait for another one."""

    async def script(b: Bench) -> None:
        b.client.failing[what] = reason
        assert await b.poll()

    b = bench(script)
    assert b.client.asked == asked
    assert b.state.sources[NAME].poll_failures_total == {reason: 1}
    assert b.state.entry(Key(NAME, "core", "main")) is not None


def test_reports_that_fail_forget_no_reports():
    """A poll without reports leaves those that are held."""

    async def script(b: Bench) -> None:
        await b.poll()
        b.client.failing["reports"] = PollFailure.RPC_ERROR
        await b.poll()
        del b.client.failing["reports"]
        b.client.rings = sr.Reports(
            (ListedReports("core", "main", (Report(5, "up"), Report(6, "more"))),), ()
        )
        await b.poll()

    entry = bench(script).state.entry(Key(NAME, "core", "main"))
    assert entry is not None
    assert entry.reports_total == 2
    assert len(entry.reports) == 2


def test_items_left_out_are_counted_up_to_a_limit():
    """Each item that could not be read is a fault; a peer could make millions."""

    async def script(b: Bench) -> None:
        faults = tuple(f"bad {index}" for index in range(5_000))
        b.client.listed = sr.Statuses(STATUSES, frozenset({"core"}), complete=True, faults=faults)
        b.client.rings = sr.Reports((), ("bad report",))
        assert await b.poll()

    b = bench(script)
    assert b.state.sources[NAME].poll_failures_total == {PollFailure.MALFORMED: FAULTS_PER_POLL}
    group = b.state.sources[NAME].groups["core"]
    assert not group.complete


@pytest.mark.parametrize(
    ("partial", "complete", "left"),
    [(frozenset(), True, False), (frozenset({"core"}), True, True), (frozenset(), False, True)],
)
def test_only_a_complete_list_removes(partial, complete, left):
    """What a list could not be read whole of is not removed by it."""

    async def script(b: Bench) -> None:
        await b.poll()
        b.client.listed = sr.Statuses((), partial, complete=complete, faults=())
        assert await b.poll()

    assert (bench(script).state.entry(Key(NAME, "core", "main")) is not None) == left


def test_the_version_is_asked_at_first_after_a_failure_and_after_a_restart():
    """It costs a request, and changes only with a restart."""
    asked = []

    async def script(b: Bench) -> None:
        async def poll() -> None:
            await b.poll()
            asked.append(b.client.asked_now())

        await poll()
        await poll()
        await poll()
        b.client.failing["statuses"] = PollFailure.CONNECT
        await poll()
        b.client.failing.clear()
        await poll()
        await poll()
        b.client.uptime = 3.0
        b.client.said_version = "4.0.2"
        await poll()
        await poll()

    b = bench(script)
    assert asked == [FIRST, LATER, LATER, ["statuses"], FIRST, LATER, FIRST, LATER]
    assert b.state.sources[NAME].version == "4.0.2"


def test_a_version_that_could_not_be_had_is_asked_for_again():
    """Until it is known, every poll asks for it."""

    async def script(b: Bench) -> None:
        b.client.failing["version"] = PollFailure.RPC_ERROR
        await b.poll()
        await b.poll()
        b.client.failing.clear()
        await b.poll()
        await b.poll()

    b = bench(script)
    assert b.client.asked == [*FIRST, *FIRST, *FIRST, *LATER]


def test_the_start_time_is_that_of_the_question():
    """However long the listings take, the up time is counted from when the poll began."""

    async def script(b: Bench) -> None:
        def slow(what: str) -> None:
            if what == "reports":
                b.now += 3.0
                b.client.uptime += 3.0

        b.client.before = slow
        await b.poll()

    assert bench(script).state.sources[NAME].start_time == 900.0


def test_up_time_in_whole_seconds_is_no_restart():
    """Polls closer than a second, each taking its time, see one life of the server."""
    starts = set()

    async def script(b: Bench) -> None:
        truth = 100.05

        def slow(what: str) -> None:
            nonlocal truth
            took = {"reports": 0.01 + (b.now * 7) % 0.3}.get(what, 0.0)
            b.now += took
            truth += took
            b.client.uptime = float(int(truth))

        b.client.before = slow
        for _ in range(100):
            await b.ingest.observe(await b.poller.ask())
            starts.add(b.state.sources[NAME].start_time)
            b.now += 0.1
            truth += 0.1

    b = bench(script)
    assert len(starts) == 1
    assert b.client.asked.count("version") == 1


def test_a_snapshot_speaks_as_of_its_question():
    """What an event says while the poll is under way outranks the poll's answer."""

    async def script(b: Bench) -> None:
        await b.poll()

        def event(what: str) -> None:
            if what == "reports":
                said = Statement(NAME, "core", "main", -1, old_status=1, origin=Origin.EVENT)
                b.state.apply(said, b.now)

        b.client.before = event
        await b.poll()

    entry = bench(script).state.entry(Key(NAME, "core", "main"))
    assert entry is not None
    assert entry.status == -1


def test_failures_are_logged_once_and_their_end_once():
    """A night of failures is two lines."""

    async def script(b: Bench) -> None:
        for _ in range(3):
            await b.poll()
        b.client.failing["statuses"] = PollFailure.CONNECT
        for _ in range(5):
            await b.poll()
        b.client.failing.clear()
        for _ in range(3):
            await b.poll()
        b.client.failing["reports"] = PollFailure.RPC_ERROR
        for _ in range(3):
            await b.poll()
        b.client.failing.clear()
        await b.poll()

    with structlog.testing.capture_logs() as lines:
        bench(script)
    assert [
        (line["log_level"], line["event"], line["source"], line.get("error")) for line in lines
    ] == [
        ("warning", "source is down", NAME, "statuses failed"),
        ("info", "source answers again", NAME, None),
        ("warning", "source answers in part", NAME, "reports failed"),
        ("info", "source answers again", NAME, None),
    ]
    assert lines[0]["reason"] == PollFailure.CONNECT
