"""Everything that listens for events, and how it comes and goes while the exporter runs."""

from __future__ import annotations

import asyncio
import os
import socket
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple, Protocol

import structlog

from sr_exporter.errors import ConfigError, Fault
from sr_exporter.model import Way
from sr_exporter.sources.datagram import EventDatagrams, bind_unix, enlarge
from sr_exporter.sources.intake import Intake
from sr_exporter.sources.senders import Senders
from sr_exporter.sources.stream import BACKLOG, EventStream

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sr_exporter.config import Endpoint, Events, Source
    from sr_exporter.ingest import Ingest
    from sr_exporter.limited import Limited
    from sr_exporter.sources.intake import EventObserver

log = structlog.get_logger(__name__)


class Listener(Protocol):
    """One socket that is listened on."""

    def start(self, senders: Senders) -> None:
        """Serve these senders, from now on."""

    def close(self) -> None:
        """Take no more; what was taken goes its way."""

    def lost(self) -> bool:
        """Whether nobody can reach it any more."""

    async def closed(self) -> None:
        """Wait until that has come to its end, which is soon."""


class _Place(NamedTuple):
    """Where is listened: what tells one listener from another."""

    way: Way
    where: Endpoint | str


@dataclass(slots=True)
class Prepared:
    """Listeners for a configuration, bound and not yet in use: to be applied or discarded."""

    senders: Senders
    wanted: list[_Place]
    fresh: dict[_Place, Listener] = field(default_factory=dict)


class Listeners:
    """The listeners, by their places."""

    def __init__(
        self, ingest: Ingest, observer: EventObserver, limited: Limited | None = None
    ) -> None:
        self._intake = Intake(ingest, observer, limited)
        self._observer = observer
        self._listeners: dict[_Place, Listener] = {}
        self._dropped_before = 0
        self._closing: set[asyncio.Task[None]] = set()

    async def prepare(self, events: Events, sources: Sequence[Source]) -> Prepared:
        """Bind what is new; nothing that is in use is touched.

        Raises:
            ConfigError: something cannot be listened on; what could be is closed again.
        """
        prepared = Prepared(Senders(events, sources), _places(events))
        faults: list[Fault] = []
        for place in prepared.wanted:
            if place in self._listeners and not self._listeners[place].lost():
                continue
            try:
                prepared.fresh[place] = await self._bind(place)
            except OSError as error:
                faults.append(_fault(place, error))
            except BaseException:
                self.discard(prepared)
                raise
        if faults:
            self.discard(prepared)
            raise ConfigError(faults)
        return prepared

    def apply(self, prepared: Prepared) -> None:
        """Listen on these places, and no others; who is connected where nothing changed stays."""
        self._observer.configure_events(prepared.senders.known, prepared.senders.expected())
        for place in tuple(self._listeners):
            if place not in prepared.wanted or place in prepared.fresh:
                self._close(place)
        self._listeners.update(prepared.fresh)
        for place in prepared.fresh:
            log.info("listening for events", transport=place.way, listening=str(place.where))
        for listener in self._listeners.values():
            listener.start(prepared.senders)
        udp = self._udp()
        tells = udp is not None and udp.tells_drops
        self._observer.watch_drops(Way.UDP, self._dropped if tells else None)

    def discard(self, prepared: Prepared) -> None:
        """Let go of what was bound."""
        for listener in prepared.fresh.values():
            listener.close()
        prepared.fresh.clear()

    async def stop(self) -> None:
        """Take no more; returns when what was taken is kept and answered, or time is up."""
        for place in tuple(self._listeners):
            self._close(place)
        if self._closing:
            await asyncio.wait(self._closing)

    def connections(self) -> int:
        """Give how many connections there are."""
        every = self._listeners.values()
        return sum(len(one) for one in every if isinstance(one, EventStream))

    def _close(self, place: _Place) -> None:
        listener = self._listeners.pop(place)
        listener.close()
        if isinstance(listener, EventDatagrams):
            self._dropped_before += listener.dropped()
        closing = asyncio.ensure_future(listener.closed())
        self._closing.add(closing)
        closing.add_done_callback(self._closing.discard)

    def _udp(self) -> EventDatagrams | None:
        for place, listener in self._listeners.items():
            if place.way is Way.UDP and isinstance(listener, EventDatagrams):
                return listener
        return None

    def _dropped(self) -> int:
        """Give how many datagrams the kernel dropped, since the exporter started."""
        udp = self._udp()
        return self._dropped_before + (udp.dropped() if udp else 0)

    async def _bind(self, place: _Place) -> Listener:
        if isinstance(place.where, str):
            bound = bind_unix(place.where)
            return EventDatagrams(self._intake, bound, place.where)
        if place.way is Way.UDP:
            bound = await _bound(place.where, socket.SOCK_DGRAM)
            enlarge(bound, str(place.where))
            return EventDatagrams(self._intake, bound)
        bound = await _bound(place.where, socket.SOCK_STREAM)
        stream = EventStream(self._intake)
        try:
            bound.listen(BACKLOG)
            stream.open(bound)
        except OSError:
            bound.close()
            raise
        return stream


def _places(events: Events) -> list[_Place]:
    found = []
    if events.stream is not None:
        found.append(_Place(Way.TCP, events.stream))
    if events.datagram is not None:
        found.append(_Place(Way.UDP, events.datagram))
    return found + [_Place(Way.UNIX, path) for path, _ in events.unix]


async def _bound(endpoint: Endpoint, kind: socket.SocketKind) -> socket.socket:
    """Bind a socket; an empty host is every address, IPv4 and IPv6.

    Raises:
        OSError: it cannot be.
    """
    every = "::" if socket.has_dualstack_ipv6() else "0.0.0.0"  # noqa: S104 - was asked for
    found = await asyncio.get_running_loop().getaddrinfo(
        endpoint.host or every, endpoint.port, type=kind
    )
    family, address = found[0][0], found[0][4]
    bound = socket.socket(family, kind)
    try:
        bound.setblocking(False)
        if kind == socket.SOCK_STREAM:
            # Over UDP it would let another process take half of what comes.
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(bool(endpoint.host)))
        bound.bind(address)
    except OSError:
        bound.close()
        raise
    return bound


def _fault(place: _Place, error: OSError) -> Fault:
    if isinstance(error, socket.gaierror):
        why = f"name not resolved: {error.strerror}"
    elif error.errno:
        why = os.strerror(error.errno).lower()
    else:
        why = error.strerror or str(error)
    if isinstance(place.where, str):
        return Fault(f"events.datagram.unix.{place.where}", f"cannot listen on it: {why}")
    section = "stream" if place.way is Way.TCP else "datagram"
    return Fault(f"events.{section}.listen", f"cannot listen on {place.where}: {why}")
