"""`python -m tests.fuzz [TARGET ...]`: feed targets what strangers send, and tell what broke."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from tests.fuzz.grow import grown
from tests.fuzz.run import Finding, again, run, smallest, table
from tests.fuzz.targets import all_targets, shares


def main(arguments: list[str] | None = None) -> int:
    """Run; give 1 where something was found."""
    targets = all_targets()
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("targets", nargs="*", metavar="TARGET", help="all, unless some are named")
    parser.add_argument("--seed", type=int, default=1, help="default: %(default)s")
    parser.add_argument("--inputs", type=int, default=20_000, help="in all (default: %(default)s)")
    parser.add_argument("--number", type=int, help="feed one TARGET this one of its inputs again")
    parser.add_argument("--grow", action="store_true", help="long inputs: time by the byte")
    parser.add_argument("--out", type=Path, help="a folder for the inputs that broke something")
    parser.add_argument("--list", action="store_true", help="name the targets")
    given = parser.parse_args(arguments)
    if given.list:
        _say(*targets)
        return 0
    if unknown := [name for name in given.targets if name not in targets]:
        parser.error(f"unknown: {', '.join(unknown)} (--list names all)")
    chosen = [targets[name] for name in given.targets] or list(targets.values())
    if given.number is not None and len(given.targets) != 1:
        parser.error("--number takes one TARGET")
    if given.grow:
        scores = [grown(target) for target in chosen]
    elif given.number is not None:
        scores = [again(chosen[0], given.seed, given.number)]
    else:
        spread = shares(chosen, given.inputs)
        scores = []
        for target in chosen:
            scores.append(run(target, given.seed, spread[target.name]))
            _say(table(scores)[-2])
    found = [finding for score in scores for finding in score.findings.values()]
    for finding in found:
        _tell(finding, smallest(targets[finding.target], finding), given.seed, given.out)
    _say(*table(scores))
    return 1 if found else 0


def _tell(finding: Finding, least: bytes, seed: int, folder: Path | None) -> None:
    command = f"python -m tests.fuzz {finding.target} --seed {seed} --number {finding.number}"
    _say(str(finding), f"least: {least!r}", f"again: {command}", "")
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{finding.target}-{finding.number}").write_bytes(finding.data)


def _say(*lines: str) -> None:
    sys.stdout.write("".join(f"{line}\n" for line in lines))
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
