"""How a window of reports continues an earlier one.

OpenSIPS lists a fixed-size ring of reports, oldest first, with stamps of one second, no
sequence and no count of what was dropped (facts on reports). All that can be known of two
listings of one ring is where they overlap.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sr_exporter.model import Report


class Continuation(NamedTuple):
    #: How many of the later window's reports, counted from its end, were not seen before.
    new: int
    #: The ring turned over at least once between the two: some reports were never seen.
    overrun: bool


def continues(held: Sequence[Report], listed: Sequence[Report], *, restarted: bool) -> Continuation:
    """Say which of the `listed` reports are new to one who holds `held`.

    The later window continues the earlier at the longest suffix of `held` that is a prefix of
    `listed`. Where nothing overlaps, everything listed is new; the ring was emptied by a
    restart, or is shorter than it was (so it was emptied), or it turned over unseen.
    """
    if held == listed:
        return Continuation(0, overrun=False)
    overlap = _overlap(held, listed)
    if overlap:
        return Continuation(len(listed) - overlap, overrun=False)
    turned_over = bool(held) and len(listed) >= len(held) and not restarted
    return Continuation(len(listed), overrun=turned_over)


def _overlap(held: Sequence[Report], listed: Sequence[Report]) -> int:
    """Give the length of the longest suffix of `held` that begins `listed`, in linear time.

    The prefix function of Knuth, Morris and Pratt over `listed`, run over `held`.
    """
    if not listed:
        return 0
    borders = [0] * len(listed)
    length = 0
    for place in range(1, len(listed)):
        while length and listed[place] != listed[length]:
            length = borders[length - 1]
        if listed[place] == listed[length]:
            length += 1
        borders[place] = length
    length = 0
    for report in held:
        while length and (length == len(listed) or report != listed[length]):
            length = borders[length - 1]
        if report == listed[length]:
            length += 1
    return length
