"""The exporter behind TLS, users, headers and a rate limit, by a file that is written anew."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import re
import socket
import ssl
import subprocess
import sys

import bcrypt
import pytest
import requests
from structlog.testing import capture_logs

from sr_exporter import check_command, notifications_command, push_command
from sr_exporter.client import Client
from sr_exporter.config import Config, Token
from tests.harness import Command, RunningApp, eventually, series
from tests.prometheus import Prometheus
from tests.web_config import (
    ALICE,
    CA,
    OTHER_CA,
    PASSWORD,
    authority,
    write_identity,
)

TLS = "tls_server_config: {cert_file: server.pem, key_file: server.key}\n"
USERS = f"basic_auth_users: {{alice: {ALICE}}}\n"
USER = ("alice", PASSWORD)
REFUSED = "sr_exporter_web_requests_refused_total"
ITEM = {"group": "trunks", "status": 1}


def token(name, **scope):
    """Give a token of `push.tokens`, whose text is its name."""
    return Token(hashlib.sha256(name.encode()).digest(), **scope)


TOKENS = Config(tokens=(token("whole"), token("some", sources=("sbc-*",), groups=("trunks",))))


@contextlib.contextmanager
def serving(folder, text, config=None):
    """Run the exporter by a web configuration; gives it, and the file."""
    write_identity(folder)
    path = folder / "web.yml"
    path.write_text(text)
    with RunningApp(folder / "data", config or Config(), web_config=path) as app:
        app.client.session.verify = str(folder / "ca.pem")
        yield app, path


def bearer(name):
    return {"Authorization": f"Bearer {name}"}


# --- users ---------------------------------------------------------------------------------

ROUTES = [
    *("/", "/metrics", "/-/healthy", "/-/ready", "/static/page.js", "/runbooks", "/no/such"),
    *(
        "/api/v1/status",
        "/api/v1/changes",
        "/api/v1/check",
        "/api/v2/alerts",
        "/api/v1/openapi.json",
    ),
    *("/sources/push", "/ready/push", "/mi", "/api/v1/push", "/api/v1/sources"),
]


def test_users_guard_every_route(tmp_path, figure):
    """Nobody else is answered, over TLS, on any route, with any method."""
    with serving(tmp_path, TLS + USERS, TOKENS) as (app, _):
        session, answers = app.client.session, set()
        for path in ROUTES:
            for method in ("GET", "POST", "DELETE"):
                for auth in (None, ("alice", "x"), ("bob", PASSWORD)):
                    answer = session.request(method, app.base + path, auth=auth, timeout=10)
                    answers.add((answer.status_code, answer.headers["WWW-Authenticate"]))
        assert answers == {(401, "Basic")}
        assert session.get(app.base + "/metrics", headers=bearer("none")).status_code == 401
        stream = {"Accept": "text/event-stream"}
        assert session.get(app.base + "/api/v1/changes", headers=stream).status_code == 401

        session.auth = USER
        assert session.get(app.base + "/-/healthy").status_code == 200
        assert "sr-exporter" in session.get(app.base + "/").text
        assert app.client.push(ITEM).json() == {"accepted": 1, "changed": 1}
        assert app.client.reload().status_code == 200
        call = {"jsonrpc": "2.0", "id": 1, "method": "sr_set_status", "params": ["g", -1]}
        assert session.post(app.base + "/mi", json=call).json()["result"] == "OK"
        with session.get(app.base + "/api/v1/changes", headers=stream, stream=True) as told:
            assert told.headers["Content-Type"].startswith("text/event-stream")
        assert app.client.delete("push").status_code == 200
        refused = app.client.metrics()[REFUSED, (("reason", "credentials"),)]
        figure(f"{len(ROUTES)} routes, {refused:.0f} requests of strangers: {answers}")


def test_a_token_opens_what_it_is_for(tmp_path):
    """Pushes of its sources and groups, and checks of them; one for all opens everything."""
    with serving(tmp_path, USERS, TOKENS) as (app, _):
        session = app.client.session
        push = {**ITEM, "source": "sbc-1"}
        assert app.client.push(push, **bearer("some")).status_code == 200
        for said in ({**push, "source": "other"}, {**push, "group": "other"}, ITEM):
            assert app.client.push(said, **bearer("some")).status_code == 403

        def get(path, name):
            return session.get(app.base + path, headers=bearer(name), timeout=10).status_code

        check = "/api/v1/check?source={}&group={}".format
        assert get(check("sbc-1", "trunks"), "some") == 200
        assert get("/ready/sbc-1/trunks", "some") == 200
        for path in (check("sbc-1", "other"), check("x", "trunks"), "/ready/sbc-1", "/ready/x"):
            assert get(path, "some") == 403
        for path in ("/", "/metrics", "/api/v1/status", "/api/v1/notifications", "/mi%2f/../"):
            assert get(path, "some") in (403, 404, 405)
        assert get("/metrics", "some") == 403
        assert get("/metrics", "whole") == 200
        assert get("/api/v1/status", "whole") == 200
        call = {"jsonrpc": "2.0", "id": 1, "method": "sr_list_status"}
        for name, code in (("some", 403), ("whole", 200)):
            answer = session.post(app.base + "/mi/sbc-1", json=call, headers=bearer(name))
            assert answer.status_code == code
        assert app.client.reload(**bearer("some")).status_code == 403
        assert app.client.reload(**bearer("whole")).status_code == 200


def test_a_password_that_a_browser_knows_writes_nothing_for_a_foreign_page(tmp_path, figure):
    """Of a page of another origin every write is refused; of a page of ours it is not."""
    with serving(tmp_path, USERS) as (app, _):
        app.client.session.auth = USER
        own = app.base
        foreign = [
            {"Origin": "https://evil.example"},
            {"Origin": "null"},
            {"Origin": own + "0"},
            {"Sec-Fetch-Site": "cross-site"},
            {"Origin": own, "Sec-Fetch-Site": "same-site"},
        ]
        answers = [app.client.push(ITEM, **headers).status_code for headers in foreign]
        assert answers == [403] * len(foreign)
        assert app.client.push(ITEM, Origin=own).status_code == 200
        figure(f"writes of foreign pages by a browser with a password: {answers}")


def test_a_change_is_in_force_at_the_next_request(tmp_path):
    """Users, headers and limits, on a connection that is open already; bad ones are not taken."""
    with serving(tmp_path, TLS + USERS) as (app, path):
        session = app.client.session
        session.auth = USER
        assert session.get(app.base + "/-/healthy").status_code == 200

        bob = bcrypt.hashpw(b"of bob", bcrypt.gensalt(4)).decode()
        headers = "http_server_config: {headers: {X-Frame-Options: deny}}\n"
        path.write_text(f"{TLS}{headers}basic_auth_users: {{bob: {bob}}}\n")
        gone = session.get(app.base + "/-/healthy")
        assert gone.status_code == 401
        assert gone.headers["X-Frame-Options"] == "deny"
        session.auth = ("bob", "of bob")
        assert session.get(app.base + "/-/healthy").headers["X-Frame-Options"] == "deny"

        path.write_text(f"{TLS}basic_auth_users: {{bob: nonsense}}\n")
        session.auth = USER
        assert session.get(app.base + "/-/healthy").status_code == 401
        session.auth = ("bob", "of bob")
        successful = "sr_exporter_web_config_last_reload_successful"
        assert series(app.client.metrics(), successful) == {(): 0.0}
        path.write_text(f"{TLS}basic_auth_users: {{bob: {bob}}}\n")
        assert series(app.client.metrics(), successful) == {(): 1.0}


def test_headers_are_added_and_none_is_replaced(tmp_path):
    """The page's policy is made for the page."""
    said = "default-src 'none'; sandbox"
    headers = f'{{Content-Security-Policy: "{said}", X-XSS-Protection: 0}}'
    text = f"http_server_config: {{headers: {headers}}}"
    with serving(tmp_path, text) as (app, _):
        session = app.client.session
        assert session.get(app.base + "/metrics").headers["Content-Security-Policy"] == said
        assert session.get(app.base + "/no").headers["X-XSS-Protection"] == "0"
        page = session.get(app.base + "/").headers
        assert page["X-XSS-Protection"] == "0"
        assert said not in page["Content-Security-Policy"]
        assert app.client.push(ITEM).status_code == 200, "loopback writes: nobody is asked for"


def test_requests_over_the_limit_are_429(tmp_path):
    """On any route, before anybody is asked who he is; without the limit they are answered."""
    with serving(tmp_path, USERS + "rate_limit: {interval: 1h, burst: 3}\n") as (app, path):
        session = app.client.session
        codes = [session.get(app.base + "/-/healthy", auth=USER).status_code for _ in range(5)]
        assert codes == [200, 200, 200, 429, 429]
        answer = session.get(app.base + "/metrics")
        assert answer.status_code == 429
        assert 3500 < int(answer.headers["Retry-After"]) <= 3600
        assert "rate_limit" in answer.json()["error"]
        path.write_text(USERS + "rate_limit: {interval: 0, burst: 3}\n")
        session.auth = USER
        assert app.client.metrics()[REFUSED, (("reason", "rate_limit"),)] == 3


# --- TLS ------------------------------------------------------------------------------------


def names_of(port, trusted):
    """Give what the certificate is for that a new connection is shown."""
    context = ssl.create_default_context(cadata=trusted)
    with (
        socket.create_connection(("127.0.0.1", port), 10) as plain,
        context.wrap_socket(plain, server_hostname="localhost") as wrapped,
    ):
        return [name for _, name in wrapped.getpeercert()["subjectAltName"]]


def test_new_certificates_are_for_new_connections(tmp_path):
    """Another one, another authority; connections that are open go on."""
    with serving(tmp_path, TLS) as (app, _):
        session = app.client.session
        assert session.get(app.base + "/-/ready").status_code == 200
        write_identity(tmp_path, CA.issue_cert("localhost", "new.example"))
        assert "new.example" in names_of(app.port, authority())
        write_identity(tmp_path, OTHER_CA.issue_cert("localhost"))
        assert names_of(app.port, authority(OTHER_CA)) == ["localhost"]
        assert session.get(app.base + "/-/ready").status_code == 200, "on its old connection"
        (tmp_path / "server.key").write_text("nonsense")
        assert names_of(app.port, authority(OTHER_CA)) == ["localhost"]


def certified(tmp_path, *names, ca=CA):
    """Give the certificate of a client as `requests` takes it."""
    write_identity(tmp_path, ca.issue_cert(*names), "client")
    return str(tmp_path / "client.pem"), str(tmp_path / "client.key")


def mutual(kind, more=""):
    return TLS.replace("}", f", client_ca_file: ca.pem, client_auth_type: {kind}{more}}}")


def test_a_client_certificate_is_required(tmp_path):
    """Who has none, or one of somebody else's authority, gets no answer; who has may write."""
    with serving(tmp_path, mutual("RequireAndVerifyClientCert"), TOKENS) as (app, _):
        session = app.client.session
        with pytest.raises(requests.ConnectionError):
            session.get(app.base + "/-/healthy")
        session.cert = certified(tmp_path, "client.example", ca=OTHER_CA)
        with pytest.raises(requests.ConnectionError):
            session.get(app.base + "/-/healthy")
        session.cert = certified(tmp_path, "client.example")
        assert app.client.push(ITEM).status_code == 200
        assert app.client.reload().status_code == 200
        assert app.client.push(ITEM, Origin="https://evil.example").status_code == 403
        assert app.client.push(ITEM, **bearer("some")).status_code == 403, "as its token says"
        assert app.client.push(ITEM, **bearer("none")).status_code == 401


def test_a_client_certificate_opens_writing_if_it_is_given(tmp_path):
    """Without one everybody reads, and nobody writes, loopback neither."""
    with serving(tmp_path, mutual("VerifyClientCertIfGiven")) as (app, _):
        assert app.client.metrics()
        refused = app.client.push(ITEM)
        assert refused.status_code == 401
        assert "client_ca" in refused.json()["error"]
        app.client.close()  # its connections are without
        app.client.session.cert = certified(tmp_path, "client.example")
        assert app.client.push(ITEM).status_code == 200


def test_a_client_certificate_must_be_for_somebody_who_is_allowed(tmp_path):
    """By one of its names; the list is that of the file as it is now."""
    allowed = mutual("RequireAndVerifyClientCert", ", client_allowed_sans: [a.example]")
    with serving(tmp_path, allowed) as (app, path):
        session = app.client.session
        session.cert = certified(tmp_path, "b.example")
        with pytest.raises(requests.ConnectionError):
            session.get(app.base + "/-/healthy")
        path.write_text(allowed.replace("a.example", "a.example, b.example"))
        app.client.close()
        assert app.client.push(ITEM).status_code == 200
        path.write_text(allowed)
        said = app.client.push(ITEM)
        assert (said.status_code, said.headers["Connection"]) == (401, "close")
        assert "connect again" in said.json()["error"]
        with pytest.raises(requests.ConnectionError):
            session.get(app.base + "/-/healthy")


def test_who_is_refused_before_he_asked_is_told_of_in_the_log(tmp_path):
    """All that he sees is a closed connection; each kind of fault is told once in a while."""
    strict = mutual("RequireAndVerifyClientCert", ", client_allowed_sans: [a.example]")
    with capture_logs() as logs, serving(tmp_path, strict) as (app, _):
        session = app.client.session
        for who in (None, None, ("a.example", OTHER_CA), ("b.example", CA)):
            session.cert = who and certified(tmp_path, who[0], ca=who[1])
            with pytest.raises(requests.ConnectionError):
                session.get(app.base + "/-/healthy")
        with pytest.raises(requests.ConnectionError):
            session.get(f"http://localhost:{app.port}/metrics")
        with socket.create_connection(("127.0.0.1", app.port)):
            pass  # who says nothing, as a load balancer's check, is not told of
        session.cert = certified(tmp_path, "a.example")
        refused = series(app.client.metrics(), REFUSED, reason="connection")
        assert set(refused.values()) == {5.0}
    told = [(one["client"], one["error"]) for one in logs if "connection refused" in one["event"]]
    assert told == [
        ("127.0.0.1", "it shows no certificate"),
        (
            "127.0.0.1",
            "TLS: the certificate is not trusted: unable to get local issuer certificate",
        ),
        ("127.0.0.1", "none of its certificate's names is in client_allowed_sans"),
        ("127.0.0.1", "it asks by http://, and this is https://"),
    ]


def test_who_is_connected_by_other_rules_is_let_go(tmp_path):
    """Though he is being told what changes just now: he could not connect any more."""
    with serving(tmp_path, mutual("VerifyClientCertIfGiven")) as (app, path):
        session = app.client.session
        stream = {"Accept": "text/event-stream"}
        with session.get(app.base + "/api/v1/changes", headers=stream, stream=True) as live:
            assert live.status_code == 200
            path.write_text(mutual("RequireAndVerifyClientCert"))
            with requests.Session() as another, pytest.raises(requests.ConnectionError):
                another.get(app.base + "/-/healthy", timeout=10, verify=session.verify)
            with pytest.raises(
                (requests.ConnectionError, requests.exceptions.ChunkedEncodingError)
            ):
                for _ in live.iter_content(1):
                    pass


def test_who_speaks_no_tls_is_let_go(tmp_path, monkeypatch, caplog):
    """At once, or when the handshake takes too long; nothing of it is in the log."""
    monkeypatch.setattr("sr_exporter.accepting.HANDSHAKE_SECONDS", 0.2)
    with serving(tmp_path, TLS) as (app, _):
        for said in (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"\x16\x03\x01", b""):
            with socket.create_connection(("127.0.0.1", app.port), 10) as peer:
                peer.sendall(said)
                with contextlib.suppress(ConnectionResetError):
                    assert b"HTTP" not in peer.recv(1000)
        assert app.client.metrics()
    assert caplog.records == []


def test_old_versions_are_refused(tmp_path):
    """TLS 1.1 is not spoken, and 1.2 not where 1.3 is asked for."""
    with serving(tmp_path, TLS) as (app, path):

        def speaks(version):
            context = ssl.create_default_context(cadata=authority())
            context.minimum_version = context.maximum_version = version
            context.set_ciphers("DEFAULT:@SECLEVEL=0")
            asking = http.client.HTTPSConnection("127.0.0.1", app.port, context=context, timeout=10)
            with contextlib.closing(asking):
                try:
                    asking.request("GET", "/-/healthy")
                except (ssl.SSLError, OSError):
                    return False
                return asking.getresponse().status == 200

        with pytest.warns(DeprecationWarning, match="TLSv1_1"):
            assert not speaks(ssl.TLSVersion.TLSv1_1)
        assert speaks(ssl.TLSVersion.TLSv1_2)
        path.write_text(TLS.replace("}", ", min_version: TLS13}"))
        assert not speaks(ssl.TLSVersion.TLSv1_2)
        assert speaks(ssl.TLSVersion.TLSv1_3)


@pytest.mark.real
def test_prometheus_scrapes_over_tls(tmp_path):
    """With a user and a client certificate, as docs/prometheus.md has it; and after a rotation."""
    write_identity(tmp_path, CA.issue_cert("client.example"), "client")
    access = {
        "scheme": "https",
        "tls_config": {
            "ca_file": str(tmp_path / "ca.pem"),
            "cert_file": str(tmp_path / "client.pem"),
            "key_file": str(tmp_path / "client.key"),
        },
        "basic_auth": {"username": "alice", "password": PASSWORD},
    }
    with serving(tmp_path, mutual("RequireAndVerifyClientCert") + USERS) as (app, path):
        target = {"sr": f"127.0.0.1:{app.port}"}
        with Prometheus(tmp_path, target, access=access) as prometheus:
            up = {"1": 'up{job="sr"} == 1', "0": 'up{job="sr"} == 0'}
            eventually(lambda: prometheus.now(up["1"]), within=30, every=0.1)
            path.write_text(mutual("RequireAndVerifyClientCert") + USERS.replace("alice", "bob"))
            eventually(lambda: prometheus.now(up["0"]), within=30, every=0.1)
            write_identity(tmp_path, CA.issue_cert("127.0.0.1", "new.example"))
            path.write_text(mutual("RequireAndVerifyClientCert") + USERS)
            eventually(lambda: prometheus.now(up["1"]), within=30, every=0.1)


# --- who asks -------------------------------------------------------------------------------


def test_our_own_commands_ask_over_tls(tmp_path, capfd):
    """push, check, notifications and the client: with a user, a token and a certificate."""
    write_identity(tmp_path, CA.issue_cert("client.example"), "client")
    (tmp_path / "password").write_text(f"{PASSWORD}\n")
    (tmp_path / "token").write_text("whole\n")
    trust = [f"--ca-file={tmp_path}/ca.pem"]
    user = [*trust, "--user=alice", f"--password-file={tmp_path}/password"]
    bearing = [*trust, f"--token-file={tmp_path}/token"]
    ours = [f"--cert-file={tmp_path}/client.pem", f"--key-file={tmp_path}/client.key"]

    def listed(url, *access):
        return notifications_command.run(["list", f"--url={url}", *access])

    def codes(url, *access):
        key = ["--group=trunks", "--status=1"]
        return [
            push_command.run([f"--url={url}", *access, *key]),
            check_command.run([f"--url={url}", "--timeout=20", *access, "trunks"]),
            listed(url, *access),
        ]

    with serving(tmp_path, TLS + USERS, TOKENS) as (app, path):
        for access in (user, bearing):
            assert codes(app.base, *access) == [0, 0, 0]
        assert codes(app.base, *trust) == [1, 3, 1]
        assert "basic_auth_users" in capfd.readouterr().err
        assert listed(app.base, *user[1:]) == 3
        assert "not trusted" in capfd.readouterr().err
        path.write_text(mutual("RequireAndVerifyClientCert") + USERS)
        assert codes(app.base, *user, *ours) == [0, 0, 0]
        assert listed(app.base, *user) == 3
        where = {name: tmp_path / f"{name}.pem" for name in ("ca", "client")}
        with Client(
            app.base,
            ca_file=where["ca"],
            user="alice",
            password=PASSWORD,
            cert_file=where["client"],
            key_file=tmp_path / "client.key",
        ) as client:
            assert client.set_status("trunks", 1).accepted == 1
            with client.heartbeat("alive", 90):
                pass
    for wrong in (
        {"user": "alice"},
        {"user": "a:b", "password": "x"},
        {"user": "alice", "password": "x", "token": "y"},
        {"key_file": "x"},
        {"cert_file": where["ca"]},
        {"cert_file": where["client"], "key_file": tmp_path / "server.key"},
        {"cert_file": tmp_path / "nothing"},
    ):
        with pytest.raises(ValueError, match=r"user|key|cannot be read"):
            Client("https://localhost", **wrong)


# --- the command ----------------------------------------------------------------------------


def test_the_command_serves_behind_it(tmp_path):
    """From the first answer on; by its own address in links; nothing secret is in the log."""
    write_identity(tmp_path)
    web = tmp_path / "web.yml"
    web.write_text(TLS + USERS)
    with Command(f"--storage.path={tmp_path / 'data'}", f"--web.config.file={web}") as command:
        command.base = command.base.replace("http:", "https:")
        session = command.client.session
        session.verify, session.auth = str(tmp_path / "ca.pem"), USER
        eventually(lambda: "msg=started" in command.said, within=40)
        answer = session.get(f"{command.base}/-/ready", timeout=10)
        assert answer.status_code == 200
        assert session.get(f"{command.base}/-/ready", auth=("alice", "x")).status_code == 401
        assert re.search(r'msg="web configuration in force".* tls=true .*users=1', command.said)
        for secret in (PASSWORD, ALICE, "PRIVATE"):
            assert secret not in command.said


def test_a_wrong_file_is_exit_2(tmp_path):
    """With everything that is wrong in either file."""
    (tmp_path / "sr.yml").write_text("nonsense: 1\n")
    (tmp_path / "web.yml").write_text("tls_server_config: {cert_file: no.pem}\nrate: 1\n")
    files = [f"--config.file={tmp_path}/sr.yml", f"--web.config.file={tmp_path}/web.yml"]
    command = [sys.executable, "-m", "sr_exporter", "--config.check", *files]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert ended.returncode == 2
    for said in (
        f"{tmp_path}/sr.yml cannot be used:\n  nonsense: unknown key",
        f"{tmp_path}/web.yml cannot be used:\n  rate: unknown key",
        "  tls_server_config.cert_file: no.pem cannot be read: No such file",
        "  tls_server_config: key or key_file is required",
    ):
        assert said in ended.stderr, ended.stderr
