"""The filters of Alertmanager's API: `name="value"`, `!=`, `=~` and `!~`.

Read as Alertmanager reads them (its pkg/labels): quotes may be left out, and a label that an
alert does not have is one that is empty. Regular expressions are RE2's, as they are in Go: what
strangers ask for takes linear time.
"""

from __future__ import annotations

import re
from functools import cache
from typing import TYPE_CHECKING

import re2

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

#: White space after the value is left to `rstrip`: looked for here, it would cost the square of it.
_MATCHER = re.compile(r"\s*([a-zA-Z_:][a-zA-Z0-9_:]*)\s*(=~|=|!=|!~)\s*(.*)", re.DOTALL)
_ESCAPED = re.compile(r'\\([n"\\])')
_BARE_QUOTE = re.compile(r'(?<!\\)(?:\\\\)*"')
_LETTERS = {"n": "\n"}


def matcher(text: str) -> Callable[[Mapping[str, str]], bool]:
    """Read one filter.

    Raises:
        ValueError: it is none, or its regular expression is none.
    """
    found = _MATCHER.fullmatch(text)
    if found is None:
        raise ValueError(f"bad matcher format: {text}")
    name, sign, value = found[1], found[2], _value(found[3].rstrip())
    wanted = not sign.startswith("!")
    if not sign.endswith("~"):
        return lambda labels: (labels.get(name, "") == value) is wanted
    fits = cache(expression(value))
    return lambda labels: fits(labels.get(name, "")) is wanted


def expression(text: str) -> Callable[[str], bool]:
    """Read a regular expression, which must fit a whole text.

    Raises:
        ValueError: it is none.
    """
    options = re2.Options()
    options.log_errors = False
    try:
        compiled = re2.compile(text, options)
    except re2.error as error:
        raise ValueError(f"error parsing regexp: {_reason(error)}") from None
    return lambda value: compiled.fullmatch(value) is not None


def _reason(error: Exception) -> str:
    said = error.args[0] if error.args else "?"
    return said.decode("utf-8", "replace") if isinstance(said, bytes) else str(said)


def _value(text: str) -> str:
    quoted = text.startswith('"')
    inner = text[1:-1] if quoted else text
    closed = not quoted or (len(text) > 1 and text.endswith('"') and _is_whole(inner))
    if not closed or _BARE_QUOTE.search(inner):
        raise ValueError(f"matcher value contains unescaped double quote: {text}")
    return _ESCAPED.sub(lambda escape: _LETTERS.get(escape[1], escape[1]), inner)


def _is_whole(inner: str) -> bool:
    """Whether a text does not end amid an escape."""
    return (len(inner) - len(inner.rstrip("\\"))) % 2 == 0
