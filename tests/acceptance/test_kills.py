"""`kill -9` again and again, under load: whatever was acknowledged, shown or owed is there.

The load is pushes, events in `reliable_mode`, polls over HTTP, UDP and a FIFO, scrapes, a webhook
and an Alertmanager that come and go. `SR_KILLS=1000` makes it a long run.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import random
import shutil
import statistics
import subprocess
import tempfile
import threading
import time
from collections import Counter, defaultdict
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from sr_exporter.simulator.node import SimulatedNode
from sr_exporter.simulator.releases import OPENSIPS_4_0
from sr_exporter.simulator.servers import MiThread
from tests.copies import Copied, Original
from tests.crowd import Gate, Key
from tests.event_senders import EventSenders
from tests.fickle import Board, Fickle
from tests.harness import Command, Samples, eventually, samples, series
from tests.ports import reserve_port
from tests.pushers import Pushers
from tests.simulated import mi_server

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.receiver import Received

pytestmark = pytest.mark.once

KILLS = int(os.environ.get("SR_KILLS", "30"))
CLIENTS = 20
#: Of the keys of a client one owes a webhook with each push: the receiver must be able to follow.
TURNING, REPORTING = 1, 2
#: One client pushes long reports instead: commits take a while, and kills fall into them.
LONG_BYTES = 60_000
#: Who sends events, each of keys of its own, all of one source.
SENDERS, EARS = 3, "ears"
#: What is polled, by its kind.
POLLED = {"http": "sip-1", "udp": "sip-2", "fifo": "sip-3"}
#: How long after clients were let in the kill is due.
LONGEST_LIFE_SECONDS = 0.6
#: How long it then waits for its moment.
LONGEST_WAIT_SECONDS = 0.3
#: Every so many kills falls while the process starts, when nobody can push; and every so many
#: while it starts for the first time, and makes its store.
START_KILL_EVERY, BIRTH_KILL_EVERY = 10, 15
#: Every so many lives are the command as anybody would start it, and no copy of one.
COMMAND_EVERY = 20
#: What the kill waits for when it is due: a kill right then is worth many at any moment.
MOMENTS = (
    "now",
    "push answered",
    "event answered",
    "scrape answered",
    "webhook came",
    "webhook answered",
    "alerts answered",
)
#: The journal is trimmed all the while.
RETENTION = "10s"


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


class Ears(EventSenders):
    def __init__(self, port: int, killer: Killer) -> None:
        keys = [[Key(f"e{sender}k{key}") for key in range(2)] for sender in range(SENDERS)]
        super().__init__(EARS, port, keys)
        self._killer = killer

    def acknowledged(self) -> None:
        self._killer.at("event answered")


class Hook(Fickle):
    """The receiver of webhooks."""

    def __init__(self, killer: Killer, is_news: Callable[[str, int], bool]) -> None:
        super().__init__(self._came, lambda _: killer.at("webhook answered"))
        self._killer = killer
        self._is_news = is_news

    def _came(self, received: Received) -> None:
        told = _told(received)
        if told is not None and told[0] == Clients.source and self._is_news(*told[1:]):
            self._killer.at("webhook came")


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

    def __init__(self, kind: str) -> None:
        self._kind = kind
        self._node = SimulatedNode(OPENSIPS_4_0)
        began = time.time() - 3600
        self._node.start(began)
        self._node.initialized(began)
        self._node.register("script", "counted")
        self.reports = 0
        self.still = False

    @contextlib.contextmanager
    def served(self) -> Iterator[str]:
        with tempfile.TemporaryDirectory() as folder:
            server = mi_server(self._kind, self._node, Path(folder), on_request=self._go_on)
            with MiThread(server) as running:
                yield running.url

    def counted(self, found: Samples) -> float | None:
        labels = (("group", "script"), ("identifier", "counted"), ("source", POLLED[self._kind]))
        return found.get(("opensips_sr_reports_total", labels))

    def _go_on(self, _: object) -> None:
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
        self.looks = 0

    def note(self, scraped: bytes | None) -> None:
        if scraped is not None:
            found = samples(scraped.decode())
            self.shown.update({key: value for key, value in found.items() if _counts(key[0])})

    def check(self, found: Samples) -> None:
        """Note which are lower than they were shown, or not there."""
        self.looks += 1
        for key, before in self.shown.items():
            if (now := found.get(key)) is None or now < before:
                self.fallen.append(f"{key}: {before} -> {now}")


def _counts(name: str) -> bool:
    """Whether it survives a restart: what the exporter counts of its own doing does not."""
    own = name.startswith("opensips_sr_events_")
    return name.startswith("opensips_sr_") and name.endswith("_total") and not own


class Lives:
    """Starts the exporter, and knows how that went."""

    def __init__(self, original: Original, port: int, config: Path, folder: Path) -> None:
        self._original = original
        self._port = port
        self._config = config
        self._folder = folder
        #: As anybody may write it: the command takes no retention this short.
        self._plain = folder / "plain.yml"
        lines = config.read_text().splitlines()
        self._plain.write_text("\n".join(one for one in lines if "retention" not in one))
        self.begun = 0
        self.commands = 0
        self.failed: list[str] = []
        #: How long it took until it was ready.
        self.took: list[float] = []

    def copy(self, storage: str = "data") -> Copied:
        self.begun += 1
        return Copied(
            self._original,
            f"--config.file={self._config}",
            f"--storage.path={self._folder / storage}",
            port=self._port,
            log=self._folder / "said",
        )

    def life(self) -> Command:
        """Give the next of many lives."""
        if self.begun % COMMAND_EVERY:
            return self.copy()
        self.begun += 1
        self.commands += 1
        storage = f"--storage.path={self._folder / 'data'}"
        return Command(f"--config.file={self._plain}", storage, port=self._port)

    def await_ready(self, running: Command) -> None:
        began = time.monotonic()
        try:
            running.wait_ready()
        except AssertionError as error:
            self.failed.append(f"{error}: {running.said}\n{self._connections()}")
            raise
        if isinstance(running, Copied):
            self.took.append(time.monotonic() - began)

    def _connections(self) -> str:
        """Say who has its port, as far as that can be told here."""
        asked = ("ss", "-tanp", f"sport = :{self._port} or dport = :{self._port}")
        with contextlib.suppress(FileNotFoundError):
            return subprocess.run(asked, capture_output=True, text=True, check=False).stdout
        return ""

    def kill_starting(self, running: Command) -> None:
        """Kill it while it starts; it must not have ended by itself."""
        copied = isinstance(running, Copied) and self.took
        usual = statistics.median(self.took) if copied else 1.0
        with contextlib.suppress(AssertionError, subprocess.TimeoutExpired):
            running.process.wait(random.uniform(0.0, 1.3 * usual))
        if running.process.poll() is not None:
            self.failed.append(f"it ended: {running.said}\n{self._connections()}")
        running.process.kill()
        running.wait()

    def kill_at_birth(self) -> None:
        """Kill one that makes its store; what it left, the next one can start with."""
        with self.copy("born") as running:
            self.kill_starting(running)
        with self.copy("born") as running:
            self.await_ready(running)
        shutil.rmtree(self._folder / "born")


class Load:
    """Everything that wants something of the exporter."""

    def __init__(self, stack: contextlib.ExitStack, port: int, folder: Path) -> None:
        self.killer = Killer()
        self.clients = Clients(port, self.killer)
        ears_port = stack.enter_context(reserve_port()).getsockname()[1]
        self.ears = Ears(ears_port, self.killer)
        self.hook = stack.enter_context(Hook(self.killer, self.clients.await_answer))
        self.board = stack.enter_context(Board(lambda _: self.killer.at("alerts answered")))
        self.nodes = {kind: Node(kind) for kind in POLLED}
        urls = {kind: stack.enter_context(node.served()) for kind, node in self.nodes.items()}
        self.scraper = Scraper(port, self.killer)
        self.config = folder / "sr.yml"
        self.config.write_text(
            "sources:\n"
            + "".join(
                f"- {{name: {POLLED[kind]}, mi: '{url}', poll_interval: 100ms, max_share: 1}}\n"
                for kind, url in urls.items()
            )
            + f"events: {{stream: {{listen: '127.0.0.1:{ears_port}'}},"
            f" peers: {{127.0.0.1: {EARS}}}}}\n"
            f"storage: {{retention: {RETENTION}}}\n"
            "notifiers:\n"
            f"- {{name: hook, webhook: {{url: '{self.hook.url}', timeout: 2s}}}}\n"
            f"- {{name: board, alertmanager: {{urls: ['{self.board.base}'], timeout: 2s}}}}\n"
        )
        self.scraper.start()
        stack.callback(self.scraper.end)
        for receiver in (self.hook, self.board):
            receiver.begin()
            stack.callback(receiver.be_steady)
        self.ears.begin()
        stack.callback(self.ears.give_up)
        stack.enter_context(self.clients)

    def let_in(self) -> None:
        for gate in (self.clients.gate, self.ears.gate, self.scraper.gate):
            gate.open()

    def park(self) -> None:
        self.scraper.gate.shut()
        self.clients.park()
        self.ears.park()
        self.scraper.gate.wait_for(1)

    @property
    def cut(self) -> int:
        return self.clients.cut + self.ears.cut

    def look(self, running: Command, lives: Lives, counters: Counters, lost: list[str]) -> None:
        """See what a life begins with, before anybody pushes."""
        lives.await_ready(running)
        self.ears.hello()
        eventually(lambda: all(self._up(running).values()), every=0.02, within=20)
        found = running.client.metrics()
        lost += self.clients.lost(found) + self.ears.lost(found)
        counters.check(found)

    def _up(self, running: Command) -> dict[object, float]:
        url = f"{running.base}/metrics?name[]=opensips_sr_source_up"
        answer = running.client.session.get(url, timeout=10)
        found = series(samples(answer.text), "opensips_sr_source_up")
        assert len(found) == len(POLLED)
        return dict(found)

    def end(self, running: Command) -> Samples:
        """Have everything said, heard and delivered; give what is shown then."""
        self.clients.finish()
        self.ears.finish()
        self.hook.be_steady()
        self.board.be_steady()
        for node in self.nodes.values():
            node.still = True

        def delivered() -> bool:
            owed = series(running.client.metrics(), "sr_exporter_notifier_backlog")
            return not any(owed.values())

        eventually(delivered, within=180, every=0.2)

        def heard() -> Samples | None:
            found = running.client.metrics()
            all_heard = all(node.counted(found) == node.reports for node in self.nodes.values())
            return found if all_heard else None

        found = eventually(heard, within=30, every=0.1)
        assert found is not None
        return found

    def wrong_alerts(self, found: Samples) -> list[str]:
        """Say of which keys the board does not hold what is so."""
        levels, wrong = self.board.levels(), []
        for source in (Clients.source, EARS):
            began = series(found, "opensips_sr_status_change_timestamp_seconds", source=source)
            for labels, ready in series(found, "opensips_sr_ready", source=source).items():
                said = dict(labels)
                level = levels.get((source, said["group"], said["identifier"]))
                if (level is not None and level.fires) is bool(ready):
                    wrong.append(f"{said}: ready is {ready}, the board has {level}")
                if not ready and level and abs(level.starts_at - began[labels]) > 0.001:
                    wrong.append(f"{said}: since {began[labels]}, the board has {level}")
        return wrong


@pytest.mark.timeout(120 + 10 * KILLS)
def test_kill_9_under_load_again_and_again(tmp_path, figure):
    """Nothing acknowledged is lost, no counter falls, each webhook arrives, in order, as one."""
    counters, lost = Counters(), list[str]()
    moments: Counter[str] = Counter()
    under_way = 0
    with contextlib.ExitStack() as stack:
        port = stack.enter_context(reserve_port()).getsockname()[1]
        original = stack.enter_context(Original())
        load = Load(stack, port, tmp_path)
        lives = Lives(original, port, load.config, tmp_path)
        began = time.monotonic()
        for kill in range(1, KILLS + 1):
            if kill % BIRTH_KILL_EVERY == 0:
                lives.kill_at_birth()
                moments["making its store"] += 1
                continue
            with lives.life() as running:
                if kill % START_KILL_EVERY == 0:
                    lives.kill_starting(running)
                    moments["starting"] += 1
                    continue
                load.look(running, lives, counters, lost)
                cut = load.cut
                load.let_in()
                load.clients.pause.wait(random.uniform(0.0, LONGEST_LIFE_SECONDS))
                moment = random.choice(MOMENTS)
                load.killer.kill(running.process, moment)
                running.wait()
                assert "Traceback" not in running.said
                load.park()
                moments[moment] += 1
                under_way += load.cut > cut
                counters.note(load.scraper.last)
                load.scraper.last = None
        took = time.monotonic() - began
        with lives.life() as running:
            load.look(running, lives, counters, lost)
            found = load.end(running)
            wrong_alerts = eventually(lambda: [load.wrong_alerts(found)], within=5)[0]
    told = Told(load.hook)
    crowds = {Clients.source: load.clients, EARS: load.ears}
    owed = [
        (source, key.identifier, n)
        for source, crowd in crowds.items()
        for key in crowd.keys
        if key.turns
        for n in key.numbers
    ]
    unheard = sorted(set(owed) - told.accepted)
    miscounted = load.clients.miscounted(found) + load.ears.miscounted(found)
    polled = sum(node.reports for node in load.nodes.values())
    figure(
        f"kill -9: {KILLS} kills in {took:.0f} s, {under_way} with a push or event unanswered; "
        + ", ".join(f"{count} {moment}" for moment, count in sorted(moments.items()))
    )
    figure(
        f"kill -9: {load.clients.total} pushes and {load.ears.total} events acknowledged,"
        f" {len(lost)} lost, {len(miscounted)} miscounted; {polled} polled reports counted once;"
        f" {len(counters.shown)} counters looked at {counters.looks} times,"
        f" {len(counters.fallen)} fell"
    )
    figure(
        f"kill -9: {len(owed)} webhooks owed, {len(unheard)} lost, {len(told.late)} out of order,"
        f" {len(told.doubled)} under two ids, {told.again} accepted twice;"
        f" {load.board.posts} posts to Alertmanager, {len(wrong_alerts)} alerts wrong in the end"
    )
    figure(
        f"kill -9: {len(lives.failed)} of {lives.begun} starts failed,"
        f" {lives.commands} of them of the command itself; ready after"
        f" {1000 * statistics.median(lives.took):.0f} ms, at most {1000 * max(lives.took):.0f} ms"
    )
    assert not lost
    assert not counters.fallen
    assert not miscounted
    assert not lives.failed
    assert not unheard
    assert not wrong_alerts
    assert not told.doubled
    assert not told.shared
    assert not told.late
    assert under_way >= 0.7 * KILLS


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
        self.late: list[tuple[str, str, int, int]] = []
        #: How many were accepted once more than once.
        self.again = 0
        self.accepted: set[tuple[str, str, int]] = set()
        newest: dict[tuple[str, str], int] = defaultdict(int)
        for received in hook.accepted:
            if (told := _told(received)) is None:
                continue
            source, identifier, number = told
            key = source, identifier
            if number < newest[key]:
                self.late.append((*key, number, newest[key]))
            self.again += told in self.accepted
            newest[key] = max(newest[key], number)
            self.accepted.add(told)


def _told(received: Received) -> tuple[str, str, int] | None:
    """Give source, identifier and n of a notification; None for one of somebody else's."""
    (alert,) = received.body["alerts"]
    labels = alert["labels"]
    if labels.get("group") != Clients.group:
        return None
    return labels["source"], labels["identifier"], abs(int(alert["annotations"]["status"]))
