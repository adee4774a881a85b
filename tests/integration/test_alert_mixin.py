"""The rules for jsonnet: copies in JSON that say what the YAML says."""

from __future__ import annotations

import json
import subprocess

import pytest

from alerts import generate as copies
from tests.promtool import ALERTS, RULES, all_alerts, read, rules_in
from tests.real_parts import program


@pytest.mark.parametrize("path", RULES, ids=lambda path: path.name)
def test_the_json_is_the_yaml(path):
    """Debian's jsonnet cannot read YAML: the copies are made by `python alerts/generate.py`."""
    assert copies.copy_of(path).read_text(encoding="utf-8") == copies.text(path)


def test_no_json_is_without_its_yaml():
    """Every JSON file in the folder is a copy."""
    assert set(ALERTS.rglob("*.json")) == {copies.copy_of(path) for path in RULES}


def test_the_copies_are_written(tmp_path, monkeypatch):
    """Running the generator writes each copy under its name."""
    monkeypatch.setattr(copies, "COPIES", tmp_path)
    copies.main()
    assert {path.name for path in tmp_path.iterdir()} == {f"{path.stem}.json" for path in RULES}


@pytest.mark.real
def test_the_mixin_has_the_alerts_and_the_records():
    """What jsonnet makes of it is what the files say."""
    done = subprocess.run(
        [
            program("jsonnet"),
            "-e",
            "local m = import 'mixin.libsonnet'; [m.prometheusAlerts, m.prometheusRules]",
        ],
        cwd=ALERTS,
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    alerts, records = json.loads(done.stdout)
    assert [rule["alert"] for rule in rules_in(alerts)] == list(all_alerts())
    assert all("record" in rule for rule in rules_in(records))
    groups = [group for path in RULES for group in read(path)["groups"]]
    assert sorted(group["name"] for group in alerts["groups"] + records["groups"]) == sorted(
        group["name"] for group in groups
    )
