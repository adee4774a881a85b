"""Certificates in files."""

from __future__ import annotations

import re
import ssl
from typing import Final

_CERTIFICATE: Final = re.compile(
    r"-----BEGIN CERTIFICATE-----[A-Za-z0-9+/=\s]+-----END CERTIFICATE-----"
)


def certificates(text: str) -> str:
    """Give the certificates in a PEM file, and nothing else of it: there may be keys in it, too.

    "" if there is none, or one of them cannot be read.
    """
    found = "\n".join(_CERTIFICATE.findall(text))
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=found)
    except (ssl.SSLError, ValueError):
        return ""
    return found
