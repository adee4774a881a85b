"""While the exporter starts it answers: that it lives, how far it is, and nothing of what it holds.

A lock that somebody else has on the store makes a start as long as it is needed: it is waited for.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import itertools
import re
import signal
import sqlite3
import sys
import threading
from typing import TYPE_CHECKING

import pytest
import requests

from sr_exporter.progress import AT_ONCE, Progress
from sr_exporter.web.starting import Starting
from tests.harness import Command, RunningApp, eventually, series
from tests.stores import FILE

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


#: Has a command wait for the store as long as it takes: a busy machine answers slowly.
_PATIENTLY = """
import sys
from sr_exporter import cli
from sr_exporter.store import examine
examine.BUSY_SECONDS = 60.0
sys.argv[:] = ["sr-exporter", *sys.argv[4:]]
cli.main()
"""
PATIENT = (sys.executable, "-c", _PATIENTLY)


@pytest.fixture
def kept(tmp_path) -> Path:
    """A store that holds a key."""
    with RunningApp(tmp_path) as app:
        assert app.client.push({"group": "trunks", "status": -1}).status_code == 200
    return tmp_path


@contextlib.contextmanager
def held_up(folder: Path) -> Iterator[None]:
    """Have a start wait for the store."""
    with contextlib.closing(sqlite3.connect(folder / FILE, isolation_level=None)) as other:
        other.execute("PRAGMA locking_mode=EXCLUSIVE")
        other.execute("BEGIN EXCLUSIVE")
        yield


def wait_answers(running: Command) -> None:
    def answers() -> bool:
        with contextlib.suppress(requests.ConnectionError):
            return running.client.session.get(f"{running.base}/-/healthy", timeout=5).ok
        return False

    eventually(answers)


class Asking(threading.Thread):
    """Asks without pause, each time by a new connection; every failure to connect is noted."""

    def __init__(self, base: str) -> None:
        super().__init__()
        self._url = f"{base}/-/ready"
        self.codes: list[int] = []
        self.failures: list[Exception] = []

    def run(self) -> None:
        while 200 not in self.codes and not self.failures:
            try:
                self.codes.append(requests.get(self._url, timeout=5).status_code)
            except requests.RequestException as error:
                self.failures.append(error)


def test_nothing_is_shown_or_taken_before_everything_is_there(kept):
    """And nobody is refused a connection, nor loses one, when it is."""
    with Command(f"--storage.path={kept}", prefix=PATIENT) as running:
        get = running.client.session.get
        with held_up(kept):
            wait_answers(running)
            assert get(f"{running.base}/-/healthy").text == "sr-exporter is healthy.\n"
            ready = get(f"{running.base}/-/ready")
            assert ready.status_code == 503
            assert ready.text == "sr-exporter is starting: restoring what was kept.\n"
            for path in ("metrics", "api/v1/sources", "api/v2/alerts", "no/such"):
                answer = get(f"{running.base}/{path}")
                assert answer.status_code == 503
                assert int(answer.headers["Retry-After"]) > 0
                assert answer.json()["error"].startswith("sr-exporter is starting")
            refused = running.client.push({"group": "trunks", "status": 1, "details": "x" * 99_999})
            assert (refused.status_code, refused.headers["Retry-After"]) == (503, "5")
            assert running.client.reload().status_code == 503
            asking = Asking(running.base)
            asking.start()
        running.wait_ready()
        asking.join(10)
        assert not asking.failures
        assert set(asking.codes) <= {200, 503}
        held = series(running.client.metrics(), "opensips_sr_status", group="trunks")
        assert list(held.values()) == [-1]
        running.signal(signal.SIGTERM)
        assert running.wait() == 0
    assert [re.findall(r"msg=(\w+)", line)[0] for line in running.output] == ["started", "stopped"]


@pytest.mark.parametrize(
    ("path", "accept"), [("/", "*/*"), ("/sources/sip-1?group=core", "text/html,*/*;q=0.8")]
)
def test_a_person_sees_how_far_it_is(kept, path, accept):
    """The page looks again by itself, under a policy that its style passes."""
    with Command(f"--storage.path={kept}", prefix=PATIENT) as running, held_up(kept):
        wait_answers(running)
        page = running.client.session.get(running.base + path, headers={"Accept": accept})
    assert page.status_code == 503
    assert page.headers["Content-Type"] == "text/html; charset=utf-8"
    assert "restoring what was kept" in page.text
    assert '<meta http-equiv="refresh" content="2">' in page.text
    assert "<progress" not in page.text
    (style,) = re.findall(r"<style>(.*?)</style>", page.text, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert f"style-src 'sha256-{digest}'" in page.headers["Content-Security-Policy"]


def test_a_reload_that_is_asked_for_while_it_starts_follows(kept, tmp_path):
    """By a signal: nobody need wait for it to be ready."""
    config = tmp_path / "sr.yml"
    config.write_text("{}")
    arguments = (f"--config.file={config}", f"--storage.path={kept}")
    with Command(*arguments, prefix=PATIENT) as running:
        with held_up(kept):
            wait_answers(running)
            running.signal(signal.SIGHUP)
        running.wait_ready()
        eventually(lambda: "configuration reloaded" in running.said)


def answer(application: Starting, path: str) -> tuple[int, str]:
    """Ask it as a server would; give the status and the body."""
    sent: list[dict[str, object]] = []

    async def send(message: dict[str, object]) -> None:
        sent.append(message)

    async def receive() -> dict[str, object]:
        return {"type": "http.request", "body": b"", "more_body": False}

    scope = {"type": "http", "method": "GET", "path": path, "headers": []}
    asyncio.run(application(scope, receive, send))
    return sent[0]["status"], b"".join(part.get("body", b"") for part in sent[1:]).decode()


def test_how_many_are_restored_is_counted():
    """On the page, with a bar, and for those who ask whether it is ready."""
    progress = Progress()
    starting = Starting(progress)
    things = progress.watched(range(1_000_000), "identifiers", lambda: 1_000_000)
    done = 146 * AT_ONCE
    next(itertools.islice(things, done, None))
    said = f"restoring {done:,} of 1,000,000 identifiers"
    assert said == "restoring 299,008 of 1,000,000 identifiers"
    assert answer(starting, "/-/ready") == (503, f"sr-exporter is starting: {said}.\n")
    status, page = answer(starting, "/")
    assert status == 503
    assert said in page
    assert f'max="1000000" value="{done}"' in page
    assert said in answer(starting, "/metrics")[1]
