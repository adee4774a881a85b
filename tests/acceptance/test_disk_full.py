"""A disk that is full, and a database that is locked: it says so, goes on, and recovers."""

from __future__ import annotations

import contextlib
import shutil
import signal
import sqlite3
import time
from collections import defaultdict
from typing import TYPE_CHECKING, Any

import pytest

from sr_exporter.simulator.httpd import MiHttpd
from sr_exporter.simulator.node import SimulatedNode
from sr_exporter.simulator.releases import OPENSIPS_4_0
from sr_exporter.simulator.servers import MiThread
from tests.crowd import Key
from tests.harness import Command, Samples, eventually
from tests.ports import reserve_port
from tests.pushers import Pushers
from tests.receiver import Receiver
from tests.small_disk import SmallDisk, Watch

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.once

UP = ("sr_exporter_store_up", ())
STORE = (
    "opensips_sr_status",
    (("group", "store"), ("identifier", "main"), ("source", "sr_exporter")),
)
WATCHED = (
    "opensips_sr_status",
    (("group", "script"), ("identifier", "watched"), ("source", "sip-1")),
)


class World:
    """A polled server, a webhook receiver, what stands for an Alertmanager, and clients."""

    def __init__(self, folder: Path, port: int, stack: contextlib.ExitStack) -> None:
        self._node = SimulatedNode(OPENSIPS_4_0)
        began = time.time() - 3600
        self._node.start(began)
        self._node.initialized(began)
        self._node.register("script", "watched")
        self._httpd = stack.enter_context(MiThread(MiHttpd(self._node)))
        self.hook = stack.enter_context(Receiver())
        self.alertmanager = stack.enter_context(Receiver())
        self.config = folder / "sr.yml"
        self.config.write_text(
            f"sources: [{{name: sip-1, mi: '{self._httpd.url}',"
            " poll_interval: 100ms, max_share: 1}]\n"
            "notifiers:\n"
            f"  - {{name: hook, webhook: {{url: '{self.hook.url}'}}}}\n"
            f"  - {{name: am, alertmanager: {{urls: ['http://127.0.0.1:{self.alertmanager.port}']}}}}\n"
        )
        keys = [[Key(f"c{client}")] for client in range(5)]
        # Long reports: the log of the database must grow, and finds no room.
        keys.append([Key("long", turns=False, report_bytes=20_000)])
        self.clients = stack.enter_context(Pushers(port, keys, retry_seconds=0.1))

    def turn(self, status: int) -> None:
        """Let the polled server say something else."""
        self._httpd.call(lambda: self._node.set_status("script", "watched", status))

    def told(self, receiver: Receiver, **wanted: str) -> bool:
        """Whether a receiver was told of an alert with these labels, or this status."""
        with receiver.changed:
            bodies = [one.body for one in receiver.received]
        return any(wanted.items() <= _of(alert).items() for alert in _alerts(bodies))


def _alerts(bodies: list[Any]) -> Iterator[dict[str, Any]]:
    """Give the alerts in what was posted: a webhook's body has a list of them, or is one."""
    for body in bodies:
        yield from body if isinstance(body, list) else body["alerts"]


def _of(alert: dict[str, Any]) -> dict[str, str]:
    return {**alert["labels"], "status": alert["annotations"].get("status", "")}


def _shows(running: Command, **wanted: float) -> Samples:
    """Wait until /metrics shows what is wanted."""
    names = {"up": UP, "store": STORE, "watched": WATCHED}

    def look() -> Samples:
        found = running.client.metrics()
        good = all(found.get(names[name]) == value for name, value in wanted.items())
        return found if good else {}

    return eventually(look, within=20)


@pytest.mark.real
def test_a_full_disk_under_load(tmp_path, figure):
    """Pushes get 503, all else goes on from memory; with room again all is well, unasked."""
    with contextlib.ExitStack() as stack:
        port = stack.enter_context(reserve_port()).getsockname()[1]
        disk = stack.enter_context(SmallDisk(tmp_path / "disk", megabytes=16))
        world = World(tmp_path, port, stack)
        clients, hook, alertmanager = world.clients, world.hook, world.alertmanager
        arguments = (f"--config.file={world.config}", f"--storage.path={disk.path / 'data'}")
        slowest: list[float] = []
        for life, end in enumerate((signal.SIGKILL, signal.SIGTERM, signal.SIGKILL)):
            with Command(*arguments, port=port, prefix=disk.inside) as running:
                running.wait_ready()
                assert not clients.lost(running.client.metrics())
                clients.gate.open()
                with Watch(running.base) as watch:
                    if life == 0:
                        _shows(running, up=1, store=1, watched=1)
                        eventually(lambda: clients.total >= 50)
                        began_with = clients.total
                    _fill(disk, clients)
                    _shows(running, up=0, store=-1)
                    _is_told(running, world, hook, alertmanager, status=-3 - life)
                    answer = running.client.push({"group": "late", "status": 1})
                    assert answer.status_code == 503
                    assert answer.headers["Retry-After"]
                    assert "full" in answer.json()["error"]
                    if life == 0:
                        kept = clients.total - began_with
                    if life == 2:
                        before = clients.total
                        began = time.monotonic()
                        disk.make_room()
                        eventually(lambda before=before: clients.total >= before + 20)
                        recovered = time.monotonic() - began
                        _shows(running, up=1, store=1, watched=-3 - life)
                slowest += watch.seconds
                running.signal(end)
                assert running.wait() == (0 if end is signal.SIGTERM else -end)
                assert "Traceback" not in running.said
                clients.park()

        with Command(*arguments, port=port, prefix=disk.inside) as running:
            running.wait_ready()
            assert not clients.lost(running.client.metrics())
            clients.finish()
            found = _shows(running, up=1, store=1, watched=-5)
            assert not clients.lost(found)
            assert not clients.miscounted(found)
            running.signal(signal.SIGTERM)
            assert running.wait() == 0
        journal = _journal(disk, tmp_path)

    figure(
        f"disk full: {kept} pushes acknowledged after the filling began,"
        f" {clients.answers[503]} answered 503; pushes are 200 again {recovered:.2f} s after there"
        f" is room; {clients.total} acknowledged over 3 ends, 0 lost; slowest of"
        f" {len(slowest)} scrapes {max(slowest) * 1000:.0f} ms"
    )
    assert max(slowest) < 2
    assert set(clients.answers) == {200, 503}
    assert journal["watched"][-1] == -5
    for key in clients.keys:
        if key.turns:
            assert journal[key.identifier] == [key.status(number) for number in key.numbers]
    meant = defaultdict(set)
    for one in hook.received:
        (alert,) = one.body["alerts"]
        meant[one.delivery].add(tuple(sorted(_of(alert).items())))
    assert all(len(said) == 1 for said in meant.values()), "one id for two notifications"


def _fill(disk: SmallDisk, clients: Pushers) -> None:
    """Leave no room, until pushes are refused."""
    refused = clients.answers[503]
    eventually(lambda: disk.fill() or clients.answers[503] >= refused + 10, every=0.05)


def _is_told(running: Command, world: World, *receivers: Receiver, status: int) -> None:
    """See that what is polled is shown and told, and how the store stands."""
    world.turn(status)
    _shows(running, watched=status)
    for receiver in receivers:
        eventually(lambda to=receiver: world.told(to, group="script", status=str(status)))
        eventually(lambda to=receiver: world.told(to, group="store", status="-1"))


def _journal(disk: SmallDisk, folder: Path) -> dict[str, list[int]]:
    """Read the statuses in the journal of a store that is closed, by identifier."""
    copy = folder / "copy.sqlite3"
    shutil.copyfile(disk.outside / "data" / "sr-exporter.sqlite3", copy)
    found = defaultdict(list)
    with contextlib.closing(sqlite3.connect(copy)) as database:
        for name, status in database.execute(
            "SELECT identifier, status FROM changes WHERE kind IN ('appeared', 'status')"
            " ORDER BY seq"
        ):
            found[name].append(status)
    return found


def test_a_locked_database_under_load(tmp_path, figure):
    """Another process writes for seconds: pushes wait or get 503, and nothing is lost."""
    with contextlib.ExitStack() as stack:
        port = stack.enter_context(reserve_port()).getsockname()[1]
        world = World(tmp_path, port, stack)
        clients = world.clients
        arguments = (f"--config.file={world.config}", f"--storage.path={tmp_path / 'data'}")
        with Command(*arguments, port=port) as running:
            running.wait_ready()
            clients.gate.open()
            eventually(lambda: clients.total >= 50)
            with (
                Watch(running.base) as watch,
                contextlib.closing(
                    sqlite3.connect(tmp_path / "data" / "sr-exporter.sqlite3", isolation_level=None)
                ) as other,
            ):
                other.execute("BEGIN IMMEDIATE")
                began = time.monotonic()
                world.turn(-3)
                _shows(running, watched=-3)
                eventually(lambda: clients.answers[503] >= 6, within=20)
                eventually(lambda: world.told(world.alertmanager, group="script", status="-3"))
                _shows(running, up=0)
                locked = time.monotonic() - began
                acknowledged = clients.total
                other.execute("ROLLBACK")
                began = time.monotonic()
                eventually(lambda: clients.total >= acknowledged + 20)
                recovered = time.monotonic() - began
                _shows(running, up=1, store=1)
            eventually(lambda: world.told(world.hook, group="script", status="-3"))
            running.process.kill()
            running.wait()
            assert "Traceback" not in running.said
            clients.park()
        with Command(*arguments, port=port) as running:
            running.wait_ready()
            assert not clients.lost(running.client.metrics())
            clients.finish()
            found = _shows(running, watched=-3)
            assert not clients.lost(found)
            assert not clients.miscounted(found)
    figure(
        f"database locked for {locked:.1f} s: {clients.answers[503]} pushes answered 503, 200 again"
        f" {recovered:.2f} s after; {clients.total} acknowledged, 0 lost; slowest scrape"
        f" {max(watch.seconds) * 1000:.0f} ms"
    )
    assert max(watch.seconds) < 3
    assert set(clients.answers) == {200, 503}
