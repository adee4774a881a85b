"""A page of 100,000 identifiers: it begins soon, and is small enough for a phone."""

from __future__ import annotations

import os
import statistics
import time
from typing import TYPE_CHECKING

import pytest

from sr_exporter.turns import slices
from tests.harness import Command

if TYPE_CHECKING:
    from collections.abc import Iterator

KEYS = 100_000
SOURCES = 100
#: What is promised.
FIRST_BYTE_SECONDS = 0.2
MOST_BYTES = 300_000
LOOKS = 5
#: As long as those of uac_registrant are.
NAME = (
    "aor=sip:line{0:06}@trunk.example.net;contact=sip:line{0:06}@192.0.2.20:5060;"
    "registrar=sip:198.51.100.7"
)


@pytest.fixture(scope="module")
def command(tmp_path_factory) -> Iterator[Command]:
    storage = tmp_path_factory.mktemp("large")
    with Command(f"--storage.path={storage}") as running:
        running.wait_ready()
        for numbers in slices(range(KEYS), 10_000):
            items = [
                {
                    "source": f"reg-{number % SOURCES}",
                    "group": "uac_registrant",
                    "identifier": NAME.format(number),
                    "status": -1 if number % 1_000 < 10 else 1,
                    "details": "REGISTERED_STATE",
                    "reports": ["state changed to REGISTERED_STATE"] * 3,
                }
                for number in numbers
            ]
            assert running.client.push(*items).ok
        yield running


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/?ready=false",
        "/?ready=true",
        "/?identifier=line0",
        "/?identifier=*line09999?*",
        "/?source=reg-5&after=reg-5/uac_registrant/aor%253Dsip%253Aline02",
        "/sources/reg-3",
        "/sources/reg-0?group=uac_registrant&identifier=" + NAME.format(0),
    ],
)
def test_a_page_of_many_begins_soon_and_is_small(command, path, figure):
    seconds = []
    for _ in range(LOOKS):
        began = time.perf_counter()
        plain = {"Accept-Encoding": "identity"}
        with command.client.session.get(
            command.base + path, headers=plain, stream=True, timeout=30
        ) as answer:
            body = answer.raw
            first = body.read(1)
            seconds.append(time.perf_counter() - began)
            size = len(first + body.read())
    assert answer.status_code == 200
    figure(
        f"page {path[:40]} at {KEYS:,} identifiers: first byte after"
        f" {statistics.median(seconds) * 1000:.0f} ms (median of {LOOKS}), {size / 1000:.0f} kB"
    )
    assert size < MOST_BYTES
    # Where others are at work it is waited for them: each takes its share of the machine.
    share = max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))
    assert min(seconds) < FIRST_BYTE_SECONDS * share
