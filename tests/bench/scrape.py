"""How long a scrape takes, by how much changed since the last, and whether it is right."""

from __future__ import annotations

import json
import subprocess
import time
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING

import requests
from prometheus_client import generate_latest

from tests.bench import browser, raw
from tests.bench.figures import (
    CLIENT,
    FLOOR,
    GATEWAY,
    NGINX,
    OURS,
    at_least,
    at_most,
    rounds,
)
from tests.bench.held import Held
from tests.bench.processes import LONG_SECONDS, Exporter, Floor, Nginx, Pushgateway, found
from tests.harness import eventually, free_port, process

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.bench.setting import Setting

#: How many keys change between two scrapes where growth is measured, and of how many held.
CHANGED = 100
SIZES = (1_000, 10_000, 100_000, 1_000_000)


def run(setting: Setting) -> None:
    """Measure scrapes of one size, check the body, then measure how it grows."""
    figures = setting.figures
    with ExitStack() as running:
        held, ours = started(running, setting, setting.identifiers)
        scraped = raw.get(ours.port)
        figures.measured("first scrape, gzip", OURS, [scraped.seconds], "s")
        figures.measured("body, gzip", OURS, [len(scraped.body)], "B")
        figures.measured("body, decompressed", OURS, [len(scraped.text)], "B")
        _times(running, setting, held, ours)
        took = check_body(held, raw.get(ours.port).text)
        figures.measured("rendering of the same, no gzip", CLIENT, [took], "s")
        _readers(running, setting, ours)
        _growth(running, setting, {setting.identifiers: (held, ours)})


def started(running: ExitStack, setting: Setting, count: int) -> tuple[Held, Exporter]:
    """Start an exporter that holds so many."""
    held = Held(count, setting.name_bytes)
    ours = running.enter_context(Exporter(setting.folder / f"ours-{count}"))
    ours.push(held.bodies())
    return held, ours


def _times(running: ExitStack, setting: Setting, held: Held, ours: Exporter) -> None:
    file = setting.folder / "static" / "metrics"
    file.parent.mkdir()
    file.write_bytes(raw.get(ours.port).body)

    def after(choose: Callable[[], list[int]]) -> float:
        ours.push(held.flip(choose()))
        return raw.get(ours.port).seconds

    acts: dict[str, Callable[[], float]] = {
        "1 % changed in one source": lambda: after(lambda: held.some_of_one_source(0.01)),
        "1 % changed at random": lambda: after(lambda: held.some(0.01)),
        OURS: lambda: raw.get(ours.port).seconds,
    }
    floor = running.enter_context(Floor(setting.folder / "floor", "send", file))
    acts[FLOOR] = lambda: raw.get(floor.port).seconds
    if found(Nginx.program):
        nginx = running.enter_context(Nginx(setting.folder / "nginx", file))
        acts[NGINX] = lambda: raw.get(nginx.port, "/" + file.name).seconds
    if found(Pushgateway.program):
        gateway = running.enter_context(Pushgateway(setting.folder / "gateway"))
        gateway.fill(held)
        acts[GATEWAY] = lambda: raw.get(gateway.port).seconds
    seconds = rounds(setting.rounds, acts)

    figures = setting.figures
    said = {FLOOR: "same bytes", NGINX: "same bytes", GATEWAY: "one series each"}
    middle = {
        name: figures.measured(
            said.get(name, "unchanged" if name == OURS else name),
            name if name in said else OURS,
            values,
            "s",
        )
        for name, values in seconds.items()
    }
    if GATEWAY in middle:
        wanted = ((OURS, 100), ("1 % changed in one source", 20), ("1 % changed at random", 3))
        for name, bound in wanted:
            what = "unchanged" if name == OURS else name
            ratio = middle[GATEWAY] / middle[name]
            figures.judged(f"{what}: times faster than pushgateway", ratio, at_least(bound))
    if NGINX in middle:
        figures.judged("unchanged: times nginx's time", middle[OURS] / middle[NGINX], at_most(3))
    figures.judged("unchanged: times the floor's time", middle[OURS] / middle[FLOOR])


def check_body(held: Held, text: bytes) -> float:
    """Compare each family of keys with what prometheus_client writes, lines in any order.

    Gives how long prometheus_client took.

    Raises:
        RuntimeError: they differ.
    """
    took = 0.0
    shown: dict[bytes, list[bytes]] = {}
    for line in text.splitlines():
        if b'source="sip-' in line:
            shown.setdefault(line.partition(b"{")[0], []).append(line)
    for registry in held.registries():
        began = time.perf_counter()
        written = generate_latest(registry)
        took += time.perf_counter() - began
        wanted = sorted(line for line in written.splitlines() if line[:1] != b"#")
        name = wanted[0].partition(b"{")[0]
        if sorted(shown[name]) != wanted:
            differing = set(shown[name]) ^ set(wanted)
            raise RuntimeError(f"{name!r}: {len(differing)} lines differ: {min(differing)!r}")
    return took


def _readers(running: ExitStack, setting: Setting, ours: Exporter) -> None:
    """Have the answer read whole by those who read it in earnest."""
    # What the exporter says of itself changes from scrape to scrape.
    wanted = _of_keys(raw.get(ours.port).text)
    url = f"{ours.base}/metrics"
    readers: dict[str, Callable[[], bytes]] = {
        "requests": lambda: requests.get(url, timeout=LONG_SECONDS).content
    }
    if found("curl"):
        command = ["curl", "--compressed", "--silent", "--fail", url]
        readers["curl"] = lambda: subprocess.run(command, capture_output=True, check=True).stdout
    for name, read in readers.items():
        began = time.perf_counter()
        text = read()
        took = time.perf_counter() - began
        if _of_keys(text) != wanted:
            raise RuntimeError(f"{name} does not read the whole answer")
        setting.figures.measured("read whole", name, [took], "s")
    if setting.readers and found(browser.PROGRAM):
        began = time.perf_counter()
        lines, characters = browser.read(url, setting.folder)
        took = time.perf_counter() - began
        if (lines, characters) != (len(wanted), sum(len(line.decode()) for line in wanted)):
            raise RuntimeError(f"chromium does not read the whole answer: {lines} lines")
        setting.figures.measured("read whole", "chromium", [took], "s")
    if setting.readers and found("prometheus"):
        took = _prometheus(running, setting, ours)
        setting.figures.measured("read whole", "prometheus", [took], "s")


def _of_keys(text: bytes) -> list[bytes]:
    return [line for line in text.splitlines() if b'source="sip-' in line]


def _prometheus(running: ExitStack, setting: Setting, ours: Exporter) -> float:
    """Give how long its scrape took, by itself."""
    folder: Path = setting.folder / "prometheus"
    folder.mkdir()
    every = {"scrape_interval": "1m", "scrape_timeout": "1m"}
    targets = [{"targets": [f"127.0.0.1:{ours.port}"]}]
    jobs = [{"job_name": "sr", "static_configs": targets}]
    (folder / "prometheus.yml").write_text(json.dumps({"global": every, "scrape_configs": jobs}))
    url = f"http://127.0.0.1:{free_port()}"
    program = process(
        "prometheus",
        f"--config.file={folder / 'prometheus.yml'}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address={url.removeprefix('http://')}",
        log=folder / "log",
    )
    running.enter_context(program)

    def answer(query: str) -> float:
        """Give the one value it answers with, or 0 as long as there is none."""
        try:
            said = requests.get(f"{url}/api/v1/query", params={"query": query}, timeout=60)
            result = said.json()["data"]["result"]
        except (requests.ConnectionError, requests.JSONDecodeError, KeyError):
            return 0.0
        return float(result[0]["value"][1]) if result else 0.0

    counted = 'count(opensips_sr_reports_total{source=~"sip-.+"})'
    eventually(lambda: answer(counted) == setting.identifiers, within=LONG_SECONDS, every=0.5)
    return answer("scrape_duration_seconds")


def _growth(running: ExitStack, setting: Setting, there: dict[int, tuple[Held, Exporter]]) -> None:
    """Scrape after the same few changes, at every size."""
    sizes = [size for size in SIZES if size < setting.identifiers] + [setting.identifiers]
    some = min(CHANGED, *sizes)
    for size in sizes[:-1]:
        there[size] = started(running, setting, size)

    def after(size: int) -> float:
        held, ours = there[size]
        ours.push(held.flip(held.some(some / size)))
        return raw.get(ours.port).seconds

    for size in sizes:
        after(size)
    seconds = rounds(setting.rounds, {str(size): partial(after, size) for size in sizes})
    figures = setting.figures
    middle, sent = {}, {}
    for size in sizes:
        name = f"{some} changed of {size:,}"
        middle[size] = figures.measured(name, OURS, seconds[str(size)], "s")
        sent[size] = len(raw.get(there[size][1].port).answer)
        figures.measured(f"answer of {size:,}", OURS, [sent[size]], "B")
    for size in sizes[1:]:
        growth = middle[size] / middle[sizes[0]]
        bytes_growth = sent[size] / sent[sizes[0]]
        what = f"growth of time by that of bytes, {sizes[0]:,} to {size:,}"
        figures.judged(what, growth / bytes_growth, at_most(1))
