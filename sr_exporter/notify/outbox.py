"""The edges that are owed: which change becomes which notification, and in what order.

Planning is pure but for the rows it remembers: the same rows stand in the store, written by
the same commit as the change that owes them. Delivery is webhook.py's.

A change to "not ready" under a rule with a `for` is *held*: its row waits until `for` is
over. If the key is back by then the row is withdrawn, and neither is sent.
"""

from __future__ import annotations

import heapq
import uuid
from collections import deque
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import msgspec

from sr_exporter.config.values import Send
from sr_exporter.model import ChangeKind, Key
from sr_exporter.notify import alerts, payload, rules
from sr_exporter.store.contract import Owed, Standing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from sr_exporter.model import Change
    from sr_exporter.notify.alerts import Alert, Links
    from sr_exporter.outcome import Outcome


@dataclass(frozen=True, slots=True)
class EdgeNotifier:
    """What planning must know of a notifier that is told of edges."""

    name: str
    send: Send


class Queue:
    """What one notifier is owed, each subject's notifications in order, one at a time."""

    def __init__(self) -> None:
        self._rows: dict[str, Owed] = {}
        self._subjects: dict[str, deque[str]] = {}
        self._in_flight: set[str] = set()
        #: Rows whose commit is under way: a receiver must not hear what may be lost.
        self._unkept: set[str] = set()
        self._due: list[tuple[float, int, str]] = []
        self._wake: Callable[[], None] = lambda: None

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def in_flight(self) -> int:
        return len(self._in_flight)

    def on_change(self, wake: Callable[[], None]) -> None:
        self._wake = wake

    def add(self, owed: Owed, *, kept: bool) -> None:
        """Put a row at the end of its subject, or replace it where it stands."""
        if owed.id not in self._rows:
            self._subjects.setdefault(owed.subject, deque()).append(owed.id)
            heapq.heappush(self._due, (owed.due_at, owed.seq, owed.id))
        self._rows[owed.id] = owed
        if not kept:
            self._unkept.add(owed.id)

    def withdraw(self, owed: Owed) -> None:
        del self._rows[owed.id]
        self._unkept.discard(owed.id)
        self._subjects[owed.subject].remove(owed.id)
        if not self._subjects[owed.subject]:
            del self._subjects[owed.subject]

    def held(self, subject: str, now: float) -> Owed | None:
        """Give the row of this subject that is still held back, if there is one."""
        ids = self._subjects.get(subject)
        last = self._rows[ids[-1]] if ids else None
        if last is None or last.standing is not Standing.HELD or last.due_at <= now:
            return None
        # Under way already, though our clock went back since.
        under_way = subject in self._in_flight and self._subjects[subject][0] == last.id
        return None if under_way else last

    def mark_kept(self, row_id: str) -> None:
        self._unkept.discard(row_id)
        self._wake()

    def take(self, now: float) -> Owed | None:
        """Give the next row that may be sent; its subject is in flight until `settle`."""
        while self._due and self._due[0][0] <= now:
            due_at, _, row_id = self._due[0]
            owed = self._rows.get(row_id)
            if owed is not None and row_id in self._unkept:
                # Its commit is under way, and so is that of everything after it.
                return None
            heapq.heappop(self._due)
            # Of a row that is due at another time now this is no word any more.
            if owed is None or owed.due_at != due_at or owed.subject in self._in_flight:
                continue
            if self._subjects[owed.subject][0] == row_id:
                self._in_flight.add(owed.subject)
                return owed
        return None

    def settle(self, owed: Owed, retry_at: float | None = None) -> None:
        """End an attempt: the row is gone, or stays and is due again at `retry_at`."""
        self._in_flight.discard(owed.subject)
        if retry_at is None:
            self.withdraw(owed)
        else:
            # What was attempted may have been heard: it is not held back any more.
            self._rows[owed.id] = replace(owed, due_at=retry_at, standing=Standing.OWED)
        waiting = self._subjects.get(owed.subject)
        if waiting:
            head = self._rows[waiting[0]]
            heapq.heappush(self._due, (head.due_at, head.seq, head.id))

    def next_due(self) -> float | None:
        """Give when to look again, or None when nothing waits for the time."""
        return self._due[0][0] if self._due else None


@dataclass(slots=True)
class Outbox:
    """Implements `Planner` for every notifier that is told of edges."""

    notifiers: Sequence[EdgeNotifier]
    links: Links
    #: Makes delivery ids that no other store and no other run makes: after a crash the numbers
    #: of changes that could not be kept are given out again.
    run_id: uuid.UUID
    queues: dict[str, Queue] = field(init=False)

    def __post_init__(self) -> None:
        self.queues = {notifier.name: Queue() for notifier in self.notifiers}

    def restore(self, rows: Iterable[Owed]) -> list[Owed]:
        """Take up what was owed. Gives the rows whose notifier is no longer configured."""
        homeless = []
        for owed in rows:
            queue = self.queues.get(owed.notifier)
            if queue is None:
                homeless.append(owed)
            else:
                queue.add(owed, kept=True)
        return homeless

    def plan(self, outcome: Outcome, now: float) -> dict[str, Owed | None]:
        writes: dict[str, Owed | None] = {}
        if not self.notifiers:
            return writes
        for change in outcome.changes:
            edge = _edge(change, outcome, self.links)
            if edge is None:
                continue
            for notifier in self.notifiers:
                if edge.turns or notifier.send is Send.CHANGES:
                    self._owe(writes, notifier, change, edge, now)
        return writes

    def kept(self, ids: Sequence[str]) -> None:
        wanted = set(ids)
        for queue in self.queues.values():
            for row_id in wanted:
                queue.mark_kept(row_id)

    def _owe(
        self,
        writes: dict[str, Owed | None],
        notifier: EdgeNotifier,
        change: Change,
        edge: _Edge,
        now: float,
    ) -> None:
        queue = self.queues[notifier.name]
        held = queue.held(edge.subject, now)
        if held is not None and edge.resolved_at is not None:
            queue.withdraw(held)
            writes[held.id] = None
            return
        alert = replace(edge.alert, starts_at=min(edge.alert.starts_at, now))
        due_at = now if edge.resolved_at is not None else alert.starts_at + edge.for_seconds
        body = payload.webhook(
            alert,
            receiver=notifier.name,
            external_url=self.links.external_url,
            resolved_at=edge.resolved_at,
            reason=edge.reason,
        )
        if held is not None:
            owed = replace(held, body=body)
        else:
            owed = Owed(
                id=str(uuid.uuid5(self.run_id, f"{notifier.name}/{change.seq}")),
                seq=change.seq,
                notifier=notifier.name,
                subject=edge.subject,
                standing=Standing.HELD if due_at > now else Standing.OWED,
                created_at=now,
                due_at=max(due_at, now),
                attempts=0,
                body=body,
            )
        queue.add(owed, kept=False)
        writes[owed.id] = owed


@dataclass(frozen=True, slots=True)
class _Edge:
    """A change as notifiers see it."""

    subject: str
    alert: Alert
    #: None while it fires.
    resolved_at: float | None
    for_seconds: float
    #: The readiness turned: `send: readiness` is told too.
    turns: bool
    reason: str


def _edge(change: Change, outcome: Outcome, links: Links) -> _Edge | None:
    """Say what a change means to notifiers; None when they are not told of it."""
    if change.group is None or change.identifier is None:
        return _source_edge(change, outcome, links)
    key = Key(change.source, change.group, change.identifier)
    entry = outcome.entries.get(key)
    rule = rules.for_key(key, early=entry is not None and entry.early)
    if rule.silent or not _told(change):
        return None
    alert = alerts.of_removed_key(change, links) if entry is None else alerts.of_key(entry, links)
    since = change.at if change.not_ready_since is None else change.not_ready_since
    ended = change.kind is ChangeKind.REMOVED or change.ready
    return _Edge(
        subject=_subject(*key.folded()),
        alert=replace(alert, starts_at=since),
        resolved_at=change.at if ended else None,
        for_seconds=rule.for_seconds,
        turns=change.ready != change.was_ready,
        reason=_reason(change),
    )


def _told(change: Change) -> bool:
    """Whether a key's change is an event: a change of status, or a beginning or end of it."""
    if change.kind is ChangeKind.APPEARED:
        return not change.ready
    if change.kind is ChangeKind.REMOVED:
        return not change.was_ready
    return change.kind is ChangeKind.STATUS


def _source_edge(change: Change, outcome: Outcome, links: Links) -> _Edge:
    down = change.kind is ChangeKind.SOURCE_DOWN
    since = change.at if change.not_ready_since is None else change.not_ready_since
    source = outcome.sources.get(change.source)
    alert = alerts.of_source(
        change.source,
        since=since,
        error=change.details,
        links=links,
        address=source.address if source else "",
    )
    return _Edge(
        subject=_subject(change.source),
        alert=alert,
        resolved_at=None if down else change.at,
        for_seconds=rules.for_source().for_seconds,
        turns=True,
        reason=_reason(change),
    )


def _reason(change: Change) -> str:
    """Say in Alertmanager's words why there is a notification."""
    if change.ready or change.kind in (ChangeKind.REMOVED, ChangeKind.SOURCE_UP):
        return "all alerts resolved"
    if change.kind is ChangeKind.STATUS and change.was_ready is False:
        return "new alerts added"
    return "first notification"


def _subject(*names: str) -> str:
    """Write whom a notification is about, so that two are never the same."""
    return msgspec.json.encode(names).decode()
