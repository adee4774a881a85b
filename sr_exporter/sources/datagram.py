"""Events in datagrams, from OpenSIPS' event_datagram, over UDP or at a Unix socket.

Nothing can be asked to wait: what comes faster than it is taken waits in the kernel, and what finds
no room there is dropped. Over UDP the kernel counts that, and we tell; at a Unix socket OpenSIPS is
told itself, and logs it.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
import stat
import struct
from pathlib import Path
from typing import TYPE_CHECKING

import structlog

from sr_exporter.model import Rejection, Way
from sr_exporter.sources.intake import STOP_SECONDS, not_kept
from sr_exporter.sources.senders import plain
from sr_exporter.wire import events as wire
from sr_exporter.wire.text import Undecodable

if TYPE_CHECKING:
    from sr_exporter.model import Statement
    from sr_exporter.sources.intake import Intake
    from sr_exporter.sources.senders import Senders

log = structlog.get_logger(__name__)

#: No event is longer: OpenSIPS writes 65,457 bytes at most.
LIMIT_BYTES = 64 * 1024
#: How much the kernel is asked to hold for us.
BUFFER_BYTES = 8 * 2**20
#: How many are taken at once, and for how long, before others have their turn.
MOST_AT_ONCE = 256
AT_ONCE_SECONDS = 0.01
#: So many times more something is taken at an end: a sender that does not cease is cut off.
_LAST_TURNS = 100
#: So many events may wait to be kept; then the kernel holds what comes.
MOST_WAITING = 20_000

#: linux/socket.h and linux/sock_diag.h, which Python does not name.
_SO_RCVBUFFORCE = 33
_SO_MEMINFO = 55
_DROPS_AT = 8
_UINT32 = struct.Struct("=I")


class EventDatagrams:
    """One bound socket; `path` is that of a Unix one."""

    def __init__(self, intake: Intake, bound: socket.socket, path: str = "") -> None:
        self._intake = intake
        self._socket = bound
        self._path = path
        self._file = _identity(path) if path else None
        self._way = Way.UNIX if path else Way.UDP
        self._senders: Senders | None = None
        self._taken = memoryview(bytearray(LIMIT_BYTES))
        self._waiting = 0
        self._kept: set[asyncio.Future[None]] = set()
        self._open = True
        self._dropped = self._dropped_at = 0
        #: Whether the kernel (Linux 4.12 and later) tells how many it dropped.
        self.tells_drops = self._way is Way.UDP and self._drops_now() is not None

    def start(self, senders: Senders) -> None:
        """Serve these senders, from now on."""
        began = self._senders is None
        self._senders = senders
        if began:
            asyncio.get_running_loop().add_reader(self._socket, self._ready)

    def close(self) -> None:
        """Take what has come, and no more."""
        if not self._open:
            return
        self._open = False
        if self._senders is not None:
            asyncio.get_running_loop().remove_reader(self._socket)
            for _ in range(_LAST_TURNS):
                if not self._drain():
                    break
        self.dropped()
        self._socket.close()
        if self._file is not None and _identity(self._path) == self._file:
            with contextlib.suppress(OSError):
                Path(self._path).unlink()

    def lost(self) -> bool:
        """Whether the file of a Unix socket is gone, or is another."""
        return bool(self._path) and _identity(self._path) != self._file

    async def closed(self) -> None:
        """Wait until all that was taken is kept, or cannot be, or time is up."""
        if self._kept:
            await asyncio.wait(self._kept, timeout=STOP_SECONDS)

    def dropped(self) -> int:
        """Give how many datagrams the kernel had no room for, as far as it tells."""
        now = self._drops_now()
        if now is not None:
            # It goes round at 2^32.
            self._dropped += (now - self._dropped_at) % 2**32
            self._dropped_at = now
        return self._dropped

    def _drops_now(self) -> int | None:
        try:
            known = self._socket.getsockopt(socket.SOL_SOCKET, _SO_MEMINFO, 64)
            return int(_UINT32.unpack_from(known, _DROPS_AT * _UINT32.size)[0])
        except (OSError, struct.error):
            return None

    def _ready(self) -> None:
        self._drain()
        if self._waiting >= MOST_WAITING:
            asyncio.get_running_loop().remove_reader(self._socket)

    def _drain(self) -> int:
        """Take what is there, but not for long; give how many datagrams that was."""
        loop = asyncio.get_running_loop()
        until = loop.time() + AT_ONCE_SECONDS
        events: list[Statement] = []
        seen = 0
        while seen < MOST_AT_ONCE:
            try:
                # With MSG_TRUNC it is told how long a datagram was that did not fit.
                size, sender = self._socket.recvfrom_into(
                    self._taken, LIMIT_BYTES, socket.MSG_TRUNC
                )
            except (BlockingIOError, InterruptedError):
                break
            except OSError as error:
                log.debug("no datagram", error=str(error))
                break
            seen += 1
            if (event := self._read(size, sender)) is not None:
                events.append(event)
            if loop.time() >= until:
                break
        if events:
            self._keep(events)
        return seen

    def _read(self, size: int, sender: tuple[str, int] | str | None) -> Statement | None:
        """Make a statement of the datagram that was just taken; None: it is refused."""
        senders = self._senders
        if self._path:
            peer = self._path
            source = senders.over_unix(peer) if senders else None
        else:
            address = plain(sender[0]) if sender else ""
            peer = f"{address} port {sender[1]}" if sender else ""
            source = senders.over_udp(address) if senders else None
        if source is None:
            self._refuse(Rejection.UNKNOWN_PEER, peer, "the address is not in events.peers")
            return None
        if size > LIMIT_BYTES:
            self._refuse(Rejection.TOO_BIG, peer, f"{size} bytes")
            return None
        try:
            event = wire.event(bytes(self._taken[:size]))
        except Undecodable as error:
            self._refuse(Rejection.MALFORMED, peer, str(error))
            return None
        if event.method != wire.EVENT:  # only event_stream knows names of ours
            self._refuse(Rejection.MALFORMED, peer, f"another event: {event.method}")
            return None
        return event.params.statement(source, self._way)

    def _refuse(self, reason: Rejection, peer: str, said: str) -> None:
        self._intake.refuse(self._way, reason, peer, said)

    def _keep(self, events: list[Statement]) -> None:
        kept = self._intake.take(events)
        count = len(events)
        self._waiting += count
        self._kept.add(kept)
        kept.add_done_callback(lambda kept: self._done(kept, count))

    def _done(self, kept: asyncio.Future[None], count: int) -> None:
        self._kept.discard(kept)
        if (error := not_kept(kept)) is not None:
            log.debug("events not kept yet", error=error)
        full = self._waiting >= MOST_WAITING
        self._waiting -= count
        if full and self._waiting < MOST_WAITING and self._open:
            asyncio.get_running_loop().add_reader(self._socket, self._ready)


def enlarge(bound: socket.socket, name: str, wanted: int = BUFFER_BYTES) -> None:
    """Have the kernel hold more for a socket; say so where it is less than was asked for."""
    try:
        bound.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, wanted)
    except OSError:  # for this, one must be root (CAP_NET_ADMIN)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, wanted)
    # The kernel gives twice what it grants: half is for its own accounts (socket(7)).
    got = bound.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) // 2
    if got < wanted:
        log.warning(
            "receive buffer smaller than wanted: raise net.core.rmem_max",
            listening=name,
            bytes=got,
            wanted=wanted,
        )


def bind_unix(path: str) -> socket.socket:
    """Bind a Unix datagram socket, in the place of one that nobody listens on any more.

    Raises:
        OSError: it cannot be; somebody listens there, or it is another kind of file.
    """
    _clear(path)
    bound = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    try:
        bound.setblocking(False)
        bound.bind(path)
        # To send is to write to it, as another user; who may is decided by its folder.
        Path(path).chmod(0o666)
    except OSError:
        bound.close()
        raise
    return bound


def _clear(path: str) -> None:
    try:
        found = Path(path).lstat()
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(found.st_mode):
        raise OSError(0, "it is there, and is no socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            Path(path).unlink()
            return
        except OSError as error:
            if error.errno != errno.EPROTOTYPE:  # a stream socket, which somebody listens on
                raise
    raise OSError(0, "somebody listens there")


def _identity(path: str) -> tuple[int, int] | None:
    """Tell one file from another that came to the same name; None: there is none."""
    try:
        found = Path(path).lstat()
    except OSError:
        return None
    return found.st_dev, found.st_ino
