"""The documents as a reader finds them: pages, what they quote, and where their headings are."""

from __future__ import annotations

import enum
import re
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from sr_exporter.config.keys import SCHEMA
from sr_exporter.config.web import WEB_SCHEMA

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
#: Where a block begins, and how far in.
_FENCE = re.compile(r"^( *)```(\S*)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)


class Kind(enum.Enum):
    """Whose file a block of YAML is."""

    OURS = "sr-exporter"
    WEB = "web configuration"
    PROMETHEUS = "prometheus"
    RULES = "alert rules"
    ALERTMANAGER = "alertmanager"
    KUBERNETES = "kubernetes"
    PROBE = "a probe of a pod of kubernetes"


#: By what a file of theirs may have at its top.
_KEYS = {
    Kind.OURS: set(SCHEMA.keys[""]),
    Kind.WEB: set(WEB_SCHEMA.keys[""]),
    Kind.PROMETHEUS: {"global", "scrape_configs", "rule_files", "alerting"},
    Kind.ALERTMANAGER: {"route", "receivers", "inhibit_rules"},
    Kind.PROBE: {"readinessProbe", "livenessProbe"},
}


class Block(NamedTuple):
    """What a page quotes: a file, or lines to be typed."""

    page: Path
    #: The line of the page that it begins on, from 1.
    line: int
    language: str
    text: str

    @property
    def id(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"

    def documents(self) -> list[Any]:
        """Read it as YAML."""
        return [document for document in yaml.safe_load_all(self.text) if document is not None]


def kind_of(block: Block) -> Kind | None:
    """Say whose file it is; None: nobody's that is known here."""
    first = block.documents()[0]
    if isinstance(first, list):
        return Kind.RULES if all({"record", "expr"} <= set(rule) for rule in first) else None
    if "apiVersion" in first:
        return Kind.KUBERNETES
    return next((kind for kind, keys in _KEYS.items() if set(first) <= keys), None)


def pages() -> list[Path]:
    """Give every page there is."""
    return [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted(DOCS.rglob("*.md"))]


def blocks(language: str, *of: Path) -> list[Block]:
    """Give the blocks in a language, of some pages or of all."""
    found = []
    for page in of or pages():
        text = page.read_text("utf-8")
        for block in _FENCE.finditer(text):
            indent, said, body = block.groups()
            if said == language:
                line = text.count("\n", 0, block.start()) + 1
                body = re.sub(f"^{indent}", "", body, flags=re.MULTILINE)
                found.append(Block(page, line, said, body))
    return found


def prose(page: Path) -> str:
    """Give a page without what it quotes."""
    return _FENCE.sub("", page.read_text("utf-8"))


def anchors(page: Path) -> set[str]:
    """Give the names that a page's headings have, as GitHub makes them."""
    found: set[str] = set()
    for heading in re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE):
        said = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading).strip().lower()
        name = re.sub(r"[^\w\- ]", "", said).replace(" ", "-")
        again = 0
        while (unique := f"{name}-{again}" if again else name) in found:
            again += 1
        found.add(unique)
    return found


def links(page: Path) -> list[tuple[Path, str]]:
    """Give where a page leads to in this checkout, and the anchor there, "" for the whole of it."""
    found = []
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        found.append((page.parent / path if path else page, anchor))
    return found
