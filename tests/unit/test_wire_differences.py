"""Reading only what a listing says otherwise than the one before."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
from hypothesis import event, given, settings
from hypothesis import strategies as st

from sr_exporter.wire import sr
from sr_exporter.wire.differences import PLACE, Imprint
from sr_exporter.wire.slices import at_once

if TYPE_CHECKING:
    from sr_exporter.model import ListedStatus

names = st.text("abcB", min_size=1, max_size=3)
#: Long enough for several places.
#: No name twice: such a listing is never one that stands (known.py).
groups = st.lists(
    st.tuples(names, st.lists(names, max_size=3 * PLACE, unique=True)),
    max_size=3,
    unique_by=lambda one: one[0],
)
statuses = st.sampled_from((-1, 1, 2, 0))


def written(shape: list[tuple[str, list[str]]], said: dict[tuple[int, int], int]) -> bytes:
    """Write a listing in which all are 1 but some, by their places."""
    return msgspec.json.encode(
        [
            {
                "Name": group,
                "Identifiers": [
                    {"Name": one, "Readiness": status > 0, "Status": status}
                    for at, one in enumerate(identifiers)
                    for status in [said.get((number, at), 1)]
                ],
            }
            for number, (group, identifiers) in enumerate(shape)
        ]
    )


def read(listing: bytes, before: Imprint | None = None) -> sr.Statuses:
    found = at_once(sr.statuses_in_slices(listing, before))
    assert found is not None
    return found


def by_name(listed: sr.Statuses) -> dict[tuple[str, str], ListedStatus]:
    return {(one.group, one.identifier): one for one in listed.statuses}


@settings(max_examples=200)
@given(st.data())
def test_the_difference_and_what_stands_are_the_listing(data: Any) -> None:
    """Whatever changes, comes or goes; and so does the next difference, of that imprint."""
    shape = data.draw(groups)
    places = [(number, at) for number, (_, some) in enumerate(shape) for at in range(len(some))]
    some = st.dictionaries(st.sampled_from(places), statuses, max_size=4) if places else st.just({})
    before = read(written(shape, data.draw(some)))
    for _ in range(3):
        if data.draw(st.booleans()) and data.draw(st.booleans()):
            shape = data.draw(groups)
            places = [(n, at) for n, (_, some) in enumerate(shape) for at in range(len(some))]
            some = st.dictionaries(st.sampled_from(places), statuses) if places else st.just({})
        listing = written(shape, data.draw(some))
        whole, found = read(listing), read(listing, before.imprint)
        event("all" if found.whole else f"{len(found.statuses) // PLACE} places")
        assert found.imprint == whole.imprint
        if not found.whole:
            told = {**by_name(before), **by_name(found)}
            assert list(told.items()) == list(by_name(whole).items())
        else:
            assert found.statuses == whole.statuses
        before = whole


def test_what_is_told_is_bounded_by_what_changed() -> None:
    """Of 10,000 whose 100th each is another, no more than the places they are in."""
    shape = [("g", [str(number) for number in range(10_000)])]
    before = read(written(shape, {}))
    found = read(written(shape, {(0, at): 2 for at in range(0, 10_000, 100)}), before.imprint)
    assert not found.whole
    assert len(found.statuses) == 100 * PLACE
    assert read(written(shape, {}), before.imprint).statuses == ()


def test_names_that_change_places_are_all_read() -> None:
    """The same identifiers in another order are no difference that could be told by place."""
    before = read(written([("g", ["a", "b"])], {}))
    assert read(written([("g", ["b", "a"])], {}), before.imprint).whole
    assert read(written([("h", ["a", "b"])], {}), before.imprint).whole
    assert read(written([("g", ["a", "b", "c"])], {}), before.imprint).whole


def test_a_fault_is_found_in_what_differs() -> None:
    """Then all of it is read, item by item."""
    before = read(written([("g", ["a", "b"])], {}))
    wrong = written([("g", ["a", "b"])], {(0, 1): 2}).replace(b'"Status":2', b'"Status":"2"')
    assert at_once(sr.statuses_in_slices(wrong, before.imprint)) is None
