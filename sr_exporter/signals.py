"""The words of report rules: what a report text says to who reads it (rule 16).

A leaf, like the model: values only. Times are Unix seconds.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence


class Meaning(enum.StrEnum):
    """What a report text that fits a rule means."""

    EVENT = "event"
    #: A subject that the text names is not ready.
    DOWN = "down"
    #: It is ready again.
    UP = "up"
    #: The table of an identifier was loaded anew: what was said of its subjects is of before.
    #: Of built-in rules only.
    LOADED = "loaded"


class Signal(NamedTuple):
    """What one rule read in one report text."""

    rule: str
    meaning: Meaning
    #: Whom `down` and `up` are about.
    subject: str | None = None


class End(enum.Enum):
    """Why somebody is called not ready no more (rule 16)."""

    #: A text says that they are ready.
    UP = enum.auto()
    #: The source restarted, and knows nothing of what it said before.
    RESTARTED = enum.auto()
    #: The table was loaded anew, and nothing names them since.
    LOADED = enum.auto()
    #: They were not named for long.
    OUTDATED = enum.auto()
    #: The key is held no more.
    FORGOTTEN = enum.auto()
    #: The rule that read it is no longer for that key.
    UNREAD = enum.auto()


class Ending(NamedTuple):
    end: End
    #: The text that says that they are ready.
    log: str = ""


class ReportReader(Protocol):
    """Reads report texts by rules. Pure, and quick whatever the text."""

    def read(self, source: str, group: str, identifier: str, log: str) -> Sequence[Signal]:
        """Give what a text that is reported at a key says, in the order of the rules."""

    def reads(self, source: str, group: str) -> bool:
        """Say whether any rule may fit texts reported in a group."""

    def rules(self, source: str, group: str, identifier: str) -> Sequence[str]:
        """Give the names of the rules that may fit texts reported at a key, each once."""


@dataclass(frozen=True, slots=True)
class SubjectRecord:
    """A subject that report texts call not ready, as it is kept."""

    #: The rule that read it.
    rule: str
    #: When it was first reported so, by the reporter's clock, but not after it was heard.
    since: float
    #: When it was last reported so, by the reporter's clock.
    reported_at: float
    #: When it ends unless a text names it again.
    ends_at: float
    #: The text that last said so.
    log: str
