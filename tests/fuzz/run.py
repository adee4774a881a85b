"""Feeds inputs to targets, and finds what must not be: crashes, answers of 5xx, and stalls.

Inputs come in blocks, each from a generator of its own: one input is found again without those
of the blocks before. A target that holds something is opened anew once in some blocks, and what
is found is found again from there.
"""

from __future__ import annotations

import contextlib
import gc
import random
import signal
import time
import traceback
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tests.fuzz.corpora import ODD_JSON
from tests.fuzz.mutate import Mutator
from tests.fuzz.target import Answered5xx

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

    from tests.fuzz.target import Opened, Target

#: Who takes longer holds up everybody else.
STALL_SECONDS = 0.1
#: Whoever takes so long is stopped.
HANG_SECONDS = 10
BLOCK = 1000
#: For so many blocks, one after the other, a target that holds something is opened once.
_BLOCKS_HELD = 5
_MOST_FINDINGS = 20
#: After so many inputs it is seen whether what a target holds holds together.
_LOOK_EVERY = 250


class Hung(BaseException):
    """An input that is still read after many seconds; not for an `except Exception`."""


@dataclass(frozen=True, slots=True)
class Finding:
    target: str
    #: "crash", "5xx" or "stall".
    kind: str
    number: int
    data: bytes
    what: str
    #: Where it went wrong, to tell findings apart.
    where: str

    def __str__(self) -> str:
        return f"{self.target}: {self.kind} at input {self.number}: {self.data!r}\n{self.what}"


@dataclass(slots=True)
class Score:
    """What became of the inputs of one target."""

    target: str
    inputs: int = 0
    taken: int = 0
    seconds: float = 0.0
    slowest_seconds: float = 0.0
    found: Counter[str] = field(default_factory=Counter)
    #: One of each place, and so many at most.
    findings: dict[str, Finding] = field(default_factory=dict)

    def note(self, finding: Finding) -> None:
        self.found[finding.kind] += 1
        if len(self.findings) < _MOST_FINDINGS:
            self.findings.setdefault(finding.where, finding)


def inputs(target: Target, seed: int, block: int) -> Iterator[bytes]:
    """Give the inputs of a block."""
    return _of(_mutator(target), target, seed, block)


def run(target: Target, seed: int, count: int, *, first: int = 0) -> Score:
    """Feed so many inputs, from a block on."""
    score, mutator = Score(target.name), _mutator(target)
    blocks = range(first // BLOCK, -(-(first + count) // BLOCK))
    began = time.perf_counter()
    with _watched() as watch, contextlib.ExitStack() as stack:
        opened: Opened | None = None
        for block in blocks:
            if opened is None or (target.holds and block % _BLOCKS_HELD == 0):
                stack.close()
                opened = stack.enter_context(target.open())
            made = _of(mutator, target, seed, block)
            for number, data in enumerate(made, block * BLOCK):
                if number >= first + count:
                    break
                watch.number = number
                _feed(target, opened, number, data, score)
                if number % _LOOK_EVERY == _LOOK_EVERY - 1:
                    _look(target, opened, number, data, score)
            _look(target, opened, number, data, score)
    score.seconds = time.perf_counter() - began
    return score


def again(target: Target, seed: int, number: int) -> Score:
    """Feed one input of a run again, after those that it may depend on."""
    block = number // BLOCK
    if target.holds:
        first = (block - block % _BLOCKS_HELD) * BLOCK
        return run(target, seed, number - first + 1, first=first)
    score = Score(target.name)
    with target.open() as opened:
        for at, data in enumerate(inputs(target, seed, block), block * BLOCK):
            if at == number:
                _feed(target, opened, number, data, score)
                break
    return score


def smallest(target: Target, finding: Finding) -> bytes:
    """Leave out of an input what its finding does not need; of targets that hold nothing."""
    if target.holds or finding.kind != "crash":
        return finding.data
    data, step = finding.data, max(1, len(finding.data) // 2)
    with target.open() as opened:
        while step:
            at = 0
            while at < len(data):
                less = data[:at] + data[at + step :]
                if _where(target, opened, less) == finding.where:
                    data = less
                else:
                    at += step
            step //= 2
    return data


def _where(target: Target, opened: Opened, data: bytes) -> str:
    try:
        target.accepts(opened, data)
    except Exception as error:  # noqa: BLE001 - it is what is looked for
        return _place(error)
    return ""


def _mutator(target: Target) -> Mutator:
    return Mutator(target.seeds, target.words, target.longest, ODD_JSON)


def _of(mutator: Mutator, target: Target, seed: int, block: int) -> Iterator[bytes]:
    rng = random.Random(f"{seed}/{target.name}/{block}")
    return (mutator.make(rng) for _ in range(BLOCK))


def _feed(target: Target, opened: Opened, number: int, data: bytes, score: Score) -> None:
    watch = _Stopwatch()
    try:
        taken = target.accepts(opened, data)
    except Exception as error:  # noqa: BLE001 - any is a finding
        taken = False
        kind = "5xx" if isinstance(error, Answered5xx) else "crash"
        what = "".join(traceback.format_exception(error))
        score.note(Finding(target.name, kind, number, data, what, _place(error)))
    except Hung:
        taken = False
        what = f"not read within {HANG_SECONDS} s"
        score.note(Finding(target.name, "stall", number, data, what, "hung"))
    took = watch.seconds()
    score.inputs += 1
    score.taken += taken
    if took > STALL_SECONDS:
        took = min(took, _once_more(target, opened, data))
        if took > STALL_SECONDS:
            what = f"{took * 1000:.0f} ms"
            score.note(Finding(target.name, "stall", number, data, what, "stall"))
    score.slowest_seconds = max(score.slowest_seconds, took)


def _look(target: Target, opened: Opened, number: int, data: bytes, score: Score) -> None:
    try:
        opened.look()
    except Exception as error:  # noqa: BLE001 - any is a finding
        what = "".join(traceback.format_exception(error))
        score.note(Finding(target.name, "crash", number, data, what, _place(error)))


def _once_more(target: Target, opened: Opened, data: bytes) -> float:
    """Time it again without what others leave behind: garbage, first calls."""
    gc.collect()
    watch = _Stopwatch()
    with contextlib.suppress(Exception, Hung):
        target.accepts(opened, data)
    return watch.seconds()


def _place(error: BaseException) -> str:
    """Say where an error was raised, and which it is."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__} in {last.name}, {last.filename}:{last.lineno}"


class _Stopwatch:
    """Tells what this process has worked: others on the machine may take as long as they like."""

    def __init__(self) -> None:
        self._began = time.perf_counter()
        self._worked = time.process_time()

    def seconds(self) -> float:
        # Some kernels tell it in whole ticks, which may be more than has passed.
        return min(time.perf_counter() - self._began, time.process_time() - self._worked)


class _Watch:
    """Stops an input that is read for ever: whoever is read at two ticks running."""

    def __init__(self) -> None:
        self.number = -1
        self._seen = -1

    def tick(self, _: int, __: FrameType | None) -> None:
        if self.number == self._seen:
            self._seen = -1
            raise Hung
        self._seen = self.number


@contextlib.contextmanager
def _watched() -> Iterator[_Watch]:
    watch = _Watch()
    before = signal.signal(signal.SIGVTALRM, watch.tick)
    # Of the process' own time: others may keep it from running as long as they like.
    signal.setitimer(signal.ITIMER_VIRTUAL, HANG_SECONDS, HANG_SECONDS)
    try:
        yield watch
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)


def table(scores: list[Score]) -> list[str]:
    """Write a row for each target, and one for all."""
    lines = [
        "| target | inputs | taken | inputs/s | crashes | 5xx | stalls | slowest |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    total = Score("all")
    for score in scores:
        total.inputs += score.inputs
        total.taken += score.taken
        total.seconds += score.seconds
        total.slowest_seconds = max(total.slowest_seconds, score.slowest_seconds)
        total.found.update(score.found)
    for score in (*scores, total):
        rate = score.inputs / score.seconds if score.seconds else 0.0
        lines.append(
            f"| {score.target} | {score.inputs:,} | {score.taken / max(1, score.inputs):.0%}"
            f" | {rate:,.0f} | {score.found['crash']} | {score.found['5xx']}"
            f" | {score.found['stall']} | {score.slowest_seconds * 1000:.1f} ms |"
        )
    return lines
