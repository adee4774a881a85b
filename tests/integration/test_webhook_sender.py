"""What a webhook sender does with a queue, a receiver, and a store that takes its time."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from sr_exporter.config import SecretUrl, Webhook
from sr_exporter.errors import NotKept
from sr_exporter.notify import payload
from sr_exporter.notify.alerts import Alert
from sr_exporter.notify.edges import subject_of
from sr_exporter.notify.queues import Queue
from sr_exporter.notify.webhook import WebhookSender
from sr_exporter.store.contract import Batch, Gist, Owed, Standing
from sr_exporter.tasks import Tasks
from tests.receiver import Received, Receiver

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


#: A notification as the outbox has it.
WHOLE = payload.webhook(
    Alert({"source": "s"}, {}, 0.0, ""),
    receiver="hook",
    external_url="",
    resolved_at=None,
    reason=payload.FIRST,
)


class SlowStore:
    """Keeps when it is told to; `all_noted` is set once six rows are to be kept."""

    def __init__(self) -> None:
        self.all_noted = asyncio.Event()
        self.batches: list[Batch] = []
        self.futures: list[asyncio.Future[None]] = []

    def commit(self, batch: Batch) -> asyncio.Future[None]:
        self.batches.append(batch)
        self.futures.append(asyncio.get_running_loop().create_future())
        if len(self.futures) == 6:
            self.all_noted.set()
        return self.futures[-1]


class Nobody:
    """Implements `NotifierObserver`, and cares for nothing."""

    def __getattr__(self, _: str):
        return lambda *_: None


def _owed(seq: int, subject: str) -> Owed:
    return Owed(
        id=f"{subject}-{seq}",
        seq=seq,
        notifier="hook",
        subject=subject_of(subject),
        standing=Standing.OWED,
        created_at=0.0,
        due_at=0.0,
        attempts=0,
        body=b'{"alerts": [{"labels": {}}]}',
    )


def test_the_next_of_a_key_waits_until_the_one_before_is_noted_as_delivered():
    """A crash in between would bring the first one again, after the second. Others go on."""

    async def run() -> None:
        queue, store, tasks = Queue(), SlowStore(), Tasks()
        for seq, subject in enumerate(("a", "a", "b", "c", "d", "e", "f"), 1):
            queue.add(_owed(seq, subject), kept=True)
        sender = WebhookSender(
            Webhook("hook", SecretUrl(receiver.url)), queue, store, Nobody(), clock=lambda: 1.0
        )
        sender.start(tasks)

        async def delivered(count: int) -> list[str]:
            await asyncio.to_thread(receiver.wait_for, count)
            return [one.delivery for one in receiver.received]

        first = await delivered(6)
        assert sorted(first) == ["a-1", "b-3", "c-4", "d-5", "e-6", "f-7"]
        await store.all_noted.wait()
        assert sorted(row for batch in store.batches for row in batch.outbox) == sorted(first)
        for future in store.futures:
            future.set_result(None)
        assert (await delivered(7))[-1] == "a-2"
        sender.close()
        await tasks.stop()

    with Receiver() as receiver:
        asyncio.run(run())


@pytest.mark.parametrize(("code", "noted"), [(200, None), (400, Standing.DEAD)])
def test_what_is_being_noted_when_its_notifier_is_renamed_is_noted_after_that(code, noted):
    """The new name is written to every row. One that was delivered must not come back by that."""

    async def run() -> None:
        queue, store, tasks = Queue(), SlowStore(), Tasks()
        queue.add(_owed(1, "a"), kept=True)
        sender = WebhookSender(
            Webhook("hook", SecretUrl(receiver.url)), queue, store, Nobody(), clock=lambda: 1.0
        )
        sender.start(tasks)
        await _until(lambda: len(store.batches) == 1)
        rows: dict[str, Owed | None] = {owed.id: owed for owed in queue.rename("new")}
        sender.name = "new"
        kept = Batch(outbox=rows)
        store.futures[0].set_result(None)
        await _until(lambda: len(store.batches) == 2)
        kept.merge(store.batches[1])
        store.futures[1].set_result(None)
        await _until(lambda: not len(queue))
        row = kept.outbox["a-1"]
        assert (row and row.standing) == noted
        assert row is None or row.notifier == "new"
        assert len(store.batches) == 2
        sender.close()
        await tasks.stop()

    with Receiver(code) as receiver:
        asyncio.run(asyncio.wait_for(run(), 20))


class Faulty(Nobody):
    """Has a fault, and had it once."""

    def __init__(self) -> None:
        self.faults = 0

    def accepted(self, _: str) -> None:
        self.faults += 1
        if self.faults == 1:
            raise RuntimeError("a fault of ours")


def test_a_fault_of_ours_holds_nothing_back_for_ever():
    """What it was about is delivered again, later, and what follows of its key."""
    now = [1.0]

    async def run() -> None:
        queue, tasks = Queue(), Tasks()
        for seq in (1, 2):
            queue.add(_owed(seq, "a"), kept=True)
        sender = WebhookSender(
            Webhook("hook", SecretUrl(receiver.url)),
            queue,
            QuickStore(),
            Faulty(),
            clock=lambda: now[0],
        )
        sender.start(tasks)
        await _until(lambda: len(receiver.accepted) == 1 and not queue.in_flight)
        now[0] += 300.0
        queue.mark_kept("a-1")
        await _until(lambda: len(queue) == 0)
        sender.close()
        await tasks.stop()

    with Receiver() as receiver:
        asyncio.run(run())
        assert [one.delivery for one in receiver.received] == ["a-1", "a-1", "a-2"]


class QuickStore:
    """Keeps at once."""

    def commit(self, _: Batch) -> asyncio.Future[None]:
        kept: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        kept.set_result(None)
        return kept


@pytest.mark.parametrize(
    ("away", "headers", "heard"),
    [
        # It was away: whatever waits is tried as soon as it takes something.
        (6.0, {}, {"a-1", "b-2"}),
        # It refuses now and then: each waits for its own time.
        (4.0, {}, set()),
        # It asked for that time.
        (6.0, {"Retry-After": "3600"}, set()),
    ],
)
def test_when_a_receiver_is_back_nothing_waits_any_longer(away, headers, heard):
    """Though after hours of refusals each key would wait for minutes."""
    now = [1.0]

    async def run() -> None:
        queue, tasks = Queue(), Tasks()
        for seq, subject in enumerate("ab", 1):
            queue.add(replace(_owed(seq, subject), attempts=9), kept=True)
        sender = WebhookSender(
            Webhook("hook", SecretUrl(receiver.url)),
            queue,
            QuickStore(),
            Nobody(),
            clock=lambda: now[0],
        )
        sender.start(tasks)
        await _until(lambda: [row.attempts for row in queue.rows()] == [10, 10])
        receiver.answer(200)
        now[0] += away
        queue.add(_owed(3, "c"), kept=True)
        queue.mark_kept("c-3")
        await _until(lambda: len(queue) == 2 - len(heard) and not queue.in_flight)
        sender.close()
        await tasks.stop()

    with Receiver(503, headers=headers) as receiver:
        asyncio.run(run())
        assert {one.delivery for one in receiver.accepted} == {"c-3", *heard}


class Meanwhile(Receiver):
    """Does something in the sender's loop before it answers."""

    def __init__(self, *answers: int, headers: dict[str, str]) -> None:
        super().__init__(*answers, headers=headers)
        self.do: Callable[[], None] = lambda: None
        self.loop: asyncio.AbstractEventLoop | None = None

    def take(self, received: Received) -> int:
        done = threading.Event()
        self.loop.call_soon_threadsafe(lambda: (self.do(), done.set()))
        assert done.wait(5)
        return super().take(received)


def test_what_is_refused_while_it_is_configured_anew_is_tried_at_once():
    """Though the settings are the same, and the receiver, repaired by now, asked for an hour."""

    async def run() -> None:
        queue, tasks = Queue(), Tasks()
        queue.add(_owed(1, "a"), kept=True)
        config = Webhook("hook", SecretUrl(receiver.url))
        sender = WebhookSender(config, queue, QuickStore(), Nobody(), clock=lambda: 1.0)
        receiver.loop = asyncio.get_running_loop()
        receiver.do = lambda: sender.configure(replace(config))
        sender.start(tasks)
        await _until(lambda: not len(queue))
        sender.close()
        await tasks.stop()

    with Meanwhile(503, 200, headers={"Retry-After": "3600"}) as receiver:
        asyncio.run(run())
        assert [one.delivery for one in receiver.received] == ["a-1", "a-1"]


class LeftStore(QuickStore):
    """Has the bodies of rows, unless it is `broken`."""

    def __init__(self, bodies: dict[str, bytes]) -> None:
        self._bodies = bodies
        self.broken = False
        self.asked = 0

    def bodies(self, row_ids: Sequence[str]) -> asyncio.Future[dict[str, bytes]]:
        self.asked += 1
        found: asyncio.Future[dict[str, bytes]] = asyncio.get_running_loop().create_future()
        if self.broken:
            found.set_exception(NotKept("the disk is gone"))
        else:
            bodies = self._bodies
            found.set_result({name: bodies[name] for name in row_ids if name in bodies})
        return found


class Counting(Nobody):
    """Counts what was given up."""

    def __init__(self) -> None:
        self.given_up = 0

    def dead(self, _: str) -> None:
        self.given_up += 1


def _left(seq: int, subject: str) -> Owed:
    """Give a row whose body is left to the store."""
    return replace(_owed(seq, subject), body=None, gist=Gist({}, firing=True), size=30)


def test_what_the_store_has_no_more_is_let_go_of_and_nothing_else():
    """Somebody took it out: the next of its key is delivered, and what would leave with it."""

    async def run() -> None:
        queue, tasks, observer = Queue(), Tasks(), Counting()
        for seq, subject in enumerate(('["s","a"]', '["s","a"]', '["s","b"]'), 1):
            queue.add(_left(seq, subject), kept=True)
        sender = WebhookSender(
            Webhook("hook", SecretUrl(receiver.url), group_wait_seconds=0.5),
            queue,
            LeftStore({one.id: WHOLE for one in queue.rows()[1:]}),
            observer,
            clock=lambda: 1.0,
        )
        sender.start(tasks)
        await _until(lambda: not len(queue))
        assert observer.given_up == 1
        sender.close()
        await tasks.stop()

    with Receiver() as receiver:
        asyncio.run(run())
        assert sum(len(one.body["alerts"]) for one in receiver.accepted) == 2


def test_a_store_that_cannot_be_read_is_asked_again():
    """As a receiver that cannot be reached is: with a backoff."""
    now = [1.0]

    async def run() -> None:
        queue, tasks = Queue(), Tasks()
        queue.add(_left(1, "a"), kept=True)
        store = LeftStore({"a-1": WHOLE})
        store.broken = True
        sender = WebhookSender(
            Webhook("hook", SecretUrl(receiver.url)), queue, store, Nobody(), clock=lambda: now[0]
        )
        sender.start(tasks)
        await _until(lambda: [row.attempts for row in queue.rows()] == [1])
        store.broken = False
        now[0] += 5.0
        await _until(lambda: not len(queue))
        sender.close()
        await tasks.stop()

    with Receiver() as receiver:
        asyncio.run(run())
        assert [(one.delivery, one.raw) for one in receiver.accepted] == [("a-1", WHOLE)]


def test_bodies_are_read_many_at_once():
    """And not each when it is sent."""

    async def run() -> None:
        queue, tasks = Queue(), Tasks()
        for seq in range(200):
            queue.add(_left(seq, f"k{seq}"), kept=True)
        store = LeftStore({one.id: WHOLE for one in queue.rows()})
        sender = WebhookSender(
            Webhook("hook", SecretUrl(receiver.url)), queue, store, Nobody(), clock=lambda: 1.0
        )
        sender.start(tasks)
        await _until(lambda: not len(queue))
        assert store.asked < 20
        sender.close()
        await tasks.stop()

    with Receiver() as receiver:
        asyncio.run(run())
        assert len(receiver.accepted) == 200


async def _until(condition: Callable[[], bool]) -> None:
    """Wait for what a sender does by itself, and tells nobody."""
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0.002)
