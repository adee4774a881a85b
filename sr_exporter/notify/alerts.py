"""An alert: who it is about, what it says, since when. Pure.

Identity is the label set, so no text that changes is ever a label (facts on Alertmanager,
section 1): status, details and reports are annotations.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING
from urllib.parse import quote, urlencode

from sr_exporter.model import OWN_SOURCE, Key, fold
from sr_exporter.words import meaning

if TYPE_CHECKING:
    from sr_exporter.held import Entry, Source
    from sr_exporter.model import Change
    from sr_exporter.notify.rules import Rule
    from sr_exporter.signals import SubjectRecord
    from sr_exporter.store.contract import AlertRecord

NOT_READY = "OpenSIPSNotReady"
SOURCE_DOWN = "OpenSIPSSourceDown"
REPORTED = "OpenSIPSReportedNotReady"
NOTIFIER_FAILING = "SRExporterNotifierFailing"
WATCHDOG = "SRExporterWatchdog"

#: How Go prints no time: the end of an alert that still fires.
ZERO_TIME = "0001-01-01T00:00:00Z"
_NEWEST_REPORTS = 3
_NOTIFIER = "notifier"
#: How much of a text is told, in characters. Receivers refuse what is too big, and for good: one
#: log line of a megabyte must not cost the page that it is part of.
LONGEST_TOLD = 4096
_ENDED = "(This alert is ended by a change of the exporter's configuration, not by a recovery.)"
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


def of_key(entry: Entry, rule: Rule, links: Links) -> Alert:
    """Make the alert of a key as it is now."""
    key = entry.key
    details = None if entry.details is None else _cut(entry.details)
    labels = _key_labels(key, rule)
    return Alert(
        labels=labels,
        annotations=_annotated(
            _annotations(entry, links),
            rule,
            labels,
            status=entry.status,
            word=meaning(key.group, key.identifier, entry.status),
            ready=entry.ready,
            details=details,
        ),
        starts_at=entry.ready_changed_at,
        generator_url=links.key(key),
    )


def of_removed_key(change: Change, rule: Rule, links: Links) -> Alert:
    """Make the alert of a key that is gone, to resolve it."""
    key = Key(change.source, change.group or "", change.identifier or "")
    labels = _key_labels(key, rule)
    said = {
        "summary": f"{_place(key)} is gone",
        "description": "The identifier is no longer listed, or was deleted.",
        "runbook_url": links.runbook(labels["alertname"]),
    }
    if is_notifier(key):
        said["summary"] = f"Notifier {key.identifier} is told nothing any more"
        said["description"] = "It is no longer configured."
    return Alert(
        labels=labels,
        annotations=_annotated(said, rule, labels, word="gone"),
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
) -> Alert:
    """Make the alert of a polled source that is down, or was; `address` is where it is asked."""
    where = f" at {address}" if address else ""
    last = f" Last error: {error}." if error else ""
    labels = {
        **rule.labels,
        "alertname": SOURCE_DOWN,
        "source": source,
        "severity": rule.severity,
    }
    said = {
        "summary": f"OpenSIPS {source} does not answer its Management Interface",
        "description": f"{source} cannot be polled{where}; whether its parts are ready is"
        f" not known.{last}",
        "runbook_url": links.runbook(SOURCE_DOWN),
    }
    return Alert(
        labels=labels,
        annotations=_annotated(said, rule, labels, word="down", details=error),
        starts_at=since,
        generator_url=links.source(source),
    )


def of_subject(
    entry: Entry, subject: str, record: SubjectRecord | None, rule: Rule, links: Links
) -> Alert:
    """Make the alert of somebody whom report texts of a key call not ready; None: no more."""
    key = entry.key
    labels = {**_key_labels(key, rule), "alertname": REPORTED, "subject": subject}
    word = "reported not ready" if record else "not reported not ready any more"
    said = {
        "summary": f"{subject} is {word} by {_place(key)}",
        "description": "",
        "runbook_url": links.runbook(REPORTED),
    }
    if record:
        log = _cut(record.log)
        said["description"] = (
            f'A report says: "{log.strip()}".{_not_heard(entry.group.source)}'
            " A text is a hint: see whether it is so."
        )
        said["reports"] = log
    else:
        said["description"] = "A report says that it is ready, or what was reported is outdated."
    return Alert(
        labels=labels,
        annotations=_annotated(said, rule, labels, word=word),
        starts_at=record.since if record else 0.0,
        generator_url=links.key(key),
    )


def ended_by_configuration(record: AlertRecord) -> AlertRecord:
    """Have an alert that is about to be resolved say that nothing recovered."""
    return replace(record, annotations=_not_recovered(record.annotations))


def without_recovery(alert: Alert) -> Alert:
    """Have the end of an alert say that nothing recovered."""
    return replace(alert, annotations=_not_recovered(alert.annotations))


def _not_recovered(annotations: dict[str, str]) -> dict[str, str]:
    said = annotations.get("description", "")
    return {**annotations, "description": f"{said} {_ENDED}".strip()}


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
    labels: dict[str, str],
    *,
    word: str,
    status: int = 0,
    ready: bool = False,
    details: str | None = None,
) -> dict[str, str]:
    """Give the annotations built in, and in their place those a rule has templates for."""
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


def _annotations(entry: Entry, links: Links) -> dict[str, str]:
    key = entry.key
    if is_notifier(key):
        return _of_notifier(entry, links)
    word = meaning(key.group, key.identifier, entry.status)
    state = "ready" if entry.ready else "not ready"
    description = f"Status {entry.status}"
    if word != state:
        description += f" ({word})"
    if entry.details:
        description += f": {_cut(entry.details)}"
    if lost := _not_heard(entry.group.source):
        description = f"{description.removesuffix('.')}.{lost}"
    said = {
        "summary": f"{_place(key)} is {state}",
        "description": description,
        "status": str(entry.status),
        "runbook_url": links.runbook(NOT_READY),
    }
    if entry.details is not None:
        said["details"] = _cut(entry.details)
    if entry.reports:
        newest = entry.reports[-_NEWEST_REPORTS:]
        said["reports"] = "\n".join(_cut(report.log) for report in newest)
    return said


def _of_notifier(entry: Entry, links: Links) -> dict[str, str]:
    """Tell who is paged of a notifier what they need before anything else."""
    name = entry.identifier
    if entry.ready:
        summary = f"Notifier {name} takes what it is sent again"
        description = "What it was owed and did not refuse for good is delivered."
    else:
        since = datetime.fromtimestamp(entry.ready_changed_at, UTC)
        summary = f"Notifier {name} does not take what it is sent"
        description = (
            f"Since {since:%Y-%m-%d %H:%M:%S} UTC: {entry.details or 'it is not known why'}."
            f" Who is told by {name} may hear of no alert now. See that its receiver runs, that the"
            f" exporter reaches it, and what it is owed: sr-exporter notifications list."
        )
    said = {
        "summary": summary,
        "description": description,
        "status": str(entry.status),
        "runbook_url": links.runbook(NOTIFIER_FAILING),
    }
    return said if entry.details is None else said | {"details": entry.details}


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST_TOLD else text[: LONGEST_TOLD - 1] + "…"


def _not_heard(source: Source) -> str:
    """Say of what a source told that it is old, where it is."""
    if source.polled and not source.up:
        return (
            f" This is what {source.name} last said: it does not answer now"
            f" ({source.last_error or 'not heard since the exporter started'})."
        )
    if source.withheld:
        return (
            f" This is what {source.name} last said:"
            " it has not been heard since the exporter started."
        )
    return ""


def _place(key: Key) -> str:
    return f"{key.group}/{key.identifier} on {key.source}"
