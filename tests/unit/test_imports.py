"""Imports run in the directions of the design, section 3."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import sr_exporter

ROOT = Path(sr_exporter.__file__).parent

#: What each part may import of the project. `model`, `errors` and the small leaves are words
#: that everybody uses.
WORDS = {
    "model",
    "signals",
    "errors",
    "durations",
    "globs",
    "redact",
    "freeing",
    "progress",
    "words",
    "tasks",
    "threads",
    "tls",
    "sr_exporter",
    "accepting",
    "cutting",
    "limited",
    "limits",
    "seldom",
}
#: What is held, to be read.
READ_SIDE = {"held", "ledger", "outcome", "readiness", "state"}
ALLOWED = {
    "model": {"parts", "signals"},
    "parts": {"model"},
    "signals": set(),
    "due": set(),
    "clock": set(),
    "heap": set(),
    "report_rules": {"cutting", "globs", "model", "signals"},
    "errors": {"model"},
    "durations": set(),
    "freeing": set(),
    "progress": {"errors"},
    "globs": set(),
    "redact": set(),
    "tasks": set(),
    "accepting": set(),
    "limits": set(),
    "cutting": {"limits"},
    "limited": {"cutting", "limits", "seldom"},
    "seldom": set(),
    "room": {"held", "limits", "model"},
    "threads": set(),
    "tls": set(),
    "turns": set(),
    "words": {"model"},
    "rings": {"model"},
    "tally": {"model"},
    "held": {"known", "model", "signals", "tally"},
    "known": {"held", "model"},
    "outcome": {"held", "model", "signals"},
    "ledger": {"due", "held", "outcome", "room", "tally", "model", "signals"},
    "subjects": {"held", "ledger", "limits", "outcome", "model", "signals"},
    "asked": {"held", "known", "subjects", "outcome", "rings", "model", "parts"},
    "state": {"asked", "held", "outcome", "room", "tally", "model", "signals"},
    "readiness": {"held", "model", "state"},
    "order": {"model", "outcome", "state", "turns"},
    "journal": {"errors", "model", "outcome", "store.contract", "turns"},
    "store": WORDS,
    "wire": WORDS,
    "connections": WORDS,
    "names": {"threads"},
    "lines": {"errors", "names", "tls"},
    "outbound": {"errors", "lines", "names"},
    "checks": {"errors", "freeing", "model", "room", "state", "turns"},
    "keeping": {"errors"},
    "gathering": {"held", "model", "outcome", "store.contract"},
    "ingest": WORDS
    | READ_SIDE
    | {"checks", "gathering", "keeping", "parts", "store.contract", "turns"},
    "mi": WORDS | {"wire", "turns", "lines", "names"},
    "sources": WORDS | {"wire", "mi", "ingest", "config", "outcome"},
    "config": WORDS | {"globs", "report_rules"},
    "metrics": WORDS | READ_SIDE | {"store.contract", "turns"},
    "notify": WORDS | READ_SIDE | {"store.contract", "outbound", "names", "config"},
    "own": WORDS | READ_SIDE | {"ingest", "store.contract", "metrics"},
    "web": WORDS
    | READ_SIDE
    | {"wire", "ingest", "journal", "order", "config", "metrics", "reload", "turns"}
    # What fires is read, and written as notifiers write it.
    | {"notify.alerts", "notify.book", "notify.payload"}
    | {"notify.letters", "store.contract"},
    "logs": WORDS,
    "reload": WORDS | {"config", "metrics"},
    "simulator": WORDS | {"wire"},
    "app": None,
    "configurable": None,
    # What programs import that publish: nothing of the server (test_client.py).
    "asking": {"connections", "tls"},
    "client": {"asking", "heartbeat", "notify.retry"},
    "heartbeat": {"client", "durations"},
    "arguments": {"durations"},
    "push_command": {"arguments", "asking", "client", "exporter_options"},
    "exporter_options": {"asking"},
    "entry": {"cli"},
    "notifications_command": WORDS | {"arguments", "asking", "exporter_options"},
    "rules_command": WORDS | {"config", "notify.alerts", "notify.rules", "state"},
    "mi_command": WORDS | {"arguments", "mi", "mi_options", "wire", "config"},
    "mi_options": {"config"},
    "check_command": WORDS | {"arguments", "readiness"},
    "check_exporter": {"asking", "errors", "exporter_options", "readiness"},
    "check_mi": {"config", "errors", "mi", "mi_options", "model", "readiness"},
    "demo": {"app", "config", "simulator", "web"},
    "cli": None,
    "__main__": {"entry"},
}


def _imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("sr_exporter"):
            base = (node.module or "").removeprefix("sr_exporter").lstrip(".")
            names = {alias.name for alias in node.names}
            found |= {f"{base}.{name}" if base else name for name in names}
            assert node.level == 0, f"{path}: imports are absolute"
        elif isinstance(node, ast.Import):
            found |= {
                alias.name.removeprefix("sr_exporter").lstrip(".")
                for alias in node.names
                if alias.name.startswith("sr_exporter")
            }
    return found


def _part(path: Path) -> str:
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


MODULES = sorted(
    path for path in ROOT.rglob("*.py") if path.name != "__init__.py" or path.parent != ROOT
)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_module_imports_only_what_its_place_allows(path):
    """The way of the data is one way: whoever imports against it goes red here."""
    part = _part(path)
    assert part in ALLOWED, f"{part} has no place in the design yet"
    allowed = ALLOWED[part]
    if allowed is None:
        return
    for imported in _imports(path):
        if imported == "__version__" or imported.split(".")[0] == part:
            continue
        parts = imported.split(".")
        prefixes = {".".join(parts[: n + 1]) for n in range(len(parts))}
        assert prefixes & allowed, f"{path.relative_to(ROOT)} imports {imported}"


def test_nothing_pure_does_io():
    """The state, the wire, and what decides for notifiers know no clock, socket or thread."""
    banned = {"socket", "threading", "time", "asyncio", "requests", "sqlite3", "random"}
    pure = [ROOT / name for name in ("state.py", "ledger.py", "held.py", "rings.py", "model.py")]
    pure += [
        ROOT / f"{name}.py"
        for name in ("known", "parts", "subjects", "readiness", "report_rules", "signals")
    ]
    pure += [
        ROOT / "notify" / f"{name}.py"
        for name in ("rules", "alerts", "wording", "retry", "payload")
    ]
    pure += sorted((ROOT / "wire").glob("*.py"))
    for path in pure:
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            names = set()
            if isinstance(node, ast.Import):
                names = {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                names = {(node.module or "").split(".")[0]}
            assert not names & banned, f"{path.relative_to(ROOT)} imports {names & banned}"


def test_no_module_is_over_400_lines_without_a_reason():
    """Past 400 lines, docs/decisions must say why."""
    decisions = "".join(
        page.read_text("utf-8") for page in (ROOT.parent / "docs" / "decisions").glob("*.md")
    )
    for path in (*MODULES, *sorted((ROOT.parent / "dashboards").glob("*.py"))):
        lines = len(path.read_text("utf-8").splitlines())
        name = str(path.relative_to(ROOT.parent))
        assert lines <= 400 or f"`{name}`" in decisions, f"{name} has {lines} lines"
