"""What a change means to who is told of edges. Pure."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import msgspec

from sr_exporter.held import Entry, Reported
from sr_exporter.model import ChangeKind, Key
from sr_exporter.notify import alerts, payload
from sr_exporter.store.contract import Gist

if TYPE_CHECKING:
    from sr_exporter.config.values import Send
    from sr_exporter.held import Source
    from sr_exporter.model import Change
    from sr_exporter.notify.alerts import Alert, Links, Who
    from sr_exporter.notify.rules import Rule, Rules
    from sr_exporter.outcome import Outcome, SubjectTurn
    from sr_exporter.store.contract import Owed

FIRST, OVER = payload.FIRST, payload.OVER


@dataclass(frozen=True, slots=True)
class EdgeNotifier:
    """What planning must know of a notifier that is told of edges."""

    name: str
    send: Send


@dataclass(frozen=True, slots=True)
class Unwell:
    """Somebody who is not well, and what there is to tell of it."""

    who: Who
    rule: Rule
    alert: Alert


@dataclass(frozen=True, slots=True)
class Edge:
    """A change as notifiers see it."""

    who: Who
    alert: Alert
    #: None while it fires.
    resolved_at: float | None
    for_seconds: float
    #: The readiness turned: `send: readiness` is told too.
    turns: bool
    reason: str
    silent: bool = False
    #: It is gone: nothing to tell who was not told that it was not ready.
    gone: bool = False
    #: How long an end is held back: `keep_firing_for`.
    keep_seconds: float = 0.0

    @property
    def subject(self) -> str:
        return subject_of(*self.who)

    @property
    def gist(self) -> Gist:
        return Gist(self.alert.labels, self.resolved_at is None)

    def due_at(self, now: float) -> float:
        if self.resolved_at is not None:
            return now + self.keep_seconds
        return max(now, min(self.alert.starts_at, now) + self.for_seconds)


def unwell_of(found: Entry | Reported | Source, rules: Rules, links: Links) -> Unwell:
    """Say what there is to tell of somebody who is not well."""
    rule = rule_of(found, rules)
    if isinstance(found, Entry):
        return Unwell(tuple(found.key.folded()), rule, alerts.of_key(found, rule, links))
    if isinstance(found, Reported):
        record = found.entry.subjects[found.subject]
        return Unwell(found.who, rule, alerts.of_subject(*found, record, rule, links))
    alert = alerts.of_source(
        found.name,
        rule,
        links,
        since=found.down_since or 0.0,
        error=found.last_error,
        address=found.address,
    )
    return Unwell((found.name,), rule, alert)


def rule_of(found: Entry | Reported | Source, rules: Rules) -> Rule:
    if isinstance(found, Entry):
        return rules.for_key(found.key, early=found.early)
    if isinstance(found, Reported):
        return rules.for_key(found.entry.key, early=False)
    return rules.for_source(found.name, found.asked_twice_after)


def of_change(change: Change, outcome: Outcome, rules: Rules, links: Links) -> Edge | None:
    """Say what a change means to notifiers; None when they are not told of it."""
    if change.group is None or change.identifier is None:
        return _of_source(change, outcome, rules, links)
    if not is_event(change):
        return None
    key = Key(change.source, change.group, change.identifier)
    entry = outcome.entries.get(key)
    rule = rules.for_key(key, early=entry is not None and entry.early)
    since = change.at if change.not_ready_since is None else change.not_ready_since
    if entry is None:
        alert = alerts.of_removed_key(change, rule, links)
    else:
        alert = alerts.of_key(entry, rule, links, since=since)
    ended = change.kind is ChangeKind.REMOVED or change.ready
    return Edge(
        who=tuple(key.folded()),
        alert=replace(alert, starts_at=since),
        resolved_at=change.at if ended else None,
        for_seconds=rule.for_seconds,
        turns=change.ready != change.was_ready,
        reason=reason_of(change),
        silent=rule.silent,
        gone=change.kind is ChangeKind.REMOVED,
        keep_seconds=0.0 if change.kind is ChangeKind.REMOVED else rule.keep_firing_seconds,
    )


def _of_source(change: Change, outcome: Outcome, rules: Rules, links: Links) -> Edge:
    source = outcome.sources.get(change.source)
    rule = rules.for_source(change.source, source.asked_twice_after if source else 0.0)
    alert = alerts.of_source(
        change.source,
        rule,
        links,
        since=change.at if change.not_ready_since is None else change.not_ready_since,
        error=change.details,
        address=source.address if source else "",
        kind=change.kind,
    )
    return Edge(
        who=(change.source,),
        alert=alert,
        resolved_at=None if change.kind is ChangeKind.SOURCE_DOWN else change.at,
        for_seconds=rule.for_seconds,
        turns=True,
        reason=reason_of(change),
        silent=rule.silent,
        keep_seconds=rule.keep_firing_seconds if source is not None and source.polled else 0.0,
    )


def of_turn(turn: SubjectTurn, rules: Rules, links: Links) -> Edge:
    """Say what it means that report texts began, or ceased, to call somebody not ready."""
    entry, record = turn.entry, turn.record
    rule = rules.for_key(entry.key, early=False)
    alert = alerts.of_subject(entry, turn.subject, record, rule, links, turn.ending)
    held = entry.group.source.entry(entry.group.name, entry.identifier) is entry
    return Edge(
        who=turn.who,
        alert=replace(alert, starts_at=record.since),
        resolved_at=turn.at if turn.ended else None,
        for_seconds=rule.for_seconds,
        turns=True,
        reason=OVER if turn.ended else FIRST,
        silent=rule.silent,
        keep_seconds=rule.keep_firing_seconds if held else 0.0,
    )


def is_event(change: Change) -> bool:
    """Whether a key's change is an event: a change of status, or a beginning or end of it."""
    if change.kind is ChangeKind.APPEARED:
        return not change.ready
    if change.kind is ChangeKind.REMOVED:
        return not change.was_ready
    return change.kind is ChangeKind.STATUS


def reworded(change: Change, outcome: Outcome) -> Entry | None:
    """Give the key that is not ready as before, and for other reasons; None: it is no such."""
    if change.kind is not ChangeKind.DETAILS:
        return None
    key = Key(change.source, change.group or "", change.identifier or "")
    entry = outcome.entries.get(key)
    return None if entry is None or entry.ready else entry


def reason_of(change: Change) -> str:
    """Say in Alertmanager's words why there is a notification."""
    if change.ready or change.kind in (ChangeKind.REMOVED, ChangeKind.SOURCE_UP):
        return OVER
    if change.kind is ChangeKind.STATUS and change.was_ready is False:
        return payload.MORE
    return FIRST


def subject_of(*names: str) -> str:
    """Write whom a notification is about, so that two are never the same."""
    return msgspec.json.encode(names).decode()


def kept_until(end: Owed, rules: Rules) -> float:
    """Give when an end that is held back is due by these rules."""
    labels = payload.gist(end).labels
    if "group" in labels:
        rule = rules.for_key(alerts.key_of(labels), early=False)
    else:
        rule = rules.for_source(labels["source"])
    identity = {name: labels[name] for name in payload.GROUP_LABELS if name in labels}
    same = labels == {**rule.labels, **identity, "severity": rule.severity}
    return end.created_at + rule.keep_firing_seconds if same and not rule.silent else 0.0
