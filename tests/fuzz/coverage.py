"""`python -m tests.fuzz.coverage TARGET`: inputs led by coverage, with atheris.

It keeps inputs that reach something new, and goes on from there. By hand only: it has no packages
for every Python that the project runs on (`pip install -e '.[fuzz]'`). A crash ends it, with the
input in a file.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
import tempfile
import time
from pathlib import Path

import atheris

# What is imported under it is what is looked at.
with atheris.instrument_imports(include=["sr_exporter"]):
    from tests.fuzz.corpora import ODD_JSON
    from tests.fuzz.run import STALL_SECONDS
    from tests.fuzz.targets import all_targets


def main() -> None:
    """Feed a target; does not return, for atheris ends the process."""
    targets = all_targets()
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz.coverage", description=__doc__)
    parser.add_argument("target", metavar="TARGET", choices=targets)
    parser.add_argument("--seed", type=int, default=1, help="default: %(default)s")
    parser.add_argument("--inputs", type=int, default=100_000, help="default: %(default)s")
    given = parser.parse_args()
    target = targets[given.target]
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="sr-fuzz-")))
        for number, data in enumerate((*target.seeds, *ODD_JSON)):
            (folder / f"{number:04}").write_bytes(data)
        opened = stack.enter_context(target.open())

        def take(data: bytes) -> None:
            for _ in range(2):
                began = time.process_time()
                target.accepts(opened, data)
                if time.process_time() - began <= STALL_SECONDS:
                    return
            raise TimeoutError("a stall")

        limits = [f"-runs={given.inputs}", f"-seed={given.seed}", f"-max_len={target.longest}"]
        atheris.Setup([sys.argv[0], *limits, str(folder)], take)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
