"""What silences what: the shipped `inhibit_rules`, as a real Alertmanager reads them."""

from __future__ import annotations

import subprocess

import pytest

from tests.harness import eventually
from tests.integration.test_alerting import alertmanager
from tests.promtool import ALERTS, all_alerts, read
from tests.real_parts import program

FILE = ALERTS / "alertmanager.yml"
NATIVE = {
    "OpenSIPSNotReady",
    "OpenSIPSSourceDown",
    "OpenSIPSReportedNotReady",
    "SRExporterNotifierFailing",
    "SRExporterWatchdog",
}
EXPORTER = {"job": "sr", "instance": "mon-1:9797"}
US = {"group": "drouting", "identifier": "us"}
EU = {"group": "drouting", "identifier": "eu"}
CORE = {"group": "core", "identifier": "main"}
LINE = {"group": "uac_registrant", "identifier": "line"}
ONCALL = {"source": "sr_exporter", "group": "notifier", "identifier": "oncall"}
SITE = {"cluster": "site-b"}
#: Another exporter of the same job, and another job, both with a source of the same name.
BESIDE, ELSEWHERE = EXPORTER | {"instance": "mon-2:9797"}, EXPORTER | {"job": "sr-far"}
CRITICAL, WARNING = {"severity": "critical"}, {"severity": "warning"}


def alert(name: str, *labels: dict[str, str], **more: str) -> dict[str, str]:
    found = {"alertname": name, **more}
    for one in labels:
        found |= one
    return found


def of(source: str, name: str, *labels: dict[str, str], rule: bool = True) -> dict[str, str]:
    """Make an alert about a source; what a rule makes has the exporter's address."""
    return alert(name, *labels, EXPORTER if rule else {}, source=source)


#: What fires together; of it, what is silenced; and what is not. Each by a source of its own.
TOGETHER = {
    "a source that is down": (
        [of("down", "OpenSIPSSRSourceDown", CRITICAL)],
        [
            of("down", "OpenSIPSSRCoreNotReady", CORE, CRITICAL),
            of("down", "OpenSIPSSRIdentifierNotReady", US, WARNING),
            of("down", "OpenSIPSSRSubscriptionLost", WARNING),
            of("down", "OpenSIPSSRReportedNotReady", US, WARNING, {"subject": "gw"}),
            of("down", "OpenSIPSNotReady", EU, WARNING, rule=False),
            of("down", "OpenSIPSReportedNotReady", US, WARNING, {"subject": "other"}, rule=False),
        ],
        [
            of("down-not", "OpenSIPSSRCoreNotReady", CORE, CRITICAL),
            of("down-neither", "OpenSIPSNotReady", EU, WARNING, rule=False),
            # Who still reaches it knows better, and a server elsewhere is another one.
            of("down", "OpenSIPSSRNoData", US, CRITICAL, BESIDE, rule=False),
            of("down", "OpenSIPSSRRestarting", WARNING, ELSEWHERE, rule=False),
        ],
    ),
    "a source that is down, by the exporter's own word": (
        [of("own-down", "OpenSIPSSourceDown", CRITICAL, rule=False)],
        [
            of("own-down", "OpenSIPSNotReady", US, WARNING, rule=False),
            of("own-down", "OpenSIPSSRRestarting", WARNING),
            of("own-down", "OpenSIPSSRSourceDown", CRITICAL),
        ],
        [of("own-down-not", "OpenSIPSSRSourceDown", CRITICAL)],
    ),
    "a core that is not ready": (
        [of("core", "OpenSIPSSRCoreNotReady", CORE, CRITICAL)],
        [
            of("core", "OpenSIPSSRIdentifierNotReady", US, WARNING),
            of("core", "OpenSIPSSRNoData", US, CRITICAL),
            of("core", "OpenSIPSSRStuckLoading", EU, WARNING),
            of("core", "OpenSIPSSRRegistrantsNotRegistered", CRITICAL),
            of("core", "OpenSIPSNotReady", US, WARNING, rule=False),
        ],
        [
            of("core", "OpenSIPSSRRestarting", WARNING),
            of("core", "OpenSIPSNotReady", CORE, WARNING, rule=False),
            of("core-not", "OpenSIPSSRIdentifierNotReady", US, WARNING),
        ],
    ),
    "a core that is not ready, of one of two servers of that name": (
        [of("core-two", "OpenSIPSSRCoreNotReady", CORE, CRITICAL)],
        [of("core-two", "OpenSIPSSRStuckLoading", US, WARNING)],
        [
            of("core-two", "OpenSIPSSRNoData", EU, CRITICAL, BESIDE, rule=False),
            of("core-two", "OpenSIPSSRNoData", EU, CRITICAL, ELSEWHERE, rule=False),
        ],
    ),
    "a core that is not ready, by the exporter's own word": (
        [of("own-core", "OpenSIPSNotReady", CORE, CRITICAL, rule=False)],
        [
            of("own-core", "OpenSIPSNotReady", US, WARNING, rule=False),
            of("own-core", "OpenSIPSSRCapabilityNotSynced", EU, WARNING),
            of("own-core", "OpenSIPSSRCoreNotReady", CORE, CRITICAL),
        ],
        [of("own-core-not", "OpenSIPSNotReady", US, WARNING, rule=False)],
    ),
    "an exporter that is down": (
        [alert("SRExporterDown", WARNING, job="sr", instance="mon-9:9797")],
        [
            alert("OpenSIPSSRSourceDown", CRITICAL, job="sr", instance="mon-9:9797", source="far"),
            alert("OpenSIPSSRNoData", CRITICAL, US, job="sr", instance="mon-9:9797", source="x"),
            alert("SRExporterNotifierStuck", CRITICAL, job="sr", instance="mon-9:9797"),
            alert("SRExporterEventsDropped", WARNING, job="sr", instance="mon-9:9797"),
        ],
        [
            alert("OpenSIPSSourceDown", CRITICAL, source="near"),
            alert("OpenSIPSSRNoData", CRITICAL, EU, job="sr", instance="mon-8:9797", source="x"),
            alert("SRExporterNotifierStuck", CRITICAL, job="other", instance="mon-9:9797"),
        ],
    ),
    "no exporter": (
        [alert("SRExporterAbsent", CRITICAL, SITE)],
        [
            alert("SRExporterDown", WARNING, SITE, job="sr", instance="mon-7:9797"),
            alert("OpenSIPSSRRestarting", WARNING, SITE, EXPORTER, source="site"),
        ],
        [alert("OpenSIPSNotReady", WARNING, SITE, US, source="site")],
    ),
    "ready on no server": (
        [alert("OpenSIPSSRFleetWideNotReady", CRITICAL, job="fleet", group="g", identifier="i")],
        [
            alert("OpenSIPSSRIdentifierNotReady", WARNING, job="fleet", group="g", identifier="i"),
            alert("OpenSIPSSRNoData", CRITICAL, job="fleet", group="g", identifier="i", source="f"),
            alert("OpenSIPSNotReady", WARNING, group="g", identifier="i", source="f"),
        ],
        [
            alert("OpenSIPSSRIdentifierNotReady", WARNING, job="other", group="g", identifier="i"),
            alert("OpenSIPSSRIdentifierNotReady", WARNING, job="fleet", group="g", identifier="j"),
            alert("OpenSIPSSRCoreNotReady", CRITICAL, job="fleet", group="g", identifier="i"),
            alert("OpenSIPSNotReady", CRITICAL, group="g", identifier="i", source="f2"),
        ],
    ),
    "no data": (
        [of("data", "OpenSIPSSRNoData", US, CRITICAL)],
        [
            of("data", "OpenSIPSSRIdentifierNotReady", US, WARNING),
            of("data", "OpenSIPSSRStuckLoading", US, WARNING),
            of("data", "OpenSIPSSRStuckLoading", US, WARNING, BESIDE, rule=False),
            of("data", "OpenSIPSNotReady", US, WARNING, rule=False),
        ],
        [
            of("data", "OpenSIPSSRIdentifierNotReady", EU, WARNING),
            of("data-not", "OpenSIPSSRIdentifierNotReady", US, WARNING),
            of("data", "OpenSIPSSRStuckLoading", US, WARNING, ELSEWHERE, rule=False),
            of("data", "OpenSIPSSRLoadFailed", US, WARNING),
        ],
    ),
    "most registrants, and restarts": (
        [
            of("regs", "OpenSIPSSRRegistrantsNotRegistered", CRITICAL),
            of("regs", "OpenSIPSSRRestarting", WARNING),
        ],
        [
            of("regs", "OpenSIPSNotReady", LINE, WARNING, rule=False),
            of("regs", "OpenSIPSSRStatusFlapping", US, WARNING),
        ],
        [
            of("regs", "OpenSIPSNotReady", US, WARNING, rule=False),
            of("regs-not", "OpenSIPSNotReady", LINE, WARNING, rule=False),
            of("regs-not", "OpenSIPSSRStatusFlapping", US, WARNING),
        ],
    ),
    "what is told twice": (
        [
            of("twice", "OpenSIPSNotReady", US, WARNING, rule=False),
            of("twice", "OpenSIPSReportedNotReady", US, WARNING, {"subject": "gw"}, rule=False),
            alert("SRExporterNotifierStuck", CRITICAL, EXPORTER, ONCALL, notifier="oncall"),
        ],
        [
            of("twice", "OpenSIPSSRIdentifierNotReady", US, WARNING),
            of("twice", "OpenSIPSSRReportedNotReady", US, WARNING, {"subject": "gw"}),
            alert("SRExporterNotifierFailing", WARNING, ONCALL),
        ],
        [
            of("twice", "OpenSIPSSRReportedNotReady", US, WARNING, {"subject": "gw2"}),
            of("twice", "OpenSIPSSRNoData", EU, CRITICAL),
            alert("SRExporterNotifierFailing", WARNING, ONCALL | {"identifier": "hook"}),
            alert("SRExporterWatchdog", severity="none", exporter="http://sr.example"),
        ],
    ),
}


@pytest.mark.real
def test_amtool_accepts_the_example():
    done = subprocess.run(
        [program("amtool"), "check-config", str(FILE)],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(read(FILE)['inhibit_rules'])} inhibit rules" in done.stdout


def test_only_alerts_that_exist_are_named():
    """A misspelt name silences nothing, and nobody notices."""
    named = str(read(FILE)["inhibit_rules"])
    words = {word for word in named.replace("|", " ").replace('"', " ").split() if word.isalnum()}
    for word in words:
        if word.startswith(("OpenSIPS", "SRExporter")):
            assert word in {*all_alerts(), *NATIVE}


@pytest.mark.real
def test_each_rule_silences_what_it_says_and_nothing_else(tmp_path):
    """All of it fires at once; Alertmanager says who is silenced by whom."""
    config = FILE.read_text(encoding="utf-8")
    with alertmanager(tmp_path, config=config) as running:
        fired = [one for parts in TOGETHER.values() for part in parts for one in part]
        answer = running.session.post(
            f"{running.url}/api/v2/alerts", json=[{"labels": one} for one in fired], timeout=5
        )
        answer.raise_for_status()

        def silenced() -> dict[frozenset, list[frozenset]]:
            alerts = running.alerts()
            names = {one["fingerprint"]: frozenset(one["labels"].items()) for one in alerts}
            assert len(names) == len(fired)
            return {
                names[one["fingerprint"]]: [names[by] for by in one["status"]["inhibitedBy"]]
                for one in alerts
                if one["status"]["state"] == "suppressed"
            }

        expected = {frozenset(one.items()) for _, silent, _ in TOGETHER.values() for one in silent}
        eventually(lambda: expected <= silenced().keys())
        found = silenced()
        assert found.keys() == expected
        for name, parts in TOGETHER.items():
            causes = {frozenset(one.items()) for part in parts for one in part}
            for one in parts[1]:
                assert set(found[frozenset(one.items())]) <= causes, name
