"""The addresses of pages: what is written is read as it was meant, and what is not, is refused."""

from __future__ import annotations

import time
from urllib.parse import parse_qsl, quote, urlsplit

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from sr_exporter.model import Key, fold
from sr_exporter.web import moments
from sr_exporter.web.filters import (
    HOURS,
    MOST_SOURCES_FROM,
    BadQuery,
    Filters,
    Place,
    Readiness,
    fitting,
    key_in_path,
    key_path,
    read,
    source_path,
)

NAMES = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
NAMED = NAMES.filter(bool)


@given(
    st.builds(
        Filters,
        source=NAMES,
        group=NAMES,
        identifier=NAMES,
        ready=st.sampled_from(Readiness),
        hours=st.sampled_from(HOURS),
        after=st.none() | st.builds(Place, NAMES, NAMES, NAMES),
        sources_from=st.integers(0, MOST_SOURCES_FROM),
    )
)
def test_what_an_address_asks_for_is_read_as_it_was_written(asked):
    """Names may hold anything, also what separates them."""
    query = dict(parse_qsl(asked.url().removeprefix("?"), keep_blank_values=True))
    assert read(query) == asked
    assert read(query, "a source").source == "a source"


@given(st.dictionaries(st.sampled_from(["ready", "hours", "after", "sources_from"]), NAMES))
@example({"sources_from": "²"})
@example({"sources_from": "9" * 5000})
def test_any_address_is_read_or_refused_by_name(query):
    try:
        read(query)
    except BadQuery as error:
        assert str(error).split(":")[0] in query  # noqa: PT017 - either is right


@given(st.builds(Key, NAMED, NAMED, NAMED))
@example(Key("a/b", "..", "."))
def test_the_page_of_a_key_is_found_by_its_address(key):
    """Both as alerts write it, and as the API does."""
    address = urlsplit(key_path(key))
    assert key_in_path(address.path.encode()) == (key.source, None, None)
    assert dict(parse_qsl(address.query)) == {"group": key.group, "identifier": key.identifier}
    group, identifier = quote(key.group, safe=""), quote(key.identifier, safe="")
    path = f"{source_path(key.source)}/groups/{group}/identifiers/{identifier}"
    assert key_in_path(path.encode()) == tuple(key)


@pytest.mark.parametrize(
    "path", [b"/sources/", b"/sources/a/b", b"/sources/a/groups/", b"/sources/a/groups/b/c/d"]
)
def test_what_is_no_address_of_a_page_is_none(path):
    assert key_in_path(path) is None


@pytest.mark.parametrize(
    ("asked", "fits", "fits_not"),
    [
        ("us", ["us", "us;events", "bus"], ["eu"]),
        ("US*", ["us", "us;events"], ["bus"]),
        ("?us", ["bus"], ["us", "us;events"]),
        ("*;*", ["us;events"], ["us"]),
        ("[a]*", ["[a]b"], ["ab", "a"]),
        ("a.c*", ["a.c"], ["abc"]),
        ("*" * 2000 + "b", ["b", "ab"], ["a" * 2000]),
        ("a*" * 32, ["a" * 32, "a" * 99], ["a" * 31]),
        ("a*" * 33, ["a*" * 34], ["a" * 99]),
    ],
)
def test_parts_and_wildcards(asked, fits, fits_not):
    """`*` and `?` only; what else means something elsewhere is a character as any other."""
    assert fitting(asked)([*fits, *fits_not]) == fits


def test_no_pattern_is_made_that_takes_long():
    """Whatever wildcards it is full of: anybody may ask. The quickest of three: a collection of the
    garbage of all tests before may fall into one.
    """
    for asked in ("*a" * 2048, "*?" * 2048, "?*" * 2048, "?" * 4096, "[*" * 2048):
        took = []
        for _ in range(3):
            began = time.thread_time()
            fitting(asked)(["a" * 4096])
            took.append(time.thread_time() - began)
        assert min(took) < 0.1, asked[:4]


@given(NAMES, st.lists(NAMES, max_size=10))
def test_no_pattern_is_too_much(asked, names):
    """Whatever is asked for, of whatever names: it chooses some of them."""
    folded = [fold(name) for name in names]
    assert set(fitting(asked)(folded)) <= set(folded)


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (-5, "0 s"),
        (0.9, "0 s"),
        (59.9, "59 s"),
        (60, "1 min"),
        (3599, "59 min"),
        (3600, "1 h"),
        (3660, "1 h 1 min"),
        (86_400, "1 d"),
        (90_000, "1 d 1 h"),
        (10 * 86_400 + 3600, "10 d"),
    ],
)
def test_how_long_something_took_in_words(seconds, said):
    assert moments.lasting(seconds) == said


def test_times_without_their_day_are_of_today():
    now = 86_400.0
    assert moments.when(now + 5, now) == "00:00:05 UTC"
    assert moments.when(now - 5, now) == "1970-01-01 23:59:55 UTC"
    assert moments.clock(now - 5, now) == "01-01 23:59:55"
    assert moments.moment(1e18) == "1000000000000000000 s after 1970"
    assert moments.machine(1e18) == ""
