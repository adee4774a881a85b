"""From the section `alerts` of a configuration to the rules that read report texts."""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING

from sr_exporter.config.keys import SCHEMA, SPANS
from sr_exporter.config.reading import shown
from sr_exporter.config.values import Reports
from sr_exporter.report_rules import BUILT_IN_NAMES, BadRule, ReportRule, check
from sr_exporter.signals import Meaning

if TYPE_CHECKING:
    from sr_exporter.config.reading import Place, Section


class _Meaning(enum.StrEnum):
    """What a rule of the file may mean."""

    EVENT = "event"
    DOWN = "down"
    UP = "up"


def read_reports(alerts: Section | None) -> Reports:
    if alerts is None:
        return Reports()
    #: Where each name was first met.
    names: dict[str, str] = {}
    rules: list[ReportRule] = []
    off: list[str] = []
    for place in alerts.items("report_rules"):
        section = place.section(SCHEMA, "alerts.report_rules[]")
        name = section.name("name")
        if name and (first := names.setdefault(name, place.path)) != place.path:
            section.entries["name"].fault(f"is there twice: the first is {first}")
        flag = section.get("enabled")
        enabled = flag.flag() if flag else True
        if name in BUILT_IN_NAMES:
            _only_switched(section, enabled=enabled)
            off += [] if enabled else [name]
        elif (rule := _rule(place, section, name)) and enabled:
            rules.append(rule)
    ttl = alerts.get("subject_ttl")
    defaults = Reports()
    return Reports(
        tuple(rules),
        frozenset(off),
        ttl.duration(*SPANS["subject_ttl"]) if ttl else defaults.subject_ttl_seconds,
    )


def _only_switched(section: Section, *, enabled: bool) -> None:
    """See that of a built-in rule nothing is said but that it is switched off."""
    others = [at for key, at in section.entries.items() if key not in {"name", "enabled"}]
    for at in others:
        at.fault("is fixed: a rule of this name is built in, and can only be switched off")
    if enabled and not others:
        section.place.fault("says nothing: a rule of this name is built in (enabled: false?)")


def _rule(place: Place, section: Section, name: str) -> ReportRule | None:
    """Read a rule; None where there is none that could be used."""
    before = len(place.faults)
    match, meaning, subject = section.need("match"), section.get("meaning"), section.get("subject")
    means = Meaning(meaning.choice(_Meaning)) if meaning else Meaning.EVENT
    rule = ReportRule(
        name,
        match.text("a regular expression") if match else "",
        means,
        _glob(section, "source"),
        _glob(section, "group"),
        _glob(section, "identifier"),
        subject.text() if subject else ReportRule("", "").subject,
    )
    if subject and means is Meaning.EVENT:
        subject.fault("has no effect on an event: only down and up are about somebody")
    if len(place.faults) == before:
        try:
            check(rule)
        except BadRule as error:
            section.entries.get(error.part, place).fault(shown(error.why, 300))
    return rule if len(place.faults) == before else None


def _glob(section: Section, key: str) -> str:
    place = section.get(key)
    return place.glob() if place else "*"
