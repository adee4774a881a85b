"""Twenty thousand inputs that strangers might send: nothing breaks, nothing takes long.

By hand there are millions (docs/fuzzing.md). What was found has a test of its own where that is
read which was wrong.
"""

from __future__ import annotations

import time

import pytest

from tests.fuzz.run import BLOCK, again, inputs, run, smallest
from tests.fuzz.spans import spans
from tests.fuzz.target import Answered5xx, pure
from tests.fuzz.targets import all_targets, shares

SEED = 1
INPUTS = 20_000


@pytest.fixture(scope="module")
def targets():
    return all_targets()


@pytest.mark.timeout(300)
def test_no_input_crashes_stalls_or_is_answered_5xx(targets, figure):
    """Over every decoder, the state, the store and the application as it runs."""
    began = time.process_time()
    spread = shares(targets.values(), INPUTS)
    scores = [run(target, SEED, spread[name]) for name, target in targets.items()]
    found = [finding for score in scores for finding in score.findings.values()]
    told = "\n\n".join(
        f"{finding}\nagain: python -m tests.fuzz {finding.target} --seed {SEED} --number"
        f" {finding.number}"
        for finding in found
    )
    assert not found, told
    fed = sum(score.inputs for score in scores)
    assert fed == INPUTS
    # Targets that take nothing look at nothing.
    assert all(score.taken for score in scores if score.inputs > 200)
    slowest = max(scores, key=lambda score: score.slowest_seconds)
    figure(
        f"fuzzing: {fed:,} inputs to {len(scores)} targets in {time.process_time() - began:.1f} s"
        f" of its own time; crashes 0, 5xx 0, stalls over 100 ms 0; the slowest"
        f" {slowest.slowest_seconds * 1000:.0f} ms ({slowest.target})"
    )


def a_target(take, *seeds: bytes):
    return pure("of this test", take, seeds, declared=(KeyError,))


def test_an_input_is_found_again_by_its_number(targets):
    """The same seed makes the same inputs, and another seed makes others."""
    for name in ("push", "app", "config"):
        made = list(inputs(targets[name], 7, 3))
        assert made == list(inputs(targets[name], 7, 3))
        assert made != list(inputs(targets[name], 8, 3))
        assert len(made) == BLOCK


def test_a_crash_is_found_and_cut_down():
    """To what it needs; an error that is declared is none."""

    def take(data: bytes) -> None:
        if data.count(b"9") > 3:
            raise KeyError(data)
        if b"NaN" in data:
            raise ZeroDivisionError

    target = a_target(take, b'{"a": 1, "b": [1, 2, 3]}')
    score = run(target, SEED, 2000)
    (finding,) = score.findings.values()
    assert score.found == {"crash": score.found["crash"]}
    assert finding.where.startswith("ZeroDivisionError in take")
    assert smallest(target, finding) == b"NaN"
    (same,) = again(target, SEED, finding.number).findings.values()
    assert same.data == finding.data


def test_an_answer_of_5xx_is_no_crash():
    """It is counted by itself."""

    def take(data: bytes) -> None:
        raise Answered5xx("500")

    assert run(a_target(take, b"x"), SEED, 3).found == {"5xx": 3}


def test_a_stall_is_found():
    """By the time that this process works, twice."""

    def take(data: bytes) -> None:
        if len(data) > 2:
            until = time.process_time() + 0.12
            while time.process_time() < until:
                pass

    score = run(a_target(take, b"x"), SEED, 3)
    assert score.found == {"stall": score.found["stall"]}
    assert score.slowest_seconds > 0.1


def test_structure_is_found_in_what_is_hardly_json():
    """Mutators cut and paste by it."""
    found = spans(b'] {"a": [1, "x,]", {"b\\"":null}]} x {')
    text = b'] {"a": [1, "x,]", {"b\\"":null}]} x {'
    assert [text[start:end] for start, end in found.keys] == [b'"a"', b'"b\\""']
    assert b'"a": [1, "x,]", {"b\\"":null}]' in [text[start:end] for start, end in found.entries]
    assert [text[start:end] for start, end in found.values][:3] == [b"1", b'"x,]"', b"null"]
