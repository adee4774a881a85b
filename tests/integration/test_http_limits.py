"""What is too long, too slow or too much for the HTTP server."""

from __future__ import annotations

import contextlib
import gzip
import json
import socket
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from structlog.testing import capture_logs

from sr_exporter import journal
from sr_exporter.config import Config, Limits
from sr_exporter.web import bodies, connected, writes
from tests.events import Events
from tests.harness import RunningApp, eventually

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="module")
def app(tmp_path_factory) -> Iterator[RunningApp]:
    """An exporter that is quickly out of patience."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(connected, "HEAD_SECONDS", 0.5)
        patch.setattr(connected, "BODY_SECONDS", 0.5)
        patch.setattr(connected, "ANSWER_SECONDS", 0.5)
        patch.setattr(connected, "MOMENT_SECONDS", 0.1)
        with RunningApp(tmp_path_factory.mktemp("limits")) as running:
            yield running


def connect(app: RunningApp, said: bytes = b"") -> socket.socket:
    one = socket.create_connection(("127.0.0.1", app.port), 10)
    with contextlib.suppress(ConnectionError):  # it may be refused before all is said
        one.sendall(said)
    return one


def heard(one: socket.socket) -> tuple[int, str]:
    """Read an answer after which the connection ends: its code, and its error."""
    taken = b""
    with contextlib.suppress(ConnectionResetError):
        while chunk := one.recv(65536):
            taken += chunk
    head, _, body = taken.partition(b"\r\n\r\n")
    assert b"connection: close" in head.lower(), taken
    return int(head.split()[1]), json.loads(body)["error"]


def met(app: RunningApp, limit: str) -> float:
    return app.client.metrics()["sr_exporter_limited_total", (("limit", limit),)]


LONG = b"x" * (2 * writes.MOST_HEAD_BYTES)


@pytest.mark.parametrize(
    ("said", "code", "limit"),
    [
        (b"GET /metrics?" + LONG[: writes.MOST_URL_BYTES] + b" HTTP/1.1\r\n\r\n", 414, "url_bytes"),
        (b"GET /" + LONG, 414, "url_bytes"),
        (b"GET / HTTP/1.1\r\nX-Long: " + LONG + b"\r\n\r\n", 431, "head_bytes"),
        (b"GET / HTTP/1.1\r\nX-Long: " + LONG, 431, "head_bytes"),
        (b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 20_000, 431, "head_bytes"),
        (b"\r\n" * writes.MOST_HEAD_BYTES, 431, "head_bytes"),
    ],
    ids=["url", "endless url", "header", "endless header", "many headers", "nothing"],
)
def test_a_head_that_is_too_long_is_refused(app, said, code, limit):
    """Whether it ends or not; what is said is which limit, and how much it is."""
    before = met(app, limit)
    with connect(app, said) as one:
        status, error = heard(one)
    assert status == code
    assert str(writes.MOST_URL_BYTES if code == 414 else writes.MOST_HEAD_BYTES) in error
    assert met(app, limit) == before + 1


def test_trailers_without_end_are_not_taken(app):
    """What follows the last chunk is headers, too, and httptools would gather them for ever."""
    said = b"POST /api/v1/push HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX: "
    before = met(app, "head_bytes")
    with connect(app, said + 4 * LONG) as one, contextlib.suppress(ConnectionResetError):
        assert one.recv(65536).split()[1] == b"431"
    assert met(app, "head_bytes") == before + 1


@pytest.mark.parametrize("first", [b"", b"GET /api/v1/changes HTTP/1.1\r\n%b\r\n"])
def test_requests_that_nobody_waits_for_are_few(app, first):
    """In the room of one read there are thousands; behind a live stream they wait for ever."""
    before = met(app, "pipelined")
    live = b"Accept: text/event-stream\r\n"
    said = (first % live if first else b"") + b"GET /x HTTP/1.1\r\n\r\n" * 5000
    with connect(app, said) as one, contextlib.suppress(ConnectionResetError):
        while one.recv(65536):
            pass
    assert met(app, "pipelined") == before + 1


def test_requests_one_after_the_other_are_as_many_as_they_like(app):
    """A few of them at a time, as some clients ask."""
    before = met(app, "pipelined")
    with connect(app, b"") as one:
        for _ in range(5):
            one.sendall(b"GET /-/healthy HTTP/1.1\r\n\r\n" * writes.MOST_PIPELINED)
            taken = b""
            while taken.count(b"HTTP/1.1 200") < writes.MOST_PIPELINED:
                taken += one.recv(65536)
    assert met(app, "pipelined") == before


def test_a_listener_that_asked_for_more_is_let_go_of(app):
    """Uvicorn tells the last request of a connection that it is lost, and no other."""
    listeners = app.app.journal._listeners
    for _ in range(20):
        said = b"GET /api/v1/changes HTTP/1.1\r\nAccept: text/event-stream\r\n\r\n"
        with connect(app, said + b"GET /-/healthy HTTP/1.1\r\n\r\n") as one:
            assert one.recv(65536).startswith(b"HTTP/1.1 200")
    eventually(lambda: not listeners)


def test_who_takes_nothing_keeps_no_descriptor(app, monkeypatch):
    """Though his answer is written whole: it waits in our memory, and it may be long.

    Or what is left of it is so little that nobody waits for it any more.
    """
    monkeypatch.setattr(connected, "ANSWER_SECONDS", 0.5)
    monkeypatch.setattr(connected, "REST_SECONDS", 0.5)
    monkeypatch.setattr(writes, "CLOSING_SECONDS", 0.5)
    for number in range(40):
        item = {"group": f"long-{number}", "status": 1, "details": "x" * 16_000}
        said = app.client.push(*({**item, "identifier": f"i{one}"} for one in range(25)))
        assert said.ok, said.text[:300]
    descriptors = len(list(Path("/proc/self/fd").iterdir()))
    with contextlib.ExitStack() as all_of_them:
        ours = []
        for items in (*range(1, 250, 3), *[1000] * 5):  # 48 kB more each: 64 kB may be waited for
            said = b"GET /api/v1/status?limit=%d HTTP/1.1\r\n\r\n" % items
            ours.append(all_of_them.enter_context(connect(app, said)))
        eventually(
            lambda: len(list(Path("/proc/self/fd").iterdir())) <= descriptors + len(ours), within=20
        )


def test_a_head_and_a_target_within_the_limits_are_taken(app):
    padding = b"x" * (writes.MOST_URL_BYTES - 100)
    said = b"GET /-/healthy?%b HTTP/1.1\r\nConnection: close\r\nX: %b\r\n\r\n" % (padding, padding)
    with connect(app, said) as one:
        assert one.recv(20).startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize(
    ("said", "limit"),
    [
        (b"", "head_time"),
        (b"GET /metrics HTTP/1.1\r\nX-Slow: ", "head_time"),
        (b"\r\n\r\n", "head_time"),
        (b"POST /api/v1/push HTTP/1.1\r\nContent-Length: 9\r\n\r\n[", "body_time"),
    ],
    ids=["nothing", "head", "blank lines", "body"],
)
def test_a_request_that_does_not_come_in_time_is_refused(app, said, limit):
    before = met(app, limit)
    with connect(app, said) as one:
        status, error = heard(one)
    assert status == 408
    assert "took" in error
    assert met(app, limit) == before + 1


def test_a_second_request_has_its_own_time(app):
    """And a byte a moment does not win more of it."""
    with connect(app, b"GET /-/healthy HTTP/1.1\r\n\r\n") as one:
        assert one.recv(65536).startswith(b"HTTP/1.1 200")
        time.sleep(1.0)  # longer than a head may take: it rests
        one.sendall(b"GET /-/healthy HTTP/1.1\r\n")
        deadline = time.monotonic() + 10
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            while time.monotonic() < deadline:
                one.sendall(b"X")
                one.settimeout(0.05)
                with contextlib.suppress(TimeoutError):
                    taken = one.recv(65536)
                    break
        assert taken.startswith(b"HTTP/1.1 408")


def test_a_body_that_is_refused_is_not_waited_for(app):
    """Its answer is there at once; whoever goes on dribbling is let go of all the same."""
    said = b"POST /api/v1/push HTTP/1.1\r\nContent-Length: 99999999\r\n\r\n["
    with connect(app, said) as one:
        assert one.recv(65536).split()[1] == b"413"
        with contextlib.suppress(ConnectionError):
            eventually(lambda: one.send(b"x") and one.recv(65536, socket.MSG_DONTWAIT) == b"")


def test_an_answer_that_is_not_taken_ends(app):
    """More than the kernel holds for him."""
    before = met(app, "answer_time")
    with stuck(app):
        eventually(lambda: met(app, "answer_time") == before + 1, every=0.5)


def test_of_too_many_answers_that_are_not_taken_the_oldest_end_soon(app, monkeypatch):
    """The others have their whole time."""
    monkeypatch.setattr(connected, "ANSWER_SECONDS", 60.0)
    monkeypatch.setattr(connected, "MOST_STUCK", 2)
    before = met(app, "answer_time")
    with contextlib.ExitStack() as stack:
        for _ in range(5):
            stack.enter_context(stuck(app))
        eventually(lambda: met(app, "answer_time") == before + 3, every=0.5)
        stack.enter_context(stuck(app))
        eventually(lambda: met(app, "answer_time") == before + 4, every=0.5)


@contextlib.contextmanager
def stuck(app: RunningApp) -> Iterator[socket.socket]:
    """Ask for more than the kernel holds for us, and take nothing of it."""
    items = [{"group": "long", "identifier": f"{n}", "status": 1} for n in range(1000)]
    assert app.client.push(*items).ok
    with socket.socket() as one:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        one.connect(("127.0.0.1", app.port))
        one.sendall(b"GET /metrics HTTP/1.1\r\n\r\n" * 20)
        yield one


def test_of_too_many_connections_the_idle_ones_go(tmp_path):
    """First who asked for nothing; then who rests; and where all are busy a new one is told."""
    config = Config(limits=Limits(connections=8))
    with RunningApp(tmp_path, config) as app, contextlib.ExitStack() as stack:

        def limited() -> float:
            return met(app, "connections")

        resting = [stack.enter_context(connect(app, b"GET /-/healthy HTTP/1.1\r\n\r\n"))]
        assert resting[0].recv(65536).startswith(b"HTTP/1.1 200")
        silent = [stack.enter_context(connect(app)) for _ in range(20)]
        assert limited() >= 12
        assert heard(silent[0]) == (503, "there are too many connections; try again")
        assert app.client.push({"group": "g", "status": 1}).ok
        resting[0].sendall(b"GET /-/healthy HTTP/1.1\r\n\r\n")
        assert resting[0].recv(65536).startswith(b"HTTP/1.1 200")
        # All that listen are busy.
        listening = [stack.enter_context(Events(app.base)) for _ in range(7)]
        assert [one.status for one in listening] == [200] * 7
        app.client.close()
        last = stack.enter_context(Events(app.base))
        assert last.status == 200
        with connect(app, b"GET /metrics HTTP/1.1\r\n\r\n") as one:
            assert heard(one)[0] == 503


def test_who_listens_too_many_is_told(app, monkeypatch):
    monkeypatch.setattr(journal, "MOST_LISTENERS", 1)
    with Events(app.base) as one, Events(app.base) as other:
        assert (one.status, other.status) == (200, 503)
        assert other.headers["retry-after"] == "1"
    assert met(app, "listeners") == 1


def post(app: RunningApp, path: str, body: bytes, **headers: str) -> tuple[int, str]:
    answer = app.client.session.post(f"{app.base}{path}", data=body, headers=headers, timeout=30)
    said = answer.json()["error"]
    return answer.status_code, said if isinstance(said, str) else said["message"]


@pytest.mark.parametrize("opened", [b"[", b'{"a":', b'[{"group":', b'{"group":"g","reports":['])
@pytest.mark.parametrize("depth", [3_000, 10_000])
def test_json_that_is_nested_without_end_is_refused(app, opened, depth):
    """By whichever decoder it is read, with its ends and without."""
    closed = bytes(reversed(opened)).translate(bytes.maketrans(b"[{", b"]}"), b'":,agroupets')
    for body in (opened * depth, opened * depth + b"1" + closed * depth):
        code, said = post(app, "/api/v1/push", body)
        assert code == 400, said
    json_type = {"Content-Type": "application/json"}
    code, said = post(app, "/mi", (opened * depth)[:60_000], **json_type)
    assert code in (200, 400), said


@pytest.mark.parametrize(
    ("made", "code"),
    [
        (lambda: gzip.compress(b" " * 2**27), 413),
        (lambda: gzip.compress(b" " * 2**20) * 64, 413),
        (lambda: gzip.compress(b"") * 1_000_000, 400),
        (lambda: gzip.compress(b"") * 3 + gzip.compress(b"[") + gzip.compress(b"]"), 200),
    ],
    ids=["bomb", "bombs", "members of nothing", "members"],
)
def test_gzip_bodies_are_bounded(app, figure, made, code):
    """In size, memory and time; and others are answered meanwhile."""
    body = made()
    before = app.client.metrics()["process_resident_memory_bytes", ()]
    began = time.perf_counter()
    answer = app.client.session.post(
        f"{app.base}/api/v1/push", data=body, headers={"Content-Encoding": "gzip"}, timeout=30
    )
    took = time.perf_counter() - began
    grown = app.client.metrics()["process_resident_memory_bytes", ()] - before
    figure(
        f"gzip: {len(body)} bytes answered {answer.status_code} after {took:.2f} s,"
        f" memory {grown / 2**20:+.0f} MiB"
    )
    assert answer.status_code == code, answer.text
    assert grown < 150 * 2**20


def test_who_pushes_what_is_refused_is_told_of_in_the_log(tmp_path):
    """Once in a while of each kind; and whoever deletes, or has it reload, each time."""
    with RunningApp(tmp_path) as app, capture_logs() as logs:
        gzipped = {"Content-Encoding": "gzip"}
        members = gzip.compress(b"") * (bodies.MOST_MEMBERS + 1)
        for _ in range(3):
            assert app.client.push({"group": 7}).status_code == 400
            assert post(app, "/api/v1/push", members, **gzipped)[0] == 400
        mi = {"Content-Type": "application/json"}
        assert post(app, "/mi", b" " * 70_000, **mi)[0] == 400
        said = b'{"jsonrpc":"2.0","method":"sr_set_status","params":["g",7],"id":1}'
        app.client.session.post(f"{app.base}/mi/sr_exporter", data=said, headers=mi, timeout=10)
        source = f"{app.base}/api/v1/sources"
        assert app.client.session.delete(f"{source}/sr_exporter", timeout=10).status_code == 409
        assert app.client.push({"source": "s", "group": "g", "status": 1}).ok
        assert app.client.session.delete(f"{source}/s/groups/g", timeout=10).ok
        assert met(app, "gzip_members") == 3
        assert met(app, "body_bytes") == 1
    told = [
        (one["event"], one.get("code"), one.get("limit"))
        for one in logs
        if {"client", "limit"} & one.keys()
    ]
    assert told == [
        ("push refused", 400, None),
        ("push refused: its gzip body has too many members", None, "gzip_members"),
        ("MI request refused: it is too large", None, "body_bytes"),
        ("deletion refused", 409, None),
        ("deleted", None, None),
    ]
    (refused,) = (one for one in logs if one["event"] == "push refused")
    assert (refused["client"], refused["error"]) == (
        "127.0.0.1",
        "1 item is wrong; nothing was taken (item 0: Expected `str`, got `int` - at `$.group`)",
    )
    (deleted,) = (one for one in logs if one["event"] == "deleted")
    assert (deleted["source"], deleted["group"], deleted["removed"]) == ("s", "g", 1)


def test_a_source_cannot_take_what_others_need(tmp_path):
    """Its own limit holds it, and what is held goes on; the message names both."""
    config = Config(limits=Limits(identifiers=10, identifiers_per_source=3))
    with RunningApp(tmp_path, config) as app:
        grown = [{"source": "a", "group": "g", "identifier": f"{n}", "status": 1} for n in range(5)]
        answer = app.client.push(*grown)
        assert answer.status_code == 400
        assert answer.json()["items"] == [
            {"index": n, "error": "limits.identifiers_per_source (3) is reached by source 'a'"}
            for n in (3, 4)
        ]
        assert app.client.push(*grown[:3]).ok
        assert app.client.push({**grown[0], "status": -1}).ok
        assert app.client.push({**grown[0], "source": "b"}).ok
        assert met(app, "identifiers_per_source") == 2
        assert met(app, "identifiers") == 0
