"""`sr-exporter rules test`: which rule decides, why, and what alert it makes."""

from __future__ import annotations

import json
import re

import pytest

from sr_exporter import rules_command

CONFIG = """\
sources: [{name: sip-1, mi: 'http://192.0.2.1/mi'}]
alerts:
  rules:
    - {source: lab-*, silence: true}
    - group: uac_registrant
      identifier: '*vip*'
      severity: critical
      labels: {team: trunks}
      annotations: {summary: 'Trunk {{ identifier }}: {{ details }}'}
    - {group: drouting, for: 5s}
    - {source: 'sip-*', keep_firing_for: 1m}
"""


@pytest.fixture
def ask(tmp_path, capsys):
    """Ask about this, by that configuration; give what is said, line by line, and the alert."""
    file = tmp_path / "sr-exporter.yml"
    file.write_text(CONFIG, encoding="utf-8")

    def asked(**options):
        given = [f"--{name}={value}" for name, value in options.items()]
        assert rules_command.run(["test", f"--config.file={file}", *given]) == 0
        text, _, alert = capsys.readouterr().out.partition("alert:\n")
        return text.splitlines(), json.loads(alert) if alert else None

    return asked


def test_the_first_rule_that_fits_decides(ask):
    """With what passed before it, what it says, and what is as built in; case does not count."""
    said, alert = ask(
        source="sip-1", group="UAC_Registrant", identifier="a-VIP", status=-7, details="401"
    )
    assert said == [
        "key: UAC_Registrant/a-VIP on sip-1",
        "status: -7 (not ready), not ready",
        "skipped: alerts.rules[0], its source does not fit",
        "decides: alerts.rules[1], by source *, group uac_registrant, identifier *vip*",
        "  severity: critical",
        "  for: 30s (built in for group uac_registrant)",
        "  keep_firing_for: 0s",
        '  labels: {"team": "trunks"}',
        "  annotations: summary",
        "  silence: false",
        "  for: 2m where it appears not ready, or turns so within 2m of a restart of its source",
    ]
    assert alert["labels"] == {
        "alertname": "OpenSIPSNotReady",
        "source": "sip-1",
        "group": "UAC_Registrant",
        "identifier": "a-VIP",
        "severity": "critical",
        "team": "trunks",
    }
    assert alert["annotations"]["summary"] == "Trunk a-VIP: 401"
    assert alert["annotations"]["status"] == "-7"


@pytest.mark.parametrize(
    ("key", "line"),
    [
        (("sip-1", "uac_registrant", "b"), "decides: alerts.rules[3], by source sip-*"),
        (("x", "drouting", "main"), "decides: alerts.rules[2], by source *, group drouting"),
        (("x", "core", "main"), "decides: built in for group core"),
        (("x", "clusterer", "cap:a"), "decides: built in for group clusterer, identifier cap:*"),
        (("x", "clusterer", "node"), "decides: built in for the rest"),
        (("lab-1", "core", "main"), "decides: alerts.rules[0], by source lab-*"),
        (
            ("sr_exporter", "source", "n"),
            "decides: built in for the exporter's own sources, whatever is configured: no alert",
        ),
        (("sr_exporter", "notifier", "n"), "decides: built in for the exporter's own notifiers"),
    ],
)
def test_each_key_has_its_rule(ask, key, line):
    """Of the file, or built in; the identifier is `main` unless it is said."""
    source, group, identifier = key
    said, _ = ask(source=source, group=group, identifier=identifier)
    assert line in said


def test_a_notifier_in_trouble_is_explained_as_any_key(ask):
    """By the name it alerts under, with what is built in."""
    said, alert = ask(source="sr_exporter", group="notifier", identifier="oncall", details="why")
    assert "  severity: critical" in said
    assert "  for: 1m" in said
    assert alert["labels"]["alertname"] == "SRExporterNotifierFailing"
    assert alert["labels"]["identifier"] == "oncall"
    assert "why" in alert["annotations"]["description"]
    assert not [line for line in said if "restart" in line]


def test_what_is_not_known_is_an_example_and_says_so(ask, monkeypatch):
    """It begins now, and its error is none that anybody saw."""
    monkeypatch.setattr("time.time", lambda: 1795377166.0)
    since = "Since 2026-11-22 19:52:46 UTC: "
    _, notifier = ask(source="sr_exporter", group="notifier", identifier="oncall")
    assert notifier["annotations"]["description"].startswith(f"{since}(last error).")
    _, key = ask(source="x", group="g")
    assert key["annotations"]["description"] == f"{since}Status -1"
    _, source = ask(source="sip-1")
    description = source["annotations"]["description"]
    assert description.startswith(since)
    assert description.endswith("Last error: connection refused (an example).")


def test_its_help_has_every_option_in_the_usage(capsys):
    """What is required is told apart; that the word `test` is needed is seen there."""
    with pytest.raises(SystemExit):
        rules_command.run(["--help"])
    usage, _, required, options = capsys.readouterr().out.split("\n\n")[:4]
    assert required.splitlines()[0] == "required:"
    assert "--source" in required
    for option in re.findall(r"(?m)^ +(--[a-z.-]+)", required + options):
        assert f"{option} " in usage


def test_what_a_rule_says_of_for_holds_at_a_start_too(ask):
    """No line of the two minutes then."""
    said, _ = ask(source="x", group="drouting")
    assert "  for: 5s" in said
    assert not [line for line in said if "restart" in line]


def test_silence_and_readiness_make_no_alert(ask):
    """Why there is none is said."""
    assert ask(source="lab-1", group="core")[0][-2:] == ["  silence: true", "alert: none"]
    assert ask(source="x", group="core", status=1)[0][-1] == "alert: none, since it is ready"
    assert ask(source="sr_exporter", group="source")[0][-1] == "alert: none"


def test_a_lost_source_has_a_rule_too(ask):
    """Rules for keys do not fit it."""
    said, alert = ask(source="sip-1")
    assert said == [
        "source: sip-1, down",
        "skipped: alerts.rules[0], its source does not fit",
        "skipped: alerts.rules[1], is for keys",
        "skipped: alerts.rules[2], is for keys",
        "decides: alerts.rules[3], by source sip-*",
        "  severity: critical (built in for a polled source that is down)",
        "  for: 30s (built in for a polled source that is down)",
        "  keep_firing_for: 1m",
        "  labels: {}",
        "  annotations: as built in",
        "  silence: false",
    ]
    assert alert["labels"]["alertname"] == "OpenSIPSSourceDown"
    assert "http://192.0.2.1/mi" in alert["annotations"]["description"]
    unknown, _ = ask(source="nobody")
    assert unknown[1].startswith("note: the configuration has no such source")
    assert unknown[-6] == "  severity: critical"


def test_without_a_file_all_is_as_built_in(capsys):
    """The file is what a running exporter would be given: none, then."""
    assert rules_command.run(["test", "--source=x", "--group=g"]) == 0
    assert "decides: built in for the rest\n" in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments",
    [
        ["test"],
        ["--source=x"],
        ["show", "--source=x"],
        ["test", "--source=x", "--identifier=y"],
        ["test", "--source="],
        ["test", "--source=x", "--group=g", "--status=0"],
        ["test", "--source=x", "--group=g", "--status=2147483648"],
    ],
)
def test_a_wrong_command_line_is_told(arguments, capsys):
    """By argparse, with exit status 2."""
    with pytest.raises(SystemExit) as ended:
        rules_command.run(arguments)
    assert ended.value.code == 2
    assert "error: " in capsys.readouterr().err


def test_a_faulty_file_is_told(tmp_path, capsys):
    """Every fault, and exit status 2."""
    file = tmp_path / "f.yml"
    file.write_text("alerts: {rules: [{annotations: {a: '{{'}}, {}]}", encoding="utf-8")
    assert rules_command.run(["test", f"--config.file={file}", "--source=x"]) == 2
    said = capsys.readouterr().err.splitlines()
    assert [line.partition(": ")[2].partition(":")[0] for line in said] == [
        "alerts.rules[0].annotations.a",
        "alerts.rules[1]",
    ]
