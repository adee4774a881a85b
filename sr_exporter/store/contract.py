"""What a store promises. Implementations say "implements" and stop.

* **Order.** Batches are kept in the order in which they were handed over.
* **All or nothing.** Of one batch everything is kept, or nothing. Several batches may be kept
  by one commit.
* **Kept.** The future of a batch resolves after the data has reached the disk
  (`fdatasync`), never before.
* **Failure.** When a commit fails, the futures of its batches fail with `NotKept`. The store
  holds on to what they said, newest word per key, and tries again by itself; `load` after a
  later success shows it. At most `JOURNAL_BACKLOG` changes wait so; then the oldest are
  given up and counted.
* **Refusal.** `load` gives all that is kept, or raises `StoreUnusable` and leaves everything as
  it found it. A disk that takes nothing is no reason to refuse what can be read.
* **Bodies.** A row of the outbox that is handed over without its body keeps the one it has. So its
  holder need not: `bodies` gives them as they were handed over last, also while the disk takes
  nothing, and may be asked of as many as `load` gave rows.
* **Place.** What is kept in files that were removed or replaced meanwhile is not kept: the
  commit has failed.
* **Bounds.** Changes and dead letters past their retention are removed, and so are the oldest
  beyond `JOURNAL_ROWS` changes and `DEAD_ROWS` dead letters; tombstones past
  `TOMBSTONE_SECONDS` and beyond `TOMBSTONES` too. It is done soon, and bit by bit: a commit waits
  milliseconds for it, or as long as the commit before it took. What is held back or owed is
  never removed, and numbers of changes do not repeat. `retain` gives a store that is in use
  another retention.
* **Ownership.** A batch belongs to the store once it is handed over.
* **After `close`** nothing is taken any more; `close` returns when all that was handed over
  is kept or has failed.

The contract's tests run against every implementation (tests/unit/test_store_contract.py).
"""

from __future__ import annotations

import asyncio
import enum
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import msgspec

from sr_exporter.progress import Progress

if TYPE_CHECKING:
    from asyncio import Future
    from collections.abc import Callable, Collection, Iterator, Sequence

    from sr_exporter.model import Change, Key, KeyRecord, SourceRecord

#: How many changes wait in memory while the disk takes none.
JOURNAL_BACKLOG = 100_000
#: How many changes, and how many dead letters, are kept at most, however young they are.
JOURNAL_ROWS = 5_000_000
DEAD_ROWS = 100_000


class Standing(enum.StrEnum):
    """Where an owed notification stands."""

    #: Held back by its rule's `for`: it may still be withdrawn.
    HELD = "held"
    OWED = "owed"
    DEAD = "dead"


class Gist(NamedTuple):
    """What must be known of a notification though its body is left to the store."""

    #: Those of the alert that it tells of.
    labels: dict[str, str]
    firing: bool


@dataclass(frozen=True, slots=True)
class Owed:
    """One notification that is owed to one notifier: a row of the outbox."""

    #: Stable over retries and restarts; the receiver sees it as `X-SR-Delivery`.
    id: str
    #: Its place in the order of what is owed: the order of deliveries per key.
    seq: int
    notifier: str
    #: What must stay in order: a JSON array of the key, folded, or of the source alone.
    subject: str
    standing: Standing
    #: When the change was seen.
    created_at: float
    #: Not to be sent before.
    due_at: float
    attempts: int
    #: The notification as it will be sent, whole; None: the store has it.
    body: bytes | None
    #: Why it is dead.
    reason: str | None = None
    #: Its holder's notes, and the size of a body that is left to the store; not kept.
    gist: Gist | None = field(default=None, compare=False)
    size: int = field(default=0, compare=False)

    @property
    def whole(self) -> bytes:
        """Give its body, which must be here."""
        if self.body is None:
            raise ValueError(f"the body of {self.id} is left to the store")
        return self.body

    def is_held(self, now: float) -> bool:
        """Whether a rule's time holds it back still; once that is over it is owed."""
        return self.standing is Standing.HELD and self.due_at > now

    @property
    def age(self) -> Age:
        """Give its place among all there are, of any run: `seq` may begin anew."""
        return self.created_at, self.seq, self.id


#: Older comes first.
Age = tuple[float, int, str]


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A notification that was given up."""

    owed: Owed
    #: None that is younger, of the same notifier and subject, is dead.
    newest: bool


@dataclass(frozen=True, slots=True)
class AlertRecord:
    """A level as it was last given out, so that it can be resolved after a restart too."""

    fingerprint: str
    labels: dict[str, str]
    annotations: dict[str, str]
    starts_at: float
    #: None while it fires.
    resolved_at: float | None
    generator_url: str


class Batch(msgspec.Struct):
    """What one commit must hold, all of it or nothing."""

    keys: dict[Key, KeyRecord] = {}
    keys_removed: dict[Key, None] = {}
    sources: dict[str, SourceRecord] = {}
    sources_removed: dict[str, None] = {}
    changes: list[Change] = []
    #: Rows of the outbox by id; None deletes, and one without its body keeps the one it has.
    outbox: dict[str, Owed | None] = {}
    #: Levels by fingerprint; None deletes.
    alerts: dict[str, AlertRecord | None] = {}
    #: When keys were removed, by folded key; None deletes.
    tombstones: dict[Key, float | None] = {}

    def __bool__(self) -> bool:
        return bool(
            self.keys
            or self.keys_removed
            or self.sources
            or self.sources_removed
            or self.changes
            or self.outbox
            or self.alerts
            or self.tombstones
        )

    def merge(self, later: Batch) -> None:
        """Add a later batch; the later word on each key, source and row is the last."""
        for key in later.keys if self.keys_removed else ():
            self.keys_removed.pop(key, None)
        self.keys.update(later.keys)
        for key in later.keys_removed:
            self.keys.pop(key, None)
            self.keys_removed[key] = None
        for name in later.sources if self.sources_removed else ():
            self.sources_removed.pop(name, None)
        self.sources.update(later.sources)
        for name in later.sources_removed:
            self.sources.pop(name, None)
            self.sources_removed[name] = None
        self.changes.extend(later.changes)
        for row_id, owed in later.outbox.items():
            if owed is not None and owed.body is None and row_id in self.outbox:
                before = self.outbox[row_id]
                # Of a row that is gone there is nothing left to alter.
                self.outbox[row_id] = before and replace(owed, body=before.body)
            else:
                self.outbox[row_id] = owed
        self.alerts.update(later.alerts)
        self.tombstones.update(later.tombstones)


@dataclass(frozen=True, slots=True)
class Kept:
    """Everything a store holds that a start needs."""

    #: Made once per store.
    store_id: str
    last_seq: int
    sources: list[SourceRecord]
    keys: list[KeyRecord]
    outbox: list[Owed]
    alerts: list[AlertRecord]
    #: When keys that are held no more were removed, by folded key, the oldest first.
    tombstones: dict[Key, float] = field(default_factory=dict)


class Past(NamedTuple):
    """A stretch of the journal that was looked through, and what it has of some keys."""

    #: The newest first.
    changes: list[Change]
    #: When the youngest of all changes of the stretch was, whosever it is; None: it has none.
    youngest_at: float | None
    #: The stretch before begins below this number; None: there is none.
    before: int | None


@dataclass(frozen=True, slots=True)
class Start:
    """How a start takes what is kept: one at a time, on any thread, and not all of it twice."""

    #: Makes of each row of the outbox what is given: not all bodies are in memory at once.
    hold: Callable[[Owed], Owed] = lambda owed: owed
    #: Takes the keys, which are not in what is given then; that has its sources and tombstones
    #: already, its outbox not yet. None: they are.
    restore: Callable[[Kept, Iterator[KeyRecord]], None] | None = None
    #: Follows how far it is; what it interrupts ends with `Interrupted`.
    progress: Progress = field(default_factory=Progress)


class StoreFigures(msgspec.Struct, frozen=True):
    """What the store tells of itself; the families `sr_exporter_store_*`."""

    commits_total: int
    commit_failures_total: int
    commit_seconds_total: float
    batches_total: int
    changes_given_up_total: int
    #: Batches handed over and not yet kept.
    waiting: int
    size_bytes: int
    #: Why the last commit failed; None when it did not.
    error: str | None


class Keeping(asyncio.Future[None]):
    """What a commit resolves.

    Who waits for it may be cancelled, and hears of that when the commit is over: what was handed
    over is kept all the same, and others may wait for it too.
    """

    def cancel(self, msg: Any | None = None) -> bool:  # noqa: ARG002 - the signature is asyncio's
        return False


class Store(Protocol):
    def load(self, start: Start | None = None) -> Kept:
        """Give everything that is kept. Called once, before the first `commit`; blocks.

        Raises:
            StoreUnusable: it cannot be used; nothing of it was altered.
            Interrupted: the start's progress was interrupted; nothing was altered.
        """

    def commit(self, batch: Batch) -> Keeping:
        """Keep a batch; the future fails with `NotKept`. Called on the loop's thread."""

    def changes(self, since: int, limit: int) -> Future[list[Change]]:
        """Give at most `limit` changes with a number above `since`, oldest first."""

    def past(self, keys: Collection[Key], *, before: int | None, rows: int) -> Future[Past]:
        """Look for the changes of folded `keys`, and of their sources, going back in time.

        Of `rows` numbers below `before` (None: the newest) each is looked at, whosever it is: that
        takes the store's thread a microsecond each, and commits wait for it.
        """

    def bodies(self, row_ids: Sequence[str]) -> Future[dict[str, bytes]]:
        """Give the bodies of rows of the outbox by id; what is not there is left out."""

    def dead_letters(
        self, *, notifier: str | None, after: Age | None, limit: int
    ) -> Future[list[Owed]]:
        """Give at most `limit` dead letters younger than `after`, oldest first.

        With a `notifier`, only those that were for it.
        """

    def dead_letter(self, row_id: str) -> Future[DeadLetter | None]:
        """Give one dead letter; None when no notification of that id is dead."""

    def figures(self) -> StoreFigures:
        """Give the store's own figures; never blocks."""

    def retain(self, seconds: float) -> None:
        """Keep changes and dead letters for so long from now on. Called on any thread."""

    def close(self) -> None:
        """Keep what was handed over and let go of the files. Blocks; may be called twice."""
