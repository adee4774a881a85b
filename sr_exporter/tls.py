"""Whom to trust over TLS, and what is wrong with who is not to be trusted."""

from __future__ import annotations

import functools
import ssl
from typing import NamedTuple


@functools.cache
def context(ca: str | None) -> ssl.SSLContext:
    """Give the context that trusts these certificates, in PEM, or the system's.

    Reading the system's takes tens of milliseconds, so each is made once.

    Raises:
        ssl.SSLError: there is no certificate in `ca`.
    """
    made = ssl.create_default_context(cadata=ca)
    made.minimum_version = ssl.TLSVersion.TLSv1_2
    return made


class Certificate(NamedTuple):
    """Who we are, in PEM files; the key may be in the same one."""

    file: str
    key_file: str | None = None


def certified(ca: str | None, certificate: Certificate) -> ssl.SSLContext:
    """Give a context as `context` does, that shows a certificate; anew, as its files are now.

    Raises:
        OSError: the files cannot be read, or (ssl.SSLError) are no certificate and its key.
    """
    made = ssl.create_default_context(cadata=ca)
    made.minimum_version = ssl.TLSVersion.TLSv1_2
    made.load_cert_chain(certificate.file, certificate.key_file, password=_no_password)
    return made


def _no_password() -> str:
    """Have OpenSSL fail at an encrypted key instead of asking at the terminal."""
    return ""


def why(error: ssl.SSLError) -> str:
    """Say what an operator has to mend."""
    if not isinstance(error, ssl.SSLCertVerificationError):
        reason = (error.reason or "handshake failed").replace("_", " ").lower()
        return f"TLS: {reason}"
    said = error.verify_message.rstrip(".")
    match error.verify_code:  # X509_V_ERR_* of OpenSSL
        case 10:
            return "TLS: the certificate has expired"
        case 9:
            return "TLS: the certificate is not valid yet"
        case 62 | 64:
            return f"TLS: the certificate is for another host: {said}"
        case 2 | 18 | 19 | 20 | 21:
            return f"TLS: the certificate is not trusted: {said}"
        case _:
            return f"TLS: the certificate is refused: {said}"
