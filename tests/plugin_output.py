"""The output of a monitoring plugin, read as the plugin API writes it.

By the guidelines of monitoring-plugins.org, section 2: one line of text, and behind a bar figures
of the form 'label'=value[UOM];[warn];[crit];[min];[max], with spaces in between.
"""

from __future__ import annotations

import re
from typing import NamedTuple

_NUMBER = r"-?\d+(?:\.\d+)?"
_RANGE = rf"@?(?:(?:~|{_NUMBER})?:)?(?:{_NUMBER})?"
_FIGURE = re.compile(
    rf"'(?P<label>(?:[^'=]|'')+)'=(?P<value>{_NUMBER})(?P<unit>us|ms|s|%|[KMGT]?B|c|)"
    rf"(?:;(?P<warn>{_RANGE}))?(?:;(?P<crit>{_RANGE}))?"
    rf"(?:;(?P<low>(?:{_NUMBER})?))?(?:;(?P<high>(?:{_NUMBER})?))?"
)
_LINE = re.compile(
    r"(?P<service>[A-Z]+) (?P<state>OK|WARNING|CRITICAL|UNKNOWN) - (?P<text>[^|\n]+?)"
    r"(?: \| (?P<figures>[^|\n]+))?\n"
)


class Figure(NamedTuple):
    value: float
    unit: str
    warn: str
    crit: str


class Output(NamedTuple):
    state: str
    text: str
    figures: dict[str, Figure]


def read(output: str) -> Output:
    """Read what a plugin printed; an AssertionError says that it is not as it must be."""
    line = _LINE.fullmatch(output)
    assert line, f"no line of a plugin: {output!r}"
    assert line["text"].isprintable(), output
    figures = {}
    for written in (line["figures"] or "").split():
        found = _FIGURE.fullmatch(written)
        assert found, f"no figure: {written!r}"
        assert found["label"] not in figures
        figures[found["label"]] = Figure(
            float(found["value"]), found["unit"], found["warn"] or "", found["crit"] or ""
        )
    return Output(line["state"], line["text"], figures)
