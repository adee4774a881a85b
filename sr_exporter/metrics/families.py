"""The held state as metric families (design, section 6)."""

from __future__ import annotations

from operator import attrgetter
from typing import TYPE_CHECKING, NamedTuple

from sr_exporter.metrics import faces
from sr_exporter.metrics.exposition import Family, Kind, Sample, sample_line
from sr_exporter.metrics.source_families import SOURCE_FAMILIES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sr_exporter.held import Entry, Source
    from sr_exporter.metrics.exposition import Labels
    from sr_exporter.state import State


class KeyFamily(NamedTuple):
    """A family with a sample for each key."""

    name: str
    kind: Kind
    help: str
    #: None: that key has none.
    value_of: Callable[[Entry], float | None]


class TextFamily(NamedTuple):
    """A family with any number of samples for each key."""

    name: str
    kind: Kind
    help: str
    samples_of: Callable[[State, Entry], list[Sample]]


KEY_FAMILIES = (
    KeyFamily(
        "opensips_sr_status",
        Kind.GAUGE,
        "Status as the source gives it: above 0 ready, below 0 not ready.",
        attrgetter("status"),
    ),
    KeyFamily(
        "opensips_sr_ready",
        Kind.GAUGE,
        "Whether the source calls the identifier ready (1) or not (0).",
        attrgetter("ready"),
    ),
    KeyFamily(
        "opensips_sr_status_changes_total",
        Kind.COUNTER,
        "How often the status number changed.",
        attrgetter("changes_total"),
    ),
    KeyFamily(
        "opensips_sr_status_change_timestamp_seconds",
        Kind.GAUGE,
        "When the status number last changed, or the identifier appeared.",
        attrgetter("changed_at"),
    ),
    KeyFamily(
        "opensips_sr_reports_total",
        Kind.COUNTER,
        "Reports seen.",
        attrgetter("reports_total"),
    ),
    KeyFamily(
        "opensips_sr_last_report_timestamp_seconds",
        Kind.GAUGE,
        "When the newest report was made, by the clock of who made it.",
        lambda entry: max(report.timestamp for report in entry.reports) if entry.reports else None,
    ),
)


def key_labels(entry: Entry) -> Labels:
    return (
        ("source", entry.group.source.name),
        ("group", entry.group.name),
        ("identifier", entry.identifier),
    )


def _matches(state: State, entry: Entry) -> list[Sample]:
    rules = state.rules_of(entry)
    if not rules:
        return []
    labels = key_labels(entry)
    return [Sample("", (*labels, ("rule", rule)), entry.matches.get(rule, 0)) for rule in rules]


def _reported(_: State, entry: Entry) -> list[Sample]:
    if not entry.subjects:
        return []
    labels = key_labels(entry)
    return [Sample("", (*labels, ("subject", subject)), 0) for subject in entry.subjects]


#: What report texts tell (rule 16).
TEXT_FAMILIES = (
    TextFamily(
        "opensips_sr_report_matches_total",
        Kind.COUNTER,
        "Reports that fitted a report rule.",
        _matches,
    ),
    TextFamily(
        "opensips_sr_reported_ready",
        Kind.GAUGE,
        "What report texts call not ready, by its name in them: 0. No series without that.",
        _reported,
    ),
)


def families(state: State) -> Iterator[Family]:
    """Give every family of SR state, those without samples included.

    From scratch: what is shown without being built anew (pages.py) is the same.
    """
    shown = [entry for source in _shown(state) for entry in source.entries()]
    for name, kind, text, value_of in KEY_FAMILIES:
        samples = [
            Sample("", key_labels(entry), value)
            for entry in shown
            if (value := value_of(entry)) is not None
        ]
        yield Family(name, kind, text, samples)
    for name, kind, text, samples_of in TEXT_FAMILIES:
        samples = [sample for entry in shown for sample in samples_of(state, entry)]
        yield Family(name, kind, text, samples)
    yield from faces.anew(SOURCE_FAMILIES, state.sources.items())


def text_lines(state: State, entry: Entry) -> tuple[str, ...] | None:
    """Write the lines of a key in each of `TEXT_FAMILIES`; None: it has none in any."""
    if not entry.subjects and not state.rules_of(entry):
        return None
    return tuple(
        "".join(
            [sample_line(family.name, *sample[1:]) for sample in family.samples_of(state, entry)]
        )
        for family in TEXT_FAMILIES
    )


def _shown(state: State) -> Iterator[Source]:
    return (source for source in state.sources.values() if not source.withheld)
