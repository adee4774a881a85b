"""A night in virtual time: a simulated OpenSIPS, the exporter's real parts, and who is told.

From the bytes of answers and events to the bytes that a webhook and an Alertmanager are sent
everything is real but sockets, the disk and the time: the conversation, the state, the book, the
outbox, and the senders. Nothing here judges; `Hook` and `Pager` note what they were told, and when.
"""

from __future__ import annotations

import asyncio
import json
from datetime import datetime
from typing import TYPE_CHECKING, Any, NamedTuple

from sr_exporter.config import Alertmanager, SecretUrl, Send, Webhook
from sr_exporter.errors import MiError
from sr_exporter.ingest import Ingest
from sr_exporter.mi import client
from sr_exporter.mi.client import MiClient
from sr_exporter.model import Configured, PolledSource, PollFailure, Way
from sr_exporter.notify import alertmanager, webhook
from sr_exporter.notify.alerts import Links
from sr_exporter.notify.book import AlertBook
from sr_exporter.notify.notifiers import Notifiers
from sr_exporter.notify.outbox import Outbox
from sr_exporter.notify.rules import Rules
from sr_exporter.outbound import Answer
from sr_exporter.sources.conversation import Conversation
from sr_exporter.sources.doubts import Doubts
from sr_exporter.sources.firsts import Firsts
from sr_exporter.sources.pacing import Pace
from sr_exporter.sources.poll import Poller
from sr_exporter.sources.subscription import Subscription
from sr_exporter.state import State
from sr_exporter.tasks import Tasks
from sr_exporter.wire import events
from sr_exporter.wire.answers import answer
from tests.unit.test_conversation import Observed
from tests.unit.test_notify_outbox import RUN
from tests.unit.test_poller import MemoryStore

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import pytest

    from sr_exporter.config import AlertRule
    from sr_exporter.outbound import Post
    from sr_exporter.simulator.node import SimulatedNode
    from sr_exporter.wire.events import EventParams

NAME = "sip-1"
BEGAN = 1_000_000.0
INTERVAL, TIMEOUT = 10.0, 5.0
PAGER = "http://pager"


class Told(NamedTuple):
    """An alert, as somebody was told of it."""

    #: Seconds of the night.
    at: float
    name: str
    group: str
    identifier: str
    status: str
    severity: str


class Hook(NamedTuple):
    """A webhook's receiver."""

    told: list[Told]

    def take(self, at: float, body: dict[str, Any]) -> None:
        self.told.extend(_told(at, one, one["status"]) for one in body["alerts"])


class Pager(NamedTuple):
    """An Alertmanager: it notes when an alert that it did not know to fire does, and its end."""

    told: list[Told]
    firing: set[str]

    def take(self, at: float, alerts: list[dict[str, Any]]) -> None:
        for one in alerts:
            mark = json.dumps(one["labels"], sort_keys=True)
            fires = datetime.fromisoformat(one["endsAt"]).timestamp() > BEGAN + at
            if fires is not (mark in self.firing):
                (self.firing.add if fires else self.firing.discard)(mark)
                self.told.append(_told(at, one, "firing" if fires else "resolved"))


def _told(at: float, alert: dict[str, Any], status: str) -> Told:
    labels = alert["labels"]
    return Told(
        at,
        labels["alertname"],
        labels.get("group", ""),
        labels.get("identifier", ""),
        status,
        labels["severity"],
    )


class Receivers:
    """Everybody who is told: a webhook of each kind, and an Alertmanager."""

    def __init__(self) -> None:
        self.hooks = {send: Hook([]) for send in Send}
        self.pager = Pager([], set())

    def notifiers(self) -> list[Alertmanager | Webhook]:
        hooks = [Webhook(send, SecretUrl(f"http://{send}"), send=send) for send in Send]
        return [Alertmanager("am", (PAGER,)), *hooks]

    def all(self) -> list[list[Told]]:
        return [self.pager.told, *(hook.told for hook in self.hooks.values())]

    def pages(self) -> list[Told]:
        """Give every time that somebody was told of an alert that fires."""
        return [told for one in self.all() for told in one if told.status == "firing"]

    def connect(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Have senders reach these instead of the network."""
        receivers = self

        class Wire:
            """Stands for `Outbound`."""

            def __init__(self, _: object) -> None:
                self.loop = asyncio.get_running_loop()

            async def post(self, post: Post, **_: object) -> Answer:
                await asyncio.sleep(0.01)
                at, said = self.loop.time(), json.loads(post.body)
                if post.url.startswith(PAGER):
                    receivers.pager.take(at, said)
                else:
                    receivers.hooks[Send(post.url.removeprefix("http://"))].take(at, said)
                return Answer(200, {})

            def hang_up(self) -> None:
                """There is nothing to end."""

        for module in (alertmanager, webhook):
            monkeypatch.setattr(module, "Outbound", Wire)
        # Virtual time does not wait for threads.
        monkeypatch.setattr(client, "LARGE_BYTES", 1 << 30)


class Quiet:
    """Implements `NotifierObserver`."""

    def __getattr__(self, _: str) -> Callable[..., None]:
        return lambda *_, **__: None


class Exporter:
    """The exporter's parts, in the running loop, which watch one server."""

    def __init__(
        self,
        server: SimulatedNode,
        receivers: Receivers,
        *,
        polled: bool = True,
        subscribes: bool = False,
        rules: Sequence[AlertRule] = (),
        first_poll: float = 0.0,
        interval: float = INTERVAL,
        max_share: float = 0.05,
    ) -> None:
        self.loop = asyncio.get_running_loop()
        self.server = server
        #: Why questions are not answered; a time-out takes its time.
        self.fails: PollFailure | None = None
        #: Of how many questions that is so; None: of all.
        self.fails_for: int | None = None
        self.subscribed_until = -1.0
        self._polled, self._first_poll = polled, first_poll
        self._receivers, self._rules = receivers, Rules(rules)
        self.state = State()
        store = MemoryStore()
        links = Links("http://sr")
        self.book = AlertBook(self.state, links)
        outbox = Outbox(self.book, links, RUN)
        self.ingest = Ingest(self.state, store, outbox, self.clock)
        self.tasks = Tasks()
        self.notifiers = Notifiers(
            self.state, store, self.book, outbox, links, Quiet(), self.tasks, self.clock
        )
        self.ingest.subscribe(self.notifiers.observe)
        mi = MiClient(_Transport(self))
        subscription = Subscription(
            NAME, f"tcp:h:1/{NAME}", monotonic=self.loop.time, clock=self.clock
        )
        self.conversation = Conversation(
            Poller(NAME, mi, self.ingest, clock=self.clock, monotonic=self.loop.time),
            mi,
            self.ingest,
            Pace(interval, max_share, first_poll, lambda: 0.5),
            Doubts(max_share),
            subscription if subscribes else None,
            Observed(),
            Firsts(),
            clock=self.clock,
        )
        self.ingest.subscribe(
            lambda outcome: [
                self.conversation.doubt(key.group, key.identifier) for key in outcome.doubtful
            ]
        )

    def clock(self) -> float:
        return BEGAN + self.loop.time()

    async def start(self) -> None:
        configured = (
            Configured((PolledSource(NAME, 60.0),))
            if self._polled
            else Configured((), event_sources=(NAME,))
        )
        await self.ingest.observe(configured)
        self.notifiers.configure(self._receivers.notifiers(), self._rules, beat_seconds=300.0)
        await self.notifiers.part()
        if self._polled:
            talk = self.conversation.run(self._first_poll, asyncio.Semaphore(1))
            self.tasks.start("poll", talk)

    def send(self, change: EventParams) -> None:
        """Have an event be heard that the server's script subscribed us to."""
        self.hear(events.notification(change, method=NAME))

    def send_if_subscribed(self, change: EventParams) -> None:
        """Have an event be heard if we subscribed to it."""
        if self.clock() < self.subscribed_until:
            self.send(change)

    def hear(self, data: bytes) -> None:
        said = events.event(data)
        self.ingest.hear([said.params.statement(NAME, Way.TCP)])

    async def until(self, second: float) -> None:
        """Let the night go on to a moment of it."""
        waiting = asyncio.ensure_future(asyncio.sleep(second - self.loop.time()))
        await asyncio.wait({waiting, self.tasks.failed}, return_when=asyncio.FIRST_COMPLETED)
        assert waiting.done(), self.tasks.failed.result()

    async def stop(self) -> None:
        await self.notifiers.stop()
        await self.tasks.stop()
        await self.ingest.settle()


class _Transport:
    """Implements `Transport`: the way to the server."""

    name = "http"

    def __init__(self, exporter: Exporter) -> None:
        self._exporter = exporter

    async def ask(self, request: bytes) -> bytes:
        exporter, call = self._exporter, json.loads(request)
        await asyncio.sleep(0.001)
        if (why := exporter.fails) is not None and exporter.fails_for != 0:
            exporter.fails_for = exporter.fails_for and exporter.fails_for - 1
            await asyncio.sleep(TIMEOUT if why is PollFailure.TIMEOUT else 0.0)
            raise MiError(why, why)
        if not exporter.server.up:
            raise MiError(PollFailure.CONNECT, "connection refused")
        if call["method"] == "event_subscribe":
            exporter.subscribed_until = exporter.clock() + int(call["params"][2])
            return json.dumps({"jsonrpc": "2.0", "result": "OK", "id": call["id"]}).encode()
        said = answer(request, exporter.server, exporter.clock())
        assert said is not None
        return said

    def rest(self) -> None:
        pass
