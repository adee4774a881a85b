"""The configuration file: `load` gives a `Config`, or raises a `ConfigError` with every fault."""

from sr_exporter.config.parsing import load, parse
from sr_exporter.config.values import (
    Alertmanager,
    AlertRule,
    BasicAuth,
    Config,
    Endpoint,
    Events,
    Limits,
    Send,
    Source,
    Storage,
    Subscribe,
    Tls,
    Token,
    Webhook,
)
from sr_exporter.redact import Secret, SecretUrl

__all__ = [
    "AlertRule",
    "Alertmanager",
    "BasicAuth",
    "Config",
    "Endpoint",
    "Events",
    "Limits",
    "Secret",
    "SecretUrl",
    "Send",
    "Source",
    "Storage",
    "Subscribe",
    "Tls",
    "Token",
    "Webhook",
    "load",
    "parse",
]
