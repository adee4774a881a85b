"""`--help` of every command: it fits a terminal, and leaves nothing to be guessed."""

from __future__ import annotations

import contextlib
import io
import os
import re
import signal
import sys

import pytest

from sr_exporter import cli

COLUMNS = 80
#: An option, or the name of an argument, with what it takes; then its text, there or below.
_OPTION = re.compile(r"^  (-[^\n]*?|[A-Z]{2,})(?:  +(\S[^\n]*)|\n {10,}(\S[^\n]*))?$", re.MULTILINE)


def said(*arguments: str) -> str:
    """Give what the command says on a terminal of 80 columns."""
    text = io.StringIO()
    hangup = signal.getsignal(signal.SIGHUP)
    with (
        pytest.MonkeyPatch.context() as patched,
        contextlib.redirect_stdout(text),
        contextlib.redirect_stderr(text),
        contextlib.suppress(SystemExit),
    ):
        patched.setenv("COLUMNS", str(COLUMNS))
        patched.setattr(os, "_exit", sys.exit)
        cli.main(arguments)
    signal.signal(signal.SIGHUP, hangup)
    return text.getvalue()


def helped(*command: str) -> str:
    """Give what a command says of itself."""
    return said(*command, "--help")


def within(help_: str) -> list[str]:
    """Give the commands that a command has, as its usage names them."""
    usage = help_.partition("\n\n")[0]
    named = re.findall(r"[a-z-]+(?:[|,][a-z-]+)+(?=[ }].*\.\.\.)", usage)
    return re.split(r"[|,]", named[0]) if named else []


@pytest.fixture(scope="module")
def helps() -> dict[str, str]:
    """What each command says of itself, by how it is called; the command itself knows which."""
    (named,) = re.findall(r"no command no-such \((.*)\)", said("no-such"))
    found = {"sr-exporter": helped()}
    for name in named.split(", "):
        found[f"sr-exporter {name}"] = helped(name)
        for other in within(found[f"sr-exporter {name}"]):
            found[f"sr-exporter {name} {other}"] = helped(name, other)
    return found


def test_every_command_is_found(helps):
    """Also those within others."""
    assert {"sr-exporter", "sr-exporter demo", "sr-exporter notifications list"} <= set(helps)


def test_no_line_is_broken_by_the_terminal(helps):
    for command, text in helps.items():
        for line in text.splitlines():
            assert len(line) < COLUMNS, f"{command}: {line}"


def test_every_option_says_what_it_is_for(helps):
    for command, text in helps.items():
        options = _OPTION.findall(text)
        assert any(option.startswith("-h") for option, *_ in options), command
        for option, beside, below in options:
            assert beside or below, f"{command}: {option} has no help"


def test_every_command_says_what_it_does_and_how_it_may_end(helps):
    statuses = re.compile(r"^exit status: 0 .*\bcommand\s+line", re.MULTILINE | re.DOTALL)
    for command, text in helps.items():
        usage, what, *_ = text.split("\n\n")
        assert usage.startswith("usage: sr-exporter"), command
        assert re.match(r"\S.*\.", what, re.DOTALL), f"{command}: {what}"
        assert statuses.search(text), command


def test_the_first_help_names_every_command(helps):
    """Each with what it is for."""
    for command in helps:
        _, *name = command.split()
        if len(name) == 1:
            pattern = rf"^  sr-exporter \[?{name[0]}\]?\s+\w.+"
            assert re.search(pattern, helps["sr-exporter"], re.MULTILINE), command
