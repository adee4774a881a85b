"""An event loop whose time passes only when there is nothing left to do.

What waits for a moment is woken as soon as everything else waits, too: hours take as long as the
work in them. Nothing that waits for another process or thread may run in it.
"""

from __future__ import annotations

import asyncio
import selectors
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Coroutine

T = TypeVar("T")


class _Selector(selectors.SelectSelector):
    """Lets time pass instead of waiting."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0

    def select(
        self, timeout: float | None = None
    ) -> list[tuple[selectors.SelectorKey, selectors._EventMask]]:
        found = super().select(0)
        if not found and timeout is None:
            raise RuntimeError("everything waits for ever")
        if not found and timeout is not None:
            self.now += timeout
        return found


class _Loop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self._virtual = _Selector()
        super().__init__(self._virtual)

    def time(self) -> float:
        return self._virtual.now


def run(what: Coroutine[object, object, T]) -> T:
    """Run something from time 0 to its end."""
    with asyncio.Runner(loop_factory=_Loop) as runner:
        return runner.run(what)
