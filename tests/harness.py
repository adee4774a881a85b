"""Runs the exporter for tests: inside this process, or as the real command."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self, TypeVar

import requests
from prometheus_client.parser import text_string_to_metric_families

from sr_exporter.app import App, Options
from sr_exporter.config import Config, load
from sr_exporter.web.config_file import WebConfigFile
from sr_exporter.web.server import Address

if TYPE_CHECKING:
    import signal
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path
    from types import TracebackType

T = TypeVar("T")

Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def free_port() -> int:
    """Give a port of 127.0.0.1 that was free a moment ago."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
    return port


def eventually(look: Callable[[], T], *, within: float = 10.0, every: float = 0.005) -> T:
    """Look until what is seen is truthy, and give it; fail when that takes too long."""
    deadline = time.monotonic() + within
    while True:
        seen = look()
        if seen:
            return seen
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {within} s; last seen: {seen!r}")
        time.sleep(every)


def samples(text: str) -> Samples:
    """Read an exposition in text format: (name, sorted labels) to value."""
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def series(found: Samples, name: str, **labels: str) -> dict[tuple[tuple[str, str], ...], float]:
    """Give the series of one name that bear these labels."""
    wanted = set(labels.items())
    return {
        key[1]: value for key, value in found.items() if key[0] == name and wanted <= set(key[1])
    }


class Client:
    """Speaks to a running exporter."""

    def __init__(self, base: str) -> None:
        self.base = base
        self.session = requests.Session()
        self.session.trust_env = False

    def metrics(self) -> Samples:
        answer = self.session.get(f"{self.base}/metrics", timeout=10)
        answer.raise_for_status()
        return samples(answer.text)

    def push(self, *items: dict[str, object], **headers: str) -> requests.Response:
        return self.session.post(
            f"{self.base}/api/v1/push", json=list(items), headers=headers, timeout=10
        )

    def reload(self, **headers: str) -> requests.Response:
        return self.session.post(f"{self.base}/-/reload", headers=headers, timeout=30)

    def delete(self, path: str) -> requests.Response:
        return self.session.delete(f"{self.base}/api/v1/sources/{path}", timeout=10)

    def close(self) -> None:
        self.session.close()


@dataclass
class RunningApp:
    """The exporter on a thread with a loop of its own, on a free port; `with` runs it."""

    storage: Path
    config: Config = field(default_factory=Config)
    clock: Callable[[], float] = time.time
    external_url: str = "http://sr.example"
    #: Read at the start instead of `config`, and at each reload.
    config_file: Path | None = None
    #: The web configuration; with TLS the tests know the authority of web_config.py.
    web_config: Path | None = None
    #: Gives what a reload puts in force, in its stead.
    read_config: Callable[[], Config] | None = None
    #: Where it listens; "" is every address of this machine.
    host: str = "127.0.0.1"

    def __enter__(self) -> Self:
        self._stop: asyncio.Event | None = None
        self._error: BaseException | None = None
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        assert self._ready.wait(20), "the exporter did not start"
        if self._error is not None:
            raise self._error
        scheme = "https" if self._web is not None and self._web.has_tls else "http"
        self.base = f"{scheme}://127.0.0.1:{self.port}"
        self.client = Client(self.base)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.client.close()
        assert self._stop is not None
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(20)
        assert not self._thread.is_alive(), "the exporter did not stop"
        if self._error is not None and error is None:
            raise self._error

    def _run(self) -> None:
        try:
            asyncio.run(self._main())
        except BaseException as error:  # noqa: BLE001 - handed to the test's thread
            self._error = error
        finally:
            self._ready.set()

    async def _main(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        self._web = WebConfigFile(self.web_config) if self.web_config is not None else None
        options = Options(
            [Address(self.host, 0)],
            self.storage,
            self.external_url,
            self._read(),
            self._read,
            self._web,
        )

        def ready(sockets: Sequence[socket.socket]) -> None:
            self.port = sockets[0].getsockname()[1]
            self._ready.set()

        self.app = App(options, self.clock, ready)
        await self.app.run(self._stop)

    def _read(self) -> Config:
        if self.read_config is not None:
            return self.read_config()
        return self.config if self.config_file is None else load(self.config_file)


class Command:
    """The command `sr-exporter` as a process of its own; `with` kills what is left of it.

    `prefix` is a program, with its arguments, that runs it in surroundings of its own.
    """

    def __init__(
        self, *arguments: str, port: int | None = None, prefix: Sequence[str] = ()
    ) -> None:
        self.port = port or free_port()
        self.base = f"http://127.0.0.1:{self.port}"
        self.arguments = arguments
        self.prefix = prefix
        self.output: list[str] = []

    def __enter__(self) -> Self:
        environment = {**os.environ, "PYTHONUNBUFFERED": ""}
        self.process = subprocess.Popen(
            [
                *self.prefix,
                *(sys.executable, "-m", "sr_exporter"),
                *self.arguments,
                f"--web.listen-address=127.0.0.1:{self.port}",
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=environment,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self.client = Client(self.base)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.client.close()
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(10)
        self._reader.join(10)
        assert self.process.stdout is not None
        self.process.stdout.close()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.output.append(line.rstrip("\n"))

    @property
    def said(self) -> str:
        return "\n".join(self.output)

    def wait_ready(self, within: float = 20.0) -> None:
        def ready() -> bool:
            assert self.process.poll() is None, f"it ended: {self.said}"
            # It takes connections before it answers: until what it starts with is in force.
            with contextlib.suppress(requests.ConnectionError, requests.Timeout):
                return self.client.session.get(f"{self.base}/-/ready", timeout=5).ok
            return False

        eventually(ready, within=within)

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def wait(self, within: float = 20.0) -> int:
        """Wait for its end; give its exit status."""
        status = self.process.wait(within)
        self._reader.join(10)
        return status


@contextlib.contextmanager
def process(*arguments: str, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run a real program, its output in a file; it is ended by its pid."""
    with log.open("wb") as out:
        running = subprocess.Popen(arguments, stdout=out, stderr=subprocess.STDOUT)
        try:
            yield running
        finally:
            running.terminate()
            try:
                running.wait(10)
            except subprocess.TimeoutExpired:
                running.kill()
                running.wait(10)
