"""The command as an operator runs it: a process, signals, exit codes, words."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import requests

import sr_exporter
from tests.harness import Command, eventually, free_port, samples, series
from tests.receiver import Receiver


def _run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "sr_exporter", *arguments],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def test_the_demo_shows_several_sources_within_5_s_and_keeps_changing(figure):
    """README's first promise, from the first printed line; Ctrl-C stops it cleanly."""
    with Command("demo") as demo:
        eventually(lambda: demo.output, within=20)
        began = time.monotonic()

        def shown() -> dict:
            try:
                text = requests.get(f"{demo.base}/metrics", timeout=5).text
            except requests.ConnectionError:
                return {}
            found = samples(text)
            sources = {
                dict(labels)["source"]
                for name in ("opensips_sr_status", "opensips_sr_ready")
                for labels in series(found, name)
            }
            return found if {"sip-1", "sip-2", "edge-1", "reg-1"} <= sources else {}

        eventually(shown, within=5)
        took = time.monotonic() - began
        figure(f"demo: first printed line to four sources on /metrics: {took:.2f} s")
        assert took < 5
        seen = set()

        def changing() -> bool:
            found = shown()
            key = tuple(sorted(series(found, "opensips_sr_status").items()))
            if found:
                seen.add(key)
            return len(seen) >= 4

        eventually(changing, within=40, every=0.25)
        assert str(demo.port) in demo.output[1]
        assert "What is going to happen" in demo.said
        demo.signal(signal.SIGINT)
        assert demo.wait() == 0
        assert demo.output[-1] == "stopped"
        assert "Traceback" not in demo.said
        assert "HARM" not in demo.said, "a server was sent what no OpenSIPS should be"


def test_a_taken_port_is_said(tmp_path):
    """Both demo and serve name the address, and the flag that names another; exit 1."""
    with Command(f"--storage.path={tmp_path}") as first:
        first.wait_ready()
        for arguments in (["demo"], [f"--storage.path={tmp_path / 'other'}"]):
            second = _run(*arguments, f"--web.listen-address=127.0.0.1:{first.port}")
            assert second.returncode == 1
            assert f"cannot listen on 127.0.0.1:{first.port}: " in second.stderr
            assert "--web.listen-address" in second.stderr
            assert "Traceback" not in second.stderr


def test_version_and_help():
    """The version is the package's; help fits 80 columns."""
    assert _run("--version").stdout == f"sr-exporter {sr_exporter.__version__}\n"
    for arguments in (["--help"], ["demo", "--help"]):
        text = _run(*arguments).stdout
        assert "--web.listen-address" in text
        assert max(map(len, text.splitlines())) <= 80


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--web.listen-address=nonsense"], "is not host:port"),
        (["--log.level=loud"], "invalid choice"),
        (["--web.config.file=x"], "x: cannot be read: No such file"),
        (["bla"], "no command bla (serve, demo, check, push, mi, rules, notifications)"),
        (["--no-such-flag"], "unrecognized"),
        (["--web.external-url=ftp://x"], "is not http(s)://"),
    ],
    ids=str,
)
def test_a_wrong_command_line_is_exit_2(arguments, said):
    """It says what is wrong, and starts nothing."""
    ended = _run(*arguments)
    assert ended.returncode == 2
    assert said in ended.stderr
    assert "Traceback" not in ended.stderr


def test_rules_are_tested_by_the_command(tmp_path):
    """`rules test` says which rule decides, from the file a running exporter reads."""
    file = tmp_path / "sr.yml"
    file.write_text("alerts: {rules: [{group: dr*, severity: page}]}\n")
    ended = _run("rules", "test", f"--config.file={file}", "--source=sip-1", "--group=drouting")
    assert (ended.returncode, ended.stderr) == (0, "")
    assert "decides: alerts.rules[0], by source *, group dr*\n" in ended.stdout
    assert '"severity": "page"' in ended.stdout


def test_who_reads_no_further_is_told_nothing_more():
    """`| head -1` has seen enough: it ends as by SIGPIPE, without a word."""
    reading, writing = os.pipe()
    os.close(reading)
    try:
        ended = subprocess.run(
            [sys.executable, "-m", "sr_exporter", "rules", "test", "--source=s", "--group=g"],
            stdout=writing,
            stderr=subprocess.PIPE,
            timeout=30,
            check=False,
        )
    finally:
        os.close(writing)
    assert (ended.returncode, ended.stderr) == (128 + signal.SIGPIPE, b"")


def test_a_wrong_configuration_names_every_fault(tmp_path):
    """All faults at once, each with its place; exit 2, with and without --config.check."""
    file = tmp_path / "sr.yml"
    file.write_text(
        "sources:\n  - {name: push, mi: 'udp://h'}\nnotifers: []\nlimits: {identifiers: 0}\n"
    )
    for flags in ([], ["--config.check"]):
        ended = _run(f"--config.file={file}", *flags)
        assert ended.returncode == 2
        for part in ("sources[0].name", "sources[0].mi", "notifers", "limits.identifiers"):
            assert part in ended.stderr
    file.write_text("sources: []\n")
    checked = _run(f"--config.file={file}", "--config.check")
    assert (checked.returncode, checked.stdout) == (0, f"{file} is good\n")


def test_kill_9_loses_nothing_that_was_acknowledged(tmp_path):
    """States, counters and owed webhooks are there again; polled keys wait to be heard."""
    config = tmp_path / "sr.yml"
    dead = free_port()
    config.write_text(
        f"notifiers: [{{name: hook, webhook: {{url: 'http://127.0.0.1:{dead}/x'}}}}]\n"
    )
    arguments = (f"--storage.path={tmp_path / 'data'}", f"--config.file={config}")
    with Command(*arguments) as first:
        first.wait_ready()
        for number in range(30):
            for status in (1, -1):
                answer = first.client.push(
                    {
                        "group": "g",
                        "identifier": f"i{number}",
                        "status": status,
                        "reports": [f"r{status}"],
                    }
                )
                assert answer.status_code == 200
        first.client.push({"group": "short", "status": 1, "ttl": 3600})
        first.process.kill()
        first.wait()
        before = first.port
    with Receiver() as receiver:
        config.write_text(f"notifiers: [{{name: hook, webhook: {{url: '{receiver.url}'}}}}]\n")
        with Command(*arguments, port=before) as second:
            second.wait_ready()
            found = second.client.metrics()
            for number in range(30):
                key = (("group", "g"), ("identifier", f"i{number}"), ("source", "push"))
                assert found["opensips_sr_status", key] == -1
                assert found["opensips_sr_status_changes_total", key] == 1
                assert found["opensips_sr_reports_total", key] == 2
            assert series(found, "opensips_sr_status", group="short")
            owed = receiver.wait_for(30, within=30)
            assert {one.identifier for one in owed[:30]} == {f"i{n}" for n in range(30)}
            second.signal(signal.SIGTERM)
            assert second.wait() == 0


def test_two_processes_do_not_share_a_store(tmp_path):
    """The second one is told who is in its way; exit 3."""
    with Command(f"--storage.path={tmp_path}") as first:
        first.wait_ready()
        second = _run(f"--storage.path={tmp_path}", f"--web.listen-address=127.0.0.1:{free_port()}")
        assert second.returncode == 3
        assert "another sr-exporter is using this --storage.path" in second.stderr


def test_sigterm_stops_cleanly_and_a_restart_goes_on(tmp_path):
    """Exit 0; what was shown before is shown after."""
    arguments = (f"--storage.path={tmp_path}", "--log.format=json")
    with Command(*arguments) as first:
        first.wait_ready()
        first.client.push({"group": "g", "status": -7, "details": "x"})
        first.signal(signal.SIGTERM)
        assert first.wait() == 0
        assert '"msg":"stopped"' in re.sub(r'": "', '":"', first.said)
    with Command(*arguments) as second:
        second.wait_ready()
        found = second.client.metrics()
        assert list(series(found, "opensips_sr_status", group="g").values()) == [-7]


def test_a_trickling_receiver_does_not_hold_up_the_stop(tmp_path, figure):
    """SIGTERM ends it in bounded time, whatever a peer does; what is owed stays owed."""
    config = tmp_path / "sr.yml"
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        over = threading.Event()

        def trickle() -> None:
            connection, _ = listener.accept()
            with connection, contextlib.suppress(OSError):
                connection.recv(65536)  # who answers before he is asked is hung up on
                connection.sendall(b"HTTP/1.1 200 OK\r\n")
                while not over.wait(0.1):
                    connection.sendall(b"x")

        thread = threading.Thread(target=trickle)
        thread.start()
        config.write_text(
            f"notifiers: [{{name: hook, webhook: {{url: 'http://127.0.0.1:{port}/x',"
            " timeout: 2m}}]\n"
        )
        with Command(f"--storage.path={tmp_path / 'd'}", f"--config.file={config}") as running:
            running.wait_ready()
            assert running.client.push({"group": "g", "status": -1}).status_code == 200
            eventually(
                lambda: running.client.metrics()[
                    "sr_exporter_notifier_backlog", (("notifier", "hook"),)
                ]
            )
            began = time.monotonic()
            running.signal(signal.SIGTERM)
            assert running.wait(30) == 0
            took = time.monotonic() - began
        over.set()
        thread.join(10)
    figure(f"SIGTERM while a webhook receiver trickles: exit 0 after {took:.1f} s")
    assert took < 12
    assert "stopping with notifications owed" in running.said


def test_the_readme_begins_with_the_commands_that_are_tested():
    """The first command runs the demo, the second one everything."""
    readme = (Path(__file__).parents[2] / "README.md").read_text("utf-8")
    commands = re.findall(r"```sh\n(.*?)\n```", readme, re.DOTALL)
    assert "sr-exporter demo" in commands[0]
    assert "\n" not in commands[0]
    assert commands[1] == "sh tests/run"


def test_sighup_reloads(tmp_path):
    """A good file is in force, a faulty one is said in the log, all of it; neither ends it."""
    file = tmp_path / "sr.yml"
    file.write_text("limits: {body_bytes: 1024}\n")
    flags = (f"--storage.path={tmp_path / 'data'}", f"--config.file={file}")
    large = {"group": "g", "status": 1, "details": "x" * 1024}
    with Command(*flags) as running:
        running.wait_ready()
        assert running.client.push(large).status_code == 413
        file.write_text("limits: {body_bytes: 4096}\n")
        running.signal(signal.SIGHUP)
        eventually(lambda: "configuration reloaded" in running.said)
        assert running.client.push(large).status_code == 200
        file.write_text("limits: {body_bytes: 1}\nnotifers: []\n")
        running.signal(signal.SIGHUP)
        eventually(lambda: running.said.count("configuration not reloaded") == 2)
        assert "limits.body_bytes: must be" in running.said
        assert "did you mean notifiers?" in running.said
        assert running.client.push(large).status_code == 200


def test_many_sighups_are_few_reloads(tmp_path):
    """And one during the start ends nothing."""
    with Command(f"--storage.path={tmp_path}") as running:
        running.wait_ready()
        for _ in range(200):
            running.signal(signal.SIGHUP)
        eventually(lambda: "configuration reloaded" in running.said)
        assert running.client.push({"group": "g", "status": 1}).status_code == 200
        assert running.client.reload().status_code == 200
        running.signal(signal.SIGTERM)
        assert running.wait() == 0


def test_a_sighup_while_it_starts_ends_nothing(tmp_path):
    """At whatever moment once our code runs; the file is in force in the end."""
    with Command(f"--storage.path={tmp_path}") as running:
        # Until Python has come to our code the system's default holds, and we can do nothing.
        eventually(lambda: _ignores_sighup(running.process.pid), every=0.001)
        while not running.output:
            running.signal(signal.SIGHUP)
            time.sleep(0.01)
        eventually(lambda: "configuration reloaded" in running.said)
        assert running.client.push({"group": "g", "status": 1}).status_code == 200


def _ignores_sighup(pid: int) -> bool:
    (line,) = re.findall(r"SigIgn:\s*(\w+)", Path(f"/proc/{pid}/status").read_text())
    return bool(int(line, 16) & 1)
