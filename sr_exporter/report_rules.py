"""Report rules: from a report text to what it says. Pure.

Texts are strangers' (rule 10), so they are matched by RE2, whose time is linear in the text, and
no further than `LONGEST_TEXT`: the time of an expression that is large is the text times its size.

The built-in rules are made from recorded texts. In no recording is a gateway or destination that
is `[active]` again (facts on OpenSIPS, section 3, have seen one), a flood, or a cluster's node or
tag that changes: these are by the facts and the modules' documentation. A text is a hint and no
promise: other versions may word it otherwise, and then nothing is said.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import re2

from sr_exporter.cutting import cut_name
from sr_exporter.globs import compiled, fits
from sr_exporter.model import fold
from sr_exporter.signals import Meaning, Signal

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

#: How much of a text is looked at, in characters, and how much of a subject is told.
LONGEST_TEXT = 4096
LONGEST_SUBJECT = 256
#: For how many groups it is remembered which rules may fit their identifiers.
_REMEMBERED = 4096
#: What one expression may take in memory, in bytes: that bounds its size, and so its time.
_MEMORY = 1 << 18
_PLACE = re.compile(r"\{(\w+)\}")


class BadRule(ValueError):  # noqa: N818 - it is the rule that is bad
    """A rule that cannot be used: which part of it is wrong, and why."""

    def __init__(self, part: str, why: str) -> None:
        super().__init__(f"{part}: {why}")
        self.part = part
        self.why = why


@dataclass(frozen=True, slots=True)
class ReportRule:
    """One rule, as it is written."""

    name: str
    #: A regular expression in the syntax of RE2, found anywhere in a text.
    match: str
    meaning: Meaning = Meaning.EVENT
    #: Globs; case does not count in those of group and identifier.
    source: str = "*"
    group: str = "*"
    identifier: str = "*"
    #: How `down` and `up` call whom they are about: `{name}` is what a named group found.
    subject: str = "{subject}"


#: What the modules that load tables call their groups.
_TABLES = ("dialplan", "dispatcher", "drouting", "sql_cacher")

BUILT_IN: tuple[ReportRule, ...] = (
    *(ReportRule("data_load_failed", r"^DB data loading failed", group=group) for group in _TABLES),
    *(
        ReportRule(
            "data_load_succeeded",
            r"^DB data loading successfully completed",
            Meaning.LOADED,
            group=group,
        )
        for group in _TABLES
    ),
    ReportRule(
        "gateway_inactive",
        r"^GW <(?P<gateway>[^>]+)>/.* switched to \[inactive\]",
        Meaning.DOWN,
        group="drouting",
        identifier="*;events",
        subject="{gateway}",
    ),
    ReportRule(
        "gateway_active",
        r"^GW <(?P<gateway>[^>]+)>/.* switched to \[active\]",
        Meaning.UP,
        group="drouting",
        identifier="*;events",
        subject="{gateway}",
    ),
    ReportRule(
        "destination_inactive",
        r"^DESTINATION <(?P<uri>[^>]+)>, set (?P<set>\d+) switched to \[inactive\]",
        Meaning.DOWN,
        group="dispatcher",
        identifier="*;events",
        subject="{uri}, set {set}",
    ),
    ReportRule(
        "destination_active",
        r"^DESTINATION <(?P<uri>[^>]+)>, set (?P<set>\d+) switched to \[active\]",
        Meaning.UP,
        group="dispatcher",
        identifier="*;events",
        subject="{uri}, set {set}",
    ),
    ReportRule(
        "cluster_node_down",
        r"^Node \[(?P<node>\d+)\], cluster \[(?P<cluster>\d+)\] is DOWN",
        Meaning.DOWN,
        group="clusterer",
        identifier="node_states",
        subject="node {node}, cluster {cluster}",
    ),
    ReportRule(
        "cluster_node_up",
        r"^Node \[(?P<node>\d+)\], cluster \[(?P<cluster>\d+)\] is UP",
        Meaning.UP,
        group="clusterer",
        identifier="node_states",
        subject="node {node}, cluster {cluster}",
    ),
    # A tag that is backup here is active elsewhere: nothing is wrong, and nobody is told.
    ReportRule(
        "sharing_tag_changed",
        r"^TAG <[^>]+>, cluster \d+, became (active|backup)",
        group="clusterer",
        identifier="sharing_tags",
    ),
    ReportRule("flood", r"^IP \S+ detected as flooding", group="pike"),
)
BUILT_IN_NAMES = frozenset(rule.name for rule in BUILT_IN)


class _Line:
    """One rule, ready to be asked; group and identifier are asked folded."""

    __slots__ = ("_group", "_identifier", "_matches", "_names", "_source", "rule")

    def __init__(self, rule: ReportRule) -> None:
        self.rule = rule
        self._source = compiled(rule.source)
        self._group = compiled(fold(rule.group))
        self._identifier = compiled(fold(rule.identifier))
        self._matches = _compiled(rule.match)
        self._names = _named(self._matches)

    def fits_group(self, source: str, group: str) -> bool:
        return fits(self._source, source) and fits(self._group, group)

    def fits_identifier(self, identifier: str) -> bool:
        return fits(self._identifier, identifier)

    def read(self, text: bytes) -> Signal | None:
        found = self._matches.search(text)
        if found is None:
            return None
        rule = self.rule
        if rule.meaning not in (Meaning.DOWN, Meaning.UP):
            return Signal(rule.name, rule.meaning)
        names = self._names
        subject = _PLACE.sub(lambda place: _text(found[names[place[1]]]), rule.subject).strip()
        return Signal(rule.name, rule.meaning, cut_name(subject, LONGEST_SUBJECT) or None)


class ReportRules:
    """Implements `ReportReader`: the built-in rules, and after them the configured ones."""

    def __init__(
        self, configured: Iterable[ReportRule] = (), switched_off: Iterable[str] = ()
    ) -> None:
        off = frozenset(switched_off)
        built_in = [rule for rule in BUILT_IN if rule.name not in off]
        self._lines = [_Line(rule) for rule in (*built_in, *configured)]
        self._of_group = lru_cache(_REMEMBERED)(self._find_of_group)

    def read(self, source: str, group: str, identifier: str, log: str) -> Sequence[Signal]:
        lines = self._of_group(source, fold(group))
        if not lines:
            return ()
        folded = fold(identifier)
        # A push may hold half a character.
        text = log[:LONGEST_TEXT].encode("utf-8", "replace")
        signals = (line.read(text) for line in lines if line.fits_identifier(folded))
        return [signal for signal in signals if signal is not None]

    def reads(self, source: str, group: str) -> bool:
        return bool(self._of_group(source, fold(group)))

    def rules(self, source: str, group: str, identifier: str) -> Sequence[str]:
        lines = self._of_group(source, fold(group))
        if not lines:
            return ()
        folded = fold(identifier)
        return list(dict.fromkeys(one.rule.name for one in lines if one.fits_identifier(folded)))

    def _find_of_group(self, source: str, group: str) -> tuple[_Line, ...]:
        return tuple(line for line in self._lines if line.fits_group(source, group))


def check(rule: ReportRule) -> None:
    """See that a rule can be used.

    Raises:
        BadRule: its expression or its subject is wrong.
    """
    named = _named(_compiled(rule.match)).keys()
    if rule.meaning in (Meaning.DOWN, Meaning.UP):
        wanted = set(_PLACE.findall(rule.subject))
        if not wanted:
            raise BadRule("subject", "names no group of match: it would be the same for all")
        if missing := sorted(wanted - named):
            raise BadRule("match", f"has no group (?P<{missing[0]}>...), which the subject needs")


def _compiled(pattern: str) -> re2._Regexp:
    options = re2.Options()
    options.log_errors = False
    options.max_mem = _MEMORY
    try:
        # Of bytes: a text is encoded once for all rules, and offsets need no translation.
        return re2.compile(pattern.encode("utf-8", "replace"), options)
    except re2.error as error:
        why = error.args[0] if error.args else ""
        said = why.decode("utf-8", "replace") if isinstance(why, bytes) else str(why)
        raise BadRule("match", f"is no regular expression of RE2: {said}") from None


def _named(expression: re2._Regexp) -> dict[str, int]:
    """Give the numbers of an expression's named groups."""
    return {_text(name): number for name, number in expression.groupindex.items()}


def _text(found: bytes | None) -> str:
    """Give what a group found; it may be a part of a character, or nothing at all."""
    return "" if found is None else found.decode("utf-8", "replace")
