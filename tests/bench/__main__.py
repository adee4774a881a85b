"""`python -m tests.bench COMMAND`: measure, print tables, and keep the figures."""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from tests.bench import latency, memory, poll, push, scrape, start, stream
from tests.bench.figures import Figures
from tests.bench.setting import Setting

if TYPE_CHECKING:
    from collections.abc import Callable


class Command(NamedTuple):
    run: Callable[[Setting], None]
    #: Of as many identifiers the project promises something.
    identifiers: int


COMMANDS = {
    "scrape": Command(scrape.run, 1_000_000),
    "push": Command(push.run, 1_000_000),
    "stream": Command(stream.run, 100_000),
    "poll": Command(poll.run, 100_000),
    "latency": Command(latency.run, 1_000_000),
    "memory": Command(memory.run, 1_000_000),
    "start": Command(start.run, 1_000_000),
}


def main(arguments: list[str] | None = None) -> None:
    """Run one command."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("command", choices=COMMANDS)
    parser.add_argument("--identifiers", type=int, metavar="N", help="default: as promised for")
    parser.add_argument("--name-bytes", type=int, choices=(40, 110), default=40)
    parser.add_argument("--rounds", type=int, default=5, help="default: %(default)s")
    parser.add_argument(
        "--seconds", type=float, default=3.0, help="of a round of a rate (%(default)s)"
    )
    parser.add_argument(
        "--readers", action="store_true", help="scrape: Chromium and Prometheus read it, too"
    )
    parser.add_argument(
        "--folder", type=Path, help="where stores are made, on the disk that is to be measured"
    )
    parser.add_argument("--out", type=Path, default=Path("build/bench.jsonl"))
    given = parser.parse_args(arguments)
    command = COMMANDS[given.command]
    identifiers = given.identifiers or command.identifiers
    figures = Figures(given.command, identifiers, given.name_bytes, given.out)
    try:
        with tempfile.TemporaryDirectory(prefix="sr-bench-", dir=given.folder) as folder:
            command.run(
                Setting(
                    identifiers,
                    given.name_bytes,
                    given.rounds,
                    given.seconds,
                    given.readers,
                    Path(folder),
                    figures,
                )
            )
    finally:
        figures.show()


if __name__ == "__main__":
    main()
