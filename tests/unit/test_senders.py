"""Whose an event is: a wrong source is worse than none."""

from __future__ import annotations

import pytest

from sr_exporter.config import Endpoint, Events, Source, Subscribe
from sr_exporter.model import Way
from sr_exporter.sources.senders import Senders
from sr_exporter.wire.events import EVENT

STREAM, UDP = Endpoint("", 9798), Endpoint("", 9799)
EVENTS = Events(
    stream=STREAM,
    datagram=UDP,
    unix=(("/run/s", "on-this-machine"),),
    peers=(("10.0.0.6", "by-address"), ("2001:db8::6", "by-address-6")),
)
SOURCES = (
    Source("subscribed", "http://10.0.0.5/mi", subscribe=Subscribe.TCP),
    Source("polled", "http://10.0.0.6/mi"),
)
SENDERS = Senders(EVENTS, SOURCES)


@pytest.mark.parametrize(
    ("method", "address", "source"),
    [
        # A name that was given when subscribing tells, whatever the address.
        ("subscribed", "192.0.2.1", "subscribed"),
        ("polled", "10.0.0.6", "polled"),
        ("by-address", "192.0.2.1", "by-address"),
        ("on-this-machine", "192.0.2.1", "on-this-machine"),
        # Without one the address does.
        (EVENT, "10.0.0.6", "by-address"),
        (EVENT, "::ffff:10.0.0.6", "by-address"),
        (EVENT, "2001:DB8:0:0::6", "by-address-6"),
        (EVENT, "10.0.0.5", None),
        # A name that is nobody's is a stranger's, at a known address too.
        ("polled2", "10.0.0.6", None),
        ("Polled", "10.0.0.6", None),
        ("push", "10.0.0.6", None),
        ("sr_exporter", "127.0.0.1", None),
    ],
)
def test_over_tcp(method, address, source):
    """First the name, and only where there is none the address."""
    assert SENDERS.over_tcp(method, address) == source


def test_over_datagrams():
    """By address over UDP, and by the socket on this machine."""
    assert SENDERS.over_udp("10.0.0.6") == "by-address"
    assert SENDERS.over_udp("::ffff:10.0.0.6") == "by-address"
    assert SENDERS.over_udp("10.0.0.5") is None
    assert SENDERS.over_unix("/run/s") == "on-this-machine"
    assert SENDERS.over_unix("/run/t") is None


def test_from_whom_events_are_awaited_and_how():
    """Where there is a listener for it; polling alone brings none."""
    tcp = {("subscribed", Way.TCP), ("by-address", Way.TCP), ("by-address-6", Way.TCP)}
    udp = {("by-address", Way.UDP), ("by-address-6", Way.UDP)}
    unix = {("on-this-machine", Way.UNIX)}
    assert set(SENDERS.expected()) == tcp | udp | unix
    alone = Events(stream=STREAM, peers=EVENTS.peers)
    assert set(Senders(alone, SOURCES).expected()) == tcp
    assert set(Senders(Events(), SOURCES).expected()) == set()


def test_every_source_is_known():
    """Those that are polled, and those that only send events."""
    assert SENDERS.known == {
        "subscribed",
        "polled",
        "by-address",
        "by-address-6",
        "on-this-machine",
    }
