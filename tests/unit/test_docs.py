"""What the documents list is what the code has."""

from __future__ import annotations

import re
from pathlib import Path

from sr_exporter.metrics.families import families
from sr_exporter.metrics.own import OwnMetrics
from sr_exporter.state import State
from sr_exporter.store.contract import StoreFigures
from sr_exporter.web import routes

DOCS = Path(__file__).parents[2] / "docs"
_FIGURES = StoreFigures(0, 0, 0.0, 0, 0, 0, 0, None)


def _exported() -> dict[str, str]:
    found = [*families(State()), *OwnMetrics().families(_FIGURES)]
    return {
        family.name: family.kind.value
        for family in found
        if family.name.startswith(("opensips_sr_", "sr_exporter_"))
    }


def test_every_family_is_documented_and_every_documented_family_exists():
    """docs/metrics.md has each family with its type, and no other."""
    text = (DOCS / "metrics.md").read_text("utf-8")
    rows = re.findall(r"^\| `([a-z_]+)` \| (\w+) \|", text, re.MULTILINE)
    assert dict(rows) == _exported()


def test_every_route_is_documented():
    """docs/http-api.md names each route of the table."""
    text = (DOCS / "http-api.md").read_text("utf-8")
    source = Path(routes.__file__).read_text("utf-8")
    for path in re.findall(r'Route\("([^"{]+)', source):
        assert f" {path}" in text, path


def test_links_between_documents_lead_somewhere():
    """Each relative link of README and docs is a file or folder."""
    for page in (DOCS.parent / "README.md", *DOCS.rglob("*.md")):
        for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text("utf-8")):
            assert (page.parent / target).exists(), f"{page.name}: {target}"
