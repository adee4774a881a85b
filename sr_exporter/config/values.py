"""The configuration, checked and whole: frozen values, defaults filled in."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from sr_exporter.config.templates import Template
    from sr_exporter.redact import Secret, SecretUrl
    from sr_exporter.report_rules import ReportRule

#: How often webhooks are told of the watchdog, unless it is said.
WATCHDOG_SECONDS = 300.0


@dataclass(frozen=True, slots=True)
class BasicAuth:
    username: str
    password: Secret


@dataclass(frozen=True, slots=True)
class Tls:
    """How a peer proves who it is."""

    #: Certificates that are trusted instead of the system's, in PEM.
    ca: str


@dataclass(frozen=True, slots=True)
class Authorization:
    """What the Authorization header says, of any kind but Basic."""

    scheme: str
    credentials: Secret


@dataclass(frozen=True, slots=True)
class Access:
    """How a notifier and we prove to each other who we are."""

    auth: BasicAuth | Authorization | None = None
    #: For `https://` only; None: the system's certificates.
    tls: Tls | None = None


class Subscribe(enum.StrEnum):
    """How the exporter has a source send it events."""

    NONE = "none"
    #: By subscribing over MI to event_stream.
    TCP = "tcp"


@dataclass(frozen=True, slots=True)
class Source:
    """An OpenSIPS that is polled."""

    name: str
    #: The address of its Management Interface: `http(s)://`, `udp://host:port`,
    #: `unix:///path` or `fifo:///path[?reply_dir=/folder]`, without a user.
    mi: str
    poll_interval_seconds: float = 10.0
    timeout_seconds: float = 5.0
    stale_after_seconds: float = 60.0
    #: How much of the source's time all our requests together may take.
    max_share: float = 0.05
    basic_auth: BasicAuth | None = None
    #: For `https://` only; None: the system's certificates.
    tls: Tls | None = None
    subscribe: Subscribe = Subscribe.NONE


class Endpoint(NamedTuple):
    """An address and a port; an empty host is every address."""

    host: str
    port: int

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Events:
    """Where events are listened for, and who may send them."""

    #: For event_stream, over TCP.
    stream: Endpoint | None = None
    #: The IPv4 address under which OpenSIPS reaches `stream`; None: it cannot be subscribed.
    advertise: Endpoint | None = None
    #: For event_datagram, over UDP.
    datagram: Endpoint | None = None
    #: For event_datagram over Unix sockets: paths, and whose events come there.
    unix: tuple[tuple[str, str], ...] = ()
    #: IP addresses as `ipaddress` writes them, IPv4 never as IPv6, and which source each is.
    peers: tuple[tuple[str, str], ...] = ()

    def sources(self) -> frozenset[str]:
        """Give every source that is named here."""
        return frozenset(name for _, name in (*self.unix, *self.peers))


@dataclass(frozen=True, slots=True)
class Token:
    """What the bearer of one token may push."""

    #: SHA-256 of the token, which itself is not kept.
    digest: bytes
    #: Globs.
    sources: tuple[str, ...] = ("*",)
    groups: tuple[str, ...] = ("*",)


class Send(enum.StrEnum):
    """What makes a notifier send."""

    #: The readiness of a key turned.
    READINESS = "readiness"
    #: Any change of a status.
    CHANGES = "changes"


@dataclass(frozen=True, slots=True)
class Alertmanager:
    """It is sent levels, so there is nothing to choose: readiness."""

    name: str
    #: Base URLs, without a slash at the end.
    urls: tuple[str, ...]
    timeout_seconds: float = 10.0
    access: Access = Access()


@dataclass(frozen=True, slots=True)
class Webhook:
    name: str
    url: SecretUrl
    send: Send = Send.CHANGES
    timeout_seconds: float = 10.0
    #: What is owed for longer goes to the dead letters.
    max_age_seconds: float = 86_400.0
    #: What deliveries are signed with; None: they are not.
    secret: Secret | None = None
    access: Access = Access()
    #: How long what is due waits for more of its source, to be one notification; 0: at once.
    group_wait_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class AlertRule:
    """Decides what alert a key, or a source, makes; the first that fits does."""

    #: Globs.
    source: str = "*"
    #: A rule that names neither group nor identifier fits a source that is down, too.
    group: str | None = None
    identifier: str | None = None
    #: None: as built in.
    severity: str | None = None
    for_seconds: float | None = None
    #: How long its alert goes on when it is well again.
    keep_firing_seconds: float = 0.0
    #: The operator's own, which become part of who the alert is.
    labels: tuple[tuple[str, str], ...] = ()
    annotations: tuple[tuple[str, Template], ...] = ()
    silence: bool = False


@dataclass(frozen=True, slots=True)
class Reports:
    """How report texts are read (rule 16)."""

    #: After the built-in ones.
    rules: tuple[ReportRule, ...] = ()
    #: Built-in rules that are not used.
    switched_off: frozenset[str] = frozenset()
    #: For how long a subject is held that no text names again.
    subject_ttl_seconds: float = 86_400.0


@dataclass(frozen=True, slots=True)
class Storage:
    retention_seconds: float = 30 * 86_400.0


@dataclass(frozen=True, slots=True)
class Limits:
    identifiers: int = 1_000_000
    body_bytes: int = 32 * 1024 * 1024
    #: Of one source.
    subjects: int = 1_000
    #: Owed to one notifier.
    notifications: int = 250_000
    #: Held of one source; None: as many as of all.
    identifiers_per_source: int | None = None
    #: To the HTTP server.
    connections: int = 10_000


@dataclass(frozen=True, slots=True)
class Config:
    sources: tuple[Source, ...] = ()
    events: Events = field(default_factory=Events)
    tokens: tuple[Token, ...] = ()
    rules: tuple[AlertRule, ...] = ()
    #: Whether an alert fires always, to show that alerts get through.
    watchdog: bool = False
    #: How often webhooks are told of it.
    watchdog_interval_seconds: float = WATCHDOG_SECONDS
    reports: Reports = field(default_factory=Reports)
    notifiers: tuple[Alertmanager | Webhook, ...] = ()
    storage: Storage = field(default_factory=Storage)
    limits: Limits = field(default_factory=Limits)
