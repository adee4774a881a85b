"""How much memory an identifier takes."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING

from tests.bench import raw
from tests.bench.figures import GATEWAY, OURS, at_most
from tests.bench.held import Held
from tests.bench.processes import Exporter, Pushgateway, found, rss_bytes

if TYPE_CHECKING:
    from tests.bench.setting import Setting


def run(setting: Setting) -> None:
    """Measure what is resident after a scrape, above what is before there is any identifier."""
    held = Held(setting.identifiers, setting.name_bytes)
    with ExitStack() as running:
        ours = running.enter_context(Exporter(setting.folder / "ours"))
        raw.get(ours.port)
        empty = rss_bytes(ours.process.pid)
        ours.push(held.bodies())
        filled = rss_bytes(ours.process.pid)
        raw.get(ours.port)
        each = _measured(setting, OURS, empty, filled, rss_bytes(ours.process.pid))
        ours.push(held.flip(held.some(0.01)))
        raw.get(ours.port)
        later = rss_bytes(ours.process.pid)
        what = "a key, after 1 % changed and another scrape"
        setting.figures.measured(what, OURS, [(later - empty) / setting.identifiers], "B")
        asked = at_most(1600) if setting.name_bytes == 40 else None
        setting.figures.judged("bytes per identifier, all default families", each, asked)
    if found(Pushgateway.program):
        with Pushgateway(setting.folder / "gateway") as gateway:
            raw.get(gateway.port)
            empty = rss_bytes(gateway.pid)
            gateway.fill(held)
            filled = rss_bytes(gateway.pid)
            raw.get(gateway.port)
            theirs = _measured(setting, GATEWAY, empty, filled, rss_bytes(gateway.pid))
        setting.figures.judged("times pushgateway's, of one series", each / theirs)


def _measured(setting: Setting, who: str, empty: int, filled: int, scraped: int) -> float:
    figures, count = setting.figures, setting.identifiers
    figures.measured("resident, empty", who, [empty], "B")
    figures.measured("a key, filled", who, [(filled - empty) / count], "B")
    return figures.measured("a key, after a scrape", who, [(scraped - empty) / count], "B")
