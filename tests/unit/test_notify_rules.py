"""Which alert a key or a lost source makes, how severe, and after how long."""

from __future__ import annotations

from fnmatch import fnmatchcase
from types import MappingProxyType

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from sr_exporter.config import AlertRule
from sr_exporter.model import Key, fold
from sr_exporter.notify.rules import Rule, Rules

DEFAULT = Rule(severity="warning", for_seconds=0.0, silent=False, labels={})
AT_ONCE_CRITICAL = Rule(severity="critical")
REGISTRANT = Rule(for_seconds=30.0)
CAPABILITY = Rule(for_seconds=600.0)
SILENT = Rule(silent=True)
NOTIFIER = Rule("critical", 60.0)
SOURCE_DOWN = Rule(severity="critical", for_seconds=30.0)

# --- built in --------------------------------------------------------------------------------

TABLE = [
    (Key("sip-1", "drouting", "us"), DEFAULT),
    (Key("push", "alarms", "main"), DEFAULT),
    (Key("sip-1", "core", "main"), AT_ONCE_CRITICAL),
    (Key("sip-1", "CORE", "Main"), AT_ONCE_CRITICAL),
    (Key("sip-1", "core", "other"), AT_ONCE_CRITICAL),
    (Key("sip-1", "score", "main"), DEFAULT),
    (Key("sip-1", "core2", "main"), DEFAULT),
    (Key("sip-1", "core\n", "main"), DEFAULT),
    (Key("sip-1", "uac_registrant", "aor=sip:a@b;contact=sip:c;registrar=sip:d"), REGISTRANT),
    (Key("sip-1", "UAC_Registrant", "x"), REGISTRANT),
    (Key("sip-1", "clusterer", "cap:dispatcher-status-repl"), CAPABILITY),
    (Key("sip-1", "Clusterer", "CAP:x"), CAPABILITY),
    (Key("sip-1", "clusterer", "node_states"), DEFAULT),
    (Key("sip-1", "clusterer", "xcap:x"), DEFAULT),
    (Key("sip-1", "other", "cap:x"), DEFAULT),
    (Key("sr_exporter", "source", "sip-1"), SILENT),
    (Key("sr_exporter", "Source", "sip-1"), SILENT),
    (Key("sr_exporter", "notifier", "oncall"), NOTIFIER),
    (Key("sr_exporter", "Notifier", "oncall"), NOTIFIER),
    (Key("sr_exporter", "store", "main"), DEFAULT),
    (Key("sr_exporter", "core", "main"), AT_ONCE_CRITICAL),
    (Key("sip-1", "source", "sip-1"), DEFAULT),
    (Key("sip-1", "notifier", "main"), DEFAULT),
    (Key("SR_EXPORTER", "source", "main"), DEFAULT),
    (Key("sip-1", "g[r]oup*", "?"), DEFAULT),
]
each_key = pytest.mark.parametrize(("key", "rule"), TABLE, ids=lambda value: str(value)[:50])


@each_key
def test_built_in_rules(key, rule):
    """Each key has the first rule that fits it, whatever the case of group and identifier."""
    assert Rules().for_key(key, early=False) == rule


@each_key
def test_a_starting_source_is_given_two_minutes(key, rule):
    """An early "not ready" waits 2 minutes at least; nothing else of its rule changes."""
    early = Rules().for_key(key, early=True)
    assert early.for_seconds == max(rule.for_seconds, 120.0)
    assert (early.severity, early.silent, early.labels) == (rule.severity, rule.silent, {})


def test_a_source_that_is_down_is_critical_after_half_a_minute():
    """A restart of OpenSIPS takes less."""
    assert Rules().for_source("sip-1") == SOURCE_DOWN


@each_key
@pytest.mark.parametrize("early", [False, True])
def test_a_rule_that_says_nothing_changes_nothing(key, rule, early):
    """All of a rule's silence on a matter is filled from what is built in."""
    changed = Rules([AlertRule(source="*")])
    assert changed.for_key(key, early=early) == Rules().for_key(key, early=early)
    assert changed.for_source(key.source) == SOURCE_DOWN


# --- configured ------------------------------------------------------------------------------

VIP = Key("sip-1", "uac_registrant", "aor=sip:VIP@b")


@pytest.mark.parametrize(
    ("configured", "key", "expected"),
    [
        # what is said, and what is inherited
        ([AlertRule(severity="page")], VIP, Rule("page", 30.0)),
        ([AlertRule(for_seconds=5.0)], VIP, Rule("warning", 5.0)),
        ([AlertRule(for_seconds=0.0)], VIP, Rule("warning", 0.0)),
        ([AlertRule(severity="page", for_seconds=900.0)], VIP, Rule("page", 900.0)),
        (
            [AlertRule(labels=(("team", "voice"), ("tier", "1")))],
            VIP,
            Rule("warning", 30.0, labels={"tier": "1", "team": "voice"}),
        ),
        ([AlertRule(silence=True)], VIP, Rule("warning", 30.0, silent=True)),
        # the first that fits decides alone
        ([AlertRule(severity="a"), AlertRule(severity="b", for_seconds=1.0)], VIP, Rule("a", 30.0)),
        (
            [AlertRule(group="core", silence=True), AlertRule(severity="b")],
            VIP,
            Rule("b", 30.0),
        ),
        (
            [AlertRule(identifier="*bob*", severity="a"), AlertRule(severity="b")],
            VIP,
            Rule("b", 30.0),
        ),
        (
            [AlertRule(severity="b"), AlertRule(identifier="*vip*", severity="a")],
            VIP,
            Rule("b", 30.0),
        ),
        # case counts for the source only
        ([AlertRule(group="UAC_*", identifier="*vip@?", severity="a")], VIP, Rule("a", 30.0)),
        ([AlertRule(identifier="AOR=[R-T]*:[v]*", severity="a")], VIP, Rule("a", 30.0)),
        ([AlertRule(source="SIP-1", severity="a")], VIP, REGISTRANT),
        ([AlertRule(source="sip-[!2]", severity="a")], VIP, Rule("a", 30.0)),
        # ... and only ASCII has a case
        ([AlertRule(identifier="É", severity="a")], Key("s", "g", "é"), DEFAULT),
        ([AlertRule(identifier="É", severity="a")], Key("s", "g", "É"), Rule("a")),
        # the whole name must fit
        ([AlertRule(source="sip", severity="a")], VIP, REGISTRANT),
        ([AlertRule(group="registrant", severity="a")], VIP, REGISTRANT),
        ([AlertRule(identifier="aor", severity="a")], VIP, REGISTRANT),
        ([AlertRule(group="*", identifier="*", severity="a")], VIP, Rule("a", 30.0)),
        # built in by identifier, configured by group
        (
            [AlertRule(group="clusterer", severity="a")],
            Key("s", "clusterer", "cap:x"),
            Rule("a", 600.0),
        ),
        # our own groups
        ([AlertRule(severity="a")], Key("sr_exporter", "store", "main"), Rule("a")),
        ([AlertRule(severity="a")], Key("sr_exporter", "source", "s"), SILENT),
        (
            [AlertRule("sr_exporter", "notifier", "*", severity="a", labels=(("b", "c"),))],
            Key("sr_exporter", "Notifier", "main"),
            Rule("a", 60.0, labels={"b": "c"}),
        ),
    ],
)
def test_the_first_configured_rule_that_fits_decides(configured, key, expected):
    """What it says counts, what it does not say is as built in."""
    assert Rules(configured).for_key(key, early=False) == expected


@pytest.mark.parametrize(
    ("rule", "key", "seconds"),
    [
        (AlertRule(severity="a"), Key("s", "drouting", "us"), 120.0),
        (AlertRule(severity="a"), Key("s", "clusterer", "cap:x"), 600.0),
        (AlertRule(silence=True), Key("s", "drouting", "us"), 120.0),
        (AlertRule(for_seconds=0.0), Key("s", "drouting", "us"), 0.0),
        (AlertRule(for_seconds=30.0), Key("s", "clusterer", "cap:x"), 30.0),
        (AlertRule(for_seconds=900.0), Key("s", "drouting", "us"), 900.0),
    ],
)
def test_what_a_rule_says_of_time_holds_early_too(rule, key, seconds):
    """The two minutes of a starting source are built in: a configured `for` replaces them."""
    assert Rules([rule]).for_key(key, early=True).for_seconds == seconds


@pytest.mark.parametrize(
    ("configured", "expected"),
    [
        ([AlertRule(severity="page")], Rule("page", 30.0)),
        ([AlertRule("sip-?", for_seconds=300.0)], Rule("critical", 300.0)),
        ([AlertRule("SIP-1", for_seconds=300.0)], SOURCE_DOWN),
        ([AlertRule("sip-1", silence=True)], Rule("critical", 30.0, silent=True)),
        ([AlertRule(labels=(("a", "b"),))], Rule("critical", 30.0, labels={"a": "b"})),
        ([AlertRule(group="*", severity="page")], SOURCE_DOWN),
        ([AlertRule(identifier="*", severity="page")], SOURCE_DOWN),
        ([AlertRule(group="core", silence=True), AlertRule(severity="a")], Rule("a", 30.0)),
        ([AlertRule(severity="a"), AlertRule("sip-1", severity="b")], Rule("a", 30.0)),
    ],
)
def test_rules_of_a_lost_source(configured, expected):
    """A rule that names neither group nor identifier fits it; one that names any does not."""
    assert Rules(configured).for_source("sip-1") == expected


def test_a_rule_compares_by_value():
    """Labels count, in whatever order and mapping."""
    assert Rule() == Rule(labels={}) == Rule(labels=MappingProxyType({}))
    assert Rule(labels={"a": "1", "b": "2"}) == Rule(labels={"b": "2", "a": "1"})
    assert Rule(labels={"a": "1"}) != Rule(labels={"a": "2"})
    assert len({Rule(), Rule(labels={})}) == 1


def test_what_is_remembered_of_groups_is_bounded():
    """Pushers may invent groups without end."""
    rules = Rules([AlertRule(group="g*9", severity="a")])
    for number in (*range(10_000), *range(10_000)):
        rule = rules.for_key(Key("push", f"g{number}", "main"), early=False)
        assert rule.severity == ("a" if number % 10 == 9 else "warning")
    assert rules._of_group.cache_info().currsize <= 4096


# --- whatever it is --------------------------------------------------------------------------

_GLOB = st.one_of(
    st.just("*"),
    st.text("aAbB*?[]!-é", min_size=1, max_size=5),
    st.sampled_from(["sr_exporter", "Core", "source", "uac*", "clusterer", "CAP:*", "[a-B]*"]),
)
_SOURCE = st.sampled_from(["a", "A", "ab", "b-", "é", "sr_exporter"])
_NAMES = st.sampled_from(
    ["a", "A", "aB", "b", "[", "]a", "-", "!", "é", "É", "", "source", "CORE", "clusterer"]
)
_KEY = st.builds(
    Key,
    _SOURCE,
    _NAMES | st.sampled_from(["uac_registrant", "Notifier", "core"]),
    _NAMES | st.sampled_from(["cap:a", "Cap:B", "main"]) | st.text("aAbB*?[]!-é\n", max_size=5),
)
_RULE = st.builds(
    AlertRule,
    source=_GLOB,
    group=st.none() | _GLOB,
    identifier=st.none() | _GLOB,
    severity=st.none() | st.sampled_from(["one", "two"]),
    for_seconds=st.none() | st.sampled_from([0.0, 7.0, 700.0]),
    labels=st.sampled_from([(), (("team", "x"),)]),
    silence=st.booleans(),
)


def fits(rule: AlertRule, key: Key) -> bool:
    return (
        fnmatchcase(key.source, rule.source)
        and (rule.group is None or fnmatchcase(fold(key.group), fold(rule.group)))
        and (rule.identifier is None or fnmatchcase(fold(key.identifier), fold(rule.identifier)))
    )


def built_in(key: Key, *, early: bool) -> Rule:
    group, identifier = fold(key.group), fold(key.identifier)
    least = 120.0 if early else 0.0
    if key.source == "sr_exporter" and group == "source":
        return Rule("warning", least, silent=True)
    if key.source == "sr_exporter" and group == "notifier":
        return Rule("critical", max(least, 60.0))
    if group == "core":
        return Rule("critical", least)
    if group == "uac_registrant":
        return Rule("warning", max(least, 30.0))
    if group == "clusterer" and identifier.startswith("cap:"):
        return Rule("warning", 600.0)
    return Rule("warning", least)


def filled(rule: AlertRule, base: Rule) -> Rule:
    severity = rule.severity if rule.severity is not None else base.severity
    seconds = rule.for_seconds if rule.for_seconds is not None else base.for_seconds
    return Rule(severity, seconds, rule.silence, dict(rule.labels))


@settings(max_examples=500, deadline=None)
@given(st.lists(_RULE, max_size=6), st.lists(st.tuples(_KEY, st.booleans()), max_size=12))
@example([AlertRule(identifier="[[a--b&&c||d~~e"), AlertRule("[!]a-]")], [(VIP, False)])
def test_rules_decide_as_plain_globs_do(configured, asked):
    """Asked one after the other, in any order, each key has what a plain search would give."""
    rules = Rules(configured)
    for key, early in asked:
        expected = built_in(key, early=early)
        if not expected.silent:
            found = [rule for rule in configured if fits(rule, key)][:1]
            expected = filled(found[0], expected) if found else expected
        assert rules.for_key(key, early=early) == expected


@settings(max_examples=200, deadline=None)
@given(st.lists(_RULE, max_size=6), _SOURCE)
def test_lost_sources_are_decided_as_plain_globs_do(configured, source):
    """The first rule without group and identifier whose glob fits its name."""
    bare = [rule for rule in configured if rule.group is None and rule.identifier is None]
    found = [rule for rule in bare if fnmatchcase(source, rule.source)][:1]
    expected = filled(found[0], SOURCE_DOWN) if found else SOURCE_DOWN
    assert Rules(configured).for_source(source) == expected
