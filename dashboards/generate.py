"""Write the Grafana dashboards of this folder: `python dashboards/generate.py`.

The JSON is committed, and a test holds it equal to what `generator/` makes: change it there only.

- What is not known is drawn as not known: an expression comes back empty, not 0, when nothing was
  scraped, and the timelines draw "Unknown" for an hour where something was and is not now.
- What a status means depends on its group, so no mapping covers more than one kind of group.
- A table of a million rows helps nobody: it asks for the newest 200.
"""  # noqa: INP001 - a folder of data and its maker, not a package

from __future__ import annotations

import json
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
if __package__ in (None, ""):  # run by its path, which puts this folder first and not the one above
    sys.path.insert(0, str(HERE.parent))

from dashboards.generator import board  # noqa: E402
from dashboards.generator.cluster import cluster  # noqa: E402
from dashboards.generator.exporter import exporter  # noqa: E402
from dashboards.generator.fleet import overview  # noqa: E402
from dashboards.generator.identifier import identifier  # noqa: E402
from dashboards.generator.parts import DATASOURCE  # noqa: E402
from dashboards.generator.routing import routing  # noqa: E402
from dashboards.generator.source import source  # noqa: E402

__all__ = ["DASHBOARDS", "DATASOURCE", "main", "overview", "text"]

#: The file of each dashboard, beside this one.
DASHBOARDS = {
    f"{board.FLEET}.json": overview,
    f"{board.SOURCE}.json": source,
    f"{board.IDENTIFIER}.json": identifier,
    f"{board.ROUTING}.json": routing,
    f"{board.CLUSTER}.json": cluster,
    f"{board.EXPORTER}.json": exporter,
}


def text(name: str) -> str:
    """Give the JSON of a dashboard as it is committed."""
    return json.dumps(DASHBOARDS[name](), indent=2, ensure_ascii=False) + "\n"


def main() -> None:
    for name in DASHBOARDS:
        (HERE / name).write_text(text(name), encoding="utf-8")


if __name__ == "__main__":
    main()
