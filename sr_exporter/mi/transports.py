"""From the address of a Management Interface to what asks it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, unquote, urlsplit

from sr_exporter.mi.datagram import UdpTransport, UnixTransport
from sr_exporter.mi.fifo import FifoTransport
from sr_exporter.mi.http import HttpTransport
from sr_exporter.mi.places import OwnFolder, Place
from sr_exporter.names import Names

if TYPE_CHECKING:
    from sr_exporter.mi.transport import Transport

#: Where mi_fifo makes its answers out of the box.
REPLY_DIR = "/tmp"  # noqa: S108 - OpenSIPS' default, and names there cannot be guessed


def name_of(address: str) -> str:
    """Give the value of the label `transport` for an address."""
    scheme = address.partition(":")[0].lower()
    return "http" if scheme == "https" else scheme


class Transports:
    """Makes transports, and has what they share."""

    def __init__(self) -> None:
        self._names = Names()
        self._own = OwnFolder()
        self._places: dict[str, Place] = {}

    def to(
        self,
        address: str,
        *,
        timeout_seconds: float,
        basic_auth: tuple[str, str] | None = None,
        ca: str | None = None,
    ) -> Transport:
        """Give the transport to an address that the configuration has checked.

        `ca` holds the certificates, in PEM, to trust over https instead of the system's.
        """
        parts = urlsplit(address)
        match parts.scheme:
            case "udp":
                return UdpTransport(
                    parts.hostname or "",
                    parts.port or 0,
                    self._names,
                    timeout_seconds=timeout_seconds,
                )
            case "unix":
                return UnixTransport(
                    unquote(parts.path), self._own, timeout_seconds=timeout_seconds
                )
            case "fifo":
                folder = parse_qs(parts.query).get("reply_dir", [REPLY_DIR])[0]
                place = self._places.setdefault(folder, Place(Path(folder)))
                return FifoTransport(unquote(parts.path), place, timeout_seconds=timeout_seconds)
            case _:
                return HttpTransport(
                    address,
                    self._names,
                    timeout_seconds=timeout_seconds,
                    basic_auth=basic_auth,
                    ca=ca,
                )

    def close(self) -> None:
        """Let go of what they share; they are of no use after it."""
        self._names.close()
