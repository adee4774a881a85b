"""What stands around the panels of every dashboard: variables, annotations, links."""

from __future__ import annotations

from typing import Any

from dashboards.generator.parts import BLUE, DATASOURCE, RED, YELLOW, Json, target

TAG = "opensips-sr"
FLEET, SOURCE, IDENTIFIER, ROUTING, CLUSTER, EXPORTER = (
    "opensips-sr-overview",
    "opensips-sr-source",
    "opensips-sr-identifier",
    "opensips-sr-routing",
    "opensips-sr-cluster",
    "opensips-sr-exporter",
)
TITLES = {
    FLEET: "OpenSIPS Status/Report: fleet",
    SOURCE: "OpenSIPS Status/Report: source",
    IDENTIFIER: "OpenSIPS Status/Report: identifier",
    ROUTING: "OpenSIPS Status/Report: routing data",
    CLUSTER: "OpenSIPS Status/Report: cluster and registrations",
    EXPORTER: "OpenSIPS Status/Report: exporter",
}
#: The dashboards on which any number of sources is chosen.
OF_SOURCES = frozenset({FLEET, ROUTING, CLUSTER})

#: A source that was never heard has no info, a pushed one is neither up nor down.
ANY_SOURCE = '__name__=~"opensips_sr_source_info|opensips_sr_source_up"'
JOB = 'job=~"$job"'
CHOSEN = f'{JOB},source=~"$source"'
#: Without the exporter's own state, which is no OpenSIPS server's.
SERVERS = f'{CHOSEN},source!="sr_exporter"'
KEY = "source, group, identifier"
#: Of the exporters that are chosen.
OURS = f'{JOB},instance=~"$instance"'
BUILD = f"sr_exporter_build_info{{{OURS}}}"
RATE = "[$__rate_interval]"


def reported(matchers: str) -> str:
    """Ask for the last report of the list in which a subject is called not ready, in ms."""
    return (
        f"1000 * max by ({KEY}, subject) (opensips_sr_reported_ready{{{matchers}}} + "
        f"on (job, instance, {KEY}) group_left "
        f"opensips_sr_last_report_timestamp_seconds{{{matchers}}})"
    )


# --- links -------------------------------------------------------------------------------------

_KEPT = "${datasource:queryparam}&${job:queryparam}"
_TIME = "${__url_time_range}"


def to_source(field: str) -> Json:
    """Lead to the source of a table's row (`row`), or of a series (`series`)."""
    url = f"/d/{SOURCE}?{_KEPT}&var-source={_place(field, 'source')}&{_TIME}"
    return {"title": "This source", "url": url}


def to_identifier(field: str, group: str | None = None, source: str | None = None) -> Json:
    """Lead to the identifier of a row or series; what it does not bear is given."""
    parts = {
        "source": source or _place(field, "source"),
        "group": group or _place(field, "group"),
        "identifier": _place(field, "identifier"),
    }
    chosen = "&".join(f"var-{name}={part}" for name, part in parts.items())
    return {
        "title": "This identifier",
        "url": f"/d/{IDENTIFIER}?{_KEPT}&{chosen}&{_TIME}",
    }


def _place(field: str, label: str) -> str:
    """Give what Grafana puts a label in for, encoded: registrants hold `;`, `=` and `@`."""
    if field == "row":
        return f"${{__data.fields.{label.capitalize()}:percentencode}}"
    return f"${{__field.labels.{label}:percentencode}}"


def _links(uid: str) -> list[Json]:
    """Lead to the other dashboards, with what is chosen here and can be chosen there."""
    links = []
    for other, title in TITLES.items():
        if other == uid:
            continue
        kept = [_KEPT]
        if (uid in OF_SOURCES and other in OF_SOURCES) or (uid, other) in (
            (SOURCE, IDENTIFIER),
            (SOURCE, ROUTING),
            (SOURCE, CLUSTER),
        ):
            kept.append("${source:queryparam}")
        links.append(
            {
                "type": "link",
                "title": title.partition(": ")[2].capitalize(),
                "tooltip": title,
                "url": f"/d/{other}?{'&'.join(kept)}",
                "tags": [],
                "asDropdown": False,
                "includeVars": False,
                "keepTime": True,
                "targetBlank": False,
                "icon": "dashboard",
            }
        )
    return links


# --- variables ---------------------------------------------------------------------------------


def variable(name: str, label: str, description: str, query: str, *, one: bool = False) -> Json:
    """Let values of a label be chosen: all, some, or just `one`."""
    many: Json = {
        "multi": True,
        "includeAll": True,
        "allValue": ".*",  # not .+: series without the label would vanish
        "current": {"selected": True, "text": ["All"], "value": ["$__all"]},
    }
    return {
        "type": "query",
        "name": name,
        "label": label,
        "description": description,
        "datasource": DATASOURCE,
        "definition": query,
        "query": query,
        "regex": "",
        "refresh": 2,  # with the time range: what is gone now can be chosen for the past
        "sort": 1,
        **({"multi": False, "includeAll": False} if one else many),
        "options": [],
        "hide": 0,
        "skipUrlSync": False,
    }


DATA_SOURCE: Json = {
    "type": "datasource",
    "name": "datasource",
    "label": "Data source",
    "description": "The Prometheus that scrapes sr-exporter.",
    "query": "prometheus",
    "regex": "",
    "refresh": 1,
    "multi": False,
    "includeAll": False,
    "options": [],
    "hide": 0,
    "skipUrlSync": False,
}
JOBS = variable(
    "job", "Job", "The scrape job of the exporters.", "label_values(sr_exporter_build_info, job)"
)


def sources(*, one: bool = False) -> Json:
    return variable(
        "source",
        "Source",
        "The OpenSIPS servers and the names that push.",
        f"label_values({{{ANY_SOURCE},{JOB}}}, source)",
        one=one,
    )


def groups(matchers: str, *, one: bool = False) -> Json:
    return variable(
        "group",
        "Group",
        "Groups of identifiers, most of them modules of OpenSIPS.",
        f"label_values(opensips_sr_status{{{matchers}}}, group)",
        one=one,
    )


def identifiers(matchers: str, *, one: bool = False) -> Json:
    return variable(
        "identifier",
        "Identifier",
        "What a group says it of: a table, a capability, a registrant.",
        f"label_values(opensips_sr_status{{{matchers}}}, identifier)",
        one=one,
    )


# --- annotations -------------------------------------------------------------------------------


def _annotation(name: str, color: str, expr: str, title: str, text: str, **more: Any) -> Json:
    """Mark moments in all panels. Older data sources read `expr`, newer ones `target`."""
    return {
        "name": name,
        "enable": True,
        "hide": False,
        "iconColor": color,
        "datasource": DATASOURCE,
        "expr": expr,
        "target": target(expr, "Anno"),
        "titleFormat": title,
        "textFormat": text,
        **more,
    }


def _at_its_value(name: str, color: str, times: str, title: str, text: str) -> Json:
    """Mark the times that are the values of series, in seconds; true to the millisecond.

    What lies before the range that is looked at is not asked for.
    """
    expr = f"1000 * ({times} > time() - $__range_s)"
    return _annotation(name, color, expr, title, text, useValueForTime=True)


def changes(matchers: str) -> Json:
    return _at_its_value(
        "Status changes",
        BLUE,
        f"max by ({KEY}) (opensips_sr_status_change_timestamp_seconds{{{matchers}}})",
        "{{group}}/{{identifier}} changed",
        "{{source}}",
    )


def restarts(matchers: str) -> Json:
    return _at_its_value(
        "Restarts",
        YELLOW,
        f"max by (source) (opensips_sr_source_start_timestamp_seconds{{{matchers}}})",
        "{{source}} started",
        "As its up time tells",
    )


def alerts(matchers: str) -> Json:
    return _annotation(
        "Alerts",
        RED,
        f'max by (alertname, {KEY}) (ALERTS{{alertname=~"OpenSIPS.+|SRExporter.+",'
        f'alertstate="firing",{matchers}}})',
        "{{alertname}}",
        "{{source}} {{group}}/{{identifier}}",
    )


# --- all of it ---------------------------------------------------------------------------------


def dashboard(
    uid: str,
    description: str,
    variables: list[Json],
    panels: list[Json],
    annotations: list[Json] | None = None,
) -> Json:
    return {
        "uid": uid,
        "title": TITLES[uid],
        "description": description,
        "tags": [TAG],
        "schemaVersion": 39,
        "version": 1,
        "editable": False,
        "graphTooltip": 1,
        "refresh": "30s",
        "time": {"from": "now-6h", "to": "now"},
        "timezone": "",
        "annotations": {"list": annotations or []},
        "links": _links(uid),
        "templating": {"list": [DATA_SOURCE, JOBS, *variables]},
        "panels": panels,
    }
