"""Deliver what the outbox owes to one webhook: at least once, in order per key."""

from __future__ import annotations

import asyncio
import contextlib
import random
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import msgspec
import structlog

from sr_exporter.errors import NotKept
from sr_exporter.names import Names
from sr_exporter.notify import credentials, payload, retry
from sr_exporter.outbound import Outbound, OutboundError, Post
from sr_exporter.store.contract import Batch, Standing
from sr_exporter.tasks import end
from sr_exporter.threads import elsewhere

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from sr_exporter.config import Webhook
    from sr_exporter.notify.figures import NotifierObserver
    from sr_exporter.notify.parcels import Parcel
    from sr_exporter.notify.queues import Queue
    from sr_exporter.outbound import Answer
    from sr_exporter.store.contract import Owed, Store
    from sr_exporter.tasks import Tasks

log = structlog.get_logger(__name__)

#: How many notifications are under way at once, each of another key.
LANES = 4
#: Not an error of the receiver: the configuration changed while it was asked.
_BROKEN_OFF = "broken off"
#: What is answered to a burst that is too big, or of which one alert does not please.
_REFUSED_WHOLE = (413, 422)
#: The longest time between two looks at the queue: our clock may have jumped.
_LONGEST_WAIT_SECONDS = 10.0
#: A receiver that takes nothing for so long is away.
_AWAY_SECONDS = 5.0


class WebhookSender:
    """Sends one notifier's queue, on connections of its own, so that it delays nobody else."""

    def __init__(
        self,
        config: Webhook,
        queue: Queue,
        store: Store,
        observer: NotifierObserver,
        *,
        clock: Callable[[], float],
        error: str | None = None,
    ) -> None:
        self.name = config.name
        self._config = config
        self._queue = queue
        self._store = store
        self._observer = observer
        self._clock = clock
        self._names = Names()
        self._lanes = [Outbound(self._names) for _ in range(LANES)]
        self._idle = list(self._lanes)
        #: Why it did not take what it was last sent; None: it did.
        self.error = error
        #: When each row that was attempted was first due, were our clock never set: no `for`.
        self._first_due: dict[str, float] = {}
        #: Since when nothing was taken; None while something is.
        self._refused_since: float | None = None
        #: Rows whose receiver asked for a time of its own (Retry-After).
        self._asked_to_wait: set[str] = set()
        #: How many were owed when they became too many; None: they are not.
        self._too_many: int | None = None
        #: Requests under way.
        self._posting: set[asyncio.Future[Answer]] = set()
        self._sending: asyncio.Task[None] | None = None
        self._changed = asyncio.Event()
        self._deliveries: set[asyncio.Task[None]] = set()
        self._reading: asyncio.Future[None] | None = None
        queue.on_change(self._changed.set)
        queue.gather(config.group_wait_seconds or None)

    @property
    def backlog(self) -> int:
        return self._queue.owed(self._clock())

    @property
    def url(self) -> str:
        """Where it is sent; a secret."""
        return self._config.url.reveal()

    def start(self, tasks: Tasks) -> None:
        """Begin to deliver; who delivers already goes on."""
        if self._sending is None:
            self._sending = tasks.start(f"notifier {self.name}", self._run())

    def configure(self, config: Webhook) -> None:
        """Deliver as it says, at once: attempts by the old settings are broken off.

        What waits for another attempt is tried though nothing changed: whoever repaired a
        receiver has no other way to say so.
        """
        before, self._config = self._config, config
        self._queue.gather(config.group_wait_seconds or None)
        if _way(before) != _way(config):
            for posting in self._posting:
                posting.cancel()
        self._queue.retry_now(self._clock())

    async def _run(self) -> None:
        while True:
            self._changed.clear()
            self._note_given_up()
            self._read_ahead()
            self._start_deliveries()
            due = self._queue.next_due()
            wait = _LONGEST_WAIT_SECONDS
            if due is not None and self._idle:
                wait = min(wait, max(0.001, due - self._clock()))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait):
                    await self._changed.wait()

    async def drain(self) -> None:
        """Stop; attempt once more whatever is due, and wait for what is under way."""
        if self._sending is not None:
            await end([self._sending])
        self._queue.leave_now()
        self._start_deliveries()
        while self._deliveries:
            await asyncio.wait(self._deliveries)
            self._start_deliveries()

    def close(self) -> None:
        """End what is under way; it stays owed."""
        for delivery in self._deliveries:
            delivery.cancel()
        if self._reading is not None:
            self._reading.cancel()
        for lane in self._lanes:
            lane.hang_up()
        self._names.close()

    def _read_ahead(self) -> None:
        """Have bodies read that were left to the store, many at once, before they are needed."""
        if self._reading is None and (unread := self._queue.unread()):
            self._reading = asyncio.ensure_future(self._fill(unread))

    async def _fill(self, unread: Sequence[Owed]) -> None:
        # Who needs one that cannot be read hears of it.
        with contextlib.suppress(NotKept):
            self._queue.fill(unread, await self._store.bodies([owed.id for owed in unread]))
        self._reading = None

    def _start_deliveries(self) -> None:
        while self._idle and (parcel := self._queue.take(self._clock())) is not None:
            delivery = asyncio.ensure_future(self._deliver(parcel, self._idle.pop()))
            self._deliveries.add(delivery)
            delivery.add_done_callback(partial(self._delivered, parcel))

    def _delivered(self, parcel: Parcel, delivery: asyncio.Task[None]) -> None:
        self._deliveries.discard(delivery)
        if delivery.cancelled() or (error := delivery.exception()) is None:
            return
        # A fault of ours. It must not hold back all that comes after it of these keys.
        log.error("delivery failed", notifier=self.name, exc_info=error)
        left = replace(parcel, rows=tuple(row for row in parcel.rows if row.id in self._queue))
        self._queue.settle(left, self._clock() + retry.LONGEST_BACKOFF_SECONDS)

    async def _deliver(self, parcel: Parcel, lane: Outbound) -> None:
        attempt, config = parcel.attempted(), self._config
        bodies, error = await self._read(attempt)
        lost = [owed for owed in attempt.rows if owed.id not in bodies and not error]
        status: int | None = None
        headers: Mapping[str, str] = {}
        if not error and not lost:
            status, headers, error = await self._post(attempt, bodies, lane)
        self._asked_to_wait.difference_update(owed.id for owed in attempt.rows)
        self._idle.append(lane)
        self._changed.set()
        now = self._clock()
        if error is _BROKEN_OFF or lost:
            self._queue.settle(attempt, retry_at=now)
            self._forget(lost)
            return
        if status in _REFUSED_WHOLE and len(attempt.rows) > 1:
            self._queue.halve(attempt, now)
            return
        decision = retry.decide(
            status=status,
            error=error,
            headers=headers,
            attempts=attempt.attempts,
            age_seconds=now - self._due_since(parcel),
            max_age_seconds=self._config.max_age_seconds,
            now=now,
            random=random.random(),
        )
        match decision:
            case retry.Settled():
                self._tell(None)
                self._is_back(now)
                for owed in parcel.rows:
                    self._observer.latency(self.name, now - max(owed.created_at, _due_at(owed)))
                    self._observer.accepted(self.name)
                await self._end(attempt, {owed.id: None for owed in attempt.rows})
            case retry.Retry(delay_seconds=delay, reason=reason):
                self._tell(reason)
                self._refused_since = now if self._refused_since is None else self._refused_since
                for owed in attempt.rows:
                    self._observer.retried(self.name)
                    if retry.retry_after(headers, now):
                        self._asked_to_wait.add(owed.id)
                # What was under way while it was configured anew waits no longer than the rest.
                again = now + delay if self._config is config else now
                self._queue.settle(attempt, retry_at=again)
            case retry.Dead(reason=reason):
                self._tell(reason)
                await self._end(attempt, self._give_up(attempt, reason))
        self._changed.set()

    def _due_since(self, parcel: Parcel) -> float:
        """Give since when all of it is due: nothing is given up before its time."""
        set_by = self._queue.clock_set_by
        rows = (self._queue.get(owed.id) or owed for owed in parcel.rows)
        since = {owed.id: max(owed.created_at, owed.due_at) - set_by for owed in rows}
        return set_by + max(self._first_due.setdefault(*one) for one in since.items())

    def _give_up(self, attempt: Parcel, reason: str) -> dict[str, Owed | None]:
        """Make dead letters of what was attempted, each row one of its own."""
        for owed in attempt.rows:
            log.error(
                "notification given up",
                notifier=self.name,
                **_about(owed),
                id=owed.id,
                reason=reason,
                hint=f"sr-exporter notifications retry {owed.id}",
            )
            self._observer.dead(self.name)
        return {
            owed.id: replace(owed, standing=Standing.DEAD, reason=reason) for owed in attempt.rows
        }

    def _forget(self, lost: Iterable[Owed]) -> None:
        """Let go of rows that somebody took out of the store: nobody knows what they said."""
        for owed in lost:
            log.error(
                "notification is not in the store any more",
                notifier=self.name,
                **_about(owed),
                id=owed.id,
            )
            self._queue.withdraw(owed)
            self._done_with(owed.id)
            self._observer.dead(self.name)

    def _note_given_up(self) -> None:
        """Count what was given up, there being too many, and say it once until that is over."""
        given_up = self._queue.given_up()
        for row_id in given_up:
            self._done_with(row_id)
            self._observer.dead(self.name)
        if given_up and self._too_many is None:
            self._too_many = self.backlog
            log.error(
                "too many notifications are owed; the oldest are given up",
                notifier=self.name,
                owed=self.backlog,
            )
        elif self._too_many is not None and self.backlog < self._too_many / 2:
            self._too_many = None

    def _done_with(self, row_id: str) -> None:
        self._first_due.pop(row_id, None)
        self._asked_to_wait.discard(row_id)

    async def _read(self, parcel: Parcel) -> tuple[dict[str, bytes], str]:
        """Give the bodies of its rows by id, those left to the store too; or why it cannot."""
        found = {owed.id: owed.body for owed in parcel.rows if owed.body is not None}
        left = [owed.id for owed in parcel.rows if owed.body is None]
        try:
            return found | await self._store.bodies(left) if left else found, ""
        except NotKept as error:
            return {}, f"the store cannot be read: {error}"

    async def _post(
        self, parcel: Parcel, bodies: Mapping[str, bytes], lane: Outbound
    ) -> tuple[int | None, Mapping[str, str], str]:
        members = [bodies[owed.id] for owed in parcel.rows]
        body = members[0]
        if parcel.grouped:
            # There may be very many.
            body = await elsewhere(payload.webhook_of_source, members)
        post = request(self._config, parcel.id, body)
        posting = asyncio.ensure_future(lane.post(post))
        self._posting.add(posting)
        try:
            await asyncio.wait({posting})
        except asyncio.CancelledError:
            posting.cancel()
            raise
        finally:
            self._posting.discard(posting)
        if posting.cancelled():
            return None, {}, _BROKEN_OFF
        error = posting.exception()
        if isinstance(error, OutboundError):
            return None, {}, str(error)
        if error is not None:
            # A fault of ours, or of this machine: tried again, like any other.
            log.error("delivery failed", notifier=self.name, exc_info=error)
            return None, {}, f"internal error: {type(error).__name__}"
        answer = posting.result()
        return answer.status, answer.headers, ""

    def _is_back(self, now: float) -> None:
        """Have everything tried at once when a receiver that was away takes something again.

        Each key waits on its own, five minutes in the end. One that takes some and refuses
        others is not away: it is not pressed.
        """
        since, self._refused_since = self._refused_since, None
        if since is not None and now - since > _AWAY_SECONDS:
            self._queue.retry_now(now, but=self._asked_to_wait)

    def _tell(self, error: str | None) -> None:
        """Log a failure once, and its end once; not every attempt of a night."""
        if error == self.error:
            return
        self._observer.stands(self.name, error)
        if error is None:
            log.info("webhook takes notifications", notifier=self.name)
        else:
            log.warning(
                "webhook does not take notifications",
                notifier=self.name,
                url=repr(self._config.url),
                error=error,
                owed=self.backlog,
            )
        self.error = error

    async def _end(self, attempt: Parcel, rows: dict[str, Owed | None]) -> None:
        """Note that rows are done with, and only then let the next of their subjects go.

        Else a crash in between would bring these again after the next.
        """
        name = ""
        while name != self.name:  # renamed meanwhile, it has written them again
            name = self.name
            named = {row_id: owed and replace(owed, notifier=name) for row_id, owed in rows.items()}
            try:
                await asyncio.shield(self._store.commit(Batch(outbox=named)))
            except NotKept as error:
                # The store goes on trying. Should we die before, it is delivered once more.
                log.warning("delivery not noted yet", notifier=name, error=str(error))
        for owed in attempt.rows:
            self._done_with(owed.id)
        self._queue.settle(attempt)


def request(config: Webhook, delivery_id: str, body: bytes) -> Post:
    """Write the request of a delivery, with all that proves it to be ours."""
    return Post(
        url=config.url.reveal(),
        body=body,
        timeout_seconds=config.timeout_seconds,
        headers={
            "X-SR-Delivery": delivery_id,
            **credentials.headers(config.access),
            **credentials.signature(config.secret, body),
        },
        ca=credentials.trusted(config.access),
    )


def _way(config: Webhook) -> tuple[object, ...]:
    """Give all that decides whether an attempt gets through."""
    return (config.url, config.timeout_seconds, config.secret, config.access)


def _about(owed: Owed) -> dict[str, str]:
    """Give whom a row is about, by the names its alert has for it."""
    who = msgspec.json.decode(owed.subject, type=list[str])
    return dict(zip(("source", "group", "identifier", "subject"), who, strict=False))


def _due_at(owed: Owed) -> float:
    """Give when a row was first to be sent: a rule's `for` is no latency of ours."""
    return owed.due_at if owed.standing is Standing.HELD and not owed.attempts else owed.created_at
