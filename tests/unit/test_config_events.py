"""Where events are listened for, who may send them, who is subscribed to, and whom TLS trusts."""

from __future__ import annotations

import contextlib
import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sr_exporter.config import Endpoint, Events
from sr_exporter.config.addresses import is_loopback, parse_endpoint, plain_address
from sr_exporter.config.tls import certificates
from tests.unit.test_config import CERTIFICATE, ETC, FILES, TWICE, faults, parsed

PORT = "must have a port from 1 to 65535"
ONE_IPV4 = "must be one IPv4 address and a port: event_stream knows no other"
NOBODY = (
    "events.peers: nobody can be one: there is neither events.stream nor events.datagram.listen"
)
NO_ADVERTISE = (
    "sources[0].events.subscribe: needs events.stream.advertise: events.stream.listen is not one"
    " IPv4 address"
)
NO_METHOD = (
    "sources[0].events.subscribe: needs a name of letters, digits and ._:@+- only: OpenSIPS is told"
    " it in tcp:host:port/NAME"
)
ELSEWHERE = "is 127.0.0.1:9798, on this machine only, and its mi is elsewhere"
#: A path of 107 bytes, the longest there may be.
LONGEST = "/" + "x" * 106


def stream(**more: str) -> str:
    said = ", ".join(f"{key}: '{value}'" for key, value in more.items())
    return f"events: {{stream: {{{said}}}}}"


def unix(*paths: str) -> str:
    entries = ", ".join(f"'{path}': s{index}" for index, path in enumerate(paths))
    return f"events: {{datagram: {{unix: {{{entries}}}}}}}"


def peers(entries: str) -> str:
    return f"events: {{stream: {{listen: ':9798'}}, peers: {{{entries}}}}}"


def subscriber(mi: str = "http://10.0.0.5:8888/mi", *, name: str = "a", events: str = "") -> str:
    said = f"{{name: {name!r}, mi: {mi!r}, events: {{subscribe: tcp}}}}"
    return f"sources: [{said}]\n{events}"


# --- what is right ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("listen", "endpoint", "advertise"),
    [
        ("10.0.0.9:9798", Endpoint("10.0.0.9", 9798), Endpoint("10.0.0.9", 9798)),
        ("127.0.0.1:1", Endpoint("127.0.0.1", 1), Endpoint("127.0.0.1", 1)),
        ("0.0.0.0:9798", Endpoint("0.0.0.0", 9798), None),
        (":65535", Endpoint("", 65535), None),
        ("[::]:9798", Endpoint("::", 9798), None),
        ("[2001:db8::1]:9798", Endpoint("2001:db8::1", 9798), None),
        ("events.example:9798", Endpoint("events.example", 9798), None),
        ("224.0.0.1:9798", Endpoint("224.0.0.1", 9798), None),
    ],
)
def test_a_stream_is_advertised_as_it_listens_where_that_can_be(listen, endpoint, advertise):
    """One IPv4 address, and not every one there is."""
    events = parsed(stream(listen=listen)).events
    assert events == Events(stream=endpoint, advertise=advertise)


@pytest.mark.parametrize("text", ["events: {}", "events:", "events: {datagram: {}, peers: }"])
def test_nothing_listens_unless_it_is_said(text):
    """An empty section is none."""
    assert parsed(text).events == Events()


def test_addresses_of_peers_are_held_in_one_spelling():
    """As they are compared: IPv4 never as IPv6, IPv6 in its short form."""
    said = peers("10.0.0.6: a, '::FFFF:10.0.0.7': b, '2001:DB8:0::1': c, 'fe80::1%eth0': a")
    assert parsed(said).events.peers == (
        ("10.0.0.6", "a"),
        ("10.0.0.7", "b"),
        ("2001:db8::1", "c"),
        ("fe80::1%eth0", "a"),
    )


def test_a_source_may_be_polled_and_named_as_a_sender():
    """Its script may send what it is polled for, too."""
    config = parsed("sources: [{name: a, mi: 'http://h'}]\n" + peers("10.0.0.6: a"))
    assert config.events.sources() == {"a"}


@pytest.mark.parametrize("path", ["/run/x.sock", LONGEST, "/run/a b"])
def test_paths_of_sockets(path):
    """Up to what a socket's address has room for."""
    assert parsed(unix(path)).events.unix == ((path, "s0"),)


@pytest.mark.parametrize(
    ("mi", "events"),
    [
        ("http://10.0.0.5/mi", stream(listen="10.0.0.9:9798")),
        ("http://10.0.0.5/mi", stream(listen=":9798", advertise="10.0.0.9:80")),
        ("http://127.0.0.1/mi", stream(listen="127.0.0.1:9798")),
        ("http://localhost:8888/mi", stream(listen="127.0.0.1:9798")),
        ("http://[::1]/mi", stream(listen="127.0.0.1:9798")),
        ("udp://127.9.9.9:8080", stream(listen="127.0.0.1:9798")),
        ("unix:///run/mi.sock", stream(listen="127.0.0.1:9798")),
        ("fifo:///run/mi", stream(listen="0.0.0.0:9798", advertise="127.0.0.1:9798")),
    ],
)
def test_who_can_be_subscribed_to(mi, events):
    """Whoever can reach what is advertised; who is on this machine reaches everything."""
    (source,) = parsed(subscriber(mi, name="A-z0.9_:@+", events=events)).sources
    assert source.subscribe == "tcp"


def test_certificates_are_taken_and_nothing_else_of_their_file():
    """Keys stay where they are; comments may be in any language."""
    key = "-----BEGIN PRIVATE KEY-----\nhunter2\n-----END PRIVATE KEY-----"
    assert certificates(f"é\n{CERTIFICATE}\n{key}\n{CERTIFICATE}") == (
        f"{CERTIFICATE}\n{CERTIFICATE}"
    )


# --- what is wrong ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        # where is listened
        ("events: {stream: {advertise: '10.0.0.9:1'}}", ["events.stream: listen is required"]),
        (
            "events: {stream: {listen: 9798}}",
            ["events.stream.listen: must be host:port, not a number"],
        ),
        (stream(listen="9798"), ["events.stream.listen: must be host:port"]),
        (stream(listen="h:99999"), [f"events.stream.listen: {PORT}"]),
        (stream(listen="h:0"), [f"events.stream.listen: {PORT}"]),
        (stream(listen="h:"), [f"events.stream.listen: {PORT}"]),
        (stream(listen="h:+1"), [f"events.stream.listen: {PORT}"]),
        (stream(listen="h:\uff11"), [f"events.stream.listen: {PORT}"]),
        (
            stream(listen="::1:9798"),
            ["events.stream.listen: must have its IPv6 address in brackets: [::1]:9798"],
        ),
        (
            stream(listen="[10.0.0.9]:9798"),
            ["events.stream.listen: has no valid IPv6 address between the brackets"],
        ),
        (stream(listen="h/x:9798"), ["events.stream.listen: has no valid host"]),
        (stream(listen="a..b:9798"), ["events.stream.listen: has no valid host"]),
        (stream(listen=f"{'x' * 64}.b:9798"), ["events.stream.listen: has no valid host"]),
        (stream(listen=":1", advertise="10.0.0.9:65536"), [f"events.stream.advertise: {PORT}"]),
        *(
            (stream(listen=":1", advertise=f"{host}:1"), [f"events.stream.advertise: {ONE_IPV4}"])
            for host in ("h.example", "[::1]", "0.0.0.0", "", "224.0.0.1", "255.255.255.255")
        ),
        ("events: {datagram: {listen: 'h:0'}}", [f"events.datagram.listen: {PORT}"]),
        # Unix sockets
        (unix("run/x"), ["events.datagram.unix.run/x: must be an absolute path"]),
        (
            unix(LONGEST + "x"),
            [f"events.datagram.unix.{LONGEST}x: must have a path of 107 bytes at most"],
        ),
        (
            unix("/run/x", "//run/./y/../x"),
            [f"events.datagram.unix.//run/./y/../x: {TWICE}events.datagram.unix./run/x"],
        ),
        (unix("/rün"), ["events.datagram.unix: no file name in plain ASCII on line 1"]),
        (
            "events: {datagram: {unix: {/a: push, /b: 3}}}",
            [
                "events.datagram.unix./a: push is reserved",
                "events.datagram.unix./b: must be a string, not a number (quote it)",
            ],
        ),
        # peers
        (
            peers("10.0.0: a, h.example: b, 10.0.0.0/8: c"),
            [
                "events.peers.10.0.0: must be an IP address",
                "events.peers.h.example: must be an IP address",
                "events.peers.10.0.0.0/8: must be an IP address",
            ],
        ),
        (
            peers("10.0.0.6: a, '::ffff:10.0.0.6': b"),
            [f"events.peers.::ffff:10.0.0.6: {TWICE}events.peers.10.0.0.6"],
        ),
        (peers("10.0.0.6: sr_exporter"), ["events.peers.10.0.0.6: sr_exporter is reserved"]),
        (
            "events: {datagram: {unix: {/x: a}}, peers: {10.0.0.6: a}}",
            [
                NOBODY,
            ],
        ),
        # subscribing
        (
            "sources: [{name: a, mi: 'http://h', events: {subscribe: udp}}]",
            ['sources[0].events.subscribe: must be none or tcp, not "udp"'],
        ),
        (
            subscriber(),
            ["sources[0].events.subscribe: needs events.stream: nothing is listened on"],
        ),
        (
            subscriber(events=stream(listen=":9798")),
            [
                NO_ADVERTISE,
            ],
        ),
        # what is wrong with the stream is said once
        (
            subscriber(events=stream(listen="9798")),
            ["events.stream.listen: must be host:port"],
        ),
        (
            subscriber(events=stream(listen=":9798", advertise="[::1]:9798")),
            [f"events.stream.advertise: {ONE_IPV4}"],
        ),
        *(
            (
                subscriber(name=name, events=stream(listen="10.0.0.9:9798")),
                [NO_METHOD],
            )
            for name in ("a b", "a/b", "ü", "a?b")
        ),
        *(
            (
                subscriber(mi, events=stream(listen=listen, **more)),
                [f"sources[0].events.subscribe: cannot reach us: events.stream.{key} {ELSEWHERE}"],
            )
            for mi in ("http://10.0.0.5/mi", "https://sip.example/mi", "udp://[2001:db8::1]:80")
            for key, listen, more in (
                ("advertise", ":9798", {"advertise": "127.0.0.1:9798"}),
                ("advertise", "127.0.0.1:9798", {}),
                ("listen", "127.0.0.1:9798", {"advertise": "10.0.0.9:9798"}),
            )
        ),
        # TLS
        (
            "sources: [{name: a, mi: 'http://h', tls: {ca_file: ca.pem}}]",
            ["sources[0].tls: is for https:// only"],
        ),
        (
            "sources: [{name: a, mi: 'https://h', tls: {ca_file: no.pem}}]",
            ["sources[0].tls.ca_file: no.pem cannot be read: No such file or directory"],
        ),
        (
            "sources: [{name: a, mi: 'https://h', tls: {ca_file: mi.password}}]",
            ["sources[0].tls.ca_file: mi.password holds no certificate in PEM"],
        ),
    ],
)
def test_says_what_is_wrong_and_where(text, expected):
    """One line each, with its place."""
    assert faults(text) == expected


def test_subscribers_in_files_are_held_to_it_too(monkeypatch):
    """Wherever a source stands, what it needs is looked for."""
    text = "sources_files: [subscriber.yml]"
    monkeypatch.setitem(
        FILES, ETC / "subscriber.yml", "- {name: a, mi: 'http://h', events: {subscribe: tcp}}"
    )
    assert faults(text) == [
        "subscriber.yml[0].events.subscribe: needs events.stream: nothing is listened on"
    ]


@pytest.mark.parametrize("damaged", ["", CERTIFICATE[:-30], CERTIFICATE.replace("MIIB", "MIIC")])
def test_a_damaged_certificate_is_none(damaged):
    """It is found when the file is read, not when the source cannot be."""
    assert certificates(damaged) == ""
    assert certificates(f"{CERTIFICATE}\n{damaged}") in ("", CERTIFICATE)


# --- whatever it is --------------------------------------------------------------------------


@given(st.text() | st.text("0123456789.:[]ab"))
def test_any_text_is_an_endpoint_or_an_error(text):
    """And what is one is written as it was read."""
    with contextlib.suppress(ValueError):
        endpoint = parse_endpoint(text)
        assert 1 <= endpoint.port <= 65_535
        assert parse_endpoint(str(endpoint)) == endpoint


@given(st.ip_addresses())
def test_an_address_has_one_spelling(address):
    """Also where it is written out, or as IPv4 in IPv6."""
    plain = plain_address(str(address))
    assert plain_address(address.exploded) == plain == plain_address(plain)
    if isinstance(address, ipaddress.IPv4Address):
        assert plain_address(f"::ffff:{address}") == plain == str(address)
    assert is_loopback(plain) == is_loopback(address.exploded)
