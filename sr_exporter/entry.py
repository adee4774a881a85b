"""What the command `sr-exporter` runs first.

A check is run every few seconds, on machines that carry calls, and Kubernetes gives it one
second; a push may come from a script in a loop. They need none of the server, and do not wait
until all of it is imported.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import sys

#: By the names of their modules, whose `run` takes the arguments and gives the exit status.
QUICK = {"check": "sr_exporter.check_command", "push": "sr_exporter.push_command"}


def main() -> None:
    """Run the command; ends by `SystemExit`, or at once."""
    arguments = sys.argv[1:]
    quick = QUICK.get(arguments[0]) if arguments else None
    if quick is None:
        importlib.import_module("sr_exporter.cli").main()
    else:
        status: int = importlib.import_module(quick).run(arguments[1:])
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, AttributeError):  # it is closed, or there is none
                stream.flush()
        # A thread that waits for a name to resolve would hold up the end.
        os._exit(status)
