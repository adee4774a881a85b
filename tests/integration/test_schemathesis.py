"""Everything the OpenAPI document allows, and much that it does not, asked of a running exporter.

Schemathesis makes requests of the document, good and bad, and holds each answer against it: its
code, its content type, its headers, its body. It is a program of its own: its plugin for pytest
does not get along with warnings that are errors.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest
import yaml

from sr_exporter.config import Token
from sr_exporter.web.operations import OPERATIONS
from tests.attacks import attacked, own_address
from tests.harness import Command, eventually
from tests.receiver import Receiver
from tests.replay import ReplayMi

#: How long requests are made up, by hand longer.
SECONDS = int(os.environ.get("SCHEMATHESIS_SECONDS", "15"))
_METHODS = sorted({one.method for one in OPERATIONS if one.writes})
#: What strangers ask: some of each that writes; by hand everything, as long as others do.
STRANGERS_ASK = (
    (f"--max-time={SECONDS}", "--max-examples=15")
    if "SCHEMATHESIS_SECONDS" in os.environ
    else ("--phases=fuzzing", "--max-examples=8", *(f"--include-method={m}" for m in _METHODS))
)
RULES = Path(__file__).parents[1] / "schemathesis.toml"
SCHEMATHESIS = Path(sys.executable).with_name("schemathesis")


pytestmark = [
    pytest.mark.once,
    pytest.mark.skipif(not shutil.which(SCHEMATHESIS), reason="schemathesis is not installed"),
]


def _schemathesis(base: str, folder: Path, *more: str) -> subprocess.Popen[str]:
    """Have requests made up of an exporter's own document."""
    return subprocess.Popen(
        [
            SCHEMATHESIS, f"--config-file={RULES}", "run", f"{base}/api/v1/openapi.json",
            f"--url={base}", "--seed=1", "--continue-on-failure", "--request-timeout=10",
            "--warnings=off", *more,
        ],
        cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip


def _conforms(running: subprocess.Popen[str]) -> str:
    """Wait for its end; give what it said, which is that all was well."""
    said, _ = running.communicate(timeout=SECONDS + 80)
    assert running.returncode == 0, said
    return said


def test_every_answer_is_as_the_document_says(tmp_path):
    """Of one that polls, is pushed to, and has given up notifications; nothing fails in its log."""
    with ReplayMi("4.0") as mi, Receiver(400) as receiver:
        config = tmp_path / "config.yml"
        config.write_text(
            yaml.safe_dump(
                {
                    "sources": [{"name": "sip-1", "mi": mi.url}],
                    "notifiers": [{"name": "oncall", "webhook": {"url": receiver.url}}],
                }
            )
        )
        storage = f"--storage.path={tmp_path / 'data'}"
        with Command(storage, f"--config.file={config}") as command:
            command.wait_ready()
            command.client.push(
                {"group": "g", "status": -1, "details": "x", "reports": ["a"]},
                {"source": "a/b", "group": "c", "identifier": "d", "status": 1, "ttl": "1h"},
            )
            session, api = command.client.session, f"{command.base}/api/v1"
            eventually(lambda: session.get(f"{api}/notifications", timeout=5).json()["items"])
            eventually(lambda: session.get(f"{api}/check?source=sip-1", timeout=5).ok)
            with _schemathesis(
                command.base, tmp_path, f"--max-time={SECONDS}", "--max-examples=15"
            ) as run:
                said = _conforms(run)
            assert session.get(f"{command.base}/-/ready", timeout=5).ok
        # All but that of the document itself.
        assert f"{len(OPERATIONS) - 1} selected" in said, said
        for failed in ("Traceback", "request failed", "ASGI"):
            assert failed not in command.said, command.said


def test_a_stranger_writes_nothing(tmp_path, figure):
    """Who comes from another address, or without the token: every answer fits, nothing is kept."""
    address = own_address()
    if address is None:
        pytest.skip("this machine has no address but loopback")
    token = Token(hashlib.sha256(b"s3cret").digest())
    with (
        attacked(tmp_path / "open", host="") as far,
        attacked(tmp_path / "guarded", token, bearer="s3cret") as guarded,
    ):
        asked = {
            "from another address": (far, f"http://{address}:{far.app.port}"),
            "without a token": (guarded, guarded.app.base),
        }
        before = {who: target.settled() for who, (target, _) in asked.items()}
        # Both at once: most of the time is that of making requests up.
        with ExitStack() as stack:
            running = {
                who: stack.enter_context(_schemathesis(base, tmp_path, *STRANGERS_ASK))
                for who, (_, base) in asked.items()
            }
            for who, process in running.items():
                (made,) = re.findall(r"(\d+) generated", _conforms(process))
                figure(f"schemathesis, {who}: {made} requests, written 0")
        assert {who: target.settled() for who, (target, _) in asked.items()} == before
