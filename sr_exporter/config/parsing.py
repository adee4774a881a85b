"""From the text of a configuration file, and the files it names, to a `Config`."""

from __future__ import annotations

import glob
import hashlib
import os
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from sr_exporter.config.alerts import read_rules, read_watchdog, read_watchdog_interval
from sr_exporter.config.events import (
    Subscriber,
    check_subscribers,
    read_events,
    read_subscribe,
)
from sr_exporter.config.files import Files, once, unreadable
from sr_exporter.config.keys import NUMBERS, SCHEMA, SPANS
from sr_exporter.config.notifiers import read_notifiers
from sr_exporter.config.reading import Place, Section, read_yaml, shown
from sr_exporter.config.report_rules import read_reports
from sr_exporter.config.urls import mi_fault, scheme_of
from sr_exporter.config.values import Config, Limits, Source, Storage, Subscribe, Token
from sr_exporter.errors import ConfigError, Fault
from sr_exporter.model import RESERVED_SOURCES

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path


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
        raise ConfigError([Fault(shown(str(path), 300), unreadable(error))]) from None
    return parse(text, directory=path.parent)


def parse(
    text: str,
    *,
    directory: Path,
    read_file: Callable[[Path], str] = read_text,
    find_files: Callable[[Path, str], Sequence[Path]] = find_files,
    environment: Mapping[str, str] = os.environ,
) -> Config:
    """Read a configuration whose relative paths start at `directory`."""
    reader = _Reader(Files(directory, read_file, environment), find_files)
    config = reader.config(text)
    if reader.files.faults:
        raise ConfigError(reader.files.faults)
    return config


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
    return place.globs() if place else ("*",)


def _mi(section: Section) -> str:
    place = section.need("mi")
    url = place.text("a URL") if place else ""
    if not (place and url):
        return ""
    if what := mi_fault(url):
        place.fault(what)
    return url


@dataclass(slots=True)
class _Reader:
    """Reads one configuration and the files it names, and gathers the faults of all."""

    files: Files
    find_files: Callable[[Path, str], Sequence[Path]]
    #: Where each name, and each token, was first met.
    source_names: dict[str, str] = field(default_factory=dict)
    tokens: dict[bytes, str] = field(default_factory=dict)
    subscribers: list[Subscriber] = field(default_factory=list)

    def config(self, text: str) -> Config:
        root = read_yaml(text, "", self.files.faults)
        if root is None:
            return Config()
        top = root.section(SCHEMA, "")
        sources, events = self.sources(top), read_events(top)
        check_subscribers(self.subscribers, events)
        place = top.get("alerts")
        alerts = place.section(SCHEMA, "alerts") if place else None
        return Config(
            sources=sources,
            events=events,
            tokens=self.push_tokens(top),
            rules=read_rules(alerts),
            watchdog=read_watchdog(alerts),
            watchdog_interval_seconds=read_watchdog_interval(alerts),
            reports=read_reports(alerts),
            notifiers=read_notifiers(top, self.files),
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
            return (self.files.directory / pattern,)
        try:
            return self.find_files(self.files.directory, pattern)
        except (OSError, ValueError) as error:
            place.fault(f"{shown(pattern)} {unreadable(error)}")
            return ()

    def included(self, place: Place, path: Path) -> list[Place]:
        text = self.files.text(place, path)
        root = read_yaml(text, self.files.name(path), self.files.faults)
        return root.items() if root else []

    def source(self, place: Place, base: Source) -> Source:
        section = place.section(SCHEMA, "sources[]")
        name = section.name("name")
        if name in RESERVED_SOURCES:
            section.entries["name"].fault(f"{name} is reserved")
        elif name:
            once(section.entries["name"], self.source_names, name)
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
            basic_auth=self.files.basic_auth(auth, "sources[]") if auth else None,
            tls=self.files.tls(tls, "sources[]") if tls else None,
            subscribe=subscribe,
        )

    # --- push

    def push_tokens(self, top: Section) -> tuple[Token, ...]:
        push = top.get("push")
        if push is None:
            return ()
        return tuple(map(self.token, push.section(SCHEMA, "push").items("tokens")))

    def token(self, place: Place) -> Token:
        section = place.section(SCHEMA, "push.tokens[]")
        token = self.files.token(section, "token")
        digest = hashlib.sha256(token.encode()).digest()
        at = section.get("token_file") or section.get("token_env")
        if at and token and (first := self.tokens.setdefault(digest, at.path)) != at.path:
            at.fault(f"holds the same token as {first}")
        return Token(digest, _globs(section, "sources"), _globs(section, "groups"))

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
        identifiers = _whole(section, "identifiers", defaults.identifiers)
        of_source = _whole(section, "identifiers_per_source", identifiers)
        return Limits(
            identifiers=identifiers,
            identifiers_per_source=None if of_source >= identifiers else of_source,
            connections=_whole(section, "connections", defaults.connections),
            subjects=_whole(section, "subjects", defaults.subjects),
            notifications=_whole(section, "notifications", defaults.notifications),
            body_bytes=_whole(section, "body_bytes", defaults.body_bytes),
        )
