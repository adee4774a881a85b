from __future__ import annotations

import copy
import glob
import hashlib
import pickle
import re
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from sr_exporter import cutting, globs
from sr_exporter.config import (
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
    Secret,
    SecretUrl,
    Send,
    Source,
    Storage,
    Subscribe,
    Tls,
    Token,
    Webhook,
    load,
    parse,
)
from sr_exporter.config.keys import NUMBERS, SCHEMA, SPANS
from sr_exporter.durations import format_duration
from sr_exporter.errors import ConfigError, Fault
from sr_exporter.model import fold
from sr_exporter.redact import redact_url
from sr_exporter.report_rules import ReportRule
from sr_exporter.signals import Meaning

ETC = Path("/etc/sr")
DOCUMENT = Path(__file__).parents[2] / "docs" / "configuration.md"
HOOK = "https://hooks.example/services/T0/hunter2?key=hunter2"

CERTIFICATE = """\
-----BEGIN CERTIFICATE-----
MIIBkzCCATmgAwIBAgIUWtFA9MNsDHFlFdKj4SLB+1szCd4wCgYIKoZIzj0EAwIw
HjEcMBoGA1UEAwwTc3ItZXhwb3J0ZXIgdGVzdCBDQTAgFw0yNjExMjMwMzU1NDha
GA8yMTI2MTAzMDAzNTU0OFowHjEcMBoGA1UEAwwTc3ItZXhwb3J0ZXIgdGVzdCBD
QTBZMBMGByqGSM49AgEGCCqGSM49AwEHA0IABLuUbLjodVGE8XQ3ZAXj2lUNR+Py
ErPXUvgf+2FBgSGZyME8zI92XgD19e5Qf/Pt9fohPv2LT0DNlf6PeC95sPyjUzBR
MB0GA1UdDgQWBBSsWzipFOUM3saI6FgmymLoomxJ+zAfBgNVHSMEGDAWgBSsWzip
FOUM3saI6FgmymLoomxJ+zAPBgNVHRMBAf8EBTADAQH/MAoGCCqGSM49BAMCA0gA
MEUCIHQehXUbsy6bcTZRFTxQwIS9IOwNdrFksGpw68WKm4HzAiEA4eqKHY2R9EUc
Kns5g23WnM/8X5MVQkk0Kk+FOuGgMjE=
-----END CERTIFICATE-----"""

#: Every secret holds this word.
FILES = {
    ETC / "mi.password": " hunter2 \n",
    ETC / "push.token": "hunter2-token\n",
    ETC / "other.token": "hunter2-other\n",
    ETC / "hook.url": f"{HOOK}\n",
    ETC / "empty": " \n",
    ETC / "two-lines": "hunter2\nhunter2\n",
    ETC / "spaced.token": "hunter2 hunter2\n",
    ETC / "foreign.token": "hunter2-é\n",
    ETC / "no.url": "hunter2\n",
    ETC / "user.url": "https://hunter2:hunter2@hooks.example/\n",
    ETC / "sources.d/a.yml": "- {name: a, mi: http://10.0.0.1:8888/mi}\n",
    ETC / "sources.d/b.yml": "- {name: b, mi: http://10.0.0.2:8888/mi}\n",
    ETC / "ca.pem": f"# Főtanúsítvány\n{CERTIFICATE}\n",
    ETC / "nothing.yml": "# nothing\n",
    ETC / "mapping.yml": "name: a\n",
    ETC / "syntax.yml": "- {\n",
    ETC / "faulty.yml": "- {name: push, mi: http://h/, timout: 1s}\n- name: a\n",
}

FULL: dict[str, Any] = {
    "defaults": {"poll_interval": "20s", "timeout": "3s", "stale_after": "2m", "max_share": 0.1},
    "sources": [
        {
            "name": "sip-1",
            "mi": "http://10.0.0.5:8888/mi",
            "poll_interval": "1m30s",
            "timeout": "500ms",
            "stale_after": "0s",
            "max_share": 1,
            "basic_auth": {"username": "u", "password_file": "mi.password"},
            "events": {"subscribe": "tcp"},
        },
        {
            "name": "SIP-1",
            "mi": "https://[2001:db8::1]/mi",
            "tls": {"ca_file": "ca.pem"},
            "basic_auth": {"username": "u", "password_env": "SR_PASSWORD"},
        },
    ],
    "sources_files": ["sources.d/*.yml"],
    "events": {
        "stream": {"listen": "0.0.0.0:9798", "advertise": "10.0.0.9:9798"},
        "datagram": {"listen": ":9799", "unix": {"/run/sr/sip-2.sock": "sip-2"}},
        "peers": {"10.0.0.6": "sip-2", "::ffff:10.0.0.7": "sip-3"},
    },
    "push": {
        "tokens": [
            {"token_file": "push.token", "sources": ["sbc-*"], "groups": ["dispatcher"]},
            {"token_file": "/etc/sr/other.token"},
            {"token_env": "SR_TOKEN"},
        ]
    },
    "alerts": {
        "rules": [
            {
                "source": "sip-*",
                "group": "uac_registrant",
                "identifier": "*vip*",
                "severity": "critical",
                "for": "1m30s",
                "labels": {"team": "voice", "_tier_1": "gold plus"},
            },
            {"source": "lab", "silence": True},
        ],
        "report_rules": [
            {
                "name": "trunk_lost",
                "enabled": True,
                "source": "sip-*",
                "group": "alarms",
                "identifier": "trunk*",
                "match": "^trunk (?P<trunk>\\S+) lost",
                "meaning": "down",
                "subject": "trunk {trunk}",
            },
            {"name": "flood", "enabled": False},
        ],
        "subject_ttl": "12h",
        "watchdog": True,
        "watchdog_interval": "30s",
    },
    "notifiers": [
        {
            "name": "am",
            "alertmanager": {
                "urls": ["http://10.0.0.7:9093/", "https://am.example/prefix"],
                "send": "readiness",
                "timeout": "4s",
                "basic_auth": {"username": "u", "password_file": "mi.password"},
                "tls": {"ca_file": "ca.pem"},
            },
        },
        {
            "name": "am-2",
            "alertmanager": {
                "urls": ["http://10.0.0.8:9093"],
                "authorization": {"type": "Token", "credentials_file": "push.token"},
            },
        },
        {
            "name": "am-3",
            "alertmanager": {
                "urls": ["http://10.0.0.8:9093"],
                "basic_auth": {"username": "u", "password_env": "SR_PASSWORD"},
            },
        },
        {
            "name": "am-4",
            "alertmanager": {
                "urls": ["http://10.0.0.8:9093"],
                "authorization": {"credentials_env": "SR_TOKEN"},
            },
        },
        {
            "name": "oncall",
            "webhook": {
                "url": HOOK,
                "send": "readiness",
                "timeout": "1s",
                "max_age": "1h",
                "group_wait": "30s",
            },
        },
        {"name": "chat", "webhook": {"url_file": "hook.url"}},
        {
            "name": "chat-2",
            "webhook": {
                "url": HOOK,
                "secret_file": "mi.password",
                "basic_auth": {"username": "u", "password_file": "mi.password"},
                "tls": {"ca_file": "ca.pem"},
            },
        },
        {
            "name": "chat-3",
            "webhook": {
                "url": HOOK,
                "authorization": {"type": "Token", "credentials_file": "push.token"},
            },
        },
        {
            "name": "chat-4",
            "webhook": {
                "url_env": "SR_URL",
                "secret_env": "SR_PASSWORD",
                "basic_auth": {"username": "u", "password_env": "SR_PASSWORD"},
            },
        },
        {
            "name": "chat-5",
            "webhook": {"url_env": "SR_URL", "authorization": {"credentials_env": "SR_TOKEN"}},
        },
    ],
    "storage": {"retention": "1w"},
    "limits": {"identifiers": 10, "subjects": 20, "notifications": 5000, "body_bytes": 4096},
}

#: The same of these.
ENVIRONMENT = {
    "SR_PASSWORD": " hunter2-env\n",
    "SR_TOKEN": "hunter2-token-env",
    "SR_URL": HOOK,
    "SR_EMPTY": " ",
    "SR_TWO_LINES": "hunter2\nhunter2",
}


def read(path: Path) -> str:
    if path not in FILES:
        raise FileNotFoundError(2, "No such file or directory")
    return FILES[path]


def find(directory: Path, pattern: str) -> list[Path]:
    return sorted(path for path in FILES if fnmatchcase(str(path), str(directory / pattern)))


def parsed(text: str) -> Config:
    return parse(text, directory=ETC, read_file=read, find_files=find, environment=ENVIRONMENT)


def faults(text: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        parsed(text)
    assert str(caught.value) == "\n".join(map(str, caught.value.faults))
    return [str(fault) for fault in caught.value.faults]


# --- what is right ---------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["", "# nothing\n", "---\n", "{}", "null", "\ufeff{}"])
def test_nothing_is_the_defaults(text: str) -> None:
    """An empty file means the same as none."""
    assert parsed(text) == Config() == load(None)


def test_empty_sections_are_absent() -> None:
    """Sections and lists of which everything is commented out count as absent."""
    assert parsed("".join(f"{key}:\n" for key in SCHEMA.keys[""])) == Config()


def test_reads_every_key() -> None:
    """Each key arrives where it belongs."""
    config = parsed(yaml.safe_dump(FULL))
    base = {
        "poll_interval_seconds": 20.0,
        "timeout_seconds": 3.0,
        "stale_after_seconds": 120.0,
        "max_share": 0.1,
    }
    assert config == Config(
        sources=(
            Source(
                name="sip-1",
                mi="http://10.0.0.5:8888/mi",
                poll_interval_seconds=90.0,
                timeout_seconds=0.5,
                stale_after_seconds=0.0,
                max_share=1.0,
                basic_auth=BasicAuth("u", Secret("hunter2")),
                subscribe=Subscribe.TCP,
            ),
            Source(
                name="SIP-1",
                mi="https://[2001:db8::1]/mi",
                tls=Tls(CERTIFICATE),
                basic_auth=BasicAuth("u", Secret("hunter2-env")),
                **base,
            ),
            Source(name="a", mi="http://10.0.0.1:8888/mi", **base),
            Source(name="b", mi="http://10.0.0.2:8888/mi", **base),
        ),
        events=Events(
            stream=Endpoint("0.0.0.0", 9798),
            advertise=Endpoint("10.0.0.9", 9798),
            datagram=Endpoint("", 9799),
            unix=(("/run/sr/sip-2.sock", "sip-2"),),
            peers=(("10.0.0.6", "sip-2"), ("10.0.0.7", "sip-3")),
        ),
        tokens=(
            Token(hashlib.sha256(b"hunter2-token").digest(), ("sbc-*",), ("dispatcher",)),
            Token(hashlib.sha256(b"hunter2-other").digest(), ("*",), ("*",)),
            Token(hashlib.sha256(b"hunter2-token-env").digest(), ("*",), ("*",)),
        ),
        rules=(
            AlertRule(
                source="sip-*",
                group="uac_registrant",
                identifier="*vip*",
                severity="critical",
                for_seconds=90.0,
                labels=(("_tier_1", "gold plus"), ("team", "voice")),
            ),
            AlertRule(source="lab", silence=True),
        ),
        watchdog=True,
        watchdog_interval_seconds=30.0,
        notifiers=(
            Alertmanager(
                "am",
                ("http://10.0.0.7:9093", "https://am.example/prefix"),
                4.0,
                Access(BasicAuth("u", Secret("hunter2")), Tls(CERTIFICATE)),
            ),
            Alertmanager(
                "am-2",
                ("http://10.0.0.8:9093",),
                access=Access(Authorization("Token", Secret("hunter2-token"))),
            ),
            Alertmanager(
                "am-3",
                ("http://10.0.0.8:9093",),
                access=Access(BasicAuth("u", Secret("hunter2-env"))),
            ),
            Alertmanager(
                "am-4",
                ("http://10.0.0.8:9093",),
                access=Access(Authorization("Bearer", Secret("hunter2-token-env"))),
            ),
            Webhook(
                "oncall", SecretUrl(HOOK), Send.READINESS, 1.0, 3600.0, group_wait_seconds=30.0
            ),
            Webhook("chat", SecretUrl(HOOK), Send.CHANGES, 10.0, 86_400.0),
            Webhook(
                "chat-2",
                SecretUrl(HOOK),
                secret=Secret("hunter2"),
                access=Access(BasicAuth("u", Secret("hunter2")), Tls(CERTIFICATE)),
            ),
            Webhook(
                "chat-3",
                SecretUrl(HOOK),
                access=Access(Authorization("Token", Secret("hunter2-token"))),
            ),
            Webhook(
                "chat-4",
                SecretUrl(HOOK),
                secret=Secret("hunter2-env"),
                access=Access(BasicAuth("u", Secret("hunter2-env"))),
            ),
            Webhook(
                "chat-5",
                SecretUrl(HOOK),
                access=Access(Authorization("Bearer", Secret("hunter2-token-env"))),
            ),
        ),
        reports=Reports(
            (
                ReportRule(
                    "trunk_lost",
                    "^trunk (?P<trunk>\\S+) lost",
                    Meaning.DOWN,
                    "sip-*",
                    "alarms",
                    "trunk*",
                    "trunk {trunk}",
                ),
            ),
            frozenset({"flood"}),
            12 * 3600.0,
        ),
        storage=Storage(7 * 86_400.0),
        limits=Limits(10, 4096, 20, 5000),
    )


def test_merges_work_and_the_nearer_wins() -> None:
    """YAML anchors and merges may share what sources have in common."""
    config = parsed("""
        sources:
          - &one {name: a, mi: http://h/1, timeout: 1s, poll_interval: 7s}
          - {<<: *one, name: b, timeout: 2s}
          - {name: c, <<: [{timeout: 3s}, *one]}
    """)
    assert [(s.name, s.timeout_seconds, s.poll_interval_seconds) for s in config.sources] == [
        ("a", 1.0, 7.0),
        ("b", 2.0, 7.0),
        ("c", 3.0, 7.0),
    ]


def test_a_file_matched_twice_is_read_once() -> None:
    """Globs that overlap do not double a source."""
    config = parsed("sources_files: [sources.d/*.yml, sources.d/a.yml, nothing.yml, none/*]")
    assert [source.name for source in config.sources] == ["a", "b"]


def test_loads_from_the_disk(tmp_path: Path) -> None:
    """Relative names start at the directory of the file, whatever the working directory."""
    (tmp_path / "sources[1].d").mkdir()
    (tmp_path / "sources[1].d" / "b.yml").write_text("- {name: ü, mi: http://h}", encoding="utf-8")
    (tmp_path / "sources[1].d" / "a.yml").write_text("- {name: a, mi: http://h}", encoding="utf-8")
    (tmp_path / "token").write_text("t\n", encoding="utf-8")
    (tmp_path / "sr.yml").write_text(
        f"""
        sources_files: ['*.d/*.yml', '{glob.escape(str(tmp_path))}/*.d/a.yml']
        push: {{tokens: [{{token_file: token}}]}}
        """,
        encoding="utf-8-sig",
    )
    config = load(tmp_path / "sr.yml")
    assert [source.name for source in config.sources] == ["a", "ü"]
    assert config.tokens == (Token(hashlib.sha256(b"t").digest()),)


def test_says_what_is_wrong_with_files_on_the_disk(tmp_path: Path) -> None:
    """Missing, undecodable and impossible files are faults, with the reason."""
    (tmp_path / "binary").write_bytes(b"hunter2\xff")
    (tmp_path / "sr.yml").write_text(
        r"""
        sources_files: [sources.yml, binary, "a\0b", "*\0"]
        push: {tokens: [{token_file: binary}, {token_file: .}]}
        """,
        encoding="utf-8",
    )
    with pytest.raises(ConfigError) as caught:
        load(tmp_path / "sr.yml")
    found = [str(fault) for fault in caught.value.faults]
    # Whether a glob with a NUL in it matches nothing or is refused is up to Python's version.
    assert [line for line in found if "[3]" not in line] == [
        "sources_files[0]: sources.yml cannot be read: No such file or directory",
        "sources_files[1]: binary is not UTF-8",
        r"sources_files[2]: a\x00b is not a file name",
        "push.tokens[0].token_file: binary is not UTF-8",
        "push.tokens[1].token_file: . cannot be read: Is a directory",
    ]


@pytest.mark.parametrize(
    ("content", "what"),
    [(None, "cannot be read: No such file or directory"), (b"\xff", "is not UTF-8")],
)
def test_a_file_that_cannot_be_read_is_one_fault(
    tmp_path: Path, content: bytes | None, what: str
) -> None:
    """It is named, for it is what the operator gave."""
    path = tmp_path / "sr.yml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        load(path)
    assert str(caught.value) == f"{path}: {what}"


# --- alert rules -----------------------------------------------------------------------------


def rules(*entries: str) -> str:
    return "".join(("alerts:\n  rules:\n", *(f"    - {entry}\n" for entry in entries)))


@pytest.mark.parametrize(
    ("entry", "rule"),
    [
        ("{severity: critical}", AlertRule(severity="critical")),
        ("{severity: 'P 1 é'}", AlertRule(severity="P 1 é")),
        ("{for: 0s}", AlertRule(for_seconds=0.0)),
        ("{for: '0'}", AlertRule(for_seconds=0.0)),
        ("{for: 1w}", AlertRule(for_seconds=604_800.0)),
        ("{silence: true}", AlertRule(silence=True)),
        ("{silence: Yes}", AlertRule(silence=True)),
        ("{silence: ON}", AlertRule(silence=True)),
        ("{silence: !!bool 'true'}", AlertRule(silence=True)),
        ("{silence: off, for: 1s}", AlertRule(for_seconds=1.0)),
        ("{silence: true, labels: }", AlertRule(silence=True)),
        ("{silence: true, labels: {}}", AlertRule(silence=True)),
        ("{for: 1s, labels: }", AlertRule(for_seconds=1.0)),
        ("{labels: {a: '1', B_2: ü}}", AlertRule(labels=(("a", "1"), ("B_2", "ü")))),
        (f"{{labels: {{{'a' * 200}: b}}}}", AlertRule(labels=(("a" * 200, "b"),))),
        ("{labels: {_: x}}", AlertRule(labels=(("_", "x"),))),
        ("{labels: {<<: {a: x, b: y}, a: z}}", AlertRule(labels=(("a", "z"), ("b", "y")))),
        (
            "{source: 'A[b', group: '*', identifier: 'Ü?', for: 1s}",
            AlertRule("A[b", "*", "Ü?", for_seconds=1.0),
        ),
    ],
)
def test_reads_alert_rules(entry: str, rule: AlertRule) -> None:
    """What a rule does not say is None, and what it says arrives as written."""
    assert parsed(rules(entry)).rules == (rule,)


@pytest.mark.parametrize(
    "entries",
    [
        # A rule with a group never fits a lost source, the second does.
        ("{group: '*', for: 1s}", "{for: 2s}"),
        ("{source: a, identifier: '*', for: 1s}", "{source: a, for: 2s}"),
        # The case of a source counts.
        ("{source: a, for: 1s}", "{source: A, for: 2s}"),
        ("{source: a, group: g, for: 1s}", "{source: A, group: g, for: 2s}"),
        # To fit all that another fits is not to have the same globs.
        ("{silence: true}", "{group: core, for: 1s}", "{source: a, for: 1s}"),
        ("{group: core, for: 1s}", "{identifier: core, for: 1s}"),
    ],
)
def test_rules_that_can_be_reached_are_right(entries: tuple[str, ...]) -> None:
    """Only globs that decide nothing new are refused."""
    assert len(parsed(rules(*entries)).rules) == len(entries)


_GLOB = st.text("abAB*?[]!-éÉ", min_size=1, max_size=3)
_NAME = st.text(min_size=1).filter(lambda text: text.isprintable() and text == text.strip())
_LABELS = st.dictionaries(
    st.from_regex(r"[a-zA-Z_][a-zA-Z0-9_]*", fullmatch=True).filter(
        lambda name: not name.startswith("__") and name not in OWN_LABELS
    ),
    _NAME,
    max_size=3,
)
_GLOBS = {"source": _GLOB, "group": st.none() | _GLOB, "identifier": st.none() | _GLOB}
_SPEAKING = st.builds(
    AlertRule,
    **_GLOBS,
    severity=st.none() | _NAME,
    for_seconds=st.none() | st.integers(0, 604_800_000).map(lambda ms: ms / 1000),
    labels=_LABELS.map(lambda labels: tuple(labels.items())),
).filter(lambda rule: rule != AlertRule(rule.source, rule.group, rule.identifier))
_SILENT = st.builds(AlertRule, **_GLOBS, silence=st.just(True))


def written(rule: AlertRule) -> dict[str, Any]:
    """Write a rule as an operator does."""
    wait = None if rule.for_seconds is None else format_duration(rule.for_seconds)
    entry = {
        "source": rule.source,
        "group": rule.group,
        "identifier": rule.identifier,
        "severity": rule.severity,
        "for": wait,
        "labels": dict(rule.labels) or None,
        "silence": rule.silence or None,
    }
    return {key: value for key, value in entry.items() if value is not None}


def decides(rule: AlertRule) -> set[tuple[str, ...]]:
    """Give what a rule can decide, as far as its globs are compared."""
    found = {("key", rule.source, fold(rule.group or "*"), fold(rule.identifier or "*"))}
    if rule.group is None and rule.identifier is None:
        found.add(("source", rule.source))
    return found


@settings(max_examples=200, deadline=None)
@given(st.lists(_SPEAKING | _SILENT, max_size=8))
def test_rules_come_back_as_they_were_written(configured: list[AlertRule]) -> None:
    """Each rule is read as it was meant; those that come too late are found, and only those."""
    text = yaml.safe_dump({"alerts": {"rules": list(map(written, configured))}}, sort_keys=False)
    late = [
        f"alerts.rules[{index}]: is never reached: alerts.rules[{firsts[0]}] has the same globs"
        for index, rule in enumerate(configured)
        if (firsts := [n for n in range(index) if decides(rule) <= decides(configured[n])])
    ]
    if late:
        assert faults(text) == late
    else:
        assert parsed(text).rules == tuple(configured)


# --- what is wrong ---------------------------------------------------------------------------

DURATION = (
    "is not a duration: write a number and a unit, as in 90s, 1h30m or 500ms "
    "(units y w d h m s ms, in this order, each once)"
)
NO_USER = "must not hold a user name or password: use basic_auth"
ASCII = "must be a URL in plain ASCII; write other characters percent-encoded"
PORT = "must have a port from 1 to 65535"
HTTP = "must begin with http:// or https://"
NO_FILE = "cannot be read: No such file or directory"
HOST = "has no valid host name"
SCHEMES = "must begin with http://, https://, udp://, unix:// or fifo://"
ABSOLUTE = "must be {0}:// and an absolute path, with three slashes: {0}:///run/..."
REPLY_DIR = "must not have a query but ?reply_dir=/folder"
ONE_PASSWORD = "exactly one of password_file and password_env is required"
ONE_TOKEN = "must hold one token: ASCII letters, digits and signs, no spaces"
LEVELS = "an Alertmanager takes levels, not changes: leave it at readiness"
TWICE = "is there twice: the first is "
NO_LABEL = "no label name (letters, digits and _, no digit first)"
OWN_LABELS = ("alertname", "source", "group", "identifier", "severity", "subject")
SET_ITSELF = "is a label that the exporter sets itself"
BESIDE = "has no effect beside silence"
SAYS_NOTHING = (
    "says nothing: give it severity, for, keep_firing_for, labels, annotations or silence"
)
PRINTABLE = "must be printable, without spaces at its ends"
FLAG = "must be true or false"


def source(entries: str) -> str:
    return f"sources: [{{name: a, mi: http://h, {entries}}}]"


def mi(url: str) -> str:
    return f"sources: [{{name: a, mi: {url!r}}}]"


def hook(entries: str) -> str:
    return f"notifiers: [{{name: n, webhook: {{{entries}}}}}]"


def manager(entries: str) -> str:
    return f"notifiers: [{{name: n, alertmanager: {{{entries}}}}}]"


def token(file: str) -> str:
    return f"push: {{tokens: [{{token_file: {file}}}]}}"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        # YAML
        ("a: [", ["line 1, column 5: expected the node content, but found '<stream end>'"]),
        ("a: b: c", ["line 1, column 5: mapping values are not allowed here"]),
        ("\n\ta: 1", ["line 2, column 1: found character '\\t' that cannot start any token"]),
        ("a: *b", ["line 1, column 4: found undefined alias 'b'"]),
        ("{}\n---\n{}", ["line 2, column 1: but found another document"]),
        ("{}\n\x07", ["line 2: holds a character that YAML does not allow"]),
        ('"\\UFFFFFFFF"', ["is not YAML"]),
        ("[" * 3000, ["line 1, column 51: is nested too deeply"]),
        # Found by fuzzing: it took a second, and longer the more of it was on one line.
        ("{a: " + "[" * 1200, ["line 1, column 54: is nested too deeply"]),
        ("- " * 3000, ["is nested too deeply"]),
        ("[]", ["must be a mapping, not a list"]),
        ("text", ["must be a mapping, not a string"]),
        ("!x {}", ["must be a mapping, not a tagged value"]),
        ("!!map x", ["must be a mapping, not a tagged value"]),
        ("!!str {}", ["must be a mapping, not a tagged value"]),
        # keys
        ("souces: []", ["souces: unknown key (did you mean sources?)"]),
        ("xyzzy: []", ["xyzzy: unknown key"]),
        ("1: []", ["unknown key on line 1"]),
        ("null: []\n? [a]\n: 1", ["unknown key on line 1", "unknown key on line 2"]),
        ("? !!str [a]\n: 1\n? !!str {}\n: 1", ["unknown key on line 1", "unknown key on line 3"]),
        ("push:\n  tokens: []\n  a b: 1", ["push: unknown key on line 3"]),
        (
            "storage: {}\nlimits: {}\nstorage: {}",
            ["the key storage is there twice, on lines 1 and 3"],
        ),
        (
            "limits: {identifiers: 5,\n\nidentifiers: 6}",
            ["limits: the key identifiers is there twice, on lines 1 and 3"],
        ),
        ("limits: {<<: 5}", ["limits: << must name a mapping, or a list of them"]),
        ("limits: {<<: [a]}", ["limits: << must name a mapping, or a list of them"]),
        ("limits: {<<: {nope: 1}}", ["limits.nope: unknown key"]),
        # types
        ("sources: {}", ["sources: must be a list, not a mapping"]),
        ("sources: [a]", ["sources[0]: must be a mapping, not a string"]),
        ("notifiers: [[]]", ["notifiers[0]: must be a mapping, not a list"]),
        ("storage: 30d", ["storage: must be a mapping, not a string"]),
        ("push: []", ["push: must be a mapping, not a list"]),
        # sources
        ("sources: [{}]", ["sources[0]: name is required", "sources[0]: mi is required"]),
        ("sources: [null]", ["sources[0]: name is required", "sources[0]: mi is required"]),
        (
            "sources: [{name: 1, mi: http://h}]",
            ["sources[0].name: must be a string, not a number (quote it)"],
        ),
        (
            "sources: [{name: no, mi: http://h}]",
            ["sources[0].name: must be a string, not a boolean (quote it)"],
        ),
        (
            "sources: [{name: 2024-01-01, mi: http://h}]",
            ["sources[0].name: must be a string, not a date (quote it)"],
        ),
        ("sources: [{name: , mi: http://h}]", ["sources[0].name: must be a string, not nothing"]),
        ("sources: [{name: '', mi: http://h}]", ["sources[0].name: must not be empty"]),
        (
            "sources: [{name: ' a', mi: http://h}]",
            ["sources[0].name: must be printable, without spaces at its ends"],
        ),
        (
            'sources: [{name: "a\\nb", mi: http://h}]',
            ["sources[0].name: must be printable, without spaces at its ends"],
        ),
        ("sources: [{name: push, mi: http://h}]", ["sources[0].name: push is reserved"]),
        (
            "sources: [{name: sr_exporter, mi: http://h}]",
            ["sources[0].name: sr_exporter is reserved"],
        ),
        (
            "sources: [{name: a, mi: http://h}, {name: a, mi: http://i}]",
            [f"sources[1].name: {TWICE}sources[0].name"],
        ),
        # URLs
        (mi("h:8888/mi"), [f"sources[0].mi: {SCHEMES}"]),
        (mi("ftp://h/mi"), [f"sources[0].mi: {SCHEMES}"]),
        (mi("udp://h"), ["sources[0].mi: must have a port: mi_datagram has no usual one"]),
        (mi("udp://h:0"), [f"sources[0].mi: {PORT}"]),
        (mi("udp://:1"), [f"sources[0].mi: {HOST}"]),
        (mi("udp://h:1/x"), ["sources[0].mi: must be udp://host:port and nothing else"]),
        (mi("udp://h:1?x=y"), ["sources[0].mi: must be udp://host:port and nothing else"]),
        (
            mi("udp://u:hunter2@h:1"),
            ["sources[0].mi: must not hold a user name or password: mi_datagram knows none"],
        ),
        (mi("unix://run/x"), [f"sources[0].mi: {ABSOLUTE.format('unix')}"]),
        (mi("unix:///"), [f"sources[0].mi: {ABSOLUTE.format('unix')}"]),
        (mi("unix:///a%00b"), [f"sources[0].mi: {ABSOLUTE.format('unix')}"]),
        (mi("unix:///run/x?a=b"), ["sources[0].mi: must not have a query (?)"]),
        (mi("unix:///run/x#a"), ["sources[0].mi: must not have a fragment (#)"]),
        (mi(f"unix:///{'x' * 107}"), ["sources[0].mi: must have a path of 107 bytes at most"]),
        (mi("fifo://run/x"), [f"sources[0].mi: {ABSOLUTE.format('fifo')}"]),
        (mi("fifo:///run/x?dir=/a"), [f"sources[0].mi: {REPLY_DIR}"]),
        (mi("fifo:///run/x?reply_dir=/a&reply_dir=/b"), [f"sources[0].mi: {REPLY_DIR}"]),
        (mi("fifo:///run/x?x"), [f"sources[0].mi: {REPLY_DIR}"]),
        (
            mi("fifo:///run/x?reply_dir=tmp"),
            ["sources[0].mi: must have an absolute path in reply_dir"],
        ),
        (mi("http://hunter2:hunter2@h/mi"), [f"sources[0].mi: {NO_USER}"]),
        (mi("http://user:12/hunter2@h/mi"), [f"sources[0].mi: {NO_USER}"]),
        (mi("http:///mi"), [f"sources[0].mi: {HOST}"]),
        (mi("http://-h/mi"), [f"sources[0].mi: {HOST}"]),
        (mi("http://h%41/mi"), [f"sources[0].mi: {HOST}"]),
        (mi("http://[::1/mi"), ["sources[0].mi: is not a URL"]),
        (
            mi("http://[v1.a]/mi"),
            ["sources[0].mi: has no valid IPv6 address between the brackets"],
        ),
        (mi("http://[::1"), ["sources[0].mi: is not a URL"]),
        (mi("http://h:0/mi"), [f"sources[0].mi: {PORT}"]),
        (mi("http://h:65536/mi"), [f"sources[0].mi: {PORT}"]),
        (mi("http://h:x/mi"), [f"sources[0].mi: {PORT}"]),
        (mi("http://h:/mi"), [f"sources[0].mi: {PORT}"]),
        (mi("http://h/mi?a=b"), ["sources[0].mi: must not have a query (?)"]),
        (mi("http://h/mi#a"), ["sources[0].mi: must not have a fragment (#)"]),
        (mi("http://h/a b"), [f"sources[0].mi: {ASCII}"]),
        (mi("http://hé/"), [f"sources[0].mi: {ASCII}"]),
        ('sources: [{name: a, mi: "http://h/\\n"}]', [f"sources[0].mi: {ASCII}"]),
        ("sources: [{name: a, mi: 5}]", ["sources[0].mi: must be a URL, not a number"]),
        # numbers and durations
        (
            source("timeout: 5"),
            ["sources[0].timeout: must be a duration such as 30s, not a number"],
        ),
        (
            source("timeout: true"),
            ["sources[0].timeout: must be a duration such as 30s, not a boolean"],
        ),
        (source("timeout: 5 s"), [f'sources[0].timeout: "5 s" {DURATION}']),
        (source("timeout: \u200b"), [f'sources[0].timeout: "\\u200b" {DURATION}']),
        (source(f"timeout: {'x' * 100}"), [f'sources[0].timeout: "{"x" * 79}…" {DURATION}']),
        (
            source("timeout: 999y"),
            ['sources[0].timeout: "999y" is too long: a duration is at most 292y'],
        ),
        (source("timeout: 0s"), ["sources[0].timeout: must be 100ms to 5m"]),
        (source("timeout: 6m"), ["sources[0].timeout: must be 100ms to 5m"]),
        (source("poll_interval: 99ms"), ["sources[0].poll_interval: must be 100ms to 1d"]),
        (source("stale_after: 2y"), ["sources[0].stale_after: must be 0s to 1y"]),
        ("defaults: {timeout: 0s}", ["defaults.timeout: must be 100ms to 5m"]),
        (source("max_share: 0"), ["sources[0].max_share: must be 0.001 to 1"]),
        (source("max_share: 1.01"), ["sources[0].max_share: must be 0.001 to 1"]),
        (source("max_share: .nan"), ["sources[0].max_share: must be 0.001 to 1"]),
        (source("max_share: .inf"), ["sources[0].max_share: must be 0.001 to 1"]),
        (source("max_share: 5%"), ["sources[0].max_share: must be a number, not a string"]),
        (source("max_share: true"), ["sources[0].max_share: must be a number, not a boolean"]),
        (
            "limits: {identifiers: true}",
            ["limits.identifiers: must be a whole number, not a boolean"],
        ),
        ("limits: {identifiers: 1.0}", ["limits.identifiers: must be a whole number"]),
        ("limits: {identifiers: 0}", ["limits.identifiers: must be 1 to 10000000"]),
        ("limits: {identifiers: !!int x}", ["limits.identifiers: must be a whole number"]),
        ("limits: {identifiers: 0x_}", ["limits.identifiers: must be a whole number"]),
        (f"limits: {{identifiers: {'9' * 5000}}}", ["limits.identifiers: must be a whole number"]),
        ("limits: {body_bytes: 1023}", ["limits.body_bytes: must be 1024 to 1073741824"]),
        (
            "limits: {body_bytes: 32MiB}",
            ["limits.body_bytes: must be a whole number, not a string"],
        ),
        ("storage: {retention: 59m}", ["storage.retention: must be 1h to 10y"]),
        # how notifiers prove who they are
        (
            hook("url: 'http://h', tls: {ca_file: ca.pem}"),
            ["notifiers[0].webhook.tls: is for https:// only"],
        ),
        (
            hook("url: 'https://h', tls: {ca_file: empty}"),
            ["notifiers[0].webhook.tls.ca_file: empty holds no certificate in PEM"],
        ),
        (
            hook("url: 'http://h', secret_file: empty"),
            ["notifiers[0].webhook.secret_file: empty is empty"],
        ),
        (
            hook("url: 'http://h', secret: hunter2"),
            ["notifiers[0].webhook.secret: unknown key (did you mean secret_env?)"],
        ),
        (
            hook("url: 'http://h', authorization: {type: basic, credentials_file: push.token}"),
            ["notifiers[0].webhook.authorization.type: must not be Basic: use basic_auth"],
        ),
        (
            hook("url: 'http://h', authorization: {type: a b, credentials_file: push.token}"),
            ["notifiers[0].webhook.authorization.type: must be one word, such as Bearer"],
        ),
        (
            hook("url: 'http://h', authorization: {credentials: hunter2}"),
            [
                (
                    "notifiers[0].webhook.authorization.credentials: unknown key"
                    " (did you mean credentials_env?)"
                ),
                (
                    "notifiers[0].webhook.authorization: exactly one of credentials_file and"
                    " credentials_env is required"
                ),
            ],
        ),
        (
            hook("url: 'http://h', authorization: {credentials_file: spaced.token}"),
            [
                (
                    "notifiers[0].webhook.authorization.credentials_file:"
                    " must hold one token: ASCII letters, digits and signs, no spaces"
                )
            ],
        ),
        (
            hook(
                "url: 'http://h', authorization: {credentials_file: push.token},"
                " basic_auth: {username: a, password_file: mi.password}"
            ),
            [
                (
                    "notifiers[0].webhook.authorization: has no place beside basic_auth:"
                    " a request bears one Authorization header"
                )
            ],
        ),
        # basic_auth
        (
            source("basic_auth: {}"),
            [
                "sources[0].basic_auth: username is required",
                f"sources[0].basic_auth: {ONE_PASSWORD}",
            ],
        ),
        (
            source("basic_auth: {username: 'a:b', password_file: mi.password}"),
            ["sources[0].basic_auth.username: must not hold a colon"],
        ),
        (
            source("basic_auth: {username: a, password: hunter2}"),
            [
                "sources[0].basic_auth.password: unknown key (did you mean password_env?)",
                f"sources[0].basic_auth: {ONE_PASSWORD}",
            ],
        ),
        (
            source("basic_auth: {username: a, password_file: nope}"),
            [f"sources[0].basic_auth.password_file: nope {NO_FILE}"],
        ),
        (
            source("basic_auth: {username: a, password_file: empty}"),
            ["sources[0].basic_auth.password_file: empty is empty"],
        ),
        (
            source("basic_auth: {username: a, password_file: two-lines}"),
            ["sources[0].basic_auth.password_file: two-lines must hold one line of text"],
        ),
        # sources_files
        ("sources_files: sources.d/*", ["sources_files: must be a list, not a string"]),
        ("sources_files: [3]", ["sources_files[0]: must be a string, not a number (quote it)"]),
        ("sources_files: [/nope.yml]", [f"sources_files[0]: /nope.yml {NO_FILE}"]),
        ("sources_files: [mapping.yml]", ["mapping.yml: must be a list, not a mapping"]),
        (
            "sources_files: [syntax.yml]",
            ["syntax.yml, line 2, column 1: expected the node content, but found '<stream end>'"],
        ),
        (
            "sources: [{name: a, mi: http://h}]\nsources_files: [faulty.yml]",
            [
                "faulty.yml[0].timout: unknown key (did you mean timeout?)",
                "faulty.yml[0].name: push is reserved",
                f"faulty.yml[1].name: {TWICE}sources[0].name",
                "faulty.yml[1]: mi is required",
            ],
        ),
        # push
        (
            "push: {tokens: [{}]}",
            ["push.tokens[0]: exactly one of token_file and token_env is required"],
        ),
        (token("nope"), [f"push.tokens[0].token_file: nope {NO_FILE}"]),
        (token("''"), ["push.tokens[0].token_file: must not be empty"]),
        (token("empty"), ["push.tokens[0].token_file: empty is empty"]),
        (token("spaced.token"), [f"push.tokens[0].token_file: {ONE_TOKEN}"]),
        (token("foreign.token"), [f"push.tokens[0].token_file: {ONE_TOKEN}"]),
        # the environment
        (
            "push: {tokens: [{token_file: push.token, token_env: SR_TOKEN}]}",
            ["push.tokens[0]: exactly one of token_file and token_env is required"],
        ),
        (
            "push: {tokens: [{token_env: SR_TOKEN}, {token_env: SR_TOKEN}]}",
            ["push.tokens[1].token_env: holds the same token as push.tokens[0].token_env"],
        ),
        (
            "push: {tokens: [{token_env: hunter2}]}",
            ["push.tokens[0].token_env: names no environment variable that is set"],
        ),
        (
            "push: {tokens: [{token_env: ''}]}",
            ["push.tokens[0].token_env: must not be empty"],
        ),
        (
            "push: {tokens: [{token_env: [hunter2]}]}",
            ["push.tokens[0].token_env: must be the name of an environment variable, not a list"],
        ),
        (
            source("basic_auth: {username: a, password_env: SR_EMPTY}"),
            ["sources[0].basic_auth.password_env: the environment variable is empty"],
        ),
        (
            hook("url: 'http://h', secret_env: SR_TWO_LINES"),
            [
                (
                    "notifiers[0].webhook.secret_env:"
                    " the environment variable must hold one line of text"
                )
            ],
        ),
        (hook("url_env: SR_PASSWORD"), [f"notifiers[0].webhook.url_env: {HTTP}"]),
        (
            "push: {tokens: [{token_file: push.token}, {token_file: /etc/sr/push.token}]}",
            ["push.tokens[1].token_file: holds the same token as push.tokens[0].token_file"],
        ),
        (
            "push: {tokens: [{token_file: push.token, sources: [], groups: g}]}",
            [
                "push.tokens[0].sources: must not be empty",
                "push.tokens[0].groups: must be a list, not a string",
            ],
        ),
        (
            "push: {tokens: [{token_file: push.token, sources: , groups: ['']}]}",
            [
                "push.tokens[0].sources: must not be empty",
                "push.tokens[0].groups[0]: must not be empty",
            ],
        ),
        # notifiers
        (
            "notifiers: [{}]",
            [
                "notifiers[0]: name is required",
                "notifiers[0]: exactly one of alertmanager and webhook is required",
            ],
        ),
        (
            "notifiers: [{name: a, alertmanager: {}, webhook: {}}]",
            ["notifiers[0]: exactly one of alertmanager and webhook is required"],
        ),
        ("notifiers: [{name: n, alertmanager: }]", ["notifiers[0].alertmanager: urls is required"]),
        (
            hook("url: 'http://h'")[:-1] + ", {name: N, alertmanager: {urls: ['http://h']}}]",
            [f"notifiers[1].name: {TWICE}notifiers[0].name"],
        ),
        (
            manager("urls: http://h"),
            ["notifiers[0].alertmanager.urls: must be a list, not a string"],
        ),
        (manager("urls: []"), ["notifiers[0].alertmanager.urls: must not be empty"]),
        (
            manager("urls: ['http://h', 'http://h/']"),
            [f"notifiers[0].alertmanager.urls[1]: {TWICE}notifiers[0].alertmanager.urls[0]"],
        ),
        (
            manager("urls: ['http://h/api/v2/alerts', 'http://h/?a', '/']"),
            [
                "notifiers[0].alertmanager.urls[0]: must be the base URL, without /api/v2/alerts",
                "notifiers[0].alertmanager.urls[1]: must not have a query (?)",
                f"notifiers[0].alertmanager.urls[2]: {HTTP}",
            ],
        ),
        (
            manager("urls: ['http://hunter2:hunter2@h/']"),
            [f"notifiers[0].alertmanager.urls[0]: {NO_USER}"],
        ),
        (
            manager("urls: ['http://h'], send: changes"),
            [f"notifiers[0].alertmanager.send: {LEVELS}"],
        ),
        (
            manager("urls: ['http://h'], send: all"),
            ['notifiers[0].alertmanager.send: must be readiness or changes, not "all"'],
        ),
        (
            hook("url: 'http://h', send: yes"),
            ["notifiers[0].webhook.send: must be readiness or changes, not a boolean"],
        ),
        (
            hook("send: changes"),
            ["notifiers[0].webhook: exactly one of url, url_file and url_env is required"],
        ),
        (
            hook("url: 'http://h', url_file: hook.url"),
            ["notifiers[0].webhook: exactly one of url, url_file and url_env is required"],
        ),
        (
            hook("url:https://h/hunter2"),
            [
                "notifiers[0].webhook: unknown key on line 1",
                "notifiers[0].webhook: exactly one of url, url_file and url_env is required",
            ],
        ),
        (hook("url: hunter2"), [f"notifiers[0].webhook.url: {HTTP}"]),
        (hook("url: [https://h/hunter2]"), ["notifiers[0].webhook.url: must be a URL, not a list"]),
        (hook("url: 'https://h:hunter2/'"), [f"notifiers[0].webhook.url: {PORT}"]),
        (hook("url: 'https://hunter2@h/'"), [f"notifiers[0].webhook.url: {NO_USER}"]),
        (
            hook("url: 'https://h/hunter2#'"),
            ["notifiers[0].webhook.url: must not have a fragment (#)"],
        ),
        (hook("url_file: no.url"), [f"notifiers[0].webhook.url_file: {HTTP}"]),
        (hook("url_file: user.url"), [f"notifiers[0].webhook.url_file: {NO_USER}"]),
        (
            hook("url_file: https://h/hunter2"),
            ["notifiers[0].webhook.url_file: must be a file name, not a URL"],
        ),
        (hook("url: 'http://h', max_age: 1s"), ["notifiers[0].webhook.max_age: must be 1m to 1y"]),
        (
            hook("url: 'http://h', group_wait: 2h"),
            ["notifiers[0].webhook.group_wait: must be 0s to 1h"],
        ),
        # alert rules
        ("alerts: []", ["alerts: must be a mapping, not a list"]),
        ("alerts: {rule: []}", ["alerts.rule: unknown key (did you mean rules?)"]),
        ("alerts: {watchdog: on call}", ["alerts.watchdog: must be true or false, not a string"]),
        (
            "alerts: {watchdog_interval: 9s}",
            ["alerts.watchdog_interval: must be 10s to 1d"],
        ),
        ("alerts: {rules: {}}", ["alerts.rules: must be a list, not a mapping"]),
        (rules("silence"), ["alerts.rules[0]: must be a mapping, not a string"]),
        (rules(""), [f"alerts.rules[0]: {SAYS_NOTHING}"]),
        (rules("{}"), [f"alerts.rules[0]: {SAYS_NOTHING}"]),
        (
            rules("{source: a, group: b, identifier: c, silence: no, labels: {}}"),
            [f"alerts.rules[0]: {SAYS_NOTHING}"],
        ),
        (
            rules("{serverity: critical}"),
            ["alerts.rules[0].serverity: unknown key (did you mean severity?)"],
        ),
        (
            rules("{keep_firing_for: 8d, silence: true, annotations: {a: x, 0: y, b: }}"),
            [
                "alerts.rules[0].keep_firing_for: must be 0s to 1w",
                (
                    "alerts.rules[0].annotations:"
                    " no label name (letters, digits and _, no digit first) on line 3"
                ),
                "alerts.rules[0].annotations.b: must be a template, not nothing",
                "alerts.rules[0].keep_firing_for: has no effect beside silence",
                "alerts.rules[0].annotations: has no effect beside silence",
            ],
        ),
        (
            rules("{source: [a], group: , identifier: 5, for: 1s}"),
            [
                "alerts.rules[0].source: must be a string, not a list",
                "alerts.rules[0].group: must be a string, not nothing",
                "alerts.rules[0].identifier: must be a string, not a number (quote it)",
            ],
        ),
        (
            rules("{source: '', group: '', identifier: '', for: 1s}"),
            [
                "alerts.rules[0].source: must not be empty",
                "alerts.rules[0].group: must not be empty",
                "alerts.rules[0].identifier: must not be empty",
            ],
        ),
        (rules("{severity: ''}"), ["alerts.rules[0].severity: must not be empty"]),
        (rules("{severity: }"), ["alerts.rules[0].severity: must be a string, not nothing"]),
        (rules('{severity: "a\\n"}'), [f"alerts.rules[0].severity: {PRINTABLE}"]),
        (rules("{for: 30}"), ["alerts.rules[0].for: must be a duration such as 30s, not a number"]),
        (rules("{for: -1s}"), [f'alerts.rules[0].for: "-1s" {DURATION}']),
        (rules("{for: 1w1ms}"), ["alerts.rules[0].for: must be 0s to 1w"]),
        (rules("{silence: 1}"), [f"alerts.rules[0].silence: {FLAG}, not a number"]),
        (rules("{silence: 'true'}"), [f"alerts.rules[0].silence: {FLAG}, not a string"]),
        (rules("{silence: }"), [f"alerts.rules[0].silence: {FLAG}, not nothing"]),
        (rules("{silence: !!bool x}"), [f"alerts.rules[0].silence: {FLAG}"]),
        (rules("{silence: !!bool {}}"), [f"alerts.rules[0].silence: {FLAG}, not a tagged value"]),
        (
            rules("{silence: true, severity: critical, for: 0s, labels: {a: b}}"),
            [
                f"alerts.rules[0].severity: {BESIDE}",
                f"alerts.rules[0].for: {BESIDE}",
                f"alerts.rules[0].labels: {BESIDE}",
            ],
        ),
        # labels
        (rules("{labels: [a]}"), ["alerts.rules[0].labels: must be a mapping, not a list"]),
        (rules("{labels: team}"), ["alerts.rules[0].labels: must be a mapping, not a string"]),
        (
            rules("{labels: {team: 5}}"),
            ["alerts.rules[0].labels.team: must be a string, not a number (quote it)"],
        ),
        (
            rules("{labels: {team: }}"),
            ["alerts.rules[0].labels.team: must be a string, not nothing"],
        ),
        (rules("{labels: {team: ''}}"), ["alerts.rules[0].labels.team: must not be empty"]),
        (rules("{labels: {team: ' x'}}"), [f"alerts.rules[0].labels.team: {PRINTABLE}"]),
        (rules('{labels: {team: "\\uD800"}}'), [f"alerts.rules[0].labels.team: {PRINTABLE}"]),
        (
            rules("{labels: {__a: b, __: c}}"),
            [
                "alerts.rules[0].labels.__a: must not begin with __",
                "alerts.rules[0].labels.__: must not begin with __",
            ],
        ),
        *(
            (rules(f"{{labels: {{{name}: x}}}}"), [f"alerts.rules[0].labels.{name}: {SET_ITSELF}"])
            for name in OWN_LABELS
        ),
        *(
            (rules(f"{{labels: {{{name}: x}}}}"), [f"alerts.rules[0].labels: {NO_LABEL} on line 3"])
            for name in (
                "1a",
                "a-b",
                "a.b",
                "a b",
                "é",
                "aé",
                "''",
                '"a\\n"',
                "5",
                "on",
                "[a]",
                "url:http://hunter2",
                "~",
            )
        ),
        (
            rules("labels:\n        a: x\n        b: y\n        a: z"),
            ["alerts.rules[0].labels: the key a is there twice, on lines 4 and 6"],
        ),
        (
            rules("{labels: {<<: 5}}"),
            ["alerts.rules[0].labels: << must name a mapping, or a list of them"],
        ),
        # rules that come too late
        (
            rules("{group: core, for: 1s}", "{for: 1s}", "{group: Core, identifier: '*', for: 2s}"),
            ["alerts.rules[2]: is never reached: alerts.rules[0] has the same globs"],
        ),
        (
            rules("{for: 1s}", "{source: '*', silence: true}", "{group: '*', silence: true}"),
            [
                "alerts.rules[1]: is never reached: alerts.rules[0] has the same globs",
                "alerts.rules[2]: is never reached: alerts.rules[0] has the same globs",
            ],
        ),
        (
            rules("{identifier: Vip, for: 1s}", "{identifier: vIP, group: '*', for: 2s}"),
            ["alerts.rules[1]: is never reached: alerts.rules[0] has the same globs"],
        ),
        (
            rules("{group: '*', for: 1s}", "{for: 1s}", "{for: 2s}"),
            ["alerts.rules[2]: is never reached: alerts.rules[1] has the same globs"],
        ),
        (
            # One whose globs cannot be read stands in nobody's way.
            rules("{group: 5, for: 1s}", "text", "{nope: 1, for: 1s}", "{for: x}", "{for: 2s}"),
            [
                "alerts.rules[0].group: must be a string, not a number (quote it)",
                "alerts.rules[1]: must be a mapping, not a string",
                "alerts.rules[2].nope: unknown key",
                f'alerts.rules[3].for: "x" {DURATION}',
                "alerts.rules[4]: is never reached: alerts.rules[3] has the same globs",
            ],
        ),
    ],
)
def test_says_what_is_wrong_and_where(text: str, expected: list[str]) -> None:
    """Each fault has its place in the file, and shows no secret."""
    found = faults(text)
    assert found == expected
    assert "hunter2" not in "".join(found)


@pytest.mark.parametrize(
    "address",
    [
        "udp://10.0.0.5:8080",
        "udp://[::1]:8080/",
        "unix:///run/opensips/mi.sock",
        "unix:///run/a%20b",
        "fifo:///run/opensips/fifo",
        "fifo:///run/opensips/fifo?reply_dir=/var/tmp",
    ],
)
def test_every_way_to_a_management_interface(address: str) -> None:
    """The address is given as it was written; basic_auth is for HTTP alone."""
    (read,) = parsed(mi(address)).sources
    assert read.mi == address
    auth = "basic_auth: {username: u, password_file: pass}"
    said = f"sources: [{{name: a, mi: '{address}', {auth}}}]"
    assert "sources[0].basic_auth: is for http:// and https:// only" in faults(said)


def test_all_faults_at_once() -> None:
    """One run tells everything that is to be mended."""
    assert faults("""
        defaults: {timeout: 0s, nope: 1}
        sources:
          - {name: push, mi: udp://h, max_share: x}
          - {name: a, mi: http://u:hunter2@h/, events: {subscribe: tcp}}
          - {name: a}
        sources_files: [nope.yml, sources.d/a.yml]
        push: {tokens: [{token_file: nope}]}
        notifiers: [{name: n, webhook: {url: x, send: never}}, {name: n}]
        storage: {retention: forever}
        limits: {identifiers: -1}
        alerts: {rules: [{for: 1y, labels: {"1": x}}, {silence: 0}, {}]}
        events: {datagram: {listen: x}}
    """) == [
        "defaults.nope: unknown key",
        "defaults.timeout: must be 100ms to 5m",
        "sources_files[0]: nope.yml cannot be read: No such file or directory",
        "sources[0].name: push is reserved",
        "sources[0].max_share: must be a number, not a string",
        "sources[0].mi: must have a port: mi_datagram has no usual one",
        f"sources[1].mi: {NO_USER}",
        f"sources[2].name: {TWICE}sources[1].name",
        "sources[2]: mi is required",
        f"sources.d/a.yml[0].name: {TWICE}sources[1].name",
        "events.datagram.listen: must be host:port",
        "sources[1].events.subscribe: needs events.stream: nothing is listened on",
        "push.tokens[0].token_file: nope cannot be read: No such file or directory",
        "alerts.rules[0].for: must be 0s to 1w",
        f"alerts.rules[0].labels: {NO_LABEL} on line 12",
        "alerts.rules[1]: is never reached: alerts.rules[0] has the same globs",
        "alerts.rules[1].silence: must be true or false, not a number",
        "alerts.rules[2]: is never reached: alerts.rules[0] has the same globs",
        f"notifiers[0].webhook.url: {HTTP}",
        'notifiers[0].webhook.send: must be readiness or changes, not "never"',
        f"notifiers[1].name: {TWICE}notifiers[0].name",
        "notifiers[1]: exactly one of alertmanager and webhook is required",
        f'storage.retention: "forever" {DURATION}',
        "limits.identifiers: must be 1 to 10000000",
    ]


@pytest.mark.timeout(10)
@pytest.mark.parametrize(
    "text",
    [
        "limits: &a {<<: *a, identifiers: 0}",
        "alerts: {rules: [{labels: &a {<<: *a, b: *a}}]}",
        "sources: &a [*a, *a]",
        "defaults: &a\n  timeout: *a",
        "x0: &x0 {a: 1}\n"
        + "".join(f"x{i}: &x{i} {{<<: [*x{i - 1}, *x{i - 1}]}}\n" for i in range(1, 60))
        + "limits: *x59",
        "x0: &x0 [a]\n"
        + "".join(f"x{i}: &x{i} [*x{i - 1}, *x{i - 1}]\n" for i in range(1, 60))
        + "sources: *x59",
    ],
)
def test_knots_and_bombs_are_faults(text: str) -> None:
    """YAML that holds itself, or doubles itself, is refused in no time."""
    assert faults(text)


# --- whatever it is --------------------------------------------------------------------------


def put(config: Any, name: str, value: Any) -> str:
    """Set a key, named as in the documentation, in the first entry that has it, or could."""
    part, _, rest = name.partition(".")
    key = part.removesuffix("[]")
    if not rest:
        config[key] = value
        return key
    if part == key:
        return f"{key}.{put(config[key], rest, value)}"
    entries = config[key]
    chosen = max(range(len(entries)), key=lambda index: (depth(entries[index], rest), -index))
    return f"{key}[{chosen}].{put(entries[chosen], rest, value)}"


def depth(entry: Any, name: str) -> int:
    """Say how far down an entry has what is named."""
    part, _, rest = name.partition(".")
    return 1 + depth(entry[part], rest) if isinstance(entry, dict) and part in entry else 0


KEYS = sorted(
    f"{shape}.{key}" if shape else key for shape, keys in SCHEMA.keys.items() for key in keys
)
ANYTHING = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.binary()
    | st.dates()
    | st.sampled_from(["1s", "http://h", "mi.password", "*", "readiness", "changes", "a"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text() | st.sampled_from(KEYS) | st.integers(), inner, max_size=3)
        | st.sets(st.integers(), max_size=2)
    ),
    max_leaves=8,
)


@pytest.mark.parametrize("name", KEYS)
@pytest.mark.parametrize("value", [True, {"x": 1}, ["", {}], ""])
def test_every_key_is_read(name: str, value: Any) -> None:
    """A value that is wrong for it is a fault of every known key: none is left unread."""
    if value is True and name in {
        "alerts.rules[].silence",
        "alerts.report_rules[].enabled",
        "alerts.watchdog",
    }:
        value = 1
    changed = copy.deepcopy(FULL)
    where = put(changed, name, value)
    assert any(line.startswith(where) for line in faults(yaml.safe_dump(changed)))


def faulty_or_not(text: str) -> None:
    """Read a text, and see that its faults can be printed, a line each."""
    found: tuple[Fault, ...] = ()
    try:
        parsed(text)
    except ConfigError as error:
        found = error.faults or (Fault("", "\n"),)
    for fault in found:
        assert str(fault).isprintable()
        str(fault).encode()


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(KEYS), ANYTHING)
def test_anything_anywhere_is_a_config_or_faults(name: str, value: Any) -> None:
    """Whatever stands at whatever place, nothing but ConfigError is raised."""
    changed = copy.deepcopy(FULL)
    put(changed, name, value)
    faulty_or_not(yaml.safe_dump(changed))


@settings(max_examples=200, deadline=None)
@given(
    st.text() | st.text(alphabet="{}[]:,-!&*<>|?%@`'\"#\\ \n\tax01U") | ANYTHING.map(yaml.safe_dump)
)
def test_any_text_is_a_config_or_faults(text: str) -> None:
    """Whatever is in the file, nothing but ConfigError is raised."""
    faulty_or_not(text)


# --- secrets ---------------------------------------------------------------------------------


def test_a_configuration_shows_no_secret() -> None:
    """Passwords, tokens and the telling part of webhook URLs stay out of every text."""
    config = parsed(yaml.safe_dump(FULL))
    for text in (repr(config), str(config), f"{config}"):
        assert "hunter2" not in text
        assert "password=<secret>" in text
        assert "url=https://hooks.example/…" in text


def test_a_secret_must_be_asked_for() -> None:
    """It shows itself only through `reveal`."""
    secret = Secret("hunter2")
    assert (repr(secret), str(secret), f"{secret}", f"{secret!r}") == ("<secret>",) * 4
    assert secret.reveal() == "hunter2"
    with pytest.raises(TypeError):
        f"{secret:>20}"


def test_secrets_compare_by_value() -> None:
    """A reload sees whether a password has changed."""
    assert Secret("a") == Secret("a") != Secret("b")
    assert Secret("a") != SecretUrl("a")
    assert Secret("a") != "a"
    assert len({Secret("a"), Secret("a"), SecretUrl("a")}) == 2
    assert pickle.loads(pickle.dumps(Secret("a"))) == Secret("a")


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://h.example", "https://h.example"),
        ("https://h.example/", "https://h.example/"),
        ("https://h.example/hunter2", "https://h.example/…"),
        ("https://h.example?hunter2", "https://h.example/…"),
        ("https://h.example#hunter2", "https://h.example/…"),
        ("HTTPS://H.Example:8443/hunter2?a#b", "https://h.example:8443/…"),
        ("http://[2001:db8::1]:80/hunter2", "http://[2001:db8::1]:80/…"),
        ("https://user:hunter2@h.example/", "https://h.example/"),
        ("https://hunter2@h.example:1/hunter2", "https://h.example:1/…"),
        ("https://user:hunter2", "…"),
        ("https://user:12/hunter2@h.example/", "https://…"),
        ("https://hunter2\\@h.example/", "…"),
        ("https://h.example/ hunter2", "…"),
        ("hunter2", "…"),
        ("hunter2://", "…"),
        ("http://[hunter2/", "…"),
        ("", "…"),
    ],
)
def test_urls_are_redacted(url: str, shown: str) -> None:
    """What is left of a URL tells whom it is for, and nothing else."""
    assert redact_url(url) == shown
    assert str(SecretUrl(url)) == repr(SecretUrl(url)) == shown


@given(st.text())
def test_any_text_can_be_redacted(text: str) -> None:
    """Redaction is for what went wrong, so it must not go wrong itself."""
    redact_url(text)
    redact_url(f"http://{text}")


# --- the documentation -----------------------------------------------------------------------


def table(heading: str) -> list[list[str]]:
    """Give the rows of the table under a heading."""
    section = DOCUMENT.read_text(encoding="utf-8").split(f"\n## {heading}\n")[1].split("\n## ")[0]
    rows = [line.strip("| ").split(" | ") for line in section.splitlines() if line[:3] == "| `"]
    return [[row[0].strip("`"), *row[1:]] for row in rows]


def test_the_documentation_has_every_key() -> None:
    """Keys of the code and keys of the documentation are the same."""
    assert sorted(row[0] for row in table("Keys")) == KEYS


def test_the_documentation_has_the_bounds() -> None:
    """The least and the most of every number are those of the code."""
    bounds = {
        key: f"duration, {format_duration(a)} to {format_duration(b)}"
        for key, (a, b) in SPANS.items()
    }
    bounds |= {key: f"{low:.15g} to {high:.15g}" for key, (low, high) in NUMBERS.items()}
    for name, kind, *_ in table("Keys"):
        if bound := bounds.get(name.rpartition(".")[2]):
            assert kind.endswith(bound), name


def test_the_documented_defaults_are_the_defaults() -> None:
    """To write down a default changes nothing."""
    bearer = {"credentials_file": "push.token"}
    plain = {
        "defaults": {},
        "sources": [{"name": "a", "mi": "http://h", "events": {}}],
        "push": {"tokens": [{"token_file": "push.token"}]},
        "alerts": {
            "rules": [{"severity": "critical"}],
            "report_rules": [{"name": "a", "match": "a"}],
        },
        "notifiers": [
            {"name": "am", "alertmanager": {"urls": ["http://h"], "authorization": bearer}},
            {"name": "hook", "webhook": {"url": "http://h", "authorization": bearer}},
        ],
        "storage": {},
        "limits": {},
    }
    changed = copy.deepcopy(plain)
    set_keys = set()
    for name, _, default, _ in table("Keys"):
        if default.startswith("`"):
            parent, _, key = name.rpartition(".")
            target: Any = changed
            for part in parent.split("."):
                target = target[part.removesuffix("[]")]
                if part.endswith("[]"):
                    target = next(e for e in target if kind_of(name) in {"", *e})
            target[key] = yaml.safe_load(default.strip("`"))
            set_keys.add(name)
    assert len(set_keys) == 32
    assert parsed(yaml.safe_dump(changed)) == parsed(yaml.safe_dump(plain))


def kind_of(name: str) -> str:
    return name.split(".")[1] if name.startswith("notifiers[].") else ""


def test_the_documented_example_is_right() -> None:
    """The examples of the documentation can be used as they are."""
    example, *others = re.findall(
        r"```yaml\n(.*?)```", DOCUMENT.read_text(encoding="utf-8"), re.DOTALL
    )
    config = parse(
        example,
        directory=ETC,
        read_file=lambda path: HOOK if path.suffix == ".url" else "hunter2",
        find_files=lambda *_: [],
    )
    assert all(parse(other, directory=ETC).rules for other in others)
    assert [source.name for source in config.sources] == ["sip-1", "sip-2"]
    assert config.events == Events(
        stream=Endpoint("0.0.0.0", 9798),
        advertise=Endpoint("10.0.0.9", 9798),
        datagram=Endpoint("0.0.0.0", 9799),
        unix=(("/run/sr-exporter/sip-3.sock", "sip-3"),),
        peers=(("10.0.0.6", "sip-2"),),
    )
    assert [source.subscribe for source in config.sources] == ["tcp", "none"]
    assert len(config.notifiers) == 2
    assert config.rules == (
        AlertRule(source="lab-*", silence=True),
        AlertRule(group="uac_registrant", identifier="*vip*", severity="critical", for_seconds=10),
        AlertRule(group="drouting", labels=(("team", "carriers"),)),
    )


@pytest.mark.parametrize(
    "text",
    [
        "alerts: {rules: [{%s: GLOB, silence: true}]}",
        "alerts: {report_rules: [{name: own, match: x, meaning: event, %s: GLOB}]}",
    ],
)
@pytest.mark.parametrize("key", ["source", "group", "identifier"])
def test_a_glob_is_no_longer_than_a_name(text, key):
    """Found by fuzzing: what reading one takes grows with its square."""
    assert globs.LONGEST_GLOB == cutting.MOST_NAME
    parse((text % key).replace("GLOB", "'" + "[" * 512 + "'"), directory=Path())
    with pytest.raises(ConfigError, match=f"{key}: must not be longer than 512 characters"):
        parse((text % key).replace("GLOB", "'" + "[" * 513 + "'"), directory=Path())


def test_a_glob_of_a_token_is_no_longer_than_a_name(tmp_path):
    (tmp_path / "t").write_text("x" * 32)
    push = "push: {tokens: [{token_file: t, groups: [a, GLOB]}]}"
    with pytest.raises(ConfigError, match=r"groups\[1\]: must not be longer than 512 characters"):
        parse(push.replace("GLOB", "'" + "[" * 513 + "'"), directory=tmp_path)
