"""A push is checked as a whole before anything of it is applied."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sr_exporter.errors import ItemFault, PushRefused
from sr_exporter.freeing import emptied
from sr_exporter.room import Beginning
from sr_exporter.turns import slices

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence

    from sr_exporter.model import Statement
    from sr_exporter.state import State

#: How many refused items of a push are named: the answer must not grow with the body.
MOST_FAULTS = 100


def refusal(state: State, statements: Sequence[Statement], now: float) -> PushRefused | None:
    """Say why a push must not be applied; None: it may."""
    faults = state.faults(statements, now)
    return _refused(len(faults), faults, statements) if faults else None


def refusal_in_slices(
    state: State, statements: Sequence[Statement], clock: Callable[[], float], size: int
) -> Generator[None, None, PushRefused | None]:
    """Say what `refusal` does, with pauses; what is true of a push then is true no longer."""
    wrong = place = 0
    faults: list[tuple[int, str]] = []
    fresh = None if state.is_plenty(len(statements)) else Beginning()
    for some in slices(statements, size):
        found = state.faults(some, clock(), fresh)
        wrong += len(found)
        room = MOST_FAULTS - len(faults)
        faults += [(place + index, why) for index, why in found[:room]]
        place += len(some)
        yield
    if fresh is not None:
        yield from emptied(fresh.keys)
    return _refused(wrong, faults, statements) if wrong else None


def _refused(
    wrong: int, faults: Sequence[tuple[int, str]], statements: Sequence[Statement]
) -> PushRefused:
    return PushRefused(
        f"{wrong} of {len(statements)} items are refused; nothing was taken",
        [ItemFault(*fault) for fault in faults[:MOST_FAULTS]],
    )
