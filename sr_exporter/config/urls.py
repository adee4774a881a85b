"""What is wrong with a URL, said without showing any of it: it may hold a password."""

from __future__ import annotations

import ipaddress
import re
from urllib.parse import SplitResult, urlsplit

_CHARACTERS = re.compile(r"[A-Za-z0-9\-._~:/?#\[\]@!$&'()*+,;=%]*")
_HOST = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9.])?")


def scheme_of(url: str) -> str:
    return url.partition("://")[0].lower() if "://" in url else ""


def url_fault(url: str, *, secret: bool, auth_hint: str) -> str | None:
    """Say why a URL cannot be used, or give None.

    A secret one may have a query, and an @ in its path; elsewhere that would be half a
    password (`http://user:12/34@host/`), shown to all.
    """
    if not _CHARACTERS.fullmatch(url):
        # Before it is split: `urlsplit` drops line breaks and tabs without a word.
        return "must be a URL in plain ASCII; write other characters percent-encoded"
    if scheme_of(url) not in {"http", "https"}:
        return "must begin with http:// or https://"
    try:
        parts = urlsplit(url)
    except ValueError:
        return "is not a URL"
    if "@" in (parts.netloc if secret else url):
        return f"must not hold a user name or password: {auth_hint}"
    return _host_fault(parts) or _port_fault(parts) or _tail_fault(url, secret=secret)


def _tail_fault(url: str, *, secret: bool) -> str | None:
    if "#" in url:
        return "must not have a fragment (#)"
    if "?" in url and not secret:
        return "must not have a query (?)"
    return None


def _host_fault(parts: SplitResult) -> str | None:
    if parts.netloc.startswith("["):
        try:
            ipaddress.IPv6Address(parts.hostname or "")
        except ValueError:
            return "has no valid IPv6 address between the brackets"
    elif not _HOST.fullmatch(parts.hostname or ""):
        return "has no valid host name"
    return None


def _port_fault(parts: SplitResult) -> str | None:
    try:
        valid = parts.port != 0 and not parts.netloc.endswith(":")
    except ValueError:
        valid = False
    return None if valid else "must have a port from 1 to 65535"
