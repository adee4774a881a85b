"""`sr-exporter mi` as a person runs it: exit status, both streams, and pipes."""

from __future__ import annotations

import json
import socket
import subprocess
import sys

from sr_exporter.mi_command import EXIT_ERROR, EXIT_USAGE
from sr_exporter.simulator.httpd import MiHttpd
from sr_exporter.simulator.servers import MiThread
from tests.recorded_mi import recorded_node, result


def test_the_command_prints_json_and_nothing_else(tmp_path):
    """A process of its own: exit status, both streams, and a pipe that is closed early."""
    node = recorded_node("4.0")
    for number in range(5000):
        node.register("uac_registrant", f"aor=sip:{number}@example.org")
    with MiThread(MiHttpd(node)) as server:
        ended = _run(server.url, "sr_get_status", "core")
        assert (ended.returncode, ended.stderr) == (0, "")
        assert json.loads(ended.stdout) == result("4.0", "get-core")
        ended = _run(server.url, "nosuch")
        assert ended.returncode == EXIT_ERROR
        assert (ended.stdout, ended.stderr) == ("", "sr-exporter: Method not found (-32601)\n")
        ours, theirs = socket.socketpair()
        with ours, theirs:
            command = [sys.executable, "-m", "sr_exporter", "mi", server.url, "sr_list_status"]
            running = subprocess.Popen(command, stdout=theirs, stderr=subprocess.PIPE, text=True)
            theirs.close()
            ours.recv(10)
            ours.close()
            _, said = running.communicate(timeout=30)
            assert (running.returncode, said) == (0, "")
    assert _run(server.url, "subscribers_list").returncode == EXIT_USAGE


def test_its_help_fits_80_columns():
    """And names every exit status."""
    said = _run("--help").stdout
    assert max(map(len, said.splitlines())) <= 80
    for number in range(4):
        assert f"{number} " in said.partition("exit status:")[2]


def _run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "sr_exporter", "mi", *arguments],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
