"""The one table of targets."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.fuzz import (
    app_targets,
    config_targets,
    heard_targets,
    mi_targets,
    outside_targets,
    state_targets,
    transport_targets,
    web_targets,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tests.fuzz.target import Target


def all_targets() -> dict[str, Target]:
    """Give every target by its name."""
    parts = (
        mi_targets,
        transport_targets,
        heard_targets,
        web_targets,
        config_targets,
        outside_targets,
        state_targets,
        app_targets,
    )
    return {target.name: target for part in parts for target in part.targets()}


def shares(targets: Iterable[Target], inputs: int) -> dict[str, int]:
    """Spread so many inputs over targets, by their weights; what is left over goes to the first."""
    among = list(targets)
    total = sum(target.weight for target in among)
    found = {target.name: int(inputs * target.weight / total) for target in among}
    found[among[0].name] += inputs - sum(found.values())
    return found
