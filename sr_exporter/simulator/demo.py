"""The demo's servers: each node of the scenario behind an HTTP server, and the story playing.

Whoever subscribes to a node's events over its Management Interface is sent them.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import TYPE_CHECKING

from sr_exporter.simulator.events import Events
from sr_exporter.simulator.httpd import MiHttpd
from sr_exporter.simulator.scenario import Scenario

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType
    from typing import Self

    from sr_exporter.simulator.scenario import Told


def say_nothing(told: Told) -> None:
    """The teller for whom the story need not be told."""


class DemoNodes:
    """Simulated servers on loopback ports, from `start` to `stop`; `async with` does both."""

    def __init__(
        self,
        *,
        tell: Callable[[Told], None] = say_nothing,
        clock: Callable[[], float] = time.time,
        only: str | None = None,
        port: int = 0,
    ) -> None:
        """Prepare all nodes, or `only` one; `port` is for one, 0 lets the kernel choose.

        `tell` is called in the loop as each beat of the story is played.
        """
        self._scenario = Scenario(clock(), only=only)
        self._tell = tell
        self._clock = clock
        self._events = {
            name: Events(node, clock=clock) for name, node in self._scenario.nodes.items()
        }
        self._httpds = {
            name: MiHttpd(node, port=port, clock=clock, commands=self._events[name].commands)
            for name, node in self._scenario.nodes.items()
        }
        self._playing: asyncio.Task[None] | None = None
        self._one_at_a_time = asyncio.Lock()

    @property
    def sources(self) -> list[tuple[str, str]]:
        """Name and MI address of each node, once started."""
        return [(name, httpd.url) for name, httpd in self._httpds.items()]

    @property
    def violations(self) -> list[str]:
        """What no OpenSIPS should have been sent, and which node was."""
        return [
            f"{name}: {violation}"
            for name, httpd in self._httpds.items()
            for violation in httpd.violations
        ]

    async def start(self) -> list[tuple[str, str]]:
        """Let the nodes listen and the story begin, once; give the sources. OSError: no port."""
        if self._playing is None:
            try:
                await self.catch_up()
            except BaseException:
                await self.stop()
                raise
            self._playing = asyncio.create_task(self._play(), name="demo scenario")
        return self.sources

    async def stop(self) -> None:
        """End it at once. Raises what ended the story before, if something did."""
        try:
            if self._playing is not None:
                self._playing.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await self._playing
        finally:
            for name, httpd in self._httpds.items():
                await self._events[name].stop()
                await httpd.stop()

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

    async def _play(self) -> None:
        while True:
            await asyncio.sleep(max(0.0, self._scenario.next_at - self._clock()))
            await self.catch_up()

    async def catch_up(self) -> None:
        """Play what is due by the clock. The running story does it by itself."""
        async with self._one_at_a_time:
            for told in self._scenario.step(self._clock()):
                self._tell(told)
            for name, node in self._scenario.nodes.items():
                httpd, events = self._httpds[name], self._events[name]
                if node.up and not httpd.listening:
                    await events.start()
                    await httpd.start()
                elif not node.up and httpd.listening:
                    await events.stop()
                    await httpd.stop(keep_port=True)


async def start_demo_nodes(tell: Callable[[Told], None] = say_nothing) -> DemoNodes:
    """Start the demo's four nodes on free loopback ports. The caller stops them."""
    nodes = DemoNodes(tell=tell)
    await nodes.start()
    return nodes
