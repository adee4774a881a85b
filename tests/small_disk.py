"""A disk that is soon full."""

from __future__ import annotations

import errno
import os
import subprocess
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Self

import pytest

from tests.harness import Client
from tests.real_parts import program

if TYPE_CHECKING:
    from types import TracebackType


class SmallDisk:
    """A tmpfs of a few megabytes, mounted for its own processes only: it is gone with them.

    Root may mount one, and whoever may have a user namespace is root in there. Where neither
    is so the test is skipped, or fails with CI set.
    """

    def __init__(self, folder: Path, *, megabytes: int) -> None:
        folder.mkdir()
        self.path = folder
        self._options = f"size={megabytes}m,mode=700"

    def __enter__(self) -> Self:
        as_root = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
        mount = 'mount -t tmpfs -o "$1" none "$2" && echo mounted && exec cat'
        self._holder = subprocess.Popen(
            [
                *(program("unshare"), *as_root, "--mount"),
                *("sh", "-c", mount, "sh", self._options, str(self.path)),
            ],
            stdin=subprocess.PIPE,  # its end, or ours, is the end of what it waits for
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert self._holder.stdout is not None
        if (said := self._holder.stdout.readline()) != "mounted\n":
            self._end()
            if os.environ.get("CI"):
                pytest.fail(f"no small disk here: {said}")
            pytest.skip(f"no small disk here: {said}")
        of_user = ["--user", "--preserve-credentials"] if as_root else []
        #: What runs a command with this disk in its sight, in the same working directory.
        self.inside = [
            *(program("nsenter"), f"--target={self._holder.pid}", *of_user, "--mount", "--wd", "--")
        ]
        #: The disk as everybody can see it.
        self.outside = Path(f"/proc/{self._holder.pid}/root{self.path}")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._end()

    def _end(self) -> None:
        self._holder.communicate(timeout=10)

    def fill(self) -> None:
        """Leave no room."""
        with (self.outside / "filler").open("ab", buffering=0) as filler:
            for size in (65536, 4096, 1):
                try:
                    while True:
                        filler.write(bytes(size))
                except OSError as error:
                    if error.errno != errno.ENOSPC:
                        raise

    def make_room(self) -> None:
        (self.outside / "filler").unlink()


class Watch(threading.Thread):
    """Scrapes without pause from `with` to its end; every scrape must be answered, and soon."""

    def __init__(self, base: str) -> None:
        super().__init__(daemon=True)
        self._client = Client(base)
        self._over = threading.Event()
        self.seconds: list[float] = []
        self.error: Exception | None = None

    def run(self) -> None:
        try:
            while not self._over.wait(0.01):
                answer = self._client.session.get(f"{self._client.base}/metrics", timeout=20)
                answer.raise_for_status()
                self.seconds.append(answer.elapsed.total_seconds())
        except Exception as error:  # noqa: BLE001 - raised on the test's thread
            self.error = error

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._over.set()
        self.join(30)
        self._client.close()
        if self.error is not None and error is None:
            raise self.error
