"""Where the values, keys and entries of a JSON text are, whatever its strings hold.

Mutators cut and paste by these places: what comes of it still reads as JSON, most of the time.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

_TOKEN = re.compile(rb'"(?:[^"\\]|\\.)*+"|[{}\[\],:]|[^\s{}\[\],:"]++', re.DOTALL)

Span = tuple[int, int]


@dataclass(slots=True)
class Spans:
    values: list[Span] = field(default_factory=list)
    keys: list[Span] = field(default_factory=list)
    #: Items of arrays, and keys of objects with their values: what commas stand between.
    entries: list[Span] = field(default_factory=list)


def spans(text: bytes) -> Spans:
    """Find them, in one text or several, one after the other; of what is no JSON, as far as it is.

    An entry begins after `[`, `{` or a comma, and ends where its value does.
    """
    found = Spans()
    #: Where each open array or object begins, and the entry of it that is being read.
    opened: list[tuple[int, int | None]] = []
    entry: int | None = None
    for token in _TOKEN.finditer(text):
        first, start, end = text[token.start()], token.start(), token.end()
        if first in b"{[":
            opened.append((start, start if entry is None else entry))
            entry = None
        elif first == ord(","):
            entry = None
        elif first == ord(":"):
            if found.values and found.values[-1][1] <= start:
                found.keys.append(found.values.pop())
                if found.entries and found.entries[-1][1] <= start:
                    entry = found.entries.pop()[0]
        else:
            if first in b"}]":
                if not opened:
                    continue
                start, entry = opened.pop()
            found.values.append((start, end))
            found.entries.append((start if entry is None else entry, end))
            entry = None
    return found
