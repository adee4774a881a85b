"""`sr-exporter demo`: the whole exporter, and a small fleet of simulated servers to watch."""

from __future__ import annotations

import socket
import time
from typing import TYPE_CHECKING

from sr_exporter.app import App, Options
from sr_exporter.config import Config, Endpoint, Events, Source, Subscribe
from sr_exporter.simulator.demo import DemoNodes
from sr_exporter.simulator.scenario import narrative

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from sr_exporter.simulator.scenario import Told
    from sr_exporter.web.config_file import WebConfigFile
    from sr_exporter.web.server import Address

#: Often enough that every turn of the story is seen.
POLL_SECONDS = 1.0


def _print(line: str) -> None:
    print(line, flush=True)  # noqa: T201 - a person reads along, through a pipe too


def _free_port() -> int:
    """Give a port of this machine that nobody has: a demo takes none that may be somebody's."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
        return port


async def run(
    *,
    listen: Sequence[Address],
    storage_path: Path,
    external_url: str,
    stop: asyncio.Event,
    say: Callable[[str], None] = _print,
    clock: Callable[[], float] = time.time,
    web: WebConfigFile | None = None,
) -> None:
    """Run the demo until `stop` is set. `say` is told what a person is to read.

    Raises:
        ListenError: an address cannot be listened on.
    """
    began = clock()
    ready = False

    def tell(told: Told) -> None:
        if ready:
            say(f"{told.at - began:6.0f} s  {told.node} {told.line}")

    def introduce(_: Sequence[socket.socket]) -> None:
        nonlocal ready
        ready = True
        scheme = "https" if web is not None and web.has_tls else "http"
        base = f"{scheme}://{listen[0] if listen[0].host else f'localhost:{listen[0].port}'}"
        say(f"sr-exporter demo: {len(nodes.sources)} simulated OpenSIPS servers.")
        say(f"  page      {base}/")
        say(f"  metrics   {base}/metrics        curl -s {base}/metrics | grep opensips_sr_")
        say(f"  events    over TCP from all of them; curl -s {base}/api/v1/sources")
        say(f"  ask       sr-exporter mi {nodes.sources[0][1]} sr_list_status")
        say(f'  push      curl -d \'{{"group": "sbc", "status": -1}}\' {base}/api/v1/push')
        say("What is going to happen, again and again:")
        for line in narrative():
            say(f"  {line}")
        say("Ctrl-C stops it. Its data is in a temporary folder, and goes with it.")
        say("")

    async with DemoNodes(tell=tell, clock=clock) as nodes:
        events = Endpoint("127.0.0.1", _free_port())
        config = Config(
            sources=tuple(
                Source(
                    name,
                    mi,
                    poll_interval_seconds=POLL_SECONDS,
                    timeout_seconds=2.0,
                    subscribe=Subscribe.TCP,
                )
                for name, mi in nodes.sources
            ),
            events=Events(stream=events, advertise=events),
        )
        options = Options(listen, storage_path, external_url, config, web=web)
        await App(options, clock, introduce).run(stop)
    for violation in nodes.violations:
        say(f"HARM: {violation}")
    say("stopped")
