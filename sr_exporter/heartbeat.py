"""A status that is true while a program works, and says so by itself when it does not.

Each push bears a `ttl`. It is renewed from a thread, at a third of it; when renewals end,
because the program hangs in a kill -9 or its machine is gone, the key expires by itself.
"""

from __future__ import annotations

import logging
import math
import threading
from typing import TYPE_CHECKING, Self

from sr_exporter.durations import parse_duration

if TYPE_CHECKING:
    from types import TracebackType

    from sr_exporter.client import Client, Item

#: How much of its time to live has passed when a key is renewed.
RENEWED_AT = 1 / 3
#: After a failure it is tried again so soon, or when the exporter asks for it; in any case when
#: it would have been renewed.
SOONEST_SECONDS = 1.0
#: A renewal may take as long as the time to the next one, but for the shortest.
SHORTEST_SECONDS = 3.0

log = logging.getLogger("sr_exporter.client")


class Heartbeat:
    """Keeps a key alive while a `with` block runs. Made by `Client.heartbeat`.

    What goes wrong with renewals never reaches the block: it is tried again, logged by
    `logging` when it begins and when it ends, and to be seen in `error`.

    - The block ends: renewals end. What was said stands until its `ttl` is over, and then
      expires; a program that is started again in time is not missed by anybody.
    - The block ends after `finish`: its last word stays, for good.
    - The block ends by an exception: status -1 at once, details `ended by ValueError`, unless it
      had said itself that it is not ready; this stays, too. The exception goes on. `SystemExit`
      with status 0 is none.

    Leaving waits until the last word is taken, for the client's `timeout_seconds` at most.
    """

    #: `client` is for nobody else, and closed in the end.
    def __init__(
        self, client: Client, item: Item, ttl: float | str, *, timeout_seconds: float
    ) -> None:
        self._client = client
        self._ttl_seconds = _seconds(ttl)
        self._timeout_seconds = timeout_seconds
        self._lock = threading.Lock()
        #: What is said at each renewal, and what of it was taken last.
        self._word: Item = item
        self._taken: Item | None = None
        #: What is said in the end, if anything.
        self._last_word: Item | None = None
        self._leaving = False
        self._news = threading.Event()
        self._thread: threading.Thread | None = None
        #: Why the last renewal failed; None: it did not.
        self.error: Exception | None = None

    def __enter__(self) -> Self:
        if self._thread is not None:
            raise RuntimeError("a heartbeat is for one block")
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)
        self._thread.start()
        return self

    def set_status(self, status: int, details: str | None = None) -> None:
        """Say something else from now on, at once; this does not wait for it to be taken.

        What goes on is not finished: a `finish` of before counts no more.
        """
        with self._lock:
            self._word = _saying(self._word, status, details)
            self._last_word = None
        self._news.set()

    def finish(self, status: int | None = None, details: str | None = None) -> None:
        """Say the last word when the block ends: what it says now, unless another is given."""
        with self._lock:
            word = self._word if status is None else _saying(self._word, status, details)
            self._last_word = _for_good(word)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        with self._lock:
            self._word = self._last_word or self._word
            if kind is not None and not _is_success(error):
                if self._word["status"] >= 0:
                    self._word = _saying(self._word, -1, f"ended by {kind.__name__}")
                self._word = _for_good(self._word)
            self._leaving = True
        self._news.set()
        assert self._thread is not None  # noqa: S101 - the block was entered
        self._thread.join(2 * self._timeout_seconds)

    # --- on the thread ---------------------------------------------------------------------

    def _run(self) -> None:
        try:
            self._renew()
        finally:
            self._client.close()

    def _renew(self) -> None:
        while True:
            self._news.clear()
            with self._lock:
                word, leaving = self._word, self._leaving
            if leaving and word is self._taken:
                return
            pause = self._push(word, last=leaving)
            if leaving:
                return
            self._news.wait(pause)

    def _push(self, word: Item, *, last: bool) -> float:
        """Push it; give the seconds until it is to be pushed again."""
        renewal = self._ttl_seconds * RENEWED_AT
        seconds = self._timeout_seconds
        if not last:
            seconds = min(seconds, max(renewal, SHORTEST_SECONDS))
        try:
            until = None if last else self._news
            self._client.push([word], timeout_seconds=seconds, until=until)
        except Exception as error:  # noqa: BLE001 - never the work's trouble
            self._failed(word, error)
            asked = getattr(error, "retry_after_seconds", 0.0)
            return min(max(SOONEST_SECONDS, asked), renewal)
        if self.error is not None:
            log.info("%s: renewed again", _name(word))
        self.error = None
        self._taken = word
        return renewal

    def _failed(self, word: Item, error: Exception) -> None:
        if self._news.is_set() and not self._leaving:
            return  # it was given up for what is to be said instead
        if str(error) != str(self.error):
            log.warning("%s: not renewed: %s", _name(word), error)
        self.error = error


def _saying(word: Item, status: int, details: str | None) -> Item:
    said = word.copy()
    said["status"] = status
    said["details"] = details
    return said


def _for_good(word: Item) -> Item:
    said = word.copy()
    said.pop("ttl", None)
    said.pop("on_expiry", None)
    return said


def _is_success(error: BaseException | None) -> bool:
    return isinstance(error, SystemExit) and error.code in (None, 0)


def _name(word: Item) -> str:
    return f"{word['group']}/{word['identifier']}"


def _seconds(ttl: float | str) -> float:
    try:
        seconds = parse_duration(ttl) if isinstance(ttl, str) else float(ttl)
    except ValueError as error:
        raise ValueError(f"ttl: {error}") from None
    if not (math.isfinite(seconds) and seconds > 0):
        raise ValueError("ttl: must be more than 0 seconds")
    return seconds
