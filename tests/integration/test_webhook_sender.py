"""What a webhook sender does with a queue, a receiver, and a store that takes its time."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from sr_exporter.config import SecretUrl, Webhook
from sr_exporter.notify.queues import Queue
from sr_exporter.notify.webhook import WebhookSender
from sr_exporter.store.contract import Batch, Owed, Standing
from sr_exporter.tasks import Tasks
from tests.harness import eventually
from tests.receiver import Receiver

if TYPE_CHECKING:
    from collections.abc import Callable


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
        subject=subject,
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
        # An answer is noted later than its sender may know of it.
        eventually(lambda: {one.delivery for one in receiver.accepted} == {"c-3", *heard})


async def _until(condition: Callable[[], bool]) -> None:
    """Wait for what a sender does by itself, and tells nobody."""
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0.002)
