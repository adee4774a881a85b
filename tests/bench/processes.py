"""The programs that are measured, each a process of its own."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import shutil
import signal
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Self

import requests

from tests.harness import Command, eventually, free_port, process

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from tests.bench.held import Held

_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")
#: A million keys take a while to push, and a peer longer.
LONG_SECONDS = 600.0


def rss_bytes(pid: int) -> int:
    """Give how much memory of a process is resident."""
    return int(Path(f"/proc/{pid}/statm").read_text("ascii").split()[1]) * _PAGE


def cpu_seconds(pid: int) -> float:
    """Give how long all threads of a process have computed."""
    fields = Path(f"/proc/{pid}/stat").read_text("ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def found(program: str) -> str | None:
    """Give where a program is, also one that only root has in its path."""
    return shutil.which(program, path=os.environ.get("PATH", "") + ":/usr/sbin")


class Exporter(Command):
    """Ours: the real command, pushed to over HTTP."""

    def __init__(self, folder: Path, settings: Mapping[str, object] | None = None) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.storage = folder / "data"
        file = folder / "sr.yml"
        # The exporter's own keys count, too.
        file.write_text(json.dumps({"limits": {"identifiers": 10_000_000}, **(settings or {})}))
        super().__init__(f"--storage.path={self.storage}", f"--config.file={file}")

    def __enter__(self) -> Self:
        super().__enter__()
        self.wait_ready(LONG_SECONDS)
        return self

    def push(self, bodies: Iterable[bytes]) -> None:
        """Push one body after the other."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=LONG_SECONDS)
        with contextlib.closing(connection):
            for body in bodies:
                connection.request("POST", "/api/v1/push", body)
                answer = connection.getresponse()
                said = answer.read()
                if answer.status != 200:
                    raise RuntimeError(f"a push was answered {answer.status}: {said[:500]!r}")

    def value(self, name: str) -> float:
        """Give the value of one of its metrics that has no labels."""
        answer = self.client.session.get(f"{self.base}/metrics", params={"name[]": name})
        return float(answer.text.split()[-1])

    def end(self) -> None:
        """Have it stop in good order, with all it holds kept."""
        self.signal(signal.SIGTERM)
        if self.wait(LONG_SECONDS) != 0:
            raise RuntimeError(f"it did not stop in good order: {self.said}")


class Peer:
    """Another program that answers HTTP; `with` runs it, and it is ready then."""

    def __init__(self, folder: Path, *arguments: str, port: int, ready: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._arguments = arguments
        self._ready = ready
        self.port = port
        self.base = f"http://127.0.0.1:{port}"

    def __enter__(self) -> Self:
        with ExitStack() as running:
            self.session = running.enter_context(requests.Session())
            self.session.trust_env = False
            log = self._folder / "log"
            started = running.enter_context(process(*self._arguments, log=log))
            self.pid = started.pid
            self._process = started
            eventually(self._answers, within=LONG_SECONDS)
            self._running = running.pop_all()
        return self

    def __exit__(self, *failed: object) -> None:
        self._running.close()

    def end(self) -> None:
        """Have it stop in good order, however long that takes."""
        self._process.terminate()
        self._process.wait(LONG_SECONDS)

    def _answers(self) -> bool:
        if self._process.poll() is not None:
            raise RuntimeError(f"it ended: {(self._folder / 'log').read_text()[-2000:]}")
        try:
            return self.session.get(self.base + self._ready, timeout=LONG_SECONDS).ok
        except requests.ConnectionError:
            return False


class Pushgateway(Peer):
    """Debian's. `checked` is its default: every push is checked against all that is held."""

    program = "prometheus-pushgateway"

    def __init__(self, folder: Path, *, checked: bool = True, kept: Path | None = None) -> None:
        port = free_port()
        arguments = [found(self.program) or self.program, f"--web.listen-address=127.0.0.1:{port}"]
        if not checked:
            arguments.append("--push.disable-consistency-check")
        if kept is not None:
            arguments.append(f"--persistence.file={kept}")
        super().__init__(folder, *arguments, port=port, ready="/-/ready")

    def fill(self, held: Held) -> None:
        """Give it one series for each key, a source at a time."""
        for source, text in held.one_series_each():
            where = f"{self.base}/metrics/job/sr/source/{source}"
            self.session.put(where, data=text, timeout=LONG_SECONDS).raise_for_status()


class Nginx(Peer):
    """Serves one file as it is, as an answer that is compressed already."""

    program = "nginx"

    def __init__(self, folder: Path, file: Path) -> None:
        port = free_port()
        settings = folder / "nginx.conf"
        folder.mkdir(parents=True, exist_ok=True)
        user = "user root;" if os.geteuid() == 0 else ""
        kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        places = " ".join(f"{kind}_temp_path {folder / kind};" for kind in kinds)
        settings.write_text(
            f"daemon off; {user} worker_processes 1; pid {folder / 'pid'}; error_log stderr;\n"
            f"events {{}}\nhttp {{ access_log off; sendfile on; {places}\n"
            f"server {{ listen 127.0.0.1:{port}; root {file.parent};\n"
            "default_type text/plain; add_header Content-Encoding gzip; } }\n"
        )
        arguments = (found(self.program) or self.program, "-p", str(folder), "-c", str(settings))
        # Asked for what is there it would have it decompressed.
        super().__init__(folder, *arguments, port=port, ready="/" + file.name)

    def _answers(self) -> bool:
        try:
            with self.session.get(self.base + self._ready, stream=True, timeout=10) as answer:
                return answer.ok
        except requests.ConnectionError:
            return False


class Floor(Peer):
    """The barest program that does the same work: floor.py."""

    def __init__(self, folder: Path, work: str, what: Path) -> None:
        port = free_port()
        program = (sys.executable, "-m", "tests.bench.floor", work, str(what), str(port))
        super().__init__(folder, *program, port=port, ready="/ready")
