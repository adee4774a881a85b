"""The lowest versions of every dependency that pyproject.toml allows, for pip's `--constraint`.

`--installed` gives the versions that are installed instead, in one line.
"""

from __future__ import annotations

import re
import sys
import tomllib
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
_BOUND = re.compile(r"([\w.-]+)>=([\d.]+)")


def bounds(text: str) -> dict[str, str]:
    """Give the lower bound of each dependency of a pyproject.toml.

    Raises:
        ValueError: one has no lower bound, or something else beside it.
    """
    found = {}
    for dependency in tomllib.loads(text)["project"]["dependencies"]:
        bound = _BOUND.fullmatch(dependency)
        if bound is None:
            raise ValueError(f"{dependency!r} is not NAME>=VERSION")
        found[bound[1]] = bound[2]
    return found


def main() -> None:
    found = bounds((ROOT / "pyproject.toml").read_text("utf-8"))
    if sys.argv[1:] == ["--installed"]:
        print(*(f"{name} {version(name)}" for name in found), sep=", ")  # noqa: T201
    else:
        print(*(f"{name}=={lowest}" for name, lowest in found.items()), sep="\n")  # noqa: T201


if __name__ == "__main__":
    main()
