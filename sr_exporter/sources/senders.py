"""Whose an event is. Pure.

An event itself does not say it (facts on OpenSIPS, section 2). Over TCP the method does where a
name was given when subscribing, `tcp:host:port/NAME`; else, and over UDP, the address does, by
`events.peers`; at a Unix socket the socket does. A wrong source is worse than none: a name that
is nobody's is not made up for by its address, for two servers may share one.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from sr_exporter.config import Subscribe
from sr_exporter.config.addresses import plain_address
from sr_exporter.model import Way
from sr_exporter.wire.events import EVENT

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from sr_exporter.config import Events, Source


@lru_cache(maxsize=1024)
def plain(address: str) -> str:
    """Spell an address of a socket as `events.peers` does: IPv4 never as IPv6."""
    try:
        return plain_address(address)
    except ValueError:
        return address  # one with a scope


class Senders:
    """Everybody who may send events, by a configuration."""

    def __init__(self, events: Events, sources: Sequence[Source]) -> None:
        self._events = events
        self._subscribed = [source.name for source in sources if source.subscribe is Subscribe.TCP]
        self._peers = dict(events.peers)
        self._unix = dict(events.unix)
        #: Every source there is: polled ones, and those that only send events.
        self.known = frozenset(source.name for source in sources) | events.sources()

    def over_tcp(self, method: str, address: str) -> str | None:
        """Give the source of an event; None: a stranger's."""
        if method == EVENT:  # no name was given when subscribing
            return self._peers.get(plain(address))
        return method if method in self.known else None

    def over_udp(self, address: str) -> str | None:
        return self._peers.get(plain(address))

    def over_unix(self, path: str) -> str | None:
        return self._unix.get(path)

    def expected(self) -> Iterator[tuple[str, Way]]:
        """Give every source from which events are awaited, and the ways they may come."""
        if self._events.stream is not None:
            for name in (*self._subscribed, *self._peers.values()):
                yield name, Way.TCP
        if self._events.datagram is not None:
            for name in self._peers.values():
                yield name, Way.UDP
        for name in self._unix.values():
            yield name, Way.UNIX
