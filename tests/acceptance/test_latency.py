"""From a change to its receiver: milliseconds, however much is held and whoever hangs.

`SR_LATENCY_SAMPLES=1000` measures as many of each kind as the issue names, and
`SR_LATENCY_SCRAPED=100` besides so many while somebody scrapes once a second.
"""

from __future__ import annotations

import contextlib
import gc
import http.client
import json
import math
import os
import queue
import socket
import sqlite3
import statistics
import threading
import time
from typing import TYPE_CHECKING

import pytest

from tests.fast_receiver import FastReceiver
from tests.harness import Command, free_port
from tests.recorded_events import logs, reads

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

SAMPLES = int(os.environ.get("SR_LATENCY_SAMPLES", "200"))
SCRAPED = int(os.environ.get("SR_LATENCY_SCRAPED", "0"))
IDENTIFIERS = int(os.environ.get("SR_LATENCY_IDENTIFIERS", "100000"))
AT_ONCE = 10_000
PROMISED_SECONDS = 0.05
#: What a quiet machine takes at p99 for one commit to its disk and one request to itself. One
#: that is slower at that is given as many times longer for all of it.
QUIET_SECONDS = 0.005
PATHS = {"/hook": "webhook", "/api/v2/alerts": "Alertmanager"}


class Receiver(FastReceiver):
    """Both kinds of receiver: notes when the whole of a notification was there."""

    def __init__(self) -> None:
        super().__init__()
        #: When, where (one of `PATHS`), and the identifiers that it is about.
        self.arrivals: queue.SimpleQueue[tuple[float, str, set[str]]] = queue.SimpleQueue()

    def take(self, head: bytes, body: bytes) -> None:
        at = time.perf_counter()
        said = json.loads(body)
        alerts = said["alerts"] if isinstance(said, dict) else said
        about = {alert["labels"].get("identifier", "") for alert in alerts}
        self.arrivals.put((at, head.split()[1].decode(), about))

    def heard_of(self, identifier: str, paths: set[str]) -> dict[str, float]:
        """Wait until all these were told of an identifier; give when each was first."""
        found: dict[str, float] = {}
        while paths - found.keys():
            at, path, identifiers = self.arrivals.get(timeout=20)
            if identifier in identifiers:
                found.setdefault(path, at)
        return found


class Posts:
    """Posts JSON over one connection."""

    def __init__(self, port: int) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        self._connection.connect()

    def __call__(self, path: str, what: object) -> None:
        try:
            answer = self._answer(path, what)
        except ConnectionError:  # it was idle for too long
            self._connection.close()
            answer = self._answer(path, what)
        answer.read()
        assert answer.status == 200

    def _answer(self, path: str, what: object) -> http.client.HTTPResponse:
        self._connection.request("POST", path, json.dumps(what))
        return self._connection.getresponse()

    def close(self) -> None:
        self._connection.close()


class Events:
    """Sends events as a real OpenSIPS' event_stream does, over one connection."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        recorded = reads(logs("tcp")[0])[0]
        self._event = json.loads(recorded)
        assert self._written() == recorded

    def __call__(self, identifier: str) -> None:
        self._event["params"] |= {"identifier": identifier, "status": -1, "old_status": 1}
        self._socket.sendall(self._written())

    def _written(self) -> bytes:
        return json.dumps(self._event, separators=(",", ":")).encode()

    def close(self) -> None:
        self._socket.close()


class Floor:
    """What one commit to this disk and one request to this machine take, without an exporter."""

    def __init__(self, folder: Path, receiver: Receiver) -> None:
        self._database = sqlite3.connect(folder / "floor.sqlite3", isolation_level=None)
        self._database.execute("PRAGMA journal_mode=WAL")
        self._database.execute("PRAGMA synchronous=FULL")
        self._database.execute("CREATE TABLE floor (said TEXT)")
        self._receiver = receiver
        self._posts = Posts(receiver.port)
        self.took: list[float] = []

    def measure(self) -> None:
        """Measure it once more."""
        began = time.perf_counter()
        self._database.execute("INSERT INTO floor VALUES ('a row as long as one of ours, or so')")
        self._posts("/floor", [{"labels": {"identifier": "floor"}}])
        self.took.append(self._receiver.heard_of("floor", {"/floor"})["/floor"] - began)

    def close(self) -> None:
        self._posts.close()
        self._database.close()


def p99(took: list[float]) -> float:
    return sorted(took)[math.ceil(len(took) * 0.99) - 1]


def said(took: list[float]) -> str:
    middle, most = statistics.median(took) * 1000, max(took) * 1000
    return f"median {middle:.1f} ms, p99 {p99(took) * 1000:.1f} ms, at most {most:.1f} ms"


@contextlib.contextmanager
def our_own_pauses_put_off() -> Iterator[None]:
    """Have this process not look through all that its tests ever made while it measures."""
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


@contextlib.contextmanager
def scraping(running: Command) -> Iterator[list[float]]:
    """Scrape once a second; gives how long each took."""
    over, took = threading.Event(), []

    def scrape() -> None:
        while not over.is_set():
            began = time.perf_counter()
            running.client.session.get(f"{running.base}/metrics", timeout=60).raise_for_status()
            took.append(time.perf_counter() - began)
            over.wait(max(0.0, 1.0 - took[-1]))

    thread = threading.Thread(target=scrape)
    thread.start()
    try:
        yield took
    finally:
        over.set()
        thread.join()


@pytest.fixture
def silent() -> Iterator[Callable[[], str]]:
    """Make places that take connections and never answer."""
    with contextlib.ExitStack() as stack:

        def make() -> str:
            listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
            return f"http://127.0.0.1:{listener.getsockname()[1]}"

        yield make


def _configured(folder: Path, base: str, stream: int, silent: Callable[[], str]) -> Command:
    file = folder / "sr.yml"
    notifiers = [
        {"name": "hook", "webhook": {"url": f"{base}/hook"}},
        {"name": "am", "alertmanager": {"urls": [base]}},
        {"name": "silent hook", "webhook": {"url": f"{silent()}/"}},
        {"name": "silent am", "alertmanager": {"urls": [silent()]}},
    ]
    events = {"stream": {"listen": f"127.0.0.1:{stream}"}, "peers": {"127.0.0.1": "sip-1"}}
    file.write_text(json.dumps({"events": events, "notifiers": notifiers}))
    return Command(f"--config.file={file}", f"--storage.path={folder / 'data'}")


def _load(running: Command) -> None:
    for first in range(0, IDENTIFIERS, AT_ONCE):
        numbers = range(first, min(IDENTIFIERS, first + AT_ONCE))
        items = [_item(f"k{number}", 1) for number in numbers]
        answer = running.client.session.post(f"{running.base}/api/v1/push", json=items, timeout=60)
        assert answer.json() == {"accepted": len(items), "changed": len(items)}


def _item(identifier: str, status: int) -> dict[str, object]:
    return {"source": "sbc", "group": "g", "identifier": identifier, "status": status}


@pytest.mark.timeout(180 + IDENTIFIERS // 1000 + SAMPLES // 5 + SCRAPED * 10)
def test_from_a_change_to_its_receiver(tmp_path: Path, figure, silent) -> None:
    """Pushed, or an event over TCP, with many identifiers held and two other notifiers hanging."""
    stream = free_port()
    with contextlib.ExitStack() as stack:
        receiver = stack.enter_context(Receiver())
        base = f"http://127.0.0.1:{receiver.port}"
        running = stack.enter_context(_configured(tmp_path, base, stream, silent))
        running.wait_ready()
        _load(running)
        posts = stack.enter_context(contextlib.closing(Posts(running.port)))
        events = stack.enter_context(contextlib.closing(Events(stream)))
        floor = stack.enter_context(contextlib.closing(Floor(tmp_path, receiver)))
        acts: dict[str, Callable[[str], None]] = {
            "a push": lambda identifier: posts("/api/v1/push", _item(identifier, -1)),
            "an event over TCP": events,
        }

        def measured(numbers: range) -> dict[tuple[str, str], list[float]]:
            """Give how long each took, by what was done and who heard of it."""
            found: dict[tuple[str, str], list[float]] = {
                (what, who): [] for what in acts for who in PATHS.values()
            }
            for number in numbers:
                for what, act in acts.items():
                    began = time.perf_counter()
                    act(f"k{number}")
                    for path, at in receiver.heard_of(f"k{number}", set(PATHS)).items():
                        found[what, PATHS[path]].append(at - began)
                floor.measure()
            return found

        with our_own_pauses_put_off():
            found = measured(range(SAMPLES))
            if SCRAPED:
                with scraping(running) as scrapes:
                    scraped = measured(range(SAMPLES, SAMPLES + SCRAPED))
    held = f"{IDENTIFIERS} identifiers held, a webhook and an Alertmanager hanging"
    for (what, who), took in found.items():
        figure(f"latency of {len(took)}, {held}: from {what} to the {who}: {said(took)}")
    figure(f"latency: one commit and one request of the machine itself: {said(floor.took)}")
    if SCRAPED:
        for (what, who), took in scraped.items():
            figure(f"latency while scraped: from {what} to the {who}: {said(took)}")
        figure(f"latency while scraped: {len(scrapes)} scrapes: {said(scrapes)}")
    allowed = PROMISED_SECONDS * max(1.0, p99(floor.took) / QUIET_SECONDS)
    for way, took in found.items():
        assert statistics.median(took) < PROMISED_SECONDS, way
        assert p99(took) < allowed, way
