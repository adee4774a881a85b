"""Many simulated OpenSIPS in one process, each at a loopback address of its own.

They are all the same recorded node, which changes now and then, and differ by the address that
they are asked at: `127.0.0.1:PORT`, `127.0.0.2:PORT` and so on. Some are black holes: of two
kinds, those that take a connection and never answer, and those that do not even take it.

`ManySources` runs the process; what it was asked, and when, is read line by line from it.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import resource
import socket
import subprocess
import sys
import time
from collections import defaultdict
from typing import TYPE_CHECKING, NamedTuple, Self, cast
from urllib.parse import urlsplit

import uvloop

from sr_exporter.simulator.judge import (
    TWO_CONNECTIONS,
    TWO_IN_FLIGHT,
    is_open,
    violations_of,
    violations_of_head,
)
from sr_exporter.simulator.replies import reply_to
from sr_exporter.simulator.requests import Request, RequestReader
from tests.recorded_mi import recorded_node

if TYPE_CHECKING:
    from types import TracebackType

VERSION = "3.6"
#: What every poll begins with.
FIRST = b'"sr_list_status"'


class Asked(NamedTuple):
    """What the sources saw. Times are of CLOCK_MONOTONIC, which processes share."""

    #: When each poll began, and of which address.
    polls: list[tuple[float, str]]
    violations: list[str]
    #: How much processor time the sources themselves took.
    cpu_seconds: float


class ManySources:
    """The process, from the side of a test; `with` starts and ends it."""

    def __init__(self, *, change_every_seconds: float) -> None:
        self._change_every_seconds = change_every_seconds

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.many_sources", str(self._change_every_seconds)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._ports = self._read()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._process.kill()
        self._process.wait(10)
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            pipe.close()

    def urls(self, count: int, *, silent: int = 0, full: int = 0) -> list[str]:
        """Give addresses to ask, of so many kinds, in an order that mixes them."""
        ports = [self._ports["full"]] * full + [self._ports["silent"]] * silent
        ports += [self._ports["good"]] * (count - len(ports))
        step = next(n for n in range(count // 3, count) if _coprime(n, count)) if count > 3 else 1
        return [
            f"http://{address_of(number)}:{ports[number * step % count]}/mi"
            for number in range(count)
        ]

    def answering(self, urls: list[str]) -> set[str]:
        """Give the addresses of those that are no black holes."""
        parts = [urlsplit(url) for url in urls]
        return {part.hostname or "" for part in parts if part.port == self._ports["good"]}

    def asked(self) -> Asked:
        """Give what the sources saw since this was asked before."""
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        said = self._read()
        polls = [(at, address) for at, address in said["polls"]]
        return Asked(polls, said["violations"], said["cpu_seconds"])

    def _read(self) -> dict:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, "the simulated sources ended"
        return json.loads(line)


def address_of(number: int) -> str:
    return f"127.0.{number // 250}.{number % 250 + 1}"


def _coprime(one: int, other: int) -> bool:
    while other:
        one, other = other, one % other
    return one == 1


# --- the process ----------------------------------------------------------------------------


class _World:
    """The node, and what was seen at any address."""

    def __init__(self) -> None:
        self.node = recorded_node(VERSION)
        self.polls: list[tuple[float, str]] = []
        self.violations: list[str] = []
        self.open: defaultdict[str, set[_Connection]] = defaultdict(set)

    async def change_every(self, seconds: float) -> None:
        """Have one identifier go up and down, as a module that reloads."""
        (core,) = (group for group in self.node.groups() if group.name == "core")
        (main,) = core.identifiers()
        turned = 0
        while True:
            await asyncio.sleep(seconds)
            turned += 1
            status = -1 if turned % 2 else 1
            self.node.set_status(core.name, main.name, status, f"turned {turned} times")
            self.node.add_report(core.name, main.name, f"turn {turned}", time.time())

    def take(self) -> str:
        """Write down in one line what was seen, and begin anew."""
        polls, self.polls = self.polls, []
        violations, self.violations = self.violations, []
        return json.dumps(
            {"polls": polls, "violations": violations, "cpu_seconds": time.process_time()}
        )


class _Connection(asyncio.Protocol):
    def __init__(self, world: _World, *, answers: bool) -> None:
        self._world = world
        self._answers = answers
        self._reader = RequestReader(limit=1024)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._address = transport.get_extra_info("sockname")[0]
        others = self._world.open[self._address]
        if any(other.is_open() for other in others):
            self._world.violations.append(TWO_CONNECTIONS)
        others.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._world.open[self._address].discard(self)

    def is_open(self) -> bool:
        found = self._transport.get_extra_info("socket")
        return found is not None and is_open(found.fileno())

    def data_received(self, data: bytes) -> None:
        if self._reader.begun:
            self._world.violations.append("a request in more than one write")
        self._reader.feed(data)
        request = self._reader.next_request()
        if request is None:
            return
        if self._reader.begun:
            self._world.violations.append(TWO_IN_FLIGHT)
        self._answer(request)

    def _answer(self, request: Request) -> None:
        self._world.violations.extend(violations_of_head(request.method, request.headers))
        self._world.violations.extend(violations_of(request.body))
        if FIRST in request.body:
            self._world.polls.append((time.monotonic(), self._address))
        if not self._answers:
            return
        reply = reply_to(request, self._world.node, time.time())
        assert reply is not None
        assert reply.body is not None
        self._transport.write(reply.head(close=False) + reply.body)


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


async def _main(change_every_seconds: float) -> None:
    loop = asyncio.get_running_loop()
    world = _World()
    ports = {}
    with contextlib.ExitStack() as stack:
        for kind in ("good", "silent"):
            listener = stack.enter_context(socket.create_server(("0.0.0.0", 0), backlog=4096))
            ports[kind] = listener.getsockname()[1]
            answers = kind == "good"
            await loop.create_server(
                lambda answers=answers: _Connection(world, answers=answers), sock=listener
            )
        full = stack.enter_context(socket.create_server(("0.0.0.0", 0), backlog=0))
        ports["full"] = full.getsockname()[1]
        # It is never accepted; with it there is no room for another.
        stack.enter_context(socket.create_connection(("127.0.0.1", ports["full"])))
        changing = asyncio.create_task(world.change_every(change_every_seconds))
        _say(json.dumps(ports))
        while await asyncio.to_thread(sys.stdin.readline):
            _say(world.take())
        changing.cancel()


if __name__ == "__main__":
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_main(float(sys.argv[1])))
    os._exit(0)
