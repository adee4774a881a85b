"""What the URL of a page asks for, and the URLs of other pages."""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass, replace
from fnmatch import translate
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import quote, unquote, urlencode

from sr_exporter.model import Key, fold
from sr_exporter.web.paths import parts

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

#: How many hours a timeline may show.
HOURS = (1, 6, 24)
_USUAL_HOURS = 6
#: Whoever looks for a source behind so many others asks for it by name.
MOST_SOURCES_FROM = 1_000
_LONGEST_NAME = 4096
_WILD = frozenset("*?")
_STARS = re.compile(r"\*+")
#: A pattern of thousands takes half a second to compile, in which nobody else is served.
_MOST_STARS = 32


class Readiness(enum.StrEnum):
    """Which identifiers are shown: as in the URL."""

    ANY = ""
    READY = "true"
    NOT_READY = "false"
    #: Their source is lost, or was not heard yet.
    UNKNOWN = "unknown"


class Place(NamedTuple):
    """Where an identifier stands in the order of all: as it is compared."""

    source: str
    group: str
    identifier: str


class BadQuery(ValueError):  # noqa: N818 - named for what befell the caller
    """A URL that is not understood, and what of it."""


@dataclass(frozen=True, slots=True)
class Filters:
    """What a page shows. "" fits everything."""

    source: str = ""
    group: str = ""
    identifier: str = ""
    ready: Readiness = Readiness.ANY
    hours: int = _USUAL_HOURS
    #: The page begins after this one; None: at the first.
    after: Place | None = None
    #: How many sources come before the first that is shown.
    sources_from: int = 0

    @property
    def narrow(self) -> bool:
        """Whether anything is asked for in particular."""
        return bool(self.source or self.group or self.identifier or self.ready)

    def url(self, **other: object) -> str:
        """Give the query of this page with something else in place."""
        asked = replace(self, **other)  # type: ignore[arg-type]
        query = {
            "source": asked.source,
            "group": asked.group,
            "identifier": asked.identifier,
            "ready": asked.ready.value,
            "hours": "" if asked.hours == _USUAL_HOURS else str(asked.hours),
            "after": "" if asked.after is None else _written(asked.after),
            "sources_from": str(asked.sources_from or ""),
        }
        given = {key: value for key, value in query.items() if value}
        return f"?{urlencode(given, quote_via=quote)}" if given else ""


def read(query: Mapping[str, str], source: str = "") -> Filters:
    """Read a query; a `source` that the path names goes before the query's.

    Raises:
        BadQuery: something of it has no meaning.
    """
    names = {part: query.get(part, "") for part in ("source", "group", "identifier")}
    if source:
        names["source"] = source
    for part, asked in names.items():
        if len(asked) > _LONGEST_NAME:
            raise BadQuery(f"{part}: longer than {_LONGEST_NAME} characters")
    return Filters(
        **names,
        ready=_readiness(query.get("ready", "")),
        hours=_hours(query.get("hours", "")),
        after=_place(query.get("after", "")),
        sources_from=_number(query.get("sources_from", "")),
    )


def key_in_path(raw_path: bytes) -> tuple[str, str | None, str | None] | None:
    """Read /sources/SOURCE[/groups/GROUP[/identifiers/IDENTIFIER]]; %2F is a slash in a part.

    Gives None for a path of another form.
    """
    match parts(raw_path, b"/sources/"):
        case [source] if source:
            return source, None, None
        case [source, "groups", group] if source and group:
            return source, group, None
        case [source, "groups", group, "identifiers", identifier] if (
            source and group and identifier
        ):
            return source, group, identifier
        case _:
            return None


def source_path(source: str) -> str:
    """Give the path of a source's page, below the exporter's own."""
    return f"/sources/{quote(source, safe='')}"


def key_path(key: Key) -> str:
    """Give the path of a key's page: in the query, a name may be `..` and hold slashes."""
    query = urlencode({"group": key.group, "identifier": key.identifier}, quote_via=quote)
    return f"{source_path(key.source)}?{query}"


def is_pattern(asked: str) -> bool:
    """Whether it has wildcards, and not so many that they are taken for what they are."""
    return not _WILD.isdisjoint(asked) and len(_STARS.findall(asked)) <= _MOST_STARS


def fitting(asked: str) -> Callable[[Sequence[str]], list[str]]:
    """Choose of folded names those that fit: that have it as a part; `*` and `?` are wildcards."""
    wanted = fold(asked)
    if not is_pattern(wanted):
        return lambda names: [name for name in names if wanted in name]
    # Of linear time, whatever it is: what is between two wildcards is looked for once.
    fits = re.compile(translate(wanted.replace("[", "[[]"))).match
    part = max(re.split("[*?]", wanted), key=len)  # which is quick to be missed
    return lambda names: [name for name in names if part in name and fits(name)]


def _readiness(text: str) -> Readiness:
    try:
        return Readiness(text)
    except ValueError:
        known = ", ".join(one.value for one in Readiness if one.value)
        raise BadQuery(f"ready: {_cut(text)} is none of {known}") from None


def _hours(text: str) -> int:
    if not text:
        return _USUAL_HOURS
    if text in map(str, HOURS):
        return int(text)
    raise BadQuery(f"hours: {_cut(text)} is none of {', '.join(map(str, HOURS))}")


def _number(text: str) -> int:
    if not text:
        return 0
    if text.isascii() and text.isdigit() and len(text) < 9 and int(text) <= MOST_SOURCES_FROM:
        return int(text)
    raise BadQuery(f"sources_from: {_cut(text)} is no number up to {MOST_SOURCES_FROM}")


def _written(place: Place) -> str:
    return "/".join(quote(part, safe="") for part in place)


def _place(text: str) -> Place | None:
    if not text:
        return None
    names = [unquote(part) for part in text.split("/")]
    if len(names) != 3 or len(text) > 9 * _LONGEST_NAME:
        raise BadQuery(f"after: {_cut(text)} is not SOURCE/GROUP/IDENTIFIER")
    return Place(*names)


def _cut(text: str) -> str:
    return repr(text if len(text) <= 60 else f"{text[:60]}...")
