"""What would hurt a real OpenSIPS fails a test, over every transport and unasked (rule 1)."""

from __future__ import annotations

import contextlib
import os
import re
import socket
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from sr_exporter.simulator.datagram import MiDatagram
from sr_exporter.simulator.fifo import MiFifo
from sr_exporter.simulator.judge import is_open
from sr_exporter.simulator.node import SimulatedNode
from sr_exporter.simulator.releases import OPENSIPS_3_6
from sr_exporter.simulator.servers import MiThread
from tests.harness import eventually
from tests.mi_asking import ask
from tests.replay import ReplayMi
from tests.simulated import KINDS, mi_server

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT = Path(__file__).parents[2]

GOOD = b'{"jsonrpc":"2.0","method":"version","id":1}'
BODIES = {
    "batch": (b"[%s]" % GOOD, "a batch, or no object"),
    "no method": (b'{"jsonrpc":"2.0","id":1}', "no string method"),
    "number as method": (GOOD.replace(b'"version"', b"5"), "no string method"),
    "notification": (GOOD.replace(b',"id":1', b""), "a notification"),
    "no JSON": (GOOD[:-1], "not JSON"),
    "big id": (GOOD.replace(b":1}", b":4294967297}"), "no small integer id"),
    "empty params": (GOOD.replace(b',"id"', b',"params":[],"id"'), "params that hold nothing"),
    "too long": (GOOD.ljust(1025), "a body of 1025 bytes"),
    "subscribers": (GOOD.replace(b"version", b"subscribers_list"), "subscribers_list was asked"),
}


def post(body: bytes, *headers: str) -> bytes:
    head = ["POST /mi HTTP/1.1", "Content-Type: application/json", *headers]
    return "\r\n".join([*head, f"Content-Length: {len(body)}", "", ""]).encode() + body


# --- servers, and what is sent to them ------------------------------------------------------


@contextlib.contextmanager
def served(kind: str) -> Iterator[object]:
    """Run a server of a kind; of 3.6, which lives on where another would die."""
    node = SimulatedNode(OPENSIPS_3_6)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if kind == "replay":
            with ReplayMi("3.6") as mi:
                yield mi
            return
        with MiThread(mi_server(kind, node, folder)) as running:
            yield running.server


@contextlib.contextmanager
def client(server: object) -> Iterator[Callable[[bytes], object]]:
    """Give what sends bytes to a server as one client; to a FIFO, without its name."""
    if isinstance(server, MiFifo):
        reply = Path(tempfile.mkdtemp(dir=server.reply_dir))  # a name that is free
        reply.rmdir()
        os.mkfifo(reply)
        reading = os.open(reply, os.O_RDONLY | os.O_NONBLOCK)
        writing = os.open(server.path, os.O_WRONLY | os.O_NONBLOCK)
        try:
            yield lambda data: os.write(
                writing, data.replace(b":NAME:", b":%s:" % reply.name.encode())
            )
        finally:
            os.close(writing)
            os.close(reading)
            reply.unlink()
        return
    if isinstance(server, MiDatagram):
        unix = isinstance(server.address, Path)
        with socket.socket(socket.AF_UNIX if unix else socket.AF_INET, socket.SOCK_DGRAM) as own:
            own.bind(tempfile.mktemp(dir=server.address.parent) if unix else ("127.0.0.1", 0))
            place = str(server.address) if unix else server.address
            yield lambda data: own.sendto(data, place)
        return
    with socket.create_connection(("127.0.0.1", server.port), 5) as own:
        yield own.sendall


def wire(kind: str, body: bytes) -> bytes:
    """Write a body as a client of that kind does."""
    if kind in ("http", "replay"):
        return post(body)
    return b":NAME:%s\n" % body if kind == "fifo" else body


def send(kind: str, data: bytes, violation: str) -> None:
    with served(kind) as server, client(server) as say:
        say(data)
        await_violation(server, violation)


def send_in_two(data: bytes, first: int) -> None:
    with served("http") as server, client(server) as say:
        say(data[:first])
        eventually(lambda: any(one._reader.begun for one in server._connections))
        say(data[first:])
        await_violation(server, "a request in more than one write")


def send_two_at_once(kind: str) -> None:
    """Ask from two clients, or over two connections, neither of which waits for the other."""
    with served(kind) as server, client(server) as one, client(server) as other:
        if kind in ("udp", "unix", "fifo"):
            server.delay = 0.2
            one(wire(kind, GOOD))
            other(wire(kind, GOOD))
            await_violation(server, "a second request in flight")
        else:
            one(wire(kind, GOOD))
            other(wire(kind, GOOD))
            await_violation(server, "a second connection at the same time")


def test_who_sent_something_and_left_is_gone():
    """Whoever asks anew after that is no second one, though nobody has read the first yet."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        one = socket.create_connection(listener.getsockname())
        accepted, _ = listener.accept()
        with accepted:
            one.sendall(post(GOOD))
            assert is_open(accepted.fileno())
            one.close()
            eventually(lambda: not is_open(accepted.fileno()))
        assert not is_open(accepted.fileno())


def await_violation(server: object, violation: str) -> None:
    eventually(lambda: [one for one in server.violations if one.startswith(violation)])


ALL_KINDS = (*KINDS, "replay")

#: Each does harm to a server of its own, and waits until that has seen it.
HARMS: dict[str, Callable[[], None]] = {
    f"{kind}: {name}": partial(send, kind, wire(kind, body), violation)
    for kind in ALL_KINDS
    for name, (body, violation) in BODIES.items()
} | {f"{kind}: two at once": partial(send_two_at_once, kind) for kind in ALL_KINDS}
for _kind in ("http", "replay"):
    HARMS |= {
        f"{_kind}: GET": partial(send, _kind, b"GET /mi HTTP/1.1\r\n\r\n", "GET, and no POST"),
        f"{_kind}: chunked": partial(
            send,
            _kind,
            b"POST /mi HTTP/1.1\r\nContent-Type: application/json\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n" % (len(GOOD), GOOD),
            "a body without Content-Length",
        ),
        f"{_kind}: no type": partial(
            send,
            _kind,
            post(GOOD).replace(b"application/json", b"text/plain"),
            "no Content-Type: application/json",
        ),
        f"{_kind}: expects": partial(
            send, _kind, post(GOOD, "Expect: 100-continue"), "a body that waits to be asked for"
        ),
    }
HARMS |= {
    "http: pipelined": partial(send, "http", post(GOOD) * 2, "a second request in flight"),
    "replay: pipelined": partial(send, "replay", post(GOOD) * 2, "a request in more than one"),
    "http: endless": partial(send, "http", post(GOOD.ljust(30_000)), "a request too long"),
    "http: in two writes": partial(send_in_two, post(GOOD), 40),
    "http: body apart": partial(send_in_two, post(GOOD), len(post(GOOD)) - len(GOOD)),
    "fifo: in two writes": partial(
        send, "fifo", wire("fifo", GOOD)[:-1], "a line in more than one write"
    ),
}


# --- the tests ------------------------------------------------------------------------------


@pytest.mark.harmful
@pytest.mark.parametrize("harm", HARMS.values(), ids=HARMS)
def test_each_harm_is_seen(harm):
    """By the server that it is done to."""
    harm()


@pytest.mark.parametrize("kind", ALL_KINDS)
def test_a_good_client_is_blamed_for_nothing(kind):
    """One request after the other, each with a client of its own, as our transports do."""
    with served(kind) as server:
        for _ in range(3):
            ask(server.url, "version")


_TESTS = """
import pytest
from tests.integration.test_judge import HARMS, ALL_KINDS, ask, served

@pytest.mark.parametrize("harm", HARMS.values(), ids=HARMS)
def test_without_a_look(harm):
    harm()

@pytest.mark.harmful
@pytest.mark.parametrize("harm", HARMS.values(), ids=HARMS)
def test_on_purpose(harm):
    harm()

@pytest.mark.parametrize("kind", ALL_KINDS)
def test_good(kind):
    with served(kind) as server:
        ask(server.url, "version")
"""


def test_a_test_that_does_not_look_fails_all_the_same(tmp_path):
    """Each harm fails its own test, at its end; those that declare it, and good ones, pass."""
    file = tmp_path / "test_harm.py"
    file.write_text(_TESTS)
    command = [sys.executable, "-m", "pytest", "-c", str(ROOT / "pyproject.toml"), "-q", "-rEf"]
    ended = subprocess.run(
        [
            *command,
            f"--rootdir={ROOT}",
            "-p",
            "tests.conftest",
            "-p",
            "no:cacheprovider",
            "--force-reruns=0",
            str(file),
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    failed = re.findall(
        r"^ERROR \S*::test_without_a_look\[(.*?)\](?: - |$)", ended.stdout, re.MULTILINE
    )
    assert sorted(failed) == sorted(HARMS), ended.stdout[-3000:]
    passed = 2 * len(HARMS) + len(ALL_KINDS)
    assert f"{passed} passed, {len(HARMS)} errors" in ended.stdout
