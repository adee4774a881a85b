"""For Python programs that publish state: what stands behind `sr-exporter push`, too.

    from sr_exporter.client import Client

    client = Client("http://127.0.0.1:9797", token=..., source="sbc-1")
    client.set_status("trunks", -1, "no answer to OPTIONS", "carrier-a", ttl="90s")

A call returns when what it says is kept on disk. What may help is tried again until
`timeout_seconds` are over: connections that fail, and answers of 408, 429 and 5xx, with growing
pauses, and not before what Retry-After asks for. Pushing twice does no harm: the same status
again is no change, and reports are stamped here, so that the second is the same as the first.

The exporter judges what is pushed, and its words are in the error:

ClientError
├── Rejected      it is wrong, and stays wrong: mend it
│   └── NotAllowed  the token is missing or unknown, or is not for this source or group
└── NotTaken      nobody answered, or it could not be kept: try again later
"""

from __future__ import annotations

import contextlib
import copy
import json
import random
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Generic, Literal, NamedTuple, Required, Self, TypedDict, TypeVar

from sr_exporter.asking import Exporter, Login, Unanswered, certificate, document
from sr_exporter.heartbeat import Heartbeat
from sr_exporter.notify.retry import is_retryable, retry_after

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from types import TracebackType

    from sr_exporter.asking import Answer

T = TypeVar("T")

MAIN = "main"
DEFAULT_TIMEOUT_SECONDS = 30.0
FIRST_PAUSE_SECONDS = 0.1
LONGEST_PAUSE_SECONDS = 5.0
#: How many wrong items an error names in its text; all that the exporter named are in `items`.
_MOST_NAMED = 5


class ClientError(Exception):
    """Nothing of it was taken, or that is not known; the text is for people."""


@dataclass(frozen=True, slots=True)
class WrongItem:
    #: Which item of the push, from 0.
    index: int
    error: str


class Rejected(ClientError):  # noqa: N818 - named for what befell the caller
    def __init__(self, message: str, status: int, items: Sequence[WrongItem] = ()) -> None:
        #: The HTTP status code.
        self.status = status
        self.items = tuple(items)
        super().__init__(message)


class NotAllowed(Rejected):
    pass


class NotTaken(ClientError):  # noqa: N818
    def __init__(
        self, message: str, status: int | None = None, retry_after_seconds: float = 0.0
    ) -> None:
        #: The HTTP status code of the last answer; None when there was none.
        self.status = status
        #: When it asks to be asked again, from then on; 0 where it does not say.
        self.retry_after_seconds = retry_after_seconds
        super().__init__(message)


class PushedReport(TypedDict, total=False):
    log: Required[str]
    timestamp: float


class Item(TypedDict, total=False):
    """What a push says of one key, as `POST /api/v1/push` takes it (docs/http-api.md)."""

    group: Required[str]
    identifier: str
    source: str
    status: int
    details: str | None
    reports: Sequence[str | PushedReport]
    ttl: float | str
    on_expiry: Literal["not_ready", "remove"]
    at: float


class Accepted(NamedTuple):
    accepted: int
    #: How many of them altered a status or details.
    changed: int


class _Speaker(Generic[T]):
    """What can be said, by the words of OpenSIPS' `sr_set_status` and `sr_add_report`."""

    def _say(self, item: Item) -> T:
        raise NotImplementedError

    def set_status(
        self,
        group: str,
        status: int,
        details: str | None = None,
        identifier: str = MAIN,
        *,
        source: str | None = None,
        reports: Iterable[str] = (),
        ttl: float | str | None = None,
        on_expiry: Literal["not_ready", "remove"] | None = None,
        at: float | None = None,
    ) -> T:
        """Say how a key stands: above 0 it is ready, below 0 it is not.

        Args:
            details: why, for people; None clears what is held.
            reports: lines for the key's log.
            ttl: seconds, or "90s": past it the key expires, unless it is heard of again. Without
                one what is said stays until something else is said.
            on_expiry: what expiring means; None is "not_ready".
            at: when it was so, in Unix seconds by a clock that is right: what is older than what
                is held is ignored. None: now, by the exporter's clock.
        """
        item: Item = {"group": group, "identifier": identifier, "status": status}
        if details is not None:
            item["details"] = details
        if source is not None:
            item["source"] = source
        if lines := stamped(reports):
            item["reports"] = lines
        if ttl is not None:
            item["ttl"] = ttl
        if on_expiry is not None:
            item["on_expiry"] = on_expiry
        if at is not None:
            item["at"] = at
        return self._say(item)

    def add_report(
        self, group: str, report: str, identifier: str = MAIN, *, source: str | None = None
    ) -> T:
        """Add a line to a key's log; an unknown key begins with status 1."""
        item: Item = {"group": group, "identifier": identifier, "reports": stamped([report])}
        if source is not None:
            item["source"] = source
        return self._say(item)


class Client(_Speaker[Accepted]):
    """Publishes to one exporter, one request at a time; threads may share it.

    Args:
        url: where the exporter is, `http(s)://host[:port][/path]`.
        token: a token of its `push.tokens`; never written anywhere.
        source: the source of what names none; None is "push".
        timeout_seconds: how long a call may take, with everything that is tried again; a single
            attempt may take a third of it.
        ca_file: whom to trust over https, in PEM; None: whom the system trusts.
        user, password: a user of its `basic_auth_users`, instead of a token.
        cert_file, key_file: who we are over https, in PEM, where it asks; read again for each new
            connection. The key may be in the same file.

    Raises:
        ValueError: one of these cannot be used.
    """

    def __init__(
        self,
        url: str,
        token: str | None = None,
        source: str | None = None,
        *,
        timeout_seconds: float = DEFAULT_TIMEOUT_SECONDS,
        ca_file: str | Path | None = None,
        user: str | None = None,
        password: str | None = None,
        cert_file: str | Path | None = None,
        key_file: str | Path | None = None,
    ) -> None:
        if not timeout_seconds > 0:
            raise ValueError("timeout_seconds must be more than 0")
        self._timeout_seconds = timeout_seconds
        ca = None if ca_file is None else Path(ca_file).read_text("utf-8")
        if (user is None) != (password is None):
            raise ValueError("user and password belong together")
        login = None if user is None or password is None else Login(user, password)
        self._exporter = Exporter(
            url, token=token, login=login, ca=ca, certificate=certificate(cert_file, key_file)
        )
        self._query = None if source is None else {"source": source}

    @classmethod
    def asking(cls, exporter: Exporter, *, timeout_seconds: float) -> Self:
        """Make one of what asks the exporter already."""
        made = cls("http://localhost", timeout_seconds=timeout_seconds)
        made._exporter = exporter
        return made

    def push(
        self,
        items: Iterable[Item],
        *,
        timeout_seconds: float | None = None,
        until: threading.Event | None = None,
    ) -> Accepted:
        """Push items, in order: all of them are taken, or none.

        Args:
            timeout_seconds: instead of the client's.
            until: once it is set, nothing is tried again.

        Raises:
            Rejected: the exporter says that something is wrong, and what.
            NotTaken: it was not kept in time; whether something of it was is not known.
            ValueError: something of it cannot be written as JSON.
        """
        body = json.dumps(list(items), allow_nan=False).encode()
        seconds = self._timeout_seconds if timeout_seconds is None else timeout_seconds
        until = until or threading.Event()
        deadline = time.monotonic() + seconds
        pause = FIRST_PAUSE_SECONDS
        while True:
            try:
                left = max(0.001, min(deadline - time.monotonic(), seconds / 3))
                answer = self._exporter.ask(
                    "POST", "/api/v1/push", query=self._query, body=body, timeout_seconds=left
                )
            except Unanswered as error:
                failed = NotTaken(str(error))
            else:
                if not is_retryable(answer.status):
                    return _accepted(answer)
                asked = retry_after(answer.headers, time.time())
                failed = NotTaken(_said(answer), answer.status, asked)
            # Not in step with others that were turned away in the same moment.
            delay = max(failed.retry_after_seconds, pause * (0.5 + 0.5 * random.random()))
            # In what would be left nobody could answer, and why it failed would be forgotten.
            if time.monotonic() + delay + seconds / 10 >= deadline or until.wait(delay):
                raise failed
            pause = min(2 * pause, LONGEST_PAUSE_SECONDS, seconds / 6)

    def _say(self, item: Item) -> Accepted:
        return self.push([item])

    @contextlib.contextmanager
    def batch(self) -> Iterator[Batch]:
        """Gather what is said, and push it as one when the block ends.

        All of it is taken, or none; where the block raises, nothing is pushed.
        """
        batch = Batch()
        yield batch
        if batch.items:
            batch.accepted = self.push(batch.items)

    def heartbeat(
        self,
        group: str,
        ttl: float | str,
        status: int = 1,
        details: str | None = None,
        identifier: str = MAIN,
        *,
        source: str | None = None,
        on_expiry: Literal["not_ready", "remove"] | None = None,
    ) -> Heartbeat:
        """Keep a key alive while a `with` block runs; see `Heartbeat`.

        Raises:
            ValueError: `ttl` is no time.
        """
        said = Batch()
        said.set_status(
            group, status, details, identifier, source=source, ttl=ttl, on_expiry=on_expiry
        )
        # On a connection of its own: a long push must not be the reason why a key expires.
        other = copy.copy(self)
        other._exporter = self._exporter.another()  # noqa: SLF001 - it is one of us
        return Heartbeat(other, said.items[0], ttl, timeout_seconds=self._timeout_seconds)

    def close(self) -> None:
        """Close the connection; the client may be used again."""
        self._exporter.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


class Batch(_Speaker[None]):
    """Gathers what is to be pushed as one. For one thread."""

    def __init__(self) -> None:
        self.items: list[Item] = []
        #: What the exporter answered; None until then.
        self.accepted: Accepted | None = None

    def _say(self, item: Item) -> None:
        self.items.append(item)


# --- what the exporter says ----------------------------------------------------------------


def _accepted(answer: Answer) -> Accepted:
    if answer.status == 200:
        with contextlib.suppress(ValueError, KeyError, TypeError, OverflowError):
            said = document(answer)
            return Accepted(int(said["accepted"]), int(said["changed"]))
        raise Rejected("HTTP 200, and something else than an exporter answers", 200)
    if 300 <= answer.status < 400:
        message = f"HTTP {answer.status}: redirects are not followed; give the URL it leads to"
        raise Rejected(message, answer.status)
    kind = NotAllowed if answer.status in (401, 403) else Rejected
    items = _wrong_items(answer)
    named = "".join(f"; item {item.index}: {item.error}" for item in items[:_MOST_NAMED])
    more = f"; and {len(items) - _MOST_NAMED} more" if len(items) > _MOST_NAMED else ""
    raise kind(f"{_said(answer)}{named}{more}", answer.status, items)


def _said(answer: Answer) -> str:
    try:
        return f"HTTP {answer.status}: {document(answer)['error']}"
    except ValueError as error:
        return str(error)
    except KeyError:
        return f"HTTP {answer.status}"


def _wrong_items(answer: Answer) -> list[WrongItem]:
    try:
        items = document(answer).get("items", ())
        return [WrongItem(int(item["index"]), str(item["error"])) for item in items]
    except (ValueError, KeyError, TypeError, OverflowError):
        return []


class _Stamps:
    """The time, never the same twice: two reports that read alike are two."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._last = 0.0

    def next(self) -> float:
        with self._lock:
            self._last = max(round(time.time(), 6), round(self._last + 1e-6, 6))
            return self._last


_STAMPS = _Stamps()


def stamped(reports: Iterable[str]) -> list[str | PushedReport]:
    """Say when each line was written, so that a push may be repeated.

    Raises:
        TypeError: one line, where several are wanted; each of its letters would be one.
    """
    if isinstance(reports, str):
        raise TypeError("reports: several lines are wanted, as a list, and not one")
    return [{"log": line, "timestamp": _STAMPS.next()} for line in reports]
