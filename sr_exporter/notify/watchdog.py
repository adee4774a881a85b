"""The alert that always fires, told to webhooks by the clock.

Alertmanagers have it as a level like any other. A webhook is told of changes, and this alert has
none, so a dead man's switch behind a webhook needs to hear it again and again.

A beat is no notification that is owed. It is neither kept nor tried again: one that comes late
says nothing, and the next one does. It is sent on a thread of its own, so that neither waits for
the other. It does not count as a delivery, nor does it say how the notifier stands: that it is
missed is told by the switch.
"""

from __future__ import annotations

import asyncio
import uuid
from dataclasses import replace
from typing import TYPE_CHECKING

import structlog

from sr_exporter.names import Names
from sr_exporter.notify import alerts, payload, webhook
from sr_exporter.notify.edges import FIRST, OVER
from sr_exporter.outbound import Outbound, OutboundError
from sr_exporter.tasks import end

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sr_exporter.config import Webhook
    from sr_exporter.notify.alerts import Links
    from sr_exporter.store.contract import AlertRecord
    from sr_exporter.tasks import Tasks

log = structlog.get_logger(__name__)

#: In Alertmanager's words, why there is a beat after the first.
REPEATED = "repeat interval elapsed"


class Watchdog:
    """Beats at every webhook. `configure` says at which; `part` and `start` follow."""

    def __init__(self, links: Links, clock: Callable[[], float]) -> None:
        self._links = links
        self._clock = clock
        self._beats: dict[str, Beats] = {}
        self._leaving: list[Beats] = []

    def configure(
        self, webhooks: Sequence[Webhook], record: AlertRecord | None, interval_seconds: float
    ) -> None:
        """Tell these of the alert from now on; without one nobody is told."""
        wanted = {one.name: one for one in webhooks} if record is not None else {}
        heirs = {one.url.reveal(): name for name, one in wanted.items() if name not in self._beats}
        for name in [name for name in self._beats if name not in wanted]:
            beats = self._beats.pop(name)
            if (heir := heirs.pop(beats.url, None)) is None:
                self._leaving.append(beats)
            else:
                self._beats[heir] = beats
        if record is None:
            return
        for name, config in wanted.items():
            if name in self._beats:
                self._beats[name].configure(config, interval_seconds)
            else:
                self._beats[name] = Beats(config, record, interval_seconds, self._links)

    def start(self, tasks: Tasks) -> None:
        """Begin to beat where that is not done yet."""
        for beats in self._beats.values():
            beats.start(tasks)

    async def part(self) -> None:
        """Tell those that are told no more that it has ended, if they are there."""
        leaving, self._leaving = self._leaving, []
        # A receiver that another webhook goes on with is told nothing: it goes on.
        urls = {beats.url for beats in self._beats.values()}
        now = self._clock()
        try:
            await asyncio.gather(*(one.part(now) for one in leaving if one.url not in urls))
        finally:
            for one in leaving:
                one.close()

    async def stop(self) -> None:
        """Beat no more, and tell nobody: silence is the alarm."""
        for beats in self._beats.values():
            await beats.stop()
            beats.close()


class Beats:
    """The beats of one webhook, one at a time."""

    def __init__(
        self, config: Webhook, record: AlertRecord, interval_seconds: float, links: Links
    ) -> None:
        self._config = config
        self._record = record
        self._interval_seconds = interval_seconds
        self._links = links
        self._names = Names()
        self._outbound = Outbound(self._names)
        #: Whether a beat was taken by this receiver.
        self._heard = False
        self._error: str | None = None
        self._beating: asyncio.Task[None] | None = None

    @property
    def url(self) -> str:
        """Where it is sent; a secret."""
        return self._config.url.reveal()

    def configure(self, config: Webhook, interval_seconds: float) -> None:
        """Beat as it says; anew, from `start` on, where that is another way than before."""
        before = (self._config, self._interval_seconds)
        if self.url != config.url.reveal():
            self._heard = False
        self._config, self._interval_seconds = config, interval_seconds
        if before != (config, interval_seconds) and self._beating is not None:
            self._beating.cancel()
            self._beating = None

    def start(self, tasks: Tasks) -> None:
        if self._beating is None:
            self._beating = tasks.start(f"watchdog {self._config.name}", self._run())

    async def part(self, now: float) -> None:
        """Say once that it fires no more, to who has heard that it does."""
        await self.stop()
        if self._heard:
            ended = replace(alerts.ended_by_configuration(self._record), resolved_at=now)
            self._note(await self._post(ended, OVER))

    async def stop(self) -> None:
        if self._beating is not None:
            await end([self._beating])

    def close(self) -> None:
        if self._beating is not None:
            self._beating.cancel()
        self._outbound.hang_up()
        self._names.close()

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            began = loop.time()
            error = await self._post(self._record, REPEATED if self._heard else FIRST)
            self._heard |= error is None
            self._note(error)
            await asyncio.sleep(began + self._interval_seconds - loop.time())

    async def _post(self, record: AlertRecord, reason: str) -> str | None:
        """Send one. Gives why it was not taken; None: it was."""
        body = payload.webhook(
            alerts.Alert(record.labels, record.annotations, record.starts_at, record.generator_url),
            receiver=self._config.name,
            external_url=self._links.external_url,
            resolved_at=record.resolved_at,
            reason=reason,
        )
        post = webhook.request(self._config, str(uuid.uuid4()), body)
        # When the next one is due, this one comes too late.
        timeout = min(post.timeout_seconds, self._interval_seconds)
        try:
            answer = await self._outbound.post(replace(post, timeout_seconds=timeout))
        except OutboundError as error:
            return str(error)
        except Exception as error:
            # A fault of ours, or of this machine: the next one may get through.
            log.exception("sending failed", notifier=self._config.name)
            return f"internal error: {type(error).__name__}"
        return None if 200 <= answer.status < 300 else f"HTTP {answer.status}"

    def _note(self, error: str | None) -> None:
        """Log a failure once, and its end once."""
        if error == self._error:
            return
        name, url = self._config.name, repr(self._config.url)
        if error is None:
            log.info("webhook takes the watchdog", notifier=name)
        else:
            log.warning("webhook does not take the watchdog", notifier=name, url=url, error=error)
        self._error = error
