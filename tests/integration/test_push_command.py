"""`sr-exporter push`: silent when it is kept, and else one line and an exit status."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import time

import pytest
from structlog.testing import capture_logs

from sr_exporter import push_command
from sr_exporter.config import Config, Token
from sr_exporter.push_command import EXIT_NO_ANSWER, EXIT_REFUSED, EXIT_USAGE
from tests.answering import ACCEPTED, answer, answers
from tests.harness import Command, RunningApp, free_port, series
from tests.peer import many_peers

SECRET = "s3cret-token"


@pytest.fixture(scope="module")
def app(tmp_path_factory):
    digest = hashlib.sha256(SECRET.encode()).digest()
    tokens = (Token(digest, sources=("push", "s")),)
    with RunningApp(tmp_path_factory.mktemp("data"), Config(tokens=tokens)) as running:
        yield running


@pytest.fixture
def push(app, tmp_path, capsys):
    """Push as the command does; give its exit status and what it says."""
    token = tmp_path / "token"
    token.write_text(f"{SECRET}\n")

    def run(*arguments: str) -> tuple[int, str]:
        given = [f"--url={app.base}", f"--token-file={token}", "--timeout=20s"]
        with capture_logs():  # the exporter's, which runs in this process
            try:
                status = push_command.run([*given, *arguments])
            except SystemExit as ended:
                status = int(ended.code)
        heard = capsys.readouterr()
        assert heard.out == ""
        assert SECRET not in heard.err
        return status, heard.err

    return run


def held(app, name, **labels):
    return list(series(app.client.metrics(), name, **labels).values())


def test_what_is_given_is_held(app, push):
    """A status with everything, a report alone, and what a group alone means."""
    assert push("--group=g", "--status", "-1") == (0, "")
    assert held(app, "opensips_sr_status", source="push", group="g", identifier="main") == [-1]
    everything = ["--source=s", "--identifier=i", "--group=g", "--status=3", "--details=a | b"]
    lasting = ("--ttl", "0.4", "--on-expiry=remove")
    assert push(*everything, "--report=one", "--report=-two", "--report=one") == (0, "")
    assert held(app, "opensips_sr_status", source="s", group="g", identifier="i") == [3]
    assert held(app, "opensips_sr_reports_total", source="s") == [3]
    assert push("--source=s", "--group=lines", "--report=x") == (0, "")
    assert held(app, "opensips_sr_status", source="s", group="lines") == [1]
    assert push("--source=s", "--group=brief", "--status=1", *lasting) == (0, "")
    over = time.monotonic() + 10
    while held(app, "opensips_sr_status", source="s", group="brief"):
        assert time.monotonic() < over
        time.sleep(0.02)
    assert push("--source=s", "--group=long", "--status=1", "--ttl=90s") == (0, "")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--group=", "--status=1"], "refused: Expected `str` of length >= 1 - at `$.group`"),
        (["--group=g"], "refused: status or reports is required"),
        (["--group=g", "--details=x"], "refused: details: only together with status"),
        (["--group=g", "--status=9999999999"], "refused: Expected `int` <= 2147483647"),
        (["--group=g", "--status=1", "--ttl=soon"], "refused: ttl: not a duration"),
        (["--group=g", "--status=1", "--ttl=0"], "refused: ttl: more than 0 seconds"),
        (["--group=g", "--status=1", "--on-expiry=remove"], "on_expiry: only together with ttl"),
        (["--group=g", "--status=1", "--source=other"], "this token may not write source 'other'"),
    ],
    ids=str,
)
def test_what_is_wrong_is_said_by_the_exporter(push, arguments, said):
    """The words for the item, in one line; 1."""
    status, heard = push(*arguments)
    assert status == EXIT_REFUSED
    assert said in heard
    assert heard.startswith("sr-exporter: refused: ")
    assert heard.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "required: --group"),
        (["--group=g", "--status=one"], "invalid int value: 'one'"),
        (["--group=g", "--status=1.5"], "invalid int value: '1.5'"),
        (["--group=g", "--url=localhost:9797"], "is not http(s)://host"),
        (["--group=g", "--url=http://u:s3cret-token@h/"], "is not http(s)://host"),
        (["--group=g", "--token-file=/nonexistent/t"], "/nonexistent/t cannot be read"),
        (["--group=g", "--ca-file=/nonexistent/c"], "/nonexistent/c cannot be read"),
        (["--group=g", "--ca-file=/dev/null"], "/dev/null holds no certificate"),
        (["--group=g", "--timeout=5"], "not a duration"),
        (["--group=g", "--timeout=0"], "must be longer than 0"),
        (["--group=g", "--on-expiry=explode"], "invalid choice"),
        (["--group=g", "--token=x"], "unrecognized arguments"),
        (["--group=g", "extra"], "unrecognized arguments: extra"),
    ],
    ids=str,
)
def test_a_wrong_command_line_is_2(push, arguments, said):
    """And nothing is sent; a token cannot be given where all can read it."""
    status, heard = push(*arguments)
    assert status == EXIT_USAGE
    assert said in heard


def test_without_a_token_it_is_refused(app, capsys):
    assert push_command.run([f"--url={app.base}", "--group=g", "--status=1"]) == EXIT_REFUSED
    assert "--token-file" not in capsys.readouterr().out


def test_who_is_busy_is_asked_again_and_who_is_away_is_told(capsys):
    """503 with Retry-After within the time-out; past it the exporter's words, and 3."""
    busy = answer(503, b'{"error": "no \\u001b[2Jroom"}', Retry_After="1")
    with many_peers() as make:
        peer = make(answers(busy, answer(200, ACCEPTED)))
        given = [f"--url=http://127.0.0.1:{peer.port}", "--group=g", "--status=1"]
        assert push_command.run(given) == 0
        assert len(peer.requests) == 2
        peer = make(answers(busy))
        given[0] = f"--url=http://127.0.0.1:{peer.port}"
        assert push_command.run([*given, "--timeout=500ms"]) == EXIT_NO_ANSWER
        assert len(peer.requests) == 1
    heard = capsys.readouterr().err
    assert heard.startswith(f"sr-exporter: not kept by http://127.0.0.1:{peer.port}: HTTP 503: ")
    assert heard.count("\n") == 1
    assert heard.endswith(": no \\x1b[2Jroom\n")
    given[0] = f"--url=http://127.0.0.1:{free_port()}"
    assert push_command.run([*given, "--timeout=300ms"]) == EXIT_NO_ANSWER
    assert "connection refused" in capsys.readouterr().err


def test_the_command_itself(tmp_path):
    """As a script runs it: a process of its own, no output, and bytes that are no UTF-8."""
    with Command(f"--storage.path={tmp_path}") as exporter:
        exporter.wait_ready()
        command = [sys.executable, "-m", "sr_exporter", "push", f"--url={exporter.base}"]
        more = [b"--group=g\xff", b"--status=-2", b"--details=d\xff", b"--report=r"]
        ended = subprocess.run([*command, *more], capture_output=True, timeout=30, check=False)
        assert (ended.returncode, ended.stdout, ended.stderr) == (0, b"", b"")
        assert held(exporter, "opensips_sr_status", group="g\\xff") == [-2]
        ended = subprocess.run(
            [*command, "--group=g"], capture_output=True, timeout=30, check=False
        )
        assert ended.returncode == EXIT_REFUSED
        assert ended.stderr == b"sr-exporter: refused: status or reports is required\n"
    help_text = subprocess.run(
        [*command[:4], "--help"], capture_output=True, text=True, timeout=30, check=True
    ).stdout
    assert max(map(len, help_text.splitlines())) <= 80
    for number in range(4):
        assert f"{number} " in help_text.partition("exit status:")[2]
