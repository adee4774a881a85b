"""From the text of a configuration file, and the files it names, to a `Config`."""

from __future__ import annotations

import glob
import hashlib
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final

from sr_exporter.config.alerts import read_rules
from sr_exporter.config.events import (
    Subscriber,
    check_subscribers,
    read_events,
    read_subscribe,
)
from sr_exporter.config.keys import NUMBERS, SCHEMA, SPANS
from sr_exporter.config.reading import Place, Section, read_yaml, shown
from sr_exporter.config.tls import certificates
from sr_exporter.config.urls import mi_fault, scheme_of, url_fault
from sr_exporter.config.values import (
    Alertmanager,
    BasicAuth,
    Config,
    Limits,
    Send,
    Source,
    Storage,
    Subscribe,
    Tls,
    Token,
    Webhook,
)
from sr_exporter.errors import ConfigError, Fault
from sr_exporter.model import RESERVED_SOURCES, fold
from sr_exporter.redact import Secret, SecretUrl

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

_API_PATHS: Final = ("/api/v1", "/api/v2", "/api/v1/alerts", "/api/v2/alerts")


def read_text(path: Path) -> str:
    return path.read_text(encoding="utf-8-sig")


def find_files(directory: Path, pattern: str) -> list[Path]:
    """Give the files a glob matches, in the order of their names."""
    return [directory / name for name in sorted(glob.glob(pattern, root_dir=directory))]  # noqa: PTH207 - Path.glob takes no absolute pattern


def load(path: Path | None) -> Config:
    """Read the file, and those it names; without a file give the defaults."""
    if path is None:
        return Config()
    try:
        text = read_text(path)
    except (OSError, ValueError) as error:
        raise ConfigError([Fault(shown(str(path), 300), _unreadable(error))]) from None
    return parse(text, directory=path.parent)


def parse(
    text: str,
    *,
    directory: Path,
    read_file: Callable[[Path], str] = read_text,
    find_files: Callable[[Path, str], Sequence[Path]] = find_files,
) -> Config:
    """Read a configuration whose relative paths start at `directory`."""
    reader = _Reader(directory, read_file, find_files)
    config = reader.config(text)
    if reader.faults:
        raise ConfigError(reader.faults)
    return config


def _unreadable(error: OSError | ValueError) -> str:
    """Tell the reason only: the text of a decoding error holds what was in the file."""
    if isinstance(error, OSError):
        return f"cannot be read: {error.strerror or type(error).__name__}"
    if isinstance(error, UnicodeDecodeError):
        return "is not UTF-8"
    return "is not a file name"


def _span(section: Section, key: str, default: float) -> float:
    place = section.get(key)
    return place.duration(*SPANS[key]) if place else default


def _whole(section: Section, key: str, default: int) -> int:
    place = section.get(key)
    low, high = NUMBERS[key]
    return place.whole(int(low), int(high)) if place else default


def _paced(section: Section, base: Source) -> Source:
    """Give a source polled as another one, but for what is said here."""
    share = section.get("max_share")
    return replace(
        base,
        poll_interval_seconds=_span(section, "poll_interval", base.poll_interval_seconds),
        timeout_seconds=_span(section, "timeout", base.timeout_seconds),
        stale_after_seconds=_span(section, "stale_after", base.stale_after_seconds),
        max_share=share.number(*NUMBERS["max_share"]) if share else base.max_share,
    )


def _globs(section: Section, key: str) -> tuple[str, ...]:
    place = section.get(key)
    return place.texts() if place else ("*",)


def _mi(section: Section) -> str:
    place = section.need("mi")
    url = place.text("a URL") if place else ""
    if not (place and url):
        return ""
    if what := mi_fault(url):
        place.fault(what)
    return url


def _base_url(place: Place) -> str:
    url = place.text("a URL")
    bare = url.rstrip("/")
    if not url:
        return ""
    if what := url_fault(url, secret=False, auth_hint="basic_auth is not built yet"):
        place.fault(what)
    elif bare.endswith(_API_PATHS):
        place.fault("must be the base URL, without /api/v2/alerts")
    return bare


@dataclass(slots=True)
class _Reader:
    """Reads one configuration and the files it names, and gathers the faults of all."""

    directory: Path
    read_file: Callable[[Path], str]
    find_files: Callable[[Path, str], Sequence[Path]]
    faults: list[Fault] = field(default_factory=list)
    #: Where each name, and each token, was first met.
    source_names: dict[str, str] = field(default_factory=dict)
    notifier_names: dict[str, str] = field(default_factory=dict)
    tokens: dict[bytes, str] = field(default_factory=dict)
    subscribers: list[Subscriber] = field(default_factory=list)

    def config(self, text: str) -> Config:
        root = read_yaml(text, "", self.faults)
        if root is None:
            return Config()
        top = root.section(SCHEMA, "")
        sources, events = self.sources(top), read_events(top)
        check_subscribers(self.subscribers, events)
        return Config(
            sources=sources,
            events=events,
            tokens=self.push_tokens(top),
            rules=read_rules(top),
            notifiers=tuple(map(self.notifier, top.items("notifiers"))),
            storage=self.storage(top),
            limits=self.limits(top),
        )

    # --- sources

    def sources(self, top: Section) -> tuple[Source, ...]:
        base = Source(name="", mi="")
        if defaults := top.get("defaults"):
            base = _paced(defaults.section(SCHEMA, "defaults"), base)
        places = top.items("sources")
        files: dict[Path, None] = {}
        for pattern in top.items("sources_files"):
            for path in self.matching(pattern):
                if path not in files:
                    files[path] = None
                    places += self.included(pattern, path)
        return tuple(self.source(place, base) for place in places)

    def matching(self, place: Place) -> Sequence[Path]:
        pattern = place.text()
        if not pattern:
            return ()
        if not glob.has_magic(pattern):
            return (self.directory / pattern,)
        try:
            return self.find_files(self.directory, pattern)
        except (OSError, ValueError) as error:
            place.fault(f"{shown(pattern)} {_unreadable(error)}")
            return ()

    def included(self, place: Place, path: Path) -> list[Place]:
        text = self.file_text(place, path)
        root = read_yaml(text, self.file_name(path), self.faults)
        return root.items() if root else []

    def source(self, place: Place, base: Source) -> Source:
        section = place.section(SCHEMA, "sources[]")
        name = section.name("name")
        if name in RESERVED_SOURCES:
            section.entries["name"].fault(f"{name} is reserved")
        elif name:
            self.once(section.entries["name"], self.source_names, name)
        auth, tls = section.get("basic_auth"), section.filled("tls")
        paced, mi = _paced(section, base), _mi(section)
        if auth and scheme_of(mi) in {"udp", "unix", "fifo"}:
            auth.fault("is for http:// and https:// only")
        if tls and scheme_of(mi) in {"http", "udp", "unix", "fifo"}:
            tls.fault("is for https:// only")
        subscribe, said_at = read_subscribe(section)
        if said_at and subscribe is not Subscribe.NONE:
            self.subscribers.append(Subscriber(name, mi, said_at))
        return replace(
            paced,
            name=name,
            mi=mi,
            basic_auth=self.basic_auth(auth) if auth else None,
            tls=self.tls(tls) if tls else None,
            subscribe=subscribe,
        )

    def tls(self, place: Place) -> Tls:
        file = place.section(SCHEMA, "sources[].tls").need("ca_file")
        name = file.text("a file name") if file else ""
        before = len(self.faults)
        text = self.file_text(file, self.directory / name) if file and name else ""
        ca = certificates(text)
        if file and name and not ca and len(self.faults) == before:
            file.fault(f"{self.file_name(self.directory / name)} holds no certificate in PEM")
        return Tls(ca)

    def basic_auth(self, place: Place) -> BasicAuth:
        section = place.section(SCHEMA, "sources[].basic_auth")
        username = section.name("username")
        if ":" in username:
            section.entries["username"].fault("must not hold a colon")
        return BasicAuth(username, Secret(self.secret(section.need("password_file"))))

    # --- push

    def push_tokens(self, top: Section) -> tuple[Token, ...]:
        push = top.get("push")
        if push is None:
            return ()
        return tuple(map(self.token, push.section(SCHEMA, "push").items("tokens")))

    def token(self, place: Place) -> Token:
        section = place.section(SCHEMA, "push.tokens[]")
        file = section.need("token_file")
        token = self.secret(file)
        digest = hashlib.sha256(token.encode()).digest()
        if file and token:
            if not token.isascii() or " " in token:
                file.fault("must hold one token: ASCII letters, digits and signs, no spaces")
            elif (first := self.tokens.setdefault(digest, file.path)) != file.path:
                file.fault(f"holds the same token as {first}")
        return Token(digest, _globs(section, "sources"), _globs(section, "groups"))

    # --- notifiers

    def notifier(self, place: Place) -> Alertmanager | Webhook:
        section = place.section(SCHEMA, "notifiers[]")
        name = section.name("name")
        if name:
            # Each is an identifier of our own group `notifier`, where case does not count.
            self.once(section.entries["name"], self.notifier_names, fold(name))
        kind = section.one_of("alertmanager", "webhook")
        if not kind:
            return Alertmanager(name, ())
        inner = section.entries[kind].section(SCHEMA, f"notifiers[].{kind}")
        return self.webhook(name, inner) if kind == "webhook" else self.alertmanager(name, inner)

    def alertmanager(self, name: str, section: Section) -> Alertmanager:
        if (send := section.get("send")) and send.choice(Send) is Send.CHANGES:
            send.fault("an Alertmanager takes levels, not changes: leave it at readiness")
        urls: dict[str, str] = {}
        place = section.need("urls")
        for item in place.items(at_least_one=True) if place else ():
            if url := _base_url(item):
                self.once(item, urls, url)
        timeout = _span(section, "timeout", Alertmanager(name, ()).timeout_seconds)
        return Alertmanager(name, tuple(urls), timeout)

    def webhook(self, name: str, section: Section) -> Webhook:
        defaults = Webhook(name, SecretUrl(""))
        kind = section.one_of("url", "url_file")
        send = section.get("send")
        return Webhook(
            name,
            url=SecretUrl(self.webhook_url(section.entries[kind]) if kind else ""),
            send=send.choice(Send) if send else defaults.send,
            timeout_seconds=_span(section, "timeout", defaults.timeout_seconds),
            max_age_seconds=_span(section, "max_age", defaults.max_age_seconds),
        )

    def webhook_url(self, place: Place) -> str:
        url = self.secret(place) if place.path.endswith("url_file") else place.text("a URL")
        if url and (what := url_fault(url, secret=True, auth_hint="basic_auth is not built yet")):
            place.fault(what)
        return url

    # --- the rest

    def storage(self, top: Section) -> Storage:
        place, defaults = top.get("storage"), Storage()
        if place is None:
            return defaults
        section = place.section(SCHEMA, "storage")
        return Storage(_span(section, "retention", defaults.retention_seconds))

    def limits(self, top: Section) -> Limits:
        place, defaults = top.get("limits"), Limits()
        if place is None:
            return defaults
        section = place.section(SCHEMA, "limits")
        return Limits(
            identifiers=_whole(section, "identifiers", defaults.identifiers),
            body_bytes=_whole(section, "body_bytes", defaults.body_bytes),
        )

    # --- what several need

    def once(self, place: Place, seen: dict[str, str], name: str) -> None:
        if (first := seen.setdefault(name, place.path)) != place.path:
            place.fault(f"is there twice: the first is {first}")

    def secret(self, place: Place | None) -> str:
        """Read a file that holds one secret; "" if it cannot be had."""
        name = place.text("a file name") if place else ""
        if not (place and name):
            return ""
        if "://" in name:
            # Not shown: it is the secret itself that was written here.
            place.fault("must be a file name, not a URL")
            return ""
        before = len(self.faults)
        secret = self.file_text(place, self.directory / name).strip()
        if len(self.faults) > before:
            return ""
        if not secret:
            place.fault(f"{self.file_name(self.directory / name)} is empty")
        elif not secret.isprintable():
            place.fault(f"{self.file_name(self.directory / name)} must hold one line of text")
            return ""
        return secret

    def file_text(self, place: Place, path: Path) -> str:
        try:
            return self.read_file(path)
        except (OSError, ValueError) as error:
            place.fault(f"{self.file_name(path)} {_unreadable(error)}")
            return ""

    def file_name(self, path: Path) -> str:
        """Name a file as the configuration does, which is short and does not move."""
        if path.is_relative_to(self.directory):
            path = path.relative_to(self.directory)
        return shown(str(path), 300)
