"""Receivers that misbehave in every way at once: nobody else is delayed by any of them."""

from __future__ import annotations

import contextlib
import json
import re
import signal
import socket
import struct
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from sr_exporter.notify.notifiers import LAST_WORDS_SECONDS
from sr_exporter.simulator.httpd import MiHttpd
from sr_exporter.simulator.node import SimulatedNode
from sr_exporter.simulator.releases import OPENSIPS_4_0
from sr_exporter.simulator.servers import MiThread
from tests.harness import Command, eventually, series
from tests.peer import OK, Peer, closes, many_peers, resets, says, trickles
from tests.receiver import Receiver

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    Script = Callable[[Peer, socket.socket], None]

TOKEN = "s3cret-token"
#: Within this a notification is at a good receiver, and a scrape answered: far less, unless this
#: machine has other things to do. Who is delayed by a bad one is so for minutes.
SOON_SECONDS = 2.0
#: After the last words: closing all there is.
STOP_SECONDS = LAST_WORDS_SECONDS + 3.0
ROUNDS = 8
#: How much memory may grow by while receivers send without end, and for each row that is owed.
GROWTH_BYTES = 8 * 2**20
ROW_BYTES = 4096
#: Those of its own and of the good ones, and the few that wait for a name for ever.
FEW_THREADS = 20
#: How much of an endless answer may be under way, in the buffers of both ends.
BUFFERED_BYTES = 16 * 2**20
CHUNK = b"x" * 65536
#: Of each sort there is a notifier of both kinds: one waits for ever, one tries and tries again.
PATIENCE = {"patient": "5m", "impatient": "1s"}
KINDS: dict[str, Callable[[str], dict[str, Any]]] = {
    "webhook": lambda base: {"url": f"{base}/hook"},
    "alertmanager": lambda base: {"urls": [base]},
}
#: Has names that nobody's DNS ever answers for.
_UNANSWERED = """
import socket, threading

look_up = socket.getaddrinfo

def getaddrinfo(host, *more, **named):
    if host == "never-answered.example" and not named.get("flags"):  # it is no number
        threading.Event().wait()
    return look_up(host, *more, **named)

socket.getaddrinfo = getaddrinfo
"""


def never_answers(peer: Peer, connection: socket.socket) -> None:
    peer.read_request(connection)
    peer.wait_for_hang_up(connection)


def resets_at_once(peer: Peer, connection: socket.socket) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def never_ends_its_handshake(peer: Peer, connection: socket.socket) -> None:
    """Speak TLS byte by byte: the head of a long record, then what is in it."""
    connection.recv(65536)
    connection.sendall(b"\x16\x03\x03\x40\x00")
    while not peer.over.wait(1.0):
        connection.sendall(b"\x02")


class Endless:
    """Answers with a start, and then with as much as is taken, and more."""

    def __init__(self, start: bytes, chunk: bytes = CHUNK) -> None:
        self._start = start
        self._chunk = chunk
        #: The most that one connection took.
        self.taken = 0

    def __call__(self, peer: Peer, connection: socket.socket) -> None:
        peer.read_request(connection)
        connection.sendall(self._start)
        taken = 0
        while not peer.over.is_set():
            taken += connection.send(self._chunk)
            self.taken = max(self.taken, taken)


def redirects(status: int, where: str) -> Script:
    head = f"HTTP/1.1 {status} Moved\r\nLocation: {where}\r\nContent-Length: 1000000\r\n\r\n"
    return says(head.encode())


def bad_scripts(elsewhere: str) -> dict[str, Script]:
    """Give every sort of badness; what redirects does so to `elsewhere`."""
    ok = b"HTTP/1.1 200 OK\r\n"
    refused = b"HTTP/1.1 400 No\r\n"
    return {
        "silent": never_answers,
        "status-line": trickles(b"HTTP/1.1 2", b"0", every=1.0),
        "header": trickles(ok + b"X: ", b"x", every=1.0),
        "body": trickles(ok + b"Content-Length: 1000000\r\n\r\n", b"x", every=1.0),
        "refusal": trickles(refused + b"Content-Length: 1000000\r\n\r\n", b"x", every=1.0),
        "continue": Endless(b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 1000),
        "early-hints": Endless(b"", b"HTTP/1.1 103 So\r\nLink: </a>\r\n\r\n" * 1000),
        "headers": Endless(ok, b"X: x\r\n" * 1000),
        "long-header": Endless(ok + b"X: "),
        "gigabyte": Endless(ok + b"Content-Length: 1073741824\r\n\r\n"),
        "no-end": Endless(ok + b"\r\n"),
        "refused-no-end": Endless(refused + b"\r\n"),
        "broken-no-end": Endless(b"HTTP/1.1 500 No\r\n\r\n"),
        "reset": resets,
        "reset-at-once": resets_at_once,
        "closed": closes,
        "handshake": never_ends_its_handshake,
        **{f"moved-{code}": redirects(code, elsewhere) for code in (301, 302, 303, 307, 308)},
    }


class World:
    """The exporter with every bad notifier beside two good ones, and a source that is polled."""

    def __init__(self, stack: contextlib.ExitStack, folder: Path, patience: Sequence[str]) -> None:
        self._patience = patience
        make = stack.enter_context(many_peers())
        self.elsewhere = make(says(OK, OK))
        self.scripts = bad_scripts(f"http://127.0.0.1:{self.elsewhere.port}/")
        self.peers = {sort: make(script) for sort, script in self.scripts.items()}
        full = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        stack.enter_context(socket.create_connection(full.getsockname()))
        self._places = {
            sort: f"{'https' if sort == 'handshake' else 'http'}://127.0.0.1:{peer.port}"
            for sort, peer in self.peers.items()
        }
        self._places["takes-no-connection"] = f"http://127.0.0.1:{full.getsockname()[1]}"
        self._places["unanswered-name"] = "http://never-answered.example:1"
        self.hook, self.am = (stack.enter_context(Receiver()) for _ in range(2))
        self._good = [
            {"name": "hook", "webhook": {"url": self.hook.url}},
            {"name": "am", "alertmanager": {"urls": [self.am.base]}},
        ]
        self.node = SimulatedNode(OPENSIPS_4_0)
        self.node.start(time.time() - 3600)
        for number in range(ROUNDS):
            self.node.register("probe", f"polled-{number}", 1)
        self.httpd = stack.enter_context(MiThread(MiHttpd(self.node)))
        self._file = folder / "sr.yml"
        (folder / "token").write_text(TOKEN)
        self.configure(bad=True)
        self.running = stack.enter_context(
            Command(f"--config.file={self._file}", f"--storage.path={folder / 'data'}")
        )
        self.running.wait_ready()

    @property
    def bad(self) -> list[str]:
        return [
            f"{sort}-{kind}-{patience}"
            for number, sort in enumerate(self._places)
            for other, kind in enumerate(KINDS)
            for patience in [self._patience[(number + other) % len(self._patience)]]
        ]

    def configure(self, *, bad: bool) -> None:
        """Write the configuration, with the bad ones or without."""
        notifiers = list(self._good)
        for name in self.bad if bad else ():
            sort, kind, patience = name.rsplit("-", 2)
            told = {
                **KINDS[kind](self._places[sort]),
                "timeout": PATIENCE[patience],
                "authorization": {"credentials_file": "token"},
            }
            notifiers.append({"name": name, kind: told})
        source = {"name": "sip-1", "mi": self.httpd.url, "poll_interval": "100ms", "max_share": 1.0}
        self._file.write_text(json.dumps({"notifiers": notifiers, "sources": [source]}))

    def push(self, identifier: str) -> None:
        answer = self.running.client.push({"group": "g", "identifier": identifier, "status": -1})
        assert answer.status_code == 200

    def scrape(self) -> float:
        """Scrape; give how long that took."""
        began = time.monotonic()
        self.running.client.session.get(f"{self.running.base}/metrics", timeout=10)
        return time.monotonic() - began

    def hear_soon(self, identifier: str, began: float) -> float:
        """Wait until both good ones have heard of it; give how long the slower one took."""
        return max(_first(one, identifier) for one in (self.hook, self.am)) - began

    def are_connected(self) -> bool:
        """Whether every bad one was tried that can be."""
        return all(peer.connections >= len(KINDS) for peer in self.peers.values())

    def attempts(self) -> dict[str, float]:
        """Give how many attempts at each bad one have come to an end."""
        found = self.running.client.metrics()
        return {
            name: sum(series(found, "sr_exporter_notifications_total", notifier=name).values())
            for name in self.bad
        }

    def were_asked_again(self) -> bool:
        """Whether every impatient one was tried more than once, and every other one too."""
        again = (
            count >= 2 for name, count in self.attempts().items() if name.endswith("-impatient")
        )
        return all(again) and self.are_connected()

    def status(self, what: str) -> int:
        """Give a number of the exporter's process, as the kernel counts it."""
        with open(f"/proc/{self.running.process.pid}/status", encoding="ascii") as file:  # noqa: PTH123
            (number,) = re.findall(rf"{what}:\s+(\d+)", file.read())
        return int(number)


def _first(receiver: Receiver, identifier: str) -> float:
    """Wait until a receiver has heard of an identifier; give when that was."""

    def heard() -> float | None:
        for one in list(receiver.received):
            said: Any = one.body
            alerts = said if isinstance(said, list) else said["alerts"]
            if any(alert["labels"].get("identifier") == identifier for alert in alerts):
                return one.at
        return None

    return eventually(heard, every=0.002) or 0.0


@pytest.fixture
def worlds(tmp_path, monkeypatch) -> Iterator[Callable[..., World]]:
    """Make a world, with bad notifiers of so much patience."""
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(_UNANSWERED)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "site"))
    with contextlib.ExitStack() as stack:
        yield lambda *patience: World(stack, tmp_path, patience)


def test_bad_receivers_delay_nobody_else(worlds, figure):
    """Not the good ones, nor a scrape, a poll or the end; nor do they take memory or secrets."""
    world = worlds(*PATIENCE)
    for number in range(4):  # as many as a webhook has under way at once
        world.push(f"first-{number}")
    eventually(world.were_asked_again, within=30, every=0.2)
    memory = world.status("VmRSS")
    told, polled, scraped = [], [], []
    for number in range(ROUNDS):
        began = time.monotonic()
        world.push(f"k{number}")
        told.append(world.hear_soon(f"k{number}", began))
        scraped.append(world.scrape())
        began = time.monotonic()
        name = f"polled-{number}"
        world.httpd.call(lambda name=name: world.node.set_status("probe", name, -1))
        polled.append(world.hear_soon(name, began))
    growth = (world.status("VmRSS") - memory) * 1024
    taken = max(script.taken for script in world.scripts.values() if isinstance(script, Endless))
    attempts = world.attempts()
    waiting = [one for one, ended in attempts.items() if one.endswith("-patient") and not ended]
    began = time.monotonic()
    world.running.signal(signal.SIGTERM)
    status = world.running.wait(STOP_SECONDS + 10)
    stopped = time.monotonic() - began
    figure(
        f"isolation: beside {len(world.bad)} bad notifiers, at most: a push told in"
        f" {max(told) * 1000:.0f} ms, a poll's change in {max(polled) * 1000:.0f} ms, a scrape"
        f" {max(scraped) * 1000:.0f} ms; memory grew by {growth / 2**20:.1f} MB; of an endless"
        f" answer {taken / 2**20:.1f} MB were under way; SIGTERM: exit 0 after {stopped:.1f} s"
    )
    for sort in ("silent", "takes-no-connection", "unanswered-name", "handshake"):
        assert any(one.startswith(f"{sort}-") for one in waiting), sort
    assert max(told) < SOON_SECONDS
    assert max(polled) < SOON_SECONDS
    assert max(scraped) < SOON_SECONDS
    webhooks = sum("-webhook-" in name for name in world.bad)
    assert growth < GROWTH_BYTES + ROW_BYTES * webhooks * ROUNDS * 2
    assert taken < BUFFERED_BYTES
    assert world.elsewhere.connections == 0
    assert status == 0, world.running.said
    assert stopped < STOP_SECONDS
    assert "Traceback" not in world.running.said
    assert TOKEN not in world.running.said


def test_bad_receivers_are_let_go(worlds, figure):
    """Without them in the configuration: at once, nearly; only DNS still holds its thread."""
    world = worlds("patient")
    world.push("first")
    eventually(world.are_connected, every=0.05)
    world.configure(bad=False)
    with ThreadPoolExecutor(1) as pool:
        began = time.monotonic()
        reloading = pool.submit(world.running.client.reload)
        world.push("meanwhile")
        told = world.hear_soon("meanwhile", began)
        reloading.result().raise_for_status()
        took = time.monotonic() - began
    figure(
        f"isolation: a reload without {len(world.bad)} bad notifiers took {took:.1f} s, a push"
        f" meanwhile was told in {told * 1000:.0f} ms"
    )
    assert told < SOON_SECONDS
    assert took < STOP_SECONDS
    assert world.status("Threads") <= FEW_THREADS
