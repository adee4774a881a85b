"""Is it ready: the answer that load balancers, Kubernetes and monitoring act upon. Pure.

It answers as OpenSIPS' `sr_check_status` does, for the same names (facts on OpenSIPS, section 1):

* a group alone means its identifier `main`; groups and identifiers ignore ASCII case;
* the identifier `all` speaks for its whole group: 1, or -1 when any of it is not ready, with the
  details `aggregated`;
* no group means the server itself: its `core`/`main`, and not everything it has, for one registrant
  that is not registered must not take a whole server away (design, section 5).

What is ready only by what a lost source said last is not ready, but `stale` (rule 7).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import msgspec

from sr_exporter.model import INT32_MAX, INT32_MIN, MAIN, Kind, fold

if TYPE_CHECKING:
    from sr_exporter.held import Group, Source
    from sr_exporter.state import State

#: The group that tells of a server as a whole.
CORE = "core"
#: The identifier that stands for all of a group.
ALL = "all"
_AGGREGATED = "aggregated"
_UNHEARD = "not heard since the exporter started"


class NotHeld(LookupError):  # noqa: N818 - named for what befell the caller
    """Nothing of that is held; says what."""


class Verdict(msgspec.Struct, frozen=True):
    """Whether something is ready, and why."""

    #: It is known to be ready now.
    ready: bool
    #: As its source said last; None: that source is lost, and nothing of this is held.
    status: Annotated[int, msgspec.Meta(ge=INT32_MIN, le=INT32_MAX)] | None
    #: As its source said last; where the status is None, why.
    details: str | None
    #: Its source is down, or not heard yet: this is what it said before, at best.
    stale: bool


def is_stale(source: Source) -> bool:
    """Whether what is held of a source need not be so any more."""
    unheard = not source.up if source.polled else source.kind is Kind.EVENT and not source.heard
    return source.withheld or unheard


def judge(
    state: State, source: str, group: str | None = None, identifier: str | None = None
) -> Verdict:
    """Say whether a source, a group or an identifier is ready.

    Raises:
        NotHeld: its source is heard, and there is no such thing; or no such source.
    """
    held = state.sources.get(source)
    if held is None:
        raise NotHeld(f"no source {source!r} is known")
    try:
        return _judge(held, CORE if group is None else group, identifier or MAIN)
    except NotHeld:
        if is_stale(held):  # it may well be there
            return Verdict(False, None, held.last_error or _UNHEARD, True)
        if group is None:
            raise NotHeld(
                f"source {source!r} has no {CORE}/{MAIN} to stand for all of it: name a group"
            ) from None
        raise


def _judge(source: Source, group: str, identifier: str) -> Verdict:
    held = source.groups.get(fold(group))
    if held is None:
        raise NotHeld(f"no group {group!r} is held of source {source.name!r}")
    entry = held.entries.get(fold(identifier))
    stale = is_stale(source)
    if fold(identifier) == ALL and held.entries:
        return _aggregated(held, stale)
    if entry is None:
        raise NotHeld(
            f"no identifier {identifier!r} is held of group {held.name!r} of source {source.name!r}"
        )
    return Verdict(entry.ready and not stale, entry.status, entry.details, stale)


def _aggregated(group: Group, stale: bool) -> Verdict:
    ready = not group.not_ready
    return Verdict(ready and not stale, 1 if ready else -1, _AGGREGATED, stale)
