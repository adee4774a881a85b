"""Names in paths: parts are told apart on the raw path, so `%2F` is a slash inside a name."""

from __future__ import annotations

from urllib.parse import unquote_to_bytes

from sr_exporter.wire.text import name


def parts(raw_path: bytes, prefix: bytes) -> list[str]:
    """Give the parts of a path after a prefix, spelled as names are held."""
    return [
        name(unquote_to_bytes(part).decode("utf-8", "surrogateescape"))
        for part in raw_path.removeprefix(prefix).split(b"/")
    ]
