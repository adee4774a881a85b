"""Makes inputs of seeds: by bytes, and by the structure of JSON. The same seed, the same inputs.

Nothing here may depend on the order of a set, on a clock or on a hash: an input is found again by
its target, its seed and its number.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, TypeVar

from tests.fuzz.spans import Span, Spans, spans

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from random import Random

T = TypeVar("T")

#: What stands in the place of a value.
VALUES = (
    *(b"null", b"true", b"false", b"[]", b"{}", b"[[]]", b'""', b"0", b"-0", b"1", b"-1", b"2"),
    *(b"2147483647", b"2147483648", b"-2147483648", b"-2147483649", b"4294967297", b"65536"),
    *(b"9223372036854775807", b"9223372036854775808", b"-9223372036854775809"),
    *(b"18446744073709551616", b"1" * 400, b"1" * 4301, b"9" * 39 + b"e-30", b"1" + b"0" * 308),
    *(b"1e308", b"1e309", b"-1e309", b"1e-400", b"1.0", b"0.1", b"1e3", b"1099511627776.5"),
    *(b"NaN", b"Infinity", b"-Infinity", b"nul", b"01", b"+1", b".5", b"1.", b"0x10", b"1_0"),
    *(b'"\\ud800"', b'"\\udc80"', b'"\\udcff\\ud800"', b'"\\ud83d\\ude00"', b'"\\u0000"'),
    *(b'"\xff"', b'"\xed\xa0\x80"', b'"\xc3"', b'"\xf4\x90\x80\x80"', b'"\x00"', b'"\n"'),
    *(b'"a\\nb"', b'"\\r"', b'"\\u2028"', b'"\xe2\x80\xae"', b'"\x7f"', b'"\xc2\x9b31m"'),
    *(b'"{x}"', b'"=HYPERLINK()"', b'"<script>alert(1)</script>"', b'"{{ status }}"', b'"|"'),
    *(b'"1"', b'"true"', b'"90s"', b'"1h"', b'"main"', b'"ALL"', b'"all"', b'"push"', b"'x'"),
    *(b'"sr_exporter"', b'"%2F"', b'"../.."', b'"a/b"', b'"\xc4\xb0"', b'"I\xcc\x87"'),
    *(b'"' + b"a" * 300 + b'"', b'"' + b"\\\\" * 70 + b'"', b'"\\x"', b'"\\', b'{"a":1,"a":2}'),
    *(
        b"[" * 60 + b"]" * 60,
        b'{"a":' * 60 + b"1" + b"}" * 60,
        b"[" * 1200,
        b"[" * 1100 + b"]" * 1100,
    ),
)
#: What bytes are overwritten with, and inserted.
BYTES = (
    *(b"\0", b"\xff", b"\x7f", b"\x80", b"\n", b"\r", b"\r\n", b"\t", b" ", b'"', b"\\", b"'"),
    *(
        b"{",
        b"}",
        b"[",
        b"]",
        b",",
        b":",
        b";",
        b"=",
        b"%",
        b"%00",
        b"%ff",
        b"%2F",
        b"/",
        b"..",
        b"*",
    ),
    *(
        b"\xef\xbb\xbf",
        b"\xed\xa0\x80",
        b"\xf0\x9f\x92\xa9",
        b"\xc0\x80",
        b"\xe2\x80\xa8",
        b"\x1b[",
    ),
    *(
        b"-1",
        b"0",
        b"1e999",
        b"99999999999999999999",
        b"NaN",
        b"null",
        b"(",
        b")",
        b"|",
        b"?",
        b"+",
    ),
)
_LONGEST_REPEAT = 64
#: How many mutations an input gets at most.
_MOST = 5
#: The share of inputs that are made of usual seeds.
_USUAL = 0.92


class _Seed(NamedTuple):
    data: bytes
    found: Spans


class Mutator:
    """Makes inputs of at most `longest` bytes, more or less, of seeds and words of one format."""

    def __init__(
        self,
        seeds: Sequence[bytes],
        words: Sequence[bytes] = (),
        longest: int = 4096,
        odd: Sequence[bytes] = (),
    ) -> None:
        """Take most inputs from the seeds, and a few from what is odd by itself."""
        self._seeds = [_Seed(seed, spans(seed)) for seed in dict.fromkeys(seeds)]
        self._odd = [_Seed(seed, spans(seed)) for seed in odd] or self._seeds
        self._structured = [seed for seed in self._seeds if seed.found.values]
        self._words = (*words, *BYTES)
        self._longest = longest

    def make(self, rng: Random) -> bytes:
        """Make one input."""
        seed = _choose(self._seeds if rng.random() < _USUAL else self._odd, rng)
        data, chance = seed.data, rng.random()
        if seed.found.values and chance < 0.7:
            data = self._restructured(seed, rng)
        if chance > 0.45 or data is seed.data:
            # Most inputs get few: what breaks early shows nothing of what comes after.
            for _ in range(1 + int(_MOST * rng.random() ** 3)):
                data = _choose(_BY_BYTES, rng)(self, data, rng)
        return data[: self._longest]

    # --- by structure ----------------------------------------------------------------------------

    def _restructured(self, seed: _Seed, rng: Random) -> bytes:
        """Alter some places, from the last to the first: those before stay where they are."""
        data, found = seed.data, seed.found
        cuts: list[tuple[Span, Callable[[bytes], bytes]]] = []
        for _ in range(1 + int(_MOST * rng.random() ** 3)):
            kind = rng.random()
            if kind < 0.55:
                cuts.append((_choose(found.values, rng), _constant(self._value(rng))))
            elif kind < 0.7 and found.keys:
                cuts.append((_choose(found.keys, rng), _constant(self._key(rng))))
            elif kind < 0.95:
                cuts.append((_choose(found.entries, rng), _choose(_ON_ENTRIES, rng)))
            else:
                cuts.append((_choose(found.values, rng), _choose(_ON_VALUES, rng)))
        end = len(data) + 1
        cuts.sort(key=lambda cut: cut[0], reverse=True)
        for (start, stop), change in cuts:
            if stop <= end:
                data = data[:start] + change(data[start:stop]) + data[stop:]
                end = start
        return data

    def _value(self, rng: Random) -> bytes:
        if rng.random() < 0.6:
            return _choose(VALUES, rng)
        other = _choose(self._structured, rng)
        start, end = _choose(other.found.values, rng)
        return other.data[start:end]

    def _key(self, rng: Random) -> bytes:
        other = _choose(self._structured, rng)
        if other.found.keys and rng.random() < 0.8:
            start, end = _choose(other.found.keys, rng)
            return other.data[start:end]
        return _choose(VALUES, rng)

    # --- by bytes --------------------------------------------------------------------------------

    def _inserted(self, data: bytes, rng: Random) -> bytes:
        at = int(rng.random() * (len(data) + 1))
        return data[:at] + _choose(self._words, rng) + data[at:]

    def _overwritten(self, data: bytes, rng: Random) -> bytes:
        word = _choose(self._words, rng)
        at = int(rng.random() * (len(data) + 1))
        return data[:at] + word + data[at + len(word) :]

    def _flipped(self, data: bytes, rng: Random) -> bytes:
        if not data:
            return data
        at = int(rng.random() * len(data))
        return data[:at] + bytes((data[at] ^ 1 << int(rng.random() * 8),)) + data[at + 1 :]

    def _removed(self, data: bytes, rng: Random) -> bytes:
        start, end = _range(data, rng)
        return data[:start] + data[end:]

    def _repeated(self, data: bytes, rng: Random) -> bytes:
        start, end = _range(data, rng)
        times = 2 if rng.random() < 0.8 else int(rng.random() * _LONGEST_REPEAT)
        return data[:start] + data[start:end] * times + data[end:]

    def _moved(self, data: bytes, rng: Random) -> bytes:
        start, end = _range(data, rng)
        rest = data[:start] + data[end:]
        at = int(rng.random() * (len(rest) + 1))
        return rest[:at] + data[start:end] + rest[at:]

    def _cut(self, data: bytes, rng: Random) -> bytes:
        return data[: int(rng.random() * len(data))]

    def _spliced(self, data: bytes, rng: Random) -> bytes:
        other = _choose(self._seeds, rng).data
        return data[: int(rng.random() * len(data))] + other[int(rng.random() * len(other)) :]

    def _turned(self, data: bytes, rng: Random) -> bytes:
        """Turn the case of a stretch."""
        start, end = _range(data, rng)
        return data[:start] + data[start:end].swapcase() + data[end:]


_BY_BYTES = (
    *(Mutator._inserted,) * 3,
    *(Mutator._overwritten,) * 3,
    *(Mutator._flipped,) * 2,
    *(Mutator._removed,) * 2,
    Mutator._repeated,
    Mutator._moved,
    Mutator._cut,
    Mutator._spliced,
    Mutator._turned,
)
_ON_ENTRIES: tuple[Callable[[bytes], bytes], ...] = (
    lambda entry: b"",
    lambda entry: entry + b"," + entry,
    lambda entry: entry + b"," + entry,
    lambda entry: entry + b"," + entry + b"," + entry,
    lambda entry: b"," + entry,
)
_ON_VALUES: tuple[Callable[[bytes], bytes], ...] = (
    lambda value: b"[" + value + b"]",
    lambda value: b'{"a":' + value + b"}",
    lambda value: b'"' + value + b'"',
    lambda value: value.strip(b'"'),
    lambda value: b" \t\r\n" + value + b" ",
)


def _constant(value: bytes) -> Callable[[bytes], bytes]:
    return lambda _: value


def _choose(among: Sequence[T], rng: Random) -> T:
    return among[int(rng.random() * len(among))]


def _range(data: bytes, rng: Random) -> Span:
    start = int(rng.random() * (len(data) + 1))
    return start, start + 1 + int((len(data) - start) * rng.random() ** 4)
