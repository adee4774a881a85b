"""What is shown without being built anew is what building it anew would show."""

from __future__ import annotations

import asyncio
import gzip
import re
from itertools import chain

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Histogram

from sr_exporter.metrics import faces, pages
from sr_exporter.metrics.blocks import Block
from sr_exporter.metrics.exposition import families_of, render, select
from sr_exporter.metrics.families import families
from sr_exporter.metrics.negotiation import negotiate
from sr_exporter.metrics.own import OwnMetrics
from sr_exporter.metrics.polls import POLL_FAMILIES, PollMetrics
from sr_exporter.metrics.scrape import Exposition
from sr_exporter.model import (
    Configured,
    Forget,
    ListedReports,
    ListedStatus,
    Observation,
    OnExpiry,
    PolledSource,
    PollFailed,
    PollFailure,
    Report,
    Snapshot,
    Statement,
    Tick,
)
from sr_exporter.report_rules import ReportRules
from sr_exporter.state import State
from sr_exporter.store.contract import StoreFigures

NAMES = st.sampled_from(["main", "MAIN", "a", "b", 'q"uo\\te\n', "é"])
GROUPS = st.sampled_from(["core", "Drouting", "drouting", "x"])
SOURCES = st.sampled_from(["polled", "push", "other"])
STATUSES = st.sampled_from([1, 2, -1, -2, 2**31 - 1])
LOGS = st.sampled_from(
    ["starting DB data loading", "inactive destination", "DB data loading failed", "hello"]
)
TIMES = st.sampled_from([1000.0, 1000.5, 2000.25])

statements = st.builds(
    Statement,
    source=st.sampled_from(["push", "other"]),
    group=GROUPS,
    identifier=NAMES,
    status=STATUSES,
    details=st.none() | st.just("why"),
    reports=st.lists(LOGS, max_size=2).map(tuple),
    ttl_seconds=st.none() | st.just(5.0),
    on_expiry=st.sampled_from(OnExpiry),
)
snapshots = st.builds(
    lambda statuses, reports, complete: Snapshot(
        "polled", 10**9, 1000.0, tuple(statuses), complete=complete, reports=tuple(reports)
    ),
    st.lists(
        st.builds(ListedStatus, GROUPS, NAMES, STATUSES, st.booleans(), st.none()), max_size=6
    ),
    st.lists(
        st.builds(
            ListedReports,
            GROUPS,
            NAMES,
            st.lists(st.builds(Report, TIMES, LOGS), max_size=3).map(tuple),
        ),
        max_size=4,
    ),
    st.booleans(),
)
observations: st.SearchStrategy[Observation] = st.one_of(
    statements,
    snapshots,
    st.builds(Forget, SOURCES, st.none() | GROUPS),
    st.just(PollFailed("polled", 1000.0, PollFailure.TIMEOUT, "late")),
    st.just(Tick()),
    st.builds(
        lambda polled, off: Configured(
            (PolledSource("polled", 3.0),) * polled,
            reader=ReportRules([], off),
        ),
        st.booleans(),
        st.sampled_from([(), ("data_load_failed",)]),
    ),
)
ACCEPTS = st.sampled_from(
    [None, "application/openmetrics-text;version=1.0.0", "text/plain;version=1.0.0"]
)


class Figures:
    """A store, as far as a scrape asks it."""

    def figures(self) -> StoreFigures:
        return StoreFigures(1, 0, 0.5, 1, 0, 0, 4096, None)


class Shown:
    """An exposition that follows a state, and what it should show."""

    def __init__(self) -> None:
        self.state = State()
        self.own = OwnMetrics()
        self.store = Figures()
        self.exposition = Exposition(self.state, self.own, self.store)
        self.now = 1000.0

    def apply(self, observation: Observation) -> None:
        self.now += 2.0
        self.exposition.observe(self.state.apply(observation, self.now))

    def scraped(self, accept: str | None, names: frozenset[str] = frozenset()) -> list[str]:
        packed, plain = (
            b"".join(
                asyncio.run(
                    self.exposition.scrape(accept=accept, accept_encoding=coding, names=names)
                ).pieces()
            )
            for coding in ("gzip", None)
        )
        assert without_process(gzip.decompress(packed)) == without_process(plain)
        return without_process(plain)

    def anew(self, accept: str | None, names: frozenset[str] = frozenset()) -> list[str]:
        found = chain(families(self.state), self.own.families(self.store.figures()))
        form = negotiate(accept)
        return without_process(render(select(found, names) if names else found, form))


def without_process(text: bytes) -> list[str]:
    """Give the lines, sorted: in which order keys stand is left open. Those of the process go."""
    lines = text.decode().splitlines()
    return sorted(line for line in lines if not re.search(r"\b(process|python)_", line))


def said(number: int, status: int) -> Statement:
    return Statement("push", "g", f"i{number}", status=status)


@settings(max_examples=150)
@given(st.lists(st.tuples(observations, st.booleans()), max_size=25), ACCEPTS)
def test_same_as_anew(steps: list[tuple[Observation, bool]], accept: str | None):
    """After each observation, or after some, a scrape shows what is held, and nothing else."""
    shown = Shown()
    for observation, look in steps:
        shown.apply(observation)
        if look:
            assert shown.scraped(accept) == shown.anew(accept)
    assert shown.scraped(accept) == shown.anew(accept)
    some = frozenset({"opensips_sr_ready", "opensips_sr_reported_ready", "opensips_sr_group_ready"})
    assert shown.scraped(accept, some) == shown.anew(accept, some)


@settings(max_examples=50)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["a", 'b"', "c"]),
            st.sampled_from(["add", "remove", "took", "paced", "look"]),
            st.floats(0, 20),
        ),
        max_size=30,
    ),
    ACCEPTS,
)
def test_polls_are_shown(steps: list[tuple[str, str, float]], accept: str | None):
    """Sources join, are polled and leave: their histograms are what they would be anew."""
    shown = Shown()
    for source, what, seconds in steps:
        known = source in shown.own.polls.sources
        if what == "add":
            shown.own.add_source(source, seconds)
        elif what == "remove" and known:
            shown.own.remove_source(source)
        elif what == "took":
            shown.own.polled(source, seconds)  # of one that left, too
        elif what == "paced":
            shown.own.paced(source, seconds)
        else:
            assert shown.scraped(accept) == shown.anew(accept)
    assert shown.scraped(accept) == shown.anew(accept)
    bucket = frozenset({"opensips_sr_poll_duration_seconds_count"})
    assert shown.scraped(accept, bucket) == shown.anew(accept, bucket)


def test_the_histogram_is_prometheus_client_s():
    """Bounds, order and sums are as `prometheus_client` has them."""
    registry = CollectorRegistry()
    theirs = Histogram(
        "opensips_sr_poll_duration_seconds", "How long polls took, good or not.", ["source"],
        buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
        registry=registry,
    )  # fmt: skip
    ours = PollMetrics()
    ours.add("s", 10.0)
    for seconds in (0.0, 0.001, 0.0011, 0.3, 10.0, 11.0, 1e9):
        theirs.labels("s").observe(seconds)
        ours.took("s", seconds)
    (family,) = families_of(registry.collect())
    (found,) = (
        one for one in faces.anew(POLL_FAMILIES, ours.sources.items()) if one.kind == family.kind
    )
    assert render([found], negotiate(None)) == render([family], negotiate(None))


def test_many_pages(monkeypatch):
    """Keys come and go over many pages; what is left is shown, and room is used again."""
    monkeypatch.setattr(pages, "PAGE_KEYS", 8)
    monkeypatch.setattr(pages, "MOST_WAITING", 5)
    shown = Shown()
    for number in range(100):
        shown.apply(said(number, 1))
    for number in range(100):
        if number % 4:
            shown.apply(Forget("push", "g", f"i{number}"))
    assert shown.scraped(None) == shown.anew(None)
    for number in range(200, 260):
        shown.apply(said(number, -1))
    assert shown.scraped(None) == shown.anew(None)
    shown.apply(Forget("push"))
    assert shown.scraped(None) == shown.anew(None)


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(observations, max_size=25), st.lists(observations, max_size=10), ACCEPTS)
def test_what_was_kept_is_shown(monkeypatch, before, after, accept):
    """Keys that are taken up many at once are shown as anew, and so is what follows."""
    monkeypatch.setattr(pages, "PAGE_KEYS", 3)
    monkeypatch.setattr("sr_exporter.ledger.TAKEN_UP", 4)
    old, shown = Shown(), Shown()
    for observation in before:
        old.apply(observation)
    shown.now = old.now
    sources = old.state.sources.values()
    shown.state.restore(
        [source.record() for source in sources],
        [entry.record() for source in sources for entry in source.entries()],
        shown.now,
        old.state.tombstones,
        each=shown.exposition.restored,
    )
    assert shown.state.identifiers == old.state.identifiers
    assert len(shown.state.not_ready) == len(old.state.not_ready)
    assert shown.scraped(accept) == shown.anew(accept)
    for observation in after:
        shown.apply(observation)
    assert shown.scraped(accept) == shown.anew(accept)


def test_places_that_were_left_and_new_ones(monkeypatch):
    """Of keys that come together some take places of others, and each keeps its own texts."""
    monkeypatch.setattr(pages, "PAGE_KEYS", 8)
    shown = Shown()
    shown.apply(Configured((), reader=ReportRules([], ())))
    for number in range(5):
        shown.apply(said(number, 1))
    shown.scraped(None)
    for number in range(2):
        shown.apply(Forget("push", "g", f"i{number}"))
    assert shown.scraped(None) == shown.anew(None)
    for number in range(10, 12):
        shown.apply(said(number, 1))
    for name in "abc":
        shown.apply(Statement("push", "drouting", name, status=1))
    assert shown.scraped(None) == shown.anew(None)
    for name in "abc":
        failed = Statement("push", "drouting", name, reports=("DB data loading failed",))
        shown.apply(failed)
    matched = [line for line in shown.anew(None) if line.startswith("opensips_sr_report_matches")]
    assert sum(line.endswith(" 1.0") for line in matched) == 3
    assert shown.scraped(None) == shown.anew(None)


def blocks(shown: Shown) -> list[list[object]]:
    return [list(page.blocks) for page in shown.exposition._pages.shown()]


def test_only_what_changed_is_made_anew(monkeypatch):
    """A change of one key costs the blocks of its page, in the families in which it shows."""
    monkeypatch.setattr(pages, "PAGE_KEYS", 8)
    shown = Shown()
    for number in range(40):
        shown.apply(said(number, 1))
    shown.scraped(None)
    before = blocks(shown)
    shown.apply(said(3, -1))
    shown.scraped(None)
    after = blocks(shown)
    made = [
        (page, at)
        for page, (old, new) in enumerate(zip(before, after, strict=True))
        for at, (was, now) in enumerate(zip(old, new, strict=True))
        if was is not now
    ]
    assert made == [(0, 0), (0, 1), (0, 2), (0, 3)]
    shown.apply(said(3, -1))  # nothing new
    shown.scraped(None)
    assert all(
        one is two
        for old, new in zip(after, blocks(shown), strict=True)
        for one, two in zip(old, new, strict=True)
    )


def test_a_scrape_is_of_one_moment(monkeypatch):
    """What changes while blocks are made is shown by the next scrape, all of it."""
    monkeypatch.setattr(pages, "PAGE_KEYS", 8)
    monkeypatch.setattr("sr_exporter.metrics.scrape.SLICE_SECONDS", -1.0)
    shown = Shown()
    for number in range(200):
        shown.apply(said(number, 1))
    then = shown.anew(None)

    async def scrape() -> bytes:
        scraping = asyncio.create_task(shown.exposition.scrape())
        for number in range(200):
            await asyncio.sleep(0)  # one block is made meanwhile
            shown.apply(said(number, -number - 1))
        shown.apply(Forget("push", "g", "i7"))
        assert not scraping.done()
        return b"".join((await scraping).pieces())

    assert without_process(asyncio.run(scrape())) == then
    assert shown.scraped(None) == shown.anew(None)


@pytest.mark.parametrize("reports", [(), ("a line",)])
@pytest.mark.parametrize(
    "then", [[Forget("push", "g", "i3")], [said(99, 1)], [Forget("push", "g", "i3"), said(99, 1)]]
)
def test_what_is_outdated_and_then_moved_is_of_another_moment(monkeypatch, then, reports):
    """Every value changes, then a key leaves, joins, or takes a place: drafts have none of it."""
    monkeypatch.setattr(pages, "PAGE_KEYS", 8)
    monkeypatch.setattr(pages, "MOST_WAITING", 0)
    monkeypatch.setattr("sr_exporter.metrics.scrape.SLICE_SECONDS", -1.0)
    shown = Shown()
    for number in range(7):
        shown.apply(said(number, 1))
        shown.apply(Statement("push", "g", f"i{number}", status=1, reports=reports))
    shown.scraped(None)
    for number in range(7):
        shown.apply(said(number, 2))
    before = shown.anew(None)

    async def scrape() -> bytes:
        scraping = asyncio.create_task(shown.exposition.scrape())
        await asyncio.sleep(0)
        for number in range(7):
            shown.apply(Statement("push", "g", f"i{number}", status=-5))
        for observation in then:
            shown.apply(observation)
        return b"".join((await scraping).pieces())

    assert without_process(asyncio.run(scrape())) == before
    assert shown.scraped(None) == shown.anew(None)


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(observations, max_size=15), st.lists(observations, max_size=15), ACCEPTS)
def test_whatever_happens_meanwhile_is_of_another_moment(monkeypatch, before, meanwhile, accept):
    """Keys that come, go and change while blocks are made: the next scrape shows them."""
    monkeypatch.setattr(pages, "PAGE_KEYS", 2)
    monkeypatch.setattr(pages, "MOST_WAITING", 0)
    monkeypatch.setattr("sr_exporter.metrics.scrape.SLICE_SECONDS", -1.0)
    shown = Shown()
    for observation in before:
        shown.apply(observation)
    then = shown.anew(accept)

    async def scrape() -> bytes:
        first = asyncio.create_task(shown.exposition.scrape(accept=accept))
        for number, observation in enumerate(meanwhile):
            if number % 4 == 0:
                await asyncio.sleep(0)  # one block is made meanwhile
            shown.apply(observation)
        return b"".join((await first).pieces())

    assert without_process(asyncio.run(scrape())) == then
    assert shown.scraped(accept) == shown.anew(accept)


def test_a_scrape_that_is_given_up_costs_nothing(monkeypatch):
    """Its client went away while blocks were made: the next finds all that is right."""
    monkeypatch.setattr("sr_exporter.metrics.scrape.SLICE_SECONDS", -1.0)
    shown = Shown()
    for number in range(2000):
        shown.apply(said(number, 1))

    async def give_up() -> None:
        scraping = asyncio.create_task(shown.exposition.scrape())
        for _ in range(5):
            await asyncio.sleep(0)
        scraping.cancel()
        await asyncio.gather(scraping, return_exceptions=True)

    asyncio.run(give_up())
    shown.apply(said(1999, -1))
    assert shown.scraped(None) == shown.anew(None)
    assert all(isinstance(block, Block) for page in blocks(shown) for block in page)
