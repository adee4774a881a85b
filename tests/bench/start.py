"""How long a restart takes with much kept."""

from __future__ import annotations

import sqlite3
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING

from tests.bench import raw
from tests.bench.figures import FLOOR, GATEWAY, OURS, at_most, rounds, timed
from tests.bench.held import Held
from tests.bench.processes import Exporter, Pushgateway, found

if TYPE_CHECKING:
    from tests.bench.setting import Setting


def run(setting: Setting) -> None:
    """Fill stores, then start again and again, from exec to ready."""
    figures = setting.figures
    held = Held(setting.identifiers, setting.name_bytes)
    ours = setting.folder / "ours"
    with Exporter(ours) as exporter:
        exporter.push(held.bodies())
        storage = exporter.storage
        figures.measured("stop", OURS, [timed(exporter.end)], "s")
    scrapes: list[float] = []

    def start_ours() -> float:
        began = time.perf_counter()
        with Exporter(ours) as exporter:
            took = time.perf_counter() - began
            scrapes.append(raw.get(exporter.port).seconds)
            exporter.end()
        return took

    def read_rows() -> float:
        (file,) = storage.glob("*.sqlite3")
        with ExitStack() as reading:
            database = sqlite3.connect(file)
            reading.callback(database.close)
            return timed(lambda: database.execute("SELECT * FROM keys").fetchall())

    acts = {OURS: start_ours, FLOOR: read_rows}
    if found(Pushgateway.program):
        folder, kept = setting.folder / "gateway", setting.folder / "gateway.kept"
        with Pushgateway(folder, kept=kept) as gateway:
            gateway.fill(held)
            gateway.end()
        if not kept.exists():
            raise RuntimeError("pushgateway has kept nothing")

        def start_gateway() -> float:
            began = time.perf_counter()
            with Pushgateway(folder, kept=kept):
                return time.perf_counter() - began

        acts[GATEWAY] = start_gateway
    seconds = rounds(setting.rounds, acts)
    middle = {
        who: figures.measured("rows read" if who == FLOOR else "exec to ready", who, values, "s")
        for who, values in seconds.items()
    }
    figures.measured("first scrape after it", OURS, scrapes, "s")
    figures.judged("seconds to ready", middle[OURS], at_most(15))
    figures.judged("times the reading of the rows", middle[OURS] / middle[FLOOR])
    if GATEWAY in middle:
        figures.judged("times pushgateway's, of one series", middle[OURS] / middle[GATEWAY])
