"""Panels, one function a kind.

- Every panel and target asks `${datasource}`, so the files import anywhere as they are.
- Panel ids are part of links: they are given by hand, and none is used again for another panel.
- What draws states takes no color "from thresholds": where equal values are merged Grafana then
  draws the thresholds instead of the mappings, "-Infinity+" for all (issues 41075 and 71804).
"""

from __future__ import annotations

from typing import Any

from dashboards.generator.parts import (
    DATASOURCE,
    GREEN,
    GREY,
    At,
    Json,
    instant,
    override,
    steps,
)

LEGEND = {"calcs": [], "displayMode": "list", "placement": "bottom", "showLegend": True}


def panel(
    number: int,
    kind: str,
    title: str,
    description: str,
    at: At,
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
    number: int,
    title: str,
    description: str,
    at: At,
    expr: str,
    color: Json,
    *,
    unit: str = "none",
    meanings: list[Json] | None = None,
    unknown: str = "Unknown",
    legend: str = "__auto",
    text_mode: str = "auto",
) -> Json:
    """Show one number, or its meaning; `unknown` where there is none."""
    return panel(
        number,
        "stat",
        title,
        description,
        at,
        [instant(expr, legendFormat=legend)],
        {
            "unit": unit,
            "decimals": 0,
            "noValue": unknown,
            "color": {"mode": "thresholds"},
            "mappings": meanings or [],
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
            "textMode": text_mode,
            "wideLayout": True,
        },
    )


def timeline(
    number: int,
    title: str,
    description: str,
    at: At,
    query: Json,
    meanings: list[Json],
    links: list[Json] | None = None,
) -> Json:
    """Draw the states of each series, one row each; equal ones in a row are one."""
    options = {"alignValue": "left", "mergeValues": True, "perPage": 20, "rowHeight": 0.85}
    return _states(
        "state-timeline", number, title, description, at, query, meanings, links, options
    )


def history(
    number: int,
    title: str,
    description: str,
    at: At,
    query: Json,
    meanings: list[Json],
    links: list[Json] | None = None,
) -> Json:
    """Draw the state of each series at each of 100 moments; more would not fit, says Grafana."""
    options = {"colWidth": 0.9, "perPage": 20, "rowHeight": 0.85}
    return _states(
        "status-history",
        number,
        title,
        description,
        at,
        query,
        meanings,
        links,
        options,
        maxDataPoints=100,
    )


def _states(
    kind: str,
    number: int,
    title: str,
    description: str,
    at: At,
    query: Json,
    meanings: list[Json],
    links: list[Json] | None,
    options: Json,
    **more: Any,
) -> Json:
    return panel(
        number,
        kind,
        title,
        description,
        at,
        [query],
        {
            "noValue": "Unknown",
            "color": {"mode": "fixed", "fixedColor": GREY},
            "mappings": meanings,
            "thresholds": steps((None, GREY)),
            "custom": {"fillOpacity": 80, "lineWidth": 0},
            "links": links or [],
        },
        {
            **options,
            "showValue": "auto",
            "legend": LEGEND,
            "tooltip": {"mode": "single", "sort": "none"},
        },
        **more,
    )


def series(
    number: int,
    title: str,
    description: str,
    at: At,
    targets: list[Json],
    *,
    unit: str,
    links: list[Json] | None = None,
) -> Json:
    """Draw lines over time, from 0 on."""
    return panel(
        number,
        "timeseries",
        title,
        description,
        at,
        targets,
        {
            "unit": unit,
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
            "links": links or [],
        },
        {"legend": LEGEND, "tooltip": {"mode": "multi", "sort": "desc"}},
    )


def bars(
    number: int, title: str, description: str, at: At, query: Json, color: Json, **shown: Any
) -> Json:
    """Draw a bar for each series; `shown` is how the numbers are (`unit`, `min`, `max`)."""
    return panel(
        number,
        "bargauge",
        title,
        description,
        at,
        [query],
        {
            "noValue": "Unknown",
            "color": {"mode": "thresholds"},
            "mappings": [],
            "thresholds": color,
            **shown,
        },
        {
            "displayMode": "basic",
            "legend": LEGEND | {"showLegend": False},
            "maxVizHeight": 300,
            "minVizHeight": 16,
            "minVizWidth": 8,
            "namePlacement": "auto",
            "orientation": "horizontal",
            "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
            "showUnfilled": True,
            "sizing": "auto",
            "valueMode": "color",
        },
    )


def table(
    number: int,
    title: str,
    description: str,
    at: At,
    labels: dict[str, str],
    columns: dict[str, tuple[str, Json]],
    *,
    sort: str,
    empty: str,
    links: dict[str, list[Json]] | None = None,
) -> Json:
    """Show a row for each set of labels.

    Args:
        labels: what stands over each label's column, by the label; in the order of columns.
        columns: the query of each further column, and how its values are shown, by its title.
        sort: the column with the greatest value first.
        empty: what is said instead of a table without rows.
        links: where a click on a cell leads, by the title of its column.

    All queries must have the same labels, and those of the first must have all rows.
    """
    refs = [chr(ord("A") + number) for number in range(len(columns))]
    # With a single query there is nothing to tell apart, and Grafana gives the value no letter.
    values = ["Value"] if len(refs) == 1 else [f"Value #{ref}" for ref in refs]
    order = {name: index for index, name in enumerate((*labels, *values))}
    properties = {name: dict(shown) for name, (_, shown) in columns.items()}
    for name, leads in (links or {}).items():
        properties.setdefault(name, {})["links"] = leads
    return panel(
        number,
        "table",
        title,
        description,
        at,
        [
            instant(expr, ref, format="table")
            for ref, (expr, _) in zip(refs, columns.values(), strict=True)
        ],
        {
            "unit": "none",
            "noValue": empty,
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
            "sortBy": [{"displayName": sort, "desc": True}],
        },
        overrides=[
            # What is said of an empty table is not to be said in each empty cell.
            override("/.*/", "byRegexp", noValue=""),
            *(override(name, **shown) for name, shown in properties.items() if shown),
        ],
        transformations=[
            {"id": "merge", "options": {}},
            {
                "id": "organize",
                "options": {
                    "excludeByName": {"Time": True},
                    "indexByName": order,
                    "renameByName": labels | dict(zip(values, columns, strict=True)),
                },
            },
        ],
    )


def in_words(meanings: list[Json], width: int = 150) -> Json:
    """Show the values of a table's column by these meanings, in their colors."""
    cell = {"type": "color-text"}
    return {"mappings": meanings, "custom.cellOptions": cell, "custom.width": width}


AGO: Json = {"unit": "dateTimeFromNow"}


def row(number: int, title: str, y: int, repeat: str | None = None) -> Json:
    """Head the panels below, up to the next row; `repeat` once for each value of a variable."""
    return {
        "id": number,
        "type": "row",
        "title": title,
        "collapsed": False,
        "gridPos": {"x": 0, "y": y, "w": 24, "h": 1},
        "panels": [],
        **({"repeat": repeat} if repeat else {}),
    }
