"""docs/limits.md says what the code does."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import sr_exporter
from sr_exporter import accepting, cutting, journal
from sr_exporter.config.keys import SCHEMA
from sr_exporter.config.values import Limits
from sr_exporter.limits import Limit
from sr_exporter.model import DEEPEST_RING, PUSHED_RING
from sr_exporter.report_rules import LONGEST_SUBJECT
from sr_exporter.sources import stream, unfinished
from sr_exporter.web import bodies, connected, mi, writes
from sr_exporter.web.server import MOST_CONNECTIONS
from tests.documents import DOCS

TEXT = (DOCS / "limits.md").read_text("utf-8")
ROWS = {
    cells[0]: cells[1:]
    for cells in (
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in TEXT.splitlines()
        if line.startswith("| ") and not line.startswith(("| ---", "| limit "))
    )
}
SOURCES = "".join(
    path.read_text("utf-8") for path in Path(sr_exporter.__file__).parent.rglob("*.py")
)


def test_every_limit_is_in_the_table_by_its_metric():
    named = re.findall(r'sr_exporter_limited_total\{limit="(\w+)"\}', TEXT)
    assert sorted(set(named)) == sorted(Limit)


def test_every_key_is_in_the_table_with_its_default():
    """One that has another default says which."""
    keys = {key: name for name, (_, key, *_) in ROWS.items() if key}
    assert set(keys) == {f"`limits.{key}`" for key in SCHEMA.keys["limits"]}
    for key, name in keys.items():
        default = getattr(Limits(), key.strip("`").removeprefix("limits."))
        assert ROWS[name][0].split()[0] == ("as" if default is None else str(default)), name


@pytest.mark.parametrize("name", ROWS)
def test_what_is_said_to_be_logged_is_logged(name):
    for line in re.findall(r"`([^`]+)`", ROWS[name][3]):
        assert f'"{line}' in SOURCES, line


@pytest.mark.parametrize(
    ("name", "values"),
    {
        "length of a URL": (writes.MOST_URL_BYTES,),
        "length of a request's head, its URL in it": (writes.MOST_HEAD_BYTES,),
        "size of a body to `/mi`": (mi.MOST_BYTES,),
        "members of a gzip body": (bodies.MOST_MEMBERS,),
        "time for a head to come": (connected.HEAD_SECONDS,),
        "time for a body to come": (
            connected.BODY_SECONDS,
            1,
            connected.BODY_BYTES_A_SECOND,
        ),
        "time in which something of an answer must be taken": (
            connected.ANSWER_SECONDS,
            connected.MOMENT_SECONDS,
            connected.MOST_STUCK,
            connected.MOST_WAITING,
        ),
        "rest between two requests": (connected.REST_SECONDS,),
        "connections to the HTTP server": (MOST_CONNECTIONS,),
        "connections to the listener of events": (stream.MOST_CONNECTIONS,),
        "descriptors that are left for the rest": (
            accepting.LEAST_RESERVED,
            2 * accepting.LEAST_RESERVED,
        ),
        "listeners of the live journal": (journal.MOST_LISTENERS,),
        "time for an event to come over TCP": (unfinished.EVENT_SECONDS,),
        "size of an event": (stream.LIMIT_BYTES,),
        "size of all that is unfinished of events over TCP": (unfinished.MOST_BYTES,),
        "length of a name: of a source, a group, an identifier, a version": (
            cutting.MOST_NAME,
            LONGEST_SUBJECT,
        ),
        "length of details, and of a line of a report": (
            cutting.MOST_DETAILS,
            cutting.MOST_LOG,
        ),
        "reports of one identifier": (PUSHED_RING, DEEPEST_RING),
    }.items(),
)
def test_the_documented_numbers_are_those_of_the_code(name, values):
    said = [int(number) for number in re.findall(r"\d+", ROWS[name][0])]
    assert said == [int(value) for value in values]


def test_the_configured_default_is_that_of_the_server():
    assert Limits().connections == MOST_CONNECTIONS
