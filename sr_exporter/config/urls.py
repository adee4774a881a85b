"""What is wrong with a URL, said without showing any of it: it may hold a password."""

from __future__ import annotations

import ipaddress
import re
from urllib.parse import SplitResult, parse_qs, unquote, urlsplit

from sr_exporter.config.addresses import LABEL

_CHARACTERS = re.compile(r"[A-Za-z0-9\-._~:/?#\[\]@!$&'()*+,;=%]*")
_NOT_ASCII = "must be a URL in plain ASCII; write other characters percent-encoded"
#: What a Unix socket's address has room for, and the zero at its end.
SOCKET_PATH_BYTES = 107
_HOST = re.compile(rf"{LABEL}(?:\.{LABEL})*\.?")


def scheme_of(url: str) -> str:
    return url.partition("://")[0].lower() if "://" in url else ""


def mi_fault(url: str) -> str | None:
    """Say why an address of a Management Interface cannot be used, or give None."""
    if not _CHARACTERS.fullmatch(url):
        return _NOT_ASCII
    scheme = scheme_of(url)
    if scheme in {"http", "https"}:
        return url_fault(url, secret=False, auth_hint="use basic_auth")
    judge = {"udp": _udp_fault, "unix": _unix_fault, "fifo": _fifo_fault}.get(scheme)
    if judge is None:
        return "must begin with http://, https://, udp://, unix:// or fifo://"
    try:
        parts = urlsplit(url)
    except ValueError:
        return "is not a URL"
    return "must not have a fragment (#)" if "#" in url else judge(parts)


def _udp_fault(parts: SplitResult) -> str | None:
    if "@" in parts.netloc:
        return "must not hold a user name or password: mi_datagram knows none"
    if parts.path.strip("/") or parts.query:
        return "must be udp://host:port and nothing else"
    if (fault := _host_fault(parts)) or (fault := _port_fault(parts)):
        return fault
    return "must have a port: mi_datagram has no usual one" if parts.port is None else None


def _path_fault(parts: SplitResult) -> str | None:
    if not parts.netloc and parts.path.strip("/") and "\0" not in unquote(parts.path):
        return None
    scheme = parts.scheme
    return f"must be {scheme}:// and an absolute path, with three slashes: {scheme}:///run/..."


def _unix_fault(parts: SplitResult) -> str | None:
    if fault := _path_fault(parts):
        return fault
    if parts.query:
        return "must not have a query (?)"
    if len(unquote(parts.path).encode()) > SOCKET_PATH_BYTES:
        return f"must have a path of {SOCKET_PATH_BYTES} bytes at most"
    return None


def _fifo_fault(parts: SplitResult) -> str | None:
    if fault := _path_fault(parts):
        return fault
    said = parse_qs(parts.query, keep_blank_values=True)
    folders = said.pop("reply_dir", [])
    if said or len(folders) > 1 or (parts.query and not folders):
        return "must not have a query but ?reply_dir=/folder"
    if folders and (not folders[0].startswith("/") or "\0" in folders[0]):
        return "must have an absolute path in reply_dir"
    return None


def url_fault(url: str, *, secret: bool, auth_hint: str) -> str | None:
    """Say why a URL cannot be used, or give None.

    A secret one may have a query, and an @ in its path; elsewhere that would be half a
    password (`http://user:12/34@host/`), shown to all.
    """
    if not _CHARACTERS.fullmatch(url):
        # Before it is split: `urlsplit` drops line breaks and tabs without a word.
        return _NOT_ASCII
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
