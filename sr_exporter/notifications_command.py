"""`sr-exporter notifications`: what a running exporter owes, and what it gave up, for a person."""

from __future__ import annotations

import argparse
import json
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from sr_exporter.arguments import add_exporter_access, argument
from sr_exporter.asking import Unanswered, exporter_url, token_in
from sr_exporter.exporter_options import exporter

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from sr_exporter.asking import Exporter

EXIT_ERROR, EXIT_USAGE, EXIT_NO_ANSWER, EXIT_INTERRUPTED = 1, 2, 3, 130
DEFAULT_URL = "http://127.0.0.1:9797"
_TIMEOUT_SECONDS = 30.0
_PATH = "/api/v1/notifications"
_STATES = ("dead", "owed", "held")

_DESCRIPTION = """\
Show the notifications of a running exporter's webhooks that were given up
(dead), are owed, or are held back: a beginning by its rule's `for`, an end by
its `keep_firing_for`. Have dead ones delivered again.
"""

_STATUS = """\
exit status: 0 done, 1 the exporter refused, or has no such notifier, 2 wrong
command line, 3 no answer
"""
_EPILOG = f"""\
examples:
  sr-exporter notifications list
  sr-exporter notifications list --state owed --notifier oncall
  sr-exporter notifications retry 6f1c5f7e-4f0b-5d0e-9a35-2b8f6c1d7e90
  sr-exporter notifications retry --all --notifier oncall

A line is: id, notifier, when the change was seen, attempts, when it is due
(unless it is dead), firing or resolved, labels, and the reason why it is dead.

{_STATUS}"""


class _Refused(Exception):  # noqa: N818 - named for what befell the request
    """The exporter said no, and why."""


def run(arguments: Sequence[str]) -> int:
    """Do it, and give the exit status; a wrong command line ends by `SystemExit`."""
    given, asking = _read(arguments)
    asked = _Exporter(asking)
    try:
        return _list(asked, given) if given.what == "list" else _retry(asked, given)
    except _Refused as error:
        _say(str(error))
        return EXIT_ERROR
    except (Unanswered, ValueError, KeyError, TypeError) as error:
        _say(
            f"no answer of an exporter from {given.url}: {_why(error)};"
            " --url says where the exporter is"
        )
        return EXIT_NO_ANSWER
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    finally:
        asking.close()


# --- the command line ---------------------------------------------------------------------


def _read(arguments: Sequence[str]) -> tuple[argparse.Namespace, Exporter]:
    parser = argparse.ArgumentParser(
        prog="sr-exporter notifications",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    commands = parser.add_subparsers(dest="what", required=True, metavar="list|retry")

    def subparser(name: str, what: str) -> argparse.ArgumentParser:
        return commands.add_parser(
            name,
            help=what,
            description=f"{what.capitalize()}.",
            epilog=_STATUS,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )

    listing = subparser("list", "print them, the oldest first")
    listing.add_argument(
        "--state",
        choices=_STATES,
        default="dead",
        help="which ones (default: dead)",
    )
    retry = subparser("retry", "have dead ones delivered")
    retry.add_argument("ids", metavar="ID", nargs="*", help="as `list` prints it")
    retry.add_argument("--all", action="store_true", help="all that are dead, oldest first")
    for one in (listing, retry):
        one.add_argument("--notifier", metavar="NAME", help="only those for this notifier")
        one.add_argument(
            "--url",
            type=argument(exporter_url),
            default=DEFAULT_URL,
            help=f"where the exporter is (default: {DEFAULT_URL})",
        )
        one.add_argument(
            "--token-file",
            dest="token",
            type=argument(token_in),
            metavar="FILE",
            help="a token of push.tokens, for all sources and groups",
        )
        add_exporter_access(one)
    given = parser.parse_args(arguments)
    if given.what == "retry":
        if given.all == bool(given.ids):
            retry.error("name the notifications, or all of them with --all")
        if given.ids and given.notifier is not None:
            retry.error("--notifier belongs to --all")
    command = listing if given.what == "list" else retry
    return given, exporter(command, given, given.url, given.token)


# --- asking -------------------------------------------------------------------------------


class _Exporter:
    def __init__(self, asking: Exporter) -> None:
        self._asking = asking

    def notifications(self, state: str, notifier: str | None) -> Iterator[dict[str, Any]]:
        query = _query(state, notifier)
        while True:
            page = self._ask("GET", _PATH, query)
            yield from page["items"]
            if page["next"] is None:
                return
            query["cursor"] = page["next"]

    def count(self, state: str, notifier: str | None) -> str:
        """Say how many there are, as far as one page tells."""
        page = self._ask("GET", _PATH, _query(state, notifier))
        shown = len(page["items"])
        return str(shown) if page["next"] is None else f"more than {shown}"

    def require_notifier(self, name: str) -> None:
        """Refuse a name that no notifier has."""
        names = [one["name"] for one in self._ask("GET", "/api/v2/receivers")]
        if name not in names:
            raise _Refused(f"no notifier {name!r} ({', '.join(names) or 'there is none'})")

    def retry(self, row_id: str) -> None:
        self._ask("POST", f"{_PATH}/{quote(row_id, safe='')}/retry")

    def _ask(self, method: str, path: str, query: dict[str, str] | None = None) -> Any:
        answer = self._asking.ask(method, path, query=query, timeout_seconds=_TIMEOUT_SECONDS)
        said = json.loads(answer.body)
        if answer.status >= 400:
            raise _Refused(f"HTTP {answer.status}: {said['error']}")
        return said


def _query(state: str, notifier: str | None) -> dict[str, str]:
    return {"state": state} if notifier is None else {"state": state, "notifier": notifier}


def _why(error: Exception) -> str:
    if isinstance(error, Unanswered):
        return str(error)
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
