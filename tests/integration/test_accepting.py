"""Connections are taken in as long as descriptors are left, and again once there are some."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import resource
import socket
from typing import TYPE_CHECKING, cast

import pytest
import uvloop

from sr_exporter import accepting
from sr_exporter.accepting import Acceptor, is_scarce, reserved

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterator

LOOPS = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


class Greeter(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        cast("asyncio.Transport", transport).write(
            b"hello"
        )  # uvloop's are of no class of asyncio's


class Inn:
    """Takes in whoever comes, up to a number."""

    busy = b"full"
    most = 1000

    def __init__(self) -> None:
        self.protocol = Greeter
        self.errors: list[OSError] = []
        self.out = asyncio.Event()
        self.scarce: list[bool] = []
        self.rooms = 1000

    def __len__(self) -> int:
        return 0

    def has_room(self, expected: int, *, scarce: bool) -> bool:
        self.scarce.append(scarce)
        self.rooms -= 1
        return self.rooms >= 0

    def exhausted(self, error: OSError) -> None:
        self.errors.append(error)
        self.out.set()


@contextlib.contextmanager
def accepted(inn: Inn) -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        acceptor = Acceptor(listening, inn)
        acceptor.start()
        yield listening.getsockname()[1]
        acceptor.close()


async def greeted(port: int) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    with contextlib.closing(writer):
        return await asyncio.wait_for(reader.read(5), 10)


@pytest.fixture(params=LOOPS)
def run(request):
    def on(act: Coroutine[object, object, None]) -> None:
        with asyncio.Runner(loop_factory=LOOPS[request.param]) as runner:
            runner.run(act)

    return on


def test_who_finds_no_room_is_told(run):
    async def act() -> None:
        inn = Inn()
        inn.rooms = 1
        with accepted(inn) as port:
            assert await greeted(port) == b"hello"
            assert await greeted(port) == b"full"

    run(act())


def test_out_of_descriptors_and_back(run):
    """The listener rests, and those who wait are taken in as soon as there is one."""

    async def act() -> None:
        inn = Inn()
        with accepted(inn) as port, contextlib.ExitStack() as stack:
            waiting = stack.enter_context(socket.socket())
            soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
            stack.callback(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
            lowest = os.dup(waiting.fileno())
            os.close(lowest)
            resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, hard))
            waiting.connect(("127.0.0.1", port))
            waiting.setblocking(False)
            await asyncio.wait_for(inn.out.wait(), 10)
            assert inn.errors[0].errno == errno.EMFILE
            with pytest.raises(BlockingIOError):
                waiting.recv(5)
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            loop = asyncio.get_running_loop()
            assert await asyncio.wait_for(loop.sock_recv(waiting, 5), 10) == b"hello"
            assert await greeted(port) == b"hello"

    run(act())


def test_the_number_of_a_descriptor_tells_how_many_are_left(run, monkeypatch):
    async def act() -> None:
        inn = Inn()
        with accepted(inn) as port:
            await greeted(port)
            monkeypatch.setattr(accepting, "files", lambda: 4)
            await greeted(port)
        assert inn.scarce == [False, True]

    run(act())


@pytest.mark.parametrize(
    ("most", "left"), [(16, 8), (100, 50), (128, 64), (512, 64), (1024, 128), (524_288, 65_536)]
)
def test_how_many_are_left_to_the_rest(monkeypatch, most, left):
    monkeypatch.setattr(accepting, "files", lambda: most)
    assert reserved(most) == left
    assert not is_scarce(most - left - 1)
    assert is_scarce(most - left)


def test_without_a_limit_nothing_is_scarce(monkeypatch):
    monkeypatch.setattr(resource, "getrlimit", lambda _: (resource.RLIM_INFINITY,) * 2)
    assert not is_scarce(10**9)


def test_accepted_sockets_ask_for_signs_of_life(run):
    """A peer that vanished is found, whoever it is."""

    async def act() -> None:
        taken = asyncio.get_running_loop().create_future()

        class Taken(Greeter):
            def connection_made(self, transport: asyncio.BaseTransport) -> None:
                super().connection_made(transport)
                taken.set_result(
                    [
                        transport.get_extra_info("socket").getsockopt(level, option)
                        for level, option, _ in accepting._KEEPALIVE
                    ]
                )

        inn = Inn()
        inn.protocol = Taken
        with accepted(inn) as port:
            await greeted(port)
        assert await taken == [value for _, _, value in accepting._KEEPALIVE]

    run(act())
