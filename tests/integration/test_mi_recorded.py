"""The Management Interface of the exporter answers what a real server of 4.0 answered.

The state of the recording comes in through the real doors: pushed to the source `push`, or polled
of a server that answers with the recorded bytes. Then every recorded request is sent again, byte
for byte.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import time
from http.client import HTTPResponse
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from sr_exporter.config import Config, Source
from tests.harness import Client, RunningApp, eventually, series
from tests.recorded_mi import (
    CLOSED,
    OTHER_METHODS,
    OTHER_SERVICES,
    SPLIT,
    TIMEOUT,
    Exchange,
    exchanges,
    result,
)
from tests.replay import ReplayMi

if TYPE_CHECKING:
    from collections.abc import Iterator

VERSION = "4.0"
RECORDED = [exchange for exchange in exchanges() if exchange.version == VERSION]

#: What is promised to be answered as it was recorded, by the beginnings of its names.
PROMISED = (
    *("get-", "status-", "reports-", "ids-", "new-status_report-", "id-", "method-", "no-"),
    *("batch", "jsonrpc-", "malformed", "unknown-"),
)
#: A real server gave a status and no end, closed the connection, or said nothing. Here there is an
#: end, and a body that says what is wrong.
MENDED = {
    "id-object": 400,
    "http-GET": 405,
    "http-GET-query": 405,
    "http-POST-empty": 400,
    "http-big-request-70k": 400,
    "http-ct-form": 400,
    "http-ct-text": 415,
    "http-ct-unknown": 415,
    "http-no-ct": 415,
}
#: Answered by a status alone, which has an end here.
NOTIFICATIONS = {"notification", "notification-unknown"}
#: What is not answered as it was recorded, and why.
OTHERWISE = {
    "version": "it is the exporter's",
    "uptime": "it is the exporter's",
    "which": "its methods are the exporter's",
    "new-core-which": "its methods are the exporter's",
    "new-local-get": "no other module here has a `get`",
    "new-local-status": "no other module here has a `status`",
    "http-path-other": "there are other routes here",
    "http-path-prefix": "there are other routes here",
    "http-path-root": "there are other routes here",
    "http-path-sub": "what is below /mi names a source",
}
LEFT_OUT = OTHERWISE | OTHER_METHODS | OTHER_SERVICES
SAME = [
    exchange for exchange in RECORDED if exchange.name not in {*MENDED, *NOTIFICATIONS, *LEFT_OUT}
]


@pytest.fixture(scope="module", autouse=True)
def _recorded_zone() -> Iterator[None]:
    """Run in the zone of the server that was recorded: dates do not name theirs."""
    before = os.environ.get("TZ")
    os.environ["TZ"] = "UTC"
    time.tzset()
    yield
    if before is None:
        del os.environ["TZ"]
    else:
        os.environ["TZ"] = before
    time.tzset()


class Loaded(NamedTuple):
    port: int
    #: Where what was recorded is asked about.
    path: bytes


@pytest.fixture(scope="module")
def pushed(tmp_path_factory) -> Iterator[Loaded]:
    with RunningApp(tmp_path_factory.mktemp("pushed")) as app:
        answer = app.client.push(*_items())
        assert answer.status_code == 200, answer.text
        yield Loaded(app.port, b"/mi")


@pytest.fixture(scope="module")
def polled(tmp_path_factory) -> Iterator[Loaded]:
    with ReplayMi(VERSION) as mi:
        config = Config(sources=(Source("sip-1", mi.url, poll_interval_seconds=60),))
        with RunningApp(tmp_path_factory.mktemp("polled"), config) as app:
            eventually(lambda: 1 in series(app.client.metrics(), "opensips_sr_source_up").values())
            yield Loaded(app.port, b"/mi/sip-1")


def _items() -> Iterator[dict[str, Any]]:
    """Give what was recorded as items of a push."""
    rings = {
        (group["Name"], ring["Name"]): ring["Reports"]
        for group in result(VERSION, "reports-noparams")
        for ring in group["Identifiers"]
    }
    for group in result(VERSION, "status-noparams"):
        for listed in group["Identifiers"]:
            key = group["Name"], listed["Name"]
            item = {"group": key[0], "identifier": key[1], "status": listed["Status"]}
            if "Details" in listed:
                item["details"] = listed["Details"]
            item["reports"] = [
                {"log": report["Log"], "timestamp": report["Timestamp"]} for report in rings[key]
            ]
            yield item


class Answer(NamedTuple):
    status: int
    content_type: str | None
    body: bytes


def ask(loaded: Loaded, exchange: Exchange) -> Answer:
    request = exchange.request.replace(b" /mi ", b" %b " % loaded.path)
    with socket.create_connection(("127.0.0.1", loaded.port), 10) as connection:
        for part in request.split(SPLIT):
            connection.sendall(part)
        method = request.partition(b" ")[0].decode()
        with HTTPResponse(connection, method=method) as answer:
            answer.begin()
            return Answer(answer.status, answer.getheader("Content-Type"), answer.read())


def recorded(exchange: Exchange) -> Answer:
    head = exchange.answer.partition(b"\r\n\r\n")[0].decode()
    _, found, rest = head.partition("Content-Type: ")
    content_type = rest.partition("\r\n")[0] if found else None
    if "100 Continue" in head:
        content_type = "application/json"
    return Answer(exchange.status or 0, content_type, exchange.answer_body)


def value(body: bytes) -> Any:
    """Read an answer; a log is held without the newline that some of OpenSIPS' end in."""

    def stripped(document: dict[str, Any]) -> dict[str, Any]:
        if "Log" in document:
            document["Log"] = document["Log"].removesuffix("\n")
        return document

    return json.loads(body, object_hook=stripped)


# --- what is compared -------------------------------------------------------------------------


def test_none_is_left_out_but_those_named():
    """Every recorded request is in one part of this file, and each part has no others."""
    names = {exchange.name for exchange in RECORDED}
    parts = [{one.name for one in SAME}, {*MENDED}, NOTIFICATIONS, {*OTHERWISE}]
    parts += [{*OTHER_METHODS}, {*OTHER_SERVICES}]
    assert sum(map(len, parts)) == len(names) > 110
    assert set().union(*parts) == names


def test_what_is_promised_is_compared():
    """Nothing of it is among the exceptions."""
    promised = [one.name for one in RECORDED if one.name.startswith(PROMISED)]
    for beginning in PROMISED:
        assert any(name.startswith(beginning) for name in promised), beginning
    assert not set(promised) & {*LEFT_OUT, *NOTIFICATIONS}


def test_what_is_mended_had_no_end():
    """As its recording shows; and nothing else had none."""
    endless = {
        one.name
        for one in RECORDED
        if (b"Transfer-Encoding: chunked" in one.answer and one.answer.endswith(TIMEOUT))
        or one.answer in (CLOSED, TIMEOUT)
    }
    assert endless - {*OTHER_METHODS, *OTHER_SERVICES} == {*MENDED, *NOTIFICATIONS}


# --- the comparison ---------------------------------------------------------------------------


@pytest.mark.parametrize("exchange", SAME, ids=str)
def test_what_was_pushed_is_answered_as_recorded(pushed, exchange):
    """Status, type and value, in the order in which it was pushed."""
    answer, expected = ask(pushed, exchange), recorded(exchange)
    assert (answer.status, answer.content_type) == (expected.status, expected.content_type)
    if expected.content_type == "application/json":
        assert value(answer.body) == value(expected.body)
    else:
        assert answer.body == expected.body


@pytest.mark.parametrize(
    "exchange", [one for one in SAME if not one.name.startswith("http-")], ids=str
)
def test_what_was_polled_is_answered_as_recorded(polled, exchange):
    """What a server says by way of the exporter is what it said, in its order."""
    answer, expected = ask(polled, exchange), recorded(exchange)
    assert (answer.status, answer.content_type) == (expected.status, expected.content_type)
    assert value(answer.body) == value(expected.body)


@pytest.mark.parametrize("name", MENDED)
def test_what_had_no_end_is_an_error(pushed, name):
    """Its status is the real server's where that gave one, but for one of its own faults."""
    exchange = Exchange(VERSION, name)
    answer = ask(pushed, exchange)
    assert (answer.status, answer.content_type) == (MENDED[name], "application/json")
    assert json.loads(answer.body)["error"]
    assert exchange.status in (None, 500, answer.status)


@pytest.mark.parametrize("name", sorted(NOTIFICATIONS))
def test_notifications_are_not_answered(pushed, name):
    """202, and nothing."""
    exchange = Exchange(VERSION, name)
    assert (
        ask(pushed, exchange)
        == (exchange.status, "application/json", b"")
        == (
            202,
            "application/json",
            b"",
        )
    )


@pytest.mark.parametrize("name", sorted(OTHER_METHODS))
def test_methods_of_other_modules_are_not_found(pushed, name):
    """No other is imitated."""
    answer = ask(pushed, Exchange(VERSION, name))
    assert json.loads(answer.body)["error"] == {"code": -32601, "message": "Method not found"}


def test_a_server_is_told_of_as_one(polled, pushed):
    """Its version and up time by way of the exporter; what is pushed is the exporter's."""
    server = value(ask(polled, Exchange(VERSION, "version")).body)["result"]["Server"]
    real = result(VERSION, "version")["Server"].partition(" (x86")[0]
    assert server.startswith(f"{real} (by way of sr-exporter ")
    ours = value(ask(pushed, Exchange(VERSION, "version")).body)["result"]["Server"]
    assert ours.startswith("sr-exporter (")
    up = value(ask(polled, Exchange(VERSION, "uptime")).body)["result"]
    assert set(up) == set(result(VERSION, "uptime"))
    assert int(up["Up time"].split()[0]) >= int(result(VERSION, "uptime")["Up time"].split()[0])


def test_an_exporter_polls_an_exporter(polled, tmp_path):
    """It is a server as any other: the same identifiers, statuses and reports, and its version."""
    url = f"http://127.0.0.1:{polled.port}/mi/sip-1"
    there = Client(f"http://127.0.0.1:{polled.port}")
    config = Config(sources=(Source("sip-1", url, poll_interval_seconds=60),))
    with contextlib.closing(there), RunningApp(tmp_path, config) as app:
        known = _told(there)
        assert len(known) > 2 * 300
        eventually(lambda: _told(app.client) == known)
        (info,) = series(app.client.metrics(), "opensips_sr_source_info", source="sip-1")
        assert ("version", "4.0.1") in info


def _told(client: Client) -> dict[Any, float]:
    """Give what is known of each identifier, and when it was last reported of."""
    found = client.metrics()
    families = ("opensips_sr_status", "opensips_sr_last_report_timestamp_seconds")
    return {
        (family, labels): value
        for family in families
        for labels, value in series(found, family, source="sip-1").items()
    }
