"""The soak (`python -m tests.soak`) runs, of a length that tells nothing but that it would."""

from __future__ import annotations

from dataclasses import replace

from tests.soak.__main__ import soak
from tests.soak.watch import BOUNDS, HEADER, Look


def test_a_short_soak_finds_nothing_wrong_and_prints_its_table(tmp_path, capsys):
    """Every kind of load gets its answers, nothing is said that never should be, and it ends."""
    wrong, verdicts = soak(tmp_path, 3.0, 1.0, "2s")
    printed = capsys.readouterr().out
    assert wrong == []
    assert len(verdicts) == len(BOUNDS)
    assert printed.count(HEADER) == 2
    for kind in ("push", "scrape", "page", "mi", "listener", "event over tcp", "event over udp"):
        assert f"('{kind}', 200)" in printed


def test_what_grows_is_seen_to_grow():
    """By a tenth from the middle to the end, whatever it is; what falls, or stands, is flat."""
    some = Look(1.0, 100.0, 100, 100, 1000, 10_000, 50_000, 50_000, 50_000, 100.0, 0, 1.0, 1.0, 1.0)
    for bound in BOUNDS:
        before = getattr(some, bound.name)
        for factor, flat in ((0.5, True), (1.0, True), (1.5, False)):
            later = replace(some, **{bound.name: factor * before})
            assert bound.judge([some] * 3, [later] * 3)[0] is flat, bound
