"""A real Prometheus: one that scrapes, or one that was given a past."""

from __future__ import annotations

import json
import subprocess
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Self

import requests

from tests.harness import eventually, free_port, process
from tests.real_parts import program

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

Labels = frozenset[tuple[str, str]]


class Prometheus:
    """Scrapes `targets` by their job every second, and evaluates rules as often; `with` runs it."""

    def __init__(
        self,
        folder: Path,
        targets: Mapping[str, str] | None = None,
        rules: dict[str, Any] | None = None,
        access: dict[str, Any] | None = None,
    ) -> None:
        self._folder = folder
        self.data = folder / "data"
        (folder / "rules.yml").write_text(json.dumps(rules or {"groups": []}))
        scraped = [
            {"job_name": job, "static_configs": [{"targets": [target]}], **(access or {})}
            for job, target in (targets or {}).items()
        ]
        settings = {
            "global": {
                "scrape_interval": "1s",
                "scrape_timeout": "1s",
                "evaluation_interval": "1s",
            },
            "rule_files": [str(folder / "rules.yml")],
            "scrape_configs": scraped,
        }
        (folder / "prometheus.yml").write_text(json.dumps(settings))

    def __enter__(self) -> Self:
        self.url = f"http://127.0.0.1:{free_port()}"
        self.session = requests.Session()
        self.session.trust_env = False
        with ExitStack() as running:
            running.callback(self.session.close)
            running.enter_context(
                process(
                    program("prometheus"),
                    f"--config.file={self._folder / 'prometheus.yml'}",
                    f"--storage.tsdb.path={self.data}",
                    f"--web.listen-address={self.url.removeprefix('http://')}",
                    log=self._folder / "prometheus.log",
                )
            )
            eventually(self._ready, within=20)
            self._running = running.pop_all()
        return self

    def __exit__(self, *failed: object) -> None:
        self._running.close()

    def _ready(self) -> bool:
        try:
            return self.session.get(f"{self.url}/-/ready", timeout=5).ok
        except requests.ConnectionError:
            return False

    def ask(self, what: str, **parameters: object) -> Any:
        """Ask its API. What it does not understand fails the test, in its own words."""
        answer = self.session.post(f"{self.url}/api/v1/{what}", data=parameters, timeout=20).json()
        assert answer["status"] == "success", f"{answer.get('error')} {parameters}"
        return answer["data"]

    def now(self, expr: str, at: float | None = None) -> dict[Labels, float]:
        """Give what an expression finds at a moment."""
        found = self.ask("query", query=expr, time=time.time() if at is None else at)
        if found["resultType"] == "scalar":
            return {frozenset(): float(found["result"][1])}
        return {frozenset(one["metric"].items()): float(one["value"][1]) for one in found["result"]}

    def over(
        self, expr: str, begin: float, end: float, step: float = 1.0
    ) -> dict[Labels, list[float]]:
        """Give what an expression finds at each second from one moment to another."""
        found = self.ask("query_range", query=expr, start=begin, end=end, step=step)
        return {
            frozenset(one["metric"].items()): [float(value) for _, value in one["values"]]
            for one in found["result"]
        }


class Past(Prometheus):
    """Scrapes nothing, and knows what was written: OpenMetrics lines, each with its time."""

    def __init__(self, folder: Path, lines: Iterable[str]) -> None:
        super().__init__(folder)
        (folder / "past.txt").write_text("".join(f"{line}\n" for line in (*lines, "# EOF")))

    def __enter__(self) -> Self:
        done = subprocess.run(
            [
                *(program("promtool"), "tsdb", "create-blocks-from", "openmetrics"),
                *(str(self._folder / "past.txt"), str(self.data)),
            ],
            capture_output=True,
            text=True,
            timeout=50,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return super().__enter__()


def sample(name: str, value: float, at: float, /, **labels: str) -> str:
    """Write one sample of an exporter, for a `Past`."""
    given = {"job": "sr", "instance": "mon-1:9797"} | labels
    inner = ",".join(
        f'{label}="{text}"'
        for label, text in given.items()  # no text of ours needs an escape
    )
    return f"{name}{{{inner}}} {value} {at:.3f}"
