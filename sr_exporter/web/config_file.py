"""The web configuration in force, which is that of the file as it is now.

exporter-toolkit reads the file anew for every request and connection. Here its state, and that of
the files it names, is looked at as often, and they are read when one of them is another than it
was. What is wrong then is told, and the last good one stays in force (decision 0031).
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import stat
import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, NamedTuple, Protocol

import structlog

from sr_exporter.config.parsing import read_text
from sr_exporter.config.server_tls import ClientAuth
from sr_exporter.config.web import WebConfig, load_web
from sr_exporter.errors import ConfigError, Fault

if TYPE_CHECKING:
    from pathlib import Path

    from sr_exporter.config.server_tls import ServerTls

log = structlog.get_logger(__name__)

#: A file's time is no finer than this: what was written within it may be written over unseen.
_TICK_SECONDS = 0.05
#: No certificates are so many.
MOST_BYTES = 2**24
_OPENS = "asks for less than is in force: what lets more people in takes a restart"
_RESTART = "TLS is turned on and off by a restart only"


class Teller(Protocol):
    """Is told how reading goes."""

    def web_configured(self) -> None: ...

    def web_not_configured(self) -> None: ...


class _Stamp(NamedTuple):
    """What is another when a file was written, or another is there in its stead."""

    device: int
    inode: int
    size: int
    modified_ns: int
    changed_ns: int


@dataclass(slots=True)
class _Seen:
    """The files that were read, and how they were."""

    stamps: dict[Path, _Stamp | None] = field(default_factory=dict)
    digests: dict[Path, bytes] = field(default_factory=dict)
    began: float = field(default_factory=time.time)

    def read(self, path: Path) -> str:
        """Read a file, and remember its state of before that."""
        self.stamps[path] = None
        found = path.stat()
        self.stamps[path] = _stamp(found)
        if not stat.S_ISREG(found.st_mode):
            raise OSError(errno.EINVAL, "it is no regular file")  # a FIFO would hold all up
        if found.st_size > MOST_BYTES:
            raise OSError(errno.EFBIG, os.strerror(errno.EFBIG).lower())
        text = read_text(path)
        self.digests[path] = hashlib.blake2b(text.encode()).digest()
        return text

    @property
    def is_as_before(self) -> bool:
        return all(_stamp_of(path) == seen for path, seen in self.stamps.items())

    @property
    def is_settled(self) -> bool:
        """Whether whatever is written from now on shows in a stamp."""
        newest = max((one.modified_ns for one in self.stamps.values() if one), default=0)
        return abs(self.began - newest / 1e9) > _TICK_SECONDS


def _stamp(found: os.stat_result) -> _Stamp:
    return _Stamp(found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)


def _stamp_of(path: Path) -> _Stamp | None:
    """Follow links: Kubernetes replaces a secret's files by turning one."""
    try:
        return _stamp(os.stat(path))  # noqa: PTH116 - at every request: Path.stat takes longer
    except OSError:
        return None


class WebConfigFile:
    """Gives the web configuration, and reads it again when it was written.

    Raises:
        ConfigError: it cannot be used.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._teller: Teller | None = None
        self._seen = _Seen()
        self._config = load_web(path, read_file=self._seen.read)
        self._settled = self._seen.is_settled
        self._faults: tuple[Fault, ...] = ()

    @property
    def has_tls(self) -> bool:
        """Whether connections are encrypted, which stays as it was at the start."""
        return self._config.tls is not None

    def report_to(self, teller: Teller) -> None:
        """Tell it how reading goes, from now on."""
        self._teller = teller
        teller.web_configured()
        _say("web configuration in force", self.path, self._config)

    def now(self) -> WebConfig:
        """Give what is in force: it takes a `stat` of each file."""
        if not (self._settled and self._seen.is_as_before):
            self._read_again()
        return self._config

    def tls(self) -> ServerTls:
        """Give how the next connection is encrypted, where connections are."""
        self.now()
        return self.last_tls()

    def last_tls(self) -> ServerTls:
        """Give that as it was when it was looked at last."""
        tls = self._config.tls
        if tls is None:
            raise RuntimeError("TLS is off")
        return tls

    def _read_again(self) -> None:
        before, self._seen = self._seen, _Seen()
        try:
            if self._hold_the_same(before):
                return
            config = load_web(self.path, read_file=self._seen.read)
        except ConfigError as error:
            self._refuse(error.faults)
        else:
            if faults := _opened(self._config, config):
                self._refuse(faults)
            else:
                self._put_in_force(config)
        finally:
            self._settled = self._seen.is_settled

    def _hold_the_same(self, before: _Seen) -> bool:
        """Read the files that were read before, and say whether they hold what they held."""
        if set(before.digests) == set(before.stamps):
            with contextlib.suppress(OSError, ValueError):
                for path in before.stamps:
                    self._seen.read(path)
                if self._seen.digests == before.digests:
                    return True
        self._seen = _Seen()
        return False

    def _refuse(self, faults: tuple[Fault, ...]) -> None:
        if faults == self._faults:
            return
        self._faults = faults
        if self._teller is not None:
            self._teller.web_not_configured()
        for fault in faults:
            log.error("web configuration not reloaded", file=str(self.path), fault=str(fault))

    def _put_in_force(self, config: WebConfig) -> None:
        self._faults = ()
        had = self._config
        if had.tls is not None and config.tls is None:
            # Nobody is to send a password over a connection that was encrypted until now.
            config = replace(config, tls=had.tls)
            self._half(f"{_RESTART}: connections stay encrypted, as they were")
        elif had.tls is None and config.tls is not None:
            config = replace(config, tls=None)
            self._half(f"{_RESTART}: connections are NOT encrypted until then")
        elif self._teller is not None:
            self._teller.web_configured()
        self._config = config
        _say("web configuration reloaded", self.path, config)

    def _half(self, why: str) -> None:
        if self._teller is not None:
            self._teller.web_not_configured()
        log.warning(why, file=str(self.path))


def _opened(had: WebConfig, now: WebConfig) -> tuple[Fault, ...]:
    """Say what let everybody in who was kept out; a file that is written just now may do so.

    One that is empty, or cut after any of its sections, is as good as any.
    """
    found = []
    if had.users and not now.users:
        found.append(Fault("basic_auth_users", _OPENS))
    if had.tls is not None and now.tls is not None:
        strictness = tuple(ClientAuth)
        if strictness.index(now.tls.client_auth) < strictness.index(had.tls.client_auth):
            found.append(Fault("tls_server_config.client_auth_type", _OPENS))
        if had.tls.allowed_sans is not None and now.tls.allowed_sans is None:
            found.append(Fault("tls_server_config.client_allowed_sans", _OPENS))
    return tuple(found)


def _say(event: str, path: Path, config: WebConfig) -> None:
    tls = config.tls
    log.info(
        event,
        file=str(path),
        tls=tls is not None,
        client_certificates=tls.client_auth.value if tls else "NoClientCert",
        users=len(config.users),
        rate_limit=config.rate_limit is not None,
    )
