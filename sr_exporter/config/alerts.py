"""From the section `alerts` of a configuration to the rules of its alerts."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from sr_exporter.config.keys import SCHEMA, SPANS
from sr_exporter.config.reading import Naming
from sr_exporter.config.templates import Template, template
from sr_exporter.config.values import WATCHDOG_SECONDS, AlertRule
from sr_exporter.model import fold

if TYPE_CHECKING:
    from sr_exporter.config.reading import Place, Section

#: As Prometheus has them.
_LABELS: Final = Naming(
    re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*"), "no label name (letters, digits and _, no digit first)"
)
_OWN_LABELS: Final = frozenset(
    {"alertname", "source", "group", "identifier", "severity", "subject"}
)


def read_rules(alerts: Section | None) -> tuple[AlertRule, ...]:
    if alerts is None:
        return ()
    #: Where what is to be decided was first met.
    decided: dict[tuple[str, ...], str] = {}
    return tuple(_rule(place, decided) for place in alerts.items("rules"))


def read_watchdog(alerts: Section | None) -> bool:
    place = alerts.get("watchdog") if alerts else None
    return place.flag() if place else False


def read_watchdog_interval(alerts: Section | None) -> float:
    place = alerts.get("watchdog_interval") if alerts else None
    return place.duration(*SPANS["watchdog_interval"]) if place else WATCHDOG_SECONDS


def _rule(place: Place, decided: dict[tuple[str, ...], str]) -> AlertRule:
    before = len(place.faults)
    section = place.section(SCHEMA, "alerts.rules[]")
    source = _glob(section, "source") or "*"
    group, identifier = _glob(section, "group"), _glob(section, "identifier")
    if len(place.faults) == before:
        _must_be_reached(place, (source, group, identifier), decided)
    severity, wait = section.get("severity"), section.get("for")
    keep, silence = section.get("keep_firing_for"), section.get("silence")
    rule = AlertRule(
        source,
        group,
        identifier,
        severity=severity.name() if severity else None,
        for_seconds=wait.duration(*SPANS["for"]) if wait else None,
        keep_firing_seconds=keep.duration(*SPANS["keep_firing_for"]) if keep else 0.0,
        labels=_labels(section),
        annotations=_annotations(section),
        silence=silence.flag() if silence else False,
    )
    labels = section.get("labels") if rule.labels else None
    annotations = section.get("annotations") if rule.annotations else None
    said = [at for at in (severity, wait, keep, labels, annotations) if at]
    if rule.silence:
        for at in said:
            at.fault("has no effect beside silence")
    elif not said and len(place.faults) == before:
        place.fault(
            "says nothing: give it severity, for, keep_firing_for, labels, annotations or silence"
        )
    return rule


def _glob(section: Section, key: str) -> str | None:
    place = section.get(key)
    return place.glob() if place else None


def _labels(section: Section) -> tuple[tuple[str, str], ...]:
    place = section.get("labels")
    entries = place.mapping(_LABELS) if place else {}
    for name, at in entries.items():
        if name.startswith("__"):
            at.fault("must not begin with __")
        elif name in _OWN_LABELS:
            at.fault("is a label that the exporter sets itself")
    return tuple((name, at.name()) for name, at in entries.items())


def _annotations(section: Section) -> tuple[tuple[str, Template], ...]:
    place = section.get("annotations")
    entries = place.mapping(_LABELS) if place else {}
    found = ((name, _template(at)) for name, at in entries.items())
    return tuple((name, one) for name, one in found if one is not None)


def _template(place: Place) -> Template | None:
    """Read a template; None where it is none."""
    text = place.text("a template")
    try:
        return template(text) if text else None
    except ValueError as error:
        place.fault(str(error))
        return None


def _must_be_reached(
    place: Place, globs: tuple[str, str | None, str | None], decided: dict[tuple[str, ...], str]
) -> None:
    """Find the rule that has come before with the same globs, and decides all this one could."""
    source, group, identifier = globs
    covers: list[tuple[str, ...]] = [(source, fold(group or "*"), fold(identifier or "*"))]
    if group is None and identifier is None:
        covers.append((source,))
    if first := decided.get(covers[-1]):
        place.fault(f"is never reached: {first} has the same globs")
    for cover in covers:
        decided.setdefault(cover, place.path)
