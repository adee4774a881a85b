"""A simulated Management Interface of any kind."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sr_exporter.simulator.datagram import MiDatagram
from sr_exporter.simulator.fifo import MiFifo
from sr_exporter.simulator.httpd import MiHttpd

if TYPE_CHECKING:
    from pathlib import Path

KINDS = ("http", "udp", "unix", "fifo")


def mi_server(kind: str, node, folder: Path, **more) -> MiHttpd | MiDatagram | MiFifo:
    """Make a server of a kind; what it makes on the disk is in `folder`, whose name is short."""
    match kind:
        case "http":
            return MiHttpd(node, **more)
        case "udp":
            return MiDatagram(node, **more)
        case "unix":
            return MiDatagram(node, folder / "mi", **more)
        case "fifo":
            return MiFifo(node, folder / "mi", folder, **more)
    raise ValueError(kind)
