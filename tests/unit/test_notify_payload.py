"""The bytes receivers take: Alertmanager's webhook version 4, and what Alertmanager reads."""

from __future__ import annotations

import json
import re

import pytest

from sr_exporter.notify import payload
from sr_exporter.notify.alerts import Alert, fingerprint
from sr_exporter.store.contract import AlertRecord

NOW = 1795377166.0
LABELS = {
    "alertname": "OpenSIPSNotReady",
    "source": "sip-1",
    "group": "drouting",
    "identifier": 'u"s\\',
    "severity": "warning",
    "team": "voice",
}
ALERT = Alert(
    labels=LABELS,
    annotations={"summary": "s", "description": "d"},
    starts_at=NOW,
    generator_url="http://sr/sources/sip-1?group=drouting",
)


def webhook(
    alert: Alert = ALERT, *, resolved_at: float | None = None, receiver: str = "oncall"
) -> dict[str, object]:
    body = payload.webhook(
        alert,
        receiver=receiver,
        external_url="http://sr",
        resolved_at=resolved_at,
        reason="first notification",
    )
    document: dict[str, object] = json.loads(body)
    return document


GOLDEN = (
    '{"version":"4",'
    r'"groupKey":"{}:{alertname=\"OpenSIPSNotReady\", group=\"drouting\", '
    r'identifier=\"u\\\"s\\\\\", source=\"sip-1\"}",'
    '"truncatedAlerts":0,"receiver":"oncall","status":"firing","alerts":[{"status":"firing",'
    '"labels":{"alertname":"OpenSIPSNotReady","source":"sip-1","group":"drouting",'
    r'"identifier":"u\"s\\","severity":"warning","team":"voice"},'
    '"annotations":{"summary":"s","description":"d"},'
    '"startsAt":"2026-11-22T19:52:46.000000Z","endsAt":"0001-01-01T00:00:00Z",'
    '"generatorURL":"http://sr/sources/sip-1?group=drouting","fingerprint":"%s"}],'
    '"groupLabels":{"alertname":"OpenSIPSNotReady","source":"sip-1","group":"drouting",'
    r'"identifier":"u\"s\\"},'
    '"commonLabels":{"alertname":"OpenSIPSNotReady","source":"sip-1","group":"drouting",'
    r'"identifier":"u\"s\\","severity":"warning","team":"voice"},'
    '"commonAnnotations":{"summary":"s","description":"d"},"externalURL":"http://sr",'
    '"notification_reason":"first notification","routeLabels":{}}'
)


def test_a_webhook_byte_for_byte():
    """A change here is a change for every receiver."""
    body = payload.webhook(
        ALERT,
        receiver="oncall",
        external_url="http://sr",
        resolved_at=None,
        reason="first notification",
    )
    assert body.decode() == GOLDEN.replace("%s", fingerprint(LABELS))


TOP = {
    "version": str,
    "groupKey": str,
    "truncatedAlerts": int,
    "receiver": str,
    "status": str,
    "alerts": list,
    "groupLabels": dict,
    "commonLabels": dict,
    "commonAnnotations": dict,
    "externalURL": str,
    "notification_reason": str,
    "routeLabels": dict,
}
IN_ALERT = {
    "status": str,
    "labels": dict,
    "annotations": dict,
    "startsAt": str,
    "endsAt": str,
    "generatorURL": str,
    "fingerprint": str,
}


@pytest.mark.parametrize("resolved_at", [None, NOW + 1])
@pytest.mark.parametrize("alert", [ALERT, Alert({"alertname": "x"}, {}, 0.0, "")])
def test_every_key_is_there_with_its_type(alert, resolved_at):
    """All keys of version 4 and no other, maps never null, and all values texts."""
    document = webhook(alert, resolved_at=resolved_at)
    assert {key: type(value) for key, value in document.items()} == TOP
    (one,) = document["alerts"]  # type: ignore[misc]
    assert {key: type(value) for key, value in one.items()} == IN_ALERT  # type: ignore[has-type]
    for name in ("groupLabels", "commonLabels", "commonAnnotations", "routeLabels"):
        assert all(type(value) is str for value in document[name].values())  # type: ignore[attr-defined]
    assert re.fullmatch("[0-9a-f]{16}", one["fingerprint"])
    assert document["version"] == "4"
    assert document["truncatedAlerts"] == 0
    assert one["labels"] == document["commonLabels"] == alert.labels
    assert one["annotations"] == document["commonAnnotations"] == alert.annotations


@pytest.mark.parametrize(
    ("resolved_at", "status", "ends_at"),
    [
        (None, "firing", "0001-01-01T00:00:00Z"),
        (NOW + 60, "resolved", "2026-11-22T19:53:46.000000Z"),
        (NOW, "resolved", "2026-11-22T19:52:46.000000Z"),
        (NOW - 60, "resolved", "2026-11-22T19:52:46.000000Z"),
    ],
)
def test_ends(resolved_at, status, ends_at):
    """Firing has Go's zero time for an end; an end is never before its start."""
    document = webhook(resolved_at=resolved_at)
    (one,) = document["alerts"]  # type: ignore[misc]
    assert document["status"] == one["status"] == status  # type: ignore[has-type]
    assert one["endsAt"] == ends_at
    assert one["startsAt"] == "2026-11-22T19:52:46.000000Z"


@pytest.mark.parametrize(
    ("receiver", "quoted"),
    [
        ("oncall", "oncall"),
        ("on-call_1", "on-call_1"),
        ("a.b", r"a\.b"),
        (r"\.+*?()|[]{}^$", r"\\\.\+\*\?\(\)\|\[\]\{\}\^\$"),
        ("ü /", "ü /"),
    ],
)
def test_the_receiver_is_quoted_as_for_a_regular_expression(receiver, quoted):
    """So Alertmanager has it, since receivers may be matched by one."""
    assert webhook(receiver=receiver)["receiver"] == quoted


def test_the_group_key_is_of_what_it_is_about():
    """Severity and the operator's own labels may change; what it is about does not."""
    source = Alert(
        {"alertname": "OpenSIPSSourceDown", "source": "a\nb", "severity": "x"}, {}, 0, ""
    )
    document = webhook(source)
    assert document["groupKey"] == r'{}:{alertname="OpenSIPSSourceDown", source="a\nb"}'
    source.labels["source"] = "\x01\u200b\u00e9"
    assert webhook(source)["groupKey"] == (
        '{}:{alertname="OpenSIPSSourceDown", source="\\x01\\u200b\u00e9"}'
    )
    assert document["groupLabels"] == {"alertname": "OpenSIPSSourceDown", "source": "a\nb"}


# --- of a source -----------------------------------------------------------------------------


def member(name: str, *, resolved: bool = False, reason: str = payload.FIRST) -> bytes:
    labels = {**LABELS, "identifier": name}
    return payload.webhook(
        Alert(labels, {"summary": f"{name} is down", "status": "-1"}, NOW, "http://sr/x"),
        receiver="on.call",
        external_url="http://sr",
        resolved_at=NOW + 1 if resolved else None,
        reason=reason,
    )


def test_a_notification_of_a_source_byte_for_byte():
    """What all alerts say alike is common; each alert is there as it is by itself."""
    members = [member("a"), member("b")]
    alerts = [json.loads(body)["alerts"][0] for body in members]
    assert payload.webhook_of_source(members).decode() == json.dumps(
        {
            "version": "4",
            "groupKey": '{}:{source="sip-1"}',
            "truncatedAlerts": 0,
            "receiver": r"on\.call",
            "status": "firing",
            "alerts": alerts,
            "groupLabels": {"source": "sip-1"},
            "commonLabels": {name: LABELS[name] for name in LABELS if name != "identifier"},
            "commonAnnotations": {"status": "-1"},
            "externalURL": "http://sr",
            "notification_reason": "first notification",
            "routeLabels": {},
        },
        separators=(",", ":"),
    )


def test_a_notification_of_a_source_may_hold_one_alert():
    """It has every key of the version, and all of the alert is common."""
    one, alone = json.loads(payload.webhook_of_source([member("a")])), json.loads(member("a"))
    assert one == {
        **alone,
        "groupKey": '{}:{source="sip-1"}',
        "groupLabels": {"source": "sip-1"},
    }


def test_what_is_of_no_source_is_of_the_group_of_everything():
    """As Alertmanager has it for a route that groups by nothing."""
    body = payload.webhook(
        Alert({"alertname": "x"}, {}, 0.0, ""),
        receiver="r",
        external_url="",
        resolved_at=None,
        reason=payload.FIRST,
    )
    document = json.loads(payload.webhook_of_source([body]))
    assert (document["groupKey"], document["groupLabels"]) == ("{}:{}", {})


@pytest.mark.parametrize(
    ("members", "status", "reason"),
    [
        ([member("a"), member("b")], "firing", "first notification"),
        ([member("a"), member("b", reason=payload.MORE)], "firing", "new alerts added"),
        (
            [member("a"), member("b", resolved=True, reason=payload.OVER)],
            "firing",
            "new alerts added",
        ),
        (
            [member(name, resolved=True, reason=payload.OVER) for name in "ab"],
            "resolved",
            "all alerts resolved",
        ),
    ],
)
def test_what_fires_decides_the_status_and_the_reason(members, status, reason):
    """A notification fires if any alert of it does."""
    document = json.loads(payload.webhook_of_source(members))
    assert (document["status"], document["notification_reason"]) == (status, reason)


def record(starts_at: float, resolved_at: float | None) -> AlertRecord:
    return AlertRecord(
        "f",
        {"alertname": "x", "source": "ü"},
        {"summary": "s"},
        starts_at,
        resolved_at,
        "http://sr",
    )


def test_an_alertmanager_body():
    """Firing alerts end four minutes ahead unless sent again; resolved ones when they did."""
    body = payload.alertmanager(
        [record(NOW, None), record(NOW - 60, NOW - 1), record(NOW, NOW - 5)], NOW + 1
    )
    common = {
        "labels": {"alertname": "x", "source": "ü"},
        "annotations": {"summary": "s"},
        "generatorURL": "http://sr",
    }
    assert json.loads(body) == [
        common
        | {"startsAt": "2026-11-22T19:52:46.000000Z", "endsAt": "2026-11-22T19:56:47.000000Z"},
        common
        | {"startsAt": "2026-11-22T19:51:46.000000Z", "endsAt": "2026-11-22T19:52:45.000000Z"},
        common
        | {"startsAt": "2026-11-22T19:52:46.000000Z", "endsAt": "2026-11-22T19:52:46.000000Z"},
    ]


def test_nothing_is_of_the_future_after_a_clock_was_set_back():
    """What ends before it begins is refused, and what ends later fires until then."""
    ahead = NOW + 3600
    for one in (record(ahead, None), record(ahead, ahead + 5), record(ahead, NOW - 5)):
        ((start, end),) = (
            (said["startsAt"], said["endsAt"])
            for said in json.loads(payload.alertmanager([one], NOW))
        )
        assert start == "2026-11-22T19:52:46.000000Z"
        assert end == (start if one.resolved_at else "2026-11-22T19:56:46.000000Z")


def test_no_alerts_are_an_empty_list():
    """Alertmanager takes an empty array, and no null."""
    assert payload.alertmanager([], NOW) == b"[]"
