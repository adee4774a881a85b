"""`sr-exporter check`: a plugin for Nagios and its kin, and a probe for Kubernetes.

Whatever happens, it prints one line and ends with 0, 1, 2 or 3, and never with 2 because of
itself: a typo must not wake anybody as a failed server would, nor let one pass for healthy. So
a wrong command line, --help and --version are 3, as the guidelines for plugins have it.
"""

from __future__ import annotations

import argparse
import enum
import importlib
import sys
import time
from typing import TYPE_CHECKING, NamedTuple, NoReturn

from sr_exporter import __version__
from sr_exporter.arguments import add_certificate, add_mi_credentials, add_trust, argument
from sr_exporter.durations import parse_duration
from sr_exporter.errors import NoVerdict
from sr_exporter.model import MAIN, PUSH_SOURCE
from sr_exporter.readiness import CORE
from sr_exporter.words import meaning

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sr_exporter.readiness import Verdict

DEFAULT_TIMEOUT = "3s"
LONGEST_TIMEOUT_SECONDS = 3600.0
#: Plugins' output is cut somewhere, by Nagios at 8 KB: the figures must not be lost.
LONGEST_TEXT = 1000
#: And a name must not hide what is said of it.
LONGEST_NAME = 200


class State(enum.IntEnum):
    """The exit statuses of the plugin API."""

    OK = 0
    WARNING = 1
    CRITICAL = 2
    UNKNOWN = 3


_DESCRIPTION = """\
Say whether something is ready: a plugin for Nagios and Icinga, and a probe for
Kubernetes. Asks an exporter, or an OpenSIPS itself over any transport:

  sr-exporter check --url http://monitor:9797 --source sip-1 drouting us
  sr-exporter check --mi http://10.0.0.5:8888/mi drouting us

A GROUP alone means its identifier main, the ID all the whole group.
Without a GROUP it is about the server: its core, and whether it is heard.
"""

_EPILOG = """\
One line is printed, with figures behind the bar:

  SR OK - sip-1 drouting/us is ready: data available (status 1) | 'status'=1

exit status: 0 ready, 1 stale (its source is lost, and it was ready before;
2 with --stale critical),
2 not ready, 3 unknown: no answer, no such thing, or a wrong command line. So
are --help and --version: a typo must pass for nothing else.
"""


class _Outcome(NamedTuple):
    state: State
    text: str
    #: As the plugin API writes figures; "" where there are none.
    figures: str = ""


def run(arguments: Sequence[str]) -> int:
    """Check, print, and give the exit status; --help and --version end by `SystemExit`."""
    try:
        outcome = _check(arguments)
    except NoVerdict as error:
        outcome = _Outcome(State.UNKNOWN, str(error))
    except KeyboardInterrupt:
        outcome = _Outcome(State.UNKNOWN, "interrupted")
    except Exception as error:  # noqa: BLE001 - a traceback would end with 1, "stale"
        outcome = _Outcome(
            State.UNKNOWN, f"a fault of sr-exporter: {type(error).__name__}: {error}"
        )
    _print(_line(outcome))
    return outcome.state


def _check(arguments: Sequence[str]) -> _Outcome:
    parser = _parser()
    given = parser.parse_intermixed_args(arguments)
    group, identifier = given.group or CORE, given.identifier or MAIN
    what = f"{_short(group)}/{_short(identifier)}"
    for name in (given.group, given.identifier, given.source):
        if name is not None and not (name and _is_utf_8(name)):
            parser.error("GROUP, ID and --source must be UTF-8, and not empty")
    if given.mi is None:
        what = f"{_short(given.source or PUSH_SOURCE)} {what}"
    # Neither has to wait until what only the other needs is imported.
    who = "check_exporter" if given.mi is None else "check_mi"
    asks = importlib.import_module(f"sr_exporter.{who}")
    began = time.monotonic()
    try:
        verdict: Verdict = asks.verdict(parser, given)
    except _WrongCommandLine:
        raise
    except NoVerdict as error:
        raise NoVerdict(f"{what}: {error}") from None
    seconds = time.monotonic() - began
    return _Outcome(
        _state(verdict, given.stale),
        _text(what, group, identifier, verdict),
        _figures(verdict, seconds),
    )


# --- judging and telling ------------------------------------------------------------------


def _state(verdict: Verdict, stale: State) -> State:
    """Say what a verdict is to a plugin: what was not ready when it was lost still is not."""
    if verdict.ready:
        return State.OK
    if verdict.stale and (verdict.status is None or verdict.status > 0):
        return stale
    return State.CRITICAL


def _text(what: str, group: str, identifier: str, verdict: Verdict) -> str:
    said = verdict.details or "no details"
    if verdict.status is not None:
        said = verdict.details or meaning(group, identifier, verdict.status)
        said = f"{said} (status {verdict.status})"
    if verdict.stale:
        when = "is stale, its source is not heard"
        return (
            f"{what} {when}: {said}" if verdict.status is None else f"{what} {when}; last: {said}"
        )
    return f"{what} is {'ready' if verdict.ready else 'not ready'}: {said}"


def _figures(verdict: Verdict, seconds: float) -> str:
    took = f"'time'={seconds:.3f}s;;;0"
    # Critical below 1, as ranges of the plugin API write it.
    return took if verdict.status is None else f"'status'={verdict.status};;1: {took}"


def _line(outcome: _Outcome) -> str:
    line = f"SR {outcome.state.name} - {_clean(outcome.text)}"
    return f"{line} | {outcome.figures}" if outcome.figures else line


def _clean(text: str) -> str:
    """Make one line of it, in which nothing passes for figures, or for a terminal's command."""
    line = "".join(one if one.isprintable() else ascii(one)[1:-1] for one in text)
    line = line.replace("|", "¦")
    return _short(line, LONGEST_TEXT)


def _short(text: str, longest: int = LONGEST_NAME) -> str:
    return text if len(text) <= longest else f"{text[:longest]}…"


def _print(line: str) -> None:
    """Print, whatever the stream can show; where it is gone the exit status is left."""
    try:
        sys.stdout.buffer.write(f"{line}\n".encode(sys.stdout.encoding, "backslashreplace"))
        sys.stdout.buffer.flush()
    except (OSError, ValueError, AttributeError):
        pass


# --- the command line ---------------------------------------------------------------------


class _WrongCommandLine(NoVerdict):
    pass


class _Parser(argparse.ArgumentParser):
    """Ends with 3 where argparse would with 2, or with 0."""

    def error(self, message: str) -> NoReturn:
        raise _WrongCommandLine(f"wrong command line: {message}")

    def exit(self, status: int = 0, message: str | None = None) -> NoReturn:  # noqa: ARG002
        super().exit(State.UNKNOWN, message)


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="sr-exporter check",
        usage="sr-exporter check (--url URL | --mi ADDRESS) [OPTIONS] [GROUP [ID]]",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("-V", "--version", action="version", version=f"sr-exporter {__version__}")
    parser.add_argument("group", metavar="GROUP", nargs="?", help="core, drouting, ...")
    parser.add_argument("identifier", metavar="ID", nargs="?", help="which identifier of it")
    asked = parser.add_mutually_exclusive_group(required=True)
    asked.add_argument("--url", help="the exporter that is asked")
    asked.add_argument(
        "--mi",
        metavar="ADDRESS",
        help="the OpenSIPS that is asked: http://, udp://, unix://, fifo://",
    )
    parser.add_argument("--source", help="with --url: the server it is about (default: push)")
    parser.add_argument(
        "--stale",
        type=_stale,
        default="warning",
        metavar="STATE",
        help="with --url: what a lost source is, warning (the default) or critical",
    )
    parser.add_argument("--token-file", metavar="FILE", help="with --url: where a token is")
    add_mi_credentials(parser, "a user of the exporter's, or of OpenSIPS' httpd")
    add_certificate(parser, "with --url: ")
    add_trust(parser)
    parser.add_argument(
        "-t",
        "--timeout",
        type=_timeout,
        default=DEFAULT_TIMEOUT,
        metavar="DURATION",
        help=f"how long an answer may take (default: {DEFAULT_TIMEOUT})",
    )
    return parser


@argument
def _stale(written: str) -> State:
    if written not in ("warning", "critical"):
        raise ValueError(f"{written!r} is neither warning nor critical")
    return State[written.upper()]


@argument
def _timeout(written: str) -> float:
    """Read a duration; a number alone is seconds, as plugins have it."""
    seconds = float(written) if written.isdecimal() else parse_duration(written)
    if not 0 < seconds <= LONGEST_TIMEOUT_SECONDS:
        raise ValueError("must be longer than 0, and an hour at most")
    return seconds


def _is_utf_8(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True
