"""What is held of a source, as the Management Interface of an OpenSIPS shows it.

What is not known now is an error, and never what a source said last: a client of the Management
Interface takes every result for the truth (promise 1).
"""

from __future__ import annotations

import platform
import sys
from typing import TYPE_CHECKING, NamedTuple

from sr_exporter import __version__
from sr_exporter.model import PUSH_SOURCE, Kind, fold
from sr_exporter.readiness import is_stale
from sr_exporter.wire.answers import COMMANDS, Names
from sr_exporter.wire.calls import CallError
from sr_exporter.wire.orders import ORDERS
from sr_exporter.wire.text import name, text

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sr_exporter.held import Entry, Group, Source
    from sr_exporter.model import Report

#: All that can be called, old names too: opensips-cli sends nothing that `which` does not list.
NAMES = Names((*COMMANDS, *ORDERS))
_MACHINE = f"{platform.machine()}/{sys.platform}"


class HeldView:
    """One source; `source` is None while nothing is held of that name."""

    names = NAMES
    #: Dates are this machine's: those of the servers do not name their zone.
    zone = None

    def __init__(self, said: str, source: Source | None, exporter_started_at: float) -> None:
        self._said = said
        self._source = source
        self._exporter_started_at = exporter_started_at

    @property
    def is_lost(self) -> bool:
        """Whether what is held need not be so any more."""
        return self._source is not None and is_stale(self._source)

    @property
    def server(self) -> str:
        if (source := self._server()) is None:
            return f"sr-exporter ({__version__} ({_MACHINE}))"
        if not source.version:
            raise CallError(404, "Version not known", text(self._said))
        return f"OpenSIPS ({source.version} (by way of sr-exporter {__version__}))"

    @property
    def started_at(self) -> float:
        if (source := self._server()) is None:
            return self._exporter_started_at
        if source.start_time is None:
            raise CallError(404, "Up time not known", text(self._said))
        return source.start_time

    def groups(self) -> Iterator[_GroupView]:
        """Give all, in the order in which they were first heard: a server's own, where polled."""
        source = self._known()
        return map(_GroupView, [] if source is None else list(source.groups.values()))

    def group(self, said: str) -> _GroupView | None:
        """Give the one of that name, whatever its ASCII case."""
        source = self._known()
        held = None if source is None else source.groups.get(fold(name(said)))
        return None if held is None else _GroupView(held)

    def _server(self) -> Source | None:
        """Give the source if it is a server; None where pushes make it: the server is us."""
        source = self._known()
        return None if source is None or source.kind is Kind.PUSHED else source

    def _known(self) -> Source | None:
        """Give the source; None where nothing was pushed yet to the one that always is there."""
        source = self._source
        if source is None:
            if self._said != PUSH_SOURCE:
                raise CallError(404, "Source not found", text(self._said))
            return None
        if self.is_lost:
            why = source.last_error or "not heard since the exporter started"
            raise CallError(503, "Source not heard", text(f"{source.name}: {why}"))
        return source


class _GroupView:
    __slots__ = ("_held",)

    def __init__(self, held: Group) -> None:
        self._held = held

    @property
    def name(self) -> str:
        return self._held.name

    @property
    def ready(self) -> bool:
        return not self._held.not_ready

    def identifiers(self) -> Iterator[_IdentifierView]:
        """Give all, in the order in which they were first heard."""
        return map(_view, list(self._held.entries.values()))

    def identifier(self, said: str) -> _IdentifierView | None:
        """Give the one of that name, whatever its ASCII case."""
        entry = self._held.entries.get(fold(name(said)))
        return None if entry is None else _view(entry)


class _IdentifierView(NamedTuple):
    name: str
    status: int
    ready: bool
    details: str | None
    reports: tuple[Report, ...]


def _view(entry: Entry) -> _IdentifierView:
    return _IdentifierView(
        entry.identifier, entry.status, entry.ready, entry.details, entry.reports
    )
