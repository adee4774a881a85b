"""Clients that send requests made beforehand, from a process of their own that does little else.

One thread waits for all connections at once and hands out bytes: it takes a tenth of what the
programs it measures take. How much of a core it took is measured, too.
"""

from __future__ import annotations

import math
import multiprocessing
import select
import socket
import time
from collections import deque
from concurrent.futures import ProcessPoolExecutor
from typing import TYPE_CHECKING, NamedTuple, Self

if TYPE_CHECKING:
    from collections.abc import Sequence
    from concurrent.futures import Future


class Loaded(NamedTuple):
    """How it went."""

    #: In their order: which connection, which of its requests, when sent (in seconds of
    #: CLOCK_MONOTONIC, which processes share), and in how many seconds answered.
    answers: list[tuple[int, int, float, float]]
    seconds: float
    #: How much of a core the clients themselves took.
    share: float
    #: How many requests each connection has sent.
    sent: list[int]

    @property
    def took(self) -> list[float]:
        return [took for *_, took in self.answers]

    @property
    def rate(self) -> float:
        return len(self.answers) / self.seconds


def request(path: str, body: bytes, method: str = "POST") -> bytes:
    """Write a request whole."""
    head = f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


class Load:
    """Keeps a process for it; `with` ends that."""

    def __enter__(self) -> Self:
        self._pool = ProcessPoolExecutor(1, multiprocessing.get_context("spawn"))
        self._sent: dict[int, list[int]] = {}
        return self

    def __exit__(self, *failed: object) -> None:
        self._pool.shutdown()

    def begin(
        self,
        port: int,
        requests: Sequence[Sequence[bytes]],
        seconds: float,
        *,
        per_second: float = math.inf,
        since: Sequence[int] = (),
    ) -> Future[Loaded]:
        """Send over one connection for each list, each again and again, for so long.

        Without `per_second` each connection sends as soon as it was answered. `since` says how
        many requests each connection has sent in earlier runs: it goes on there.
        """
        return self._pool.submit(_run, port, requests, seconds, per_second, since)

    def once(self, port: int, requests: Sequence[Sequence[bytes]]) -> Loaded:
        """Send every request once."""
        return self._pool.submit(_run, port, requests, math.inf, math.inf, (), once=True).result()

    def go_on(self, port: int, requests: Sequence[Sequence[bytes]], seconds: float) -> Loaded:
        """Load a port from where the last time ended."""
        since = self._sent.get(port, ())
        loaded = self.begin(port, requests, seconds, since=since).result()
        self._sent[port] = loaded.sent
        return loaded


class _Client:
    """One connection."""

    def __init__(self, number: int, port: int, requests: Sequence[bytes], sent: int) -> None:
        self.number = number
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=600)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._requests = requests
        self._answer = b""
        self.sent = sent
        self.sent_at = 0.0

    def has_more(self, once: bool) -> bool:
        """Say whether there is anything to be sent, each `once` or again and again."""
        return self.sent < len(self._requests) if once else bool(self._requests)

    def send(self) -> None:
        self.sent_at = time.perf_counter()
        self.socket.sendall(self._requests[self.sent % len(self._requests)])
        self.sent += 1

    def is_answered(self) -> bool:
        """Read what has come; say whether the answer is whole.

        Raises:
            RuntimeError: it is none of success.
        """
        self._answer += self.socket.recv(65536)
        head, found, body = self._answer.partition(b"\r\n\r\n")
        if not found:
            if not head:
                raise RuntimeError("the connection was closed")
            return False
        if head[9:11] != b"20":
            raise RuntimeError(f"answered {self._answer[:500]!r}")
        if b"content-length: 0" not in (lower := head.lower()):
            size = int(lower.partition(b"content-length: ")[2].partition(b"\r\n")[0])
            if len(body) < size:
                return False
        self._answer = b""
        return True


def _run(
    port: int,
    requests: Sequence[Sequence[bytes]],
    seconds: float,
    per_second: float,
    since: Sequence[int],
    *,
    once: bool = False,
) -> Loaded:
    clients: dict[int, _Client] = {}
    poll = select.epoll()
    for number, own in enumerate(requests):
        client = _Client(number, port, own, since[number] if since else 0)
        clients[client.socket.fileno()] = client
        poll.register(client.socket, select.EPOLLIN)
    idle = deque(client for client in clients.values() if client.has_more(once))
    under_way = 0
    answers: list[tuple[int, int, float, float]] = []
    computed = time.process_time()
    now = due = started = time.perf_counter()
    end = started + seconds
    while under_way or (idle and now < end):
        while idle and due <= now < end:
            idle.popleft().send()
            under_way += 1
            due += 1 / per_second
        waits = max(0.0, min(due, end) - now) if idle and now < end else -1
        for descriptor, _ in poll.poll(waits):
            client = clients[descriptor]
            if client.is_answered():
                took = time.perf_counter() - client.sent_at
                answers.append((client.number, client.sent - 1, client.sent_at, took))
                under_way -= 1
                if client.has_more(once):
                    idle.append(client)
        now = time.perf_counter()
    lasted = now - started
    share = (time.process_time() - computed) / lasted
    for client in clients.values():
        client.socket.close()
    poll.close()
    return Loaded(answers, lasted, share, [client.sent for client in clients.values()])
