"""However much there is to do, nothing holds the loop for long.

What is measured is how long its thread worked between two looks at it, not how long that took:
machines that test are busy with more than this. `LOOP_HELD_KEYS=1000000` is a run by hand.
"""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import os
import time
import uuid
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest

from sr_exporter.config.values import Send
from sr_exporter.errors import PushRefused
from sr_exporter.heap import Frost
from sr_exporter.ingest import Ingest
from sr_exporter.metrics.own import OwnMetrics
from sr_exporter.metrics.scrape import Exposition
from sr_exporter.model import (
    PUSH_SOURCE,
    Configured,
    Forget,
    ListedStatus,
    PolledSource,
    Snapshot,
    Statement,
)
from sr_exporter.notify.alerts import Links
from sr_exporter.notify.book import AlertBook
from sr_exporter.notify.edges import EdgeNotifier
from sr_exporter.notify.outbox import Outbox
from sr_exporter.notify.rules import Rules
from sr_exporter.order import Order
from sr_exporter.state import State
from sr_exporter.turns import in_turns
from sr_exporter.web import bodies
from sr_exporter.web.access import Access
from sr_exporter.web.items import status_item
from sr_exporter.web.keys import Keys, Where, _key
from sr_exporter.web.mi import MiRoute
from sr_exporter.wire.push import statements_in_slices
from tests.unit.test_ingest import FakePlanner, FakeStore
from tests.unit.test_page import pages

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

pytestmark = pytest.mark.lengthy

KEYS = int(os.environ.get("LOOP_HELD_KEYS", "20000"))
#: Twice what is promised: a core that is shared, and its caches, take more time for the same.
MOST_SECONDS = 0.1
SIP = "sip-1"


class Keeping(FakeStore):
    """Keeps nothing, at once."""

    def commit(self, _: object) -> asyncio.Future[None]:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        future.set_result(None)
        return future


class OwingNothing(FakePlanner):
    def plan(self, *_: object) -> dict[str, Any]:
        return {}


class Kept:
    """What the exporter is made of, on a loop that is watched."""

    def __init__(self) -> None:
        self.now = 1e9
        self.state = State(limit_identifiers=3 * KEYS)
        self.ingest = self.open(OwingNothing([]))
        self.longest = 0.0

    def open(self, planner: Any) -> Ingest:
        store = Keeping([])
        ingest = Ingest(self.state, store, planner, lambda: self.now)
        ingest.subscribe(Exposition(self.state, OwnMetrics(), store).observe)
        return ingest

    async def watch(self) -> None:
        last = time.thread_time()
        while True:
            await asyncio.sleep(0)
            now = time.thread_time()
            self.longest = max(self.longest, now - last)
            last = now

    @contextlib.asynccontextmanager
    async def not_held(self) -> AsyncIterator[None]:
        """Fail where the loop is held for long."""
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        self.longest = 0.0
        yield
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert self.longest < MOST_SECONDS


@pytest.fixture(autouse=True)
def _collector() -> Iterator[None]:
    """As it is where this runs: what the tests made so far is not looked through."""
    frost = Frost()
    frost.wait()
    frost.begin()
    yield
    frost.end()


def run(act: Callable[[Kept], Awaitable[None]]) -> None:
    async def acted() -> None:
        kept = Kept()
        watching = asyncio.create_task(kept.watch())
        await act(kept)
        watching.cancel()

    asyncio.run(acted())


def pushed(status: int = 1, **more: Any) -> list[Statement]:
    return [Statement(PUSH_SOURCE, "job", f"i{number}", status, **more) for number in range(KEYS)]


def listed(kept: Kept, count: int, first: int = 0, status: int = 1) -> Snapshot:
    statuses = tuple(
        ListedStatus("uac", f"i{number}", status, status > 0, None)
        for number in range(first, first + count)
    )
    return Snapshot(SIP, kept.state.revision, kept.now, statuses)


def test_the_watch_sees_a_loop_that_is_held():
    """It would not fail otherwise."""

    async def hold(kept: Kept) -> None:
        async with kept.not_held():
            end = time.thread_time() + 2 * MOST_SECONDS
            while time.thread_time() < end:
                pass

    async def act(kept: Kept) -> None:
        with pytest.raises(AssertionError):
            await hold(kept)

    run(act)


@pytest.mark.parametrize("as_lines", [True, False])
def test_reading_a_long_push(as_lines):
    """Whether it is well formed or not, compressed or not. Of a few keys nothing would be seen."""
    items = [b'{"group":"job","identifier":"i%d","status":1}' % number for number in range(200_000)]
    body = b"\n".join(items) if as_lines else b"[%b]" % b",".join(items)
    wrong = body.replace(b'"i199999","status":1', b'"i199999","status":"up"')
    packed = gzip.compress(body, 1)

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": packed}

    async def act(kept: Kept) -> None:
        request = SimpleNamespace(
            scope={"headers": [(b"content-encoding", b"gzip")]}, receive=receive
        )
        async with kept.not_held():
            read = await bodies.read(cast("Any", request), 2**25)
        assert read == body
        async with kept.not_held():
            statements = await in_turns(statements_in_slices(body))
        assert len(statements) == 200_000
        async with kept.not_held():
            with pytest.raises(PushRefused, match="1 item is wrong"):
                await in_turns(statements_in_slices(wrong))

    run(act)


async def look_at_pages(kept: Kept) -> None:
    """See what a person may ask for where nothing is ready."""
    page = pages(kept.state, kept.ingest, lambda: kept.now)
    unsaid: dict[str, str] = {}
    for query, said in (
        (unsaid, f"{KEYS:,} not ready"),
        ({"identifier": "i"}, f"{KEYS:,} not ready"),
        ({"identifier": "*9"}, f"{KEYS // 10:,} not ready"),
        ({"ready": "false"}, f"{KEYS:,} not ready"),
        ({"ready": "true"}, "Nothing like that is held now"),
        ({"after": f"{PUSH_SOURCE}/job/i{KEYS // 2}"}, "First page"),
    ):
        request = SimpleNamespace(query_params=query, headers={})
        if query is unsaid:
            await page.index(cast("Any", request))  # its template is read
        async with kept.not_held():
            shown = await page.index(cast("Any", request))
        assert said in shown.body.decode()


def test_many_keys_that_are_pushed_expire_and_are_forgotten():
    """Where there is room for them, and where there is not."""

    async def act(kept: Kept) -> None:
        items, again = pushed(ttl_seconds=60.0), pushed(-1, ttl_seconds=60.0)
        async with kept.not_held():
            assert await kept.ingest.push(items) == KEYS
        kept.now += 30.0
        async with kept.not_held():
            assert await kept.ingest.push(again) == KEYS
        kept.state.limit_identifiers = 2 * KEYS - 1
        others = [Statement("other", "job", said.identifier, 1) for said in items]
        async with kept.not_held():
            with pytest.raises(PushRefused, match=f"1 of {KEYS} items"):
                await kept.ingest.push(others)
        async with kept.not_held():
            kept.now += 30.0  # what was put off is looked at
            await kept.ingest.catch_up()
        async with kept.not_held():
            kept.now += 30.0
            await kept.ingest.catch_up()
        assert kept.state.entry(items[0]) is not None
        assert all(entry.expired for entry in kept.state.not_ready)
        await look_at_pages(kept)
        async with kept.not_held():
            assert await kept.ingest.forget(Forget(PUSH_SOURCE, "job", f"i{KEYS - 1}")) == 1
        async with kept.not_held():
            assert await kept.ingest.forget(Forget(PUSH_SOURCE)) == KEYS - 1

    run(act)


def test_pages_of_many_keys():
    """Of one group, of as many groups, and of as many sources; of all and of few that fit."""

    async def act(kept: Kept) -> None:
        order = Order(kept.state)
        kept.ingest.subscribe(order.observe)
        keys = Keys(kept.state, order)
        await kept.ingest.push(pushed())
        await kept.ingest.push(
            [Statement("groups", f"g{number}", "i", 1) for number in range(KEYS)]
        )
        await kept.ingest.push(
            [Statement(f"source-{number}", "g", "main", -1) for number in range(KEYS // 2)]
        )
        for where in (
            Where(None, None, None, None),
            Where("groups", None, None, None),
            Where(PUSH_SOURCE, "job", None, None),
            Where(None, None, "main", None),
            Where(None, "g1", None, None),
            Where(None, None, None, False),
            Where(PUSH_SOURCE, None, None, False),
        ):
            after = None
            for _ in range(3):
                async with kept.not_held():
                    page = await keys.page(where, after, 1000, status_item)
                if page.next is None:
                    break
                after = _key(page.next)

    run(act)


@pytest.mark.parametrize("groups", [1, KEYS], ids=["one group", "many groups"])
def test_telling_of_many_keys_over_mi(groups):
    """All are told, whether they are of one group or of as many as there are."""

    async def act(kept: Kept) -> None:
        await kept.ingest.push(
            [
                Statement(PUSH_SOURCE, f"g{number % groups}", f"x{number}", 1, reports=("up",))
                for number in range(KEYS)
            ]
        )
        mi = MiRoute(kept.ingest, kept.state, Access(), OwnMetrics(), lambda: kept.now)
        for method, params, what, count in (
            (b"sr_list_status", b"[]", b'"Readiness"', KEYS),
            (b"sr_list_reports", b"[]", b'"Log"', KEYS),
            (b"sr_list_identifiers", b"[]", b'"x', KEYS),
            (b"sr_get_status", b'["g0","all"]', b'"aggregated"', 1),
        ):
            body = b'{"jsonrpc":"2.0","method":"%b","params":%b,"id":1}' % (method, params)
            async with kept.not_held():
                told = await asked_over_mi(mi, body, what)
            assert told == count

    run(act)


async def asked_over_mi(mi: MiRoute, body: bytes, what: bytes) -> int:
    """Ask, and count how often something is told."""
    told = 0
    bodies = iter([body])

    async def receive() -> dict[str, Any]:
        for one in bodies:
            return {"type": "http.request", "body": one}
        return await asyncio.Event().wait()

    async def send(message: Any) -> None:
        nonlocal told
        told += message.get("body", b"").count(what)

    scope = {
        "type": "http",
        "method": "POST",
        "raw_path": b"/mi",
        "query_string": b"",
        "headers": [(b"content-type", b"application/json")],
    }
    await mi(scope, receive, send)
    return told


def test_many_keys_that_are_polled_and_leave():
    """A source that has others the next time, then few; and one that is there no more."""

    async def act(kept: Kept) -> None:
        await kept.ingest.observe(Configured((PolledSource(SIP, 60.0),), 3 * KEYS))
        for poll in (
            listed(kept, KEYS),
            listed(kept, KEYS, status=-1),
            listed(kept, KEYS, first=KEYS),
            listed(kept, 3),
            listed(kept, KEYS),
        ):
            async with kept.not_held():
                await kept.ingest.observe(poll)
            assert kept.state.identifiers == len(poll.statuses)
        async with kept.not_held():
            await kept.ingest.observe(Configured((), 3 * KEYS))
        assert kept.state.identifiers == 0

    run(act)


def test_many_notifications():
    """What a webhook is owed takes longer to write than all else."""
    links = Links("http://127.0.0.1:9797")

    async def act(kept: Kept) -> None:
        outbox = Outbox(AlertBook(kept.state, links), links, uuid.uuid4())
        webhooks = [EdgeNotifier(name, Send.READINESS) for name in ("oncall", "chat")]
        outbox.restore([], webhooks, Rules())
        outbox.configure(webhooks, Rules(), [], kept.now)
        ingest = kept.open(outbox)
        for status in (-1, 1):
            items = pushed(status, ttl_seconds=60.0)[:1000]
            async with kept.not_held():
                await ingest.push(items)
        kept.now += 60.0
        async with kept.not_held():
            await ingest.catch_up()
        async with kept.not_held():
            await ingest.forget(Forget(PUSH_SOURCE))

    run(act)
