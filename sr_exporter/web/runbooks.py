"""The runbooks that alerts point at, as a page."""

from __future__ import annotations

import re
from functools import lru_cache
from importlib import resources
from itertools import pairwise
from pathlib import Path

from markdown_it import MarkdownIt
from markupsafe import Markup


@lru_cache(maxsize=1)
def runbooks_html() -> Markup:
    """Render the runbooks; each section is an anchor, as GitHub would name it."""
    markdown = MarkdownIt("commonmark", {"html": False}).enable("table")
    tokens = markdown.parse(_runbooks())
    for opening, inline in pairwise(tokens):
        if opening.type == "heading_open" and opening.tag in ("h1", "h2"):
            opening.attrSet("id", _anchor(inline.content))
    # The text is this project's own, and HTML inside it is escaped.
    return Markup(markdown.renderer.render(tokens, markdown.options, {}))  # noqa: S704


def _runbooks() -> str:
    """Read docs/runbooks.md, which a wheel carries inside the package."""
    packaged = resources.files("sr_exporter.web").joinpath("runbooks.md")
    if packaged.is_file():
        return packaged.read_text("utf-8")
    return (Path(__file__).parents[2] / "docs" / "runbooks.md").read_text("utf-8")


def _anchor(heading: str) -> str:
    return re.sub(r"[^a-z0-9 -]", "", heading.lower()).replace(" ", "-")
