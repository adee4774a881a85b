"""The recorded exchanges with the Management Interface of real servers, and their state.

In `tests/recordings/VERSION/http`, NAME.req holds the bytes that were sent, NAME.res those that
came back. Marks tell what bytes cannot:

* `<<SPLIT>>` in a request: it was sent in two parts, cut here.
* `<<TIMEOUT>>` at the end of an answer: nothing more came, and the connection stayed open.
* `<<CLOSED, NO BYTES>>`: the server closed the connection instead of answering.
* `<<2>>` on a line of its own: the second request was sent here, on the same connection.

The recorder read to the end of the first answer by its Content-Length, and no further.

Over datagrams (`dgram`) and named pipes (`fifo`) an answer is its bytes, or `<<TIMEOUT>>`.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sr_exporter.simulator.node import SimulatedNode
from sr_exporter.simulator.releases import OLD_NAMES, Release
from sr_exporter.wire.answers import Names

if TYPE_CHECKING:
    from collections.abc import Iterable

RECORDINGS = Path(__file__).parent / "recordings"
#: `master` is 4.1-dev.
VERSIONS = ("3.6", "4.0", "master")

SPLIT = b"<<SPLIT>>"
TIMEOUT = b"<<TIMEOUT>>"
CLOSED = b"<<CLOSED, NO BYTES>>"
SECOND = b"\n<<2>>\n"
#: What is sent instead of an answer that is too long for a datagram.
TOO_BIG = b"500 Internal error"

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"

_DATE = re.compile(rb"(?<=\r\nDate: )[^\r]*")

#: Recordings of other modules' methods, which nothing here answers.
OTHER_METHODS = {
    "events_list": "the event interface",
    "get_statistics-all": "statistics",
    "get_statistics-load": "statistics",
    "get_statistics-pos": "statistics",
    "get_statistics-sr": "statistics",
    "help-sr": "texts of the manual",
    "help-sr-new": "texts of the manual",
    "list_statistics": "statistics",
    "ps": "the list of processes",
}
#: Recordings of another HTTP service under the same port.
OTHER_SERVICES = {
    "metrics": "the prometheus module",
    "metrics-POST": "the prometheus module",
}


@dataclass(frozen=True)
class Exchange:
    version: str
    name: str
    service: str = "http"

    def __str__(self) -> str:
        return f"{self.version}/{self.name}"

    @property
    def request(self) -> bytes:
        return self._read("req")

    @property
    def answer(self) -> bytes:
        return self._read("res")

    @property
    def answer_body(self) -> bytes:
        if self.service != "http":
            return self.answer
        answer = self.answer.removeprefix(CONTINUE).partition(SECOND)[0].removesuffix(TIMEOUT)
        return answer.partition(b"\r\n\r\n")[2]

    @property
    def status(self) -> int | None:
        """The status of the last answer; None without one. A `100 Continue` is no answer."""
        found = re.findall(rb"^HTTP/1.1 ([2-5]\d\d)", self.answer, re.MULTILINE)
        return int(found[-1]) if found else None

    def _read(self, suffix: str) -> bytes:
        return (RECORDINGS / self.version / self.service / f"{self.name}.{suffix}").read_bytes()


def exchanges(*, without: Iterable[str] = (), service: str = "http") -> list[Exchange]:
    """Give all exchanges of all versions but those named."""
    return [
        Exchange(version, path.stem, service)
        for version in VERSIONS
        for path in sorted((RECORDINGS / version / service).glob("*.req"))
        if path.stem not in without
    ]


def without_date(answer: bytes) -> bytes:
    return _DATE.sub(b"", answer)


def result(version: str, name: str, service: str = "http") -> Any:
    """Give the result that a recorded answer holds."""
    return json.loads(Exchange(version, name, service).answer_body)["result"]


@cache
def release(version: str) -> Release:
    server = result(version, "version")["Server"]
    return Release(
        server.removeprefix("OpenSIPS (").partition(" ")[0],
        Names(tuple(result(version, "which")), OLD_NAMES),
    )


def asked_at(version: str) -> float:
    """When the recorded `uptime` was asked."""
    return _timestamp(result(version, "uptime")["Now"])


def recorded_node(version: str, service: str = "http") -> SimulatedNode:
    """Build the node that a version's listings show. All its recordings agree with them.

    Reports that were too many for a datagram are those that went through a pipe.
    """
    node = SimulatedNode(release(version))
    node.up = True
    node.started_at = _timestamp(result(version, "uptime")["Up since"])
    for group in reversed(result(version, "status-noparams", service)):
        for identifier in reversed(group["Identifiers"]):
            node.register(
                group["Name"], identifier["Name"], identifier["Status"], identifier.get("Details")
            )
    if Exchange(version, "reports-noparams", service).answer == TOO_BIG:
        service = "fifo"
    for group in result(version, "reports-noparams", service):
        for identifier in group["Identifiers"]:
            for report in identifier["Reports"]:
                node.add_report(
                    group["Name"], identifier["Name"], report["Log"], report["Timestamp"]
                )
    return node


def _timestamp(ctime: str) -> float:
    return datetime.strptime(ctime, "%a %b %d %H:%M:%S %Y").replace(tzinfo=UTC).timestamp()
