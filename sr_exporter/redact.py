"""What must not be seen: secrets, and the secret parts of URLs."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

_URL_CHARACTERS = re.compile(r"[A-Za-z0-9\-._~:/?#\[\]@!$&'()*+,;=%]+")


def redact_url(url: str) -> str:
    """Keep scheme, host and port: the rest of a webhook's URL often is the password.

    Of what cannot be told apart with certainty nothing is kept.
    """
    if not _URL_CHARACTERS.fullmatch(url):
        return "…"
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return "…"
    host = parts.hostname
    if not (parts.scheme and host):
        return "…"
    rest = url.partition("://")[2].partition(parts.netloc)[2]
    if "@" in rest:
        # `https://user:12/34@host/`: what looks like the host may be half a password.
        return f"{parts.scheme}://…"
    if ":" in host:
        host = f"[{host}]"
    if port is not None:
        host = f"{host}:{port}"
    return f"{parts.scheme}://{host}{'/…' if rest not in {'', '/'} else rest}"


class Secret:
    """A string that shows itself only to who asks for it by name."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        return self._value

    def __repr__(self) -> str:
        return "<secret>"

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        return self._value == other._value

    def __hash__(self) -> int:
        return hash((type(self), self._value))


class SecretUrl(Secret):
    """A URL that may be shown only so far as to tell whom it is for."""

    __slots__ = ()

    def __repr__(self) -> str:
        return redact_url(self.reveal())
