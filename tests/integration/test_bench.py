"""Every command of the bench runs, of a size that tells nothing but that it would."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from prometheus_client import generate_latest

from tests.bench.__main__ import COMMANDS, main
from tests.bench.figures import FLOOR, GATEWAY, NGINX, OURS, at_least, at_most
from tests.bench.held import Held, identifier
from tests.bench.processes import Nginx, Pushgateway, found
from tests.bench.scrape import check_body

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_measures_prints_and_keeps_its_figures(command: str, tmp_path: Path, capsys):
    """All of its figures, with the commit, and beside ours those of every peer that is there."""
    out = tmp_path / "kept" / "figures.jsonl"
    sizes = ["--identifiers=200", "--rounds=1", "--seconds=0.2"]
    main([command, *sizes, f"--folder={tmp_path}", f"--out={out}"])
    kept = [json.loads(line) for line in out.read_text("utf-8").splitlines()]
    assert {(one["command"], one["identifiers"]) for one in kept} == {(command, 200)}
    assert all(one["commit"] and one["at"].endswith("Z") for one in kept)
    measured = [one for one in kept if "figure" in one]
    assert all(0 <= one["min"] <= one["median"] <= one["max"] for one in measured)
    who = {one["who"] for one in measured}
    assert OURS in who
    if command in ("scrape", "push", "memory", "start"):
        assert (GATEWAY in who) == (found(Pushgateway.program) is not None)
    if command in ("scrape", "push", "stream", "start"):
        assert FLOOR in who
    if command == "scrape":
        assert (NGINX in who) == (found(Nginx.program) is not None)
    printed = capsys.readouterr().out
    assert f"{command}: 200 identifiers, names of 40 B" in printed
    for one in kept:
        assert one.get("figure", one.get("ratio")) in printed


@pytest.mark.parametrize("size", [40, 110])
def test_names_are_as_long_as_they_are_said_to_be(size: int):
    assert {len(identifier(number, size)) for number in (0, 7, 999_999)} == {size}


def test_a_body_that_lacks_a_change_is_found_out():
    held = Held(20)
    before = b"".join(map(generate_latest, held.registries()))
    assert check_body(held, before) > 0
    list(held.flip([3]))
    with pytest.raises(RuntimeError, match="opensips_sr_status"):
        check_body(held, before)


def test_a_bound_is_met_from_its_own_side():
    assert at_least(3).met(3)
    assert not at_least(3).met(2.9)
    assert at_most(3).met(3)
    assert not at_most(3).met(3.1)
