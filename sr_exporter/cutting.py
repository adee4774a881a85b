"""Cuts what is longer than anybody needs: names, which become labels, and texts.

A cut name has a hash of all of it at its end, so that two stay two; it is the same after a restart,
and cut once more it is itself, so that who reads it somewhere can ask for it. A cut text says how
long it was.
"""

from __future__ import annotations

import hashlib

from sr_exporter.limits import Limit

#: The most characters of a name (of a source, group, identifier, subject, version), of details, and
#: of a line of a report. MI requests are shorter than 1 KiB: by a longer name nothing can be asked.
MOST_NAME, MOST_DETAILS, MOST_LOG = 512, 16_384, 8_192
_HASH_BYTES = 16
_MARK = "…"

#: How many were cut since the process began.
counts = {Limit.NAME_LENGTH: 0, Limit.TEXT_LENGTH: 0}


def cut_name(said: str, most: int = MOST_NAME) -> str:
    """Give a name of so many characters at most; it must be encodable."""
    if len(said) <= most:
        return said
    counts[Limit.NAME_LENGTH] += 1
    digest = hashlib.blake2b(said.encode(), digest_size=_HASH_BYTES).hexdigest()
    return f"{said[: most - len(digest) - len(_MARK)]}{_MARK}{digest}"


def is_cut(name: str) -> bool:
    """Whether a name is as long as those that were cut: by it nobody else knows it."""
    return len(name) == MOST_NAME and name[-2 * _HASH_BYTES - 1] == _MARK


def cut_text(said: str, most: int) -> str:
    """Give a text of so many characters at most, and how long it was; it must be encodable."""
    if len(said) <= most:
        return said
    counts[Limit.TEXT_LENGTH] += 1
    return f"{said[:most]}{_MARK} ({len(said.encode())} bytes)"
