"""Which format and encoding a scraper gets: RFC 9110 on Accept and Accept-Encoding.

Nothing here raises or refuses. A header that cannot be read counts as not sent, an element
that cannot be read is passed over, and who accepts nothing we have gets text 0.0.4: a scrape
in an unwanted format tells more than a 406.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import NamedTuple

from sr_exporter.metrics.exposition import TEXT, Escaping, Format, Syntax

#: No honest header is longer; reading one must not hold up the loop.
_LONGEST = 4096

_QUALITY = re.compile(r"0(?:\.[0-9]*)?|1(?:\.0*)?")
_QUOTED_PAIR = re.compile(r"\\(.)", re.DOTALL)

#: What we can answer, in the order a client gets it that has no preference.
_OFFERS = (
    TEXT,
    *(Format(Syntax.TEXT_1_0_0, escaping) for escaping in Escaping),
    *(Format(Syntax.OPENMETRICS_1_0_0, escaping) for escaping in Escaping),
)
_TYPES = {
    Syntax.TEXT_0_0_4: ("text", "plain", "0.0.4"),
    Syntax.TEXT_1_0_0: ("text", "plain", "1.0.0"),
    Syntax.OPENMETRICS_1_0_0: ("application", "openmetrics-text", "1.0.0"),
}
_SCHEMES = frozenset(Escaping)


class _Range(NamedTuple):
    """One element of Accept."""

    type: str
    subtype: str
    #: None matches all.
    version: str | None
    escaping: Escaping | None
    quality: float

    def matches(self, offer: Format) -> bool:
        type_, subtype, version = _TYPES[offer.syntax]
        return (
            self.type in ("*", type_)
            and self.subtype in ("*", subtype)
            and self.version in (None, version)
            and (offer.escaping is None or self.escaping in (None, offer.escaping))
        )

    @property
    def wildness(self) -> int:
        return (self.type == "*") + (self.subtype == "*")

    @property
    def precision(self) -> tuple[int, int]:
        return (-self.wildness, (self.version is not None) + (self.escaping is not None))


@lru_cache(maxsize=64)
def negotiate(accept: str | None) -> Format:
    """Choose the format to answer in.

    For each format the most precise range that matches it tells its quality, and 0 excludes
    it. The highest quality wins; among equals a named type goes before a wildcard, then the
    one listed first.
    """
    ranges = [r for element in _elements(accept) if (r := _range(*element)) is not None]
    best, best_rank = TEXT, (0.0, 0, 0)  # which no quality of 0 outranks
    for offer in _OFFERS:
        matching = [(i, r) for i, r in enumerate(ranges) if r.matches(offer)]
        if not matching:
            continue
        place, governing = max(matching, key=lambda m: (m[1].precision, -m[0]))
        rank = (governing.quality, -governing.wildness, -place)
        if rank > best_rank:
            best, best_rank = offer, rank
    return best


def accepts_gzip(accept_encoding: str | None) -> bool:
    """Say whether to compress: gzip is accepted, and not liked less than no compression."""
    qualities: dict[str, float] = {}
    for coding, parameters in _elements(accept_encoding):
        quality = _quality(parameters)
        if quality is not None:
            name = "gzip" if coding == "x-gzip" else coding
            qualities[name] = max(quality, qualities.get(name, 0.0))
    gzip = qualities.get("gzip", qualities.get("*", 0.0))
    return gzip > 0 and gzip >= qualities.get("identity", 0.0)


def prefers(accept: str | None, media_type: str, other: str) -> bool:
    """Say whether a type is accepted by its name, and not liked less than another is."""
    qualities: dict[str, float] = {}
    for kind, parameters in _elements(accept):
        qualities[kind] = max(_quality(parameters) or 0.0, qualities.get(kind, 0.0))
    quality = qualities.get(media_type, 0.0)
    return quality > 0 and quality >= qualities.get(other, 0.0)


# --- reading headers -----------------------------------------------------------------------


def _elements(field: str | None) -> list[tuple[str, dict[str, str]]]:
    """Take a list header apart: each element in lower case, with its parameters."""
    if field is None or len(field) > _LONGEST:
        return []
    elements = []
    for element in _split(field, ","):
        value, *rest = _split(element, ";")
        parameters: dict[str, str] = {}
        for parameter in rest:
            name, _, text = parameter.partition("=")
            parameters.setdefault(name.strip().lower(), _unquote(text.strip()))
        elements.append((value.strip().lower(), parameters))
    return elements


def _range(media_type: str, parameters: dict[str, str]) -> _Range | None:
    type_, slash, subtype = media_type.partition("/")
    quality = _quality(parameters)
    if not (slash and type_ and subtype) or quality is None or (type_ == "*" != subtype):
        return None
    escaping = None
    if (asked := parameters.get("escaping")) is not None:
        # A scheme nobody knows is answered with the one everybody does.
        escaping = Escaping(asked) if asked in _SCHEMES else Escaping.UNDERSCORES
    return _Range(type_, subtype, parameters.get("version"), escaping, quality)


def _quality(parameters: dict[str, str]) -> float | None:
    """Read the weight; None when it is malformed."""
    text = parameters.get("q", "1")
    return float(text) if _QUALITY.fullmatch(text) else None


def _split(text: str, separator: str) -> list[str]:
    """Split at a separator outside quotes."""
    if '"' not in text:
        return text.split(separator)
    parts, start, quoted, escaped = [], 0, False, False
    for i, character in enumerate(text):
        if escaped:
            escaped = False
        elif quoted and character == "\\":
            escaped = True
        elif character == '"':
            quoted = not quoted
        elif character == separator and not quoted:
            parts.append(text[start:i])
            start = i + 1
    parts.append(text[start:])
    return parts


def _unquote(text: str) -> str:
    if len(text) > 1 and text[0] == text[-1] == '"':
        return _QUOTED_PAIR.sub(r"\1", text[1:-1])
    return text
