"""The garbage collector, kept from stopping the process.

A full collection looks at every container there is, and nothing else runs meanwhile: 0.2 s for a
million. What is held lives for long and is in no cycle that is not taken apart when it is removed,
so there is nothing in it to find: once it was looked through it is *frozen*, and not looked at
again. What is restored at a start is not even looked through. Frozen objects are freed as ever
when the last reference to them goes.
"""

from __future__ import annotations

import gc
import time
from typing import Literal

#: A full collection that took longer than this has seen what is to be frozen. What is short-lived
#: and frozen by chance, and part of a cycle, is lost: so it is not done for less, and the time is
#: what we computed. Told by the clock on the wall, every collection is long on a busy machine,
#: and a process that holds next to nothing grew by a megabyte a minute. Nor is it done where there
#: is less to look through than this, containers and what is in them: what is lost is then next to
#: nothing of what is held.
LONG_SECONDS = 0.01
MUCH = 200_000
_OLDEST = 2
_SIZED = frozenset({dict, list, set, tuple})


class Frost:
    """Freezes what has survived, each time that there is much of it."""

    def __init__(self) -> None:
        self._began = 0.0

    def wait(self) -> None:
        """Have the collector wait for `begin`: what is made until then is to be held."""
        gc.collect()
        gc.disable()

    def begin(self) -> None:
        """Freeze what there is, and from now on what grows to be much."""
        gc.freeze()
        gc.enable()
        gc.callbacks.append(self._collected)

    def end(self) -> None:
        """Leave the collector as it was found."""
        if self._collected in gc.callbacks:
            gc.callbacks.remove(self._collected)
        gc.enable()
        gc.unfreeze()

    def _collected(self, phase: Literal["start", "stop"], info: dict[str, int]) -> None:
        if info["generation"] != _OLDEST:
            return
        if phase == "start":
            self._began = time.thread_time()
            return
        took = time.thread_time() - self._began
        if took > LONG_SECONDS and _looked_through() >= MUCH:
            gc.freeze()


def _looked_through() -> int:
    """Count what a full collection looks at: a few thousand lists may have millions of items."""
    containers = gc.get_objects(generation=_OLDEST)
    return len(containers) + sum(len(one) for one in containers if type(one) in _SIZED)
