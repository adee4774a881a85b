"""The held state as metric families (design, section 6). Read afresh at every scrape."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sr_exporter.metrics.exposition import Family, Kind, Sample
from sr_exporter.model import Kind as Kinds
from sr_exporter.model import PollFailure

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from sr_exporter.held import Entry, Source
    from sr_exporter.metrics.exposition import Labels
    from sr_exporter.state import State

_KEY_FAMILIES: tuple[tuple[str, Kind, str, Callable[[Entry], float | None]], ...] = (
    (
        "opensips_sr_status",
        Kind.GAUGE,
        "Status as the source gives it: above 0 ready, below 0 not ready.",
        lambda entry: entry.status,
    ),
    (
        "opensips_sr_ready",
        Kind.GAUGE,
        "Whether the source calls the identifier ready (1) or not (0).",
        lambda entry: int(entry.ready),
    ),
    (
        "opensips_sr_status_changes_total",
        Kind.COUNTER,
        "How often the status number changed.",
        lambda entry: entry.changes_total,
    ),
    (
        "opensips_sr_status_change_timestamp_seconds",
        Kind.GAUGE,
        "When the status number last changed, or the identifier appeared.",
        lambda entry: entry.changed_at,
    ),
    (
        "opensips_sr_reports_total",
        Kind.COUNTER,
        "Reports seen.",
        lambda entry: entry.reports_total,
    ),
    (
        "opensips_sr_last_report_timestamp_seconds",
        Kind.GAUGE,
        "When the newest report was made, by the clock of who made it.",
        lambda entry: max(report.timestamp for report in entry.reports) if entry.reports else None,
    ),
)


def families(state: State) -> Iterator[Family]:
    """Give every family of SR state, those without samples included."""
    yield from _of_keys(state)
    yield from _of_texts(state)
    yield from _of_groups(state)
    yield from _of_sources(state)
    yield from _of_polled_sources(state)


def _of_keys(state: State) -> Iterator[Family]:
    shown = [(_key_labels(entry), entry) for entry in _entries(state)]
    for name, kind, text, value_of in _KEY_FAMILIES:
        samples = [
            Sample("", labels, value)
            for labels, entry in shown
            if (value := value_of(entry)) is not None
        ]
        yield Family(name, kind, text, samples)


def _of_texts(state: State) -> Iterator[Family]:
    """Give what report texts tell (rule 16)."""
    matches = [
        Sample("", (*_key_labels(entry), ("rule", rule)), entry.matches.get(rule, 0))
        for source in _shown(state)
        for entry, rules in state.read_entries(source)
        for rule in rules
    ]
    yield Family(
        "opensips_sr_report_matches_total",
        Kind.COUNTER,
        "Reports that fitted a report rule.",
        matches,
    )
    yield Family(
        "opensips_sr_reported_ready",
        Kind.GAUGE,
        "What report texts call not ready, by its name in them: 0. No series without that.",
        [
            Sample("", (*_key_labels(reported.entry), ("subject", reported.subject)), 0)
            for source in _shown(state)
            for reported in source.reported()
        ],
    )


def _of_groups(state: State) -> Iterator[Family]:
    ready: list[Sample] = []
    complete: list[Sample] = []
    counts: list[Sample] = []
    for source in _shown(state):
        for group in source.groups.values():
            labels = (("source", source.name), ("group", group.name))
            total = len(group.entries)
            good = sum(entry.ready for entry in group.entries.values())
            if total:  # of one that could not even be listed nothing is known
                ready.append(Sample("", labels, int(good == total)))
            complete.append(Sample("", labels, int(group.complete)))
            counts.append(Sample("", (*labels, ("ready", "false")), total - good))
            counts.append(Sample("", (*labels, ("ready", "true")), good))
    yield Family(
        "opensips_sr_group_ready",
        Kind.GAUGE,
        "Whether every identifier of the group is ready.",
        ready,
    )
    yield Family(
        "opensips_sr_group_complete",
        Kind.GAUGE,
        "Whether the last poll could read the whole group.",
        complete,
    )
    yield Family(
        "opensips_sr_identifiers", Kind.GAUGE, "Identifiers of the group, by readiness.", counts
    )


def _of_sources(state: State) -> Iterator[Family]:
    sources = state.sources.values()
    yield Family(
        "opensips_sr_source_info",
        Kind.GAUGE,
        "Version of the source, and how it is heard; always 1.",
        [Sample("", _info_labels(source), 1) for source in sources],
    )
    yield _per_source(
        "opensips_sr_source_last_seen_timestamp_seconds",
        Kind.GAUGE,
        "When the source was last heard.",
        sources,
        lambda source: source.last_seen,
    )
    yield _per_source(
        "opensips_sr_source_start_timestamp_seconds",
        Kind.GAUGE,
        "When the source started, as its up time tells.",
        sources,
        lambda source: source.start_time,
    )
    yield _per_source(
        "opensips_sr_status_changes_missed_total",
        Kind.COUNTER,
        "Status changes that events tell of and that were not heard, at least.",
        sources,
        lambda source: source.changes_missed_total,
    )
    yield _per_source(
        "opensips_sr_report_overruns_total",
        Kind.COUNTER,
        "How often a ring of reports turned over unseen, at least.",
        sources,
        lambda source: source.report_overruns_total,
    )
    yield _per_source(
        "sr_exporter_subjects_refused_total",
        Kind.COUNTER,
        "Subjects of report texts for which limits.subjects left no room.",
        sources,
        lambda source: source.subjects_refused_total,
    )


def _of_polled_sources(state: State) -> Iterator[Family]:
    polled = [source for source in state.sources.values() if source.polled]
    yield _per_source(
        "opensips_sr_source_up",
        Kind.GAUGE,
        "Whether the last poll of the source was good (1) or not (0).",
        polled,
        lambda source: int(source.up),
    )
    yield Family(
        "opensips_sr_poll_failures_total",
        Kind.COUNTER,
        "Requests to the source that failed, by reason.",
        [
            Sample(
                "",
                (("source", source.name), ("reason", reason.value)),
                source.poll_failures_total.get(reason, 0),
            )
            for source in polled
            for reason in PollFailure
        ],
    )
    yield _per_source(
        "sr_exporter_identifiers_refused",
        Kind.GAUGE,
        "Identifiers of the last poll for which limits.identifiers left no room; events of such.",
        [source for source in state.sources.values() if source.kind is not Kinds.PUSHED],
        lambda source: source.refused,
    )


def _shown(state: State) -> Iterator[Source]:
    return (source for source in state.sources.values() if not source.withheld)


def _entries(state: State) -> Iterator[Entry]:
    for source in _shown(state):
        yield from source.entries()


def _key_labels(entry: Entry) -> Labels:
    return (
        ("source", entry.group.source.name),
        ("group", entry.group.name),
        ("identifier", entry.identifier),
    )


def _info_labels(source: Source) -> Labels:
    return (
        ("source", source.name),
        ("version", source.version),
        ("transport", source.transport),
    )


def _per_source(
    name: str,
    kind: Kind,
    text: str,
    sources: Iterable[Source],
    value_of: Callable[[Source], float | None],
) -> Family:
    samples = [
        Sample("", (("source", source.name),), value)
        for source in sources
        if (value := value_of(source)) is not None
    ]
    return Family(name, kind, text, samples)
