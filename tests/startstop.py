"""The recorded start and stop of a real 4.0: what answered when, and which events it sent.

`recordings/4.0/STARTSTOP.txt` holds the answers over http and over a datagram socket that changed,
by the seconds since the start; `ev-startstop` the events of the same run over TCP, to a socket that
its startup_route subscribed.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from sr_exporter.model import PollFailure
from sr_exporter.wire import events
from tests.recorded_events import RECORDINGS

#: When that server was started, by its events' clock: its last answer and the end of their
#: connection are 7.72 s later.
STARTED = 1795378372.05
_LINE = re.compile(r" +([\d.]+)s (http|dgram): (.*)")
_ITEM = re.compile(r"(\S+?)/(\S+?)=(-?\d+)\((.*?)\)(?: |$)")
#: Set by the script of that server, to be seen: not a part of starting.
_SCRIPTS = "alarms"


class Listed(NamedTuple):
    """What is listed at a time; `failure` instead, where nothing answers."""

    second: float
    items: tuple[tuple[str, str, int, str | None], ...] = ()
    failure: PollFailure | None = None


def answers(transport: str) -> list[Listed]:
    """Give what a transport (http, dgram) told, each from its second on."""
    text = (RECORDINGS / "4.0" / "STARTSTOP.txt").read_text()
    found = []
    for second, of, said in _LINE.findall(text):
        if of == transport:
            items = tuple(
                (group, identifier, int(status), None if details == "None" else details)
                for group, identifier, status, details in _ITEM.findall(said)
            )
            found.append(Listed(float(second), items, None if items else PollFailure.CONNECT))
    return found


def sent() -> list[tuple[float, bytes]]:
    """Give each event and its second."""
    log = (RECORDINGS / "4.0" / "ev-startstop" / "ev-tcp.log").read_bytes()
    found = re.findall(rb"@([\d.]+) \d+ [^\n]*\n(\{.*\})\n", log)
    return [
        (float(at) - STARTED, data)
        for at, data in found
        if events.event(data).params.group != _SCRIPTS
    ]
