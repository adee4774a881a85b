"""All that is asked of one source: in which order, how often, and at what price."""

from __future__ import annotations

import asyncio
from itertools import pairwise
from typing import TYPE_CHECKING, Self, cast

import pytest
import structlog.testing
from msgspec.structs import replace

from sr_exporter.ingest import Ingest
from sr_exporter.mi import client as mi_client
from sr_exporter.mi.client import MiClient
from sr_exporter.model import (
    Configured,
    Key,
    ListedStatus,
    Origin,
    PolledSource,
    PollFailure,
    Statement,
    Way,
)
from sr_exporter.simulator.node import REGISTERED, REGISTERING, REGISTRANT, Planned, SimulatedNode
from sr_exporter.simulator.releases import OPENSIPS_4_0
from sr_exporter.sources.conversation import Conversation
from sr_exporter.sources.doubts import BETWEEN_SECONDS, MOST_DOUBTS, Doubts
from sr_exporter.sources.firsts import Firsts
from sr_exporter.sources.pacing import Pace
from sr_exporter.sources.poll import Poller
from sr_exporter.sources.subscription import EXPIRE_SECONDS, RENEW_SECONDS, Subscription
from sr_exporter.state import State
from sr_exporter.wire import sr
from sr_exporter.wire.answers import answer
from sr_exporter.wire.text import loads
from tests import virtual_time
from tests.unit.test_poller import FakeClient, MemoryStore, NoPlans

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine

    from sr_exporter.model import Subscribed
    from sr_exporter.outcome import Outcome

NAME = "sip-1"
SOCKET = f"tcp:192.0.2.9:9798/{NAME}"
BEGAN = 1_000_000.0


class Observed:
    """Implements `PollObserver`."""

    def __init__(self) -> None:
        self.durations: list[float] = []
        self.intervals: list[float] = []

    def polled(self, source: str, duration_seconds: float) -> None:
        self.durations.append(duration_seconds)

    def paced(self, source: str, interval_seconds: float) -> None:
        self.intervals.append(interval_seconds)


class Client(FakeClient):
    """Answers in no time; tells when what was asked."""

    def __init__(self) -> None:
        super().__init__()
        self.times: list[tuple[float, str]] = []
        self.said = ListedStatus("core", "main", 1, True, "running")
        self.before = lambda what: self.times.append((asyncio.get_running_loop().time(), what))

    async def uptime_seconds(self) -> float:
        return await super().uptime_seconds() + asyncio.get_running_loop().time()

    def when(self, what: str) -> list[float]:
        return [at for at, asked in self.times if asked == what]

    async def status(self, group: str, identifier: str) -> ListedStatus:
        self._ask(f"{group}/{identifier}")
        return replace(self.said, group=group, identifier=identifier)

    async def subscribe(self, socket: str, expire_seconds: int) -> None:
        assert socket == SOCKET
        self._ask(f"expire {expire_seconds}")


class Bench:
    """A conversation in virtual time, with everything behind it real but the store."""

    def __init__(self, client: object, *, interval: float = 10.0, subscribes: bool = True) -> None:
        loop = asyncio.get_running_loop()
        self.client = client
        self.state = State()
        self.outcomes: list[Outcome] = []
        self.ingest = Ingest(self.state, MemoryStore(), NoPlans(), self.clock)
        self.ingest.subscribe(self.outcomes.append)
        self.ingest.subscribe(self._doubt)
        self.observer = Observed()
        self.subscription = (
            Subscription(NAME, SOCKET, monotonic=loop.time, clock=self.clock)
            if subscribes
            else None
        )
        asked = cast("MiClient", client)
        self.conversation = Conversation(
            Poller(NAME, asked, self.ingest, clock=self.clock, monotonic=loop.time),
            asked,
            self.ingest,
            Pace(interval, 0.05, 0.0, lambda: 0.0),
            Doubts(0.05),
            self.subscription,
            self.observer,
            Firsts(),
            clock=self.clock,
        )
        self.talking: asyncio.Task[None] | None = None

    def clock(self) -> float:
        return BEGAN + asyncio.get_running_loop().time()

    def _doubt(self, outcome: Outcome) -> None:
        for key in outcome.doubtful:
            self.conversation.doubt(key.group, key.identifier)
        if outcome.alive:
            self.conversation.hear()

    async def __aenter__(self) -> Self:
        await self.ingest.observe(Configured((PolledSource(NAME, 60.0),)))
        running = self.conversation.run(0.0, asyncio.Semaphore(1))
        self.talking = asyncio.create_task(running)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self.talking is not None
        self.talking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await self.talking
        await self.ingest.settle()

    @property
    def shown(self) -> Subscribed:
        assert self.subscription is not None
        return self.subscription.shown

    def event(self, old_status: int, status: int, group: str = "core") -> None:
        said = Statement(
            NAME, group, "main", status, old_status=old_status, origin=Origin.EVENT, way=Way.TCP
        )
        self.ingest.hear([said])

    def status(self, group: str = "core") -> int:
        entry = self.state.entry(Key(NAME, group, "main"))
        assert entry is not None
        return entry.status


async def until(seconds: float) -> None:
    await asyncio.sleep(seconds - asyncio.get_running_loop().time())


def script(act: Callable[[Bench, Client], Awaitable[None]]) -> Callable[[], None]:
    """Run an act of the conversation with a client that answers in no time."""

    async def play() -> None:
        client = Client()
        async with Bench(client) as bench:
            await act(bench, client)

    return lambda: virtual_time.run(play())


def play(act: Callable[[Bench, Client], Coroutine[object, object, None]]) -> None:
    script(act)()


# --- polls ---------------------------------------------------------------------------------


def test_polling_goes_on_for_ever_and_is_seen():
    async def act(bench: Bench, client: Client) -> None:
        await until(1000.5)
        assert client.when("statuses") == [10.0 * turn for turn in range(101)]
        assert set(bench.observer.intervals) == {10.0}
        assert client.rests >= 101

    play(act)


def test_no_more_talk_at_once_than_there_are_slots():
    async def talk() -> None:
        client = Client()
        bench = Bench(client)
        await bench.ingest.observe(Configured((PolledSource(NAME, 60.0),)))
        slots = asyncio.Semaphore(1)
        async with slots:
            talking = asyncio.create_task(bench.conversation.run(0.0, slots))
            await until(50.0)
            assert client.asked == []
        await until(51.0)
        assert client.when("statuses") == [50.0]
        talking.cancel()
        await bench.ingest.settle()

    virtual_time.run(talk())


def test_how_long_it_takes_to_be_kept_is_not_the_sources_time():
    async def act(bench: Bench, client: Client) -> None:
        observe = bench.ingest.observe

        async def slow(observation: object) -> object:
            await asyncio.sleep(2.0)
            return await observe(observation)  # type: ignore[arg-type]

        bench.ingest.observe = slow  # type: ignore[method-assign, assignment]
        await until(100.5)
        assert client.when("statuses") == [10.0 * turn for turn in range(11)]
        assert max(bench.observer.durations) == 0.0

    play(act)


# --- our subscription ----------------------------------------------------------------------

ASKED = f"expire {EXPIRE_SECONDS}"


def test_a_source_is_subscribed_once_it_answers_and_renewed_at_half_time():
    async def act(bench: Bench, client: Client) -> None:
        assert bench.shown == (SOCKET, None, None)
        await until(1.0)
        assert bench.shown == (SOCKET, BEGAN + EXPIRE_SECONDS, None)
        await until(301.0)
        assert client.when(ASKED) == [RENEW_SECONDS * turn for turn in range(6)]
        assert bench.shown == (SOCKET, BEGAN + 300 + EXPIRE_SECONDS, None)

    play(act)


def test_a_source_that_restarted_is_subscribed_again_with_the_poll_that_sees_it():
    async def act(bench: Bench, client: Client) -> None:
        client.uptime = 500.0
        await until(1.0)
        client.uptime = -7.0  # it is 3 s old at 10 s
        await until(121.0)
        assert client.when(ASKED) == [0.0, 10.0, 70.0]

    play(act)


@pytest.mark.parametrize("reason", [PollFailure.CONNECT, PollFailure.TIMEOUT])
def test_who_does_not_answer_is_asked_with_the_next_good_poll(reason):
    async def act(bench: Bench, client: Client) -> None:
        client.failing[ASKED] = reason
        await until(1.0)
        assert bench.shown == (SOCKET, None, f"{ASKED} failed")
        for what in ("statuses", "uptime"):
            client.failing[what] = reason
        del client.failing[ASKED]
        await until(60.0)
        assert client.when(ASKED) == [0.0]
        client.failing.clear()
        await until(200.0)
        assert client.when(ASKED)[1] in client.when("statuses")
        assert bench.shown.error is None

    play(act)


def test_a_source_that_is_heard_while_its_polls_fail_is_polled_soon():
    """It is there; that it is asked at most once an interval holds for it, too."""

    async def act(bench: Bench, client: Client) -> None:
        await until(1.0)
        for what in ("statuses", "uptime"):
            client.failing[what] = PollFailure.CONNECT
        await until(200.0)
        failed = client.when("statuses")[-1]
        assert bench.observer.intervals[-1] > 40.0
        await until(failed + 3.0)
        for turn in range(50):
            bench.event(turn + 1, turn + 2)
        assert bench.state.sources[NAME].down_since is not None
        await until(failed + 11.0)
        assert client.when("statuses")[-1] == failed + 10.0
        client.failing.clear()
        await until(failed + 19.0)
        bench.event(51, 52)
        await until(failed + 21.0)
        assert bench.state.sources[NAME].up

    play(act)


def test_a_source_that_was_away_is_subscribed_again():
    """Its up time may not tell that it restarted: it is told in whole seconds."""

    async def act(bench: Bench, client: Client) -> None:
        await until(1.0)
        for what in ("statuses", "uptime"):
            client.failing[what] = PollFailure.CONNECT
        await until(11.0)
        client.failing.clear()
        await until(30.0)
        assert client.when(ASKED)[1:] == [client.when("statuses")[-1]]

    play(act)


def test_who_refuses_is_asked_again_after_a_while_and_it_is_logged_once():
    async def act(bench: Bench, client: Client) -> None:
        client.failing[ASKED] = PollFailure.RPC_ERROR
        with structlog.testing.capture_logs() as logs:
            await until(181.0)
        assert client.when(ASKED) == [0.0, 60.0, 120.0, 180.0]
        assert [line["event"] for line in logs].count("not subscribed") == 1
        assert len(client.when("statuses")) == 19, "polling goes on"

    play(act)


def test_an_end_is_told_to_a_source_that_knows_us():
    async def act(bench: Bench, client: Client) -> None:
        await bench.conversation.end()
        assert client.when("expire 0") == []
        await until(1.0)
        await bench.conversation.end()
        assert client.when("expire 0") == [1.0]
        assert bench.shown.expires is None
        await bench.conversation.end()
        assert client.when("expire 0") == [1.0]

    play(act)


@pytest.mark.parametrize("reason", [PollFailure.TIMEOUT, PollFailure.MALFORMED])
def test_what_may_have_been_taken_is_ended(reason):
    """The answer came too late, or was none: OpenSIPS may send us events all the same."""

    async def act(bench: Bench, client: Client) -> None:
        client.failing[ASKED] = reason
        await until(1.0)
        assert bench.shown.expires is None
        await bench.conversation.end()
        assert client.when("expire 0") == [1.0]

    play(act)


def test_a_subscription_that_is_cut_off_is_ended():
    async def talk() -> None:
        client = Client()
        bench = Bench(client)
        await bench.ingest.observe(Configured((PolledSource(NAME, 60.0),)))
        answered = client.subscribe

        async def never(socket: str, expire_seconds: int) -> None:
            await asyncio.sleep(1000.0 if expire_seconds else 0.0)
            await answered(socket, expire_seconds)

        client.subscribe = never  # type: ignore[method-assign]
        talking = asyncio.create_task(bench.conversation.run(0.0, asyncio.Semaphore(1)))
        await until(5.0)
        talking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await talking
        await bench.conversation.end()
        assert client.when("expire 0") == [5.0]
        await bench.ingest.settle()

    virtual_time.run(talk())


@pytest.mark.parametrize("reason", [PollFailure.CONNECT, PollFailure.RPC_ERROR])
def test_what_was_not_taken_is_not_ended(reason):
    async def act(bench: Bench, client: Client) -> None:
        client.failing[ASKED] = reason
        await until(1.0)
        await bench.conversation.end()
        assert client.when("expire 0") == []

    play(act)


def test_an_end_that_nobody_takes_is_no_fault():
    async def act(bench: Bench, client: Client) -> None:
        await until(1.0)
        client.failing["expire 0"] = PollFailure.CONNECT
        await bench.conversation.end()

    play(act)


# --- keys in doubt -------------------------------------------------------------------------


def test_a_key_in_doubt_is_asked_for_at_once():
    async def act(bench: Bench, client: Client) -> None:
        await until(3.0)
        client.said = replace(client.said, status=2, details="data re-loading")
        bench.event(-5, -4)
        assert bench.status() == -4
        await until(3.1)
        assert client.when("core/main") == [3.0]
        assert bench.status() == 2
        assert bench.state.sources[NAME].changes_missed_total == 1

    play(act)


def test_an_inverted_pair_is_set_right():
    async def act(bench: Bench, client: Client) -> None:
        await until(3.0)
        bench.event(-1, 1)
        bench.event(1, -1)
        assert bench.status() == -1
        await until(3.1)
        assert bench.status() == 1

    play(act)


def test_one_event_that_fits_is_not_doubted():
    async def act(bench: Bench, client: Client) -> None:
        await until(3.0)
        bench.event(1, 2)
        await until(9.0)
        assert client.when("core/main") == []

    play(act)


def test_questions_are_at_most_one_a_second():
    async def act(bench: Bench, client: Client) -> None:
        await until(1.0)
        for turn in range(200):
            bench.event(1, -1)
            bench.event(-1, 1)
            await until(1.0 + 0.04 * (turn + 1))
        asked = client.when("core/main")
        assert len(asked) in range(7, 10)
        gaps = [later - earlier for earlier, later in pairwise(asked)]
        assert min(gaps) >= BETWEEN_SECONDS

    play(act)


def test_a_good_poll_settles_the_doubts_from_before_it():
    async def act(bench: Bench, client: Client) -> None:
        groups = ("a", "b", "c")
        listed = [ListedStatus(group, "main", 1, True, None) for group in groups]
        client.listed = sr.Statuses(tuple(listed), frozenset(), complete=True, faults=())
        await until(9.5)
        for group in groups:
            bench.event(1, -1, group)
            bench.event(-1, 1, group)
        await until(30.0)
        assert sum(len(client.when(f"{group}/main")) for group in "abc") == 1

    play(act)


@pytest.mark.parametrize("took", [0.05, 0.4, 3.0])
def test_polls_are_made_however_many_keys_are_in_doubt(took):
    """A poll that is due is not put off for single keys, for it tells of all of them."""

    async def act(bench: Bench, client: Client) -> None:
        def ask(slowly):
            async def asked(*names: str) -> object:
                await asyncio.sleep(took)
                return await slowly(*names)

            return asked

        for what in ("statuses", "reports", "uptime_seconds", "status"):
            setattr(client, what, ask(getattr(client, what)))
        turn = 0
        while asyncio.get_running_loop().time() < 2000.0:
            bench.event(1, -1)
            bench.event(-1, 1)
            turn += 1
            await until(0.5 * turn)
        polls = client.when("statuses")
        gaps = [later - earlier for earlier, later in pairwise(polls[1:])]
        assert max(gaps) <= max(20.0, 6.1 * took / 0.05)
        assert client.when("core/main")
        assert max(bench.observer.intervals) >= max(gaps) - 0.001, "the gauge shows it"

    play(act)


def test_nothing_is_asked_before_the_first_poll():
    """A conversation that takes over from another has its share to keep."""

    async def talk() -> None:
        client = Client()
        bench = Bench(client)
        await bench.ingest.observe(Configured((PolledSource(NAME, 60.0),)))
        talking = asyncio.create_task(bench.conversation.run(50.0, asyncio.Semaphore(1)))
        bench.conversation.doubt("core", "main")
        bench.event(5, 6)
        bench.event(6, 7)
        await until(49.0)
        assert client.asked == []
        await until(51.0)
        assert client.asked[0] == "statuses"
        talking.cancel()
        await bench.ingest.settle()

    virtual_time.run(talk())


@pytest.mark.parametrize("reason", [PollFailure.TOO_BIG, PollFailure.MALFORMED])
def test_one_key_that_cannot_be_asked_for_leaves_the_doubts_of_others(reason):
    async def act(bench: Bench, client: Client) -> None:
        await until(1.0)
        client.failing["core/main"] = reason
        for group in ("core", "b", "c"):
            bench.event(1, -1, group)
            bench.event(-1, 1, group)
        await until(9.0)
        assert [len(client.when(f"{group}/main")) for group in ("core", "b", "c")] == [1, 1, 1]

    play(act)


def test_a_key_that_is_gone_is_not_asked_for_for_ever():
    async def act(bench: Bench, client: Client) -> None:
        await until(1.0)
        client.failing["core/main"] = PollFailure.RPC_ERROR
        bench.event(5, 6)
        await until(9.0)
        assert client.when("core/main") == [1.0]

    play(act)


def test_a_source_that_does_not_answer_is_not_asked_before_the_next_poll():
    async def act(bench: Bench, client: Client) -> None:
        await until(1.0)
        for group in ("core", "b"):
            client.failing[f"{group}/main"] = PollFailure.TIMEOUT
            bench.event(5, 6, group)
            bench.event(5, 7, group)
        await until(9.0)
        assert len(client.when("core/main") + client.when("b/main")) == 1

    play(act)


def test_an_event_after_the_question_outranks_the_answer():
    async def act(bench: Bench, client: Client) -> None:
        await until(3.0)
        asked = asyncio.Event()

        async def late(group: str, identifier: str) -> ListedStatus:
            asked.set()
            await asyncio.sleep(0.5)
            return client.said

        client.status = late  # type: ignore[method-assign]
        bench.event(5, 6)
        await asked.wait()
        bench.event(6, -1)
        await until(3.9)
        assert bench.status() == -1

    play(act)


def test_only_so_many_doubts_are_held():
    doubts = Doubts(0.05)
    assert doubts.due is None
    assert doubts.take() is None
    for number in range(2 * MOST_DOUBTS):
        doubts.add("g", str(number))
    taken = [doubts.take() for _ in range(2 * MOST_DOUBTS)]
    assert [key for key in taken if key] == [("g", str(number)) for number in range(MOST_DOUBTS)]


def test_a_doubt_raised_during_a_poll_is_asked_for_after_it():
    doubts = Doubts(0.05)
    doubts.add("g", "before")
    doubts.add("g", "not heard")
    doubts.add("g", "both")
    doubts.poll_begins()
    doubts.add("G", "BOTH")
    doubts.add("g", "during")
    names = ("before", "both", "during")
    doubts.poll_ended(ListedStatus("g", name, 1, True, None) for name in names)
    taken = [doubts.take() for _ in range(4)]
    assert taken == [("g", "not heard"), ("G", "BOTH"), ("g", "during"), None]


def test_slow_answers_are_asked_for_less_often():
    doubts = Doubts(0.05)
    doubts.add("g", "i")
    doubts.asked(10.0, 10.5)
    assert doubts.due == 20.0


# --- what it costs the source --------------------------------------------------------------

#: Seconds a real 4.0 took at 10,000 registrants (facts on OpenSIPS, section 7).
LATENCIES = {"sr_list_status": 0.17, "sr_list_reports": 0.63}
QUICK = 0.0005
REGISTRANTS = 10_000
TEN_MINUTES = 600.0


class BusyNode:
    """Implements `Transport`: a simulated OpenSIPS that takes the recorded time for answers."""

    name = "http"

    def __init__(self, node: SimulatedNode, clock: Callable[[], float]) -> None:
        self._node = node
        self._clock = clock
        self.busy_seconds = 0.0
        self.asked: list[str] = []
        self._in_flight = 0

    async def ask(self, request: bytes) -> bytes:
        method = loads(request)["method"]
        took = LATENCIES.get(method, QUICK)
        self.asked.append(method)
        assert self._in_flight == 0, "one request at a time"
        self._in_flight += 1
        await asyncio.sleep(took)
        self._in_flight -= 1
        self.busy_seconds += took
        if method == "event_subscribe":
            return b'{"jsonrpc":"2.0","result":"OK","id":%d}' % (loads(request)["id"])
        said = answer(request, self._node, self._clock())
        assert said is not None
        return said

    def rest(self) -> None:
        pass


@pytest.mark.lengthy
def test_ten_thousand_registrants_lose_no_more_than_their_share_to_us(monkeypatch, figure):
    """Ten minutes of polls, events in doubt and subscribing, at the recorded latencies."""
    monkeypatch.setattr(mi_client, "LARGE_BYTES", 2**30)  # no threads in virtual time

    async def play() -> None:
        clock = asyncio.get_running_loop().time
        plan = [Planned(REGISTRANT, f"aor=sip:{n}@example.net") for n in range(REGISTRANTS)]
        node = SimulatedNode(OPENSIPS_4_0, plan)
        node.start(BEGAN)
        for planned in plan:
            node.registrant(planned.identifier, REGISTERED, BEGAN)
        transport = BusyNode(node, lambda: BEGAN + clock())
        async with Bench(MiClient(transport)) as bench:
            turn = 0
            while clock() < TEN_MINUTES:
                # Each registers anew once an hour.
                name = plan[turn % REGISTRANTS].identifier
                for old, new, state in ((1, -1, REGISTERING), (-1, 1, REGISTERED)):
                    node.registrant(name, state, BEGAN + clock())
                    said = Statement(
                        *(NAME, REGISTRANT, name, new, state),
                        old_status=old,
                        origin=Origin.EVENT,
                        way=Way.TCP,
                    )
                    bench.ingest.hear([said])
                turn += 1
                await until(0.36 * turn)
            share = transport.busy_seconds / TEN_MINUTES
            polls = transport.asked.count("sr_list_status")
            figure(
                f"10,000 registrants: {share:.2%} of their OpenSIPS' time over 10 minutes,"
                f" {polls} polls, {transport.asked.count('sr_get_status')} single questions,"
                f" {transport.asked.count('event_subscribe')} subscriptions"
            )
            assert share <= 0.05
            assert polls >= 30
            assert transport.asked.count("sr_get_status") > 100
            assert bench.state.identifiers == REGISTRANTS + 1

    virtual_time.run(play())
