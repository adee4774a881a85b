"""An exporter that is attacked: requests as they are written to a socket, and what they altered."""

from __future__ import annotations

import contextlib
import json
import socket
import sqlite3
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

from sr_exporter.config import Config, SecretUrl, Webhook
from sr_exporter.web.operations import OPERATIONS
from tests.harness import RunningApp, eventually
from tests.receiver import Receiver
from tests.stores import FILE

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from sr_exporter.config import Token

Headers = tuple[tuple[str, str], ...]
#: What may be altered only by who may: a push, a group, a key.
SOURCE, GROUP, IDENTIFIER = "sbc-1", "Trunks", "carrier a"
_HELD = {"source": SOURCE, "group": GROUP, "identifier": IDENTIFIER}
_JSON = (("Content-Type", "application/json"),)
_EVENT = {"method": "E_CORE_SR_STATUS_CHANGED", "jsonrpc": "2.0"}


def own_address() -> str | None:
    """Give an address of this machine that is not loopback, if it has one."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
        except OSError:
            return None
        address: str = probe.getsockname()[0]
    return None if address.startswith("127.") else address


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass(frozen=True, slots=True)
class Ask:
    """A request as it is written, unless other headers are said for it."""

    method: str
    target: str
    body: bytes = b""
    headers: Headers = ()
    version: str = "HTTP/1.1"

    def written(self, headers: Headers, port: int) -> bytes:
        """Write it; `{port}` in a header is the port, and a Host of `-` none at all."""
        more = [(name, value.format(port=port)) for name, value in (*self.headers, *headers)]
        lines = [f"{self.method} {self.target} {self.version}"]
        if not any(name.lower() == "host" for name, _ in more):
            lines.append(f"Host: 127.0.0.1:{port}")
        lines += [f"{name}: {value}" for name, value in more if (name, value) != ("Host", "-")]
        lines += [f"Content-Length: {len(self.body)}", "Connection: close", "", ""]
        return "\r\n".join(lines).encode("latin-1") + self.body


def exchange(port: int, written: bytes, address: str = "127.0.0.1", *, end: bool = False) -> Answer:
    """Send bytes, and that is all of them where it is the `end`; read what comes to its end."""
    with socket.create_connection((address, port), 10) as connection:
        connection.sendall(written)
        if end:
            connection.shutdown(socket.SHUT_WR)
        with connection.makefile("rb") as stream:
            heard = stream.read()
    head, _, body = heard.partition(b"\r\n\r\n")
    status, *lines = head.decode("latin-1").split("\r\n")
    pairs = [line.partition(": ") for line in lines]
    assert all(colon and name == name.strip() for name, colon, _ in pairs), head
    return Answer(int(status.split()[1]), {name.lower(): value for name, _, value in pairs}, body)


class Attacked:
    """A running exporter with something of everything that a stranger might want to alter."""

    app: RunningApp
    store: sqlite3.Connection
    #: The id of a notification that was given up.
    dead: str

    def __init__(self, folder: Path, config: Config, bearer: str) -> None:
        self.folder = folder
        self.config = config
        self.reads = 0
        self.credentials = {"Authorization": f"Bearer {bearer}"} if bearer else {}

    def read(self) -> Config:
        self.reads += 1
        return self.config

    def push(self, *items: dict[str, object]) -> None:
        assert self.app.client.push(*items, **self.credentials).ok

    def rotate(self, *tokens: Token) -> None:
        """Put other tokens in force, by a reload."""
        self.config = replace(self.config, tokens=tokens)
        assert self.app.client.reload(**self.credentials).ok

    def ask(self, ask: Ask, headers: Headers = (), address: str = "127.0.0.1") -> Answer:
        return exchange(self.app.port, ask.written(headers, self.app.port), address)

    def kept(self) -> tuple[object, ...]:
        """Give what is another as soon as anything is written, anywhere.

        Of the store its rows: a commit may be of none, when the exporter looks after it.
        """
        tables = "SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY 1"
        names = [name for (name,) in self.store.execute(tables)]
        rows = tuple(
            (name, row) for name in names for row in self.store.execute(f'SELECT * FROM "{name}"')
        )
        journal = self.app.app.journal
        assert journal is not None
        return (rows, self.app.app.state.revision, journal.newest, self.reads)

    def settled(self) -> tuple[object, ...]:
        """Wait until the exporter writes nothing of its own accord; give what is kept then."""
        seen = [self.kept()]

        def rests() -> bool:
            seen.append(self.kept())
            return seen[-1] == seen[-2]

        eventually(rests, every=0.05)
        return seen[-1]

    def writes(self) -> dict[str, list[Ask]]:
        """Give requests that alter something, by the operations that do, at least one of each."""
        item = {**_HELD, "status": -7}
        event = {**_EVENT, "params": {"group": GROUP, "identifier": IDENTIFIER, "status": -7,
                                      "old_status": 1}}  # fmt: skip
        push = Ask("POST", "/api/v1/push")
        path = "/api/v1/sources/sbc-1"
        calls = {
            "sr_set_status": {"group": GROUP, "status": -7, "identifier": IDENTIFIER},
            "sr_add_report": {"group": GROUP, "report": "owned", "identifier": IDENTIFIER},
        }

        def mi(target: str) -> Iterator[Ask]:
            for method, params in calls.items():
                call = {"jsonrpc": "2.0", "method": method, "params": params}
                for body in ({**call, "id": 1}, call):
                    yield Ask("POST", target, json.dumps(body).encode(), _JSON)

        return {
            "push": [
                with_body(push, item),
                with_body(push, [item, {**item, "reports": ["owned"]}]),
                Ask("POST", f"/api/v1/push?source={SOURCE}", b"\n".join([
                    b'{"group":"trunks","status":-7}', b'{"group":"new","status":1}'])),
                with_body(Ask("POST", f"/api/v1/push?source={SOURCE}"), event),
            ],
            "forget": [Ask("DELETE", path)],
            "forget_group": [Ask("DELETE", f"{path}/groups/TRUNKS")],
            "forget_identifier": [Ask("DELETE", f"{path}/groups/trunks/identifiers/carrier%20a")],
            "retry": [Ask("POST", f"/api/v1/notifications/{self.dead}/retry")],
            "reload_by_post": [Ask("POST", "/-/reload")],
            "reload_by_put": [Ask("PUT", "/-/reload")],
            "mi": list(mi("/mi")),
            "mi_source": list(mi(f"/mi/{SOURCE}")),
        }  # fmt: skip

    def all_writes(self) -> list[Ask]:
        """Give all of them; an operation that is not GET, and has none, is asked as it is."""
        known = self.writes()
        found: list[Ask] = []
        for operation in OPERATIONS:
            if operation.method != "GET":
                target = operation.path.replace("{", "").replace("}", "")
                found += known.get(operation.id, [Ask(operation.method, target, b"{}", _JSON)])
        return found


def with_body(ask: Ask, document: object) -> Ask:
    return Ask(ask.method, ask.target, json.dumps(document).encode(), ask.headers)


@contextlib.contextmanager
def attacked(
    folder: Path, *tokens: Token, bearer: str = "", host: str = "127.0.0.1"
) -> Iterator[Attacked]:
    """Run one; `bearer` is a token for everything, where there are tokens."""
    with Receiver(400) as receiver:
        given = Attacked(folder, _config(receiver, tokens), bearer)
        with RunningApp(folder / "data", read_config=given.read, host=host) as given.app:
            session, base = given.app.client.session, given.app.base
            given.push({**_HELD, "status": -1, "details": "down"})
            (dead,) = eventually(
                lambda: session.get(f"{base}/api/v1/notifications").json()["items"]
            )
            given.dead = dead["id"]
            # What fails goes on to be told of, and that is written.
            receiver.answer(200)
            given.push({**_HELD, "status": -2, "details": "still down"})
            hook = "source=sr_exporter&group=notifier&identifier=hook"
            eventually(lambda: session.get(f"{base}/api/v1/check?{hook}", timeout=5).ok)
            file = f"file:{folder / 'data' / FILE}?mode=ro"
            with contextlib.closing(sqlite3.connect(file, uri=True)) as given.store:
                yield given


def _config(receiver: Receiver, tokens: Sequence[Token]) -> Config:
    return Config(tokens=tuple(tokens), notifiers=(Webhook("hook", SecretUrl(receiver.url)),))
