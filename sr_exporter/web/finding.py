"""Which sources and identifiers a page shows, and how many there are of each state.

Everything here pauses: of a million keys others have their turn in between. What was found may be
other by the time it is shown; whoever shows it looks at it again.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass, field
from itertools import chain
from typing import TYPE_CHECKING, NamedTuple

from sr_exporter.model import OWN_SOURCE, Kind, fold
from sr_exporter.turns import MANY, slices
from sr_exporter.web.filters import Filters, Place, Readiness, fitting, is_pattern

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator

    from sr_exporter.held import Entry, Group, Reported, Source
    from sr_exporter.state import State

#: How many sources one page shows.
SOURCE_ROWS = 50
#: How many identifiers one page shows, and how many of those that are not ready come before all.
PAGE_ROWS = 150
URGENT_ROWS = 40
#: Of those whom report texts call not ready, and of those whose alert fires on.
REPORTED_ROWS = 40
#: How many keys are looked at before others have their turn: some milliseconds.
AT_ONCE = MANY
_OWN_SOURCES = "source"


@dataclass(slots=True)
class Found:
    """What one page is about."""

    sources: list[Source]
    #: The first of them that a page must show, and those before; one more if there is one.
    worst: list[Source] = field(default_factory=list)
    #: Not ready: those of `core` and of the exporter itself first, then the newest.
    urgent: list[Entry] = field(default_factory=list)
    reported: list[Reported] = field(default_factory=list)
    #: In order of their places.
    entries: list[Entry] = field(default_factory=list)
    #: Whether there are more after them.
    more: bool = False
    total: int = 0
    not_ready: int = 0
    #: Of sources that are lost, or not heard yet.
    unknown: int = 0
    reported_total: int = 0


def place(entry: Entry) -> Place:
    return Place(entry.group.source.name, fold(entry.group.name), fold(entry.identifier))


def is_held(entry: Entry) -> bool:
    return entry.group.entries.get(fold(entry.identifier)) is entry


def is_known(source: Source) -> bool:
    """Whether what is held is what the source said last, and it would have said otherwise."""
    return not source.withheld and (not source.polled or source.up)


def is_down(source: Source) -> bool:
    return source.polled and source.down_since is not None


def tells_of_a_source(group: Group) -> bool:
    """Whether its identifiers are our sources, which the page shows as such."""
    return group.source.name == OWN_SOURCE and fold(group.name) == _OWN_SOURCES


def find(state: State, asked: Filters, *, exactly: bool = False) -> Generator[None, None, Found]:
    """Find what is asked for; with `exactly`, of the one source of that name."""
    found = Found((yield from _sources(state, asked.source, exactly=exactly)))
    found.worst = yield from _worst(found.sources, asked.sources_from + SOURCE_ROWS + 1)
    groups = yield from _groups(found.sources, asked.group)
    meant: list[Meant]
    if asked.identifier:
        meant = yield from _named(groups, asked.identifier)
    else:
        meant = [Meant(group, None) for group in groups]
    yield from _count(found, meant)
    if asked.after is None:
        yield from _reported(found, meant)
        if asked.ready is Readiness.ANY:
            found.urgent = yield from _urgent(state, meant)
    if asked.ready is Readiness.NOT_READY and not asked.identifier:
        meant = yield from _not_ready(state, meant)
    first = yield from _page(meant, asked)
    found.entries, found.more = first[:PAGE_ROWS], len(first) > PAGE_ROWS
    return found


class Meant(NamedTuple):
    """A group, and which of its identifiers are meant, folded; None: all of them."""

    group: Group
    names: list[str] | None


def _sources(state: State, asked: str, *, exactly: bool) -> Generator[None, None, list[Source]]:
    """Give the source of that name, or else those that it is a part of."""
    if asked in state.sources:
        return [state.sources[asked]]
    if exactly:
        return []
    if not asked:
        return list(state.sources.values())
    fits = fitting(asked)
    like: list[Source] = []
    for some in slices(list(state.sources.values()), AT_ONCE):
        chosen = set(fits([fold(source.name) for source in some]))
        like += (source for source in some if fold(source.name) in chosen)
        yield
    return like


def _worst(sources: list[Source], count: int) -> Generator[None, None, list[Source]]:
    """Give the first in the order in which they must be seen."""
    first: list[Source] = []
    for some in slices(sources, AT_ONCE):
        first = heapq.nsmallest(count, chain(first, some), key=_trouble)
        yield
    return first


def _groups(sources: list[Source], asked: str) -> Generator[None, None, list[Group]]:
    """Give the groups that are meant: those of that name, or else those that it is a part of."""
    folded = fold(asked)
    exact: list[Group] = []
    like: list[Group] = []
    fits = fitting(asked)
    for some in slices(sources, AT_ONCE // 10):
        for source in some:
            if asked and (group := source.groups.get(folded)) is not None:
                exact.append(group)
            elif not exact:
                like += [source.groups[name] for name in fits(list(source.groups))]
        yield
    return exact if exact and not is_pattern(asked) else exact + like


def _named(groups: list[Group], asked: str) -> Generator[None, None, list[Meant]]:
    """Give the identifiers that are meant: those of that name, or else those that it is part of."""
    folded = fold(asked)
    exact = []
    for some in slices(groups, AT_ONCE):
        exact += [Meant(group, [folded]) for group in some if folded in group.entries]
        yield
    if exact and not is_pattern(asked):
        return exact
    fits = fitting(asked)
    like = []
    looked_at = 0
    for group in groups:
        names: list[str] = []
        for held in slices(list(group.entries), AT_ONCE):
            names += fits(held)
            looked_at += len(held)
            if looked_at >= AT_ONCE:
                looked_at = 0
                yield
        if names:
            like.append(Meant(group, names))
    return like


def _count(found: Found, meant: list[Meant]) -> Generator[None, None, None]:
    looked_at = 0
    for group, names in meant:
        held = len(group.entries) if names is None else len(names)
        found.total += held
        looked_at += 1
        if not is_known(group.source):
            found.unknown += held
        elif not tells_of_a_source(group):
            if names is None or not group.not_ready:
                found.not_ready += group.not_ready
            else:
                for some in slices(names, AT_ONCE):
                    found.not_ready += sum(not one.ready for one in _entries(group, some))
                    yield
        if looked_at >= AT_ONCE:
            looked_at = 0
            yield


def _entries(group: Group, names: Iterable[str]) -> Iterator[Entry]:
    """Give those that are still held."""
    held = group.entries
    return (entry for name in names if (entry := held.get(name)) is not None)


def _reported(found: Found, meant: list[Meant]) -> Generator[None, None, None]:
    """Find whom report texts call not ready, the newest first."""
    wanted = {id(group): names for group, names in meant if group.source.subjects}
    sets: dict[int, set[str]] = {}

    def is_meant(entry: Entry) -> bool:
        group = id(entry.group)
        names = wanted.get(group, ())
        if names is None:
            return True
        return fold(entry.identifier) in sets.setdefault(group, set(names))

    first: list[Reported] = []
    looked_at = 0
    for source in found.sources:
        if not source.subjects:
            continue
        those = [one for one in source.reported() if is_meant(one.entry)]
        found.reported_total += len(those)
        first = heapq.nsmallest(REPORTED_ROWS, chain(first, those), key=_newest_report)
        looked_at += source.subjects
        if looked_at >= AT_ONCE // 5:
            looked_at = 0
            yield
    found.reported = first


def _newest_report(one: Reported) -> float:
    return -one.record.reported_at if one.record is not None else 0.0


def _urgent(state: State, meant: list[Meant]) -> Generator[None, None, list[Entry]]:
    """Find those that matter first of what is not ready, for all that is known."""
    wanted = {
        id(group): (0 if _is_vital(group) else 1, group.source.name, group.name)
        for group, _ in meant
        if is_known(group.source) and not tells_of_a_source(group)
    }

    def urgency(entry: Entry) -> tuple[int, float, str, str, str]:
        core, source, group = wanted[id(entry.group)]
        return core, -entry.ready_changed_at, source, group, entry.identifier

    first: list[Entry] = []
    for some in _candidates(state, meant):
        more = [entry for entry in some if not entry.ready and id(entry.group) in wanted]
        first = heapq.nsmallest(URGENT_ROWS, chain(first, more), key=urgency)
        yield
    return first


def _is_vital(group: Group) -> bool:
    """Whether built-in rules make its alerts critical: hundreds of others must not hide it."""
    return group.source.name == OWN_SOURCE or fold(group.name) == "core"


def _candidates(state: State, meant: list[Meant]) -> Iterator[Iterable[Entry]]:
    """Give who may be not ready of what is meant, some at a time."""
    if not meant or meant[0].names is None:
        yield from slices(list(state.not_ready), AT_ONCE)
        return
    for group, names in meant:
        if group.not_ready and names is not None:
            for some in slices(names, AT_ONCE):
                yield _entries(group, some)


def _not_ready(state: State, meant: list[Meant]) -> Generator[None, None, list[Meant]]:
    """Give what is not ready only, of groups that are meant whole."""
    wanted: dict[int, Meant] = {
        id(group): Meant(group, []) for group, _ in meant if group.not_ready
    }
    for some in slices(list(state.not_ready), AT_ONCE):
        for entry in some:
            if (one := wanted.get(id(entry.group))) is not None and one.names is not None:
                one.names.append(fold(entry.identifier))
        yield
    return list(wanted.values())


#: Whom to choose of a source that is known, or is not, as was asked; None: all of them.
_BY_READINESS: dict[Readiness, Callable[[Entry], bool] | None] = {
    Readiness.ANY: None,
    Readiness.UNKNOWN: None,
    Readiness.READY: lambda entry: entry.ready,
    Readiness.NOT_READY: lambda entry: not entry.ready,
}


def _page(meant: list[Meant], asked: Filters) -> Generator[None, None, list[Entry]]:
    """Give the identifiers of a page in order, and one more if there is one."""
    ready, after = asked.ready, asked.after
    rows: list[Entry] = []
    ordered = yield from _in_order(meant)
    for one in ordered:
        if ready and is_known(one.group.source) is (ready is Readiness.UNKNOWN):
            continue
        stands = _stands(one)
        if after is not None and stands < after[:2]:
            continue
        begin = after.identifier if after is not None and stands == after[:2] else None
        rows += yield from _of_group(one, begin, _BY_READINESS[ready], PAGE_ROWS + 1 - len(rows))
        if len(rows) > PAGE_ROWS:
            break
    return rows


def _stands(one: Meant) -> tuple[str, str]:
    return one.group.source.name, fold(one.group.name)


def _in_order(meant: list[Meant]) -> Generator[None, None, Iterable[Meant]]:
    runs = []
    for some in slices(meant, AT_ONCE):
        runs.append(sorted(some, key=_stands))
        yield
    return heapq.merge(*runs, key=_stands) if len(runs) > 1 else chain(*runs)


def _of_group(
    meant: Meant, after: str | None, fits: Callable[[Entry], bool] | None, most: int
) -> Generator[None, None, list[Entry]]:
    """Give the first of a group that stand after a folded name."""
    held = meant.group.entries
    first: list[str] = []
    for some in slices(list(held) if meant.names is None else meant.names, AT_ONCE):
        more: Iterable[str] = some
        if after is not None:
            more = [name for name in more if name > after]
        if fits is not None:
            more = [name for name in more if name in held and fits(held[name])]
        first = heapq.nsmallest(most, chain(first, more))
        yield
    return list(_entries(meant.group, first))


def _trouble(source: Source) -> tuple[int, str]:
    """Give how soon a source must be seen: those that are down first, and ourselves last."""
    if source.name == OWN_SOURCE:
        return 4, source.name
    if is_down(source):
        return 0, source.name
    if source.kind is not Kind.PUSHED and not is_known(source):
        return 1, source.name
    not_ready = any(
        group.not_ready for group in source.groups.values() if not tells_of_a_source(group)
    )
    return 2 if not_ready else 3, source.name
