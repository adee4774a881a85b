"""Give the levels to every instance of an Alertmanager, each at its own pace.

As Prometheus does it (facts on Alertmanager, section 1): what changed goes out at once, what
fires goes out again every minute with an end four minutes ahead, what was resolved for
fifteen minutes. A failed batch is not queued: the level as it is then is sent again. That it
takes nothing itself is told to the other notifiers, and left out here.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from dataclasses import replace
from typing import TYPE_CHECKING

import structlog

from sr_exporter.names import Names
from sr_exporter.notify import alerts, credentials, payload, retry
from sr_exporter.outbound import Outbound, OutboundError, Post
from sr_exporter.redact import redact_url
from sr_exporter.tasks import end

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from sr_exporter.config import Alertmanager
    from sr_exporter.notify.book import AlertBook, Level
    from sr_exporter.notify.figures import NotifierObserver
    from sr_exporter.store.contract import AlertRecord
    from sr_exporter.tasks import Tasks

log = structlog.get_logger(__name__)

RESEND_SECONDS = 60.0
BATCH_ALERTS = 256
#: How often batches are sent in halves at one turn: some nine times for each alert to find.
MOST_SPLITS = 50
#: What is answered to a batch of which nothing is stored: it is too big for a proxy, or an alert
#: does not fit Alertmanager's own description. Of 400 the valid ones are stored.
_REFUSED_WHOLE = (413, 422)
_LONGEST_BACKOFF_SECONDS = 30.0


class Instance:
    """One Alertmanager of a notifier."""

    def __init__(
        self,
        config: Alertmanager,
        url: str,
        book: AlertBook,
        observer: NotifierObserver,
        *,
        clock: Callable[[], float],
        on_turn: Callable[[], None],
        doubted: bool = False,
    ) -> None:
        self.url = url
        self._notifier = config.name
        self._api = url + "/api/v2/alerts"
        self._book = book
        self._observer = observer
        self._names = Names()
        self._outbound = Outbound(self._names)
        self._config = config
        self._clock = clock
        self._told = 0
        self._splits = 0
        #: Why some alerts were refused at this turn.
        self._refusal: str | None = None
        self._attempts = 0
        #: Why it takes no alerts; None while it does.
        self.error: str | None = None
        #: It took none when we stopped, and was not asked since.
        self.doubted = doubted
        self._on_turn = on_turn
        self.changed = asyncio.Event()
        #: Set when all of it is to be sent again, without waiting any longer.
        self._afresh = asyncio.Event()
        self._sending: asyncio.Task[None] | None = None

    @property
    def backlog(self) -> int:
        return len(self._to_tell(self._book.changed_after(self._told)))

    def configure(self, config: Alertmanager) -> None:
        """Send as it says from the next request on; at once, where there is an error to mend."""
        before, self._config = self._config, config
        if before.access != config.access or self.error is not None or self.doubted:
            self._afresh.set()
            self.changed.set()

    def start(self, tasks: Tasks) -> None:
        """Begin to send; one that sends already goes on."""
        if self._sending is None:
            name = f"notifier {self._notifier} {redact_url(self.url)}"
            self._sending = tasks.start(name, self._run())

    async def stop(self) -> None:
        """Send no more by itself."""
        if self._sending is not None:
            await end([self._sending])

    def close(self) -> None:
        self._outbound.hang_up()
        self._names.close()

    async def part(self) -> None:
        """Resolve, once, whatever fires: this instance hears no more of it from us."""
        now = self._clock()
        levels = self._to_tell(self._book.levels())
        for first in range(0, len(levels), BATCH_ALERTS):
            ended = [_ended(level.record, now) for level in levels[first : first + BATCH_ALERTS]]
            status, _, error = await self._post(ended)
            if status is None or status >= 300:
                log.warning(
                    "an Alertmanager that left the configuration was not told that its alerts end",
                    notifier=self._notifier,
                    instance=redact_url(self.url),
                    error=error or f"HTTP {status}",
                )
                return

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        resend_at = loop.time()
        while True:
            self.changed.clear()
            whole = self._afresh.is_set() or loop.time() >= resend_at
            self._afresh.clear()
            wait = await self.send(whole=whole)
            if wait is None:
                if whole:
                    resend_at = loop.time() + RESEND_SECONDS
                await _set_or(self.changed, resend_at - loop.time())
            else:
                await _set_or(self._afresh, wait)

    async def send(self, *, whole: bool) -> float | None:
        """Send everything, or what changed. Gives how long to wait before the next try."""
        version = self._book.version
        levels = self._to_tell(
            self._book.levels() if whole else self._book.changed_after(self._told)
        )
        self._splits, self._refusal = MOST_SPLITS, None
        # With nothing to send, nothing else would show that it takes alerts again.
        ask = whole and (self.doubted or self.error is not None)
        for first in range(0, max(len(levels), int(ask)), BATCH_ALERTS):
            wait = await self._send_batch(levels[first : first + BATCH_ALERTS])
            if wait is not None:
                return wait
        if levels or ask:
            self._tell(self._refusal)
        self._told = version
        return None

    def _to_tell(self, levels: list[Level]) -> list[Level]:
        return [level for level in levels if not alerts.is_about(level.record, self._notifier)]

    async def _send_batch(self, batch: Sequence[Level]) -> float | None:
        """Send a batch; one that is refused whole in halves, so that one alert mutes no others."""
        status, headers, error = await self._post([level.record for level in batch])
        if status not in _REFUSED_WHOLE or len(batch) < 2 or not self._splits:
            return self._judge(batch, status, headers, error)
        self._splits -= 1
        middle = len(batch) // 2
        for half in (batch[:middle], batch[middle:]):
            wait = await self._send_batch(half)
            if wait is not None:
                return wait
        return None

    def _judge(
        self, batch: Sequence[Level], status: int | None, headers: Mapping[str, str], error: str
    ) -> float | None:
        now = self._clock()
        self._attempts += 1
        decision = retry.decide(
            status=status,
            error=error,
            headers=headers,
            attempts=self._attempts,
            age_seconds=0.0,
            max_age_seconds=1.0,
            now=now,
            random=random.random(),
        )
        match decision:
            case retry.Retry(delay_seconds=delay, reason=reason):
                self._tell(reason)
                self._observer.retried(self._notifier)
                return min(delay, _LONGEST_BACKOFF_SECONDS)
            case retry.Dead(reason=reason):
                # What was valid in the batch is stored all the same; the rest is not made
                # valid by sending it again at once. The resend will.
                self._refusal = reason
                self._observer.dead(self._notifier)
            case retry.Settled():
                self._observer.accepted(self._notifier)
                for level in batch:
                    if level.version > self._told:
                        self._observer.latency(self._notifier, now - level.changed_at)
        self._attempts = 0
        return None

    async def _post(
        self, batch: Sequence[AlertRecord]
    ) -> tuple[int | None, Mapping[str, str], str]:
        post = Post(
            url=self._api,
            body=payload.alertmanager(batch, self._clock()),
            timeout_seconds=self._config.timeout_seconds,
            headers=credentials.headers(self._config.access),
            ca=credentials.trusted(self._config.access),
        )
        try:
            answer = await self._outbound.post(post)
        except OutboundError as error:
            return None, {}, str(error)
        except Exception as error:
            # A fault of ours, or of this machine: tried again, like any other.
            log.exception("sending failed", notifier=self._notifier)
            return None, {}, f"internal error: {type(error).__name__}"
        return answer.status, answer.headers, ""

    def _tell(self, error: str | None) -> None:
        if error == self.error and not self.doubted:
            return
        instance = redact_url(self.url)
        if error is None:
            log.info("Alertmanager takes alerts", notifier=self._notifier, instance=instance)
        else:
            log.warning(
                "Alertmanager does not take alerts",
                notifier=self._notifier,
                instance=instance,
                error=error,
            )
        self.error, self.doubted = error, False
        self._on_turn()


class AlertmanagerSender:
    """All instances of one notifier."""

    def __init__(
        self,
        config: Alertmanager,
        book: AlertBook,
        observer: NotifierObserver,
        *,
        clock: Callable[[], float],
        doubted: bool = False,
    ) -> None:
        self.name = config.name
        self._book = book
        self._observer = observer
        self._clock = clock
        self._instances: list[Instance] = []
        self.configure(config, doubted=doubted)

    @property
    def backlog(self) -> int:
        """How many changes the instance that is furthest behind was not told yet."""
        return max((instance.backlog for instance in self._instances), default=0)

    def configure(self, config: Alertmanager, *, doubted: bool = False) -> list[Instance]:
        """Have these instances, and no others. Gives those that left: they are to be told so.

        Who stays goes on where it was. Who is new does not send before `start`; it is `doubted`
        where the notifier took nothing when we stopped.
        """
        held = {instance.url: instance for instance in self._instances}
        self._instances = []
        for url in config.urls:
            if (instance := held.pop(url, None)) is None:
                instance = self._new(config, url, doubted=doubted)
            else:
                instance.configure(config)
            self._instances.append(instance)
        if held:
            self._tell()
        return list(held.values())

    def _new(self, config: Alertmanager, url: str, *, doubted: bool) -> Instance:
        return Instance(
            config,
            url,
            self._book,
            self._observer,
            clock=self._clock,
            on_turn=self._tell,
            doubted=doubted,
        )

    def leave(self) -> list[Instance]:
        """Have no instances any more. Gives those there were."""
        left, self._instances = self._instances, []
        return left

    def start(self, tasks: Tasks) -> None:
        """Begin to send, to every instance that is not sent to yet."""
        for instance in self._instances:
            instance.start(tasks)

    def wake(self) -> None:
        for instance in self._instances:
            instance.changed.set()

    async def drain(self) -> None:
        """Stop; send once more what changed."""
        await asyncio.gather(*(instance.stop() for instance in self._instances))
        await asyncio.gather(*(instance.send(whole=False) for instance in self._instances))

    def close(self) -> None:
        for instance in self._instances:
            instance.close()

    def _tell(self) -> None:
        """Say how the notifier stands: as the worst of its instances."""
        errors = [instance.error for instance in self._instances if instance.error is not None]
        if not errors and any(instance.doubted for instance in self._instances):
            return
        count = len(self._instances)
        said = f"{len(errors)} of {count} instances: {errors[0]}" if errors else None
        self._observer.stands(self.name, said)


async def _set_or(event: asyncio.Event, seconds: float) -> None:
    """Wait for an event, so long at most."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(max(0.0, seconds)):
            await event.wait()


def _ended(record: AlertRecord, now: float) -> AlertRecord:
    """Give the end of an alert for who is told nothing more of it."""
    if record.resolved_at is not None:
        return record
    return replace(alerts.ended_by_configuration(record), resolved_at=now)
