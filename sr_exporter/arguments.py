"""Arguments that several commands take, each read and explained in one way."""

from __future__ import annotations

import argparse
import functools
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from sr_exporter.durations import parse_duration

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")


def argument(read: Callable[[str], T]) -> Callable[[str], T]:
    """Make what reads an argument its type: argparse does not show a ValueError's words."""

    @functools.wraps(read)
    def told(written: str) -> T:
        try:
            return read(written)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return told


@argument
def timeout(written: str) -> float:
    """Read how long something may take, in seconds."""
    seconds = parse_duration(written)
    if seconds <= 0:
        raise ValueError("must be longer than 0")
    return seconds


def add_mi_credentials(parser: argparse.ArgumentParser, about: str) -> None:
    """Let httpd's basic authentication be told; `about` is the help of `--user`."""
    parser.add_argument("--user", metavar="NAME", help=about)
    parser.add_argument(
        "--password-file", type=Path, metavar="FILE", help="where that user's password is"
    )


def add_exporter_access(parser: argparse.ArgumentParser) -> None:
    """Let it be told how an exporter is asked that knows its users, or speaks TLS."""
    parser.add_argument("--user", metavar="NAME", help="a user of basic_auth_users")
    parser.add_argument(
        "--password-file", type=Path, metavar="FILE", help="where that user's password is"
    )
    add_certificate(parser)
    add_trust(parser)


def add_certificate(parser: argparse.ArgumentParser, where: str = "") -> None:
    parser.add_argument("--cert-file", metavar="FILE", help=f"{where}who we are over https, in PEM")
    parser.add_argument(
        "--key-file", metavar="FILE", help="its key, in PEM, if it is in another file"
    )


def add_trust(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--ca-file",
        type=Path,
        metavar="FILE",
        help="whom to trust over https, in PEM (default: whom the system trusts)",
    )
