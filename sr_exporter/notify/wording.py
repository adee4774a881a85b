"""What alerts say, in words. Pure.

Each function gives annotations, which are no part of who an alert is. That something recovered
is said only where it is known.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, NamedTuple

from sr_exporter.model import MAIN, OWN_SOURCE, ChangeKind, fold
from sr_exporter.signals import End
from sr_exporter.words import meaning

if TYPE_CHECKING:
    from sr_exporter.held import Entry, Source
    from sr_exporter.model import Key
    from sr_exporter.signals import Ending, SubjectRecord

#: How much of a text is told, in characters. Receivers refuse what is too big, and for good: one
#: log line of a megabyte must not cost the page that it is part of.
LONGEST_TOLD = 4096
ENDED = "(This alert is ended by a change of the exporter's configuration, not by a recovery.)"
_NEWEST_REPORTS = 3


class _Kind(NamedTuple):
    """What a built-in report rule's subjects are, and which command shows how they stand."""

    #: "" where the subject says it itself.
    noun: str
    ask: str


_GATEWAY = _Kind("Gateway ", "dr_gw_status")
_DESTINATION = _Kind("Destination ", "ds_list")
_NODE = _Kind("", "clusterer_list")
#: By the rule that read it. Of an operator's own rule nothing is known.
_KINDS = {
    "gateway_inactive": _GATEWAY,
    "destination_inactive": _DESTINATION,
    "cluster_node_down": _NODE,
}
_NO_KIND = _Kind("", "")


def of_key(entry: Entry, since: float) -> dict[str, str]:
    """Tell how a key is, and since when it is not ready."""
    key = entry.key
    word = meaning(key.group, key.identifier, entry.status)
    state = "ready" if entry.ready else "not ready"
    description = "" if entry.ready else _since(since)
    description += f"Status {entry.status}"
    if word != state and word not in fold(entry.details or ""):
        description += f" ({word})"
    if entry.details:
        description += f": {cut(entry.details)}"
    if lost := _not_heard(entry.group.source):
        description = f"{description.removesuffix('.')}.{lost}"
    said = {
        "summary": _summary(key, state, word),
        "description": description,
        "status": str(entry.status),
    }
    if entry.details is not None:
        said["details"] = cut(entry.details)
    if entry.reports:
        newest = entry.reports[-_NEWEST_REPORTS:]
        said["reports"] = "\n".join(cut(report.log) for report in newest)
    return said


def of_removed_key(key: Key) -> dict[str, str]:
    return {
        "summary": f"{_place(key)} is gone",
        "description": "The identifier is no longer listed, or was deleted.",
    }


def of_notifier(entry: Entry, since: float) -> dict[str, str]:
    """Tell who is paged of a notifier what they need before anything else."""
    name = entry.identifier
    if entry.ready:
        summary = f"Notifier {name} takes what it is sent again"
        description = (
            "It took a notification again; more may be owed to it. What a webhook refused for good"
            f" is kept: sr-exporter notifications list --state dead --notifier {name}."
        )
    else:
        summary = f"Notifier {name} does not take what it is sent"
        description = (
            f"{_since(since)}{entry.details or 'it is not known why'}."
            f" People paged by {name} may miss alerts now. See that its receiver runs, that the"
            " exporter reaches it, and what it is owed: sr-exporter notifications list"
            " --state owed."
        )
    said = {"summary": summary, "description": description, "status": str(entry.status)}
    return said if entry.details is None else said | {"details": entry.details}


def of_removed_notifier(name: str) -> dict[str, str]:
    return {
        "summary": f"Notifier {name} is told nothing any more",
        "description": "It is no longer configured.",
    }


def of_source(
    source: str, kind: ChangeKind, since: float, error: str | None, address: str
) -> dict[str, str]:
    """Tell of a polled source that it is down `since`, up again, or configured no more."""
    where = f" at {address}" if address else ""
    if kind is ChangeKind.SOURCE_UP:
        return {
            "summary": f"OpenSIPS {source} answers its Management Interface again",
            "description": f"{source} was polled{where}.",
        }
    if kind is ChangeKind.REMOVED:
        return {
            "summary": f"OpenSIPS {source} is not watched any more",
            "description": f"{source} is no longer configured to be polled. {ENDED}",
        }
    last = f" Last error: {error}." if error else ""
    return {
        "summary": f"OpenSIPS {source} does not answer its Management Interface",
        "description": f"{_since(since)}{source} cannot be polled{where};"
        f" whether its parts are ready is not known.{last}",
    }


def of_subject(entry: Entry, subject: str, record: SubjectRecord) -> dict[str, str]:
    """Tell whom a report text calls not ready, and how to see whether it is so."""
    noun, ask = _KINDS.get(record.rule, _NO_KIND)
    log = cut(record.log)
    check = f"check with `opensips-cli -x mi {ask}`" if ask else "see whether it is so"
    return {
        "summary": f"{noun}{subject} is reported not ready by {_place(entry.key)}",
        "description": (
            f'{_since(record.since)}a report says: "{log.strip()}".{_not_heard(entry.group.source)}'
            f" A text is a hint: {check}."
        ),
        "reports": log,
        "rule": record.rule,
    }


def of_subject_end(
    entry: Entry, subject: str, record: SubjectRecord, ending: Ending
) -> dict[str, str]:
    """Tell why somebody is called not ready no more, which is seldom that they recovered."""
    key = entry.key
    if ending.end is End.UP:
        description = f'A report says: "{cut(ending.log).strip()}".'
    elif ending.end is End.RESTARTED:
        description = f"{key.source} restarted; whether {subject} is ready is not known."
    elif ending.end is End.LOADED:
        description = f"The table was loaded anew and nothing names {subject} since."
    elif ending.end is End.OUTDATED:
        description = (
            f"Nothing has named {subject} since {_utc(record.reported_at)}:"
            " not known to be repaired."
        )
    elif ending.end is End.UNREAD:
        description = f"The report rule {record.rule} is no longer used for it. {ENDED}"
    else:
        description = f"{_place(key)} is gone; whether {subject} is ready is not known."
    noun = _KINDS.get(record.rule, _NO_KIND).noun
    return {
        "summary": f"{noun}{subject} is no longer reported not ready by {_place(key)}",
        "description": description,
        "rule": record.rule,
    }


def not_recovered(annotations: dict[str, str]) -> dict[str, str]:
    """Have the end of an alert say that nothing recovered."""
    said = annotations.get("description", "")
    return {**annotations, "description": f"{said} {ENDED}".strip()}


def cut(text: str) -> str:
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


def _summary(key: Key, state: str, word: str) -> str:
    """Name a server by its name where it is its core that is meant."""
    if key.source == OWN_SOURCE or tuple(key.folded())[1:] != ("core", MAIN):
        return f"{_place(key)} is {state}"
    why = "" if word == state else f": core is {word}"
    return f"OpenSIPS {key.source} is {state}{why}"


def _since(seconds: float) -> str:
    """Begin a description: what receivers make of an alert seldom shows its `startsAt`."""
    return f"Since {_utc(seconds)}: "


def _utc(seconds: float) -> str:
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M:%S} UTC"
