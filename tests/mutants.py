"""Faults put into an alert rule, one at a time: what its tests must notice.

Expressions are cut into tokens, so that a string or a comment is never taken for an operator.
What would be no PromQL (a window without its function, say) is not made. A mutant that means the
same as the rule cannot be noticed; there are few, and a test names those it knows.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

Rule = dict[str, Any]

_TOKEN = re.compile(
    r"""\s+|"(?:[^"\\]|\\.)*"|\[[^]]*\]|[=!]~|[=!<>]=|[A-Za-z_:][\w:]*|\d+(?:\.\d+)?[a-z]*|."""
)
_COMPARISONS = {
    "==": ("!=",),
    "!=": ("==",),
    ">": ("<=", ">="),
    "<": (">=", "<="),
}
_MATCHERS = {"=": "!=", "!=": "=", "=~": "!~", "!~": "=~"}
_SWAPPED = {
    "max_over_time": "min_over_time",
    "min_over_time": "max_over_time",
    "last_over_time": "min_over_time",
    "max": "min",
    "avg": "sum",
    "count": "sum",
    "changes": "resets",
    "absent": "group",
    "and": "unless",
    "unless": "and",
    "or": "and",
}
_ARMS = frozenset({"and", "or", "unless"})
_GROUPINGS = frozenset({"on", "by", "ignoring", "without"})
_METRIC = re.compile(r"(?:opensips_sr|sr_exporter)[\w:]+|up|ALERTS")
_OVER_TIME = re.compile(r"(?:max|min|last)_over_time")
_DURATION = re.compile(r"(\d+)([smhd])")
_UNIT_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


class Mutant(NamedTuple):
    """A rule with a fault in it, and what the fault is."""

    what: str
    rule: Rule

    @property
    def in_a_text(self) -> bool:
        return self.what.startswith("annotations.")

    def without_texts(self) -> Mutant:
        """Give the same fault in a rule that tells nothing, which is tried in less time."""
        return Mutant(self.what, self.rule | {"annotations": {}})


def mutants(rule: Rule) -> Iterator[Mutant]:
    """Give every mutant of an alert rule, once each, with the annotations that may tell.

    Texts are what takes time in promtool: where the fault is not in one, those are left out that
    show no value of the expression.
    """
    texts = rule["annotations"]
    rule = rule | {"annotations": {k: v for k, v in texts.items() if "$value" in v}}
    seen = {rule["expr"].strip()}
    for what, expr in _of_expression(rule["expr"]):
        if expr.strip() not in seen:
            seen.add(expr.strip())
            yield Mutant(f"expr: {what}", rule | {"expr": expr})
    for name in ("for", "keep_firing_for"):
        if name in rule:
            yield Mutant(f"{name}: halved", rule | {name: halved(rule[name])})
            yield Mutant(f"{name}: left out", {k: v for k, v in rule.items() if k != name})
    for name, text in rule["labels"].items():
        for what, other in _of_text(text):
            yield Mutant(
                f"labels.{name}: {what}", rule | {"labels": rule["labels"] | {name: other}}
            )
    for name, text in texts.items():
        for what, other in _of_text(text):
            yield Mutant(f"annotations.{name}: {what}", rule | {"annotations": {name: other}})


def halved(duration: str) -> str:
    """Halve a Prometheus duration of one unit, to whole seconds."""
    found = _DURATION.fullmatch(duration)
    assert found, duration
    return f"{int(found[1]) * _UNIT_SECONDS[found[2]] // 2}s"


# --- expressions -----------------------------------------------------------------------------


def _of_expression(expr: str) -> Iterator[tuple[str, str]]:
    tokens = _TOKEN.findall(expr)
    for at, what, other in _of_tokens(tokens):
        yield what, "".join([*tokens[:at], other, *tokens[at + 1 :]])
    yield from _without_matchers(tokens)
    yield from _without_labels(tokens)
    yield from _without_arms(tokens)
    yield from _without_windows(tokens)


def _of_tokens(tokens: list[str]) -> Iterator[tuple[int, str, str]]:
    """Give faults of a single token: where, what, and what stands there instead."""
    inside = False
    grouping = False
    for at, token in enumerate(tokens):
        inside = token == "{" or (inside and token != "}")
        if token in _GROUPINGS:
            grouping = True
        elif token == ")":
            grouping = False
        if inside:
            if token in _MATCHERS:
                yield at, f"{token} to {_MATCHERS[token]}", _MATCHERS[token]
            if token.startswith('"'):
                for less in _less(token):
                    yield at, f"{token} to {less}", less
            continue
        for other in _COMPARISONS.get(token, ()):
            yield at, f"{token} to {other}", other
        if token in _SWAPPED:
            yield at, f"{token} to {_SWAPPED[token]}", _SWAPPED[token]
        elif _METRIC.fullmatch(token) and not grouping:
            yield at, f"{token} renamed", f"{token}_renamed"
        elif token == "bool":
            yield at, "bool left out", ""
        elif re.fullmatch(r"\d+(\.\d+)?", token):
            near = 0.25 if "." in token else 1
            for other in (float(token) - near, float(token) + near):
                yield at, f"{token} to {other:g}", f"{other:g}"
        elif token.startswith("["):
            yield at, f"{token} halved", f"[{halved(token.strip('[]'))}]"
        elif _DURATION.fullmatch(token):
            yield at, f"{token} halved", halved(token)


def _less(string: str) -> Iterator[str]:
    """Give a regular expression without each of its alternatives."""
    alternatives = string.strip('"').split("|")
    if len(alternatives) > 1:
        for gone in alternatives:
            yield '"' + "|".join(one for one in alternatives if one != gone) + '"'


def _without_matchers(tokens: list[str]) -> Iterator[tuple[str, str]]:
    for opened in (at for at, token in enumerate(tokens) if token == "{"):
        closed = tokens.index("}", opened)
        parts = "".join(tokens[opened + 1 : closed]).split(",")
        assert len(parts) == sum(token in _MATCHERS for token in tokens[opened:closed])
        for gone in parts:
            rest = ",".join(part for part in parts if part is not gone)
            yield (
                f"{{{gone}}} left out",
                "".join([*tokens[:opened], f"{{{rest}}}" if rest else "", *tokens[closed + 1 :]]),
            )


def _without_labels(tokens: list[str]) -> Iterator[tuple[str, str]]:
    """Leave out each label of `on (...)` and `by (...)`."""
    for at, token in enumerate(tokens):
        if token not in _GROUPINGS:
            continue
        opened = tokens.index("(", at)
        closed = tokens.index(")", opened)
        labels = "".join(tokens[opened + 1 : closed]).replace(" ", "").split(",")
        for gone in labels:
            rest = ", ".join(label for label in labels if label != gone)
            yield (
                f"{token} ({gone}) left out",
                "".join([*tokens[: opened + 1], rest, *tokens[closed:]]),
            )


def _without_arms(tokens: list[str]) -> Iterator[tuple[str, str]]:
    """Leave out what stands on either side of `and`, `or` and `unless`."""
    for at, token in enumerate(tokens):
        if token not in _ARMS:
            continue
        left, right = at, _right_of(tokens, at)
        while left and not _ends(tokens, left - 1, at):
            left -= 1
        end = right
        while end < len(tokens) and not _ends(tokens, end, at):
            end += 1
        yield f"{token}: right side left out", "".join([*tokens[:at], *tokens[end:]])
        yield f"{token}: left side left out", "".join([*tokens[:left], *tokens[right:]])


def _right_of(tokens: list[str], at: int) -> int:
    """Give where the right side of an operator begins: after its `on (...)`, if it has one."""
    following = next(i for i in range(at + 1, len(tokens)) if not tokens[i].isspace())
    if tokens[following] in _GROUPINGS:
        return tokens.index(")", following) + 1
    return at + 1


def _ends(tokens: list[str], at: int, of: int) -> bool:
    """Whether a token is the end of a side of the operator `of`: another one, or a bracket."""
    depth = _depth(tokens, of)
    if tokens[at] in _ARMS:
        return _depth(tokens, at) == depth
    return tokens[at] in "()" and min(_depth(tokens, at), _depth(tokens, at + 1)) < depth


def _depth(tokens: list[str], at: int) -> int:
    return tokens[:at].count("(") - tokens[:at].count(")")


def _without_windows(tokens: list[str]) -> Iterator[tuple[str, str]]:
    """Look at one sample instead of a window: what a lost scrape then does must be noticed."""
    for at, token in enumerate(tokens):
        if _OVER_TIME.fullmatch(token):
            window = next(i for i in range(at, len(tokens)) if tokens[i].startswith("["))
            yield (
                f"{token}{tokens[window]} left out",
                "".join([*tokens[:at], *tokens[at + 1 : window], *tokens[window + 1 :]]),
            )


# --- labels and annotations --------------------------------------------------------------------


def _of_text(text: str) -> Iterator[tuple[str, str]]:
    """Empty it, take each action out of it, and turn what its actions ask about."""
    yield "empty", ""
    for found in re.finditer(r"\{\{-? ?(\$labels\.\w+|\$value)[^}]*\}\}", text):
        if found[0] != text:
            yield f"{found[0]} left out", text[: found.start()] + text[found.end() :]
    for found in re.finditer(r'(eq \$(?:status|value) )("?)-?\d(?:\.0)?"?', text):
        other = f"{found[1]}{found[2]}9{found[2] or '.0'}"
        yield f"{found[0]} to {other}", text[: found.start()] + other + text[found.end() :]
    for found in re.finditer(r"(?<![\w:/#])((?:opensips_sr|sr_exporter)_\w+)(?=[{\[`\")])", text):
        renamed = f"{found[0]}_renamed"
        yield f"{found[0]} renamed", text[: found.start()] + renamed + text[found.end() :]
