"""Templates of annotations: Jinja, of which only what ends soon is allowed.

There are expressions and conditions, and no loops, calls or multiplication: the time a template
takes, and the length of what it gives, are bounded by its own length and that of what it is
given. So no text of a log, and no slip of an operator, can hold up the exporter.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

from jinja2 import TemplateSyntaxError, nodes
from jinja2.sandbox import ImmutableSandboxedEnvironment

if TYPE_CHECKING:
    from collections.abc import Mapping

    import jinja2

MOST_TEMPLATE_CHARACTERS: Final = 4096
#: What a template gives is cut after so many.
MOST_CHARACTERS: Final = 4096

#: How deep expressions and conditions may be in one another: the time that Jinja takes to compile
#: them grows with the third power of it, to a minute for 300.
_DEEPEST: Final = 30

#: What a template is given, with values of the kinds there are: a key, a lost
#: source, and a subject of report texts.
EXAMPLES: Final[tuple[Mapping[str, Any], ...]] = (
    {
        "alertname": "OpenSIPSNotReady",
        "source": "sip-1",
        "group": "drouting",
        "identifier": "main",
        "subject": "",
        "severity": "warning",
        "labels": {"team": "carriers"},
        "status": -1,
        "meaning": "loading data",
        "ready": False,
        "details": "reloading",
        "reports": "one\ntwo",
        "summary": "drouting/main on sip-1 is not ready",
        "description": "Status -1 (loading data): reloading",
    },
    {
        "alertname": "OpenSIPSSourceDown",
        "source": "sip-1",
        "group": "",
        "identifier": "",
        "subject": "",
        "severity": "critical",
        "labels": {},
        "status": 0,
        "meaning": "down",
        "ready": False,
        "details": "",
        "reports": "",
        "summary": "OpenSIPS sip-1 does not answer its Management Interface",
        "description": "sip-1 cannot be polled",
    },
    {
        "alertname": "OpenSIPSReportedNotReady",
        "source": "sip-1",
        "group": "drouting",
        "identifier": "default;events",
        "subject": "gw-1",
        "severity": "warning",
        "labels": {},
        "status": 0,
        "meaning": "reported not ready",
        "ready": False,
        "details": "",
        "reports": "GW <gw-1>/10.0.0.1 switched to [inactive]",
        "summary": "gw-1 is reported not ready by drouting/default;events on sip-1",
        "description": "A report says so",
    },
)
NAMES: Final = frozenset(EXAMPLES[0])
#: None of them makes much of little.
FILTERS: Final = frozenset(
    (
        *("capitalize", "default", "int", "length", "lower"),
        *("string", "trim", "truncate", "upper", "urlencode"),
    )
)
_ALLOWED: Final = (
    *(nodes.Template, nodes.Output, nodes.TemplateData, nodes.If, nodes.CondExpr),
    *(nodes.Name, nodes.Const, nodes.List, nodes.Tuple, nodes.Getattr, nodes.Getitem, nodes.Slice),
    *(nodes.Compare, nodes.Operand, nodes.And, nodes.Or, nodes.Not, nodes.Neg, nodes.Concat),
    *(nodes.Add, nodes.Sub, nodes.Filter, nodes.Keyword, nodes.Test),
)


class _Environment(ImmutableSandboxedEnvironment):
    """Parts are entries, and nothing else: a label may be called `items`."""

    def getattr(self, obj: Any, attribute: str) -> Any:
        return self.getitem(obj, attribute)

    def getitem(self, obj: Any, argument: Any) -> Any:
        try:
            return obj[argument]
        except (LookupError, TypeError):
            return self.undefined(obj=obj, name=str(argument))


_environment = _Environment(
    # Annotations are plain text: whoever shows them escapes them.
    autoescape=False,
    cache_size=0,
)


@dataclass(frozen=True, slots=True)
class Template:
    """One that was checked; two of the same text are the same."""

    text: str

    def render(self, values: Mapping[str, Any]) -> str:
        """Give the text for an alert; what fails at it is told in its place."""
        try:
            said = _compiled(self.text).render(values)
        except Exception as error:  # noqa: BLE001 - filters raise what they like, assertions too
            return f"(this template failed: {error})"
        return said if len(said) <= MOST_CHARACTERS else said[: MOST_CHARACTERS - 1] + "…"


def template(text: str) -> Template:
    """Check a template, and run it for trial.

    Raises:
        ValueError: with what is wrong in it.
    """
    if len(text) > MOST_TEMPLATE_CHARACTERS:
        raise ValueError(f"must not be longer than {MOST_TEMPLATE_CHARACTERS} characters")
    try:
        compiled = _compiled(text)
    except RecursionError:
        raise ValueError("is nested too deeply") from None
    except TemplateSyntaxError as error:
        raise ValueError(f"line {error.lineno}: {error.message}") from None
    except SyntaxError:  # of what Jinja makes of it: Python has no such expression
        raise ValueError("cannot be compiled: a slice stands alone in its brackets") from None
    for values in EXAMPLES:
        try:
            compiled.render(values)
        except Exception as error:  # noqa: BLE001 - as above
            about = values["alertname"]
            raise ValueError(f"fails for {about}: {error}") from None
    return Template(text)


@lru_cache(1024)
def _compiled(text: str) -> jinja2.Template:
    parsed = _environment.parse(text)
    _check(parsed)
    return _environment.from_string(parsed)


def _check(node: nodes.Node, depth: int = 0) -> None:
    if depth > _DEEPEST:
        _refuse(node, "is nested too deeply")
    if not isinstance(node, _ALLOWED):
        _refuse(node, f"{type(node).__name__.lower()} is not allowed here")
    if isinstance(node, nodes.Name) and node.name not in NAMES:
        _refuse(node, f"{node.name} is not known (there are {', '.join(sorted(NAMES))})")
    if isinstance(node, nodes.Filter) and node.name not in FILTERS:
        _refuse(node, f"the filter {node.name} is not allowed here")
    if isinstance(node, nodes.Getattr) and not _is_labels(node.node):
        _refuse(node, "only labels have parts")
    for child in node.iter_child_nodes():
        _check(child, depth + 1)
    # After those below it: it is worked out, which what is not allowed could make long.
    if isinstance(node, nodes.Getitem) and _is_number(node.node):
        _refuse(node, "numbers have no parts")


def _is_number(node: nodes.Expr) -> bool:
    """Whether it is one whatever the alert is; of parts of such Python warns as it compiles."""
    try:
        return not isinstance(node.as_const(), str | list | tuple)
    except nodes.Impossible:
        return False


def _is_labels(node: nodes.Node) -> bool:
    return isinstance(node, nodes.Name) and node.name == "labels"


def _refuse(node: nodes.Node, why: str) -> None:
    raise TemplateSyntaxError(why, node.lineno)
