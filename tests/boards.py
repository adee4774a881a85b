"""The dashboards as they are committed, and what can be wrong with one."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from sr_exporter.metrics.families import families
from sr_exporter.metrics.own import OwnMetrics
from sr_exporter.state import State
from sr_exporter.store.contract import StoreFigures

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

ROOT = Path(__file__).resolve().parents[1]
FILES = sorted((ROOT / "dashboards").glob("*.json"))

Json = dict[str, Any]

_SAMPLES = {"counter": [""], "gauge": [""], "histogram": ["_bucket", "_count", "_sum"]}
#: What is exported: the samples of each family.
FAMILIES: dict[str, list[str]] = {
    family.name: [family.name + suffix for suffix in _SAMPLES.get(family.kind.value, [""])]
    for family in (
        *families(State()),
        *OwnMetrics().families(StoreFigures(0, 0, 0.0, 0, 0, 0, 0, None)),
    )
}
EXPORTED = frozenset(name for names in FAMILIES.values() for name in names)
#: What Prometheus makes by itself.
OF_PROMETHEUS = frozenset({"up", "scrape_duration_seconds", "ALERTS"})

_KEYWORDS = frozenset({"and", "or", "unless", "bool", "offset"})
_GROUPING = re.compile(
    r"\b(?:by|without|on|ignoring)\s*\([^)]*\)|\bgroup_(?:left|right)(?:\s*\([^)]*\))?"
)
_STRING = re.compile(r'"(?:[^"\\]|\\.)*"')
_VARIABLE = re.compile(r"\$\{(\w+)[^}]*\}|\$(\w+)")
_OF_GRAFANA = frozenset({"__rate_interval", "__range", "__range_s", "__url_time_range"})
_STATES = frozenset({"state-timeline", "status-history"})


def load(path: Path) -> Json:
    return json.loads(path.read_text(encoding="utf-8"))


def boards() -> dict[str, Json]:
    return {path.stem: load(path) for path in FILES}


def panels(board: Json) -> list[Json]:
    """Give the panels that ask something."""
    return [panel for panel in board["panels"] if panel["type"] != "row"]


def variables(board: Json) -> dict[str, Json]:
    return {one["name"]: one for one in board["templating"]["list"]}


def expressions(board: Json) -> Iterator[tuple[str, str]]:
    """Give every expression, and where it stands: of panels, annotations and variables."""
    for panel in panels(board):
        for target in panel.get("targets", ()):
            yield f"{panel.get('id')} {panel['title']} {target['refId']}", target["expr"]
    for annotation in board["annotations"]["list"]:
        yield f"annotation {annotation['name']}", annotation["expr"]
    for one in board["templating"]["list"]:
        if one["type"] == "query":
            yield f"variable {one['name']}", selector_of(one["query"])[0]


def selector_of(query: str) -> tuple[str, str]:
    """Give what a variable's query looks at, and the label that it takes."""
    selector, _, label = query.removeprefix("label_values(").removesuffix(")").rpartition(",")
    return selector, label.strip()


def metrics(expression: str) -> set[str]:
    """Give the names of the metrics a PromQL expression asks for.

    >>> sorted(metrics('sum by (a) (rate(x_total{b="c"}[5m])) or {__name__=~"y|z"} and on (a) up'))
    ['up', 'x_total', 'y', 'z']
    """
    named = re.findall(r'__name__=~?"([^"]*)"', expression)
    bare = re.sub(r"\{[^}]*\}|\[[^]]*\]|@ end\(\)", " ", _STRING.sub("", expression))
    words = re.findall(r"(?<![\w$])[a-zA-Z_:][\w:]*(?!\w)(?!\s*\()", _GROUPING.sub(" ", bare))
    return {name for names in named for name in names.split("|")} | (set(words) - _KEYWORDS)


# --- as Grafana asks ---------------------------------------------------------------------------


def asked(
    expression: str,
    board: Json,
    chosen: Mapping[str, str | Sequence[str]] | None = None,
    *,
    rate_seconds: int = 60,
    range_seconds: int = 21_600,
) -> str:
    """Put in the values of variables as Grafana's Prometheus data source does; else All."""
    chosen = chosen or {}
    known = variables(board)

    def value(match: re.Match[str]) -> str:
        name = match[1] or match[2]
        if name in ("__rate_interval", "__range", "__range_s"):
            seconds = rate_seconds if name == "__rate_interval" else range_seconds
            return f"{seconds}" if name.endswith("_s") else f"{seconds}s"
        one = known[name]
        if name not in chosen:
            assert one["includeAll"], f"nothing is chosen for {name}"
            return one["allValue"]
        picked = chosen[name]
        if not (one["multi"] or one["includeAll"]):
            assert isinstance(picked, str)
            return picked.replace("\\", "\\\\").replace("'", r"\\'")
        parts = [_escaped(part) for part in ([picked] if isinstance(picked, str) else picked)]
        return parts[0] if len(parts) == 1 else f"({'|'.join(parts)})"

    return _VARIABLE.sub(value, expression)


def _escaped(value: str) -> str:
    """Escape as `prometheusSpecialRegexEscape` does."""
    slashed = value.replace("\\", "\\\\\\\\")
    return re.sub(r"[$^*{}\[\]'+?.()|]", lambda found: "\\\\" + found[0], slashed)


def operands(expression: str) -> list[str]:
    """Give each side of each `or`: what stands on one hides that the other is empty.

    `or` binds weakest, so its sides begin and end where their parenthesis, or argument, does.

    >>> operands('sum(a or b{c="or (d"} or e) + f or vector(0)')
    ['a', 'b{c="or (d"}', 'e', 'sum(a or b{c="or (d"} or e) + f', 'vector(0)']
    """
    found: list[str] = []
    #: Where each parenthesis that is open begins, and each side of an `or` in it.
    begins = [[0]]
    quoted = False

    def end(at: int) -> None:
        *_, first = begins
        if len(first) > 1:
            ends = [begin - len(" or ") for begin in first[1:]]
            pairs = zip(first, [*ends, at], strict=True)
            found.extend(expression[begin:end].strip() for begin, end in pairs)

    for at, character in enumerate(expression):
        if character == '"' and expression[at - 1] != "\\":
            quoted = not quoted
        elif quoted:
            continue
        elif character in "([{":
            begins.append([at + 1])
        elif character in ")]}":
            end(at)
            begins.pop()
        elif character == ",":
            end(at)
            begins[-1] = [at + 1]
        elif expression.startswith(" or ", at):
            begins[-1].append(at + len(" or "))
    end(len(expression))
    return found


# --- what can be wrong -------------------------------------------------------------------------


def faults(board: Json) -> list[str]:
    """Say what is wrong with a dashboard, by our own rules; Grafana's are in `grafana/`."""
    found = [*_faults_of_board(board)]
    ids = [panel.get("id") for panel in board["panels"]]
    found += [f"panel id {one}: taken twice" for one in set(ids) if ids.count(one) > 1]
    found += [f"panel id {one}: not a number above 0" for one in ids if not _positive(one)]
    for panel in board["panels"]:
        at = f"panel {panel.get('id')}"
        if panel["type"] == "row":
            continue
        found += [f"{at}: {fault}" for fault in _faults_of_panel(panel)]
        for expr in (one.get("expr", "") for one in panel.get("targets") or ()):
            found += [f"{at}: {fault}" for fault in _faults_of_expression(expr, board)]
    for name, expr in expressions(board):
        if name.startswith(("annotation", "variable")):
            found += [f"{name}: {fault}" for fault in _faults_of_expression(expr, board)]
    for link in objects(board):
        if "url" in link:
            found += [f"link {link['url']}: {fault}" for fault in _faults_of_link(link, board)]
    return found


def _positive(number: object) -> bool:
    return isinstance(number, int) and number > 0


def _faults_of_board(board: Json) -> Iterator[str]:
    for key in ("uid", "title", "description", "tags"):
        if not board.get(key):
            yield f"no {key}"
    if len(board.get("uid", "")) > 40:
        yield "Grafana takes no uid over 40 characters"
    if "id" in board or "__inputs" in board:
        yield "it is of somebody's own Grafana"
    if board.get("editable") is not False:
        yield "it can be edited"
    sources = [one["name"] for one in board["templating"]["list"] if one["type"] == "datasource"]
    if sources != ["datasource"]:
        yield "not one variable for the data source"
    for one in board["templating"]["list"]:
        if one["type"] != "query":
            continue
        if one["refresh"] != 2:
            yield f"variable {one['name']}: not refreshed with the time range"
        if one["includeAll"] and one.get("allValue") != ".*":
            yield f"variable {one['name']}: All loses series without the label"
        if one["query"] != one["definition"]:
            yield f"variable {one['name']}: shown otherwise than asked"
    taken: set[tuple[int, int]] = set()
    for panel in board["panels"]:
        at = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(at["x"], at["x"] + at["w"])
            for y in range(at["y"], at["y"] + at["h"])
        }
        if at["x"] + at["w"] > 24 or cells & taken:
            yield f"panel {panel.get('id')}: has no place of its own"
        taken |= cells


def _faults_of_panel(panel: Json) -> Iterator[str]:
    if not panel.get("title", "").strip():
        yield "no title"
    if not panel.get("description", "").strip().endswith("."):
        yield "no description"
    targets = panel.get("targets")
    if not targets:
        yield "asks nothing"
        return
    for one in (panel, *targets):
        if one.get("datasource") != {"type": "prometheus", "uid": "${datasource}"}:
            yield "a data source of its own"
    refs = [one["refId"] for one in targets]
    if len(refs) != len(set(refs)):
        yield "two queries of one name"
    defaults = panel["fieldConfig"]["defaults"]
    if not (defaults.get("unit") or defaults.get("mappings")):
        yield "neither unit nor mappings"
    if "noValue" not in defaults:
        yield "says nothing where there is nothing"
    if panel["type"] in _STATES and defaults["color"]["mode"] == "thresholds":
        yield "Grafana would draw the thresholds instead of the mappings"
    for mappings in (one["mappings"] for one in objects(panel) if "mappings" in one):
        yield from _faults_of_mappings(mappings)
    for one in objects(panel):
        if one.get("id") == "mappings":
            yield from _faults_of_mappings(one["value"])


def _faults_of_mappings(mappings: list[Json]) -> Iterator[str]:
    kinds = [one["type"] for one in mappings]
    if kinds != sorted(kinds, reverse=True):
        yield "a range before a value: the first mapping that fits wins"
    results = []
    for one in mappings:
        options = one["options"]
        if one["type"] == "range":
            results.append(options["result"])
            if not all(isinstance(options[end], int) for end in ("from", "to")):
                yield "a range with an open end: null compares as 0, and fits no negative status"
            elif options["from"] > options["to"]:
                yield "a range that is empty"
        else:
            results += options.values()
    if [result.get("index") for result in results] != list(range(len(results))):
        yield "the order of mappings is not written down"


def _faults_of_expression(expr: str, board: Json) -> Iterator[str]:
    used = metrics(expr)
    if not used:
        yield "asks for no metric"
    if unknown := used - EXPORTED - OF_PROMETHEUS:
        yield f"not exported: {', '.join(sorted(unknown))}"
    if set(re.findall(r"\b(?:rate|irate)\([^\[]*\[([^\]]*)\]", expr)) - {"$__rate_interval"}:
        yield "a rate over a fixed range is empty where scrapes are rare"
    named = {first or second for first, second in _VARIABLE.findall(expr)}
    if unset := named - _OF_GRAFANA - set(variables(board)):
        yield f"no such variable: {', '.join(sorted(unset))}"


def _faults_of_link(link: Json, board: Json) -> Iterator[str]:
    parts = urlsplit(link["url"])
    known = boards()
    uid = parts.path.removeprefix("/d/")
    if uid not in known:
        yield "leads to no dashboard"
        return
    of_target = variables(known[uid])
    for part in parts.query.split("&"):
        name, _, value = part.partition("=")
        if whole := re.fullmatch(r"\$\{(\w+)(:queryparam)?\}", name):
            name = f"var-{whole[1]}" if whole[2] else whole[1]
            value = "" if not whole[2] else f"${{{whole[1]}:percentencode}}"
        if name.startswith("var-") and name.removeprefix("var-") not in of_target:
            yield f"{uid} has no variable {name}"
        elif not name.startswith("var-") and name not in _OF_GRAFANA:
            yield f"Grafana reads no {name}"
        for given in re.findall(r"\$\{?([\w.:]+)\}?", value):
            source, _, form = given.partition(":")
            if source.split(".")[0] not in {"__data", "__field", *variables(board), "__all"}:
                yield f"no such variable: {source}"
            if source != "__all" and form != "percentencode":
                yield f"{source} is not encoded"


def objects(value: Any) -> Iterator[Json]:
    """Give every object anywhere in a piece of JSON."""
    if isinstance(value, dict):
        yield value
    for part in value.values() if isinstance(value, dict) else value:
        if isinstance(part, dict | list):
            yield from objects(part)
