"""opensips-cli, the real one, prints the same of the exporter as of a server itself.

It calls nothing that `which` does not list: old names of a 3.6, new ones of a 4.0, either of the
exporter. What it asks of servers is more than any should be asked: it is not ours.
"""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING, NamedTuple

import pytest

from sr_exporter.config import Config, Source
from sr_exporter.simulator.httpd import MiHttpd
from sr_exporter.simulator.servers import MiThread
from tests.harness import RunningApp, eventually, series
from tests.real_parts import program
from tests.recorded_mi import asked_at, recorded_node
from tests.replay import ReplayMi

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.harness import Client

pytestmark = pytest.mark.harmful

OLD, NEW = "3.6", "4.0"
_FAILED = b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\n\r\n"
REGISTRANT = (
    "aor=sip:user0007@trunk.example.net;contact=sip:user0007@127.0.0.1:5060;"
    "registrar=sip:127.0.0.1:5099"
)


class Printed(NamedTuple):
    code: int
    out: str
    error: str


class Cli:
    """opensips-cli, without anybody's settings."""

    def __init__(self, home: Path) -> None:
        self._program = program("opensips-cli", "PyPI: opensipscli, opensips; see tests/run")
        self._environment = {**os.environ, "HOME": str(home)}

    def __call__(self, url: str, *arguments: str) -> Printed:
        ended = subprocess.run(
            [
                *(self._program, "-o", "communication_type=http", "-o", f"url={url}"),
                *("-o", "log_level=WARNING", "-x", "mi", *arguments),
            ],
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
            env=self._environment,
        )
        # A log is held without the newline that some of OpenSIPS' end in.
        return Printed(ended.returncode, ended.stdout.replace('\\n"', '"'), ended.stderr)


@pytest.fixture(scope="module")
def cli(tmp_path_factory) -> Cli:
    return Cli(tmp_path_factory.mktemp("home"))


@pytest.fixture(scope="module")
def exporter(tmp_path_factory) -> Iterator[RunningApp]:
    """Run an exporter that polls a server of each version."""
    with ReplayMi(OLD) as old, ReplayMi(NEW) as new:
        sources = tuple(
            Source(version, mi.url, poll_interval_seconds=60)
            for version, mi in ((OLD, old), (NEW, new))
        )
        with RunningApp(tmp_path_factory.mktemp("exporter"), Config(sources=sources)) as app:
            eventually(lambda: _up(app.client) == [1, 1])
            yield app


def _up(client: Client) -> list[float]:
    return list(series(client.metrics(), "opensips_sr_source_up").values())


@pytest.fixture(scope="module")
def servers() -> Iterator[dict[str, str]]:
    """Run both servers; gives where each is."""
    with (
        MiThread(MiHttpd(recorded_node(OLD), clock=lambda: asked_at(OLD))) as old,
        MiThread(MiHttpd(recorded_node(NEW), clock=lambda: asked_at(NEW))) as new,
    ):
        yield {OLD: old.server.url, NEW: new.server.url}


ASKED = [
    (OLD, "sr_list_status"),
    (OLD, "sr_list_status", "drouting"),
    (OLD, "sr_get_status", "core"),
    (OLD, "sr_get_status", "group=clusterer", "identifier=all"),
    (OLD, "sr_list_reports", "alarms", "main"),
    (OLD, "sr_list_identifiers", "group=dispatcher"),
    (NEW, "status_report:status"),
    (NEW, "status_report:reports"),
    (NEW, "status_report:identifiers"),
    (NEW, "status_report:get", "uac_registrant", REGISTRANT),
    # What fails does so in the same words.
    (OLD, "sr_get_status", "nosuch"),
    (OLD, "sr_list_reports", "core", "nosuch"),
    (NEW, "status_report:get"),
    (NEW, "status_report:status", "grp=core"),
    (NEW, "nosuch"),
]


@pytest.mark.parametrize(("version", "arguments"), [(one[0], one[1:]) for one in ASKED], ids=str)
def test_it_prints_the_same_of_both(cli, exporter, servers, version, arguments):
    """Output, errors and exit status."""
    ours = cli(f"{exporter.base}/mi/{version}", *arguments)
    assert ours == cli(servers[version], *arguments)
    assert (ours.code == 0) == bool(ours.out)
    assert bool(ours.out) != bool(ours.error)


def test_old_and_new_names_are_there(cli, exporter):
    """The exporter lists both, of whatever version the server is."""
    old = cli(f"{exporter.base}/mi/{NEW}", "sr_list_status", "core")
    assert old == cli(f"{exporter.base}/mi/{NEW}", "status_report:status", "core")
    assert old.code == 0


def test_it_tells_which_parameters_there_are(cli, exporter):
    """As it completes a line by them."""
    asked = cli(f"{exporter.base}/mi", "which", "command=sr_add_report")
    words = asked.out.replace("[", " ").replace("]", " ").replace(",", " ").split()
    assert words == ['"group"', '"report"', '"group"', '"report"', '"identifier"']


def test_it_pushes(cli, exporter):
    """A status that is a string of digits, as all it sends is; a report; what both come to."""
    url = f"{exporter.base}/mi"
    assert cli(url, "sr_set_status", "Trunk", "-3", "no answer", "sbc-1") == (0, '"OK"\n', "")
    assert cli(url, "sr_add_report", "group=trunk", "report=dialled", "identifier=SBC-1").code == 0
    shown = cli(url, "sr_list_status", "trunk")
    assert '"Name": "sbc-1"' in shown.out
    assert '"Status": -3' in shown.out
    assert '"Log": "dialled"' in cli(url, "sr_list_reports", "trunk", "sbc-1").out
    found = series(exporter.client.metrics(), "opensips_sr_status", source="push", group="Trunk")
    assert list(found.values()) == [-3]


def test_a_source_that_is_lost_is_no_result(cli, tmp_path):
    """Nothing is printed that a script could take for a status; the error says why."""
    with ReplayMi(NEW) as mi:
        config = Config(sources=(Source("sip", mi.url, 0.1, stale_after_seconds=600),))
        with RunningApp(tmp_path, config) as app:
            eventually(lambda: _up(app.client) == [1])
            url = f"{app.base}/mi/sip"
            assert cli(url, "sr_get_status", "core").code == 0
            mi.answers = {method: [_FAILED] for method in mi.answers}
            eventually(lambda: _up(app.client) == [0])
            lost = cli(url, "sr_get_status", "core")
            assert (lost.code, lost.out) == (255, "")
            assert "503: Source not heard (sip: " in lost.error
