"""Who uses a soaked exporter: pushers, senders of events, scrapers, listeners and readers."""

from __future__ import annotations

import contextlib
import http.client
import json
import random
import socket
import threading
import time
from collections import Counter
from typing import TYPE_CHECKING, Self
from urllib.parse import quote

from tests.events import Events
from tests.soak.world import new_name

if TYPE_CHECKING:
    from collections.abc import Callable

#: Keys that stay, and flap.
FLAPPING = 40
FORMATS = (
    "text/plain;version=0.0.4",
    "text/plain;version=1.0.0;escaping=allow-utf-8",
    "application/openmetrics-text;version=1.0.0",
)
PAGES = (
    "/",
    "/api/v1/status?limit=200",
    "/api/v1/status?ready=false",
    "/api/v1/reports?limit=100",
    "/api/v1/sources",
    "/api/v1/changes?since=0",
    "/api/v1/notifications?limit=20",
    "/api/v1/check?source=sip-http",
    "/ready/sip-udp",
    "/api/v2/alerts",
    "/api/v2/alerts/groups",
    "/api/v2/status",
    "/sources/sip-http",
    "/-/healthy",
)
#: Answers that are right: 503 of a check says not ready, 404 that it is not known (any more).
RIGHT = frozenset({200, 404, 503})


class Seen:
    """What was answered to all of them."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.codes: Counter[tuple[str, int]] = Counter()
        self.broken: Counter[str] = Counter()
        self._scrapes: list[float] = []

    def answered(self, what: str, code: int) -> None:
        with self._lock:
            self.codes[what, code] += 1

    def broke(self, what: str, error: Exception) -> None:
        with self._lock:
            self.broken[f"{what}: {type(error).__name__}: {error}"] += 1

    def scraped(self, seconds: float) -> None:
        with self._lock:
            self._scrapes.append(seconds)

    def take_scrapes(self) -> list[float]:
        """Give how long the scrapes took since this was asked before, the shortest first."""
        with self._lock:
            taken, self._scrapes = self._scrapes, []
        return sorted(taken)

    def wrong(self) -> list[str]:
        """Say what should not have been answered, and how often it was."""
        return [
            f"{what}: {code} ({count} times)"
            for (what, code), count in self.codes.items()
            if code not in RIGHT
        ] + [f"{what} ({count} times)" for what, count in self.broken.items()]


class Load:
    """All of them, each a thread; `with` runs them."""

    def __init__(self, port: int, stream: int, datagram: int) -> None:
        self._port = port
        self._stream = stream
        self._datagram = datagram
        self.seen = Seen()
        self._over = threading.Event()
        work: list[tuple[str, float, Callable[[Caller], None]]] = [
            ("push", 0.04, _flap),
            ("push many", 5.0, _push_many),
            ("push new names", 0.1, _push_new),
            ("push new sources", 0.5, _push_new_source),
            *(("scrape", 0.25, _scraping(accept)) for accept in FORMATS),
            ("page", 0.1, _read_page),
            ("mi", 0.2, _mi),
        ]
        callers = [Caller(port, self.seen, *one) for one in work]
        self._threads = [
            threading.Thread(target=caller.run, args=[self._over], daemon=True)
            for caller in callers
        ]
        for run in (self._send_events, self._send_datagrams, *([self._listen] * 4)):
            self._threads.append(threading.Thread(target=run, daemon=True))

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *failed: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join(30)

    def _send_events(self) -> None:
        """Connect, tell of some changes, and be gone, without a word or in good order."""
        while not self._over.is_set():
            with contextlib.suppress(OSError):
                where = ("127.0.0.1", self._stream)
                with socket.create_connection(where, 10) as connection:
                    for _ in range(random.randrange(1, 30)):
                        connection.sendall(_event(str(random.randrange(20))))
                        self.seen.answered("event over tcp", 200)
                        self._over.wait(0.02)
            self._over.wait(0.05)

    def _send_datagrams(self) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sending:
            while not self._over.wait(0.05):
                sending.sendto(_event(f"d{random.randrange(20)}"), ("127.0.0.1", self._datagram))
                self.seen.answered("event over udp", 200)

    def _listen(self) -> None:
        """Listen for a while, to what is new or from somewhere in the past, and be gone."""
        while not self._over.is_set():
            since = "" if random.random() < 0.5 else f"?since={random.randrange(100_000)}"
            try:
                with Events(f"http://127.0.0.1:{self._port}", since, within=20) as events:
                    self.seen.answered("listener", events.status)
                    until = time.monotonic() + random.uniform(0.1, 5.0)
                    while time.monotonic() < until and events.next() is not None:
                        pass
            except OSError as error:
                self.seen.broke("listener", error)
            self._over.wait(0.1)


class Caller:
    """Does one thing over HTTP again and again, over one connection as long as it holds."""

    def __init__(
        self, port: int, seen: Seen, what: str, pause: float, work: Callable[[Caller], None]
    ) -> None:
        self.seen = seen
        self._what = what
        self._pause = pause
        self._work = work
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
        #: Names that were pushed, and are to be deleted.
        self.pushed: list[str] = []

    def run(self, over: threading.Event) -> None:
        while not over.wait(random.uniform(0.5, 1.5) * self._pause):
            try:
                self._work(self)
            except (OSError, http.client.HTTPException) as error:
                self._connection.close()
                self.seen.broke(self._what, error)
            if random.random() < 0.02:
                self._connection.close()
        self._connection.close()

    def ask(self, method: str, path: str, body: object = None, **headers: str) -> bytes:
        sent = None if body is None else json.dumps(body)
        self._connection.request(method, path, sent, headers)
        answer = self._connection.getresponse()
        said = answer.read()
        self.seen.answered(self._what, answer.status)
        return said

    def push(self, *items: object) -> None:
        self.ask("POST", "/api/v1/push", items)


def _event(identifier: str) -> bytes:
    status, old = random.sample((-2, -1, 1, 2), 2)
    params = {"group": "g", "identifier": identifier, "status": status, "old_status": old}
    return json.dumps(
        {"jsonrpc": "2.0", "method": "E_CORE_SR_STATUS_CHANGED", "params": params},
        separators=(",", ":"),
    ).encode()


def _item(identifier: str, **more: object) -> dict[str, object]:
    status = random.choice((-2, -1, 1, 2))
    return {
        "source": "crowd",
        "group": "g",
        "identifier": identifier,
        "status": status,
        "details": new_name(),
        "reports": [f"now {status}"],
        **more,
    }


def _flap(caller: Caller) -> None:
    caller.push(_item(f"f{random.randrange(FLAPPING)}"))


def _push_many(caller: Caller) -> None:
    """Push to many keys; now and then that they live for a moment only."""
    caller.push(*(_item(f"f{number}") for number in range(FLAPPING)))
    caller.push(*(_item(f"t{number}", ttl=random.uniform(0.1, 5.0)) for number in range(20)))


def _push_new(caller: Caller) -> None:
    """Push to keys that nobody knew; some expire, the others are deleted by and by."""
    fleeting, kept = new_name(), new_name()
    caller.push(
        _item(fleeting, ttl=random.uniform(0.5, 5.0), on_expiry="remove"), _item(kept, group=kept)
    )
    caller.pushed.append(kept)
    if len(caller.pushed) > 50:
        gone = caller.pushed.pop(0)
        caller.ask("DELETE", f"/api/v1/sources/crowd/groups/{gone}")


def _push_new_source(caller: Caller) -> None:
    """Push as a source that nobody knew, and have an earlier one forgotten."""
    source = new_name()
    caller.push(*(_item(new_name(), source=source) for _ in range(5)))
    caller.pushed.append(source)
    if len(caller.pushed) > 10:
        caller.ask("DELETE", f"/api/v1/sources/{caller.pushed.pop(0)}")


def _scraping(accept: str) -> Callable[[Caller], None]:
    def scrape(caller: Caller) -> None:
        began = time.monotonic()
        headers = {"Accept": accept, "Accept-Encoding": random.choice(("gzip", "identity"))}
        caller.ask("GET", "/metrics", **headers)
        caller.seen.scraped(time.monotonic() - began)

    return scrape


def _read_page(caller: Caller) -> None:
    caller.ask("GET", random.choice((*PAGES, f"/api/v1/status?identifier={quote(new_name())}")))


def _mi(caller: Caller) -> None:
    method, params = random.choice(
        (
            ("sr_list_status", None),
            ("sr_list_reports", None),
            ("sr_list_identifiers", None),
            ("sr_set_status", {"group": "mi", "status": random.choice((-1, 1)), "details": "d"}),
            ("sr_add_report", {"group": "mi", "report": new_name()}),
        )
    )
    said = {"jsonrpc": "2.0", "id": 1, "method": method}
    body = said if params is None else {**said, "params": params}
    caller.ask("POST", "/mi", body, **{"Content-Type": "application/json"})
