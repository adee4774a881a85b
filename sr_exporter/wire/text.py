r"""Bytes to text that can be shown, and JSON that survives invalid UTF-8.

OpenSIPS sends details and logs as raw bytes; one invalid one would cost the whole list with a
strict decoder (facts on escaping). The strict decoder is tried first, since it is fast and
nearly always right; what it refuses is read once more by way of `surrogateescape`, so that
names and texts can be mended each in its own way:

* a *text* (details, log) shows U+FFFD for what is not UTF-8;
* a *name* shows the bytes as `\\xff`, so that two names stay two.
"""

from __future__ import annotations

import json
import re
from typing import Any, NoReturn, TypeVar

import msgspec

from sr_exporter.cutting import MOST_DETAILS, MOST_LOG, MOST_NAME, cut_name, cut_text, is_cut

T = TypeVar("T")

_SURROGATE = re.compile("[\ud800-\udfff]")
_ESCAPED = re.compile(r"\\x[89a-f][0-9a-f]|\\ud[89a-f][0-9a-f]{2}")


class Undecodable(ValueError):  # noqa: N818 - named for what befell the caller
    """Bytes that are not JSON, with the reason."""


def loads(data: bytes) -> Any:
    """Decode JSON whose strings may hold invalid UTF-8, as lone surrogates (PEP 383).

    The keys of its objects are names already.

    Raises:
        Undecodable: it is not JSON, or nested beyond reason.
    """
    try:
        return json.loads(
            data.decode("utf-8", "surrogateescape"),
            parse_constant=_no_constant,
            object_pairs_hook=_with_names,
        )
    except RecursionError:
        raise Undecodable("JSON is nested too deeply") from None
    except ValueError as error:
        raise Undecodable(f"JSON is malformed: {error}") from None


def convert(document: Any, wanted: type[T]) -> T:
    """Make a typed value of what `loads` gave.

    Raises:
        Undecodable: it is something else.
    """
    try:
        return msgspec.convert(document, wanted)
    except msgspec.ValidationError as error:
        raise Undecodable(text(str(error))) from None
    except UnicodeEncodeError:  # a string that is no UTF-8, where none was wanted
        raise Undecodable("invalid UTF-8 in the place of another value") from None


def name(said: str) -> str:
    r"""Make a name encodable: what is no UTF-8 becomes `\\xff`, a stray surrogate `\\ud800`.

    One that is too long is cut, and stays another than all others.
    """
    if not said.isascii() and _SURROGATE.search(said):
        said = _SURROGATE.sub(_escaped, said)
    return said if len(said) <= MOST_NAME else cut_name(said)


def may_be_escaped(said: str) -> bool:
    """Whether a name may hold what `name` wrote for it: by that, nobody knows it."""
    return is_cut(said) or _ESCAPED.search(said) is not None


def text(said: str) -> str:
    """Make a text encodable: what is no UTF-8 becomes U+FFFD, as Python replaces it."""
    if said.isascii() or not _SURROGATE.search(said):
        return said
    raw = said.encode("utf-8", "surrogatepass" if _foreign(said) else "surrogateescape")
    return raw.decode("utf-8", "replace")


def details_of(said: str) -> str:
    """Make details of what was said: a text that is not too long."""
    said = text(said)
    return said if len(said) <= MOST_DETAILS else cut_text(said, MOST_DETAILS)


def log(said: str) -> str:
    """Make a log line of what was logged: a text without its one trailing newline."""
    line = text(said).removesuffix("\n")
    return line if len(line) <= MOST_LOG else cut_text(line, MOST_LOG)


def _foreign(said: str) -> bool:
    """Whether there is a surrogate that stands for no byte: it was written as an escape."""
    return any(not "\udc80" <= found <= "\udcff" for found in _SURROGATE.findall(said))


def _escaped(found: re.Match[str]) -> str:
    code = ord(found[0])
    return f"\\x{code - 0xDC00:02x}" if 0xDC80 <= code <= 0xDCFF else f"\\u{code:04x}"


def _with_names(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Make an object whose keys can be encoded: no decoder takes others."""
    return {name(key): value for key, value in pairs}


def _no_constant(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not JSON")
