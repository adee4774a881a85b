"""The edges that are owed: which change becomes which notification, and in what order.

Planning is pure but for the rows it remembers: the same rows stand in the store, written by
the same commit as the change that owes them. Delivery is webhook.py's, the order of what is
owed queues.py's.

A change to "not ready" under a rule with a `for` is *held*: its row waits until `for` is
over. If the key is back by then the row is withdrawn, and neither is sent. So it is the other way
round: under a rule with `keep_firing_for` the end of an alert is held.
"""

from __future__ import annotations

import uuid
from dataclasses import replace
from typing import TYPE_CHECKING

from sr_exporter.config.values import Limits, Send
from sr_exporter.model import ChangeKind, Key
from sr_exporter.notify import alerts, payload
from sr_exporter.notify.edges import (
    FIRST,
    OVER,
    Edge,
    EdgeNotifier,
    Unwell,
    kept_until,
    of_change,
    of_turn,
    reworded,
    rule_of,
    subject_of,
    unwell_of,
)
from sr_exporter.notify.queues import Queue
from sr_exporter.notify.rules import Rules
from sr_exporter.store.contract import Owed, Standing

if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Sequence

    from sr_exporter.held import Entry, Reported, Source
    from sr_exporter.model import Change
    from sr_exporter.notify.alerts import Links, Who
    from sr_exporter.notify.book import AlertBook
    from sr_exporter.notify.rules import Rule
    from sr_exporter.outcome import Outcome


class Outbox:
    """Implements `Planner` for every notifier that is told of edges."""

    def __init__(self, book: AlertBook, links: Links, run_id: uuid.UUID) -> None:
        self._book = book
        self._links = links
        #: Makes delivery ids that no other run makes.
        self._run_id = run_id
        self._rules = Rules()
        #: False until the first `configure`: what was told may have been told by other rules.
        self._sure = False
        self._notifiers: tuple[EdgeNotifier, ...] = ()
        self._last_seq = 0
        #: How many rows each notifier is owed at most.
        self.most = Limits().notifications
        self.queues: dict[str, Queue] = {}

    def restore(
        self, rows: Iterable[Owed], notifiers: Sequence[EdgeNotifier], rules: Rules
    ) -> None:
        """Take up what was owed, to whomever; `configure` follows, and settles who is left."""
        self._notifiers, self._rules = tuple(notifiers), rules
        for notifier in notifiers:
            self.queues[notifier.name] = Queue()
        for owed in rows:
            self.queues.setdefault(owed.notifier, Queue()).add(owed, kept=True)
            self._last_seq = max(self._last_seq, owed.seq)

    def plan(self, outcome: Outcome, now: float) -> dict[str, Owed | None]:
        writes: dict[str, Owed | None] = {}
        if not self._notifiers:
            return writes
        for change in outcome.changes:
            self._heed(writes, change, outcome, now)
        for entry in outcome.not_starting:
            self._hurry(writes, entry, now)
        for source in outcome.asked_again:
            found = unwell_of(source, self._rules, self._links)
            for notifier in self._notifiers:
                self._turn(writes, notifier, None, found, now)
        for turn in outcome.subjects:
            edge = of_turn(turn, self._rules, self._links)
            for notifier in self._notifiers:
                self._owe(writes, notifier, edge, now)
        self._give_up_surplus(writes)
        return writes

    def _heed(
        self, writes: dict[str, Owed | None], change: Change, outcome: Outcome, now: float
    ) -> None:
        edge = of_change(change, outcome, self._rules, self._links)
        if edge is not None:
            for notifier in self._notifiers:
                if edge.turns or notifier.send is Send.CHANGES:
                    self._owe(writes, notifier, edge, now)
        elif change.kind is ChangeKind.REMOVED:
            self._let_end(writes, change, now)
        elif (found := reworded(change, outcome)) is not None:
            self._reword(writes, found, now)

    def _hurry(self, writes: dict[str, Owed | None], entry: Entry, now: float) -> None:
        """Give a key that is not starting no more time than its rule does."""
        was = self._rules.for_key(entry.key, early=True)
        is_now = unwell_of(entry, self._rules, self._links)
        for notifier in self._notifiers:
            self._turn(writes, notifier, was, is_now, now)

    def rename(self, old: str, new: str) -> dict[str, Owed | None]:
        """Have a notifier go on under another name, with all it is owed."""
        queue = self.queues[new] = self.queues.pop(old)
        self._notifiers = tuple(
            replace(one, name=new) if one.name == old else one for one in self._notifiers
        )
        return {owed.id: owed for owed in queue.rename(new)}

    def count_from(self, rows: Iterable[Owed]) -> None:
        """Number what comes above these rows: they may bear higher numbers, of another run."""
        self._last_seq = max(self._last_seq, *(owed.seq for owed in rows))

    def kept(self, ids: Sequence[str]) -> None:
        wanted = set(ids)
        for queue in self.queues.values():
            for row_id in wanted:
                queue.mark_kept(row_id)

    # --- the configuration changes ----------------------------------------------------------

    def configure(
        self,
        notifiers: Sequence[EdgeNotifier],
        rules: Rules,
        unwell: Iterable[Entry | Reported | Source],
        now: float,
        quiet: Container[str] = (),
    ) -> dict[str, Owed | None]:
        """Owe to these, by these rules. Gives the rows of the outbox to write.

        Whoever leaves, unless quietly, is owed the end of every alert it had; `part` takes its
        queue. Whoever stays hears the end of what is silenced or labelled anew, and the beginning
        of what is silenced no more. `unwell` is every key that is not ready, every subject that
        texts call so, and every source that is down; the book must be as the rules of before
        have it.
        """
        writes: dict[str, Owed | None] = {}
        names = {notifier.name for notifier in notifiers}
        leaving = [
            one for one in self._notifiers if one.name not in names and one.name not in quiet
        ]
        staying = [one for one in notifiers if one.name in self.queues]
        for found in unwell if leaving or staying else ():
            was = rule_of(found, self._rules) if self._sure else None
            is_now = unwell_of(found, rules, self._links)
            for notifier in leaving:
                self._end(writes, notifier, is_now, now)
            for notifier in staying:
                self._turn(writes, notifier, was, is_now, now)
        for name, queue in self.queues.items():
            for row in queue.rows():
                if payload.is_end_held(row) and queue.held(row.subject, now) is row:
                    until = kept_until(row, rules) if name in names else now
                    self._move(writes, row, until, now)
        self._rules, self._sure = rules, True
        self._notifiers = tuple(notifiers)
        for notifier in notifiers:
            self.queues.setdefault(notifier.name, Queue())
        self._give_up_surplus(writes)
        return writes

    def part(self) -> list[Owed]:
        """Let go of the queues of whoever left. Gives what was still owed to them."""
        names = {notifier.name for notifier in self._notifiers}
        gone = [name for name in self.queues if name not in names]
        return [owed for name in gone for owed in self.queues.pop(name).rows()]

    def _believed(self, row: Owed | None, who: Who) -> dict[str, str] | None:
        """Give the labels of the alert that a receiver believes to fire, or will by then.

        Told by the last row it is owed; where there is none it has heard what the book has.
        """
        if row is not None:
            return payload.believed(row)
        told = self._book.told(who)
        return None if told is None else told.labels

    def _began(self, row: Owed | None, who: Who, since: float) -> float:
        """Give since when an alert fires for its receiver; `since` is of this time not ready.

        That is later where `keep_firing_for` made one of two. Told by the last row it is owed; a
        row whose body is left to the store is so old that the book knows of it.
        """
        if row is not None and row.body is not None:
            return payload.alert(row.body).starts_at
        told = self._book.told(who)
        return since if told is None else min(since, told.starts_at)

    def _end(
        self, writes: dict[str, Owed | None], notifier: EdgeNotifier, found: Unwell, now: float
    ) -> None:
        """Have a notifier hear no more of somebody: what is held is withdrawn, the rest ends."""
        subject = subject_of(*found.who)
        queue = self.queues[notifier.name]
        if (held := queue.held(subject, now)) is not None:
            queue.withdraw(held)
            writes[held.id] = None
        row = queue.last(subject, now)
        believed = self._believed(row, found.who)
        if believed is not None:
            alert = replace(
                alerts.without_recovery(found.alert),
                labels=believed,
                starts_at=self._began(row, found.who, found.alert.starts_at),
            )
            self._add(writes, notifier, Edge(found.who, alert, now, 0.0, True, OVER), now)

    def _turn(
        self,
        writes: dict[str, Owed | None],
        notifier: EdgeNotifier,
        was: Rule | None,
        found: Unwell,
        now: float,
    ) -> None:
        """Have a notifier hear of somebody by another rule than before; None: not known."""
        if was == (rule := found.rule):
            return
        if rule.silent:
            self._end(writes, notifier, found, now)
            return
        subject = subject_of(*found.who)
        queue = self.queues[notifier.name]
        held = queue.held(subject, now)
        believed = self._believed(queue.last(subject, now), found.who)
        edge = Edge(found.who, found.alert, None, rule.for_seconds, True, FIRST)
        if believed is not None and believed != found.alert.labels:
            self._end(writes, notifier, found, now)
            # It has lasted long enough to be told once: it is not held back again.
            self._add(writes, notifier, replace(edge, for_seconds=0.0), now)
        elif held is not None:
            same = payload.gist(held).labels == found.alert.labels
            same &= was is None or was.annotations == rule.annotations
            if not same or edge.due_at(now) != held.due_at:
                self._hold(writes, notifier, held, edge, now)
        elif believed is None and was is not None and was.silent:
            self._add(writes, notifier, edge, now)

    def _give_up_surplus(self, writes: dict[str, Owed | None]) -> None:
        """Make dead letters of the oldest rows of whoever is owed too many."""
        for queue in self.queues.values():
            for owed in queue.withdraw_oldest(self.most):
                reason = f"more than {self.most} were owed (limits.notifications)"
                writes[owed.id] = replace(owed, standing=Standing.DEAD, reason=reason)

    # --- rows ---------------------------------------------------------------------------------

    def _owe(
        self, writes: dict[str, Owed | None], notifier: EdgeNotifier, edge: Edge, now: float
    ) -> None:
        queue = self.queues[notifier.name]
        held = queue.held(edge.subject, now)
        if held is not None and payload.is_end_held(held):
            self._owe_at_an_end(writes, notifier, held, edge, now)
            return
        if edge.silent and edge.resolved_at is None:
            return
        if held is not None and edge.resolved_at is None:
            self._hold(writes, notifier, held, edge, now, due_at=held.due_at)
            return
        row = queue.last(edge.subject, now)
        believed = self._believed(row, edge.who)
        if believed is not None:
            began = self._began(row, edge.who, edge.alert.starts_at)
            edge = replace(edge, alert=replace(edge.alert, starts_at=began))
        if edge.resolved_at is None:
            # Who knows that it is not well is not kept waiting for how.
            told = edge if believed is None else replace(edge, for_seconds=0.0)
            self._add(writes, notifier, told, now)
            return
        if held is not None:
            queue.withdraw(held)
            writes[held.id] = None
        if believed is not None:
            # The end of an alert bears the labels of its beginning, and its time.
            alert = replace(edge.alert, labels=believed)
            self._add(writes, notifier, replace(edge, alert=alert), now)
        elif held is None and not (edge.silent or edge.gone):
            self._add(writes, notifier, replace(edge, keep_seconds=0.0), now)

    def _owe_at_an_end(
        self,
        writes: dict[str, Owed | None],
        notifier: EdgeNotifier,
        held: Owed,
        edge: Edge,
        now: float,
    ) -> None:
        """Deal with a change while the end of an alert is held back."""
        if edge.resolved_at is not None:
            alert = replace(
                edge.alert,
                labels=payload.gist(held).labels,
                starts_at=self._began(held, edge.who, edge.alert.starts_at),
            )
            told = replace(edge, alert=alert)
            self._hold(writes, notifier, held, told, now, due_at=held.due_at)
        elif edge.silent:
            self._move(writes, held, now, now)
        else:
            # It goes on: neither that it had ended nor that it began anew is told.
            self.queues[notifier.name].withdraw(held)
            writes[held.id] = None

    def _let_end(self, writes: dict[str, Owed | None], change: Change, now: float) -> None:
        """Have what is held back of an end be told now: whom it is about is gone."""
        key = Key(change.source, change.group or "", change.identifier or "")
        for queue in self.queues.values():
            held = queue.held(subject_of(*key.folded()), now)
            if held is not None:
                self._move(writes, held, now, now)

    def _reword(self, writes: dict[str, Owed | None], entry: Entry, now: float) -> None:
        """Have what is held back of a key tell its details as they are now."""
        found = unwell_of(entry, self._rules, self._links)
        edge = Edge(found.who, found.alert, None, 0.0, turns=True, reason=FIRST)
        for notifier in self._notifiers:
            held = self.queues[notifier.name].held(edge.subject, now)
            if held is not None and not payload.is_end_held(held):
                self._hold(writes, notifier, held, edge, now, due_at=held.due_at)

    def _move(self, writes: dict[str, Owed | None], held: Owed, due_at: float, now: float) -> None:
        """Have a row that is held be due at another time."""
        if due_at == held.due_at:
            return
        standing = Standing.HELD if due_at > now else Standing.OWED
        owed = replace(held, due_at=max(due_at, now), standing=standing)
        self.queues[held.notifier].add(owed, kept=False)
        writes[owed.id] = owed

    def _add(
        self, writes: dict[str, Owed | None], notifier: EdgeNotifier, edge: Edge, now: float
    ) -> None:
        if edge.who == alerts.who_of_notifier(notifier.name):
            return  # that it takes nothing is told to the others
        self._last_seq += 1
        due_at = edge.due_at(now)
        owed = Owed(
            id=str(uuid.uuid5(self._run_id, f"{notifier.name}/{self._last_seq}")),
            seq=self._last_seq,
            notifier=notifier.name,
            subject=edge.subject,
            standing=Standing.HELD if due_at > now else Standing.OWED,
            created_at=now,
            due_at=due_at,
            attempts=0,
            body=self._body(notifier, edge, now),
            gist=edge.gist,
        )
        self.queues[notifier.name].add(owed, kept=False)
        writes[owed.id] = owed

    def _hold(
        self,
        writes: dict[str, Owed | None],
        notifier: EdgeNotifier,
        held: Owed,
        edge: Edge,
        now: float,
        *,
        due_at: float | None = None,
    ) -> None:
        """Have a row that is held say what is true now, and be due when it is."""
        due_at = edge.due_at(now) if due_at is None else due_at
        owed = replace(
            held,
            body=self._body(notifier, edge, now),
            gist=edge.gist,
            due_at=due_at,
            standing=Standing.HELD if due_at > now else Standing.OWED,
        )
        self.queues[notifier.name].add(owed, kept=False)
        writes[owed.id] = owed

    def _body(self, notifier: EdgeNotifier, edge: Edge, now: float) -> bytes:
        return payload.webhook(
            replace(edge.alert, starts_at=min(edge.alert.starts_at, now)),
            receiver=notifier.name,
            external_url=self._links.external_url,
            resolved_at=edge.resolved_at,
            reason=edge.reason,
        )
