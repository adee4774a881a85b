"""Makes the pictures of the README: `python -m tests.pictures docs/pictures`.

A small fleet after a bad evening: a server that is down, a trunk that is lost, a gateway that only
a text calls inactive. What they were before is pushed with the times of the evening.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from sr_exporter.config import Config, Source
from tests.browser import LOOKS, chromium, window
from tests.harness import Client, RunningApp, eventually, free_port

#: Seconds ago, what, status, details, report.
EVENING: tuple[tuple[int, tuple[str, str, str], int, str, str], ...] = (
    (19_000, ("sbc-1", "trunks", "carrier-a"), 1, "4 of 4 trunks", "4 of 4 trunks answer"),
    (9_000, ("sbc-1", "trunks", "carrier-a"), -1, "0 of 4 trunks answer", "0 of 4 trunks answer"),
    (7_900, ("sbc-1", "trunks", "carrier-a"), 1, "4 of 4 trunks", "4 of 4 trunks answer"),
    (260, ("sbc-1", "trunks", "carrier-a"), -1, "1 of 4 trunks answers", "trunk 2, 3 and 4: 503"),
    (20_000, ("sbc-1", "trunks", "carrier-b"), 1, "2 of 2 trunks", "2 of 2 trunks answer"),
    (18_000, ("sbc-1", "core", "main"), 1, "running", "initialization completed, ready now"),
    (18_500, ("sbc-2", "core", "main"), 1, "running", "initialization completed, ready now"),
    (18_400, ("sbc-2", "drouting", "us"), 1, "data available", "3 gateways loaded (0 discarded)"),
    (12_000, ("sbc-2", "drouting", "us"), 2, "data re-loading", "starting DB data loading"),
    (11_990, ("sbc-2", "drouting", "us"), 1, "data available", "3 gateways loaded (0 discarded)"),
    (900, ("sbc-2", "drouting", "eu"), -2, "no data loaded", "DB data loading failed, discarding"),
)
GATEWAY = "GW <carrier-c>/192.0.2.10:5060 switched to [inactive] due to negative probing reply"


def _tell(client: Client) -> None:
    now = time.time()
    for ago, (source, group, identifier), status, details, report in EVENING:
        item: dict[str, Any] = {
            "source": source,
            "group": group,
            "identifier": identifier,
            "status": status,
            "details": details,
            "at": now - ago,
            "reports": [{"log": report, "timestamp": int(now - ago)}],
        }
        client.push(item).raise_for_status()
    events = {"source": "sbc-2", "group": "drouting", "identifier": "us;events", "status": 1}
    told = {"log": GATEWAY, "timestamp": int(now - 600)}
    client.push({**events, "reports": [told]}).raise_for_status()


def main(folder: Path) -> None:
    """Make them."""
    folder.mkdir(parents=True, exist_ok=True)
    down = Source("sip-2", f"http://127.0.0.1:{free_port()}/mi", poll_interval_seconds=0.5)
    with (
        tempfile.TemporaryDirectory() as storage,
        chromium() as browser,
        RunningApp(Path(storage), Config(sources=(down,))) as app,
    ):
        _tell(app.client)
        eventually(lambda: app.app.state.sources["sip-2"].down_since is not None)
        for look, path, name, height in (
            ("light", "/", "page", 760),
            ("dark", "/", "page-dark", 760),
            ("phone", "/", "page-phone", 844),
            ("light", "/sources/sbc-1?group=trunks&identifier=carrier-a", "page-key", 620),
        ):
            width = LOOKS[look]["viewport"]["width"]
            shown = {**LOOKS[look], "viewport": {"width": min(width, 1100), "height": height}}
            with window(browser, app.base, **{**shown, "device_scale_factor": 1}) as watched:
                watched.open(path)
                watched.live()
                watched.page.screenshot(path=folder / f"{name}.png")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
