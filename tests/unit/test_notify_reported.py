"""Alerts on whom report texts call not ready: levels, and what webhooks are owed."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

import pytest

from sr_exporter.config.values import AlertRule, Send
from sr_exporter.model import Configured, Forget, PollFailed, PollFailure, Statement, Tick
from sr_exporter.notify.alerts import REPORTED, fingerprint
from sr_exporter.notify.book import AlertBook
from sr_exporter.notify.edges import EdgeNotifier
from sr_exporter.notify.outbox import Outbox
from sr_exporter.notify.rules import Rules
from sr_exporter.notify.wording import ENDED, LONGEST_TOLD
from sr_exporter.report_rules import ReportRule, ReportRules
from sr_exporter.signals import Meaning
from sr_exporter.state import State
from tests.unit.test_notify_outbox import LINKS, RUN, Bench
from tests.unit.test_subjects import EVENTS, LOADED, TABLE, gateway
from tests.unit.test_subjects import Bench as Polled

if TYPE_CHECKING:
    from sr_exporter.model import Observation
    from sr_exporter.outcome import Outcome

READ = Configured((), reader=ReportRules())


class Told(Bench):
    """A bench whose pushed texts are read."""

    def __init__(self) -> None:
        super().__init__()
        self.see(READ)

    def report(self, *texts: str, source: str = "sbc") -> None:
        self.now += 1
        self.see(Statement(source, *EVENTS, reports=texts, at=self.now))

    def configure(self, *rules: AlertRule, refresh: bool = True) -> None:
        """As the notifiers do, with the subjects there are."""
        if refresh:
            self.book.refresh(self.now)
            self.rules = Rules(rules)
        unwell = [*self.state.not_ready, *self.state.reported()]
        writes = self.outbox.configure(self.notifiers(), self.rules, unwell, self.now)
        self.book.change_rules(self.rules)
        self.book.refresh(self.now)
        self._write(writes, kept=True)

    def firing(self) -> dict[str, dict[str, str]]:
        found = list(self.book.firing())
        return {one.labels.get("subject", ""): one.labels for one in found}

    def owed(self) -> list[tuple[str, str]]:
        """Give the subject and the status of what is owed, in order."""
        rows = sorted(self.rows.values(), key=lambda row: row.seq)
        bodies = [json.loads(row.body) for row in rows]
        return [(body["commonLabels"].get("subject", ""), body["status"]) for body in bodies]


def test_a_gateway_that_is_reported_dead_alerts_by_its_name_until_it_is_back():
    """At both kinds of notifiers; its identity holds nothing that changes."""
    told = Told()
    told.report(gateway("gw0"), gateway("gw1"))
    assert set(told.firing()) == {"gw0", "gw1"}
    assert told.firing()["gw0"] == {
        "alertname": "OpenSIPSReportedNotReady",
        "source": "sbc",
        "group": "drouting",
        "identifier": "us;events",
        "severity": "warning",
        "subject": "gw0",
    }
    told.report(gateway("gw0").replace("probing", "other"))
    told.report(gateway("gw0", "active"))
    assert set(told.firing()) == {"gw1"}
    assert told.owed() == [("gw0", "firing"), ("gw1", "firing"), ("gw0", "resolved")]
    first, _, last = (json.loads(row.body) for row in told.rows.values())
    assert first["alerts"][0]["fingerprint"] == last["alerts"][0]["fingerprint"]
    assert first["alerts"][0]["fingerprint"] == fingerprint(first["commonLabels"])
    assert first["alerts"][0]["startsAt"] == last["alerts"][0]["startsAt"]
    assert first["groupLabels"]["subject"] == "gw0"
    description = first["commonAnnotations"]["description"]
    assert description.startswith(
        f'Since 1970-01-01 00:16:41 UTC: a report says: "{gateway("gw0")}"'
    )
    assert first["commonAnnotations"]["reports"] == gateway("gw0")
    assert first["commonAnnotations"]["runbook_url"].endswith("#opensipsreportednotready")


def test_a_newer_text_is_told_to_who_takes_levels_and_is_no_news_to_others():
    told = Told()
    told.report(gateway("gw0"))
    told.report(gateway("gw0").replace("negative probing reply", "MI command"))
    (record,) = told.book.firing()
    assert "MI command" in record.annotations["description"]
    assert told.owed() == [("gw0", "firing")]


def test_to_forget_the_key_resolves():
    """And so does what is not named for long."""
    told = Told()
    told.report(gateway("gw0"))
    told.see(Forget("sbc"))
    told.report(gateway("gw1"), source="sbc-2")
    told.now += 86_400
    told.see(Tick())
    assert told.firing() == {}
    assert told.owed() == [
        *[("gw0", "firing"), ("gw0", "resolved")],
        *[("gw1", "firing"), ("gw1", "resolved")],
    ]


def test_the_rules_of_its_key_decide():
    """Severity, labels, `for`, silence and `keep_firing_for`."""
    told = Told()
    told.configure(AlertRule(group="drouting", severity="critical", labels=(("team", "a"),)))
    told.report(gateway("gw0"))
    assert (told.firing()["gw0"]["severity"], told.firing()["gw0"]["team"]) == ("critical", "a")
    told.configure(AlertRule(group="drouting", silence=True))
    assert told.firing() == {}
    assert told.owed() == [("gw0", "firing"), ("gw0", "resolved")]
    told.report(gateway("gw1"))
    assert len(told.rows) == 2
    told.configure()
    assert set(told.firing()) == {"gw0", "gw1"}
    assert sorted(told.owed()[2:]) == [("gw0", "firing"), ("gw1", "firing")]


def test_what_is_back_within_its_for_is_never_told():
    told = Told()
    told.configure(AlertRule(group="drouting", for_seconds=60.0))
    told.report(gateway("gw0"))
    told.report(gateway("gw0", "active"))
    assert (told.firing(), told.owed()) == ({}, [])


def test_an_alert_goes_on_for_as_long_as_its_rule_says():
    """`keep_firing_for`: back within it, nothing is told at all."""
    told = Told()
    told.configure(AlertRule(group="drouting", keep_firing_seconds=60.0))
    told.report(gateway("gw0"))
    told.report(gateway("gw0", "active"))
    assert set(told.firing()) == {"gw0"}
    told.report(gateway("gw0"))
    told.report(gateway("gw0", "active"))
    told.now += 59
    told.book.refresh(told.now)
    assert set(told.firing()) == {"gw0"}
    told.now += 2
    told.book.refresh(told.now)
    assert (told.firing(), told.owed()) == ({}, [("gw0", "firing"), ("gw0", "resolved")])


def test_a_rule_that_is_switched_off_resolves_its_alerts():
    told = Told()
    told.report(gateway("gw0"))
    told.see(Configured((), reader=ReportRules(switched_off=["gateway_inactive"])))
    assert told.firing() == {}
    assert told.owed() == [("gw0", "firing"), ("gw0", "resolved")]


def test_an_alert_outlives_our_restart_and_ends_after_it():
    """With the same identity and beginning; what ended meanwhile is resolved."""
    told = Told()
    told.report(gateway("gw0"))
    (before,) = told.book.firing()
    kept = [entry.record() for one in told.state.sources.values() for entry in one.entries()]
    sources = [one.record() for one in told.state.sources.values()]
    for records, left in ((kept, {"gw0"}), ([], set())):
        told.state = State(last_seq=told.state.last_seq)
        told.state.restore(sources, records, told.now)
        told.begin([], [before])
        told.see(READ)
        assert set(told.firing()) == left
        (level,) = told.book.levels()
        assert (level.record.labels, level.record.starts_at) == (before.labels, before.starts_at)


def test_a_lost_source_does_not_end_it_and_it_says_so():
    """Nothing tells that the gateway is well."""
    polled = Polled()
    book = AlertBook(polled.state, LINKS)
    outbox = Outbox(book, LINKS, RUN)
    outbox.restore([], [EdgeNotifier("n", "changes")], Rules())
    polled.log(EVENTS, gateway("gw0"))
    polled.poll()
    book.change_rules(Rules())
    book.refresh(polled.now)
    book.observe(
        polled.see(PollFailed("sip-1", polled.now, PollFailure.CONNECT, "refused")), polled.now
    )
    polled.now += 120
    book.observe(polled.see(Tick()), polled.now)
    book.refresh(polled.now)
    record = next(one for one in book.firing() if one.labels["alertname"] == REPORTED)
    assert "does not answer now (refused)" in record.annotations["description"]


class Watched:
    """A polled source with a dead gateway, and what its notifiers are told."""

    def __init__(self) -> None:
        self.polled = Polled()
        self.book = AlertBook(self.polled.state, LINKS)
        self.book.change_rules(Rules())
        self.outbox = Outbox(self.book, LINKS, RUN)
        self.outbox.restore([], [EdgeNotifier("n", Send.CHANGES)], Rules())
        self.bodies: list[bytes] = []
        apply = self.polled.state.apply

        def applied(observation: Observation, now: float) -> Outcome:
            outcome = apply(observation, now)
            self.bodies += [row.whole for row in self.outbox.plan(outcome, now).values() if row]
            self.book.observe(outcome, now)
            self.book.refresh(now)
            return outcome

        self.polled.state.apply = applied  # type: ignore[method-assign]
        self.polled.log(EVENTS, gateway("gw0"))
        self.polled.poll()
        self.polled.now += 60

    def last(self) -> dict[str, Any]:
        (alert,) = json.loads(self.bodies[-1])["alerts"]
        return alert


ENDS = {
    f'A report says: "{gateway("gw0", "active")}".': (
        lambda polled: (polled.log(EVENTS, gateway("gw0", "active")), polled.poll())
    ),
    "sip-1 restarted; whether gw0 is ready is not known.": (
        lambda polled: (polled.restart(), polled.poll())
    ),
    "The table was loaded anew and nothing names gw0 since.": (
        lambda polled: (polled.log(TABLE, LOADED), polled.poll())
    ),
    "Nothing has named gw0 since 1970-01-12 13:46:40 UTC: not known to be repaired.": (
        lambda polled: (setattr(polled, "now", polled.now + 86_400), polled.see(Tick()))
    ),
    "drouting/us;events on sip-1 is gone; whether gw0 is ready is not known.": (
        lambda polled: (polled.rings.pop(EVENTS), polled.poll())
    ),
    f"The report rule gateway_inactive is no longer used for it. {ENDED}": (
        lambda polled: polled.configure(ReportRules(switched_off=["gateway_inactive"]))
    ),
}


@pytest.mark.parametrize("why", ENDS)
def test_an_end_says_why_and_claims_no_recovery_that_nobody_saw(why):
    """One of six is that it is ready; the level of one says that it is no recovery, too."""
    watched = Watched()
    ENDS[why](watched.polled)
    told = watched.last()
    assert told["status"] == "resolved"
    assert told["annotations"] == {
        "summary": "Gateway gw0 is no longer reported not ready by drouting/us;events on sip-1",
        "description": why,
        "rule": "gateway_inactive",
        "runbook_url": "http://sr/runbooks#opensipsreportednotready",
    }
    (level,) = watched.book.levels()
    assert level.record.resolved_at is not None
    assert (ENDED in level.record.annotations["description"]) == (ENDED in why)


def test_a_rule_that_reads_it_again_may_end_in_a_recovery():
    """What was said of its first end is not said of its second."""
    watched = Watched()
    watched.polled.configure(ReportRules(switched_off=["gateway_inactive"]))
    watched.polled.configure(ReportRules())
    for state in ("inactive", "active"):
        watched.polled.now += 1
        watched.polled.log(EVENTS, gateway("gw0", state))
        watched.polled.poll()
    (level,) = watched.book.levels()
    assert level.record.resolved_at == watched.polled.now
    assert ENDED not in level.record.annotations["description"]


NODE = "Node [2], cluster [1] is DOWN"
DESTINATION = "DESTINATION <sip:a>, set 2 switched to [inactive] due to x"


@pytest.mark.parametrize(
    ("place", "text", "summary", "rule", "check"),
    [
        (EVENTS, gateway("gw0"), "Gateway gw0", "gateway_inactive", "dr_gw_status"),
        (
            ("dispatcher", "main;events"),
            DESTINATION,
            "Destination sip:a, set 2",
            "destination_inactive",
            "ds_list",
        ),
        (
            ("clusterer", "node_states"),
            NODE,
            "node 2, cluster 1",
            "cluster_node_down",
            "clusterer_list",
        ),
        (("mine", "main"), "x is dead", "x", "own", None),
    ],
)
def test_it_says_who_that_is_by_which_rule_and_how_to_see_whether_it_is_so(
    place, text, summary, rule, check
):
    """Of an operator's own rule nobody knows what to ask."""
    told = Told()
    own = ReportRule("own", r"^(?P<subject>\w+) is dead", Meaning.DOWN, group="mine")
    told.see(Configured((), reader=ReportRules([own])))
    told.see(Statement("sbc", *place, reports=(text,), at=told.now))
    (record,) = told.book.firing()
    said = record.annotations
    assert said["summary"] == f"{summary} is reported not ready by {place[0]}/{place[1]} on sbc"
    assert said["rule"] == rule
    assert ("opensips-cli" in said["description"]) == (check is not None)
    if check:
        assert f"check with `opensips-cli -x mi {check}`." in said["description"]


HOSTILE = {
    "a subject and no end": gateway("gw0").strip() + "a" * 1_000_000,
    "many subjects": gateway("gw0").strip() * 13_000,
    "what JSON escapes": gateway("gw0") + "\n" * 1_000_000,
    "what no rule reads": "GW <" * 250_000,
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_megabyte_in_a_line_is_done_with_in_50_ms_and_costs_no_page(name):
    """From being heard to what notifiers are owed; so big a body would be refused for good."""
    took = []
    for _ in range(3):
        told = Told()
        begun = time.perf_counter()
        told.report(HOSTILE[name])
        told.see(Statement("sbc", *EVENTS, status=-1, details=HOSTILE[name]))
        took.append(time.perf_counter() - begun)
        assert set(told.firing()) == ({"", "gw0"} if "no rule" not in name else {""})
        for row in told.rows.values():
            assert len(row.body) < 50_000
        for record in told.book.firing():
            assert all(len(text) < 3 * LONGEST_TOLD for text in record.annotations.values())
    assert min(took) < 0.05
