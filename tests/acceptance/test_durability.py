"""An answer of 200 means kept: seen from outside, in the system calls."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys

import pytest
import requests

from tests.harness import eventually, free_port
from tests.real_parts import program

pytestmark = pytest.mark.once

PUSHES = 30
#: Runs the command with a database that does not wait for its disk.
_CARELESS = """
import sqlite3, sys

class Careless(sqlite3.Connection):
    def execute(self, sql, *parameters):
        return super().execute(sql.replace("synchronous=FULL", "synchronous=OFF"), *parameters)

connect = sqlite3.connect
sqlite3.connect = lambda *args, **kwargs: connect(*args, factory=Careless, **kwargs)
from sr_exporter.cli import main
main(sys.argv[1:])
"""
_ROUTINE = ["-m", "sr_exporter"]


def _traced(tmp_path, *python: str) -> str:
    """Push to an exporter under strace; give its writes (w), syncs (s) and answers (A) in order."""
    probe = subprocess.run([program("strace"), "-o", "/dev/null", "true"], check=False)
    if probe.returncode and not os.environ.get("CI"):
        pytest.skip("strace may not trace here")
    port = free_port()
    trace = tmp_path / "trace"
    traced = subprocess.Popen(
        [
            program("strace"),
            "-f",
            f"--output={trace}",
            "--string-limit=1000",
            "--trace=fdatasync,fsync,write,writev,sendto,sendmsg,pwrite64",
            sys.executable,
            *python,
            f"--web.listen-address=127.0.0.1:{port}",
            f"--storage.path={tmp_path / 'data'}",
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        with requests.Session() as session:
            session.trust_env = False

            def ready() -> bool:
                try:
                    metrics = session.get(f"http://127.0.0.1:{port}/metrics", timeout=5).text
                except requests.ConnectionError:
                    return False
                # What the exporter says of itself is committed too: let that be over.
                return 'group="store"' in metrics

            eventually(ready, within=60, every=0.1)
            for number in range(1, PUSHES + 1):
                answer = session.post(
                    f"http://127.0.0.1:{port}/api/v1/push",
                    # Ready all along: an alert would be a commit of its own in between.
                    json={"group": "g", "status": number},
                    timeout=20,
                )
                assert answer.json() == {"accepted": 1, "changed": 1}
    finally:
        # strace passes on no signal: the exporter is its child.
        subprocess.run(["pkill", "-TERM", "-P", str(traced.pid)], check=False)
        try:
            traced.wait(30)
        except subprocess.TimeoutExpired:
            traced.send_signal(signal.SIGKILL)
            traced.wait(10)
    events = []
    for line in trace.read_text("utf-8", "replace").splitlines():
        if "pwrite64(" in line:
            events.append("w")
        elif re.search(r"\bf(data)?sync(\(| resumed)", line):
            # A call another thread interrupts is two lines; it is over with the second.
            if "unfinished" not in line:
                events.append("s")
        elif "HTTP/1.1 200" in line and '{\\"accepted\\"' in line:
            events.append("A")
    return "".join(events)


@pytest.mark.real
def test_no_200_leaves_before_its_commit_is_on_the_disk(tmp_path, figure):
    """Between the last write of the database and an answer there is always an fdatasync."""
    events = _traced(tmp_path, *_ROUTINE)
    assert events.count("A") == PUSHES
    early = re.findall(r"wA", events)
    figure(f"strace: {events.count('A')} answers of 200, {len(early)} before their fdatasync")
    assert not early
    assert len(re.findall(r"w+s+A", events)) >= PUSHES


@pytest.mark.real
def test_a_database_that_does_not_sync_is_found_out(tmp_path):
    """The test above can fail: without the sync, answers follow writes."""
    events = _traced(tmp_path, "-c", _CARELESS)
    assert len(re.findall(r"wA", events)) >= PUSHES // 2
