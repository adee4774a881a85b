"""How many single statuses a second are taken over HTTP, each kept before it is answered."""

from __future__ import annotations

import json
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING

from tests.bench.figures import FLOOR, GATEWAY, OURS, at_least, p99, rounds
from tests.bench.held import GROUP, Held
from tests.bench.load import Load, Loaded, request
from tests.bench.processes import (
    Exporter,
    Floor,
    Pushgateway,
    cpu_seconds,
    found,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tests.bench.setting import Setting

CONNECTIONS = 16
#: So many are pushed to, spread over all that are held, wherever it is.
PUSHED = 1_000
GATEWAY_GROUPS = 10_000


def run(setting: Setting) -> None:
    """Load each in turn, in every round."""
    figures = setting.figures
    few = min(PUSHED, setting.identifiers)
    sizes = sorted({few, setting.identifiers})
    with ExitStack() as running:
        load = running.enter_context(Load())
        acts: dict[str, Callable[[], Loaded]] = {}
        pids: dict[str, int] = {}
        for size in sizes:
            held = Held(size, setting.name_bytes)
            ours = running.enter_context(Exporter(setting.folder / f"ours-{size}"))
            ours.push(held.bodies())
            requests = requests_of(held, spread(held, PUSHED), "/api/v1/push")
            name = f"{OURS}, {size:,} held"
            acts[name] = partial(load.go_on, ours.port, requests, setting.seconds)
            pids[name] = ours.process.pid
        floor = running.enter_context(Floor(setting.folder / "floor", "keep", setting.folder / "f"))
        requests = requests_of(Held(few, setting.name_bytes), range(few), "/")
        acts[FLOOR] = partial(load.go_on, floor.port, requests, setting.seconds)
        pids[FLOOR] = floor.pid
        if found(Pushgateway.program):
            gateway, requests = _gateway(running, setting, load)
            acts[GATEWAY] = partial(load.go_on, gateway.port, requests, setting.seconds)
            pids[GATEWAY] = gateway.pid
        for act in acts.values():
            act()
        loaded: dict[str, list[Loaded]] = {name: [] for name in acts}
        computed = dict.fromkeys(acts, 0.0)

        def measured(name: str) -> float:
            before = cpu_seconds(pids[name])
            one = acts[name]()
            computed[name] += cpu_seconds(pids[name]) - before
            loaded[name].append(one)
            return one.rate

        rates = rounds(setting.rounds, {name: partial(measured, name) for name in acts})
    middle = {}
    for name, values in rates.items():
        who, _, what = name.partition(", ")
        middle[name] = figures.measured(what or "pushes", who, values, "1/s")
        tails = [1000 * p99(one.took) for one in loaded[name]]
        figures.measured(f"{what} p99".strip(), who, tails, "ms")
        done = sum(len(one.answers) for one in loaded[name])
        figures.measured(f"{what} CPU a push".strip(), who, [1e6 * computed[name] / done], "us")
        shares = [one.share for one in loaded[name]]
        figures.measured(f"{what} clients' share of a core".strip(), who, shares, "")
    at_few, at_many = (middle[f"{OURS}, {size:,} held"] for size in (sizes[0], sizes[-1]))
    if GATEWAY in middle:
        figures.judged("times pushgateway's", at_many / middle[GATEWAY], at_least(20))
    figures.judged("share of the floor's", at_few / middle[FLOOR], at_least(0.6))
    what = f"rate at {sizes[-1]:,} by that at {sizes[0]:,}"
    figures.judged(what, at_many / at_few, at_least(0.9))


def spread(held: Held, count: int) -> Sequence[int]:
    """Choose so many keys, as far from each other as can be."""
    return range(0, held.count, max(1, held.count // count))[:count]


def requests_of(held: Held, chosen: Sequence[int], path: str) -> list[list[bytes]]:
    """Give for each connection its requests: its keys turn not ready, one by one, then ready."""
    return [
        [
            request(path, json.dumps(item(held, number, status)).encode())
            for status in (-1, 1)
            for number in chosen[first::CONNECTIONS]
        ]
        for first in range(CONNECTIONS)
    ]


def item(held: Held, number: int, status: int) -> dict[str, object]:
    """Give a push of one status."""
    name = {"source": held.source(number), "group": GROUP, "identifier": held.names[number]}
    return {**name, "status": status}


def _gateway(
    running: ExitStack, setting: Setting, load: Load
) -> tuple[Pushgateway, list[list[bytes]]]:
    """Start a Pushgateway that holds many groups of one series; give the pushes to them, too.

    It is filled without its check, which takes longer the more it holds.
    """
    groups = min(GATEWAY_GROUPS, setting.identifiers)
    requests = [
        [
            request(
                f"/metrics/job/sr/group/g/identifier/k{number}",
                f"# TYPE opensips_sr_status gauge\nopensips_sr_status {status}\n".encode(),
                "PUT",
            )
            for status in (-1, 1)
            for number in range(first, groups, CONNECTIONS)
        ]
        for first in range(CONNECTIONS)
    ]
    kept = setting.folder / "gateway.kept"
    with Pushgateway(setting.folder / "filling", checked=False, kept=kept) as filling:
        all_once = [own[: len(own) // 2] for own in requests]
        load.once(filling.port, all_once)
        filling.end()
    gateway = Pushgateway(setting.folder / "gateway", kept=kept)
    return running.enter_context(gateway), requests
