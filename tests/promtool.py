"""The alert rules and their tests, as documents and as promtool runs them."""

from __future__ import annotations

import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from tests.real_parts import program

ROOT = Path(__file__).resolve().parents[1]
ALERTS = ROOT / "alerts"
#: The files that hold alerts, recording rules, and what is not ready on purpose.
RULES = sorted(ALERTS.glob("*.rules.yml"))
TESTS = sorted((ALERTS / "tests").glob("*.test.yml"))

Document = dict[str, Any]


@cache
def read(path: Path) -> Document:
    """Read a file, once: nobody changes what is given."""
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    return yaml.load(path.read_text(encoding="utf-8"), Loader=loader)


def run(*arguments: object) -> tuple[int, str]:
    """Run promtool; give its exit code and everything it said."""
    done = subprocess.run(
        [program("promtool"), *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


def rules_in(document: Document) -> list[Document]:
    return [rule for group in document["groups"] for rule in group["rules"]]


def all_alerts() -> dict[str, Document]:
    """Give every alert that is shipped, by its name."""
    return {
        rule["alert"]: rule for path in RULES for rule in rules_in(read(path)) if "alert" in rule
    }


def cases_of(alert: str) -> list[Document]:
    """Give the test files with the cases of one alert only; files without any are left out."""
    found = []
    for document in map(read, TESTS):
        cases = []
        for case in document["tests"]:
            looks = [one for one in case.get("alert_rule_test", ()) if one["alertname"] == alert]
            if looks:
                cases.append(case | {"alert_rule_test": looks})
        if cases:
            found.append(document | {"tests": cases})
    return found


def run_tests(folder: Path, rules: list[Document], tests: Document) -> tuple[int, str]:
    """Run tests over rules, both given as documents, by files in a folder of their own."""
    rules_file, tests_file = folder / "rules.yml", folder / "test.yml"
    rules_file.write_text(_dump({"groups": [{"name": "tried", "rules": rules}]}), encoding="utf-8")
    tests_file.write_text(_dump(tests | {"rule_files": [str(rules_file)]}), encoding="utf-8")
    return run("test", "rules", tests_file)


class _Dumper(getattr(yaml, "CSafeDumper", yaml.SafeDumper)):
    """Writes what is said twice twice: promtool need not follow anchors."""

    def ignore_aliases(self, _: object) -> bool:
        return True


def _dump(document: Document) -> str:
    return yaml.dump(document, Dumper=_Dumper, allow_unicode=True, width=10_000)
