"""What is known of `sr_exporter.client` before anybody is asked."""

from __future__ import annotations

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sr_exporter import client
from sr_exporter.asking import exporter_url, token_in, usable_token
from sr_exporter.client import Batch, Client, stamped
from sr_exporter.heartbeat import Heartbeat

_LOADED = """
import sys
before = set(sys.modules)
import sr_exporter.client
for name in sorted({name.split(".")[0] for name in set(sys.modules) - before}):
    module = sys.modules.get(name)
    if "site-packages" in (getattr(module, "__file__", None) or ""):
        print(name)
"""
_REQUESTS = {"requests", "urllib3", "certifi", "idna", "charset_normalizer", "chardet", "brotli"}


def test_a_program_that_publishes_needs_requests_and_nothing_else():
    """Nothing of the server is imported, and of other packages only what requests asks for."""
    run = [sys.executable, "-c", _LOADED]
    loaded = subprocess.run(run, capture_output=True, text=True, timeout=30, check=True).stdout
    assert "requests" in loaded.split()
    assert set(loaded.split()) <= _REQUESTS | {"sr_exporter"}


@pytest.mark.parametrize(
    "url",
    [
        *("", "localhost:9797", "ftp://h/", "http://", "http://h:x/", "http://h:0/"),
        *("http://h:99999", "http://u:secret@h/", "http://h/?a=b", "http://h/#a", "http://h /"),
        *("http://[::1", "http://é/", "http://h\n/"),
    ],
)
def test_what_is_no_url_of_an_exporter_is_refused_unseen(url):
    """It may hold a password."""
    with pytest.raises(ValueError, match=r"^is not http\(s\)://host\[:port\]\[/path\]$"):
        Client(url)


@pytest.mark.parametrize(
    "url", ["http://h", "https://h:1/sr/", "http://[::1]:9797", "HTTP://monitor.example:9797/"]
)
def test_urls_lose_their_last_slash(url):
    assert exporter_url(url) == url.rstrip("/")


@pytest.mark.parametrize("token", ["", " ", "two words", "a\nb", "ünï"])
def test_what_cannot_stand_in_a_header_is_no_token(token, tmp_path):
    """It is refused before anything is sent, and not shown."""
    with pytest.raises(ValueError, match=r"^must hold one token$"):
        Client("http://h", token)
    file = tmp_path / "token"
    file.write_text(token, "utf-8")
    with pytest.raises(ValueError, match=r"^/.* must hold one token$"):
        token_in(str(file))


def test_tokens_are_read_from_files(tmp_path):
    file = tmp_path / "token"
    file.write_text("s3cret\n")
    assert token_in(str(file)) == usable_token(" s3cret ") == "s3cret"
    file.write_bytes(b"\xff")
    with pytest.raises(ValueError, match="is not UTF-8"):
        token_in(str(file))
    with pytest.raises(ValueError, match="cannot be read: No such file"):
        token_in(f"{file}.not")


def test_certificates_are_looked_at_first(tmp_path):
    """A file without any is a fault of who gave it, not of a peer's."""
    file = tmp_path / "ca.pem"
    for content in ("", "nonsense", "-----BEGIN CERTIFICATE-----\nx\n-----END CERTIFICATE-----\n"):
        file.write_text(content)
        with pytest.raises(ValueError, match="holds no certificate in PEM"):
            Client("https://h", ca_file=file)
    with pytest.raises(OSError, match="No such file"):
        Client("https://h", ca_file="/nonexistent/ca.pem")


@pytest.mark.parametrize("seconds", [0, -1, float("nan")])
def test_time_outs_are_longer_than_nothing(seconds):
    with pytest.raises(ValueError, match="timeout_seconds"):
        Client("http://h", timeout_seconds=seconds)


@given(st.lists(st.text(), max_size=50))
def test_no_two_reports_are_the_same(lines):
    """Their stamps rise, so that only a repeated push repeats a report."""
    stamps = [report["timestamp"] for report in stamped(lines)]
    assert stamps == sorted(set(stamps))
    assert [report["log"] for report in stamped(lines)] == lines


def test_a_clock_that_stands_or_is_set_back_makes_no_two_reports_one(monkeypatch):
    """Machines are fast, and NTP sets clocks."""
    times = [1.8e9, 1.8e9, 1.8e9 - 3600, 1.9e9]
    monkeypatch.setattr(client, "_STAMPS", client._Stamps())
    monkeypatch.setattr(client.time, "time", iter(times).__next__)
    stamps = [report["timestamp"] for report in stamped("abcd"[n] for n in range(4))]
    assert stamps == [1.8e9, 1.8e9 + 1e-6, 1.8e9 + 2e-6, 1.9e9]


def test_one_line_is_not_taken_for_its_letters():
    with pytest.raises(TypeError, match="several lines"):
        Batch().set_status("g", 1, reports="line")


def test_what_is_said_is_what_is_pushed():
    """Only what was given is in an item; the exporter knows the defaults."""
    batch = Batch()
    batch.set_status("g", -1)
    batch.set_status("g", 1, "d", "i", source="s", ttl="90s", on_expiry="remove", at=5.0)
    batch.add_report("g", "line", "i", source="s")
    batch.set_status("g", 1, reports=["line"])
    assert batch.items[0] == {"group": "g", "identifier": "main", "status": -1}
    assert batch.items[1] == {
        "group": "g",
        "identifier": "i",
        "source": "s",
        "status": 1,
        "details": "d",
        "ttl": "90s",
        "on_expiry": "remove",
        "at": 5.0,
    }
    assert [report["log"] for report in batch.items[2].pop("reports")] == ["line"]
    assert batch.items[2] == {"group": "g", "identifier": "i", "source": "s"}
    assert [report["log"] for report in batch.items[3]["reports"]] == ["line"]


@pytest.mark.parametrize("ttl", ["90", "", "x", 0, -1, float("nan"), float("inf"), "0s"])
def test_a_heartbeat_must_know_its_time_to_live(ttl):
    """Before the block begins: nothing is raised in it."""
    with pytest.raises(ValueError, match=r"^ttl: "):
        Client("http://h").heartbeat("g", ttl)


def test_a_heartbeat_is_for_one_block():
    beat = Client("http://127.0.0.1:1", timeout_seconds=0.1).heartbeat("g", "1h")
    assert isinstance(beat, Heartbeat)
    with beat, pytest.raises(RuntimeError, match="for one block"), beat:
        pass
