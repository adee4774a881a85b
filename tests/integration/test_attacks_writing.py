"""Who may not write, and tries: every request that alters something, from every kind of stranger.

What is told here is in docs/security.md too.
"""

from __future__ import annotations

import base64
import hashlib
import socket
from typing import TYPE_CHECKING

import pytest

from sr_exporter.config import Token
from sr_exporter.web.operations import OPERATIONS
from tests.attacks import GROUP, SOURCE, Ask, attacked, own_address, with_body

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.attacks import Attacked, Headers

pytestmark = pytest.mark.once

PUSH = Ask("POST", "/api/v1/push", b"[]")
#: What makes a request one that is not of this machine, however it comes to a loopback address.
STRANGERS: dict[str, Headers] = {
    **{
        f"forwarded: {name}": ((name, said),)
        for name, said in (
            ("X-Forwarded-For", "127.0.0.1"),
            ("x-FORWARDED-for", "::1, 127.0.0.1"),
            ("X-Forwarded-For", ""),
            ("X-Forwarded", "for=127.0.0.1"),
            ("X-Forwarded-Host", "localhost"),
            ("X-Forwarded-Proto", "http"),
            ("Forwarded", "for=127.0.0.1;host=localhost"),
            ("X-Real-IP", "127.0.0.1"),
            ("Via", "1.1 proxy"),
            ("CF-Connecting-IP", "127.0.0.1"),
            ("True-Client-IP", "127.0.0.1"),
            ("X-Envoy-External-Address", "127.0.0.1"),
        )
    },
    **{
        f"of a foreign page: {origin}": (("Origin", origin),)
        for origin in (
            "http://evil.example",
            "http://evil.example:{port}",
            "null",
            "",
            "http://127.0.0.1",
            "http://127.0.0.1:1",
            "http://localhost:{port}",  # another origin than the 127.0.0.1 that was asked
            "http://127.0.0.1:{port}.evil.example",
            "http://evil.example@127.0.0.1:{port}",
            "http://[::1",
            "file://",
        )
    },
    **{
        f"Sec-Fetch-Site: {site}": (("Sec-Fetch-Site", site),)
        for site in ("cross-site", "same-site", "Cross-Site")
    },
    **{
        f"rebound: {host}": (("Host", host),)
        for host in (
            "evil.example",
            "evil.example:{port}",
            "evil.example.:{port}",
            "127.0.0.1.evil.example:{port}",
            "localhost.evil.example",
            "evil.example:{port}@localhost",
            "evil-localhost.example",
            "192.0.2.7:{port}",
            "[2001:db8::1]:{port}",
        )
    },
    "rebound, and of its own page": (
        ("Host", "evil.example:{port}"),
        ("Origin", "http://evil.example:{port}"),
        ("Sec-Fetch-Site", "same-origin"),
    ),
    "of its own page by another name": (
        ("Host", "sr:{port}"),
        ("Origin", "http://sr:{port}"),
    ),
    "two origins": (("Origin", "http://evil.example"), ("Origin", "http://127.0.0.1:{port}")),
}
FRIENDS: dict[str, Headers] = {
    "plainly": (),
    **{
        f"as {host}": (("Host", host),)
        for host in (
            *("localhost:{port}", "LOCALHOST", "localhost.:{port}", "sr.localhost:{port}"),
            *("127.0.0.1", "127.8.8.8:{port}", "[::1]:{port}", "0.0.0.0:{port}", "[::]:{port}"),
            *("x", socket.gethostname()),
        )
    },
    "of our own page": (("Origin", "http://127.0.0.1:{port}"), ("Sec-Fetch-Site", "same-origin")),
    "of our own page, by name": (
        ("Host", "localhost:{port}"),
        ("Origin", "http://localhost:{port}"),
    ),
    "typed into a browser": (("Sec-Fetch-Site", "none"),),
    "without a Host": (("Host", "-"),),
}


@pytest.fixture(scope="module")
def closed(tmp_path_factory) -> Iterator[Attacked]:
    """Give one without tokens, that listens everywhere."""
    with attacked(tmp_path_factory.mktemp("closed"), host="") as running:
        yield running


def refused(target: Attacked, headers: Headers, *codes: int, address: str = "127.0.0.1") -> int:
    """Try all that alters something, in vain; give how many requests that were."""
    asks = target.all_writes()
    for ask in asks:
        answer = target.ask(ask, headers, address)
        assert answer.status in codes, (ask, answer)
        if answer.status == 403:
            assert "push.tokens" in answer.json["error"], answer
        if answer.status == 401:
            assert answer.headers["www-authenticate"] == "Bearer"
    return len(asks)


def test_every_operation_that_writes_is_tried(closed):
    """A new one needs a request here that would alter something."""
    assert set(closed.writes()) == {one.id for one in OPERATIONS if one.writes}
    assert all(one.method == "GET" for one in OPERATIONS if not one.writes)


def test_no_stranger_writes(closed, figure):
    """Without tokens: 403 that names the setting, and nothing is written."""
    before = closed.settled()
    tried = sum(refused(closed, headers, 403) for headers in STRANGERS.values())
    assert closed.settled() == before
    figure(f"loopback, {len(STRANGERS)} kinds of stranger: {tried} requests, all 403, written 0")


def test_nobody_writes_from_another_address(closed, figure):
    """Whatever he says of himself."""
    address = own_address()
    if address is None:
        pytest.skip("this machine has no address but loopback")
    before = closed.settled()
    tried = sum(refused(closed, said, 403, address=address) for said in FRIENDS.values())
    assert closed.settled() == before
    figure(f"another address: {tried} requests, all 403, written 0")


@pytest.mark.parametrize("who", FRIENDS)
def test_this_machine_writes(closed, who):
    """By any of its names."""
    assert closed.ask(PUSH, FRIENDS[who]).status == 200


def test_an_old_client_without_a_host_writes(closed):
    """HTTP/1.0 has none, and no browser speaks it."""
    old = Ask("POST", "/api/v1/push", b"[]", (("Host", "-"),), "HTTP/1.0")
    assert closed.ask(old).status == 200


def test_a_proxy_that_says_nothing_writes_nothing(closed):
    """nginx, as it comes: HTTP/1.0, our own address for a Host, and nothing of whom it asks for."""
    old = Ask("POST", "/api/v1/push", b"[]", (), "HTTP/1.0")
    assert closed.ask(old).status == 403


def test_what_is_tried_would_write(tmp_path):
    """Each of the requests is granted where it may be, and alters something."""
    with attacked(tmp_path) as target:
        order = ("push", "mi", "mi_source", "retry", "reload_by_post", "reload_by_put",
                 "forget_identifier", "forget_group", "forget")  # fmt: skip
        assert set(order) == set(target.writes())
        for name in order:
            for ask in target.writes()[name]:
                if name.startswith("forget"):
                    target.ask(target.writes()["push"][0])
                before = target.settled()
                answer = target.ask(ask)
                assert answer.status in (200, 202), (ask, answer)
                assert target.kept() != before, ask


# --- tokens -------------------------------------------------------------------------------------

ALL, SCOPED, SPENT = "for-everything", "for-some", "for-everything-until-it-was-rotated"


def _token(text: str, sources: str = "*", groups: str = "*") -> Token:
    return Token(hashlib.sha256(text.encode()).digest(), (sources,), (groups,))


@pytest.fixture(scope="module")
def guarded(tmp_path_factory) -> Iterator[Attacked]:
    """Give one with tokens, one of which was good until a reload."""
    tokens = (_token(ALL), _token(SCOPED, "sbc-*", "trunks"))
    folder = tmp_path_factory.mktemp("guarded")
    with attacked(folder, *tokens, _token(SPENT), bearer=ALL) as running:
        spent = (("Authorization", f"Bearer {SPENT}"),)
        assert running.ask(PUSH, spent).status == 200
        running.rotate(*tokens)
        yield running


def _authorization(said: str) -> Headers:
    return (("Authorization", said),)


NOBODIES: dict[str, Headers] = {
    "no token": (),
    "loopback, and its own page": FRIENDS["of our own page"],
    "a wrong one": _authorization("Bearer wrong"),
    "an empty one": _authorization("Bearer "),
    "one that was rotated by a reload": _authorization(f"Bearer {SPENT}"),
    "a part": _authorization(f"Bearer {ALL[:-1]}"),
    "more": _authorization(f"Bearer {ALL}x"),
    "another case": _authorization(f"Bearer {ALL.upper()}"),
    "its hash": _authorization(f"Bearer {hashlib.sha256(ALL.encode()).hexdigest()}"),
    "as Basic": _authorization("Basic " + base64.b64encode(f"{ALL}:{ALL}".encode()).decode()),
    "bare": _authorization(ALL),
    "of another scheme": _authorization(f"Token {ALL}"),
    "among others": _authorization(f"Bearer {ALL}, Bearer wrong"),
    "behind a wrong one": (*_authorization("Bearer wrong"), *_authorization(f"Bearer {ALL}")),
    "as a cookie": (("Cookie", f"Authorization=Bearer {ALL}; token={ALL}"),),
    "by other headers": (("X-Auth-Token", ALL), ("Proxy-Authorization", f"Bearer {ALL}")),
    "no ASCII": _authorization("Bearer \xff\xfe"),
}


def test_without_a_known_token_nobody_writes(guarded, figure):
    """401, on loopback too, and nothing is written."""
    before = guarded.settled()
    tried = sum(refused(guarded, headers, 401) for headers in NOBODIES.values())
    for query in (f"?token={ALL}", f"?access_token={ALL}"):
        assert guarded.ask(Ask("POST", f"/api/v1/push{query}", b"[]")).status == 401
    assert guarded.settled() == before
    figure(f"{len(NOBODIES)} kinds of no token: {tried} requests, all 401, written 0")


GOOD = {"source": SOURCE, "group": GROUP, "status": -7}
#: Of the token for groups `trunks` of sources `sbc-*`: what it is not for.
BEYOND: dict[str, Ask] = {
    "a source": with_body(PUSH, {**GOOD, "source": "edge-1"}),
    "a source in another case": with_body(PUSH, {**GOOD, "source": "SBC-1"}),
    "a source that looks alike": with_body(PUSH, {**GOOD, "source": "ѕbc-1"}),  # noqa: RUF001
    "a source with a line before": with_body(PUSH, {**GOOD, "source": "x\nsbc-1"}),
    "the default source": with_body(PUSH, {"group": GROUP, "status": -7}),
    "the exporter itself": with_body(PUSH, {**GOOD, "source": "sr_exporter"}),
    "a group": with_body(PUSH, {**GOOD, "group": "hosts"}),
    "a group that looks alike": with_body(PUSH, {**GOOD, "group": "trun\u212as"}),
    "a group with more": with_body(PUSH, {**GOOD, "group": "trunks\n"}),
    "a group with a NUL": with_body(PUSH, {**GOOD, "group": "trunks\0"}),
    "a group that is a glob": with_body(PUSH, {**GOOD, "group": "*"}),
    "the last of a batch": with_body(PUSH, [GOOD, GOOD, {**GOOD, "group": "hosts"}]),
    "the first of a batch": with_body(PUSH, [{**GOOD, "source": "edge-1"}, GOOD]),
    "a line of many": Ask("POST", "/api/v1/push?source=sbc-1",
                          b'{"group":"trunks","status":-7}\n{"group":"hosts","status":1}'),
    "a far item of a long batch": with_body(
        PUSH, [*({**GOOD, "identifier": f"i{n}"} for n in range(4000)), {**GOOD, "group": "x"}]
    ),
    "a source that comes twice": Ask(
        "POST", "/api/v1/push", b'{"source":"sbc-1","group":"trunks","status":1,"source":"edge"}'
    ),
    "the source of the query": with_body(
        Ask("POST", "/api/v1/push?source=edge-1"), {"group": GROUP, "status": -7}
    ),
    "the source of the query, written otherwise": with_body(
        Ask("POST", "/api/v1/push?source=%65dge-1"), {"group": GROUP, "status": -7}
    ),
    "the group of an event": with_body(
        Ask("POST", "/api/v1/push?source=sbc-1"),
        {"jsonrpc": "2.0", "method": "E_CORE_SR_STATUS_CHANGED",
         "params": {"group": "hosts", "identifier": "a", "status": -7, "old_status": 1}},
    ),
    "the source of an event": with_body(
        Ask("POST", "/api/v1/push?source=edge-1"),
        {"jsonrpc": "2.0", "method": "E_CORE_SR_STATUS_CHANGED",
         "params": {"group": GROUP, "identifier": "a", "status": -7, "old_status": 1}},
    ),
    "a whole source": Ask("DELETE", "/api/v1/sources/sbc-1"),
    "a group of another source": Ask("DELETE", "/api/v1/sources/edge-1/groups/trunks"),
    "a source with a slash": Ask("DELETE", "/api/v1/sources/edge%2Fsbc-1/groups/trunks"),
    "another group": Ask("DELETE", "/api/v1/sources/sbc-1/groups/hosts"),
    "another group by way of one": Ask(
        "DELETE", "/api/v1/sources/sbc-1/groups/trunks%2F..%2Fhosts/identifiers/a"
    ),
    "a reload": Ask("POST", "/-/reload"),
    "another reload": Ask("PUT", "/-/reload"),
    "a retry": Ask("POST", "/api/v1/notifications/x/retry"),
    **{
        f"MI {target} {group}": with_body(
            Ask("POST", target, headers=(("Content-Type", "application/json"),)),
            {"jsonrpc": "2.0", "id": 1, "method": "sr_set_status",
             "params": {"group": group, "status": -7}},
        )
        for target, group in (("/mi", GROUP), ("/mi/edge-1", GROUP), ("/mi/sbc-1", "hosts"),
                              ("/mi/edge%2Fsbc-1", GROUP))
    },
}  # fmt: skip


def test_a_token_writes_nothing_beyond_its_scope(guarded, figure):
    """403 that names the setting; of a batch nothing is written, either."""
    before = guarded.settled()
    scoped = _authorization(f"Bearer {SCOPED}")
    for what, ask in BEYOND.items():
        answer = guarded.ask(ask, scoped)
        assert answer.status == 403, (what, answer)
        assert "push.tokens" in answer.json["error"]
        assert SCOPED.encode() not in answer.body
    assert guarded.settled() == before
    for group in (GROUP, "trunks", "TRUNKS"):
        assert guarded.ask(with_body(PUSH, {**GOOD, "group": group}), scoped).status == 200
    figure(f"a token, {len(BEYOND)} things beyond its scope: all 403, written 0")


def test_tokens_are_rotated_by_a_reload(tmp_path):
    """From then on the new one is good, and the old one is not; none at all opens loopback."""
    with attacked(tmp_path, _token("old"), bearer="old") as target:
        for good, bad in (("new", "old"), ("newer", "new")):
            target.rotate(_token(good))
            target.credentials = {"Authorization": f"Bearer {good}"}
            assert target.ask(PUSH, _authorization(f"Bearer {good}")).status == 200
            assert target.ask(PUSH, _authorization(f"Bearer {bad}")).status == 401
        target.rotate()
        assert target.ask(PUSH).status == 200
        assert target.ask(PUSH, STRANGERS["rebound: evil.example"]).status == 403
