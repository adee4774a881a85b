"""`sr-exporter mi`: ask an OpenSIPS' Management Interface one thing, for a person.

As harmless as the exporter itself (design, rule 1): one small, well-formed request, one answer.
What a command does is the person's own decision, but for `subscribers_list`, which up to 3.5
breaks the subscriptions of others (facts on OpenSIPS, section 2).
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import errno
import json
import os
import re
import sys
from typing import TYPE_CHECKING, Any

from sr_exporter.arguments import add_mi_credentials, add_trust, timeout
from sr_exporter.config.urls import mi_fault
from sr_exporter.errors import MiError
from sr_exporter.mi.transports import Transports
from sr_exporter.mi_options import transport_options
from sr_exporter.wire import jsonrpc
from sr_exporter.wire.text import Undecodable, loads, name, text

if TYPE_CHECKING:
    from collections.abc import Sequence

EXIT_ERROR, EXIT_USAGE, EXIT_NO_ANSWER, EXIT_INTERRUPTED = 1, 2, 3, 130
DEFAULT_TIMEOUT = "5s"

_HARMFUL = ("subscribers_list", "evi:subscribers", "subscribers")
#: Whose values are names, in the answers of Status/Report; lists of them, too.
_NAMES = ("Name", "Group", "Identifiers")
#: What JSON leaves as it is, and a terminal may obey: DEL and the C1 controls.
_CONTROLS = re.compile("[\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")

_DESCRIPTION = """\
Ask an OpenSIPS one thing over its Management Interface, and print the result
as JSON. ADDRESS is written as in the configuration:

  http://10.0.0.5:8888/mi                    https:// likewise
  udp://10.0.0.5:8889
  unix:///run/opensips/mi.sock
  fifo:///run/opensips/mi?reply_dir=/tmp

Parameters are strings, in the order of the command's documentation, or named
with --param; not both. Put -- before one that begins with a dash.
"""

_EPILOG = """\
examples:
  sr-exporter mi http://10.0.0.5:8888/mi sr_get_status core
  sr-exporter mi unix:///run/opensips/mi sr_list_reports --param group=core

subscribers_list is refused: up to OpenSIPS 3.5 it cuts off who has subscribed.
Know what a command does before you send it: some change a running server, and
some, such as t_uac_dlg, stop it from answering anybody else.

exit status: 0 the result was printed, 1 OpenSIPS answered with an error,
2 wrong command line, or the result cannot be written, 3 no whole answer:
refused, too late, broken, too big
"""


def run(arguments: Sequence[str]) -> int:
    """Ask, print, and give the exit status; a wrong command line ends by `SystemExit`."""
    given, request, transport_options = _read(arguments)
    try:
        answer = asyncio.run(_ask(given.address, request, transport_options))
        _print(_shown(jsonrpc.result(answer)))
    except jsonrpc.RpcError as error:
        _say(str(error))
        return EXIT_ERROR
    except (MiError, Undecodable) as error:
        _say(str(error))
        return EXIT_NO_ANSWER
    except RecursionError:
        _say("the result is nested too deeply to be shown")
        return EXIT_NO_ANSWER
    except OSError as error:
        _say(f"the result cannot be written: {error.strerror}")
        return EXIT_USAGE
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    return 0


# --- the command line ---------------------------------------------------------------------


def _read(arguments: Sequence[str]) -> tuple[argparse.Namespace, bytes, dict[str, Any]]:
    parser = _parser()
    given = parser.parse_intermixed_args(arguments)
    if fault := mi_fault(given.address):
        parser.error(f"ADDRESS {fault}")  # not shown: it may hold a password
    if not given.method or given.method in _HARMFUL:
        parser.error(f"METHOD {given.method!r} is refused")
    if given.params and given.param:
        parser.error("parameters are either all named with --param, or none is")
    named = dict(given.param)
    if len(named) < len(given.param):
        parser.error("--param names a parameter twice")
    try:
        request = jsonrpc.request(given.method, named or given.params)
    except UnicodeEncodeError:
        parser.error("METHOD and parameters must be UTF-8")
    except ValueError as error:
        parser.error(str(error))
    return given, request, transport_options(parser, given, given.address)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="sr-exporter mi",
        usage="sr-exporter mi [OPTIONS] ADDRESS METHOD [PARAM...]",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("address", metavar="ADDRESS", help="where OpenSIPS is asked")
    parser.add_argument("method", metavar="METHOD", help="the command: sr_list_status, uptime")
    parser.add_argument("params", metavar="PARAM", nargs="*", help="a parameter of the command")
    parser.add_argument(
        "--param",
        type=_named,
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="a named parameter; may be given several times",
    )
    parser.add_argument(
        "--timeout",
        type=timeout,
        default=DEFAULT_TIMEOUT,
        metavar="DURATION",
        help=f"how long the whole answer may take (default: {DEFAULT_TIMEOUT})",
    )
    add_mi_credentials(parser, "for httpd's basic authentication")
    add_trust(parser)
    return parser


def _named(written: str) -> tuple[str, str]:
    key, equals, value = written.partition("=")
    if not key or not equals:
        raise argparse.ArgumentTypeError(f"{written!r} is not NAME=VALUE")
    return key, value


# --- asking and showing -------------------------------------------------------------------


async def _ask(address: str, request: bytes, options: dict[str, Any]) -> bytes:
    transports = Transports()
    try:
        transport = transports.to(address, **options)
        try:
            return await transport.ask(request)
        finally:
            transport.rest()
    finally:
        transports.close()


def _shown(result: bytes) -> str:
    """Write a result as indented JSON that no terminal takes for a command."""
    written = json.dumps(_mended(loads(result)), indent=2, ensure_ascii=False)
    return _CONTROLS.sub(lambda found: f"\\u{ord(found[0]):04x}", written)


def _mended(value: Any, mend: Any = text) -> Any:
    """Make what is no UTF-8 encodable: a name or a text, each in its own way (rule 10)."""
    if isinstance(value, str):
        return mend(value)
    if isinstance(value, list):
        return [_mended(one, mend) for one in value]
    if isinstance(value, dict):
        return {key: _mended(one, name if key in _NAMES else text) for key, one in value.items()}
    return value


def _print(shown: str) -> None:
    if sys.stdout is None:
        raise OSError(errno.EBADF, "there is no output")
    left = memoryview(shown.encode() + b"\n")
    try:
        while left:  # with PYTHONUNBUFFERED a write may take a part
            left = left[sys.stdout.buffer.write(left) :]
        sys.stdout.buffer.flush()
    except BrokenPipeError:  # `| head` has seen enough; what is left has nowhere to go
        with contextlib.suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _say(message: str) -> None:
    """Say what went wrong in one line, whatever OpenSIPS put into it."""
    line = "".join(one if one.isprintable() else ascii(one)[1:-1] for one in message)
    print(f"sr-exporter: {line}", file=sys.stderr)  # noqa: T201
