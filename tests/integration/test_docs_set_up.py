"""What the documents have Prometheus, Alertmanager and systemd read is read by these."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import requests
import yaml

from sr_exporter.simulator.events import Events
from sr_exporter.simulator.httpd import MiHttpd
from sr_exporter.simulator.instance import Instance
from sr_exporter.simulator.node import SimulatedNode
from sr_exporter.simulator.releases import OPENSIPS_4_0
from sr_exporter.simulator.servers import MiThread
from tests import promtool
from tests.documents import DOCS, Block, Kind, blocks, kind_of
from tests.harness import Command, eventually, free_port, process, series
from tests.real_parts import program
from tests.receiver import Receiver

pytestmark = pytest.mark.real

UNIT = DOCS / "systemd" / "sr-exporter.service"
#: What systemd calls "OK" is under 5, and nothing without need should be open.
EXPOSURE = 1.2
#: What SQLite calls as root only (`robustFchown` of its os_unix.c), as these tests may run.
AS_ROOT = {"fchown"}


def of_kind(kind: Kind) -> list[Block]:
    return [block for block in blocks("yaml") if kind_of(block) is kind]


def tried(*command: str) -> tuple[int, str]:
    """Run a program to its end; give its exit status and all it said."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize("block", of_kind(Kind.PROMETHEUS), ids=lambda block: block.id)
def test_prometheus_takes_its_configuration(block, tmp_path):
    """With the rules where it looks for them."""
    (tmp_path / "rules").mkdir()
    for rules in promtool.RULES:
        shutil.copy(rules, tmp_path / "rules")
    file = tmp_path / "prometheus.yml"
    file.write_text(block.text)
    code, said = promtool.run("check", "config", file)
    assert code == 0, said
    if "rule_files" in block.text:
        assert said.count("rules found") == len(promtool.RULES), said


@pytest.mark.parametrize("block", of_kind(Kind.RULES), ids=lambda block: block.id)
def test_prometheus_takes_a_rule(block, tmp_path):
    """One that is shown to be put beside others."""
    assert_rules(tmp_path, yaml.safe_load(block.text))


@pytest.mark.parametrize("block", blocks("promql"), ids=lambda block: block.id)
def test_prometheus_understands_what_it_is_asked(block, tmp_path):
    """Each line is a question, with what it asks for behind it."""
    queries = block.text.splitlines()
    assert queries
    assert_rules(
        tmp_path, [{"record": f"query:{n}", "expr": query} for n, query in enumerate(queries)]
    )


def assert_rules(folder: Path, rules: list[dict[str, object]]) -> None:
    file = folder / "shown.rules.yml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "shown", "rules": rules}]}))
    code, said = promtool.run("check", "rules", file)
    assert code == 0, said


@pytest.mark.parametrize("block", of_kind(Kind.ALERTMANAGER), ids=lambda block: block.id)
def test_alertmanager_takes_its_configuration(block, tmp_path):
    """And sends each severity to whom the page says."""
    file = tmp_path / "alertmanager.yml"
    file.write_text(block.text)
    code, said = tried(program("amtool"), "check-config", str(file))
    assert code == 0, said

    def told(**labels: str) -> str:
        pairs = [f"{name}={value}" for name, value in labels.items()]
        command = (program("amtool"), "config", "routes", "test", f"--config.file={file}", *pairs)
        return tried(*command)[1].split()[0]

    assert told(alertname="OpenSIPSNotReady", severity="critical") == "on-call"
    assert told(alertname="OpenSIPSNotReady", severity="warning") == "office"
    assert told(alertname="OpenSIPSSRReportsLost", severity="info") == "nobody"
    assert told(alertname="SRExporterWatchdog", severity="none") == "dead-mans-switch"


def test_nginx_takes_its_configuration_and_is_a_proxy(tmp_path):
    """Names keep their slashes, large bodies come, and nobody behind it is this machine."""
    (block,) = blocks("nginx", DOCS / "proxy.md")
    nginx = shutil.which("nginx")
    if nginx is None:
        pytest.skip("nginx is not on the PATH (Debian: nginx-light)")
    file, port = tmp_path / "nginx.conf", free_port()
    token = tmp_path / "token"
    token.write_text("of-an-operator")
    config = tmp_path / "sr.yml"
    config.write_text("{}")

    def asked(path: str, method: str = "GET", **more: Any) -> int:
        url = f"http://127.0.0.1:{port}/sr{path}"
        return requests.request(method, url, timeout=10, **more).status_code

    with Command(f"--config.file={config}", f"--storage.path={tmp_path / 'data'}") as running:
        running.wait_ready()
        temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        paths = " ".join(f"{name}_temp_path {tmp_path / name};" for name in temporary)
        location = block.text.replace("127.0.0.1:9797", f"127.0.0.1:{running.port}")
        file.write_text(
            f"{'user root; ' * (os.geteuid() == 0)}daemon off; pid {tmp_path / 'pid'};\n"
            f"error_log {tmp_path / 'log'}; events {{}}\n"
            # By HTTP/1.0, as nginx may come, nobody is this machine anyway.
            f"http {{ access_log off; proxy_http_version 1.1; {paths}\n"
            f"server {{ listen 127.0.0.1:{port};\n{location}}} }}\n"
        )
        code, said = tried(nginx, "-t", "-c", str(file))
        assert code == 0, said
        with process(nginx, "-c", str(file), log=tmp_path / "said"):
            eventually(lambda: accepts(port))
            item = {"group": "a/b", "status": 1}
            assert asked("/api/v1/push", "POST", json=item) == 403
            config.write_text(f"push: {{tokens: [{{token_file: {token}}}]}}")
            assert running.client.reload().status_code == 200
            bearer = {"Authorization": "Bearer of-an-operator"}
            body = json.dumps(item) + " " * 2_000_000
            assert asked("/api/v1/push", "POST", data=body, headers=bearer) == 200
            assert asked("/ready/push/a%2Fb") == 200
            assert asked("/ready/push/a/b") == 404
            group = "/api/v1/sources/push/groups/a%2Fb"
            assert asked(group, "DELETE", headers=bearer) == 200


def accepts(port: int) -> bool:
    with contextlib.suppress(ConnectionRefusedError), socket.create_connection(("127.0.0.1", port)):
        return True
    return False


# --- systemd ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def unit(tmp_path_factory) -> Path:
    """The unit, with the programs where they are here."""
    here = str(Path(sys.executable).parent / "sr-exporter")
    file = tmp_path_factory.mktemp("systemd") / UNIT.name
    file.write_text(UNIT.read_text("utf-8").replace("/opt/sr-exporter/bin/sr-exporter", here))
    return file


def test_systemd_takes_the_unit(unit):
    """Nothing is said of it: no unknown setting, no program that is not there."""
    assert tried(program("systemd-analyze"), "verify", "--man=no", str(unit)) == (0, "")


def test_the_sandbox_is_tight(unit, figure):
    """Nearly as tight as one can be that has to reach the network."""
    code, said = tried(
        *(program("systemd-analyze"), "security", "--offline=true", "--no-pager"), str(unit)
    )
    assert code == 0, said
    found = re.search(r"exposure level for \S+: ([\d.]+)", said)
    assert found, said
    figure(f"systemd's rating of the unit's exposure, of 10: {found[1]}")
    assert float(found[1]) <= EXPOSURE


@pytest.mark.parametrize("block", blocks("ini"), ids=lambda block: block.id)
def test_systemd_takes_each_drop_in(block, unit, tmp_path):
    """Beside the unit, as `systemctl edit` puts it."""
    shutil.copy(unit, tmp_path)
    folder = tmp_path / f"{unit.name}.d"
    folder.mkdir()
    opt = "/opt/sr-exporter/bin/sr-exporter"
    here = str(Path(sys.executable).parent / "sr-exporter")
    (folder / "override.conf").write_text(block.text.replace(opt, here))
    command = (program("systemd-analyze"), "verify", "--man=no", str(tmp_path / unit.name))
    assert tried(*command) == (0, "")


def test_the_unit_says_what_the_exporter_understands(tmp_path):
    """The command that it starts, and that which checks before a reload."""
    start, check, _ = settings(r"Exec\w+")
    config = tmp_path / "sr.yml"
    config.write_text("{}")
    for command in (f"{start} --config.check", check):
        _, *arguments = shlex.split(command.replace("/etc/sr-exporter.yml", str(config)))
        code, said = tried(sys.executable, "-m", "sr_exporter", *arguments)
        assert (code, said) == (0, f"{config} is good\n")


def settings(name: str) -> list[str]:
    """Give what the unit says under a name."""
    return re.findall(f"^{name}=(.*)$", UNIT.read_text("utf-8"), re.MULTILINE)


def allowed() -> set[str]:
    """Give the system calls that the unit's filter leaves."""
    listed = tried(program("systemd-analyze"), "syscall-filter", "--no-pager")[1]
    sets = {
        name: re.findall(r"^    (@?\w[\w-]*)$", body, re.MULTILINE)
        for name, body in re.findall(
            r"^(@[\w-]+)\n((?:    .*\n|\n(?=    ))*)", listed, re.MULTILINE
        )
    }

    def calls(name: str) -> set[str]:
        if not name.startswith("@"):
            return {name}
        return set().union(*map(calls, sets[name]))

    left: set[str] = set()
    for line in settings("SystemCallFilter"):
        names = set().union(*map(calls, line.lstrip("~").split()))
        left = left - names if line.startswith("~") else left | names
    return left


def test_the_sandbox_leaves_all_that_it_does(tmp_path):
    """From its start, over polls, pushes, webhooks and a reload, to its stop."""
    if tried(program("strace"), "-o", "/dev/null", "true")[0] and not os.environ.get("CI"):
        pytest.skip("strace may not trace here")
    trace, config = tmp_path / "trace", tmp_path / "sr.yml"
    node = SimulatedNode(OPENSIPS_4_0)
    with MiThread(Instance(node, MiHttpd(node), Events(node))) as server, Receiver() as receiver:
        config.write_text(
            f"sources: [{{name: sip-1, mi: '{server.url}', poll_interval: 200ms}}]\n"
            f"notifiers: [{{name: hook, webhook: {{url: '{receiver.url}'}}}}]\n"
        )
        prefix = (program("strace"), "-f", f"--output={trace}")
        arguments = (f"--config.file={config}", f"--storage.path={tmp_path / 'data'}")
        with Command(*arguments, prefix=prefix) as running:
            running.wait_ready(60)
            children = Path(f"/proc/{running.process.pid}/task/{running.process.pid}/children")
            (exporter,) = map(int, children.read_text().split())
            assert running.client.push({"group": "g", "status": -1}).status_code == 200
            assert receiver.wait_for(1)[0].status == "firing"
            assert running.client.reload().status_code == 200
            up = "opensips_sr_source_up"
            eventually(lambda: 1 in series(running.client.metrics(), up).values(), within=30)
            os.kill(exporter, signal.SIGTERM)  # strace passes on no signal
            assert running.wait(30) == 0
    done = trace.read_text("utf-8", "replace")
    made = set(re.findall(r"^\d+ +(?:<\.\.\. )?(\w+)(?:\(| resumed)", done, re.MULTILINE))
    assert {"read", "fdatasync", "connect"} <= made
    assert made - AS_ROOT <= allowed()
    # MemoryDenyWriteExecute
    assert not re.search(r"(mmap|mprotect)\([^)]*PROT_WRITE\|PROT_EXEC", done)
    (families,) = settings("RestrictAddressFamilies")
    assert set(re.findall(r"socket\((AF_\w+)", done)) <= set(families.split())
