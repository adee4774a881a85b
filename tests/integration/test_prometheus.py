"""A real Prometheus scrapes; promtool has nothing to say; whole scrapes are as they were."""

from __future__ import annotations

import gzip
import re
import subprocess
from pathlib import Path

import pytest
import requests
from prometheus_client.openmetrics.parser import (
    text_string_to_metric_families as parse_openmetrics,
)

from sr_exporter.config import Config, Source
from tests.harness import RunningApp, eventually, free_port, process, samples, series
from tests.real_parts import program
from tests.replay import ReplayMi

GOLDEN = Path(__file__).parent / "golden"
OPENMETRICS = "application/openmetrics-text;version=1.0.0"
ACCEPTS = {
    "text-0.0.4": "text/plain;version=0.0.4",
    "text-1.0.0": "text/plain;version=1.0.0;escaping=allow-utf-8",
    "openmetrics": OPENMETRICS,
}


@pytest.fixture
def polled(tmp_path):
    """An exporter that polled a recorded server, and was pushed to."""
    with ReplayMi("3.6") as mi:
        source = Source("sip-1", mi.url, poll_interval_seconds=600)
        with RunningApp(tmp_path, Config(sources=(source,)), clock=lambda: 1795378230.0) as app:
            eventually(lambda: series(app.client.metrics(), "opensips_sr_status", source="sip-1"))
            app.client.push(
                {"group": 'quote " back \\ nl \n ü', "status": -2, "details": "not a label"}
            )
            for group in ("store", "source"):  # said by the exporter itself, a moment later
                eventually(
                    lambda group=group: (
                        1.0
                        in series(app.client.metrics(), "opensips_sr_ready", group=group).values()
                    )
                )
            yield app


def _scrape(app, **headers: str) -> requests.Response:
    answer = app.client.session.get(f"{app.base}/metrics", headers=headers, timeout=10)
    answer.raise_for_status()
    return answer


def _stable(text: str) -> str:
    """Keep the SR families: what the process itself measures differs at every run.

    A family's samples are sorted, since which source is heard first is chance.
    """
    families: list[list[str]] = []
    for line in text.splitlines():
        name = line.split()[2] if line.startswith("# ") and line != "# EOF" else line
        if not re.match(r"opensips_sr_(?!poll_duration|poll_interval)", name):
            continue
        if line.startswith("# HELP"):
            families.append([])
        families[-1].append(line)
    return "".join(
        f"{line}\n" for head, kind, *lines in families for line in (head, kind, *sorted(lines))
    )


@pytest.mark.parametrize("form", ACCEPTS)
def test_a_whole_scrape_is_the_golden_one(form, polled):
    """Every SR line of a recorded server, in each format, is the one on file."""
    answer = _scrape(polled, Accept=ACCEPTS[form])
    file = GOLDEN / f"{form}.txt"
    found = _stable(answer.text)
    if not file.exists():  # pragma: no cover - written once, then reviewed and kept
        file.parent.mkdir(exist_ok=True)
        file.write_text(found, "utf-8")
        pytest.fail(f"{file.name} was not there; it is now: look at it, and commit it")
    assert found == file.read_text("utf-8")


@pytest.mark.real
def test_promtool_is_silent(polled):
    """`promtool check metrics` finds nothing to remark."""
    text = _scrape(polled, Accept=ACCEPTS["text-0.0.4"]).content
    checked = subprocess.run(
        [program("promtool"), "check", "metrics"], input=text, capture_output=True, check=False
    )
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, b"", b"")


def test_three_formats_one_content(polled):
    """The formats differ in their headers only; gzip is one member with the same bytes."""
    texts = {form: _scrape(polled, Accept=accept) for form, accept in ACCEPTS.items()}
    assert texts["text-0.0.4"].headers["Content-Type"] == (
        "text/plain; version=0.0.4; charset=utf-8"
    )
    assert texts["text-1.0.0"].headers["Content-Type"].startswith("text/plain; version=1.0.0")
    assert (
        texts["openmetrics"]
        .headers["Content-Type"]
        .startswith("application/openmetrics-text; version=1.0.0")
    )
    assert texts["openmetrics"].text.endswith("# EOF\n")
    plain = samples(texts["text-0.0.4"].text)
    other = {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in parse_openmetrics(texts["openmetrics"].text)
        for sample in family.samples
    }
    assert set(plain) == set(other)
    raw = polled.client.session.get(
        f"{polled.base}/metrics", headers={"Accept-Encoding": "gzip"}, stream=True, timeout=5
    )
    packed = raw.raw.read(decode_content=False)
    assert raw.headers["Content-Encoding"] == "gzip"
    assert set(samples(gzip.decompress(packed).decode())) == set(plain)


def test_names_filter(polled):
    """`name[]` takes sample names; an unknown one gives an empty 200."""
    chosen = polled.client.session.get(
        f"{polled.base}/metrics",
        params={"name[]": ["opensips_sr_ready", "opensips_sr_reports_total"]},
        timeout=5,
    )
    assert {name for name, _ in samples(chosen.text)} == {
        "opensips_sr_ready",
        "opensips_sr_reports_total",
    }
    empty = polled.client.session.get(
        f"{polled.base}/metrics", params={"name[]": "nothing"}, timeout=5
    )
    assert (empty.status_code, empty.text) == (200, "")


@pytest.mark.real
def test_a_real_prometheus_scrapes_without_a_warning(polled, tmp_path):
    """Its log has no warning, and what it stored is what was exposed."""
    port = free_port()
    config = tmp_path / "prometheus.yml"
    config.write_text(
        "global: {scrape_interval: 1s}\n"
        "scrape_configs:\n"
        "  - job_name: sr\n"
        f"    static_configs: [{{targets: ['127.0.0.1:{polled.port}']}}]\n"
    )
    log = tmp_path / "prometheus.log"
    with (
        process(
            program("prometheus"),
            f"--config.file={config}",
            f"--storage.tsdb.path={tmp_path / 'tsdb'}",
            f"--web.listen-address=127.0.0.1:{port}",
            log=log,
        ),
        requests.Session() as session,
    ):
        session.trust_env = False

        def query(expression: str) -> list[dict]:
            try:
                answer = session.get(
                    f"http://127.0.0.1:{port}/api/v1/query",
                    params={"query": expression},
                    timeout=5,
                )
            except requests.ConnectionError:
                return []
            if answer.status_code == 503:
                return []  # it still starts
            return answer.json().get("data", {}).get("result", [])

        stored = eventually(lambda: query("opensips_sr_status"), within=30, every=0.1)
        found = {
            (row["metric"]["source"], row["metric"]["group"], row["metric"]["identifier"]): float(
                row["value"][1]
            )
            for row in stored
        }
        exposed = {
            (labels["source"], labels["group"], labels["identifier"]): value
            for key, value in series(polled.client.metrics(), "opensips_sr_status").items()
            if (labels := dict(key))
        }
        assert found == exposed
        assert [row["value"][1] for row in query("up")] == ["1"]
        (target,) = session.get(f"http://127.0.0.1:{port}/api/v1/targets", timeout=5).json()[
            "data"
        ]["activeTargets"]
        assert target["lastError"] == ""
        # Read before it is told to stop, of which it warns.
        said = log.read_text("utf-8")
    assert "level=info" in said
    assert "level=warn" not in said
    assert "level=error" not in said
