"""As nobody, with a file system that is read-only but for `--storage.path`."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from sr_exporter.simulator.httpd import MiHttpd
from sr_exporter.simulator.node import SimulatedNode
from sr_exporter.simulator.releases import OPENSIPS_4_0
from sr_exporter.simulator.servers import MiThread
from tests import locked_up
from tests.harness import Command, eventually, series

pytestmark = pytest.mark.real


@pytest.fixture
def config(tmp_path) -> Path:
    folder = tmp_path / "config"
    folder.mkdir()
    return folder


def test_it_does_all_that_it_does(config, figure):
    """It polls, keeps what is pushed, shows it, and stops: nothing else is written anywhere."""
    file = config / "sr.yml"
    with MiThread(MiHttpd(SimulatedNode(OPENSIPS_4_0))) as server:
        file.write_text(f"sources: [{{name: sip-1, mi: '{server.url}', poll_interval: 200ms}}]\n")
        file.chmod(0o644)
        arguments = (
            f"--config.file={locked_up.CONFIG / file.name}",
            f"--storage.path={locked_up.STATE}",
        )
        with Command(*arguments, prefix=locked_up.prefix(config)) as running:
            running.wait_ready(60)
            about = Path(f"/proc/{running.process.pid}")
            status = dict(
                line.split(":\t", 1) for line in (about / "status").read_text().splitlines()
            )
            assert set(status["Uid"].split()) == {str(locked_up.NOBODY)}
            assert int(status["CapEff"], 16) == int(status["CapBnd"], 16) == 0
            assert status["NoNewPrivs"] == "1"
            assert status["Groups"].strip() == ""

            assert running.client.push({"group": "g", "status": -1}).status_code == 200
            up = "opensips_sr_source_up"
            eventually(lambda: 1 in series(running.client.metrics(), up).values(), within=30)
            for path in ("/", "/runbooks", "/-/healthy"):
                assert running.client.session.get(running.base + path, timeout=10).ok
            assert running.client.reload().status_code == 200
            written = {path.name for path in (about / "root/mnt/state").iterdir()}
            running.signal(signal.SIGTERM)
            assert running.wait(30) == 0
    assert "Read-only" not in running.said
    assert "Permission" not in running.said
    figure(f"as nobody, on a read-only file system: wrote {', '.join(sorted(written))} and no more")


def test_it_says_where_it_may_not_write(config):
    """With the exit status of a store that cannot be used, and without a traceback."""
    arguments = (f"--storage.path={locked_up.CONFIG / 'data'}",)
    with Command(*arguments, prefix=locked_up.prefix(config)) as running:
        assert running.wait(60) == 3
    assert running.said == (
        "sr-exporter: --storage.path /mnt/config/data cannot be used: Read-only file system;"
        " let this user write to it, or name another"
    )
