"""The FIFO server of the simulated OpenSIPS, against the recorded bytes of real ones."""

from __future__ import annotations

import functools
import gc
import os
import select
import stat
import time
from pathlib import Path
from typing import Self

import pytest

from sr_exporter.simulator import fifo
from sr_exporter.simulator.fifo import LONGEST_PATH, UNPRINTABLE, MiFifo
from sr_exporter.simulator.node import SimulatedNode
from sr_exporter.simulator.releases import OPENSIPS_3_6, OPENSIPS_4_0
from sr_exporter.simulator.servers import MiServer, MiThread, cut_over, error_over, silent_over
from tests.harness import eventually
from tests.recorded_mi import TIMEOUT, asked_at, exchanges, recorded_node

#: Real servers' faults are only seen by who provokes them.
pytestmark = pytest.mark.harmful

#: How long nothing must come for a server to count as silent.
SILENCE_SECONDS = 0.05

CORE = b'{"jsonrpc": "2.0", "method": "sr_get_status", "params": ["core"], "id": 1}'
LIST = b'{"jsonrpc": "2.0", "method": "sr_list_status", "id": 1}'
RUNNING = b'{"jsonrpc":"2.0","result":{"Readiness":true,"Status":1,"Details":"running"},"id":1}'

recorded = functools.cache(recorded_node)


@pytest.fixture(autouse=True)
def _many_clients(monkeypatch):
    """Here a server has several clients, who do not wait for each other's answers."""
    monkeypatch.setattr(MiServer, "one_client", False)


def running_node(release=OPENSIPS_4_0) -> SimulatedNode:
    node = SimulatedNode(release)
    node.start(0)
    node.initialized(0)
    return node


class Client:
    """A reply FIFO of its own, and what comes to it."""

    def __init__(self, server: MiFifo, name: str = "reply") -> None:
        self._path = server.path
        self.name = name
        self.place = server.reply_dir / name
        os.mkfifo(self.place)
        self.descriptor: int | None = None
        self.read_anew()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.leave()
        self.place.unlink()

    def read_anew(self) -> None:
        """Open it once more: who has seen the end of an answer sees nothing else."""
        old, self.descriptor = self.descriptor, os.open(self.place, os.O_RDONLY | os.O_NONBLOCK)
        self._poll = select.poll()
        self._poll.register(self.descriptor, select.POLLIN)
        if old is not None:
            os.close(old)

    def leave(self) -> None:
        """Read no more."""
        if self.descriptor is not None:
            os.close(self.descriptor)
            self.descriptor = None

    def send(self, request: bytes) -> None:
        write(self._path, b":%s:%s\n" % (self.name.encode(), request))

    def ask(self, request: bytes) -> bytes:
        self.send(request)
        return self.hear()

    def hear(self, *, chunk: int = 65536, pause: float = 0.0) -> bytes:
        """Read until the server has closed its end."""
        heard = b""
        while True:
            assert self._poll.poll(5000), f"no more within 5 s than {heard!r}"
            try:
                more = os.read(self.descriptor, chunk)
            except BlockingIOError:
                continue
            if not more:
                self.read_anew()
                return heard
            heard += more
            time.sleep(pause)

    def hears_nothing(self) -> None:
        assert self._poll.poll(SILENCE_SECONDS * 1000) == []


def write(path: Path, line: bytes) -> None:
    """Write all at once, where somebody reads."""
    descriptor = os.open(path, os.O_WRONLY | os.O_NONBLOCK)
    try:
        assert os.write(descriptor, line) == len(line)
    finally:
        os.close(descriptor)


def open_files() -> int:
    gc.collect()
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


@pytest.fixture
def place(tmp_path):
    """The path of a server, and the folder of its clients."""
    replies = tmp_path / "replies"
    replies.mkdir()
    return tmp_path / "mi", replies


# --- against the recordings -----------------------------------------------------------------


@pytest.mark.parametrize("exchange", exchanges(service="fifo"), ids=str)
def test_answers_are_those_of_a_real_server(exchange, place):
    """Every recorded line is answered with the recorded bytes, or as recorded not at all."""
    node = recorded(exchange.version, "fifo")
    server = MiFifo(node, *place, clock=lambda: asked_at(exchange.version))
    name = exchange.request.split(b":")[1].decode()
    with MiThread(server), Client(server, name) as client, Client(server) as next_one:
        write(server.path, exchange.request)
        if exchange.answer != TIMEOUT:
            assert client.hear() == exchange.answer
        assert next_one.ask(CORE) == RUNNING
        client.hears_nothing()
    assert server.killed_by is None
    assert server.failures == []


def test_no_recording_is_left_out():
    """What is no JSON and what is a notification got no answer, from any version."""
    replayed = {str(exchange): exchange.answer for exchange in exchanges(service="fifo")}
    assert len(replayed) == 3 * 9
    assert {name for name, answer in replayed.items() if answer == TIMEOUT} == {
        f"{version}/{name}"
        for version in ("3.6", "4.0", "master")
        for name in ("malformed", "notification")
    }


# --- what kills it --------------------------------------------------------------------------


@pytest.mark.parametrize("release", [OPENSIPS_3_6, OPENSIPS_4_0], ids=lambda one: one.version)
@pytest.mark.parametrize(
    "request_bytes",
    [
        b"[%s]" % CORE, b"[]", b"{}", b"42", b"null", b'{"jsonrpc": "2.0", "id": 1}',
        b'{"jsonrpc": "2.0", "method": 5, "id": 1}',
    ],
)  # fmt: skip
def test_valid_json_without_a_method_kills(request_bytes, release, place):
    """The server is gone, in all versions; the FIFO it made is left with no reader."""
    server = MiFifo(running_node(release), *place)
    with MiThread(server), Client(server) as client:
        client.send(request_bytes)
        eventually(lambda: server.killed_by)
        client.hears_nothing()
        assert server.killed_by == f"no usable method: {request_bytes!r}"
        assert server.violations != []
        assert not server.listening
        with pytest.raises(OSError, match="No such device or address"):
            client.send(CORE)
    assert not server.path.exists()


@pytest.mark.parametrize(
    ("request_bytes", "answer"),
    [
        (CORE[:-1], None),
        (b"\x16\x03\x01", None),
        (CORE.replace(b'"id": 1', b'"id": {}'), UNPRINTABLE),
        (CORE + b"}", RUNNING),
    ],
    ids=["cut", "noise", "id-object", "garbage-behind"],
)
def test_other_nonsense_is_survived(request_bytes, answer, place):
    """What is no JSON, or has a method, kills nothing; each is a violation."""
    server = MiFifo(running_node(), *place)
    with MiThread(server), Client(server) as client, Client(server, "next") as next_one:
        client.send(request_bytes)
        if answer is not None:
            assert client.hear() == answer
        assert next_one.ask(CORE) == RUNNING
        client.hears_nothing()
    assert server.killed_by is None
    assert server.violations != []


def test_a_dead_server_can_be_started_again(place):
    """As a service manager does; at the same place."""
    server = MiFifo(running_node(), *place)
    with MiThread(server) as running, Client(server) as client:
        client.send(b"[]")
        eventually(lambda: server.killed_by)
        running.listen()
        assert client.ask(CORE) == RUNNING


# --- lines ----------------------------------------------------------------------------------


def test_a_request_in_two_writes_is_lost(place):
    """What is in the pipe is taken for whole; half a request is no JSON, nor is its rest."""
    server = MiFifo(running_node(), *place)
    with MiThread(server), Client(server) as client:
        line = b":reply:" + CORE + b"\n"
        write(server.path, line[:30])
        eventually(lambda: len(server.violations) == 2)
        assert server.violations[0].startswith("a line in more than one write")
        write(server.path, line[30:])
        eventually(lambda: len(server.violations) == 3)
        assert client.ask(CORE) == RUNNING
        client.hears_nothing()


@pytest.mark.parametrize(
    ("line", "violation"),
    [
        (b":../reply:" + CORE, "a reply FIFO elsewhere"),
        (b":/etc/passwd:" + CORE, "a reply FIFO elsewhere"),
        (b":a/reply:" + CORE, "a reply FIFO elsewhere"),
        (b":a.b:" + CORE, "a reply FIFO elsewhere"),
        (b":a\\b:" + CORE, "a reply FIFO elsewhere"),
        (b":%s:" % (b"x" * LONGEST_PATH) + CORE, "too long a path of a reply FIFO"),
        (b":sr_list_status:", "not :name:request"),
        (b"sr_list_status", "not :name:request"),
        (CORE, "not :name:request"),
        (b":reply", "not :name:request"),
        (b"::" + CORE, "no reply FIFO"),
        (b":next:" + CORE.ljust(1025) + b"x", "not JSON"),
    ],
)
def test_other_lines_are_violations(line, violation, place):
    """A line without a good name is told; nothing is answered anywhere."""
    server = MiFifo(running_node(), *place)
    with MiThread(server), Client(server) as client:
        (server.reply_dir / "a").mkdir()
        Path(server.reply_dir.parent, "reply").touch()
        write(server.path, line + b"\n")
        assert eventually(lambda: server.violations)[-1].startswith(violation)
        server.violations.clear()
        assert client.ask(CORE) == RUNNING
        client.hears_nothing()
    assert server.violations == []
    assert Path(server.reply_dir.parent, "reply").read_bytes() == b""


def test_what_follows_a_forbidden_name_is_passed_over(place):
    """All that was read with it is lost; empty lines are nothing."""
    server = MiFifo(running_node(), *place)
    with MiThread(server), Client(server) as client:
        write(server.path, b":reply:%s\n:../x:%s\n:reply:%s\n" % (CORE, CORE, CORE))
        assert client.hear() == RUNNING
        client.hears_nothing()
        write(server.path, b"\n\n:reply:%s\n\n" % CORE)
        assert client.hear() == RUNNING
    assert len(server.violations) == 1


def test_the_longest_path_is_taken(place):
    """127 bytes and a NUL."""
    server = MiFifo(running_node(), *place)
    name = "x" * (LONGEST_PATH - 2 - len(str(server.reply_dir)))
    with MiThread(server), Client(server, name) as client:
        assert client.ask(CORE) == RUNNING
        assert server.violations == []
        write(server.path, b":%sx:%s\n" % (name.encode(), CORE))
        eventually(lambda: server.violations)


# --- reply FIFOs ----------------------------------------------------------------------------


def test_a_reply_fifo_that_nobody_reads_is_given_up(place):
    """It holds up those behind it for a third of a second, and not for ever."""
    server = MiFifo(running_node(), *place)
    with MiThread(server), Client(server) as client:
        os.mkfifo(server.reply_dir / "nobody")
        began = time.monotonic()
        write(server.path, b":nobody:%s\n" % CORE)
        assert client.ask(CORE) == RUNNING
        assert time.monotonic() - began > 0.3
    assert server.failures == [f"{len(RUNNING)} bytes to nobody: No such device or address"]


def test_a_reply_fifo_may_be_read_a_little_late(place, monkeypatch):
    """It is tried more than once."""
    monkeypatch.setattr(fifo, "TRIES", 500)  # this machine may be late, too
    server = MiFifo(running_node(), *place)
    with MiThread(server), Client(server) as client:
        client.leave()
        client.send(CORE)
        eventually(lambda: server.asked)
        client.read_anew()
        assert client.hear() == RUNNING


@pytest.mark.parametrize("kind", ["absent", "file", "folder", "link", "hard-link"])
def test_other_files_are_not_written_to(kind, place):
    """A reply goes to a FIFO of one name, and to nothing else."""
    server = MiFifo(running_node(), *place)
    with MiThread(server), Client(server) as client, Client(server, "other") as other:
        path = server.reply_dir / "strange"
        if kind == "file":
            path.touch()
        elif kind == "folder":
            path.mkdir()
        elif kind == "link":
            path.symlink_to(other.place)
        elif kind == "hard-link":
            path.hardlink_to(other.place)
        write(server.path, b":strange:%s\n" % CORE)
        assert client.ask(CORE) == RUNNING
        assert kind != "file" or path.read_bytes() == b""
        if not kind.endswith("link"):
            other.hears_nothing()
    assert len(server.failures) == 1


def test_a_long_answer_streams_as_slowly_as_it_is_read(place):
    """Far more than a pipe holds comes through; who is next waits."""
    node = running_node()
    for number in range(30):
        node.register("big", f"i{number}", 1, "x" * 65536)
    server = MiFifo(node, *place)
    with MiThread(server), Client(server) as client, Client(server, "next") as next_one:
        client.send(LIST)
        eventually(lambda: server.asked)
        next_one.send(CORE)
        next_one.hears_nothing()
        answer = client.hear(pause=0.001)
        assert len(answer) > 30 * 65536
        assert answer.endswith(b'"running"}]}],"id":1}')
        assert next_one.hear() == RUNNING


def test_a_client_that_leaves_harms_nobody(place):
    """The rest of its answer is dropped."""
    node = running_node()
    node.register("big", "main", 1, "x" * 2**20)
    server = MiFifo(node, *place)
    with MiThread(server), Client(server) as client, Client(server, "next") as next_one:
        client.send(LIST)
        select.select([client.descriptor], [], [], 5)
        client.leave()
        assert next_one.ask(CORE) == RUNNING
    [failure] = server.failures
    assert failure.endswith(": Broken pipe")


def test_stop_does_not_wait_for_clients(place):
    """Neither for one that does not read on, nor for one that is not there yet."""
    node = running_node()
    node.register("big", "main", 1, "x" * 2**20)
    server = MiFifo(node, *place)
    with Client(server) as client:
        with MiThread(server):
            client.send(LIST)
            select.select([client.descriptor], [], [], 5)
            began = time.monotonic()
        assert time.monotonic() - began < 10
        assert not client.hear().endswith(b"}")


# --- refusals, and what it tells of its clients ---------------------------------------------


def test_it_can_be_silent_cut_or_wrong_over_a_size(place):
    """Each way to refuse spares answers that are no longer, and can be changed while it runs."""
    server = MiFifo(running_node(), *place, spoil=silent_over(len(RUNNING)))
    with MiThread(server), Client(server) as client:
        client.send(LIST)
        client.hears_nothing()
        assert client.ask(CORE) == RUNNING
        server.spoil = cut_over(len(RUNNING) - 1)
        assert client.ask(CORE) == RUNNING[:-1]
        server.spoil = error_over(len(RUNNING) - 1)
        assert client.ask(CORE) == b"500 Internal error"
        server.delay = 0.2
        began = time.monotonic()
        assert client.ask(CORE) == b"500 Internal error"
        assert time.monotonic() - began >= 0.2
    assert server.violations == []


def test_violations_are_written_down(place):
    """The same as over datagrams."""
    server = MiFifo(running_node(), *place)
    with MiThread(server), Client(server) as client:
        client.ask(CORE.ljust(1025))
        client.ask(CORE.replace(b'["core"]', b"[]"))
        client.ask(b'{"jsonrpc": "2.0", "method": "which", "id": 1}')
        client.send(CORE.replace(b', "id": 1', b""))
        eventually(lambda: len(server.violations) == 4)
    assert [said.partition(":")[0] for said in server.violations] == [
        "a body of 1025 bytes", "params that hold nothing", "which was asked", "a notification",
    ]  # fmt: skip


def test_two_requests_in_flight_are_seen(place):
    """Of one client they are a violation; those of two are counted."""
    server = MiFifo(running_node(), *place)
    with MiThread(server), Client(server) as one, Client(server, "other") as other:
        for _ in range(3):
            assert one.ask(CORE) == other.ask(CORE) == RUNNING
        assert server.most_in_flight == 1
        write(server.path, b":reply:%s\n:other:%s\n" % (CORE, CORE))
        assert one.hear() == other.hear() == RUNNING
        assert server.most_in_flight == 2
        assert server.violations == []
        server.spoil = silent_over(0)
        write(server.path, b":reply:%s\n:reply:%s\n" % (CORE, CORE))
        eventually(lambda: server.asked["sr_get_status"] == 10)
        assert server.violations == ["a second request in flight"]
        eventually(lambda: server.in_flight.total() == 0)


def test_requests_are_counted(place):
    """By their method, and by whoever watches."""
    seen = []
    server = MiFifo(running_node(), *place, on_request=seen.append)
    with MiThread(server), Client(server) as client:
        client.ask(CORE)
        client.ask(CORE)
    assert server.asked == {"sr_get_status": 2}
    assert seen == [CORE, CORE]


# --- the FIFO itself ------------------------------------------------------------------------


def test_a_server_goes_down_and_comes_back(place):
    """At the same path, which is not there in between."""
    server = MiFifo(running_node(), *place)
    with MiThread(server) as running, Client(server) as client:
        assert stat.S_ISFIFO(server.path.stat().st_mode)
        running.refuse()
        with pytest.raises(FileNotFoundError):
            client.send(CORE)
        running.listen()
        assert client.ask(CORE) == RUNNING
    assert not server.path.exists()


def test_urls_are_those_of_the_configuration():
    """They can be written down as they are."""
    server = MiFifo(running_node(), Path("/run/mi"), Path("/run/replies"))
    assert server.url == "fifo:///run/mi?reply_dir=/run/replies"


def test_nothing_is_left_open(place):
    """Neither by a stop, nor by a death, nor by an answer that could not be handed over."""
    before = open_files()
    server = MiFifo(running_node(), *place)
    with MiThread(server) as running, Client(server) as client:
        (server.reply_dir / "file").touch()
        write(server.path, b":file:%s\n" % CORE)
        assert client.ask(CORE) == RUNNING
        client.send(b"[]")
        eventually(lambda: server.killed_by)
        running.listen()
        running.refuse()
        running.refuse()
    assert open_files() == before
