"""The events that real servers sent: each as the bytes of one read or datagram."""

from __future__ import annotations

import re
from pathlib import Path

RECORDINGS = Path(__file__).parent / "recordings"
_LINE = re.compile(rb"@[\d.]+ (\d+) [^\n]*\n")


def logs(transport: str) -> list[Path]:
    """Give every log of a transport (tcp, udp, unix), of all versions."""
    return sorted(RECORDINGS.glob(f"*/events*/ev-{transport}.log"))


def reads(path: Path) -> list[bytes]:
    """Give what a log holds, read by read: a line with time and length, then so many bytes."""
    data, found, at = path.read_bytes(), [], 0
    while at < len(data):
        line = _LINE.match(data, at)
        assert line, f"{path}: no header at byte {at}: {data[at : at + 40]!r}"
        end = line.end() + int(line[1])
        found.append(data[line.end() : end])
        assert len(found[-1]) == int(line[1])
        at = end + (data[end : end + 1] == b"\n")
    return found


def posts() -> list[Path]:
    """Give every log of rest_post, of all versions and of all that was recorded."""
    return sorted(RECORDINGS.glob("*/ev*/ev-http.log"))
