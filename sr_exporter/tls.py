"""Whom to trust over TLS, and what is wrong with who is not to be trusted."""

from __future__ import annotations

import functools
import ssl


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
