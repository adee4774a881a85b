"""Users and their passwords: who says that he is one of them, and whether that is so.

A password is hashed on a thread, one at a time, since that takes tens of milliseconds of a
processor; what came of it is remembered. Whether a user is there makes no difference in time
(facts on exporter-toolkit, section 4).
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import hmac
import os
from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

import bcrypt

from sr_exporter.threads import Pool

if TYPE_CHECKING:
    from collections.abc import Mapping

#: How many passwords may wait to be hashed, and how many of one address: a stranger must not be
#: able to fill the line for everybody.
MOST_WAITING = 16
MOST_OF_ONE = 4
#: How many wrong passwords are remembered.
MOST_WRONG = 4096
#: bcrypt looks at no more. The package refuses what is longer; others cut it off.
_LONGEST_PASSWORD = 72


class Busy(Exception):  # noqa: N818 - named for what befell the caller
    """Too many passwords wait to be hashed."""


class Credentials(NamedTuple):
    user: bytes
    password: bytes


def basic(authorization: bytes) -> Credentials | None:
    """Read an Authorization header of the scheme Basic; None if it is another, or none."""
    scheme, _, said = authorization.partition(b" ")
    if scheme.lower() != b"basic":
        return None
    try:
        user, colon, password = base64.b64decode(said.strip(), validate=True).partition(b":")
    except (binascii.Error, ValueError):
        return None
    return Credentials(user, password) if colon else None


class Users:
    """Knows who is who."""

    def __init__(self) -> None:
        self._pool = Pool(1, thread_name_prefix="bcrypt")
        #: What is remembered is worth nothing to who reads this process' memory later.
        self._key = os.urandom(32)
        #: Apart, and so no flood of wrong passwords has the right ones forgotten.
        self._right: dict[bytes, bytes] = {}
        self._wrong: dict[bytes, None] = {}
        self._running: dict[bytes, asyncio.Future[bool]] = {}
        self._waiting: Counter[str] = Counter()

    async def knows(
        self, users: Mapping[bytes, bytes], said: Credentials, address: str = ""
    ) -> bool:
        """Say whether somebody is one of the users.

        Raises:
            Busy: too many ask at once.
        """
        is_user = said.user in users
        hashed = users[said.user] if is_user else self._stand_in(users, said.user)
        digest = self._digest(said, hashed)
        if is_user and hmac.compare_digest(self._right.get(said.user, b""), digest):
            return True
        if digest in self._wrong:
            return False
        matches = await self._hash(digest, said.password, hashed, address)
        if is_user and matches:
            if len(self._right) >= len(users):
                self._right = {user: self._right[user] for user in users if user in self._right}
            self._right[said.user] = digest
            return True
        self._wrong[digest] = None
        if len(self._wrong) > MOST_WRONG:
            del self._wrong[next(iter(self._wrong))]
        return False

    def _stand_in(self, users: Mapping[bytes, bytes], user: bytes) -> bytes:
        """Give the hash of one of the users, always the same one, for somebody who is none.

        A hash of our own would tell itself by its cost wherever the users' have another.
        """
        hashes = sorted(users.values())
        drawn = hashlib.blake2b(user, key=self._key, digest_size=8).digest()
        return hashes[int.from_bytes(drawn) % len(hashes)]

    def _digest(self, said: Credentials, hashed: bytes) -> bytes:
        what = b"%d:%b%b%b" % (len(said.user), said.user, hashed, said.password)
        return hashlib.blake2b(what, key=self._key, digest_size=32).digest()

    async def _hash(self, digest: bytes, password: bytes, hashed: bytes, address: str) -> bool:
        running = self._running.get(digest)
        if running is None:
            if len(self._running) >= MOST_WAITING or self._waiting[address] >= MOST_OF_ONE:
                raise Busy
            running = self._begin(digest, password, hashed, address)
        return await asyncio.shield(running)  # others may wait for it, when this one goes away

    def _begin(
        self, digest: bytes, password: bytes, hashed: bytes, address: str
    ) -> asyncio.Future[bool]:
        loop = asyncio.get_running_loop()
        try:
            running = loop.run_in_executor(self._pool, _matches, password, hashed)
        except RuntimeError:  # no thread can be had, or the exporter stops
            raise Busy from None
        self._running[digest] = running
        self._waiting[address] += 1

        def ended(_: asyncio.Future[bool]) -> None:
            del self._running[digest]
            self._waiting[address] -= 1
            if not self._waiting[address]:
                del self._waiting[address]

        running.add_done_callback(ended)
        return running


def _matches(password: bytes, hashed: bytes) -> bool:
    try:
        same = bcrypt.checkpw(password[:_LONGEST_PASSWORD], hashed)
    except ValueError:  # a NUL in it, for versions that take none
        return False
    return same and b"\0" not in password  # others read no further than that
