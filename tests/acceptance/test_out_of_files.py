"""Out of descriptors, and back: nobody crashes, nothing that was acknowledged is lost."""

from __future__ import annotations

import contextlib
import errno
import signal
import socket
import threading
import time
from typing import TYPE_CHECKING

import pytest
import requests

from tests.harness import Client, Command, eventually, free_port, series
from tests.receiver import Receiver
from tests.replay import ReplayMi

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

pytestmark = pytest.mark.once

FILES, VISITORS = 128, 400
FULL_SECONDS = 3.0


class Pusher(threading.Thread):
    """Pushes on and on, each over a connection of its own; notes what was acknowledged."""

    def __init__(self, base: str, number: int) -> None:
        super().__init__(daemon=True)
        self.kept = 0
        self.refused = 0
        self._base, self._number = base, number
        self._stopping = threading.Event()

    def run(self) -> None:
        value = 0
        while not self._stopping.is_set():
            value += 1
            client = Client(self._base)
            try:
                item = {"group": "pushed", "identifier": f"p{self._number}", "status": value}
                answer = client.push(item)
            except requests.RequestException:
                self.refused += 1
                continue
            finally:
                client.close()
            if answer.ok:
                self.kept = value
            else:
                assert answer.status_code == 503, answer.text
                self.refused += 1

    def stop(self) -> None:
        self._stopping.set()
        self.join(20)
        assert not self.is_alive()


@contextlib.contextmanager
def visitors(ports: list[int], many: int) -> Iterator[None]:
    """Have as many connections as the other side takes, which ask for nothing."""
    with contextlib.ExitStack() as stack:
        for number in range(many):
            one = stack.enter_context(socket.socket())
            one.setblocking(False)
            assert one.connect_ex(("127.0.0.1", ports[number % len(ports)])) in (
                0,
                errno.EINPROGRESS,
            )
        yield


def tells(exporter: Command, port: int, unix: Path, status: int) -> Callable[[], bool]:
    """Have an event sent to each listener, and look whether both came."""
    body = (
        '{"jsonrpc":"2.0","method":"E_CORE_SR_STATUS_CHANGED","params":'
        '{"group":"%s","identifier":"main","status":%d,"old_status":1}}'
    )

    def told() -> bool:
        with socket.create_connection(("127.0.0.1", port), 5) as one:
            one.sendall((body % ("tcp", status)).encode())
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as one:
            one.sendto((body % ("unix", status)).encode(), str(unix))
        found = exporter.client.metrics()
        return all(
            status in series(found, "opensips_sr_status", group=group).values()
            for group in ("tcp", "unix")
        )

    return told


@pytest.mark.parametrize("hard", [FILES])
def test_out_of_descriptors_and_back(tmp_path: Path, figure, hard: int) -> None:
    """400 connections where 128 files may be open, while it is pushed, polled, and tells."""
    events, unix = free_port(), tmp_path / "events.sock"
    config = tmp_path / "sr.yml"
    with ReplayMi("3.6") as mi, Receiver() as receiver:
        config.write_text(
            f"sources: [{{name: sip-1, mi: {mi.url}, poll_interval: 200ms}}]\n"
            f"events:\n  stream: {{listen: 127.0.0.1:{events}}}\n"
            f"  datagram: {{unix: {{{unix}: sip-2}}}}\n  peers: {{127.0.0.1: sip-3}}\n"
            f"notifiers: [{{name: hook, webhook: {{url: {receiver.url}}}}}]\n"
        )
        arguments = (f"--config.file={config}", f"--storage.path={tmp_path / 'data'}")
        prefix = ("prlimit", f"--nofile={hard}:{hard}")
        with Command(*arguments, prefix=prefix) as exporter:
            exporter.wait_ready()
            eventually(tells(exporter, events, unix, -2))
            pushers = [Pusher(exporter.base, number) for number in range(2)]
            for pusher in pushers:
                pusher.start()
            eventually(lambda: all(pusher.kept for pusher in pushers))
            with visitors([exporter.port, events], VISITORS):
                kept_before = [pusher.kept for pusher in pushers]
                until = time.monotonic() + FULL_SECONDS
                answered = asked = 0
                while time.monotonic() < until:
                    asked += 1
                    with contextlib.suppress(requests.RequestException):
                        exporter.client.close()
                        answered += exporter.client.session.get(
                            f"{exporter.base}/-/healthy", timeout=5
                        ).ok
                kept_meanwhile = [pusher.kept for pusher in pushers]
            eventually(tells(exporter, events, unix, -3))
            for pusher in pushers:
                pusher.stop()
            found = exporter.client.metrics()
            assert exporter.process.poll() is None
            assert found["opensips_sr_source_up", (("source", "sip-1"),)] == 1
            limited = series(found, "sr_exporter_limited_total")
            exporter.signal(signal.SIGKILL)
            exporter.wait()
        with Command(*arguments) as exporter:
            exporter.wait_ready()
            found = exporter.client.metrics()
            held = [
                series(found, "opensips_sr_status", group="pushed", identifier=f"p{number}")
                for number in range(len(pushers))
            ]
    lost = sum(
        next(iter(one.values()), 0) < pusher.kept for one, pusher in zip(held, pushers, strict=True)
    )
    met = {dict(labels)["limit"]: int(count) for labels, count in limited.items() if count}
    figure(
        f"out of descriptors: {VISITORS} connections where {hard} files may be open;"
        f" meanwhile {answered} of {asked} requests answered,"
        f" {sum(kept_meanwhile) - sum(kept_before)} pushes acknowledged;"
        f" {sum(pusher.kept for pusher in pushers)} in all, lost {lost} after kill -9; limits {met}"
    )
    assert not lost
    assert answered > asked // 2
    assert sum(kept_meanwhile) > sum(kept_before)
    assert met
