"""`sr-exporter check`: what it makes of an answer, and of a command line."""

from __future__ import annotations

import io
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sr_exporter import check_command
from sr_exporter.check_command import LONGEST_TEXT, State
from sr_exporter.model import INT32_MAX, INT32_MIN
from sr_exporter.readiness import Verdict
from tests.plugin_output import read

URL = "http://192.0.2.1:9797"
VERDICTS = [
    (Verdict(True, 1, "running", False), State.OK),
    (Verdict(True, 2, None, False), State.OK),
    (Verdict(False, -1, "initializing", False), State.CRITICAL),
    # Up to 3.4 a status is cut to 16 bits, and the readiness tells.
    (Verdict(False, 5, None, False), State.CRITICAL),
    (Verdict(False, 1, "running", True), State.WARNING),
    (Verdict(False, None, "connection refused", True), State.WARNING),
    # It was not ready when it was lost: nobody has said that this is over.
    (Verdict(False, -1, "initializing", True), State.CRITICAL),
]


@pytest.mark.parametrize(("verdict", "state"), VERDICTS)
def test_each_verdict_is_a_state(verdict, state):
    assert check_command._state(verdict, State.WARNING) is state
    if state is State.WARNING:
        assert check_command._state(verdict, State.CRITICAL) is State.CRITICAL


@pytest.mark.parametrize(
    ("verdict", "text"),
    [
        (VERDICTS[0][0], "s core/main is ready: running (status 1)"),
        (VERDICTS[1][0], "s core/main is ready: ready (status 2)"),
        (VERDICTS[2][0], "s core/main is not ready: initializing (status -1)"),
        (
            VERDICTS[4][0],
            "s core/main is stale, its source is not heard; last: running (status 1)",
        ),
        (VERDICTS[5][0], "s core/main is stale, its source is not heard: connection refused"),
        (Verdict(False, -2, None, False), "s core/main is not ready: terminating (status -2)"),
    ],
)
def test_the_text_tells_why(verdict, text):
    """In the source's words, or in those of who knows the status."""
    assert check_command._text("s core/main", "core", "main", verdict) == text


@given(
    st.text(),
    st.sampled_from(State),
    st.none() | st.integers(INT32_MIN, INT32_MAX),
    st.floats(0, 1e6),
)
def test_whatever_is_said_it_is_one_line_of_a_plugin(text, state, status, seconds):
    """No bar, no end of line, nothing that a terminal obeys, and the figures whole."""
    verdict = Verdict(False, status, None, False)
    figures = check_command._figures(verdict, seconds)
    outcome = check_command._Outcome(state, f"x {text} y", figures)
    output = read(check_command._line(outcome) + "\n")
    assert output.state == state.name
    assert len(output.text) <= LONGEST_TEXT + 1
    assert output.figures["time"].value == pytest.approx(seconds, abs=0.001)
    assert ("status" in output.figures) == (status is not None)
    if status is not None:
        assert output.figures["status"] == (status, "", "", "1:")


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8", "utf-16"])
def test_it_can_be_printed_whatever_the_locale(encoding, monkeypatch):
    """A monitoring daemon's environment may know ASCII alone."""
    stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    monkeypatch.setattr(sys, "stdout", stream)
    check_command._print("Grüße ¦ ☎ \udcff")
    assert stream.buffer.getvalue().decode(encoding).endswith("\n")


@pytest.mark.parametrize("stream", [None, io.StringIO()])
def test_without_an_output_the_status_is_left(stream, monkeypatch):
    monkeypatch.setattr(sys, "stdout", stream)
    assert check_command.run([]) == State.UNKNOWN


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "one of the arguments --url --mi is required"),
        (["core"], "one of the arguments --url --mi is required"),
        (["--url", URL, "--mi", "udp://h:1"], "not allowed with argument"),
        (["--url", "192.0.2.1:9797"], "is not http(s)://host"),
        (["--url", "http://u:secret@h"], "is not http(s)://host"),
        (["--mi", "http://u:secret@192.0.2.1/mi"], "--mi ADDRESS must not hold a user name"),
        (["--mi", "10.0.0.5:8888"], "--mi ADDRESS must begin with http://"),
        (["--mi", "udp://192.0.2.1"], "--mi ADDRESS must have a port"),
        (["--url", URL, "core", "main", "more"], "unrecognized arguments: more"),
        (["--url", URL, "--grup", "core"], "unrecognized arguments: --grup"),
        (["--ur", URL], "required"),
        (["--url", URL, ""], "GROUP, ID and --source must be UTF-8, and not empty"),
        (["--url", URL, "core", ""], "must be UTF-8, and not empty"),
        (["--url", URL, "--source="], "must be UTF-8, and not empty"),
        (["--url", URL, "\udcff"], "must be UTF-8, and not empty"),
        (["--url", URL, "--timeout", "soon"], "not a duration"),
        (["--url", URL, "-t", "0"], "must be longer than 0"),
        (["--url", URL, "-t", "9" * 400], "an hour at most"),
        (["--url", URL, "-t"], "expected one argument"),
        (["--url", URL, "--token-file", "/nonexistent/t"], "/nonexistent/t cannot be read"),
        (["--url", URL, "--ca-file", "/nonexistent/c"], "/nonexistent/c cannot be read"),
        (["--url", URL, "--ca-file", "/dev/null"], "holds no certificate"),
        (["--url", URL, "--user", "u"], "--user and --password-file belong together"),
        (["--url", URL, "--key-file", "k"], "--key-file is for a --cert-file"),
        (["--url", URL, "--cert-file", "/no/c"], "/no/c cannot be read: No such file"),
        (["--mi", "http://h/mi", "--cert-file", "c"], "--cert-file and --key-file are for --url"),
        (["--mi", "udp://h:1", "--source", "s"], "--source and --token-file are for --url"),
        (["--mi", "http://h/mi", "--user", "u"], "belong together"),
        (["--mi", "udp://h:1", "--ca-file", "x"], "--ca-file is for https:// only"),
        (["--mi", "http://h/mi", "x" * 1100], "OpenSIPS takes 1024"),
    ],
    ids=str,
)
def test_a_typo_is_unknown(arguments, said, capsys):
    """Never 2, never 0: nobody is called out for it, and nothing passes for ready."""
    assert check_command.run(arguments) == State.UNKNOWN
    heard = capsys.readouterr()
    output = read(heard.out)
    assert output.state == "UNKNOWN"
    assert said in output.text
    assert output.figures == {}
    assert heard.err == ""
    assert "secret" not in heard.out


@pytest.mark.parametrize("flag", ["-h", "--help", "-V", "--version"])
def test_help_and_version_are_unknown_too(flag, capsys):
    """As the guidelines have it: `-h HOST`, as other plugins take it, must not be a success."""
    with pytest.raises(SystemExit) as ended:
        check_command.run([flag])
    assert ended.value.code == State.UNKNOWN
    assert capsys.readouterr().out


def test_a_fault_of_ours_is_unknown(monkeypatch, capsys):
    """Python would end with 1, which is `stale`."""

    def broken(_):
        raise RuntimeError("a|b\nc")

    monkeypatch.setattr(check_command, "_check", broken)
    assert check_command.run([]) == State.UNKNOWN
    assert read(capsys.readouterr().out).text == "a fault of sr-exporter: RuntimeError: a¦b\\nc"
    monkeypatch.setattr(check_command, "_check", lambda _: (_ for _ in ()).throw(KeyboardInterrupt))
    assert check_command.run([]) == State.UNKNOWN
