"""What the exporter asks of others, and keeps to itself, whatever is pushed to it or answered.

What is told here is in docs/security.md too.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import secrets
import unicodedata
from itertools import cycle
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from sr_exporter import check_command, mi_command, notifications_command, push_command
from sr_exporter.config import load
from tests.attacks import Ask, exchange
from tests.harness import RunningApp, eventually, series
from tests.integration.test_attacks_reading import NASTY
from tests.peer import OK, Peer
from tests.receiver import Receiver

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Iterator
    from pathlib import Path

pytestmark = pytest.mark.once

#: What a webhook may say in its head.
HEADERS = {
    *("host", "user-agent", "accept-encoding", "accept", "connection", "content-type"),
    *("content-length", "x-sr-delivery"),
}


@contextlib.contextmanager
def peer(script: Callable[[Peer, socket.socket], None]) -> Iterator[Peer]:
    made = Peer(script)
    try:
        yield made
    finally:
        made.close()


def _trap(peer: Peer, connection: socket.socket) -> None:
    """Take anything, as if it were what was wanted."""
    while True:
        peer.read_request(connection)
        connection.sendall(OK)


def _elsewhere(port: int) -> Callable[[Peer, socket.socket], None]:
    """Send everybody there, by every kind of redirect in turn."""
    codes = cycle((301, 302, 303, 307, 308))

    def script(peer: Peer, connection: socket.socket) -> None:
        while True:
            peer.read_request(connection)
            head = (
                f"HTTP/1.1 {next(codes)} Elsewhere\r\nLocation: http://127.0.0.1:{port}/owned\r\n"
            )
            connection.sendall(f"{head}Content-Length: 0\r\n\r\n".encode())

    return script


@pytest.fixture
def lured(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Peer]:
    """Give a trap, to which the environment leads as well."""
    with peer(_trap) as trap:
        for name in ("http_proxy", "https_proxy", "all_proxy"):
            for spelled in (name, name.upper()):
                monkeypatch.setenv(spelled, f"http://127.0.0.1:{trap.port}")
        for name in ("no_proxy", "NO_PROXY"):
            monkeypatch.delenv(name, raising=False)
        netrc = tmp_path / "netrc"
        netrc.write_text("default login netrc password netrc\n")
        netrc.chmod(0o600)
        monkeypatch.setenv("NETRC", str(netrc))
        yield trap


def test_no_redirect_is_followed_and_no_password_goes_on(lured, tmp_path, figure):
    """Of a source, a webhook and an Alertmanager, in an environment that leads astray."""
    secret = tmp_path / "secret"
    secret.write_text("hunter2")
    auth = {"username": "u", "password_file": "secret"}
    with (
        peer(_elsewhere(lured.port)) as mi,
        peer(_elsewhere(lured.port)) as webhook,
        peer(_elsewhere(lured.port)) as alertmanager,
    ):
        source = {"name": "sip-1", "mi": f"http://127.0.0.1:{mi.port}/mi", "basic_auth": auth,
                  "poll_interval": "100ms", "max_share": 1}  # fmt: skip
        hook = {"url": f"http://127.0.0.1:{webhook.port}/hook", "basic_auth": auth}
        bearer = {"credentials_file": "secret"}
        levels = {"urls": [f"http://127.0.0.1:{alertmanager.port}"], "authorization": bearer}
        file = tmp_path / "sr.yml"
        file.write_text(
            yaml.safe_dump(
                {
                    "sources": [source],
                    "alerts": {"rules": [{"source": "sip-1", "for": "0s"}]},
                    "notifiers": [{"name": "hook", "webhook": hook},
                                  {"name": "levels", "alertmanager": levels}],
                }
            )
        )  # fmt: skip
        with RunningApp(tmp_path / "data", config_file=file) as app:
            for number in range(5):
                assert app.client.push({"group": "g", "identifier": str(number), "status": -1}).ok
            path = f"{app.base}/api/v1/notifications"
            eventually(lambda: len(app.client.session.get(path).json()["items"]) >= 5)
            eventually(lambda: mi.requests and alertmanager.requests)
            dead = app.client.session.get(path).json()["items"]
            assert {one["reason"][:6] for one in dead} == {"HTTP 3"}
            failures = series(app.client.metrics(), "opensips_sr_poll_failures_total",
                              reason="http_status")  # fmt: skip
            assert sum(failures.values()) > 0
        asked = [*mi.requests, *webhook.requests, *alertmanager.requests]
        assert all(b"authorization: " in one.lower() for one in asked)
        assert not any(b"bmV0cmM6bmV0cmM=" in one for one in asked)
    assert (lured.connections, lured.requests) == (0, [])
    figure(f"{len(asked)} requests redirected, with proxies in the environment: 0 followed")


def test_nothing_that_is_pushed_is_asked_or_forges_a_request(lured, tmp_path, figure):
    """Addresses in every place of a push, and whatever else: receivers are sent what was said."""
    address = f"http://127.0.0.1:{lured.port}/owned"
    texts = [*NASTY, address, f"udp://127.0.0.1:{lured.port}", f"{{{{ fetch('{address}') }}}}"]
    with Receiver() as hook, Receiver() as levels:
        file = tmp_path / "sr.yml"
        notifiers = [{"name": "hook", "webhook": {"url": hook.url}},
                     {"name": "levels", "alertmanager": {"urls": [levels.base]}}]  # fmt: skip
        file.write_text(yaml.safe_dump({"notifiers": notifiers}))
        with RunningApp(tmp_path / "data", config_file=file) as app:
            assert app.client.push(*(
                {"source": text, "group": text, "identifier": text, "status": -1, "details": text,
                 "reports": [text]} for text in texts
            )).ok  # fmt: skip
            call = {
                "jsonrpc": "2.0",
                "id": 1,
                "method": "event_subscribe",
                "params": ["E_CORE_SR_STATUS_CHANGED", f"tcp:127.0.0.1:{lured.port}"],
            }
            session = app.client.session
            assert "error" in session.post(f"{app.base}/mi", json=call, timeout=5).json()
            heard = hook.wait_for(len(texts))
            eventually(lambda: sum(len(one.body) for one in levels.received) >= len(texts))
        told = {alert["labels"]["identifier"] for one in heard for alert in one.body["alerts"]}
        assert told == set(texts)
        for one in (*heard, *levels.received):
            assert {name.lower() for name in one.headers} <= HEADERS, one.headers
            assert all(value.isprintable() for value in one.headers.values())
    assert lured.connections == 0
    figure(f"{len(heard)} webhooks of nasty texts: 0 headers forged, nobody else asked")


# --- on terminals ------------------------------------------------------------------------------


def test_no_text_reaches_a_terminal_as_a_command(tmp_path, capfd):
    """What commands print of sources is one line each, of what can be printed."""
    with Receiver(400) as receiver:
        file = tmp_path / "sr.yml"
        hook = {"name": "hook", "webhook": {"url": receiver.url}}
        file.write_text(yaml.safe_dump({"notifiers": [hook]}))
        with RunningApp(tmp_path / "data", config_file=file) as app:
            assert app.client.push(*(
                {"group": text, "identifier": text, "status": -1, "details": f"{text}|x=1"}
                for text in NASTY
            )).ok  # fmt: skip
            path = f"{app.base}/api/v1/notifications"
            eventually(lambda: len(app.client.session.get(path).json()["items"]) == len(NASTY))
            capfd.readouterr()
            # What a command line cannot hold is not asked for by one.
            asked = [text for text in NASTY if "\0" not in text]
            for text in asked:
                assert check_command.run(["--url", app.base, "--", text, text]) == 2
            lines = capfd.readouterr().out.splitlines(keepends=True)
            assert len(lines) == len(asked)
            assert all(line.count("|") == 1 and line[:-1].isprintable() for line in lines)
            assert notifications_command.run(["list", "--url", app.base]) == 0
            lines = capfd.readouterr().out.splitlines(keepends=True)
            assert len(lines) == len(NASTY)
            assert all(line[:-1].isprintable() for line in lines)
            assert mi_command.run([f"{app.base}/mi", "sr_list_status"]) == 0
            shown = capfd.readouterr().out
            kinds = {unicodedata.category(letter) for letter in shown.replace("\n", "")}
            assert not kinds & {"Cc", "Zl", "Zp"}, kinds
            assert len(json.loads(shown)) == len(NASTY)
            for text in NASTY:
                given = ["--url", app.base, "--group", text, "--source", "sr_exporter"]
                assert push_command.run([*given, "--status", "1"]) == 1
            lines = capfd.readouterr().err.splitlines(keepends=True)
            assert len(lines) == len(NASTY)
            assert all(line[:-1].isprintable() for line in lines)


# --- secrets -----------------------------------------------------------------------------------


def _holds(found: Any, wanted: str, deeper: int = 4) -> bool:
    """Whether a text is in what the collector does not look into, or is that itself."""
    if isinstance(found, str):
        return wanted in found
    if isinstance(found, (bytes, bytearray)):
        return wanted.encode() in found
    if deeper and not gc.is_tracked(found):
        return any(_holds(one, wanted, deeper - 1) for one in gc.get_referents(found))
    return False


def _held(backwards: str) -> list[type]:
    """Give what kinds of objects of this process hold a text, which is written backwards here."""
    gc.collect()
    objects = gc.get_objects()
    holders = []
    wanted = backwards[::-1]
    for holder in objects:
        for found in gc.get_referents(holder):
            if _holds(found, wanted):
                holders.append(type(holder))  # noqa: PERF401 - a comprehension would hold it, too
    return holders


@pytest.mark.parametrize("where", ["token_file", "token_env"])
def test_a_token_is_held_as_its_hash_alone_and_shown_nowhere(tmp_path, capfd, where, figure):
    """No object of the process has it, once it was read and used; nor has anything it shows."""
    backwards = secrets.token_hex(16)  # this test must not hold it, either
    named = {"token_file": "push.token", "token_env": "SR_TEST_TOKEN"}[where]
    (tmp_path / "push.token").write_text(backwards[::-1])
    file = tmp_path / "sr.yml"
    file.write_text(yaml.safe_dump({"push": {"tokens": [{where: named, "groups": ["g"]}]}}))
    os.environ["SR_TEST_TOKEN"] = backwards[::-1]
    try:
        read = load(file)
    finally:
        del os.environ["SR_TEST_TOKEN"]
    with RunningApp(tmp_path / "data", read) as app:
        for group, code in (("g", 200), ("other", 403)):
            said = (("Authorization", f"Bearer {backwards[::-1]}"),)
            body = json.dumps({"group": group, "status": 1}).encode()
            ask = Ask("POST", "/api/v1/push", body)
            answer = exchange(app.port, ask.written(said, app.port))
            assert answer.status == code
            assert backwards[::-1].encode() not in answer.body
        del said, ask
        eventually(lambda: not _held(backwards))  # until the connections are closed
        session = app.client.session
        pages = ("/", "/metrics", "/api/v1/sources", "/api/v2/status")
        shown = "".join(session.get(app.base + path, timeout=10).text for path in pages)
        shown += "".join(capfd.readouterr())
    assert backwards[::-1] not in shown + repr(read)
    figure(f"{where}: 0 of {len(gc.get_objects())} objects hold the token")
