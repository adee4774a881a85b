"""Who knows only the README gets from nothing to a page that somebody is sent.

Its steps are done as they stand there, with the addresses and folders of this test for its own.
"""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest
import requests

from tests.documents import DOCS, ROOT, Block, Kind, blocks, kind_of
from tests.harness import eventually, free_port, process
from tests.integration.test_alerting import alertmanager
from tests.receiver import Receiver

if TYPE_CHECKING:
    from pathlib import Path

README = ROOT / "README.md"


def section(heading: str) -> list[Block]:
    """Give the blocks below a heading."""
    text = README.read_text("utf-8")
    first = text.index(f"\n## {heading}")
    lines = text.count("\n", 0, first), text.count("\n", 0, text.index("\n## ", first + 1))
    found = [*blocks("", README), *blocks("yaml", README)]
    return [block for block in found if lines[0] < block.line < lines[1]]


class Reader:
    """Types what the README says."""

    def __init__(self, folder: Path, addresses: dict[str, str]) -> None:
        self._blocks = section("From an OpenSIPS")
        self._here = addresses
        self._bin = folder / "bin"
        self._bin.mkdir()
        command = self._bin / "sr-exporter"
        command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m sr_exporter "$@"\n')
        command.chmod(0o755)

    def finds(self, beginning: str) -> str:
        """Give the one block that begins so, for here."""
        (text,) = [one.text for one in self._blocks if one.text.startswith(beginning)]
        for there, here in self._here.items():
            text = text.replace(there, here)
        return text

    @property
    def environment(self) -> dict[str, str]:
        path = f"{self._bin}:{os.environ['PATH']}"
        return {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT)}

    def types(self, beginning: str) -> str:
        """Run that block; give what it prints."""
        done = subprocess.run(
            ["sh", "-e", "-c", self.finds(beginning)],
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout


@pytest.mark.real
def test_from_nothing_to_somebody_who_is_paged(tmp_path, monkeypatch):
    """By way of a real Alertmanager with the routes that the documents give it."""
    (routes,) = [
        one.text
        for one in blocks("yaml", DOCS / "alertmanager.md")
        if kind_of(one) is Kind.ALERTMANAGER
    ]
    config, mi, web = tmp_path / "sr-exporter.yml", free_port(), free_port()
    with ExitStack() as stack:
        pager = stack.enter_context(Receiver())
        routes = routes.replace("https://pager.example/hook", pager.url)
        routes = routes.replace("group_wait: 10s", "group_wait: 0s")
        tells = stack.enter_context(alertmanager(tmp_path, config=routes))
        reader = Reader(
            tmp_path,
            {
                "10.0.0.5:8888": f"127.0.0.1:{mi}",
                "127.0.0.1:9093": tells.url.removeprefix("http://"),
                "localhost:9797": f"127.0.0.1:{web}",
                "/etc/sr-exporter.yml": str(config),
                "/var/lib/sr-exporter": str(tmp_path / "data"),
            },
        )
        monkeypatch.setenv("PYTHONPATH", str(ROOT))
        simulator = (sys.executable, "-m", "sr_exporter.simulator", f"--port={mi}")
        stack.enter_context(process(*simulator, log=tmp_path / "simulator.log"))
        eventually(lambda: "Management Interface" in (tmp_path / "simulator.log").read_text())
        assert '"Name": "core"' in reader.types("sr-exporter mi")

        config.write_text(reader.finds("sources:"))
        assert "is good" in reader.types("sr-exporter --config.check")

        start = f"exec {reader.finds('sr-exporter --config.file').strip()}"
        run = ("sh", "-c", f"{start} --web.listen-address=127.0.0.1:{web}")
        monkeypatch.setenv("PATH", reader.environment["PATH"])
        stack.enter_context(process(*run, log=tmp_path / "exporter.log"))

        def page() -> str:
            try:
                return requests.get(f"http://127.0.0.1:{web}/", timeout=5).text
            except requests.ConnectionError:
                return ""

        eventually(lambda: "sip-1" in page(), within=20)

        fires = reader.types("curl -d")
        assert '"accepted":1' in fires
        # The line after it may have come before the alert.
        query = reader.finds("curl -d").splitlines()[1]
        asked = ["sh", "-c", query]
        told = lambda: subprocess.run(asked, capture_output=True, text=True, check=True).stdout  # noqa: E731
        eventually(lambda: "OpenSIPSNotReady" in told())
        eventually(lambda: pager.received, within=20)
        alert = pager.received[0].body["alerts"][0]
        assert alert["labels"]["source"] == "try"
        assert alert["annotations"]["details"] == "only a try"

        assert '"removed":1' in reader.types("curl -X DELETE")
        eventually(lambda: "OpenSIPSNotReady" not in told())
