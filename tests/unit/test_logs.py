"""What peers say must not forge a line of the log, a value in one, or a terminal's command."""

from __future__ import annotations

import json
import logging
import re

import pytest
import structlog
from hypothesis import example, given
from hypothesis import strategies as st

from sr_exporter.logs import LogFormat, _logfmt, set_up

#: A pair as readers of logfmt split a line: a bare value, or one in quotes with escapes of JSON.
_PAIR = re.compile(r'([a-z_]+)=("(?:[^"\\]|\\.)*"|[^ "=]*)(?: |$)')
NASTY = [
    "x\nlevel=error msg=forged",
    "x\r\nts=2026-01-01T00:00:00Z level=error msg=forged",
    'x" level=error msg="forged',
    'x\\" level=error msg=forged',
    "ends in a backslash \\",
    "\x1b[2J\x1b]0;owned\x07",
    "\x9b31m\x7f\x00",
    "\u2028level=error\u2029",
    "\u202egnp.exe",
    "a=b",
    "",
    " ",
]


@pytest.fixture(autouse=True)
def _as_before():
    """Leave the logging of other tests as it was."""
    root, kept = logging.getLogger(), structlog.get_config()
    handlers, level = list(root.handlers), root.level
    yield
    structlog.configure(**kept)
    root.handlers[:] = handlers
    root.setLevel(level)


def _pairs(line: str) -> dict[str, str]:
    """Read a line of logfmt, every character of which must belong to a pair, each name once."""
    assert line.isprintable(), line
    found: dict[str, str] = {}
    at = 0
    while at < len(line):
        pair = _PAIR.match(line, at)
        assert pair is not None, line[at:]
        name, value = pair.groups()
        assert name not in found, f"{name} was forged: {line}"
        found[name] = json.loads(value) if value.startswith('"') else value
        at = pair.end()
    return found


def _said(capsys, form: LogFormat, **values: object) -> str:
    set_up("info", form)
    structlog.get_logger().warning("said", **values)
    return capsys.readouterr().err


@given(st.lists(st.text(alphabet=st.sampled_from('ab"\\= \n\r\t\x1b\x85\u2028é,{')), max_size=3))
@example(NASTY)
def test_every_value_comes_back_from_logfmt_and_none_forges_another(said):
    """Whatever is in it; also where it is no string, but an error or a list."""
    for text in said:
        event = {"detail": text, "level": "info", "error": ValueError(text), "msg": text}
        line = _logfmt(None, "info", event)
        assert _pairs(line) == {"level": "info", "msg": text, "detail": text, "error": text}
    assert _pairs(_logfmt(None, "info", {"all": said}))["all"] == str(said)


@pytest.mark.parametrize("text", NASTY, ids=ascii)
def test_one_event_is_one_line(capsys, text):
    """In both formats, through our loggers and those of libraries, tracebacks too."""
    for form in LogFormat:
        lines = [_said(capsys, form, detail=text, error=ValueError(text))]
        logging.getLogger("library").warning("heard %s", text)
        lines.append(capsys.readouterr().err)
        structlog.get_logger().error("failed", exc_info=ValueError(text))
        lines.append(capsys.readouterr().err)
        for line in lines:
            assert (line.count("\n"), line.endswith("\n")) == (1, True), line
            read = json.loads(line) if form is LogFormat.JSON else _pairs(line[:-1])
            assert read["level"] in ("warning", "error")
            assert not {"forged", "owned"} & set(read)


def test_usual_lines_read_as_they_always_did(capsys):
    """Bare where they can be, quoted where they must."""
    line = _said(capsys, LogFormat.LOGFMT, a=1, b="two words", c=True, d=None, e=0.5, f="x/y:z")
    assert re.sub(r"ts=\S+", "ts=T", line) == (
        'ts=T level=warning msg=said a=1 b="two words" c=true d= e=0.5 f=x/y:z\n'
    )
