"""What SQLite's files say of their pages, read without SQLite and without touching them.

By it a database that lacks some of its pages is told from one that is whole. A crash in the
middle of a checkpoint leaves a main file that is shorter than it should be, and is whole all the
same: the pages it lacks are in the write-ahead log. Formats: sqlite.org/fileformat2.html,
sections 1.3 and 4.
"""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO

if TYPE_CHECKING:
    from pathlib import Path

MAGIC = b"SQLite format 3\0"
HEADER_BYTES = 100

_LOG_HEADER = struct.Struct(">8I")
_FRAME_HEADER = struct.Struct(">6I")
#: The low bit tells in which order bytes are summed.
_LOG_MAGIC = 0x377F0682
#: How many frames of a log are summed: a quarter of a second in Python. After these the
#: salts are trusted, which tell a log's own frames from what an earlier log left behind them.
_FRAMES_SUMMED = 1000
#: SQLite never stores anything in the page that holds this byte: locks are taken there.
_LOCK_BYTE = 0x40000000


@dataclass(frozen=True, slots=True)
class Log:
    """What is committed in a write-ahead log."""

    page_bytes: int
    #: The pages it brings.
    pages: set[int]
    #: How many pages the database has since its last commit.
    size: int


def page_bytes(header: bytes) -> int | None:
    """Give the size of the pages, or None where the header is none of SQLite's."""
    if len(header) < HEADER_BYTES or not header.startswith(MAGIC):
        return None
    found = int.from_bytes(header[16:18])
    found = 65536 if found == 1 else found
    return found if found >= 512 and found.bit_count() == 1 else None


def lacking(header: bytes, file_bytes: int, log: Log | None) -> int:
    """Give how many pages of the database are in neither of its files."""
    size = page_bytes(header)
    if size is None:
        return 0
    if log is not None and log.page_bytes == size:
        pages, brought = log.size, log.pages
    elif header[24:28] == header[92:96]:
        pages, brought = int.from_bytes(header[28:32]), set()
    else:
        return 0  # the header does not say
    locks = _LOCK_BYTE // size + 1
    whole = file_bytes // size
    return sum(page not in brought and page != locks for page in range(whole + 1, pages + 1))


def read_log(path: Path) -> Log | None:
    """Read a write-ahead log; None when nothing in it is committed."""
    try:
        with path.open("rb") as file:
            return _read_log(file)
    except FileNotFoundError:
        return None


def _read_log(file: BinaryIO) -> Log | None:
    end = os.fstat(file.fileno()).st_size
    head = file.read(_LOG_HEADER.size)
    if len(head) < _LOG_HEADER.size:
        return None
    magic, _, page, _, *salts, sum0, sum1 = _LOG_HEADER.unpack(head)
    order = ">" if magic & 1 else "<"
    sums = _sum(order, (0, 0), head[:24])
    if magic & ~1 != _LOG_MAGIC or sums != (sum0, sum1) or page < 512:
        return None
    committed: set[int] = set()
    gathered: set[int] = set()
    size = frames = 0
    while len(head := file.read(_FRAME_HEADER.size)) == _FRAME_HEADER.size:
        number, commits, *found, sum0, sum1 = _FRAME_HEADER.unpack(head)
        if found != salts:
            break
        if file.tell() + page > end:
            break
        if frames < _FRAMES_SUMMED:
            body = file.read(page)
            sums = _sum(order, _sum(order, sums, head[:8]), body)
            if sums != (sum0, sum1):
                break
        else:
            file.seek(page, 1)
        frames += 1
        gathered.add(number)
        if commits:
            committed |= gathered
            gathered.clear()
            size = commits
    return Log(page, committed, size) if size else None


def _sum(order: str, sums: tuple[int, int], data: bytes) -> tuple[int, int]:
    """Go on with a log's checksum over more of it."""
    first, second = sums
    words = struct.unpack(f"{order}{len(data) // 4}I", data)
    for even, odd in zip(words[::2], words[1::2], strict=True):
        first = (first + even + second) & 0xFFFFFFFF
        second = (second + odd + first) & 0xFFFFFFFF
    return first, second
