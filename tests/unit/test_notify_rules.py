"""The built-in rules: which alert a key makes, how severe, and after how long."""

from __future__ import annotations

import pytest

from sr_exporter.model import Key
from sr_exporter.notify import rules
from sr_exporter.notify.rules import Rule

DEFAULT = Rule(severity="warning", for_seconds=0.0, silent=False)
AT_ONCE_CRITICAL = Rule(severity="critical")
REGISTRANT = Rule(for_seconds=30.0)
CAPABILITY = Rule(for_seconds=600.0)
SILENT = Rule(silent=True)

TABLE = [
    (Key("sip-1", "drouting", "us"), DEFAULT),
    (Key("push", "alarms", "main"), DEFAULT),
    (Key("sip-1", "core", "main"), AT_ONCE_CRITICAL),
    (Key("sip-1", "CORE", "Main"), AT_ONCE_CRITICAL),
    (Key("sip-1", "core", "other"), AT_ONCE_CRITICAL),
    (Key("sip-1", "score", "main"), DEFAULT),
    (Key("sip-1", "core2", "main"), DEFAULT),
    (Key("sip-1", "uac_registrant", "aor=sip:a@b;contact=sip:c;registrar=sip:d"), REGISTRANT),
    (Key("sip-1", "UAC_Registrant", "x"), REGISTRANT),
    (Key("sip-1", "clusterer", "cap:dispatcher-status-repl"), CAPABILITY),
    (Key("sip-1", "Clusterer", "CAP:x"), CAPABILITY),
    (Key("sip-1", "clusterer", "node_states"), DEFAULT),
    (Key("sip-1", "clusterer", "xcap:x"), DEFAULT),
    (Key("sip-1", "other", "cap:x"), DEFAULT),
    (Key("sr_exporter", "source", "sip-1"), SILENT),
    (Key("sr_exporter", "notifier", "oncall"), SILENT),
    (Key("sr_exporter", "store", "main"), DEFAULT),
    (Key("sr_exporter", "core", "main"), AT_ONCE_CRITICAL),
    (Key("sip-1", "source", "sip-1"), DEFAULT),
    (Key("sip-1", "notifier", "main"), DEFAULT),
    (Key("SR_EXPORTER", "source", "main"), DEFAULT),
    (Key("sip-1", "g[r]oup*", "?"), DEFAULT),
]


@pytest.mark.parametrize(("key", "rule"), TABLE, ids=lambda value: str(value)[:50])
def test_built_in_rules(key, rule):
    """Each key has the first rule that fits it, whatever the case of group and identifier."""
    assert rules.for_key(key, early=False) == rule


@pytest.mark.parametrize(("key", "rule"), TABLE, ids=lambda value: str(value)[:50])
def test_a_starting_source_is_given_two_minutes(key, rule):
    """An early "not ready" waits 2 minutes at least; nothing else of its rule changes."""
    early = rules.for_key(key, early=True)
    assert early.for_seconds == max(rule.for_seconds, 120.0)
    assert (early.severity, early.silent) == (rule.severity, rule.silent)


def test_a_source_that_is_down_is_critical_after_half_a_minute():
    """A restart of OpenSIPS takes less."""
    assert rules.for_source() == Rule(severity="critical", for_seconds=30.0)
