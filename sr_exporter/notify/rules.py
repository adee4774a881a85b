"""Which alert a key or source that is not well makes, and after how long. Pure.

The built-in rules, first match on group and identifier: `core` is critical; a registrant is
given 30 s, since every routine re-registration passes through -1; a cluster capability is
given 10 minutes to find a donor. A key that appears not ready, or turns so while its source
starts, is given 2 minutes at least. What the exporter says of its own sources and notifiers
is not alerted here: a lost source has an alert of its own.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from sr_exporter.model import OWN_SOURCE, fold

if TYPE_CHECKING:
    from sr_exporter.model import Key

#: What a key of a source that has just started is given.
STARTING_SECONDS = 120.0


@dataclass(frozen=True, slots=True)
class Rule:
    severity: str = "warning"
    #: How long it must last before it is told.
    for_seconds: float = 0.0
    silent: bool = False


@dataclass(frozen=True, slots=True)
class _BuiltIn:
    source: str
    group: str
    identifier: str
    rule: Rule


_DEFAULT = Rule()
_BUILT_IN = (
    _BuiltIn(OWN_SOURCE, "source", "*", Rule(silent=True)),
    _BuiltIn(OWN_SOURCE, "notifier", "*", Rule(silent=True)),
    _BuiltIn("*", "core", "*", Rule(severity="critical")),
    _BuiltIn("*", "uac_registrant", "*", Rule(for_seconds=30.0)),
    _BuiltIn("*", "clusterer", "cap:*", Rule(for_seconds=600.0)),
)
_SOURCE_DOWN = Rule(severity="critical", for_seconds=30.0)


def for_key(key: Key, *, early: bool) -> Rule:
    """Give the rule of a key that is not ready; `early`: since its source started."""
    group, identifier = fold(key.group), fold(key.identifier)
    rule = _DEFAULT
    for built_in in _BUILT_IN:
        if (
            fnmatchcase(key.source, built_in.source)
            and fnmatchcase(group, built_in.group)
            and fnmatchcase(identifier, built_in.identifier)
        ):
            rule = built_in.rule
            break
    if early and rule.for_seconds < STARTING_SECONDS:
        return replace(rule, for_seconds=STARTING_SECONDS)
    return rule


def for_source() -> Rule:
    """Give the rule of a polled source that is down."""
    return _SOURCE_DOWN
