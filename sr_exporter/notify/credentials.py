"""What a request to a notifier bears to prove that it is ours. Pure.

Never logged: whoever makes a request puts it into headers, and nowhere else.
"""

from __future__ import annotations

import base64
import hmac
from typing import TYPE_CHECKING

from sr_exporter.config import BasicAuth

if TYPE_CHECKING:
    from sr_exporter.config import Access, Secret

SIGNATURE = "X-SR-Signature-256"


def headers(access: Access) -> dict[str, str]:
    """Give the header that says who we are, if one is to."""
    auth = access.auth
    if auth is None:
        return {}
    if isinstance(auth, BasicAuth):
        pair = f"{auth.username}:{auth.password.reveal()}"
        said = f"Basic {base64.b64encode(pair.encode()).decode()}"
    else:
        said = f"{auth.scheme} {auth.credentials.reveal()}"
    return {"Authorization": said}


def trusted(access: Access) -> str | None:
    """Give the certificates whoever is asked is trusted by, in PEM; None: the system's."""
    return access.tls.ca if access.tls else None


def signature(secret: Secret | None, body: bytes) -> dict[str, str]:
    """Give the header that proves a body to be ours: an HMAC of it, in hex, lower case."""
    if secret is None:
        return {}
    return {SIGNATURE: f"sha256={hmac.digest(secret.reveal().encode(), body, 'sha256').hex()}"}
