"""What an alert says, and by what it is known."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sr_exporter.model import (
    Change,
    ChangeKind,
    Configured,
    Key,
    ListedReports,
    ListedStatus,
    Origin,
    PolledSource,
    PollFailed,
    PollFailure,
    Report,
    Snapshot,
    Statement,
    Way,
)
from sr_exporter.notify import alerts
from sr_exporter.notify.alerts import Alert, Links
from sr_exporter.notify.rules import Rule, Rules
from sr_exporter.state import State

LINKS = Links("http://sr.example:9797")
NOW = 1795377166.0
SINCE = "Since 2026-11-22 19:52:46 UTC: "


def alert_of(state: State, key: Key) -> Alert:
    entry = state.entry(key)
    assert entry is not None
    return alerts.of_key(entry, Rules().for_key(key, early=entry.early), LINKS)


def pushed(**fields: object) -> Alert:
    state = State()
    state.apply(Statement("push", **{"group": "g", "status": -1, **fields}), NOW)  # type: ignore[arg-type]
    key = Key("push", str(fields.get("group", "g")), str(fields.get("identifier", "main")))
    return alert_of(state, key)


def polled(status: ListedStatus, *reports: Report) -> State:
    state = State()
    state.apply(Configured((PolledSource("sip-1", 60.0),)), NOW)
    rings = (ListedReports(status.group, status.identifier, tuple(reports)),)
    state.apply(Snapshot("sip-1", state.revision, NOW, (status,), reports=rings), NOW)
    return state


def restarted(old: State) -> State:
    """Give what a process that starts a while later makes of what was kept."""
    state = State()
    state.restore(
        [source.record() for source in old.sources.values()],
        [entry.record() for source in old.sources.values() for entry in source.entries()],
        NOW + 100,
    )
    return state


def test_the_whole_of_an_alert():
    """Labels say who, annotations what, the start when, and the link where to look."""
    status = ListedStatus("drouting", "us;east", -2, False, "no data loaded")
    lines = [Report(NOW + n, f"line {n}") for n in range(5)]
    assert alert_of(polled(status, *lines), Key("sip-1", "drouting", "us;east")) == Alert(
        labels={
            "alertname": "OpenSIPSNotReady",
            "source": "sip-1",
            "group": "drouting",
            "identifier": "us;east",
            "severity": "warning",
        },
        annotations={
            "summary": "drouting/us;east on sip-1 is not ready",
            "description": f"{SINCE}Status -2: no data loaded",
            "details": "no data loaded",
            "status": "-2",
            "reports": "line 2\nline 3\nline 4",
            "runbook_url": "http://sr.example:9797/runbooks#opensipsnotready",
        },
        starts_at=NOW,
        generator_url="http://sr.example:9797/sources/sip-1?group=drouting&identifier=us%3Beast",
    )


@pytest.mark.parametrize(
    ("fields", "description"),
    [
        ({}, "Status -1"),
        ({"details": "trunk down"}, "Status -1: trunk down"),
        ({"details": ""}, "Status -1"),
        ({"status": -7, "details": "x"}, "Status -7: x"),
        ({"group": "core", "status": -1}, "Status -1 (initializing)"),
        ({"group": "Core", "status": -2}, "Status -2 (terminating)"),
        ({"group": "core", "status": -1, "details": "Initializing"}, "Status -1: Initializing"),
        ({"group": "uac_registrant"}, "Status -1 (not registered)"),
    ],
)
def test_descriptions(fields, description):
    """Since when, the number, its meaning unless the details say it, and the details."""
    assert pushed(**fields).annotations["description"] == SINCE + description


@pytest.mark.parametrize(
    ("fields", "summary"),
    [
        ({"group": "core", "status": -1}, "OpenSIPS push is not ready: core is initializing"),
        ({"group": "Core", "status": -7}, "OpenSIPS push is not ready"),
        ({"group": "core", "identifier": "x"}, "core/x on push is not ready"),
        ({"group": "g"}, "g/main on push is not ready"),
    ],
)
def test_summaries(fields, summary):
    """A core that is not ready is the server."""
    assert pushed(**fields).annotations["summary"] == summary


@pytest.mark.parametrize(("details", "shown"), [(None, None), ("", ""), ("x", "x")])
def test_details_absent_and_empty_are_different(details, shown):
    """Details never said are no annotation."""
    assert pushed(details=details).annotations.get("details") == shown


def test_without_reports_there_is_no_such_annotation():
    """An empty annotation would say that nothing was reported."""
    assert "reports" not in pushed().annotations


def test_what_changes_is_never_a_label():
    """Other status, details and reports: the same alert."""
    first = pushed(status=-1)
    second = pushed(status=-2, details="d", reports=("a",))
    assert first.labels == second.labels
    assert first.fingerprint == second.fingerprint
    assert first.annotations != second.annotations


def test_the_alert_of_a_lost_source_says_so():
    """What is shown of a source that does not answer is what it last said."""
    state = polled(ListedStatus("drouting", "us", -1, False, None))
    key = Key("sip-1", "drouting", "us")
    before = alert_of(state, key)
    state.apply(PollFailed("sip-1", NOW + 10, PollFailure.CONNECT, "connection refused"), NOW + 10)
    after = alert_of(state, key)
    assert after.annotations["description"] == (
        before.annotations["description"] + ". This is what sip-1 last said:"
        " it does not answer now (connection refused)."
    )
    assert after.fingerprint == before.fingerprint
    assert after.starts_at == before.starts_at


def test_after_our_own_restart_the_alert_says_that_nothing_was_heard():
    """A kept "not ready" of a polled source is told as what it is."""
    state = restarted(polled(ListedStatus("drouting", "us", -1, False, None)))
    said = alert_of(state, Key("sip-1", "drouting", "us")).annotations["description"]
    assert said.endswith("it does not answer now (not heard since the exporter started).")


def test_after_our_restart_the_alert_of_one_that_only_sends_says_so():
    """It may have sent that all is well, to nobody."""
    configured = Configured((), event_sources=("sip-2",))
    old = State()
    old.apply(configured, NOW)
    event = Statement("sip-2", "core", "main", -1, old_status=1, origin=Origin.EVENT, way=Way.UDP)
    old.apply(event, NOW)
    again = restarted(old)
    again.apply(configured, NOW + 100)
    description = alert_of(again, Key("sip-2", "core", "main")).annotations["description"]
    assert description.endswith("it has not been heard since the exporter started.")


def test_the_alert_of_a_removed_key_is_the_one_it_had():
    """A removal resolves: labels and start are those it fired with."""
    state = State()
    state.apply(Statement("push", "core", status=-1), NOW)
    fired = alert_of(state, Key("push", "core", "main"))
    change = Change(
        7, NOW + 60, ChangeKind.REMOVED, "push", "core", "main", was_ready=False,
        not_ready_since=NOW,
    )  # fmt: skip
    gone = alerts.of_removed_key(change, Rule(severity="critical"), LINKS)
    assert (gone.labels, gone.starts_at) == (fired.labels, fired.starts_at)
    assert gone.generator_url == fired.generator_url
    assert gone.annotations == {
        "summary": "core/main on push is gone",
        "description": "The identifier is no longer listed, or was deleted.",
        "runbook_url": "http://sr.example:9797/runbooks#opensipsnotready",
    }


@pytest.mark.parametrize(
    ("error", "said"), [("connection refused", " Last error: connection refused."), (None, "")]
)
def test_the_alert_of_a_source(error, said):
    """A lost source has an alert of its own, known by its name alone."""
    assert alerts.of_source(
        "sip 1/ü",
        Rules().for_source("sip 1/ü"),
        LINKS,
        since=NOW,
        error=error,
        address="http://h:8888/mi",
    ) == Alert(
        labels={"alertname": "OpenSIPSSourceDown", "source": "sip 1/ü", "severity": "critical"},
        annotations={
            "summary": "OpenSIPS sip 1/ü does not answer its Management Interface",
            "description": f"{SINCE}sip 1/ü cannot be polled at http://h:8888/mi;"
            " whether its parts are ready is not known." + said,
            "runbook_url": "http://sr.example:9797/runbooks#opensipssourcedown",
        },
        starts_at=NOW,
        generator_url="http://sr.example:9797/sources/sip%201%2F%C3%BC",
    )


def test_labels_of_a_rule_are_added_and_take_no_other_ones_place():
    """What tells alerts apart stays what it is, whatever an operator writes."""
    state = State()
    state.apply(Statement("push", "g", status=-1), NOW)
    entry = state.entry(Key("push", "g", "main"))
    assert entry is not None
    rule = Rule(labels={"team": "voip", "source": "forged", "severity": "forged"})
    labels = alerts.of_key(entry, rule, LINKS).labels
    assert labels == {
        "alertname": "OpenSIPSNotReady",
        "source": "push",
        "group": "g",
        "identifier": "main",
        "severity": "warning",
        "team": "voip",
    }
    down = alerts.of_source("sip-1", rule, LINKS, since=NOW, error=None)
    assert (down.labels["team"], down.labels["source"]) == ("voip", "sip-1")


def test_links_survive_any_name():
    """Names are quoted so that the page finds them again."""
    link = LINKS.key(Key("a b", "x&y=z", "ü;#?"))
    assert link == "http://sr.example:9797/sources/a%20b?group=x%26y%3Dz&identifier=%C3%BC%3B%23%3F"


@pytest.mark.parametrize(
    ("labels", "mark"),
    [
        ({}, "cbf29ce484222325"),
        ({"name": "garland, briggs", "fear": "love is not enough"}, "507a62d79ee76c9a"),
        ({"fear": "love is not enough", "name": "garland, briggs"}, "507a62d79ee76c9a"),
    ],
)
def test_fingerprints_are_those_of_alertmanager(labels, mark):
    """The vectors of Prometheus' own model."""
    assert alerts.fingerprint(labels) == mark


def fnv(data: bytes) -> int:
    found = 0xCBF29CE484222325
    for byte in data:
        found = (found ^ byte) * 0x100000001B3 % 2**64
    return found


@given(st.dictionaries(st.text(max_size=5), st.text(max_size=5), max_size=4))
def test_fingerprints_are_over_sorted_names_and_values(labels):
    """Each name and each value is followed by a byte that no UTF-8 holds."""
    data = b"".join(
        part.encode() + b"\xff" for name in sorted(labels) for part in (name, labels[name])
    )
    assert alerts.fingerprint(labels) == format(fnv(data), "016x")


@pytest.mark.parametrize(
    ("seconds", "written"),
    [
        (0.0, "1970-01-01T00:00:00.000000Z"),
        (1795377166.0, "2026-11-22T19:52:46.000000Z"),
        (1795377166.5, "2026-11-22T19:52:46.500000Z"),
        (1795377166.123456, "2026-11-22T19:52:46.123456Z"),
    ],
)
def test_times_are_written_as_rfc_3339(seconds, written):
    """UTC, to the microsecond, with a Z."""
    assert alerts.rfc3339(seconds) == written


def test_an_alert_names_its_key():
    """What an alert is about is found in its labels again."""
    alert = pushed(group="G")
    assert alerts.key_of(alert.labels) == Key("push", "G", "main")
