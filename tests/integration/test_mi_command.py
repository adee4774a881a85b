"""`sr-exporter mi` against simulated servers, over every transport."""

from __future__ import annotations

import base64
import json

import pytest

from sr_exporter import mi_command
from sr_exporter.mi_command import EXIT_ERROR, EXIT_NO_ANSWER
from sr_exporter.simulator.replies import BasicAuth
from sr_exporter.simulator.servers import MiThread, silent_over
from tests.recorded_mi import asked_at, recorded_node, result
from tests.simulated import KINDS, mi_server


def server_of(kind: str, folder, **more):
    """Make a server of a kind, with the recorded state of a 4.0."""
    node, clock = recorded_node("4.0"), lambda: asked_at("4.0")
    return mi_server(kind, node, folder, clock=clock, **more)


@pytest.mark.parametrize("kind", KINDS)
def test_results_and_errors_come_over_every_transport(kind, tmp_path, capsys):
    """What was recorded is printed as JSON; an error is one line, and 1."""
    with MiThread(server_of(kind, tmp_path)) as server:
        for arguments, expected in (
            (["sr_list_status"], result("4.0", "status-noparams")),
            (["sr_get_status", "core"], result("4.0", "get-core")),
            (["status_report:get", "--param", "group=core"], result("4.0", "get-core")),
        ):
            assert mi_command.run([server.url, *arguments]) == 0
            heard = capsys.readouterr()
            assert json.loads(heard.out) == expected
            assert heard.err == ""
        assert mi_command.run([server.url, "sr_get_status", "nope"]) == EXIT_ERROR
        assert capsys.readouterr() == ("", "sr-exporter: Group not found (404)\n")
        url = server.url
    assert mi_command.run([url, "uptime"]) == EXIT_NO_ANSWER
    heard = capsys.readouterr()
    assert heard.out == ""
    assert heard.err.startswith("sr-exporter: ")
    assert heard.err.count("\n") == 1


@pytest.mark.parametrize("kind", ["udp", "unix", "fifo"])
def test_silence_ends_with_the_time_out(kind, tmp_path, capsys):
    """And says how long it waited."""
    with MiThread(server_of(kind, tmp_path, spoil=silent_over(0))) as server:
        assert mi_command.run([server.url, "--timeout=200ms", "uptime"]) == EXIT_NO_ANSWER
    assert "answer within 0.2 s" in capsys.readouterr().err


def test_a_password_is_sent_where_it_is_asked_for(tmp_path, capsys):
    """Without one the message says what is missing."""
    password = tmp_path / "password"
    password.write_text("secret\n")
    with MiThread(server_of("http", tmp_path, auth=BasicAuth("u", "secret"))) as server:
        assert mi_command.run([server.url, "uptime"]) == EXIT_NO_ANSWER
        assert "401" in capsys.readouterr().err
        given = ["--user", "u", f"--password-file={password}"]
        assert mi_command.run([server.url, *given, "uptime"]) == 0
    said = capsys.readouterr()
    assert base64.b64encode(b"u:secret").decode() not in said.out + said.err
