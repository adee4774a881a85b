"""What is too long is cut, and stays another than all others."""

from __future__ import annotations

import subprocess
import sys

from hypothesis import given
from hypothesis import strategies as st

from sr_exporter import cutting
from sr_exporter.cutting import MOST_DETAILS, MOST_LOG, MOST_NAME, cut_name, cut_text
from sr_exporter.limited import Limited
from sr_exporter.limits import Limit
from sr_exporter.wire import push
from sr_exporter.wire.text import details_of, log, may_be_escaped, name

NAMES = st.text(min_size=1, max_size=40).map(lambda said: said * 100)


@given(NAMES, NAMES)
def test_two_names_stay_two(one, other):
    """Whatever they begin with; and what was cut is not cut again."""
    first, second = name(one), name(other)
    assert (first == second) == (name(one + "x") == name(other + "x"))
    assert max(len(first), len(second)) <= MOST_NAME
    assert name(first) == first
    first.encode()


def test_names_with_a_long_beginning_in_common_stay_two():
    same = "sip:" + "a" * 10_000
    cut = {name(f"{same}{number}") for number in range(1000)}
    assert len(cut) == 1000
    assert {len(one) for one in cut} == {MOST_NAME}
    assert all(may_be_escaped(one) for one in cut)  # OpenSIPS is asked for none of them


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=MOST_NAME))
def test_what_is_not_too_long_is_left_alone(said):
    assert name(said) == details_of(said) == cut_text(said, MOST_NAME) == said


def test_the_same_name_is_cut_the_same_in_another_life():
    """Nothing in it is of this process."""
    code = "from sr_exporter.cutting import cut_name; print(ascii(cut_name('b' * 600)))"
    told = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.strip()
    assert told == ascii(cut_name("b" * 600))


def test_a_text_that_is_cut_says_how_long_it_was():
    assert details_of("é" * 20_000) == "é" * MOST_DETAILS + "… (40000 bytes)"
    assert log("x" * 9000 + "\n") == "x" * MOST_LOG + "… (9000 bytes)"
    assert cut_text("abc", 3) == "abc"


def test_a_push_is_cut_all_over():
    long = "n" * 1000
    body = (
        b'{"source":"%b","group":"%b","identifier":"%b","status":1,"details":"%b",'
        b'"reports":["%b"]}'
        % tuple(text.encode() for text in (long, long, long, long * 20, long * 9))
    )
    (said,) = push.statements(body)
    assert said.source == said.group == said.identifier == cut_name(long)
    assert said.details == details_of(long * 20)
    assert said.reports == (log(long * 9),)


def test_what_is_cut_is_counted():
    before = Limited()
    cut_name("x" * 1000)
    cut_text("x" * 1000, 10)
    cut_text("x" * 1000, 10)
    found = before.counts
    assert (found[Limit.NAME_LENGTH], found[Limit.TEXT_LENGTH]) == (1, 2)
    assert before.counts[Limit.TEXT_LENGTH] == 2
    assert cutting.counts[Limit.TEXT_LENGTH] >= 2
