"""What a configuration file may hold: every key, and the bounds of every number."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True)
class Schema:
    """Which keys there are: by the place of their mapping, lists written `[]`."""

    keys: Mapping[str, tuple[str, ...]]


_ACCESS: Final = ("basic_auth", "authorization", "tls")
_BASIC_AUTH: Final = ("username", "password_file", "password_env")
_AUTHORIZATION: Final = ("type", "credentials_file", "credentials_env")
_TLS: Final = ("ca_file",)
_PACE: Final = ("poll_interval", "timeout", "stale_after", "max_share")

SCHEMA: Final = Schema(
    keys={
        "": (
            *("defaults", "sources", "sources_files", "events", "push"),
            *("alerts", "notifiers", "storage", "limits"),
        ),
        "defaults": _PACE,
        "sources[]": ("name", "mi", *_PACE, "basic_auth", "tls", "events"),
        "sources[].basic_auth": _BASIC_AUTH,
        "sources[].tls": _TLS,
        "sources[].events": ("subscribe",),
        "events": ("stream", "datagram", "peers"),
        "events.stream": ("listen", "advertise"),
        "events.datagram": ("listen", "unix"),
        "push": ("tokens",),
        "push.tokens[]": ("token_file", "token_env", "sources", "groups"),
        "alerts": ("rules", "report_rules", "subject_ttl", "watchdog", "watchdog_interval"),
        "alerts.rules[]": (
            *("source", "group", "identifier"),
            *("severity", "for", "keep_firing_for", "labels", "annotations", "silence"),
        ),
        "alerts.report_rules[]": (
            *("name", "enabled", "source", "group", "identifier"),
            *("match", "meaning", "subject"),
        ),
        "notifiers[]": ("name", "alertmanager", "webhook"),
        "notifiers[].alertmanager": ("urls", "send", "timeout", *_ACCESS),
        "notifiers[].alertmanager.basic_auth": _BASIC_AUTH,
        "notifiers[].alertmanager.authorization": _AUTHORIZATION,
        "notifiers[].alertmanager.tls": _TLS,
        "notifiers[].webhook": (
            *("url", "url_file", "url_env", "send", "timeout", "max_age", "group_wait"),
            *("secret_file", "secret_env", *_ACCESS),
        ),
        "notifiers[].webhook.basic_auth": _BASIC_AUTH,
        "notifiers[].webhook.authorization": _AUTHORIZATION,
        "notifiers[].webhook.tls": _TLS,
        "storage": ("retention",),
        "limits": (
            *("identifiers", "identifiers_per_source", "subjects", "notifications"),
            *("body_bytes", "connections"),
        ),
    },
)

_MINUTE: Final = 60.0
_DAY: Final = 86_400.0

#: Least and most of each duration, in seconds.
SPANS: Final = {
    "poll_interval": (0.1, _DAY),
    "timeout": (0.1, 5 * _MINUTE),
    "stale_after": (0.0, 365 * _DAY),
    "for": (0.0, 7 * _DAY),
    "keep_firing_for": (0.0, 7 * _DAY),
    "subject_ttl": (_MINUTE, 365 * _DAY),
    "watchdog_interval": (10.0, _DAY),
    "group_wait": (0.0, 60 * _MINUTE),
    "max_age": (_MINUTE, 365 * _DAY),
    "retention": (60 * _MINUTE, 3650 * _DAY),
}
#: Least and most of each number.
NUMBERS: Final = {
    "max_share": (0.001, 1.0),
    "identifiers": (1, 10_000_000),
    "identifiers_per_source": (1, 10_000_000),
    "subjects": (0, 100_000),
    "notifications": (100, 10_000_000),
    "body_bytes": (1024, 2**30),
    "connections": (8, 1_000_000),
}
