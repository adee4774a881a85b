"""Walking a YAML file so that every fault is found, each with its place.

A value that is wrong is reported, and a stand-in given in its stead so that reading goes on.
Stand-ins never leave: whoever reads raises a `ConfigError` in the end if there was a fault.

The walk is over YAML's own nodes, not over built objects. That keeps line numbers and double
keys, and neither an alias bomb nor `!!int x` is ever built.

What the operator wrote is quoted only where it cannot be a secret. A key may be one: in
`{url:https://...}`, for want of a space, the URL is the key.
"""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar

import yaml

from sr_exporter.durations import format_duration, parse_duration
from sr_exporter.errors import Fault
from sr_exporter.globs import LONGEST_GLOB

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from sr_exporter.config.keys import Schema

_TAG = "tag:yaml.org,2002:"
_MERGE = f"{_TAG}merge"
_SCALARS = {
    f"{_TAG}null": "nothing",
    f"{_TAG}bool": "a boolean",
    f"{_TAG}int": "a number",
    f"{_TAG}float": "a number",
    f"{_TAG}timestamp": "a date",
    f"{_TAG}str": "a string",
}
#: What a value is called, by the class of its node and the tag; the rest is of foreign types.
_KINDS: dict[type[yaml.Node], dict[str, str]] = {
    yaml.ScalarNode: _SCALARS,
    yaml.MappingNode: {f"{_TAG}map": "a mapping"},
    yaml.SequenceNode: {f"{_TAG}seq": "a list"},
}
#: What plain YAML takes for something else, and quotes make a string.
_QUOTABLE = frozenset({"a boolean", "a number", "a date"})
Choice = TypeVar("Choice", bound=StrEnum)
_NUMBERS = yaml.constructor.SafeConstructor()
#: How deep brackets may be in brackets.
_MOST_BRACKETS = 50
#: How YAML 1.1 spells booleans.
_FLAGS = {
    **dict.fromkeys(("yes", "true", "on"), True),
    **dict.fromkeys(("no", "false", "off"), False),
}


class Naming(NamedTuple):
    """How the keys of a mapping are spelled."""

    pattern: re.Pattern[str]
    #: What one that is spelled otherwise is called: it is not shown.
    otherwise: str


_KEYS: Final = Naming(re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,63}"), "unknown key")


def shown(text: str, longest: int = 80) -> str:
    """Make a text fit for one line of a message, whatever it holds."""
    cut = text if len(text) <= longest else text[: longest - 1] + "…"
    return "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape").decode()
        for letter in cut
    )


@dataclass(frozen=True, slots=True)
class Place:
    """One value, where it is, and the list that takes its faults."""

    path: str
    node: yaml.Node
    faults: list[Fault]

    def fault(self, what: str) -> None:
        self.faults.append(Fault(self.path, what))

    @property
    def kind(self) -> str:
        return _KINDS[type(self.node)].get(self.node.tag, "a tagged value")

    def _is(self, kind: str, wanted: str | None = None) -> bool:
        if self.kind == kind:
            return True
        quotable = kind == "a string" == (wanted or kind) and self.kind in _QUOTABLE
        hint = " (quote it)" if quotable else ""
        self.fault(f"must be {wanted or kind}, not {self.kind}{hint}")
        return False

    def text(self, wanted: str = "a string") -> str:
        if not self._is("a string", wanted):
            return ""
        value = str(self.node.value)
        if not value:
            self.fault("must not be empty")
        return value

    def name(self) -> str:
        """Read a name fit for a label, a path and a line of a log."""
        name = self.text()
        if name and (not name.isprintable() or name != name.strip()):
            self.fault("must be printable, without spaces at its ends")
            return ""
        return name

    def glob(self) -> str:
        """Read a pattern for names."""
        pattern = self.text()
        if len(pattern) > LONGEST_GLOB:
            self.fault(f"must not be longer than {LONGEST_GLOB} characters: no name is")
            return ""
        return pattern

    def choice(self, choices: type[Choice]) -> Choice:
        wanted = " or ".join(choices)
        value = self.text(wanted)
        if value in set(choices):
            return choices(value)
        if value:
            self.fault(f'must be {wanted}, not "{shown(value)}"')
        return next(iter(choices))

    def whole(self, low: int, high: int) -> int:
        if self.kind == "a number" and self.node.tag.endswith("float"):
            self.fault("must be a whole number")
            return low
        return int(self._in_range("a whole number", low, high))

    def number(self, low: float, high: float) -> float:
        return self._in_range("a number", low, high)

    def flag(self) -> bool:
        if not self._is("a boolean", "true or false"):
            return False
        value = _FLAGS.get(str(self.node.value).lower())
        if value is None:
            # `!!bool x`
            self.fault("must be true or false")
        return bool(value)

    def _in_range(self, wanted: str, low: float, high: float) -> float:
        if not self._is("a number", wanted):
            return low
        value = self._number()
        if value is None:
            self.fault(f"must be {wanted}")
        elif not low <= value <= high:
            self.fault(f"must be {low:.15g} to {high:.15g}")
        else:
            return value
        return low

    def _number(self) -> float | None:
        # PyYAML's own reading, of a node that `kind` knows for a scalar.
        build: Any = _NUMBERS.yaml_constructors[self.node.tag]
        try:
            number: float = build(_NUMBERS, self.node)
        except (ValueError, IndexError, OverflowError, yaml.YAMLError):
            # `!!int x`, `0x_`, more digits than Python reads.
            return None
        return number

    def duration(self, low: float, high: float) -> float:
        text = self.text("a duration such as 30s")
        if not text:
            return low
        try:
            seconds = parse_duration(text)
        except ValueError as error:
            self.fault(f'"{shown(text)}" is {error}')
            return low
        if not low <= seconds <= high:
            self.fault(f"must be {format_duration(low)} to {format_duration(high)}")
        return seconds

    def items(self, *, at_least_one: bool = False) -> list[Place]:
        """Give what a list holds; nothing at all is an empty list."""
        if self.kind != "nothing" and not self._is("a list"):
            return []
        if at_least_one and not self.node.value:
            self.fault("must not be empty")
        return [
            Place(f"{self.path}[{index}]", node, self.faults)
            for index, node in enumerate(self.node.value if self.kind == "a list" else ())
        ]

    def texts(self) -> tuple[str, ...]:
        return tuple(item.text() for item in self.items(at_least_one=True))

    def globs(self) -> tuple[str, ...]:
        return tuple(item.glob() for item in self.items(at_least_one=True))

    def section(self, schema: Schema, shape: str) -> Section:
        """Read a mapping, each key of it known; nothing at all is an empty one."""
        if self.kind == "nothing":
            return Section(self, {})
        if not self._is("a mapping"):
            return Section(self, {}, readable=False)
        entries: dict[str, Place] = {}
        known = schema.keys[shape]
        for key, place in self._entries(_KEYS):
            entries[key] = place
            if key not in known:
                close = difflib.get_close_matches(key, known, n=1)
                place.fault(f"unknown key (did you mean {close[0]}?)" if close else "unknown key")
        return Section(self, entries)

    def mapping(self, naming: Naming) -> dict[str, Place]:
        """Read a mapping whose keys are the operator's; nothing at all is an empty one."""
        if self.kind == "nothing" or not self._is("a mapping"):
            return {}
        return dict(self._entries(naming))

    def _entries(self, naming: Naming) -> Iterator[tuple[str, Place]]:
        """Give the entries of a mapping, each key once: the nearest wins."""
        seen: set[str] = set()
        for key, node in self._nodes(naming, self.node, set()):
            if key not in seen:
                seen.add(key)
                path = f"{self.path}.{shown(key, len(key))}" if self.path else key
                yield key, Place(path, node, self.faults)

    def _nodes(
        self, naming: Naming, node: yaml.Node, merged: set[int]
    ) -> Iterator[tuple[str, yaml.Node]]:
        """Give the entries of a mapping, and then those it merges in (`<<`).

        No node is merged twice: a mapping may merge itself, or the same one many times over.
        """
        merged.add(id(node))
        lines: dict[str, int] = {}
        merges: list[yaml.Node] = []
        for key_node, value in node.value:
            line = key_node.start_mark.line + 1
            if key_node.tag == _MERGE:
                merges += value.value if isinstance(value, yaml.SequenceNode) else [value]
                continue
            key = key_node.value
            is_text = isinstance(key_node, yaml.ScalarNode) and key_node.tag == f"{_TAG}str"
            if not (is_text and naming.pattern.fullmatch(key)):
                self.fault(f"{naming.otherwise} on line {line}")
            elif key in lines:
                self.fault(f"the key {key} is there twice, on lines {lines[key]} and {line}")
            else:
                lines[key] = line
                yield key, value
        for other in merges:
            if not isinstance(other, yaml.MappingNode):
                self.fault("<< must name a mapping, or a list of them")
            elif id(other) not in merged:
                yield from self._nodes(naming, other, merged)


@dataclass(frozen=True, slots=True)
class Section:
    """A mapping whose keys are known."""

    place: Place
    entries: Mapping[str, Place]
    #: False when it is something else: that is fault enough, nothing more is missed in it.
    readable: bool = True

    def get(self, key: str) -> Place | None:
        return self.entries.get(key)

    def filled(self, key: str) -> Place | None:
        """Give a section that has something in it; an empty one is as good as none."""
        place = self.entries.get(key)
        empty = place is not None and (
            place.kind == "nothing" or (place.kind == "a mapping" and not place.node.value)
        )
        return None if empty else place

    def need(self, key: str) -> Place | None:
        place = self.entries.get(key)
        if place is None and self.readable:
            self.place.fault(f"{key} is required")
        return place

    def one_of(self, *keys: str) -> Place | None:
        """Give the one of some keys that is there; exactly one of them must be."""
        found = [self.entries[key] for key in keys if key in self.entries]
        if len(found) == 1:
            return found[0]
        if self.readable:
            listed = f"{', '.join(keys[:-1])} and {keys[-1]}"
            self.place.fault(f"exactly one of {listed} is required")
        return None

    def name(self, key: str) -> str:
        place = self.need(key)
        return place.name() if place else ""

    def items(self, key: str) -> list[Place]:
        place = self.get(key)
        return place.items() if place else []


class _Loader(yaml.SafeLoader):
    """Reads no further where brackets are nested deeper than any configuration.

    PyYAML looks ahead from each of them: a thousand would take it a second.
    """

    def fetch_flow_collection_start(self, token: type[yaml.Token]) -> None:
        if self.flow_level == _MOST_BRACKETS:
            raise yaml.scanner.ScannerError(None, None, "is nested too deeply", self.get_mark())
        super().fetch_flow_collection_start(token)


def read_yaml(text: str, path: str, faults: list[Fault]) -> Place | None:
    """Give the root of a file, None if it is empty or no YAML."""
    prefix = f"{path}, " if path else ""
    try:
        node = yaml.compose(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"line {mark.line + 1}, column {mark.column + 1}" if mark else "YAML"
        faults.append(Fault(prefix + where, shown(error.problem or "is not YAML")))
        return None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        faults.append(Fault(f"{prefix}line {line}", "holds a character that YAML does not allow"))
        return None
    except RecursionError:
        faults.append(Fault(path, "is nested too deeply"))
        return None
    except (ValueError, OverflowError, yaml.YAMLError):
        # PyYAML lets go of some of these unmarked: "\UFFFFFFFF", for one.
        faults.append(Fault(path, "is not YAML"))
        return None
    return Place(path, node, faults) if node is not None else None
