"""Notifications to look at, and to try again: what is owed, and what was given up.

A dead letter that is tried again goes under the id it has, to its place in the order of its
subject: before all that is younger and still owed. What is younger and was delivered already,
the receiver has heard before it. So that it is not left with what is no longer so, the
alert as it is now follows, unless something younger of the subject is owed or dead itself.
"""

from __future__ import annotations

import asyncio
import heapq
import uuid
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import msgspec

from sr_exporter.notify import payload
from sr_exporter.notify.alerts import Alert
from sr_exporter.notify.retry import LONGEST_BACKOFF_SECONDS
from sr_exporter.store.contract import Batch, Owed, Standing
from sr_exporter.threads import elsewhere

if TYPE_CHECKING:
    from collections.abc import Callable

    from sr_exporter.notify.alerts import Links
    from sr_exporter.notify.book import AlertBook
    from sr_exporter.notify.outbox import Outbox
    from sr_exporter.store.contract import Age, Store

_WAITS = (
    "it is owed already, and tried again by itself at most"
    f" {LONGEST_BACKOFF_SECONDS / 60:g} minutes later; a reload tries at once"
)
_HELD = "it is held back by its rule, and sent when it is due"


class NoSuchLetter(Exception):  # noqa: N818 - named for what befell the caller
    """No notification of that id is dead, or owed."""


class NotRetried(Exception):  # noqa: N818 - named for what befell the caller
    """It cannot be tried again, and why."""


@dataclass(frozen=True, slots=True)
class Asked:
    """Which notifications are asked for."""

    standing: Standing
    notifier: str | None
    #: Younger than this one.
    after: Age | None
    limit: int


@dataclass(frozen=True, slots=True)
class Page:
    #: With their bodies.
    rows: list[Owed]
    #: After which one the next page begins; None: there is none.
    next: Age | None


class Letters:
    """Shows notifications, and has dead ones tried again."""

    def __init__(
        self,
        store: Store,
        outbox: Outbox,
        book: AlertBook,
        links: Links,
        clock: Callable[[], float],
    ) -> None:
        self._store = store
        self._outbox = outbox
        self._book = book
        self._links = links
        self._clock = clock

    async def find(self, asked: Asked) -> Page:
        """Give notifications of one standing, oldest first.

        Raises:
            NotKept: the store cannot be read.
        """
        # One more than is shown tells whether there is a next page.
        more = replace(asked, limit=asked.limit + 1)
        if asked.standing is Standing.DEAD:
            found = await self._store.dead_letters(
                notifier=more.notifier, after=more.after, limit=more.limit
            )
        else:
            found = await self._owed(more)
        shown = found[: asked.limit]
        left = [owed.id for owed in shown if owed.body is None]
        bodies = await self._store.bodies(left) if left else {}
        return Page(
            # What is not there any more was delivered meanwhile.
            [
                owed if owed.body is not None else replace(owed, body=bodies[owed.id])
                for owed in shown
                if owed.body is not None or owed.id in bodies
            ],
            shown[-1].age if len(found) > len(shown) else None,
        )

    async def _owed(self, asked: Asked) -> list[Owed]:
        names = self._outbox.queues if asked.notifier is None else (asked.notifier,)
        queues = [self._outbox.queues[name] for name in names if name in self._outbox.queues]
        rows = [owed for queue in queues for owed in queue.rows()]
        # There may be very many.
        return await elsewhere(_first, rows, asked, self._clock())

    async def retry(self, row_id: str) -> Owed:
        """Have a dead letter delivered; gives it as it is owed, once that is kept.

        Raises:
            NoSuchLetter: there is none of that id.
            NotRetried: it is owed already, or its notifier is no longer configured.
            NotKept: the store could not be asked, or could not keep it yet.
        """
        letter = await self._store.dead_letter(row_id)
        for one in self._outbox.queues.values():
            if (owed := one.get(row_id)) is not None:
                raise NotRetried(_HELD if owed.standing is Standing.HELD else _WAITS)
        if letter is None:
            raise NoSuchLetter
        queue = self._outbox.queues.get(letter.owed.notifier)
        if queue is None:
            raise NotRetried(
                f"the notifier {letter.owed.notifier!r} is not configured as a webhook"
            )
        now = self._clock()
        # Its age begins anew, or it would be given up again at the next failure.
        revived = queue.insert(
            replace(letter.owed, standing=Standing.OWED, due_at=now, attempts=0, reason=None)
        )
        rows = {revived.id: revived}
        if letter.newest and queue.last(revived.subject, now) == revived:
            before = revived.id
            for owed in self._last_words(revived, now):
                rows[owed.id] = queue.insert(owed, after=before)
                before = owed.id
        self._outbox.count_from(rows.values())
        kept = self._store.commit(Batch(outbox=dict(rows)))
        # As with all that is owed: the store goes on trying, and delivery does not wait for it.
        kept.add_done_callback(lambda _: self._outbox.kept(list(rows)))
        await asyncio.shield(kept)
        return revived

    def _last_words(self, old: Owed, now: float) -> list[Owed]:
        """Give what must follow an old notification for its receiver to know what is so."""
        told = self._book.told(tuple(msgspec.json.decode(old.subject)))
        believed = payload.believed(old)
        if believed == (told and told.labels):
            return []
        words: list[Owed] = []
        if believed is not None:
            words.append(self._word(old, payload.alert(old.whole), now, resolved_at=now))
        if told is not None:
            alert = Alert(told.labels, told.annotations, told.starts_at, told.generator_url)
            words.append(self._word(old, alert, now, resolved_at=None))
        return words

    def _word(self, old: Owed, alert: Alert, now: float, *, resolved_at: float | None) -> Owed:
        body = payload.webhook(
            replace(alert, starts_at=min(alert.starts_at, now)),
            receiver=old.notifier,
            external_url=self._links.external_url,
            resolved_at=resolved_at,
            reason=payload.FIRST if resolved_at is None else payload.OVER,
        )
        return replace(old, id=str(uuid.uuid4()), created_at=now, body=body, gist=None)


def _first(rows: list[Owed], asked: Asked, now: float) -> list[Owed]:
    wanted = (
        owed
        for owed in rows
        if owed.is_held(now) is (asked.standing is Standing.HELD)
        and (asked.after is None or owed.age > asked.after)
    )
    found = heapq.nsmallest(asked.limit, wanted, key=lambda owed: owed.age)
    return [replace(owed, standing=asked.standing) for owed in found]
