"""What every way to an OpenSIPS' Management Interface offers.

A transport is one file and one line of `Transports.to` (transports.py). It sends one request at a
time and never anything but what wire/jsonrpc.py built.
"""

from __future__ import annotations

from typing import Protocol


class Transport(Protocol):
    #: The value of the label `transport`.
    name: str

    async def ask(self, request: bytes) -> bytes:
        """Send one request and give the bytes of its answer.

        A request that fails, or is cancelled, leaves no connection behind.

        Raises:
            MiError: no whole answer came within the time-out, or it was not one.
        """

    def rest(self) -> None:
        """Let go of connections until the next request: an idle one costs OpenSIPS too."""
