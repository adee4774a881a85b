"""Who gets through the gate, by the file as it is now."""

from __future__ import annotations

import asyncio
import base64
import os
import threading

import pytest

from sr_exporter.config.server_tls import ClientAuth
from sr_exporter.config.web import RateLimit
from sr_exporter.errors import ConfigError
from sr_exporter.progress import Progress
from sr_exporter.web import users as users_module
from sr_exporter.web.access import Access
from sr_exporter.web.config_file import WebConfigFile
from sr_exporter.web.encrypted import is_allowed
from sr_exporter.web.gate import Gate
from sr_exporter.web.rate import Bucket
from sr_exporter.web.starting import Starting
from sr_exporter.web.users import (
    MOST_OF_ONE,
    MOST_WAITING,
    MOST_WRONG,
    Busy,
    Credentials,
    Users,
    basic,
)
from tests.web_config import ALICE, OTHER_CA, PASSWORD, write_identity

USERS = {b"alice": ALICE.encode()}
RIGHT = Credentials(b"alice", PASSWORD.encode())


class Bcrypt:
    """Counts what is hashed, and on demand holds it up; every password in `good` is right."""

    def __init__(self, monkeypatch, good=()):
        self.asked = []
        self.at_once = self.most_at_once = 0
        self.good = set(good)
        self.goes_on = threading.Event()
        self.goes_on.set()
        monkeypatch.setattr(users_module.bcrypt, "checkpw", self.check)

    def check(self, password, hashed):
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        self.asked.append((password, hashed))
        assert self.goes_on.wait(10)
        self.at_once -= 1
        return password in self.good


# --- users ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("header", "said"),
    [
        (b"Basic " + base64.b64encode(b"a:b:c"), (b"a", b"b:c")),
        (b"bASIC  " + base64.b64encode(b":"), (b"", b"")),
        (b"Basic " + base64.b64encode(b"\xff:\x00"), (b"\xff", b"\x00")),
        (b"Basic " + base64.b64encode(b"ab"), None),
        (b"Basic !!!!", None),
        (b"Basic \xff", None),
        (b"Basic", None),
        (b"Bearer " + base64.b64encode(b"a:b"), None),
        (b"", None),
    ],
)
def test_basic_credentials_are_read(header, said):
    """What is none is no user."""
    assert basic(header) == said


async def _knows(users, *said, of=USERS):
    return [await users.knows(of, one, "192.0.2.1") for one in said]


def test_a_user_is_known_by_the_password():
    """And nobody else, by no password; what is longer than bcrypt reads is no error."""
    wrong = [
        Credentials(b"alice", b"of bob"),
        Credentials(b"alice", b""),
        Credentials(b"bob", PASSWORD.encode()),
        Credentials(b"", b""),
        Credentials(b"alice", b"\x00"),
        Credentials(b"alice", RIGHT.password + b"\x00 and more"),
        Credentials(b"alice", b"x" * 100),
    ]
    found = asyncio.run(_knows(Users(), RIGHT, *wrong, RIGHT))
    assert found == [True, *[False] * len(wrong), True]


def test_what_came_of_a_password_is_remembered(monkeypatch):
    """Right or wrong: each is hashed once, until the user's hash is another."""
    hashed = Bcrypt(monkeypatch, {RIGHT.password})
    wrong = Credentials(b"alice", b"x")
    users = Users()
    assert asyncio.run(_knows(users, RIGHT, RIGHT, wrong, wrong)) == [True, True, False, False]
    assert len(hashed.asked) == 2
    changed = {b"alice": b"$2b$04$" + b"x" * 53}
    hashed.good.clear()
    assert asyncio.run(_knows(users, RIGHT, of=changed)) == [False]


def test_somebody_unknown_costs_as_much(monkeypatch):
    """A hash of some user, always the same: neither the time nor the cost tells."""
    hashed = Bcrypt(monkeypatch, {b"pw"})
    of = {b"a": b"$2b$04$" + b"a" * 53, b"b": b"$2b$12$" + b"b" * 53}
    names = [b"n%d" % number for number in range(40)]
    said = [Credentials(name, password) for name in names for password in (b"pw", b"x")]
    assert not any(asyncio.run(_knows(Users(), *said, of=of)))
    used = [hash_ for _, hash_ in hashed.asked]
    assert len(used) == len(said), "nobody is turned away for less"
    assert used[::2] == used[1::2]
    assert set(used) == set(of.values())


def test_one_password_is_hashed_at_a_time_and_few_wait(monkeypatch):
    """The loop goes on; who comes when too many wait is told so, the rest is answered."""
    hashed = Bcrypt(monkeypatch)
    hashed.goes_on.clear()
    users = Users()

    async def run():
        def ask(number, address):
            said = Credentials(b"alice", b"%d" % number)
            return asyncio.ensure_future(users.knows(USERS, said, address))

        asked = [ask(number, f"192.0.2.{number % 5}") for number in range(MOST_WAITING)]
        same = ask(0, "192.0.2.9")
        await asyncio.sleep(0)
        with pytest.raises(Busy):
            await ask(99, "192.0.2.9")
        asked[1].cancel()
        hashed.goes_on.set()
        found = await asyncio.gather(*asked, same, return_exceptions=True)
        assert isinstance(found.pop(1), asyncio.CancelledError)
        assert set(found) == {False}
        assert await ask(99, "192.0.2.9") is False, "there is room again"

    asyncio.run(run())
    assert hashed.most_at_once == 1
    assert len(hashed.asked) == MOST_WAITING + 1


def test_one_address_cannot_fill_the_line(monkeypatch):
    """It may have a few waiting; others get in."""
    hashed = Bcrypt(monkeypatch)
    hashed.goes_on.clear()
    users = Users()

    async def run():
        def ask(number, address):
            said = Credentials(b"alice", b"%d" % number)
            return asyncio.ensure_future(users.knows(USERS, said, address))

        asked = [ask(number, "192.0.2.1") for number in range(MOST_OF_ONE)]
        await asyncio.sleep(0)
        with pytest.raises(Busy):
            await ask(50, "192.0.2.1")
        asked.append(ask(51, "192.0.2.2"))
        await asyncio.sleep(0)
        hashed.goes_on.set()
        assert set(await asyncio.gather(*asked)) == {False}
        assert await ask(50, "192.0.2.1") is False

    asyncio.run(run())


def test_wrong_passwords_do_not_have_right_ones_forgotten(monkeypatch):
    """And no more of them are remembered than there is room for."""
    hashed = Bcrypt(monkeypatch, {RIGHT.password})
    users = Users()
    flood = [Credentials(b"alice", b"w%d" % number) for number in range(MOST_WRONG + 2)]

    async def run():
        assert await _knows(users, RIGHT) == [True]
        await _knows(users, *flood)
        before = len(hashed.asked)
        assert await _knows(users, RIGHT, flood[-1]) == [True, False]
        assert len(hashed.asked) == before
        await _knows(users, flood[0])
        assert len(hashed.asked) == before + 1

    asyncio.run(run())


def test_without_a_thread_it_is_busy(monkeypatch):
    """Out of threads nobody new gets in, and nothing crashes."""

    def none(*_):
        raise RuntimeError("can't start new thread")

    users = Users()
    monkeypatch.setattr(users._pool, "submit", none)

    with pytest.raises(Busy):
        asyncio.run(_knows(users, RIGHT))


# --- the gate --------------------------------------------------------------------------------


def asked(application, path, headers=()):
    """Give the status code and the headers that a request is answered."""
    sent = []

    async def send(message):
        sent.append(message)

    async def receive():
        return {"type": "http.request", "body": b"", "more_body": False}

    scope = {"type": "http", "method": "GET", "path": path, "raw_path": path.encode()}
    scope |= {"query_string": b"", "headers": list(headers), "client": ("192.0.2.1", 1)}
    asyncio.run(application({**scope, "extensions": {}}, receive, send))
    return sent[0]["status"], dict(sent[0]["headers"])


def test_what_is_answered_while_it_starts_is_behind_the_gate(written):
    """How far it is, and that it lives, is for users."""
    path, file, _ = written
    gate = Gate(Starting(Progress()), file.now, Access(), lambda _: None)
    user = [(b"authorization", b"Basic " + base64.b64encode(b"alice:" + PASSWORD.encode()))]
    for route, code in (("/", 503), ("/-/ready", 503), ("/-/healthy", 200), ("/metrics", 503)):
        assert asked(gate, route)[0] == 401
        assert asked(gate, route, user)[0] == code
    headers = "http_server_config: {headers: {X-Content-Type-Options: nosniff}}\n"
    path.write_text(path.read_text() + headers)
    code, headers = asked(gate, "/-/ready", user)
    assert (code, headers[b"x-content-type-options"]) == (503, b"nosniff")


def test_who_cannot_be_looked_at_now_is_told_to_come_again(written, monkeypatch):
    """503 with Retry-After, and counted: it is no wrong password."""
    _, file, _ = written
    monkeypatch.setattr(users_module, "MOST_WAITING", 0)
    turned_away = []
    gate = Gate(Starting(Progress()), file.now, Access(), turned_away.append)
    stranger = [(b"authorization", b"Basic " + base64.b64encode(b"alice:x"))]
    code, headers = asked(gate, "/metrics", stranger)
    assert (code, headers[b"retry-after"], turned_away) == (503, b"1", ["busy"])


# --- the rate --------------------------------------------------------------------------------


def test_a_bucket_is_that_of_go():
    """A burst at once, then one each interval; what is not taken adds up to the burst."""
    now = 100.0
    bucket = Bucket(RateLimit(2.0, 3), lambda: now)
    assert [bucket.take() for _ in range(5)] == [True, True, True, False, False]
    assert bucket.retry_after_seconds == 2
    now += 1.9
    assert not bucket.take()
    now += 0.2
    assert [bucket.take(), bucket.take()] == [True, False]
    now += 1000
    assert [bucket.take() for _ in range(4)] == [True, True, True, False]


# --- names in certificates -------------------------------------------------------------------

CERTIFICATE = {
    "subject": ((("commonName", "cn.example"),),),
    "subjectAltName": (
        ("DNS", "a.example"),
        ("IP Address", "FE80:0:0:0:0:0:0:1\n"),
        ("email", "x@y.example"),
        ("URI", "spiffe://z/w"),
        ("Registered ID", "1.2"),
    ),
}


@pytest.mark.parametrize(
    ("name", "allowed"),
    [
        *[(name, True) for name in ("a.example", "fe80::1", "x@y.example", "spiffe://z/w")],
        ("fe80:0::1", True),
        *[(name, False) for name in ("cn.example", "A.example", "*.example", "1.2", "")],
    ],
)
def test_names_are_compared_as_they_are(name, allowed):
    """Those of the kinds Go looks at, exactly; the common name is none."""
    assert is_allowed(CERTIFICATE, frozenset({name, "other.example"})) is allowed
    assert not is_allowed({}, frozenset({name}))


# --- the file --------------------------------------------------------------------------------


class Told:
    """Remembers what it is told."""

    def __init__(self):
        self.good = []

    def web_configured(self):
        self.good.append(True)

    def web_not_configured(self):
        self.good.append(False)


@pytest.fixture
def written(tmp_path):
    """A file with a user, read and told of, and its folder."""
    path = tmp_path / "web.yml"
    path.write_text(f"basic_auth_users: {{alice: {ALICE}}}\n")
    file, told = WebConfigFile(path), Told()
    file.report_to(told)
    return path, file, told


def test_what_is_written_is_in_force_at_once(written):
    """However fast one follows the other, and as often as is written."""
    path, file, told = written
    for number in range(50):
        path.write_text(f"basic_auth_users: {{u{number:02d}: {ALICE}}}\n")
        assert list(file.now().users) == [b"u%02d" % number]
    assert set(told.good) == {True}


def test_what_is_as_it_was_is_not_read(written, monkeypatch):
    """It takes a look at the files' state, and no more; the same text is no change."""
    path, file, told = written
    os.utime(path, (1, 1))  # long ago: nothing can be written within the same tick
    assert file.now() is file.now()
    reads = []
    monkeypatch.setattr("sr_exporter.web.config_file.read_text", reads.append)
    before = file.now()
    assert file.now() is before
    assert reads == []
    monkeypatch.undo()
    path.write_text(path.read_text())
    assert file.now() is before
    assert told.good == [True]


def test_one_that_turns_bad_opens_nothing(written, capfd):
    """The last good one stays in force, told once a change, and what is mended is used."""
    path, file, told = written
    path.write_text("basic_auth_users: {}\nnonsense: 1\n")
    for _ in range(3):
        assert list(file.now().users) == [b"alice"]
    path.unlink()
    assert list(file.now().users) == [b"alice"]
    os.mkfifo(path)
    assert list(file.now().users) == [b"alice"]
    path.unlink()
    path.write_text(f"basic_auth_users: {{bob: {ALICE}}}\n")
    assert list(file.now().users) == [b"bob"]
    assert told.good == [True, False, False, False, True]
    said = capfd.readouterr().out
    assert said.count("not reloaded") == 3
    for what in ("nonsense: unknown key", "No such file", "it is no regular file"):
        assert what in said


def test_new_certificates_are_used(tmp_path):
    """Written anew, renamed over the old ones, or swapped by a link as Kubernetes does."""
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
    write_identity(tmp_path / "one")
    write_identity(tmp_path / "two", OTHER_CA.issue_cert("localhost"))
    data = tmp_path / "..data"
    data.symlink_to("one")
    for name in ("server.pem", "server.key"):
        (tmp_path / name).symlink_to(f"..data/{name}")
    path = tmp_path / "web.yml"
    path.write_text("tls_server_config: {cert_file: server.pem, key_file: server.key}\n")
    file, told = WebConfigFile(path), Told()
    file.report_to(told)

    first = file.tls()
    assert file.tls() is first
    (tmp_path / "..new").symlink_to("two")
    (tmp_path / "..new").rename(data)
    second = file.tls()
    assert second is not first
    write_identity(tmp_path / "two")
    third = file.tls()
    assert third is not second
    (tmp_path / "two" / "server.key").unlink()
    assert file.tls() is third
    assert told.good == [True, True, True, False]


def test_tls_is_turned_on_and_off_by_a_restart_only(tmp_path, capfd):
    """Off, connections stay encrypted; on, they stay as they are; the log says so."""
    write_identity(tmp_path)
    users = f"basic_auth_users: {{alice: {ALICE}}}\n"
    tls = "tls_server_config: {cert_file: server.pem, key_file: server.key}\n"
    path = tmp_path / "web.yml"
    path.write_text(tls)
    file, told = WebConfigFile(path), Told()
    file.report_to(told)
    first = file.tls()
    path.write_text(users)
    assert file.tls() is first
    assert list(file.now().users) == [b"alice"], "the rest is in force"
    path.write_text(tls + users)
    assert file.tls() is not first
    assert told.good == [True, False, True]

    path.write_text(users)
    file, told = WebConfigFile(path), Told()
    file.report_to(told)
    path.write_text(tls + users)
    assert file.now().tls is None
    assert not file.has_tls
    assert told.good == [True, False]
    said = capfd.readouterr().out
    assert "by a restart only: connections stay encrypted" in said
    assert "by a restart only: connections are NOT encrypted" in said


@pytest.mark.parametrize("size", [0, 39])
def test_a_file_that_is_just_being_written_lets_nobody_in(written, size, capfd):
    """Cut anywhere it may be as good as any, and name no users."""
    path, file, told = written
    file.report_to(told)
    whole = path.read_text()
    path.write_text(f"rate_limit: {{interval: 1s, burst: 1000}}{whole}"[:size])
    assert list(file.now().users) == [b"alice"]
    assert told.good[-1] is False
    assert "basic_auth_users: asks for less than is in force" in capfd.readouterr().out
    path.write_text(whole)
    assert list(file.now().users) == [b"alice"]
    assert told.good[-1] is True


@pytest.mark.parametrize("less", ["VerifyClientCertIfGiven", "NoClientCert", None])
def test_certificates_are_asked_for_until_a_restart(tmp_path, less):
    """A file that was cut asks for none."""
    write_identity(tmp_path)
    pair = "cert_file: server.pem, key_file: server.key"
    ca = ", client_ca_file: ca.pem" if less != "NoClientCert" else ""

    def asking(what: str | None) -> str:
        more = f"{ca}, client_auth_type: {what}" if what else ""
        return f"tls_server_config: {{{pair}{more}}}\n"

    path = tmp_path / "web.yml"
    path.write_text(
        f"tls_server_config: {{{pair}, client_ca_file: ca.pem,"
        " client_auth_type: RequireAndVerifyClientCert}\n"
    )
    file = WebConfigFile(path)
    path.write_text(asking(less))
    assert file.tls().client_auth is ClientAuth.REQUIRED
    path.write_text("")
    assert file.tls().client_auth is ClientAuth.REQUIRED


def test_a_wrong_file_is_refused_at_the_start(tmp_path):
    """With its faults."""
    path = tmp_path / "web.yml"
    path.write_text("rate_limit: 1\n")
    with pytest.raises(ConfigError, match="rate_limit: must be a mapping"):
        WebConfigFile(path)
    path.unlink()
    path.mkdir()
    with pytest.raises(ConfigError, match=r"web\.yml: cannot be read: it is no regular file"):
        WebConfigFile(path)


def test_names_are_looked_at_until_a_restart(tmp_path, capfd):
    """Cut before them, a file lets in whoever the authority knows."""
    write_identity(tmp_path)
    asking = (
        "tls_server_config:\n  cert_file: server.pem\n  key_file: server.key\n"
        "  client_ca_file: ca.pem\n  client_auth_type: RequireAndVerifyClientCert\n"
    )
    path = tmp_path / "web.yml"
    path.write_text(f"{asking}  client_allowed_sans: [prometheus, grafana]\n")
    file = WebConfigFile(path)
    path.write_text(asking)
    assert file.tls().allowed_sans == {"prometheus", "grafana"}
    assert "client_allowed_sans: asks for less than is in force" in capfd.readouterr().out
    path.write_text(f"{asking}  client_allowed_sans: [prometheus]\n")
    assert file.tls().allowed_sans == {"prometheus"}
