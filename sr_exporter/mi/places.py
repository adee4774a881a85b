"""Where our end of a Unix datagram or of a FIFO is: a name of its own for each request.

Answers come to a file that OpenSIPS, another user as a rule, finds by its name. So the name is
one that nobody guesses, the file is there for one request only, and what a crash left behind is
removed by the next process that uses the folder.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import stat
from pathlib import Path
from tempfile import gettempdir
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_NAME = re.compile(r"sr-exporter-(\d+)-[0-9a-f]{16}")


class Place:
    """A folder for such files."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._swept = False

    @contextlib.contextmanager
    def name(self) -> Iterator[Path]:
        """Give a path at which nothing is; what is made there is removed in the end.

        Raises:
            OSError: the folder cannot be used.
        """
        if not self._swept:
            self._sweep()
            self._swept = True
        path = self._folder / f"sr-exporter-{os.getpid()}-{secrets.token_hex(8)}"
        try:
            yield path
        finally:
            with contextlib.suppress(OSError):
                path.unlink()

    def _sweep(self) -> None:
        """Remove what a process of ours left behind when it was killed."""
        for path in self._folder.iterdir():
            found = _NAME.fullmatch(path.name)
            if found is None or _is_running(int(found[1])):
                continue
            with contextlib.suppress(OSError):
                what = path.lstat()
                if what.st_uid == os.geteuid() and not stat.S_ISREG(what.st_mode):
                    path.unlink()


class OwnFolder(Place):
    """A folder below the one for temporary files, which only we can list."""

    def __init__(self) -> None:
        super().__init__(Path())

    @contextlib.contextmanager
    def name(self) -> Iterator[Path]:
        # Looked for when it is needed: there may be none, and nobody who needs it.
        self._folder = Path(gettempdir()) / f"sr-exporter-{os.geteuid()}"
        with contextlib.suppress(FileExistsError):
            self._folder.mkdir(mode=0o711)
        what = self._folder.lstat()
        if not stat.S_ISDIR(what.st_mode) or what.st_uid != os.geteuid():
            raise PermissionError(0, f"{self._folder} is somebody else's")
        # Whoever answers must get through to the name it was told.
        self._folder.chmod(0o711)
        with super().name() as path:
            yield path


def _is_running(pid: int) -> bool:
    """Whether somebody else has this process number now."""
    if pid == os.getpid():
        return False  # at the time of sweeping nothing is ours yet
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True
