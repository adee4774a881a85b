"""`kill -9` again and again, under load: whatever was acknowledged, shown or owed is there.

`SR_KILLS=250` makes it a long run.
"""

from __future__ import annotations

import contextlib
import http.client
import itertools
import os
import random
import subprocess
import threading
import time
from collections import defaultdict
from typing import TYPE_CHECKING

import pytest

from sr_exporter.simulator.httpd import MiHttpd
from sr_exporter.simulator.node import SimulatedNode
from sr_exporter.simulator.releases import OPENSIPS_4_0
from sr_exporter.simulator.servers import MiThread
from tests.harness import Command, Samples, eventually, samples
from tests.ports import reserve_port
from tests.pushers import Gate, Key, Pushers
from tests.receiver import Received, Receiver

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sr_exporter.simulator.requests import Request

KILLS = int(os.environ.get("SR_KILLS", "30"))
CLIENTS = 20
#: Of the keys of a client one owes a webhook with each push: the receiver must be able to follow.
TURNING, REPORTING = 1, 2
#: One client pushes long reports instead: commits take a while, and kills fall into them.
LONG_BYTES = 60_000
#: How long after clients were let in the kill is due.
LONGEST_LIFE_SECONDS = 0.7
#: How long it then waits for its moment.
LONGEST_WAIT_SECONDS = 0.4
#: Every so many kills falls while the process starts, when nobody can push.
START_KILL_EVERY = 10
#: What the kill waits for when it is due: a kill right then is worth many at any moment.
MOMENTS = ("now", "push answered", "scrape answered", "webhook came", "webhook answered")

POLLED = (
    "opensips_sr_reports_total",
    (("group", "script"), ("identifier", "counted"), ("source", "sip-1")),
)


class Killer:
    """Kills the process that runs, once, at the moment that is asked for."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[str] | None = None
        self._moment = ""
        self._killed = threading.Event()

    def at(self, moment: str) -> None:
        """Something happened; kill if that is what the kill waits for."""
        if self._moment == moment:
            self._shoot()

    def kill(self, process: subprocess.Popen[str], moment: str) -> None:
        """Kill at the next such moment, or at once if there is none for a while."""
        self._killed.clear()
        self._process, self._moment = process, moment
        if moment != "now":
            self._killed.wait(LONGEST_WAIT_SECONDS)
        self._shoot()

    def _shoot(self) -> None:
        with self._lock:
            if self._process is not None:
                self._process.kill()
                self._process = None
                self._moment = ""
                self._killed.set()


class Clients(Pushers):
    def __init__(self, port: int, killer: Killer) -> None:
        keys = [
            [Key(f"c{client}k{key}", turns=key < TURNING) for key in range(TURNING + REPORTING)]
            for client in range(CLIENTS)
        ]
        keys[0] = [Key("long", turns=False, report_bytes=LONG_BYTES)]
        super().__init__(port, keys)
        self._killer = killer
        self._named = {key.identifier: key for key in self.keys}

    def await_answer(self, identifier: str, number: int) -> bool:
        """Say whether the push of this n is under way: its webhook is early, or just in time."""
        return number > self._named[identifier].acknowledged

    def acknowledged(self) -> None:
        self._killer.at("push answered")


class Hook(Receiver):
    """A receiver that takes, refuses, and is not there, by turns."""

    def __init__(self, killer: Killer, is_news: Callable[[str, int], bool]) -> None:
        super().__init__(200)
        self._killer = killer
        self._is_news = is_news
        self._steady = threading.Event()
        self._fickle = threading.Thread(target=self._turn)

    def begin(self) -> None:
        self._fickle.start()

    def _turn(self) -> None:
        for how in itertools.cycle(("taking", "refusing", "taking", "away")):
            self.answer(503 if how == "refusing" else 200)
            if how == "away":
                self.refuse()
            else:
                self.listen()
            if self._steady.wait(random.uniform(0.05, 3.0 if how == "taking" else 0.6)):
                break

    def be_steady(self) -> None:
        """Take everything from now on."""
        self._steady.set()
        self._fickle.join()
        self.answer(200)
        self.listen()

    def take(self, received: Received) -> int:
        told = _told(received)
        if told is not None and self._is_news(*told):
            self._killer.at("webhook came")
        return super().take(received)

    def answered(self, received: Received, code: int) -> None:
        super().answered(received, code)
        if code == 200:
            self._killer.at("webhook answered")


class Scraper(threading.Thread):
    """Scrapes without pause while it is let; `last` is the last answer that came whole."""

    def __init__(self, port: int, killer: Killer) -> None:
        super().__init__(daemon=True)
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        self._killer = killer
        self.gate = Gate()
        self.over = False
        self.last: bytes | None = None

    def run(self) -> None:
        while True:
            self.gate()
            if self.over:
                return
            try:
                self._connection.request("GET", "/metrics")
                answer = self._connection.getresponse()
                body = answer.read()
            except (OSError, http.client.HTTPException):
                self._connection.close()
                continue
            self._killer.at("scrape answered")
            assert answer.status == 200
            self.last = body

    def end(self) -> None:
        self.over = True
        self.gate.open()
        self.join(10)
        self._connection.close()


class Node:
    """A polled server in whose rings there is a new report, and a new status, at each request."""

    def __init__(self) -> None:
        self._node = SimulatedNode(OPENSIPS_4_0)
        began = time.time() - 3600
        self._node.start(began)
        self._node.initialized(began)
        self._node.register("script", "counted")
        self.reports = 0
        self.still = False

    @contextlib.contextmanager
    def served(self) -> Iterator[str]:
        with MiThread(MiHttpd(self._node, on_request=self._go_on)) as httpd:
            yield httpd.url

    def _go_on(self, _: Request) -> None:
        if self.still:
            return
        self.reports += 1
        self._node.set_status("script", "counted", random.choice((1, 2, -1, -2)))
        self._node.add_report("script", "counted", f"report {self.reports}", time.time())


class Counters:
    """Every counter of SR state, as it was last shown."""

    def __init__(self) -> None:
        self.shown: Samples = {}
        self.fallen: list[str] = []

    def note(self, scraped: bytes | None) -> None:
        if scraped is not None:
            found = samples(scraped.decode())
            self.shown.update({key: value for key, value in found.items() if _counts(key[0])})

    def check(self, found: Samples, *, polled: bool) -> None:
        """Note which are lower than they were shown, or not there."""
        for key, before in self.shown.items():
            if (("source", "sip-1") in key[1]) is not polled:
                continue
            if (now := found.get(key)) is None or now < before:
                self.fallen.append(f"{key}: {before} -> {now}")


def _counts(name: str) -> bool:
    return name.startswith("opensips_sr_") and name.endswith("_total")


@pytest.mark.timeout(120 + 10 * KILLS)
def test_kill_9_under_load_again_and_again(tmp_path, figure):
    """Nothing acknowledged is lost, no counter falls, each webhook arrives, in order, as one."""
    with contextlib.ExitStack() as stack:
        port = stack.enter_context(reserve_port()).getsockname()[1]
        killer = Killer()
        clients = Clients(port, killer)
        hook = stack.enter_context(Hook(killer, clients.await_answer))
        node = Node()
        config = tmp_path / "sr.yml"
        config.write_text(
            f"sources: [{{name: sip-1, mi: '{stack.enter_context(node.served())}',"
            " poll_interval: 100ms, max_share: 1}]\n"
            f"notifiers: [{{name: hook, webhook: {{url: '{hook.url}'}}}}]\n"
        )
        arguments = (f"--config.file={config}", f"--storage.path={tmp_path / 'data'}")
        scraper = Scraper(port, killer)
        scraper.start()
        stack.callback(scraper.end)
        hook.begin()
        stack.callback(hook.be_steady)
        stack.enter_context(clients)

        counters = Counters()
        lost: list[str] = []
        under_way = 0
        for kill in range(1, KILLS + 1):
            with Command(*arguments, port=port) as running:
                if kill % START_KILL_EVERY == 0:
                    with contextlib.suppress(subprocess.TimeoutExpired):
                        running.process.wait(random.uniform(0.0, 1.2))
                    assert running.process.poll() is None, f"it ended: {running.said}"
                    running.process.kill()
                    running.wait()
                    continue
                _look(running, clients, counters, lost)
                cut = clients.cut
                clients.gate.open()
                scraper.gate.open()
                clients.pause.wait(random.uniform(0.0, LONGEST_LIFE_SECONDS))
                killer.kill(running.process, random.choice(MOMENTS))
                running.wait()
                assert "Traceback" not in running.said
                scraper.gate.shut()
                clients.park()
                scraper.gate.wait_for(1)
                under_way += clients.cut > cut
                counters.note(scraper.last)
                scraper.last = None
        with Command(*arguments, port=port) as running:
            _look(running, clients, counters, lost)
            clients.finish()
            hook.be_steady()
            backlog = ("sr_exporter_notifier_backlog", (("notifier", "hook"),))
            eventually(lambda: running.client.metrics()[backlog] == 0, within=120, every=0.1)
            node.still = True
            found = eventually(
                lambda: (found := running.client.metrics())[POLLED] == node.reports and found
            )
    told = Told(hook)
    owed = [(key.identifier, n) for key in clients.keys if key.turns for n in key.numbers]
    unheard = sorted(set(owed) - told.accepted)
    miscounted = clients.miscounted(found)
    figure(
        f"kill -9: {KILLS} kills, {under_way} with a push unanswered;"
        f" {clients.total} pushes acknowledged, {len(lost)} lost;"
        f" {len(owed)} webhooks owed, {len(unheard)} lost, {len(told.late)} out of order,"
        f" {len(told.doubled)} under two ids, {told.again} accepted twice;"
        f" {len(counters.fallen)} counters fell; 0 of {KILLS + 1} starts failed"
    )
    assert not lost
    assert not counters.fallen
    assert not miscounted
    assert not unheard
    assert not told.doubled
    assert not told.shared
    assert not told.late
    assert under_way >= 0.8 * KILLS


def _look(running: Command, clients: Clients, counters: Counters, lost: list[str]) -> None:
    """See what a life begins with, before anybody pushes."""
    running.wait_ready()
    found = running.client.metrics()
    lost += clients.lost(found)
    counters.check(found, polled=False)
    up = ("opensips_sr_source_up", (("source", "sip-1"),))
    heard = eventually(lambda: (found := running.client.metrics())[up] == 1 and found)
    counters.check(heard, polled=True)


class Told:
    """What the receiver heard of the clients' keys."""

    def __init__(self, hook: Hook) -> None:
        ids, tales = defaultdict(set), defaultdict(set)
        for received in hook.received:
            if (told := _told(received)) is not None:
                ids[told].add(received.delivery)
                tales[received.delivery].add(told)
        #: What was sent under more than one id, and ids under which more than one was sent.
        self.doubled = [told for told, seen in ids.items() if len(seen) > 1]
        self.shared = [delivery for delivery, seen in tales.items() if len(seen) > 1]
        #: What was accepted after something newer of the same key, and that.
        self.late: list[tuple[str, int, int]] = []
        #: How many were accepted once more than once.
        self.again = 0
        self.accepted: set[tuple[str, int]] = set()
        newest: dict[str, int] = defaultdict(int)
        for received in hook.accepted:
            if (told := _told(received)) is None:
                continue
            key, number = told
            if number < newest[key]:
                self.late.append((key, number, newest[key]))
            self.again += told in self.accepted
            newest[key] = max(newest[key], number)
            self.accepted.add(told)


def _told(received: Received) -> tuple[str, int] | None:
    """Give key and n of a notification; None for one of somebody else's."""
    (alert,) = received.body["alerts"]
    if alert["labels"].get("group") != Clients.group:
        return None
    return alert["labels"]["identifier"], abs(int(alert["annotations"]["status"]))
