"""Long inputs: what takes time that grows faster than the length is found by making it longer.

Parts of seeds are repeated until they are long. What counts is the time for a byte: where four
times the length takes far more than four times the time, what is longer still holds up everybody.
"""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING

from tests.fuzz.run import Finding, Score
from tests.fuzz.spans import spans

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.fuzz.target import Opened, Target

#: Longer than any header, event or line; bodies are longer, and read in slices.
LONGEST_BYTES = 2**17
_FIRST_BYTES = 2**13
_TIMES = 4
#: What takes less is not measured.
_LEAST_SECONDS = 0.02
#: Between 4 times, where each byte takes as long, and 16, where its time grows with the length.
_STEEP = 9.0
_PARTS_OF_A_SEED = 6
#: What nests, repeats, or makes a reader look back.
_FRAGMENTS = (
    *(
        b"[",
        b"{",
        b'{"a":',
        b"(",
        b'"',
        b"\\",
        b'\\"',
        b",",
        b";",
        b"=",
        b"&",
        b"%",
        b"%41",
        b"/",
        b"*",
    ),
    *(
        b"\n",
        b"\r\n",
        b" ",
        b"\t",
        b"- ",
        b"a: ",
        b"{}",
        b"[]",
        b"},",
        b"a=b&",
        b"a;q=0.1,",
        b"1",
        b"a",
        b"\0",
    ),
    *(
        b"\xff",
        b"\xc3\xa9",
        b"\\u0041",
        b"{{",
        b"{%",
        b"|int",
        b"<<: ",
        b"&a ",
        b"1\r\n1\r\n",
        b"x: y\r\n",
    ),
)


def grown(target: Target) -> Score:
    """Feed long inputs; a finding is one whose time grows far faster than its length."""
    score = Score(target.name)
    with target.open() as opened:
        for number, (head, part, tail) in enumerate(_shapes(target)):
            _lengthen(target, opened, number, (head, part, tail), score)
    return score


def _shapes(target: Target) -> Iterator[tuple[bytes, bytes, bytes]]:
    """Give what is to be repeated, with what stands before and after it."""
    for fragment in (*_FRAGMENTS, *target.words):
        yield b"", fragment, b""
    for seed in target.seeds[:20]:
        found = spans(seed)
        places = [*found.entries[:_PARTS_OF_A_SEED], *found.values[-_PARTS_OF_A_SEED:]]
        for start, end in places:
            yield seed[:end], b"," + seed[start:end], seed[end:]
        middle = len(seed) // 2
        yield seed[:middle], seed[middle : middle + 1] or b" ", seed[middle:]
        yield seed, seed, b""


def _lengthen(
    target: Target, opened: Opened, number: int, shape: tuple[bytes, bytes, bytes], score: Score
) -> None:
    head, part, tail = shape
    before, size = 0.0, _FIRST_BYTES
    while size <= LONGEST_BYTES:
        data = head + part * max(1, size // len(part)) + tail
        try:
            took = _timed(target, opened, data)
            if size > _FIRST_BYTES and _is_steep(before, took):
                took = min(took, _timed(target, opened, data))
        except Exception as error:  # noqa: BLE001 - any is a finding
            what = f"{type(error).__name__}: {error}"
            score.note(Finding(target.name, "crash", number, data[:300], what, what[:60]))
            return
        score.inputs += 1
        score.seconds += took
        score.slowest_seconds = max(score.slowest_seconds, took)
        if size > _FIRST_BYTES and _is_steep(before, took):
            what = f"{size} bytes took {took * 1000:.0f} ms, a quarter {before * 1000:.0f} ms"
            score.note(Finding(target.name, "stall", number, data[:300], what, f"{part!r}"))
            return
        before, size = took, size * _TIMES


def _is_steep(before: float, took: float) -> bool:
    return took > _LEAST_SECONDS and took > _STEEP * max(before, _LEAST_SECONDS / _STEEP)


def _timed(target: Target, opened: Opened, data: bytes) -> float:
    began = time.process_time()
    with contextlib.suppress(*target.declared):
        opened.take(data)
    return time.process_time() - began
