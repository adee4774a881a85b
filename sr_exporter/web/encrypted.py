"""TLS on the listening sockets, by the web configuration as it is at each new connection."""

from __future__ import annotations

import ipaddress
import ssl
from typing import TYPE_CHECKING, Any

import structlog

from sr_exporter.web.writes import Protocol

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Iterator, Mapping

    from sr_exporter.config.server_tls import Clients, ServerTls

log = structlog.get_logger(__name__)

#: In an ASGI scope's `extensions`: the client has shown a certificate that is trusted.
CERTIFIED = "sr_exporter.certified"
#: The same: by which rules its connection was made, `Clients`; None: by some that are in force no
#: more.
MADE_BY = "sr_exporter.made_by"


class Context(ssl.SSLContext):
    """Is what listens, and has each new connection made by the context that is in force.

    An event loop takes one context for as long as it listens, and a context cannot be made to
    trust less than it did.
    """

    #: Gives what is in force: after a look at the files, and as it was found last.
    current: Callable[[], ServerTls]
    last: Callable[[], ServerTls]

    def wrap_bio(self, *args: Any, **kwargs: Any) -> ssl.SSLObject:
        return self.current().context.wrap_bio(*args, **kwargs)


def listening(current: Callable[[], ServerTls], last: Callable[[], ServerTls]) -> Context:
    """Make the context that listens; the two give what is in force."""
    context = Context(ssl.PROTOCOL_TLS_SERVER)
    context.current, context.last = current, last
    return context


class EncryptedProtocol(Protocol):
    """Closes connections of clients whose certificate is for somebody else."""

    _certified = False
    _made_by: Clients | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        context = self.config.ssl
        certificate = transport.get_extra_info("peercert")
        if isinstance(context, Context):
            tls = context.current()
            if transport.get_extra_info("ssl_object").context is tls.context:
                self._made_by = tls.clients
            allowed = tls.allowed_sans
            if allowed is not None and not is_allowed(certificate or {}, allowed):
                log.info("client certificate refused: none of its names is allowed")
                transport.abort()
                return
        self._certified = bool(certificate)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        extensions: dict[str, Any] = self.scope["extensions"]
        extensions[MADE_BY] = self._made_by
        if self._certified:
            extensions[CERTIFIED] = {}

    def is_outdated(self) -> bool:
        """Whether it was made by rules that are in force no more."""
        context = self.config.ssl
        return isinstance(context, Context) and context.last().clients != self._made_by


def is_allowed(certificate: Mapping[str, Any], allowed: frozenset[str]) -> bool:
    """Say whether one of the names of a certificate is allowed."""
    wanted = {_written_alike(name) for name in allowed}
    return not wanted.isdisjoint(_names(certificate))


def _names(certificate: Mapping[str, Any]) -> Iterator[str]:
    """Give the names that Go would compare (crypto/x509): DNS, e-mail, IP and URI."""
    for kind, name in certificate.get("subjectAltName", ()):
        if kind in ("DNS", "email", "URI"):
            yield name
        elif kind == "IP Address":
            yield _written_alike(name)


def _written_alike(name: str) -> str:
    """Write an IP address as Go does: OpenSSL writes IPv6 in full."""
    try:
        return str(ipaddress.ip_address(name.strip()))
    except ValueError:
        return name
