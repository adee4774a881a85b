"""Report texts and the rules that read them."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from sr_exporter.cutting import cut_name
from sr_exporter.report_rules import (
    BUILT_IN,
    BUILT_IN_NAMES,
    LONGEST_SUBJECT,
    LONGEST_TEXT,
    BadRule,
    ReportRule,
    ReportRules,
    check,
)
from sr_exporter.signals import Meaning, Signal

RECORDINGS = Path(__file__).parents[1] / "recordings"
DOCUMENT = Path(__file__).parents[2] / "docs" / "configuration.md"
_TOKEN = re.compile(
    rb'"Name": ?"((?:[^"\\]|\\.)*)", ?"(Identifiers|Reports)"|"Log": ?("(?:[^"\\]|\\.)*")'
)


def _recorded() -> set[tuple[str, str, str]]:
    """Every text on record, with its group and identifier ("" where a reply does not name it)."""
    found = set()
    for path in sorted(RECORDINGS.rglob("*")):
        group = identifier = ""
        for name, kind, log in _TOKEN.findall(path.read_bytes() if path.is_file() else b""):
            if kind == b"Identifiers":
                group = name.decode("utf-8", "replace")
            elif kind == b"Reports":
                identifier = name.decode("utf-8", "replace")
            else:
                text = json.loads(log.decode("utf-8", "replace"), strict=False)
                found.add((group, identifier, text))
    return found


RECORDED = _recorded()


def read(group: str, identifier: str, log: str, rules: ReportRules | None = None) -> list[Signal]:
    return list((rules or ReportRules()).read("sip-1", group, identifier, log))


# --- the built-in rules ------------------------------------------------------------------------


def test_the_recordings_are_read():
    """What no rule reads is known here: a text that is new on record is to be looked at."""
    by_rule: dict[str, set[str]] = {}
    silent = set()
    for group, identifier, log in RECORDED:
        # Where a record does not name group and identifier, it may be any.
        groups = [group] if group else {rule.group for rule in BUILT_IN}
        place = identifier or "us;events"
        signals = [signal for name in groups for signal in read(name, place, log)]
        for signal in signals:
            by_rule.setdefault(signal.rule, set()).add(re.sub(r"\d+", "N", log))
        if not signals:
            silent.add(re.sub(r"\d+", "N", log).strip())
    assert by_rule == {
        "data_load_failed": {"DB data loading failed, discarding"},
        "data_load_succeeded": {"DB data loading successfully completed"},
        "gateway_inactive": {
            "GW <gwN>/N.N.N.N:N switched to [inactive] due to negative probing reply\n"
        },
        "destination_inactive": {
            re.sub(r"\d+", "N", DESTINATION.format("inactive")).replace(
                "MI command", "negative probing reply"
            )
        },
    }
    assert not [log for log in silent if re.search("fail|inactive|down|lost|flood", log.lower())]


GATEWAY = "GW <gw0>/127.0.0.1:5080 switched to [{}] due to negative probing reply\n"
DESTINATION = "DESTINATION <sip:127.0.0.1:5073>, set 2 switched to [{}] due to MI command\n"
SAID = [
    ("drouting", "us;events", GATEWAY.format("inactive"), "gateway_inactive", "gw0"),
    ("drouting", "us;events", GATEWAY.format("active"), "gateway_active", "gw0"),
    (
        *("dispatcher", "default;events", DESTINATION.format("inactive")),
        *("destination_inactive", "sip:127.0.0.1:5073, set 2"),
    ),
    (
        *("dispatcher", "default;events", DESTINATION.format("active")),
        *("destination_active", "sip:127.0.0.1:5073, set 2"),
    ),
    (
        *("clusterer", "node_states", "Node [2], cluster [1] is DOWN"),
        *("cluster_node_down", "node 2, cluster 1"),
    ),
    (
        *("clusterer", "node_states", "Node [2], cluster [1] is UP"),
        *("cluster_node_up", "node 2, cluster 1"),
    ),
    (
        *("clusterer", "sharing_tags", "TAG <HA>, cluster 1, became backup due to MI command"),
        *("sharing_tag_changed", None),
    ),
    ("pike", "main", "IP 127.0.0.1 detected as flooding", "flood", None),
    ("dialplan", "default", "DB data loading failed, discarding", "data_load_failed", None),
    (
        *("sql_cacher", "carriers", "DB data loading successfully completed"),
        *("data_load_succeeded", None),
    ),
]


@pytest.mark.parametrize(("group", "identifier", "log", "rule", "subject"), SAID)
def test_a_text_is_read_by_its_rule_until_that_is_switched_off(
    group, identifier, log, rule, subject
):
    """By its name; case counts neither in groups nor in identifiers."""
    assert [(said.rule, said.subject) for said in read(group, identifier, log)] == [(rule, subject)]
    assert [said.rule for said in read(group.upper(), identifier.upper(), log)] == [rule]
    assert read(group, identifier, log, ReportRules(switched_off=[rule])) == []
    assert read("other", identifier, log) == []


def test_every_built_in_rule_is_right_documented_and_shown_here():
    """None is named in the documentation that is not, and the other way round."""
    for rule in BUILT_IN:
        check(rule)
    assert {said[3] for said in SAID} == BUILT_IN_NAMES
    section = DOCUMENT.read_text("utf-8").split("\n## What report texts tell\n")[1]
    rows = re.findall(r"^\| `([a-z_]+)` \|", section.split("\n## ")[0], re.MULTILINE)
    assert set(rows) == BUILT_IN_NAMES


# --- rules of the file -------------------------------------------------------------------------


def test_a_rule_reads_what_its_globs_fit():
    """And nothing else; it may read by more rules than one, in their order."""
    rules = ReportRules(
        [
            ReportRule("a", "x", source="sip-*", group="g*", identifier="i?"),
            ReportRule("b", "x(?P<subject>.*)", Meaning.DOWN, group="g"),
        ],
    )
    assert [said.rule for said in rules.read("sip-1", "G", "I1", "axb")] == ["a", "b"]
    assert [said.rule for said in rules.read("lab", "g", "i1", "ax1")] == ["b"]
    assert rules.rules("sip-1", "g", "i1") == ["a", "b"]
    assert rules.rules("sip-1", "ga", "other") == []
    assert (rules.reads("sip-1", "ga"), rules.reads("lab", "ga")) == (True, False)


@pytest.mark.parametrize(
    ("text", "subject"),
    [
        ("down a1", "<a1/>"),
        ("down a1 at b", "<a1/b>"),
        ("down é\ud800", "<é?/>"),
        (f"down {'a' * 1000}", cut_name(f"<{'a' * 1000}/>", LONGEST_SUBJECT)),
    ],
)
def test_a_subject_is_made_of_named_groups(text, subject):
    """One that found nothing is empty."""
    rule = ReportRule(
        "r",
        r"down (?P<a>\S+)(?: at (?P<b>\S+))?",
        Meaning.DOWN,
        subject="<{a}/{b}>",
    )
    check(rule)
    assert read("g", "i", text, ReportRules([rule])) == [Signal("r", Meaning.DOWN, subject)]


def test_who_has_no_name_is_nobody():
    """The text is counted all the same."""
    rules = ReportRules([ReportRule("r", "down(?P<subject>.*)", Meaning.DOWN)])
    assert read("g", "i", "down  ", rules) == [Signal("r", Meaning.DOWN, None)]


@pytest.mark.parametrize(
    ("rule", "part"),
    [
        (ReportRule("r", "["), "match"),
        (ReportRule("r", "(?=a)"), "match"),
        (ReportRule("r", r"(a)\1"), "match"),
        (ReportRule("r", "((a{0,100}){0,100})b"), "match"),
        (ReportRule("r", "a", Meaning.DOWN), "match"),
        (ReportRule("r", "(?P<b>a)", Meaning.UP, subject="{a}"), "match"),
        (ReportRule("r", "(?P<b>a)", Meaning.UP, subject="b"), "subject"),
    ],
)
def test_a_rule_that_cannot_be_used_is_refused(rule, part):
    with pytest.raises(BadRule) as caught:
        check(rule)
    assert caught.value.part == part


# --- whatever is reported ----------------------------------------------------------------------


MEGABYTE = 1_000_000
HOSTILE = {
    "no end": "GW <" + "a" * MEGABYTE,
    "many beginnings": "GW <" * (MEGABYTE // 4),
    "many ends": "GW <a>/ switched to [" * (MEGABYTE // 21),
    "a long number": "DESTINATION <a>, set " + "1" * MEGABYTE,
    "nothing": "a" * MEGABYTE,
    "pairs": "ab" * (MEGABYTE // 2),
    "not ASCII": "é" * (MEGABYTE // 2),
    "half characters": "\ud800" * MEGABYTE,
}
#: What has an engine that goes back take for ever.
SLOW = [r"(x+x+)+y", r"^(a|aa)+$", r"(a?){30}a{30}$", r"(.*)(.*)(.*)(.*)[^\x00-\x{10ffff}]"]


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize(
    ("group", "identifier"),
    [("drouting", "us;events"), ("dispatcher", "default;events"), ("clusterer", "node_states")],
)
def test_a_megabyte_of_hostile_text_is_read_at_once(name, group, identifier):
    """By the built-in rules and by others: 50 ms for all of them, at the best of three."""
    rules = ReportRules([ReportRule(f"slow {n}", text) for n, text in enumerate(SLOW)])
    took = []
    for _ in range(3):
        begun = time.perf_counter()
        rules.read("sip-1", group, identifier, HOSTILE[name])
        took.append(time.perf_counter() - begun)
    assert min(took) < 0.05


def test_only_the_beginning_of_a_text_is_looked_at():
    """As the documentation says."""
    rules = ReportRules([ReportRule("r", "end$")])
    assert read("g", "i", "." * (LONGEST_TEXT - 3) + "end" + "." * 9, rules)
    assert not read("g", "i", "." * (LONGEST_TEXT - 2) + "end", rules)
    assert f"first {LONGEST_TEXT} characters" in DOCUMENT.read_text("utf-8")


@settings(max_examples=300)
@given(
    st.text() | st.text(alphabet="GW <>/[]inactve sitchedto\ud800\0\n", max_size=80),
    st.sampled_from(["drouting", "dispatcher", "clusterer", "pike", "dialplan"]),
    st.sampled_from(["a;events", "node_states", "main"]),
)
@example("GW <\ud800>/a switched to [inactive]", "drouting", "a;events")
def test_any_text_is_read(log, group, identifier):
    """What is read is fit for a label, and twice the same."""
    first = read(group, identifier, log)
    for signal in first:
        assert (signal.subject is None) == (signal.meaning in (Meaning.EVENT, Meaning.LOADED))
        if signal.subject is not None:
            signal.subject.encode()
            assert 0 < len(signal.subject) <= LONGEST_SUBJECT
    assert read(group, identifier, log) == first


@given(
    st.text(st.characters(exclude_characters=">", exclude_categories=["Cs"]), min_size=1),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=40),
)
def test_the_gateways_name_is_what_the_text_says(name, address):
    """Whatever it is called."""
    log = f"GW <{name}>/{address} switched to [inactive] due to x\n"
    signals = read("drouting", "us;events", log)
    if "\n" not in address:
        subject = cut_name(name.strip(), LONGEST_SUBJECT) or None
        assert signals == [Signal("gateway_inactive", Meaning.DOWN, subject)]
