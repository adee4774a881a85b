"""What a real Alertmanager holds when it, or the exporter, is gone in the worst moment."""

from __future__ import annotations

import os
import signal

import pytest

from sr_exporter.config import Alertmanager, Config
from tests.harness import Command, RunningApp, eventually
from tests.integration.test_alerting import RealAlertmanager, alertmanager

pytestmark = pytest.mark.real


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    with alertmanager(tmp_path_factory.mktemp("am")) as running:
        yield running


def firing(running: RealAlertmanager, source: str) -> dict[str, dict]:
    """Give the alerts of a source, by their groups."""
    found = running.alerts(f'source="{source}"')
    return {alert["labels"]["group"]: alert for alert in found}


def push(app: RunningApp | Command, source: str, **statuses: int) -> None:
    items = ({"source": source, "group": name, "status": n} for name, n in statuses.items())
    app.client.push(*items).raise_for_status()


def test_what_recovers_while_it_hangs_ends_though_the_exporter_was_restarted_too(running, tmp_path):
    """Ends are told for a quarter of an hour, over restarts: none waits for its `endsAt`."""
    config = Config(notifiers=(Alertmanager("am", (running.url,), timeout_seconds=0.5),))
    with RunningApp(tmp_path, config) as app:
        push(app, "hung", recovers=-1, stays=-1)
        known = eventually(lambda: len(found := firing(running, "hung")) == 2 and found)
        os.kill(running.pid, signal.SIGSTOP)
        try:
            push(app, "hung", recovers=1, new=-1)
            app.__exit__(None, None, None)
            app.__enter__()
            push(app, "hung", late=-1)
            push(app, "hung", late=1)
        finally:
            os.kill(running.pid, signal.SIGCONT)
        after = eventually(
            lambda: (found := firing(running, "hung")).keys() == {"stays", "new"} and found,
            within=40,
        )
        assert after["stays"]["startsAt"] == known["stays"]["startsAt"]
        push(app, "hung", stays=1, new=1)
        eventually(lambda: not firing(running, "hung"), within=40)


def test_a_killed_exporter_goes_on_where_it_was(running, tmp_path):
    """After `kill -9` what fires fires on from its beginning, and what recovered ends."""
    file = tmp_path / "sr.yml"
    file.write_text(f"notifiers: [{{name: am, alertmanager: {{urls: ['{running.url}']}}}}]\n")
    arguments = (f"--config.file={file}", f"--storage.path={tmp_path / 'data'}")
    with Command(*arguments) as command:
        command.wait_ready()
        push(command, "killed", stays=-1, recovers=-1)
        known = eventually(lambda: len(found := firing(running, "killed")) == 2 and found)
        push(command, "killed", recovers=1, new=-1)
        command.signal(signal.SIGKILL)
        command.wait()
    with Command(*arguments) as command:
        command.wait_ready()
        after = eventually(
            lambda: (
                (found := firing(running, "killed")).keys() == {"stays", "new"}
                and found["stays"]["updatedAt"] > known["stays"]["updatedAt"]
                and found
            )
        )
        assert after["stays"]["startsAt"] == known["stays"]["startsAt"]
        assert after["stays"]["fingerprint"] == known["stays"]["fingerprint"]
        push(command, "killed", stays=1, new=1)
        eventually(lambda: not firing(running, "killed"))
