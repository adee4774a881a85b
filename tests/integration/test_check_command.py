"""`sr-exporter check` against real exporters and simulated servers, as their monitoring runs it."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
import time

import pytest

from sr_exporter import check_command
from sr_exporter.config import Config, Source
from sr_exporter.simulator.replies import BasicAuth
from sr_exporter.simulator.servers import MiThread, silent_over
from sr_exporter.wire.answers import Names
from tests.answering import answer
from tests.harness import Command, RunningApp, eventually, free_port
from tests.peer import many_peers
from tests.plugin_output import read
from tests.recorded_mi import VERSIONS, asked_at, recorded_node
from tests.simulated import KINDS, mi_server

OK, WARNING, CRITICAL, UNKNOWN = range(4)


@pytest.fixture
def check(monkeypatch):
    """Check as the command does; give its exit status, and its line as it is read."""
    printed: list[str] = []
    # An exporter that runs in this process logs to the same output.
    monkeypatch.setattr(check_command, "_print", printed.append)

    def run(*arguments: str):
        printed.clear()
        status = check_command.run(arguments)
        (line,) = printed
        output = read(f"{line}\n")
        assert output.state == check_command.State(status).name
        return status, output

    return run


def server_of(kind: str, folder, version: str = "4.0", node=None, **more):
    node = node or recorded_node(version)
    return mi_server(kind, node, folder, clock=lambda: asked_at(version), **more)


class NewNames(Names):
    """A server that has forgotten the old names."""

    def resolve(self, method: str) -> str:
        return super().resolve(method if ":" in method else "")


@pytest.mark.parametrize("kind", KINDS)
def test_an_opensips_is_asked_over_every_transport(kind, tmp_path, check):
    """What its core is, what is ready, what is not, and what it does not know."""
    node = recorded_node("4.0")
    with MiThread(server_of(kind, tmp_path, node=node)) as server:
        status, output = check("--mi", server.url)
        assert (status, output.text) == (OK, "core/main is ready: running (status 1)")
        assert output.figures["status"].value == 1
        assert output.figures["status"].crit == "1:"
        assert 0 <= output.figures["time"].value < 3
        server.call(lambda: node.register("sbc", "a|b", -7, "down\nsince | noon"))
        status, output = check("--mi", server.url, "SBC", "a|b")
        assert (status, output.figures["status"].value) == (CRITICAL, -7)
        assert output.text == "SBC/a¦b is not ready: down\\nsince ¦ noon (status -7)"
        status, output = check("--mi", server.url, "sbc", "all")
        assert (status, output.text) == (CRITICAL, "sbc/all is not ready: aggregated (status -1)")
        assert check("sbc", "--mi", server.url, "a|b")[0] == CRITICAL
        for unknown in (["sbc"], ["nope"], ["core", "nope"]):
            status, output = check("--mi", server.url, *unknown)
            assert status == UNKNOWN
            assert "not found (404)" in output.text
        url = server.url
    status, output = check("--mi", url, "--timeout=300ms")
    assert status == UNKNOWN
    assert output.text.startswith("core/main: ")


@pytest.mark.parametrize("version", VERSIONS)
def test_every_version_is_asked_by_names_it_knows(version, tmp_path, check):
    """And one that knows the new names only: two requests, and the same answer."""
    with MiThread(server_of("http", tmp_path, version)) as server:
        assert check("--mi", server.url)[0] == OK
    if version != "3.6":
        node = recorded_node(version)
        node.release = dataclasses.replace(node.release, names=NewNames(node.release.names.which))
        with MiThread(server_of("http", tmp_path, version, node)) as server:
            assert check("--mi", server.url)[0] == OK


def test_credentials_are_sent_and_never_shown(tmp_path, check):
    password = tmp_path / "password"
    password.write_text("s3cret\n")
    with MiThread(server_of("http", tmp_path, auth=BasicAuth("u", "s3cret"))) as server:
        status, output = check("--mi", server.url)
        assert (status, "401" in output.text) == (UNKNOWN, True)
        given = ["--user=u", f"--password-file={password}"]
        assert check("--mi", server.url, *given)[0] == OK


@pytest.mark.parametrize("kind", KINDS[1:])
def test_a_silent_server_is_unknown_in_time(kind, tmp_path, check):
    with MiThread(server_of(kind, tmp_path, spoil=silent_over(0))) as server:
        began = time.monotonic()
        status, output = check("--mi", server.url, "-t", "300ms")
        assert time.monotonic() - began < 3
    assert status == UNKNOWN
    assert "within 0.3 s" in output.text


def test_the_time_is_for_all_that_is_asked(check):
    """A server that answers one name late, and the other never, does not get twice as much."""

    def script(peer, connection) -> None:
        peer.read_request(connection)
        peer.over.wait(0.5)
        body = b'{"jsonrpc":"2.0","error":{"code":-32601,"message":"Method not found"},"id":1}'
        connection.sendall(answer(200, body, Content_Type="application/json"))
        peer.wait_for_hang_up(connection)

    with many_peers() as make:
        status, output = check("--mi", f"http://127.0.0.1:{make(script).port}/mi", "-t", "1s")
    assert (status, output.text) == (UNKNOWN, "core/main: no answer within 1 s")


def test_an_exporter_says_the_same_as_the_server_itself(tmp_path, check):
    """Of everything that it has, of whole groups, and of what it does not have."""
    node = recorded_node("4.0")
    node.register("sbc", "main", -3, "trunk | down")
    node.register("sbc", "b", 2)
    listed = [(group.name, one.name) for group in node.groups() for one in group.identifiers()]
    with MiThread(server_of("http", tmp_path, node=node)) as server:
        source = Source("sip-1", server.url, poll_interval_seconds=0.1, max_share=1.0)
        with RunningApp(tmp_path / "data", Config(sources=(source,))) as app:
            asked = ["--url", app.base, "--source", "sip-1"]
            eventually(lambda: check(*asked, "sbc")[0] == CRITICAL)
            groups = sorted({group for group, _ in listed})
            names = [[], ["nope"], ["core", "nope"], *map(list, listed)]
            names += [[group] for group in groups] + [[group, "all"] for group in groups]
            ours = [check(*asked, *name) for name in names]
        # One after the other: a server is to be asked by one at a time (rule 1).
        theirs = [check("--mi", server.url, *name) for name in names]
    for name, (said, shown), (expected, wanted) in zip(names, ours, theirs, strict=True):
        assert said == expected, name
        if said != UNKNOWN:
            assert shown.text == f"sip-1 {wanted.text}"
            assert shown.figures["status"] == wanted.figures["status"]
    assert {said for said, _ in ours} == {OK, CRITICAL, UNKNOWN}


def test_a_lost_source_is_stale_unless_it_was_not_ready(tmp_path, check):
    """1 for what was ready; what was not still is not. Unheard from the start it is stale, too."""
    node = recorded_node("4.0")
    node.register("sbc", "main", -3, "trunk down")
    with MiThread(server_of("http", tmp_path, node=node)) as server:
        sources = (
            Source("sip-1", server.url, poll_interval_seconds=0.1, max_share=1.0),
            Source("sip-2", f"http://127.0.0.1:{free_port()}/mi", poll_interval_seconds=0.1),
        )
        with RunningApp(tmp_path / "data", Config(sources=sources)) as app:
            asked = ["--url", app.base, "--source", "sip-1"]
            eventually(lambda: check(*asked)[0] == OK)
            server.refuse()
            eventually(lambda: check(*asked)[0] == WARNING)
            status, output = check(*asked, "core")
            assert (status, output.figures["status"].value) == (WARNING, 1)
            assert "is stale, its source is not heard; last: running (status 1)" in output.text
            assert check(*asked, "--stale", "critical")[0] == CRITICAL
            assert check(*asked, "--stale", "warning")[0] == WARNING
            assert check(*asked, "--stale", "ok")[0] == UNKNOWN
            status, output = check(*asked, "sbc")
            assert (status, output.figures["status"].value) == (CRITICAL, -3)
            assert "is stale" in output.text
            status, output = eventually(
                lambda: (
                    (found := check("--url", app.base, "--source=sip-2"))[0] == WARNING and found
                )
            )
            assert "sip-2 core/main is stale, its source is not heard: " in output.text
            assert set(output.figures) == {"time"}
            server.listen()
            eventually(lambda: check(*asked)[0] == OK)


def test_pushed_state_is_of_the_source_push(tmp_path, check):
    """Unless another is named; what is not held is unknown, in the exporter's words."""
    with RunningApp(tmp_path) as app:
        app.client.push(
            {"group": "job", "status": -1, "details": "a|b\nc"},
            {"group": "sbc", "source": "ünï 1", "status": 4},
        )
        assert check("--url", app.base, "job")[1].text == (
            "push job/main is not ready: a¦b\\nc (status -1)"
        )
        assert check("--url", f"{app.base}/", "--source=ünï 1", "SBC", "Main")[0] == OK
        for name, said in (
            (["nope"], "no group 'nope' is held of source 'push'"),
            (["job", "b"], "no identifier 'b' is held"),
            ([], "source 'push' has no core/main"),
            (["--source=x|y"], "no source 'x¦y' is known"),
        ):
            status, output = check("--url", app.base, *name)
            assert status == UNKNOWN
            assert said in output.text


VERDICT = b'{"ready":true,"status":1,"details":null,"stale":false}'


@pytest.mark.parametrize(
    ("said", "told"),
    [
        (answer(200), "HTTP 200: something else"),
        (answer(200, b"OK"), "HTTP 200: something else"),
        (answer(200, b"{}"), "HTTP 200: something else"),
        (answer(200, b'{"ready":true,"status":1.5,"details":null,"stale":false}'), "HTTP 200"),
        (answer(200, VERDICT.replace(b"true", b"false")), "HTTP 200: something else"),
        (answer(200, VERDICT.replace(b"false", b"true")), "HTTP 200: something else"),
        (answer(200, VERDICT.replace(b"1", b"9" * 19)), "HTTP 200: something else"),
        (answer(503, VERDICT), "HTTP 503: something else"),
        (answer(503, b"<html>|"), "HTTP 503: something else"),
        (answer(503, b'{"error":"it starts | still"}'), "it starts ¦ still"),
        (answer(200, b"[" * 100_000), "HTTP 200: something else"),
        (answer(200, b'{"ready":true,"status":1,"details":"\xff","stale":false}'), "HTTP 200"),
        (answer(401, b'{"error":"a token"}'), "a token"),
        (answer(302, b"", Location="http://127.0.0.1:1/"), "HTTP 302: something else"),
        (answer(404, b"no"), "HTTP 404: something else"),
        (b"SSH-2.0-OpenSSH\r\n", "push g/main: no answer from"),
        (None, "no answer from"),
    ],
    ids=repr,
)
def test_a_bad_answer_is_unknown(said, told, check):
    """Whoever answers: it is neither ready nor not ready."""
    with many_peers() as make:
        peer = make(_gets(said))
        status, output = check("--url", f"http://127.0.0.1:{peer.port}", "g")
    assert status == UNKNOWN
    assert told in output.text
    assert output.figures == {}


def _gets(said):
    """Answer a GET, which has no length, and so no body."""

    def script(peer, connection) -> None:
        head = b""
        while b"\r\n\r\n" not in head:
            head += connection.recv(65536)
        if said is not None:
            connection.sendall(said)

    return script


def test_an_exporter_that_trickles_is_unknown_in_time(check):
    def script(peer, connection) -> None:
        connection.recv(65536)
        while not peer.over.wait(0.02):
            connection.sendall(b"x")

    with many_peers() as make:
        began = time.monotonic()
        status, output = check("--url", f"http://127.0.0.1:{make(script).port}", "-t", "300ms")
        assert time.monotonic() - began < 3
    assert (status, "within 0.3 s" in output.text) == (UNKNOWN, True)
    assert check("--url", f"http://127.0.0.1:{free_port()}")[0] == UNKNOWN
    assert check("--url", "http://nowhere.invalid")[0] == UNKNOWN


def test_the_command_itself(tmp_path, figure):
    """A process as Nagios and the kubelet run it: one line, nothing on stderr, and in time."""
    with Command(f"--storage.path={tmp_path}") as exporter:
        exporter.wait_ready()
        exporter.client.push({"group": "job", "status": -1, "details": "Grüße"})
        exporter.client.push({"group": "core", "status": 1})
        asked = [sys.executable, "-m", "sr_exporter", "check", "--url", exporter.base]
        began = time.monotonic()
        ended = _run(*asked)
        figure(f"sr-exporter check, a process of its own: {time.monotonic() - began:.2f} s")
        assert (ended.returncode, ended.stderr) == (OK, b"")
        assert read(ended.stdout.decode()).state == "OK"
        ended = _run(*asked, "job", LC_ALL="C", PYTHONUTF8="0", PYTHONIOENCODING="ascii")
        assert (ended.returncode, ended.stderr) == (CRITICAL, b"")
        assert b"Gr\\xfc\\xdfe" in ended.stdout
        assert ended.stdout.count(b"\n") == 1
        shell = subprocess.run(
            ["/bin/sh", "-c", '"$@" >&-', "sh", *asked, "job"],
            stderr=subprocess.PIPE,
            timeout=30,
            check=False,
        )
        assert (shell.returncode, shell.stderr) == (CRITICAL, b"")
        for wrong in (["--nonsense"], ["job", "--mi=udp://h:1"], ["--help"], ["a", "b", "c"]):
            ended = _run(*asked, *wrong)
            assert (ended.returncode, ended.stderr) == (UNKNOWN, b"")
    ended = _run(*asked)
    assert (ended.returncode, ended.stderr) == (UNKNOWN, b"")
    assert read(ended.stdout.decode()).state == "UNKNOWN"
    help_text = _run(*asked[:4], "--help").stdout.decode()
    assert max(map(len, help_text.splitlines())) <= 80
    for number in range(4):
        assert f"{number} " in help_text.partition("exit status:")[2]


def _run(*command: str, **environment: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        command,
        capture_output=True,
        timeout=30,
        check=False,
        env={**os.environ, **environment},
    )
