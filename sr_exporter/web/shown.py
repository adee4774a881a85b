"""What is held, in the words a page shows it with."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import blake2s
from typing import TYPE_CHECKING, NamedTuple

from sr_exporter.model import OWN_SOURCE, Key, Kind
from sr_exporter.notify import alerts
from sr_exporter.web.drawing import Drawing, draw
from sr_exporter.web.filters import key_path, source_path
from sr_exporter.web.finding import is_down, is_known, tells_of_a_source
from sr_exporter.web.moments import lasting
from sr_exporter.web.past import History, Span, Standing, spans, together
from sr_exporter.words import meaning

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sr_exporter.held import Entry, Group, Reported, Source
    from sr_exporter.model import Report, Subscribed
    from sr_exporter.notify.book import AlertBook
    from sr_exporter.store.contract import AlertRecord

#: Of texts that sources say, lists show so much, and pages of one key so much: characters.
LIST_CHARACTERS = 240
PAGE_CHARACTERS = 4_096
#: How many reports stand beside what is not ready.
NEWEST_REPORTS = 3
#: How many columns a timeline has, in a list and on the page of one key.
LIST_COLUMNS = 96
PAGE_COLUMNS = 720

_STANDING = {
    Standing.READY: "ready",
    Standing.NOT_READY: "not ready",
    Standing.UNREAD: "not looked at",
    Standing.UNKNOWN: "not known",
    Standing.ABSENT: "not held",
}


class Said(NamedTuple):
    """A report as it is shown."""

    at: float
    log: str


class Spell(NamedTuple):
    """A time in which a key stood one way, in words."""

    begin: float
    end: float
    standing: str
    words: str
    details: str


class Timeline(NamedTuple):
    drawing: Drawing
    #: What it shows, for who does not see it.
    words: str
    #: The newest first.
    spells: list[Spell]


@dataclass(frozen=True, slots=True)
class SourceRow:
    id: str
    name: str
    path: str
    state: str
    #: "good", "bad" or "unknown".
    tone: str
    #: Since when it is down.
    down_since: float | None
    #: Since when it has been asked without an answer yet.
    asked_since: float | None
    last_seen: float | None
    version: str
    transport: str
    address: str
    identifiers: int
    #: None when it is not known now.
    not_ready: int | None
    error: str
    alert: str


@dataclass(frozen=True, slots=True)
class KeyRow:
    id: str
    key: Key
    path: str
    #: "ready", "not ready" or "unknown": what is known now.
    state: str
    #: What its status means.
    words: str
    details: str
    #: Since when its readiness, and its number, are as they are.
    since: float
    changed_at: float
    reports: list[Said]
    alert: str
    timeline: Timeline


@dataclass(frozen=True, slots=True)
class ReportedRow:
    key: Key
    path: str
    subject: str
    rule: str
    since: float
    log: str
    alert: str


class KeptAlert(NamedTuple):
    """An alert that fires though what it was about is well again."""

    name: str
    about: str
    path: str
    since: float
    summary: str


class Shown:
    """Says of what is held what a page shows, at one moment."""

    def __init__(
        self,
        book: AlertBook,
        history: History,
        now: float,
        heard_before: Mapping[str, float],
    ) -> None:
        """`heard_before` says when sources were last heard before this exporter was started."""
        self._book = book
        self._history = history
        self._now = now
        self._heard_before = heard_before

    def source(
        self, source: Source, asked_since: float | None, subscribed: Subscribed | None
    ) -> SourceRow:
        state, tone = _source_state(source)
        groups = [one for one in source.groups.values() if not tells_of_a_source(one)]
        unheard = None
        if subscribed is not None and subscribed.error is not None:
            unheard = f"not subscribed to its events: {subscribed.error}"
        return SourceRow(
            id=mark(Key(source.name, "", "")),
            name=source.name,
            path=source_path(source.name),
            state=state,
            tone=tone,
            down_since=source.down_since if is_down(source) else None,
            asked_since=None if source.up else asked_since,
            last_seen=source.last_seen,
            version=source.version,
            transport=source.transport,
            address=source.address,
            identifiers=sum(len(one.entries) for one in source.groups.values()),
            not_ready=sum(one.not_ready for one in groups) if is_known(source) else None,
            error=cut("; ".join(one for one in (source.last_error, unheard) if one)),
            alert=self._alert((source.name,)),
        )

    def key(
        self,
        entry: Entry,
        *,
        columns: int = LIST_COLUMNS,
        characters: int = LIST_CHARACTERS,
        reports: int = 1,
    ) -> KeyRow:
        key = entry.key
        folded = key.folded()
        words = status_words(key.group, key.identifier, entry.status)
        state = "ready" if entry.ready else "not ready"
        if not is_known(entry.group.source):
            words, state = f"last said: {words}", "unknown"
        return KeyRow(
            id=mark(folded),
            key=key,
            path=key_path(key),
            state=state,
            words=words,
            details=cut(entry.details or "", characters),
            since=entry.ready_changed_at,
            changed_at=entry.changed_at,
            reports=[said(one, characters) for one in reversed(entry.reports[-reports:])],
            alert=self._alert(tuple(folded)),
            timeline=self.timeline(folded, entry, columns),
        )

    def timeline(self, key: Key, entry: Entry | None, columns: int) -> Timeline:
        """Draw how a folded key stood."""
        history, now = self._history, self._now
        found = spans(
            history,
            key,
            entry,
            known=entry is None or is_known(entry.group.source),
            now=now,
            lost_at=self._heard_before.get(key.source),
        )
        drawing = draw(found, history.since, now, columns)
        spells = [_spell(key, span) for span in reversed(found)] if columns > LIST_COLUMNS else []
        return Timeline(drawing, _summary(found), spells)

    def reported(self, one: Reported, characters: int = LIST_CHARACTERS) -> ReportedRow | None:
        """Give what texts report of somebody; None where they do not any more."""
        record = one.record
        if record is None:
            return None
        return ReportedRow(
            key=one.entry.key,
            path=key_path(one.entry.key),
            subject=cut(one.subject, characters),
            rule=record.rule,
            since=record.since,
            log=cut(record.log.rstrip("\n"), characters),
            alert=self._alert(one.who),
        )

    def kept(self, record: AlertRecord) -> KeptAlert:
        labels = record.labels
        if labels["alertname"] == alerts.SOURCE_DOWN:
            about, path = labels["source"], source_path(labels["source"])
        else:
            key = alerts.key_of(labels)
            about, path = " / ".join(key), key_path(key)
            if (subject := labels.get("subject")) is not None:
                about = f"{about}: {subject}"
        return KeptAlert(
            name=labels["alertname"],
            about=cut(about),
            path=path,
            since=record.starts_at,
            summary=cut(record.annotations.get("summary", "")),
        )

    def _alert(self, who: tuple[str, ...]) -> str:
        """Say how the alert of somebody stands; "" where there is none."""
        told = self._book.told(who)
        return "" if told is None else f"alert fires, {told.labels.get('severity', 'warning')}"


def mark(key: Key) -> str:
    """Give an id for a folded key that a document may have."""
    return "k" + blake2s("\x00".join(key).encode(), digest_size=8).hexdigest()


def group_mark(group: Group) -> str:
    return "g" + mark(Key(group.source.name, group.name, "").folded())[1:]


def status_words(group: str, identifier: str, status: int) -> str:
    """Say what a status means; where only its sign is known, the number is all there is to say."""
    known = meaning(group, identifier, status)
    return f"status {status}" if known in ("ready", "not ready") else f"{known} ({status})"


def said(report: Report, characters: int = PAGE_CHARACTERS) -> Said:
    return Said(report.timestamp, cut(report.log.rstrip("\n"), characters))


def cut(text: str, characters: int = LIST_CHARACTERS) -> str:
    return text if len(text) <= characters else f"{text[:characters]}..."


def _source_state(source: Source) -> tuple[str, str]:
    if source.name == OWN_SOURCE:
        return "this exporter", "good"
    if source.kind is Kind.PUSHED:
        return "pushed", "good"
    if is_down(source):
        return "DOWN", "bad"
    if source.up:
        return ("up", "good") if source.polled else ("sends events", "good")
    return "not heard yet", "unknown"


def _spell(key: Key, span: Span) -> Spell:
    words = "" if span.status is None else status_words(key.group, key.identifier, span.status)
    details = cut(span.details or "")
    return Spell(span.begin, span.end, _STANDING[span.standing], words, details)


def _summary(found: list[Span]) -> str:
    """Say what a timeline shows."""
    times, seconds = together(found, Standing.NOT_READY)
    said_so = []
    if times:
        often = "once" if times == 1 else f"{times} times"
        said_so.append(f"not ready {often}, {lasting(seconds)} in all")
    gaps, unknown = together(found, Standing.UNKNOWN)
    if gaps:
        said_so.append(f"not known for {lasting(unknown)}")
    if unread := together(found, Standing.UNREAD)[1]:
        said_so.append(f"not looked at for {lasting(unread)}")
    if not said_so:
        return "ready all the time" if together(found, Standing.READY)[0] else "not held"
    return "; ".join(said_so)
