"""From the section `notifiers` of a configuration to the places alerts go."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from sr_exporter.config.files import once
from sr_exporter.config.keys import SCHEMA, SPANS
from sr_exporter.config.urls import scheme_of, url_fault
from sr_exporter.config.values import Access, Alertmanager, Authorization, Send, Webhook
from sr_exporter.model import fold
from sr_exporter.redact import Secret, SecretUrl

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sr_exporter.config.files import Files
    from sr_exporter.config.reading import Place, Section
    from sr_exporter.config.values import BasicAuth

_API_PATHS: Final = ("/api/v1", "/api/v2", "/api/v1/alerts", "/api/v2/alerts")
_AUTH_HINT: Final = "use basic_auth"
#: A token of RFC 9110, 5.6.2.
_AUTH_SCHEME: Final = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")


def read_notifiers(top: Section, files: Files) -> tuple[Alertmanager | Webhook, ...]:
    names: dict[str, str] = {}
    return tuple(_notifier(place, files, names) for place in top.items("notifiers"))


def _notifier(place: Place, files: Files, names: dict[str, str]) -> Alertmanager | Webhook:
    section = place.section(SCHEMA, "notifiers[]")
    name = section.name("name")
    if name:
        # Each is an identifier of our own group `notifier`, where case does not count.
        once(section.entries["name"], names, fold(name))
    kind = section.one_of("alertmanager", "webhook")
    if not kind:
        return Alertmanager(name, ())
    if kind is section.get("webhook"):
        return _webhook(name, kind.section(SCHEMA, "notifiers[].webhook"), files)
    return _alertmanager(name, kind.section(SCHEMA, "notifiers[].alertmanager"), files)


def _alertmanager(name: str, section: Section, files: Files) -> Alertmanager:
    if (send := section.get("send")) and send.choice(Send) is Send.CHANGES:
        send.fault("an Alertmanager takes levels, not changes: leave it at readiness")
    urls: dict[str, str] = {}
    place = section.need("urls")
    for item in place.items(at_least_one=True) if place else ():
        if url := _base_url(item):
            once(item, urls, url)
    return Alertmanager(
        name,
        tuple(urls),
        timeout_seconds=_span(section, "timeout", Alertmanager(name, ()).timeout_seconds),
        access=_access(section, "notifiers[].alertmanager", urls, files),
    )


def _webhook(name: str, section: Section, files: Files) -> Webhook:
    defaults = Webhook(name, SecretUrl(""))
    place = section.one_of("url", "url_file", "url_env")
    url = _webhook_url(place, files, open_=place is section.get("url")) if place else ""
    send, signed = section.get("send"), {"secret_file", "secret_env"} & section.entries.keys()
    return Webhook(
        name,
        url=SecretUrl(url),
        send=send.choice(Send) if send else defaults.send,
        timeout_seconds=_span(section, "timeout", defaults.timeout_seconds),
        max_age_seconds=_span(section, "max_age", defaults.max_age_seconds),
        secret=Secret(files.secret(section, "secret")) if signed else None,
        access=_access(section, "notifiers[].webhook", [url], files),
        group_wait_seconds=_span(section, "group_wait", defaults.group_wait_seconds),
    )


def _access(section: Section, shape: str, urls: Iterable[str], files: Files) -> Access:
    """Read how we prove who we are, and how whoever is at these URLs does."""
    basic, other, tls = map(section.get, ("basic_auth", "authorization", "tls"))
    if basic and other:
        other.fault("has no place beside basic_auth: a request bears one Authorization header")
    if tls and "https" not in (schemes := {scheme_of(url) for url in urls}) and "http" in schemes:
        tls.fault("is for https:// only")
    auth: BasicAuth | Authorization | None = None
    if basic:
        auth = files.basic_auth(basic, shape)
    elif other:
        auth = _authorization(other, shape, files)
    return Access(auth, tls=files.tls(tls, shape) if tls else None)


def _authorization(place: Place, shape: str, files: Files) -> Authorization:
    section = place.section(SCHEMA, f"{shape}.authorization")
    said = section.get("type")
    scheme = said.text() if said else "Bearer"
    if said and scheme:
        if scheme.lower() == "basic":
            said.fault("must not be Basic: use basic_auth")
        elif not _AUTH_SCHEME.fullmatch(scheme):
            said.fault("must be one word, such as Bearer")
    return Authorization(scheme, Secret(files.token(section, "credentials")))


def _base_url(place: Place) -> str:
    url = place.text("a URL")
    bare = url.rstrip("/")
    if not url:
        return ""
    if what := url_fault(url, secret=False, auth_hint=_AUTH_HINT):
        place.fault(what)
    elif bare.endswith(_API_PATHS):
        place.fault("must be the base URL, without /api/v2/alerts")
    return bare


def _webhook_url(place: Place, files: Files, *, open_: bool) -> str:
    url = place.text("a URL") if open_ else files.secret_at(place)
    if url and (what := url_fault(url, secret=True, auth_hint=_AUTH_HINT)):
        place.fault(what)
    return url


def _span(section: Section, key: str, default: float) -> float:
    place = section.get(key)
    return place.duration(*SPANS[key]) if place else default
