"""A reload changes what a firing alert says at a real Alertmanager, and nothing else of it."""

from __future__ import annotations

import json

import pytest

from tests.harness import RunningApp, eventually
from tests.integration.test_alerting import alertmanager


@pytest.mark.real
def test_a_reload_changes_annotations_and_resolves_nothing(tmp_path):
    """The same alert, since the same moment, in other words; a faulty template changes nothing."""
    file = tmp_path / "sr.yml"

    def configure(summary: str) -> None:
        said = {
            "alerts": {"rules": [{"annotations": {"summary": summary}}]},
            "notifiers": [{"name": "am", "alertmanager": {"urls": [running.url]}}],
        }
        file.write_text(json.dumps(said))

    with alertmanager(tmp_path) as running:
        configure("{{ group }} one")
        with RunningApp(tmp_path / "data", config_file=file) as app:
            app.client.push({"group": "sbc", "status": -1})
            (before,) = eventually(running.alerts)
            assert before["annotations"]["summary"] == "sbc one"
            configure("{{ nobody }}")
            refused = app.client.reload()
            assert refused.status_code == 400
            (fault,) = refused.json()["faults"]
            assert fault.startswith("alerts.rules[0].annotations.summary: line 1: nobody")
            configure("{{ group }} two")
            assert app.client.reload().ok
            (after,) = eventually(
                lambda: [
                    alert
                    for alert in running.alerts()
                    if alert["annotations"]["summary"] == "sbc two"
                ]
            )
            for name in ("fingerprint", "startsAt", "labels"):
                assert after[name] == before[name]
            assert len(running.alerts()) == 1
