"""`sr-exporter notifications`: what a running exporter owes, and what it gave up, for a person."""

from __future__ import annotations

import argparse
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

import requests

from sr_exporter.outbound import reason

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

EXIT_ERROR, EXIT_USAGE, EXIT_NO_ANSWER, EXIT_INTERRUPTED = 1, 2, 3, 130
DEFAULT_URL = "http://127.0.0.1:9797"
_TIMEOUT_SECONDS = 30.0
_STATES = ("dead", "owed", "held")

_DESCRIPTION = """\
Show the notifications of a running exporter's webhooks that were given up
(dead), are owed, or are held back: a beginning by its rule's `for`, an end by
its `keep_firing_for`. Have dead ones delivered again.
"""

_EPILOG = """\
examples:
  sr-exporter notifications list
  sr-exporter notifications list --state owed --notifier oncall
  sr-exporter notifications retry 6f1c5f7e-4f0b-5d0e-9a35-2b8f6c1d7e90
  sr-exporter notifications retry --all --notifier oncall

A line is: id, notifier, when the change was seen, attempts, when it is due
(unless it is dead), firing or resolved, labels, and the reason why it is dead.

exit status: 0 done, 1 the exporter refused, or has no such notifier, 2 wrong
command line, 3 no answer
"""


class _Refused(Exception):  # noqa: N818 - named for what befell the request
    """The exporter said no, and why."""


def run(arguments: Sequence[str]) -> int:
    """Do it, and give the exit status; a wrong command line ends by `SystemExit`."""
    given = _read(arguments)
    with requests.Session() as session:
        session.trust_env = False
        if given.token is not None:
            session.headers["Authorization"] = f"Bearer {given.token}"
        exporter = _Exporter(session, given.url)
        try:
            return _list(exporter, given) if given.what == "list" else _retry(exporter, given)
        except _Refused as error:
            _say(str(error))
            return EXIT_ERROR
        except (requests.RequestException, ValueError, KeyError, TypeError) as error:
            _say(
                f"no answer of an exporter from {given.url}: {_why(error)};"
                " --url says where the exporter is"
            )
            return EXIT_NO_ANSWER
        except KeyboardInterrupt:
            return EXIT_INTERRUPTED


# --- the command line ---------------------------------------------------------------------


def _read(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="sr-exporter notifications",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    commands = parser.add_subparsers(dest="what", required=True, metavar="list|retry")
    listing = commands.add_parser("list", help="print them, the oldest first", allow_abbrev=False)
    listing.add_argument(
        "--state",
        choices=_STATES,
        default="dead",
        help="which ones (default: dead)",
    )
    retry = commands.add_parser("retry", help="have dead ones delivered", allow_abbrev=False)
    retry.add_argument("ids", metavar="ID", nargs="*", help="as `list` prints it")
    retry.add_argument("--all", action="store_true", help="all that are dead, oldest first")
    for one in (listing, retry):
        one.add_argument("--notifier", metavar="NAME", help="only those for this notifier")
        one.add_argument(
            "--url",
            type=_url,
            default=DEFAULT_URL,
            help=f"where the exporter is (default: {DEFAULT_URL})",
        )
        one.add_argument(
            "--token-file",
            dest="token",
            type=_token,
            metavar="FILE",
            help="a token of push.tokens, for all sources and groups",
        )
    given = parser.parse_args(arguments)
    if given.what == "retry":
        if given.all == bool(given.ids):
            retry.error("name the notifications, or all of them with --all")
        if given.ids and given.notifier is not None:
            retry.error("--notifier belongs to --all")
    return given


def _url(written: str) -> str:
    try:
        parts = urlsplit(written)
    except ValueError:
        parts = urlsplit("")
    if parts.scheme not in ("http", "https") or not parts.hostname or "@" in parts.netloc:
        raise argparse.ArgumentTypeError("is not http(s)://host[:port][/path]")
    return written.rstrip("/")


def _token(written: str) -> str:
    try:
        token = Path(written).read_text("utf-8").strip()
    except OSError as error:
        raise argparse.ArgumentTypeError(f"{written} cannot be read: {error.strerror}") from None
    except ValueError:
        raise argparse.ArgumentTypeError(f"{written} is not UTF-8") from None
    if not token or not token.isascii() or not token.isprintable() or " " in token:
        raise argparse.ArgumentTypeError(f"{written} must hold one token")
    return token


# --- asking -------------------------------------------------------------------------------


class _Exporter:
    def __init__(self, session: requests.Session, url: str) -> None:
        self._session = session
        self._url = f"{url}/api/v1/notifications"
        self._receivers = f"{url}/api/v2/receivers"

    def notifications(self, state: str, notifier: str | None) -> Iterator[dict[str, Any]]:
        query = _query(state, notifier)
        while True:
            page = self._ask("GET", self._url, query)
            yield from page["items"]
            if page["next"] is None:
                return
            query["cursor"] = page["next"]

    def count(self, state: str, notifier: str | None) -> str:
        """Say how many there are, as far as one page tells."""
        page = self._ask("GET", self._url, _query(state, notifier))
        shown = len(page["items"])
        return str(shown) if page["next"] is None else f"more than {shown}"

    def require_notifier(self, name: str) -> None:
        """Refuse a name that no notifier has."""
        names = [one["name"] for one in self._ask("GET", self._receivers)]
        if name not in names:
            raise _Refused(f"no notifier {name!r} ({', '.join(names) or 'there is none'})")

    def retry(self, row_id: str) -> None:
        self._ask("POST", f"{self._url}/{quote(row_id, safe='')}/retry")

    def _ask(self, method: str, url: str, query: dict[str, str] | None = None) -> Any:
        answer = self._session.request(
            method, url, params=query, timeout=_TIMEOUT_SECONDS, allow_redirects=False
        )
        said = answer.json()
        if not answer.ok:
            raise _Refused(f"HTTP {answer.status_code}: {said['error']}")
        return said


def _query(state: str, notifier: str | None) -> dict[str, str]:
    return {"state": state} if notifier is None else {"state": state, "notifier": notifier}


def _why(error: Exception) -> str:
    if isinstance(error, requests.Timeout):
        return f"nothing within {_TIMEOUT_SECONDS:g} s"
    if isinstance(error, requests.ConnectionError):
        return reason(error)
    return f"something else answers: {type(error).__name__}"


def _list(exporter: _Exporter, given: argparse.Namespace) -> int:
    found = False
    for item in exporter.notifications(given.state, given.notifier):
        print(_clean(_line(item)))  # noqa: T201
        found = True
    if not found:
        # What was given up outlives its notifier: only where there is nothing it is asked for.
        if given.notifier is not None:
            exporter.require_notifier(given.notifier)
        others = ", ".join(
            f"{exporter.count(state, given.notifier)} {state}"
            for state in _STATES
            if state != given.state
        )
        _say(f"nothing is {given.state}; {others}: see --state")
    return 0


def _retry(exporter: _Exporter, given: argparse.Namespace) -> int:
    ids = given.ids
    if given.all:
        ids = [item["id"] for item in exporter.notifications("dead", given.notifier)]
        if not ids and given.notifier is not None:
            exporter.require_notifier(given.notifier)
    refused = 0
    for row_id in ids:
        try:
            exporter.retry(row_id)
        except _Refused as error:
            _say(str(error))
            refused += 1
        else:
            print(_clean(f"{row_id} is owed again"))  # noqa: T201
    if given.all:
        print(f"{len(ids) - refused} owed again, {refused} refused")  # noqa: T201
    return EXIT_ERROR if refused else 0


def _line(item: dict[str, Any]) -> str:
    alert = item["notification"]["alerts"][0]
    due = "" if item["state"] == "dead" else f" due={_moment(item['due_at'])}"
    labels = ", ".join(f'{name}="{value}"' for name, value in sorted(alert["labels"].items()))
    line = (
        f"{item['id']} {item['notifier']} {_moment(item['created_at'])}"
        f" attempts={item['attempts']}{due} {alert['status']} {{{labels}}}"
    )
    return f"{line} {item['reason']}" if item["reason"] else line


def _moment(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="seconds")


def _clean(text: str) -> str:
    """Make one line of it that no terminal takes for a command."""
    return "".join(one if one.isprintable() else ascii(one)[1:-1] for one in text)


def _say(message: str) -> None:
    print(f"sr-exporter: {_clean(message)}", file=sys.stderr)  # noqa: T201
