"""SIGTERM at any moment ends it: exit 0, in bounded time, with nothing lost and no traceback."""

from __future__ import annotations

import contextlib
import random
import signal
import socket
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.crowd import Key
from tests.harness import Command, RunningApp, eventually, samples, series
from tests.ports import reserve_port
from tests.pushers import Pushers
from tests.receiver import Receiver

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.once

#: The last deliveries and the requests under way are given 5 s each.
LONGEST_STOP_SECONDS = 12.0
KEYS, AT_ONCE = 20_000, 2_500


def _stop(running: Command) -> float:
    """Ask it to stop; give how long it took."""
    began = time.monotonic()
    running.signal(signal.SIGTERM)
    return _ended(running, began)


def _ended(running: Command, began: float) -> float:
    status = running.wait(LONGEST_STOP_SECONDS)
    took = time.monotonic() - began
    assert status == 0, running.said
    assert "Traceback" not in running.said
    assert "stopped" in running.output[-1]
    return took


def _wait(running: Command, seconds: float) -> None:
    """Let it run for a while; it must not end by itself."""
    with contextlib.suppress(subprocess.TimeoutExpired):
        running.process.wait(seconds)
    assert running.process.poll() is None, running.said


@pytest.mark.parametrize("tenths", range(0, 12, 2))
def test_while_it_starts(tmp_path, tenths):
    """Before it listens to signals the kernel ends it; from then on it ends by itself."""
    with Command(f"--storage.path={tmp_path}") as running:
        _wait(running, tenths / 10 + random.uniform(0.0, 0.2))
        said = running.said
        running.signal(signal.SIGTERM)
        status = running.wait(LONGEST_STOP_SECONDS)
        assert status == 0 or (status == -signal.SIGTERM and not said)
        assert "Traceback" not in running.said


def test_while_it_restores_20000_keys(tmp_path):
    """What is read is not harmed: the next start has it all."""
    with RunningApp(tmp_path) as app:
        for first in range(0, KEYS, AT_ONCE):
            numbers = range(first, first + AT_ONCE)
            items = [{"group": "g", "identifier": f"i{n}", "status": 1} for n in numbers]
            assert app.client.push(*items).json() == {"accepted": AT_ONCE, "changed": AT_ONCE}
    starting = 0
    for _ in range(3):
        with Command(f"--storage.path={tmp_path}") as running:
            eventually(lambda running=running: _reads(running, tmp_path), every=0.001)
            _wait(running, random.uniform(0.0, 0.3))
            starting += "started" not in running.said
            _stop(running)
    assert starting, "no signal fell into the restoring"
    with Command(f"--storage.path={tmp_path}") as running:
        running.wait_ready()
        answer = running.client.session.get(
            f"{running.base}/metrics", params={"name[]": "opensips_sr_identifiers"}, timeout=20
        )
        held = series(samples(answer.text), "opensips_sr_identifiers", source="push")
        assert sum(held.values()) == KEYS


def _reads(running: Command, folder: Path) -> bool:
    """Whether it has the database open."""
    assert running.process.poll() is None, running.said
    database = str(folder / "sr-exporter.sqlite3")
    with contextlib.suppress(OSError):
        for number in Path(f"/proc/{running.process.pid}/fd").iterdir():
            if str(number.readlink()).startswith(database):
                return True
    return False


def test_while_8_clients_push(tmp_path, figure):
    """An answer of 200 is kept; who is not answered so gets 503, or no answer at all."""
    with reserve_port() as reserved:
        port = reserved.getsockname()[1]
        took = []
        with Pushers(port, [[Key(f"c{client}")] for client in range(8)]) as clients:
            for _ in range(3):
                with Command(f"--storage.path={tmp_path}", port=port) as running:
                    running.wait_ready()
                    assert not clients.lost(running.client.metrics())
                    before = clients.total
                    clients.gate.open()
                    eventually(lambda before=before: clients.total > before + 50)
                    _wait(running, random.uniform(0.0, 0.1))
                    took.append(_stop(running))
                    clients.park()
            with Command(f"--storage.path={tmp_path}", port=port) as running:
                running.wait_ready()
                assert not clients.lost(running.client.metrics())
                clients.finish()
                found = running.client.metrics()
                assert not clients.lost(found)
                assert not clients.miscounted(found)
                _stop(running)
        assert set(clients.answers) <= {200, 503}
        figure(
            f"SIGTERM while 8 clients push: exit 0 after at most {max(took):.2f} s;"
            f" {clients.total} pushes acknowledged, 0 lost; meanwhile {clients.answers[503]}"
            f" answered 503, {clients.cut} not answered"
        )


@contextlib.contextmanager
def silent() -> Iterator[socket.socket]:
    """Take connections, and say nothing."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(20)
        yield listener


def _url(listener: socket.socket) -> str:
    return f"http://127.0.0.1:{listener.getsockname()[1]}/x"


WEBHOOK = "notifiers: [{{name: hook, webhook: {{url: '{}', timeout: 5m}}}}]\n"
PEERS = {
    "a source does": "sources: [{{name: sip-1, mi: '{}', timeout: 5m}}]\n",
    "a source, a webhook and an Alertmanager do": (
        "sources: [{{name: sip-1, mi: '{}', timeout: 5m}}]\n"
        "notifiers:\n"
        "  - {{name: hook, webhook: {{url: '{}', timeout: 5m}}}}\n"
        "  - {{name: am, alertmanager: {{urls: ['{}'], timeout: 5m}}}}\n"
    ),
}


@pytest.mark.parametrize("peers", PEERS)
def test_while_peers_do_not_answer(tmp_path, figure, peers):
    """Requests that are under way for ever are given up; what they were to tell stays owed."""
    config = tmp_path / "sr.yml"
    arguments = (f"--config.file={config}", f"--storage.path={tmp_path / 'data'}")
    with contextlib.ExitStack() as stack:
        listeners = [stack.enter_context(silent()) for _ in range(PEERS[peers].count("{}"))]
        config.write_text(PEERS[peers].format(*map(_url, listeners)))
        running = stack.enter_context(Command(*arguments))
        running.wait_ready()
        assert running.client.push({"group": "g", "status": -1}).status_code == 200
        for listener in listeners:
            connection, _ = listener.accept()
            stack.enter_context(connection)
            assert connection.recv(65536).startswith(b"POST ")
        took = _stop(running)
    figure(f"SIGTERM while {peers} not answer: exit 0 after {took:.1f} s")
    with Receiver() as receiver:
        config.write_text(WEBHOOK.format(receiver.url))
        with Command(*arguments) as running:
            if len(listeners) > 1:
                assert receiver.wait_for(1)[0].status == "firing"
            running.wait_ready()
            _stop(running)


def test_a_webhook_under_way_is_waited_for(tmp_path):
    """It is answered after the signal, settled, and not sent again."""
    config = tmp_path / "sr.yml"
    arguments = (f"--config.file={config}", f"--storage.path={tmp_path / 'data'}")
    with silent() as listener:
        config.write_text(WEBHOOK.format(_url(listener)))
        with Command(*arguments) as running:
            running.wait_ready()
            assert running.client.push({"group": "g", "status": -1}).status_code == 200
            connection, _ = listener.accept()
            with connection:
                connection.recv(65536)
                began = time.monotonic()
                running.signal(signal.SIGTERM)
                _wait(running, 0.3)
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
                assert _ended(running, began) < 3
        with Command(*arguments) as running:
            running.wait_ready()
            backlog = series(running.client.metrics(), "sr_exporter_notifier_backlog")
            assert list(backlog.values()) == [0]


def test_scrapers_that_take_nothing_are_cut_off(tmp_path):
    """After their time; one line says how many they were."""
    with Command(f"--storage.path={tmp_path / 'data'}") as running:
        running.wait_ready()
        running.client.push(
            *({"group": "g", "identifier": f"{n:0200}", "status": 1} for n in range(AT_ONCE * 4))
        )
        host, _, port = running.base.removeprefix("http://").partition(":")
        with contextlib.ExitStack() as stack:
            for _ in range(3):
                stuck = stack.enter_context(socket.socket())
                stuck.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                stuck.connect((host, int(port)))
                stuck.sendall(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
                assert stuck.recv(1)
            _stop(running)
            assert running.said.count("Cancel 3 running task(s)") == 1, running.said


def test_an_impatient_operator(tmp_path):
    """One SIGTERM after the other, to the very end, alters nothing."""
    for _ in range(2):
        with Command(f"--storage.path={tmp_path}") as running:
            running.wait_ready()
            assert running.client.push({"group": "g", "status": -1}).status_code == 200
            began = time.monotonic()
            while running.process.poll() is None:
                running.signal(signal.SIGTERM)
                time.sleep(0.0005)
            _ended(running, began)
