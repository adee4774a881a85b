"""The words of the project: keys, statuses, reports, observations and changes.

Everything here is a value. Names are those of OpenSIPS' Status/Report framework: a *group*
of *identifiers*, each with an integer *status* (above 0 ready, below 0 not ready), optional
*details* and a ring of *reports*. A *source* is one origin of them, and (source, group,
identifier) is a *key*. Times are Unix seconds.

What is made for every change is a `msgspec.Struct` outside the garbage collector: it is made in a
quarter of a dataclass' time, and can be in no cycle.
"""

from __future__ import annotations

import enum
import string
from collections.abc import Mapping  # noqa: TC003 - a struct's types are looked up
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from sr_exporter.parts import Part
from sr_exporter.signals import SubjectRecord  # noqa: TC001 - a struct's types are looked up

if TYPE_CHECKING:
    from sr_exporter.signals import ReportReader

#: The identifier OpenSIPS means when none is named.
MAIN = "main"
#: The source of a push that names none; reserved in the configuration.
PUSH_SOURCE = "push"
#: The exporter's own state; reserved in the configuration.
OWN_SOURCE = "sr_exporter"
RESERVED_SOURCES = frozenset({PUSH_SOURCE, OWN_SOURCE})

INT32_MIN = -(2**31)
INT32_MAX = 2**31 - 1

#: For how long, and for how many keys at most, it is remembered when a key was removed.
TOMBSTONE_SECONDS = 86_400.0
TOMBSTONES = 100_000

#: How far an up time, told in whole seconds, may stray before it is of another life.
UPTIME_SLACK_SECONDS = 5.0

#: How many reports a pushed key keeps: the depth of OpenSIPS' script groups.
PUSHED_RING = 50
#: How many reports any key keeps at most: OpenSIPS' deepest ring (facts, section 5).
DEEPEST_RING = 200

_ASCII_LOWER = str.maketrans(string.ascii_uppercase, string.ascii_lowercase)


def fold(name: str) -> str:
    """Spell a group or identifier as OpenSIPS compares it: ASCII case does not count.

    What is spelled so already is given back itself: of a million names there is no second copy.
    """
    folded = name.lower() if name.isascii() else name.translate(_ASCII_LOWER)
    return name if folded == name else folded


class Key(NamedTuple):
    source: str
    group: str
    identifier: str

    def folded(self) -> Key:
        """Give the key under which this one is held; a source's case counts."""
        return Key(self.source, fold(self.group), fold(self.identifier))


class Report(NamedTuple):
    """One line of a ring. OpenSIPS stamps whole seconds; a push may stamp finer."""

    timestamp: float
    log: str


def is_another_life(
    uptime_seconds: float, start_time: float, before_seconds: float | None, held: float
) -> bool:
    """Say whether an up time tells of a restart (rule 13 of the design).

    `start_time` is when it says that the source started; `held` is the start that was known, and
    `before_seconds` the up time that was told last.
    """
    fell = before_seconds is not None and uptime_seconds < before_seconds
    return fell or abs(start_time - held) > UPTIME_SLACK_SECONDS


def is_ready(status: int) -> bool:
    """Say whether a status means ready, when the source did not say it itself."""
    return status > 0


def held_status(status: int, *, ready: bool = True) -> int:
    """Give the status that is held for one that was said: 0 does not exist.

    OpenSIPS turns 0 into 1. A listed 0 is a status cut to 16 bits (3.3, 3.4) whose sign only
    the readiness still tells.
    """
    if status != 0:
        return status
    return 1 if ready else -1


class OnExpiry(enum.StrEnum):
    NOT_READY = "not_ready"
    REMOVE = "remove"


class Origin(enum.StrEnum):
    """Who speaks: decides whose keys may be touched, and nothing else."""

    PUSH = "push"
    EVENT = "event"
    OWN = "own"


class Kind(enum.StrEnum):
    """What a source is to us."""

    POLLED = "polled"
    #: Configured as a sender of events, and not polled.
    EVENT = "event"
    PUSHED = "pushed"


class Way(enum.StrEnum):
    """How an event came: the closed set of the label `transport` of its counters."""

    TCP = "tcp"
    UDP = "udp"
    UNIX = "unix"
    HTTP = "http"


class Rejection(enum.StrEnum):
    """Why an event was not taken: the closed set of the label `reason` of what was rejected."""

    MALFORMED = "malformed"
    #: Whose it is cannot be told.
    UNKNOWN_PEER = "unknown_peer"
    TOO_BIG = "too_big"


class PollFailure(enum.StrEnum):
    """Why a poll failed: the closed set of the label `reason`."""

    CONNECT = "connect"
    TIMEOUT = "timeout"
    HTTP_STATUS = "http_status"
    TOO_BIG = "too_big"
    MALFORMED = "malformed"
    RPC_ERROR = "rpc_error"
    AUTH = "auth"
    UNSUPPORTED = "unsupported"


# --- observations: what a source said ------------------------------------------------------


class Statement(msgspec.Struct, frozen=True, gc=False):
    """What one push item, or one event, says of one key."""

    source: str
    group: str
    identifier: str = MAIN
    #: None when the statement carries only reports.
    status: int | None = None
    details: str | None = None
    #: A report without a timestamp is stamped when it is applied.
    reports: tuple[Report | str, ...] = ()
    ttl_seconds: float | None = None
    on_expiry: OnExpiry = OnExpiry.NOT_READY
    #: When it was true, by the pusher's clock.
    at: float | None = None
    #: The status it replaced: only SR events know it.
    old_status: int | None = None
    origin: Origin = Origin.PUSH
    #: How an event came; each way brings every change once at most. None: it is no event.
    way: Way | None = None


class ListedStatus(msgspec.Struct, frozen=True, gc=False):
    """What one identifier is listed with. Of 100,000 none is for the garbage collector to visit."""

    group: str
    identifier: str
    status: int
    ready: bool
    details: str | None


class ListedReports(NamedTuple):
    group: str
    identifier: str
    reports: tuple[Report, ...]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The answer of one poll: everything a source has, at the moment it was asked."""

    source: str
    #: `State.revision` when the request was sent: what was touched later is not overwritten.
    as_of: int
    requested_at: float
    statuses: tuple[ListedStatus, ...]
    #: Groups of which something could not be read; nothing of them is removed. One that is not
    #: held yet is known from then on, though nothing of it is.
    partial_groups: frozenset[str] = frozenset()
    #: False when whole groups may be missing: nothing at all is removed.
    complete: bool = True
    #: None when the reports could not be had.
    reports: tuple[ListedReports, ...] | None = None
    #: As it was said: whole seconds, cut.
    uptime_seconds: float | None = None
    #: When the up time was asked for; None: with the statuses.
    uptime_asked_at: float | None = None
    version: str | None = None
    transport: str = "http"
    #: Lesser failures the poll got past, each counted.
    faults: tuple[tuple[PollFailure, str], ...] = ()
    part: Part = Part.WHOLE
    #: Digests of the bytes of a listing that was read whole and without a fault.
    statuses_mark: bytes | None = None
    reports_mark: bytes | None = None
    #: The mark of what stands (known.py): statuses are given that differ from it. None: all are.
    statuses_since: bytes | None = None
    reports_stand: bool = False


@dataclass(frozen=True, slots=True)
class PollFailed:
    source: str
    requested_at: float
    reason: PollFailure
    error: str
    #: By when it will have been asked again; None: not known.
    again_by: float | None = None


@dataclass(frozen=True, slots=True)
class Checked:
    """The answer to the question for one key (`sr_get_status`)."""

    source: str
    #: As with `Snapshot`.
    as_of: int
    requested_at: float
    status: ListedStatus


class Subscribed(NamedTuple):
    """How our own subscription at a source stands."""

    #: Where events are sent, as the source was told.
    socket: str
    #: When it ends unless it is renewed; None: there is none.
    expires: float | None
    #: Why the last attempt failed; None: it did not.
    error: str | None

    def holds(self, now: float) -> bool:
        """Whether it is known to be in force."""
        return self.error is None and self.expires is not None and now < self.expires


@dataclass(frozen=True, slots=True)
class Forget:
    """Remove what is held of a source, of one of its groups, or of one identifier."""

    source: str
    group: str | None = None
    identifier: str | None = None
    #: How many keys are removed at most; None: all of them.
    most: int | None = None
    #: The source leaves the configuration: no poll brings anything of it back meanwhile.
    leaves: bool = False


@dataclass(frozen=True, slots=True)
class PolledSource:
    """What the state must know of a configured source."""

    name: str
    stale_after_seconds: float
    transport: str = "http"
    #: Where it is asked, for people to read.
    address: str = ""


@dataclass(frozen=True, slots=True)
class Configured:
    """These, and no others, are polled, and those only send events; how much may be held."""

    sources: tuple[PolledSource, ...]
    limit_identifiers: int = 1_000_000
    event_sources: tuple[str, ...] = ()
    #: Reads what is reported from now on; None: nobody does.
    reader: ReportReader | None = None
    #: Of one source: how many subjects, and identifiers; None: as many as of all.
    limit_subjects: int = 1_000
    limit_of_source: int | None = None
    #: For how long a subject is held that no text names again.
    subject_ttl_seconds: float = 86_400.0


@dataclass(frozen=True, slots=True)
class Tick:
    """Time has passed: expire and withhold what is due."""


Observation = Statement | Snapshot | Checked | PollFailed | Forget | Configured | Tick


# --- changes: what an observation altered --------------------------------------------------


class ChangeKind(enum.StrEnum):
    APPEARED = "appeared"
    STATUS = "status"
    DETAILS = "details"
    REMOVED = "removed"
    SOURCE_DOWN = "source_down"
    SOURCE_UP = "source_up"


class Change(msgspec.Struct, frozen=True, gc=False):
    """One line of the journal. `seq` has no gaps and never repeats.

    For `source_down` and `source_up` there is no group, identifier or status; the details of
    `source_down` are the error.
    """

    seq: int
    at: float
    kind: ChangeKind
    source: str
    group: str | None = None
    identifier: str | None = None
    status: int | None = None
    old_status: int | None = None
    details: str | None = None
    #: Readiness after and before; equal unless the alert on this key begins or ends.
    ready: bool | None = None
    was_ready: bool | None = None
    #: When the "not ready" (or "down") that this begins, goes on with or ends had begun.
    #: Not journalled: alerts need it, and the journal has the line that began it.
    not_ready_since: float | None = None


# --- records: what outlives the process ----------------------------------------------------


class KeyRecord(msgspec.Struct, frozen=True, gc=False):
    """A key as it is kept."""

    key: Key
    status: int
    ready: bool
    details: str | None
    #: When the number last changed or the key appeared.
    changed_at: float
    #: When the readiness last changed or the key appeared.
    ready_changed_at: float
    #: When what is held was said: `at`, else the arrival.
    stated_at: float
    changes_total: int
    reports: tuple[Report, ...]
    reports_total: int
    #: It appeared not ready, or turned so within two minutes of a restart of its source.
    early: bool
    ttl_seconds: float | None = None
    on_expiry: OnExpiry = OnExpiry.NOT_READY
    #: The time to live has run out already; nothing is due.
    expired: bool = False
    #: How many reports fitted which report rule.
    matches: Mapping[str, int] = {}
    #: What report texts call not ready.
    subjects: Mapping[str, SubjectRecord] = {}


class SourceRecord(msgspec.Struct, frozen=True, gc=False):
    """A source as it is kept."""

    name: str
    kind: Kind
    version: str = ""
    transport: str = "push"
    last_seen: float | None = None
    start_time: float | None = None
    #: Since when it is down, by polls; None while it is up or was never heard.
    down_since: float | None = None
    last_error: str | None = None
    changes_missed_total: int = 0
    report_overruns_total: int = 0
    poll_failures_total: dict[PollFailure, int] = {}
