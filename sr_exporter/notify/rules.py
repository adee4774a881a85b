"""Which alert a key or source that is not well makes, and after how long. Pure.

The first configured rule that fits decides; what it does not say is as built in. The built-in
rules, first match on group and identifier: `core` is critical; a registrant is given 30 s,
since every routine re-registration passes through -1; a cluster capability is given 10 minutes
to find a donor; one of our own notifiers that takes nothing is critical after a minute. A key
that appears not ready, or turns so while its source starts, is given 2 minutes at least. What
the exporter says of its own sources is not alerted here, whatever is configured: a lost source
has an alert of its own.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Generic, TypeVar

from sr_exporter.globs import compiled, fits
from sr_exporter.model import OWN_SOURCE, fold

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from sr_exporter.config import AlertRule
    from sr_exporter.config.templates import Template
    from sr_exporter.globs import Match
    from sr_exporter.model import Key

Said = TypeVar("Said")

#: What a key of a source that has just started is given.
STARTING_SECONDS = 120.0
#: For how many groups it is remembered which rules may fit their identifiers.
_REMEMBERED = 4096


@dataclass(frozen=True, slots=True)
class Rule:
    severity: str = "warning"
    #: How long it must last before it is told.
    for_seconds: float = 0.0
    silent: bool = False
    #: The operator's own.
    labels: Mapping[str, str] = field(default_factory=dict, hash=False)
    #: How long its alert goes on when it is well again.
    keep_firing_seconds: float = 0.0
    #: The operator's own, in place of those of the same names.
    annotations: tuple[tuple[str, Template], ...] = ()


class _Line(Generic[Said]):
    """One rule, ready to be asked; group and identifier are asked folded."""

    __slots__ = ("group", "identifier", "said", "source")

    def __init__(self, source: str, group: str | None, identifier: str | None, said: Said) -> None:
        self.source = compiled(source)
        self.group = compiled(group and fold(group))
        self.identifier = compiled(identifier and fold(identifier))
        self.said = said


_BUILT_IN = (
    _Line(OWN_SOURCE, "source", None, Rule(silent=True)),
    _Line(OWN_SOURCE, "notifier", None, Rule(severity="critical", for_seconds=60.0)),
    _Line("*", "core", None, Rule(severity="critical")),
    _Line("*", "uac_registrant", None, Rule(for_seconds=30.0)),
    _Line("*", "clusterer", "cap:*", Rule(for_seconds=600.0)),
)
#: What each of these is for, in their order.
_BUILT_IN_FOR = (
    "the exporter's own sources",
    "the exporter's own notifiers",
    "group core",
    "group uac_registrant",
    "group clusterer, identifier cap:*",
)
_DEFAULT = Rule()
_SOURCE_DOWN = Rule(severity="critical", for_seconds=30.0)


@dataclass(frozen=True, slots=True)
class Decision:
    """Which rule decides, and why, for people."""

    rule: Rule
    #: Which of the configured rules, from 0; None: no one of them.
    place: int | None
    #: What of each configured rule before it does not fit.
    passed: tuple[str, ...]
    #: What the built-in rule is for that says what `place` does not; None: none is for this.
    built_in: str | None
    base: Rule


class Rules:
    """The configured rules, and after them the built-in ones. Pure."""

    def __init__(self, configured: Sequence[AlertRule] = (), *, watchdog: bool = False) -> None:
        #: Whether an alert fires always.
        self.watchdog = watchdog
        self._configured = [
            _Line(rule.source, rule.group, rule.identifier, rule) for rule in configured
        ]
        # Few groups have many identifiers: what fits a group is not looked for at each of them.
        self._of_group = lru_cache(_REMEMBERED)(self._find_of_group)

    def say_as(self, others: Rules) -> bool:
        """Whether these decide as others do; False where that is not certain."""
        said = [line.said for line in self._configured]
        return self.watchdog == others.watchdog and said == [
            line.said for line in others._configured
        ]

    def for_key(self, key: Key, *, early: bool) -> Rule:
        """Give the rule of a key that is not ready; `early`: since its source started."""
        identifier = fold(key.identifier)
        configured, built_in = self._of_group(key.source, fold(key.group))
        base = _first(built_in, identifier) or _DEFAULT
        if early and base.for_seconds < STARTING_SECONDS:
            base = replace(base, for_seconds=STARTING_SECONDS)
        return base if base.silent else _decided(_first(configured, identifier), base)

    def for_source(self, source: str, asked_twice_after: float = 0.0) -> Rule:
        """Give the rule of a polled source that is down.

        One poll that fails is no outage: unless a rule says `for`, the source is given the time
        until it was asked twice.
        """
        base = replace(_SOURCE_DOWN, for_seconds=max(_SOURCE_DOWN.for_seconds, asked_twice_after))
        for line in self._configured:
            rule = line.said
            if rule.group is None and rule.identifier is None and fits(line.source, source):
                return _decided(rule, base)
        return base

    def explain_key(self, key: Key, *, early: bool) -> Decision:
        """Tell how the rule of a key is found."""
        names = (key.source, fold(key.group), fold(key.identifier))
        misfits = [_misfit(line, names) for line in self._configured]
        built_in = next((n for n, line in enumerate(_BUILT_IN) if not _misfit(line, names)), None)
        return Decision(
            self.for_key(key, early=early),
            *_passed(misfits),
            built_in=None if built_in is None else _BUILT_IN_FOR[built_in],
            base=Rules().for_key(key, early=early),
        )

    def explain_source(self, source: str) -> Decision:
        """Tell how the rule of a polled source that is down is found."""
        misfits = []
        for line in self._configured:
            for_keys = line.said.group is not None or line.said.identifier is not None
            misfits.append("is for keys" if for_keys else _misfit(line, (source, "", "")))
        return Decision(
            self.for_source(source),
            *_passed(misfits),
            built_in="a polled source that is down",
            base=_SOURCE_DOWN,
        )

    def _find_of_group(
        self, source: str, group: str
    ) -> tuple[list[tuple[Match | None, AlertRule]], list[tuple[Match | None, Rule]]]:
        return _fitting(self._configured, source, group), _fitting(_BUILT_IN, source, group)


def _misfit(line: _Line[Said], names: tuple[str, str, str]) -> str:
    """Say what of a rule does not fit these names, folded; "" if all does."""
    matches = (line.source, line.group, line.identifier)
    for part, match, name in zip(("source", "group", "identifier"), matches, names, strict=True):
        if not fits(match, name):
            return part
    return ""


def _passed(misfits: Sequence[str]) -> tuple[int | None, tuple[str, ...]]:
    """Give the first rule that fits, and why those before it do not."""
    place = misfits.index("") if "" in misfits else None
    return place, tuple(misfits[:place])


def _fitting(
    lines: Iterable[_Line[Said]], source: str, group: str
) -> list[tuple[Match | None, Said]]:
    """Give what decides keys of a group, by identifier, up to what fits them all."""
    found = []
    for line in lines:
        if fits(line.source, source) and fits(line.group, group):
            found.append((line.identifier, line.said))
            if line.identifier is None:
                break
    return found


def _first(lines: Iterable[tuple[Match | None, Said]], identifier: str) -> Said | None:
    for match, said in lines:
        if match is None or match(identifier):
            return said
    return None


def _decided(said: AlertRule | None, base: Rule) -> Rule:
    """Give what a rule says, and what it does not say from what it stands before."""
    if said is None:
        return base
    return Rule(
        severity=base.severity if said.severity is None else said.severity,
        for_seconds=base.for_seconds if said.for_seconds is None else said.for_seconds,
        silent=said.silence,
        labels=dict(said.labels),
        keep_firing_seconds=said.keep_firing_seconds,
        annotations=said.annotations,
    )
