"""`Client.heartbeat`: a key lives as long as the work does, and no longer."""

from __future__ import annotations

import contextlib
import logging
import signal
import subprocess
import sys
import threading
import time

import pytest

from sr_exporter.client import Client
from tests.answering import ACCEPTED, answer, answers
from tests.harness import Command, RunningApp, eventually, free_port, series
from tests.peer import many_peers

#: Long enough for a loaded machine to renew in time, and short enough to wait for its end.
TTL = 1.5


@pytest.fixture(scope="module")
def app(tmp_path_factory):
    with RunningApp(tmp_path_factory.mktemp("data")) as running:
        yield running


@pytest.fixture
def client(app, request):
    with Client(app.base, source=request.node.name) as made:
        yield made


def value(app, name: str, source: str) -> float | None:
    """Give the one value of a family that a source has."""
    found = series(app.client.metrics(), name, source=source)
    assert len(found) < 2
    return next(iter(found.values()), None)


def test_a_key_is_kept_alive_and_then_expires(app, client, request):
    """Renewed for more than two lives without a change; after the block its `ttl` ends it."""
    source = request.node.name
    with client.heartbeat("job", TTL, details="at work") as beat:
        eventually(lambda: value(app, "opensips_sr_status", source) == 1)
        over = time.monotonic() + 2.5 * TTL
        while time.monotonic() < over:
            assert value(app, "opensips_sr_status", source) == 1
            time.sleep(0.05)
        assert beat.error is None
    assert value(app, "opensips_sr_status", source) == 1
    eventually(lambda: value(app, "opensips_sr_status", source) == -1)
    assert value(app, "opensips_sr_status_changes_total", source) == 1


def test_a_long_push_of_the_same_client_is_in_nobodys_way(app, client, request):
    """A heartbeat has a connection of its own."""
    source = request.node.name
    with client.heartbeat("job", "1h") as beat:
        eventually(lambda: value(app, "opensips_sr_status", source) == 1)
        with client._exporter._lock:  # as while a request is under way
            beat.set_status(7)
            eventually(lambda: value(app, "opensips_sr_status", source) == 7)


def test_what_is_said_in_between_is_said_at_once(app, client, request):
    """Not at the next renewal; what was said just before the end is said, too."""
    source = request.node.name
    with client.heartbeat("job", "1h") as beat:
        eventually(lambda: value(app, "opensips_sr_status", source) == 1)
        beat.set_status(-5, "a disk is full")
        eventually(lambda: value(app, "opensips_sr_status", source) == -5)
        beat.set_status(3)
    assert value(app, "opensips_sr_status", source) == 3


def test_the_last_word_of_finished_work_stays(app, client, request):
    """It has no `ttl`: it is still there when that would be over, in the words of the end."""
    source = request.node.name
    with client.heartbeat("job", TTL, on_expiry="remove") as beat:
        beat.finish(2, "4711 MB written")
        eventually(lambda: value(app, "opensips_sr_status", source) == 1)
    assert value(app, "opensips_sr_status", source) == 2
    time.sleep(1.5 * TTL)  # nothing happens, which is what is to be seen
    assert value(app, "opensips_sr_status", source) == 2


def test_a_block_that_just_ends_says_nothing(peer_of):
    """Nor waits for anybody; its `ttl` runs from the last renewal."""
    peer, client = peer_of(answer(200, ACCEPTED))
    with client.heartbeat("job", "1h") as beat:
        eventually(lambda: beat._taken)
    assert len(peer.requests) == 1


def test_work_that_goes_on_after_its_finish_is_not_finished(peer_of):
    """Its last word would be an old one, and stay."""
    peer, client = peer_of(answer(200, ACCEPTED))
    with client.heartbeat("job", "1h") as beat:
        beat.finish(1, "done")
        beat.set_status(-4, "not quite")
    last = peer.requests[-1]
    assert b'"status": -4' in last
    assert b'"ttl"' in last


@pytest.mark.parametrize(
    ("error", "said", "status"),
    [
        (ValueError("a secret"), None, -1),
        (KeyboardInterrupt(), None, -1),
        (SystemExit(1), None, -1),
        (SystemExit(0), None, 1),
        (SystemExit(), None, 1),
        (ValueError("a secret"), -7, -7),
        (ValueError("a secret"), 7, -1),
    ],
    ids=repr,
)
def test_an_exception_is_said_and_goes_on(peer_of, error, said, status):
    """At once, without what it says, which may be secret; unless it was said to be not ready."""
    peer, client = peer_of(answer(200, ACCEPTED))
    beating = client.heartbeat("job", "1h", details="at work")
    with pytest.raises(type(error)) as caught, beating as beat:  # noqa: PT012 - a block is tested
        eventually(lambda: peer.requests)
        if said is not None:
            beat.set_status(said, "said")
        raise error
    assert caught.value is error
    last = peer.requests[-1]
    assert b'"status": %d' % status in last
    assert b"secret" not in last
    assert (b'"ttl"' in last) == (status == 1)
    if status == -1:
        assert b'"details": "ended by %s"' % type(error).__name__.encode() in last


def test_an_exception_stands_above_a_finish(peer_of):
    """Work that was done, and then failed, is not done."""
    peer, client = peer_of(answer(200, ACCEPTED))
    with pytest.raises(ValueError), client.heartbeat("job", "1h") as beat:  # noqa: PT012 - a block
        beat.finish(1, "done")
        raise ValueError
    assert b'"ended by ValueError"' in peer.requests[-1]


@pytest.fixture
def peer_of():
    """Make a peer that answers so, and a client that speaks to it."""
    with many_peers() as make, contextlib.ExitStack() as stack:

        def made(*parts):
            peer = make(answers(*parts))
            client = Client(f"http://127.0.0.1:{peer.port}", timeout_seconds=3)
            return peer, stack.enter_context(client)

        yield made


def test_the_work_never_hears_of_failures(tmp_path, caplog):
    """An exporter that is away, and then there: it is told as soon as it can be; logged once."""
    caplog.set_level(logging.INFO, "sr_exporter.client")
    port = free_port()
    began = time.monotonic()
    address = f"http://127.0.0.1:{port}"
    with Client(address, source="s") as client, client.heartbeat("job", "3s", 4) as beat:
        assert time.monotonic() - began < 1
        eventually(lambda: beat.error)
        with Command(f"--storage.path={tmp_path}", port=port) as exporter:
            exporter.wait_ready()
            eventually(lambda: value(exporter, "opensips_sr_status", "s") == 4)
            eventually(lambda: beat.error is None)
            said = [record.getMessage() for record in caplog.records]
            assert said[0] == "job/main: not renewed: connection refused"
            assert said[-1] == "job/main: renewed again"
            # In between it may be told once that the exporter is starting.
            assert len(said) == len(set(said)) <= 3
    assert "Traceback" not in caplog.text


def test_what_is_refused_is_tried_again_for_it_may_be_mended(peer_of, caplog):
    """A token may be made good in the middle of the work."""
    refused = answer(403, b'{"error": "not for you"}')
    peer, client = peer_of(refused, refused, answer(200, ACCEPTED))
    with client.heartbeat("job", "300ms") as beat:
        eventually(lambda: "not for you" in str(beat.error))
        eventually(lambda: len(peer.requests) > 3)
        eventually(lambda: beat.error is None)
    assert caplog.text.count("not for you") == 1


def test_a_busy_exporter_is_asked_when_it_wants_to_be_and_in_time(peer_of):
    """Not every second; but what it asks for must not end a key."""
    peer, client = peer_of(answer(503, Retry_After="100"), answer(200, ACCEPTED))
    with client.heartbeat("job", "6s") as beat:
        eventually(lambda: peer.requests)
        began = time.monotonic()
        eventually(lambda: len(peer.requests) > 1)
        waited = time.monotonic() - began
        eventually(lambda: beat.error is None)
    assert 1.5 < waited < 6


def test_leaving_takes_no_longer_than_the_time_out(caplog):
    """Though nobody is there to hear the last word, which is logged."""
    client = Client(f"http://127.0.0.1:{free_port()}", timeout_seconds=0.5)
    began = time.monotonic()
    with pytest.raises(ValueError), client.heartbeat("job", "1h"):
        raise ValueError
    assert time.monotonic() - began < 5
    assert "connection refused" in caplog.text
    assert not [thread for thread in threading.enumerate() if thread.name == "heartbeat"]


def test_an_exporter_that_is_killed_and_started_again_sees_no_end(tmp_path):
    """`kill -9` under a heartbeat: the key is there again, was never away, and goes on."""
    ttl, flag = 3.0, f"--storage.path={tmp_path}"
    with Command(flag) as first:
        first.wait_ready()
        with Client(first.base, source="s") as client, client.heartbeat("job", ttl) as beat:
            eventually(lambda: value(first, "opensips_sr_status", "s") == 1)
            first.signal(signal.SIGKILL)
            first.wait()
            with Command(flag, port=first.port) as second:
                second.wait_ready()
                assert value(second, "opensips_sr_status", "s") == 1
                eventually(lambda: beat.error is None)
                over = time.monotonic() + 1.5 * ttl
                while time.monotonic() < over:
                    assert value(second, "opensips_sr_status", "s") == 1
                    time.sleep(0.05)
                assert value(second, "opensips_sr_status_changes_total", "s") == 0
                second.signal(signal.SIGTERM)
                assert second.wait() == 0


def test_a_program_that_is_killed_is_missed(app, request):
    """What a heartbeat is for: nobody has to say that the program is gone."""
    source = request.node.name
    program = (
        "import sys, time\n"
        "from sr_exporter.client import Client\n"
        f"with Client({app.base!r}, source={source!r}).heartbeat('job', 1.2):\n"
        "    print('at work', flush=True)\n"
        "    time.sleep(60)\n"
    )
    running = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE)
    try:
        eventually(lambda: value(app, "opensips_sr_status", source) == 1)
    finally:
        running.kill()
        running.communicate(timeout=10)
    eventually(lambda: value(app, "opensips_sr_status", source) == -1)
