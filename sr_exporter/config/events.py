"""From the section `events` of a configuration, and who subscribes, to where events are heard."""

from __future__ import annotations

import posixpath
import re
from typing import TYPE_CHECKING, Final, NamedTuple
from urllib.parse import urlsplit

from sr_exporter.config.addresses import (
    is_concrete_ipv4,
    is_loopback,
    parse_endpoint,
    plain_address,
)
from sr_exporter.config.keys import SCHEMA
from sr_exporter.config.reading import Naming
from sr_exporter.config.urls import SOCKET_PATH_BYTES
from sr_exporter.config.values import Events, Subscribe
from sr_exporter.model import RESERVED_SOURCES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sr_exporter.config.reading import Place, Section
    from sr_exporter.config.values import Endpoint

_PRINTABLE: Final = re.compile(r"[ -~]+")
_PATHS: Final = Naming(_PRINTABLE, "no file name in plain ASCII")
_ADDRESSES: Final = Naming(_PRINTABLE, "no IP address")
#: A subscription is `tcp:host:port/NAME`, which OpenSIPS takes apart by itself.
_METHOD: Final = re.compile(r"[A-Za-z0-9._:@+-]+")


class Subscriber(NamedTuple):
    """A source whose MI is asked to send us its events, and where that is said."""

    name: str
    mi: str
    place: Place


def read_events(top: Section) -> Events:
    """Read where events are listened for, and who may send them."""
    place = top.get("events")
    if place is None:
        return Events()
    section = place.section(SCHEMA, "events")
    stream, datagram = section.filled("stream"), section.get("datagram")
    listen = advertise = udp = None
    unix: dict[str, str] = {}
    if stream is not None:
        listen, advertise = _stream(stream.section(SCHEMA, "events.stream"))
    if datagram is not None:
        inner = datagram.section(SCHEMA, "events.datagram")
        udp, unix = _endpoint(inner.get("listen")), _unix(inner.get("unix"))
    return Events(
        stream=listen,
        advertise=advertise,
        datagram=udp,
        unix=tuple(unix.items()),
        peers=_peers(section, usable=stream is not None or udp is not None),
    )


def read_subscribe(section: Section) -> tuple[Subscribe, Place | None]:
    """Read whether a source is subscribed to, and where that is said."""
    place = section.get("events")
    said = place.section(SCHEMA, "sources[].events").get("subscribe") if place else None
    return (said.choice(Subscribe), said) if said else (Subscribe.NONE, None)


def check_subscribers(subscribers: Sequence[Subscriber], events: Events) -> None:
    """Find the subscriptions whose events would come to nobody, or be nobody's."""
    for name, mi, place in subscribers:
        readable = not any(fault.where.startswith("events.stream") for fault in place.faults)
        if name and not _METHOD.fullmatch(name):
            place.fault(
                "needs a name of letters, digits and ._:@+- only: OpenSIPS is told it in"
                " tcp:host:port/NAME"
            )
        if not readable:
            continue
        if events.stream is None:
            place.fault("needs events.stream: nothing is listened on")
        elif events.advertise is None:
            place.fault(
                "needs events.stream.advertise: events.stream.listen is not one IPv4 address"
            )
        elif mi and _is_elsewhere(mi):
            _must_reach_us(place, events.stream, events.advertise)


def _must_reach_us(place: Place, listen: Endpoint, advertise: Endpoint) -> None:
    for key, endpoint in (("advertise", advertise), ("listen", listen)):
        if is_loopback(endpoint.host):
            place.fault(
                f"cannot reach us: events.stream.{key} is {endpoint}, on this machine only, and"
                " its mi is elsewhere"
            )
            return


def _is_elsewhere(mi: str) -> bool:
    """Say whether a Management Interface is, or may be, on another machine."""
    try:
        parts = urlsplit(mi)
    except ValueError:
        return False  # which is a fault of its own
    return parts.scheme in {"http", "https", "udp"} and not is_loopback(parts.hostname or "")


def _stream(section: Section) -> tuple[Endpoint | None, Endpoint | None]:
    listen = _endpoint(section.need("listen"))
    place = section.get("advertise")
    advertise = _endpoint(place)
    if place is None:
        usable = listen is not None and is_concrete_ipv4(listen.host)
        return listen, listen if usable else None
    if advertise is not None and not is_concrete_ipv4(advertise.host):
        place.fault("must be one IPv4 address and a port: event_stream knows no other")
    return listen, advertise


def _endpoint(place: Place | None) -> Endpoint | None:
    text = place.text("host:port") if place else ""
    if not (place and text):
        return None
    try:
        return parse_endpoint(text)
    except ValueError as error:
        place.fault(str(error))
        return None


def _unix(place: Place | None) -> dict[str, str]:
    """Read socket paths, and whose events come there."""
    found: dict[str, str] = {}
    first: dict[str, str] = {}
    for path, at in (place.mapping(_PATHS) if place else {}).items():
        plain = "/" + posixpath.normpath(path).lstrip("/")
        if not path.startswith("/"):
            at.fault("must be an absolute path")
        elif len(path.encode()) > SOCKET_PATH_BYTES:
            at.fault(f"must have a path of {SOCKET_PATH_BYTES} bytes at most")
        elif first.setdefault(plain, at.path) != at.path:
            at.fault(f"is there twice: the first is {first[plain]}")
        found[plain] = _source(at)
    return found


def _peers(section: Section, *, usable: bool) -> tuple[tuple[str, str], ...]:
    place = section.get("peers")
    found: dict[str, str] = {}
    first: dict[str, str] = {}
    for text, at in (place.mapping(_ADDRESSES) if place else {}).items():
        source = _source(at)
        try:
            address = plain_address(text)
        except ValueError:
            at.fault("must be an IP address")
            continue
        if first.setdefault(address, at.path) != at.path:
            at.fault(f"is there twice: the first is {first[address]}")
        found[address] = source
    if place and found and not usable:
        place.fault("nobody can be one: there is neither events.stream nor events.datagram.listen")
    return tuple(found.items())


def _source(place: Place) -> str:
    name = place.name()
    if name in RESERVED_SOURCES:
        place.fault(f"{name} is reserved")
    return name
