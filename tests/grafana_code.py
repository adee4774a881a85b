"""Grafana's own code, run in Node: what it finds wrong with a dashboard, and how it shows values.

The packages that `grafana/package-lock.json` names are installed once, into a folder of the user's
cache that is called by the lock's hash, and so is the JSON Schema that is derived from their types.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import subprocess
from functools import cache
from pathlib import Path
from typing import Any, Self

from tests.real_parts import absent

HERE = Path(__file__).parent / "grafana"
_LOCK = ("package.json", "package-lock.json")
_SCHEMA = ("board.ts", "tsconfig.json", "derive.cjs")
#: What Debian 12 has.
OLDEST_NODE = 18
_INSTALL_SECONDS, _RUN_SECONDS = 240, 60

Json = dict[str, Any]


class Grafana:
    """Grafana's code, which takes a second to load; `with` runs it.

    Without Node the test is skipped, or fails where CI is set.
    """

    def __enter__(self) -> Self:
        modules, schema = find()
        self._node = subprocess.Popen(
            ["node", str(HERE / "check.cjs"), str(schema)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "NODE_PATH": str(modules / "node_modules")},
        )
        return self

    def __exit__(self, *failed: object) -> None:
        # At the end of its input it ends; what is left of the pipes is closed.
        with self._node:
            pass

    def ask(self, **questions: Any) -> Json:
        """Have questions answered; `grafana/check.cjs` says which there are."""
        assert self._node.stdin is not None
        assert self._node.stdout is not None
        self._node.stdin.write(json.dumps(questions) + "\n")
        self._node.stdin.flush()
        answer = self._node.stdout.readline()
        assert answer, "Grafana's code gave up; it says why above"
        return json.loads(answer)


@cache
def find() -> tuple[Path, Path]:
    """Give where the packages are, and the schema."""
    for name in ("node", "npm"):
        if shutil.which(name) is None:
            absent(f"{name} is not on the PATH (Debian: nodejs, npm)")
    version = _run("node", "--version").strip()
    if int(version.removeprefix("v").split(".")[0]) < OLDEST_NODE:
        absent(f"node {version} is older than {OLDEST_NODE}")
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "sr-exporter-tests"
    home.mkdir(parents=True, exist_ok=True)
    modules = home / f"grafana-{_hash(*_LOCK)}"
    schema = modules / f"schema-{_hash(*_SCHEMA)}.json"
    with (home / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # several workers may be the first
        if not modules.exists():
            _install(modules)
        if not schema.exists():
            for name in _SCHEMA:
                shutil.copy(HERE / name, modules)
            made = schema.with_suffix(".part")
            made.write_text(_run("node", str(modules / "derive.cjs")), encoding="utf-8")
            made.rename(schema)
    return modules, schema


def _install(modules: Path) -> None:
    part = modules.with_suffix(".part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir()
    for name in _LOCK:
        shutil.copy(HERE / name, part)
    done = subprocess.run(
        ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"],
        cwd=part,
        capture_output=True,
        text=True,
        timeout=_INSTALL_SECONDS,
        check=False,
    )
    if done.returncode != 0:
        absent(f"npm ci failed: {done.stderr[-2000:]}")
    part.rename(modules)


def _hash(*names: str) -> str:
    found = hashlib.sha256()
    for name in names:
        found.update((HERE / name).read_bytes())
    return found.hexdigest()[:16]


def _run(*arguments: str) -> str:
    done = subprocess.run(
        arguments, capture_output=True, text=True, timeout=_RUN_SECONDS, check=False
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return done.stdout
