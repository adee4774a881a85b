"""`sr_exporter.client` against a real exporter, and against peers that answer as they like."""

from __future__ import annotations

import gzip
import hashlib
import socket
import ssl
import threading
import time
from typing import TYPE_CHECKING

import pytest
import trustme

from sr_exporter import asking
from sr_exporter.client import Client, ClientError, NotAllowed, NotTaken, Rejected
from sr_exporter.config import Config, Token
from tests.answering import ACCEPTED, answer, answers, loses_the_first_answer
from tests.harness import RunningApp, free_port, series
from tests.peer import many_peers, trickles

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.peer import Peer

SECRET = "s3cret-token"


@pytest.fixture(scope="module")
def app(tmp_path_factory):
    with RunningApp(tmp_path_factory.mktemp("data")) as running:
        yield running


@pytest.fixture
def client(app, request) -> Iterator[Client]:
    """Give a client whose source is the test's own."""
    with Client(app.base, source=request.node.name) as made:
        yield made


@pytest.fixture
def peers() -> Iterator[Callable[..., Peer]]:
    with many_peers() as make:
        yield make


def held(app, name, source):
    """Give the series of a family by group and identifier."""
    found = series(app.client.metrics(), name, source=source)
    return {(dict(key)["group"], dict(key)["identifier"]): value for key, value in found.items()}


def to(peer: Peer, **more) -> Client:
    return Client(f"http://127.0.0.1:{peer.port}", **more)


def bodies(peer: Peer) -> list[bytes]:
    return [request.partition(b"\r\n\r\n")[2] for request in peer.requests]


def test_statuses_and_reports_are_kept(app, client, request):
    """By the words of OpenSIPS, and as it means them."""
    source = request.node.name
    assert client.set_status("trunks", -3, "no answer", "carrier-a") == (1, 1)
    assert client.set_status("trunks", -3, "no answer", "carrier-a") == (1, 0)
    assert client.set_status("trunks", 0) == (1, 1)
    assert client.add_report("trunks", "Grüße\nzwei", "carrier-a") == (1, 0)
    assert client.add_report("new", "line") == (1, 1)
    assert client.set_status("trunks", 1, reports=["a", "a"], source="other") == (1, 1)
    assert held(app, "opensips_sr_status", source) == {
        ("trunks", "carrier-a"): -3,
        ("trunks", "main"): 1,
        ("new", "main"): 1,
    }
    reports = held(app, "opensips_sr_reports_total", source)
    assert (reports["trunks", "carrier-a"], reports["new", "main"]) == (1, 1)
    assert held(app, "opensips_sr_reports_total", "other") == {("trunks", "main"): 2}
    ((_, stamp),) = series(
        app.client.metrics(),
        "opensips_sr_last_report_timestamp_seconds",
        source=source,
        group="new",
    ).items()
    assert stamp == pytest.approx(time.time(), abs=30)


def test_a_time_to_live_and_a_time(client):
    """What the exporter says of them is the error."""
    assert client.set_status("g", 1, ttl="90s", on_expiry="remove").changed == 1
    assert client.set_status("g", -1, at=time.time() - 3600).changed == 0
    with pytest.raises(Rejected, match=r"at: .* ahead of this exporter's clock"):
        client.set_status("g", 1, at=time.time() + 3600)
    with pytest.raises(Rejected, match="on_expiry: only together with ttl"):
        client.set_status("g", 1, on_expiry="remove")


def test_a_batch_is_pushed_as_one_or_not_at_all(app, client, request):
    """400 items are one request; a block that raises pushes nothing."""
    with client.batch() as batch:
        for number in range(400):
            batch.set_status("g", 1, identifier=str(number))
            assert batch.accepted is None
        batch.add_report("g", "line", "0")
    assert batch.accepted == (401, 400)
    assert len(held(app, "opensips_sr_status", request.node.name)) == 400
    with pytest.raises(LookupError), client.batch() as batch:  # noqa: PT012 - a block is tested
        batch.set_status("other", 1)
        raise LookupError
    assert ("other", "main") not in held(app, "opensips_sr_status", request.node.name)
    with client.batch() as batch:
        pass
    assert batch.accepted is None
    assert client.push([]) == (0, 0)


def test_wrong_items_are_named_and_nothing_is_taken(app, client, request):
    """Of 400 as many as the exporter names; the text shows the first few."""
    with pytest.raises(Rejected) as caught:
        client.push([{"group": "good", "status": 1}, *[{"group": "g", "status": 2**40}] * 399])
    assert caught.value.status == 400
    assert [item.index for item in caught.value.items] == list(range(1, 101))
    assert "status" in caught.value.items[0].error
    assert "item 1: " in str(caught.value)
    assert str(caught.value).endswith("; and 95 more")
    assert held(app, "opensips_sr_status", request.node.name) == {}
    with pytest.raises(ValueError, match="not JSON compliant"):
        client.set_status("g", float("nan"))


def test_tokens_are_for_their_sources_and_groups(tmp_path):
    """401 and 403 are `NotAllowed`; no error holds the token."""
    digest = hashlib.sha256(SECRET.encode()).digest()
    config = Config(tokens=(Token(digest, sources=("sbc-*",), groups=("trunks",)),))
    with RunningApp(tmp_path, config) as app:
        for token, source, group, status in (
            (None, "sbc-1", "trunks", 401),
            ("wrong", "sbc-1", "trunks", 401),
            (SECRET, "sip-1", "trunks", 403),
            (SECRET, "sbc-1", "other", 403),
        ):
            with Client(app.base, token, source) as client, pytest.raises(NotAllowed) as caught:
                client.set_status(group, 1)
            assert caught.value.status == status
            assert "push.tokens" in str(caught.value) or "not known" in str(caught.value)
            assert SECRET not in str(caught.value)
        with Client(app.base, token=SECRET, source="sbc-1") as client:
            assert client.set_status("trunks", 1) == (1, 1)


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
def test_what_may_pass_is_tried_again(peers, status):
    """The same bytes again, on the same connection."""
    peer = peers(answers(answer(status), answer(status, b"<html>"), answer(200, ACCEPTED)))
    with to(peer) as client:
        assert client.set_status("g", 1, reports=["line"]) == (1, 1)
    assert len(peer.requests) == 3
    assert len(set(bodies(peer))) == 1
    assert peer.connections == 1


@pytest.mark.parametrize("status", [301, 307, 400, 401, 403, 404, 405, 409, 413, 415])
def test_what_stays_is_not_tried_again(peers, status):
    """Redirects are not followed."""
    said = answer(status, b'{"error": "words"}', Location="http://127.0.0.1:1/")
    peer = peers(answers(said, answer(200, ACCEPTED)))
    with to(peer) as client, pytest.raises(Rejected) as caught:
        client.set_status("g", 1)
    assert caught.value.status == status
    assert ("words" if status >= 400 else "redirects are not followed") in str(caught.value)
    assert isinstance(caught.value, NotAllowed) == (status in (401, 403))
    assert len(peer.requests) == 1


def test_an_answer_is_not_unpacked_unasked(peers):
    """A few kilobytes of zeros may be gigabytes, and nobody asked for them."""
    packed = gzip.compress(ACCEPTED)
    peer = peers(answers(answer(200, packed, Content_Encoding="gzip")))
    with to(peer) as client, pytest.raises(Rejected, match="something else than an exporter"):
        client.set_status("g", 1)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"fine",
        b"[]",
        b"{}",
        b'{"accepted": "x", "changed": 1}',
        b'{"accepted": 1e400, "changed": 1}',
    ],
)
def test_a_200_of_somebody_else_is_no_success(peers, body):
    peer = peers(answers(answer(200, body)))
    with to(peer) as client, pytest.raises(Rejected, match="something else than an exporter"):
        client.set_status("g", 1)


@pytest.mark.parametrize("status", [429, 503])
def test_retry_after_is_honoured(peers, status):
    """It is not asked again before; where that is too late, it is told at once."""
    peer = peers(answers(answer(status, Retry_After="1"), answer(200, ACCEPTED)))
    with to(peer) as client:
        began = time.monotonic()
        assert client.set_status("g", 1) == (1, 1)
        assert time.monotonic() - began >= 1
    peer = peers(answers(answer(status, b'{"error": "words"}', Retry_After="120")))
    with to(peer) as client, pytest.raises(NotTaken, match="words") as caught:
        client.set_status("g", 1)
    assert caught.value.status == status
    assert len(peer.requests) == 1


def test_connections_that_fail_are_made_again(peers, app, request):
    """A reset instead of an answer, and a connection that was closed between two calls."""
    peer = peers(answers(None, answer(200, ACCEPTED), None, answer(200, ACCEPTED)))
    with to(peer) as client:
        assert client.set_status("g", 1) == (1, 1)
        assert client.set_status("g", -1) == (1, 1)
    assert len(peer.requests) == 4
    peer = peers(loses_the_first_answer(app.port))
    with to(peer, source=request.node.name) as client:
        assert client.set_status("g", -1, reports=["line"]) == (1, 0)
    assert len(peer.requests) == 2
    assert held(app, "opensips_sr_reports_total", request.node.name) == {("g", "main"): 1}


def test_nobody_there_is_told_in_time():
    """With the words of the system, and no URL."""
    began = time.monotonic()
    client = Client(f"http://127.0.0.1:{free_port()}", timeout_seconds=0.5)
    with pytest.raises(NotTaken, match=r"^connection refused$") as caught:
        client.set_status("g", 1)
    assert 0.1 < time.monotonic() - began < 5
    assert caught.value.status is None
    assert isinstance(caught.value, ClientError)


def test_a_peer_that_never_ends_does_not_keep_the_caller(peers):
    """Neither by trickling nor by silence; the connection is closed."""
    for start, drop in ((b"HTTP/1.1 200 OK\r\nX: ", b"x"), (b"", b"")):
        peer = peers(trickles(start, drop))
        began = time.monotonic()
        with to(peer, timeout_seconds=0.6) as client, pytest.raises(NotTaken, match="no whole"):
            client.set_status("g", 1)
        assert time.monotonic() - began < 5
        if drop:  # who says nothing does not notice
            assert peer.hung_up.wait(5)


def test_one_attempt_takes_a_third_of_the_time(peers):
    """So that one lost connection does not use up all of it."""
    silent = threading.Event()

    def script(peer: Peer, connection: socket.socket) -> None:
        if silent.is_set():
            answers(answer(200, ACCEPTED))(peer, connection)
        silent.set()
        peer.wait_for_hang_up(connection)

    peer = peers(script)
    with to(peer, timeout_seconds=1.5) as client:
        assert client.set_status("g", 1) == (1, 1)
    assert peer.connections == 2


def test_over_https_the_certificate_decides(peers, tmp_path):
    """Whom the system trusts, or whom `ca_file` names, and nobody else."""
    ca = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert("127.0.0.1").configure_cert(context)
    file = tmp_path / "ca.pem"
    ca.cert_pem.write_to_path(str(file))

    def script(peer: Peer, connection: socket.socket) -> None:
        with context.wrap_socket(connection, server_side=True) as wrapped:
            answers(answer(200, ACCEPTED))(peer, wrapped)

    url = f"https://127.0.0.1:{peers(script).port}"
    with Client(url, SECRET, ca_file=file) as client:
        assert client.set_status("g", 1) == (1, 1)
    other = tmp_path / "other.pem"
    trustme.CA().cert_pem.write_to_path(str(other))
    for trusted in (None, other):
        with Client(url, SECRET, timeout_seconds=2, ca_file=trusted) as client:
            with pytest.raises(NotTaken, match="TLS: the certificate is not trusted") as caught:
                client.set_status("g", 1)
            assert SECRET not in f"{caught.value}{client!r}"


def test_an_answer_without_end_is_not_taken(peers):
    """It is bounded, by bytes too."""
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 999999999\r\n\r\n"
    peer = peers(trickles(head, bytes(2**20), every=0))
    with to(peer, timeout_seconds=20) as client, pytest.raises(NotTaken, match="longer than"):
        client.push([], timeout_seconds=3)


def test_nothing_is_taken_from_the_environment(app, monkeypatch, tmp_path):
    """No proxy, and no .netrc, whose word would stand in the place of the token."""
    netrc = tmp_path / "netrc"
    netrc.write_text("default login u password p\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    monkeypatch.delenv("no_proxy", raising=False)
    with Client(app.base) as client:
        assert client.set_status("environment", 1) == (1, 1)
    with many_peers() as make:
        peer = make(answers(answer(200, ACCEPTED)))
        with to(peer) as client:
            client.set_status("g", 1)
        assert b"Authorization" not in peer.requests[0]


def test_threads_share_a_client(app, client, request):
    """Every one of their calls is kept."""
    failures = []

    def publish(name: str) -> None:
        try:
            for number in range(20):
                assert client.set_status("g", 1, identifier=f"{name}-{number}") == (1, 1)
        except Exception as error:  # noqa: BLE001 - told below
            failures.append(error)

    threads = [threading.Thread(target=publish, args=[str(n)]) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert failures == []
    assert len(held(app, "opensips_sr_status", request.node.name)) == 160


def test_a_request_under_way_does_not_keep_another_thread_for_ever(peers):
    """Who waits for its turn has its own time-out."""
    peer = peers(trickles(b"", b""))
    with to(peer, timeout_seconds=3) as client:

        def wait() -> None:
            with pytest.raises(NotTaken):
                client.push([])

        slow = threading.Thread(target=wait)
        slow.start()
        while not peer.requests:
            time.sleep(0.005)
        began = time.monotonic()
        with pytest.raises(NotTaken, match="an earlier request"):
            client.push([], timeout_seconds=0.3)
        assert time.monotonic() - began < 0.9
        slow.join(20)
        assert not slow.is_alive()


def test_a_connection_that_rested_for_long_is_not_used(peers, monkeypatch):
    """A firewall may have forgotten it, and would swallow the request."""
    peer = peers(answers(answer(200, ACCEPTED)))
    with to(peer) as client:
        client.set_status("g", 1)
        client.set_status("g", 1)
        assert peer.connections == 1
        monkeypatch.setattr(asking, "LONGEST_REST_SECONDS", 0.0)
        client.set_status("g", 1)
        assert peer.connections == 2


def test_a_closed_client_may_be_used_again(app):
    client = Client(app.base)
    for _ in range(2):
        client.set_status("again", 1)
        client.close()
        client.close()


def test_a_name_that_is_not_resolved_in_time_is_told_in_time(monkeypatch):
    """Looking up cannot be ended; the caller goes on without it."""
    over = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: over.wait(20) and [])
    began = time.monotonic()
    client = Client("http://slow.example", timeout_seconds=0.5)
    with pytest.raises(NotTaken, match="no whole answer within"):
        client.set_status("g", 1)
    assert time.monotonic() - began < 5
    over.set()
