"""What every command is given."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from tests.bench.figures import Figures


@dataclass(frozen=True, slots=True)
class Setting:
    identifiers: int
    name_bytes: int
    rounds: int
    #: How long one round of what is a rate lasts.
    seconds: float
    #: Whether a real Chromium and Prometheus read what is scraped, too.
    readers: bool
    #: Where all that is started keeps its files; it is removed in the end.
    folder: Path
    figures: Figures
