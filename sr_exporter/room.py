"""How much room there is for identifiers: in all, and of one source."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from sr_exporter.limits import Limit

if TYPE_CHECKING:
    from sr_exporter.held import Source
    from sr_exporter.model import Key


@dataclass(slots=True)
class Beginning:
    """Keys that statements begin which are not applied yet, folded: they take room."""

    keys: set[Key] = field(default_factory=set)
    of: dict[str, int] = field(default_factory=dict)

    def add(self, key: Key) -> None:
        self.keys.add(key)
        self.of[key.source] = self.of.get(key.source, 0) + 1


class Room:
    """Counts what is held, and knows how much may be."""

    def __init__(self, limit_identifiers: int) -> None:
        self.limit_identifiers = limit_identifiers
        #: Of one source; None: as many as of all.
        self.limit_of_source: int | None = None
        self.identifiers = 0
        #: How many found no room since somebody asked, by the limit and their source.
        self.turned_away: dict[tuple[Limit, str], int] = {}

    def is_plenty(self, more: int) -> bool:
        """Whether there is room for so many more, whoever's they are."""
        of_source = self.limit_of_source
        # Where a source may have as many as all, its own limit is never the first to be met.
        bounded = of_source is not None and of_source < self.limit_identifiers
        return not bounded and self.identifiers + more <= self.limit_identifiers

    def full(self, name: str, source: Source | None, beside: Beginning | None = None) -> str:
        """Say which limit leaves no room for one more of a source, and count it; nothing: none."""
        fresh, of = (0, 0) if beside is None else (len(beside.keys), beside.of.get(name, 0))
        held = 0 if source is None else source.identifiers
        if self.identifiers + fresh >= self.limit_identifiers:
            limit, why = Limit.IDENTIFIERS, f"({self.limit_identifiers}) is reached"
        elif self.limit_of_source is not None and held + of >= self.limit_of_source:
            limit = Limit.IDENTIFIERS_PER_SOURCE
            why = f"({self.limit_of_source}) is reached by source {name!r}"
        else:
            return ""
        self.turn_away(limit, name)
        return f"limits.{limit} {why}"

    def turn_away(self, limit: Limit, name: str) -> None:
        """Count one of a source that found no room."""
        self.turned_away[limit, name] = self.turned_away.get((limit, name), 0) + 1
