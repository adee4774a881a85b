"""`sr-exporter push`: publish the state of one key, for scripts."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from sr_exporter.arguments import add_exporter_access, argument, timeout
from sr_exporter.asking import exporter_url, token_in
from sr_exporter.client import Client, NotTaken, Rejected, stamped
from sr_exporter.exporter_options import exporter

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sr_exporter.client import Item

EXIT_REFUSED, EXIT_USAGE, EXIT_NO_ANSWER, EXIT_INTERRUPTED = 1, 2, 3, 130
DEFAULT_URL = "http://127.0.0.1:9797"
DEFAULT_TIMEOUT = "30s"

_DESCRIPTION = """\
Tell a running exporter how something stands: its status, lines for its log,
or both. Prints nothing when that is kept on disk, and else what is wrong.
"""

_EPILOG = """\
examples:
  sr-exporter push --group trunks --identifier carrier-a --status -1 \\
      --details 'no answer to OPTIONS' --ttl 90s
  sr-exporter push --source sbc-1 --group backup --status 1 \\
      --report 'dump of 4711 MB written'
  sr-exporter push --url http://monitor.example:9797 --token-file token \\
      --group trunks --status 1

A status above 0 is ready, below 0 is not; 0 becomes 1. Details of before are
cleared where none are given. With --ttl the key turns not ready by itself when
it is not pushed again in time. An exporter that is away, or busy, is tried
again until --timeout is over; pushing twice does no harm.

exit status: 0 it is kept, 1 the exporter refused it, and says why, 2 wrong
command line, 3 no answer, or it could not be kept in time
"""


def run(arguments: Sequence[str]) -> int:
    """Push, and give the exit status; a wrong command line ends by `SystemExit`."""
    parser = _parser()
    given = parser.parse_args(arguments)
    asked = exporter(parser, given, given.url, given.token)
    client = Client.asking(asked, timeout_seconds=given.timeout)
    try:
        with client:
            client.push([_item(given)])
    except Rejected as error:
        faults = [item.error for item in error.items]
        return _fail(EXIT_REFUSED, f"refused: {'; '.join(faults) or error}")
    except NotTaken as error:
        return _fail(EXIT_NO_ANSWER, f"not kept by {given.url}: {error}")
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    return 0


def _item(given: argparse.Namespace) -> Item:
    """Say what was given, and nothing else: the exporter judges it."""
    item: Item = {"group": given.group}
    if given.identifier is not None:
        item["identifier"] = given.identifier
    if given.source is not None:
        item["source"] = given.source
    if given.status is not None:
        item["status"] = given.status
    if given.details is not None:
        item["details"] = given.details
    if given.report:
        item["reports"] = stamped(given.report)
    if given.ttl is not None:
        item["ttl"] = given.ttl
    if given.on_expiry is not None:
        item["on_expiry"] = given.on_expiry
    return item


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="sr-exporter push",
        usage="sr-exporter push [--url URL] --group GROUP [OPTIONS]",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument(
        "--url",
        type=argument(exporter_url),
        default=DEFAULT_URL,
        help=f"where the exporter is (default: {DEFAULT_URL})",
    )
    parser.add_argument("--group", required=True, help="trunks, backup, ...")
    parser.add_argument("--identifier", metavar="ID", help="which one of it (default: main)")
    parser.add_argument("--source", help="which machine or program this is (default: push)")
    parser.add_argument("--status", type=int, metavar="N", help="a whole number")
    parser.add_argument("--details", metavar="TEXT", help="why; only together with --status")
    parser.add_argument(
        "--report",
        action="append",
        default=[],
        metavar="TEXT",
        help="a line for the log; may be given several times",
    )
    parser.add_argument(
        "--ttl", type=_ttl, metavar="DURATION", help="how long this holds: 90s, or seconds"
    )
    parser.add_argument(
        "--on-expiry",
        choices=("not_ready", "remove"),
        help="what is then: not ready (the default), or forgotten",
    )
    parser.add_argument(
        "--token-file",
        dest="token",
        type=argument(token_in),
        metavar="FILE",
        help="a token of push.tokens",
    )
    add_exporter_access(parser)
    parser.add_argument(
        "--timeout",
        type=timeout,
        default=DEFAULT_TIMEOUT,
        metavar="DURATION",
        help=f"how long it may take, all in all (default: {DEFAULT_TIMEOUT})",
    )
    return parser


def _ttl(written: str) -> float | str:
    """Give a number as seconds; what else it may be, the exporter knows."""
    return float(written) if written.replace(".", "", 1).isdecimal() else written


def _fail(status: int, message: str) -> int:
    """Say what went wrong in one line that no terminal takes for a command."""
    line = "".join(one if one.isprintable() else ascii(one)[1:-1] for one in message)
    print(f"sr-exporter: {line}", file=sys.stderr)  # noqa: T201
    return status
