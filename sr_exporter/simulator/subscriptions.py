"""Who is told of a node's events: `event_subscribe`, as the event interface of OpenSIPS has it.

No clock and no I/O. Recorded from 4.0 and 4.1-dev, "(src)" was read in source (facts on OpenSIPS,
section 2):

* A socket is parsed, and never tried: `tcp:127.0.0.1:1` is as good as another. A port over 65535
  is taken modulo 65536. The names of events and protocols are case-sensitive.
* The same socket again is a renewal. It ends by expiring, which is looked at when an event is
  raised: an `expire` of 0 lasts to the end of the second.
* `subscribe_event` in the script never expires; over the Management Interface, it then does.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from sr_exporter.wire.answers import Command
from sr_exporter.wire.calls import CallError
from sr_exporter.wire.events import EVENT

if TYPE_CHECKING:
    from sr_exporter.wire.answers import Asked, Commands

DEFAULT_EXPIRE_SECONDS = 3600
_FORMS = (("event", "socket"), ("event", "socket", "expire"))


class Socket(NamedTuple):
    """Where events go. Two with all parts the same are one subscription."""

    #: tcp, udp or unix.
    protocol: str
    #: An IPv4 address or, for unix, a path.
    host: str
    port: int = 0
    #: What is sent as the method's name; None is the event's own. Only tcp has it.
    method: str | None = None


def parse_socket(text: str) -> Socket:
    """Read `tcp:host:port[/method]`, `udp:host:port` or `unix:path`.

    The host is an IPv4 address, or `localhost`: a simulated machine resolves no other name.

    Raises:
        ValueError: it is none of them.
    """
    protocol, _, rest = text.partition(":")
    if protocol == "unix" and rest:
        return Socket(protocol, rest)
    if protocol not in ("tcp", "udp"):
        raise ValueError(f"no protocol of ours: {text!r}")
    host, _, rest = rest.partition(":")
    port, slash, method = rest.partition("/")
    if not (port.isascii() and port.isdecimal()) or (slash and protocol == "udp"):
        raise ValueError(f"no port: {text!r}")
    number = int(port) % 65536
    if number == 0:
        raise ValueError(f"no port: {text!r}")
    address = "127.0.0.1" if host == "localhost" else str(ipaddress.IPv4Address(host))
    return Socket(protocol, address, number, method or None)


@dataclass(slots=True)
class _Lease:
    since: int
    #: None: it does not end.
    expire: int | None

    def is_over(self, now: int) -> bool:
        return self.expire is not None and now > self.since + self.expire


class Subscriptions:
    """Those of one run of a server. Times are Unix seconds, of which only whole ones count.

    `knows_named` is False for the servers of OpenSIPS issue 4169: they do not recognize a TCP
    socket with a name, so that a renewal is another subscription beside the first.
    """

    def __init__(self, *, knows_named: bool = True) -> None:
        self._knows_named = knows_named
        self._made = 0
        #: By socket, and a number for those that are not recognized.
        self._leases: dict[tuple[Socket, int], _Lease] = {}

    def clear(self) -> None:
        """Forget all, as a server that ends."""
        self._leases.clear()

    def subscribe(self, socket: Socket, expire: int | None, now: float) -> None:
        """Begin or renew one; None does not expire, but leaves the end of one that does."""
        number = 0
        if socket.method is not None and not self._knows_named:
            self._made += 1
            number = self._made
        lease = self._leases.setdefault((socket, number), _Lease(int(now), expire))
        lease.since = int(now)
        if expire is not None:
            lease.expire = expire

    def live(self, now: float) -> list[Socket]:
        """Give those that are to be told of an event now, the newest first; drop the others."""
        over = [what for what, lease in self._leases.items() if lease.is_over(int(now))]
        for what in over:
            del self._leases[what]
        return [socket for socket, _ in reversed(self._leases)]

    def commands(self) -> Commands:
        """Give `event_subscribe`, by its full name of each release."""
        command = Command(self._subscribe, _FORMS)
        return {"event_subscribe": command, "evi:subscribe": command}

    def _subscribe(self, asked: Asked) -> str:
        expire = _seconds(asked.params.get("expire", str(DEFAULT_EXPIRE_SECONDS)))
        for name in ("event", "socket"):
            if not asked.params[name]:
                raise _invalid(f"Bad type for parameter '{name}'")
        if asked.params["event"] != EVENT:
            raise _bad_value()
        try:
            socket = parse_socket(asked.params["socket"])
        except ValueError:
            raise _bad_value() from None
        self.subscribe(socket, expire, asked.now)
        return "OK"


def _seconds(text: str) -> int:
    try:
        seconds = int(text)
    except ValueError:
        raise _invalid("Bad type for parameter 'expire'") from None
    if seconds < 0:
        raise _invalid("Negative expire value")
    return seconds


def _invalid(data: str) -> CallError:
    return CallError(-32602, "Invalid params", data)


def _bad_value() -> CallError:
    return CallError(400, "Bad parameter value")
