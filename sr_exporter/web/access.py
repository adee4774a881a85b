"""Who may write.

Until authentication is configured, loopback may, and nobody else (design, section 5). A
request that was forwarded, that a page of another origin made a browser send, or that was sent to
another name than this machine's, is not from loopback, wherever its connection comes from
(docs/decisions/0032). With `push.tokens` configured everybody needs one, loopback too, unless the
web configuration knows who asks (gate.py).
"""

from __future__ import annotations

import functools
import hashlib
import hmac
import ipaddress
import socket
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from sr_exporter.model import fold
from sr_exporter.web.errors import Refused

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from starlette.requests import Request

    from sr_exporter.config import Token

_FORWARDED = frozenset(
    {
        b"forwarded",
        b"via",
        b"x-real-ip",
        b"x-client-ip",
        b"x-cluster-client-ip",
        b"x-envoy-external-address",
        b"x-original-forwarded-for",
        b"true-client-ip",
        b"cf-connecting-ip",
    }
)
#: What browsers say of a request that is not of a page of ours (Fetch Metadata).
_FOREIGN_SITES = (b"cross-site", b"same-site")
_CLOSED = (
    "writing is open to loopback only until authentication is configured:"
    " set push.tokens in the configuration file, or users or client certificates in"
    " --web.config.file (what is forwarded, is for another host, or comes of a foreign page never"
    " counts as loopback)"
)
_NO_CERTIFICATE = (
    "a client certificate is needed, of an authority in client_ca or client_ca_file of"
    " --web.config.file"
)
_FOREIGN_PAGE = (
    "a page of another origin may not write, though the browser has a password or a certificate:"
    " programs send a token of push.tokens"
)
#: In an ASGI scope: what is known of who asks, a `Grant` or STRANGER; absent where nothing was
#: looked at.
GRANT = "sr_exporter.grant"
#: In an ASGI scope: the `Grant` that reading takes; absent where everybody may read.
READS = "sr_exporter.reads"
#: Somebody who shows nothing, where authentication is configured.
STRANGER: Final = "stranger"
_NOT_SHOWN = (
    "a token of push.tokens is needed: send Authorization: Bearer TOKEN (or a client certificate,"
    " where --web.config.file asks for one)"
)


@dataclass(frozen=True, slots=True)
class Grant:
    """What a request may write: everything, or what its token is for."""

    token: Token | None = None

    @property
    def is_whole(self) -> bool:
        """Whether it is for everything."""
        token = self.token
        return token is None or ("*" in token.sources and "*" in token.groups)

    def require(self, targets: Iterable[tuple[str, str]], *, what: str = "write") -> None:
        """Refuse unless `what` may be done to every (source, group); group `*` is all of them.

        Raises:
            Refused: 403, with the first that may not be.
        """
        if self.token is None:
            return
        for source, group in dict.fromkeys(targets):
            if not self._allows(source, group):
                raise Refused(
                    403,
                    f"this token may not {what} source {source!r}, group {group!r}:"
                    " see sources and groups of its entry in push.tokens",
                )

    def require_everything(self, what: str) -> None:
        """Refuse unless everything may be written.

        Raises:
            Refused: 403; `what` is not for a token of some sources or groups.
        """
        if not self.is_whole:
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


WHOLE: Final = Grant()


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
            Refused: 403 for a stranger, 401 for one without what authentication takes.
        """
        known = request.scope.get(GRANT)
        if isinstance(known, Grant):
            if known.token is None and _is_of_a_foreign_page(request):
                raise Refused(403, _FOREIGN_PAGE)
            return known
        headers = request.scope["headers"]
        if not self._tokens:
            if known is STRANGER:
                raise Refused(401, _NO_CERTIFICATE, {"WWW-Authenticate": "ClientCertificate"})
            if not is_from_loopback(request):
                raise Refused(403, _CLOSED)
            return WHOLE
        if not self.is_token(headers):
            raise Refused(401, _NOT_SHOWN, {"WWW-Authenticate": "Bearer"})
        grant = self.bearer(headers)
        if grant is None:
            raise Refused(401, "this token is not known", {"WWW-Authenticate": "Bearer"})
        return grant

    def is_token(self, headers: Sequence[tuple[bytes, bytes]]) -> bool:
        """Say whether a request comes with a token, and tokens are configured."""
        return bool(self._tokens and _token(headers))

    def bearer(self, headers: Sequence[tuple[bytes, bytes]]) -> Grant | None:
        """Give what the bearer of a request's token may write; None if it is not known."""
        digest = hashlib.sha256(_token(headers)).digest()
        for token in self._tokens:
            if hmac.compare_digest(token.digest, digest):
                return Grant(token)
        return None


def require_reading(request: Request, source: str, group: str = "*") -> None:
    """Refuse to tell the bearer of a token of what it is not for, where reading is closed.

    Raises:
        Refused: 403.
    """
    reads = request.scope.get(READS)
    if reads is not None:
        reads.require([(source, group)], what="ask for")


def _token(headers: Sequence[tuple[bytes, bytes]]) -> bytes:
    for name, said in headers:
        if name == b"authorization":
            scheme, _, token = said.partition(b" ")
            return token.strip() if scheme.lower() == b"bearer" else b""
    return b""


def _is_of_a_foreign_page(request: Request) -> bool:
    """Whether a page of somebody else had a browser send this, with what the browser knows."""
    said: dict[bytes, bytes] = dict(reversed(request.scope["headers"]))
    if said.get(b"sec-fetch-site", b"").lower() in _FOREIGN_SITES:
        return True
    origin, host = said.get(b"origin"), said.get(b"host", b"")
    return origin is not None and origin.lower().partition(b"://")[2] != host.lower()


def is_from_loopback(request: Request) -> bool:
    """Say whether a request was made on this machine, by no proxy and no foreign page."""
    client = request.scope.get("client")
    # Its headers are lower case already; of one that is repeated the first counts.
    said: dict[bytes, bytes] = dict(reversed(request.scope["headers"]))
    if client is None or not _FORWARDED.isdisjoint(said):
        return False
    for name in said:
        if name.startswith(b"x-forwarded"):
            return False
    if said.get(b"sec-fetch-site", b"").lower() in _FOREIGN_SITES:
        return False
    host = said.get(b"host", b"")
    if host and request.scope.get("http_version") == "1.0":
        # nginx asks so unless told otherwise, before 1.29.7, and says nothing of whom it asks for.
        return False
    if not (_is_loopback(client[0]) and _names_this_machine(host)):
        return False
    origin = said.get(b"origin")
    return origin is None or _is_own_origin(origin.decode("latin-1"), host.decode("latin-1"))


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


@functools.lru_cache(maxsize=256)  # most requests are for few names
def _names_this_machine(host: bytes) -> bool:
    """Whether a Host header may be that of a request made on this machine.

    A page of a foreign name, which its owner has resolve to 127.0.0.1, makes a browser send that
    name (DNS rebinding); so do some proxies. Such a name has a dot: what has none is resolved by
    this machine, or its network. Who sends no Host is no browser.
    """
    name = host.decode("latin-1").lower()
    name = name[1:].partition("]")[0] if name.startswith("[") else name.partition(":")[0]
    name = name.removesuffix(".")
    return (
        not {".", ":"} & set(name)
        or name.endswith(".localhost")  # RFC 6761, section 6.3
        or name in (socket.gethostname().lower(), "0.0.0.0", "::")  # noqa: S104 - compared
        or _is_loopback(name)
    )


@functools.lru_cache(maxsize=256)  # most requests are of few addresses
def _is_loopback(host: str) -> bool:
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped.is_loopback
    return address.is_loopback
