"""Write the Grafana dashboards of this folder: `python dashboards/generate.py`.

The JSON is committed, and a test holds it equal to what this file makes: change it here only.
Written for Grafana 11. What shapes it:

- every panel and target asks `${datasource}`, so the files import anywhere as they are;
- panel ids are part of links: they are given by hand, and none is used again for another panel;
- what is not known is drawn as not known: an expression comes back empty, not 0, when nothing was
  scraped, and the timelines draw "Unknown" for an hour where something was and is not now;
- what a status means depends on its group, so no mapping covers more than one kind of group;
- a table of a million rows helps nobody: the one here asks for the newest 200.
"""  # noqa: INP001 - a folder of data and its maker, not a package

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent

#: A piece of dashboard JSON.
Json = dict[str, Any]

INT32_MIN, INT32_MAX = -(2**31), 2**31 - 1
DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}
LEGEND = {"calcs": [], "displayMode": "list", "placement": "bottom", "showLegend": True}
GREEN, YELLOW, RED, GREY = "green", "yellow", "red", "#8e8e8e"

CHOSEN = 'job=~"$job",source=~"$source"'
#: Without the exporter's own state, which is no OpenSIPS server's.
FLEET = f'{CHOSEN},source!="sr_exporter"'
KEY = "source, group, identifier"
#: A source that was never heard has no info, a pushed one is neither up nor down.
ANY_SOURCE = '__name__=~"opensips_sr_source_info|opensips_sr_source_up"'


# --- parts -------------------------------------------------------------------------------------


def value(number: int, text: str, color: str) -> Json:
    return {"type": "value", "options": {str(number): {"text": text, "color": color, "index": 0}}}


def from_to(low: int, high: int, color: str, text: str | None = None) -> Json:
    """Map a range of statuses. Never with an open end: null compares as 0 in Grafana."""
    result = {"color": color, "index": 0} | ({"text": text} if text else {})
    return {"type": "range", "options": {"from": low, "to": high, "result": result}}


def mappings(*items: Json) -> list[Json]:
    """Number the mappings: the first that fits wins."""
    for index, item in enumerate(items):
        if item["type"] == "value":
            (result,) = item["options"].values()
        else:
            result = item["options"]["result"]
        result["index"] = index
    return list(items)


def steps(*pairs: tuple[float | None, str]) -> Json:
    return {"mode": "absolute", "steps": [{"value": at, "color": color} for at, color in pairs]}


def target(expr: str, ref: str = "A", **more: Any) -> Json:
    return {
        "datasource": DATASOURCE,
        "refId": ref,
        "expr": expr,
        "editorMode": "code",
        "instant": False,
        "range": True,
        "legendFormat": "__auto",
        **more,
    }


def instant(expr: str, ref: str = "A", **more: Any) -> Json:
    """Ask for now only: a range would go on showing the last value of what is gone."""
    return target(expr, ref, instant=True, range=False, **more)


def panel(
    number: int,
    kind: str,
    title: str,
    description: str,
    at: tuple[int, int, int, int],
    targets: list[Json],
    defaults: Json,
    options: Json,
    **more: Any,
) -> Json:
    x, y, width, height = at
    return {
        "id": number,
        "type": kind,
        "title": title,
        "description": description,
        "datasource": DATASOURCE,
        "gridPos": {"x": x, "y": y, "w": width, "h": height},
        "targets": targets,
        "fieldConfig": {"defaults": defaults, "overrides": more.pop("overrides", [])},
        "options": options,
        **more,
    }


def stat(
    number: int, title: str, description: str, at: tuple[int, int, int, int], expr: str, color: Json
) -> Json:
    """Show one number; "Unknown" where there is none."""
    return panel(
        number,
        "stat",
        title,
        description,
        at,
        [instant(expr)],
        {
            "unit": "none",
            "decimals": 0,
            "noValue": "Unknown",
            "color": {"mode": "thresholds"},
            "mappings": [],
            "thresholds": color,
        },
        {
            "colorMode": "background",
            "graphMode": "none",
            "justifyMode": "auto",
            "orientation": "auto",
            "percentChangeColorMode": "standard",
            "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
            "showPercentChange": False,
            "textMode": "auto",
            "wideLayout": True,
        },
    )


def timeline(
    number: int,
    title: str,
    description: str,
    at: tuple[int, int, int, int],
    query: Json,
    meanings: list[Json],
) -> Json:
    return panel(
        number,
        "state-timeline",
        title,
        description,
        at,
        [query],
        {
            "noValue": "Unknown",
            "color": {"mode": "thresholds"},
            "mappings": meanings,
            "thresholds": steps((None, GREY)),
            "custom": {"fillOpacity": 80, "lineWidth": 0},
        },
        {
            "alignValue": "left",
            "mergeValues": True,
            "perPage": 20,
            "rowHeight": 0.85,
            "showValue": "auto",
            "legend": LEGEND,
            "tooltip": {"mode": "single", "sort": "none"},
        },
    )


def variable(name: str, label: str, description: str, query: str) -> Json:
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
        "multi": True,
        "includeAll": True,
        "allValue": ".*",  # not .+: series without the label would vanish
        "current": {"selected": True, "text": ["All"], "value": ["$__all"]},
        "options": [],
        "hide": 0,
        "skipUrlSync": False,
    }


def dashboard(uid: str, title: str, description: str, panels: list[Json]) -> Json:
    return {
        "uid": uid,
        "title": title,
        "description": description,
        "tags": ["opensips-sr"],
        "schemaVersion": 39,
        "version": 1,
        "editable": False,
        "graphTooltip": 1,
        "refresh": "30s",
        "time": {"from": "now-6h", "to": "now"},
        "timezone": "",
        "annotations": {"list": []},
        "links": [
            {
                "type": "dashboards",
                "title": "OpenSIPS Status/Report",
                "tooltip": "The other dashboards of sr-exporter",
                "tags": ["opensips-sr"],
                "asDropdown": True,
                "includeVars": True,
                "keepTime": True,
                "targetBlank": False,
                "icon": "external link",
                "url": "",
            }
        ],
        "templating": {
            "list": [
                {
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
                },
                variable(
                    "job",
                    "Job",
                    "The scrape job of the exporters.",
                    "label_values(sr_exporter_build_info, job)",
                ),
                variable(
                    "source",
                    "Source",
                    "The OpenSIPS servers and the names that push.",
                    f'label_values({{{ANY_SOURCE},job=~"$job"}}, source)',
                ),
            ]
        },
        "panels": panels,
    }


# --- the fleet ---------------------------------------------------------------------------------


def or_unknown(expr: str, last: str, unknown: int) -> str:
    """Give `unknown` for what was there in the last hour and is not now.

    Both sides aggregate: one that kept its metric's name would be drawn as a row of its own.
    """
    return f"{expr} or clamp({last}, {unknown}, {unknown})"


def overview() -> Json:
    not_ready = f"opensips_sr_ready{{{CHOSEN}}} == 0"
    newest = (
        f"topk(200, max by ({KEY}) "
        f"(opensips_sr_status_change_timestamp_seconds{{{CHOSEN}}} and {not_ready}))"
    )
    any_problem = steps((None, GREEN), (1, RED))
    panels = [
        stat(
            1,
            "Sources",
            "OpenSIPS servers and pushing names that are known, whether they answer or not.",
            (0, 0, 5, 4),
            f"count(count by (source) ({{{ANY_SOURCE},{FLEET}}}))",
            steps((None, "blue")),
        ),
        stat(
            2,
            "Sources down",
            "Polled OpenSIPS servers whose last poll failed, at every exporter that polls them. "
            "Whether they carry calls is not known. Pushing names are never counted here.",
            (5, 0, 5, 4),
            f"sum(max by (source) (opensips_sr_source_up{{{FLEET}}}) == bool 0)",
            any_problem,
        ),
        stat(
            3,
            "Cores not ready",
            "Servers that answer, and say of themselves (group core) that they initialize or "
            "shut down. Servers that do not answer are under Sources down.",
            (10, 0, 5, 4),
            f'sum(min by (source) (opensips_sr_ready{{{FLEET},group="core"}}) == bool 0)',
            any_problem,
        ),
        stat(
            4,
            "Identifiers not ready",
            "Identifiers of all groups that are not ready, those included that are so by design: "
            "cluster capabilities of a lone node, registrants that were deleted.",
            (15, 0, 5, 4),
            f'sum(max by (source, group) (opensips_sr_identifiers{{{CHOSEN},ready="false"}}))',
            steps((None, GREEN), (1, YELLOW)),
        ),
        stat(
            5,
            "Alerts firing",
            "Alerts of sr-exporter's Prometheus rules. Also 0 when this Prometheus has not loaded "
            "those rules. Alerts the exporter sends by itself are not counted.",
            (20, 0, 4, 4),
            'count(ALERTS{alertname=~"OpenSIPS.+|SRExporter.+",alertstate="firing",'
            'job=~"$job",source=~"$source|"}) or 0 * count(sr_exporter_build_info{job=~"$job"})',
            any_problem,
        ),
        timeline(
            6,
            "Core of each server",
            "What each OpenSIPS server says of itself (group core). Unknown: it said something in "
            "the last hour, and is not heard now.",
            (0, 4, 24, 7),
            target(
                or_unknown(
                    f'min by (source) (opensips_sr_status{{{FLEET},group="core"}})',
                    "min by (source) "
                    f'(last_over_time(opensips_sr_status{{{FLEET},group="core"}}[1h]))',
                    0,
                ),
                legendFormat="{{source}}",
            ),
            mappings(
                value(0, "Unknown", GREY),
                value(1, "Running", GREEN),
                value(-1, "Initializing", YELLOW),
                value(-2, "Shutting down", YELLOW),
                from_to(INT32_MIN, -1, RED, "Not ready"),
                from_to(1, INT32_MAX, GREEN, "Ready"),
            ),
        ),
        timeline(
            7,
            "Groups",
            "Whether every identifier of the group is ready; one that is not makes the group not "
            "ready. Unknown: the group was there in the last hour, and is not heard now.",
            (0, 11, 24, 11),
            target(
                or_unknown(
                    f"min by (source, group) (opensips_sr_group_ready{{{CHOSEN}}})",
                    "min by (source, group) "
                    f"(last_over_time(opensips_sr_group_ready{{{CHOSEN}}}[1h]))",
                    -1,
                ),
                legendFormat="{{source}} {{group}}",
            ),
            mappings(
                value(-1, "Unknown", GREY),
                value(0, "Not ready", RED),
                value(1, "Ready", GREEN),
            ),
        ),
        panel(
            8,
            "table",
            "Not ready now",
            "The 200 keys that turned last, of all that are not ready now. What a status means "
            "depends on the group: see the runbooks. Since: when the status last changed.",
            (0, 22, 14, 10),
            [
                instant(
                    f"min by ({KEY}) (opensips_sr_status{{{CHOSEN}}} and {not_ready}) and {newest}",
                    "A",
                    format="table",
                ),
                instant(f"1000 * {newest}", "B", format="table"),
                instant(
                    f"1000 * max by ({KEY}) "
                    f"(opensips_sr_last_report_timestamp_seconds{{{CHOSEN}}}) and {newest}",
                    "C",
                    format="table",
                ),
            ],
            {
                "unit": "none",
                "noValue": "",
                "color": {"mode": "thresholds"},
                "mappings": [],
                "thresholds": steps((None, "text")),
                "custom": {
                    "align": "auto",
                    "cellOptions": {"type": "auto"},
                    "filterable": True,
                    "inspect": False,
                },
            },
            {
                "cellHeight": "sm",
                "frameIndex": 0,
                "showHeader": True,
                "sortBy": [{"displayName": "Since", "desc": True}],
            },
            overrides=[
                override(
                    "Status",
                    mappings=mappings(from_to(INT32_MIN, -1, RED)),
                    **{"custom.cellOptions": {"type": "color-text"}, "custom.width": 110},
                ),
                override("Since", unit="dateTimeFromNow"),
                override("Last report", unit="dateTimeFromNow"),
            ],
            transformations=[
                {"id": "merge", "options": {}},
                {
                    "id": "organize",
                    "options": {
                        "excludeByName": {"Time": True},
                        "indexByName": {
                            "source": 0,
                            "group": 1,
                            "identifier": 2,
                            "Value #A": 3,
                            "Value #B": 4,
                            "Value #C": 5,
                        },
                        "renameByName": {
                            "source": "Source",
                            "group": "Group",
                            "identifier": "Identifier",
                            "Value #A": "Status",
                            "Value #B": "Since",
                            "Value #C": "Last report",
                        },
                    },
                },
            ],
        ),
        panel(
            9,
            "timeseries",
            "Status changes",
            "Changes of status per minute, by source. A routine re-registration of "
            "uac_registrant is two changes, a reload of routing data up to two.",
            (14, 22, 10, 10),
            [
                target(
                    "60 * sum by (source) "
                    f"(rate(opensips_sr_status_changes_total{{{CHOSEN}}}[$__rate_interval]))",
                    legendFormat="{{source}}",
                )
            ],
            {
                "unit": "cpm",
                "min": 0,
                "noValue": "Unknown",
                "color": {"mode": "palette-classic"},
                "mappings": [],
                "thresholds": steps((None, GREEN)),
                "custom": {
                    "drawStyle": "line",
                    "lineWidth": 1,
                    "fillOpacity": 10,
                    "showPoints": "auto",
                    "spanNulls": False,
                },
            },
            {
                "legend": LEGEND,
                "tooltip": {"mode": "multi", "sort": "desc"},
            },
        ),
    ]
    return dashboard(
        "opensips-sr-overview",
        "OpenSIPS Status/Report: fleet",
        "Readiness of all OpenSIPS servers and pushed sources, as sr-exporter knows it.",
        panels,
    )


def override(name: str, **properties: Any) -> Json:
    return {
        "matcher": {"id": "byName", "options": name},
        "properties": [{"id": key, "value": what} for key, what in properties.items()],
    }


#: The file of each dashboard, beside this one.
DASHBOARDS = {"opensips-sr-overview.json": overview}


def text(name: str) -> str:
    """Give the JSON of a dashboard as it is committed."""
    return json.dumps(DASHBOARDS[name](), indent=2, ensure_ascii=False) + "\n"


def main() -> None:
    for name in DASHBOARDS:
        (HERE / name).write_text(text(name), encoding="utf-8")


if __name__ == "__main__":
    main()
