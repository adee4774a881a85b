"""Notifiers and we prove to each other who we are, and nothing of that is shown anywhere."""

from __future__ import annotations

import base64
import hashlib
import hmac
import ssl
from typing import TYPE_CHECKING, Any

import pytest
import trustme
import yaml

from sr_exporter import tls
from sr_exporter.config import Alertmanager, Webhook, load
from tests.harness import RunningApp, eventually, series
from tests.receiver import Receiver

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

CA = trustme.CA()
SECRET, PASSWORD, TOKEN = "s3cret-key", "s3cret-päss", "s3cret-token"
BASIC = "Basic " + base64.b64encode(f"sr:{PASSWORD}".encode()).decode()
DOWN = {"source": "sbc", "group": "g", "identifier": "k", "status": -1}
BASIC_AUTH = {"username": "sr", "password_file": "password"}
KINDS: dict[str, Callable[[Receiver], dict[str, Any]]] = {
    "webhook": lambda receiver: {"url": receiver.url},
    "alertmanager": lambda receiver: {"urls": [receiver.base]},
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Give a folder with every secret in it."""
    (tmp_path / "key").write_text(f" {SECRET}\n")
    (tmp_path / "password").write_text(PASSWORD)
    (tmp_path / "token").write_text(f"{TOKEN}\n")
    CA.cert_pem.write_to_path(tmp_path / "ca.pem")
    return tmp_path


def configured(folder: Path, kind: str, receiver: Receiver, **said: object) -> Path:
    """Write a file with one notifier of a kind, and give its name."""
    path = folder / "sr.yml"
    notifier = {"name": "n", kind: {**KINDS[kind](receiver), **said}}
    path.write_text(yaml.safe_dump({"notifiers": [notifier]}))
    return path


def signed(raw: bytes, secret: str = SECRET) -> str:
    return "sha256=" + hmac.new(secret.encode(), raw, hashlib.sha256).hexdigest()


def over_tls() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    CA.issue_cert("127.0.0.1").configure_cert(context)
    return context


def everything_shown(app: RunningApp, log: str) -> str:
    """Give all that the exporter shows to anybody."""
    get = app.client.session.get
    paths = ("/", "/sources/sr_exporter", "/metrics", "/api/v1/sources", "/api/v1/notifications")
    return log + "".join(get(app.base + path, timeout=10).text for path in paths)


def test_a_delivery_is_signed_over_the_body_as_it_was_sent(folder):
    """Every attempt is, and without a secret none."""
    with Receiver(503, 200) as receiver:
        file = configured(folder, "webhook", receiver, secret_file="key")
        with RunningApp(folder / "data", config_file=file) as app:
            app.client.push({**DOWN, "details": "größer"})
            first, second = receiver.wait_for(2)
            for one in (first, second):
                assert one.headers["X-SR-Signature-256"] == signed(one.raw)
            assert first.delivery == second.delivery
            configured(folder, "webhook", receiver)
            app.client.reload().raise_for_status()
            app.client.push({**DOWN, "status": 1})
            assert "X-SR-Signature-256" not in receiver.wait_for(3)[-1].headers


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("said", "header"),
    [
        ({"basic_auth": BASIC_AUTH}, BASIC),
        ({"authorization": {"credentials_file": "token"}}, f"Bearer {TOKEN}"),
        (
            {"authorization": {"type": "Token", "credentials_file": "token"}},
            f"Token {TOKEN}",
        ),
        ({}, None),
    ],
)
def test_a_request_says_who_we_are(folder, kind, said, header):
    """In one Authorization header, as Prometheus' own components write it."""
    with Receiver() as receiver:
        file = configured(folder, kind, receiver, **said)
        with RunningApp(folder / "data", config_file=file) as app:
            app.client.push(DOWN)
            assert receiver.wait_for(1)[0].headers.get("Authorization") == header


@pytest.mark.parametrize("kind", KINDS)
def test_changed_credentials_are_used_at_once(folder, kind):
    """What waits for another try, here for an hour, does not wait for it."""
    with Receiver(503, headers={"Retry-After": "3600"}) as receiver:
        file = configured(folder, kind, receiver, authorization={"credentials_file": "token"})
        with RunningApp(folder / "data", config_file=file) as app:
            app.client.push(DOWN)
            refused = receiver.wait_for(1)[0]
            receiver.answer(200)
            (folder / "token").write_text("s3cret-other")
            app.client.reload().raise_for_status()
            taken = receiver.wait_for(2)[1]
            assert refused.headers["Authorization"] == f"Bearer {TOKEN}"
            assert taken.headers["Authorization"] == "Bearer s3cret-other"
            assert taken.delivery == refused.delivery


@pytest.mark.parametrize("kind", KINDS)
def test_a_reload_tries_at_once_what_waits_though_nothing_changed(folder, kind):
    """Whoever repaired a receiver waits for no backoff, here of an hour."""
    with Receiver(503, headers={"Retry-After": "3600"}) as receiver:
        file = configured(folder, kind, receiver)
        with RunningApp(folder / "data", config_file=file) as app:
            app.client.push(DOWN)
            refused = receiver.wait_for(1)[0]
            eventually(lambda: _retries(app) == 1)
            receiver.answer(200)
            app.client.reload().raise_for_status()
            assert receiver.wait_for(2)[1].delivery == refused.delivery


def _retries(app: RunningApp) -> float:
    found = app.client.metrics()
    return sum(series(found, "sr_exporter_notifications_total", result="retried").values())


@pytest.mark.parametrize("kind", KINDS)
def test_only_a_certificate_of_the_given_ca_is_trusted(folder, kind, capfd):
    """Without one that is trusted nothing is sent; the log says what to mend."""
    with Receiver(tls=over_tls()) as receiver:
        file = configured(folder, kind, receiver)
        with RunningApp(folder / "data", config_file=file) as app:
            app.client.push(DOWN)

            def stands() -> list[float]:
                found = app.client.metrics()
                labels = {"group": "notifier", "identifier": "n"}
                return list(series(found, "opensips_sr_ready", **labels).values())

            eventually(lambda: stands() == [0])
            assert receiver.received == []
            assert "TLS: the certificate is not trusted: " in capfd.readouterr().out
            configured(folder, kind, receiver, tls={"ca_file": "ca.pem"})
            app.client.reload().raise_for_status()
            assert receiver.wait_for(1)[0].raw
            eventually(lambda: stands() == [1])
            # That one, and nothing that a library brings.
            trusted = tls.context(load(file).notifiers[0].access.tls.ca)
            assert trusted.cert_store_stats()["x509_ca"] == 1
            # It goes back, too: a connection that was trusted is not used any more.
            other = trustme.CA()
            other.cert_pem.write_to_path(folder / "ca.pem")
            app.client.reload().raise_for_status()
            app.client.push({**DOWN, "status": 1})
            eventually(lambda: "not trusted" in capfd.readouterr().out)
            assert len(receiver.received) == 1


def test_without_a_ca_the_system_s_certificates_are_trusted(folder, monkeypatch):
    """And not those of a library."""
    monkeypatch.setenv("SSL_CERT_FILE", str(folder / "ca.pem"))
    tls.context.cache_clear()
    try:
        with Receiver(tls=over_tls()) as receiver:
            file = configured(folder, "webhook", receiver)
            with RunningApp(folder / "data", config_file=file) as app:
                app.client.push(DOWN)
                receiver.wait_for(1)
    finally:
        tls.context.cache_clear()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("answer", [401, 503])
def test_no_secret_is_shown(folder, kind, answer, capfd):
    """Not in logs, metrics, the API or the page, though the receiver refuses us."""
    with Receiver(answer) as receiver:
        said: dict[str, object] = {"basic_auth": BASIC_AUTH}
        if kind == "webhook":
            said["secret_file"] = "key"
        file = configured(folder, kind, receiver, **said)
        with RunningApp(folder / "data", config_file=file) as app:
            app.client.push(DOWN)
            raw = receiver.wait_for(1)[0].raw
            eventually(lambda: f"HTTP {answer}" in app.client.session.get(app.base).text)
            shown = everything_shown(app, "".join(capfd.readouterr()))
    assert f"HTTP {answer}" in shown
    for secret in (SECRET, PASSWORD, BASIC.split()[1], signed(raw), "/hook"):
        assert secret not in shown


def test_a_configuration_with_secrets_shows_none_and_tells_them_apart(folder):
    """Not even to whoever prints it; a reload sees that one has changed."""
    with Receiver() as receiver:
        for kind, of in (("webhook", Webhook), ("alertmanager", Alertmanager)):
            said: dict[str, object] = {"authorization": {"credentials_file": "token"}}
            if of is Webhook:
                said["secret_file"] = "key"
            file = configured(folder, kind, receiver, **said)
            before = load(file)
            assert isinstance(before.notifiers[0], of)
            assert "s3cret" not in repr(before)
            assert load(file) == before
            (folder / "token").write_text(f"{TOKEN}-{kind}")
            assert load(file) != before
