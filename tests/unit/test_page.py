"""What a page shows of many keys: those that matter first, and the numbers of all."""

from __future__ import annotations

import asyncio
import re
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sr_exporter.config.values import AlertRule
from sr_exporter.ingest import Ingest
from sr_exporter.model import (
    Configured,
    Forget,
    ListedStatus,
    PolledSource,
    PollFailed,
    PollFailure,
    Snapshot,
    Statement,
)
from sr_exporter.notify.alerts import Links
from sr_exporter.notify.book import AlertBook
from sr_exporter.state import State
from sr_exporter.web import finding
from sr_exporter.web.filters import Filters, Readiness
from sr_exporter.web.finding import find, place
from sr_exporter.web.page import PageRoutes
from sr_exporter.wire.slices import at_once
from tests.unit.test_ingest import FakePlanner, FakeStore
from tests.unit.test_notify_book import Bench

if TYPE_CHECKING:
    from collections.abc import Callable

SAID = st.lists(
    st.builds(
        Statement,
        source=st.sampled_from(["a", "b", "Down"]),
        group=st.sampled_from(["g", "H", "core"]),
        identifier=st.sampled_from(["a", "B", "c", "bc", "d"]),
        status=st.sampled_from([1, -1]),
    ),
    max_size=40,
)
ASKED = st.builds(
    Filters,
    source=st.sampled_from(["", "a", "DO", "x"]),
    group=st.sampled_from(["", "h", "o", "?"]),
    identifier=st.sampled_from(["", "b", "C", "*c", "x"]),
    ready=st.sampled_from(Readiness),
)


class Asking:
    """Implements `Polls`: nobody is polled."""

    def __init__(self, since: dict[str, float] | None = None) -> None:
        self._since = since or {}

    def subscriptions(self) -> dict[str, Any]:
        return {}

    def asking(self) -> dict[str, float]:
        return self._since


async def _nothing() -> None:
    pass


def pages(
    state: State, ingest: Any, clock: Callable[[], float], polls: Asking | None = None, **more: Any
) -> PageRoutes:
    """Make the routes, over a store that is empty, and a book of alerts that nobody writes."""
    book = more.pop("book", None) or AlertBook(state, Links("http://sr"))
    return PageRoutes(
        state,
        ingest,
        FakeStore([]),
        book,
        polls or Asking(),
        clock,
        **{"catch_up": _nothing, **more},
    )


def meant(asked: str, held: str, names: set[str]) -> bool:
    """Whether a name is meant, said in another way."""
    asked, held = asked.lower(), held.lower()
    if "*" in asked or "?" in asked:
        return re.fullmatch(asked.replace("*", ".*").replace("?", "."), held) is not None
    return held == asked if asked in names else asked in held


@given(SAID, ASKED, st.sampled_from([1, 3, 500]))
def test_every_page_together_shows_what_is_asked_for(said, asked, rows):
    """Each once, by source, group and identifier; what is not ready, and the numbers, beside."""
    state = State()
    for one in said:
        state.apply(one, 1000.0)
    state.apply(Configured((PolledSource("Down", 60.0),)), 1000.0)  # never heard
    held = [entry for source in state.sources.values() for entry in source.entries()]
    if asked.source:
        names = set(state.sources)
        exact = asked.source in names
        held = [
            entry
            for entry in held
            if (
                entry.key.source == asked.source
                if exact
                else asked.source.lower() in entry.key.source.lower()
            )
        ]
    if asked.group:
        names = {entry.key.group.lower() for entry in held}
        held = [entry for entry in held if meant(asked.group, entry.key.group, names)]
    if asked.identifier:
        names = {entry.identifier.lower() for entry in held}
        held = [entry for entry in held if meant(asked.identifier, entry.identifier, names)]

    def standing(entry) -> Readiness:
        if entry.key.source == "Down":
            return Readiness.UNKNOWN
        return Readiness.READY if entry.ready else Readiness.NOT_READY

    wanted = sorted(
        (entry for entry in held if asked.ready in ("", standing(entry))),
        key=place,
    )
    standings = [standing(entry) for entry in held]
    before = finding.PAGE_ROWS, finding.URGENT_ROWS, finding.AT_ONCE
    finding.PAGE_ROWS, finding.URGENT_ROWS, finding.AT_ONCE = rows, rows, 10
    try:
        shown = []
        while True:
            found = at_once(find(state, asked))
            shown += found.entries
            assert len(found.entries) <= rows
            assert found.total == len(held)
            assert found.not_ready == standings.count(Readiness.NOT_READY)
            assert found.unknown == standings.count(Readiness.UNKNOWN)
            if asked.after is None and not asked.ready:
                urgent = [entry for entry in held if standing(entry) is Readiness.NOT_READY]
                urgent.sort(key=lambda entry: (entry.key.group != "core", entry.key))
                assert found.urgent == urgent[:rows]
            else:
                assert found.urgent == []
            if not found.more:
                break
            asked = Filters(
                asked.source, asked.group, asked.identifier, asked.ready, after=place(shown[-1])
            )
    finally:
        finding.PAGE_ROWS, finding.URGENT_ROWS, finding.AT_ONCE = before
    assert [entry.key for entry in shown] == [entry.key for entry in wanted]


class Kept:
    """A state, and the pages over it."""

    def __init__(self, state: State | None = None, **more: Any) -> None:
        self.now = 1000.0
        self.state = State() if state is None else state
        self.ingest = Ingest(self.state, FakeStore([]), FakePlanner([]), lambda: self.now)
        self.pages = pages(self.state, self.ingest, lambda: self.now, **more)

    def look(self, path: str = "/", **query: str) -> tuple[int, str]:
        request = SimpleNamespace(
            query_params=query,
            headers={},
            scope={"raw_path": path.encode()},
            url=SimpleNamespace(path=path),
        )
        serve = self.pages.index if path == "/" else self.pages.source
        answer = asyncio.run(serve(cast("Any", request)))
        return answer.status_code, re.sub(r"\s+", " ", re.sub("<[^>]*>", "", answer.body.decode()))


def test_what_is_well_by_now_is_not_shown_as_if_it_were_not(monkeypatch):
    """There may be others between what is looked for and what is shown."""
    kept = Kept()
    for name in "abc":
        kept.state.apply(Statement("push", "g", name, -1), 1000.0)
    found = at_once(find(kept.state, Filters()))
    kept.state.apply(Statement("push", "g", "a", 1), 1000.0)
    kept.state.apply(Forget("push", "g", "b"), 1000.0)
    asked = Filters()

    async def again(_: object) -> Any:
        return found

    monkeypatch.setattr("sr_exporter.web.page.in_turns", again)
    _, said = kept.look()
    wrong = said[said.index("Not ready now") : said.index("Sources")]
    assert "push / g / c" in wrong
    assert "push / g / a" not in wrong
    assert "push / g / b" not in wrong
    assert asked.after is None


def test_a_source_that_is_asked_for_the_first_time_says_so():
    """Long work shows: since when it is asked."""
    kept = Kept(polls=Asking({"sip-1": 940.0, "sip-2": 990.0}))
    kept.state.apply(Configured((PolledSource("sip-1", 60.0), PolledSource("sip-2", 60.0))), 900.0)
    failed = PollFailed("sip-2", 950.0, PollFailure.CONNECT, "connection refused")
    kept.state.apply(failed, 950.0)
    status, said = kept.look()
    assert status == 200
    assert "sip-1 not heard yet being asked since 00:15:40 (1 min)" in said
    assert "0 not ready, 1 source down" in said
    assert "1 source not heard yet" in said
    assert "DOWN sip-2 connection refused for 50 s, since 00:15:50 UTC" in said


@pytest.mark.parametrize("count", [51, 120])
def test_of_many_sources_a_page_shows_some_and_leads_to_the_others(count):
    """Those in trouble first."""
    kept = Kept()
    for number in range(count):
        kept.state.apply(Statement(f"s{number:03}", "g", "i", -1 if number == 40 else 1), 1000.0)
    _, said = kept.look()
    table = said[said.index("Last error") :]
    assert table.index("s040") < table.index("s000")
    assert f"50 of {count} are shown, those in trouble first." in said
    _, said = kept.look(sources_from="50")
    table = said[said.index("Last error") : said.index("Identifiers", said.index("Last error"))]
    assert "s050" in table
    assert "s000" not in table


def test_alerts_that_take_long_to_look_at_hold_no_page_up():
    """It says so, and they are looked at all the same."""
    kept = Kept(catch_up=lambda: asyncio.sleep(3600.0))
    kept.state.apply(Statement("push", "g", "a", -1), 1000.0)
    _, said = kept.look()
    assert "Alerts are still being looked at" in said


def test_alerts_that_fire_are_shown_also_where_all_is_well_again():
    """Beside what they are about; those that a rule keeps, by themselves."""
    written = Bench()
    written.reload(AlertRule(keep_firing_seconds=60.0))
    kept = Kept(written.state, book=written.book)
    written.push(-1, details="down")
    _, said = kept.look()
    assert "NOT READY push / g / main alert fires, warning" in said
    assert "Alerts that fire on" not in said
    written.push(1)
    _, said = kept.look()
    assert "FIRES ON push / g / main OpenSIPSNotReady" in said
    assert "Alerts that fire on" in kept.look("/sources/push")[1]
    assert "Alerts that fire on" not in kept.look(source="other")[1]
    written.later(60)
    _, said = kept.look()
    assert "Alerts that fire on" not in said


def test_the_time_before_the_start_in_which_a_source_was_not_heard_is_a_gap():
    """From the last answer to another run of the exporter on."""
    kept = Kept(heard_before={"sip-1": 700.0})
    kept.state.apply(Configured((PolledSource("sip-1", 60.0),)), 800.0)
    statuses = (ListedStatus("core", "main", 1, ready=True, details=None),)
    kept.state.apply(Snapshot("sip-1", 1, 400.0, statuses), 400.0)
    _, said = kept.look("/sources/sip-1", group="core", identifier="main")
    assert "00:11:40 UTC 5 min until now not known" in said
