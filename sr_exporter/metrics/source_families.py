"""What is shown of sources and their groups (design, section 6)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from sr_exporter.metrics.exposition import Kind, Sample
from sr_exporter.metrics.faces import FaceFamily
from sr_exporter.model import Kind as Kinds
from sr_exporter.model import PollFailure

if TYPE_CHECKING:
    from collections.abc import Callable

    from sr_exporter.held import Source


class _Group(NamedTuple):
    """A group as it looks."""

    name: str
    total: int
    not_ready: int
    complete: bool


def _groups(source: Source) -> tuple[_Group, ...]:
    if source.withheld:
        return ()
    return tuple(
        [
            _Group(group.name, len(group.entries), group.not_ready, group.complete)
            for group in source.groups.values()
        ]
    )


def _ready(source: str, groups: tuple[_Group, ...]) -> list[Sample]:
    # Of a group that could not even be listed nothing is known.
    return [
        Sample("", (("source", source), ("group", group.name)), int(not group.not_ready))
        for group in groups
        if group.total
    ]


def _complete(source: str, groups: tuple[_Group, ...]) -> list[Sample]:
    return [
        Sample("", (("source", source), ("group", group.name)), int(group.complete))
        for group in groups
    ]


def _counts(source: str, groups: tuple[_Group, ...]) -> list[Sample]:
    counts = []
    for group in groups:
        labels = (("source", source), ("group", group.name))
        ready = group.total - group.not_ready
        counts.append(Sample("", (*labels, ("ready", "false")), group.not_ready))
        counts.append(Sample("", (*labels, ("ready", "true")), ready))
    return counts


def _info(source: str, look: tuple[str, str]) -> list[Sample]:
    version, transport = look
    labels = (("source", source), ("version", version), ("transport", transport))
    return [Sample("", labels, 1)]


def _failures(source: str, counts: tuple[int, ...] | None) -> list[Sample]:
    return [
        Sample("", (("source", source), ("reason", reason.value)), count)
        for reason, count in zip(PollFailure, counts or (), strict=counts is not None)
    ]


def _failures_of(source: Source) -> tuple[int, ...] | None:
    if not source.polled:
        return None
    return tuple([source.poll_failures_total.get(reason, 0) for reason in PollFailure])


def _one(source: str, value: float | None) -> list[Sample]:
    return [] if value is None else [Sample("", (("source", source),), value)]


def _of(name: str, kind: Kind, text: str, value_of: Callable[[Source], Any]) -> FaceFamily:
    """Make a family of one sample a source; None: it has none."""
    return FaceFamily(name, kind, text, value_of, _one)


SOURCE_FAMILIES = (
    FaceFamily(
        "opensips_sr_group_ready",
        Kind.GAUGE,
        "Whether every identifier of the group is ready.",
        _groups,
        _ready,
    ),
    FaceFamily(
        "opensips_sr_group_complete",
        Kind.GAUGE,
        "Whether the last poll could read the whole group.",
        _groups,
        _complete,
    ),
    FaceFamily(
        "opensips_sr_identifiers",
        Kind.GAUGE,
        "Identifiers of the group, by readiness.",
        _groups,
        _counts,
    ),
    FaceFamily(
        "opensips_sr_source_info",
        Kind.GAUGE,
        "Version of the source, and how it is heard; always 1.",
        lambda source: (source.version, source.transport),
        _info,
    ),
    _of(
        "opensips_sr_source_last_seen_timestamp_seconds",
        Kind.GAUGE,
        "When the source was last heard.",
        lambda source: source.last_seen,
    ),
    _of(
        "opensips_sr_source_start_timestamp_seconds",
        Kind.GAUGE,
        "When the source started, as its up time tells.",
        lambda source: source.start_time,
    ),
    _of(
        "opensips_sr_status_changes_missed_total",
        Kind.COUNTER,
        "Status changes that events tell of and that were not heard, at least.",
        lambda source: source.changes_missed_total,
    ),
    _of(
        "opensips_sr_report_overruns_total",
        Kind.COUNTER,
        "How often a ring of reports turned over unseen, at least.",
        lambda source: source.report_overruns_total,
    ),
    _of(
        "sr_exporter_subjects_refused_total",
        Kind.COUNTER,
        "Subjects of report texts for which limits.subjects left no room.",
        lambda source: source.subjects_refused_total,
    ),
    _of(
        "opensips_sr_source_up",
        Kind.GAUGE,
        "Whether the last poll of the source was good (1) or not (0).",
        lambda source: int(source.up) if source.polled else None,
    ),
    FaceFamily(
        "opensips_sr_poll_failures_total",
        Kind.COUNTER,
        "Requests to the source that failed, by reason.",
        _failures_of,
        _failures,
    ),
    _of(
        "sr_exporter_identifiers_refused",
        Kind.GAUGE,
        "Identifiers of the last poll for which limits left no room; events of such.",
        lambda source: None if source.kind is Kinds.PUSHED else source.refused,
    ),
)
