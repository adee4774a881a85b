"""Writes the OpenAPI 3.1 document of a table of operations (operations.py).

What a body looks like is taken from the very types that are written and read.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import msgspec

from sr_exporter import __version__

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

JSON = "application/json"
_REFERENCE = "#/components/schemas/{name}"
_ABOUT = (
    "OpenSIPS Status/Report: what is held, what changed, whether it is ready."
    " Times are Unix seconds, and RFC 3339 under /api/v2 only."
    ' While the exporter starts, everything but /-/healthy is answered 503 and {"error": ...}.'
)


@dataclass(frozen=True, slots=True)
class OneOrMany:
    """One of some types, or an array of them."""

    types: tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Body:
    """What a body is."""

    #: A type that msgspec knows, or `OneOrMany`; None: nothing is said of what is in it.
    type: Any = None
    media: str = JSON


@dataclass(frozen=True, slots=True)
class Answer:
    says: str
    #: One for each form in which it may come.
    bodies: Sequence[Body] = ()
    #: Headers, and what they say.
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Parameter:
    """A part of the path, of the query, or a header."""

    name: str
    says: str
    type: Any = str
    place: str = "query"


@dataclass(frozen=True, slots=True)
class Operation:
    method: str
    #: Parts in braces are parameters.
    path: str
    #: A name of its own, for programs that are made of the document.
    id: str
    says: str
    answers: Mapping[int, Answer]
    parameters: Sequence[Parameter] = ()
    request: Sequence[Body] = ()
    #: It alters something: who may do it depends (access.py).
    writes: bool = False


def document(operations: Iterable[Operation]) -> dict[str, Any]:
    """Give the document."""
    listed = list(operations)
    bodies = [body for one in listed for body in _bodies(one)]
    types = [one for body in bodies for one in _types(body.type)]
    types += [parameter.type for one in listed for parameter in one.parameters]
    found, components = msgspec.json.schema_components(types, ref_template=_REFERENCE)
    schemas = _Schemas(zip(types, found, strict=True))
    paths: dict[str, dict[str, Any]] = {}
    for one in listed:
        paths.setdefault(one.path, {})[one.method.lower()] = _operation(one, schemas)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "sr-exporter",
            "version": __version__,
            "description": _ABOUT,
            "license": {"name": "Apache 2.0", "identifier": "Apache-2.0"},
        },
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {
                "token": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "One of push.tokens. Without any, loopback may write.",
                },
                "user": {
                    "type": "http",
                    "scheme": "basic",
                    "description": "One of basic_auth_users of the web configuration, if there is"
                    " one: every operation asks for it then, and may answer 401, 429 and 503.",
                },
            },
        },
    }


class _Schemas:
    """Finds the schema of a type, of which not all can be keys of a dict."""

    def __init__(self, known: Iterable[tuple[Any, dict[str, Any]]]) -> None:
        self._known = list(known)

    def of(self, wanted: Any) -> dict[str, Any]:
        if isinstance(wanted, OneOrMany):
            several = [self.of(one) for one in wanted.types]
            return {"anyOf": [*several, {"type": "array", "items": {"anyOf": several}}]}
        return next(schema for type_, schema in self._known if type_ == wanted)

    def content(self, bodies: Sequence[Body]) -> dict[str, Any]:
        return {
            body.media: {} if body.type is None else {"schema": self.of(body.type)}
            for body in bodies
        }


def _types(type_: Any) -> tuple[Any, ...]:
    if isinstance(type_, OneOrMany):
        return type_.types
    return () if type_ is None else (type_,)


def _bodies(operation: Operation) -> Iterable[Body]:
    yield from operation.request
    for answer in operation.answers.values():
        yield from answer.bodies


def _operation(one: Operation, schemas: _Schemas) -> dict[str, Any]:
    said: dict[str, Any] = {"operationId": one.id, "summary": one.says}
    if one.parameters:
        said["parameters"] = [
            {
                "name": parameter.name,
                "in": parameter.place,
                "description": parameter.says,
                "schema": schemas.of(parameter.type),
                **({"required": True} if parameter.place == "path" else {}),
            }
            for parameter in one.parameters
        ]
    if one.request:
        said["requestBody"] = {"required": True, "content": schemas.content(one.request)}
    said["responses"] = {
        str(code): _answer(answer, schemas) for code, answer in one.answers.items()
    }
    if one.writes:
        said["security"] = [{}, {"token": []}, {"user": []}]
    return said


def _answer(answer: Answer, schemas: _Schemas) -> dict[str, Any]:
    said: dict[str, Any] = {"description": answer.says}
    if answer.headers:
        said["headers"] = {
            name: {"description": says, "schema": {"type": "string"}}
            for name, says in answer.headers.items()
        }
    if answer.bodies:
        said["content"] = schemas.content(answer.bodies)
    return said
