"""What no OpenSIPS should be sent (design, rule 1): the judge of every simulated server.

Real servers die of some of it, and hang or go silent on the rest (facts on OpenSIPS, sections 7
to 9). Each server keeps a record of what it saw, and each record is told of to whoever watches:
the tests do, so that none of them can forget to look.
"""

from __future__ import annotations

import json
import select
import socket
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

#: The longest request that every server takes, over HTTP too (facts, section 7).
LONGEST_REQUEST = 1024
#: What no server should be asked (facts, section 2; design, rule 12).
_FORBIDDEN = ("subscribers_list", "evi:subscribers", "which")

#: What Linux alone can be asked of a connection.
_CLOSED_BY_PEER = getattr(select, "POLLRDHUP", 0)

TWO_IN_FLIGHT = "a second request in flight"
TWO_CONNECTIONS = "a second connection at the same time"


class Violations(list[str]):
    """What one server was sent and should not have been, as it came."""

    #: Told of each record as it is begun.
    watchers: tuple[Callable[[Violations], None], ...] = ()

    def __init__(self) -> None:
        super().__init__()
        for watcher in self.watchers:
            watcher(self)


def violations_of(body: bytes) -> Iterator[str]:
    """Say what a request should not be, by what real servers survive."""
    if len(body) > LONGEST_REQUEST:
        yield f"a body of {len(body)} bytes"
    try:
        said = json.loads(body)
    except (ValueError, RecursionError):
        yield f"not JSON: {body!r}"
        return
    if not isinstance(said, dict):
        yield f"a batch, or no object: {body!r}"
    elif not isinstance(said.get("method"), str):
        yield f"no string method: {body!r}"
    else:
        yield from _violations_of_call(said, body)


def _violations_of_call(said: dict[str, Any], body: bytes) -> Iterator[str]:
    request_id, params = said.get("id"), said.get("params")
    if said.get("jsonrpc") != "2.0":
        yield f"not JSON-RPC 2.0: {body!r}"
    if "id" not in said:
        yield f"a notification: {body!r}"
    elif type(request_id) is not int or not 0 < request_id < 2**31:
        yield f"no small integer id: {body!r}"
    if "params" in said and not (isinstance(params, list | dict) and params):
        yield f"params that hold nothing: {body!r}"
    if said["method"] in _FORBIDDEN:
        yield f"{said['method']} was asked"


def violations_of_head(method: str, headers: Mapping[str, str]) -> Iterator[str]:
    """Say what the head of an HTTP request should not be. Names of headers are in lower case."""
    if method != "POST":
        yield f"{method}, and no POST"
    if "content-length" not in headers:
        yield "a body without Content-Length"
    if "transfer-encoding" in headers:
        yield f"a body in {headers['transfer-encoding']}"
    if "expect" in headers:
        yield "a body that waits to be asked for"
    if not headers.get("content-type", "").lower().startswith("application/json"):
        yield "no Content-Type: application/json"


def is_open(descriptor: int) -> bool:
    """Whether the peer of a connection has not closed it, be that noticed yet or not."""
    if descriptor < 0:
        return False
    if _CLOSED_BY_PEER:  # it is seen behind what was sent and is not read yet, too
        poll = select.poll()
        poll.register(descriptor, _CLOSED_BY_PEER)
        return not poll.poll(0)
    try:
        with socket.socket(fileno=socket.dup(descriptor)) as same:
            return same.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) != b""
    except BlockingIOError:
        return True
    except OSError:
        return False
