"""Recorded servers are polled: what they said is what is shown, and nothing hurts them."""

from __future__ import annotations

import contextlib
import json
import socket
import time

import pytest

from sr_exporter.config import Config, Source
from tests.harness import RunningApp, eventually, samples, series
from tests.replay import RECORDINGS, ReplayMi, body_of, recorded, with_body

VERSIONS = ("3.6", "4.0", "master")


def _said(answer: bytes) -> list[dict]:
    """Read a recorded listing without any code of ours."""
    return json.loads(body_of(answer).decode("utf-8", "replace"))["result"]


def _polled(mi: ReplayMi) -> Config:
    return Config(sources=(Source("sip-1", mi.url, poll_interval_seconds=0.1, max_share=1.0),))


def _labels(group: str, identifier: str) -> tuple[tuple[str, str], ...]:
    return (("group", group), ("identifier", identifier), ("source", "sip-1"))


def _expect(found, statuses: list[dict], reports: list[dict]) -> None:
    """Hold what is shown against what was listed: every key, and no other."""
    listed = {
        _labels(group["Name"], item["Name"]): item
        for group in statuses
        for item in group["Identifiers"]
    }
    rings = {
        _labels(group["Name"], item["Name"]): item["Reports"]
        for group in reports
        for item in group["Identifiers"]
    }
    assert series(found, "opensips_sr_status", source="sip-1") == {
        labels: float(item["Status"]) for labels, item in listed.items()
    }
    assert series(found, "opensips_sr_ready", source="sip-1") == {
        labels: float(item["Readiness"]) for labels, item in listed.items()
    }
    assert series(found, "opensips_sr_reports_total", source="sip-1") == {
        labels: float(len(rings[labels])) for labels in listed
    }
    assert series(found, "opensips_sr_last_report_timestamp_seconds", source="sip-1") == {
        labels: float(ring[-1]["Timestamp"]) for labels, ring in rings.items() if ring
    }
    groups = {group["Name"]: group["Identifiers"] for group in statuses}
    assert series(found, "opensips_sr_group_ready", source="sip-1") == {
        (("group", name), ("source", "sip-1")): float(all(i["Readiness"] for i in items))
        for name, items in groups.items()
    }


@pytest.mark.parametrize("version", VERSIONS)
def test_everything_a_recorded_server_lists_is_shown(version, tmp_path):
    """Every group, identifier, status, readiness and report count equals the recording."""
    with ReplayMi(version) as mi, RunningApp(tmp_path, _polled(mi)) as app:
        eventually(
            lambda: series(app.client.metrics(), "opensips_sr_source_up") and mi.asked["uptime"] > 2
        )
        found = app.client.metrics()
        _expect(
            found,
            _said(recorded(version, "status-noparams")),
            _said(recorded(version, "reports-noparams")),
        )
        assert set(series(found, "opensips_sr_source_up").values()) == {1.0}
        shown = {"3.6": "3.6.8", "4.0": "4.0.1", "master": "4.1.0-dev"}[version]
        assert series(found, "opensips_sr_source_info", version=shown, transport="http")
        assert mi.asked["version"] == 1
    assert mi.violations == []


def test_the_hanging_empty_500_is_seen_at_once_and_groups_are_asked_one_by_one(tmp_path):
    """An answer that never ends is judged by its status line, and its connection closed; what
    was too big as a whole comes in parts (rule 11).
    """
    hanging = (RECORDINGS / "4.0" / "big" / "N30000-sr_list_status.res").read_bytes()
    good = recorded("4.0", "status-noparams")
    with (
        ReplayMi("4.0", {"sr_list_status": [hanging, good]}) as mi,
        RunningApp(tmp_path, _polled(mi)) as app,
    ):
        began = time.monotonic()
        eventually(
            lambda: set(series(app.client.metrics(), "opensips_sr_source_up").values()) == {1.0}
        )
        assert time.monotonic() - began < 4.0, "it waited for the time-out of 5 s"
        found = app.client.metrics()
        failures = series(found, "opensips_sr_poll_failures_total", reason="http_status")
        assert set(failures.values()) == {0.0}
        assert mi.asked["sr_list_identifiers"] > 0
        _expect(found, _said(good), _said(recorded("4.0", "reports-noparams")))
    assert mi.violations == []


@pytest.mark.parametrize("name", ["bad_ff", "bad_trunc", "bad_surr"])
def test_invalid_utf8_costs_no_other_identifier(name, tmp_path):
    """Recorded invalid bytes in details and logs: the whole list is shown all the same."""
    raw = (RECORDINGS / "4.0" / "escaping" / f"esc-{name}.json").read_bytes()
    bad = raw.partition(b'"Details":"')[2].rpartition(b'"},"id"')[0]
    with contextlib.suppress(UnicodeDecodeError):
        bad.decode()
        pytest.fail("the recording is valid UTF-8")
    answers = {}
    for method, listing in (("sr_list_status", "status"), ("sr_list_reports", "reports")):
        answer = recorded("4.0", f"{listing}-noparams")
        old = b"trunk down" if listing == "status" else b"toggle number 2"
        assert old in answer
        answers[method] = [with_body(answer, body_of(answer).replace(old, bad))]
    with ReplayMi("4.0", answers) as mi, RunningApp(tmp_path, _polled(mi)) as app:
        eventually(lambda: mi.asked["sr_list_status"] > 1)
        _expect(
            app.client.metrics(),
            _said(answers["sr_list_status"][0]),
            _said(answers["sr_list_reports"][0]),
        )
        page = app.client.session.get(f"{app.base}/?group=alarms", timeout=10).text
        assert bad.decode("utf-8", "replace") in page
    assert mi.violations == []


@pytest.mark.harmful
@pytest.mark.parametrize(
    ("sent", "violation"),
    [
        (b'[{"jsonrpc":"2.0","method":"version","id":1}]', "a batch"),
        (b'{"jsonrpc":"2.0","method":"version"}', "a notification"),
        (b'{"jsonrpc":"2.0","id":1}', "no string method"),
        (b'{"jsonrpc":"2.0","method":5,"id":1}', "no string method"),
        (b'{"jsonrpc":"2.0","method":"version","id":1,"params":[]}', "params"),
        (b'{"jsonrpc":"2.0","method":"version","id":4294967297}', "no small integer id"),
        (b'{"jsonrpc":"2.0","method":"subscribers_list","id":1}', "subscribers_list"),
        (b'{"jsonrpc":"2.0","method":"version","id":1,"pad":"%s"}' % (b"x" * 1024), "a body of"),
    ],
)
def test_the_replay_sees_what_would_hurt_a_server(sent, violation):
    """The guard is no decoration: each harmful request is written down."""
    with ReplayMi("4.0") as mi:
        _send(mi, sent)
        eventually(lambda: [one for one in mi.violations if one.startswith(violation)])


@pytest.mark.harmful
def test_the_replay_sees_a_second_request_in_flight():
    """Two requests at once, on two connections, are two violations."""
    hanging = (RECORDINGS / "4.0" / "big" / "N30000-sr_list_status.res").read_bytes()
    request = b'{"jsonrpc":"2.0","method":"sr_list_status","id":1}'
    with ReplayMi("4.0", {"sr_list_status": [hanging]}) as mi:
        with _connect(mi) as first, _connect(mi) as second:
            first.sendall(_post(request))
            eventually(lambda: mi.asked["sr_list_status"] == 1)
            second.sendall(_post(request))
            eventually(lambda: "a second request in flight" in mi.violations)
        assert "a second connection at the same time" in mi.violations


def _connect(mi: ReplayMi) -> socket.socket:
    return socket.create_connection(("127.0.0.1", mi.port), timeout=5)


def _post(body: bytes) -> bytes:
    return (
        b"POST /mi HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        b"Content-Length: %d\r\n\r\n%s" % (len(body), body)
    )


def _send(mi: ReplayMi, body: bytes) -> None:
    with _connect(mi) as connection:
        connection.sendall(_post(body))
        connection.recv(65536)


def test_a_listing_read_back_from_text_is_what_was_served(tmp_path):
    """The reading used by these tests is not blind: a changed status is seen as different."""
    answer = recorded("4.0", "status-noparams")
    changed = with_body(answer, body_of(answer).replace(b'"Status":-2,', b'"Status":-7,', 1))
    with (
        ReplayMi("4.0", {"sr_list_status": [changed]}) as mi,
        RunningApp(tmp_path, _polled(mi)) as app,
    ):
        eventually(lambda: mi.asked["sr_list_status"] > 1)
        text = app.client.session.get(f"{app.base}/metrics", timeout=10).text
        with pytest.raises(AssertionError):
            _expect(samples(text), _said(answer), _said(recorded("4.0", "reports-noparams")))
