"""What can go wrong, cut by what the caller does next.

SrExporterError
├── ConfigError      the operator mends the file; exit 2
├── ListenError      the operator names another address; exit 1
├── StoreError
│   ├── StoreUnusable  the store cannot be used; nothing is touched; exit 3 to 6, by its fault
│   └── NotKept        a commit failed; the store goes on trying
├── PushRefused      the pusher mends the body; 400
├── NoVerdict        a check cannot tell whether something is ready; exit 3
├── NotReloaded      a reload did not happen, through no fault of the file
├── Interrupted      a start is not wanted any more: it stops
├── OutboundError    a notifier could not be told; tried again, or given up (outbound.py)
└── MiError          a source could not be asked; counted by its reason, asked again later
    └── NotFound       it has no group, or no identifier, of that name
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sr_exporter.model import PollFailure


class SrExporterError(Exception):
    """Any error of ours."""


class Fault(NamedTuple):
    """One thing that is wrong in a configuration, and where."""

    #: The place as an operator finds it: `sources[0].mi`.
    where: str
    what: str

    def __str__(self) -> str:
        return f"{self.where}: {self.what}" if self.where else self.what


class ConfigError(SrExporterError):
    """A configuration that cannot be used, with everything that is wrong in it."""

    def __init__(self, faults: Sequence[Fault]) -> None:
        self.faults = tuple(faults)
        super().__init__("\n".join(map(str, self.faults)))


class ListenError(SrExporterError):
    pass


class StoreError(SrExporterError):
    pass


class StoreFault(enum.StrEnum):
    """Why a store is refused, cut by what the operator does next."""

    #: Something around it is in the way: permissions, locks, another process.
    UNUSABLE = "unusable"
    #: A part of it is missing.
    TRUNCATED = "truncated"
    #: It is damaged, or somebody else's.
    GARBLED = "garbled"
    #: A newer sr-exporter wrote it.
    NEWER = "newer"


class StoreUnusable(StoreError):  # noqa: N818 - named for what befell the caller
    def __init__(self, fault: StoreFault, message: str) -> None:
        self.fault = fault
        super().__init__(message)


class NotKept(StoreError):  # noqa: N818
    pass


@dataclass(frozen=True, slots=True)
class ItemFault:
    #: Which item of the body, from 0.
    index: int
    error: str


class PushRefused(SrExporterError):  # noqa: N818
    """A push of which nothing was taken, and why."""

    def __init__(self, error: str, items: Sequence[ItemFault] = ()) -> None:
        self.error = error
        self.items = tuple(items)
        super().__init__(error)


class NoVerdict(SrExporterError):  # noqa: N818
    pass


class NotReloaded(SrExporterError):  # noqa: N818
    pass


class Interrupted(SrExporterError):  # noqa: N818
    """Says how far it was."""


class MiError(SrExporterError):
    """A request to an OpenSIPS that was not answered as it should be."""

    def __init__(self, reason: PollFailure, message: str) -> None:
        self.reason = reason
        super().__init__(message)


class NotFound(MiError):  # noqa: N818
    """An OpenSIPS has no group, or no identifier, of the name it was asked for."""
