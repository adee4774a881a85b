"""The configuration file: `load` gives a `Config`, or raises a `ConfigError` with every fault."""

from sr_exporter.config.parsing import load, parse
from sr_exporter.config.values import (
    Access,
    Alertmanager,
    AlertRule,
    Authorization,
    BasicAuth,
    Config,
    Endpoint,
    Events,
    Limits,
    Reports,
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
    "Access",
    "AlertRule",
    "Alertmanager",
    "Authorization",
    "BasicAuth",
    "Config",
    "Endpoint",
    "Events",
    "Limits",
    "Reports",
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
