"""The command `sr-exporter`: reads the command line, and runs what it asks for."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import importlib
import os
import re
import resource
import signal
import socket
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import structlog
import uvloop

from sr_exporter import __version__, config
from sr_exporter.arguments import argument
from sr_exporter.errors import ConfigError, ListenError, StoreFault, StoreUnusable
from sr_exporter.logs import LEVELS, LogFormat, set_up
from sr_exporter.web.config_file import WebConfigFile
from sr_exporter.web.server import Address, parse_address

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sr_exporter.config import Config

log = structlog.get_logger(__name__)

EXIT_LISTEN, EXIT_CONFIG = 1, 2
EXIT_PIPE = 128 + signal.SIGPIPE
EXIT_STORE = {
    StoreFault.UNUSABLE: 3,
    StoreFault.TRUNCATED: 4,
    StoreFault.GARBLED: 5,
    StoreFault.NEWER: 6,
}
DEFAULT_ADDRESS = Address("", 9797)
#: By the names of their modules, whose `run` takes the arguments and gives the exit status. Each is
#: imported when it is asked for, and so is the server: nobody waits for what another one needs.
COMMANDS = {
    "check": "sr_exporter.check_command",
    "push": "sr_exporter.push_command",
    "mi": "sr_exporter.mi_command",
    "rules": "sr_exporter.rules_command",
    "notifications": "sr_exporter.notifications_command",
}
#: What systems allow without being asked for more.
FEW_OPEN_FILES = 1024
#: Go must be able to read it, or an Alertmanager refuses every alert whose link begins with it.
_EXTERNAL_URL = re.compile(
    r"https?://([\w.-]+|\[[0-9a-f:.]+(%25\w+)?\])(:\d*)?(/([!$&-;=@-Z_a-z~]|%[0-9a-f]{2})*)?",
    re.ASCII | re.IGNORECASE,
)

_EPILOG = """\
commands:
  sr-exporter [serve]   run the exporter (see the options above)
  sr-exporter demo      run it with simulated OpenSIPS servers, no set-up
  sr-exporter check     say whether something is ready: Nagios, Kubernetes
  sr-exporter push      tell a running exporter how something stands
  sr-exporter mi        ask an OpenSIPS' Management Interface one thing
  sr-exporter rules     show which alert rule decides for a key, and why
  sr-exporter notifications
                        show what webhooks are owed, and what was given up

exit status: 0 stopped as asked, 1 cannot listen, 2 wrong command line or
configuration, 3 the store cannot be used, 4 it is truncated, 5 it is damaged
or no store of sr-exporter, 6 a newer sr-exporter wrote it
"""

_EPILOG_DEMO = """\
exit status: 0 stopped as asked, 1 cannot listen, 2 wrong command line
"""


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command; ends by `SystemExit`."""
    # Its default would end an exporter that still starts, where a reload is meant.
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    arguments = list(sys.argv[1:] if argv is None else argv)
    commands: dict[str, Callable[[list[str]], int]] = {
        "serve": _serve,
        "demo": _demo,
    } | {name: _imported(module) for name, module in COMMANDS.items()}
    command = arguments[0] if arguments else ""
    if command and not command.startswith("-") and command not in commands:
        _fail(EXIT_CONFIG, f"no command {command} ({', '.join(commands)})")
    try:
        status = commands[command](arguments[1:]) if command in commands else _serve(arguments)
        sys.stdout.flush()
    except BrokenPipeError:
        # Whoever read along, `| head`, has seen enough: this ends as by SIGPIPE, which the
        # interpreter ignores.
        status = EXIT_PIPE
    # Everything is kept and closed. A thread that still waits for a peer to answer, or for a
    # name to resolve, must not hold up the end: the interpreter would wait for it.
    with contextlib.suppress(BrokenPipeError):
        sys.stderr.flush()
    os._exit(status)


def _imported(module: str) -> Callable[[list[str]], int]:
    """Give what imports that module and runs it."""

    def run(arguments: list[str]) -> int:
        status: int = importlib.import_module(module).run(arguments)
        return status

    return run


def _serve(arguments: list[str]) -> int:
    parser = _parser("sr-exporter", "OpenSIPS Status/Report for Prometheus and Alertmanager.")
    parser.add_argument(
        "--config.file",
        dest="config_file",
        type=Path,
        metavar="FILE",
        help="the configuration (default: none: pushes are taken, nobody is polled or told)",
    )
    parser.add_argument(
        "--config.check",
        dest="config_check",
        action="store_true",
        help="read the configuration, say what is wrong with it, and exit",
    )
    parser.add_argument(
        "--storage.path",
        dest="storage_path",
        type=Path,
        default=Path("data"),
        metavar="DIR",
        help="where state, journal and owed webhooks are kept (default: ./data)",
    )
    given = parser.parse_args(arguments)
    read, web = _configured(given.config_file, given.web_config)
    if given.config_check:
        print(f"{given.config_file or 'the default configuration'} is good")  # noqa: T201
        if web is not None:
            print(f"{web.path} is good")  # noqa: T201
        return 0
    from sr_exporter.app import App, Options  # noqa: PLC0415 - a check needs no server

    set_up(given.log_level, LogFormat(given.log_format))
    addresses = given.listen or [DEFAULT_ADDRESS]
    options = Options(
        listen=addresses,
        storage_path=given.storage_path,
        external_url=given.external_url or _own_url(addresses[0], web),
        config=read,
        read_config=lambda: config.load(given.config_file),
        web=web,
    )
    app = App(options)
    return _loop(app.run, on_hangup=app.reload)


def _demo(arguments: list[str]) -> int:
    parser = _parser(
        "sr-exporter demo",
        "Run the exporter against simulated OpenSIPS servers on loopback, its data in\n"
        "a temporary folder. Stop it with Ctrl-C.",
        log_level="warn",
    )
    given = parser.parse_args(arguments)
    from sr_exporter import demo  # noqa: PLC0415 - the exporter needs no simulated servers

    _, web = _configured(None, given.web_config)
    set_up(given.log_level, LogFormat(given.log_format))
    addresses = given.listen or [Address("127.0.0.1", DEFAULT_ADDRESS.port)]
    with tempfile.TemporaryDirectory(prefix="sr-exporter-demo-") as folder:
        return _loop(
            lambda stop: demo.run(
                listen=addresses,
                storage_path=Path(folder),
                external_url=given.external_url or _own_url(addresses[0], web),
                stop=stop,
                web=web,
            ),
            # The terminal is gone, or somebody takes this for the exporter: it goes on.
            on_hangup=lambda: log.warning("the demo has no configuration to reload"),
        )


def _configured(path: Path | None, web_path: Path | None) -> tuple[Config, WebConfigFile | None]:
    """Read the configuration files; what is wrong with either ends this."""
    read, web, faults = config.Config(), None, []
    try:
        read = config.load(path)
    except ConfigError as error:
        faults.append(f"{path} cannot be used:\n{_listed(error)}")
    try:
        web = WebConfigFile(web_path) if web_path is not None else None
    except ConfigError as error:
        faults.append(f"{web_path} cannot be used:\n{_listed(error)}")
    if faults:
        _fail(EXIT_CONFIG, "\n".join(faults))
    return read, web


def _listed(error: ConfigError) -> str:
    return "\n".join(f"  {fault}" for fault in error.faults)


def _loop(what: Callable[[asyncio.Event], object], *, on_hangup: Callable[[], None]) -> int:
    """Run until it ends or a signal asks it to; give the exit status."""
    _open_files()

    async def run() -> None:
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, stop.set)
        loop.add_signal_handler(signal.SIGHUP, on_hangup)
        running = what(stop)
        if asyncio.iscoroutine(running):
            await running

    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(run())
    except ListenError as error:
        _fail(EXIT_LISTEN, str(error))
    except StoreUnusable as error:
        _fail(EXIT_STORE[error.fault], str(error))
    return 0


def _open_files() -> None:
    """Allow as many open files as this process may have: each connection is one."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if 0 <= hard < FEW_OPEN_FILES:  # without a limit it is -1
        log.warning("few files may be open at once; polls wait for one another", limit=hard)


def _parser(program: str, description: str, *, log_level: str = "info") -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=program,
        description=description,
        epilog=_EPILOG if program == "sr-exporter" else _EPILOG_DEMO,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"sr-exporter {__version__}")
    parser.add_argument(
        "--web.listen-address",
        dest="listen",
        type=argument(parse_address),
        action="append",
        metavar="HOST:PORT",
        help="where to listen; may be given several times (default: port 9797"
        + (", every address)" if program == "sr-exporter" else " of 127.0.0.1)"),
    )
    parser.add_argument(
        "--web.external-url",
        dest="external_url",
        type=_external_url,
        metavar="URL",
        help="where people reach this exporter: links in alerts begin with it",
    )
    parser.add_argument(
        "--web.config.file",
        dest="web_config",
        type=Path,
        metavar="FILE",
        help="TLS, users, headers and a rate limit, in the format of Prometheus'"
        " exporters (default: none)",
    )
    parser.add_argument(
        "--log.level",
        dest="log_level",
        choices=LEVELS,
        default=log_level,
        metavar="LEVEL",
        help=f"debug, info, warn or error (default: {log_level})",
    )
    parser.add_argument(
        "--log.format",
        dest="log_format",
        choices=[form.value for form in LogFormat],
        default="logfmt",
        metavar="FORMAT",
        help="logfmt or json (default: logfmt)",
    )
    return parser


def _external_url(text: str) -> str:
    if not _EXTERNAL_URL.fullmatch(text):
        raise argparse.ArgumentTypeError(f"{text!r} is not http(s)://host[:port][/path]")
    return text.rstrip("/")


def _own_url(address: Address, web: WebConfigFile | None) -> str:
    """Guess where people reach this exporter, as Prometheus does: by the host's name."""
    host = address.host
    if host in ("", "0.0.0.0", "::"):  # noqa: S104 - compared, not bound
        host = socket.gethostname()
    # The zone of a link-local address, as RFC 6874 writes it.
    scheme = "https" if web is not None and web.has_tls else "http"
    return f"{scheme}://{Address(host.replace('%', '%25'), address.port)}"


def _fail(status: int, message: str) -> NoReturn:
    print(f"sr-exporter: {message}", file=sys.stderr)  # noqa: T201
    sys.exit(status)
