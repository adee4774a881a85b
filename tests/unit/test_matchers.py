"""The filters of Alertmanager's API take linear time; what they find is in test_amtool.py."""

from __future__ import annotations

import contextlib
import time

import pytest

from sr_exporter.web.matchers import matcher


def test_white_space_around_a_value_is_no_part_of_it():
    """As Alertmanager reads it; that within is."""
    assert matcher(" name = a b \t\n")({"name": "a b"})
    assert matcher('name = " a " ')({"name": " a "})


@pytest.mark.parametrize(
    "text",
    [
        "a=x" + " " * 60_000 + "x",
        " " * 60_000 + "=",
        "a" + " " * 60_000 + "x",
        'a="' + "\\" * 60_000 + 'x"',
        'a="' + '"' * 60_000,
    ],
)
def test_no_filter_stalls_the_exporter(text):
    """It is strangers who ask."""
    began = time.perf_counter()
    with contextlib.suppress(ValueError):
        matcher(text)
    assert time.perf_counter() - began < 1.0
