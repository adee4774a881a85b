"""Small pieces of dashboard JSON, written for Grafana 11: mappings, thresholds, queries.

A range mapping has both ends: an open one (null) compares as 0 in Grafana, and never fits a
negative status (facts on dashboards, section 2).
"""

from __future__ import annotations

from typing import Any

#: A piece of dashboard JSON.
Json = dict[str, Any]
#: Left, top, width and height of a panel, in cells of Grafana's grid, which is 24 wide.
At = tuple[int, int, int, int]

INT32_MIN, INT32_MAX = -(2**31), 2**31 - 1
DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}
GREEN, BLUE, YELLOW, RED, GREY = "green", "blue", "yellow", "red", "#8e8e8e"


# --- values ------------------------------------------------------------------------------------


def value(number: int, text: str, color: str) -> Json:
    return {"type": "value", "options": {str(number): {"text": text, "color": color, "index": 0}}}


def from_to(low: int, high: int, color: str, text: str | None = None) -> Json:
    """Map a range of numbers; without a text they stay what they are, in that color."""
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


#: More than none is trouble.
ANY_IS_BAD = steps((None, GREEN), (1, RED))
ANY_IS_ODD = steps((None, GREEN), (1, YELLOW))
#: A number that is neither good nor bad.
NEUTRAL = steps((None, BLUE))


def override(name: str, by: str = "byName", **properties: Any) -> Json:
    """Change how the field of that name is shown, or fields by a regular expression."""
    return {
        "matcher": {"id": by, "options": name},
        "properties": [{"id": key, "value": what} for key, what in properties.items()],
    }


# --- queries -----------------------------------------------------------------------------------


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


def or_zero(expr: str, matchers: str = 'job=~"$job"') -> str:
    """Give 0 where the expression finds nothing though an exporter is there."""
    return f"{expr} or 0 * count(sr_exporter_build_info{{{matchers}}})"
