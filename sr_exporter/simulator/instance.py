"""One simulated OpenSIPS as a whole: a node, its Management Interface, and its events.

They live and die together. `MiThread` runs it for clients that block: `refuse` kills it, and
`listen` starts it again at the same place, with empty rings, a new up time and no subscriptions.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType
    from typing import Self

    from sr_exporter.simulator.events import Events
    from sr_exporter.simulator.node import SimulatedNode
    from sr_exporter.simulator.servers import Startable

S = TypeVar("S", bound="Startable")


def boot(node: SimulatedNode, now: float) -> None:
    """Start as the simplest server does: it is running at once."""
    node.initialized(now)


class Instance(Generic[S]):
    """Start and stop it, or `async with`; it is killed and started again by `restart`."""

    def __init__(
        self,
        node: SimulatedNode,
        server: S,
        events: Events,
        *,
        boot: Callable[[SimulatedNode, float], None] = boot,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`server` answers for `node`, and with the commands of `events`. `boot` is what befalls
        the node once it can be asked.
        """
        self.node = node
        self.server = server
        self.events = events
        self._boot = boot
        self._clock = clock

    @property
    def url(self) -> str:
        return self.server.url

    async def start(self) -> None:
        """Come up. Raises OSError when the place is taken."""
        now = self._clock()
        self.node.start(now)
        await self.events.start()
        try:
            await self.server.start()
        except BaseException:
            await self.events.stop()
            raise
        self._boot(self.node, now)

    async def stop(self, *, keep_port: bool = False) -> None:
        """Be gone at once, with all that is held of events and subscriptions."""
        try:
            await self.events.stop()
        finally:
            await self.server.stop(keep_port=keep_port)
            self.node.stop()

    async def restart(self) -> None:
        await self.stop(keep_port=True)
        await self.start()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.stop()
