"""The web configuration file is read as exporter-toolkit reads it, or refused by name."""

from __future__ import annotations

import ssl
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from sr_exporter.config import web
from sr_exporter.config.server_tls import CIPHERS, CURVES, ClientAuth, takes_curve
from sr_exporter.config.web import (
    HEADERS,
    WEB_SCHEMA,
    RateLimit,
    WebConfig,
    load_web,
    parse_web,
)
from sr_exporter.errors import ConfigError
from tests.web_config import ALICE, CA, PASSWORD, SERVER, authority, chain, key

if TYPE_CHECKING:
    import trustme

FILES = {
    "/etc/server.pem": chain(SERVER),
    "/etc/server.key": key(SERVER),
    "/etc/ca.pem": authority(),
    "/etc/other.key": key(CA.issue_cert("other.example")),
    "/etc/text": "hello",
    "/etc/locked.key": "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n",
    "/etc/broken.pem": "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----",
}
PAIR = "cert_file: server.pem, key_file: server.key"
IF_GIVEN = "client_auth_type: VerifyClientCertIfGiven"


def read_file(path):
    try:
        return FILES[str(path)]
    except KeyError:
        raise FileNotFoundError(2, "No such file or directory") from None


def read(text):
    return parse_web(textwrap.dedent(text), directory=Path("/etc"), read_file=read_file)


def faults(text):
    with pytest.raises(ConfigError) as raised:
        read(text)
    return [str(fault) for fault in raised.value.faults]


@pytest.mark.parametrize(
    "text",
    [
        *("", "# nothing", "{}", "tls_server_config:", "tls_server_config: {}"),
        *("basic_auth_users: {}", "http_server_config:", "rate_limit: {interval: 0, burst: 0}"),
        *("http_server_config: {http2: false}", "rate_limit: {interval: 0s}", "rate_limit: {}"),
        "http_server_config: {headers: {Strict-Transport-Security: ''}}",
    ],
)
def test_nothing_is_asked_for(text):
    """It is served as without a file."""
    assert read(text) == WebConfig()


def test_every_key_is_understood():
    """A file with each of them, as another exporter has it."""
    found = read(f"""
        tls_server_config:
          cert_file: server.pem
          key_file: server.key
          client_auth_type: RequireAndVerifyClientCert
          client_ca_file: ca.pem
          client_allowed_sans: [a.example, 10.0.0.1]
          min_version: TLS12
          max_version: TLS13
          cipher_suites: [TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256, TLS_AES_128_GCM_SHA256]
          prefer_server_cipher_suites: false
          curve_preferences: [CurveP256]
        http_server_config:
          http2: true
          headers:
            Content-Security-Policy: >
              default-src 'self';
              img-src 'none'
            X-Frame-Options: deny
            X-Content-Type-Options: nosniff
            X-XSS-Protection: 0
            Strict-Transport-Security: max-age=31536000
        basic_auth_users: {{alice: {ALICE}}}
        rate_limit: {{interval: 1s, burst: 20}}
        """)
    assert found.tls is not None
    assert found.tls.client_auth is ClientAuth.REQUIRED
    assert found.tls.allowed_sans == {"a.example", "10.0.0.1"}
    context = found.tls.context
    assert context.verify_mode is ssl.CERT_REQUIRED
    names = {one["name"] for one in context.get_ciphers() if one["protocol"] == "TLSv1.2"}
    assert names == {"ECDHE-RSA-AES128-GCM-SHA256"}
    assert not context.options & ssl.OP_CIPHER_SERVER_PREFERENCE
    assert dict(found.headers) == {
        b"content-security-policy": b"default-src 'self'; img-src 'none'",
        b"x-frame-options": b"deny",
        b"x-content-type-options": b"nosniff",
        b"x-xss-protection": b"0",
        b"strict-transport-security": b"max-age=31536000",
    }
    assert found.users == {b"alice": ALICE.encode()}
    assert found.rate_limit == RateLimit(1.0, 20)


def test_certificates_may_stand_in_the_file():
    """cert, key and client_ca instead of the files."""
    inline = {
        "cert": chain(SERVER),
        "key": key(SERVER),
        "client_ca": authority(),
        "client_auth_type": "VerifyClientCertIfGiven",
    }
    found = read(yaml.safe_dump({"tls_server_config": inline}))
    assert found.tls is not None
    assert found.tls.client_auth is ClientAuth.IF_GIVEN
    assert found.tls.context.verify_mode is ssl.CERT_OPTIONAL


def test_tls_is_1_2_and_newer_by_default():
    """And HTTP/2 is not offered."""
    found = read(f"tls_server_config: {{{PAIR}}}")
    assert found.tls is not None
    assert found.tls.context.minimum_version is ssl.TLSVersion.TLSv1_2
    assert found.tls.context.maximum_version is ssl.TLSVersion.TLSv1_3
    assert found.tls.context.options & ssl.OP_CIPHER_SERVER_PREFERENCE


def test_suites_of_tls_1_3_alone_leave_no_older_version():
    """As in Go, where no suite of TLS 1.2 is left then."""
    found = read(f"tls_server_config: {{{PAIR}, cipher_suites: [TLS_AES_128_GCM_SHA256]}}")
    assert found.tls is not None
    assert found.tls.context.minimum_version is ssl.TLSVersion.TLSv1_3


@pytest.mark.parametrize("suite", CIPHERS)
def test_openssl_knows_every_suite(suite):
    """What is taken is not refused where it is used."""
    assert read(f"tls_server_config: {{{PAIR}, cipher_suites: [{suite}]}}").tls is not None


@pytest.mark.parametrize("curve", CURVES)
@pytest.mark.parametrize("works", [True, False])
def test_a_curve_is_taken_or_refused_by_name(monkeypatch, curve, works):
    """Some of Python's ssl cannot be given X25519 alone, and say so only where it is used."""
    wish = f"tls_server_config: {{{PAIR}, curve_preferences: [{curve}]}}"
    known = takes_curve(curve)
    assert known or curve == "X25519"
    if not works:
        known = False
        monkeypatch.setattr(web, "takes_curve", lambda _: False)
    if known:
        assert read(wish).tls is not None
    else:
        (told,) = faults(wish)
        assert told.startswith("tls_server_config.curve_preferences: ")
        assert f"cannot be told to use {curve} alone" in told


@pytest.mark.parametrize(
    ("interval", "seconds"),
    [("1s", 1.0), ("100ms", 0.1), ("1m30s", 90.0), ("1.5s", 1.5), (".5s", 0.5), ("250us", 0.00025)],
)
def test_intervals_are_durations_of_go(interval, seconds):
    """They are not those of Prometheus, which know no fractions."""
    found = read(f"rate_limit: {{interval: {interval}, burst: 1}}").rate_limit
    assert found is not None
    assert found.interval_seconds == pytest.approx(seconds)


TLS_FAULTS = [
    ("", "cert_file: ''", "cert or cert_file is required: nothing would be encrypted without"),
    ("", "min_version: TLS13", "cert or cert_file is required: nothing would be encrypted"),
    ("", "key_file: server.key", "cert or cert_file is required"),
    ("", "cert_file: server.pem", "key or key_file is required"),
    ("", "client_auth_type: NoClientCert", "key or key_file is required"),
    ("", f"cert: x, {PAIR}", "cert and cert_file are both there"),
    (".cert_file", "cert_file: no.pem, key_file: server.key", "no.pem cannot be read: No such"),
    (".key_file", "cert_file: server.pem, key_file: no.key", "no.key cannot be read: No such"),
    (".cert_file", "cert_file: text, key_file: server.key", "holds no certificate in PEM"),
    (".key_file", "cert_file: server.pem, key_file: text", "holds no private key in PEM"),
    (".key_file", "cert_file: server.pem, key_file: other.key", "is not the key of the certifi"),
    (".key_file", "cert_file: server.pem, key_file: locked.key", "is encrypted: there is nobody"),
    (".cert_file", "cert_file: broken.pem, key_file: server.key", "cannot be used with its key"),
    (".client_ca_file", f"{PAIR}, client_ca_file: ca.pem", "without client_auth_type nobody"),
    (
        ".client_ca_file",
        f"{PAIR}, client_ca_file: text, client_auth_type: VerifyClientCertIfGiven",
        "holds no certificate in PEM",
    ),
    (
        ".client_ca_file",
        f"{PAIR}, client_ca_file: no.pem, client_auth_type: VerifyClientCertIfGiven",
        "no.pem cannot be read",
    ),
    ("", f"{PAIR}, client_auth_type: RequireAndVerifyClientCert", "client_ca or client_ca_file"),
    (
        "",
        f"{PAIR}, client_auth_type: VerifyClientCertIfGiven, client_ca: x, client_ca_file: ca.pem",
        "client_ca and client_ca_file are both there",
    ),
    *(
        (".client_auth_type", f"{PAIR}, client_auth_type: {name}", f"{name} is not possible")
        for name in ("RequestClientCert", "RequireAnyClientCert", "RequireClientCert")
    ),
    (".client_auth_type", f"{PAIR}, client_auth_type: Maybe", "must be NoClientCert or Verify"),
    (
        ".client_allowed_sans",
        f"{PAIR}, {IF_GIVEN}, client_allowed_sans: [a], client_ca_file: ca.pem",
        "needs client_auth_type: RequireAndVerifyClientCert",
    ),
    (".min_version", f"{PAIR}, min_version: TLS10", "TLS10 is not secure: TLS12 is the oldest"),
    (".max_version", f"{PAIR}, max_version: TLS11", "TLS11 is not secure"),
    (".min_version", f"{PAIR}, min_version: SSL3", 'must be TLS12 or TLS13, not "SSL3"'),
    (".min_version", f"{PAIR}, min_version: 1.2", "must be TLS12 or TLS13, not a number"),
    (".min_version", f"{PAIR}, min_version: TLS13, max_version: TLS12", "is newer than max_v"),
    (".cipher_suites[0]", f"{PAIR}, cipher_suites: [TLS_ROT13]", "is not known"),
    (
        ".cipher_suites[0]",
        f"{PAIR}, cipher_suites: [TLS_RSA_WITH_AES_128_GCM_SHA256]",
        "TLS_RSA_WITH_AES_128_GCM_SHA256 has no forward secrecy",
    ),
    (
        ".cipher_suites",
        f"{PAIR}, max_version: TLS12, cipher_suites: [TLS_AES_128_GCM_SHA256]",
        "has none of TLS 1.2",
    ),
    (".curve_preferences[1]", f"{PAIR}, curve_preferences: [X25519, P1]", '"P1" is not known'),
    (
        ".curve_preferences",
        f"{PAIR}, curve_preferences: [X25519, CurveP256]",
        "Python's ssl can be given one curve",
    ),
    (
        ".prefer_server_cipher_suites",
        f"{PAIR}, prefer_server_cipher_suites: maybe",
        "must be true or false",
    ),
    (".client_ca_fil", f"{PAIR}, client_ca_fil: x", "unknown key (did you mean client_ca_file?)"),
]


@pytest.mark.parametrize(("where", "text", "said"), TLS_FAULTS, ids=[one[1] for one in TLS_FAULTS])
def test_what_tls_cannot_be_is_refused_by_name(where, text, said):
    """Each names the key."""
    found = faults(f"tls_server_config: {{{text}}}")
    assert any(one.startswith(f"tls_server_config{where}: ") and said in one for one in found), (
        found
    )


FAULTS = [
    ("", "tls_config: {}", "tls_config: unknown key (did you mean tls_server_config?)"),
    ("", "[]", "must be a mapping, not a list"),
    ("", "a: {", "line 1, column"),
    ("", "tls_server_config: x", "tls_server_config: must be a mapping, not a string"),
    ("", "http_server_config: {http2: maybe}", "http_server_config.http2: must be true or false"),
    (
        "headers",
        "http_server_config: {headers: {X-Frame-Options: allow}}",
        'headers.X-Frame-Options: must be deny or sameorigin, not "allow"',
    ),
    (
        "headers",
        "http_server_config: {headers: {X-Content-Type-Options: sniff}}",
        'X-Content-Type-Options: must be nosniff, not "sniff"',
    ),
    (
        "headers",
        "http_server_config: {headers: {Server: x}}",
        "http_server_config.headers.Server: unknown key",
    ),
    (
        "headers",
        "http_server_config: {headers: {Strict-Transport-Security: é}}",
        "must be printable ASCII",
    ),
    (
        "headers",
        "http_server_config: {headers: {Content-Security-Policy: [x]}}",
        "must be a string, not a list",
    ),
    ("", "basic_auth_users: {alice: secret}", "basic_auth_users.alice: is no bcrypt hash"),
    ("", "basic_auth_users: [alice]", "basic_auth_users: must be a mapping, not a list"),
    ("", f"basic_auth_users: {{'a:b': {ALICE}}}", "name that cannot be one (quote a number)"),
    ("", f"basic_auth_users: {{7: {ALICE}}}", "name that cannot be one (quote a number)"),
    (
        "",
        f"basic_auth_users: {{bob: {ALICE.replace('$04$', '$19$')}}}",
        "basic_auth_users.bob: is a hash of cost 19: it must be 4 to 18",
    ),
    ("", f"basic_auth_users: {{bob: {ALICE[:-1]}}}", "basic_auth_users.bob: is no bcrypt hash"),
    # Found by fuzzing: half of a pair of UTF-16 that stands alone cannot be written as bytes.
    (
        "headers",
        'http_server_config: {headers: {X-Frame-Options: "\\udc80"}}',
        'must be deny or sameorigin, not "\\udc80"',
    ),
    ("", f'basic_auth_users: {{"\\udc80": {ALICE}}}', "name that cannot be one (quote a number)"),
    ("", 'basic_auth_users: {"\\u202e": x}', "basic_auth_users.\\u202e: is no bcrypt hash"),
    ("", "rate_limit: {interval: 1s}", "rate_limit: burst must be 1 at least"),
    ("", "rate_limit: {interval: 1s, burst: 0}", "rate_limit.burst: burst must be 1 at least"),
    ("", "rate_limit: {interval: 1s, burst: -1}", "rate_limit.burst: must be 0 to 1000000000"),
    ("", "rate_limit: {interval: 1d, burst: 1}", "rate_limit.interval: must be 0, or a duration"),
    ("", "rate_limit: {interval: 5, burst: 1}", "rate_limit.interval: must be 0, or a duration"),
    ("", "rate_limit: {interval: -1s, burst: 1}", "rate_limit.interval: must be 0, or a duration"),
    ("", "rate_limit: {interval: 25h, burst: 1}", "rate_limit.interval: must be 24h at most"),
]


@pytest.mark.parametrize(("_", "text", "said"), FAULTS, ids=[one[1] for one in FAULTS])
def test_what_is_wrong_is_named(_, text, said):
    """With its place, and without a secret."""
    found = faults(text)
    assert any(said in one for one in found), found
    assert not any("secret" in one or ALICE[7:] in one for one in found)


def test_all_faults_are_told_at_once():
    """Those of files, too."""
    text = """
        tls_server_config: {cert_file: no.pem, key_file: no.key, min_version: TLS10}
        basic_auth_users: {alice: x}
        rate_limit: {interval: x}
        nonsense: 1
        """
    assert [fault.partition(":")[0] for fault in faults(text)] == [
        "nonsense",
        "tls_server_config.cert_file",
        "tls_server_config.key_file",
        "tls_server_config.min_version",
        "basic_auth_users.alice",
        "rate_limit.interval",
    ]


def test_a_file_that_is_not_there_is_named(tmp_path):
    """As any other fault."""
    with pytest.raises(ConfigError, match=r"no\.yml: cannot be read: No such file"):
        load_web(tmp_path / "no.yml")


def test_an_authority_within_a_chain_is_trusted():
    """Of a file each certificate is a root in Go: one in the middle will do."""
    middle = CA.create_child_ca()
    text = middle.cert_pem.bytes().decode()
    found = read(
        yaml.safe_dump(
            {
                "tls_server_config": {
                    "cert": chain(SERVER),
                    "key": key(SERVER),
                    "client_ca": text,
                    "client_auth_type": "RequireAndVerifyClientCert",
                }
            }
        )
    )
    assert found.tls is not None
    leaf = middle.issue_cert("client.example")
    assert shook_hands(found.tls.context, leaf)
    assert not shook_hands(found.tls.context, CA.issue_cert("client.example"))


def shook_hands(server: ssl.SSLContext, certificate: trustme.LeafCert) -> bool:
    """Say whether a server takes a client's certificate, without a socket."""
    client = ssl.create_default_context(cadata=authority())
    certificate.configure_cert(client)
    there, here = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = (
        client.wrap_bio(here, there, server_hostname="localhost"),
        server.wrap_bio(there, here, server_side=True),
    )
    done: set[ssl.SSLObject] = set()
    for _ in range(4):
        for end in ends:
            if end in done:
                continue
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                continue
            except ssl.SSLError:
                return False
            done.add(end)
    return len(done) == 2


def told_of(text):
    """Give the faults of a file; None: it can be used."""
    try:
        assert isinstance(read(text), WebConfig)
    except ConfigError as error:
        return [str(fault) for fault in error.faults]
    return None


KEYS = sorted({key for keys in WEB_SCHEMA.keys.values() for key in keys} | set(HEADERS))
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=8),
    st.sampled_from(["server.pem", "server.key", "ca.pem", "TLS12", ALICE, "1s", "deny", "X25519"]),
    st.sampled_from(sorted(CIPHERS)),
    st.sampled_from([one.value for one in ClientAuth]),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(st.one_of(st.sampled_from(KEYS), st.text(max_size=4)), inner, max_size=5),
    ),
    max_leaves=12,
)


@given(VALUES)
def test_no_document_crashes_the_reader(document):
    """It is used, or refused with faults that each are one line."""
    text = yaml.safe_dump(document, allow_unicode=True)
    told = told_of(text)
    assert told is None or told
    assert all("\n" not in fault and PASSWORD not in fault for fault in told or ())


@given(st.text(max_size=60))
def test_no_text_crashes_the_reader(text):
    """Whatever it is."""
    told = told_of(text)
    assert told is None or told
