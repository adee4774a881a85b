"""The OpenAPI document says what there is: each route, and what the code's own types say."""

from __future__ import annotations

import inspect
import json
from typing import TYPE_CHECKING, Any, cast

import pytest
from starlette.routing import Match, Route

from sr_exporter.web import routes
from sr_exporter.web.openapi import document
from sr_exporter.web.operations import OPERATIONS

if TYPE_CHECKING:
    from collections.abc import Callable

#: For people: they are not of the API.
PAGES = ("/", "/sources/{target:names}", "/runbooks", "/static/{name}")


class _Anything:
    """Stands for every handler: only the table is looked at."""

    def __getattr__(self, name: str) -> Callable[..., Any]:
        async def handler(request: object) -> None:
            raise AssertionError(name)

        return handler


@pytest.fixture(scope="module")
def table() -> list[Route]:
    parts = inspect.signature(routes.application).parameters
    front = cast("Any", routes.application(**{name: cast("Any", _Anything()) for name in parts}))
    return [route for route in front._rest.routes if route.path not in PAGES]


@pytest.fixture(scope="module")
def told() -> dict[str, Any]:
    return json.loads(routes._openapi())


def _served(table: list[Route], path: str, method: str) -> list[Route]:
    scope = {"type": "http", "path": path, "method": method, "headers": []}
    return [route for route in table if route.matches(scope)[0] is Match.FULL]


def test_every_operation_is_a_route_and_every_route_an_operation(table, told):
    """By path and method; HEAD goes without saying where there is GET."""
    there = {
        (route.path, method)
        for route in table
        for method in route.methods or ("POST",)  # of MI, which answers for all of them
        if method != "HEAD"
    }
    for path, operations in told["paths"].items():
        for method in operations:
            served = _served(table, path.replace("{", "").replace("}", ""), method.upper())
            assert len(served) == 1, f"{method} {path} is served by {served}"
            there.discard((served[0].path, method.upper()))
    assert not there, "routes without a row in operations.py"


def test_parameters_of_paths_are_told(told):
    """Each part in braces, and no other; operations have names of their own."""
    names = []
    for path, operations in told["paths"].items():
        for operation in operations.values():
            names.append(operation["operationId"])
            parts = {one["name"] for one in operation.get("parameters", []) if one["in"] == "path"}
            assert parts == {part[1:-1] for part in path.split("/") if part.startswith("{")}
    assert len(names) == len(set(names))


def test_references_lead_somewhere(told):
    """And what they lead to is of use to somebody."""

    def references(node: Any) -> set[str]:
        if isinstance(node, dict):
            found = {node["$ref"].rsplit("/", 1)[1]} if "$ref" in node else set()
            return found.union(*(references(value) for value in node.values()))
        return (
            set().union(*(references(value) for value in node)) if isinstance(node, list) else set()
        )

    assert references(told) == set(told["components"]["schemas"])


def test_the_types_of_the_code_are_told(told):
    """One of them, field by field; it is an OpenAPI 3.1 document."""
    assert told["openapi"] == "3.1.0"
    status = told["components"]["schemas"]["StatusItem"]
    assert list(status["properties"]) == status["required"] == [
        "source", "group", "identifier", "status", "ready", "details", "since", "reports_total",
        "last_report", "stale",
    ]  # fmt: skip
    assert status["properties"]["details"] == {"anyOf": [{"type": "string"}, {"type": "null"}]}
    assert json.loads(json.dumps(document(OPERATIONS))) == told
