"""What Alertmanager's API version 2 answers, as it is written. Times are RFC 3339."""

from __future__ import annotations

import msgspec


class ReceiverItem(msgspec.Struct, frozen=True):
    """A notifier."""

    name: str


class AlertState(msgspec.Struct, frozen=True, rename="camel"):
    """What keeps an alert from being told: nothing does."""

    inhibited_by: list[str]
    silenced_by: list[str]
    state: str


class AlertItem(msgspec.Struct, frozen=True, rename="camel"):
    """An alert that fires."""

    annotations: dict[str, str]
    ends_at: str
    fingerprint: str
    receivers: list[ReceiverItem]
    starts_at: str
    status: AlertState
    updated_at: str
    generator_url: str = msgspec.field(name="generatorURL")
    labels: dict[str, str]


class AlertGroup(msgspec.Struct, frozen=True):
    """The alerts that one notifier is told."""

    alerts: list[AlertItem]
    labels: dict[str, str]
    receiver: ReceiverItem


class Cluster(msgspec.Struct, frozen=True):
    peers: list[str]
    status: str


class AlertmanagerConfig(msgspec.Struct, frozen=True):
    original: str


class VersionInfo(msgspec.Struct, frozen=True, rename="camel"):
    branch: str = ""
    build_date: str = ""
    build_user: str = ""
    go_version: str = ""
    revision: str = ""
    version: str = ""


class AlertmanagerStatus(msgspec.Struct, frozen=True, rename="camel"):
    """Of this exporter, as far as Alertmanager has words for it."""

    cluster: Cluster
    config: AlertmanagerConfig
    uptime: str
    version_info: VersionInfo
