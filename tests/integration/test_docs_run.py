"""What the documents tell people to type is typed, against a real exporter.

Every line that asks an exporter, or tells it something, is run as it stands, with the addresses
and placeholders of this test's world in the place of the document's; or it is listed below with
the reason why it cannot be.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import stat
import subprocess
import sys
import textwrap
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest
import yaml

from sr_exporter.simulator.servers import MiThread
from tests.doc_lines import PAGES, ROOT, Line, all_blocks, all_lines, lines_of
from tests.harness import Command, eventually, free_port, series
from tests.integration.test_alerting import alertmanager
from tests.real_parts import program
from tests.recorded_mi import asked_at, recorded_node
from tests.simulated import mi_server
from tests.web_config import CA, write_identity

if TYPE_CHECKING:
    from pathlib import Path

#: What cannot be run, and why.
NOT_RUN = {
    "curl --compressed": "says how bodies were read, and is no command",
    "curl -sS --retry 5 --retry-connrefused --cacert ca.pem -u prometheus"
    " https://monitor.example:9797/-/ready": "asks for a password",
}
#: What is asked for goes on for ever: it is ended after a moment, and what came is looked at.
ENDLESS = "text/event-stream"
#: How a moment's end, by `timeout`, is told.
ENDED = 124

#: In the place of words that stand for a name.
PLACEHOLDERS = {
    "SOURCE": "sip-1",
    "GROUP": "drouting",
    "IDENTIFIER": "us",
    "NAME": "edge-9",
    "NOTIFIER": "hook",
    "$HOSTNAME$": "sip-1",
    "$ARG1$": "drouting",
    "$ARG2$": "all",
}
LINES = all_lines()
RUN = [line for line in LINES if line.text not in NOT_RUN]


class World:
    """An exporter that polls a server and has notifiers; other servers, to be asked by hand."""

    def __init__(self, stack: ExitStack, folder: Path) -> None:
        self.folder = folder
        self.alertmanager: str | None = None
        if shutil.which("prometheus-alertmanager"):
            self.alertmanager = stack.enter_context(alertmanager(folder)).url
        clock = lambda: asked_at("4.0")  # noqa: E731 - one word
        polled, asked, asked_unix = (
            stack.enter_context(MiThread(mi_server(kind, node, folder, clock=clock)))
            for kind, node in zip(
                ("http", "http", "unix"), (recorded_node("4.0") for _ in range(3)), strict=True
            )
        )
        events = f"127.0.0.1:{free_port()}"
        config = folder / "sr.yml"
        config.write_text(
            textwrap.dedent(f"""\
            sources:
              - name: sip-1
                mi: {polled.url}
                poll_interval: 200ms
                max_share: 1
                events: {{subscribe: tcp}}
            events:
              stream: {{listen: {events}, advertise: {events}}}
            alerts: {{watchdog: true}}
            notifiers:
              - name: hook
                webhook: {{url: 'http://127.0.0.1:{free_port()}/x'}}
              - name: alertmanager
                alertmanager: {{urls: ['{self.alertmanager or f"http://127.0.0.1:{free_port()}"}']}}
            """)
        )
        self.exporter = stack.enter_context(
            Command(f"--config.file={config}", f"--storage.path={folder / 'data'}")
        )
        self.exporter.wait_ready()
        self._web = folder / "web"
        self._web.mkdir()
        write_identity(self._web)
        write_identity(self._web, CA.issue_cert("probe"), "probe")
        (self._web / "ca.pem").rename(self._web / "ca.crt")
        (self._web / "probe.pem").rename(self._web / "probe.crt")
        (self._web / "web.yml").write_text(
            "tls_server_config: {cert_file: server.pem, key_file: server.key,"
            " client_ca_file: ca.crt, client_auth_type: RequireAndVerifyClientCert}\n"
        )
        self._over_tls = stack.enter_context(
            Command(
                f"--web.config.file={self._web / 'web.yml'}", f"--storage.path={folder / 'tls'}"
            )
        )
        eventually(lambda: any("msg=started" in line for line in self._over_tls.output))
        self.asked, self.asked_unix = asked.url, asked_unix.url
        self.token = folder / "token"
        self.token.write_text("any\n")
        self._command = folder / "bin" / "sr-exporter"
        self._command.parent.mkdir()
        self._command.write_text(f'#!/bin/sh\nexec {sys.executable} -m sr_exporter "$@"\n')
        self._command.chmod(stat.S_IRWXU)

    def wait(self) -> None:
        """Wait until there is something to be seen: a server, and an alert."""

        def polled() -> bool:
            found = self.exporter.client.metrics()
            return bool(series(found, "opensips_sr_ready", source="sip-1", group="drouting"))

        def fires() -> bool:
            url = f"{self.exporter.base}/api/v2/alerts"
            return bool(self.exporter.client.session.get(url, timeout=10).json())

        assert self.exporter.client.push({"source": "sbc-2", "group": "trunks", "status": -1}).ok
        eventually(polled)
        eventually(fires)

    def here(self, text: str) -> str:
        """Give a line with this world's addresses, files and names in it."""
        text = re.sub(r"^command_line\s+", "", text)
        text = re.sub(r'^script "(.*)"$', r"\1", text)
        text = re.sub(r"https://localhost:9797", f"https://localhost:{self._over_tls.port}", text)
        text = text.replace("/etc/sr-exporter-web", str(self._web))
        text = re.sub(r"[\w.$-]+:9797", self.exporter.base.removeprefix("http://"), text)
        text = re.sub(r"http://[\w.]+:8888/mi", self.asked, text)
        text = text.replace("unix:///run/opensips/mi.sock", self.asked_unix)
        text = re.sub(r"/(?:usr/local|opt/sr-exporter)/bin/(?=sr-exporter)", "", text)
        if "sr-exporter push" in text and "--url" not in text:
            text += f" --url {self.exporter.base}"
        # An answer that is an error must not pass for a success.
        text = re.sub(r"\bcurl(?= )", "curl --fail", text)
        text = re.sub(r"(?<=--token-file )\S+", str(self.token), text)
        if self.alertmanager is not None:
            text = re.sub(r"http://[\w.]+:9093", self.alertmanager, text)
        for word, meant in PLACEHOLDERS.items():
            text = re.sub(rf"(?<![\w$]){re.escape(word)}(?![\w$])", meant, text)
        return text

    def run(self, command: str) -> subprocess.CompletedProcess[str]:
        environment = {
            **os.environ,
            "PATH": f"{self._command.parent}:{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
            "HOME": str(self.folder),
        }
        return subprocess.run(
            ["bash", "-o", "pipefail", "-c", command],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            env=environment,
            cwd=self.folder,
        )


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    with ExitStack() as stack:
        made = World(stack, tmp_path_factory.mktemp("w"))
        made.wait()
        yield made


@pytest.mark.parametrize(
    "line",
    [
        pytest.param(line, id=str(line), marks=[pytest.mark.real] if "amtool" in line.text else [])
        for line in RUN
    ],
)
def test_a_line_of_the_documents_does_what_it_says(world, line):
    """It ends with 0, and finds what it looks for."""
    program("curl")
    if "amtool" in line.text:
        program("amtool")
        program("prometheus-alertmanager")
    command = world.here(line.text)
    if deleted := re.search(r"-X DELETE \S+/sources/([^/\s]+)", command):
        world.exporter.client.push({"source": deleted[1], "group": "g", "status": 1})
    if ENDLESS in command:
        ended = world.run(f"timeout 1 {command}")
        assert ended.returncode == ENDED, ended
        return
    ended = world.run(command)
    assert ended.returncode == 0, f"{command}\n{ended.stdout}{ended.stderr}"
    if "amtool" in command:  # an alert of a moment ago is on its way to an Alertmanager
        eventually(lambda: re.search("OpenSIPS|SRExporter", world.run(command).stdout), every=0.1)
    if "sr-exporter check" in command:
        assert ended.stdout.startswith("SR OK - ")
    if "sr-exporter push" in command:
        assert (ended.stdout, ended.stderr) == ("", "")


@pytest.mark.parametrize(
    "block", [one for one in all_blocks() if one.text.startswith("readinessProbe")], ids=str
)
def test_a_probe_of_the_documents_works(world, block):
    """Its command exits with 0, its path answers 200; its time is longer than the command's."""
    probe = yaml.safe_load(block.text)["readinessProbe"]
    if "exec" in probe:
        ended = world.run(world.here(shlex.join(probe["exec"]["command"])))
        assert ended.returncode == 0, ended
        given = probe["exec"]["command"]
        assert int(given[given.index("--timeout") + 1].removesuffix("s")) < probe["timeoutSeconds"]
    else:
        path = probe["httpGet"]["path"]
        answer = world.exporter.client.session.get(f"{world.exporter.base}{path}", timeout=10)
        assert answer.status_code == 200
        assert probe["httpGet"]["port"] == 9797


@pytest.mark.parametrize(
    "block", [one for one in all_blocks() if "sr_exporter.client" in one.text], ids=str
)
def test_a_program_of_the_documents_works(world, block):
    """As it stands, in a process of its own; what it says is held afterwards."""
    program_text = block.text.replace("http://127.0.0.1:9797", world.exporter.base)
    assert program_text != block.text
    ended = subprocess.run(
        [sys.executable, "-W", "error::DeprecationWarning", "-c", program_text],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "")
    (source,) = re.findall(r'source="([^"]+)"', block.text)
    (group,) = set(re.findall(r'(?:set_status|heartbeat)\("([^"]+)"', block.text))
    assert series(world.exporter.client.metrics(), "opensips_sr_status", source=source, group=group)


# --- nothing is left out ------------------------------------------------------------------


def test_what_is_not_run_is_still_there():
    """A reason outlives no line."""
    assert set(NOT_RUN) <= {line.text for line in LINES}
    assert len(RUN) > 50
    assert {line.page for line in RUN} >= {"README.md", "docs/checks.md", "docs/runbooks.md"}


def test_every_mention_with_an_argument_is_a_line():
    """Whatever the shape of a page: a command that is not read as one would be run by nobody."""
    mention = re.compile(
        r"(?:\bcurl|amtool alert query|sr-exporter (?:check|push))\s+[-'\"/][^\s`]*(?:\s+[^\s`]+)?"
    )
    found = 0
    for page in PAGES:
        text = page.read_text("utf-8")
        lines = " ".join(" ".join(line.text.split()) for line in lines_of(page.name, text))
        for seen in mention.finditer(text):
            found += 1
            assert " ".join(seen[0].split()) in lines, f"{page.name}: {seen[0]!r}"
    assert found > 50


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("```\ncurl -s localhost:9797 | grep x\n```\n", ["curl -s localhost:9797 | grep x"]),
        ("```sh\ncurl \\\n  -s h\nls\n```\n", ["curl \\\n  -s h"]),
        ("```\ncurl -d '{\n}' h\ncurl b\n```\n", ["curl -d '{\n}' h", "curl b"]),
        ("```\nit's no shell\ncurl b\n```\n", ["curl b"]),
        (
            "run `curl a` or `curl`, or\n`amtool alert query\n--x` now",
            ["curl a", "amtool alert query --x"],
        ),
        (
            "| `curl a` | `sr-exporter check` | `sr-exporter push --x` |",
            ["curl a", "sr-exporter push --x"],
        ),
        ("curl a in prose, and `not curl`, `curly a`, `sr-exporter checks a`", []),
        ("```\nx | /usr/bin/curl a; (curl b)\n```\n", ["x | /usr/bin/curl a; (curl b)"]),
        ("````\n```\ncurl a\n```\n````\n", ["curl a"]),
        ("`curl a` and again `curl  a`", ["curl a"]),
    ],
)
def test_lines_are_found_wherever_they_stand(text, expected):
    """In blocks and in spans, over several lines and in tables; names alone are no lines."""
    assert [line.text for line in lines_of("page", text)] == expected


def test_a_line_knows_its_place():
    text = "# x\n\n```\nls\ncurl a\n```\n\n`curl b`\n"
    assert lines_of("p", text) == [Line("p", 5, "curl a"), Line("p", 8, "curl b")]
