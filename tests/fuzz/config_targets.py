"""Targets: what operators write, which others may have put into their files."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING

from sr_exporter import logs
from sr_exporter.asking import exporter_url, usable_token
from sr_exporter.config import parse
from sr_exporter.config.templates import EXAMPLES, MOST_CHARACTERS, template
from sr_exporter.config.urls import mi_fault, url_fault
from sr_exporter.config.web import parse_web
from sr_exporter.durations import format_duration, parse_duration
from sr_exporter.errors import ConfigError
from sr_exporter.globs import LONGEST_GLOB, compiled, fits
from sr_exporter.redact import redact_url
from sr_exporter.report_rules import BadRule, ReportRule, ReportRules, check
from sr_exporter.signals import Meaning
from sr_exporter.web.rate import Bucket
from sr_exporter.web.server import parse_address
from tests.fuzz import corpora
from tests.fuzz.target import Target, pure
from tests.fuzz.values import must_be_text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sr_exporter.errors import Fault

_LONGEST_EXAMPLE = 500
_DOCUMENT = Path(__file__).parent.parent.parent / "docs" / "configuration.md"
_BLOCK = re.compile(r"^```yaml\n(.*?)^```", re.DOTALL | re.MULTILINE)
_WHOLE = {
    "defaults": {"poll_interval": "10s", "timeout": "5s", "stale_after": "1m", "max_share": 0.05},
    "sources": [
        {
            "name": "sip-1",
            "mi": "http://10.0.0.5:8888/mi",
            "basic_auth": {"username": "a", "password_file": "p"},
        },
        {"name": "sip-2", "mi": "fifo:///run/mi?reply_dir=/tmp", "events": {"subscribe": "tcp"}},
    ],
    "sources_files": ["sources/*.yml"],
    "events": {
        "stream": {"listen": ":9799", "advertise": "10.0.0.1"},
        "peers": {"10.0.0.5": "sip-1"},
    },
    "push": {"tokens": [{"token_file": "t", "sources": ["sbc-*"], "groups": ["*"]}]},
    "alerts": {
        "rules": [
            {
                "match": {"group": "trunks"},
                "for": "1m",
                "severity": "critical",
                "annotations": {"summary": "{{ source }}"},
            }
        ],
        "report_rules": [{"name": "gateway", "match": "GW <(?P<subject>\\w+)>", "meaning": "down"}],
        "subject_ttl": "24h",
    },
    "notifiers": [
        {"name": "am", "alertmanager": {"urls": ["http://127.0.0.1:9093"]}},
        {"name": "oncall", "webhook": {"url": "https://oncall.example/hook", "secret_file": "s"}},
    ],
    "storage": {"retention": "30d"},
    "limits": {"identifiers": 1000, "subjects": 10, "body_bytes": 33554432},
}
_ODD_YAML = (
    b"a: &a [*a, *a]\n<<: *a\n",
    b"? [x]\n: y\n",
    b"!!python/object/apply:os.system [ls]\n",
    b"%YAML 9.9\n---\n",
    b"sources: &s\n  - <<: *s\n",
    b"--- a\n--- b\n",
    b"a: !!int x\nb: !!timestamp 2001-01-01\n",
    b"\t- x\n",
    b"limits: {identifiers: 0x_1, subjects: 1_0, body_bytes: 190:20:30}\n",
    b'"\\UFFFFFFFF": 1\n',
    b"a: |\n \x85x\n",
    b"storage: {retention: 99999999999999999999y}\n",
    b"defaults: {max_share: .inf}\n",
    b"{a: 1, a: 2}\n",
    b"&a a: *a\n",
    b"{url:https://u:p@h/}\n",
    b"- " * 300,
    b"a: " * 300,
    b"[" * 300,
    b"{a: " * 300,
    b"x: 'y\n",
)
_YAML_WORDS = (
    *(
        b"\n",
        b"\n  ",
        b"\n- ",
        b": ",
        b"&a ",
        b"*a",
        b"<<: ",
        b"!!str ",
        b"!!binary ",
        b"|\n",
        b">-\n",
        b"---\n",
    ),
    *(
        b"# ",
        b"''",
        b'"',
        b"{",
        b"}",
        b"~",
        b".nan",
        b"1e3",
        b"0o17",
        b"2001-01-01",
        b"yes",
        b"\xc2\x85",
        b"\t",
    ),
    *(
        b"sources:",
        b"notifiers:",
        b"alerts:",
        b"limits:",
        b"name: ",
        b"match: ",
        b"http://",
        b"${X}",
        b"\\U",
    ),
)
_DURATIONS = (
    b"1h30m",
    b"90s",
    b"500ms",
    b"2w",
    b"0",
    b"292y",
    b"1y2w3d4h5m6s7ms",
    b"00000001s",
    b"-1s",
    b"1.5h",
)
_URLS = (
    b"http://10.0.0.5:8888/mi",
    b"udp://[::1]:8889",
    b"unix:///run/opensips/mi.sock",
    b"fifo:///run/mi?reply_dir=/tmp",
    b"https://user:p%40ss@host/x?y#z",
    b"http://h:99999/",
    b"http://[::1",
    b":9797",
    b"[::]:9797",
    b"127.0.0.1:0",
)
_URL_WORDS = (
    b"://",
    b"[",
    b"]",
    b":",
    b"@",
    b"%00",
    b"?reply_dir=",
    b"#",
    b"99999",
    b"\xe2\x84\xaa",
    b"xn--",
    b"..",
    b"\xd9\xa1",
)
_TEMPLATES = (
    b"{{ source }}/{{ group }}: {{ details|default('x', true)|truncate(20) }}",
    b"{% if ready %}a{% else %}b{% endif %}",
    b"{{ labels.team }} {{ labels['a'] ~ status + 1 }}",
    b"{{ reports[:10]|upper|urlencode }}",
    b"{# c #}{{ -status }}",
    b"{{ ''.__class__ }}",
    b"{% for x in y %}{% endfor %}",
    b"{{ 'a' * 9 }}",
    b"{{ labels|length|int }}",
    b"{{ (1,2)[0] }}",
)
_TEMPLATE_WORDS = (
    *(
        b"{{",
        b"}}",
        b"{%",
        b"%}",
        b"|",
        b"~",
        b"[",
        b"]",
        b".",
        b"__class__",
        b"labels",
        b"status",
        b"'",
    ),
    *(
        b" if ",
        b" else ",
        b"default(",
        b"truncate(",
        b"int",
        b"-",
        b"not ",
        b" in ",
        b"is defined",
        b"{#",
        b"e9999",
    ),
)
#: Expression, subject, glob and text of a rule, a zero byte between them.
_RULES = (
    b"GW <(?P<subject>\\w+)>\0{subject}\0drouting\0GW <gw-1>/10.0.0.1 switched to [inactive]",
    b"(a*)*b(?P<x>.)\0{x} of {x}\0*;events\0aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaac",
    b"^IP \\S+\0{subject}\0[!a]*?\0IP 1.2.3.4",
    b"(?P<subject>(x+x+)+y)\0{subject}\0**********a\0xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
    b"\\C\0\0[a\0\xf0\x9f\x92\xa9",
    b"(?P<subject>(((.{1,30}){1,10})))\0{subject}\0?\0text",
    b"\\x{10FFFF}|\\pL+(?P<subject>)\0{subject}{y}\0[]-a]\0\xff",
)
_RULE_WORDS = (
    *(
        b"(",
        b")*",
        b"{1,1000}",
        b"(?P<subject>",
        b"[^",
        b"]",
        b"|",
        b"\\b",
        b"\\pN",
        b"(?i)",
        b"\0",
        b"*",
        b"?",
    ),
    *(b"{subject}", b"\\Q", b"\\C", b"$", b"^", b".*" * 30, b"a" * 100, b"(?s:.)", b"\xff"),
)
_TEXTS = tuple(
    text.encode()
    for text in (
        "DB data loading failed",
        "DB data loading successfully completed (1 of 2)",
        "IP 1.2.3.4 detected as flooding",
        "GW <gw-1>/10.0.0.1 switched to [inactive] due to probing",
        "DESTINATION <sip:a@b>, set 1 switched to [active]",
        "Node [2], cluster [1] is DOWN",
        "TAG <vip>, cluster 1, became active",
    )
)


def _config(data: bytes) -> None:
    """Read a file, and that again in place of every other it names."""
    text = data.decode("utf-8", "replace")

    def read_file(path: Path) -> str:
        if len(path.name) % 3 == 0:
            raise FileNotFoundError(2, "No such file or directory")
        return text if path.name.endswith("yml") else "one-secret"

    def find_files(directory: Path, pattern: str) -> Sequence[Path]:
        return [directory / "a.yml", directory / f"{len(pattern)}.yml"]

    try:
        parse(text, directory=Path("/etc/sr"), read_file=read_file, find_files=find_files)
    except ConfigError as error:
        _must_be_faults(error.faults)
        raise


def _web_config(data: bytes) -> None:
    """Read a web configuration, and let requests pass by what it says."""

    def read_file(path: Path) -> str:
        if len(path.name) % 3 == 0:
            raise PermissionError(13, "Permission denied")
        return "-----BEGIN CERTIFICATE-----\nMA==\n-----END CERTIFICATE-----\n"

    text = data.decode("utf-8", "replace")
    try:
        config = parse_web(text, directory=Path("/etc/sr"), read_file=read_file)
    except ConfigError as error:
        _must_be_faults(error.faults)
        raise
    for name, value in config.headers:
        assert b"\n" not in name + value
        assert b"\r" not in name + value
    if config.rate_limit is not None:
        bucket = Bucket(config.rate_limit)
        assert bucket.take() or bucket.retry_after_seconds >= 1
        assert bucket.retry_after_seconds >= 1


def _must_be_faults(faults: Sequence[Fault]) -> None:
    assert faults
    for fault in faults:
        assert str(fault).isprintable(), fault


def _duration(data: bytes) -> None:
    seconds = parse_duration(data.decode("latin-1"))
    assert parse_duration(format_duration(seconds)) == seconds


def _url(data: bytes) -> None:
    """Read it as everything it could be; what is said of it shows nothing secret."""
    said = data.decode("utf-8", "surrogateescape")
    mi_fault(said)
    url_fault(said, secret=True, auth_hint="")
    must_be_text(redact_url(said))
    for read in (parse_address, exporter_url, usable_token):
        try:
            read(said)
        except ValueError as error:
            must_be_text(ascii(error))


def _template(data: bytes) -> None:
    checked = template(data.decode("utf-8", "replace"))
    for values in EXAMPLES:
        hostile = {"details": "{{ 7*7 }}\n" * 900, "labels": {"items": "x", "__class__": "y"}}
        assert len(checked.render({**values, **hostile})) <= MOST_CHARACTERS


def _rule(data: bytes) -> None:
    match, subject, glob, text = (data.decode("utf-8", "replace").split("\0", 3) + [""] * 3)[:4]
    glob = glob[:LONGEST_GLOB]  # the configuration takes none that is longer
    fits(compiled(glob), text)
    rule = ReportRule("own", match, Meaning.DOWN, "*", "*", glob, subject)
    check(rule)
    for signal in ReportRules([rule]).read("s", "g", "i", text):
        must_be_text(signal.subject)


_BUILT_IN = ReportRules()
#: Keys whose reports it reads.
_READ_OF = (
    ("drouting", "a;events"),
    ("dispatcher", "a;events"),
    ("pike", "main"),
    ("clusterer", "node_states"),
    ("clusterer", "sharing_tags"),
)


def _text(data: bytes) -> None:
    text = data.decode("utf-8", "replace")
    for group, identifier in _READ_OF:
        for signal in _BUILT_IN.read("s", group, identifier, text):
            must_be_text(signal.subject)


def _logged(data: bytes) -> None:
    """Write a stranger's words to the log: one line, whatever they are."""
    said = data.decode("utf-8", "surrogateescape")
    event = {"msg": "refused", "said": said, "error": said[:10]}
    assert logs._logfmt(None, "", dict(event)).isprintable()
    written = str(logs._json(None, "", dict(event)))
    assert written.isprintable()
    assert json.loads(written)["msg"] == "refused"


_HASH = "$2y$10$QOauhQNbBCuQDKes6eFzPeMqBSjb7Mr5DUmpZ/VcEd00UAV/LDeSi"
_WEB = (
    {"tls_server_config": {"cert_file": "server.pem", "key_file": "k.pem"}},
    {"tls_server_config": {"cert": "x", "key": "y", "client_auth_type": "NoClientCert"}},
    {
        "tls_server_config": {
            "cert_file": "s.pem",
            "key_file": "key4",
            "client_ca_file": "ca.p",
            "client_auth_type": "RequireAndVerifyClientCert",
            "client_allowed_sans": ["a.example", "10.0.0.1"],
            "min_version": "TLS12",
            "max_version": "TLS13",
            "cipher_suites": ["TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256"],
            "curve_preferences": ["X25519"],
            "prefer_server_cipher_suites": True,
        }
    },
    {"basic_auth_users": {"prometheus": _HASH, "": _HASH, "7": _HASH}},
    {"http_server_config": {"http2": True, "headers": {"X-Frame-Options": "deny"}}},
    {"http_server_config": {"headers": {"Content-Security-Policy": "default-src 'none'\n x"}}},
    {"rate_limit": {"interval": "1s", "burst": 5}},
    {"rate_limit": {"interval": "1h1.5m.5s2µs", "burst": 0}},
)


def targets() -> list[Target]:
    """Give them all."""
    examples = [found.encode() for found in _BLOCK.findall(_DOCUMENT.read_text("utf-8"))]
    parts = [json.dumps({key: value}).encode() for key, value in _WHOLE.items()]
    # PyYAML takes a millisecond for ten lines of it.
    written = [*parts, *(example for example in examples if len(example) < _LONGEST_EXAMPLE)]
    return [
        pure(
            "config",
            _config,
            [*written, *_ODD_YAML],
            declared=(ConfigError,),
            words=_YAML_WORDS,
            longest=800,
        ),
        pure(
            "web-config",
            _web_config,
            [*(json.dumps(one).encode() for one in _WEB), *_ODD_YAML],
            declared=(ConfigError,),
            words=(*_YAML_WORDS, b"$2y$10$", b"1ns", b"9" * 40 + b"h", b"TLS13", b"_file: "),
            longest=800,
        ),
        pure(
            "duration",
            _duration,
            _DURATIONS,
            declared=(ValueError,),
            words=(b"y", b"ms", b"9" * 70, b"\xb2"),
            longest=200,
            weight=2,
        ),
        pure("url", _url, _URLS, words=_URL_WORDS, longest=400, weight=2),
        pure(
            "template",
            _template,
            _TEMPLATES,
            declared=(ValueError,),
            words=_TEMPLATE_WORDS,
            weight=0.5,
        ),
        pure("report-rule", _rule, _RULES, declared=(BadRule,), words=_RULE_WORDS, weight=1),
        pure(
            "report-text",
            _text,
            (*_TEXTS, *corpora.results("reports")[:3]),
            words=(b"switched to [", b"<", b">", b"Node ["),
            weight=2,
        ),
        pure("log-line", _logged, (*_TEXTS, *corpora.PUSHES), weight=1),
    ]
