"""What a status means, which depends on its group (facts on dashboards, section 2).

One mapping of numbers to words for all groups would lie: -2 is "no data" of a table and "sync
pending" of a cluster capability. Where groups are drawn together each kind of group therefore has a
range of numbers of its own, far outside of what a status can be, and a mapping for it: a status
plus the kind's `offset`. That number is never seen: every one of them is mapped to a word.

Status 0 never occurs, so it says "unknown": was there in the last hour, and is not now.

The words are those of `sr_exporter/words.py`, which a test holds them to.
"""

from __future__ import annotations

from typing import NamedTuple

from dashboards.generator.parts import (
    BLUE,
    GREEN,
    GREY,
    INT32_MAX,
    INT32_MIN,
    RED,
    YELLOW,
    Json,
    from_to,
    mappings,
    value,
)

#: Groups of modules that load tables. What `;events` stand beside their tables only reports.
TABLES = 'group=~"config|dialplan|dispatcher|drouting|sql_cacher",identifier!~".*;events"'
CORE = 'group="core"'
CAPABILITIES = 'group="clusterer",identifier=~"cap:.*"'
REGISTRANTS = 'group="uac_registrant"'

UNKNOWN = value(0, "Unknown", GREY)


class Kind(NamedTuple):
    """Groups whose statuses mean the same."""

    matchers: str
    #: What is added to a status where several kinds are drawn together; a multiple of 10^10.
    offset: int
    words: dict[int, tuple[str, str]]


KINDS = {
    "table": Kind(
        TABLES,
        10**10,
        {
            -2: ("No data", RED),
            -1: ("Loading data", YELLOW),
            1: ("Data available", GREEN),
            2: ("Reloading data", BLUE),
        },
    ),
    "core": Kind(
        CORE,
        2 * 10**10,
        {
            -100: ("None", RED),
            -2: ("Terminating", YELLOW),
            -1: ("Initializing", YELLOW),
            1: ("Running", GREEN),
        },
    ),
    "capability": Kind(
        CAPABILITIES,
        3 * 10**10,
        {
            -3: ("Not synced", RED),
            -2: ("Sync pending", YELLOW),
            -1: ("Syncing", YELLOW),
            1: ("Synced", GREEN),
        },
    ),
    "registrant": Kind(
        REGISTRANTS, 4 * 10**10, {-1: ("Not registered", YELLOW), 1: ("Registered", GREEN)}
    ),
}


def _of(kind: Kind, offset: int) -> list[Json]:
    return [
        *(value(offset + code, *meaning) for code, meaning in kind.words.items()),
        from_to(offset + INT32_MIN, offset - 1, RED, "Not ready"),
        from_to(offset + 1, offset + INT32_MAX, GREEN, "Ready"),
    ]


def words(name: str) -> list[Json]:
    """Map plain statuses, of groups of one kind."""
    return mappings(UNKNOWN, *_of(KINDS[name], 0))


def all_words() -> list[Json]:
    """Map what `coded` gives. What the codes of a script mean, only the script knows."""
    return mappings(
        UNKNOWN,
        *(item for kind in KINDS.values() for item in _of(kind, kind.offset)[:-2]),
        value(-1, "Not ready", RED),
        value(1, "Ready", GREEN),
        *(item for kind in KINDS.values() for item in _of(kind, kind.offset)[-2:]),
        from_to(INT32_MIN, -2, RED),
        from_to(2, INT32_MAX, GREEN),
    )


def coded(by: str, matchers: str) -> str:
    """Ask for the least status by these labels, each kind of group in a range of its own."""
    kinds = (of_kind(name, by, matchers) for name in KINDS)
    # Whatever is of none of these kinds is all that has no value on the left.
    return f"({' or '.join(kinds)} or min by ({by}) (opensips_sr_status{{{matchers}}}))"


def of_kind(name: str, by: str, matchers: str) -> str:
    """Ask for the least status, of one kind of group, in its range of numbers."""
    kind = KINDS[name]
    return f"(min by ({by}) (opensips_sr_status{{{matchers},{kind.matchers}}}) + {kind.offset})"


def plain(by: str, matchers: str) -> str:
    """Ask for the least status by these labels."""
    return f"min by ({by}) (opensips_sr_status{{{matchers}}})"


def or_unknown(expr: str, by: str, matchers: str) -> str:
    """Give 0 for statuses that were there in the last hour and are not now.

    Both sides aggregate: one that kept its metric's name would be drawn as a row of its own.
    """
    last = f"min by ({by}) (last_over_time(opensips_sr_status{{{matchers}}}[1h]))"
    return f"{expr} or clamp({last}, 0, 0)"
