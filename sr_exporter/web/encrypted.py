"""TLS on the listening sockets, by the web configuration as it is at each new connection."""

from __future__ import annotations

import ipaddress
import ssl
from typing import TYPE_CHECKING, Any

import structlog

from sr_exporter.seldom import Seldom
from sr_exporter.tls import why
from sr_exporter.web.writes import Protocol

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Iterator, Mapping

    from sr_exporter.config.server_tls import Clients, ServerTls

log = structlog.get_logger(__name__)

_IN_OTHER_WORDS = {
    "HTTP_REQUEST": "it asks by http://, and this is https://",
    "PEER_DID_NOT_RETURN_A_CERTIFICATE": "it shows no certificate",
}

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
    #: Is told, in the word of the metric, that somebody was turned away.
    turned_away: Callable[[str], None]
    _seldom: Seldom

    def distrusted(self, client: str, error: ssl.SSLError) -> None:
        """Tell of somebody whose handshake failed: all that he sees is a closed connection."""
        self.refuse(client, _IN_OTHER_WORDS.get(error.reason) or why(error))

    def refuse(self, client: str, why: str) -> None:
        """Tell why a connection is refused, once in a while of each client."""
        self.turned_away("connection")
        what = "connection refused: see tls_server_config in --web.config.file"
        self._seldom.tell(what, f"{client} {why}", what, client=client, error=why)

    def wrap_bio(self, *args: Any, **kwargs: Any) -> ssl.SSLObject:
        return self.current().context.wrap_bio(*args, **kwargs)


def listening(
    current: Callable[[], ServerTls],
    last: Callable[[], ServerTls],
    turned_away: Callable[[str], None],
) -> Context:
    """Make the context that listens; the first two give what is in force."""
    context = Context(ssl.PROTOCOL_TLS_SERVER)
    context.current, context.last, context.turned_away = current, last, turned_away
    context._seldom = Seldom(log)  # noqa: SLF001 - an SSLContext is made by its protocol alone
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
                client, _ = self.client or ("unknown", 0)
                context.refuse(client, "none of its certificate's names is in client_allowed_sans")
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
