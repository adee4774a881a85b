"""Write the rules as JSON, for the mixin: `python alerts/generate.py`.

Debian's jsonnet (0.18) cannot read YAML, so `mixin.libsonnet` imports JSON. The YAML is what is
edited; a test holds the copies equal to it.
"""  # noqa: INP001 - a folder of data and its maker, not a package

from __future__ import annotations

import json
from pathlib import Path

import yaml

HERE = Path(__file__).resolve().parent
COPIES = HERE / "json"


def copy_of(path: Path) -> Path:
    return COPIES / f"{path.stem}.json"


def text(path: Path) -> str:
    """Give a file of rules as JSON, which Prometheus reads as well."""
    document = yaml.safe_load(path.read_text(encoding="utf-8"))
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


def main() -> None:
    for path in HERE.glob("*.rules.yml"):
        copy_of(path).write_text(text(path), encoding="utf-8")


if __name__ == "__main__":
    main()
