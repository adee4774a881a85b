"""The command `sr-exporter`, started in a few hundredths of a second: a copy of one that waits.

To import all of it takes most of a second, and a thousand kills want a thousand starts. So one
process imports it once, and is copied (fork) for each: what runs then is the command itself, from
the reading of its arguments on, in a process of its own.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import importlib
import json
import os
import signal
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Self

from tests.harness import Client, Command, eventually

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path
    from types import TracebackType

#: What the command imports only when it serves.
_LATER = (
    "uvicorn.protocols.http.httptools_impl",
    "uvicorn.lifespan.off",
    "uvloop",
    "isal.isal_zlib",
)
LEAST_RETENTION_SECONDS = 1.0


class Original:
    """The process that is copied; `with` starts and ends it.

    The copies take a retention of seconds: an hour is too long for who wants to see what it does.
    `bounds` are others of the exporter's own, each `module:NAME`, that are to be met sooner.
    """

    def __init__(self, bounds: Mapping[str, float] | None = None) -> None:
        self._bounds = dict(bounds or {})
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.copies", json.dumps(self._bounds)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(10)
        self._process.stdout.close()

    def start(self, arguments: list[str], output: Path) -> Copy:
        """Run the command with its output in a file."""
        return Copy(self, self.ask("start", arguments, str(output)))

    def ask(self, *what: object) -> int:
        with self._lock:
            assert self._process.stdin is not None
            assert self._process.stdout is not None
            self._process.stdin.write(json.dumps(what) + "\n")
            self._process.stdin.flush()
            answer: int = json.loads(self._process.stdout.readline())
            return answer


#: What is answered for one that still runs; no exit status is so low.
_RUNS = -1000
#: For prctl(2): be sent a signal when the process that made this one ends.
_PR_SET_PDEATHSIG = 1


class Copy:
    """One copy, as far as `Popen` tells of a process."""

    def __init__(self, original: Original, pid: int) -> None:
        self._original = original
        self.pid = pid
        self.returncode: int | None = None

    def poll(self) -> int | None:
        if self.returncode is None:
            status = self._original.ask("status", self.pid)
            self.returncode = None if status == _RUNS else status
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.returncode is None:  # nobody else has its number before it was asked for
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def wait(self, within: float = 20.0) -> int:
        eventually(lambda: self.poll() is not None, within=within, every=0.002)
        assert self.returncode is not None
        return self.returncode


class Copied(Command):
    """As `Command`, of a copy; `with` kills what is left of it."""

    def __init__(self, original: Original, *arguments: str, port: int, log: Path) -> None:
        super().__init__(*arguments, port=port)
        self._original = original
        self._log = log

    def __enter__(self) -> Self:
        arguments = [*self.arguments, f"--web.listen-address=127.0.0.1:{self.port}"]
        self.process = self._original.start(arguments, self._log)  # type: ignore[assignment]
        self.client = Client(self.base)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.client.close()
        self.process.kill()
        self.wait()

    @property
    def said(self) -> str:
        return self._log.read_text("utf-8", "replace")

    def wait(self, within: float = 20.0) -> int:
        return self.process.wait(within)


def _main() -> None:
    from sr_exporter.config import keys

    for name in ("sr_exporter.cli", *_LATER):
        importlib.import_module(name)
    keys.SPANS["retention"] = (LEAST_RETENTION_SECONDS, keys.SPANS["retention"][1])
    for name, value in json.loads(sys.argv[1]).items():
        module, _, constant = name.partition(":")
        there = importlib.import_module(module)
        getattr(there, constant)  # a bound that is called otherwise by now would bind nothing
        setattr(there, constant, value)
    gc.collect()
    gc.freeze()
    ended: dict[int, int] = {}
    for line in sys.stdin:
        match json.loads(line):
            case ["start", arguments, output]:
                answer = _copy(arguments, output)
                ended.pop(answer, None)  # somebody had its number before
            case ["status", pid]:
                if pid not in ended:
                    found, status = os.waitpid(pid, os.WNOHANG)
                    if found:
                        ended[pid] = os.waitstatus_to_exitcode(status)
                answer = ended.get(pid, _RUNS)
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


def _copy(arguments: list[str], output: str) -> int:
    pid = os.fork()
    if pid:
        return pid
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    said = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for own, instead in ((0, nothing), (1, said), (2, said)):
        os.dup2(instead, own)
    os.close(said)
    os.close(nothing)
    status = 1
    try:
        importlib.import_module("sr_exporter.cli").main(arguments)
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else 1
    except BaseException:  # noqa: BLE001 - it must not go on as the original
        sys.excepthook(*sys.exc_info())
    os._exit(status)


if __name__ == "__main__":
    _main()
