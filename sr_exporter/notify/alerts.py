"""An alert: who it is about, what it says, since when. Pure.

Identity is the label set, so no text that changes is ever a label (facts on Alertmanager,
section 1): status, details and reports are annotations.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING
from urllib.parse import quote, urlencode

from sr_exporter.model import OWN_SOURCE, ChangeKind, Key, fold
from sr_exporter.notify import wording
from sr_exporter.words import meaning

if TYPE_CHECKING:
    from sr_exporter.held import Entry
    from sr_exporter.model import Change
    from sr_exporter.notify.rules import Rule
    from sr_exporter.signals import Ending, SubjectRecord
    from sr_exporter.store.contract import AlertRecord

NOT_READY = "OpenSIPSNotReady"
SOURCE_DOWN = "OpenSIPSSourceDown"
REPORTED = "OpenSIPSReportedNotReady"
NOTIFIER_FAILING = "SRExporterNotifierFailing"
WATCHDOG = "SRExporterWatchdog"

#: How Go prints no time: the end of an alert that still fires.
ZERO_TIME = "0001-01-01T00:00:00Z"
_NOTIFIER = "notifier"
_SOURCE_WORDS = {
    ChangeKind.SOURCE_DOWN: "down",
    ChangeKind.SOURCE_UP: "up",
    ChangeKind.REMOVED: "gone",
}
_FNV_OFFSET, _FNV_PRIME, _MASK = 0xCBF29CE484222325, 0x100000001B3, 2**64 - 1

#: Whom an alert is about: a key, folded, and the subject if it is about one that its report
#: texts name; or a source by its name.
Who = tuple[str, ...]
#: Whom the watchdog is about.
NOBODY: Who = ()


@dataclass(frozen=True, slots=True)
class Alert:
    labels: dict[str, str]
    annotations: dict[str, str]
    starts_at: float
    generator_url: str

    @property
    def fingerprint(self) -> str:
        return fingerprint(self.labels)


@dataclass(frozen=True, slots=True)
class Links:
    """Where this exporter is reached from outside: `--web.external-url`."""

    external_url: str

    def key(self, key: Key) -> str:
        query = urlencode({"group": key.group, "identifier": key.identifier}, quote_via=quote)
        return f"{self.source(key.source)}?{query}"

    def source(self, source: str) -> str:
        return f"{self.external_url}/sources/{quote(source, safe='')}"

    def runbook(self, alertname: str) -> str:
        return f"{self.external_url}/runbooks#{alertname.lower()}"


def of_key(entry: Entry, rule: Rule, links: Links, *, since: float | None = None) -> Alert:
    """Make the alert of a key as it is now; it began `since`, or when the key turned."""
    key = entry.key
    if since is None:
        since = entry.ready_changed_at
    labels = _key_labels(key, rule)
    said = wording.of_notifier(entry, since) if is_notifier(key) else wording.of_key(entry, since)
    return Alert(
        labels=labels,
        annotations=_annotated(
            said,
            rule,
            links,
            labels,
            status=entry.status,
            word=meaning(key.group, key.identifier, entry.status),
            ready=entry.ready,
            details=said.get("details"),
        ),
        starts_at=since,
        generator_url=links.key(key),
    )


def of_removed_key(change: Change, rule: Rule, links: Links) -> Alert:
    """Make the alert of a key that is gone, to resolve it."""
    key = Key(change.source, change.group or "", change.identifier or "")
    labels = _key_labels(key, rule)
    if is_notifier(key):
        said = wording.of_removed_notifier(key.identifier)
    else:
        said = wording.of_removed_key(key)
    return Alert(
        labels=labels,
        annotations=_annotated(said, rule, links, labels, word="gone"),
        starts_at=change.at if change.not_ready_since is None else change.not_ready_since,
        generator_url=links.key(key),
    )


def of_source(
    source: str,
    rule: Rule,
    links: Links,
    *,
    since: float,
    error: str | None,
    address: str = "",
    kind: ChangeKind = ChangeKind.SOURCE_DOWN,
) -> Alert:
    """Make the alert of a polled source that is down, or was, as `kind` has it.

    `address` is where it is asked.
    """
    labels = {
        **rule.labels,
        "alertname": SOURCE_DOWN,
        "source": source,
        "severity": rule.severity,
    }
    said = wording.of_source(source, kind, since, error, address)
    return Alert(
        labels=labels,
        annotations=_annotated(said, rule, links, labels, word=_SOURCE_WORDS[kind], details=error),
        starts_at=since,
        generator_url=links.source(source),
    )


def of_subject(
    entry: Entry,
    subject: str,
    record: SubjectRecord,
    rule: Rule,
    links: Links,
    ending: Ending | None = None,
) -> Alert:
    """Make the alert of somebody whom report texts of a key call not ready, or did until now."""
    labels = {**_key_labels(entry.key, rule), "alertname": REPORTED, "subject": subject}
    if ending is None:
        word, said = "reported not ready", wording.of_subject(entry, subject, record)
    else:
        word = "no longer reported not ready"
        said = wording.of_subject_end(entry, subject, record, ending)
    return Alert(
        labels=labels,
        annotations=_annotated(said, rule, links, labels, word=word),
        starts_at=record.since,
        generator_url=links.key(entry.key),
    )


def mark_of_subject(entry: Entry, subject: str, rule: Rule) -> str:
    """Give the fingerprint of the alert of somebody, whether or not there is one."""
    labels = {**_key_labels(entry.key, rule), "alertname": REPORTED, "subject": subject}
    return fingerprint(labels)


def ended_by_configuration(record: AlertRecord) -> AlertRecord:
    """Have an alert that is about to be resolved say that nothing recovered."""
    return replace(record, annotations=wording.not_recovered(record.annotations))


def without_recovery(alert: Alert) -> Alert:
    """Have the end of an alert say that nothing recovered."""
    return replace(alert, annotations=wording.not_recovered(alert.annotations))


def of_watchdog(links: Links, since: float) -> Alert:
    """Make the alert that always fires; of two exporters each has its own."""
    return Alert(
        labels={"alertname": WATCHDOG, "severity": "none", "exporter": links.external_url},
        annotations={
            "summary": "sr-exporter runs, and its alerts get through",
            "description": "This alert always fires. When it is heard no more, sr-exporter has"
            " stopped, or its alerts do not get through.",
            "runbook_url": links.runbook(WATCHDOG),
        },
        starts_at=since,
        generator_url=links.external_url,
    )


def is_notifier(key: Key) -> bool:
    """Whether a key is how one of our notifiers stands: its alert is another than any key's."""
    return key.source == OWN_SOURCE and fold(key.group) == _NOTIFIER


def key_of_notifier(name: str) -> Key:
    """Give the key that says how a notifier stands."""
    return Key(OWN_SOURCE, _NOTIFIER, name)


def who_of_notifier(name: str) -> Who:
    """Give whom the alert of a notifier is about: it is told to all the others."""
    return tuple(key_of_notifier(name).folded())


def is_about(record: AlertRecord, notifier: str) -> bool:
    """Whether an alert tells of a notifier that it takes nothing, and so is not told to it."""
    if record.labels["alertname"] != NOTIFIER_FAILING:
        return False
    return who_of(record) == who_of_notifier(notifier)


def who_of_key(key: Key) -> Who:
    return tuple(key.folded())


def who_of(record: AlertRecord) -> Who:
    """Give whom a record is about, by its labels."""
    labels = record.labels
    if labels["alertname"] == WATCHDOG:
        return NOBODY
    if labels["alertname"] == SOURCE_DOWN:
        return (labels["source"],)
    key = tuple(key_of(labels).folded())
    return (*key, labels["subject"]) if labels["alertname"] == REPORTED else key


def fingerprint(labels: dict[str, str]) -> str:
    """Give Alertmanager's name for a label set: FNV-1a over sorted names and values."""
    found = _FNV_OFFSET
    for name in sorted(labels):
        for byte in name.encode() + b"\xff" + labels[name].encode() + b"\xff":
            found = ((found ^ byte) * _FNV_PRIME) & _MASK
    return f"{found:016x}"


def key_of(labels: dict[str, str]) -> Key:
    """Give the key a key's alert is about."""
    return Key(labels["source"], labels["group"], labels["identifier"])


def rfc3339(seconds: float) -> str:
    """Write a time as Alertmanager reads it, to the microsecond."""
    moment = datetime.fromtimestamp(seconds, UTC)
    return moment.isoformat(timespec="microseconds").replace("+00:00", "Z")


def _key_labels(key: Key, rule: Rule) -> dict[str, str]:
    return {
        **rule.labels,
        "alertname": NOTIFIER_FAILING if is_notifier(key) else NOT_READY,
        "source": key.source,
        "group": key.group,
        "identifier": key.identifier,
        "severity": rule.severity,
    }


def _annotated(
    said: dict[str, str],
    rule: Rule,
    links: Links,
    labels: dict[str, str],
    *,
    word: str,
    status: int = 0,
    ready: bool = False,
    details: str | None = None,
) -> dict[str, str]:
    """Give the annotations built in, and in their place those a rule has templates for."""
    said = {**said, "runbook_url": links.runbook(labels["alertname"])}
    if not rule.annotations:
        return said
    values = {
        "alertname": labels["alertname"],
        "source": labels["source"],
        "group": labels.get("group", ""),
        "identifier": labels.get("identifier", ""),
        "subject": labels.get("subject", ""),
        "severity": rule.severity,
        "labels": rule.labels,
        "status": status,
        "meaning": word,
        "ready": ready,
        "details": details or "",
        "reports": said.get("reports", ""),
        "summary": said["summary"],
        "description": said["description"],
    }
    own = {name: template.render(values) for name, template in rule.annotations}
    return {name: text for name, text in (said | own).items() if text or name not in own}
