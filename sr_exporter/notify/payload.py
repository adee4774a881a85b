"""Alerts to the bytes receivers take. Pure.

The webhook format is Alertmanager's version 4 with the keys of 0.34 (facts, section 2), so
that any receiver that takes Alertmanager's takes ours.
"""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING

import msgspec

from sr_exporter.notify.alerts import ZERO_TIME, Alert, rfc3339
from sr_exporter.store.contract import Gist, Standing

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from sr_exporter.store.contract import AlertRecord, Owed

#: How far ahead a firing alert ends unless it is sent again: Prometheus' 4 x resend delay.
ENDS_AFTER_SECONDS = 240.0

FIRING, RESOLVED = "firing", "resolved"
#: In Alertmanager's words, why there is a notification.
FIRST, MORE, OVER = "first notification", "new alerts added", "all alerts resolved"
#: What a notification is about: everything of an alert's identity but the operator's part.
GROUP_LABELS = ("alertname", "source", "group", "identifier", "subject")
#: What Go writes as a backslash and a letter: BEL to CR, in the order of their codes.
_GO_SHORT = {"\\": r"\\", '"': r"\""} | dict(
    zip("\a\b\t\n\v\f\r", (rf"\{letter}" for letter in "abtnvfr"), strict=True)
)
_GO_META = re.compile(r"[\\.+*?()|\[\]{}^$]")


class _Labelled(msgspec.Struct):
    labels: dict[str, str]


class _Notification(msgspec.Struct):
    status: str
    alerts: list[_Labelled]


class _Whole(_Labelled, rename={"starts_at": "startsAt", "generator_url": "generatorURL"}):
    annotations: dict[str, str]
    starts_at: str
    generator_url: str


class _WholeNotification(msgspec.Struct):
    alerts: list[_Whole]


class _Member(
    msgspec.Struct, rename={"external_url": "externalURL", "reason": "notification_reason"}
):
    receiver: str
    external_url: str
    reason: str
    alerts: list[msgspec.Raw]


class _Told(_Labelled):
    annotations: dict[str, str]
    status: str


_decode_member = msgspec.json.Decoder(_Member).decode
_decode_told = msgspec.json.Decoder(_Told).decode
_decode_whole = msgspec.json.Decoder(_WholeNotification).decode
_decode = msgspec.json.Decoder(_Notification).decode


def webhook(
    alert: Alert, *, receiver: str, external_url: str, resolved_at: float | None, reason: str
) -> bytes:
    """Write a notification of one alert; `resolved_at` is None while it fires."""
    status = FIRING if resolved_at is None else RESOLVED
    group = {name: alert.labels[name] for name in GROUP_LABELS if name in alert.labels}
    ends_at = ZERO_TIME if resolved_at is None else rfc3339(max(resolved_at, alert.starts_at))
    return _notification(
        group=group,
        receiver=_GO_META.sub(r"\\\g<0>", receiver),
        status=status,
        alerts=[
            {
                "status": status,
                "labels": alert.labels,
                "annotations": alert.annotations,
                "startsAt": rfc3339(alert.starts_at),
                "endsAt": ends_at,
                "generatorURL": alert.generator_url,
                "fingerprint": alert.fingerprint,
            }
        ],
        labels=alert.labels,
        annotations=alert.annotations,
        external_url=external_url,
        reason=reason,
    )


def webhook_of_source(webhook_bodies: Sequence[bytes]) -> bytes:
    """Write one notification of what several that `webhook` wrote tell of one source.

    Each alert is told as it was. The same bodies make the same bytes.
    """
    members = [_decode_member(body) for body in webhook_bodies]
    alerts = [_decode_told(member.alerts[0]) for member in members]
    firing = any(one.status == FIRING for one in alerts)
    labels = _common([one.labels for one in alerts])
    return _notification(
        group={"source": labels["source"]} if "source" in labels else {},
        receiver=members[0].receiver,
        status=FIRING if firing else RESOLVED,
        alerts=[member.alerts[0] for member in members],
        labels=labels,
        annotations=_common([one.annotations for one in alerts]),
        external_url=members[0].external_url,
        reason=_reason({member.reason for member in members}, firing=firing),
    )


def _notification(
    *,
    group: dict[str, str],
    receiver: str,
    status: str,
    alerts: Sequence[object],
    labels: dict[str, str],
    annotations: dict[str, str],
    external_url: str,
    reason: str,
) -> bytes:
    return msgspec.json.encode(
        {
            "version": "4",
            "groupKey": f"{{}}:{_go_labels(group)}",
            "truncatedAlerts": 0,
            "receiver": receiver,
            "status": status,
            "alerts": alerts,
            "groupLabels": group,
            "commonLabels": labels,
            "commonAnnotations": annotations,
            "externalURL": external_url,
            "notification_reason": reason,
            "routeLabels": {},
        }
    )


def _common(texts: list[dict[str, str]]) -> dict[str, str]:
    """Give what all of these say in the same words."""
    first = texts[0]
    return {
        name: text for name, text in first.items() if all(one.get(name) == text for one in texts)
    }


def _reason(reasons: set[str], *, firing: bool) -> str:
    """Say why there is a notification, as Alertmanager decides it: what fires comes first."""
    if not firing:
        return OVER
    return FIRST if reasons == {FIRST} else MORE


def gist(owed: Owed) -> Gist:
    """Give what must be known of a notification that `webhook` wrote."""
    if owed.gist is not None:
        return owed.gist
    said = _decode(owed.whole)
    return Gist(said.alerts[0].labels, said.status == FIRING)


def without_body(owed: Owed) -> Owed:
    """Leave its body to the store, with a note of what it says."""
    if owed.body is None:
        return owed
    return replace(owed, gist=gist(owed), size=len(owed.body), body=None)


def believed(owed: Owed) -> dict[str, str] | None:
    """Give the labels of the alert that fires for who took this notification, if one does."""
    said = gist(owed)
    return said.labels if said.firing else None


def is_end_held(owed: Owed) -> bool:
    """Say whether a row holds back the end of an alert, and not its beginning."""
    return owed.standing is Standing.HELD and not gist(owed).firing


def alert(webhook_body: bytes) -> Alert:
    """Read the alert of a notification that `webhook` wrote."""
    said = _decode_whole(webhook_body).alerts[0]
    return Alert(
        said.labels,
        said.annotations,
        datetime.fromisoformat(said.starts_at).timestamp(),
        said.generator_url,
    )


def alertmanager(records: Iterable[AlertRecord], now: float) -> bytes:
    """Write the body of `POST /api/v2/alerts`."""
    return msgspec.json.encode(
        [
            {
                "labels": record.labels,
                "annotations": record.annotations,
                "startsAt": rfc3339(min(record.starts_at, _ends_at(record, now), now)),
                "endsAt": rfc3339(_ends_at(record, now)),
                "generatorURL": record.generator_url,
            }
            for record in records
        ]
    )


def _ends_at(record: AlertRecord, now: float) -> float:
    """Give when an alert ends. One that is over ends in no future of a clock that was set back."""
    if record.resolved_at is None:
        return now + ENDS_AFTER_SECONDS
    return min(max(record.resolved_at, record.starts_at), now)


def _go_labels(labels: dict[str, str]) -> str:
    """Write labels as Go's model.LabelSet prints: `{a="x", b="y"}`, sorted, quoted."""
    pairs = (f"{name}={_go_quoted(labels[name])}" for name in sorted(labels))
    return "{" + ", ".join(pairs) + "}"


def _go_quoted(text: str) -> str:
    """Write a string as Go's strconv.Quote does."""
    if text.isprintable() and _GO_SHORT.keys().isdisjoint(text):
        return f'"{text}"'
    return '"' + "".join(map(_go_escaped, text)) + '"'


def _go_escaped(letter: str) -> str:
    if letter in _GO_SHORT:
        return _GO_SHORT[letter]
    if letter.isprintable():
        return letter
    code = ord(letter)
    if code < 0x80:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
