"""Clients of the worst kind, in a process of their own: it needs many descriptors.

`python -m tests.slow_clients HTTP_PORT EVENT_PORT SLOW HALF_OPEN` connects them, says `ready`, and
goes on until its input ends; then it says how many of each kind the other side had let go of.
"""

from __future__ import annotations

import contextlib
import itertools
import resource
import select
import socket
import sys
import time

#: linux/tcp.h; Python does not name it.
_TCP_REPAIR = 19
HEAD, BODY, UNREAD, TRICKLE, EVENT, SILENT = KINDS = (
    *("head", "body", "unread", "trickle", "event", "silent"),
)
_BEGIN = {
    HEAD: b"GET /metrics HTTP/1.1\r\nX-Slow: ",
    BODY: b"POST /api/v1/push HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n",
    UNREAD: b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n" * 2,
    TRICKLE: b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n",
    EVENT: b'{"jsonrpc":"2.0","method":"',
    SILENT: b"",
}


def connect(kind: str, ports: tuple[int, int]) -> socket.socket:
    one = socket.socket()
    if kind in {UNREAD, TRICKLE}:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    one.connect(("127.0.0.1", ports[kind == EVENT]))
    with contextlib.suppress(OSError):  # it was let go of already
        one.sendall(_BEGIN[kind])
    one.setblocking(False)
    return one


def vanish(one: socket.socket) -> bool:
    """Go away without a word, as a host does whose power is gone; say whether we may."""
    try:
        one.setsockopt(socket.IPPROTO_TCP, _TCP_REPAIR, 1)
    except PermissionError:
        return False
    one.close()
    return True


def dribble(kind: str, one: socket.socket) -> bool:
    """Send or take a byte; say whether the other side is still there."""
    try:
        if kind in {HEAD, BODY, EVENT}:
            one.send(b"x")
        elif kind == TRICKLE:
            return one.recv(1) != b""
        else:
            return one.recv(1, socket.MSG_PEEK) != b""
    except BlockingIOError:
        return True
    except OSError:
        return False
    return True


def main(http: int, events: int, slow: int, half_open: int) -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    ports = http, events
    silent = []
    for number in range(half_open):
        one = connect(SILENT, (ports[number % 2],) * 2)
        if not vanish(one):
            silent.append((SILENT, one))
    kinds = itertools.cycle(KINDS[:-1] if events else (HEAD, BODY, UNREAD, TRICKLE))
    there = [(kind, connect(kind, ports)) for kind in itertools.islice(kinds, slow)] + silent
    print("ready", flush=True)  # noqa: T201
    gone = dict.fromkeys(KINDS, 0)
    following = time.monotonic()
    while not select.select([sys.stdin], [], [], max(0.0, following - time.monotonic()))[0]:
        following += 1.0
        staying = []
        for kind, one in there:
            if dribble(kind, one):
                staying.append((kind, one))
            else:
                gone[kind] += 1
                one.close()
        there = staying
    with contextlib.suppress(BrokenPipeError):
        print(*(f"{kind}={count}" for kind, count in gone.items()), flush=True)  # noqa: T201


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
