"""From the names of hosts to their addresses, without holding anybody up.

Looking a name up blocks a thread, and cannot be ended: where DNS does not answer, for many
seconds. So there are threads for this alone, each name has one lookup at a time, whoever
waits for it, and a host that was found once is asked where it was last found while DNS is
silent or in trouble: an OpenSIPS or a receiver is not down because a name server is.
"""

from __future__ import annotations

import asyncio
import socket
from typing import Any, NamedTuple

from sr_exporter.threads import NoThread, Pool

LOOKUPS_AT_ONCE = 64
#: How long a lookup may take before the last known addresses are used instead.
PATIENCE_SECONDS = 0.5


class NotResolvedError(OSError):
    """A name has no address, or nobody can say which."""


class Address(NamedTuple):
    """Where a socket connects to; the first three make the socket."""

    family: int
    kind: int
    protocol: int
    #: As `socket.connect` takes it.
    place: Any


class _Wanted(NamedTuple):
    host: str
    port: int
    kind: socket.SocketKind


class Names:
    """Looks names up, for all that share it."""

    def __init__(self) -> None:
        # Threads are made when they are needed; where all hosts are numbers there is none.
        self._pool = Pool(LOOKUPS_AT_ONCE, thread_name_prefix="names")
        self._under_way: dict[_Wanted, asyncio.Future[list[Address]]] = {}
        self._known: dict[_Wanted, list[Address]] = {}

    async def addresses(self, host: str, port: int, kind: socket.SocketKind) -> list[Address]:
        """Give the addresses of a host, at least one, in the order to try them.

        Raises:
            NotResolvedError: the name has no address.
        """
        wanted = _Wanted(host, port, kind)
        try:
            return _look_up(wanted, socket.AI_NUMERICHOST)
        except socket.gaierror:
            pass  # it is a name
        except UnicodeError:
            raise NotResolvedError("name not resolved: no name is like that") from None
        known = self._known.get(wanted)
        try:
            lookup = self._lookup(wanted)
        except NoThread as error:
            if known:
                return known
            raise NotResolvedError(f"name not looked up: {error}") from None
        # Whoever is cancelled leaves the lookup to the others, and to the next poll.
        await asyncio.wait({lookup}, timeout=PATIENCE_SECONDS if known else None)
        if known and not lookup.done():
            return known
        try:
            found = lookup.result()
        except socket.gaierror as error:
            if known and error.errno == socket.EAI_AGAIN:
                return known
            self._known.pop(wanted, None)
            raise NotResolvedError(f"name not resolved: {error.strerror}") from None
        self._known[wanted] = found
        return found

    def close(self) -> None:
        """Look nothing up any more. Who still waits is cancelled."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _lookup(self, wanted: _Wanted) -> asyncio.Future[list[Address]]:
        lookup = self._under_way.get(wanted)
        if lookup is None:
            loop = asyncio.get_running_loop()
            lookup = self._under_way[wanted] = loop.run_in_executor(self._pool, _look_up, wanted)
            lookup.add_done_callback(lambda ended: self._ended(wanted, ended))
        return lookup

    def _ended(self, wanted: _Wanted, lookup: asyncio.Future[list[Address]]) -> None:
        del self._under_way[wanted]
        if not lookup.cancelled():
            lookup.exception()  # looked at, even when nobody waits for it any more


def _look_up(wanted: _Wanted, flags: int = 0) -> list[Address]:
    found = socket.getaddrinfo(wanted.host, wanted.port, type=wanted.kind, flags=flags)
    return [Address(family, kind, proto, place) for family, kind, proto, _, place in found]
