"""`python -m sr_exporter.simulator`: one simulated OpenSIPS for whoever wants to try a client."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import sys
from datetime import datetime

from sr_exporter.simulator.demo import DemoNodes
from sr_exporter.simulator.scenario import CAST, Told


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m sr_exporter.simulator", description=__doc__)
    parser.add_argument("--port", type=int, default=8888, help="0 lets the kernel choose")
    parser.add_argument(
        "--node", choices=sorted(CAST), default="sip-1", help="which part of the demo it plays"
    )
    options = parser.parse_args()
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_serve(options.node, options.port))


async def _serve(node: str, port: int) -> None:
    async with DemoNodes(tell=_print, only=node, port=port) as nodes:
        [(_, url)] = nodes.sources
        sys.stdout.write(f"Management Interface: {url}\n")
        sys.stdout.flush()
        await asyncio.Event().wait()


def _print(told: Told) -> None:
    at = datetime.fromtimestamp(told.at).astimezone()
    sys.stdout.write(f"{at:%H:%M:%S} {told.node} {told.line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
