"""Globs of the configuration, ready to be asked often. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable
from fnmatch import translate

#: How many characters one may have: as many as a name that is held (cutting.py). What a longer
#: one takes to be read grows with its square: 8,000 brackets take seconds.
LONGEST_GLOB = 512

Match = Callable[[str], re.Match[str] | None]


def compiled(pattern: str | None) -> Match | None:
    """Compile a pattern; None, and `*`, fit everything and are not matched at all."""
    return None if pattern in {None, "*"} else re.compile(translate(str(pattern))).match


def fits(match: Match | None, name: str) -> bool:
    return match is None or match(name) is not None
