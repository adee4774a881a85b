"""Addresses of sockets, as they are written and as they are compared."""

from __future__ import annotations

import ipaddress
import re

from sr_exporter.config.values import Endpoint

#: Of a name with labels of another length no resolver is asked.
LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9])?"
_HOST = re.compile(rf"{LABEL}(?:\.{LABEL})*")
_PORT = re.compile(r"[0-9]{1,5}")


def parse_endpoint(text: str) -> Endpoint:
    """Read `host:port`, `[v6]:port`, or `:port` for every address.

    Raises:
        ValueError: it is of another form, or no such port can be. OpenSIPS takes 99999, and
            uses 34463 (facts on OpenSIPS, section 2).
    """
    host, colon, port = text.rpartition(":")
    if not colon:
        raise ValueError("must be host:port")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
        if _ip(host, 6) is None:
            raise ValueError("has no valid IPv6 address between the brackets")
    elif ":" in host:
        raise ValueError("must have its IPv6 address in brackets: [::1]:9798")
    elif host and not _HOST.fullmatch(host):
        raise ValueError("has no valid host")
    if not _PORT.fullmatch(port) or not 1 <= int(port) <= 65_535:
        raise ValueError("must have a port from 1 to 65535")
    return Endpoint(host, int(port))


def plain_address(text: str) -> str:
    """Spell an IP address in the one way it is compared in; IPv4 never as IPv6.

    Raises:
        ValueError: it is none.
    """
    address = ipaddress.ip_address(text)
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return str(mapped or address)


def is_concrete_ipv4(host: str) -> bool:
    """Say whether this is one IPv4 address that somebody can connect to."""
    address = _ip(host, 4)
    return address is not None and not (
        address.is_unspecified or address.is_multicast or address == _BROADCAST
    )


def is_loopback(host: str) -> bool:
    """Say whether nothing but this machine is reached at a host."""
    try:
        return ipaddress.ip_address(plain_address(host)).is_loopback
    except ValueError:
        return host.lower().rstrip(".") in {"localhost", "localhost.localdomain"}


_BROADCAST = ipaddress.IPv4Address("255.255.255.255")


def _ip(text: str, version: int) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    return address if address.version == version else None
