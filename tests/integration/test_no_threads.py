"""Out of threads, and back: everything is answered, nothing is lost, doubled or out of order."""

from __future__ import annotations

import gzip
import json
import random
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import requests

from sr_exporter.threads import NONE_LEFT
from sr_exporter.web import bodies
from tests.harness import RunningApp, eventually
from tests.receiver import Receiver

#: What the exporter names the threads that it starts while it runs.
OWN = ("names", "reload", "asyncio_")


@pytest.fixture
def none_left(monkeypatch):
    """Have none of the exporter's threads start, as long as the event that is given is set."""
    out, start = threading.Event(), threading.Thread.start

    def begin(thread: threading.Thread) -> None:
        if out.is_set() and thread.name.startswith(OWN):
            out.refused += 1
            raise RuntimeError(NONE_LEFT)
        start(thread)

    out.refused = 0
    monkeypatch.setattr(threading.Thread, "start", begin)
    return out


def test_without_a_thread_the_exporter_goes_on_and_tells_all_of_it_later(
    tmp_path, none_left, figure
):
    """Pushes, large ones and small ones, and scrapes; what is owed waits, and goes in its order."""
    config = tmp_path / "sr.yml"
    with Receiver() as hook, Receiver() as board:
        config.write_text(
            "notifiers:\n"
            # Its name must be looked up, which takes a thread.
            f"- {{name: hook, webhook: {{url: 'http://localhost:{hook.port}/hook'}}}}\n"
            f"- {{name: board, alertmanager: {{urls: ['{board.base}']}}}}\n"
        )
        with RunningApp(tmp_path / "data", config_file=config) as app:
            none_left.set()
            key = {"source": "crowd", "group": "g", "identifier": "k"}
            codes = [app.client.push({**key, "status": -1}).status_code]
            noise = random.Random(1)
            many = [
                {"group": "g", "identifier": f"i{n}", "status": 1, "details": noise.random().hex()}
                for n in range(2000)
            ]
            answer = app.client.session.post(
                f"{app.base}/api/v1/push",
                data=gzip.compress(json.dumps(many).encode()),
                headers={"Content-Encoding": "gzip"},
                timeout=20,
            )
            codes.append(answer.status_code)
            codes.append(app.client.push({**key, "status": 1}).status_code)
            reloaded = app.client.reload()
            eventually(lambda: none_left.refused >= 3)
            board.wait_for(1)  # who is called by a number needs no thread
            found = app.client.metrics()
            refused = none_left.refused
            assert "no thread can be had" in reloaded.text
            assert hook.received == []
            none_left.clear()
            told = eventually(lambda: of_key(hook, 2), within=20)
            assert app.client.reload().ok
            assert app.client.push({**key, "status": 2}).ok
            assert eventually(lambda: of_key(hook, 3))[2] == "resolved"
    figure(
        f"out of threads: {refused} refused; pushes answered {codes}, scraped {len(found)} samples;"
        f" then told {told}, each once"
    )
    assert codes == [200, 200, 200]
    assert told == ["firing", "resolved"]


def test_what_found_no_thread_is_done_once(tmp_path, none_left, monkeypatch):
    """Here and now, and not once more as soon as there is a thread again."""
    done: list[bytes] = []
    first_began, first_may_end = threading.Event(), threading.Event()
    unzip = bodies._unzip

    def unzipped(body: bytes, limit: int) -> bytes:
        done.append(body)
        if len(done) == 1:  # it has the thread that is there
            first_began.set()
            assert first_may_end.wait(20)
        return unzip(body, limit)

    monkeypatch.setattr(bodies, "_unzip", unzipped)
    noise = random.Random(2)
    large = [gzip.compress(noise.randbytes(5000).hex().encode()) for _ in range(3)]
    with RunningApp(tmp_path) as app, ThreadPoolExecutor() as others:

        def push(body: bytes) -> int:
            said = {"url": f"{app.base}/api/v1/push", "headers": {"Content-Encoding": "gzip"}}
            return requests.post(**said, data=body, timeout=20).status_code

        answers = [others.submit(push, large[0])]
        assert first_began.wait(20)
        none_left.set()
        assert push(large[1]) == 400
        assert none_left.refused
        none_left.clear()
        assert push(large[2]) == 400
        first_may_end.set()
        assert answers[0].result(20) == 400
    assert done == large


def of_key(hook: Receiver, count: int) -> list[str]:
    """Give what was told of the key in its order, once there is so much; and no more than that."""
    told = [received.status for received in hook.received if received.identifier == "k"]
    assert len(told) <= count
    return told if len(told) == count else []
