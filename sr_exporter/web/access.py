"""Who may write.

Until authentication is configured, loopback may, and nobody else (design, section 5). A
request that was forwarded, or that a page of another origin made a browser send, is not from
loopback, wherever its connection comes from. With `push.tokens` configured everybody needs
one, loopback too.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from sr_exporter.model import fold
from sr_exporter.web.errors import Refused

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from starlette.requests import Request

    from sr_exporter.config import Token

_FORWARDED = ("forwarded", "via", "x-real-ip", "x-client-ip", "true-client-ip", "cf-connecting-ip")
#: What browsers say of a request that is not of a page of ours (Fetch Metadata).
_FOREIGN_SITES = ("cross-site", "same-site")
_CLOSED = (
    "writing is open to loopback only until authentication is configured:"
    " set push.tokens in the configuration file"
)
_NO_TOKEN = "a token of push.tokens is needed: send Authorization: Bearer TOKEN"  # noqa: S105 - no secret


@dataclass(frozen=True, slots=True)
class Grant:
    """What a request may write: everything, or what its token is for."""

    token: Token | None = None

    def require(self, targets: Iterable[tuple[str, str]]) -> None:
        """Refuse unless every (source, group) may be written; group `*` is all of them.

        Raises:
            Refused: 403, with the first that may not be.
        """
        if self.token is None:
            return
        for source, group in dict.fromkeys(targets):
            if not self._allows(source, group):
                raise Refused(
                    403,
                    f"this token may not write source {source!r}, group {group!r}:"
                    " see sources and groups of its entry in push.tokens",
                )

    def require_everything(self, what: str) -> None:
        """Refuse unless everything may be written.

        Raises:
            Refused: 403; `what` is not for a token of some sources or groups.
        """
        if self.token is not None and not ("*" in self.token.sources and "*" in self.token.groups):
            raise Refused(
                403,
                f"this token may not {what}: that takes sources: ['*'] and groups: ['*'] in its"
                " entry in push.tokens",
            )

    def _allows(self, source: str, group: str) -> bool:
        token = self.token
        if token is None:
            return True
        return any(fnmatchcase(source, glob) for glob in token.sources) and any(
            glob == "*" or fnmatchcase(fold(group), fold(glob)) for glob in token.groups
        )


class Access:
    """Decides who may write, by the tokens configured."""

    def __init__(self, tokens: Sequence[Token] = ()) -> None:
        self._tokens = tuple(tokens)

    def configure(self, tokens: Sequence[Token]) -> None:
        """Let the bearers of these write, and no others."""
        self._tokens = tuple(tokens)

    def writer(self, request: Request) -> Grant:
        """Give what a request may write.

        Raises:
            Refused: 403 for a stranger, 401 for one without a token that is known.
        """
        if not self._tokens:
            if not is_from_loopback(request):
                raise Refused(403, _CLOSED)
            return Grant()
        scheme, _, said = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not said.strip():
            raise Refused(401, _NO_TOKEN, {"WWW-Authenticate": "Bearer"})
        digest = hashlib.sha256(said.strip().encode()).digest()
        for token in self._tokens:
            if hmac.compare_digest(token.digest, digest):
                return Grant(token)
        raise Refused(401, "this token is not known", {"WWW-Authenticate": "Bearer"})


def is_from_loopback(request: Request) -> bool:
    """Say whether a request was made on this machine, by no proxy and no foreign page."""
    names = request.headers.keys()
    if request.client is None or any(
        name in _FORWARDED or name.startswith("x-forwarded-") for name in names
    ):
        return False
    if request.headers.get("sec-fetch-site", "").lower() in _FOREIGN_SITES:
        return False
    if not _is_loopback(request.client.host):
        return False
    origin = request.headers.get("origin")
    return origin is None or _is_own_origin(origin, request.headers.get("host", ""))


def _is_own_origin(origin: str, host: str) -> bool:
    """Whether a page of ours, opened on this machine, sent this.

    That the Origin fits the Host is not enough: a foreign name may resolve to 127.0.0.1.
    """
    try:
        parts = urlsplit(origin)
        name = parts.hostname or ""
    except ValueError:
        return False
    return parts.netloc.lower() == host.lower() and (name == "localhost" or _is_loopback(name))


def _is_loopback(host: str) -> bool:
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped.is_loopback
    return address.is_loopback
