"""The web configuration file: exporter-toolkit's format, which the Prometheus exporters share.

What works for another exporter works here, or is refused with a reason that names the key (facts
on exporter-toolkit, section 4). As there, what is written as nothing is as good as left out.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from sr_exporter.config.files import Files, unreadable
from sr_exporter.config.keys import Schema
from sr_exporter.config.parsing import read_text
from sr_exporter.config.reading import Naming, Place, Section, read_yaml, shown
from sr_exporter.config.server_tls import (
    AUTH_TYPES,
    CIPHERS,
    CURVES,
    OLD_VERSIONS,
    UNVERIFIED,
    VERSIONS,
    ClientAuth,
    Identity,
    ServerTls,
    Wishes,
    served,
    takes_curve,
)
from sr_exporter.config.tls import certificates
from sr_exporter.errors import ConfigError, Fault

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from pathlib import Path

HEADERS: Final = {
    "Content-Security-Policy": (),
    "X-Frame-Options": ("deny", "sameorigin"),
    "X-Content-Type-Options": ("nosniff",),
    "X-XSS-Protection": (),
    "Strict-Transport-Security": (),
}
WEB_SCHEMA: Final = Schema(
    keys={
        "": ("tls_server_config", "http_server_config", "basic_auth_users", "rate_limit"),
        "tls_server_config": (
            *("cert", "cert_file", "key", "key_file"),
            *("client_auth_type", "client_ca", "client_ca_file", "client_allowed_sans"),
            *("min_version", "max_version", "cipher_suites", "prefer_server_cipher_suites"),
            "curve_preferences",
        ),
        "http_server_config": ("http2", "headers"),
        "http_server_config.headers": tuple(HEADERS),
        "rate_limit": ("interval", "burst"),
    }
)
#: Each step doubles the time of a hash: 18 is seconds, and one is made at a time.
LEAST_COST, MOST_COST = 4, 18
MOST_BURST = 1_000_000_000
_DAY_SECONDS = 86_400.0
_HASH: Final = re.compile(r"\$2[aby]\$(\d\d)\$[./A-Za-z0-9]{53}")
_USERS: Final = Naming(
    re.compile(r"[^:\x00-\x1f\x7f\ud800-\udfff]{1,255}"),
    "a user's name that cannot be one (quote a number)",
)
#: Where every one of these is empty nothing is encrypted.
_TLS_STARTERS: Final = (
    *("cert", "cert_file", "key", "key_file"),
    *("client_auth_type", "client_ca", "client_ca_file"),
)
_GO_DURATION: Final = re.compile(r"(?:(?:\d+\.?\d*|\.\d+)(?:ns|us|µs|μs|ms|s|m|h))+", re.ASCII)
_GO_PIECE: Final = re.compile(r"([\d.]+)(ns|us|µs|μs|ms|s|m|h)", re.ASCII)
_GO_UNITS: Final = {
    "ns": 1e-9,
    "us": 1e-6,
    "µs": 1e-6,
    "μs": 1e-6,
    "ms": 1e-3,
    "s": 1.0,
    "m": 60.0,
    "h": 3600.0,
}


@dataclass(frozen=True, slots=True)
class RateLimit:
    """How often requests may come: one each `interval_seconds`, `burst` at once."""

    interval_seconds: float
    burst: int


@dataclass(frozen=True, slots=True)
class WebConfig:
    """How requests are served."""

    #: None: over HTTP without TLS.
    tls: ServerTls | None = None
    #: The bcrypt hash of each user's password; empty: nobody has to say who he is.
    users: Mapping[bytes, bytes] = field(default_factory=dict, repr=False)
    #: What is added to answers that do not say it themselves; names in lower case.
    headers: tuple[tuple[bytes, bytes], ...] = ()
    rate_limit: RateLimit | None = None


def load_web(path: Path, *, read_file: Callable[[Path], str] = read_text) -> WebConfig:
    """Read the file, and those it names.

    Raises:
        ConfigError: with everything that is wrong in it.
    """
    try:
        text = read_file(path)
    except (OSError, ValueError) as error:
        raise ConfigError([Fault(shown(str(path), 300), unreadable(error))]) from None
    return parse_web(text, directory=path.parent, read_file=read_file)


def parse_web(
    text: str, *, directory: Path, read_file: Callable[[Path], str] = read_text
) -> WebConfig:
    """Read a web configuration whose relative paths start at `directory`.

    Raises:
        ConfigError: with everything that is wrong in it.
    """
    files = Files(directory, read_file)
    config = _read(read_yaml(text, "", files.faults), files)
    if files.faults:
        raise ConfigError(files.faults)
    return config


def _read(root: Place | None, files: Files) -> WebConfig:
    if root is None:
        return WebConfig()
    top = root.section(WEB_SCHEMA, "")
    tls, http = top.filled("tls_server_config"), top.filled("http_server_config")
    rate = top.filled("rate_limit")
    return WebConfig(
        tls=_tls(tls.section(WEB_SCHEMA, "tls_server_config"), files) if tls else None,
        users=_users(top),
        headers=_headers(http.section(WEB_SCHEMA, "http_server_config")) if http else (),
        rate_limit=_rate_limit(rate.section(WEB_SCHEMA, "rate_limit")) if rate else None,
    )


def _said(section: Section, key: str) -> Place | None:
    """Give what is written under a key, unless that is nothing or an empty string."""
    place = section.get(key)
    if place is None or place.kind == "nothing" or (_is_scalar(place) and not place.node.value):
        return None
    return place


def _is_scalar(place: Place) -> bool:
    return place.kind in ("a string", "a number", "a boolean", "a date")


# --- TLS ---------------------------------------------------------------------------------


def _tls(section: Section, files: Files) -> ServerTls | None:
    if not section.readable:
        return None
    if not any(_said(section, key) for key in _TLS_STARTERS):
        section.place.fault("cert or cert_file is required: nothing would be encrypted without")
        return None
    before = len(files.faults)
    certificate, key = _pem(section, "cert", files), _pem(section, "key", files)
    auth = _client_auth(section)
    ca, sans = _client_ca(section, auth, files), _allowed_sans(section, auth)
    wishes = _wishes(section)
    if not (certificate and key) or len(files.faults) > before:
        return None
    return served(Identity(*certificate, *key), auth, ca, sans, wishes)


def _pem(section: Section, key: str, files: Files) -> tuple[Place, str] | None:
    """Give the text of `key`, or of the file `key`_file names, and its place."""
    inline, named = _said(section, key), _said(section, f"{key}_file")
    if inline and named:
        section.place.fault(f"{key} and {key}_file are both there: one of them is enough")
        return None
    place = inline or named
    if place is None:
        section.place.fault(f"{key} or {key}_file is required")
        return None
    return _pem_at(place, files, inline=inline is not None)


def _pem_at(place: Place, files: Files, *, inline: bool) -> tuple[Place, str] | None:
    text = place.text("PEM" if inline else "a file name")
    if not text:
        return None
    if not inline:
        before = len(files.faults)
        text = files.text(place, files.directory / text)
        if len(files.faults) > before:
            return None
    return place, text


def _client_auth(section: Section) -> ClientAuth:
    place = _said(section, "client_auth_type")
    said = place.text() if place else ""
    if place and said in UNVERIFIED:
        place.fault(
            f"{said} is not possible: Python's ssl verifies every certificate it asks for;"
            " use RequireAndVerifyClientCert or VerifyClientCertIfGiven"
        )
    elif place and said:
        return _one_of(place, said, AUTH_TYPES, ClientAuth.NONE)
    return ClientAuth.NONE


def _client_ca(section: Section, auth: ClientAuth, files: Files) -> str:
    inline, named = _said(section, "client_ca"), _said(section, "client_ca_file")
    place = inline or named
    if inline and named:
        section.place.fault("client_ca and client_ca_file are both there: one of them is enough")
        return ""
    if place is None:
        if auth is not ClientAuth.NONE:
            section.place.fault(
                "client_ca or client_ca_file is required: whoever has a certificate of any"
                " public authority would get in without"
            )
        return ""
    if not _said(section, "client_auth_type"):
        place.fault("without client_auth_type nobody is asked for a certificate")
    found = _pem_at(place, files, inline=inline is not None)
    if found is None:
        return ""
    ca = certificates(found[1])
    if not ca:
        place.fault("holds no certificate in PEM")
    return ca


def _allowed_sans(section: Section, auth: ClientAuth) -> frozenset[str] | None:
    place = _said(section, "client_allowed_sans")
    if place is None:
        return None
    if auth is not ClientAuth.REQUIRED:
        place.fault("needs client_auth_type: RequireAndVerifyClientCert")
    return frozenset(place.texts())


def _wishes(section: Section) -> Wishes:
    """Read the choices within TLS; left to themselves, they are as good as any."""
    least, most = _version(section, "min_version"), _version(section, "max_version")
    if least and most and least > most:
        section.entries["min_version"].fault("is newer than max_version")
    prefer = _said(section, "prefer_server_cipher_suites")
    ciphers = _choices(section, "cipher_suites", CIPHERS)
    curves = _choices(section, "curve_preferences", CURVES)
    if len(curves) > 1:
        section.entries["curve_preferences"].fault(
            "Python's ssl can be given one curve: name that one, or none for all of them"
        )
    elif curves and not takes_curve(curves[0]):
        section.entries["curve_preferences"].fault(
            f"this Python's ssl cannot be told to use {curves[0]} alone: leave it out, it is"
            " offered among others"
        )
    if most == "TLS12" and ciphers and not any(CIPHERS[name] for name in ciphers):
        section.entries["cipher_suites"].fault("has none of TLS 1.2, which is max_version")
    return Wishes(
        least=least,
        most=most,
        ciphers=ciphers,
        prefer_ours=prefer.flag() if prefer else True,
        curve=curves[0] if curves else "",
    )


def _version(section: Section, key: str) -> str:
    place = section.get(key)
    if place is None or place.kind == "nothing":
        return ""
    said = place.text(" or ".join(VERSIONS))
    if said in OLD_VERSIONS:
        place.fault(f"{said} is not secure: TLS12 is the oldest there is")
    elif said and said not in VERSIONS:
        place.fault(f'must be {" or ".join(VERSIONS)}, not "{shown(said)}"')
    return said if said in VERSIONS else ""


def _choices(section: Section, key: str, known: Iterable[str]) -> tuple[str, ...]:
    place = _said(section, key)
    found = []
    for item in place.items() if place else ():
        said = item.text()
        if said in known:
            found.append(said)
        elif said.startswith("TLS_RSA_"):
            item.fault(f"{shown(said)} has no forward secrecy: who gets the key reads it all")
        elif said:
            item.fault(f'"{shown(said)}" is not known (docs/web-config.md has those that are)')
    return tuple(dict.fromkeys(found))


def _one_of(
    place: Place, said: str, known: Mapping[str, ClientAuth], otherwise: ClientAuth
) -> ClientAuth:
    if said not in known:
        place.fault(f'must be {" or ".join(known)}, not "{shown(said)}"')
    return known.get(said, otherwise)


# --- HTTP --------------------------------------------------------------------------------


def _headers(section: Section) -> tuple[tuple[bytes, bytes], ...]:
    if http2 := _said(section, "http2"):
        http2.flag()  # without effect: there is no HTTP/2 here, and clients do without
    place = section.filled("headers")
    inner = place.section(WEB_SCHEMA, "http_server_config.headers") if place else None
    found = []
    for name, allowed in HEADERS.items():
        said = inner.get(name) if inner else None
        if said is not None and (value := _header(said, allowed)):
            found.append((name.lower().encode(), value.encode()))
    return tuple(found)


def _header(place: Place, allowed: tuple[str, ...]) -> str:
    """Read a header's value; `X-XSS-Protection: 0` is written without quotes, too."""
    if place.kind == "nothing":
        value = ""
    elif _is_scalar(place):
        value = " ".join(str(place.node.value).split())  # a long one is written in lines
    else:
        return place.text()
    if allowed and value not in allowed:
        place.fault(f'must be {" or ".join(allowed)}, not "{shown(value)}"')
    elif not (value.isascii() and value.isprintable()):
        place.fault("must be printable ASCII")
    else:
        return value
    return ""


def _users(top: Section) -> Mapping[bytes, bytes]:
    place = top.get("basic_auth_users")
    found = {}
    for name, said in place.mapping(_USERS).items() if place else ():
        hashed = said.text("a bcrypt hash")
        match = _HASH.fullmatch(hashed)
        if match is None:
            if hashed:
                said.fault("is no bcrypt hash, as `htpasswd -nBC 10 NAME` makes them")
        elif not LEAST_COST <= int(match[1]) <= MOST_COST:
            said.fault(f"is a hash of cost {int(match[1])}: it must be {LEAST_COST} to {MOST_COST}")
        else:
            found[name.encode()] = hashed.encode()
    return found


def _rate_limit(section: Section) -> RateLimit | None:
    place = _said(section, "interval")
    interval = _interval(place) if place else 0.0
    said = _said(section, "burst")
    burst = said.whole(0, MOST_BURST) if said else 0
    if not interval:
        return None
    if not burst:
        (said or section.place).fault("burst must be 1 at least: every request would be refused")
    return RateLimit(interval, burst)


def _interval(place: Place) -> float:
    """Read a duration as Go writes it: that is where the format is from."""
    text = str(place.node.value) if _is_scalar(place) else place.text("a duration such as 1s")
    if text in ("", "0"):
        return 0.0
    if len(text) > 64 or not _GO_DURATION.fullmatch(text):
        place.fault("must be 0, or a duration such as 1s, 100ms or 1m30s")
        return 0.0
    seconds = sum(float(number) * _GO_UNITS[unit] for number, unit in _GO_PIECE.findall(text))
    if seconds > _DAY_SECONDS:
        place.fault("must be 24h at most")
    return seconds
