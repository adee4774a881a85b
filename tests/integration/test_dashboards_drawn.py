"""What the fleet's panels draw of a fleet that is known to the last number."""

from __future__ import annotations

import time

import pytest

from dashboards import generate
from dashboards.generator.states import KINDS
from tests.boards import asked, panels
from tests.prometheus import Past, sample

pytestmark = pytest.mark.real

BOARD = generate.overview()
SECONDS = 840
#: How long ago sip-3 was lost: longer than Prometheus looks back for a value.
LOST_SECONDS = 330
#: When statuses changed.
AGES = {"sip-1": 100.0, "sip-2": 200.0, "sip-3": 400.0}


def _series(name, value_at, *, until=SECONDS, **labels):
    """Write a series, with a sample each 15 s; nothing after `until`."""
    return [
        sample(name, value_at(at) if callable(value_at) else value_at, BEGIN + at, **labels)
        for at in range(0, until + 1, 15)
    ]


def _key(source, group, identifier, status, until=SECONDS):
    labels = {"source": source, "group": group, "identifier": identifier, "until": until}
    changed = END - AGES[source]
    return [
        *_series("opensips_sr_status", status, **labels),
        *_series("opensips_sr_ready", int(status > 0), **labels),
        *_series("opensips_sr_status_change_timestamp_seconds", changed, **labels),
        *_series("opensips_sr_last_report_timestamp_seconds", changed + 1, **labels),
        *_series("opensips_sr_status_changes_total", lambda at: at / 15, **labels),
        *_series(
            "opensips_sr_group_ready", int(status > 0), until=until, source=source, group=group
        ),
    ]


END = float(int(time.time()) - 3 * 3600)
BEGIN = END - SECONDS
_ALERT = {"alertname": "OpenSIPSSRCoreNotReady", "alertstate": "firing", "source": "sip-2"}
#: sip-1 is well but for one identifier, sip-2 initializes, sip-3 was lost a while ago.
FLEET = [
    *_series("sr_exporter_build_info", 1, version="0.1.0"),
    *(
        line
        for source in ("sip-1", "sip-2", "push", "sr_exporter")
        for labels in [{"source": source, "version": "4.0.1", "transport": "http"}]
        for line in (
            *_series("opensips_sr_source_info", 1, **labels),
            *_series("opensips_sr_source_last_seen_timestamp_seconds", END, source=source),
        )
    ),
    *_series("opensips_sr_source_up", 1, source="sip-1"),
    *_series("opensips_sr_source_up", 1, source="sip-2"),
    *_series("opensips_sr_source_up", lambda at: int(at <= SECONDS - LOST_SECONDS), source="sip-3"),
    *_key("sip-1", "core", "main", 1),
    *_key("sip-1", "drouting", "us", -2),
    *_key("sip-2", "core", "main", -1),
    *_key("sip-2", "drouting", "us", 2),
    *_series("opensips_sr_group_ready", 0, source="sip-2", group="alarms"),
    *_series("opensips_sr_group_ready", 1, source="push", group="trunks"),
    *_key("sip-3", "core", "main", 1, until=SECONDS - LOST_SECONDS),
    *_series("opensips_sr_identifiers", 1, source="sip-1", group="drouting", ready="false"),
    *_series("opensips_sr_identifiers", 7, source="sip-1", group="drouting", ready="true"),
    *_series("opensips_sr_identifiers", 1, source="sip-2", group="core", ready="false"),
    *(
        line
        for subject in ("gw1", "gw2")
        for line in _series(
            "opensips_sr_reported_ready",
            0,
            source="sip-1",
            group="drouting",
            identifier="us;events",
            subject=subject,
        )
    ),
    *_series("opensips_sr_status_changes_missed_total", 0, source="sip-1"),
    *_series("opensips_sr_report_overruns_total", 3, source="sip-1"),
    *_series("ALERTS", 1, **_ALERT),
    *_series("ALERTS", 1, alertname="SRExporterDown", alertstate="pending"),
    *_series("ALERTS", 1, alertname="Other", alertstate="firing"),
]

_CORE, _TABLE = KINDS["core"].offset, KINDS["table"].offset
_US, _CORE_2 = ("sip-1", "drouting", "us"), ("sip-2", "core", "main")
#: What each query of each panel gives for that fleet, by the values of the labels.
DRAWN = {
    "Sources": [{(): 4}],
    "Sources down": [{(): 1}],
    "Cores not ready": [{(): 1}],
    "Identifiers not ready": [{(): 2}],
    "Reported not ready": [{(): 2}],
    # Of four keys the status changed at each of 56 scrapes, and of one until it was lost: 34.
    "Changes in 1 h": [{(): pytest.approx(4 * 56 + 34, rel=0.02)}],
    "Missed in 1 h": [{(): 0}],
    "Alerts firing": [{(): 1}],
    "Core of each server": [{("sip-1",): 1, ("sip-2",): -1, ("sip-3",): 0}],
    "Groups": [
        {
            ("sip-1", "core"): _CORE + 1,
            ("sip-1", "drouting"): _TABLE - 2,
            ("sip-2", "core"): _CORE - 1,
            ("sip-2", "drouting"): _TABLE + 2,
            ("sip-2", "alarms"): -1,
            ("push", "trunks"): 1,
            ("sip-3", "core"): 0,
        }
    ],
    "Not ready now": [
        {_US: _TABLE - 2, _CORE_2: _CORE - 1},
        {_US: 1000 * (END - 100), _CORE_2: 1000 * (END - 200)},
        {_US: 1000 * (END - 99), _CORE_2: 1000 * (END - 199)},
        {_US: -2, _CORE_2: -1},
    ],
    "Status changes": [{("sip-1",): pytest.approx(8), ("sip-2",): pytest.approx(8)}],
    "Sources disagree": [
        {("drouting", "us"): 1, ("core", "main"): 1},
        {("drouting", "us"): 1, ("core", "main"): 1},
    ],
    "Versions": [
        {(source, "4.0.1", "http"): 1000 * END for source in ("sip-1", "sip-2", "push")},
    ],
}
_ORDER = ("source", "group", "identifier", "version", "transport")


def _drawn(prometheus):
    """Ask as the panels do; give the values by the labels' values, in a fixed order."""
    return {
        panel["title"]: [
            {
                tuple(dict(labels)[name] for name in _ORDER if name in dict(labels)): value
                for labels, value in prometheus.now(asked(one["expr"], BOARD), END).items()
            }
            for one in panel["targets"]
        ]
        for panel in panels(BOARD)
    }


def test_the_fleet_is_drawn_as_it_is(tmp_path):
    """Every expression of every panel gives the right numbers while things are broken."""
    with Past(tmp_path, FLEET) as prometheus:
        found = _drawn(prometheus)
    for title, expected in DRAWN.items():
        assert found[title] == expected, title
    assert set(found) == set(DRAWN)


def test_a_second_exporter_of_the_same_fleet_draws_the_same(tmp_path):
    """Nothing is counted twice because two say it."""
    beside = [
        line.replace("mon-1:9797", "mon-2:9797") for line in FLEET if not line.startswith("ALERTS")
    ]
    with Past(tmp_path, [*FLEET, *beside]) as prometheus:
        found = _drawn(prometheus)
    assert found == DRAWN


def test_a_source_that_two_exporters_poll_is_down_once(tmp_path):
    """The exporter's own board counts sources there, not who says so."""
    series = [
        line
        for instance, up in (("mon-1:9797", 1), ("mon-2:9797", 0), ("mon-3:9797", 0))
        for line in _series("opensips_sr_source_up", up, source="sip-1", instance=instance)
    ]
    board = generate.exporter()
    panel = next(one for one in panels(board) if one["title"] == "Sources down")
    with Past(tmp_path, series) as prometheus:
        found = prometheus.now(asked(panel["targets"][0]["expr"], board), END)
    assert list(found.values()) == [1]


def test_nothing_is_drawn_where_nothing_is_known(tmp_path):
    """Without any exporter every panel is empty: no green 0 that nobody has measured."""
    others = _series("up", 1, job="node", instance="x")
    with Past(tmp_path, others) as prometheus:
        found = _drawn(prometheus)
    assert found == {title: [{} for _ in queries] for title, queries in DRAWN.items()}
