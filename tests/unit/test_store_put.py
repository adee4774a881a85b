"""Putting many rows by few statements."""

from __future__ import annotations

import sqlite3

import pytest

from sr_exporter.store.put import AT_ONCE, Put

MOST = AT_ONCE[0]


@pytest.fixture
def database():
    opened = sqlite3.connect(":memory:", isolation_level=None)
    opened.execute("CREATE TABLE things (name TEXT PRIMARY KEY, number INTEGER)")
    yield opened
    opened.close()


@pytest.mark.parametrize("count", [0, 1, 7, 8, 9, 63, 64, 65, 300])
def test_every_row_is_put_once_and_in_order(database, count):
    rows = [(f"n{number}", number) for number in range(count)]
    Put("things", "name, number")(database, rows)
    assert database.execute("SELECT name, number FROM things ORDER BY rowid").fetchall() == rows


def test_of_rows_with_one_key_the_last_stays(database):
    rows = [("same", number) for number in range(2 * MOST + 3)]
    Put("things", "name, number")(database, rows)
    assert database.execute("SELECT * FROM things").fetchall() == [rows[-1]]


def test_many_rows_take_few_statements(database):
    said = []
    database.set_trace_callback(said.append)
    Put("things", "name, number")(database, [(str(number), number) for number in range(10 * MOST)])
    assert len(said) == 10
