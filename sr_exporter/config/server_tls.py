"""Server contexts for TLS, from what exporter-toolkit's format says in Go's words."""

from __future__ import annotations

import contextlib
import os
import ssl
import tempfile
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sr_exporter.config.reading import Place


class ClientAuth(Enum):
    """What is asked of a client's certificate."""

    NONE = "NoClientCert"
    IF_GIVEN = "VerifyClientCertIfGiven"
    REQUIRED = "RequireAndVerifyClientCert"


AUTH_TYPES: Final = {one.value: one for one in ClientAuth}
#: Go can ask for a certificate and believe it as it is.
UNVERIFIED: Final = ("RequestClientCert", "RequireAnyClientCert", "RequireClientCert")
_VERIFY: Final = {
    ClientAuth.NONE: ssl.CERT_NONE,
    ClientAuth.IF_GIVEN: ssl.CERT_OPTIONAL,
    ClientAuth.REQUIRED: ssl.CERT_REQUIRED,
}
VERSIONS: Final = {"TLS12": ssl.TLSVersion.TLSv1_2, "TLS13": ssl.TLSVersion.TLSv1_3}
OLD_VERSIONS: Final = ("TLS10", "TLS11")
#: What Go calls the suites, and OpenSSL. Those of TLS 1.3 are not chosen, in either of them.
CIPHERS: Final = {
    "TLS_AES_128_GCM_SHA256": "",
    "TLS_AES_256_GCM_SHA384": "",
    "TLS_CHACHA20_POLY1305_SHA256": "",
    "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256": "ECDHE-ECDSA-AES128-GCM-SHA256",
    "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384": "ECDHE-ECDSA-AES256-GCM-SHA384",
    "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256": "ECDHE-ECDSA-CHACHA20-POLY1305",
    "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA": "ECDHE-ECDSA-AES128-SHA",
    "TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA": "ECDHE-ECDSA-AES256-SHA",
    "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256": "ECDHE-RSA-AES128-GCM-SHA256",
    "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384": "ECDHE-RSA-AES256-GCM-SHA384",
    "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256": "ECDHE-RSA-CHACHA20-POLY1305",
    "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA": "ECDHE-RSA-AES128-SHA",
    "TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA": "ECDHE-RSA-AES256-SHA",
}
CURVES: Final = {
    "X25519": "X25519",
    "CurveP256": "prime256v1",
    "CurveP384": "secp384r1",
    "CurveP521": "secp521r1",
}


#: What decides whether a client may make a connection.
Clients = tuple[ClientAuth, str, frozenset[str] | None]


class Identity(NamedTuple):
    """Who the server is, and where that is written."""

    certificate_at: Place
    certificate: str
    key_at: Place
    key: str


@dataclass(frozen=True, slots=True)
class Wishes:
    """What is chosen within TLS; what is empty is left to Python."""

    least: str = ""
    most: str = ""
    ciphers: tuple[str, ...] = ()
    prefer_ours: bool = True
    curve: str = ""


@dataclass(frozen=True, slots=True)
class ServerTls:
    """How connections are encrypted, and who may make one."""

    context: ssl.SSLContext = field(repr=False, compare=False)
    client_auth: ClientAuth
    #: Names, one of which a client's certificate must hold; None: any that is trusted will do.
    allowed_sans: frozenset[str] | None
    #: By whom a client's certificate must be issued, in PEM.
    client_ca: str = field(repr=False)

    @property
    def clients(self) -> Clients:
        """Who may make a connection: one made by other rules is not one of theirs."""
        return self.client_auth, self.client_ca, self.allowed_sans

    @property
    def asks_for_certificates(self) -> bool:
        return self.client_auth is not ClientAuth.NONE


def takes_curve(name: str) -> bool:
    """Whether this Python's ssl can be told to use it alone: some cannot, of X25519."""
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).set_ecdh_curve(CURVES[name])
    except ssl.SSLError:
        return False
    return True


def served(
    identity: Identity,
    auth: ClientAuth,
    ca: str,
    sans: frozenset[str] | None,
    wishes: Wishes,
) -> ServerTls | None:
    """Make the context; what is wrong goes to the faults, and None is given."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    if not _identified(context, identity):
        return None
    context.minimum_version = VERSIONS[wishes.least or "TLS12"]
    context.maximum_version = VERSIONS[wishes.most or "TLS13"]
    suites = [CIPHERS[name] for name in wishes.ciphers if CIPHERS[name]]
    if suites:
        context.set_ciphers(":".join(suites))
    elif wishes.ciphers:  # of TLS 1.3 only
        context.minimum_version = ssl.TLSVersion.TLSv1_3
    if not wishes.prefer_ours:
        context.options &= ~ssl.OP_CIPHER_SERVER_PREFERENCE
    if wishes.curve:
        context.set_ecdh_curve(CURVES[wishes.curve])
    context.set_alpn_protocols(["http/1.1"])
    if auth is not ClientAuth.NONE:
        context.verify_mode = _VERIFY[auth]
        # In Go every certificate of the file is trusted, one in the middle of a chain too.
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
        context.load_verify_locations(cadata=ca)
    return ServerTls(context, auth, sans, ca)


def _identified(context: ssl.SSLContext, identity: Identity) -> bool:
    """Load certificate and key."""
    if "BEGIN CERTIFICATE" not in identity.certificate:
        identity.certificate_at.fault("holds no certificate in PEM")
    if "PRIVATE KEY-----" not in identity.key:
        identity.key_at.fault("holds no private key in PEM")
    elif "ENCRYPTED" in identity.key:
        identity.key_at.fault("is encrypted: there is nobody here to be asked for its password")
    elif "BEGIN CERTIFICATE" in identity.certificate:
        return _loaded(context, identity)
    return False


def _loaded(context: ssl.SSLContext, identity: Identity) -> bool:
    with _as_file(f"{identity.key}\n") as key, _as_file(f"{identity.certificate}\n") as certificate:
        try:
            context.load_cert_chain(certificate, key, password=_no_password)
        except ssl.SSLError as error:
            if error.reason == "KEY_VALUES_MISMATCH":
                identity.key_at.fault("is not the key of the certificate")
            else:
                why = (error.reason or "damaged").replace("_", " ").lower()
                identity.certificate_at.fault(f"cannot be used with its key: {why}")
            return False
        except (OSError, ValueError) as error:
            identity.certificate_at.fault(f"cannot be used with its key: {type(error).__name__}")
            return False
    return True


def _no_password() -> str:
    """Have OpenSSL fail instead of asking at the terminal."""
    return ""


@contextlib.contextmanager
def _as_file(text: str) -> Iterator[str]:
    """Give a path to a text that is in memory: Python's ssl takes keys from files only."""
    if not hasattr(os, "memfd_create"):
        with tempfile.NamedTemporaryFile("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            yield file.name
        return
    descriptor = os.memfd_create("pem")
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8", closefd=False) as memory:
            memory.write(text)
        yield f"/proc/self/fd/{descriptor}"
    finally:
        os.close(descriptor)
