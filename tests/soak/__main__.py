"""`python -m tests.soak --minutes 30`: everything at once, and whether anything grows."""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from contextlib import ExitStack
from pathlib import Path

from tests.copies import Copied, Original
from tests.ports import reserve_port
from tests.soak.load import Load
from tests.soak.watch import HEADER, Watch
from tests.soak.world import World

#: From one reload to the next, each of another configuration.
RELOAD_SECONDS = 7.0
#: What is met once in a quarter of an hour, or in a day, is met in a minute or two.
BOUNDS = {
    "sr_exporter.ledger:TOMBSTONES": 1000,
    "sr_exporter.store.trimming:TOMBSTONES": 1000,
    "sr_exporter.store.trimming:TRIM_SECONDS": 10.0,
    "sr_exporter.notify.book:RESOLVED_SECONDS": 60.0,
    "sr_exporter.journal:MOST_RECENT": 1000,
}
#: What is said where receivers are away: no more than so many are owed.
GIVEN_UP = "the oldest are given up"
#: How long it may take to stop.
STOP_SECONDS = 30.0


def main(arguments: list[str] | None = None) -> int:
    """Run, and print; 0 when nothing grew and nothing was answered wrong."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=30.0, help="(default: %(default)s)")
    parser.add_argument("--every", type=float, metavar="SECONDS", help="default: a thirtieth")
    parser.add_argument("--retention", default="2m", help="of the journal (default: %(default)s)")
    parser.add_argument("--log", type=Path, help="where the exporter's own lines go")
    given = parser.parse_args(arguments)
    seconds = 60 * given.minutes
    every = given.every or seconds / 30
    with tempfile.TemporaryDirectory(prefix="sr-soak-") as folder:
        wrong, verdicts = soak(Path(folder), seconds, every, given.retention, given.log)
    for held, line in verdicts:
        _say(f"{'flat' if held else 'GROWS'}  {line}")
    for line in wrong:
        _say(f"WRONG  {line}")
    return bool(wrong) or not all(held for held, _ in verdicts)


def soak(
    folder: Path, seconds: float, every: float, retention: str, log: Path | None = None
) -> tuple[list[str], list[tuple[bool, str]]]:
    """Have it run for so long, and print what it takes.

    Gives what was answered or said wrong, and of each bound whether it held.
    """
    log = log or folder / "log"
    with ExitStack() as stack:
        port, stream, datagram = (
            stack.enter_context(reserve_port()).getsockname()[1] for _ in range(3)
        )
        original = stack.enter_context(Original(BOUNDS))
        world = stack.enter_context(World(folder))
        config = folder / "sr.yml"

        def configure(*, odd: bool) -> None:
            config.write_text(
                world.config(stream=stream, datagram=datagram, retention=retention, odd=odd)
            )

        configure(odd=False)
        arguments = (f"--config.file={config}", f"--storage.path={folder / 'data'}")
        running = stack.enter_context(Copied(original, *arguments, port=port, log=log))
        running.wait_ready()
        watch = Watch(running.process.pid, running.base, folder / "data")
        stack.callback(watch.close)
        over = threading.Event()
        reloads: Counter[int] = Counter()

        def reload() -> None:
            turn = 0
            while not over.wait(RELOAD_SECONDS):
                turn += 1
                configure(odd=turn % 2 == 1)
                reloads[running.client.reload().status_code] += 1

        reloading = threading.Thread(target=reload, daemon=True)
        _say(HEADER)
        with Load(port, stream, datagram) as load:
            reloading.start()
            began = time.monotonic()
            while (passed := time.monotonic() - began) < seconds:
                over.wait(min(every, seconds - passed))
                minutes = (time.monotonic() - began) / 60
                _say(watch.look(minutes, load.seen.take_scrapes()).line())
            over.set()
            reloading.join(30)
        running.signal(signal.SIGTERM)
        stopping = time.monotonic()
        status = running.wait(STOP_SECONDS)
        stopped = time.monotonic() - stopping
        wrong = load.seen.wrong() + _complaints(running.said)
        wrong += [f"reload: {code}" for code in reloads if code != 200]
        if status:
            wrong.append(f"it ended with {status}")
        _say("\nat the start, in the middle, at the end:")
        for line in watch.table():
            _say(line)
        _say(
            f"\n{dict(load.seen.codes)}\n{sum(reloads.values())} reloads,"
            f" {sum(server.restarts for server in world.servers)} restarts of servers,"
            f" {sum(sink.taken for sink in world.sinks)} webhooks taken,"
            f" {sum(board.posts for board in world.boards)} posts to Alertmanagers;"
            f" stopped in {stopped:.1f} s\n"
        )
    return wrong, watch.verdicts()


def _complaints(said: str) -> list[str]:
    """Give what the exporter said that it never should."""
    return [
        line
        for line in said.splitlines()
        if "Traceback" in line or ("level=error" in line and GIVEN_UP not in line)
    ]


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
