"""One alert, told by our webhook and by a real Alertmanager's: the same, but for what is newer."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import pytest

from sr_exporter.config import Alertmanager, Config, SecretUrl, Webhook
from tests.harness import RunningApp
from tests.integration.test_alerting import alertmanager
from tests.receiver import Receiver

#: Keys of Alertmanager's newer releases (0.32 and 0.34), which Debian's does not have.
NEWER = {"notification_reason": str, "routeLabels": dict}
#: What names the sender, or is when it was sent.
OWN = {"externalURL"}
TIMES = ("startsAt", "endsAt")
NAME = "on.call (1)"
STRANGE = "\t\r\n\a\b\f\v\x1b\x7f\x85\xa0\u200b\ufeff\U0001f600\U000e0001"


def route(receiver: Receiver) -> str:
    return f"""
route:
  receiver: '{NAME}'
  group_by: [alertname, source, group, identifier]
  group_wait: 0s
  group_interval: 1s
receivers:
  - name: '{NAME}'
    webhook_configs: [{{url: '{receiver.url}', send_resolved: true}}]
"""


def shape(value: Any) -> Any:
    """Give the types in a value, all the way down."""
    if isinstance(value, dict):
        return {name: shape(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [shape(inner) for inner in value]
    return type(value)


def timeless(body: dict[str, Any]) -> dict[str, Any]:
    """Give what is to be the same of both, text by text."""
    kept = {name: value for name, value in body.items() if name not in {*NEWER, *OWN}}
    kept["alerts"] = [
        {name: value for name, value in one.items() if name not in TIMES} for one in body["alerts"]
    ]
    return kept


def times(body: dict[str, Any]) -> tuple[datetime, ...]:
    return tuple(datetime.fromisoformat(body["alerts"][0][name]) for name in TIMES)


@pytest.mark.real
@pytest.mark.parametrize(
    "item",
    [
        {"source": "sbc", "group": "dispatcher", "identifier": "main", "details": "no gateway"},
        # Whatever Go and we quote, and hash, in our own ways.
        {
            "source": 'sbc "1"\\n',
            "group": "drouting;carriers,{a}=b",
            "identifier": f"sip:áé漢@host:5060;{STRANGE}",
            "details": "two\nlines, <html> & \u2028 'quotes' \"",
            "reports": ["one", "two\n", "größer"],
        },
    ],
    ids=["plain", "strange"],
)
def test_our_payload_is_that_of_a_real_alertmanager(tmp_path, item):
    """Same keys, plus exactly two of newer releases; same types; same fingerprint and group."""
    with (
        Receiver() as ours,
        Receiver() as theirs,
        alertmanager(tmp_path, config=route(theirs)) as running,
    ):
        config = Config(
            notifiers=(
                Alertmanager("am", (running.url,)),
                Webhook(NAME, SecretUrl(ours.url)),
            )
        )
        with RunningApp(tmp_path / "data", config) as app:
            for count, (status, told) in enumerate(((-1, "firing"), (1, "resolved")), 1):
                details = {"details": item["details"]} if status < 0 else {}
                said = {**item, **details, "status": status}
                app.client.push(said).raise_for_status()
                our = ours.wait_for(count)[-1]
                real = theirs.wait_for(count, within=30)[-1]
                compared(our.body, real.body, told)
                assert our.headers["Content-Type"] == real.headers["Content-Type"]


def compared(our: dict[str, Any], real: dict[str, Any], told: str) -> None:
    assert our["status"] == real["status"] == told
    assert {name: type(our[name]) for name in our.keys() - real.keys()} == NEWER
    assert real.keys() <= our.keys()
    assert shape({name: our[name] for name in real}) == shape(real)
    if told == "firing":
        assert timeless(our) == timeless(real)
        assert times(our) == times(real)
        assert our["alerts"][0]["endsAt"] == real["alerts"][0]["endsAt"]
    else:
        # Ours says how the key recovered; an Alertmanager repeats what it was told last.
        for name in ("labels", "fingerprint", "generatorURL"):
            assert our["alerts"][0][name] == real["alerts"][0][name]
        for name in ("groupKey", "groupLabels", "commonLabels", "receiver", "truncatedAlerts"):
            assert our[name] == real[name]
        assert times(our)[0] == times(real)[0]
        assert all(end > start for start, end in map(times, (our, real)))
